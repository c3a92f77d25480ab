"""ginit's own messages, written by a real Writer into a real pipe."""

from __future__ import annotations

import json
import os
import re
from typing import Callable, Iterator

import gevent
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import let_others_run, read_to_end, wait_for

from ginit.output.log import Log, Subject
from ginit.output.output import _fields
from ginit.output.writer import Writer
from ginit.settings import LEVELS

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NAMES = [b"web", b"a b", b'q"u"o', b"back\\slash", b"a\nb", b"\x1b[31m", b"\xff\xfe", b"\xc2\x85", b"\xe2\x80\xa8", "é".encode()]
FORMS = ["text", "json"]
#: Any character, and the surrogates that stand in Python for bytes that are no UTF-8.
any_text = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)))


class Pipe:
    """A log whose writer fills a pipe."""

    def __init__(self, level: str = "debug", form: str = "text") -> None:
        self._read_end, self._write_end = os.pipe()
        self.failures: list[Exception] = []
        self.writer = Writer(self._write_end, self.failures.append, self.failures.append)
        self.log = Log(self.writer, level, form, self.failures.append)

    def end(self) -> bytes:
        """All that was written."""
        reader = gevent.spawn(read_to_end, self._read_end)
        assert self.writer.close(40) == 0
        os.close(self._write_end)
        data = reader.get()
        os.close(self._read_end)
        assert self.failures == []
        assert data.endswith(b"\n") or not data
        return data

    def lines(self) -> list[str]:
        return self.end().decode().split("\n")[:-1]


def written(say: Callable[[Log], None], **options: str) -> list[str]:
    """The lines that `say` has a log write."""
    pipe = Pipe(**options)
    say(pipe.log)
    return pipe.lines()


def test_a_message_says_when_and_who_and_how_bad():
    (line,) = written(lambda log: log.info("exiting with status 0"))
    assert re.fullmatch(TIME + " ginit: info: exiting with status 0", line)


@pytest.mark.parametrize("say", [Log.error, Log.warn, Log.info, Log.debug])
def test_a_message_that_cannot_be_written_is_no_error_for_whoever_says_it(say):
    error = RuntimeError("sabotage")

    class BrokenWriter:
        pending = 0

        def put(self, _data: bytes) -> None:
            raise error

    failures: list[Exception] = []
    say(Log(BrokenWriter(), "debug", "text", failures.append), "message")
    assert failures == [error]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("sending TERM", r"sending TERM \(PID 41\)"),
        ("ended with status 0; stopping everything; bye", r"ended with status 0 \(PID 41\); stopping everything; bye"),
    ],
)
def test_a_message_about_a_process_names_its_service_and_stage_and_pid(message, shown):
    (line,) = written(lambda log: log.error(message, Subject(b"web", "run", 41)))
    assert re.fullmatch(f"{TIME} ginit: error: web/run: {shown}", line)


def test_a_message_about_a_reparented_process_has_its_pid_once():
    (line,) = written(lambda log: log.error("was ended; bye", Subject(b"sleep", "41", 41)))
    assert re.fullmatch(TIME + " ginit: error: sleep/41: was ended; bye", line)


@pytest.mark.parametrize(
    ("level", "failure", "shown"),
    [("warn", False, "warn"), ("warn", True, "warn"), ("error", True, "error"), ("error", False, None), ("none", True, None)],
)
def test_the_reason_of_a_failure_is_told_as_long_as_errors_are(level, failure, shown):
    lines = written(lambda log: log.why_stopping("ended", Subject(b"web", "run"), failure=failure), level=level)
    assert [line.split(": ")[1] for line in lines] == ([shown] if shown else [])


def test_in_json_a_message_is_an_object():
    (line,) = written(lambda log: log.warn("100% of %s {}"), form="json")
    message = json.loads(line)
    assert re.fullmatch(TIME, message.pop("logged"))
    assert message == {"message": "100% of %s {}", "level": "warn"}


@pytest.mark.parametrize("pid", [None, 41])
def test_in_json_a_message_about_a_process_has_its_service_and_stage_and_pid(pid):
    (line,) = written(lambda log: log.warn("stopping", Subject(b"web", "term", pid)), form="json")
    message = json.loads(line)
    del message["logged"]
    expected = {"message": "stopping", "level": "warn", "service": "web", "stage": "term"}
    assert message == (expected if pid is None else {**expected, "pid": pid})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_level_shows_itself_and_what_is_more_important(level, form):
    def say(log: Log) -> None:
        for name in ("error", "warn", "info", "debug"):
            getattr(log, name)(f"this is {name}")
            assert log.shows(name) == (LEVELS.index(name) <= LEVELS.index(level))

    lines = written(say, level=level, form=form)
    shown = LEVELS[1 : LEVELS.index(level) + 1]
    assert [re.search('this is (.*?)(?="|$)', line)[1] for line in lines] == list(shown)


@given(st.lists(any_text, max_size=5), st.sampled_from(FORMS))
@example(["a\nb", "a\r", "\x1b[31m", "\x00\x7f\x85\u2028", "\udcff", ""], "text")
@example(["a\nb", "a\r", "\x1b[31m", "\x00\x7f\x85\u2028", "\udcff", ""], "json")
def test_a_message_stays_on_its_line_whatever_it_holds(messages, form):
    def say(log: Log) -> None:
        for message in messages:
            log.error(message)

    lines = written(say, form=form)
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages):
        assert not re.search("[\x00-\x1f]", line)
        if form == "json":
            assert json.loads(line)["message"] == message
        else:
            assert not re.search("[\x7f-\x9f\u2028\u2029]", line)


def test_control_characters_are_escaped_in_text():
    (line,) = written(lambda log: log.error("a\nb\tc\x1b[31m \x7f é"))
    assert line.endswith(" ginit: error: a\\nb\\tc\\x1b[31m \\x7f é")


@pytest.mark.parametrize("name", NAMES)
def test_a_services_name_is_escaped_as_in_its_own_lines(name):
    subject = Subject(name, "run")
    in_its_lines = json.loads(b"{" + _fields(subject) + b"}")
    (line,) = written(lambda log: log.error("ended", subject), form="json")
    message = json.loads(line)
    assert {"service": message["service"], "stage": message["stage"]} == in_its_lines
    (line,) = written(lambda log: log.error("ended", subject))
    assert line.endswith(f" ginit: error: {in_its_lines['service']}/run: ended")


@pytest.mark.parametrize("name", [b"web", b'q"u"o', b"back\\slash", "é".encode()])
def test_an_ordinary_name_is_not_changed(name):
    assert Subject(name, "run").service == name.decode()


@pytest.mark.parametrize(("name", "shown"), [(b"a\nb", "a\\nb"), (b"\xff\xfe", "\\xff\\xfe"), (b"\x1b[31m", "\\x1b[31m")])
def test_an_unprintable_name_is_shown_with_escapes(name, shown):
    assert str(Subject(name, "run")) == f"{shown}/run"


@pytest.fixture
def blocked() -> Iterator[Pipe]:
    """A log of warnings whose reader takes nothing, with as many messages waiting as may."""
    pipe = Pipe("warn")
    size = -1
    while not pipe.writer.pending or pipe.writer.pending > size:
        size = pipe.writer.pending
        pipe.log.error("x" * 100000)
        let_others_run(1)
    return pipe


def test_what_waits_for_a_blocked_reader_is_bounded(blocked):
    size = blocked.writer.pending
    for _ in range(1000):
        blocked.log.error("y" * 100000)
    assert blocked.writer.pending == size
    assert size < 8 * 1024 * 1024
    assert not any(line.endswith("yyy") for line in blocked.lines())


def test_a_log_never_blocks(blocked):
    # In the hub, where a wait is an error.
    done = []
    gevent.get_hub().loop.run_callback(lambda: done.append(blocked.log.error("from the hub")))
    wait_for(lambda: done, "the callback")
    blocked.lines()


def test_messages_that_are_left_out_are_counted_once_there_is_room():
    pipe = Pipe("warn")
    for _ in range(60):
        pipe.log.error("x" * 100000)  # the writer had no chance to write one yet
    waiting = pipe.writer.pending
    reader = gevent.spawn(read_to_end, pipe._read_end)
    wait_for(lambda: pipe.writer.pending == 0, "room")
    pipe.log.error("the next one")
    pipe.log.error("and one more")
    assert pipe.writer.close(40) == 0
    os.close(pipe._write_end)
    lines = reader.get().decode().split("\n")[:-1]
    os.close(pipe._read_end)
    passed = [line for line in lines if line.endswith("xxx")]
    assert sum(len(line) + 1 for line in passed) == waiting
    assert 0 < len(passed) < 60
    told, following, last = lines[len(passed) :]
    assert f"ginit: warn: stderr was blocked; {60 - len(passed)} messages" in told
    assert following.endswith("error: the next one")
    assert last.endswith("error: and one more")


def test_messages_that_are_not_shown_are_not_counted_as_left_out(blocked):
    left_out = blocked.log._left_out
    blocked.log.info("z" * 100)
    assert blocked.log._left_out == left_out
    blocked.lines()
