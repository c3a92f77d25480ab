"""Services that flood don't keep the others waiting, nor ginit."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import psutil
import pytest
from harness import wait_for

FLOOD = """exec yes '{"message":"the quick brown fox jumps over the lazy dog"}'"""
#: Answers whenever it is asked.
QUIET = """while :; do
    if [ -e ask ]; then rm ask; echo '{"answer":1}'; echo answer >&2; fi
    sleep 0.01
done"""


@pytest.fixture
def answers(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """A reader that takes all as fast as it can; `answers()` is the number of answers that it has seen, `.fd` where to write."""
    found = tmp_path / "answers"
    with found.open("wb") as file:
        reader = subprocess.Popen(["grep", "--line-buffered", "answer"], stdin=subprocess.PIPE, stdout=file)

    def count() -> int:
        return found.read_bytes().count(b"\n")

    count.fd = reader.stdin  # type: ignore[attr-defined]
    yield count
    reader.stdin.close()
    reader.wait()


@pytest.mark.parametrize("json_stdout", ["0", "1"], ids=["plain", "JSON"])
def test_a_quiet_service_gets_through_while_others_flood(services, start, answers, json_stdout):
    for name in "abc":
        services.add(name, FLOOD)
    quiet = services.add("quiet", QUIET)
    ginit = start(JSON_STDOUT=json_stdout, popen={"stdout": answers.fd})
    for number in range(1, 21):
        (quiet / "ask").touch()
        wait_for(lambda number=number: answers() == number)
    ginit.wait_for_line("answer", "stderr", count=20)
    assert len(ginit.stderr.lines) == 20
    assert ginit.stop() == 0


def test_signals_and_reaping_are_served_while_services_flood(services, start, answers):
    for name in "abc":
        services.add(name, FLOOD)
    orphans = services.add("orphans", "until [ -e go ]; do sleep 0.01; done; (sh -c 'sleep 0.02 &'); touch done; exec sleep 1000")
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore", popen={"stdout": answers.fd})
    (orphans / "go").touch()
    wait_for((orphans / "done").exists)
    wait_for(lambda: len(ginit.psutil.children()) == 4)
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in ginit.psutil.children())
    assert ginit.stop(signal.SIGINT) == 0
