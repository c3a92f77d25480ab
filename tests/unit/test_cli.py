"""The command line, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import PATIENCE, clean_environ, write_executable

import ginit
from ginit.cli import COMMANDS
from ginit.settings import Settings

GINIT = str(Path(sys.executable).with_name("ginit"))
ERROR = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ginit: error: (.*)"


def run(*arguments: str | bytes | Path, command: tuple[str, ...] = (GINIT,), **options) -> subprocess.CompletedProcess:
    variables = options.pop("variables", {})
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": "/", **options}
    environ = clean_environ(**variables)
    return subprocess.run([*command, *arguments], env=environ, check=False, timeout=PATIENCE, **options)


def errors_of(*arguments: str | bytes | Path, **options) -> list[str]:
    """The errors of a ginit that ends at once with status 1, each on a line of its own."""
    finished = run(*arguments, **options)
    assert finished.returncode == 1
    assert finished.stdout == b""
    lines = finished.stderr.decode().split("\n")
    assert lines.pop() == ""
    return [re.fullmatch(ERROR, line)[1] for line in lines]


@pytest.fixture
def services(tmp_path) -> Path:
    """A directory with one service, which says hello, leaves a file behind, and ends."""
    write_executable(tmp_path / "services" / "web" / "run", "echo hello; : >../../started; exit 0")
    return tmp_path / "services"


@pytest.mark.parametrize("command", [(GINIT,), (sys.executable, "-m", "ginit")])
def test_the_version_is_told(command):
    finished = run("--version", command=command)
    assert (finished.returncode, finished.stdout.decode(), finished.stderr) == (0, f"ginit {ginit.__version__}\n", b"")


#: Settings that no variable of their name gives.
NO_VARIABLES = ("directory", "runsvdir", "sessions")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_names_the_argument_and_every_variable(option):
    finished = run(option)
    assert (finished.returncode, finished.stderr) == (0, b"")
    text = finished.stdout.decode()
    for name in ("DIR", *(f"GINIT_{field.upper()}" for field in Settings._fields if field not in NO_VARIABLES)):
        assert re.search(rf"\b{name}\b", text), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what"], "--what"),
        (["-x"], "-x"),
        (["one", "two"], "two"),
        (["--version=1"], "--version"),
        ([""], "DIR is empty"),
    ],
)
def test_arguments_that_ginit_does_not_take_are_an_error(arguments, words):
    (error,) = errors_of(*arguments)
    assert words in error


@pytest.mark.parametrize("after", [[], ["web"], ["--all"]])
@pytest.mark.parametrize("before", [[], ["--"]])
@pytest.mark.parametrize("word", COMMANDS)
def test_the_words_of_commands_to_come_are_reserved(services, word, before, after):
    write_executable(services / word / "web" / "run", "exit 0")
    (error,) = errors_of(*before, word, *after, cwd=services)
    assert f"./{word}" in error


def test_the_reserved_words_are_those_of_the_commands_to_come():
    assert set(COMMANDS) >= {"exec", "check", "status"}


@pytest.mark.parametrize("word", COMMANDS)
def test_a_directory_with_a_reserved_name_is_written_with_a_dot(services, word):
    services.rename(services.with_name(word))
    assert run(f"./{word}", cwd=services.parent).returncode == 0
    assert (services.parent / "started").exists()


@pytest.mark.parametrize("variable", ["GINIT_DIR", "DINIT_DIR"])
def test_the_directory_is_that_of_the_variable(services, variable):
    assert run(variables={variable: str(services)}).returncode == 0
    assert (services.parent / "started").exists()


def test_the_argument_overrides_the_variable(services):
    assert run(services, variables={"GINIT_DIR": "/nowhere"}).returncode == 0
    assert (services.parent / "started").exists()


@pytest.mark.parametrize("arguments", [["services"], ["./services/"], ["--", "services"], ["services/../services"]])
def test_the_directory_may_be_relative(services, arguments):
    assert run(*arguments, cwd=services.parent).returncode == 0
    assert (services.parent / "started").exists()


@pytest.mark.parametrize("name", [b"-services", b"a b", b"\xff\xfe", "é".encode()])
def test_the_directory_may_have_any_name(services, name):
    directory = os.path.join(os.fsencode(services.parent), name)
    os.rename(services, directory)
    assert run(directory).returncode == 0
    assert run(b"--", name, cwd=services.parent).returncode == 0


def test_python_can_run_the_package_too(services):
    assert run(services, command=(sys.executable, "-m", "ginit")).returncode == 0
    assert (services.parent / "started").exists()


def test_wrong_values_are_all_told_before_any_service_starts(services):
    errors = errors_of(services, variables={"GINIT_MAX_LINE": "0", "DINIT_LOG_LEVEL": "loud\n", "GINIT_JSON_STDOUT": "\x1b"})
    assert [error.split(" takes ")[0] for error in errors] == ["GINIT_JSON_STDOUT", "DINIT_LOG_LEVEL", "GINIT_MAX_LINE"]
    assert not (services.parent / "started").exists()


def test_a_directory_that_is_not_there_is_an_error():
    (error,) = errors_of("/nowhere/to/be/found")
    assert "/nowhere/to/be/found" in error
    assert "No such file or directory" in error


def test_a_directory_without_services_is_a_warning(tmp_path):
    finished = run(tmp_path)
    assert finished.returncode == 0
    (line,) = finished.stderr.decode().splitlines()
    assert "ginit: warn: there is no service in " in line


def closing(redirection: str) -> dict:
    """The command that starts ginit with a descriptor closed."""
    return {"command": ("sh", "-c", f'exec "$0" "$@" {redirection}', GINIT)}


def test_without_a_stdin_all_goes_well(services):
    finished = run(services, **closing("<&-"))
    assert (finished.returncode, finished.stdout) == (0, b"")
    assert b"web/run" in finished.stderr


def test_without_a_stdout_it_is_told_and_nothing_starts(services):
    for redirection in (">&-", "<&- >&-"):
        (error,) = errors_of(services, **closing(redirection))
        assert "stdout closed" in error
    assert not (services.parent / "started").exists()


def test_without_a_stderr_the_status_tells_it(services):
    for redirection in ("2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        finished = run(services, **closing(redirection))
        assert (finished.returncode, finished.stdout, finished.stderr) == (1, b"", b"")
    assert not (services.parent / "started").exists()


def test_an_error_that_nobody_reads_ends_with_the_same_status():
    read_end, write_end = os.pipe()
    os.close(read_end)
    assert run("--what", stderr=write_end).returncode == 1
    os.close(write_end)
