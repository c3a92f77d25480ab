"""ginit with a defect: whatever in it fails, it says so, stops what runs, and exits with 1."""

from __future__ import annotations

import re
import sys

import pytest
from harness import wait_for, write_executable

#: Starts ginit with one function that raises an error, the first `times` times that it's called when the file `after` is there.
SABOTAGE = """#!/usr/bin/env python
import importlib
import os
import sys

target, error, times, after = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
del sys.argv[1:5]
module, _, path = target.partition(":")
owner = importlib.import_module("ginit." + module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
original = getattr(owner, name)


def broken(*args, **kwargs):
    global times
    if times and os.path.exists(after):
        times -= 1
        raise error
    return original(*args, **kwargs)


setattr(owner, name, broken)
from ginit.__main__ import main

main()
"""

#: PID 1 in ginit's place, which shows what ginit has left running. The names are all found before the loop starts.
WITNESS = """
"$@"
status=$?
for process in /proc/[0-9]*; do
    [ $process = /proc/1 ] || echo "left running: $(tr '\\0' ' ' <$process/cmdline)" >&2
done
exit $status
"""

#: Takes a moment to stop, so that a ginit which doesn't wait for it shows.
SLOW = "trap 'kill $!; sleep 0.1; exit 0' TERM; sleep 1000 & echo >ready; echo out; echo err >&2; wait"
WHEN_SLOW_IS_READY = "while [ ! -e ../slow/ready ]; do sleep 0.01; done;"
STAMPED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "

#: These fail in the midst of life; nothing else gives a reason to stop.
WHILE_RUNNING = [
    "processes.child:Spawner.spawn",
    "processes.orphans:Orphans._look",
    "processes.orphans:Orphans._pause",
    "output.output:Output.pump_stderr",
    "output.output:Output.pump_stdout",
    "output.streams:LineStream._put_frame",
    "output.streams:ObjectStream._put_frame",
    "output.streams:Stream.take",
    "output.pump:Pump.__init__",
    "output.pump:Pump._run",
    "output.pump:Pump._wait_until_readable",
    "processes.reaper:Reaper.watch",
    "services.service:Service._live",
    "services.service:Service.spawn",
    "services.service:Service.start_run",
    "services.task:Task.live",
    "services.task:Task._become",
    "supervisor:Supervisor._become_subreaper",
    "supervisor:Supervisor._start",
    "output.writer:Writer.wait_for_room",
]

#: These fail when a service has ended and the other one is to be stopped.
WHILE_STOPPING = [
    "processes.child:Child.kill",
    "processes.child:Child.reaped",
    "output.log:Log.warn",
    "processes.orphans:Orphans._kill",
    "processes.orphans:Orphans._meet",
    "processes.orphans:Orphans.close",
    "processes.orphans:_Warnings.warn",
    "processes.orphans:Orphans.stop",
    "processes.orphans:Orphans.look",
    "processes.orphans:Orphans.reaped",
    "output.output:Output.end_streams",
    "output.output:Output.flush",
    "processes.reaper:Reaper._on_exit",
    "processes.reaper:Reaper.childless",
    "services.programs:Program._send_term",
    "services.programs:Run.tell_to_end",
    "services.service:Service.stop",
    "services.programs:Run._start_finish",
    "services.programs:Program._ended",
    "supervisor:Supervisor._orphans_ended",
    "supervisor:Supervisor._on_reaped",
    "supervisor:Supervisor._wait",
    "supervisor:Supervisor.program_ended",
]


@pytest.fixture
def sabotage(start, tmp_path):
    """Starts a ginit in which a function raises an error, below a PID 1 that shows what was left running."""
    script = write_executable(tmp_path / "sabotage.py", SABOTAGE)

    def sabotage(target, error="RuntimeError('sabotage')", times=1, after="/", **settings):
        witness = ["sh", "-c", WITNESS, "witness"]
        command = [*witness, sys.executable, "-I", str(script), target, error, str(times), str(after)]
        return start(popen={"command": command}, **settings)

    return sabotage


def check(ginit, error="RuntimeError: sabotage"):
    """It must have said what failed, and have left nothing running."""
    status = ginit.wait()
    assert status == 1, ginit.stderr.text
    assert re.search(rf"(?m)^{STAMPED}ginit: error: .*{error}$", ginit.stderr.text), ginit.stderr.text
    assert "left running" not in ginit.stderr.text
    assert "Traceback" not in ginit.stderr.text


@pytest.mark.parametrize("target", WHILE_RUNNING)
def test_an_unexpected_error_stops_everything_that_runs(services, sabotage, target):
    services.add("other", "echo out; echo err >&2; exec sleep 1000")
    services.add("slow", SLOW)
    check(sabotage(target))


def test_an_unexpected_error_between_two_looks_for_orphans_is_not_the_last_of_them(services, sabotage):
    services.add("web", "trap '' TERM; (sleep 1000 &); trap - TERM; exec sleep 1000")  # it's to be killed at the next one
    check(sabotage("processes.orphans:Orphans._pause", KILL_TIMEOUT="0.2"))


def test_an_unexpected_error_in_redirecting_is_told_and_the_process_is_adopted_all_the_same(services, sabotage):
    directory = services.add("web", "(sleep 1000 &); until [ -e go ]; do sleep 0.01; done; exit 0")
    ginit = sabotage("processes.ptrace.redirection:redirect", REPARENTING_POLICY="adopt", LOG_LEVEL="debug")
    ginit.wait_for_line("warn: sleep/.*: its output may have stayed where it was: unexpected error: RuntimeError: sab", "stderr")
    ginit.wait_for_line("debug: sleep/.*: Traceback", "stderr")
    (directory / "go").touch()
    assert ginit.wait() == 0
    assert "left running" not in ginit.stderr.text


@pytest.mark.parametrize("target", WHILE_STOPPING)
def test_an_unexpected_error_while_stopping_does_not_keep_ginit_from_stopping_the_rest(services, sabotage, target):
    services.add("quits", f"{WHEN_SLOW_IS_READY} (sleep 1000 &); exit 3")
    services.add("slow", SLOW)
    services.add("sleeps", "exec sleep 1000")
    check(sabotage(target, KILL_TIMEOUT="0.2"))


def test_an_unexpected_error_in_giving_up_a_pipe_that_is_held_open_is_a_clear_error(services, sabotage):
    services.add("quits", "sleep 1000 & exit 0")
    ginit = sabotage("output.pump:Pump.finish", REPARENTING_POLICY="ignore")
    assert ginit.wait() == 1
    assert "Traceback" not in ginit.stderr.text
    assert re.search(rf"(?m)^{STAMPED}ginit: error: .*RuntimeError: sabotage$", ginit.stderr.text), ginit.stderr.text


def test_an_unexpected_error_when_a_signal_is_handled_stops_everything(services, sabotage):
    services.add("signals", f"{WHEN_SLOW_IS_READY} kill -TERM $PPID; exec sleep 1000")
    services.add("slow", SLOW)
    check(sabotage("supervisor:Supervisor._on_signal"))


def test_an_unexpected_error_in_running_a_terminate_file_is_made_up_for_by_term(services, sabotage):
    services.add("quits", f"{WHEN_SLOW_IS_READY} exit 0")
    services.add("slow", SLOW, terminate="kill $GINIT_PID")
    check(sabotage("services.programs:Run._terminate"))


@pytest.mark.parametrize("target", ["supervisor:Supervisor.__init__", "supervisor:Signals.__init__", "cli:Settings.read"])
def test_an_unexpected_error_before_anything_runs_is_a_clear_error(services, sabotage, target):
    services.add("web", "echo started >started; exec sleep 1000")
    check(sabotage(target))
    assert not (services.path / "web" / "started").exists()


def numbered(count: int, name: str = "line") -> str:
    return f"seq -f '{name} %.0f' {count}"


@pytest.mark.parametrize(
    "target",
    [
        "output.writer:Writer._write_some",
        "output.writer:Writer.wait_for_room",
        "output.pump:Pump._wait_until_readable",
        "output.pump:Pump.finish",
    ],
)
def test_an_unexpected_error_on_the_way_of_the_lines_loses_none(services, sabotage, target):
    held = "sleep 1000 & " if target == "output.pump:Pump.finish" else ""
    web = services.add("web", f"trap '' TERM; touch armed; {held}{numbered(3000)}; {numbered(3000)} >&2; exit 0")
    ginit = sabotage(target, after=web / "armed", JSON_STDOUT="0", REPARENTING_POLICY="ignore")
    assert ginit.wait() == 1
    expected = [f"web/run: line {number}" for number in range(1, 3001)]
    assert ginit.stdout.texts == expected
    assert [text for text in ginit.stderr.texts if text.startswith("web/run: line ")] == expected
    assert "RuntimeError: sabotage" in ginit.stderr.text


@pytest.mark.parametrize(
    "target", ["output.output:Output.end_streams", "output.output:Output.flush", "output.streams:Stream.close"]
)
def test_an_unexpected_error_at_the_end_loses_nothing_that_is_queued(services, sabotage, target):
    services.add("web", f"{numbered(20_000)} >&2; printf '{{}}'; exit 0")
    ginit = sabotage(target)
    ginit.stderr.pause()
    wait_for(lambda: not ginit.find("web/run") and not ginit.find("seq"))
    ginit.stderr.resume()
    assert ginit.wait() == 1
    lines = [text for text in ginit.stderr.texts if not text.startswith("ginit: ")]
    assert lines == [f"web/run: line {number}" for number in range(1, 20_001)]
    assert "RuntimeError: sabotage" in ginit.stderr.text


def test_an_unexpected_error_says_what_it_lost_and_the_lines_after_it_are_there(services, sabotage):
    web = services.add("web", "trap 'echo last; exit 0' TERM; touch armed; echo first; sleep 1000 & wait; exit 0")
    ginit = sabotage("output.streams:LineStream._put_frame", after=web / "armed", JSON_STDOUT="0")
    assert ginit.wait() == 1
    assert ginit.stdout.texts == ["web/run: last"]
    assert "error: web/run: up to 6 bytes of its stdout are lost by an unexpected error" in ginit.stderr.text


@pytest.mark.parametrize("times", [1, -1])
def test_an_unexpected_error_in_writing_output_stops_everything(services, sabotage, times):
    services.add("slow", SLOW)
    ginit = sabotage("output.writer:Writer._write_some", times=times)
    assert ginit.wait() == 1
    assert "left running" not in ginit.stderr.text
    assert "Traceback" not in ginit.stderr.text


def test_messages_of_ginits_own_that_all_fail_do_not_keep_it_from_stopping(services, sabotage):
    services.add("quits", f"{WHEN_SLOW_IS_READY} exit 3")
    slow = services.add("slow", SLOW)
    ginit = sabotage("output.log:Log._write", times=-1, after=slow / "ready")
    assert ginit.wait() == 1
    assert "left running" not in ginit.stderr.text


def test_an_error_that_cannot_be_told_stops_everything_all_the_same(services, sabotage):
    services.add("slow", SLOW)
    services.add("without a run file")
    ginit = sabotage("output.log:printable", times=-1)
    assert ginit.wait() == 1
    assert "left running" not in ginit.stderr.text


def test_looks_for_orphans_that_all_fail_are_one_error_and_do_not_keep_ginit_from_stopping(services, sabotage):
    services.add("slow", SLOW)
    ginit = sabotage("processes.orphans:Orphans._look", times=-1)
    check(ginit)
    assert ginit.stderr.text.count("sabotage") == 1


@pytest.mark.parametrize("error", ["MemoryError()", "AssertionError()", "KeyError('x')", "SystemExit(0)", "KeyboardInterrupt()"])
def test_an_error_of_any_kind_stops_everything(services, sabotage, error):
    services.add("slow", SLOW)
    check(sabotage("output.streams:LineStream._put_frame", error), f"{error.partition('(')[0]}: .*")


def test_what_an_unexpected_error_says_stays_on_one_line(services, sabotage):
    services.add("slow", SLOW)
    check(sabotage("output.pump:Pump._run", r"RuntimeError('one\ntwo')"), r"RuntimeError: one\\ntwo")


def test_the_traceback_of_an_unexpected_error_comes_at_debug_in_stamped_lines(services, sabotage):
    services.add("slow", SLOW)
    ginit = sabotage("output.pump:Pump._run", LOG_LEVEL="debug")
    assert ginit.wait() == 1
    lines = ginit.stderr.lines
    assert [line for line in lines if not re.match(STAMPED, line)] == []
    begin = next(index for index, line in enumerate(lines) if re.match(f"{STAMPED}ginit: debug: Traceback ", line))
    assert any(re.match(f"{STAMPED}ginit: debug: RuntimeError: sabotage$", line) for line in lines[begin:])
