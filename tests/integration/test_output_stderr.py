"""stderr: ginit's own messages and the services' lines, as text and as JSON."""

from __future__ import annotations

import json
import re

import pytest
from streams import STAMP, printf, without_stamps

LEVELS = ["error", "warn", "info", "debug"]
#: Prints what a service can print where it shouldn't, and fails.
EVERYTHING = r"""echo '{"a":1}'; echo misfit; echo '{"b":2}' >&2; echo 'quo"te \ back' >&2; printf 'tab\t\033[31m\177\n' >&2
printf 'quo"te \\ back\t\033[31m\177\n'; printf '\377\n' >&2; printf '\377\n'; printf 'no newline' >&2; sh -c 'sleep 1000 &'
sleep 0.1; exit 3"""


def objects(ginit):
    """The lines of stderr, each of which must be an object; in UTF-8."""
    return [json.loads(line) for line in ginit.stderr.data.decode().split("\n")[:-1]]


def own(ginit):
    """ginit's own messages among the lines of stderr."""
    return [each for each in objects(ginit) if "level" in each]


# Text.


@pytest.mark.parametrize("level", LEVELS)
def test_each_line_is_a_message_of_ginit_or_a_line_of_a_service(services, start, level):
    services.add("web", EVERYTHING)
    ginit = start(LOG_LEVEL=level)
    assert ginit.wait() == 3
    shown = "|".join(LEVELS[: LEVELS.index(level) + 1])
    for line in without_stamps(ginit.stderr):
        assert re.match(rf"ginit: ({shown}): (\S+/\S+: )?\S|web/run: .", line), line


def test_a_message_about_a_process_names_service_and_stage(services, start):
    services.add("web", "exit 3")
    ginit = start(LOG_LEVEL="info")
    assert ginit.wait() == 3
    assert [text for text in without_stamps(ginit.stderr) if re.fullmatch(r"ginit: info: web/run: .+", text)]
    assert [text for text in without_stamps(ginit.stderr) if re.fullmatch(r"ginit: warn: web/run: .*3.*", text)]


def test_nothing_of_ginit_is_shown_at_none(services, start):
    services.add("web", "echo to stderr >&2; exit 3")
    ginit = start(LOG_LEVEL="none")
    assert ginit.wait() == 3
    assert without_stamps(ginit.stderr) == ["web/run: to stderr"]


# JSON.


def test_a_line_of_a_service_becomes_an_object(services, start):
    services.add("web", "echo the line >&2")
    ginit = start(LOG_FORMAT="json")
    assert ginit.wait() == 0
    form = rf'{{"message":"the line","service":"web","stage":"run","stream":"stderr","logged":"{STAMP}"}}\n'
    assert re.fullmatch(form, ginit.stderr.text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1}', '{"a":1}'),
        ("{}", "{}"),
        ('quo"te', 'quo"te'),
        ("back\\slash \\x41", "back\\slash \\x41"),
        ("tab\tesc\x1b[31m\x7f\x00", "tab\tesc\x1b[31m\x7f\x00"),
        ("é☃\u2028\x85", "é☃\u2028\x85"),
        (b"no \xff utf8 \xc3", "no \\xff utf8 \\xc3"),
        (b"surrogate \xed\xa0\x80", "surrogate \\xed\\xa0\\x80"),
    ],
)
def test_any_line_gives_a_valid_object_and_bytes_that_are_no_utf8_are_escaped(services, start, text, message):
    services.add("web", printf(text, stderr=True))
    ginit = start(LOG_FORMAT="json")
    assert ginit.wait() == 0
    assert [each["message"] for each in objects(ginit)] == [message]


def test_lines_of_all_stages_are_objects_and_say_which(services, start):
    services.add(
        "web",
        "echo one >&2; echo two; echo three >&2; exec sleep 1000",
        log="echo four >&2; exec cat >&2",
        terminate="echo five >&2; kill -s TERM $GINIT_PID",
    )
    ginit = start(LOG_FORMAT="json")
    ginit.wait_for_line("two", "stderr")
    ginit.wait_for_line("three", "stderr")
    assert ginit.stop() == 0
    found = {each["message"]: (each["service"], each["stage"], each["stream"]) for each in objects(ginit)}
    stages = {"one": "run", "two": "log", "three": "run", "four": "log", "five": "term"}
    assert found == {message: ("web", stage, "stderr") for message, stage in stages.items()}


def test_pieces_of_a_line_over_the_limit_are_objects_each(services, start):
    services.add("web", "echo 1234567890abcdefghijxyz >&2")
    ginit = start(LOG_FORMAT="json", MAX_LINE="10")
    assert ginit.wait() == 0
    assert [each["message"] for each in objects(ginit)] == ["1234567890", "abcdefghij", "xyz"]


@pytest.mark.parametrize("text", ["hello there", 'quo"te', "tab\t\x1b\x7f", b"\xff\xfe"])
def test_a_misfit_is_a_warning_that_names_the_service_and_shows_the_line(services, start, text):
    services.add("web", printf(text))
    ginit = start(LOG_FORMAT="json")
    assert ginit.wait() == 0
    (warning,) = objects(ginit)
    shown = text if isinstance(text, str) else text.decode("utf-8", "backslashreplace")
    assert warning["message"].endswith(": " + shown)
    assert (warning["level"], warning["service"], warning["stage"]) == ("warn", "web", "run")
    assert re.fullmatch(STAMP, warning["logged"])


@pytest.mark.parametrize("level", ["none", "error"])
def test_a_misfit_is_like_a_line_of_stderr_where_warnings_are_hidden(services, start, level):
    services.add("web", "echo hello there; echo to stderr >&2")
    ginit = start(LOG_FORMAT="json", LOG_LEVEL=level)
    assert ginit.wait() == 0
    found = {each["message"]: (list(each), each["service"], each["stage"]) for each in objects(ginit)}
    form = (["message", "service", "stage", "stream", "logged"], "web", "run")
    assert found == {"hello there": form, "to stderr": form}


def test_stdout_is_the_same_whatever_the_form_of_stderr(services, start):
    services.add("web", "echo plain line")
    ginit = start(LOG_FORMAT="json", JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert without_stamps(ginit.stdout) == ["web/run: plain line"]
    assert ginit.stderr.text == ""


@pytest.mark.parametrize("level", ["none", *LEVELS])
def test_each_line_of_stderr_is_an_object(services, start, level):
    services.add("web", EVERYTHING)
    ginit = start(LOG_FORMAT="json", LOG_LEVEL=level)
    assert ginit.wait() == 3
    shown = LEVELS[: LEVELS.index(level) + 1] if level in LEVELS else []
    for each in objects(ginit):
        assert re.fullmatch(STAMP, each["logged"])
        assert isinstance(each["message"], str)
        assert ("level" in each) != ("stream" in each)
        assert each.get("level", "error") in (shown or ["error"])
    assert bool(own(ginit)) == (level != "none")


def test_a_message_of_ginit_about_a_process_has_service_stage_and_pid(services, start):
    services.add("web", "echo $$ >&2; exit 3")
    ginit = start(LOG_FORMAT="json", LOG_LEVEL="info")
    assert ginit.wait() == 3
    pid = next(int(each["message"]) for each in objects(ginit) if "stream" in each)
    about = [each for each in own(ginit) if "service" in each]
    assert {each["level"] for each in about} == {"info", "warn"}
    for each in about:
        assert set(each) == {"level", "message", "logged", "service", "stage", "pid"}
        assert (each["service"], each["stage"], each["pid"]) == ("web", "run", pid)
        assert "web/run" not in each["message"]


def test_a_message_of_ginit_about_nobody_has_level_message_and_time(services, start):
    services.add("web", "echo ready >&2; exec sleep 1000")
    ginit = start(LOG_FORMAT="json", LOG_LEVEL="info")
    ginit.wait_for_line("ready", "stderr")
    assert ginit.stop() == 0
    (received,) = [each for each in own(ginit) if "SIGTERM" in each["message"] and "service" not in each]
    assert set(received) == {"level", "message", "logged"}
    assert received["level"] == "info"


def test_an_error_of_ginit_is_an_object(services, start):
    service = services.add('quo"te', "#!/no\x1bwhere")
    ginit = start(LOG_FORMAT="json", LOG_LEVEL="error")
    assert ginit.wait() == 1
    (error,) = objects(ginit)
    assert error["level"] == "error"
    assert str(service / "run") in error["message"]
