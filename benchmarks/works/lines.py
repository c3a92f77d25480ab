"""Lines, as many and as fast as they come: how long until the last one has arrived, and are all there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Mapping, Sequence

from ..namespace import Namespace
from ..peers import Layout, Peer, Service, environment
from ..readers import COUNT_ALL, Reader, count_marked, last_arrival
from ..results import Case, HangError, Measure, PeerError
from .base import Work

#: In every line, and in nothing else that a peer writes.
MARK = "benchmark-line"
LINE_SIZE = 90
LONG_LINE_SIZE = 10_000
#: Lines made once and repeated.
_BLOCK = 1000
#: Seconds that a peer gets to end when all has arrived.
_STOP_TIMEOUT = 20.0
_PROGRAMS = Path(__file__).resolve().parent.parent / "programs"

_MEASURES = (Measure("seconds", "time", "s", reference="cat"), Measure("lost", "lines lost", "lines"))
PLAIN = Case("plain", "plain", _MEASURES)
JSON = Case("json", "JSON", _MEASURES)


def make_line(size: int, number: int, is_json: bool = True) -> bytes:
    """A line of `size` bytes, its newline counted: a JSON object, or a text that is none."""
    if is_json:
        head, tail = b'{"level":"info","number":%d,"message":"%b ' % (number, MARK.encode()), b'"}\n'
    else:
        head, tail = b"number %d: %b " % (number, MARK.encode()), b"\n"
    return head + b"x" * (size - len(head) - len(tail)) + tail


def write_lines(path: Path, count: int, size: int, text_every: int = 0) -> None:
    """Write a file of lines.

    Args:
        path: the file.
        count: lines.
        size: bytes of a line.
        text_every: of so many lines, one is no JSON; 0 for none.
    """
    lines = [make_line(size, number, not text_every or number % text_every != 0) for number in range(_BLOCK)]
    with path.open("wb") as file:
        for _ in range(count // _BLOCK):
            file.write(b"".join(lines))
        file.write(b"".join(lines[: count % _BLOCK]))


class LinesWork(Work):
    """Services that write lines."""

    references = ("cat",)

    def refusal(self, peer: Peer, case: Case) -> str | None:
        """JSON takes a peer that knows it."""
        if case is JSON and not (peer.knows_json or peer.is_reference):
            return "knows no JSON"
        return super().refusal(peer, case)

    def commands(self) -> Sequence[str]:
        """What the services run."""
        raise NotImplementedError

    def count(self) -> int:
        """The lines of all services."""
        raise NotImplementedError

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:
        """The time from the peer's exec to the arrival of the last line."""
        services = [Service(f"service-{number}", command) for number, command in enumerate(self.commands(), 1)]
        layout = peer.lay_out(services, directory, json=case is JSON and peer.knows_json)
        # What a peer says of its own doesn't count, so on stderr, and for those who talk on stdout, lines are told apart.
        marked = count_marked(MARK)
        with Reader(marked if peer.talks else COUNT_ALL) as out, Reader(marked) as err:
            seconds = self._time(layout, directory, out, err)
            found = int(out.result()) + int(err.result()) + sum(_count(path) for path in layout.files)
        if not found:
            raise PeerError("no line has arrived")
        return {"seconds": seconds, "lost": self.count() - found}

    def _time(self, layout: Layout, directory: Path, out: Reader, err: Reader) -> float:
        def arrived() -> int:
            files = sum(path.stat().st_size for path in layout.files if path.exists())
            return out.arrived() + err.arrived() + files

        environ = {**environment(), **layout.environ}
        with Namespace(layout.command, environ, directory, out.fd, err.fd) as namespace:
            out.close_input()
            err.close_input()
            sizes = self.sizes
            end = last_arrival(arrived, lambda: out.ended() and err.ended(), sizes.quiet_seconds, sizes.timeout)
            try:
                namespace.stop(_STOP_TIMEOUT)
            except HangError as hang:
                raise HangError(f"{hang} when told to stop, all had arrived") from hang
            return end - namespace.started


def _count(path: Path) -> int:
    """Lines in a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


class FileWork(LinesWork):
    """Services that write files of lines, each its own."""

    def files(self) -> Sequence[tuple[Path, int]]:
        """The files, and how many lines each has."""
        raise NotImplementedError

    size = LINE_SIZE
    text_every = 0

    def prepare(self, case: Case) -> None:  # noqa: ARG002
        """Write the files that aren't there yet."""
        for path, count in self.files():
            if not path.exists():
                write_lines(path, count, self.size, self.text_every)

    def commands(self) -> Sequence[str]:
        """`cat` of each file."""
        return [f"cat {shlex.quote(str(path))}" for path, _ in self.files()]

    def count(self) -> int:
        """The lines of all files."""
        return sum(count for _, count in self.files())

    def file(self, name: str) -> Path:
        """A file that is this work's."""
        return self.place.data / f"{self.letter}-{name}"


class OneService(FileWork):
    """One service that writes all lines."""

    letter = "a"
    title = "one service, lines of 90 bytes, start-up included"
    cases = (PLAIN, JSON)

    def files(self) -> Sequence[tuple[Path, int]]:
        """One."""
        return [(self.file("lines"), self.sizes.lines)]


class EightServices(FileWork):
    """Eight services that share the lines."""

    letter = "b"
    title = "eight services at once, as many lines in all"
    number = 8
    cases = (PLAIN, JSON)

    def files(self) -> Sequence[tuple[Path, int]]:
        """Eight times the same one."""
        return [(self.file("lines"), self.sizes.lines // self.number)] * self.number


class LineByLine(LinesWork):
    """Lines that are written each by a write(2) of its own."""

    letter = "c"
    title = "a fifth as many lines, written one by one"
    cases = (PLAIN, JSON)

    def count(self) -> int:
        """A fifth."""
        return self.sizes.lines // 5

    def commands(self) -> Sequence[str]:
        """A loop of writes, in Python; a system call takes most of its time."""
        line = make_line(LINE_SIZE, 1).decode().rstrip("\n")
        program = str(_PROGRAMS / "write_lines.py")
        return [" ".join(map(shlex.quote, [sys.executable, "-I", "-S", program, str(self.count()), line]))]


class LongLines(FileWork):
    """Lines of 10 KB, as many bytes in all."""

    letter = "d"
    title = "lines of 10 KB, as many bytes"
    cases = (PLAIN, JSON)
    size = LONG_LINE_SIZE

    def files(self) -> Sequence[tuple[Path, int]]:
        """One."""
        return [(self.file("lines"), max(1, self.sizes.lines * LINE_SIZE // LONG_LINE_SIZE))]


class MixedLines(FileWork):
    """JSON mode, where one line in ten is no JSON."""

    letter = "e"
    title = "JSON, one line in ten is none (stdout and stderr counted)"
    cases = (JSON,)
    text_every = 10

    def files(self) -> Sequence[tuple[Path, int]]:
        """One."""
        return [(self.file("lines"), self.sizes.lines)]
