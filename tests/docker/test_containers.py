"""ginit in containers of a real engine."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re

import pytest
from engine import wait_for

#: Ends when it's told to, and says so.
GRACEFUL = """trap 'echo "{\\"last\\":\\"words\\"}"; exit 7' TERM; echo '{"ready":1}'; while :; do sleep 0.05; done"""


#: Takes more memory than there is, and asks to be the one who is killed for it (proc(5)).
HOG = """#!/usr/bin/python3
open("/proc/self/oom_score_adj", "w").write("1000")
memory = bytearray(1 << 30)
memory[::4096] = bytes(len(memory[::4096]))
"""


# Stopping.


def test_a_stop_is_graceful_and_the_status_is_0(services, start):
    services.add("web", GRACEFUL)
    container = start()
    container.wait_for_line("ready")
    assert container.stop("--time", "60") == 0
    assert json.loads(container.stdout()[-1])["last"] == "words"
    state = container.inspect()["State"]
    assert not state["OOMKilled"]


@pytest.mark.parametrize("signum", ["TERM", "INT", "HUP", "QUIT"])
def test_each_signal_that_stops_stops(engine, services, start, signum):
    services.add("web", GRACEFUL)
    container = start()
    container.wait_for_line("ready")
    engine("kill", "--signal", signum, container.id)
    assert container.wait() == 0
    assert '"last":"words"' in container.stdout()[-1]


def test_other_signals_change_nothing(engine, services, start):
    services.add("web", GRACEFUL)
    container = start()
    container.wait_for_line("ready")
    for signum in ("USR1", "USR2", "ALRM", "WINCH", "PIPE"):
        engine("kill", "--signal", signum, container.id)
    assert container.stop("--time", "60") == 0


def test_ctrl_c_on_a_terminal_stops(engine, services, image):
    services.add("web", GRACEFUL.replace(" TERM", " INT TERM"))  # a terminal sends it to all of its processes
    ours, theirs = pty.openpty()
    name = f"ginit-tests-{os.getpid()}"
    options = ("--rm", "--tty", "--interactive", "--name", name, "--volume", f"{services.path}:/etc/service")
    client = engine.popen("run", *options, image, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        output = b""
        while b"ready" not in output:
            output += os.read(ours, 4096)
        os.write(ours, b"\x03")
        with contextlib.suppress(OSError):  # how a terminal says that nobody has it open any more
            while True:
                output += os.read(ours, 4096)
        assert client.wait(60) == 0
        assert b'"last":"words"' in output
    finally:
        os.close(ours)
        if client.poll() is None:
            client.kill()
            engine("rm", "--force", name, check=False)


# What comes out.


def test_logs_are_complete_and_in_order_to_the_last_line(services, start):
    services.add("web", """seq -f '{"n":%.0f}' 0 199999; exit 0""")
    container = start()
    assert container.wait() == 0
    assert [json.loads(line)["n"] for line in container.stdout()] == list(range(200_000))


@pytest.mark.parametrize(("end", "status"), [("exit 0", 0), ("exit 4", 3), ("kill -s KILL $$", 3)])
def test_the_engine_sees_the_exit_status(services, start, end, status):
    services.add("web", f"sleep 0.1; {end}")
    container = start()
    assert container.wait() == status
    assert container.inspect()["State"]["ExitCode"] == status


def test_a_mistake_is_status_1_and_is_said(services, start):
    (services.add("web", "exit 0") / "run").chmod(0o644)
    container = start()
    assert container.wait() == 1
    assert re.search(r"ginit: error: can't start /etc/service/web/run: it isn't executable", container.stderr()[-1])


# Restrictions.


@pytest.mark.parametrize(
    "options",
    [
        ("--read-only",),
        ("--user", "1000"),
        ("--user", "1000:1000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        ("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        ("--security-opt", "seccomp=unconfined"),
        ("--network", "none"),
        ("--init",),
        ("--pid", "host"),
        ("--ulimit", "nofile=64"),
    ],
    ids=" ".join,
)
def test_it_runs_under_every_restriction(services, start, options):
    services.add("web", GRACEFUL)
    services.add("legacy", "(sh -c 'sleep 1234 & exit'); exec sleep 1000")
    container = start(*options, LOG_LEVEL="info")
    container.wait_for_line("ready")
    container.wait_for_line("terminating a reparented process: sleep 1234", "stderr")
    assert container.stop("--time", "60") == 0
    assert '"last":"words"' in container.stdout()[-1]
    assert not [line for line in container.stderr() if " error: " in line]


def test_a_limit_of_processes_is_said(services, start):
    for number in range(12):
        services.add(f"s{number}", "exec sleep 1000")
    container = start("--pids-limit", "8")
    assert container.wait() == 1
    assert any("no more processes are allowed" in line for line in container.stderr())


def test_a_service_that_the_oom_killer_kills_ends_the_container_with_3(services, start):
    services.add("hog", HOG)
    services.add("web", GRACEFUL)
    container = start("--memory", "128m", "--memory-swap", "128m")
    assert container.wait() == 3
    assert any("hog/run: was ended by SIGKILL" in line for line in container.stderr())


# What the engine does.


def test_on_failure_is_restarted_as_often_as_it_should(services, start):
    services.add("web", "exit 4")
    container = start("--restart", "on-failure:2")
    wait_for(lambda: (found := container.inspect())["RestartCount"] == 2 and found["State"]["Status"] == "exited")
    assert len([line for line in container.stderr() if "web/run: ended with status 4" in line]) == 3


def test_a_stop_is_no_failure_that_is_restarted(services, start):
    services.add("web", GRACEFUL)
    container = start("--restart", "on-failure")
    container.wait_for_line("ready")
    assert container.stop("--time", "60") == 0
    assert container.inspect()["RestartCount"] == 0


def test_a_healthcheck_sees_the_services(services, start):
    services.add("web", "sleep 1; touch /tmp/healthy; exec sleep 1000")
    container = start("--health-cmd", "test -e /tmp/healthy", "--health-interval", "200ms", "--health-retries", "1000")
    wait_for(lambda: container.inspect()["State"]["Health"]["Status"] == "healthy")
    assert container.stop("--time", "60") == 0


# Daemons.


@pytest.mark.parametrize("options", [(), ("--user", "1000"), ("--cap-drop", "ALL")], ids=["root", "a user", "no capabilities"])
def test_a_daemon_is_adopted_under_the_engine_s_own_seccomp_profile(services, start, options):
    loop = "while :; do echo from the daemon; echo to stderr >&2; sleep 0.05; done"
    services.add("web", f"setsid sh -c 'sh -c \"{loop}\" >/dev/null 2>&1 & exit'; exec sleep 1000")
    container = start(*options, REPARENTING_POLICY="adopt", JSON_STDOUT="0")
    line = container.wait_for_line("from the daemon", count=5)[-1]
    assert re.search(r"Z sh/\d+: from the daemon$", line)
    container.wait_for_line("to stderr", "stderr", count=5)
    assert container.stop("--time", "60") == 0


def test_where_ptrace_is_forbidden_that_is_said_and_the_daemon_is_adopted_all_the_same(services, start, tmp_path):
    profile = tmp_path / "profile.json"
    rule = {"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    services.add("web", "setsid sh -c 'sleep 1234 >/dev/null 2>&1 & exit'; exec sleep 1000")
    container = start("--security-opt", f"seccomp={profile}", REPARENTING_POLICY="adopt", LOG_LEVEL="info")
    container.wait_for_line("its output stays where it was: ptrace isn't allowed here", "stderr")
    assert container.stop("--time", "60") == 0
    assert any(re.search(r"sleep/\d+: was ended by SIGTERM", line) for line in container.stderr())
