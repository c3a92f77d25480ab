"""The application's environment is for the services; nothing in it bends ginit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import GINIT, wait_for

#: Modules that an application may have, of the names of those that ginit uses.
MODULES = (
    *("signal.py", "subprocess.py", "json.py", "logging.py", "traceback.py", "argparse.py", "select.py", "threading.py"),
    *("gevent/__init__.py", "greenlet.py", "pythonjsonlogger/__init__.py", "pythonjsonlogger/json.py"),
)

#: Runs in the interpreter before anything else where it is found on PYTHONPATH.
SITECUSTOMIZE = """
import os, time
os.environ["GINIT_LOG_LEVEL"] = "none"
os.read = os.write = os.posix_spawn = time.time = None
"""

VARIABLES = {
    "PYTHONASYNCIODEBUG": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONFAULTHANDLER": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONINSPECT": "1",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONMALLOC": "debug",
    "PYTHONNOUSERSITE": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSAFEPATH": "1",
    "PYTHONSTARTUP": "/nowhere",
    "PYTHONTRACEMALLOC": "5",
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "GEVENT_BACKEND": "nonsense",
    "GEVENT_DEBUG": "trace",
    "GEVENT_FILE": "nonsense",
    "GEVENT_HUB": "nonsense",
    "GEVENT_LOOP": "libuv",
    "GEVENT_MONITOR_THREAD_ENABLE": "1",
    "GEVENT_RESOLVER": "nonsense",
    "GEVENT_THREADPOOL": "nonsense",
    "LIBEV_FLAGS": "nonsense",
}


@pytest.fixture
def application(tmp_path: Path) -> Path:
    """A directory of modules, each of which ends the interpreter that imports it."""
    path = tmp_path / "application"
    for name in MODULES:
        module = path / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"raise SystemExit('imported {name} of the application')\n")
    return path


@pytest.fixture
def web(services):
    """A service that shows its environment as it was started with it, and the variables it was given."""
    return services.add("web", "cp /proc/$$/environ environ; echo up; exec sleep 1000")


def environment(directory):
    """What the service had in its environment."""
    entries = (directory / "environ").read_bytes().split(b"\0")[:-1]
    return dict(entry.split(b"=", 1) for entry in entries)


def expected(env):
    outer = {name: value for name, value in os.environb.items() if not name.startswith((b"GINIT_", b"DINIT_"))}
    return {**outer, **{os.fsencode(name): os.fsencode(value) for name, value in env.items()}, b"GINIT_SERVICE": b"web"}


def check(ginit, directory, env):
    """The service runs, with its environment untouched, its line is passed on, and nobody says anything else."""
    ginit.wait_for_line('"service":"web"|web/run', "stderr")
    assert ginit.stop() == 0
    assert environment(directory) == expected(env)
    assert ginit.stdout.text == ""
    assert [json.loads(line)["message"] for line in ginit.stderr.lines] == ["not JSON on stdout: up"]


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_for_the_services_reaches_them_and_changes_nothing_in_ginit(start, web, name):
    env = {name: VARIABLES[name], "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


def test_all_those_variables_together_reach_the_services_and_change_nothing_in_ginit(start, web):
    env = {**VARIABLES, "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


def test_modules_on_pythonpath_change_nothing_in_ginit(start, web, application):
    env = {"PYTHONPATH": str(application), "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


def test_a_ginit_on_pythonpath_is_not_run_in_its_place(start, web, application):
    (application / "ginit.py").write_text("raise SystemExit('the ginit of the application')\n")
    env = {"PYTHONPATH": str(application), "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


def test_a_sitecustomize_on_pythonpath_changes_nothing_in_ginit(start, web, application):
    (application / "sitecustomize.py").write_text(SITECUSTOMIZE)
    env = {"PYTHONPATH": str(application), "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


def test_modules_in_the_working_directory_change_nothing_in_ginit_run_as_a_module(start, web, application):
    env = {"GINIT_LOG_FORMAT": "json"}
    command = {"command": [sys.executable, "-m", "ginit"], "cwd": application}
    check(start(env=env, popen=command), web, env)


# Not what `python -m` itself may import.
@pytest.mark.parametrize("name", ["enum", "re", "typing"])
def test_no_module_in_the_working_directory_is_imported_before_the_path_is_clean(start, web, tmp_path, name):
    (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name} of the application')\n")
    env = {"GINIT_LOG_FORMAT": "json"}
    check(start(env=env, popen={"command": [sys.executable, "-m", "ginit"], "cwd": tmp_path}), web, env)


def test_modules_in_the_working_directory_change_nothing_in_the_command(start, web, application):
    env = {"GINIT_LOG_FORMAT": "json"}
    check(start(env=env, popen={"cwd": application}), web, env)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--nonsense"]])
def test_the_command_line_is_the_same_with_modules_on_pythonpath(application, arguments):
    plain = subprocess.run([GINIT, *arguments], capture_output=True, check=False)
    env = {**os.environ, "PYTHONPATH": str(application), "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"}
    bent = subprocess.run([GINIT, *arguments], capture_output=True, check=False, env=env, stdin=subprocess.DEVNULL)
    assert (bent.returncode, bent.stdout) == (plain.returncode, plain.stdout)
    assert bent.stderr.split(b" ")[1:] == plain.stderr.split(b" ")[1:]


@pytest.mark.parametrize("name", ["PYTHONVERBOSE", "PYTHONPROFILEIMPORTTIME"])
def test_ginit_is_silent_about_its_own_imports_once_it_runs(start, web, name):
    # What the interpreter says before ginit's first instruction is not ginit's to prevent.
    env = {name: "1", "GINIT_LOG_FORMAT": "json"}
    ginit = start(env=env)
    ginit.wait_for_line("not JSON on stdout: up", "stderr")
    assert ginit.stop() == 0
    assert environment(web) == expected(env)
    assert "import 'gevent" not in ginit.stderr.text


def test_a_variable_that_is_no_utf_8_reaches_the_services(start, web):
    env = {"LATIN": "caf\udce9", "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


@pytest.mark.parametrize("locale", [{}, {"PYTHONPATH": "/nowhere"}])
def test_what_the_interpreter_adds_to_its_own_environment_does_not_reach_the_services(start, web, monkeypatch, locale):
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    env = {**locale, "GINIT_LOG_FORMAT": "json"}
    check(start(env=env), web, env)


#: Sends TERM in the last moment of the first interpreter, whose successor must find it.
TERM_BETWEEN = """
import posix
execve = posix.execve
def execve_after_term(*arguments):
    posix.kill(posix.getpid(), 15)
    execve(*arguments)
posix.execve = execve_after_term
from ginit.__main__ import main
main()
"""


def test_a_term_between_the_two_starts_of_the_interpreter_counts(start, services, tmp_path):
    services.add("web", "exec sleep 1000")
    script = tmp_path / "term.py"
    script.write_text(TERM_BETWEEN)
    env = {"PYTHONPATH": "/nowhere"}
    ginit = start(env=env, LOG_LEVEL="info", popen={"command": [sys.executable, str(script)]})
    assert ginit.wait() == 0
    assert "SIGTERM: stopping everything" in ginit.stderr.text


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "/nowhere"}])
def test_a_term_that_comes_as_soon_as_ginit_blocks_signals_counts(start, services, env):
    services.add("web", "exec sleep 1000")
    ginit = start(env=env, LOG_LEVEL="info")
    wait_for(lambda: heeds_term(ginit.psutil), "TERM is blocked or handled")
    assert ginit.stop() == 0
    assert "SIGTERM: stopping everything" in ginit.stderr.text


def heeds_term(process):
    """Whether ginit, and not what started it, has TERM blocked or handled."""
    command = process.cmdline()
    if not command or Path(command[0]).name == "unshare":  # or in the midst of becoming ginit
        return False
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    return (int(status["SigBlk"], 16) | int(status["SigCgt"], 16)) >> (signal.SIGTERM - 1) & 1
