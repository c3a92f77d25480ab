"""The web application."""

from __future__ import annotations

from typing import Any, Callable, Iterable


def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer every request in the same way."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\n"]
