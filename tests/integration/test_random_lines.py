"""Every line comes out exactly once and in order: a random search among services, readers, settings and ends.

A case is a handful of services that print drawn lines in pieces of drawn sizes, readers of ginit's stdout and stderr that are
fast, slow or late, and how it all ends. What should come out is put together by the rules of `unit/reference.py` from what the
services say they have printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple

from harness import PATIENCE, Ginit, Services, wait_for
from hypothesis import strategies as st
from search import case_services, in_parts, search
from streams import STAMP, Destination
from unit import reference

PROGRAMS = Path(__file__).with_name("programs")
DEFAULT_MAX_LINE = 1024 * 1024
#: Seconds; more than any reader sleeps, even on a machine that has much else to do.
DRAIN_TIMEOUT = 60

#: Lines that somebody may take for something else.
ODD = (
    b"{",
    b"}",
    b"{}",
    b"{ }",
    b"}{",
    b'{"a":1',
    b' {"a":1}',
    b'{"a":1} ',
    b'{"a":"\xff\xc3"}',
    b"[1]",
    b"a\rb",
    b"\ra",
    b"a\r",
    b"\r",
    b" ",
    b"\t",
    b"\x00\x1b[31m\x7f",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    "é☃\u2028\x85".encode(),
    b'quo"te \\x41',
)
#: What ginit says of a service that has failed.
FAILURE = re.compile(rb"(ended with status \d+|was ended by SIG\w+)( \(PID \d+\))?; stopping everything")


# What is drawn.


class Lines(NamedTuple):
    """Lines of one kind: `text`, `object`, `no UTF-8`, `empty` or `odd`."""

    kind: str
    #: Bytes of each.
    size: int
    count: int
    ending: bytes = b"\n"


class Stream(NamedTuple):
    """What a service prints on its stdout or stderr."""

    parts: tuple[Lines, ...] = ()
    #: Whether the last line has its newline.
    is_finished: bool = True


class Reader(NamedTuple):
    """How something is read: late, after some seconds; slowly, with small reads at first and a pause after each; or neither."""

    late: float = 0.0
    reads: int = 0
    size: int = 1
    pause: float = 0.0


class Log(NamedTuple):
    """A log program."""

    reader: Reader = Reader()
    #: The number of bytes after which it ends, and with which status; None where it ends when its stdin does.
    limit: int | None = None
    status: int = 0


class Service(NamedTuple):
    """A service and how it ends: by a status, by a signal (a negative number), or, where it `stays`, only when it's told to."""

    out: Stream = Stream()
    err: Stream = Stream()
    #: Which of the two it prints first, `out` or `err`; or they are `mixed`.
    order: str = "out"
    #: The most bytes that it writes at a time; how many that are each time is drawn by the seed.
    chunk: int = 65536
    seed: int = 0
    end: str = "0"
    log: Log | None = None


class Case(NamedTuple):
    """One run of ginit."""

    services: tuple[Service, ...]
    json_stdout: bool = False
    log_format: str = "text"
    log_level: str = "warn"
    max_line: int = DEFAULT_MAX_LINE
    restart: bool = False
    stdout: str = "pipe"
    #: `same` where it's the same as stdout (`2>&1`).
    stderr: str = "pipe"
    stdout_reader: Reader = Reader()
    stderr_reader: Reader = Reader()
    #: Milliseconds from the start of the first service to a TERM for ginit, where one of them stays.
    stop_after: int = 0


ENDINGS = (b"\n", b"\n", b"\r\n", b"\r\r\n")
SIZES = st.one_of(
    st.integers(1, 12),
    st.integers(13, 200),
    st.just(40),
    st.sampled_from((4095, 4096, 4097, 65535, 65536, 65537)),
    st.sampled_from((DEFAULT_MAX_LINE - 1, DEFAULT_MAX_LINE, DEFAULT_MAX_LINE + 1, 3 * DEFAULT_MAX_LINE)),
)
LATE = st.sampled_from((0.1, 0.5, 1.0, 2.0)).map(lambda seconds: Reader(late=seconds))
SLOW = st.tuples(st.just(0.0), st.integers(1, 40), st.sampled_from((1, 100, 4096)), st.sampled_from((0.001, 0.02))).map(
    lambda fields: Reader(*fields)
)
READERS = st.just(Reader()) | SLOW | LATE
LOGS = st.builds(Log, READERS, st.none(), st.just(0)) | st.builds(Log, READERS, st.integers(0, 100_000), st.sampled_from((0, 3)))
KINDS = ("pipe", "file", "terminal", "socket")


@st.composite
def streams(draw: st.DrawFn, max_line: int) -> Stream:
    # Much, often: it's when the queues are full that things may go wrong.
    budget = draw(st.sampled_from((300, 20_000, 1_500_000, 3 * DEFAULT_MAX_LINE)))
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(("text", "object", "no UTF-8", "empty", "odd")))
        size = min(draw(SIZES), max(budget, 20), 2000 * max_line)
        most = max(1, min(budget // size, 23_000 if size > 12 and kind not in ("empty", "odd") else 500))
        count = draw(st.one_of(st.integers(1, min(most, 5)), st.integers(1, most), st.just(most)))
        parts.append(Lines(kind, size, count, draw(st.sampled_from(ENDINGS))))
        budget = max(1, budget - size * count)
    return Stream(tuple(parts), draw(st.booleans()))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    max_line = draw(st.sampled_from((DEFAULT_MAX_LINE, DEFAULT_MAX_LINE, DEFAULT_MAX_LINE, 10, 1000, 4096, 70_000)))
    services = draw(
        st.lists(
            st.builds(
                Service,
                out=streams(max_line),
                err=streams(max_line),
                order=st.sampled_from(("out", "err", "mixed")),
                chunk=st.sampled_from((10, 1000, 4096, 65536, 300_000)),
                seed=st.integers(0, 1000),
                end=st.sampled_from(("0", "0", "4", "115", "-9", "-10", "-15", "stays")),
                log=st.none() | LOGS,
            ),
            min_size=1,
            max_size=3,
        )
    )
    return Case(
        tuple(services),
        json_stdout=draw(st.booleans()),
        log_format=draw(st.sampled_from(("text", "json"))),
        log_level=draw(st.sampled_from(("warn", "error", "debug"))),
        max_line=max_line,
        restart=draw(st.sampled_from((False, False, True))),
        stdout=draw(st.sampled_from(KINDS)),
        stderr=draw(st.sampled_from((*KINDS, "same"))),
        stdout_reader=draw(READERS),
        stderr_reader=draw(READERS),
        stop_after=draw(st.integers(0, 300)),
    )


# What is printed.


def content(stream: Stream, letters: str) -> bytes:
    """The bytes that a stream is made of; letters tell the two streams of a service apart."""
    lines: list[bytes] = []
    for part in stream.parts:
        lines += [line(part, number, letters) + part.ending for number in range(len(lines), len(lines) + part.count)]
    data = b"".join(lines)
    return data if stream.is_finished else data[:-1]


def line(part: Lines, number: int, letters: str) -> bytes:
    if part.kind == "empty":
        return b""
    if part.kind == "odd":
        return ODD[number % len(ODD)]
    opening = {"text": b"%d ", "object": b'{"n":%d,"x":"', "no UTF-8": b"%d \xff\xc3 "}[part.kind] % number
    if part.kind != "object" and len(opening) > part.size:
        opening = b""
    closing = b'"}' if part.kind == "object" else b""
    filler = (letters * 2).encode()[number % len(letters) :]
    missing = max(0, part.size - len(opening) - len(closing))
    return opening + (filler * (missing // len(filler) + 1))[:missing] + closing


def add(services: Services, name: str, service: Service) -> None:
    """Make the directory of a service."""
    log = service.log
    directory = services.add(
        name,
        f"exec {program('printer', service.order, least_chunk(service), service.seed, service.end)}",
        log=log
        and (
            f"sleep {log.reader.late}; "
            f"exec {program('passer', *log.reader[1:], -1 if log.limit is None else log.limit, log.status)}"
        ),
    )
    (directory / "out").write_bytes(content(service.out, "abcdefghijklmnopqrstuvwxyz"))
    (directory / "err").write_bytes(content(service.err, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def program(name: str, *arguments: object) -> str:
    return " ".join([sys.executable, "-IS", str(PROGRAMS / f"{name}.py"), *map(str, arguments)])


def least_chunk(service: Service) -> int:
    """The most bytes of a write, so many that it doesn't take more than thousands of writes."""
    size = sum(part.size * part.count for stream in (service.out, service.err) for part in stream.parts)
    return max(service.chunk, size // 2000)


# What should come out.


class Output(NamedTuple):
    """What should come out of a process's streams on ginit's stdout and stderr: lines in their order, with a T for the time."""

    stdout: list[bytes]
    stderr: list[bytes]


def expected(case: Case, directory: Path) -> Iterator[Output]:
    """What should come out of a service, stream by stream."""
    out, err = (directory / "out").read_bytes(), (directory / "err").read_bytes()
    out_size, err_size = printed(directory)
    yield Output([], [stderr_line(case, directory.name, text) for text in texts(case, err[:err_size])])
    begin = 0
    for size in passed(directory):  # each life of a log program has a stdout of its own
        yield expected_of_stdout(case, directory.name, out[begin : begin + size])
        begin += size
    # What a log program didn't come to read is passed on all the same.
    yield expected_of_stdout(case, directory.name, out[begin:out_size])


def printed(directory: Path) -> tuple[int, int]:
    """How many bytes a service has printed on its stdout and stderr."""
    try:
        out, err = (directory / "printed").read_text().split()
    except FileNotFoundError:  # it was told to end before it did anything
        return 0, 0
    return int(out), int(err)


def passed(directory: Path) -> list[int]:
    """How many bytes a log program has passed on, in each of its lives."""
    try:
        return list(map(int, (directory / "log" / "passed").read_text().split()))
    except FileNotFoundError:  # it wasn't started
        return []


def texts(case: Case, stream: bytes) -> list[bytes]:
    return [piece.text for piece in reference.cut(stream, case.max_line)]


def expected_of_stdout(case: Case, name: str, stream: bytes) -> Output:
    if not case.json_stdout:
        return Output([b"T %b/run: %b" % (name.encode(), text) for text in texts(case, stream)], [])
    objects, others = reference.sort_out(stream, case.max_line, b'"service":"%b","stage":"run","logged":"T"' % name.encode())
    return Output(objects, [misfit(case, name, text) for text in others])


def stderr_line(case: Case, name: str, text: bytes, stream: str = "stderr") -> bytes:
    """A line that a service printed on its stderr."""
    if case.log_format == "text":
        return b"T %b/run: %b" % (name.encode(), text)
    return message(text, f'"service":"{name}","stage":"run","stream":"{stream}"')


def misfit(case: Case, name: str, text: bytes) -> bytes:
    """A line that a service printed on its stdout, and that is no object."""
    if case.log_level == "error":  # warnings are hidden, but not the line
        return stderr_line(case, name, text, "stdout")
    if case.log_format == "text":
        return b"T ginit: warn: %b/run: not JSON on stdout: %b" % (name.encode(), text)
    return message(b"not JSON on stdout: " + text, f'"level":"warn","service":"{name}","stage":"run"')


def message(text: bytes, fields: str) -> bytes:
    shown = json.dumps(text.decode("utf-8", "backslashreplace"), ensure_ascii=False)
    return f'{{"message":{shown},{fields},"logged":"T"}}'.encode()


def possible_statuses(case: Case) -> set[int]:
    """The statuses that ginit may exit with: which of several ends comes first isn't known."""
    statuses = {0} if is_told(case) else set()
    for service in case.services:
        if service.end not in ("115", "stays"):
            # One that is started again ends with 0.
            statuses.add(0 if service.end == "0" or case.restart else 3)
        log = service.log
        if log is not None and log.limit is not None and not (log.status and case.restart):
            statuses.add(3 if log.status else 0)
    if all(service.end == "115" for service in case.services):
        statuses.add(0)
    return statuses


def is_told(case: Case) -> bool:
    """Whether ginit is told to stop."""
    return any(service.end == "stays" for service in case.services)


# What comes out.


class Reading(threading.Thread):
    """Reads what comes out of a destination, as a reader does it."""

    def __init__(self, destination: Destination, reader: Reader) -> None:
        super().__init__(daemon=True)
        self._destination = destination
        self._reader = reader
        self._blocks: list[bytes] = []
        self.start()

    def run(self) -> None:
        time.sleep(self._reader.late)
        for _ in range(self._reader.reads):
            if not self._read(self._reader.size):
                return
            time.sleep(self._reader.pause)
        while self._read(65536):
            pass

    def _read(self, size: int) -> bool:
        try:
            block = os.read(self._destination.reader, size)
        except OSError:  # how a terminal says that nobody has it open any more
            return False
        self._blocks.append(block)
        return bool(block)

    def all(self) -> bytes:
        self.join(PATIENCE)
        assert not self.is_alive(), "ginit has exited, and somebody holds its output open"
        return b"".join(self._blocks)


def run(case: Case, services: Services, path: Path) -> tuple[int, list[bytes]]:
    """Run ginit; return its exit status, and what came out on its stdout and stderr, or on what is both."""
    with contextlib.ExitStack() as stack:
        kinds = [case.stdout] if case.stderr == "same" else [case.stdout, case.stderr]
        destinations = [Destination(kind, path / f"destination{number}") for number, kind in enumerate(kinds)]
        for destination in destinations:
            stack.callback(destination.close)
        env = {
            "GINIT_JSON_STDOUT": str(int(case.json_stdout)),
            "GINIT_LOG_FORMAT": case.log_format,
            "GINIT_LOG_LEVEL": case.log_level,
            "GINIT_MAX_LINE": str(case.max_line),
            "GINIT_DRAIN_TIMEOUT": str(DRAIN_TIMEOUT),
            "GINIT_RESTART": "on-failure" if case.restart else "no",
        }
        ginit = Ginit([str(services.path)], env, stdout=destinations[0].fd, stderr=destinations[-1].fd)
        stack.callback(ginit.destroy)
        readings: list[Reading | None] = []
        for destination, reader in zip(destinations, (case.stdout_reader, case.stderr_reader)):
            destination.close_fd()
            readings.append(Reading(destination, reader) if destination.reader >= 0 else None)
        if is_told(case):
            stop(ginit, services, case.stop_after)
        status = ginit.process.wait(PATIENCE)
        found = [reading.all() if reading else destination.finish() for destination, reading in zip(destinations, readings)]
    return status, found


def stop(ginit: Ginit, services: Services, after: int) -> None:
    """Tell ginit to stop, some time after the first service's start, if it hasn't ended by then."""
    wait_for(lambda: ginit.process.poll() is not None or any(services.path.glob("*/started")), "a service's start")
    time.sleep(after / 1000)
    with contextlib.suppress(ProcessLookupError, AssertionError):
        if ginit.process.poll() is None:
            ginit.kill()


def lines_of(output: bytes) -> list[bytes]:
    """The lines that came out, with a T for the time, without ginit's own messages, among which there must be no error."""
    assert output.endswith(b"\n") or not output, f"the last line is cut: {output[-200:]!r}"
    found = []
    for each in output.split(b"\n")[:-1]:
        text = re.sub(rb"\A%b (?=\S)" % STAMP.encode(), b"T ", each)
        text = re.sub(rb'(?<="logged":")%b(?="}\Z)' % STAMP.encode(), b"T", text)
        own = re.match(rb"T ginit: (\w+): (?!\S+: not JSON on stdout: )|{\"message\": ", text)
        if own is None:
            found.append(text)
            continue
        level = own[1] or json.loads(text)["level"].encode()
        # Where warnings are hidden, the reason why everything ends is an error: a service's failure, not ginit's.
        assert level != b"error" or FAILURE.search(text), text
        for word in (b"Traceback", b"unexpected error", b"left out", b"gave up"):
            assert word not in text, text
    return found


def check_is_interleaving(name: str, found: list[bytes], sequences: Iterable[list[bytes]]) -> None:
    """Check that all the lines of all the sequences were found, each sequence in its order, and nothing else."""
    wanted = [sequence for sequence in sequences if sequence]
    # How far each of the sequences may have come, in each of the ways in which the lines so far can be taken.
    ways = {(0,) * len(wanted)}
    for number, text in enumerate(found):
        next_ways = {
            (*way[:which], way[which] + 1, *way[which + 1 :])
            for way in ways
            for which, sequence in enumerate(wanted)
            if way[which] < len(sequence) and sequence[way[which]] == text
        }
        if not next_ways:
            way = next(iter(ways))
            nexts = [shown(sequence[place]) for sequence, place in zip(wanted, way) if place < len(sequence)]
            raise AssertionError(f"line {number} of {name} is {shown(text)}; one of these was due: {', '.join(nexts) or 'none'}")
        ways = next_ways
    if tuple(map(len, wanted)) not in ways:
        way = next(iter(ways))
        missing = deque(
            f"{len(sequence) - place} from {shown(sequence[place])} on"
            for sequence, place in zip(wanted, way)
            if place < len(sequence)
        )
        raise AssertionError(f"lines are missing at the end of {name}: {', '.join(missing)}")


def shown(text: bytes) -> str:
    return repr(text) if len(text) < 200 else f"{text[:100]!r}...{text[-50:]!r} ({len(text)} bytes)"


def check(case: Case) -> None:
    with case_services(case.services, add) as (services, path):
        status, outputs = run(case, services, path)
        wanted = [each for directory in sorted(services.path.iterdir()) for each in expected(case, directory)]
    found = [lines_of(output) for output in outputs]
    if len(found) == 1:
        check_is_interleaving("stdout and stderr", found[0], [lines for each in wanted for lines in each])
    else:
        check_is_interleaving("stdout", found[0], [each.stdout for each in wanted])
        check_is_interleaving("stderr", found[1], [each.stderr for each in wanted])
    assert status in possible_statuses(case), f"the exit status is {status}, not one of {possible_statuses(case)}"


@in_parts
def test_every_line_comes_out_exactly_once_and_in_order(request, part):
    search(request, part, cases(), check, few=12)
