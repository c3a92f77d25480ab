"""Numbers that a service writes behind a mark, as they arrive at the peer's reader."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Iterator, NamedTuple

from ..namespace import Namespace
from ..peers import Layout, environment
from ..readers import LAST_LINES, Reader
from ..results import PeerError
from .base import Sizes

_READ_SIZE = 1 << 20
#: Seconds without a number after which no more is expected, at least.
_PATIENCE = 5.0


class Arrival(NamedTuple):
    """A number, and when it was read, in nanoseconds on the monotonic clock."""

    number: int
    moment: int


def read_marked(layout: Layout, directory: Path, mark: bytes, count: int, sizes: Sizes) -> list[Arrival]:
    """Run a peer, and read its stdout until `count` numbers have come, as far as they come.

    Args:
        layout: how the peer is run.
        directory: its working directory.
        mark: what stands before a number; behind it is an `@`. Nothing else is like it.
        count: how many there are to be.
        sizes: the limits of time.

    Raises:
        PeerError: none has come.
    """
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0), Reader(LAST_LINES) as err:
        try:
            namespace = Namespace(layout.command, {**environment(), **layout.environ}, directory, write_end, err.fd)
        finally:
            os.close(write_end)
            err.close_input()
        with namespace:
            arrivals = list(_read(read_end, mark, count, sizes))
        if not arrivals:
            raise PeerError(f"no line has arrived; {err.result()}")
    return arrivals


def _read(fd: int, mark: bytes, count: int, sizes: Sizes) -> Iterator[Arrival]:
    deadline = time.monotonic() + sizes.timeout
    rest = b""
    while count and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        block = os.read(fd, _READ_SIZE)
        now = time.monotonic_ns()
        if not block:
            return
        numbers, rest = find_numbers(rest + block, mark)
        for number in numbers:
            count -= 1
            yield Arrival(number, now)
        if numbers:
            deadline = time.monotonic() + max(_PATIENCE, sizes.quiet_seconds)
        elif time.monotonic() > deadline:
            return


def find_numbers(block: bytes, mark: bytes) -> tuple[list[int], bytes]:
    """The numbers behind a mark in `block`.

    Returns:
        The numbers, and the end of `block` that may be the beginning of another mark or number.
    """
    found: list[int] = []
    position = 0
    while True:
        start = block.find(mark, position)
        if start < 0:
            # What could be the mark's beginning.
            return found, block[max(position, len(block) - len(mark) + 1) :]
        end = block.find(b"@", start + len(mark))
        if end < 0:
            return found, block[start:]
        found.append(int(block[start + len(mark) : end]))
        position = end + 1
