"""Pump: reads one pipe in blocks and hands them on."""

from __future__ import annotations

import os
from typing import Callable, Protocol

import gevent
from gevent.hub import Waiter

from . import pipes

#: Bytes that one read takes at most: as many as a pipe of Linux holds unless it is told otherwise (pipe(7)).
BLOCK = 65536
#: Bytes that a busy stream's pipe holds, and one read of it takes; more gains little.
LARGE_BLOCK = 256 * 1024
#: Bytes; see `_keep_memory`.
_KEPT_MEMORY = 4 * 1024 * 1024
_READABLE = 1
#: How many unexpected errors in a row a pump goes on after, and the seconds before it does.
_ATTEMPTS = 20
_PAUSE = 0.01


class Sink(Protocol):
    """What a pump fills."""

    def wait_for_room(self) -> None:
        """Return when the next block may be taken."""

    def take(self, block: bytes) -> None:
        """Take a block; may wait until all of it has found room."""

    def close(self) -> None:
        """The stream has ended."""


class Pump:
    """Moves what arrives in a pipe into a sink, in a greenlet of its own.

    A block is read only when the pipe is readable and the sink has room, and each wait passes through the hub's poll: so
    streams take turns, a block each, signals and reaping are served in between, and what there's no room for stays in the
    kernel's pipe, where it slows down the process that writes it.
    """

    def __init__(self, fd: int, sink: Sink, failed: Callable[[Exception], None]) -> None:
        """
        Args:
            fd: the read end of a pipe; the pump closes it.
            sink: what the blocks go to.
            failed: called with each unexpected error. The pump goes on with the next block all the same.
        """
        os.set_blocking(fd, False)
        self._fd = fd
        self._sink = sink
        self._failed = failed
        #: Bytes that were left unread when errors made the pump end.
        self.left_behind = 0
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(fd, _READABLE)
        self._waiter: Waiter[None] | None = None
        self._left: int | None = None
        self._block = BLOCK
        self.greenlet = gevent.spawn(self._run)

    def finish(self) -> None:
        """End with what can be read now, though somebody may hold the pipe open still."""
        if self._left is None and not self.greenlet.dead:
            self._left = self.unread()
            if self._waiter is not None:
                self._hub.loop.run_callback(self._waiter.switch, None)

    def unread(self) -> int:
        """The number of bytes in the pipe."""
        return 0 if self._left == 0 or self.greenlet.dead else pipes.unread(self._fd)

    def _run(self) -> None:
        errors = 0
        try:
            while self._left != 0:
                try:
                    if not self._move_block():
                        break
                    errors = 0
                except Exception as error:
                    errors += 1
                    if errors == _ATTEMPTS:
                        self.left_behind = self.unread()
                        raise
                    self._failed(error)
                    gevent.sleep(_PAUSE)
        finally:
            self._close()

    def _move_block(self) -> bool:
        """Move a block, if one is there; return whether the stream goes on."""
        if self._left is None:
            self._wait_until_readable()
        self._sink.wait_for_room()
        try:
            block = os.read(self._fd, self._block if self._left is None else min(self._block, self._left))
        except BlockingIOError:
            return self._left is None  # in the end it says that somebody else has read the rest
        if not block:
            return False
        if self._left is not None:
            self._left -= len(block)
        self._sink.take(block)
        if self._block == BLOCK and len(block) > BLOCK // 2:
            self._enlarge()
        return True

    def _close(self) -> None:
        # From here on there's nothing left to be finished: the sink may wait for room, and the descriptor's number be another's.
        self._left = 0
        self._watcher.stop()
        self._watcher.close()
        os.close(self._fd)
        self._sink.close()

    def _enlarge(self) -> None:
        """Have a stream that fills its pipe move in larger blocks; a quiet one's pipe takes no more of the kernel's memory."""
        self._block = LARGE_BLOCK
        pipes.enlarge(self._fd, LARGE_BLOCK)
        _keep_memory()

    def _wait_until_readable(self) -> None:
        self._waiter = Waiter(self._hub)
        self._watcher.start(self._waiter.switch, None)
        try:
            self._waiter.get()
        finally:
            self._watcher.stop()
            self._waiter = None


def _keep_memory() -> None:
    """Keep the C library from giving the memory of each block back to the kernel, and from asking for it again.

    The cleared pages of fresh memory cost more than all the work on a block. glibc takes what it sees freed as the measure of
    what it is to keep (mallopt(3), the dynamic `M_MMAP_THRESHOLD`); these bytes are never touched, and so cost nothing.
    """
    bytes(_KEPT_MEMORY)
