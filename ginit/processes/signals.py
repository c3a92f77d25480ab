"""The signals that are sent to ginit."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from typing import Any, Callable

import gevent

from .procfs import read_ignored_signals

#: The signals that stop everything.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

#: What stops or resumes a job, or is ignored by default.
_JOB_CONTROL = frozenset((signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGURG, signal.SIGWINCH))
#: What the kernel sends for an error in the program.
_FAULTS = frozenset((signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP))
#: Left as they are; besides those two kinds, what can't be caught, what libev needs, and what the interpreter ignores for
#: itself and restores in the processes it starts.
_UNTOUCHED = frozenset(
    (
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGXFSZ,
        *_JOB_CONTROL,
        *_FAULTS,
        *STOP_SIGNALS,
    )
)

#: The signals that glibc keeps for itself (nptl(7)), and neither lists nor lets anybody handle. What it starts with
#: posix_spawn(3) has them ignored, as GNU make's commands have and many of Python's subprocesses.
_INTERNAL = (32, 33)
#: The number of rt_sigaction(2); see syscall(2).
_RT_SIGACTION = {"x86_64": 13, "aarch64": 134}


class Signals:
    """Watches for the signals to stop, and makes the others harmless.

    The kernel drops a signal that PID 1 has no handler for: it costs nothing, however many come. Where ginit isn't PID 1, a
    handler that does nothing has the same effect: ginit never leaves its services alone.
    """

    def __init__(self, stop: Callable[[int], None]) -> None:
        """
        Args:
            stop: called with the signal's number in the hub; must not block.
        """
        loop = gevent.get_hub().loop
        self._watchers = []
        self._replaced: dict[int, Any] = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number in STOP_SIGNALS:
            watcher = loop.signal(number)
            watcher.start(stop, number)
            self._watchers.append(watcher)
        harmless = signal.SIG_DFL if os.getpid() == 1 else _ignore
        for number in signal.valid_signals() - _UNTOUCHED:
            self._replaced[number] = signal.signal(number, harmless)
        # What was ignored when ginit was started would be ignored by all that it starts.
        for number in _JOB_CONTROL:
            if signal.getsignal(number) == signal.SIG_IGN:
                self._replaced[number] = signal.signal(number, harmless)
        for number in _FAULTS:
            if signal.getsignal(number) == signal.SIG_IGN:
                self._replaced[number] = signal.signal(number, signal.SIG_DFL)
        ignored = read_ignored_signals()
        if any(number in ignored for number in _INTERNAL):
            _reset_internal_signals()
        # From here on nothing is lost: what came before was blocked, and is delivered now.
        self._mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def close(self) -> None:
        """Stop watching, and leave everything as it was."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        for watcher in self._watchers:
            watcher.stop()
            watcher.close()
        for number, handler in self._replaced.items():
            if handler is not None:
                signal.signal(number, handler)


def let_happen() -> None:
    """Have everything noticed that has happened by now: the signals that were sent to this process, and the children that ended.

    Where a time-out and an event race, the hub may come to the time-out first, by long where this process was frozen or got no
    processor. Who has waited calls this before the time-out counts.
    """
    hub = gevent.get_hub()
    for _ in range(2):  # in this pass of the hub, or the next
        with closing(hub.loop.timer(0)) as timer:
            hub.wait(timer)


def _ignore(signum: int, frame: object) -> None:
    """Not `SIG_IGN`, which a process that is started would inherit."""


def _reset_internal_signals() -> None:
    """Have the kernel take its default action for the C library's own signals again, behind the library's back."""
    number = _RT_SIGACTION.get(os.uname().machine)
    try:
        import ctypes  # not everywhere, and seldom needed
    except ImportError:
        return
    if number is None:
        return
    libc = ctypes.CDLL(None)
    default = bytes(32)  # a struct sigaction as the kernel has it, of zeros: SIG_DFL, no flags
    for internal in _INTERNAL:
        libc.syscall(ctypes.c_long(number), ctypes.c_long(internal), default, None, ctypes.c_size_t(8))
