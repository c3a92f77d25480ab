"""What /proc says of processes (proc(5))."""

from __future__ import annotations

import os
import select
import time
from typing import NamedTuple

#: Clock ticks a second, the unit of start times.
_TICKS: int = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that ginit uses."""

    #: The file name of its executable, cut to 15 bytes; a process may change it.
    command: bytes
    #: One letter, `Z` for a zombie.
    state: bytes
    parent: int
    threads: int
    #: Seconds since the machine was started, to within a clock tick (10 ms on most).
    started: float

    @property
    def ended(self) -> bool:
        """Whether the whole process has ended; a zombie with threads is a main thread that left the others running."""
        return self.state in b"ZX" and self.threads <= 1

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal, and gets no other one but KILL and CONT."""
        return self.state == b"T"

    @property
    def age(self) -> float:
        """Seconds since it was forked; up to a clock tick too many."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started


def read_stat(pid: int) -> Stat | None:
    """What /proc/PID/stat says; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command stands in parentheses and may hold any byte, parentheses and spaces too.
    start, end = data.index(b"("), data.rindex(b")")
    fields = data[end + 2 :].split()
    return Stat(data[start + 1 : end], fields[0], int(fields[1]), int(fields[17]), int(fields[19]) / _TICKS)


def read_command_line(pid: int) -> bytes:
    """Its command line, the arguments parted by spaces; empty where it has none (any more)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            return file.read(4096).rstrip(b"\0").replace(b"\0", b" ")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def read_ignored_signals() -> set[int]:
    """The numbers of the signals that this process ignores, of those too that the C library hides."""
    try:
        with open("/proc/self/status", "rb", buffering=0) as file:
            data = file.read()
    except FileNotFoundError:
        return set()  # no /proc is mounted
    start = data.index(b"\nSigIgn:") + len(b"\nSigIgn:")
    mask = int(data[start : data.index(b"\n", start)], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def has_writers(pid: int, fd: int) -> bool:
    """Whether somebody holds the write end of the pipe whose read end is descriptor `fd` of `pid`."""
    try:
        read_end = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        poll = select.poll()
        poll.register(read_end, 0)  # a hang-up is always reported
        return not any(events & select.POLLHUP for _, events in poll.poll(0))
    finally:
        os.close(read_end)


def read_children(pid: int) -> list[int]:
    """The children of the main thread of `pid`, to which reparented processes come; one that just came may be missing.

    Raises:
        OSError: /proc can't be read.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
            return [int(child) for child in file.readall().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return scan_children(pid)


def scan_children(pid: int) -> list[int]:
    """The children of `pid`, found by reading every process's status.

    Raises:
        OSError: /proc can't be read.
    """
    stats = ((int(name), read_stat(int(name))) for name in os.listdir("/proc") if name.isdigit())
    return [child for child, stat in stats if stat is not None and stat.parent == pid]
