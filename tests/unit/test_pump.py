"""A pump moves what arrives in a real pipe into a sink."""

from __future__ import annotations

import fcntl
import os
from typing import Iterator

import gevent
import pytest
from gevent.event import Event
from gevent.os import make_nonblocking, nb_write
from support import PATIENCE, let_others_run, pipe_size, wait_for

from ginit.output.pump import BLOCK, LARGE_BLOCK, Pump


class Sink:
    """Keeps what it takes; has room unless told otherwise."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.closed = 0
        self.room = Event()
        self.room.set()
        #: How often somebody asked for room.
        self.asked = 0

    def wait_for_room(self) -> None:
        self.asked += 1
        self.room.wait()

    def take(self, block: bytes) -> None:
        assert not self.closed
        self.blocks.append(block)

    def close(self) -> None:
        self.closed += 1

    @property
    def data(self) -> bytes:
        return b"".join(self.blocks)


class Stream:
    """A pipe with a pump at its end."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        make_nonblocking(self.write_end)
        self.sink = Sink()
        self.pump = Pump(self.read_end, self.sink, pytest.fail)

    def write(self, data: bytes) -> None:
        while data:
            data = data[nb_write(self.write_end, data) :]

    def end(self) -> None:
        os.close(self.write_end)
        self.write_end = -1

    def read_end_is_open(self) -> bool:
        try:
            fcntl.fcntl(self.read_end, fcntl.F_GETFD)
        except OSError:
            return False
        return True


@pytest.fixture
def stream() -> Iterator[Stream]:
    stream = Stream()
    yield stream
    stream.sink.room.set()
    if stream.write_end >= 0:
        stream.end()
    stream.pump.greenlet.join()


def test_what_arrives_is_handed_on_at_once(stream):
    for block in (b"one", b"two\n", b"\0\xff"):
        stream.write(block)
        wait_for(lambda block=block: stream.sink.blocks[-1:] == [block], "the block")
    assert stream.sink.data == b"onetwo\n\0\xff"
    assert not stream.sink.closed


def test_everything_written_before_the_end_is_handed_on(stream):
    data = bytes(range(256)) * 4096
    stream.write(data)
    stream.end()
    stream.pump.greenlet.join()
    assert stream.sink.data == data
    assert max(map(len, stream.sink.blocks)) <= LARGE_BLOCK


def test_the_pipe_of_a_stream_that_fills_it_is_enlarged_and_read_in_larger_blocks(stream):
    writing = gevent.spawn(stream.write, b"x" * 20 * LARGE_BLOCK)
    wait_for(lambda: len(stream.sink.data) == 20 * LARGE_BLOCK)
    writing.get()
    assert pipe_size(stream.write_end) == LARGE_BLOCK
    assert max(map(len, stream.sink.blocks)) > BLOCK


def test_the_pipe_of_a_quiet_stream_stays_as_it_is(stream):
    for _ in range(100):
        stream.write(b"x" * 1000)
        let_others_run(1)
    wait_for(lambda: len(stream.sink.data) == 100000)
    assert pipe_size(stream.write_end) == BLOCK


def test_a_stream_whose_pipe_cannot_be_enlarged_goes_on(stream, monkeypatch):
    monkeypatch.setattr("ginit.output.pipes._SET_SIZE", -1)  # refused by the kernel, as a size is that's over the limit
    writing = gevent.spawn(stream.write, b"x" * 20 * BLOCK)
    wait_for(lambda: len(stream.sink.data) == 20 * BLOCK)
    writing.get()
    assert pipe_size(stream.write_end) == BLOCK


def test_at_the_end_the_sink_and_the_descriptor_are_closed(stream):
    stream.end()
    stream.pump.greenlet.join()
    assert stream.pump.greenlet.successful()
    assert stream.sink.closed == 1
    assert not stream.read_end_is_open()


def test_the_end_waits_for_every_process_that_holds_the_pipe(stream):
    other = os.dup(stream.write_end)
    stream.end()
    os.write(other, b"still here")
    wait_for(lambda: stream.sink.data == b"still here", "the data")
    assert not stream.sink.closed
    os.close(other)
    wait_for(lambda: stream.sink.closed, "the end")


def test_nothing_is_read_while_there_is_no_room(stream):
    stream.sink.room.clear()
    stream.write(b"waits")
    wait_for(lambda: stream.sink.asked, "the question for room")
    let_others_run()
    assert stream.pump.unread() == 5
    assert stream.sink.blocks == []
    stream.sink.room.set()
    wait_for(lambda: stream.sink.blocks == [b"waits"], "the block")


def test_a_writer_is_slowed_down_by_a_sink_without_room(stream):
    stream.sink.room.clear()
    writing = gevent.spawn(stream.write, b"x" * 1000000)
    wait_for(lambda: stream.sink.asked, "the question for room")
    let_others_run()
    assert not writing.dead
    stream.sink.room.set()
    writing.join()
    wait_for(lambda: len(stream.sink.data) == 1000000, "the rest")


def test_room_is_asked_for_before_each_block(stream):
    stream.write(b"x" * 1000000)
    stream.end()
    stream.pump.greenlet.join()
    assert stream.sink.asked >= len(stream.sink.blocks) > 1


def test_streams_take_turns():
    taken = []
    streams = {name: Stream() for name in ("first", "second")}
    for name, stream in streams.items():
        stream.sink.take = lambda _, name=name: taken.append(name)
    writing = [gevent.spawn(stream.write, b"x" * 10 * BLOCK) for stream in streams.values()]
    gevent.joinall(writing)
    for stream in streams.values():
        stream.end()
        stream.pump.greenlet.join()
    # Neither has ended before the other one has had its turns.
    assert "first" in taken[: taken.index("second") + 5]
    assert "second" in taken[: taken.index("first") + 5]


def test_finishing_ends_with_what_can_be_read_though_the_pipe_is_held_open(stream):
    stream.write(b"x" * 60000)
    stream.pump.finish()
    stream.pump.greenlet.join()
    assert stream.sink.data == b"x" * 60000
    assert stream.sink.closed == 1
    assert not stream.read_end_is_open()


def test_finishing_an_empty_pipe_ends_at_once(stream):
    let_others_run()
    stream.pump.finish()
    stream.pump.greenlet.join()
    assert stream.pump.greenlet.successful()
    assert (stream.sink.data, stream.sink.closed) == (b"", 1)


def test_finishing_before_the_pump_has_begun_loses_nothing():
    stream = Stream()
    stream.write(b"early")
    stream.pump.finish()
    stream.pump.greenlet.join()
    assert stream.sink.data == b"early"
    stream.end()


def test_finishing_while_there_is_no_room_waits_for_room(stream):
    stream.sink.room.clear()
    stream.write(b"late")
    wait_for(lambda: stream.sink.asked, "the question for room")
    stream.pump.finish()
    let_others_run()
    assert not stream.pump.greenlet.dead
    stream.sink.room.set()
    stream.pump.greenlet.join()
    assert stream.sink.data == b"late"


def test_what_comes_after_finishing_is_left_in_the_pipe(stream):
    stream.sink.room.clear()
    stream.write(b"in time")
    wait_for(lambda: stream.sink.asked, "the question for room")
    stream.pump.finish()
    stream.write(b", too late")
    stream.sink.room.set()
    stream.pump.greenlet.join()
    assert stream.sink.data == b"in time"


def test_finishing_twice_or_after_the_end_changes_nothing(stream):
    stream.write(b"once")
    stream.pump.finish()
    stream.pump.finish()
    stream.pump.greenlet.join()
    stream.pump.finish()
    assert (stream.sink.data, stream.sink.closed) == (b"once", 1)
    assert stream.pump.unread() == 0


def test_a_large_pipe_is_read_to_its_end_when_finishing():
    stream = Stream()
    size = fcntl.fcntl(stream.write_end, 1031, 4 * BLOCK)  # F_SETPIPE_SZ
    stream.sink.room.clear()
    stream.write(b"x" * size)
    stream.pump.finish()
    stream.sink.room.set()
    stream.pump.greenlet.join()
    assert len(stream.sink.data) == size > BLOCK
    stream.end()


def test_finishing_while_the_last_line_waits_for_room_touches_no_descriptor_that_is_closed(stream):
    room = Event()
    stream.sink.close = room.wait
    stream.end()
    wait_for(lambda: not stream.read_end_is_open())
    assert stream.pump.unread() == 0
    stream.pump.finish()
    assert not stream.pump.greenlet.dead
    room.set()
    stream.pump.greenlet.join()
    assert stream.pump.greenlet.successful()


def test_an_unexpected_error_is_told_and_the_next_blocks_are_moved_all_the_same(stream, monkeypatch):
    failures, taken, take = [], [], stream.sink.take

    def fail_once(block: bytes) -> None:
        taken.append(block)
        if len(taken) == 1:
            raise ZeroDivisionError
        take(block)

    monkeypatch.setattr(stream.pump, "_failed", failures.append)
    monkeypatch.setattr(stream.sink, "take", fail_once)
    stream.write(b"lost")
    wait_for(lambda: failures)
    stream.write(b"kept")
    stream.end()
    stream.pump.greenlet.join()
    assert [type(failure) for failure in failures] == [ZeroDivisionError]
    assert (stream.sink.data, stream.sink.closed) == (b"kept", 1)


def test_finishing_ends_where_somebody_else_has_read_what_was_there(stream):
    stream.sink.room.clear()
    stream.write(b"x" * 1000)
    wait_for(lambda: stream.sink.asked, "the question for room")
    stream.pump.finish()
    assert len(os.read(stream.read_end, 1000)) == 1000
    stream.sink.room.set()
    stream.pump.greenlet.join(PATIENCE)
    assert stream.pump.greenlet.successful()
    assert stream.sink.data == b""


def test_an_error_that_always_comes_ends_the_pump_and_closes_its_descriptor(stream, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)
    monkeypatch.setattr(stream.pump, "_failed", lambda _: stream.write(b"x"))
    monkeypatch.setattr(stream.sink, "take", lambda _: 1 // 0)
    stream.write(b"x")
    stream.pump.greenlet.join()
    assert isinstance(stream.pump.greenlet.exception, ZeroDivisionError)
    assert not stream.read_end_is_open()
    assert stream.sink.closed == 1


def test_what_is_left_in_the_pipe_when_the_pump_ends_of_errors_is_counted(stream, monkeypatch):
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_: None)
    monkeypatch.setattr(stream.pump, "_failed", lambda _: None)
    monkeypatch.setattr(stream.pump, "_wait_until_readable", lambda: 1 // 0)
    stream.write(b"x" * 1000)
    stream.pump.greenlet.join()
    assert stream.pump.left_behind == 1000
