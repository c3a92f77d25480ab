"""examples/guestbook, with the programs that are installed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from guestbook import EXAMPLE, ask, check_published, healthy, sign
from harness import Ginit, wait_for
from machine import free_port, require

ROOT = Path(__file__).resolve().parents[2]


class Guestbook(Ginit):
    """The example, running on a port of its own."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.port = free_port()
        environ = {
            # The example's `python3` is the tests', which has what it needs.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PORT": str(self.port),
            "RUN_DIR": str(directory / "run"),
            "DATA_DIR": str(directory / "data"),
            "GINIT_LOG_FORMAT": "json",
            "GINIT_LOG_LEVEL": "info",
        }
        super().__init__([str(ROOT / EXAMPLE / "service")], {**environ, **settings})

    def await_health(self) -> None:
        try:
            wait_for(lambda: healthy(self.port))
        except AssertionError:
            raise AssertionError(f"stdout: {self.stdout.text[-2000:]}\nstderr: {self.stderr.text[-2000:]}") from None

    def freeze_worker(self) -> None:
        """No job is done from now on."""
        self.wait_for_line('"ready"')
        (worker,) = self.find("worker.py")
        worker.suspend()
        wait_for(lambda: worker.status() == "stopped")


@pytest.fixture
def start(tmp_path):
    require("nginx", "redis-server", "flock")
    started = []

    def start(**settings):
        started.append(Guestbook(tmp_path, **settings))
        return started[-1]

    yield start
    for guestbook in started:
        guestbook.destroy()


def test_requests_in_flight_are_finished_by_all_services(start):
    guestbook = start()
    guestbook.await_health()
    guestbook.freeze_worker()
    answers = sign(guestbook.port, 5)
    guestbook.wait_for_line('"accepted"', count=5)
    guestbook.kill()
    guestbook.wait_for_line('"started".*"nginx", "stage": "term"', "stderr")
    assert not any(answer.done() for answer in answers)
    guestbook.find("worker.py")[0].resume()
    assert guestbook.wait() == 0
    lines = [json.loads(line) for line in guestbook.stdout.lines]
    assert {line["service"] for line in lines} == {"nginx", "web", "worker"}
    own = [json.loads(line) for line in guestbook.stderr.lines]
    ended = [line["service"] for line in own if line["message"].startswith("ended with") and line["stage"] == "run"]
    assert ended == ["nginx", "web", "worker", "redis"]

    again = start()
    again.await_health()
    check_published(again.port, answers)
    assert again.stop() == 0


def test_a_job_whose_worker_died_is_done_by_the_next(start):
    guestbook = start(WAIT_SECONDS="0.1")
    guestbook.await_health()
    guestbook.freeze_worker()
    assert ask(guestbook.port, "/entries", {"name": "Ada", "text": "late"})[0] == 202
    guestbook.find("worker.py")[0].send_signal(signal.SIGKILL)
    assert guestbook.wait() == 3

    again = start(CLAIM_SECONDS="0.1")
    again.await_health()
    (entry,) = wait_for(lambda: ask(again.port, "/entries")[1])
    assert entry["text"] == "late"
    assert again.stop() == 0


def test_what_is_no_entry_is_said_to_be_none(start):
    guestbook = start()
    guestbook.await_health()
    assert [ask(guestbook.port, "/entries", entry)[0] for entry in ({"name": "Ada"}, [], 1)] == [400] * 3
    assert ask(guestbook.port, "/nowhere")[0] == 404
    assert guestbook.stop() == 0
    assert not ask(guestbook.port, "/health")[0]


def test_with_a_store_elsewhere_the_own_one_disables_itself(start, tmp_path):
    guestbook = start(REDIS_URL=f"unix://{tmp_path}/nowhere.sock")
    guestbook.wait_for_line("has disabled itself.*redis", "stderr")
    wait_for(lambda: ask(guestbook.port, "/alive")[0] == 200)
    assert ask(guestbook.port, "/health")[0] == 503
    assert guestbook.stop() == 0
