"""Shortages, and a world that doesn't do what ginit wants."""

from __future__ import annotations

import os
import re
import resource
import shutil

import psutil
import pytest
from harness import GINIT, as_another_user, leave, wait_for, write_executable
from machine import AS_ROOT, cannot, require

pytestmark = pytest.mark.usefixtures("_uncovered")

STAMPED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
SERVICES = ("one", "two", "three")
#: Keeps set-user-ID programs from becoming another user's.
NO_NEW_PRIVILEGES = "--no-new-privs"


def add_services(services, terminate=None):
    for name in SERVICES:
        services.add(name, "echo up; exec sleep 1000", terminate=terminate)


def children(ginit):
    """The names of ginit's children; none where it has ended, or isn't there yet."""
    try:
        (init,) = psutil.Process(ginit.process.pid).children()
        return [process.name() for process in init.children()]
    except (psutil.NoSuchProcess, ValueError):
        return []


def all_run(ginit):
    return children(ginit) == ["sleep"] * len(SERVICES)


def runs_or_has_ended(ginit):
    """Wait until all services run, or ginit has ended; say whether they run."""
    return wait_for(lambda: "ended" if ginit.process.poll() is not None else all_run(ginit)) != "ended"


def assert_clear_error(ginit, pattern):
    assert ginit.wait() == 1, ginit.stderr.text
    assert "Traceback" not in ginit.stderr.text
    assert re.search(f"(?m)^{STAMPED}ginit: error: .*{pattern}", ginit.stderr.text), ginit.stderr.text


def limit(command, kind, number):
    """`command` with a limit."""
    require("prlimit")
    return ["prlimit", f"--{kind}={number}:{number}", *command]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("terminate", [None, "kill $GINIT_PID"])
def test_with_any_number_of_open_files_ginit_either_runs_or_says_that_there_are_too_few(services, start, terminate):
    add_services(services, terminate)
    outcomes = set()
    # With fewer than six the interpreter itself can't come up.
    for number in range(6, 32):
        ginit = start(popen={"command": limit([GINIT], "nofile", number)})
        runs = runs_or_has_ended(ginit)
        outcomes.add(runs)
        if runs:
            assert ginit.stop() == 0, ginit.stderr.text
            assert "Traceback" not in ginit.stderr.text
        else:
            assert_clear_error(ginit, "(?i:too many open files)")
    assert outcomes == {True, False}


def test_too_few_open_files_for_all_services_stop_those_that_run(services, start):
    for number in range(20):
        services.add(f"b{number}", "exec sleep 1000")
    ginit = start(popen={"command": limit([GINIT], "nofile", 30)}, LOG_LEVEL="info")
    assert_clear_error(ginit, "too many open files")
    started, ended = (
        sorted(re.findall(rf"info: (\S+/run): {word}", ginit.stderr.text)) for word in ("started", "(?:was )?ended")
    )
    assert started
    assert started == ended


def test_open_files_that_run_out_later_are_told_and_change_nothing_else(services, start):
    services.add("leaving", f"until [ -e go ]; do sleep 0.01; done; {leave('sleep 1234')}; exec sleep 1000")
    add_services(services)
    ginit = start(LOG_LEVEL="info")
    wait_for(lambda: children(ginit).count("sleep") == len(SERVICES))
    soft, hard = ginit.psutil.rlimit(resource.RLIMIT_NOFILE)
    ginit.psutil.rlimit(resource.RLIMIT_NOFILE, (3, hard))
    # It opens a file for each look.
    ginit.wait_for_line("error: can't look for reparented processes: too many open files; raise the limit", "stderr")
    (services.path / "leaving" / "go").touch()
    ginit.wait_for_line("leaving/run: .* [0-9]+$", "stderr")
    ginit.psutil.rlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ginit.wait_for_line("terminating a reparented process: sleep 1234", "stderr")
    assert ginit.stop() == 0
    assert "unexpected" not in ginit.stderr.text


def test_without_open_files_ginit_stops_as_ever(services, start):
    add_services(services)
    ginit = start()
    wait_for(lambda: all_run(ginit))
    ginit.psutil.rlimit(resource.RLIMIT_NOFILE, (3, ginit.psutil.rlimit(resource.RLIMIT_NOFILE)[1]))
    ginit.wait_for_line("can't look for reparented processes: too many open files", "stderr")
    assert ginit.stop() == 0
    assert sum("not JSON" not in line for line in ginit.stderr.lines) == 1


@pytest.mark.parametrize("policy", ["terminate", "adopt", "ignore"])
def test_without_proc_what_can_t_be_seen_isn_t_waited_for(services, start, policy):
    services.add("web", "sleep 1234 & exit 0")
    ginit = start(
        popen={"command": ["sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", GINIT]}, REPARENTING_POLICY=policy
    )
    assert ginit.wait() == 0
    assert "warn: no /proc is mounted: reparented processes can't be seen" in ginit.stderr.text


def test_a_program_that_has_become_another_user_may_open_its_stdout_and_stderr(services, start):
    if os.geteuid() != 0:
        cannot("only root can become another user", AS_ROOT)
    require("setpriv")
    script = "echo out >/dev/stdout; echo err >/dev/stderr; exec sleep 1000"
    services.add("web", f"exec setpriv --reuid=54321 --regid=54321 --clear-groups sh -c '{script}'")
    services.add(
        "log", "exec setpriv --reuid=54321 --regid=54321 --clear-groups sh -c 'echo logged >/dev/stdout; exec sleep 1000'"
    )
    (services.path / "log" / "log").mkdir()
    write_executable(services.path / "log" / "log" / "run", "exec cat")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: out")
    ginit.wait_for_line("web/run: err", "stderr")
    ginit.wait_for_line("log/run: logged")
    assert ginit.stop() == 0


@pytest.mark.parametrize("number", range(1, 6))
def test_too_few_processes_are_a_clear_error_and_stop_what_runs(public_services, start, number):
    add_services(public_services)
    # A user whom nobody else has processes of.
    uid = 100000 + os.getpid()
    command = limit([*as_another_user(uid), GINIT], "nproc", number)
    ginit = start(str(public_services.path), popen={"command": command})
    # An interpreter and three services, and threads for streams that can't be opened anew: another user's pipes.
    if runs_or_has_ended(ginit):
        ginit.kill()
    if number < 4 or ginit.wait():
        assert_clear_error(ginit, "(no more processes|can't start new thread)")


@pytest.mark.parametrize("number", [1, 2])
def test_the_thread_that_writes_to_a_file_is_there_before_any_line_is(public_services, start, tmp_path, number):
    public_services.add("web", "echo up; exec sleep 1000")
    uid = 300000 + os.getpid()
    command = limit([*as_another_user(uid), GINIT], "nproc", number)
    with (tmp_path / "output").open("w") as file:
        ginit = start(str(public_services.path), popen={"command": command, "stdout": file})
    assert_clear_error(ginit, "(no more processes|can't start new thread)")
    assert "raise the limit" in ginit.stderr.text
    assert "unexpected" not in ginit.stderr.text


def test_a_terminate_program_that_cannot_be_started_for_want_of_processes_gives_way_to_term(public_services, start):
    public_services.add("web", "prlimit --pid $PPID --nproc=1:1; exec sleep 1000", terminate="kill $GINIT_PID")
    uid = 200000 + os.getpid()
    ginit = start(str(public_services.path), popen={"command": [*as_another_user(uid), GINIT]})
    wait_for(lambda: children(ginit) == ["sleep"])
    assert ginit.stop() == 0
    assert re.search(f"{STAMPED}ginit: error: web/term: .*no more processes.*; sending TERM", ginit.stderr.text)


def test_a_service_that_is_killed_from_outside_is_a_service_that_failed(services, start):
    add_services(services)
    ginit = start()
    wait_for(lambda: all_run(ginit))
    ginit.psutil.children()[1].kill()
    assert ginit.wait() == 3
    assert "was ended by SIGKILL" in ginit.stderr.text


def test_a_service_that_has_become_another_user_s_and_cannot_be_signalled_is_an_error_and_waited_for(public_services, start):
    directory = public_services.add("web", "exec ./setpriv --reuid=0 --regid=0 --clear-groups sleep 1000")
    public_services.add("other", "exec sleep 1000")
    prefix = [word for word in as_another_user() if word != NO_NEW_PRIVILEGES]
    shutil.copy(shutil.which("setpriv"), directory)
    os.chmod(directory / "setpriv", 0o4755)
    ginit = start(str(public_services.path), popen={"command": [*prefix, GINIT]})
    foreign = wait_for(
        lambda: [process for process in ginit.find("sleep 1000") if process.uids().real == 0 == process.uids().saved]
    )
    wait_for(lambda: foreign[0].name() == "sleep")
    ginit.kill()
    ginit.wait_for_line("ginit: error: web/run: can't send TERM: Operation not permitted", "stderr")
    wait_for(lambda: ginit.psutil.children() == foreign)
    foreign[0].terminate()
    assert ginit.wait() == 0


def test_without_lists_of_children_in_proc_orphans_are_found_all_the_same(services, start):
    services.add("web", f"{leave('sleep 1234')}; exec sleep 1000")
    # As on a kernel without CONFIG_PROC_CHILDREN.
    script = 'mount -t tmpfs none /proc/1/task && exec "$@"'
    ginit = start(popen={"command": ["sh", "-c", script, "sh", GINIT]})
    ginit.wait_for_line("terminating a reparented process: sleep 1234", "stderr")
    assert ginit.stop() == 0


@pytest.fixture
def start_where_proc_hides(public_services, start):
    """Starts ginit as a user from whom /proc hides those of another one, with a service `web` that leaves one behind."""

    def start_where_proc_hides(how, policy):
        if os.geteuid() != 0:
            cannot("only root can become another user", AS_ROOT)
        leave = "(./sleep 1234 & while cat /proc/$!/comm; do sleep 0.01; done >/dev/null 2>&1)"  # until it's hidden
        sleep = public_services.add("web", f"{leave}; exec sleep 1000") / "sleep"
        shutil.copy(shutil.which("sleep"), sleep)
        os.chown(sleep, 54322, 54322)
        os.chmod(sleep, 0o4755)
        hide = ["sh", "-c", f'mount -o remount,hidepid={how} /proc && exec "$@"', "sh"]
        command = [*hide, *(word for word in as_another_user() if word != NO_NEW_PRIVILEGES), GINIT]
        settings = {"REPARENTING_POLICY": policy, "LOG_LEVEL": "info"}
        return start(str(public_services.path), popen={"command": command}, **settings)

    return start_where_proc_hides


@pytest.mark.parametrize("how", [1, 2])
def test_an_orphan_that_proc_hides_is_terminated_all_the_same(start_where_proc_hides, how):
    ginit = start_where_proc_hides(how, "terminate")
    ginit.wait_for_line(r"warn: \?/\d+: terminating a reparented process: \?$", "stderr")
    ginit.wait_for_line(r"info: \?/\d+: reparented process was ended by SIGTERM", "stderr")
    assert ginit.stop() == 0
    assert "unexpected" not in ginit.stderr.text


@pytest.mark.parametrize("how", [1, 2])
def test_a_daemon_that_proc_hides_is_adopted_and_its_output_stays_where_it_was(start_where_proc_hides, how):
    ginit = start_where_proc_hides(how, "adopt")
    reason = "it may not be looked into; it may run as another user"
    ginit.wait_for_line(rf"warn: \?/\d+: its output stays where it was: {reason}$", "stderr")
    (orphan,) = ginit.find("sleep 1234")
    orphan.suspend()
    assert ginit.stop() == 0
    assert re.search(r"info: \?/\d+: was ended by SIGTERM", ginit.stderr.text)
