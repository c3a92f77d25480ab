"""Services' stdout as JSON, which is the default; lines that aren't JSON; names in it."""

from __future__ import annotations

import json
import re

import pytest
from streams import STAMP, printf, without_stamps

METADATA = {"service", "stage", "logged"}
NOT_JSON = ["hello there", '{"a":1', '"a":1}', "[1]", "1", "}{", "{", "}", ' {"a":1}', '{"a":1} ', '{"a":1},', "back\\slash"]

BENDING = ["new\nline", "carriage\rreturn", "t\tab", "esc\x1b[31m", "delete\x7f", "no \udcff utf8", "\u2028"]


def run(services, start, text, **settings):
    """Run a service that prints `text` and ends."""
    services.add("web", printf(text))
    ginit = start(**settings)
    assert ginit.wait() == 0
    return ginit


def test_an_object_gets_service_stage_and_time_behind_its_own_fields(services, start):
    ginit = run(services, start, '{"a":1}\n')
    assert re.fullmatch(rf'{{"a":1,"service":"web","stage":"run","logged":"{STAMP}"}}', ginit.stdout.lines[0])
    assert len(ginit.stdout.lines) == 1
    assert ginit.stderr.text == ""


def test_what_is_in_an_object_passes_as_it_is(services, start):
    ginit = run(services, start, '{ "a" : 1.50, "b":{"c":[]} , "d":"é\\n" }\n')
    assert ginit.stdout.lines[0].startswith('{ "a" : 1.50, "b":{"c":[]} , "d":"é\\n" ,"service":')
    assert json.loads(ginit.stdout.lines[0])["a"] == 1.5


@pytest.mark.parametrize("empty", ["{}", "{ }", "{\t}", "{  \t }"])
def test_an_object_without_fields_gives_a_valid_one(services, start, empty):
    ginit = run(services, start, f'{empty}\n{{"a":1}}\n{empty}\n{empty}\n{{"a":{empty}}}\n')
    objects = [json.loads(line) for line in ginit.stdout.lines]
    assert [set(each) - METADATA for each in objects] == [set(), {"a"}, set(), set(), {"a"}]
    assert all(set(each) >= METADATA for each in objects)


def test_a_line_counts_as_json_by_its_first_and_last_character_alone(services, start):
    ginit = run(services, start, "{not json}\n")
    assert re.fullmatch(r'\{not json,"service":"web".*\}', ginit.stdout.lines[0])
    assert ginit.stderr.text == ""


@pytest.mark.parametrize("line", NOT_JSON)
def test_a_line_that_is_not_json_becomes_a_warning_that_names_the_service_and_shows_the_line(services, start, line):
    ginit = run(services, start, line + "\n")
    assert re.fullmatch(rf"{STAMP} ginit: warn: web/run: .*: {re.escape(line)}", ginit.stderr.lines[0])
    assert len(ginit.stderr.lines) == 1
    assert ginit.stdout.text == ""


@pytest.mark.parametrize("level", ["none", "error"])
@pytest.mark.parametrize("line", NOT_JSON)
def test_a_line_that_is_not_json_becomes_a_line_on_stderr_where_warnings_are_hidden(services, start, line, level):
    ginit = run(services, start, line + "\n", LOG_LEVEL=level)
    assert without_stamps(ginit.stderr) == [f"web/run: {line}"]
    assert ginit.stdout.text == ""


@pytest.mark.parametrize("level", ["none", "error", "warn", "info", "debug"])
def test_lines_of_both_kinds_go_their_ways_in_order(services, start, level):
    services.add("web", 'i=0; while [ $i -lt 2000 ]; do echo "{\\"n\\":$i}"; echo "number $i"; i=$((i+1)); done')
    ginit = start(LOG_LEVEL=level)
    assert ginit.wait() == 0
    assert [json.loads(line)["n"] for line in ginit.stdout.lines] == list(range(2000))
    misfits = [int(line.split()[-1]) for line in ginit.stderr.lines if "number" in line]
    assert misfits == list(range(2000))


def test_a_misfit_among_objects_in_one_write_harms_none_of_them(services, start):
    ginit = run(services, start, '{"a":1}\n{"a":2}\nmisfit\n{"a":3}\n{}\n}\n{\n{"a":4}\n')
    assert [json.loads(line).get("a") for line in ginit.stdout.lines] == [1, 2, 3, None, 4]
    assert [text.rsplit(": ", 1)[1] for text in without_stamps(ginit.stderr)] == ["misfit", "}", "{"]


def test_bytes_that_are_no_utf8_pass_unchanged_in_an_object(services, start):
    ginit = run(services, start, b'{"a":"\xff\xfe\xc3"}\n')
    assert ginit.stdout.data.startswith(b'{"a":"\xff\xfe\xc3","service":"web"')


def test_bytes_that_are_no_utf8_pass_unchanged_in_a_warning(services, start):
    ginit = run(services, start, b"\xff\xfe \xc3\xa9 \xc3\n")
    assert ginit.stderr.data.endswith(b": \xff\xfe \xc3\xa9 \xc3\n")


def test_each_stage_is_named(services, start):
    services.add(
        "web",
        """trap 'echo "{}"; exit' TERM; echo ready >&2; while :; do sleep 0.01; done""",
        log="""echo "{}"; echo to stderr >&2; exec cat""",
        terminate="""echo "{}"; echo to stderr >&2; kill -s TERM $GINIT_PID""",
    )
    ginit = start()
    ginit.wait_for_line("ready", "stderr")
    ginit.wait_for_line("{", "stdout")
    assert ginit.stop() == 0
    # What a log program prints is what the service has to say.
    assert sorted(json.loads(line)["stage"] for line in ginit.stdout.lines) == ["run", "run", "term"]
    assert sorted(without_stamps(ginit.stderr)) == ["web/log: to stderr", "web/run: ready", "web/term: to stderr"]


# Names.


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", '\\"', '","a":"', "spa ce", "é", "☃", "{}", "a" * 255])
def test_a_service_is_named_in_json_as_its_directory_is(services, start, name):
    services.add(name, """echo '{"a":1}'; echo to stderr >&2""")
    ginit = start(LOG_FORMAT="json", LOG_LEVEL="debug")
    assert ginit.wait() == 0
    for line in [*ginit.stdout.lines, *ginit.stderr.lines]:
        assert json.loads(line).get("service", name) == name
    assert json.loads(ginit.stdout.lines[0])["service"] == name


@pytest.mark.parametrize(
    "name", ["new\nline", "carriage\rreturn", "t\tab", "esc\x1b[31m", "delete\x7f", "no \udcff utf8", "\u2028"]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_that_would_bend_the_output_is_escaped(services, start, name, form):
    services.add(name, """echo '{"a":1}'; echo misfit; echo to stderr >&2""")
    ginit = start(LOG_FORMAT=form, LOG_LEVEL="debug")
    assert ginit.wait() == 0
    output = ginit.stdout.data + ginit.stderr.data
    assert len(ginit.stdout.lines) == 1
    assert set(json.loads(ginit.stdout.data.decode())) == METADATA | {"a"}
    for line in ginit.stderr.data.decode().split("\n")[:-1]:
        if form == "json":
            json.loads(line)
        else:
            assert re.match(STAMP, line)
    assert not re.search(b"[\x00-\x09\x0b-\x1f\x7f]", output)


def test_a_name_that_would_bend_plain_output_is_escaped(services, start):
    services.add("new\nline", "echo hello; echo hello >&2")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert without_stamps(ginit.stdout) == ["new\\nline/run: hello"]
    assert without_stamps(ginit.stderr) == ["new\\nline/run: hello"]
