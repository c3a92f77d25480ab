"""Restarts by policy, `down`, `finish`, and `sv` with ginit itself; what of it stays so in runsvdir's place."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest
from harness import GINIT, PATIENCE, wait_for, write_executable
from machine import require

STAY = "echo ready; exec sleep 1000"
#: Writes down what happens, in an order that doesn't depend on when ginit reads which pipe.
START = "echo start >>events"
FINISH = 'echo "finish $*" >>events'
POLICIES = ("no", "on-failure", "on-failure:5", "always")


def events(directory: Path) -> list[str]:
    try:
        return (directory / "events").read_text().splitlines()
    except FileNotFoundError:
        return []


def wait_for_events(directory: Path, *expected: str) -> None:
    """Wait until these have happened; others may have, after them."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: events(directory)[: len(expected)] == list(expected))
    assert events(directory)[: len(expected)] == list(expected)


def messages(ginit, level: str = "warn") -> list[str]:
    """ginit's own messages of a level, without the PIDs."""
    opening = f"ginit: {level}: "
    return [re.sub(r" \(PID \d+\)", "", text[len(opening) :]) for text in ginit.stderr.texts if text.startswith(opening)]


# The policies.


def test_a_service_that_fails_is_started_again_as_often_as_is_allowed_and_then_everything_is_stopped(services, start):
    services.add("other", STAY, terminate="echo asked; kill $GINIT_PID")
    services.add("web", "echo start; exit 7")
    ginit = start(JSON_STDOUT="0", RESTART="on-failure:3")
    assert ginit.wait() == 3
    assert ginit.stdout.texts.count("web/run: start") == 4
    assert ginit.stdout.texts[-1] == "other/term: asked"
    assert messages(ginit) == [
        "web/run: ended with status 7; starting it again in 0.1 s",
        "web/run: ended with status 7; starting it again in 0.2 s",
        "web/run: ended with status 7; starting it again in 0.4 s",
        "web/run: ended with status 7; stopping everything; with status 115 the others would go on",
    ]


def test_on_failure_a_service_that_ends_with_0_ends_everything_with_0(services, start):
    services.add("web", "echo start; exit 0")
    services.add("other", STAY, terminate="kill $GINIT_PID")
    ginit = start(JSON_STDOUT="0", RESTART="on-failure")
    assert ginit.wait() == 0
    assert ginit.stdout.texts.count("web/run: start") == 1
    assert messages(ginit) == []


def test_always_a_service_that_ends_with_0_is_started_again(services, start):
    services.add("web", "echo start; exit 0")
    ginit = start(JSON_STDOUT="0", RESTART="always")
    ginit.wait_for_line("web/run: start", count=3)
    assert ginit.stop() == 0
    assert messages(ginit)[:2] == [
        "web/run: ended with status 0; starting it again in 0.1 s",
        "web/run: ended with status 0; starting it again in 0.2 s",
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_service_that_disables_itself_is_not_started_again(services, start, policy):
    services.add("web", "echo start; exit 115")
    ginit = start(JSON_STDOUT="0", RESTART=policy)
    assert ginit.wait() == 0
    assert ginit.stdout.texts == ["web/run: start"]
    assert messages(ginit) == ["every service has disabled itself, nothing is left to run"]


@pytest.mark.parametrize("signum", ["TERM", "KILL"])
def test_a_service_that_a_signal_ends_has_failed(services, start, signum):
    services.add("web", f"kill -{signum} $$")
    ginit = start(RESTART="on-failure:1")
    assert ginit.wait() == 3
    assert messages(ginit) == [
        f"web/run: was ended by SIG{signum}; starting it again in 0.1 s",
        f"web/run: was ended by SIG{signum}; stopping everything",
    ]


def test_each_service_has_restarts_of_its_own(services, start):
    for name in ("a", "b"):
        services.add(name, f"[ -e again ] || {{ touch again; exit 1; }}\n{STAY}")
    ginit = start(JSON_STDOUT="0", RESTART="on-failure:1")
    for name in ("a", "b"):
        ginit.wait_for_line(f"{name}/run: ready")
    assert ginit.stop() == 0
    assert sorted(messages(ginit)) == [f"{name}/run: ended with status 1; starting it again in 0.1 s" for name in ("a", "b")]


def test_the_others_go_on_while_one_is_started_again(services, start):
    services.add("other", "trap 'echo got TERM' TERM; while :; do echo tick; sleep 0.02; done")
    services.add("web", "exit 1")
    ginit = start(JSON_STDOUT="0", RESTART="on-failure")
    ginit.wait_for_line("web/run: ended .* again in 0.4 s", "stderr")
    ginit.wait_for_more_lines("other/run: tick")
    assert "got TERM" not in ginit.stdout.text


def test_told_to_stop_in_a_pause_ginit_starts_nothing_any_more(services, start):
    services.add("web", "echo start; exit 1")
    ginit = start(JSON_STDOUT="0", RESTART="always")
    ginit.wait_for_line("again in 3.2 s", "stderr")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == ["web/run: start"] * 6
    assert len(messages(ginit)) == 6


def test_what_ends_because_ginit_stops_is_not_started_again(services, start):
    services.add("web", "trap 'exit 1' TERM; echo ready; while :; do sleep 0.02; done")
    ginit = start(JSON_STDOUT="0", RESTART="always")
    ginit.wait_for_line("ready")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == ["web/run: ready"]
    assert messages(ginit) == []


@pytest.mark.parametrize("run", ["exit 0", "chmod -x run; exit 1"], ids=["the first time", "again"])
def test_a_service_that_cant_be_started_ends_everything_with_1_whatever_the_policy(services, start, run):
    directory = services.add("web", run)
    if run == "exit 0":
        (directory / "run").chmod(0o644)
    ginit = start(RESTART="always")
    assert ginit.wait() == 1
    assert messages(ginit, "error") == [f"can't start {directory}/run: it isn't executable (chmod +x)"]


# Log programs.


@pytest.mark.parametrize(("policy", "log_status"), [("always", 0), ("on-failure", 5)])
def test_a_log_program_that_ends_is_started_again_and_no_line_in_the_pipe_is_lost(services, start, policy, log_status):
    # It takes a line and no more: the shell reads by the byte.
    log = f'IFS= read -r line; echo "read $line"; exit {log_status}'
    services.add("web", "echo one; echo two; echo three; exec sleep 1000", log=log)
    ginit = start(JSON_STDOUT="0", RESTART=policy)
    ginit.wait_for_line("web/run: read three")
    assert ginit.stop() == 0
    assert ginit.stdout.texts[:3] == ["web/run: read one", "web/run: read two", "web/run: read three"]
    assert messages(ginit)[:2] == [
        f"web/log: ended with status {log_status}; starting it again in 0.1 s",
        f"web/log: ended with status {log_status}; starting it again in 0.2 s",
    ]


def test_what_waits_for_a_log_program_that_is_not_started_again_is_passed_on(services, start):
    services.add("web", "seq 1000; echo ready >&2; exec sleep 1000", log='IFS= read -r line; echo "$line"; exit 1')
    ginit = start(JSON_STDOUT="0", RESTART="always")
    ginit.wait_for_line("web/run: ready", "stderr")
    ginit.wait_for_line("web/log: .*again in 0.4 s", "stderr")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == [f"web/run: {number}" for number in range(1, 1001)]


def test_a_service_that_prints_at_the_end_while_its_log_program_is_gone_is_not_held_up(services, start):
    # More than the pipe holds.
    run = "trap 'seq 100000; exit' TERM; echo first; while :; do sleep 0.02; done"
    services.add("web", run, log='IFS= read -r line; echo "$line"; exit 1')
    ginit = start(JSON_STDOUT="0", RESTART="always")
    ginit.wait_for_line("web/log: .*again", "stderr")
    # It waits for its second line.
    wait_for(lambda: ginit.find("web/log/run"))
    ginit.find("web/log/run")[0].kill()
    ginit.wait_for_line("web/log: was ended by SIGKILL .*; starting it again in 0.2 s", "stderr")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == ["web/run: first", *(f"web/run: {number}" for number in range(1, 100001))]


def test_a_service_goes_on_while_its_log_program_is_started_again(services, start):
    run = """\
trap 'echo got PIPE >&2' PIPE
echo one
echo ready >&2
while [ ! -e more ]; do sleep 0.02; done
echo two
exec sleep 1000"""
    directory = services.add("web", run, log='echo begin >&2; IFS= read -r line; echo "$line"; exit 1')
    ginit = start(JSON_STDOUT="0", RESTART="on-failure")
    ginit.wait_for_line("web/log: .*again", "stderr")
    (directory / "more").touch()
    ginit.wait_for_line("web/run: two")
    assert ginit.stdout.texts == ["web/run: one", "web/run: two"]
    assert ginit.stderr.texts.count("web/run: ready") == 1
    assert "got PIPE" not in ginit.stderr.text


def test_a_log_program_that_has_failed_too_often_ends_everything_with_3_and_no_line_is_lost(services, start):
    services.add("web", "seq 100; exec sleep 1000", log='IFS= read -r line; echo "$line"; exit 1')
    ginit = start(JSON_STDOUT="0", RESTART="on-failure:1")
    ginit.wait_for_line("web/run: 2$")
    assert ginit.wait() == 3
    assert ginit.stdout.texts == [f"web/run: {number}" for number in range(1, 101)]
    assert messages(ginit)[-1] == "web/log: ended with status 1; stopping everything; with status 115 the others would go on"


# A file `down`.


def test_with_a_file_down_a_service_is_not_started_and_the_others_run(services, start):
    (services.add("resting", "echo started", log="echo started") / "down").touch()
    services.add("web", STAY)
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: ready")
    assert ginit.stop() == 0
    assert ginit.stdout.texts == ["web/run: ready"]
    assert messages(ginit) == []


@pytest.mark.parametrize("other", [None, "exit 115"], ids=["all down", "the other has disabled itself"])
@pytest.mark.parametrize("policy", ["no", "always"])
def test_when_nothing_is_left_but_services_that_are_down_ginit_warns_and_exits_with_0(services, start, other, policy):
    for name in ("a", "b"):
        (services.add(name, "echo started") / "down").touch()
    if other is not None:
        services.add("other", other)
    ginit = start(RESTART=policy)
    assert ginit.wait() == 0
    assert ginit.stdout.data == b""
    assert messages(ginit) == ["every service is down or has disabled itself, nothing is left to run"]


# `finish`.


def add(services, name: str = "web", run: str = f"{START}\n{STAY}", **files: str) -> Path:
    directory = services.add(name, run, log=files.pop("log", None))
    for file, text in files.items():
        write_executable(directory / file, text)
    return directory


@pytest.mark.parametrize(
    ("ending", "arguments"), [("exit 0", "0 0"), ("exit 3", "3 0"), ("exit 255", "255 0"), ("kill -KILL $$", "-1 9")]
)
def test_finish_gets_its_two_arguments_after_each_end_and_before_the_restart(services, start, ending, arguments):
    directory = add(services, run=f"{START}; {ending}", finish=FINISH)
    start(RESTART="always")
    wait_for_events(directory, "start", f"finish {arguments}", "start", f"finish {arguments}", "start")


@pytest.mark.parametrize(
    ("ending", "policy", "arguments", "status"),
    [
        ("exit 0", "no", "0 0", 0),
        ("exit 4", "no", "4 0", 3),
        ("exit 4", "on-failure:0", "4 0", 3),
        ("kill -TERM $$", "no", "-1 15", 3),
        ("exit 115", "always", "115 0", 0),
    ],
)
def test_finish_runs_after_the_last_end_too_and_what_it_returns_doesnt_count(services, start, ending, policy, arguments, status):
    directory = add(services, run=f"{START}; {ending}", finish=f"{FINISH}; exit 6")
    ginit = start(RESTART=policy)
    assert ginit.wait() == status
    assert events(directory) == ["start", f"finish {arguments}"]


@pytest.mark.parametrize("policy", ["no", "always"])
def test_finish_runs_when_ginit_stops(services, start, policy):
    directory = add(services, finish=FINISH)
    ginit = start(JSON_STDOUT="0", RESTART=policy)
    ginit.wait_for_line("ready")
    assert ginit.stop() == 0
    assert events(directory) == ["start", "finish -1 15"]


def test_what_finish_prints_is_labelled_finish(services, start):
    add(services, run="exit 4", finish="echo out $GINIT_SERVICE; echo err >&2; pwd -P")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 3
    assert ginit.stdout.texts == ["web/finish: out web", f"web/finish: {services.path}/web"]
    assert "web/finish: err" in ginit.stderr.texts


def test_what_finish_prints_goes_to_the_log_program(services, start):
    add(services, run="echo one; exit 4", finish="echo two; echo err >&2", log='while read -r line; do echo "read $line"; done')
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 3
    assert ginit.stdout.texts == ["web/run: read one", "web/run: read two"]
    assert "web/finish: err" in ginit.stderr.texts


def test_told_to_stop_while_finish_runs_ginit_waits_for_it(services, start):
    directory = add(
        services,
        run="echo start; exit 1",
        finish="trap 'echo got TERM' TERM; while [ ! -e end ]; do echo tick; sleep 0.02; done; echo bye",
    )
    ginit = start(JSON_STDOUT="0", RESTART="always", LOG_LEVEL="info", KILL_TIMEOUT="0", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("web/finish: tick")
    ginit.kill()
    ginit.wait_for_line("stopping everything", "stderr")
    ginit.kill()
    ginit.wait_for_line("while stopping", "stderr")
    ginit.wait_for_more_lines("web/finish: tick")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "web/finish: bye"
    assert ginit.stdout.texts.count("web/run: start") == 1
    assert "got TERM" not in ginit.stdout.text


def test_a_finish_that_cant_be_started_is_an_error_and_the_service_is_started_again(services, start):
    directory = add(services, run=f"{START}; exit 1", finish=FINISH)
    (directory / "finish").chmod(0o644)
    ginit = start(RESTART="always")
    wait_for_events(directory, "start", "start")
    assert messages(ginit, "error")[0] == f"web/finish: can't start {directory}/finish: it isn't executable (chmod +x)"


# `sv`, with ginit itself.


@pytest.fixture
def sv(services):
    """Runs runit's own `sv`, and waits until what it asks for is so."""
    require("sv")

    def sv(*arguments: str) -> str:
        command = ["sv", "-w", str(PATIENCE), *arguments]
        done = subprocess.run(
            command,
            env={**os.environ, "SVDIR": str(services.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return sv


def wait_until_controlled(directory: Path) -> None:
    wait_for((directory / "supervise/status").exists)


@pytest.mark.parametrize("policy", ["no", "always"])
def test_a_service_that_sv_has_taken_down_doesnt_end_ginit_and_can_be_started_again(services, start, sv, policy):
    directory = add(services, finish=FINISH)
    ginit = start(JSON_STDOUT="0", RESTART=policy, SUPERVISE="1")
    ginit.wait_for_line("ready")
    assert sv("down", "web").startswith("ok: down: web: ")
    assert sv("up", "web").startswith("ok: run: web: ")
    ginit.wait_for_line("ready", count=2)
    assert ginit.stop() == 0
    assert events(directory) == ["start", "finish -1 15"] * 2
    assert messages(ginit) == []


def test_a_service_that_sv_restarts_is_started_again_by_the_policy(services, start, sv):
    directory = add(services, finish=FINISH)
    ginit = start(JSON_STDOUT="0", RESTART="always", SUPERVISE="1")
    ginit.wait_for_line("ready")
    assert sv("restart", "web").startswith("ok: run: web: ")
    ginit.wait_for_line("ready", count=2)
    assert ginit.stop() == 0
    assert events(directory) == ["start", "finish -1 15"] * 2
    assert messages(ginit) == ["web/run: was ended by SIGTERM; starting it again in 0.1 s"]


@pytest.mark.parametrize(
    ("script", "command", "unwanted"), [("terminate", "t", "TERM"), ("control/t", "t", "TERM"), ("control/1", "1", "USR1")]
)
def test_what_ends_while_a_script_runs_for_it_leaves_the_next_one_alone(services, start, script, command, unwanted):
    traps = 'for name in TERM USR1 HUP; do trap "echo $name >>events" $name; done'
    directory = add(services, run=f"{traps}; {START}; while :; do sleep 0.02; done")
    # It has failed in the end, so the signal would be sent.
    replaced = "until [ $(grep -c start events) = 2 ]; do sleep 0.01; done"
    write_executable(directory / script, f"kill -KILL $(cat supervise/pid); {replaced}; exit 1")
    start(RESTART="always", SUPERVISE="1")
    wait_for_events(directory, "start")
    (directory / "supervise/control").write_text(command + "h")
    wait_for(lambda: "HUP" in events(directory))
    assert unwanted not in events(directory)


def test_a_service_that_is_started_by_sv_and_fails_ends_ginit_as_ever(services, start, sv):
    directory = add(services, run=f"{START}; [ -e fail ] && exit 4; {STAY}")
    ginit = start(JSON_STDOUT="0", SUPERVISE="1")
    ginit.wait_for_line("ready")
    sv("down", "web")
    (directory / "fail").touch()
    (directory / "supervise/control").write_text("u")
    assert ginit.wait() == 3
    assert events(directory) == ["start", "start"]


def test_a_service_that_sv_starts_once_may_end(services, start, sv):
    directory = add(services, run=f"{START}; while [ ! -e end ]; do sleep 0.02; done; exit 4")
    (directory / "down").touch()
    ginit = start(SUPERVISE="1")
    wait_until_controlled(directory)
    sv("once", "web")
    wait_for_events(directory, "start")
    (directory / "end").touch()
    sv("down", "web")
    assert ginit.stop() == 0
    assert events(directory) == ["start"]


def test_where_sv_can_start_them_ginit_stays_though_all_services_are_down(services, start, sv):
    directory = add(services)
    (directory / "down").touch()
    ginit = start(JSON_STDOUT="0", SUPERVISE="1")
    wait_until_controlled(directory)
    sv("up", "web")
    ginit.wait_for_line("ready")
    assert ginit.stop() == 0
    assert messages(ginit) == []


def test_a_service_that_sv_has_told_to_exit_is_over_and_the_others_go_on(services, start, sv):
    directory = add(services, finish=FINISH)
    add(services, "other")
    ginit = start(JSON_STDOUT="0", RESTART="always", SUPERVISE="1")
    ginit.wait_for_line("/run: ready", count=2)
    assert sv("exit", "web") == "ok: web: runsv not running\n"
    assert sv("status", "other").startswith("run: other: ")
    assert ginit.stop() == 0
    assert events(directory) == ["start", "finish -1 15"]
    assert messages(ginit) == []


# In runsvdir's place.


@pytest.fixture
def runsvdir(tmp_path, start):
    """Starts ginit in runsvdir's place."""
    program = tmp_path / "bin/runsvdir"
    program.parent.mkdir()
    program.symlink_to(GINIT)

    def runsvdir(*, namespace: bool = True, **settings: str):
        return start(popen={"command": [str(program)], "namespace": namespace}, **settings)

    return runsvdir


def test_in_runsvdir_s_place_the_output_is_plain_unless_json_is_asked_for(services, runsvdir):
    services.add("web", """echo '{"a":1}'; exec sleep 1000""")
    plain = runsvdir()
    plain.wait_for_line('Z web/run: {"a":1}$')
    assert plain.stop() == 0
    ginit = runsvdir(JSON_STDOUT="1")
    (line,) = ginit.wait_for_line('"a":1')
    assert {**json.loads(line), "logged": ""} == {"a": 1, "service": "web", "stage": "run", "logged": ""}
    assert ginit.stop() == 0


#: Leaves a daemon behind each time it's started, when that is itself, and waits for the test's word before it ends.
DAEMONIZER = """\
(sh -c 'trap "touch told; exit" TERM; echo $$ >new; mv new daemon; while :; do sleep 0.02; done' </dev/null >/dev/null 2>&1 &
while [ ! -e daemon ]; do sleep 0.01; done)
echo start >>events
while [ ! -e end ]; do sleep 0.02; done
rm end daemon"""


def add_daemonizer(services) -> Path:
    return add(services, run=DAEMONIZER)


def test_in_runsvdir_s_place_a_daemon_lives_on_until_ginit_stops(services, runsvdir):
    directory = add_daemonizer(services)
    ginit = runsvdir(LOG_LEVEL="info")
    ginit.wait_for_line(r"ignoring a reparented process: sh -c trap", "stderr")
    (directory / "end").touch()
    wait_for_events(directory, "start", "start")
    assert not (directory / "told").exists()
    ginit.wait_for_line(r"ignoring a reparented process: sh -c trap", "stderr", count=2)
    assert len([process for process in ginit.psutil.children() if "trap" in " ".join(process.cmdline())]) == 2
    assert "terminating" not in ginit.stderr.text
    assert ginit.stop() == 0
    assert (directory / "told").exists()
    assert len(re.findall("terminating a reparented process: sh -c trap", ginit.stderr.text)) == 2


def test_in_runsvdir_s_place_ignored_daemons_are_left(services, runsvdir):
    directory = add_daemonizer(services)
    # Not as PID 1, whose end is everybody's.
    ginit = runsvdir(namespace=False, LOG_LEVEL="info", REPARENTING_POLICY="ignore")
    ginit.wait_for_line(r"ignoring a reparented process: sh -c trap", "stderr")
    daemon = psutil.Process(int((directory / "daemon").read_text()))
    try:
        assert ginit.stop() == 0
        assert daemon.is_running()
        assert not (directory / "told").exists()
        assert "terminating" not in ginit.stderr.text
    finally:
        daemon.kill()


def test_a_log_that_is_down_and_that_nobody_can_bring_up_keeps_no_line(services, start):
    directory = services.add("web", "seq 30000; exec sleep 1000", log="exec cat >/dev/null")
    (directory / "log" / "down").touch()
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: 30000$")
    assert ginit.stop() == 0


@pytest.mark.parametrize("command", ["term", "kill", "interrupt", "restart"])
def test_a_service_that_sv_ends_by_a_signal_is_started_again_whatever_the_policy(services, start, sv, command):
    services.add("web", "echo start; exec sleep 1000")
    ginit = start(SUPERVISE="1", JSON_STDOUT="0")
    ginit.wait_for_line("start")
    sv("start", "web")
    sv(command, "web")
    ginit.wait_for_line("start", count=2)
    assert ginit.stop() == 0


def test_when_sv_has_told_every_service_to_exit_nothing_is_left_to_run(services, start, sv):
    services.add("disabled", "exit 115")
    services.add("web", "echo start; exec sleep 1000")
    ginit = start(SUPERVISE="1", JSON_STDOUT="0")
    ginit.wait_for_line("start")
    sv("start", "web")
    sv("exit", "web")
    assert ginit.wait() == 0
    assert ginit.stderr.texts[-1] == "ginit: warn: every service is down or has disabled itself, nothing is left to run"


def test_a_log_program_that_ends_while_sv_restarts_its_service_stops_everything(services, start):
    require("sv")
    directory = services.add(
        "web", "echo ready >&2; exec sleep 1000", log="until [ -e ../finishing ]; do sleep 0.01; done; exit 5"
    )
    write_executable(directory / "finish", "touch finishing; until [ -e end ]; do sleep 0.01; done")
    ginit = start(SUPERVISE="1", LOG_LEVEL="info")
    ginit.wait_for_line("web/run: ready", "stderr")
    subprocess.run(["sv", "term", str(directory)], check=True, capture_output=True)
    ginit.wait_for_line("web/log: ended with status 5 .*; stopping everything", "stderr")
    (directory / "end").touch()
    assert ginit.wait() == 3
