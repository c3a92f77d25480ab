"""What pipes hold, of real pipes."""

from __future__ import annotations

import os
from typing import Iterator

import pytest
from support import pipe_size

from ginit.output import pipes

DEFAULT = 65536


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("end", [0, 1])
def test_a_pipe_is_enlarged_at_either_end(pipe, end):
    assert pipe_size(pipe[end]) == DEFAULT
    pipes.enlarge(pipe[end], 4 * DEFAULT)
    assert pipe_size(pipe[1 - end]) == 4 * DEFAULT


def test_a_pipe_is_never_made_smaller(pipe):
    pipes.enlarge(pipe[0], 4 * DEFAULT)
    pipes.enlarge(pipe[0], 2 * DEFAULT)
    assert pipe_size(pipe[0]) == 4 * DEFAULT


def test_a_pipe_that_may_not_be_as_large_stays_as_it_is(pipe):
    pipes.enlarge(pipe[0], 1 << 31)  # more than Linux makes any pipe
    assert pipe_size(pipe[0]) == DEFAULT


def test_what_is_no_pipe_is_left_alone():
    fd = os.open("/dev/null", os.O_RDWR)
    pipes.enlarge(fd, 4 * DEFAULT)
    os.close(fd)


def test_what_is_unread_is_counted(pipe):
    assert pipes.unread(pipe[0]) == 0
    os.write(pipe[1], b"x" * 12345)
    assert pipes.unread(pipe[0]) == 12345
    os.read(pipe[0], 345)
    assert pipes.unread(pipe[0]) == 12000


def test_a_pipe_has_writers_while_somebody_holds_an_end_for_writing_of_it():
    read_end, write_end = os.pipe()
    copy = os.dup(write_end)
    assert pipes.has_writers(read_end)
    os.close(write_end)
    os.write(copy, b"x")
    assert pipes.has_writers(read_end)
    os.close(copy)
    assert not pipes.has_writers(read_end)  # though there is something to read still
    os.close(read_end)


def test_a_read_end_that_is_opened_again_can_be_made_not_to_block_and_others_still_block(pipe):
    read_end, write_end = pipe
    own = pipes.reopen_read_end(os.dup(read_end))
    os.write(write_end, b"x")
    assert not os.get_blocking(own)
    assert os.get_blocking(read_end)
    assert os.read(own, 10) == b"x"
    os.close(own)
