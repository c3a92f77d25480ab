"""Streams: what pumps fill. Each frames what comes, has its lines stamped, and hands them to a writer."""

from __future__ import annotations

import time
from typing import NamedTuple

from ..text import timestamp
from . import lines
from .lines import Frame, Framer, Stamp
from .log import Subject
from .writer import Writer


class Source(NamedTuple):
    """Where a stream comes from."""

    subject: Subject
    #: `stdout` or `stderr`.
    name: str


class Stream:
    """A process's stdout or stderr: what a pump fills."""

    def __init__(self, source: Source, framer: Framer, writer: Writer) -> None:
        self.source = source
        #: Bytes that an unexpected error kept from the writer, at most.
        self.lost = 0
        self._framer = framer
        self._writer = writer

    def wait_for_room(self) -> None:
        """Wait until the next block may be taken; see `pump.Sink`."""
        self._writer.wait_for_room()

    def take(self, block: bytes) -> None:
        """Take a block; see `pump.Sink`."""
        at_risk = self._framer.held + len(block)
        self.lost += at_risk
        self._put(self._framer.feed(block))
        self.lost -= at_risk  # not reached in an error

    def close(self) -> None:
        """Take what is left of a last line; see `pump.Sink`."""
        at_risk = self._framer.held
        self.lost += at_risk
        self._put(self._framer.close())
        self.lost -= at_risk

    def _put(self, frames: list[Frame]) -> None:
        now = timestamp(time.time())
        for frame in frames:
            self._put_frame(frame, now)

    def _put_frame(self, frame: Frame, now: bytes) -> None:
        raise NotImplementedError


class LineStream(Stream):
    """One whose lines all get the same stamp."""

    def __init__(self, source: Source, framer: Framer, writer: Writer, stamp: Stamp) -> None:
        super().__init__(source, framer, writer)
        self._stamp = stamp

    def _put_frame(self, frame: Frame, now: bytes) -> None:
        stamped = self._stamp(frame.body, now)
        if stamped:
            self._writer.put(stamped)


class ObjectStream(Stream):
    """One whose lines are JSON objects that fields are added to; others go to stderr with a stamp of their own."""

    def __init__(self, source: Source, framer: Framer, writer: Writer, fields: bytes, misfits: Writer, stamp: Stamp) -> None:
        super().__init__(source, framer, writer)
        self._fields = fields
        self._misfits = misfits
        self._stamp = stamp

    def _put_frame(self, frame: Frame, now: bytes) -> None:
        if frame.pieces:
            objects, misfits = b"", frame.body
        else:
            objects, misfits = lines.add_fields(frame.body, self._fields + lines.logged(now))
        if objects:
            self._writer.put(objects)
        if misfits:
            # A blocked stderr holds back only those who have something for it, before it grows by the stamps.
            self._misfits.wait_for_room()
            self._misfits.put(self._stamp(misfits, now))
