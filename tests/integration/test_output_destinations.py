"""What stdout and stderr can be, and how ginit treats them: as files that others have open too, and that may fail."""

from __future__ import annotations

import os
import re

import pytest
from harness import GINIT, wait_for
from streams import COUNTER_ON_STDERR, COUNTER_ON_STDOUT, KINDS, is_counted, is_nonblocking, wait_until_blocked, without_stamps

STREAMS = pytest.mark.parametrize("stream", ["stdout", "stderr"])
COUNTERS = {"stdout": COUNTER_ON_STDOUT, "stderr": COUNTER_ON_STDERR}
OTHER = {"stdout": "stderr", "stderr": "stdout"}
LINES = 20_000
COUNTING = f"""seq -f '{{"n":%.0f}}' 0 {LINES - 1}"""
#: Writes to both until it's told to end, which it notes down.
BOTH = """trap 'touch told; exit' TERM; while :; do echo '{}'; echo to stderr >&2; sleep 0.01; done"""


# All of them.


@STREAMS
@pytest.mark.parametrize("kind", [*KINDS, "file"])
def test_all_lines_arrive_whatever_stdout_or_stderr_is(services, start, destination, stream, kind):
    services.add("web", COUNTING + (" >&2" if stream == "stderr" else ""))
    target = destination(kind)
    if kind != "file":
        target.read()
    ginit = start(popen={stream: target.fd})
    assert ginit.wait() == 0
    assert is_counted(target.finish().decode().splitlines(), LINES)


@pytest.mark.parametrize("kind", [*KINDS, "file"])
def test_lines_are_whole_where_stdout_and_stderr_are_one_destination(services, start, destination, kind):
    services.add("web", f"{COUNTING} & {COUNTING} >&2; wait")
    target = destination(kind)
    if kind != "file":
        target.read()
    ginit = start(popen={"stdout": target.fd, "stderr": target.fd})
    assert ginit.wait() == 0
    lines = target.finish().decode().splitlines()
    assert is_counted([line for line in lines if line.startswith("{")], LINES)
    assert is_counted([line for line in lines if "web/run: {" in line], LINES)
    assert len(lines) == 2 * LINES


def test_lines_are_whole_where_stdout_and_stderr_were_opened_apart_as_one_file(services, start, destination, tmp_path):
    services.add("web", f"{COUNTING} & {COUNTING} >&2; wait")
    target = destination("file")
    fd = os.open(tmp_path / "destination0", os.O_WRONLY)
    ginit = start(popen={"stdout": target.fd, "stderr": fd})
    os.close(fd)
    assert ginit.wait() == 0
    lines = target.finish().decode().splitlines()
    assert is_counted([line for line in lines if line.startswith("{")], LINES)
    assert is_counted([line for line in lines if "web/run: {" in line], LINES)
    assert len(lines) == 2 * LINES


def test_a_file_is_written_on_from_where_it_stands_and_whoever_shares_it_writes_behind(services, start, destination):
    services.add("web", "echo '{}'")
    target = destination("file")
    os.write(target.fd, b"before\n")
    ginit = start(popen={"stdout": target.fd})
    assert ginit.wait() == 0
    os.write(target.fd, b"after\n")
    lines = target.finish().decode().splitlines()
    assert (len(lines), lines[0], lines[-1]) == (3, "before", "after")


# Shared with others.


@STREAMS
@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_never_becomes_nonblocking_for_those_who_share_it(services, start, destination, stream, kind):
    services.add("web", COUNTERS[stream])
    target = destination(kind)
    ginit = start(DRAIN_TIMEOUT="1000", popen={stream: target.fd})
    target.read_some()
    assert not is_nonblocking(target.fd)
    wait_until_blocked(ginit, "web/run")
    assert not is_nonblocking(target.fd)
    ginit.kill()
    wait_for(lambda: not ginit.descendants())
    assert not is_nonblocking(target.fd)
    kept = os.dup(target.fd)
    collector = target.read()
    assert ginit.wait() == 0
    assert not is_nonblocking(kept)
    os.close(kept)
    target.finish()
    assert collector.data.endswith(b"}\n")


def test_stdin_never_becomes_nonblocking_for_those_who_share_it(services, start, destination):
    services.add("web", "echo '{}'; exec sleep 1000")
    stdin = destination("terminal")
    ginit = start(popen={"stdin": stdin.fd})
    ginit.wait_for_line("{")
    assert not is_nonblocking(stdin.fd)
    assert ginit.stop() == 0
    assert not is_nonblocking(stdin.fd)


@pytest.mark.parametrize("kind", KINDS)
def test_a_destination_that_others_made_nonblocking_stays_so_and_loses_nothing(services, start, destination, kind):
    web = services.add("web", COUNTER_ON_STDOUT)
    target = destination(kind)
    os.set_blocking(target.fd, False)
    ginit = start(DRAIN_TIMEOUT="1000", popen={"stdout": target.fd})
    wait_until_blocked(ginit, "web/run")
    ginit.kill()
    wait_for(lambda: not ginit.descendants())
    assert is_nonblocking(target.fd)
    lines = target.finish().decode().splitlines()
    assert ginit.wait() == 0
    assert is_counted(lines, int((web / "written").read_text()))


# Readers that leave, and other failures.


def assert_one_error(ginit, pattern):
    """Nothing is wrong but what the pattern says, and that something was lost by it."""
    errors = [line for line in ginit.stderr.lines if "ginit: error: " in line and "gave up" not in line]
    assert len(errors) == 1, errors
    assert re.search(f"ginit: error: .*{pattern}", errors[0])


@STREAMS
@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_stopped_and_1_given_where_the_reader_leaves(services, start, destination, stream, kind):
    service = services.add("web", BOTH)
    target = destination(kind)
    ginit = start(popen={stream: target.fd})
    target.read_some()
    target.leave()
    assert ginit.wait() == 1
    assert (service / "told").exists()
    if stream == "stdout":
        assert_one_error(ginit, "stdout")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_stopped_and_1_given_where_the_reader_leaves_while_it_blocks(services, start, destination, kind):
    service = services.add("web", COUNTER_ON_STDOUT)
    target = destination(kind)
    ginit = start(DRAIN_TIMEOUT="1000", popen={"stdout": target.fd})
    wait_until_blocked(ginit, "web/run")
    target.leave()
    assert ginit.wait() == 1
    assert (service / "written").exists()
    assert_one_error(ginit, "stdout")


@STREAMS
def test_everything_is_stopped_and_1_given_where_the_reader_has_left_before(services, start, destination, stream):
    service = services.add("web", BOTH)
    target = destination("pipe")
    target.leave()
    ginit = start(popen={stream: target.fd})
    assert ginit.wait() == 1
    assert (service / "told").exists()


def test_both_readers_may_leave(services, start, destination):
    service = services.add("web", BOTH)
    stdout, stderr = destination("pipe"), destination("pipe")
    ginit = start(popen={"stdout": stdout.fd, "stderr": stderr.fd})
    for target in (stdout, stderr):
        target.read_some()
        target.leave()
    assert ginit.wait() == 1
    assert (service / "told").exists()


@STREAMS
def test_everything_is_stopped_and_1_given_where_there_is_no_space_left(services, start, stream):
    service = services.add("web", BOTH)
    with open("/dev/full", "wb") as full:
        ginit = start(popen={stream: full})
    assert ginit.wait() == 1
    assert (service / "told").exists()
    if stream == "stdout":
        assert_one_error(ginit, "stdout.*[Nn]o space")


def test_everything_is_stopped_and_1_given_where_a_file_may_not_grow(services, start, destination):
    service = services.add("web", BOTH)
    limit = {"command": ("sh", "-c", 'ulimit -f 8; exec "$0" "$@"', GINIT)}
    ginit = start(popen={"stdout": destination("file").fd, **limit})
    assert ginit.wait() == 1
    assert (service / "told").exists()
    assert_one_error(ginit, "stdout.*[Tt]oo large")


@STREAMS
def test_what_the_other_stream_gets_is_out_where_the_reader_of_one_leaves(services, start, destination, stream):
    # Its last words come when it's told to end.
    words = {"stdout": "echo '{}'", "stderr": "echo '{}' >&2"}
    script = f'trap "{words[OTHER[stream]].replace("{}", "last words")}; exit" TERM; '
    services.add("web", f"{script} while :; do {words[stream]}; sleep 0.01; done")
    target = destination("pipe")
    ginit = start(JSON_STDOUT="0", popen={stream: target.fd})
    target.read_some()
    target.leave()
    assert ginit.wait() == 1
    assert "web/run: last words" in without_stamps(getattr(ginit, OTHER[stream]))


# Closed from the start.


def closed(redirection):
    return {"command": ("sh", "-c", f'exec "$0" "$@" {redirection}', GINIT)}


def test_ginit_runs_where_stdin_is_closed(services, start):
    services.add("web", "readlink /proc/self/fd/0; readlink /proc/$PPID/fd/0; cat; echo end")
    ginit = start(JSON_STDOUT="0", popen=closed("<&-"))
    assert ginit.wait() == 0
    assert without_stamps(ginit.stdout) == ["web/run: /dev/null", "web/run: /dev/null", "web/run: end"]


@pytest.mark.parametrize(
    ("redirection", "names"), [(">&-", ["stdout"]), ("2>&-", []), (">&- 2>&-", []), ("<&- >&-", ["stdout"]), ("<&- >&- 2>&-", [])]
)
def test_nothing_is_started_where_stdout_or_stderr_is_closed(services, start, redirection, names):
    service = services.add("web", "touch started; echo '{}'")
    ginit = start(popen=closed(redirection))
    assert ginit.wait() == 1
    assert not (service / "started").exists()
    assert ginit.stdout.text == ""
    assert all(name in ginit.stderr.text for name in names)


@STREAMS
def test_the_descriptor_that_is_open_is_not_mixed_up_with_one_that_is_closed(services, start, stream):
    services.add("web", "echo '{}'; echo to stderr >&2; exec sleep 1000")
    ginit = start(popen=closed("<&-"))
    ginit.wait_for_line({"stdout": "{", "stderr": "to stderr"}[stream], stream)
    assert ginit.stop() == 0
    assert len(ginit.stdout.lines) == len(ginit.stderr.lines) == 1
