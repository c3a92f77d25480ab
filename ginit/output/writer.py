"""The one way to stdout and stderr: a greenlet for each destination, a bounded queue, whole blocks in order."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from itertools import islice
from typing import Callable

import gevent
from gevent.event import Event

from ..patience import Patience
from .destinations import Buffer, open_file, unread

#: Bytes that may wait in the queue before the pumps stop reading.
QUEUE_LIMIT = 1024 * 1024
#: The most buffers that one writev(2) takes (IOV_MAX of Linux, limits.h).
_BUFFERS = 1024
#: Seconds between two looks at whether a reader has given up.
_WATCH_INTERVAL = 0.05
#: Seconds that count between two of them, at most.
_WATCH_STEP = 1.0
#: How many unexpected errors in a row a writer goes on after, and the seconds before it does.
_ATTEMPTS = 20
_PAUSE = 0.01
#: Seconds that the last attempt takes at most, which writes without gevent.
_LAST_ATTEMPT = 1.0


class Writer:
    """Takes blocks of whole lines and writes them, in order, to one destination.

    `put` never blocks; whoever can wait asks for room first. When the destination fails, or its reader is given up, what
    is queued and what is still put is counted in `lost`.
    """

    def __init__(self, fd: int, failed: Callable[[OSError], None], unexpected: Callable[[Exception], None]) -> None:
        """
        Args:
            fd: the descriptor to write to; stays open.
            failed: called once, in a greenlet of the writer's, when the destination can't be written to any more.
            unexpected: called with each unexpected error. The writer goes on all the same.
        """
        self._fd = fd
        self._file = open_file(fd)
        self._closed = False
        self._failed = failed
        self._unexpected = unexpected
        self._queue: deque[Buffer] = deque()
        self._wake = Event()
        self._room = Event()
        self._room.set()
        self._closing = False
        self._blocked_since: float | None = None
        #: Bytes that are queued or being written.
        self.pending = 0
        #: Bytes that were given up.
        self.lost = 0
        #: Why nothing is written any more, if so.
        self.broken: str | None = None
        self._greenlet = gevent.spawn(self._run)

    def put(self, block: bytes) -> None:
        """Queue `block`, which is whole lines."""
        if self.broken is not None:
            self.lost += len(block)
            return
        self._queue.append(block)
        self.pending += len(block)
        if self.pending >= QUEUE_LIMIT:
            self._room.clear()
        self._wake.set()

    def wait_for_room(self) -> None:
        """Wait until the queue is below `QUEUE_LIMIT`; then one block may be put before the next wait."""
        while not self._room.is_set():
            self._room.wait()

    def close(self, timeout: float) -> int:
        """Wait until everything is written, or the reader has taken nothing for `timeout` seconds.

        Returns:
            The number of bytes that were given up.
        """
        self._closing = True
        self._wake.set()
        watch = gevent.spawn(self.give_up_when_stuck, timeout)
        self._greenlet.join()
        watch.kill()
        if not self._closed:
            self._closed = True
            self._file.close()
        return self.lost

    def give_up_when_stuck(self, timeout: float) -> None:
        """Stay until the reader has taken nothing for `timeout` seconds, counted from now; then discard what is queued."""
        patience = Patience(timeout, _WATCH_STEP)
        seen = None
        while True:
            gevent.sleep(_WATCH_INTERVAL)
            is_over = patience.is_over()
            # A pipe is writable again when a page of it is free; a reader may take much less than that at a time.
            state = (self._blocked_since, unread(self._fd))
            if self._blocked_since is None or state != seen:
                seen, patience = state, Patience(timeout, _WATCH_STEP)
            elif is_over:
                self._break(f"its reader took nothing for {timeout:g} s")
                self._greenlet.kill(block=False)
                return

    def _break(self, why: str) -> None:
        self.broken = why
        self.lost += self.pending
        self.pending = 0
        self._queue.clear()
        self._room.set()

    def _run(self) -> None:
        errors = 0
        while not self._closing or self._queue:
            try:
                if self._queue:
                    self._write_some()
                else:
                    self._wake.clear()
                    self._wake.wait()
                errors = 0
            except OSError as error:
                self._break(error.strerror or str(error))
                self._failed(error)
                return
            except Exception as error:
                errors += 1
                if errors == _ATTEMPTS:
                    self._write_directly()
                    self._break("an unexpected error keeps ginit from writing")
                    raise
                self._unexpected(error)
                gevent.sleep(_PAUSE)

    def _write_some(self) -> None:
        batch = list(islice(self._queue, _BUFFERS))
        if self._blocked_since is None:
            self._blocked_since = time.monotonic()
        written = self._file.write(batch)
        if self.broken is not None:
            self.lost -= written  # it was given up while this was on its way after all
            return
        if written:
            self._blocked_since = None
            self._drop(written)
        if self.pending < QUEUE_LIMIT:
            self._room.set()

    def _drop(self, size: int) -> None:
        """Take the first `size` bytes out of the queue, which are written."""
        self.pending -= size
        if not self.pending:
            self._queue.clear()
            return
        while size:
            first = self._queue.popleft()
            if size < len(first):
                self._queue.appendleft(memoryview(first)[size:])
                return
            size -= len(first)

    def _write_directly(self) -> None:
        """Write what is queued without gevent, as that fails; nothing else goes on meanwhile."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        end = time.monotonic() + _LAST_ATTEMPT
        try:
            while self._queue and poll.poll(max(0.0, 1000 * (end - time.monotonic()))):
                self._drop(os.write(self._fd, self._queue[0][: select.PIPE_BUF]))  # so much doesn't block
        except OSError:
            return  # what is left is counted


def open_writers(failed: Callable[[str, OSError], None], unexpected: Callable[[Exception], None]) -> tuple[Writer, Writer]:
    """The writers for stdout and stderr: one and the same where both are one file, lest they cut each other's lines.

    Args:
        failed: called with `stdout` or `stderr` and the error when that can't be written to any more.
        unexpected: as `Writer` calls it.

    Raises:
        OSError: stdout or stderr isn't open.
    """
    files = []
    for fd, name in ((1, "stdout"), (2, "stderr")):
        try:
            files.append(os.fstat(fd))
        except OSError as error:
            raise OSError(
                error.errno, f"{name} (descriptor {fd}) isn't open; redirect it to /dev/null to discard what it gets"
            ) from error
    stdout = Writer(1, lambda error: failed("stdout", error), unexpected)
    if os.path.samestat(*files):
        return stdout, stdout
    return stdout, Writer(2, lambda error: failed("stderr", error), unexpected)
