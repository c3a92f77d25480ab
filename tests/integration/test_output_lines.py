"""Lines: what one is, what is put before it, and that none harms another."""

from __future__ import annotations

import datetime
import json
import re
import subprocess

import pytest
from harness import wait_for
from streams import STAMP, numbers, peak_memory, printf, without_stamps

UTC = datetime.timezone.utc
STREAMS = pytest.mark.parametrize("stream", ["stdout", "stderr"])


def printed(services, start, stream, text, **settings):
    """What becomes of `text` on a stream of a service, without the stamps."""
    services.add("web", printf(text, stderr=stream == "stderr"))
    ginit = start(JSON_STDOUT="0", **settings)
    assert ginit.wait() == 0
    lines = without_stamps(getattr(ginit, stream))
    assert all(line.startswith("web/run: ") for line in lines)
    return [line[len("web/run: ") :] for line in lines]


# What is put before a line.


@STREAMS
def test_a_plain_line_gets_time_service_and_stage_before_it(services, start, stream):
    services.add("web", printf("the line\n", stderr=stream == "stderr"))
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert re.fullmatch(rf"{STAMP} web/run: the line\n", getattr(ginit, stream).text)
    assert ginit.stdout.text + ginit.stderr.text == getattr(ginit, stream).text


@pytest.mark.parametrize("setting", [{"JSON_STDOUT": "0"}, {"JSON_STDOUT": "1"}, {"LOG_LEVEL": "none"}])
def test_a_line_on_stderr_gets_the_same_whatever_the_form_of_stdout_and_the_level(services, start, setting):
    services.add("web", printf('{"a":1}\n', stderr=True))
    ginit = start(**setting)
    assert ginit.wait() == 0
    assert re.fullmatch(rf'{STAMP} web/run: {{"a":1}}\n', ginit.stderr.text)
    assert ginit.stdout.text == ""


def test_objects_are_lines_like_others_in_plain_output(services, start):
    assert printed(services, start, "stdout", '{"a":1}\n{}\n') == ['{"a":1}', "{}"]


def logged_times(ginit):
    for line in ginit.stdout.lines:
        text = json.loads(line)["logged"] if line.startswith("{") else line.split()[0]
        yield datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


@pytest.mark.parametrize("json_stdout", ["0", "1"])
def test_the_time_is_utc_and_the_moment_the_line_was_read(services, start, json_stdout):
    service = services.add("web", "echo '{}'; until [ -e go ]; do sleep 0.01; done; echo '{}'")
    before = datetime.datetime.now(UTC).replace(microsecond=0)
    ginit = start(JSON_STDOUT=json_stdout, env={"TZ": "XXX-9"})
    ginit.wait_for_line("{")
    # The stamps are cut to milliseconds.
    between = datetime.datetime.now(UTC)
    wait_for(lambda: datetime.datetime.now(UTC) > between + datetime.timedelta(milliseconds=1))
    (service / "go").touch()
    assert ginit.wait() == 0
    first, second = logged_times(ginit)
    assert before <= first <= between < second <= datetime.datetime.now(UTC)


# What a line is.


@STREAMS
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\r\r\nb\n", ["a\r", "b"]),
        ("a\rb\n", ["a\rb"]),
        ("\ra\n", ["\ra"]),
        ("\n\na\n\n\nb\n\n", ["a", "b"]),
        ("\r\na\r\n\r\n\nb\n\r\n", ["a", "b"]),
        ("a\nb", ["a", "b"]),
        ("a", ["a"]),
        ("\n", []),
        ("", []),
        (" \n\t\n", [" ", "\t"]),
        ("a\x00b\x1b[31m\x07\n", ["a\x00b\x1b[31m\x07"]),
        ("é☃\u2028\x85\x0b\x0cx\n", ["é☃\u2028\x85\x0b\x0cx"]),
    ],
)
def test_lines_end_at_newlines_and_lose_one_carriage_return_and_empty_ones_are_skipped(services, start, stream, text, lines):
    assert printed(services, start, stream, text) == lines


def test_objects_lose_one_carriage_return_too(services, start):
    services.add("web", printf('{"a":1}\r\n\r\n{}\r\n\n{"a":2}'))
    ginit = start()
    assert ginit.wait() == 0
    assert [json.loads(line).get("a") for line in ginit.stdout.lines] == [1, None, 2]
    assert "\r" not in ginit.stdout.text + ginit.stderr.text


@STREAMS
def test_bytes_that_are_no_utf8_pass_unchanged(services, start, stream):
    data = b"\xff\xfe\xc3 \xed\xa0\x80 \x80\n"
    services.add("web", printf(data, stderr=stream == "stderr"))
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert getattr(ginit, stream).data.endswith(b" web/run: " + data)


def test_a_line_is_one_however_many_writes_it_came_in(services, start):
    service = services.add("web", "printf 'one '; until [ -e go ]; do sleep 0.01; done; printf 'line\\r'; echo; echo next")
    ginit = start(JSON_STDOUT="0")
    wait_for(lambda: ginit.find("sleep"))
    (service / "go").touch()
    assert ginit.wait() == 0
    assert without_stamps(ginit.stdout) == ["web/run: one line", "web/run: next"]


# Lines that are too long.


@STREAMS
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("1234567890\n", ["1234567890"]),
        ("1234567890\r\n", ["1234567890"]),
        ("1234567890", ["1234567890"]),
        ("1234567890a\n", ["1234567890", "a"]),
        ("1234567890a\r\n", ["1234567890", "a"]),
        ("1234567890abcdefghij\nnext\n", ["1234567890", "abcdefghij", "next"]),
        ("before\n1234567890abcdefghijxyz\nnext", ["before", "1234567890", "abcdefghij", "xyz", "next"]),
        ("1234567890abcdefghijxyz", ["1234567890", "abcdefghij", "xyz"]),
    ],
)
def test_a_line_over_the_limit_comes_in_pieces_that_are_lines(services, start, stream, text, lines):
    assert printed(services, start, stream, text, MAX_LINE="10") == lines


@STREAMS
def test_the_limit_is_a_mebibyte_where_none_is_set(services, start, stream):
    size = 1024 * 1024
    redirection = " >&2" if stream == "stderr" else ""
    services.add("web", f"(head -c {size} /dev/zero; echo; head -c {2 * size + 5} /dev/zero; echo; echo next) {redirection}")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    sizes = [len(line) - len("web/run: ") for line in without_stamps(getattr(ginit, stream))]
    assert sizes == [size, size, size, 5, 4]


@pytest.mark.parametrize("text", ['{"a":123456}\n', '{"a":12345}{"a":123456}\n', '{"a":12345}{}\n', '{"a":1234567890123456}'])
def test_an_object_over_the_limit_comes_in_pieces_as_warnings(services, start, text):
    services.add("web", printf('{"b":1}\n' + text + "\n{}\n"))
    ginit = start(MAX_LINE="11")
    assert ginit.wait() == 0
    assert [json.loads(line).get("b") for line in ginit.stdout.lines] == [1, None]
    pieces = [
        re.fullmatch(r"ginit: warn: web/run: [^{]*: (.{1,11})", line, re.DOTALL)[1] for line in without_stamps(ginit.stderr)
    ]
    text = text.rstrip("\n")
    assert pieces == [text[start : start + 11] for start in range(0, len(text), 11)]


def test_memory_stays_bounded_though_a_line_has_no_end(services, start):
    services.add("web", "head -c 300000000 /dev/zero; echo end >&2; exec sleep 1000")
    ginit = start(JSON_STDOUT="0", popen={"stdout": subprocess.DEVNULL})
    wait_for(lambda: "end" in ginit.stderr.text)
    assert peak_memory(ginit.pid) < 150_000_000


# Many writers.


@pytest.mark.parametrize("json_stdout", ["0", "1"])
def test_no_line_is_cut_by_another_where_stdout_and_stderr_are_one_pipe(services, start, json_stdout):
    # In one block each, and of a size that no pipe's buffer is a multiple of.
    padding = "x" * 61
    for number in range(8):
        script = (
            f'i=0; while [ $i -lt 1000 ]; do echo "{{\\"n\\":$i,\\"x\\":\\"{padding}\\"}}";'
            f' echo "{{\\"n\\":$i,\\"e\\":\\"{padding}\\"}}" >&2; i=$((i+1)); done; exit 115'
        )
        services.add(f"s{number}", script)
    ginit = start(JSON_STDOUT=json_stdout, popen={"stderr": subprocess.STDOUT})
    assert ginit.wait() == 0
    lines = [line for line in ginit.stdout.lines if "ginit: " not in line]
    assert len(lines) == 8 * 2 * 1000
    plain = rf'{STAMP} s(\d)/run: {{"n":\d+,"([xe])":"{padding}"}}'
    form = re.compile(rf'{plain}|{{"n":\d+,"(x)":"{padding}","service":"s(\d)","stage":"run","logged":"{STAMP}"}}')
    streams = {}
    for line in lines:
        match = form.fullmatch(line)
        assert match, line
        streams.setdefault("".join(sorted(filter(None, match.groups()))), []).append(line)
    assert len(streams) == 16
    assert all(numbers(stream) == list(range(1000)) for stream in streams.values())


@STREAMS
def test_long_lines_of_many_services_are_not_cut_by_each_other(services, start, stream):
    redirection = ">&2" if stream == "stderr" else ""
    for letter in "abcdef":
        services.add(
            letter,
            f"for i in 1 2 3 4 5 6 7 8; do head -c 200001 /dev/zero | tr '\\0' {letter}; echo; done {redirection}; exit 115",
        )
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    lines = [line for line in without_stamps(getattr(ginit, stream)) if not line.startswith("ginit")]
    assert sorted(lines) == sorted(f"{letter}/run: {letter * 200001}" for letter in "abcdef" for _ in range(8))
