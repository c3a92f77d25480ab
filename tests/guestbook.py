"""Talks to examples/guestbook as its visitors do."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

EXAMPLE = "examples/guestbook"


def ask(port: int, path: str, entry: object = None) -> tuple[int, Any]:
    """Get something, or send an entry, and return status and answer; 0 where nobody listens, or it isn't JSON."""
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET" if entry is None else "POST", path, None if entry is None else json.dumps(entry))
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if response.headers["Content-Type"] == "application/json" else None
    except OSError:
        return 0, None
    finally:
        connection.close()


def healthy(port: int) -> bool:
    return ask(port, "/health")[0] == 200


def sign(port: int, count: int) -> list[Future[tuple[int, Any]]]:
    """Send so many entries at the same time."""
    with_text = [{"name": "Ada", "text": f'entry {number} <"é">'} for number in range(count)]
    pool = ThreadPoolExecutor(count)
    answers = [pool.submit(ask, port, "/entries", entry) for entry in with_text]
    pool.shutdown(wait=False)
    return answers


def check_published(port: int, answers: list[Future[tuple[int, Any]]]) -> None:
    """Each was answered in full, and is there with its text, once."""
    results = [answer.result() for answer in answers]
    assert [status for status, _ in results] == [201] * len(answers)
    assert {entry["text"] for _, entry in results} == {f'entry {number} <"é">' for number in range(len(answers))}
    status, entries = ask(port, "/entries")
    assert status == 200
    assert sorted(entries, key=identity) == sorted((entry for _, entry in results), key=identity)


def identity(entry: dict[str, str]) -> str:
    return entry["id"]
