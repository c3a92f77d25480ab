"""Reaper: the hub's SIGCHLD watcher, and the only place that waits for a process.

libev waits for any child as soon as one child watcher exists, and calls a watcher for PID 0 with each one it reaped. So
there is one watcher, for all of them; a second waiter anywhere in the process would steal statuses from it.
"""

from __future__ import annotations

import os
import signal
from typing import Callable, KeysView

import gevent


class Reaper:
    """Reaps every child of this process, ginit's own and reparented ones, and tells whoever asked for it."""

    def __init__(self, others: Callable[[int, int], None], after: Callable[[], None]) -> None:
        """
        Args:
            others: called in the hub for each process that nobody watches, with its PID and its status as waitpid(2)
                gives it; must not block.
            after: called in the hub after each process that was reaped; must not block.
        """
        self._after = after
        self._others = others
        self._watched: dict[int, Callable[[int], None]] = {}
        self._watcher = gevent.get_hub().loop.child(0, False)
        self._watcher.start(self._on_exit)
        # What had ended before the watcher stood sent its signal to nobody.
        os.kill(os.getpid(), signal.SIGCHLD)

    def watch(self, pid: int, callback: Callable[[int], None]) -> None:
        """Have `callback` called once with the status of the child `pid`, in the hub, when that ends; it must not block.

        To be called before the hub runs again after the process was started, or it may be reaped before.
        """
        self._watched[pid] = callback

    @property
    def watched(self) -> KeysView[int]:
        """The processes that somebody watches and that aren't reaped yet."""
        return self._watched.keys()

    def childless(self) -> bool:
        """Whether this process has no child at all, alive or dead."""
        try:
            # WNOWAIT looks and leaves everything as it is.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    def close(self) -> None:
        """Stop watching."""
        self._watcher.stop()
        self._watcher.close()

    def _on_exit(self) -> None:
        pid, status = self._watcher.rpid, self._watcher.rstatus
        assert pid is not None
        callback = self._watched.pop(pid, None)
        if callback is not None:
            callback(status)
        else:
            self._others(pid, status)
        self._after()


def become_subreaper() -> None:
    """Make this process the parent of its descendants' orphans, as PID 1 is (PR_SET_CHILD_SUBREAPER, prctl(2)).

    Raises:
        OSError: the kernel refuses, or the C library can't be called.
    """
    try:
        import ctypes  # not everywhere, and not needed as PID 1
    except ImportError as error:
        raise OSError(f"this Python has no ctypes ({error})") from error
    pr_set_child_subreaper = 36
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
