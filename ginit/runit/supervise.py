"""Supervise: the directory `supervise` of a service, with the files by which runsv(8) and sv(8) talk.

Who owns the service's directory may put anything there. So nothing is opened before it is seen to be what it should be, no link
is followed but the superuser's or ginit's user's own, nothing is written but to files made for it, and nothing is waited for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import Callable, Iterator, NamedTuple

from ..services.task import State

#: What stands for `supervise`, in messages too.
NAME = b"supervise"
#: The label of the epoch's first second (TAI64, as runit has it: no leap seconds but those ten).
_TAI64_EPOCH = 2**62 + 10
#: As many as the kernel follows in a path; path_resolution(7).
_MOST_LINKS = 40
_O_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldError(Exception):
    """Another process holds the lock: a runsv, or another ginit, runs the service."""


class Status(NamedTuple):
    """What is told of a task."""

    state: State
    #: Seconds since the epoch when the program was started, or had ended.
    since: float
    #: The PID of the program, or of `finish`; None if neither runs.
    pid: int | None
    #: Whether the program was told to pause, and to end.
    paused: bool
    told: bool
    #: What is to become of it: `up`, `down` or `exit`.
    want: str

    def pack(self) -> bytes:
        """The 20 bytes of `status`: a TAI64N label, the PID, and flags, as daemontools' supervise has them and runsv adds to."""
        seconds = int(self.since)
        label = (_TAI64_EPOCH + seconds).to_bytes(8, "big") + int((self.since - seconds) * 1e9).to_bytes(4, "big")
        want = b"u" if self.want == "up" else b"d"
        return label + (self.pid or 0).to_bytes(4, "little") + bytes([self.paused]) + want + bytes([self.told, self.state])

    def describe(self) -> str:
        """The line of `stat`."""
        words = [self.state.name.lower()]
        if self.paused:
            words.append("paused")
        if self.told:
            words.append("got TERM")
        if self.state is not State.DOWN and self.want != "up":
            words.append(f"want {self.want}")
        return ", ".join(words)


class Supervise:
    """A `supervise` directory that is locked and in use."""

    def __init__(self, parent: bytes) -> None:
        """
        Args:
            parent: the directory that has it, a service's or its `log`.

        Raises:
            HeldError: another process uses it.
            OSError: it can't be used; `filename` says which part of it.
        """
        self._fds: list[int] = []
        try:
            with _naming(b""):
                self._directory = self._keep(_open_directory(os.path.join(parent, NAME)))
            self._lock()
            #: `control`, to read from without blocking; open for writing too, so that it never comes to an end.
            self.control = self._open_fifo(b"control", os.O_RDWR)
            self._open_fifo(b"ok", os.O_RDONLY)  # who can open it for writing knows that somebody is here
        except BaseException:
            self.close()
            raise

    def write(self, status: Status) -> None:
        """Tell the state of things.

        Raises:
            OSError: it can't be written; `filename` says what.
        """
        self._replace(b"status", status.pack())  # first: it's what sv looks at
        self._replace(b"pid", b"%d\n" % status.pid if status.pid else b"")
        self._replace(b"stat", status.describe().encode() + b"\n")

    def close(self) -> None:
        """Let others use it."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _lock(self) -> None:
        with _naming(b"lock"):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(b"lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._directory))
            lock = self._open(b"lock", os.O_WRONLY | os.O_APPEND, stat.S_ISREG, "not a file")
            if os.fstat(lock).st_nlink > 1:
                raise OSError(0, "has another name, so that it may be anybody's")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HeldError from error

    def _open_fifo(self, name: bytes, flags: int) -> int:
        with _naming(name):
            with contextlib.suppress(FileExistsError):
                os.mkfifo(name, 0o600, dir_fd=self._directory)
            return self._open(name, flags, stat.S_ISFIFO, "not a FIFO")

    def _open(self, name: bytes, flags: int, is_right: Callable[[int], bool], otherwise: str) -> int:
        """Open a file of the directory's, if it is of the right kind."""
        # Opening can block, or be an act in itself, as it is for some devices. To look only, and then to open what was seen
        # through /proc, is neither, and leaves nobody the time to exchange it.
        path = os.open(name, _O_PATH, dir_fd=self._directory)
        try:
            if not is_right(os.fstat(path).st_mode):
                raise OSError(0, otherwise)
            return self._keep(os.open(f"/proc/self/fd/{path}", flags | os.O_NONBLOCK | os.O_CLOEXEC))
        finally:
            os.close(path)

    def _replace(self, name: bytes, content: bytes) -> None:
        """Put a new file in a file's place, so that who reads it never sees half of it."""
        new = name + b".new"
        with _naming(new):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=self._directory)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(new, flags, 0o644, dir_fd=self._directory)
            try:
                written = os.write(fd, content)
            finally:
                os.close(fd)
            if written < len(content):
                raise OSError(0, "no space left")
        with _naming(name):
            os.rename(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def _open_directory(path: bytes) -> int:
    """Open a directory, which is made if its parent is there and it isn't.

    Links on the way are followed if they are the superuser's or ginit's user's; each step is taken from the one before, so that
    nobody exchanges what was looked at.

    Raises:
        OSError: it can't be opened, or a link isn't followed.
    """
    names = _split(path)
    links = 0
    here = os.open(b"/", os.O_PATH | os.O_CLOEXEC)
    try:
        while names:
            name = names.pop(0)
            if not names:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=here)
            found = os.open(name, _O_PATH, dir_fd=here)
            if stat.S_ISLNK(os.fstat(found).st_mode):
                try:
                    target = _read_link(found)
                finally:
                    os.close(found)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                names[:0] = _split(target)
                found = os.open(b"/" if target.startswith(b"/") else b".", os.O_PATH | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = found
        return os.open(f"/proc/self/fd/{here}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(here)


def _split(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name]


def _read_link(link: int) -> bytes:
    """Where a link leads, if it's one to follow."""
    owner = os.fstat(link).st_uid
    if owner not in (0, os.geteuid()):
        raise OSError(0, f"a link of user {owner}'s, which isn't followed")
    return os.readlink(b"", dir_fd=link)


@contextlib.contextmanager
def _naming(name: bytes) -> Iterator[None]:
    """A context in which errors are about one file of the directory's."""
    try:
        yield
    except OSError as error:
        error.filename = os.path.join(NAME, name) if name else NAME
        raise
