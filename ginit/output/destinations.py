"""The kinds of file that stdout or stderr can be, each written to without holding the hub up, and not changed for others.

`O_NONBLOCK` belongs to the open file, not to the descriptor, so a shell or another process on the same terminal would get
it too. A pipe or a terminal is opened once more, through `/proc`, for a file of ginit's own that doesn't block. What can't be
opened again (a socket, another user's pipe) is asked with each write not to block. Where the kernel can't do that, and for a
regular file, which blocks as long as a slow disk takes, there is a thread.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import stat
import termios
from typing import Protocol, Sequence, Union

import gevent

from . import pipes

Buffer = Union[bytes, memoryview]

#: Bytes that a pipe is to hold to which much is written, so that the reader and ginit wake each other less often.
_LARGE_PIPE = 512 * 1024
_WRITABLE = 2
#: A write that fails with EAGAIN instead of blocking, whatever the file's flags are (pwritev2(2); uapi/linux/fs.h).
_RWF_NOWAIT = 8
#: Bytes that one write to a regular file takes.
_CHUNK = 1024 * 1024


class Destination(Protocol):
    """What a writer fills."""

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write what can be written now, but at least a byte; wait for that; return the number of bytes."""

    def close(self) -> None:
        """Write no more."""


class _File:
    """A file that is written to without blocking, as far as it says when it would."""

    def __init__(self, fd: int, own: bool) -> None:
        """
        Args:
            fd: the descriptor to write to.
            own: whether it is to be closed in the end.
        """
        self._fd = fd
        self._own = own
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(fd, _WRITABLE)
        self._enlarged = False

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write what can be written now, but at least a byte; wait for that."""
        while True:
            try:
                return self._write(buffers)
            except BlockingIOError:
                if not self._enlarged:
                    self._enlarged = True
                    pipes.enlarge(self._fd, _LARGE_PIPE)
                else:
                    self._hub.wait(self._watcher)

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()
        if self._own:
            os.close(self._fd)

    def _write(self, buffers: Sequence[Buffer]) -> int:
        return os.writev(self._fd, buffers)


class _SharedFile(_File):
    """A file that others share and that blocks, but for a write that asks not to be."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, own=False)
        self._threaded: _ThreadedFile | None = None

    def _write(self, buffers: Sequence[Buffer]) -> int:
        if self._threaded is None:
            try:
                return os.pwritev(self._fd, buffers, -1, _RWF_NOWAIT)
            except BlockingIOError:
                raise
            except (AttributeError, NotImplementedError, OSError) as error:
                # What Linux can't do with this kind of file; with pipes, before 6.4.
                if getattr(error, "errno", errno.ENOSYS) not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                self._threaded = _ThreadedFile(self._fd, select.PIPE_BUF)
        return self._threaded.write(buffers)


class _ThreadedFile:
    """A file whose writes may block, and are left to a thread."""

    def __init__(self, fd: int, chunk: int) -> None:
        """
        Args:
            fd: the descriptor to write to; stays open.
            chunk: bytes that one write takes. Where poll(2) finds a pipe writable, it takes `PIPE_BUF` without blocking.

        Raises:
            OSError: no thread can be started.
        """
        from gevent.threadpool import ThreadPool  # 10 ms, and rarely needed

        self._fd = fd
        self._chunk = chunk
        self._pool = ThreadPool(1)
        try:
            # The thread is there from now on: when there's something to write, no more may be allowed.
            self._pool.spawn(os.getpid)
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"{error}; raise the limit (docker run --pids-limit, ulimit -u)") from error

    def write(self, buffers: Sequence[Buffer]) -> int:
        result = self._pool.apply(_write_available, (self._fd, buffers, self._chunk))
        if isinstance(result, OSError):
            raise result
        return result

    def close(self) -> None:
        """The thread ends with the process."""


def _write_available(fd: int, buffers: Sequence[Buffer], chunk: int) -> int | OSError:
    """Wait until `fd` can be written to, and write what it takes without more waiting, `chunk` bytes at a time.

    So a slow reader is seen to make progress. An error is returned: what is raised in a thread, gevent prints.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
    written = 0
    try:
        for buffer in buffers:
            for start in range(0, len(buffer), chunk):
                piece = buffer[start : start + chunk]
                taken = os.write(fd, piece)
                written += taken
                if taken < len(piece) or not poll.poll(0):
                    return written
    except BlockingIOError:
        return written  # somebody else made it non-blocking
    except OSError as error:
        return written or error
    return written


def open_file(fd: int) -> Destination:
    """What the descriptor `fd` is to be written to by.

    Raises:
        OSError: it isn't open, or no thread can be started where it takes one.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return _ThreadedFile(fd, _CHUNK)
    # Without O_NOCTTY a session leader, which PID 1 often is, would make a terminal its own.
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return _File(os.open(f"/proc/self/fd/{fd}", flags), own=True)
    except OSError:
        return _SharedFile(fd)


def unread(fd: int) -> int | None:
    """The number of bytes that the reader hasn't taken yet, in a pipe, a socket or a terminal; None for a file."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISFIFO(mode):
        return pipes.unread(fd)
    size = array.array("i", [0])
    try:
        fcntl.ioctl(fd, termios.TIOCOUTQ, size)  # SIOCOUTQ, too (tcp(7), unix(7))
    except OSError:
        return None
    return size[0]
