"""Signals that are sent to ginit, and what the processes it starts get of ginit's own state."""

from __future__ import annotations

import os
import pty
import re
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from harness import GINIT, descriptors, leave, wait_for
from machine import require

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
#: Those whose default action would end a process, and the ones without a name.
HARMLESS_SIGNALS = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPIPE,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
#: In a PID namespace and out of it.
PLACES = pytest.mark.parametrize("namespace", [True, False], ids=["as PID 1", "not as PID 1"])
SLEEP = "exec sleep 1000"
UNTIL_KILLED = "while :; do sleep 0.01; done"

#: Python that does something to itself and then becomes ginit.
PRELUDE = "import os, signal, sys\n{}\nos.execv(sys.argv[1], sys.argv[1:])"
BLOCK_AND_IGNORE = """
import ctypes
for number in (32, 33):  # those of the C library, which hides them: by rt_sigaction(2) itself
    rt_sigaction = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
    ctypes.CDLL(None).syscall(rt_sigaction, number, (ctypes.c_ulong * 4)(signal.SIG_IGN), None, ctypes.c_size_t(8))
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
"""
PENDING = """
signal.pthread_sigmask(signal.SIG_BLOCK, [{0}])
os.kill(os.getpid(), {0})
"""


def python_first(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", PRELUDE.format(code), GINIT)


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def signal_set(pid: int, name: str) -> int:
    """One of the sets of signals in /proc/PID/status, bit 0 for signal 1."""
    match = re.search(rf"^{name}:\s*([0-9a-f]+)$", proc(pid, "status"), re.MULTILINE)
    assert match
    return int(match[1], 16)


def contains(signals: int, signum: int) -> bool:
    return bool(signals >> (signum - 1) & 1)


@pytest.fixture
def three_stages(services, start):
    """Starts ginit with a process of each kind that it starts, and gives it and them."""

    def start_three(**arguments):
        services.add("web", "exec sleep 1001", log="exec sleep 1002", terminate="exec sleep 1003")
        ginit = start(**arguments)
        started = [wait_for(lambda number=number: ginit.find("sleep", str(number))) for number in (1001, 1002)]
        ginit.kill()
        started.append(wait_for(lambda: ginit.find("sleep", "1003")))
        return ginit, [processes[0].pid for processes in started]

    return start_three


# What stops everything.


@pytest.mark.parametrize("signum", STOP_SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_to_stop_stops_all_services_at_the_same_time_and_gives_0_whatever_they_return(services, start, signum):
    # None of them ends before all of them have been told to.
    told = "touch told; until [ -e ../a/told ] && [ -e ../b/told ] && [ -e ../c/told ]; do sleep 0.01; done; exit 7"
    services.add("a", f"trap '{told}' TERM; echo ready; {UNTIL_KILLED}")
    services.add("b", f"trap '{told}' USR1; echo ready; {UNTIL_KILLED}", terminate="kill -s USR1 $GINIT_PID")
    services.add("c", f"trap '{told}' TERM; echo ready; {UNTIL_KILLED}")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=3)
    assert ginit.stop(signum) == 0


@PLACES
def test_a_second_signal_to_stop_is_logged_and_changes_nothing(services, start, namespace):
    service = services.add("web", "trap 'echo told' TERM; echo ready; until [ -e finish ]; do sleep 0.01; done; exit 3")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info", popen={"namespace": namespace})
    ginit.wait_for_line("ready")
    ginit.kill(signal.SIGINT)
    ginit.wait_for_line("told")
    for signum in STOP_SIGNALS:
        ginit.kill(signum)
        ginit.wait_for_line(f"ginit: .*{signum.name}", "stderr", count=2 if signum == signal.SIGINT else 1)
    assert ginit.find("sh", "/web/run")
    (service / "finish").touch()
    assert ginit.wait() == 0
    assert len([line for line in ginit.stdout.lines if "told" in line]) == 1


@PLACES
@pytest.mark.parametrize("services_of_a_kind", range(1, 6))
def test_ctrl_c_on_a_terminal_gives_0_though_the_services_get_it_too(services, start, namespace, services_of_a_kind):
    require("setsid")
    for number in range(services_of_a_kind):
        services.add(f"dies{number}", f"echo ready; {SLEEP}")
        services.add(f"ends{number}", f"trap '' TERM; trap 'echo interrupted; exit 130' INT; echo ready; {UNTIL_KILLED}")
    master, terminal = pty.openpty()
    # The leader of a session with this terminal, as in `docker run -it`.
    popen = {"namespace": namespace, "command": ("setsid", "-c", GINIT), "stdin": terminal}
    ginit = start(JSON_STDOUT="0", popen=popen)
    os.close(terminal)
    ginit.wait_for_line("ready", count=2 * services_of_a_kind)
    os.write(master, b"\x03")
    status = ginit.wait()
    os.close(master)
    assert status == 0
    assert len([line for line in ginit.stdout.lines if "interrupted" in line]) == services_of_a_kind


# From the first moment on.


@pytest.mark.parametrize(
    ("milliseconds", "environment"),
    [
        *[(milliseconds, {}) for milliseconds in range(0, 150, 5)],
        # With this one the interpreter is started twice.
        *[(milliseconds, {"PYTHONPATH": "/nowhere"}) for milliseconds in range(0, 180, 15)],
    ],
)
def test_a_term_counts_at_any_moment_after_the_first_instruction(services, start, milliseconds, environment):
    services.add("web", SLEEP)
    ginit = start(env=environment)

    def has_begun() -> bool:
        # `unshare` blocks some signals for a moment, but not this one. Once TERM is caught, it has been blocked before.
        blocked, caught = signal_set(ginit.pid, "SigBlk"), signal_set(ginit.pid, "SigCgt")
        return contains(blocked, signal.SIGUSR1) or contains(caught, signal.SIGTERM)

    wait_for(has_begun)
    time.sleep(milliseconds / 1000)
    assert ginit.stop() == 0


@PLACES
@pytest.mark.parametrize("signum", STOP_SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_to_stop_counts_that_came_before_ginit_and_was_blocked(services, start, signum, namespace):
    services.add("web", SLEEP)
    ginit = start(popen={"namespace": namespace, "command": python_first(PENDING.format(int(signum)))})
    assert ginit.wait() == 0


@PLACES
@pytest.mark.parametrize("signum", STOP_SIGNALS, ids=lambda signum: signum.name)
def test_a_signal_to_stop_counts_where_ginit_was_started_with_all_signals_blocked_and_ignored(services, start, signum, namespace):
    services.add("web", f"echo ready; {SLEEP}")
    ginit = start(JSON_STDOUT="0", popen={"namespace": namespace, "command": python_first(BLOCK_AND_IGNORE)})
    ginit.wait_for_line("ready")
    assert ginit.stop(signum) == 0


# What does no harm.


@PLACES
def test_other_signals_do_not_end_ginit(services, start, namespace):
    service = services.add("web", f"echo ready; until [ -e ask ]; do sleep 0.01; done; echo answer; {SLEEP}")
    ginit = start(JSON_STDOUT="0", popen={"namespace": namespace})
    ginit.wait_for_line("ready")
    for signum in HARMLESS_SIGNALS:
        ginit.kill(signum)
    (service / "ask").touch()
    ginit.wait_for_line("answer")
    assert ginit.stop() == 0


#: Sends many signals of which the kernel keeps each one, where the receiver has a handler for it.
STORM = """
import os, signal, time
numbers = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
for count in range(20000):
    os.kill(1, numbers[count % len(numbers)])
print("sent", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("prelude", ["", BLOCK_AND_IGNORE], ids=["as ever", "all blocked and ignored before"])
def test_as_pid_1_ginit_handles_only_what_stops_it_and_a_storm_of_others_waits_for_nobody(services, start, prelude):
    services.add("web", f"#!{sys.executable} -IS\n{STORM}")
    ginit = start(JSON_STDOUT="0", popen={"command": python_first(prelude)})
    ginit.wait_for_line("sent")
    handled = {number for number in range(1, 65) if contains(signal_set(ginit.pid, "SigCgt"), number)}
    assert handled == {*STOP_SIGNALS, signal.SIGCHLD}
    assert ginit.stop() == 0


def test_a_stopped_ginit_goes_on_when_it_is_continued(services, start):
    service = services.add("web", f"echo ready; until [ -e ask ]; do sleep 0.01; done; echo answer; {SLEEP}")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    ginit.kill(signal.SIGSTOP)
    wait_for(lambda: ginit.psutil.status() == psutil.STATUS_STOPPED)
    ginit.kill(signal.SIGCONT)
    (service / "ask").touch()
    ginit.wait_for_line("answer")
    assert ginit.stop() == 0


# A clean slate for what is started.


def test_processes_have_no_blocked_and_no_ignored_signals_though_ginit_was_started_with_all_of_them(three_stages):
    _, pids = three_stages(popen={"command": python_first(BLOCK_AND_IGNORE)})
    assert [(signal_set(pid, "SigBlk"), signal_set(pid, "SigIgn")) for pid in pids] == [(0, 0)] * 3


def test_processes_have_descriptors_0_to_2_alone_though_ginit_inherited_more(three_stages, tmp_path):
    with (tmp_path / "inherited").open("w") as file:
        high = os.dup2(file.fileno(), 200)
        try:
            ginit, pids = three_stages(popen={"pass_fds": (file.fileno(), high)})
        finally:
            os.close(high)
        for fd in (file.fileno(), high):
            assert os.readlink(f"/proc/{ginit.pid}/fd/{fd}") == file.name
    for pid in pids:
        wait_for(lambda pid=pid: sorted(descriptors(pid)) == [0, 1, 2])  # once its libraries are loaded


def test_processes_have_the_umask_the_limits_and_the_process_group_of_ginit(three_stages):
    change = 'umask 027; ulimit -c 0; ulimit -S -n 199; ulimit -H -n 299; exec "$0" "$@"'
    ginit, pids = three_stages(popen={"command": ("sh", "-c", change, GINIT)})
    for pid in pids:
        assert re.search(r"^Umask:\s*0027$", proc(pid, "status"), re.MULTILINE)
        assert re.search(r"^Max open files +199 +299 ", proc(pid, "limits"), re.MULTILINE)
        assert proc(pid, "limits") == proc(ginit.pid, "limits")
        assert os.getpgid(pid) == os.getpgid(ginit.pid)
        assert os.getsid(pid) == os.getsid(ginit.pid)


# Where ginit isn't PID 1.


def test_ginit_is_a_child_subreaper_where_it_is_not_pid_1(services, start):
    # The shell in between ends, and the `sleep` becomes whose?
    services.add("web", f"{leave('sleep 2000')}; {SLEEP}")
    ginit = start(LOG_LEVEL="warn", popen={"namespace": False})
    ginit.wait_for_line(r"ginit: warn: sleep/\d+: .*sleep 2000", "stderr")
    assert ginit.stop() == 0
    assert "subreaper" not in ginit.stderr.text


def test_ginit_says_at_info_that_it_is_a_child_subreaper(services, start):
    services.add("web", SLEEP)
    ginit = start(LOG_LEVEL="info", popen={"namespace": False})
    ginit.wait_for_line("ginit: info: .*subreaper", "stderr")
    assert ginit.stop() == 0


def test_ginit_is_no_child_subreaper_as_pid_1(services, start):
    services.add("web", f"echo ready; {SLEEP}")
    ginit = start(LOG_LEVEL="debug", JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    assert ginit.stop() == 0
    assert "subreaper" not in ginit.stderr.text
