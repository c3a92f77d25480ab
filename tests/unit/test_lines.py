"""Framing and stamping give what the slow definition in `reference` gives, for any bytes, however they arrive."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from datetime import datetime, timedelta, timezone

import pytest
import reference
from hypothesis import example, given
from hypothesis import strategies as st

from ginit import text
from ginit.output import lines
from ginit.output.lines import Frame, Framer

PREFIX = b"now web/run: "
FIELDS = b'"service":"web","stage":"run"'
#: Large enough for no line here to be too long.
ENOUGH = 1024 * 1024

tokens = st.one_of(
    st.sampled_from([b"\n", b"\n", b"\r", b"\r\n", b"{", b"}", b"{}", b" ", b"\t", b"\0", b",", b'"', b"a", b"\xff", b"\xc3"]),
    st.sampled_from(
        [b"}\n{", b"{}\n", b"{ }\n", b"{\t\r}\n", b"{\n}", b"}{", b'{"a":1}\n', b'{"a":"}\\n{"}\n', b"plain\n", b"\n\n"]
    ),
    st.binary(max_size=6),
    st.text(max_size=4).map(str.encode),
)
streams = st.lists(tokens, max_size=30).map(b"".join)
#: A stream is what its reads give when joined, so this is any stream in any split.
reads = st.lists(streams, max_size=6)
max_lines = st.one_of(st.integers(1, 9), st.sampled_from([16, 100, 65536, ENOUGH]))


def frames_of(blocks: list[bytes], max_line: int) -> list[Frame]:
    framer = Framer(max_line)
    return [frame for block in blocks for frame in framer.feed(block)] + framer.close()


def text_of(frames: list[Frame]) -> bytes:
    return ended([line for frame in frames for line in lines.split(frame.body)])


def pieces(blocks: list[bytes], max_line: int) -> list[reference.Piece]:
    """All lines and pieces, each with whether it's a piece."""
    return [reference.Piece(text, frame.pieces) for frame in frames_of(blocks, max_line) for text in lines.split(frame.body)]


def plain(blocks: list[bytes], max_line: int) -> bytes:
    """What the plain mode writes."""
    return b"".join(lines.put_before(frame.body, PREFIX) for frame in frames_of(blocks, max_line))


def sort_out(blocks: list[bytes], max_line: int) -> tuple[bytes, bytes]:
    """What the JSON mode writes to stdout, and what it passes over."""
    objects, others = b"", b""
    for frame in frames_of(blocks, max_line):
        stamped, passed_over = (b"", frame.body) if frame.pieces else lines.add_fields(frame.body, FIELDS)
        objects += stamped
        others += passed_over
    return objects, others


def ended(found: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in found)


def agrees(blocks: list[bytes], max_line: int) -> bool:
    """Whether both modes give what the definition gives."""
    stream = b"".join(blocks)
    expected = reference.sort_out(stream, max_line, FIELDS)
    return plain(blocks, max_line) == ended(reference.put_before(stream, max_line, PREFIX)) and (
        sort_out(blocks, max_line) == (ended(expected.objects), ended(expected.others))
    )


@given(reads, max_lines)
@example([b"a\r", b"\nb\r\r\n", b"\r", b"\r\n"], 1)
@example([b"abc", b"d\r", b"\n"], 4)
@example([b"{}", b"\r", b"\n"], 2)
@example([b"abc", b"d\r", b"x\n"], 4)
@example([b"{}\n{ }", b"\n{\n}\n"], ENOUGH)
@example([b'{"a":"', b"}\\n{", b'"}\n}\n{'], ENOUGH)
def test_any_bytes_in_any_reads_give_what_the_definition_gives(blocks, max_line):
    assert agrees(blocks, max_line)


def test_every_short_stream_in_every_split_is_cut_as_defined():
    for length in range(7):
        for letters in itertools.product((b"\n", b"\r", b"a"), repeat=length):
            for cuts in itertools.product((False, True), repeat=max(0, length - 1)):
                blocks = [b""]
                for letter, cut in zip(letters, (False, *cuts)):
                    blocks[-1:] = [blocks[-1], letter] if cut else [blocks[-1] + letter]
                for max_line in (1, 2, 3):
                    assert pieces(blocks, max_line) == reference.cut(b"".join(letters), max_line), (blocks, max_line)


def test_every_short_text_of_braces_gives_what_the_definition_gives():
    for length in range(7):
        for letters in itertools.product((b"\n", b"{", b"}", b" ", b"a"), repeat=length):
            stream = b"".join(letters)
            expected = reference.sort_out(stream, ENOUGH, FIELDS)
            assert sort_out([stream], ENOUGH) == (ended(expected.objects), ended(expected.others)), stream


@given(reads, max_lines)
def test_no_more_is_held_back_than_a_line_needs(blocks, max_line):
    framer = Framer(max_line)
    for block in blocks:
        framer.feed(block)
        assert framer.held <= max_line + 1
        if block.endswith(b"\n"):
            assert framer.held == 0


def test_a_long_line_that_arrives_byte_by_byte_takes_little_more_memory_than_its_bytes():
    framer = Framer(ENOUGH)
    read = b"0123456789"
    tracemalloc.start()
    try:
        for index in range(200_000):
            framer.feed(read[index % 10 : index % 10 + 1])
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert framer.held == 200_000
    assert used < 300_000
    assert framer.feed(b"\n") == [Frame(read * 20_000 + b"\n", False)]


@given(reads, max_lines)
def test_a_line_comes_out_with_the_read_that_ends_it(blocks, max_line):
    framer = Framer(max_line)
    given_so_far, out = b"", b""
    for block in blocks:
        given_so_far += block
        out += text_of(framer.feed(block))
        whole = given_so_far[: given_so_far.rfind(b"\n") + 1]
        assert out.startswith(ended(reference.put_before(whole, max_line, b"")))


@given(reads, max_lines)
@example([b"{}\r", b"\n"], 2)
def test_only_the_lines_over_the_limit_are_marked_as_pieces(blocks, max_line):
    assert pieces(blocks, max_line) == reference.cut(b"".join(blocks), max_line)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", b""),
        (b"\n", b""),
        (b"\r\n", b""),
        (b"\n\n\r\n\n", b""),
        (b"a\n", b"a\n"),
        (b"a", b"a\n"),
        (b"a\r\n", b"a\n"),
        (b"a\r\r\n", b"a\r\n"),
        (b"a\rb\n", b"a\rb\n"),
        (b"\r\r\n", b"\r\n"),
        (b"a\n\nb\n", b"a\nb\n"),
        (b"\xff\0\xfe\n", b"\xff\0\xfe\n"),
    ],
)
def test_a_stream_is_cut_into_lines(stream, expected):
    assert text_of(frames_of([stream], ENOUGH)) == expected
    assert text_of(frames_of([stream[i : i + 1] for i in range(len(stream))], ENOUGH)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"a":1}', b'{"a":1,"service":"web","stage":"run"}'),
        (b"{}", b'{"service":"web","stage":"run"}'),
        (b"{ }", b'{"service":"web","stage":"run"}'),
        (b"{\t \r}", b'{"service":"web","stage":"run"}'),
        (b'{"a":{}}', b'{"a":{},"service":"web","stage":"run"}'),
        (b'{"a":{} }', b'{"a":{} ,"service":"web","stage":"run"}'),
        (b'{"a":"{ }"}', b'{"a":"{ }","service":"web","stage":"run"}'),
        (b'{"a":"}\\n{"}', b'{"a":"}\\n{","service":"web","stage":"run"}'),
        (b'{"a":"\xff"}', b'{"a":"\xff","service":"web","stage":"run"}'),
    ],
)
def test_fields_are_added_to_an_object(line, expected):
    assert lines.add_fields(line + b"\n", FIELDS) == (expected + b"\n", b"")
    # The same among others, where it takes another way through the code.
    objects, others = lines.add_fields(b"{1}\n" + line + b"\nx\n" + line + b"\n", FIELDS)
    assert objects == b'{1,"service":"web","stage":"run"}\n' + 2 * (expected + b"\n")
    assert others == b"x\n"


@pytest.mark.parametrize("line", [b"{", b"}", b"}{", b"{}x", b" {}", b"{} ", b"[1]", b'"a"', b"\r", b"\xff", b"{}\0"])
def test_a_line_that_is_no_object_is_passed_over_unchanged(line):
    assert lines.add_fields(line + b"\n", FIELDS) == (b"", line + b"\n")


@given(st.lists(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.just({})), max_size=3), min_size=1, max_size=5))
def test_an_object_with_fields_added_is_valid_json(objects):
    body = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in objects)
    stamped, others = lines.add_fields(body, b'"_x":1')
    assert others == b""
    # Whole JSON documents, each on its line: a stamped line that holds another newline would not load.
    assert [json.loads(line) for line in stamped[:-1].split(b"\n")] == [{**each, "_x": 1} for each in objects]


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, ENOUGH - 1, ENOUGH, ENOUGH + 1, 3 * ENOUGH + 7])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_a_line_of_any_length_comes_through_in_reads_of_64_kib(size, end):
    stream = b"first\n" + b"x" * size + end + (b'{"last":1}\n' if end else b"")
    blocks = [stream[start : start + 65536] for start in range(0, len(stream), 65536)]
    assert agrees(blocks, ENOUGH)


@pytest.mark.parametrize("size", [65535, 65536, 65537])
def test_an_object_of_any_length_is_still_one(size):
    line = b'{"a":"' + b"x" * (size - 8) + b'"}'
    assert sort_out([line[:65536], line[65536:] + b"\n"], ENOUGH) == (line[:-1] + b"," + FIELDS + b"}\n", b"")


@given(streams, st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=5))
def test_a_text_stamp_puts_time_and_label_before_each_line(stream, label):
    stamp = lines.text_stamp(label)
    stamped = b"".join(stamp(frame.body, b"NOW") for frame in frames_of([stream], ENOUGH))
    assert stamped == ended([b"NOW " + label.encode() + b": " + line for line in reference.lines_of(stream)])


@given(streams)
@example(b'"quoted" \\ back\\slash \x7f \xc2\x85 \xe2\x80\xa8\n')
def test_a_message_stamp_makes_each_line_the_message_of_an_object(stream):
    stamp = lines.message_stamp(FIELDS, "opening: ")
    stamped = b"".join(stamp(frame.body, b"NOW") for frame in frames_of([stream], ENOUGH))
    expected = [
        {"message": "opening: " + line.decode("utf-8", "backslashreplace"), "service": "web", "stage": "run", "logged": "NOW"}
        for line in reference.lines_of(stream)
    ]
    assert [json.loads(line) for line in stamped.split(b"\n")[:-1]] == expected


def test_bytes_that_are_no_utf_8_are_backslash_escaped_in_a_message():
    stamp = lines.message_stamp(FIELDS)
    assert stamp(b"a\xffb\xc3\n", b"NOW") == b'{"message":"a\\\\xffb\\\\xc3",' + FIELDS + b',"logged":"NOW"}\n'


@given(st.binary(max_size=20))
@example(b'a"b\\c')
@example(b"\n\r\x1b\0\x7f\xc2\x85\xe2\x80\xa8")
def test_any_name_stays_on_its_line_and_makes_a_valid_member(name):
    shown = text.printable(name)
    assert (shown + "x").splitlines() == [shown + "x"]
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)
    assert json.loads(b"{" + lines.member("service", shown) + b"}") == {"service": shown}


def test_an_ordinary_name_is_shown_as_it_is():
    assert text.printable("wéb-1 é".encode()) == "wéb-1 é"
    assert text.printable(b"a\nb\xff\x1b[0m") == "a\\nb\\xff\\x1b[0m"


@given(st.integers(0, 4102444800000))
@example(1764023627007)
@example(1764023627999)
@example(1764023627000)
def test_a_timestamp_is_utc_with_milliseconds(milliseconds):
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    expected = moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{moment.microsecond // 1000:03}Z"
    # Half a millisecond later, so that it's no matter of how floats are rounded.
    assert text.timestamp(milliseconds / 1000 + 0.0005) == expected.encode()
