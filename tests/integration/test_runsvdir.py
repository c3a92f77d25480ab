"""What runsvdir(8), runsv(8) and sv(8) say, each seen twice: with runit's own runsvdir, and with ginit in its place.

The same expectation holds for both, unless a test says in what ginit differs on purpose. `sv` is runit's own in either case.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from harness import GINIT, PATIENCE, Ginit, Services, wait_for, write_executable
from machine import require

#: Writes down each start and each signal, and ends when it's told to.
RECORDER = """\
for signal in HUP ALRM INT QUIT USR1 USR2 CONT; do trap "echo $signal >>events" $signal; done
trap 'echo TERM >>events; exit 0' TERM
echo start >>events
while :; do sleep 0.02; done"""
#: The same, but it doesn't end.
STUBBORN = RECORDER.replace("; exit 0", "")
#: Writes down its arguments.
FINISH = 'echo "finish $*" >>events'


class Runsvdir:
    """A runsvdir that runs, one of the two, and `sv` to talk to it."""

    def __init__(self, peer: str, path: Path, services: Services) -> None:
        self.peer = peer
        self.services = services
        self.program = path / "bin" / "runsvdir"
        self.program.parent.mkdir()
        self.program.symlink_to(GINIT if peer == "ginit" else str(shutil.which("runsvdir")))
        self._started: list[Ginit] = []

    @property
    def is_ginit(self) -> bool:
        return self.peer == "ginit"

    def start(self, *options: str, namespace: bool = True, env: dict[str, str] | None = None) -> Ginit:
        """Start it over `services`."""
        arguments = options or (str(self.services.path),)
        process = Ginit(arguments, env or {}, command=[str(self.program)], namespace=namespace)
        self._started.append(process)
        return process

    def sv(self, *arguments: str, check: bool = True) -> str:
        """Run `sv`, and return what it prints, with each number of seconds and each PID as N."""
        done = self.try_sv(*arguments)
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def try_sv(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["sv", *arguments],
            env={**os.environ, "SVDIR": str(self.services.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        done.stdout = re.sub(r"\(pid \d+\) \d+s|(?<=: )\d+s", lambda match: re.sub(r"\d+", "N", match[0]), done.stdout)
        return done

    def wait_for_status(self, pattern: str, service: str = "web") -> str:
        def status() -> str | None:
            text = self.try_sv("status", service).stdout.strip()
            return text if re.fullmatch(pattern, text) else None

        try:
            return wait_for(status)
        except AssertionError:
            raise AssertionError(f"not {pattern!r} but {self.try_sv('status', service).stdout!r}") from None

    def destroy(self) -> None:
        for process in self._started:
            process.destroy()


@pytest.fixture(params=["runit", "ginit"])
def runsvdir(request, tmp_path, services) -> Iterator[Runsvdir]:
    require("runsvdir", "sv")
    runsvdir = Runsvdir(request.param, tmp_path, services)
    yield runsvdir
    runsvdir.destroy()


def add(services: Services, name: str = "web", run: str | None = RECORDER, **files: str) -> Path:
    """Add a service; other files, all executable, have an underscore for a slash (`log_run`)."""
    directory = services.add(name, run)
    for file, text in files.items():
        write_executable(directory / file.replace("_", "/"), text)
    return directory


def add_leaving(services: Services, tmp_path: Path, **files: str) -> Path:
    """Add a service that leaves the directory for good when it's told to end, or it would be started anew when it has ended."""
    link = services.path / "web"
    run = RECORDER.replace("echo TERM", f"rm {link}; echo TERM")
    directory = add(Services(tmp_path / "leaving"), run=run, **files)
    link.symlink_to(directory)
    return directory


def events(directory: Path, name: str = "events") -> list[str]:
    try:
        return (directory / name).read_text().splitlines()
    except FileNotFoundError:
        return []


def wait_for_events(directory: Path, *expected: str) -> None:
    """Wait until these have happened, and nothing else.

    But for a CONT that isn't expected: it comes with a TERM, and the shell may take it before, after or not at all.
    """

    def happened() -> list[str]:
        return [event for event in events(directory) if event != "CONT" or event in expected]

    with contextlib.suppress(AssertionError):
        wait_for(lambda: happened() == list(expected))
    assert happened() == list(expected)


def wait_for_event(directory: Path, event: str, count: int = 1) -> None:
    wait_for(lambda: events(directory).count(event) >= count, f"{count} x {event} among {events(directory)}")


def wait_until_controlled(directory: Path) -> None:
    """Wait until the program has been started, and it's told that it runs; that can come later."""
    wait_for_event(directory, "start")
    wait_for(lambda: (directory / "supervise/status").exists() and read_status(directory)[-1] == 1)


# runsvdir(8)


@pytest.mark.parametrize("arguments", [[], ["-P"], ["--"]])
def test_without_a_directory_it_says_its_usage(runsvdir, arguments):
    done = subprocess.run([runsvdir.program, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("runsvdir [-P] dir")
    assert done.stderr.strip().startswith("usage: ")


def test_each_directory_and_each_link_to_one_is_a_service_unless_its_name_begins_with_a_dot(runsvdir, services, tmp_path):
    directory = add(services)
    hidden = add(services, ".hidden")
    elsewhere = add(Services(tmp_path / "elsewhere"), "linked")
    (services.path / "link").symlink_to(elsewhere)
    (services.path / "file").write_text("no directory")
    (services.path / "dangling").symlink_to(tmp_path / "nowhere")
    runsvdir.start()
    wait_until_controlled(directory)
    wait_until_controlled(elsewhere)
    assert events(hidden) == []


def test_a_service_whose_directory_is_renamed_is_the_same_one(runsvdir, services):
    add(services, log_run="exec cat >>said")
    runsvdir.start()
    wait_until_controlled(services.path / "web")
    directory = (services.path / "web").rename(services.path / "renamed")
    other = add(services, run=RECORDER.replace("start", "other"), finish=FINISH, control_t="echo t >>events")
    runsvdir.sv("restart", "renamed")
    wait_for_events(directory, "start", "TERM", "start")
    wait_for_event(other, "other")
    assert events(other) == ["other"]
    # Where nobody looks for services any more, it's ended; and what goes with it is found there, not in its successor's place.
    hidden = directory.rename(services.path / ".hidden")
    write_executable(hidden / "finish", FINISH)
    wait_for_events(hidden, "start", "TERM", "start", "TERM", "finish 0 0")
    assert events(other) == ["other"]


def test_why_a_program_can_t_be_started_is_told_once_though_its_log_program_can_t_either(tmp_path, services):
    directory = add(services, finish=FINISH, log_run="exec cat")
    for name in ("run", "log/run"):
        (directory / name).chmod(0o644)
    runsvdir = Runsvdir("ginit", tmp_path, services)
    ginit = runsvdir.start()
    wait_for_event(directory, "finish 111 0", 4)
    runsvdir.destroy()
    (line,) = [line for line in ginit.stderr.lines if "web/run" in line]
    assert "it isn't executable" in line
    (line,) = [line for line in ginit.stderr.lines if "web/log/run" in line]
    assert "it isn't executable" in line


@pytest.mark.parametrize("option", ["-P", "--", "-Pmore"])
def test_options_are_told_by_their_first_letter(runsvdir, services, option):
    directory = add(services)
    runsvdir.start(option, str(services.path))
    wait_until_controlled(directory)


def test_a_log_is_accepted(runsvdir, services):
    directory = add(services)
    runsvdir.start("-P", str(services.path), "log: " + "." * 100)
    wait_until_controlled(directory)


def test_new_directories_are_started_and_removed_ones_stopped(runsvdir, services, tmp_path):
    first = add(services)
    (second := tmp_path / "second").mkdir()
    write_executable(second / "run", RECORDER)
    runsvdir.start()
    wait_until_controlled(first)
    (services.path / "link").symlink_to(second)
    wait_until_controlled(second)
    (services.path / "link").unlink()
    wait_for_event(second, "TERM")
    assert events(first) == ["start"]


def test_a_directory_in_the_place_of_another_is_a_new_service(runsvdir, services, tmp_path):
    old, new = (add(Services(tmp_path / name), "web") for name in ("old", "new"))
    link = services.path / "web"
    link.symlink_to(old)
    runsvdir.start()
    wait_until_controlled(old)
    other = tmp_path / "link"
    other.symlink_to(new)
    other.rename(link)
    wait_until_controlled(new)
    wait_for_event(old, "TERM")
    assert "TERM" not in events(new)


def test_two_links_to_one_directory_are_one_service(runsvdir, services, tmp_path):
    directory = add(Services(tmp_path / "elsewhere"), "web")
    for name in ("a", "b"):
        (services.path / name).symlink_to(directory)
    last = add(services, "c")
    runsvdir.start()
    wait_until_controlled(directory)
    wait_until_controlled(last)
    assert events(directory) == ["start"]


def test_it_waits_for_a_directory_that_is_not_there(runsvdir, services, tmp_path):
    moved = tmp_path / "moved"
    add(services)
    services.path.rename(moved)
    process = runsvdir.start()
    process.wait_for_line(str(services.path), "stderr")
    moved.rename(services.path)
    directory = services.path / "web"
    wait_until_controlled(directory)


@pytest.mark.parametrize(("options", "own"), [((), False), (("-P",), True)])
def test_with_p_a_service_has_a_session_and_a_process_group_of_its_own(runsvdir, services, options, own):
    directory = add(services, run="ps -o sid=,pgid= -p $$,1 >sessions; echo start >>events; exec sleep 1000")
    runsvdir.start(*options, str(services.path))
    wait_until_controlled(directory)
    init, service = (line.split() for line in (directory / "sessions").read_text().splitlines())
    assert (init[0] != service[0], init[1] != service[1]) == (own, own)


def test_hup_stops_every_service_and_the_status_is_111(runsvdir, services):
    directories = [add(services, name) for name in "ab"]
    # Not as PID 1, whose end would be the end of all the others.
    process = runsvdir.start(namespace=False)
    for directory in directories:
        wait_until_controlled(directory)
    process.kill(signal.SIGHUP)
    for directory in directories:
        wait_for_events(directory, "start", "TERM")
    assert process.wait() == 111


def test_on_term_ginit_stops_every_service_and_waits_for_it_where_runsvdir_leaves_them_alone(runsvdir, services):
    run = "trap 'touch told; while [ ! -e ../gate ]; do sleep 0.02; done; echo bye >>events; exit 1' TERM\necho start >>events\n"
    directory = add(services, run=run + "while :; do sleep 0.02; done")
    process = runsvdir.start()
    wait_until_controlled(directory)
    process.kill()
    if runsvdir.is_ginit:
        wait_for((directory / "told").exists)
        (services.path / "gate").touch()
    assert process.wait() == 0
    # The kernel kills what runs when PID 1 leaves.
    assert events(directory) == (["start", "bye"] if runsvdir.is_ginit else ["start"])


def test_a_service_that_was_told_to_exit_is_started_anew(runsvdir, services):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("exit", "web")
    wait_for_events(directory, "start", "TERM", "start")


# runsv(8): run, finish, down, log


def test_a_service_that_ends_is_started_again(runsvdir, services):
    directory = add(services, run="echo start >>events; exec sleep 1.1")
    runsvdir.start()
    wait_for_event(directory, "start", 2)


def test_a_service_that_ends_at_once_is_started_again_after_a_second(runsvdir, services):
    directory = add(services, run="date +%s.%N >>events")
    runsvdir.start()
    first, second = map(float, wait_for(lambda: len(events(directory)) >= 2 and events(directory)[:2]))
    assert second - first >= 0.99


@pytest.mark.parametrize(
    ("ending", "arguments"),
    [("exit 0", "0 0"), ("exit 3", "3 0"), ("exit 115", "115 0"), ("exit 255", "255 0"), ("kill -9 $$", "-1 9")],
)
def test_finish_gets_the_exit_code_and_the_status(runsvdir, services, ending, arguments):
    directory = add(services, run=f"echo start >>events; {ending}", finish=FINISH)
    runsvdir.start()
    wait_for_event(directory, "start", 2)
    assert events(directory)[:3] == ["start", f"finish {arguments}", "start"]


def test_finish_is_told_of_a_core_dump(runsvdir, services):
    # The kernel says whether one was written; both have to hand on what it says.
    directory = add(services, run="ulimit -c 0; echo start >>events; kill -ABRT $$", finish=FINISH)
    runsvdir.start()
    wait_for_event(directory, "start", 2)
    assert events(directory)[1] in ("finish -1 6", "finish -1 134")


def test_a_run_that_cannot_be_started_is_tried_again_and_finish_gets_111_and_0(runsvdir, services):
    directory = add(services, finish=FINISH)
    (directory / "run").chmod(0o644)
    runsvdir.start()
    wait_for_event(directory, "finish 111 0", 2)
    (directory / "run").chmod(0o755)
    wait_for_event(directory, "start")


def test_a_finish_that_cannot_be_started_is_as_none(runsvdir, services):
    directory = add(services, run="echo start >>events", finish=FINISH)
    (directory / "finish").chmod(0o644)
    runsvdir.start()
    wait_for_event(directory, "start", 2)
    assert set(events(directory)) == {"start"}


def test_what_finish_prints_goes_where_run_s_goes(runsvdir, services):
    directory = add(services, run="echo one", finish="echo two", log_run="exec cat >>../events")
    runsvdir.start()
    wait_for_event(directory, "two")
    assert events(directory)[:2] == ["one", "two"]


def test_with_a_file_down_a_service_is_not_started_but_its_log_is(runsvdir, services):
    directory = add(services, log_run=RECORDER)
    (directory / "down").touch()
    runsvdir.start()
    wait_until_controlled(directory / "log")
    runsvdir.wait_for_status("down: web: Ns; run: log: .*")
    assert events(directory) == []
    runsvdir.sv("up", "web")
    wait_for_events(directory, "start")
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns, normally down; run: log: .*")


def test_with_a_file_down_a_log_is_not_started(runsvdir, services):
    directory = add(services, log_run=RECORDER)
    (directory / "log/down").touch()
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns; down: log: Ns")
    runsvdir.sv("up", "web/log")
    wait_for_events(directory / "log", "start")


def test_a_log_is_started_again_and_loses_no_line_in_the_pipe(runsvdir, services):
    # It takes one line at a time: the shell reads by the byte.
    directory = add(
        services, run="echo one; echo two; echo three; exec sleep 1000", log_run='IFS= read -r line; echo "$line" >>../events'
    )
    runsvdir.start()
    wait_for_events(directory, "one", "two", "three")


def test_a_log_is_controlled_by_itself(runsvdir, services):
    directory = add(services, log_run=RECORDER)
    runsvdir.start()
    for each in (directory, directory / "log"):
        wait_until_controlled(each)
    runsvdir.sv("hup", "web/log")
    wait_for_events(directory / "log", "start", "HUP")
    runsvdir.sv("-w", "20", "down", "web/log")
    # The shell has no order among signals that come together.
    assert set(events(directory / "log")) == {"start", "HUP", "TERM", "CONT"} or events(directory / "log")[-1] == "TERM"
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns; down: log: Ns, normally up")
    runsvdir.sv("-w", "20", "up", "web/log")
    assert events(directory) == ["start"]


def test_a_log_is_not_told_to_exit(runsvdir, services):
    directory = add(services, log_run=RECORDER)
    runsvdir.start()
    for each in (directory, directory / "log"):
        wait_until_controlled(each)
    with open(directory / "log/supervise/control", "w") as control:
        control.write("xh")
    wait_for_events(directory / "log", "start", "HUP")


def test_on_exit_a_log_gets_to_the_end_of_its_input(runsvdir, services):
    run = "echo first; trap 'echo last; exit 0' TERM; echo start >>events; while :; do sleep 0.02; done"
    directory = add(services, run=run, log_run="cat >>../lines; echo end >>../lines")
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("exit", "web")
    wait_for(lambda: "end" in events(directory, "lines"))
    assert events(directory, "lines")[:3] == ["first", "last", "end"]


# runsv(8): the commands


@pytest.mark.parametrize(
    ("command", "signals"),
    [
        ("hup", ["HUP"]),
        ("alarm", ["ALRM"]),
        ("interrupt", ["INT"]),
        ("quit", ["QUIT"]),
        ("1", ["USR1"]),
        ("2", ["USR2"]),
        ("cont", ["CONT"]),
        ("reload", ["HUP"]),
    ],
)
def test_a_command_sends_its_signal(runsvdir, services, command, signals):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv(command, "web")
    wait_for_events(directory, "start", *signals)


def test_a_service_that_is_told_to_terminate_is_started_again(runsvdir, services):
    directory = add(services, finish=FINISH)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("term", "web")
    wait_for_events(directory, "start", "TERM", "finish 0 0", "start")


def test_a_service_that_is_killed_is_started_again(runsvdir, services):
    directory = add(services, finish=FINISH)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("kill", "web")
    wait_for_event(directory, "start", 2)
    # runsv forgets, at a KILL, that the service runs, and may start it without `finish`; ginit always runs that.
    assert "TERM" not in events(directory)
    if runsvdir.is_ginit:
        assert events(directory) == ["start", "finish -1 9", "start"]


def test_a_service_is_paused_and_continued(runsvdir, services):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", "pause", "web")
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns, paused")
    runsvdir.sv("hup", "web")
    assert events(directory) == ["start"]
    runsvdir.sv("-w", "20", "cont", "web")
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns")
    wait_for(lambda: set(events(directory)) == {"start", "HUP", "CONT"})


def test_down_sends_term_and_cont_and_the_service_stays_down(runsvdir, services):
    directory = add(services, run=STUBBORN, finish=FINISH)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("down", "web")
    wait_for(lambda: set(events(directory)) == {"start", "TERM", "CONT"})
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns, want down, got TERM")
    runsvdir.sv("kill", "web")
    wait_for_event(directory, "finish -1 9") if runsvdir.is_ginit else None
    runsvdir.wait_for_status("down: web: Ns, normally up")


def test_down_reaches_a_paused_service(runsvdir, services):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", "pause", "web")
    runsvdir.sv("-w", "20", "down", "web")
    assert "TERM" in events(directory)


def test_once_starts_a_service_and_does_not_start_it_again(runsvdir, services):
    directory = add(services, run="echo start >>events; while [ ! -e end ]; do sleep 0.02; done")
    (directory / "down").touch()
    runsvdir.start()
    runsvdir.wait_for_status("down: web: Ns")
    runsvdir.sv("-w", "20", "once", "web")
    wait_for_events(directory, "start")
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns, normally down, want down")
    (directory / "end").touch()
    runsvdir.wait_for_status("down: web: Ns")


def test_once_lets_a_service_run_that_runs(runsvdir, services):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", "once", "web")
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns, want down")
    assert events(directory) == ["start"]


def test_exit_ends_a_service_and_nobody_controls_it_then(runsvdir, services, tmp_path):
    directory = add_leaving(services, tmp_path)
    runsvdir.start()
    wait_until_controlled(directory)
    assert runsvdir.sv("-w", "20", "exit", str(directory)) == f"ok: {directory}: runsv not running\n"
    assert "TERM" in events(directory)
    done = runsvdir.try_sv("status", str(directory))
    assert (done.returncode, done.stdout) == (1, f"fail: {directory}: runsv not running\n")


def test_unknown_commands_change_nothing_and_known_ones_among_them_are_done(runsvdir, services):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    with open(directory / "supervise/control", "wb") as control:
        control.write(b"\0zZ\xff\n?h" + b"s" * 300 + b"1")
    wait_for(lambda: set(events(directory)) == {"start", "HUP", "USR1"})


def test_commands_are_done_in_their_order(runsvdir, services):
    directory = add(services, finish=FINISH)
    runsvdir.start()
    wait_until_controlled(directory)
    with open(directory / "supervise/control", "w") as control:
        control.write("du")
    wait_for(lambda: events(directory)[-2:] == ["finish 0 0", "start"])


# runsv(8): customized control

#: Writes down its name, and what it's told.
CUSTOM = 'echo "$1" >argument; echo "${0##*/}" >>events'


@pytest.mark.parametrize(
    ("command", "letter"),
    [("hup", "h"), ("alarm", "a"), ("interrupt", "i"), ("quit", "q"), ("1", "1"), ("2", "2"), ("cont", "c"), ("pause", "p")],
)
@pytest.mark.parametrize("status", [0, 1])
def test_a_script_in_control_is_run_first_and_the_signal_is_sent_if_it_fails(runsvdir, services, command, letter, status):
    directory = add(services, **{f"control_{letter}": f"{CUSTOM}; exit {status}"})
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv(command, "web")
    name = {"h": "HUP", "a": "ALRM", "i": "INT", "q": "QUIT", "1": "USR1", "2": "USR2", "c": "CONT"}.get(letter)
    wait_for_events(directory, "start", letter, *([name] if status and name else []))
    # The PID is told by ginit, and by runit from 2.2 on.
    if runsvdir.is_ginit:
        assert events(directory, "argument") == events(directory / "supervise", "pid")


def test_a_script_in_control_that_is_not_executable_is_not_run(runsvdir, services):
    directory = add(services, control_h=CUSTOM)
    (directory / "control/h").chmod(0o644)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("hup", "web")
    wait_for_events(directory, "start", "HUP")


KILL_AFTER_CONT = """\
while ! grep -q CONT events; do sleep 0.02; done
echo d >>events
kill -KILL $(cat supervise/pid)"""


def test_on_down_control_t_is_run_in_the_place_of_term_and_control_d_afterwards(runsvdir, services):
    directory = add(services, control_t="echo t >>events", control_d=KILL_AFTER_CONT)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", "down", "web")
    assert [event for event in events(directory) if event in "td"] == ["t", "d"]
    assert "TERM" not in events(directory)


def test_on_exit_control_t_is_run_and_control_x_afterwards(runsvdir, services, tmp_path):
    directory = add_leaving(services, tmp_path, control_t="echo t >>events; exit 1", control_x="echo x >>events")
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", "exit", str(directory))
    assert [event for event in events(directory) if event in "tx"] == ["t", "x"]
    assert "TERM" in events(directory)


def test_control_u_is_run_before_each_start(runsvdir, services):
    directory = add(services, control_u="echo u >>events")
    (directory / "down").touch()
    runsvdir.start()
    runsvdir.wait_for_status("down: web: Ns")
    runsvdir.sv("-w", "20", "up", "web")
    wait_for_events(directory, "u", "start")
    runsvdir.sv("-w", "20", "down", "web")
    runsvdir.sv("-w", "20", "once", "web")
    wait_for_event(directory, "start", 2)
    assert [event for event in events(directory) if event in ("u", "start")] == ["u", "start"] * 2


def test_the_control_of_a_log_is_not_customized(runsvdir, services):
    directory = add(services, log_run=RECORDER)
    write_executable(directory / "log/control/h", CUSTOM)
    runsvdir.start()
    wait_until_controlled(directory / "log")
    runsvdir.sv("hup", "web/log")
    wait_for_events(directory / "log", "start", "HUP")


# runsv(8): supervise


def read_modes(directory: Path) -> dict[str, str]:
    modes = {}
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):
            modes[path.name] = stat.filemode(path.lstat().st_mode)
    return modes


@pytest.mark.parametrize("place", ["web", "web/log"])
def test_the_files_in_supervise_have_runsv_s_modes(runsvdir, services, place):
    add(services, log_run=RECORDER)
    runsvdir.start()
    directory = services.path / place
    wait_until_controlled(directory)
    expected = {"control": "prw-------", "ok": "prw-------", "lock": "-rw-------"}
    expected.update(dict.fromkeys(("pid", "stat", "status"), "-rw-r--r--"))
    # Files are there under another name while they are written.
    wait_for(lambda: read_modes(directory / "supervise") == expected, str(expected))
    assert stat.filemode((directory / "supervise").stat().st_mode) == "drwx------"


def read_status(directory: Path) -> tuple[float, int, bool, str, bool, int]:
    """What `supervise/status` says: when, PID, paused, want, got TERM, state."""
    seconds, nanoseconds, pid, paused, want, term, state = struct.unpack(
        "!QIIBcBB", swap((directory / "supervise/status").read_bytes())
    )
    return seconds - 2**62 - 10 + nanoseconds / 1e9, pid, bool(paused), want.decode(), bool(term), state


def swap(status: bytes) -> bytes:
    """The PID has its bytes the other way round than the rest."""
    assert len(status) == 20
    return status[:12] + status[15:11:-1] + status[16:]


@pytest.mark.parametrize(
    ("commands", "stat_line", "flags"),
    [
        ("", "run", (False, "u", False, 1)),
        ("p", "run, paused", (True, "u", False, 1)),
        ("o", "run, want down", (False, "d", False, 1)),
        ("t", "run, got TERM", (False, "u", True, 1)),
        ("d", "run, got TERM, want down", (False, "d", True, 1)),
        ("x", "run, got TERM, want exit", (False, "d", True, 1)),
        ("pd", "run, paused, got TERM, want down", (True, "d", True, 1)),
    ],
)
def test_supervise_tells_the_state(runsvdir, services, commands, stat_line, flags):
    directory = add(services, run=STUBBORN)
    before = time.time()
    runsvdir.start()
    wait_until_controlled(directory)
    with open(directory / "supervise/control", "w") as control:
        control.write(commands)
    wait_for(lambda: events(directory / "supervise", "stat") == [stat_line], stat_line)
    wait_for(lambda: read_status(directory)[2:] == flags, str(flags))
    assert before <= read_status(directory)[0] <= time.time()
    assert events(directory / "supervise", "pid") == [str(read_status(directory)[1])]


def test_supervise_tells_that_a_service_is_down(runsvdir, services):
    directory = add(services)
    (directory / "down").touch()
    runsvdir.start()
    runsvdir.wait_for_status("down: web: Ns")
    wait_for(lambda: events(directory / "supervise", "stat") == ["down"])
    assert read_status(directory)[1:] == (0, False, "d", False, 0)
    assert (directory / "supervise/pid").read_text() == ""


def test_supervise_tells_that_finish_runs(runsvdir, services):
    finish = "echo $$ >pid; while [ ! -e end ]; do sleep 0.02; done"
    directory = add(services, run="echo start >>events; sleep 1.1", finish=finish)
    runsvdir.start()
    wait_for(lambda: (directory / "pid").exists() and events(directory, "pid"))
    wait_for(lambda: events(directory / "supervise", "stat") == ["finish"])
    wait_for(lambda: events(directory / "supervise", "pid") == events(directory, "pid"))
    wait_for(lambda: read_status(directory)[1:] == (int(events(directory, "pid")[0]), False, "u", False, 2))
    runsvdir.wait_for_status(r"finish: web: \(pid N\) Ns")
    (directory / "end").touch()
    wait_for_event(directory, "start", 2)


def test_supervise_may_be_a_link_to_a_directory_that_is_made_then(runsvdir, services, tmp_path):
    directory = add(services)
    (directory / "supervise").symlink_to(tmp_path / "elsewhere")
    runsvdir.start()
    wait_until_controlled(directory)
    assert (tmp_path / "elsewhere/status").stat().st_size == 20
    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o700
    runsvdir.sv("-w", "20", "down", "web")


def test_a_relative_link_for_supervise_leads_from_where_it_is(runsvdir, services):
    directory = add(services)
    (directory / "supervise").symlink_to("elsewhere")
    runsvdir.start()
    wait_until_controlled(directory)
    assert (directory / "elsewhere/status").exists()


def test_a_service_that_a_runsv_runs_is_not_taken_over(runsvdir, services):
    directory = add(services)
    runsv = subprocess.Popen(["runsv", str(directory)])
    try:
        wait_until_controlled(directory)
        process = runsvdir.start()
        process.wait_for_line("web", "stderr")
        assert events(directory) == ["start"]
    finally:
        runsv.terminate()
        runsv.wait(PATIENCE)
    wait_for_events(directory, "start", "TERM", "start")


# sv(8)


def test_sv_says_what_a_service_does(runsvdir, services):
    directory = add(services, log_run="exec cat >/dev/null")
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.wait_for_status(r"run: web: \(pid N\) Ns; run: log: \(pid N\) Ns")
    assert re.fullmatch("ok: down: web: Ns, normally up\n", runsvdir.sv("-w", "20", "stop", "web"))
    assert re.fullmatch(r"ok: run: web: \(pid N\) Ns\n", runsvdir.sv("-w", "20", "start", "web"))
    assert re.fullmatch(r"ok: run: web: \(pid N\) Ns\n", runsvdir.sv("-w", "20", "restart", "web"))


@pytest.mark.parametrize("command", ["stop", "force-stop", "down"])
def test_sv_stops_a_service_and_waits(runsvdir, services, command):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", command, "web")
    assert "TERM" in events(directory)
    runsvdir.wait_for_status("down: web: Ns, normally up")


@pytest.mark.parametrize("command", ["restart", "force-restart", "try-restart", "force-reload", "term"])
def test_sv_restarts_a_service_and_waits(runsvdir, services, command):
    directory = add(services)
    runsvdir.start()
    wait_until_controlled(directory)
    runsvdir.sv("-w", "20", command, "web")
    wait_for_events(directory, "start", "TERM", "start")


@pytest.mark.parametrize("command", ["shutdown", "force-shutdown"])
def test_sv_shuts_a_service_down(runsvdir, services, tmp_path, command):
    directory = add_leaving(services, tmp_path)
    runsvdir.start()
    wait_until_controlled(directory)
    assert runsvdir.sv("-w", "20", command, str(directory)) == f"ok: {directory}: runsv not running\n"


def test_sv_gives_up_waiting(runsvdir, services):
    directory = add(services, run=STUBBORN)
    runsvdir.start()
    wait_until_controlled(directory)
    done = runsvdir.try_sv("-w", "1", "stop", "web")
    assert done.returncode == 1
    assert re.fullmatch(r"timeout: run: web: \(pid N\) Ns, want down, got TERM\n", done.stdout)


def test_sv_kills_what_does_not_stop_if_it_is_to_force(runsvdir, services):
    directory = add(services, run=STUBBORN)
    runsvdir.start()
    wait_until_controlled(directory)
    done = runsvdir.try_sv("-w", "1", "force-stop", "web")
    assert done.returncode == 1
    assert re.fullmatch(r"kill: run: web: \(pid N\) Ns, want down, got TERM\n", done.stdout)
    runsvdir.wait_for_status("down: web: Ns, normally up")


def test_sv_runs_check(runsvdir, services):
    directory = add(services, check="[ -e available ]")
    runsvdir.start()
    wait_until_controlled(directory)
    assert runsvdir.try_sv("-w", "1", "start", "web").returncode == 1
    assert runsvdir.try_sv("-w", "1", "check", "web").returncode == 1
    (directory / "available").touch()
    assert re.fullmatch(r"ok: run: web: \(pid N\) Ns\n", runsvdir.sv("-w", "20", "start", "web"))
    assert re.fullmatch(r"ok: run: web: \(pid N\) Ns\n", runsvdir.sv("-w", "20", "check", "web"))


def test_sv_counts_the_services_it_has_no_success_with(runsvdir, services):
    directories = [add(services, name) for name in "ab"]
    runsvdir.start()
    for directory in directories:
        wait_until_controlled(directory)
    done = runsvdir.try_sv("up", "a", "nowhere", "b", "neither")
    assert done.returncode == 2


def test_sv_controls_many_services_at_once(runsvdir, services):
    directories = [add(services, name) for name in "abc"]
    runsvdir.start()
    for directory in directories:
        wait_until_controlled(directory)
    runsvdir.sv("-w", "30", "force-stop", *map(str, directories))
    status = runsvdir.sv("status", *map(str, directories)).splitlines()
    assert len(status) == 3
    assert all(re.fullmatch("down: .*: Ns, normally up", line) for line in status)


def test_a_service_that_needs_another_one_has_it_started_first(runsvdir, services):
    # The one that is needed takes a while until it's available, and the other one is first in the alphabet.
    db = add(services, "db", run=f"sleep 0.3; touch available; {RECORDER}", check="[ -e available ]")
    app = add(services, "app", run=f"SVDIR={services.path} sv start db >>out || exit 1; ls ../db/available >seen\n{RECORDER}")
    runsvdir.start()
    wait_until_controlled(app)
    assert events(app, "seen") == ["../db/available"]
    wait_for_events(db, "start")


# Where ginit waits; runit's runsvdir waits for nothing.

ONLY_GINIT = pytest.mark.parametrize("runsvdir", ["ginit"], indirect=True)


@ONLY_GINIT
def test_a_stop_reaches_a_service_whose_log_is_paused(runsvdir, services):
    directory = add(services, log_run="echo start >>events; exec cat >/dev/null")
    process = runsvdir.start()
    for each in (directory, directory / "log"):
        wait_until_controlled(each)
    runsvdir.sv("-w", "20", "pause", "web/log")
    assert process.stop() == 0


def test_once_starts_a_service_that_could_not_be_started_before(runsvdir, services):
    directory = add(services, finish=FINISH)
    (directory / "run").chmod(0o644)
    runsvdir.start()
    wait_for_event(directory, "finish 111 0")
    runsvdir.sv("-w", "20", "down", "web")
    runsvdir.wait_for_status("down: web: Ns, normally up")
    (directory / "run").chmod(0o755)
    runsvdir.sv("-w", "20", "once", "web")
    wait_for_event(directory, "start")


@ONLY_GINIT
def test_nothing_is_started_when_a_stop_comes_before_its_start(runsvdir, services):
    directory = add(services, control_u="touch waiting; while [ ! -e ../gate ]; do sleep 0.02; done")
    (directory / "down").touch()
    process = runsvdir.start(env={"GINIT_LOG_LEVEL": "info"})
    runsvdir.wait_for_status("down: web: Ns")
    runsvdir.sv("once", "web")
    wait_for((directory / "waiting").exists)
    process.kill()
    process.wait_for_line("SIGTERM: stopping everything", "stderr")
    (services.path / "gate").touch()
    assert process.wait() == 0
    assert events(directory) == []


@ONLY_GINIT
def test_removing_a_running_service_s_directory_is_no_reason_to_complain(runsvdir, services):
    directory = add(services)
    other = add(services, "other")
    process = runsvdir.start()
    wait_until_controlled(directory)
    wait_until_controlled(other)
    recorder = process.find("web/run")[0]
    shutil.rmtree(directory)
    wait_for(lambda: not recorder.is_running())
    assert process.stop() == 0
    assert "can't use" not in process.stderr.text


@ONLY_GINIT
def test_a_second_term_tells_what_is_waited_for(runsvdir, services):
    directory = add(services, finish="touch finishing; while [ ! -e end ]; do sleep 0.02; done", log_run="exec cat >/dev/null")
    process = runsvdir.start()
    wait_until_controlled(directory)
    process.kill()
    wait_for((directory / "finishing").exists)
    process.kill()
    process.wait_for_line(r"waiting for web/finish \(PID \d+\), web/log \(PID \d+\)$", "stderr")
    (directory / "end").touch()
    assert process.wait() == 0
