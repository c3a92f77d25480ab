"""The processes at the other end of a peer's stdout and stderr: they count, and the time of the last arrival is seen."""

from __future__ import annotations

import os
import subprocess
import time
from types import TracebackType
from typing import Callable, Sequence, final

from . import procfs
from .results import HangError

#: Seconds between two looks: one in a hundred of the shortest time that is measured so.
_PAUSE = 0.002
#: Seconds that a reader gets to be ready, or to end when its pipe has.
_PATIENCE = 20

#: Counts every line. It reads gigabytes a second, so it doesn't measure itself.
COUNT_ALL = ("wc", "-l")
DISCARD = ("sed", "d")
LAST_LINES = ("tail", "-n", "3")


def count_marked(mark: str) -> tuple[str, ...]:
    """The command that counts the lines that hold `mark`."""
    return ("grep", "-c", "-F", "-e", mark)


@final
class Reader:
    """A command that reads a pipe. As a context manager it's ended when it's left."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start `command`, and wait until it reads."""
        read_end, self.fd = os.pipe()
        self._process = subprocess.Popen(
            command, stdin=read_end, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"}
        )
        os.close(read_end)
        self._result: str | None = None
        deadline = time.monotonic() + _PATIENCE
        while not self._reads(command[0]) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        self._bytes_read = procfs.BytesRead(self._process.pid)
        self._before = self._bytes_read()

    def _reads(self, name: str) -> bool:
        process = procfs.read_process(self._process.pid)
        return process is not None and (process.command, process.state) == (name, "S")

    def close_input(self) -> None:
        """Leave the pipe to the writers that have it: it ends when they do."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def arrived(self) -> int:
        """Bytes that it has read."""
        return self._bytes_read() - self._before

    def ended(self) -> bool:
        """Whether it has come to the end of its input. It isn't reaped, so it can still be asked."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def result(self) -> str:
        """What it has to say at the end of its input, which must be there or near.

        Raises:
            HangError: somebody still holds the pipe.
        """
        if self._result is None:
            self.close_input()
            try:
                self._result = self._process.communicate(timeout=_PATIENCE)[0].decode(errors="replace").strip()
            except subprocess.TimeoutExpired:
                raise HangError("its output doesn't end") from None
        return self._result

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close_input()
        self._bytes_read.close()
        self._process.kill()
        self._process.communicate()


def last_arrival(arrived: Callable[[], int], ended: Callable[[], bool], quiet: float, timeout: float) -> float:
    """Wait for the end of what arrives.

    Args:
        arrived: bytes that have arrived.
        ended: whether no more can.
        quiet: seconds without an arrival, after the first one, that count as the end.
        timeout: seconds until it is given up.

    Returns:
        The moment of the last arrival, in seconds on the monotonic clock.

    Raises:
        HangError: it is given up.
    """
    start = last = time.monotonic()
    seen = 0
    while True:
        over = ended()
        count = arrived()
        now = time.monotonic()
        if count > seen:
            seen, last = count, now
        if over or (seen and now - last >= quiet):
            return last
        if now - start >= timeout:
            raise HangError(f"not done within {timeout:g} s")
        time.sleep(_PAUSE)
