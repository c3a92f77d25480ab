"""What /proc says of processes, of any: how they descend, what they hold and what they used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, NamedTuple

PROC = Path("/proc")


class Process(NamedTuple):
    """A line of /proc/PID/stat, its beginning."""

    pid: int
    command: str
    state: str
    parent: int


class Use(NamedTuple):
    """What processes have used since they started."""

    #: Times that a thread gave up the processor of itself, to wait; each is a wake-up later.
    switches: int
    #: Seconds of CPU time, of user and kernel.
    seconds: float


def processes() -> list[Process]:
    """Every process that is there now."""
    found = (read_process(int(name)) for name in os.listdir(PROC) if name.isdigit())
    return [process for process in found if process is not None]


def read_process(pid: int) -> Process | None:
    """The process `pid`; None where there's none any more."""
    try:
        head, _, tail = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = tail.split()
    return Process(pid, head.partition("(")[2], fields[0], int(fields[1]))


def descendants(pid: int) -> list[Process]:
    """The process `pid` and all that descend from it, zombies too."""
    everything = processes()
    children: dict[int, list[Process]] = {}
    for process in everything:
        children.setdefault(process.parent, []).append(process)
    found = [process for process in everything if process.pid == pid]
    for process in found:  # grows as it goes
        found.extend(children.get(process.pid, ()))
    return found


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that processes hold, a page that several share counted by its share (PSS, proc(5))."""
    return sum(_memory(pid) for pid in pids)


def _memory(pid: int) -> int:
    for line in _read(PROC / str(pid) / "smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def use(pids: Iterable[int]) -> Use:
    """What the threads of processes have used."""
    switches = nanoseconds = 0
    for pid in pids:
        for task in (PROC / str(pid) / "task").glob("*"):
            for line in _read(task / "status").splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    switches += int(line.split()[1])
            # utime and stime count ticks of 10 ms, too coarse for a process that idles.
            nanoseconds += int((_read(task / "schedstat") or "0").split()[0])
    return Use(switches, nanoseconds / 1e9)


class BytesRead:
    """How much a process has read, from pipes too.

    The file is open as long as this is used: when the process has ended and isn't reaped, what it says can still be read,
    but none but root may open it.
    """

    def __init__(self, pid: int) -> None:
        """Begin with a process that runs."""
        self._file = (PROC / str(pid) / "io").open()

    def __call__(self) -> int:
        """Bytes so far."""
        self._file.seek(0)
        return int(self._file.read().partition("rchar:")[2].split()[0])

    def close(self) -> None:
        """Ask no more."""
        self._file.close()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has ended meanwhile
