"""Framing and stamping: blocks of bytes in, stamped lines out. No I/O, no gevent.

A *body* is whole lines, of which some may be empty: each ends in a newline, and a carriage return before that is gone. Every
stamp works on a body at C speed as if all of its lines were ordinary, sees by the result or by a cheap look whether they
were, and only if not begins again with the lines that `split` finds. `docs/explanation/the-log-path.md` has the measurements.
"""

from __future__ import annotations

from itertools import groupby
from typing import Callable, NamedTuple

from ..text import to_text

#: The white space that JSON allows between tokens (RFC 8259, section 2), as far as it can be within a line.
_JSON_SPACE = b" \t\r"
#: How many parts of an unfinished line are kept apart: each costs 40 bytes besides its own, and joining copies them all.
_FRAGMENTS = 1000

#: Makes stamped lines of a body and a timestamp.
Stamp = Callable[[bytes, bytes], bytes]


class Frame(NamedTuple):
    """A body, and whether its lines are pieces of one that was too long."""

    body: bytes
    pieces: bool


class Framer:
    """Cuts one stream into lines, whatever the blocks are in which it arrives.

    A line is what stands before a newline, less one carriage return at its end. A line of more than `max_line` bytes comes in
    pieces of `max_line` bytes and a last, shorter one. What stands behind the last newline counts as a line when the
    stream ends. Holds no more than `max_line + 1` bytes between two calls.
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
        if len(self._held) > _FRAGMENTS:
            self._held = [b"".join(self._held)]
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
        # A single byte is found by memchr(3) in a hundredth of the time that two take.
        if b"\r" in body:
            body = body.replace(b"\r\n", b"\n")
        if len(body) <= self._max_line or max(map(len, body.split(b"\n"))) <= self._max_line:
            if body:
                frames.append(Frame(body, False))
            return
        for too_long, found in groupby(split(body), lambda line: len(line) > self._max_line):
            if too_long:
                for line in found:
                    self._add_pieces(frames, line)
            else:
                frames.append(Frame(_join(list(found)), False))

    def _add_pieces(self, frames: list[Frame], line: bytes) -> None:
        size = self._max_line
        if line:
            pieces = [line[start : start + size] + b"\n" for start in range(0, len(line), size)]
            frames.append(Frame(b"".join(pieces), True))


def _without_return(line: bytes) -> bytes:
    return line[:-1] if line.endswith(b"\r") else line


def split(body: bytes) -> list[bytes]:
    """The lines of `body` that aren't empty, without their newlines."""
    return [line for line in body.split(b"\n") if line]


def put_before(body: bytes, prefix: bytes) -> bytes:
    """The lines of `body`, each with `prefix` before it."""
    stamped = body.replace(b"\n", b"\n" + prefix)
    # The last newline got one too many, so the first line's goes to its place; an empty line is a prefix and nothing more.
    if body[:1] == b"\n" or b"\n" + prefix + b"\n" in stamped:
        return put_before(_join(split(body)), prefix)
    return prefix + stamped[: -len(prefix)] if body else b""


def add_fields(body: bytes, fields: bytes) -> tuple[bytes, bytes]:
    """Add `fields` to the lines of `body` that are JSON objects.

    A line is taken as one when it begins with `{` and ends with `}`. `fields` are JSON members, as in `"a":1,"b":2`.

    Returns:
        The objects with the fields at their end, and the lines that aren't objects, each in order.
    """
    parts = body.split(b"}\n{")
    # Where the newlines between two objects are all but the last one, there is nothing else in here.
    if len(parts) == _count_newlines(body) and body[:1] == b"{" and body[-2:] == b"}\n":
        parts[0] = parts[0][1:]
        parts[-1] = parts[-1][:-2]
        return _make_objects(parts, fields), b""
    insides, others = _sort_out(body)
    return _make_objects(insides, fields), _join(others)


def _sort_out(body: bytes) -> tuple[list[bytes], list[bytes]]:
    """The insides of the objects among the lines of `body`, and the other lines."""
    insides: list[bytes] = []
    others: list[bytes] = []
    opening, closing = b"{}"
    for line in body.split(b"\n"):
        if line:
            if line[0] == opening and line[-1] == closing:
                insides.append(line[1:-1])
            else:
                others.append(line)
    return insides, others


def _make_objects(insides: list[bytes], fields: bytes) -> bytes:
    """Objects with `fields` behind what is inside of them, a line each."""
    if not insides:
        return b""
    if not _any_blank(insides):
        end = b"," + fields + b"}\n"
        insides[0] = b"{" + insides[0]
        insides[-1] += end
        return (end + b"{").join(insides)
    return b"".join([b"{" + (inside + b"," if inside.strip(_JSON_SPACE) else b"") + fields + b"}\n" for inside in insides])


def _count_newlines(body: bytes) -> int:
    # Finds them with memchr(3), which `count` does not, and so takes a third of its time.
    return len(body) - len(body.replace(b"\n", b""))


def _any_blank(parts: list[bytes]) -> bool:
    """Whether one of `parts`, the insides of objects, is nothing but white space."""
    # White space sorts before all that JSON can begin with.
    return min(parts)[:1] <= b" " and not all(map(bytes.strip, parts))


def _join(found: list[bytes]) -> bytes:
    return b"\n".join(found) + b"\n" if found else b""


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
        messages = [encode(opening + to_text(line)).encode() for line in split(body)]
        return b"".join([b'{"message":' + message + end for message in messages])

    return stamp


def logged(now: bytes) -> bytes:
    """The member that holds the time, to stand behind other ones."""
    return b',"logged":"' + now + b'"'


def member(name: str, value: str) -> bytes:
    """A member of a JSON object, `"name":"value"`; `value` has no control characters."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}":"{escaped}"'.encode()
