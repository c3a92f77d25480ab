"""Pipes: what one may hold, and what is in it (pipe(7))."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios

#: F_SETPIPE_SZ and F_GETPIPE_SZ (linux/fcntl.h), which `fcntl` has from Python 3.10 on.
_SET_SIZE = 1031
_GET_SIZE = 1032


def enlarge(fd: int, size: int) -> None:
    """Have the pipe `fd` hold `size` bytes, if it doesn't already hold as many, and if this user may have so much.

    What all pipes of a user hold together has a limit (`/proc/sys/fs/pipe-user-pages-soft`). A descriptor that is no pipe is
    left as it is.
    """
    with contextlib.suppress(OSError):
        if fcntl.fcntl(fd, _GET_SIZE) < size:
            fcntl.fcntl(fd, _SET_SIZE, size)


def unread(fd: int) -> int:
    """The number of bytes in the pipe `fd`.

    Raises:
        OSError: it is no pipe.
    """
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


def reopen_read_end(read_end: int) -> int:
    """Replace a pipe's read end by one that is no other process's, too, and so may be made not to block.

    Returns:
        The new descriptor; the old one where there's no /proc.
    """
    try:
        own = os.open(f"/proc/self/fd/{read_end}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return read_end
    os.close(read_end)
    return own


def has_writers(read_end: int) -> bool:
    """Whether somebody holds an end for writing of the pipe `read_end`."""
    poll = select.poll()
    poll.register(read_end, 0)  # a hang-up is always reported
    return not any(events & select.POLLHUP for _, events in poll.poll(0))
