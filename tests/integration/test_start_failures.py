"""What can't be started: the directory of services, a service's files, and ginit with settings that it doesn't take."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest
from harness import GINIT, write_executable
from machine import require

#: Takes the privilege away by which root reads and enters everything.
UNPRIVILEGED = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
    GINIT,
]


def error_of(ginit) -> str:
    """The one error that it has printed."""
    errors = [text for text in ginit.stderr.texts if text.startswith("ginit: error: ")]
    assert len(errors) == 1, ginit.stderr.text
    return errors[0]


@contextmanager
def permissions(path: Path, mode: int) -> Iterator[None]:
    """Give a directory these permissions for a while."""
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(0o700)


@pytest.fixture
def start_unprivileged(start):
    """Starts ginit as a user that permissions hold for."""
    require("setpriv")
    return lambda *arguments: start(*arguments, popen={"command": UNPRIVILEGED})


# The surroundings.


def in_a_directory_that_is_gone(tmp_path: Path) -> list[str]:
    (tmp_path / "gone").mkdir()
    return ["sh", "-c", 'cd "$0" && rmdir "$0" && exec "$@"', str(tmp_path / "gone"), GINIT]


def test_an_absolute_path_needs_no_working_directory(services, start, tmp_path):
    services.add("web", "echo up; exit 0")
    ginit = start(JSON_STDOUT="0", popen={"command": in_a_directory_that_is_gone(tmp_path)})
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: up"]


def test_a_relative_path_without_a_working_directory_is_an_error(start, tmp_path):
    ginit = start("service", popen={"command": in_a_directory_that_is_gone(tmp_path)})
    assert ginit.wait() == 1
    assert "can't tell where 'service' is: the working directory: No such file or directory" in error_of(ginit)


def test_a_proc_of_another_pid_namespace_is_an_error_and_nothing_starts(services, start):
    directory = services.add("web", "echo >started")
    ginit = start(popen={"command": ["unshare", "--pid", "--fork", "--kill-child", GINIT]})
    assert ginit.wait() == 1
    assert "/proc is another PID namespace's" in error_of(ginit)
    assert not (directory / "started").exists()


# The directory of services.


def test_a_directory_of_services_that_is_missing_is_an_error(start, tmp_path):
    ginit = start(str(tmp_path / "missing"))
    assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(tmp_path / "missing") in error
    assert "No such file or directory" in error


def test_a_link_to_a_directory_of_services_that_is_missing_is_an_error(start, tmp_path):
    (tmp_path / "link").symlink_to("missing")
    ginit = start(str(tmp_path / "link"))
    assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(tmp_path / "link") in error
    assert "No such file or directory" in error


def test_a_directory_of_services_that_is_a_file_is_an_error(start, tmp_path):
    (tmp_path / "file").touch()
    ginit = start(str(tmp_path / "file"))
    assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(tmp_path / "file") in error
    assert "Not a directory" in error


def test_a_directory_of_services_that_may_not_be_read_is_an_error(services, start_unprivileged):
    services.add("web", "echo hello")
    with permissions(services.path, 0o300):
        ginit = start_unprivileged()
        assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(services.path) in error
    assert "Permission denied" in error


def test_a_directory_of_services_that_may_be_read_but_not_entered_is_an_error(services, start_unprivileged):
    services.add("web", "echo hello")
    with permissions(services.path, 0o600):
        ginit = start_unprivileged()
        assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(services.path) in error
    assert re.search("may not be entered|[Pp]ermission denied", error)


def test_a_service_directory_that_may_not_be_entered_is_an_error(services, start_unprivileged):
    directory = services.add("web", "echo hello")
    with permissions(directory, 0o600):
        ginit = start_unprivileged()
        assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(directory) in error
    assert re.search("may not be entered|[Pp]ermission denied", error)


# The files of a service.


def interpret_by_a_file_that_is_not_executable(file: Path) -> None:
    (file.parent / "interpreter").touch()
    file.write_text(f"#!{file.parent}/interpreter\n")


#: What is wrong with a file, how to make it so, and the reason that is given.
BROKEN = {
    "missing": (lambda file: file.unlink(), "it doesn't exist"),
    "not executable": (lambda file: file.chmod(0o644), "it isn't executable"),
    "an interpreter that isn't there": (lambda file: file.write_text("#!/nowhere/sh -e\n"), "/nowhere/sh doesn't exist"),
    "an interpreter that isn't executable": (interpret_by_a_file_that_is_not_executable, "/interpreter isn't executable"),
    "lines that end as on Windows": (lambda file: file.write_bytes(b"#!/bin/sh\r\n"), "carriage return"),
    "no #!": (lambda file: file.write_text("echo hello\n"), "no #!"),
    "empty": (lambda file: file.write_text(""), "no #!"),
    "a directory": (lambda file: (file.unlink(), file.mkdir()), "it isn't a file"),
    "a link to nowhere": (lambda file: (file.unlink(), file.symlink_to("nowhere")), "link to nowhere"),
}


def broken(*, log: bool = False):
    ways = {way: values for way, values in BROKEN.items() if not (log and way == "missing")}
    return pytest.mark.parametrize(("spoil", "reason"), ways.values(), ids=ways.keys())


def check_that_everything_is_stopped(ginit, executable, reason) -> None:
    assert ginit.wait() == 1
    error = error_of(ginit)
    assert str(executable) in error
    assert reason in error
    # What did start was asked to stop in its own way, and waited for.
    assert ginit.stdout.texts == ["a/term: asked", "a/term: done"]
    assert re.search(r"ginit: info: a/run: was ended by SIGKILL \(PID \d+\)\n", ginit.stderr.text)


@pytest.fixture
def neighbour(services):
    """A service that starts before the others do."""
    services.add("a", "exec sleep 1000", terminate="echo asked; kill -KILL $GINIT_PID; echo done")


@broken()
@pytest.mark.usefixtures("neighbour")
def test_a_run_that_cant_be_started_is_an_error_and_everything_is_stopped(services, start, spoil, reason):
    run = services.add("b", "echo hello") / "run"
    spoil(run)
    check_that_everything_is_stopped(start(JSON_STDOUT="0", LOG_LEVEL="info"), run, reason)


@broken(log=True)
@pytest.mark.usefixtures("neighbour")
def test_a_log_program_that_cant_be_started_is_an_error_and_everything_is_stopped(services, start, spoil, reason):
    log = services.add("b", "exec sleep 1000", log="exec cat") / "log" / "run"
    spoil(log)
    check_that_everything_is_stopped(start(JSON_STDOUT="0", LOG_LEVEL="info"), log, reason)


@pytest.mark.usefixtures("neighbour")
def test_the_log_program_of_a_run_that_cant_be_started_ends_with_its_stdin(services, start):
    run = services.add("b", log="cat >&2; echo 'end of stdin' >&2").joinpath("run")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    check_that_everything_is_stopped(ginit, run, "doesn't exist")
    assert "b/log: end of stdin" in ginit.stderr.texts


def test_the_first_service_may_be_the_one_that_cant_be_started(services, start):
    directory = services.add("a")
    services.add("b", "exec sleep 1000")
    ginit = start()
    assert ginit.wait() == 1
    assert f"{directory}/run" in error_of(ginit)


def test_what_started_services_return_doesnt_change_the_exit_status_of_a_failed_start(services, start):
    services.add("a", "exit 0")
    services.add("b")
    services.add("c", "exit 115")
    assert start().wait() == 1


def test_an_error_names_a_file_with_odd_characters_on_one_line(services, start):
    services.add("new\nline \x1b[31m")
    ginit = start()
    assert ginit.wait() == 1
    (text,) = ginit.stderr.texts
    assert f"{services.path}/new\\nline \\x1b[31m/run" in text


def test_a_run_may_be_a_link_to_a_program(services, start, tmp_path):
    directory = services.add("web")
    (directory / "run").symlink_to(write_executable(tmp_path / "program", "echo hello"))
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


# Settings.


@pytest.mark.parametrize("prefix", ["GINIT", "DINIT"])
@pytest.mark.parametrize(
    ("name", "value", "takes"),
    [
        ("JSON_STDOUT", "yes", ["0", "1"]),
        ("JSON_STDOUT", "2", ["0", "1"]),
        ("LOG_LEVEL", "loud", ["none", "error", "warn", "info", "debug"]),
        ("LOG_FORMAT", "xml", ["text", "json"]),
        ("REPARENTING_POLICY", "kill", ["terminate", "ignore"]),
        ("KILL_TIMEOUT", "soon", ["number of seconds"]),
        ("KILL_TIMEOUT", "-1", ["number of seconds"]),
        ("KILL_TIMEOUT", "nan", ["number of seconds"]),
        ("MAX_LINE", "0", ["number of bytes"]),
        ("MAX_LINE", "-1", ["number of bytes"]),
        ("MAX_LINE", "1.5", ["number of bytes"]),
        ("MAX_LINE", "1M", ["number of bytes"]),
        ("DRAIN_TIMEOUT", "5s", ["number of seconds"]),
        ("DRAIN_TIMEOUT", "new\nline", ["number of seconds"]),
    ],
)
def test_an_invalid_setting_is_an_error_and_nothing_starts(services, start, prefix, name, value, takes):
    directory = services.add("web", "touch started")
    ginit = start(env={f"{prefix}_{name}": value})
    assert ginit.wait() == 1
    assert ginit.stdout.data == b""
    (text,) = ginit.stderr.texts
    assert text.startswith(f"ginit: error: {prefix}_{name} takes ")
    assert all(word in text for word in takes)
    assert not (directory / "started").exists()


def test_invalid_settings_are_objects_where_stderr_is_to_be(services, start):
    services.add("web", "exec sleep 1000")
    ginit = start(LOG_FORMAT="json", MAX_LINE="0")
    assert ginit.wait() == 1
    (error,) = map(json.loads, ginit.stderr.lines)
    assert (error["level"], error["message"]) == ("error", "GINIT_MAX_LINE takes a whole number of bytes, 1 or more, not '0'")


def test_each_invalid_setting_is_named(services, start):
    directory = services.add("web", "touch started")
    ginit = start(LOG_LEVEL="loud", MAX_LINE="much")
    assert ginit.wait() == 1
    assert [re.search(r"GINIT_\w+", text)[0] for text in ginit.stderr.texts] == ["GINIT_LOG_LEVEL", "GINIT_MAX_LINE"]
    assert not (directory / "started").exists()
