"""Tracee: a thread of another process, which is made to stand still, or to go on for a little.

Nobody waits for a tracee by waitpid(2). Its stops are seen by looking at it, so the reaper may take their statuses; and what
ends while it is traced is the reaper's, as everything that ends. The thread that seizes one has to make all requests; when that
thread ends, the kernel lets go what it hasn't let go itself.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from typing import Callable, Iterator

from ...patience import Patience
from .. import procfs
from . import linux
from .errors import EndedError, StuckError
from .linux import Stop

#: Seconds for which a tracee is looked at all the time: mostly it stops at once.
_SPIN = 0.00025
#: Seconds between two looks after that, at first and at most.
_PAUSE = 0.0002
_LONGEST_PAUSE = 0.05
#: How many times as long as one that is stuck one may take that waits for a processor, on a machine with too few of them.
_PATIENCE = 5


@contextlib.contextmanager
def ended_if_missing() -> Iterator[None]:
    """Raises `EndedError` for the errors by which the kernel says that a tracee has ended."""
    try:
        yield
    except (ProcessLookupError, FileNotFoundError) as error:
        raise EndedError from error


class Tracee:
    """A thread that is traced by this one, until it has ended, or `detach`."""

    def __init__(self, tid: int) -> None:
        """Seize it, and have it stop; `wait` says when it has.

        Args:
            tid: the thread's ID.

        Raises:
            OSError: EPERM where it may not be traced, ESRCH where it has ended.
        """
        self.tid = tid
        #: Why it stands still; None while it doesn't.
        self.stop: Stop | None = None
        #: The number of the system call that it was waiting in when it was interrupted, if it was.
        self.interrupted_call = procfs.read_system_call(tid)
        linux.seize(tid)
        linux.interrupt(tid)

    def wait(self, timeout: float | None) -> None:
        """Wait until it stands still.

        Args:
            timeout: seconds for which it may be where it can't be interrupted, and `_PATIENCE` times as long in all; None for
                as long as it takes.

        Raises:
            EndedError: it has ended.
            StuckError: it doesn't stop in that time.
        """
        stop = self._next_stop(timeout)
        while not stop.is_event:
            self._resume(linux.resume, stop)  # a signal came first
            stop = self._next_stop(timeout)

    def go_to_system_call(self) -> None:
        """Let it go on until it is about to enter the kernel, or about to leave it.

        Raises:
            EndedError: it has ended.
        """
        self._go_on(linux.resume_to_system_call, lambda stop: stop.is_system_call)

    def leave_system_call(self) -> None:
        """Let it go on from there, but not to the next instruction of its program.

        To where the kernel looks at the registers for a system call to be restarted.

        Raises:
            EndedError: it has ended.
        """
        with ended_if_missing():
            linux.interrupt(self.tid)
        self._go_on(linux.resume, lambda stop: stop.is_event)

    def detach(self) -> None:
        """Let it go on, and leave it to itself."""
        with contextlib.suppress(ProcessLookupError):
            linux.detach(self.tid)

    def _go_on(self, resume: Callable[[int, int], None], there: Callable[[Stop], bool]) -> None:
        while True:
            if self.stop is None:
                raise EndedError  # it stood still, so that has been seen already
            self._resume(resume, self.stop)
            # As long as it takes: it can't be left to itself as it is.
            if there(self._next_stop(None)):
                return

    def _resume(self, resume: Callable[[int, int], None], stop: Stop) -> None:
        self.stop = None
        with ended_if_missing():
            resume(self.tid, stop.pending_signal)

    def _next_stop(self, timeout: float | None) -> Stop:
        spinning = Patience(_SPIN, _SPIN)
        limit = math.inf if timeout is None else timeout
        stuck, patience = Patience(limit, 2 * _LONGEST_PAUSE), Patience(limit * _PATIENCE, 2 * _LONGEST_PAUSE)
        pause = _PAUSE
        while True:
            is_over = patience.is_over()
            is_stuck = stuck.is_over()
            self.stop = linux.read_stop(self.tid)
            if self.stop is not None:
                return self.stop
            if not spinning.is_over():
                os.sched_yield()
                continue
            state = self._state()
            if state in b"ZX":
                raise EndedError
            if state != b"D":
                stuck = Patience(limit, 2 * _LONGEST_PAUSE)
            elif is_stuck:
                raise StuckError(state)
            if is_over:
                raise StuckError(state)
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)

    def _state(self) -> bytes:
        """Its state, a letter of proc_pid_stat(5): `X`, dead, where it isn't there or isn't the same one."""
        status = procfs.read_status(self.tid)
        return status[b"State"][:1] if status.get(b"TracerPid") == b"%d" % threading.get_native_id() else b"X"
