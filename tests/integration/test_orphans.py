"""Processes whose parents have died are terminated, or ignored."""

from __future__ import annotations

import datetime
import re
import sys

import psutil
import pytest
from harness import leave, wait_for, write_executable

#: Starts the program `./orphan`, and leaves it when it has made a file `ready`.
LEAVE_ORPHAN = "(./orphan & while [ ! -e ready ]; do sleep 0.01; done)"

#: Chains of processes that each start the next one and end, so that ginit, told of each death, looks at very young
#: processes. The last of each prints its PID and a moment before it was forked. They ignore TERM, since on a slow machine a
#: process may be old enough for it before it has started the next one.
YOUNG = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(20):
    for generation in range(8):
        before = time.time()
        if os.fork():
            if generation == 0:
                break
            os._exit(0)
    else:
        os.write(1, b"%d %.6f\\n" % (os.getpid(), before))
        os.execvp("sleep", ["sleep", "1000"])
    os.wait()
os.execvp("sleep", ["sleep", "1000"])
"""

#: Its main thread ends, another one sees that and goes on. Daemonic, lest the interpreter wait for it.
WITHOUT_MAIN_THREAD = """
import ctypes, platform, threading, time
def go_on():
    while "\\nState:\\tZ" not in open("/proc/self/status").read():
        time.sleep(0.01)
    open("ready", "w").close()
    time.sleep(1000)
threading.Thread(target=go_on, daemon=True).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


@pytest.fixture
def web(services):
    """Adds the service `web`, which leaves the program `orphan` behind when that is ready, and goes on; gives its directory."""

    def web(orphan, run="echo left; exec sleep 1000"):
        directory = services.add("web", f"{LEAVE_ORPHAN}\n{run}")
        write_executable(directory / "orphan", orphan)
        return directory

    return web


def find_orphans(ginit, *words):
    return [process for process in ginit.find(*words) if process.ppid() == ginit.pid]


def test_an_orphan_is_terminated_with_a_warning_that_names_it(services, start):
    services.add("web", f"{leave('sleep 1234')}; exec sleep 1000")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    pid = ginit.wait_for_line(r"web/run: \d+")[0].split()[-1]
    ginit.wait_for_line(f" ginit: warn: sleep/{pid}: terminating a reparented process: sleep 1234$", "stderr")
    ginit.wait_for_line(f" ginit: info: sleep/{pid}: .* was ended by SIGTERM$", "stderr")
    wait_for(lambda: not ginit.find("sleep 1234"))
    assert ginit.stop() == 0
    # Neither the process in the middle nor the service itself has been taken for one.
    assert len([line for line in ginit.stderr.lines if "terminating" in line]) == 1


def test_an_orphan_in_a_session_of_its_own_is_terminated_too(services, start):
    services.add("web", f"{leave('setsid sleep 1234 >/dev/null 2>&1')}; exec sleep 1000")
    ginit = start()
    ginit.wait_for_line("sleep/.*: terminating a reparented process: sleep 1234$", "stderr")
    wait_for(lambda: not ginit.find("sleep 1234"))


def test_an_orphan_that_does_not_heed_term_is_killed_after_the_timeout(services, start):
    services.add("web", f"(trap '' TERM; {leave('sleep 1234')}); exec sleep 1000")
    ginit = start(JSON_STDOUT="0", KILL_TIMEOUT="0.3", LOG_LEVEL="info")
    pid = ginit.wait_for_line(r"web/run: \d+")[0].split()[-1]
    ginit.wait_for_line(f" ginit: warn: sleep/{pid}: killing a reparented process", "stderr")
    ginit.wait_for_line(f" ginit: info: sleep/{pid}: .* was ended by SIGKILL$", "stderr")
    assert moment(ginit, "killing") - moment(ginit, "terminating") >= datetime.timedelta(seconds=0.299)
    assert ginit.stop() == 0


def moment(ginit, word):
    """When the message with `word` came."""
    line = next(line for line in ginit.stderr.lines if word in line)
    return datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%fZ")


def test_an_orphan_that_does_not_heed_term_is_killed_while_stopping_too(services, start):
    services.add("web", f"(trap '' TERM; {leave('sleep 1234')}); exit 0")
    ginit = start(KILL_TIMEOUT="0.2")
    assert ginit.wait() == 0
    assert re.search("sleep/.*: killing a reparented process", ginit.stderr.text)


def test_ginit_does_not_exit_before_its_orphans_are_gone(web, start):
    web("trap 'sleep 0.1; echo last words; exit' TERM; echo >ready; while :; do sleep 0.01; done", "exit 0")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.lines[-1].endswith(" web/run: last words")


def test_waves_of_orphans_are_terminated_before_ginit_exits(services, start):
    level = """
        [ $1 -gt 0 ] || { echo >bottom; exec sleep 1000; }
        trap "echo level $1 ended; exit" TERM
        ./level $(($1 - 1)) &
        wait
    """
    # Each level becomes an orphan when the one above it has been terminated.
    directory = services.add("web", "./level 6 & while [ ! -e bottom ]; do sleep 0.01; done; exit 0")
    write_executable(directory / "level", level)
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="debug")
    assert ginit.wait() == 0
    assert [line.split(": ")[1] for line in ginit.stdout.lines] == [f"level {number} ended" for number in range(6, 0, -1)]
    terminated = [line for line in ginit.stderr.lines if "terminating a reparented process: " in line]
    assert len(terminated) == 7


def test_a_stopped_orphan_is_terminated(services, start):
    stopped = "kill -STOP $$"
    wait = "while ! grep -q '^State:.T' /proc/$!/status; do sleep 0.01; done"
    directory = services.add("web", f"(./orphan & {wait}); exec sleep 1000")
    write_executable(directory / "orphan", stopped)
    ginit = start(LOG_LEVEL="info")
    ginit.wait_for_line("orphan/.*: reparented process was ended by SIGTERM", "stderr")


def test_a_stopped_service_is_stopped(services, start):
    services.add("web", "kill -STOP $$; exec sleep 1000")
    ginit = start()
    wait_for(lambda: [process.status() for process in ginit.psutil.children()] == [psutil.STATUS_STOPPED])
    assert ginit.stop() == 0


def test_an_orphan_whose_main_thread_has_ended_is_terminated(web, start):
    web(f"#!{sys.executable}\n{WITHOUT_MAIN_THREAD}", "exit 0")
    ginit = start(LOG_LEVEL="info")
    assert ginit.wait() == 0
    assert re.search("warn: .*/[0-9]+: terminating a reparented process", ginit.stderr.text)
    assert "was ended by SIGTERM" in ginit.stderr.text


def test_a_process_younger_than_10_ms_is_not_named_or_terminated_yet(services, start):
    services.add("web", f"#!{sys.executable}\n{YOUNG}")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="debug")
    forked = dict(line.split()[-2:] for line in ginit.wait_for_line("web/run: ", count=20))
    for pid, before in forked.items():
        line = ginit.wait_for_line(f"/{pid}: terminating", "stderr")[0]
        named = datetime.datetime.strptime(line.split()[0] + "+0000", "%Y-%m-%dT%H:%M:%S.%fZ%z").timestamp()
        assert named + 0.001 - float(before) >= 0.01, line


#: Leaves a process behind that takes its time between fork and exec, and answers TERM as its parent did until then. Its
#: parent has become ginit's child before it ends, so that ginit looks then.
HELD_UP = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
if os.fork() == 0:
    if os.fork() == 0:
        while os.getppid() != 1:
            time.sleep(0.001)
        if os.fork() == 0:
            while time.process_time() < 0.06:
                pass
            os.execvp("sleep", ["sleep", "1000"])
    os._exit(0)
os.wait()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.pause()
"""


def test_a_process_that_is_held_up_between_fork_and_exec_is_not_named_or_terminated_yet(services, start):
    services.add("web", f"#!{sys.executable} -IS\n{HELD_UP}")
    ginit = start()
    ginit.wait_for_line("terminating a reparented process: sleep 1000$", "stderr")
    wait_for(lambda: not ginit.find("sleep"))
    assert ginit.stop() == 0
    assert len(ginit.stderr.lines) == 1


def test_a_command_name_of_any_bytes_stays_on_one_line(web, start):
    web("printf 'a) (b\\nc' >/proc/self/comm; echo >ready; while :; do sleep 0.01; done", "exit 0")
    ginit = start()
    assert ginit.wait() == 0
    pattern = r"\S+Z ginit: warn: a\) \(b\\nc/\d+: terminating a reparented process: /bin/sh \./orphan"
    assert [line for line in ginit.stderr.lines if re.fullmatch(pattern, line)]


def test_a_command_line_of_any_bytes_stays_on_one_line(web, start):
    web('echo >ready; exec sh -c "while :; do sleep 0.01; done" "one\ntwo"', "exit 0")
    ginit = start()
    assert ginit.wait() == 0
    assert [line for line in ginit.stderr.lines if "ginit: " not in line] == []


def test_an_orphan_is_left_alone_under_ignore_and_reaped_when_it_ends(web, start):
    directory = web("trap 'echo heard TERM' TERM; echo >ready; until [ -e ask ]; do sleep 0.01; done; exit 7")
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore", KILL_TIMEOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line(r" ginit: info: orphan/\d+: ignoring a reparented process: /bin/sh ./orphan$", "stderr")
    (orphan,) = find_orphans(ginit, "./orphan")
    (directory / "ask").touch()
    ginit.wait_for_line(r" ginit: info: orphan/\d+: reparented process ended with status 7$", "stderr")
    wait_for(lambda: not orphan.is_running(), "it is reaped")
    assert ginit.stop() == 0
    assert "heard TERM" not in ginit.stdout.text
    assert "ginit: warn: " not in ginit.stderr.text


def test_ginit_does_not_wait_for_an_ignored_orphan_nor_stop_it(web, start):
    # The service, told to stop, waits for the orphan, which says so if it's told to stop as well.
    web(
        "trap 'echo heard TERM' TERM; echo >ready; until [ -e ask ]; do sleep 0.01; done; sleep 0.15; echo alive >answer\n"
        "while :; do sleep 0.01; done",
        "mkfifo answer; trap 'echo >ask; cat answer; exit' TERM; echo left; while :; do sleep 0.01; done",
    )
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore")
    ginit.wait_for_line("web/run: left")
    assert ginit.stop() == 0
    assert [line.split(": ")[1] for line in ginit.stdout.lines] == ["left", "alive"]


def test_an_ignored_orphan_that_holds_a_log_program_s_stdin_open_does_not_keep_ginit_from_exiting(services, start):
    services.add("web", "(sleep 1234 &); echo left; exec sleep 1000", log="exec cat")
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY="ignore", DRAIN_TIMEOUT="0.2")
    ginit.wait_for_line("web/run: left")
    assert ginit.stop() == 0
    assert "not waiting for the log program of web" in ginit.stderr.text


def test_a_terminated_orphan_that_holds_a_log_program_s_stdin_open_is_waited_for(services, start):
    services.add("web", "(trap '' TERM; exec sleep 1234 &); echo left; exec sleep 1000", log="cat; echo the end")
    ginit = start(JSON_STDOUT="0", KILL_TIMEOUT="0.2", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("web/run: left")
    assert ginit.stop() == 0
    assert ginit.stdout.lines[-1].endswith(" web/run: the end")
