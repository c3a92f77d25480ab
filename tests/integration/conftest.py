from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from harness import Ginit, Services, namespace_command


@pytest.fixture(scope="session", autouse=True)
def _namespaces() -> None:
    """Skip all of this where the kernel gives no PID namespaces; in CI, fail."""
    probe = subprocess.run([*namespace_command(), "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        message = f"no PID namespaces here: {probe.stderr.decode().strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """An empty directory of services."""
    return Services(tmp_path / "service")


@pytest.fixture
def start(services: Services) -> Iterator[Callable[..., Ginit]]:
    """Starts ginit over `services`, with variables as keyword arguments (`LOG_LEVEL="info"` is `GINIT_LOG_LEVEL`)."""
    started: list[Ginit] = []

    def start(*arguments: str, env: dict[str, str] | None = None, popen: dict[str, Any] | None = None, **settings: str) -> Ginit:
        variables = {f"GINIT_{name}": value for name, value in settings.items()}
        ginit = Ginit(arguments or (str(services.path),), {**variables, **(env or {})}, **(popen or {}))
        started.append(ginit)
        return ginit

    yield start
    for ginit in started:
        ginit.destroy()
