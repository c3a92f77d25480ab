"""What becomes of a stream, line by line and as plainly as can be; `ginit.output.lines` has to give the same, only faster."""

from __future__ import annotations

from typing import NamedTuple


def lines_of(stream: bytes) -> list[bytes]:
    """Lines end at a newline, the last one perhaps not; one carriage return before it is dropped; empty lines are skipped."""
    lines = []
    for part in stream.split(b"\n"):
        line = part[:-1] if part.endswith(b"\r") else part
        if line != b"":
            lines.append(line)
    return lines


def pieces_of(line: bytes, max_line: int) -> list[bytes]:
    """A line that is too long comes in pieces, all of them but the last as long as a line may be."""
    return [line[start : start + max_line] for start in range(0, len(line), max_line)]


class Piece(NamedTuple):
    """A whole line, or a part of one that is too long."""

    text: bytes
    too_long: bool


def cut(stream: bytes, max_line: int) -> list[Piece]:
    """All the lines and pieces of a stream."""
    return [Piece(piece, len(line) > max_line) for line in lines_of(stream) for piece in pieces_of(line, max_line)]


def put_before(stream: bytes, max_line: int, prefix: bytes) -> list[bytes]:
    """The plain mode, and every stderr: a prefix before each line or piece."""
    return [prefix + piece.text for piece in cut(stream, max_line)]


def is_object(line: bytes) -> bool:
    return line.startswith(b"{") and line.endswith(b"}")


def add_fields(line: bytes, fields: bytes) -> bytes:
    """The fields behind those that an object has, after a comma if it has any."""
    inside = line[1:-1]
    comma = b"," if inside.strip(b" \t\r\n") else b""
    return b"{" + (inside if comma else b"") + comma + fields + b"}"


class Sorted(NamedTuple):
    """What the JSON mode makes of a stream: the objects for stdout, and the lines and pieces that go elsewhere."""

    objects: list[bytes]
    others: list[bytes]


def sort_out(stream: bytes, max_line: int, fields: bytes) -> Sorted:
    """The JSON mode."""
    objects, others = [], []
    for text, too_long in cut(stream, max_line):
        if is_object(text) and not too_long:
            objects.append(add_fields(text, fields))
        else:
            others.append(text)
    return Sorted(objects, others)
