"""Which descriptors of a process are its stdout and stderr, or copies of those."""

from __future__ import annotations

import os
import stat
from typing import Collection, Mapping, NamedTuple

from .. import procfs
from ..procfs import File, OpenFile

#: The devices that throw away what is written to them: /dev/null, /dev/zero and /dev/full (devices.txt of the kernel).
_DISCARDING = frozenset(os.makedev(1, minor) for minor in (3, 5, 7))
#: The kinds of devices that are terminals: virtual consoles, /dev/console and the like, /dev/pts, and serial lines.
_TERMINALS = frozenset((4, 5, *range(136, 144), 188, 204, 229))

#: The two streams, by the numbers of their descriptors.
STREAMS = (1, 2)
STREAM_NAMES = {1: "stdout", 2: "stderr"}


class Original(NamedTuple):
    """The open file that was a process's stdout or stderr."""

    file: File
    #: As open(2) has them, without `O_CLOEXEC`.
    flags: int

    @property
    def identifies(self) -> bool:
        """Whether a descriptor that leads to the same file is taken as a copy, whatever its number.

        Everybody who uses a device has the same file, and mostly for something else.
        """
        return not stat.S_ISCHR(self.file.mode)


class Target(NamedTuple):
    """A descriptor that is to lead elsewhere."""

    fd: int
    #: One of `STREAMS`.
    stream: int
    close_on_exec: bool


def find_pipelines(pid: int, own: Collection[int]) -> dict[File, str]:
    """The pipes by which a process writes to another one, and not to ginit or to one of its services.

    Args:
        pid: the process.
        own: the children that ginit has started; what a descendant of theirs reads is theirs.

    Returns:
        The pipes among its stdout and stderr, and what they are, in words.

    Raises:
        PermissionError: the process may not be looked into.
    """
    pipelines = {}
    tid = procfs.living_thread(pid)
    for fd in STREAMS:
        file = procfs.read_file(tid, fd)
        if file is not None and stat.S_ISFIFO(file.mode):
            readers = [reader for reader in procfs.list_processes() if procfs.reads_from(reader, file.name)]
            if readers and not any(_belongs_to(reader, own) for reader in readers):
                pipelines[file] = f"a pipe to process {readers[0]}"
    return pipelines


def _belongs_to(pid: int, own: Collection[int]) -> bool:
    """Whether `pid` is this process, one of its children `own`, or a descendant of one of those."""
    here = os.getpid()
    if pid == here:
        return True
    while pid not in own:
        process = procfs.read_stat(pid)
        if process is None or process.parent in (0, here):
            return False
        pid = process.parent
    return True


def find_originals(tid: int, pipelines: Mapping[File, str]) -> tuple[dict[int, Original | None], dict[int, str]]:
    """What the thread's process has as stdout and stderr.

    Args:
        tid: the thread.
        pipelines: as `find_pipelines` gives them.

    Returns:
        By their numbers, those that are to lead elsewhere, None for one that isn't open; and why those are not that are to stay.

    Raises:
        PermissionError: the process may not be looked into.
    """
    originals: dict[int, Original | None] = {}
    kept: dict[int, str] = {}
    for fd in STREAMS:
        file, opened = procfs.read_file(tid, fd), procfs.read_open_file(tid, fd)
        if file is None or opened is None:
            originals[fd] = None
            continue
        other_use = pipelines.get(file) or _other_use(file, opened)
        if other_use is None:
            originals[fd] = Original(file, opened.flags & ~os.O_CLOEXEC)
        else:
            kept[fd] = other_use
    return originals, kept


def _other_use(file: File, opened: OpenFile) -> str | None:
    """What else than a stream for text a descriptor is.

    A daemon that closes all its descriptors gets their numbers again for what it opens next.
    """
    access = opened.flags & os.O_ACCMODE
    if stat.S_ISCHR(file.mode):
        known = file.special in _DISCARDING or os.major(file.special) in _TERMINALS
        return None if known else "a device"
    if stat.S_ISFIFO(file.mode):
        return "the read end of a pipe" if access == os.O_RDONLY else None
    if stat.S_ISREG(file.mode):
        if opened.locked:
            return "a file with a lock"
        if access == os.O_RDONLY:
            return "a file open for reading"
        return None if access == os.O_WRONLY or opened.flags & os.O_APPEND else "a file open for reading and writing"
    return "a socket" if stat.S_ISSOCK(file.mode) else "no file"


def find_targets(tid: int, originals: dict[int, Original | None], own: bool) -> list[Target]:
    """The descriptors of the thread's process that are among `originals`, or copies of them.

    Args:
        tid: the thread.
        originals: as `find_originals` gives them.
        own: whether they are that process's, which then gets also those that aren't open.

    Raises:
        PermissionError: the process may not be looked into.
    """
    targets = [Target(fd, fd, False) for fd, original in originals.items() if own and original is None]
    for fd in procfs.list_descriptors(tid):
        # Nobody writes to stdin. Of the others, first the name: a look at the file may take as long as a file system that
        # doesn't answer.
        name = procfs.read_file_name(tid, fd) if fd != 0 else None
        # Of one file for both, a copy counts as stdout, but that with stderr's number.
        for stream in (2, 1) if fd == 2 else STREAMS:
            original = originals.get(stream)
            if original is not None and name == original.file.name:
                opened = _open_copy(tid, fd, original)
                if opened is not None:
                    targets.append(Target(fd, stream, bool(opened.flags & os.O_CLOEXEC)))
                    break
    return targets


def _open_copy(tid: int, fd: int, original: Original) -> OpenFile | None:
    """How the descriptor is open, if it's a copy of `original`."""
    if (fd not in STREAMS and not original.identifies) or procfs.read_file(tid, fd) != original.file:
        return None
    opened = procfs.read_open_file(tid, fd)
    return opened if opened is not None and opened.flags & ~os.O_CLOEXEC == original.flags else None
