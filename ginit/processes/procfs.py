"""What /proc says of processes (proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator, NamedTuple

#: The flag of a process that has been forked and hasn't executed a program since (linux/sched.h).
_PF_FORKNOEXEC = 0x40
#: Clock ticks a second, the unit of start times.
_TICKS: int = os.sysconf("SC_CLK_TCK")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that ginit uses."""

    #: The file name of its executable, cut to 15 bytes; a process may change it.
    command: bytes
    #: One letter, `Z` for a zombie.
    state: bytes
    parent: int
    #: Seconds of processor time that it has taken, in clock ticks (10 ms on most).
    processor_time: float
    threads: int
    #: Seconds since the machine was started, to within a clock tick (10 ms on most).
    started: float
    #: Whether it has executed a program since it was forked.
    executed: bool

    @property
    def ended(self) -> bool:
        """Whether the whole process has ended; a zombie with threads is a main thread that left the others running."""
        return self.state in b"ZX" and self.threads <= 1

    @property
    def gone(self) -> bool:
        """Whether the thread of that ID has ended, though others of its process may go on."""
        return self.state in b"ZX"

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal, and gets no other one but KILL and CONT."""
        return self.state == b"T"

    @property
    def sleeps(self) -> bool:
        """Whether the thread of that ID waits for something, and not for a processor or a disk."""
        return self.state not in b"RD"

    @property
    def age(self) -> float:
        """Seconds since it was forked; up to a clock tick too many."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started


def is_mounted() -> bool:
    """Whether there is a /proc."""
    return os.path.exists("/proc/self/stat")


def is_of_this_namespace() -> bool:
    """Whether the PIDs in /proc are those of this process's PID namespace; so they are where there is no /proc."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return True


def may_be_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal, or that can't be told; it isn't if it has ended."""
    try:
        stat = read_stat(living_thread(pid))
    except OSError:  # too many open files, say
        return True
    return stat is None or stat.stopped


def is_hidden_child(pid: int) -> bool:
    """Whether a process of which there is no `Stat` is a child that runs: /proc hides others' processes (`hidepid`, proc(5))."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def read_stat(pid: int) -> Stat | None:
    """What /proc/PID/stat says; None where there is no such process, or it's hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The command stands in parentheses and may hold any byte, parentheses and spaces too.
    start, end = data.index(b"("), data.rindex(b")")
    fields = data[end + 2 :].split()
    user, system, started = (int(fields[place]) / _TICKS for place in (11, 12, 19))
    executed = not int(fields[6]) & _PF_FORKNOEXEC
    return Stat(data[start + 1 : end], fields[0], int(fields[1]), user + system, int(fields[17]), started, executed)


def living_thread(pid: int) -> int:
    """The ID of a thread of `pid` that hasn't ended: the main one, else another; `pid` itself where there's none.

    Where the main thread has ended and others go on, /proc/PID is the main thread's still: it has no descriptors, no memory and
    no command line any more, isn't stopped when the others are, and none but root may look into it. /proc/TID has all that.

    Raises:
        OSError: /proc can't be read.
    """
    stat = read_stat(pid)
    if stat is not None and stat.gone and not stat.ended:
        for tid in read_threads(pid):
            stat = read_stat(tid)
            if stat is not None and not stat.gone:
                return tid
    return pid


def read_command_line(pid: int) -> bytes:
    """Its command line, the arguments parted by spaces; empty where it has none (any more), or it's hidden."""
    try:
        with open(f"/proc/{living_thread(pid)}/cmdline", "rb", buffering=0) as file:
            return file.read(4096).rstrip(b"\0").replace(b"\0", b" ")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
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


def read_children(pid: int) -> list[int]:
    """The children of the main thread of `pid`, to which reparented processes come; one that just came may be missing.

    For the children of any thread, see `read_all_children`.

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
    stats = ((process, read_stat(process)) for process in list_processes())
    return [child for child, stat in stats if stat is not None and stat.parent == pid]


def read_all_children(pid: int) -> list[int]:
    """The children of all threads of `pid`; none where it has ended.

    Raises:
        OSError: /proc can't be read.
    """
    children: list[int] = []
    for tid in read_threads(pid):
        try:
            with open(f"/proc/{pid}/task/{tid}/children", "rb", buffering=0) as file:
                children += map(int, file.readall().split())
        except ProcessLookupError:
            continue
        except FileNotFoundError:
            if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
                return scan_children(pid)  # a kernel without CONFIG_PROC_CHILDREN
    return children


def read_threads(pid: int) -> list[int]:
    """The IDs of the threads of `pid`; none where it has ended."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def read_status(pid: int) -> dict[bytes, bytes]:
    """The fields of /proc/PID/status by their names; none where there is no such process."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            lines = file.readall().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}


def read_system_call(tid: int) -> int | None:
    """The number of the system call that a thread waits in; None where it doesn't, or where that can't be seen."""
    with contextlib.suppress(OSError, ValueError):
        with open(f"/proc/{tid}/syscall", "rb", buffering=0) as file:
            number = int(file.read().split()[0])  # or the word `running`
        if number >= 0:
            return number
    return None


def read_executable_ranges(pid: int) -> Iterator[tuple[int, int]]:
    """Where the memory of `pid` is executable, from and to; first what the kernel itself puts into every program (vdso(7)).

    Raises:
        OSError: the process has ended, or may not be looked into.
    """
    with open(f"/proc/{pid}/maps", "rb") as file:
        entries = [line.split(None, 5) for line in file]
    entries.sort(key=lambda entry: entry[-1].strip() != b"[vdso]")
    for entry in entries:
        if b"x" in entry[1] and entry[-1].strip() != b"[vsyscall]":  # in which nothing else can be executed
            start, end = entry[0].split(b"-")
            yield int(start, 16), int(end, 16)


class File(NamedTuple):
    """What a descriptor of a process leads to."""

    #: Its name, as /proc has it; all descriptors of one file have the same.
    name: bytes
    device: int
    inode: int
    #: As stat(2) has it.
    mode: int
    #: The kind of device that a device file stands for.
    special: int


class OpenFile(NamedTuple):
    """How a process has a file open."""

    #: As open(2) has them, with `O_CLOEXEC`.
    flags: int
    #: Whether there's a lock on it.
    locked: bool


# Each of these takes a process for its main thread, which may have ended before it (see `living_thread`), or any thread.


def list_descriptors(pid: int) -> list[int]:
    """The numbers of the open descriptors of `pid`, in their order; none where it has ended.

    Raises:
        PermissionError: the process may not be looked into.
    """
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    except (FileNotFoundError, ProcessLookupError):
        return []


def read_file_name(pid: int, fd: int) -> bytes | None:
    """The name of what descriptor `fd` of `pid` leads to, which costs no look at the file; None where it isn't open.

    Raises:
        PermissionError: the process may not be looked into.
    """
    try:
        return os.readlink(b"/proc/%d/fd/%d" % (pid, fd))
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_file(pid: int, fd: int) -> File | None:
    """What descriptor `fd` of `pid` leads to; None where it isn't open.

    Raises:
        OSError: the process may not be looked into, or the file's file system fails.
    """
    name = read_file_name(pid, fd)
    if name is None:
        return None
    try:
        found = os.stat(f"/proc/{pid}/fd/{fd}")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return File(name, found.st_dev, found.st_ino, found.st_mode, found.st_rdev)


def read_open_file(pid: int, fd: int) -> OpenFile | None:
    """How `pid` has descriptor `fd` open; None where it isn't.

    Raises:
        PermissionError: the process may not be looked into.
    """
    try:
        with open(f"/proc/{pid}/fdinfo/{fd}", "rb", buffering=0) as file:
            lines = file.readall().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    flags = next(int(line.split()[1], 8) for line in lines if line.startswith(b"flags:"))
    return OpenFile(flags, any(line.startswith(b"lock:") for line in lines))


def list_processes() -> list[int]:
    """The processes there are.

    Raises:
        OSError: /proc can't be read.
    """
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def reads_from(pid: int, pipe: bytes) -> bool:
    """Whether `pid` has the pipe of that name open for reading, as far as it may be looked into."""
    tid = living_thread(pid)
    with contextlib.suppress(PermissionError):
        for fd in list_descriptors(tid):
            if read_file_name(tid, fd) == pipe:
                opened = read_open_file(tid, fd)
                if opened is not None and opened.flags & os.O_ACCMODE == os.O_RDONLY:
                    return True
    return False


def read_ptrace_scope() -> int:
    """How far Yama restricts ptrace(2), from 0 (not at all) to 3 (nobody may); see the kernel's admin-guide/LSM/Yama.rst."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", "rb", buffering=0) as file:
            return int(file.read())
    except FileNotFoundError:
        return 0
