"""Framing and stamping: blocks of bytes in, stamped lines out. No I/O, no gevent.

A *body* is one or more whole lines, as bytes: each ends in a newline, none is empty, none has a carriage return before its
newline. Everything here works on bodies, and looks at single lines only where a body isn't ordinary.
"""

from __future__ import annotations

import re
import time
from typing import Callable, NamedTuple

#: What may be an object without fields at the end of a line. Matches too much at times, never too little.
_MAYBE_EMPTY_OBJECT = re.compile(rb"\{[ \t\r]*\}\n")
#: The white space that JSON allows between tokens (RFC 8259, section 2), as far as it can be within a line.
_JSON_SPACE = b" \t\r"
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


#: Makes stamped lines of a body and a timestamp.
Stamp = Callable[[bytes, bytes], bytes]


class Frame(NamedTuple):
    """A body, and whether its lines are pieces of one that was too long."""

    body: bytes
    pieces: bool


class Framer:
    """Cuts one stream into lines, whatever the blocks are in which it arrives.

    A line is what stands before a newline, less one carriage return at its end. Empty lines are left out. A line of more
    than `max_line` bytes comes in pieces of `max_line` bytes and a last, shorter one. What stands behind the last newline
    counts as a line when the stream ends. Holds no more than `max_line + 1` bytes between two calls.
    """

    def __init__(self, max_line: int) -> None:
        self._max_line = max_line
        self._held: list[bytes] = []
        self._held_size = 0
        self._within_long_line = False

    @property
    def held(self) -> int:
        """The number of bytes of an unfinished line."""
        return self._held_size

    def feed(self, block: bytes) -> list[Frame]:
        """The lines that `block` completes, in order."""
        frames: list[Frame] = []
        end = block.rfind(b"\n") + 1
        if end:
            body = self._release(block[:end])
            if self._within_long_line:
                self._within_long_line = False
                rest, _, body = body.partition(b"\n")
                self._add_pieces(frames, _without_return(rest))
            self._add_lines(frames, body)
        if end < len(block):
            self._hold(frames, block[end:])
        return frames

    def close(self) -> list[Frame]:
        """The last line, if it had no newline."""
        return self.feed(b"\n") if self._held_size else []

    def _release(self, block: bytes) -> bytes:
        if not self._held:
            return block
        self._held.append(block)
        joined = b"".join(self._held)
        self._held = []
        self._held_size = 0
        return joined

    def _hold(self, frames: list[Frame], tail: bytes) -> None:
        self._held.append(tail)
        self._held_size += len(tail)
        # One byte over may yet be the carriage return of a line that just fits; two can't.
        if self._held_size < self._max_line + 2:
            return
        data = self._release(b"")
        cut = (len(data) - 2) // self._max_line * self._max_line
        self._add_pieces(frames, data[:cut])
        self._within_long_line = True
        self._held.append(data[cut:])
        self._held_size = len(data) - cut

    def _add_lines(self, frames: list[Frame], body: bytes) -> None:
        if b"\r\n" in body:
            body = body.replace(b"\r\n", b"\n")
        if b"\n\n" in body or body[:1] == b"\n":
            body = b"".join([line + b"\n" for line in body.split(b"\n") if line])
        if len(body) <= self._max_line or max(map(len, body.split(b"\n"))) <= self._max_line:
            if body:
                frames.append(Frame(body, False))
            return
        fitting: list[bytes] = []
        for line in body[:-1].split(b"\n"):
            if len(line) <= self._max_line:
                fitting.append(line + b"\n")
                continue
            if fitting:
                frames.append(Frame(b"".join(fitting), False))
                fitting = []
            self._add_pieces(frames, line)
        if fitting:
            frames.append(Frame(b"".join(fitting), False))

    def _add_pieces(self, frames: list[Frame], line: bytes) -> None:
        size = self._max_line
        if line:
            pieces = [line[start : start + size] + b"\n" for start in range(0, len(line), size)]
            frames.append(Frame(b"".join(pieces), True))


def _without_return(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def put_before(body: bytes, prefix: bytes) -> bytes:
    """`body` with `prefix` before each of its lines."""
    return prefix + body[:-1].replace(b"\n", b"\n" + prefix) + b"\n"


def add_fields(body: bytes, fields: bytes) -> tuple[bytes, bytes]:
    """Add `fields` to the lines of `body` that are JSON objects.

    A line is taken as one when it begins with `{` and ends with `}`. `fields` are JSON members, as in `"a":1,"b":2`.

    Returns:
        The objects with the fields at their end, and the lines that aren't objects, each in order.
    """
    if body.startswith(b"{") and body.endswith(b"}\n"):
        # The newlines that stand between two objects: if that is all of them but the last, there's nothing else in here.
        parts = body[:-2].split(b"}\n{")
        if len(parts) == body.count(b"\n") and not _may_have_empty_objects(body):
            end = b"," + fields + b"}\n"
            return (end + b"{").join(parts) + end, b""
    objects: list[bytes] = []
    others: list[bytes] = []
    end = b"," + fields + b"}\n"
    for line in body[:-1].split(b"\n"):
        if line[:1] != b"{" or line[-1:] != b"}":
            others.append(line + b"\n")
        elif line[1:-1].strip(_JSON_SPACE):
            objects.append(line[:-1] + end)
        else:
            objects.append(b"{" + fields + b"}\n")
    return b"".join(objects), b"".join(others)


def _may_have_empty_objects(body: bytes) -> bool:
    if b"{}\n" in body:
        return True
    # The search costs more than all the rest, so it waits for a line that ends as an object of white space would.
    ends = (b" }\n", b"\t}\n", b"\r}\n")
    return any(end in body for end in ends) and _MAYBE_EMPTY_OBJECT.search(body) is not None


def text_stamp(label: str) -> Stamp:
    """A stamp that puts the time and `label` before each line."""
    middle = f" {label}: ".encode()
    return lambda body, now: put_before(body, now + middle)


def message_stamp(fields: bytes, opening: str = "") -> Stamp:
    """A stamp that makes each line a JSON object: `opening` and the line as its `message`, `fields`, and the time.

    Bytes that are no UTF-8 are backslash-escaped.
    """
    from json.encoder import encode_basestring  # 3 ms, which only those pay who want it

    encode: Callable[[str], str] = encode_basestring

    def stamp(body: bytes, now: bytes) -> bytes:
        end = b"," + fields + logged(now) + b"}\n"
        messages = [encode(opening + to_text(line)).encode() for line in body[:-1].split(b"\n")]
        return b"".join([b'{"message":' + message + end for message in messages])

    return stamp


def logged(now: bytes) -> bytes:
    """The member that holds the time, to stand behind other ones."""
    return b',"logged":"' + now + b'"'


def member(name: str, value: str) -> bytes:
    """A member of a JSON object, `"name":"value"`; `value` has no control characters."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}":"{escaped}"'.encode()


def to_text(data: bytes) -> str:
    """`data` as text; bytes that are no UTF-8 become backslash escapes."""
    return data.decode("utf-8", "backslashreplace")


def printable(data: bytes) -> str:
    """`data` as text that stays on its line: control characters, too, become backslash escapes."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), to_text(data))


def timestamp(seconds: float) -> bytes:
    """UTC with milliseconds, as in `2026-11-23T22:33:47.726Z` (RFC 3339), of `seconds` since the epoch."""
    milliseconds = int(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    return b"%b.%03dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode(), fraction)
