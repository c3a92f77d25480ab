"""What the end of a service means for the others, and ginit's exit status."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import psutil
import pytest
from harness import wait_for

#: Goes on until there is a file `end` in its directory, whatever it is sent, and returns what is in that.
STUBBORN = """\
trap 'echo got TERM' TERM
echo ready
while [ ! -e end ]; do echo tick; sleep 0.02; done
echo bye
exit "$(cat end)\""""
STAY = "echo ready; exec sleep 1000"
#: Waits for the test's word, and then returns what that is.
OBEY = 'echo ready; while [ ! -s end ]; do sleep 0.02; done; exit "$(cat end)"'


def end(directory, status: int = 0) -> None:
    """Have a service end."""
    (directory / "new").write_text(str(status))
    (directory / "new").rename(directory / "end")


def is_zombie(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def disabled(services, start):
    """A ginit with a service that has disabled itself and `other`, which obeys; and the directory of that."""
    services.add("disabled", "exit 115")
    directory = services.add("other", OBEY)
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("disabled/run: .*disabled", "stderr")
    ginit.wait_for_line("other/run: ready")
    return ginit, directory


# A service that ends with 115.


def test_when_a_service_has_disabled_itself_the_others_go_on(services, start):
    services.add("disabled", "exit 115")
    services.add("other", STUBBORN)
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("disabled/run: .*disabled", "stderr")
    ginit.wait_for_more_lines("other/run: tick")
    assert "got TERM" not in ginit.stdout.text
    assert "stopping" not in ginit.stderr.text
    assert ginit.process.poll() is None


@pytest.mark.parametrize(("status", "exit_status"), [(0, 0), (1, 3), (3, 3)])
def test_a_service_that_has_disabled_itself_doesnt_count_when_another_ends(disabled, status, exit_status):
    ginit, directory = disabled
    end(directory, status)
    assert ginit.wait() == exit_status


def test_a_service_that_has_disabled_itself_doesnt_keep_ginit_from_being_stopped(disabled):
    ginit, _ = disabled
    assert ginit.stop() == 0


def test_when_the_last_service_has_disabled_itself_too_ginit_warns_and_exits_with_0(disabled):
    ginit, directory = disabled
    assert "ginit: warn:" not in ginit.stderr.text
    end(directory, 115)
    assert ginit.wait() == 0
    (warning,) = [text for text in ginit.stderr.texts if text.startswith("ginit: warn: ")]
    assert "every service has disabled itself" in warning


def test_when_every_service_disables_itself_at_once_ginit_warns_and_exits_with_0(services, start):
    for name in "abcdefgh":
        services.add(name, "exit 115")
    ginit = start()
    assert ginit.wait() == 0
    (warning,) = ginit.stderr.texts
    assert warning.startswith("ginit: warn: every service has disabled itself")


def test_115_is_nothing_special_while_everything_stops(services, start):
    services.add("a", OBEY)
    services.add("b", "trap 'exit 115' TERM; echo ready; while :; do sleep 0.02; done")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=2)
    end(services.path / "a", 4)
    assert ginit.wait() == 3
    assert not [text for text in ginit.stderr.texts if "disabled" in text]


# A service that ends in any other way.


@pytest.mark.parametrize(
    ("run", "exit_status"),
    [
        ("exit 0", 0),
        ("exit 1", 3),
        ("exit 3", 3),
        ("exit 114", 3),
        ("exit 116", 3),
        ("exit 143", 3),
        ("exit 255", 3),
        ("kill -TERM $$", 3),
        ("kill -KILL $$", 3),
        ("kill -HUP $$", 3),
        ("kill -RTMIN $$", 3),
    ],
)
def test_the_end_of_a_service_stops_the_others_and_gives_the_exit_status(services, start, run, exit_status):
    for name in ("a", "z"):
        services.add(name, STAY, terminate="echo asked; kill $GINIT_PID")
    services.add("m", f"while [ ! -e ../go ]; do sleep 0.02; done; {run}")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=2)
    (services.path / "go").touch()
    assert ginit.wait() == exit_status
    assert sorted(ginit.stdout.texts) == ["a/run: ready", "a/term: asked", "z/run: ready", "z/term: asked"]


def test_a_service_that_is_killed_from_outside_counts_as_failed(services, start):
    services.add("web", STAY)
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    (service,) = wait_for(lambda: ginit.find("sleep", "1000"))
    service.kill()
    assert ginit.wait() == 3


@pytest.mark.parametrize(("first", "later", "exit_status"), [(0, 9, 0), (9, 0, 3), (0, 0, 0)])
def test_the_first_service_to_end_gives_the_exit_status(services, start, first, later, exit_status):
    services.add("a", OBEY)
    services.add("b", f"trap 'exit {later}' TERM; echo ready; while :; do sleep 0.02; done")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=2)
    end(services.path / "a", first)
    assert ginit.wait() == exit_status


@pytest.mark.parametrize("ending", ["exit 0", "exit 7", "exit 115", "kill -KILL $$"])
def test_told_to_stop_ginit_exits_with_0_whatever_the_services_return(services, start, ending):
    for name in ("a", "b"):
        services.add(name, f"trap '{ending}' TERM; echo ready; while :; do sleep 0.02; done")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=2)
    assert ginit.stop() == 0


def test_being_told_to_stop_when_a_service_has_failed_already_leaves_the_exit_status(services, start):
    services.add("a", OBEY)
    services.add("b", STUBBORN)
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready", count=2)
    end(services.path / "a", 4)
    ginit.wait_for_line("b/run: got TERM")
    ginit.kill()
    ginit.wait_for_line("while stopping", "stderr")
    end(services.path / "b")
    assert ginit.wait() == 3


def test_a_service_that_closes_its_streams_goes_on(services, start):
    services.add("a", "exec >&-; echo closed >&2; while :; do echo tick >&2; sleep 0.02; done")
    services.add("b", "exec 2>&-; echo closed; while :; do echo tick; sleep 0.02; done")
    services.add("c", "exec 1>&- 2>&- 0<&-; while [ ! -e end ]; do sleep 0.02; done; exit 4")
    ginit = start(JSON_STDOUT="0", LOG_LEVEL="info")
    ginit.wait_for_line("a/run: closed", "stderr")
    ginit.wait_for_line("b/run: closed")
    ginit.wait_for_more_lines("a/run: tick", "stderr")
    ginit.wait_for_more_lines("b/run: tick")
    assert "stopping" not in ginit.stderr.text
    (services.path / "c" / "end").touch()
    assert ginit.wait() == 3


# A log program that ends first.


@pytest.mark.parametrize(("log", "exit_status"), [("exit 0", 0), ("exit 1", 3), ("exit 5", 3), ("kill -TERM $$", 3)])
def test_the_end_of_a_log_program_stops_everything_and_gives_the_exit_status(services, start, log, exit_status):
    # The service holds its stdout open, but doesn't write to it, which would end it too.
    directory = services.add("web", f"exec 3>&1 >&2\n{STUBBORN}", log=f"while [ ! -e end ]; do sleep 0.02; done; {log}")
    services.add("other", STAY, terminate="echo asked; kill $GINIT_PID")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("other/run: ready")
    ginit.wait_for_line("web/run: ready", "stderr")
    end(directory / "log")
    ginit.wait_for_line("other/term: asked")
    ginit.wait_for_line("web/run: got TERM", "stderr")
    ginit.wait_for_more_lines("web/run: tick", "stderr")
    end(directory, 6)
    assert ginit.wait() == exit_status
    assert "web/run: bye" in ginit.stderr.texts


@pytest.mark.parametrize(("log", "run", "exit_status"), [(0, 6, 3), (5, 0, 0), (0, 0, 0), (5, 115, 0)])
def test_when_a_service_ends_at_the_same_moment_as_its_log_program_its_word_counts(services, start, log, run, exit_status):
    directory = services.add("web", "echo ready >&2; " + OBEY, log="echo ready >&2; " + OBEY)
    ginit = start()
    ginit.wait_for_line("/(run|log): ready", "stderr", count=2)
    runner, logger = ginit.find("web/run")[0], ginit.find("web/log/run")[0]
    # While ginit is stopped both end.
    ginit.kill(signal.SIGSTOP)
    wait_for(lambda: ginit.psutil.status() == psutil.STATUS_STOPPED)
    end(directory / "log", log)
    wait_for(lambda: is_zombie(logger))
    end(directory, run)
    wait_for(lambda: is_zombie(runner))
    ginit.kill(signal.SIGCONT)
    assert ginit.wait() == exit_status


def test_when_a_service_ends_within_10_ms_of_its_log_program_its_word_counts(services, start):
    follow = """\
import os, time
while not os.path.exists("log/pid"):
    time.sleep(0.01)
log = int(open("log/pid").read())
os.unlink("log/pid")
print("ready", file=open(2, "w"))
try:
    while True:
        os.kill(log, 0)
except ProcessLookupError:  # it is reaped
    time.sleep(0.003)
    os._exit(0)
"""
    directory = services.add(
        "web", f"#!{sys.executable} -IS\n{follow}", log="echo $$ >new; mv new pid; " + OBEY.replace("echo", ":")
    )

    def attempt() -> int:
        (directory / "log" / "end").unlink(missing_ok=True)
        ginit = start()
        ginit.wait_for_line("web/run: ready", "stderr")
        end(directory / "log", 5)
        return ginit.wait()

    # On a busy machine more than 10 ms may pass, so that the log program's word counts, but not each time.
    assert 0 in (attempt() for _ in range(10))


# Never KILL, and no exit before the last service's end.


@pytest.mark.parametrize("policy", ["terminate", "ignore"])
def test_a_service_that_ignores_term_is_waited_for(services, start, policy):
    directory = services.add("web", STUBBORN)
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY=policy, KILL_TIMEOUT="0", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("ready")
    ginit.kill()
    ginit.wait_for_line("got TERM")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        ginit.kill(signum)
    ginit.wait_for_line("while stopping", "stderr", count=4)
    ginit.wait_for_more_lines("tick", count=20)
    end(directory, 7)
    assert ginit.wait() == 0
    # That it could say so shows that nobody killed it.
    assert ginit.stdout.texts[-1] == "web/run: bye"


def test_only_a_kill_from_outside_ends_a_service_that_ignores_term(services, start):
    services.add("web", STUBBORN)
    ginit = start(JSON_STDOUT="0", KILL_TIMEOUT="0", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("ready")
    ginit.kill()
    ginit.wait_for_line("got TERM")
    ginit.wait_for_more_lines("tick")
    assert ginit.process.poll() is None
    ginit.find("web/run")[0].kill()
    assert ginit.wait() == 0


@pytest.mark.parametrize("policy", ["terminate", "ignore"])
def test_after_a_services_end_too_ginit_waits_for_those_that_ignore_term(services, start, policy):
    services.add("a", OBEY)
    services.add("b", STUBBORN)
    ginit = start(JSON_STDOUT="0", REPARENTING_POLICY=policy, KILL_TIMEOUT="0", DRAIN_TIMEOUT="0")
    ginit.wait_for_line("ready", count=2)
    end(services.path / "a")
    ginit.wait_for_line("b/run: got TERM")
    ginit.wait_for_more_lines("b/run: tick", count=20)
    end(services.path / "b", 7)
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "b/run: bye"


# Nothing to run.


def test_without_a_service_ginit_warns_and_exits_with_0(services, start):
    ginit = start()
    assert ginit.wait() == 0
    (warning,) = ginit.stderr.texts
    assert warning.startswith("ginit: warn: ")
    assert "no service" in warning
    assert str(services.path) in warning


def test_a_directory_with_nothing_but_what_is_skipped_is_one_without_a_service(services, start):
    services.add(".hidden", "echo hidden")
    (services.path / "file").touch()
    ginit = start()
    assert ginit.wait() == 0
    assert ginit.stdout.data == b""
    assert "no service" in ginit.stderr.text


# What is said of it.

HINT = "; stopping everything; with status 115 the others would go on"


@pytest.mark.parametrize(("end", "status"), [(0, 0), (4, 3)])
def test_the_end_that_stops_everything_is_a_warning(services, start, end, status):
    services.add("web", f"echo $$; exit {end}")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == status
    pid = ginit.stdout.texts[0].split()[-1]
    assert ginit.stderr.all_data.decode().endswith(f"Z ginit: warn: web/run: ended with status {end} (PID {pid}){HINT}\n")


def test_the_end_of_an_adopted_process_that_stops_everything_is_a_warning(services, start):
    services.add("web", "(sh -c 'until [ -e end ]; do sleep 0.01; done; exit 0' &); exec sleep 1000")
    ginit = start(REPARENTING_POLICY="adopt")
    ginit.wait_for_line("adopting", "stderr")
    (services.path / "web" / "end").touch()
    assert ginit.wait() == 0
    assert re.search(f"ginit: warn: sh/\\d+: ended with status 0{HINT}\n", ginit.stderr.all_data.decode())


@pytest.mark.parametrize(("end", "said"), [("exit 4", "ended with status 4"), ("kill -KILL $$", "was ended by SIGKILL")])
def test_at_level_error_a_failure_has_its_reason(services, start, end, said):
    services.add("web", end)
    ginit = start(LOG_LEVEL="error")
    assert ginit.wait() == 3
    (text,) = ginit.stderr.texts
    assert text.startswith(f"ginit: error: web/run: {said} (PID ")


def test_who_is_waited_for_is_told_again_and_again(services, start):
    stubborn = "trap '' TERM; echo ready; until [ -e end ]; do sleep 0.01; done"
    web = services.add("web", stubborn, log="exec cat")
    services.add("worker", "exec sleep 1000")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    run, log = ginit.find("web/run")[0], ginit.find("cat")[0]
    ginit.kill()
    inside = [re.search(r"NSpid:.*\s(\d+)\n", Path(f"/proc/{process.pid}/status").read_text())[1] for process in (run, log)]
    ginit.wait_for_line("10 s after the stop", "stderr")
    (web / "end").touch()
    assert ginit.wait() == 0
    who = "web/run (PID {}), web/log (PID {})".format(*inside)
    assert ginit.stderr.texts == [f"ginit: warn: still waiting for {who}, {n} s after the stop was asked for" for n in (5, 10)]


def test_a_reader_that_is_waited_for_is_told(services, start):
    services.add("web", "seq 20000; exit 0")
    ginit = start(JSON_STDOUT="0", DRAIN_TIMEOUT="1000")
    ginit.stdout.pause()
    ginit.wait_for_line("still waiting for the reader of stdout, 5 s after the stop was asked for", "stderr")
    ginit.stdout.resume()
    assert ginit.wait() == 0
    assert len(ginit.stdout.lines) == 20000


def test_each_end_of_a_process_is_told_at_info_with_its_pid(services, start):
    services.add("web", "exec sleep 1000", log="exec cat", terminate="kill $GINIT_PID")
    ginit = start(LOG_LEVEL="info")
    ginit.wait_for_line("web/run: started", "stderr")
    ginit.wait_for_line("web/log: started", "stderr")
    assert ginit.stop() == 0
    started = dict(re.findall(r"info: web/(\w+): started \(PID (\d+)\)\n", ginit.stderr.text))
    ended = re.findall(r"info: web/(\w+): (.*) \(PID (\d+)\)\n", ginit.stderr.text.replace("started", ""))
    assert sorted(started) == ["log", "run", "term"]
    assert {stage: (how, pid) for stage, how, pid in ended if how} == {
        "run": ("was ended by SIGTERM", started["run"]),
        "log": ("ended with status 0", started["log"]),
        "term": ("ended with status 0", started["term"]),
    }
