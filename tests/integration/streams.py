"""What the tests of the output share: timestamps, services that print, and all that can be a stdout."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import re
import socket
import sys
import termios
import tty
from pathlib import Path
from typing import Callable

from harness import Collector, Ginit, wait_for, without_farewell

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"

#: What can hold up whoever writes to it.
KINDS = ("pipe", "terminal", "socket")

#: A service that writes numbered lines, each in a write of its own, until it gets TERM; `written` then holds their number.
COUNTER = f"""#!{sys.executable} -IS
import os, signal

class Stop(BaseException):
    pass

def stop(*_):
    raise Stop

signal.signal(signal.SIGTERM, stop)
number = 0
try:
    while True:
        # Less than PIPE_BUF: a write happens or doesn't.
        os.write(FD, b'{{"n":%d}}\\n' % number)
        number += 1
except Stop:
    with open("written", "w") as file:
        file.write(str(number))
"""
COUNTER_ON_STDOUT = COUNTER.replace("FD", "1")
COUNTER_ON_STDERR = COUNTER.replace("FD", "2")


def without_stamps(stream: Collector) -> list[str]:
    """The lines without their timestamps, which all of them must have."""
    matches = [re.fullmatch(f"{STAMP} (.*)", line, re.DOTALL) for line in stream.lines]
    assert all(matches), stream.lines
    return [match[1] for match in matches if match]


def printf(text: str | bytes, *, stderr: bool = False) -> str:
    """A shell command that prints `text`."""
    data = text.encode() if isinstance(text, str) else text
    escaped = "".join(f"\\{byte:03o}" for byte in data)
    return f"printf '{escaped}'" + (" >&2" if stderr else "")


def numbers(lines: list[str]) -> list[int]:
    """What the lines of a counter say, JSON with metadata or plain."""
    return [int(re.search(r'{"n":(\d+)[,}]', line)[1]) for line in lines]


def is_counted(lines: list[str], count: int) -> bool:
    """Whether the lines of a counter are all there, once, and in order."""
    return numbers(lines) == list(range(count))


def wait_until_blocked(ginit: Ginit, *words: str) -> None:
    """Wait until a service that writes all the time is held up, as its reader takes nothing."""
    process = wait_for(lambda: ginit.find(*words))[0]

    def written() -> int:
        return process.io_counters().write_chars

    # More than its pipe holds; from there on ginit's own limit counts, to which the metadata are added.
    wait_for(lambda: written() > 100_000)
    settled(written)


def settled(look: Callable[[], object]) -> None:
    """Wait until what `look` returns doesn't change any more. Too early only makes a test weaker."""
    seen: list[object] = []

    def is_settled() -> bool:
        seen.append(look())
        return len(seen) > 30 and len(set(seen[-30:])) == 1

    wait_for(is_settled, "something that settles")


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory at a time."""
    return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])


def bytes_in(fd: int) -> int:
    """The number of bytes that can be read."""
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


def is_nonblocking(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


class Destination:
    """Something that can be a stdout or a stderr, and its reader."""

    def __init__(self, kind: str, path: Path) -> None:
        self._path = path
        self._collector: Collector | None = None
        #: The test's own descriptor of the open file that ginit gets.
        self.fd = -1
        self.reader = -1
        if kind == "file":
            self.fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        elif kind == "pipe":
            self.reader, self.fd = os.pipe()
        elif kind == "terminal":
            self.reader, self.fd = pty.openpty()
            tty.setraw(self.fd)
        else:
            ours, theirs = socket.socketpair()
            self.reader, self.fd = ours.detach(), theirs.detach()

    def read(self) -> Collector:
        """Begin to read."""
        self._collector = Collector(os.fdopen(os.dup(self.reader), "rb", buffering=0))
        return self._collector

    def read_some(self) -> bytes:
        """What is there, at least a byte."""
        return os.read(self.reader, 4096)

    def leave(self) -> None:
        """Have no reader any more."""
        os.close(self.reader)
        self.reader = -1

    def close_fd(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def finish(self) -> bytes:
        """All that is still to be read; to be called when nobody but ginit writes any more."""
        self.close_fd()
        if self.reader < 0:
            return without_farewell(self._path.read_bytes())
        collector = self._collector or self.read()
        collector.resume()
        collector.join()
        return collector.data

    def close(self) -> None:
        self.close_fd()
        if self._collector:
            self._collector.resume()
        if self.reader >= 0:
            self.leave()
