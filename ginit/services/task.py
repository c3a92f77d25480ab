"""Task: one program of a service, `run` or `log/run`, kept as it's wanted: up, or down, or gone for good."""

from __future__ import annotations

import enum
import time
from typing import Callable

from gevent.event import Event

from ..processes.child import Child
from ..processes.diagnosis import StartError


class Want(enum.Enum):
    """What is to become of a task."""

    UP = enum.auto()
    #: Not to be started again, but it can be wanted again.
    DOWN = enum.auto()
    #: Not to be started again, ever.
    EXIT = enum.auto()


class State(enum.IntEnum):
    """What a task is doing; the numbers are those of runsv(8)."""

    DOWN = 0
    RUN = 1
    #: Its program has ended, and `finish` runs.
    FINISH = 2


def _do_nothing() -> None:
    pass


class Task:
    """Starts a program when it's wanted, waits for its end, and starts it again when that is to be.

    What the program is, and what its end means, is up to those who inherit from it.
    """

    # There may be thousands.
    __slots__ = (
        "_is_over",
        "_once",
        "_poked",
        "changed",
        "child",
        "finisher",
        "paused",
        "since",
        "state",
        "told",
        "want",
    )

    def __init__(self, want: Want) -> None:
        self.want = want
        self.state = State.DOWN
        #: When its program was started, or has ended, in seconds since the epoch.
        self.since = time.time()
        #: Its program; None before the first start.
        self.child: Child | None = None
        #: The `finish` that runs.
        self.finisher: Child | None = None
        #: Whether its program was told to pause, and to end.
        self.paused = self.told = False
        #: Called when any of these has changed.
        self.changed: Callable[[], None] = _do_nothing
        self._once = False
        self._poked = Event()
        self._is_over = False

    def live(self) -> None:
        """Start its program if it's wanted, and again when that is to be; return when it's over.

        To be called once, in a greenlet. An error may end it while its program runs.
        """
        try:
            while self._await_start():
                pause = self._run()
                if pause is None:
                    return
                self._poked.clear()
                if self.want is Want.UP:
                    self._poked.wait(pause)
        finally:
            self._is_over = True

    @property
    def running(self) -> bool:
        """Whether its program runs."""
        return self.child is not None and self.child.status is None

    @property
    def pid(self) -> int | None:
        """The PID of its program, or of `finish`, while that runs."""
        for child in (self.child, self.finisher):
            if child is not None and child.status is None:
                return child.pid
        return None

    @property
    def ended(self) -> bool:
        """Whether it is over: nothing of it runs any more, nor will."""
        return self._is_over and self.pid is None

    def join(self) -> None:
        """Wait for what still runs of it when `live` has returned."""
        for child in (self.child, self.finisher):
            if child is not None:
                child.exited.wait()

    # What can be asked of it.

    def up(self) -> None:
        """Have it run, and started again whenever it ends."""
        self._wish(Want.UP)

    def once(self) -> None:
        """Have it run, and not started again when it ends."""
        self._once = self.state is State.DOWN
        self._wish(Want.DOWN)

    def down(self) -> None:
        """Don't start it again; to end what runs takes `tell_to_end`."""
        self._once = False
        self._wish(Want.DOWN)

    def exit(self) -> None:
        """Never start it again; to end what runs takes `tell_to_end`."""
        self._once = False
        self._wish(Want.EXIT)

    def _wish(self, want: Want) -> None:
        if self.want is not Want.EXIT:
            self.want = want
            self._poked.set()
            self.changed()

    # Its life.

    def _await_start(self) -> bool:
        """Wait until its program is wanted; return whether it will ever be."""
        while self.want is Want.DOWN and not self._once:
            self._poked.wait()
            self._poked.clear()
        return self._is_wanted()

    def _is_wanted(self) -> bool:
        return (self.want is Want.UP or self._once) and self._may_start()

    def _run(self) -> float | None:
        """Live one life of its program; return the seconds until the next one, or None if there's none."""
        try:
            self._before_start()
            if not self._is_wanted():
                return 0.0  # it was, before that
            self._once = False
            child = self._start()
        except StartError as error:
            return self._start_failed(error)
        begun = time.monotonic()
        self.child = child
        self.paused = self.told = False
        self._become(State.RUN, time.time())
        child.exited.wait()
        self.told = False
        pause = self._ended(child, time.monotonic() - begun)
        self._finish(child.wait_status)
        return pause

    def _finish(self, wait_status: int) -> None:
        """Run `finish`, if there is one, and be down.

        Args:
            wait_status: the program's, as waitpid(2) gives it.
        """
        finisher = self._start_finish(wait_status)
        if finisher is not None:
            self.finisher = finisher
            self._become(State.FINISH, self.since)
            finisher.exited.wait()
            self.finisher = None
        self._become(State.DOWN, time.time())

    def _become(self, state: State, since: float) -> None:
        self.state = state
        self.since = since
        self.changed()

    # What it is.

    def _may_start(self) -> bool:
        """Whether anything may still be started."""
        return True

    def _before_start(self) -> None:
        """What comes before each start."""

    def _start(self) -> Child:
        """Start its program.

        Raises:
            StartError: it can't be started.
        """
        raise NotImplementedError

    def _start_failed(self, error: StartError) -> float | None:
        """Decide what it means that its program can't be started; return as `_ended` does."""
        raise NotImplementedError

    def _ended(self, child: Child, lived: float) -> float | None:
        """Decide what the end of its program means.

        Args:
            child: has ended.
            lived: seconds.

        Returns:
            Seconds until it's to be started again, if it's wanted then; None if it never is.
        """
        raise NotImplementedError

    def _start_finish(self, wait_status: int) -> Child | None:  # noqa: ARG002
        """Start `finish`; return None where there's none."""
        return None
