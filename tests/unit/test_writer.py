"""A Writer fills real pipes, sockets, terminals and files, whose readers are slow, gone, or take nothing at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import tty
from pathlib import Path
from typing import Callable, Iterator

import gevent
import pytest
from support import PATIENCE, let_others_run, pipe_size, read_to_end, wait_for

from ginit.output.writer import QUEUE_LIMIT, Writer

#: Blocks of all sizes, more of them than one call takes, and more bytes than a pipe or the queue holds.
BLOCKS = [b"%d " % number + b"x" * (number * 7919 % 3000) + b"\n" for number in range(1500)]
BLOCKS[700] = b"y" * 300000 + b"\n"


class Destination:
    """Something that a Writer writes to: two descriptors, one for it and one to read what it wrote."""

    def __init__(self, read_end: int, write_end: int) -> None:
        self.read_end = read_end
        self.write_end = write_end
        self.failures: list[OSError] = []
        self._writers: list[Writer] = []

    def open_writer(self) -> Writer:
        writer = Writer(self.write_end, self.failures.append, pytest.fail)
        self._writers.append(writer)
        return writer

    def close(self) -> None:
        """Close both; the next test may get descriptors of these numbers, so no writer may be at work still."""
        self.close_read_end()
        wait_for(lambda: not any(writer.pending for writer in self._writers), "the writers' end")
        self.close_write_end()

    def read(self, size: int = 65536) -> bytes:
        """All that's written until the last writer has closed it."""
        self.close_write_end()
        return read_to_end(self.read_end, size)

    def close_read_end(self) -> None:
        if self.read_end >= 0:
            os.close(self.read_end)
        self.read_end = -1

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
        self.write_end = -1


def open_pipe() -> Destination:
    return Destination(*os.pipe())


def open_socket() -> Destination:
    read_end, write_end = socket.socketpair()
    return Destination(read_end.detach(), write_end.detach())


def open_terminal() -> Destination:
    controller, terminal = os.openpty()
    tty.setraw(terminal)  # lest a newline becomes two characters
    return Destination(controller, terminal)


OPENERS = {"pipe": open_pipe, "socket": open_socket, "terminal": open_terminal}


@pytest.fixture(params=sorted(OPENERS))
def destination(request) -> Iterator[Destination]:
    """Each kind that has a reader."""
    destination = OPENERS[request.param]()
    yield destination
    destination.close()


@pytest.fixture
def pipe() -> Iterator[Destination]:
    pipe = open_pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def errors(monkeypatch) -> list[BaseException]:
    """The errors that leave a greenlet or a callback, each of which would make ginit stop everything."""
    errors: list[BaseException] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: errors.append(error[2]), raising=False)
    return errors


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The clock by which a reader is given up."""
    clock = Clock()
    monkeypatch.setattr("ginit.output.writer.time", clock)
    monkeypatch.setattr("ginit.patience.time", clock)
    return clock


def look_again(clock: Clock) -> None:
    """Wait until somebody has looked at the clock some more times."""
    looks = clock.looks
    wait_for(lambda: clock.looks >= looks + 3, "a look at the clock")


def pass_time(clock: Clock, seconds: float) -> None:
    """Let time pass, and have it seen to pass."""
    for _ in range(round(2 * seconds)):
        clock.now += 0.5
        look_again(clock)


@pytest.mark.parametrize("size", [65536, 777])
def test_what_is_put_arrives_whole_and_in_order(destination, errors, size):
    writer = destination.open_writer()
    for block in BLOCKS:
        writer.put(block)
    reading = gevent.spawn(read_to_end, destination.read_end, size)
    assert writer.close(PATIENCE) == 0
    destination.close_write_end()
    assert reading.get() == b"".join(BLOCKS)
    assert destination.failures == []
    assert errors == []


def test_what_is_put_is_written_without_more_ado(destination):
    writer = destination.open_writer()
    for line in (b"one\n", b"two\n"):
        writer.put(line)
        wait_for(lambda: writer.pending == 0, "the write")
        assert os.read(destination.read_end, 100) == line
    writer.close(PATIENCE)


def test_a_regular_file_is_appended_to(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"before\n")
    fd = os.open(str(path), os.O_WRONLY | os.O_APPEND)
    writer = Writer(fd, pytest.fail, pytest.fail)
    for block in BLOCKS:
        writer.put(block)
    assert writer.close(PATIENCE) == 0
    os.close(fd)
    assert path.read_bytes() == b"before\n" + b"".join(BLOCKS)


def test_a_regular_file_is_written_from_where_it_stands(tmp_path):
    with open(tmp_path / "out", "wb", buffering=0) as file:
        file.write(b"before\n")
        writer = Writer(file.fileno(), pytest.fail, pytest.fail)
        writer.put(b"line\n")
        assert writer.close(PATIENCE) == 0
        file.write(b"behind\n")
    assert Path(file.name).read_bytes() == b"before\nline\nbehind\n"


def test_the_null_device_takes_everything():
    with open(os.devnull, "wb") as null:
        writer = Writer(null.fileno(), pytest.fail, pytest.fail)
        for block in BLOCKS:
            writer.put(block)
        assert writer.close(PATIENCE) == 0


def test_others_who_share_the_destination_still_find_it_blocking(destination):
    def is_blocking() -> bool:
        return not fcntl.fcntl(destination.write_end, fcntl.F_GETFL) & os.O_NONBLOCK

    writer = destination.open_writer()
    assert is_blocking()
    writer.put(b"x" * 500000 + b"\n")
    let_others_run()
    assert is_blocking()
    reading = gevent.spawn(read_to_end, destination.read_end)
    writer.close(PATIENCE)
    assert is_blocking()
    destination.close_write_end()
    reading.get()


@pytest.mark.parametrize("destination", ["pipe", "socket"], indirect=True)
def test_a_destination_that_somebody_made_non_blocking_is_waited_for(destination, errors):
    os.set_blocking(destination.write_end, False)
    writer = destination.open_writer()
    writer.put(b"x" * 1000000 + b"\n")
    let_others_run()
    reading = gevent.spawn(read_to_end, destination.read_end)
    assert writer.close(PATIENCE) == 0
    destination.close_write_end()
    assert len(reading.get()) == 1000001
    assert destination.failures == []
    assert errors == []


def test_a_closed_reader_is_told_once_and_what_is_lost_is_counted(destination, errors):
    destination.close_read_end()
    writer = destination.open_writer()
    writer.put(b"line\n")
    wait_for(lambda: destination.failures, "the failure")
    assert writer.broken
    writer.put(b"another\n")
    assert writer.lost == len(b"line\nanother\n")
    assert writer.pending == 0
    assert writer.close(PATIENCE) == len(b"line\nanother\n")
    (failure,) = destination.failures
    assert failure.errno in (errno.EPIPE, errno.EIO)
    # Whoever was asked to be called is, and nobody besides.
    assert errors == []


def test_a_reader_that_leaves_while_it_is_waited_for_is_noticed(destination):
    writer = destination.open_writer()
    writer.put(b"x" * 1000000 + b"\n")
    let_others_run()
    assert not destination.failures
    destination.close_read_end()
    wait_for(lambda: destination.failures, "the failure")
    writer.wait_for_room()
    assert 0 < writer.close(PATIENCE) <= 1000001


def test_a_full_device_is_told_and_counted():
    failures = []
    with open("/dev/full", "wb", buffering=0) as full:
        writer = Writer(full.fileno(), failures.append, pytest.fail)
        writer.put(b"line\n")
        assert writer.close(PATIENCE) == 5
    assert [failure.errno for failure in failures] == [errno.ENOSPC]
    assert writer.broken == os.strerror(errno.ENOSPC)


def test_a_pipe_that_is_full_is_enlarged(pipe):
    before = pipe_size(pipe.write_end)
    writer = pipe.open_writer()
    writer.put(b"x" * before)
    wait_for(lambda: not writer.pending)
    assert pipe_size(pipe.write_end) == before
    writer.put(b"x" * before)
    wait_for(lambda: not writer.pending)
    assert pipe_size(pipe.write_end) > before


def test_a_blocked_destination_holds_back_no_other(pipe, destination):
    blocked, free = pipe.open_writer(), destination.open_writer()
    blocked.put(b"x" * 1000000 + b"\n")
    let_others_run()
    free.put(b"passes\n")
    wait_for(lambda: free.pending == 0, "the write")
    assert os.read(destination.read_end, 100) == b"passes\n"
    assert blocked.pending > 0
    free.close(PATIENCE)
    reading = gevent.spawn(read_to_end, pipe.read_end)
    blocked.close(PATIENCE)
    pipe.close_write_end()
    assert len(reading.get()) == 1000001


def test_whoever_asks_for_room_waits_while_the_queue_is_full(destination):
    writer = destination.open_writer()
    block = b"x" * 65535 + b"\n"
    puts = []

    def produce() -> None:
        for _ in range(100):
            writer.wait_for_room()
            writer.put(block)
            puts.append(writer.pending)

    producing = gevent.spawn(produce)
    wait_for(lambda: writer.pending >= QUEUE_LIMIT, "a full queue")
    let_others_run()
    stopped_at = len(puts)
    let_others_run()
    assert len(puts) == stopped_at < 100
    reading = gevent.spawn(read_to_end, destination.read_end)
    producing.join()
    assert writer.close(PATIENCE) == 0
    destination.close_write_end()
    assert reading.get() == block * 100
    assert max(puts) <= QUEUE_LIMIT + len(block)


def test_there_is_room_as_soon_as_a_reader_takes_something(destination):
    # However much waits: a reader that is slow must not look like one that takes nothing.
    writer = destination.open_writer()
    writer.put(b"x" * 3000000 + b"\n")
    let_others_run()
    before = writer.pending
    os.set_blocking(destination.read_end, False)
    taken = 0

    def take() -> bool:
        nonlocal taken
        with contextlib.suppress(BlockingIOError):
            taken += len(os.read(destination.read_end, 65536))
        return taken >= 1000000

    wait_for(take, "a million bytes")
    wait_for(lambda: writer.pending < before, "progress")
    destination.close_read_end()
    writer.close(PATIENCE)


def test_a_put_never_blocks(pipe):
    writer = pipe.open_writer()
    done = []

    def put() -> None:  # in the hub, where a wait is an error
        for _ in range(100):
            writer.put(b"x" * 65536)
        done.append(True)

    gevent.get_hub().loop.run_callback(put)
    wait_for(lambda: done, "the callback")
    pipe.close_read_end()
    writer.close(PATIENCE)


@pytest.fixture
def close_blocked(clock, pipe) -> Callable:
    """Closes a writer that has a megabyte for a reader who takes nothing; gives the writer and the greenlet that waits."""

    def close_blocked(timeout: float) -> tuple[Writer, gevent.Greenlet]:
        writer = pipe.open_writer()
        writer.put(b"x" * 1000000 + b"\n")
        wait_for(lambda: writer.pending < 1000001, "a first write")
        waiting = gevent.spawn(writer.close, timeout)
        look_again(clock)
        return writer, waiting

    return close_blocked


def test_a_reader_that_takes_nothing_is_given_up_after_the_timeout(clock, pipe, close_blocked):
    writer, waiting = close_blocked(5)
    pass_time(clock, 4)
    assert not waiting.dead
    clock.now += 1
    lost = waiting.get()
    assert writer.broken == "its reader took nothing for 5 s"
    # What isn't lost is there to be read.
    assert lost == writer.lost > 0
    assert len(pipe.read()) + lost == 1000001
    assert pipe.failures == []


def test_a_reader_is_not_given_up_for_the_time_in_which_ginit_was_frozen(clock, pipe, close_blocked):
    _, waiting = close_blocked(5)
    clock.now += 1000
    look_again(clock)
    assert not waiting.dead
    pipe.close_read_end()
    waiting.get()


def test_each_byte_that_the_reader_takes_puts_off_giving_it_up(clock, pipe, close_blocked):
    writer, waiting = close_blocked(5)
    for _ in range(5):
        pass_time(clock, 4)
        pending = writer.pending
        os.read(pipe.read_end, 65536)
        wait_for(lambda pending=pending: writer.pending < pending, "progress")
    assert not waiting.dead
    assert writer.broken is None
    reading = gevent.spawn(read_to_end, pipe.read_end)
    assert waiting.get() == 0
    pipe.close_write_end()
    assert len(reading.get()) == 1000001 - 5 * 65536


def test_the_timeout_counts_from_the_closing_on(clock, pipe):
    writer = pipe.open_writer()
    writer.put(b"x" * 1000000 + b"\n")
    wait_for(lambda: writer.pending < 1000001, "a first write")
    clock.now += 1000  # a reader may take its time while services run
    waiting = gevent.spawn(writer.close, 5)
    look_again(clock)
    assert not waiting.dead
    pipe.close_read_end()
    waiting.get()


def test_a_writer_with_nothing_to_write_is_not_given_up(clock, pipe):
    writer = pipe.open_writer()
    writer.put(b"line\n")
    wait_for(lambda: writer.pending == 0, "the write")
    watching = gevent.spawn(writer.give_up_when_stuck, 5)
    look_again(clock)
    pass_time(clock, 10)
    assert not watching.dead
    watching.kill()
    writer.put(b"another\n")
    assert writer.close(5) == 0
    assert pipe.read() == b"line\nanother\n"


def test_giving_up_makes_room_for_those_who_wait_and_counts_what_they_put(clock, pipe):
    writer = pipe.open_writer()
    writer.put(b"x" * 2 * QUEUE_LIMIT)
    wait_for(lambda: writer.pending < 2 * QUEUE_LIMIT, "a first write")
    waiting = gevent.spawn(writer.wait_for_room)
    watching = gevent.spawn(writer.give_up_when_stuck, 5)
    look_again(clock)
    assert not waiting.dead
    pass_time(clock, 4.5)
    clock.now += 0.5
    watching.join()
    waiting.join()
    lost = writer.lost
    writer.put(b"more")
    assert writer.close(5) == lost + 4
    assert writer.pending == 0


def test_what_goes_out_while_the_reader_is_given_up_is_not_lost(pipe):
    writer = pipe.open_writer()
    writer.put(b"x" * 1000000 + b"\n")
    wait_for(lambda: writer.pending < 1000001, "a first write")
    writer._break("its reader took nothing")  # and the reader comes before the writer's greenlet hears of it
    reading = gevent.spawn(read_to_end, pipe.read_end)
    lost = writer.close(5)
    pipe.close_write_end()
    assert len(reading.get()) + lost == 1000001
    assert writer.pending == 0


def test_closing_leaves_the_descriptor_open(destination):
    writer = destination.open_writer()
    writer.put(b"first\n")
    writer.close(PATIENCE)
    os.write(destination.write_end, b"second\n")
    assert destination.read() == b"first\nsecond\n"


def test_an_unexpected_error_is_told_and_nothing_is_lost_or_doubled(destination, monkeypatch):
    writer = destination.open_writer()
    failures, write = [], writer._file.write
    errors = iter([ZeroDivisionError(), None, ZeroDivisionError(), ZeroDivisionError()])

    def fail_now_and_then(buffers):
        error = next(errors, None)
        if error:
            raise error
        return write(buffers)

    monkeypatch.setattr(writer, "_unexpected", failures.append)
    monkeypatch.setattr(writer._file, "write", fail_now_and_then)
    for block in BLOCKS:
        writer.put(block)
    reading = gevent.spawn(read_to_end, destination.read_end)
    assert writer.close(PATIENCE) == 0
    destination.close_write_end()
    assert reading.get() == b"".join(BLOCKS)
    assert len(failures) == 3


def test_an_error_that_always_comes_is_told_and_what_is_queued_is_written_without_gevent(destination, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)
    writer = destination.open_writer()
    failures = []
    monkeypatch.setattr(writer, "_unexpected", failures.append)
    monkeypatch.setattr(writer._file, "write", lambda _: 1 // 0)
    for number in range(20):
        writer.put(b"line %d\n" % number)
    assert writer.close(PATIENCE) == 0
    assert failures
    writer.put(b"late\n")
    assert (writer.lost, writer.broken) == (5, "an unexpected error keeps ginit from writing")
    assert destination.read() == b"".join(b"line %d\n" % number for number in range(20))


def test_what_a_reader_does_not_take_is_counted_when_an_error_always_comes(pipe, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)
    monkeypatch.setattr("ginit.output.writer._LAST_ATTEMPT", 0.01)
    writer = pipe.open_writer()
    monkeypatch.setattr(writer, "_unexpected", lambda _: None)
    monkeypatch.setattr(writer._file, "write", lambda _: 1 // 0)
    writer.put(b"x" * 200_000)
    lost = writer.close(PATIENCE)
    assert 0 < lost == 200_000 - len(pipe.read())
