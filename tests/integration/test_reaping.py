"""Every child is reaped, ginit's own and the reparented ones, under every policy."""

from __future__ import annotations

import sys

import pytest
from harness import GINIT, children, wait_for

#: The service runs on, and its child's child, which has ended and isn't waited for, comes to ginit as a zombie.
HAND_OVER_ZOMBIES = """
import os
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        os._exit(0)
    os.wait()
print("handed over", flush=True)
os.execvp("sleep", ["sleep", "1000"])
"""

#: A child of its own has ended when it executes the command that it's given. A shell would have waited for it.
EXECUTE_WITH_A_ZOMBIE = """
import os, sys
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
os.execv(sys.argv[1], sys.argv[1:])
"""

A_THOUSAND_ORPHANS = "i=0; while [ $i -lt 1000 ]; do (: &); i=$((i+1)); done; echo a thousand"


def wait_for_nothing_but_the_service(ginit):
    """Wait until ginit has one child, a living `sleep`."""
    wait_for(lambda: children(ginit) == ["sleep"], "one child, which lives")


@pytest.fixture(params=["terminate", "ignore"])
def policy(request):
    return request.param


def test_a_service_s_processes_are_reaped_when_they_end(services, start, policy):
    services.add("disabled", "exit 115", log="cat >/dev/null")
    services.add("web", "exec sleep 1000")
    ginit = start(REPARENTING_POLICY=policy, LOG_LEVEL="info")
    ginit.wait_for_line("disabled/log: started", "stderr")
    ginit.wait_for_line("disabled/run: has disabled itself", "stderr")
    wait_for_nothing_but_the_service(ginit)


def test_a_terminate_program_is_reaped_while_its_service_runs_on(services, start, policy):
    services.add("web", "exec sleep 1000", terminate="echo terminating >&2")
    ginit = start(REPARENTING_POLICY=policy)
    wait_for_nothing_but_the_service(ginit)
    ginit.kill()
    ginit.wait_for_line("web/term: terminating", "stderr")
    wait_for_nothing_but_the_service(ginit)


def test_a_process_that_had_ended_before_it_was_reparented_is_reaped_and_nothing_more(services, start, policy):
    services.add("web", f"#!{sys.executable}\n{HAND_OVER_ZOMBIES}")
    ginit = start(REPARENTING_POLICY=policy, JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("web/run: handed over")
    wait_for_nothing_but_the_service(ginit)
    assert "reparented" not in ginit.stderr.text


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("policy", "thousands"), [("terminate", 10), ("ignore", 2)])
def test_thousands_of_short_lived_orphans_leave_no_zombie_and_few_lines(services, start, policy, thousands):
    services.add("web", "\n".join([*[A_THOUSAND_ORPHANS] * thousands, "exec sleep 1000"]))
    ginit = start(REPARENTING_POLICY=policy, JSON_STDOUT="0")
    for count in range(1, thousands + 1):
        ginit.wait_for_line("web/run: a thousand", count=count)
    wait_for_nothing_but_the_service(ginit)
    assert len(ginit.stderr.lines) < thousands * 100
    assert ginit.stop() == 0


def test_each_of_many_orphans_is_terminated_and_only_some_are_named(services, start):
    services.add("web", "i=0; while [ $i -lt 300 ]; do (sleep 1000 &); i=$((i+1)); done; echo all; exec sleep 1000")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("web/run: all")
    wait_for_nothing_but_the_service(ginit)
    assert ginit.stop() == 0
    named = [line for line in ginit.stderr.lines if ": terminating a reparented process: " in line]
    others = [int(line.split("warn: ")[1].split()[0]) for line in ginit.stderr.lines if " more reparented processes " in line]
    assert 0 < len(named) < 300
    assert len(named) + sum(others) == 300


def test_a_child_that_had_ended_before_ginit_was_started_is_reaped(services, start, policy):
    services.add("web", "echo up; exec sleep 1000")
    command = [sys.executable, "-c", EXECUTE_WITH_A_ZOMBIE, GINIT]
    ginit = start(REPARENTING_POLICY=policy, JSON_STDOUT="0", popen={"command": command})
    ginit.wait_for_line("web/run: up")
    wait_for_nothing_but_the_service(ginit)


def test_a_child_that_ginit_had_before_it_was_started_is_reaped_when_it_ends(services, start, policy, tmp_path):
    services.add("web", "echo up; exec sleep 1000")
    end = tmp_path / "end"
    # It ends by TERM, or with the file.
    script = f'(while [ ! -e {end} ]; do sleep 0.01; done) & exec "$@"'
    ginit = start(REPARENTING_POLICY=policy, JSON_STDOUT="0", popen={"command": ["sh", "-c", script, "sh", GINIT]})
    ginit.wait_for_line("web/run: up")
    end.touch()
    wait_for_nothing_but_the_service(ginit)
