"""A task keeps its program as it's wanted, and its controls do as they are told; what no process can show in time."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event
from support import let_others_run, wait_for

from ginit.processes.child import Child
from ginit.runit.controls import Controls
from ginit.runit.supervise import Supervise
from ginit.services.task import State, Task, Want

#: Seconds; longer than anything here waits.
FOREVER = 10_000.0


class Program(Task):
    """A task whose programs are started and ended by the test."""

    can_exit = True

    def __init__(self, want: Want = Want.UP) -> None:
        super().__init__(want)
        self.children: list[Child] = []
        self.pause: float | None = FOREVER
        self.is_allowed = Event()
        self.is_allowed.set()

    def _before_start(self) -> None:
        self.is_allowed.wait()

    def _start(self) -> Child:
        self.children.append(Child(len(self.children) + 1_000_000_000))  # no process has such a PID
        return self.children[-1]

    def _ended(self, child: Child, lived: float) -> float | None:  # noqa: ARG002
        return self.pause


@pytest.fixture
def task():
    task = Program()
    gevent.spawn(task.live)
    wait_for(lambda: task.running)
    yield task
    task.exit()
    if task.running:
        task.children[-1].reaped(0)
    wait_for(lambda: task.ended)


def end(task: Program) -> None:
    task.children[-1].reaped(0)
    wait_for(lambda: task.state is State.DOWN)


def test_what_comes_before_a_start_is_no_part_of_its_life(monkeypatch):
    class Late(Program):
        lived = -1.0

        def _before_start(self) -> None:
            clock.time += 100

        def _ended(self, child: Child, lived: float) -> float | None:  # noqa: ARG002
            self.lived = lived
            return None

    class Clock:
        time = 0.0

        def monotonic(self) -> float:
            return self.time

    clock = Clock()
    monkeypatch.setattr("ginit.services.task.time", SimpleNamespace(monotonic=clock.monotonic, time=time.time))
    late = Late()
    gevent.spawn(late.live)
    wait_for(lambda: late.running)
    clock.time += 7
    late.children[-1].reaped(0)
    wait_for(lambda: late.ended)
    assert late.lived == 7


def test_a_pause_is_over_when_it_is_never_to_start_again(task):
    end(task)
    let_others_run()
    assert not task.ended
    task.exit()
    wait_for(lambda: task.ended)
    assert len(task.children) == 1


@pytest.mark.parametrize("wish", ["up", "once"])
def test_a_pause_is_over_when_it_is_asked_to_start(task, wish):
    end(task)
    getattr(task, wish)()
    wait_for(lambda: len(task.children) == 2)
    assert task.state is State.RUN


def test_taken_down_in_a_pause_it_stays_down_until_it_is_asked_to_start(task):
    end(task)
    task.down()
    let_others_run()
    assert len(task.children) == 1
    task.up()
    wait_for(lambda: len(task.children) == 2)


def test_what_is_never_to_start_again_is_not_brought_back(task):
    task.exit()
    task.up()
    task.once()
    assert task.want is Want.EXIT
    end(task)
    wait_for(lambda: task.ended)
    assert len(task.children) == 1


def test_taken_down_just_before_its_start_it_is_not_started():
    task = Program()
    task.is_allowed.clear()
    gevent.spawn(task.live)
    let_others_run()
    task.down()
    task.is_allowed.set()
    let_others_run()
    assert task.children == []
    task.exit()
    wait_for(lambda: task.ended)


def test_a_task_that_is_over_stays_so(task):
    task.pause = None
    end(task)
    wait_for(lambda: task.ended)
    task.up()
    let_others_run()
    assert len(task.children) == 1


def test_commands_that_somebody_else_takes_just_before_are_no_matter(task, tmp_path):
    failures: list[OSError] = []
    controls = Controls(task, Supervise(os.fsencode(tmp_path)), failures.append)
    fd = os.open(tmp_path / "supervise/control", os.O_RDWR | os.O_NONBLOCK)
    stolen: list[bytes] = []
    thief = gevent.get_hub().loop.io(fd, 1)
    thief.priority = thief.loop.MAXPRI  # so that it comes first when both are told of the same command
    thief.start(lambda: stolen.append(os.read(fd, 64)))
    try:
        os.write(fd, b"d")
        wait_for(lambda: stolen)
        let_others_run()
        thief.stop()
        assert task.want is Want.UP
        os.write(fd, b"o")
        wait_for(lambda: task.want is Want.DOWN)
        assert failures == []
    finally:
        thief.stop()
        thief.close()
        os.close(fd)
        controls.close()
