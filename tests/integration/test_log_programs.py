"""A service's `log/run`."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from harness import GINIT, descriptors, wait_for
from machine import cannot, require

#: Says on stderr what comes, so that it doesn't depend on ginit's reading of stdout, and stays until its stdin ends.
READER = """\
trap 'echo got TERM >&2' TERM
echo ready >&2
while read line; do echo "read $line"; done
echo "end of stdin"
echo "end of stdin" >&2"""

#: Goes on working when its stdin has ended, until there is a file `end` in its directory.
BUSY_READER = f"""\
{READER}
while [ ! -e end ]; do echo tick; sleep 0.02; done
echo bye"""


def pipes(pid: int) -> dict[int, str]:
    """The descriptors of a process that are pipes, with their inodes, as in `pipe:[123]`."""
    return {fd: link for fd, link in descriptors(pid).items() if link.startswith("pipe:")}


def pipes_at_rest(pid: int) -> dict[int, str]:
    """The same of a shell, when it has its own stdout back, which is put aside for a moment when it prints to its stderr."""
    wait_for(lambda: max(pipes(pid)) <= 2, "no other pipes than the usual ones")
    return pipes(pid)


def logger(ginit):
    return ginit.find("web/log/run")[0]


def test_the_stdin_of_a_log_program_is_the_stdout_of_its_service_and_ginit_is_not_in_between(services, start):
    services.add("web", "echo ready >&2; while :; do sleep 0.05; done", log=READER)
    ginit = start()
    ginit.wait_for_line("web/run: ready", "stderr")
    ginit.wait_for_line("web/log: ready", "stderr")
    run, log = pipes_at_rest(ginit.find("web/run")[0].pid), pipes_at_rest(logger(ginit).pid)
    shared = run[1]
    assert log[0] == shared
    # Each has its end alone, or the log program's stdin would never end.
    assert [fd for fd, pipe in run.items() if pipe == shared] == [1]
    assert [fd for fd, pipe in log.items() if pipe == shared] == [0]
    # ginit holds no end for writing; one for reading shows whether somebody writes still.
    (held,) = [fd for fd, pipe in pipes(ginit.pid).items() if pipe == shared]
    flags = int(re.search(r"flags:\s*(\d+)", Path(f"/proc/{ginit.pid}/fdinfo/{held}").read_text())[1], 8)
    assert flags & os.O_ACCMODE == os.O_RDONLY


def test_services_dont_hold_each_others_pipes(services, start):
    for name in ("a", "b", "c"):
        services.add(name, "echo ready >&2; while :; do sleep 0.05; done", log=READER)
    ginit = start()
    ginit.wait_for_line("/(run|log): ready", "stderr", count=6)
    processes = {name: pipes_at_rest(ginit.find(f"{name}/run")[0].pid) for name in ("a", "b", "c", "a/log", "b/log", "c/log")}
    for name in ("a", "b", "c"):
        holders = [other for other, held in processes.items() if processes[name][1] in held.values()]
        assert holders == [name, f"{name}/log"]


def test_a_log_program_runs_in_its_directory(services, start):
    directory = services.add("web", "exec sleep 1000", log="pwd -P; exec cat")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line(f"web/run: {directory}/log$")


def test_a_log_program_gets_what_its_service_prints_and_prints_in_its_place(services, start):
    services.add("web", "echo one; echo two; exit 0", log=READER)
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: read one", "web/run: read two", "web/run: end of stdin"]


def test_the_stdout_of_a_log_program_is_labelled_run_and_its_stderr_log(services, start):
    services.add("web", "echo run >&2; exit 0", log="""cat; echo '{"a":1}'; echo plain; echo log >&2""")
    ginit = start()
    assert ginit.wait() == 0
    (line,) = ginit.stdout.lines
    assert {**json.loads(line), "logged": ""} == {"a": 1, "service": "web", "stage": "run", "logged": ""}
    assert sorted(ginit.stderr.texts) == ["ginit: warn: web/run: not JSON on stdout: plain", "web/log: log", "web/run: run"]


def test_the_stderr_of_a_service_doesnt_go_to_its_log_program(services, start):
    services.add("web", "echo error >&2; echo out", log=READER)
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: read out", "web/run: end of stdin"]
    assert "web/run: error" in ginit.stderr.texts


def test_a_log_program_is_never_sent_term_and_ends_when_its_stdin_does(services, start):
    services.add("web", "echo ready; exec sleep 1000", log=READER)
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("read ready")
    assert ginit.stop() == 0
    assert sorted(ginit.stderr.texts) == ["web/log: end of stdin", "web/log: ready"]


def test_what_a_log_program_prints_at_the_end_of_its_stdin_is_passed_on(services, start):
    services.add("web", "seq 1000; echo ready >&2; exec sleep 1000", log="echo reading >&2; sort -n; echo end; echo end >&2")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: ready", "stderr")
    ginit.wait_for_line("web/log: reading", "stderr")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == [f"web/run: {number}" for number in [*range(1, 1001), "end"]]
    assert ginit.stderr.texts[-1] == "web/log: end"


@pytest.mark.parametrize("policy", ["terminate", "ignore"])
def test_ginit_waits_for_a_log_program_that_still_works_after_the_end_of_its_stdin(services, start, policy):
    directory = services.add("web", "echo ready; exec sleep 1000", log=BUSY_READER)
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY=policy, KILL_TIMEOUT="0", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("read ready")
    ginit.kill()
    ginit.wait_for_line("end of stdin")
    ginit.kill()
    ginit.wait_for_line("while stopping", "stderr")
    ginit.wait_for_more_lines("web/run: tick", count=20)
    (directory / "log" / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "web/run: bye"
    assert "got TERM" not in ginit.stderr.text


def test_an_ignored_process_that_holds_no_pipe_doesnt_keep_ginit_from_waiting_for_a_log_program(services, start):
    # The inner shell ends at once, and its child is reparented.
    services.add("daemonizer", "sh -c 'sleep 3000 </dev/null >/dev/null 2>&1 &'; exec sleep 1000")
    directory = services.add("web", "echo ready; exec sleep 1000", log=BUSY_READER)
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info", REPARENTING_POLICY="ignore", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("read ready")
    ginit.wait_for_line("ignoring a reparented process", "stderr")
    ginit.kill()
    ginit.wait_for_line("end of stdin")
    ginit.wait_for_more_lines("web/run: tick", count=20)
    (directory / "log" / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "web/run: bye"


#: Leaves a process behind that holds the pipe to the log program.
LEAVES_A_WRITER = '(sh -c "sleep 3000 &"); echo ready; exec sleep 1000'


def test_a_writer_left_behind_does_not_keep_ginit_from_exiting_whoever_the_log_program_runs_as(services, start):
    if os.geteuid() != 0:
        cannot("only root may become another user")
    require("setpriv")
    services.add("web", LEAVES_A_WRITER, log="exec setpriv --reuid=65534 --clear-groups cat")
    # As in a container: root there may not look into other users' processes.
    popen = {"command": ["setpriv", "--bounding-set=-sys_ptrace", GINIT]}
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore", DRAIN_TIMEOUT="0.2", popen=popen)
    ginit.wait_for_line("web/run: ready")
    assert ginit.stop() == 0
    assert "warn: not waiting for the log program of web: " in ginit.stderr.text


@pytest.mark.parametrize("policy", ["terminate", "adopt", "ignore"])
def test_without_proc_a_writer_left_behind_does_not_keep_ginit_from_exiting(services, start, policy):
    services.add("web", LEAVES_A_WRITER, log="exec cat")
    popen = {"command": ["sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", GINIT]}
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY=policy, DRAIN_TIMEOUT="0.2", popen=popen)
    ginit.wait_for_line("web/run: ready")
    assert ginit.stop() == 0
    assert "warn: not waiting for the log program of web: " in ginit.stderr.text


def test_what_a_log_program_leaves_unread_is_passed_on_in_the_service_s_name(services, start):
    directory = services.add("web", "seq 100; touch written; exec sleep 1000", log="until [ -e ../written ]; do sleep 0.01; done")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert (directory / "written").exists()
    assert ginit.stdout.texts == [f"web/run: {number}" for number in range(1, 101)]


def test_a_log_program_goes_on_while_its_service_has_not_ended(services, start):
    directory = services.add(
        "web",
        """\
trap 'echo got TERM' TERM
echo ready
while [ ! -e end ]; do echo tick; sleep 0.02; done
echo bye""",
        log=READER,
    )
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("read ready")
    ginit.kill()
    ginit.wait_for_line("read got TERM")
    ginit.wait_for_more_lines("read tick")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-2:] == ["web/run: read bye", "web/run: end of stdin"]


def test_when_a_service_has_disabled_itself_its_log_program_ends_and_the_others_go_on(services, start):
    directory = services.add("web", "echo one; exit 115", log=BUSY_READER)
    services.add("other", "while :; do echo tick; sleep 0.02; done")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("web/run: .*disabled", "stderr")
    ginit.wait_for_line("web/run: end of stdin")
    (directory / "log" / "end").touch()
    ginit.wait_for_line("web/run: bye")
    wait_for(lambda: not ginit.find("web/log/run"))
    ginit.wait_for_more_lines("other/run: tick")
    assert "web/run: read one" in ginit.stdout.texts
    assert ginit.stop() == 0


@pytest.mark.parametrize(("status", "exit_status"), [(0, 0), (4, 3)])
def test_how_a_log_program_ends_after_its_service_doesnt_count(services, start, status, exit_status):
    # It stays until ginit has seen the service's end: the kernel closes a process's pipes a little before the process ends.
    directory = services.add("web", f"exit {status}", log="cat; while [ ! -e end ]; do sleep 0.02; done; exit 5")
    ginit = start(LOG_LEVEL="info")
    wait_for(lambda: f"web/run: ended with status {status}".encode() in ginit.stderr.all_data)
    (directory / "log" / "end").touch()
    assert ginit.wait() == exit_status


#: Freezes ginit when that has seen the end of the log program, ends, and has ginit go on later.
ENDS_WHILE_GINIT_IS_FROZEN = """\
until [ -s log.pid ] && [ -e go ]; do sleep 0.01; done
read log <log.pid
touch end
while kill -0 $log 2>/dev/null; do :; done
kill -STOP $PPID
(sleep 0.1; kill -CONT $PPID) &
exit 115"""


def test_what_a_service_says_counts_though_ginit_was_frozen_when_it_said_so(services, start):
    directory = services.add(
        "web", ENDS_WHILE_GINIT_IS_FROZEN, log="echo $$ >../log.pid; until [ -e ../end ]; do sleep 0.01; done; exit 4"
    )
    ginit = start(LOG_LEVEL="info", REPARENTING_POLICY="ignore", popen={"namespace": False})
    (directory / "go").touch()
    assert ginit.wait() == 0
    assert "web/run: has disabled itself" in ginit.stderr.text


def test_a_directory_log_without_a_run_is_no_log_program(services, start):
    directory = services.add("web", "echo hello")
    (directory / "log").mkdir()
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: hello"]


def test_a_log_program_may_be_in_a_directory_that_is_linked(services, start):
    directory = services.add("web", "echo one")
    elsewhere = services.add(".logger", log=READER)
    (directory / "log").symlink_to(elsewhere / "log")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: read one", "web/run: end of stdin"]
