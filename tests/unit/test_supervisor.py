"""A Supervisor is one run of ginit: several fit into a process, one after the other, and each leaves it as it was."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from support import clean_environ, run_script, write_executable

#: What each script begins with: `supervise` runs a Supervisor, `say` writes to the descriptor that a test reads.
BEGIN = """
import json, os, signal, sys, gevent
from ginit.settings import Settings
from ginit.supervisor import Supervisor

def supervise(directory, **settings):
    return Supervisor(Settings(directory=os.fsencode(directory), **settings), os.environb).run()

def say(facts):
    with open(sys.argv[1], "w") as file:
        json.dump(facts, file)

directories = sys.argv[2:]
"""
#: What it ends with, as ginit does. Python may crash when it tidies up while a thread, as for a file as stdout, just starts.
END = "\nos._exit(0)"


class Run:
    """What a script told, and what ginit wrote meanwhile."""

    def __init__(self, tmp_path: Path, script: str, *directories: Path) -> None:
        told, out, err = (tmp_path / name for name in ("told", "out", "err"))
        script = BEGIN + "\n".join(line[8:] for line in script.split("\n")) + END
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            run_script(script, told, *directories, stdout=stdout, stderr=stderr, env=clean_environ())
        self.told: Any = json.loads(told.read_text())
        #: The lines without their timestamps.
        self.stdout, self.stderr = ([line.split(" ", 1)[1] for line in path.read_text().splitlines()] for path in (out, err))


@pytest.fixture
def run(tmp_path):
    """Runs a script over directories of services; each of the latter is given as its services' `run`s."""

    def run(script: str, *directories: dict[str, str]) -> Run:
        paths = []
        for number, services in enumerate(directories):
            path = tmp_path / f"services{number}"
            path.mkdir()
            paths.append(path)
            for name, text in services.items():
                write_executable(path / name / "run", text)
        return Run(tmp_path, script, *paths)

    return run


def test_one_supervisor_may_follow_another(run):
    script = """
        say([supervise(directory, json_stdout=False, log_level="info") for directory in directories])
    """
    both = run(script, {"first": "echo one; exit 0"}, {"second": "echo two; exit 7"}, {"third": "echo three; kill -KILL $$"})
    assert both.told == [0, 3, 3]
    assert both.stdout == ["first/run: one", "second/run: two", "third/run: three"]
    reasons = [re.sub(r"PID \d+", "PID", line) for line in both.stderr if "ginit: warn: " in line]
    assert reasons == [
        "ginit: warn: first/run: ended with status 0 (PID); stopping everything; with status 115 the others would go on",
        "ginit: warn: second/run: ended with status 7 (PID); stopping everything; with status 115 the others would go on",
        "ginit: warn: third/run: was ended by SIGKILL (PID); stopping everything",
    ]
    assert [line for line in both.stderr if "exiting" in line] == [f"ginit: info: exiting with status {n}" for n in (0, 3, 3)]


def test_each_supervisor_has_settings_of_its_own(run):
    script = """
        say([
            supervise(directories[0], log_level="none"),
            supervise(directories[0], json_stdout=False, log_level="debug"),
            supervise(directories[0], max_line=3, json_stdout=False),
        ])
    """
    three = run(script, {"web": "echo 12345; exit 1"})
    assert three.told == [3, 3, 3]
    assert three.stdout == ["web/run: 12345", "web/run: 123", "web/run: 45"]
    assert three.stderr[0] == "web/run: 12345"


def test_a_supervisor_can_be_stopped_after_another_was(run):
    script = """
        def stop():
            gevent.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        statuses = []
        for directory in directories:
            gevent.spawn(stop)
            statuses.append(supervise(directory, log_level="info"))
        say(statuses)
    """
    both = run(script, {"first": "exec sleep 1000"}, {"second": "exec sleep 1000"})
    assert both.told == [0, 0]
    assert both.stderr.count("ginit: info: SIGTERM: stopping everything") == 2


def test_the_signal_mask_is_as_before(run):
    script = """
        masks = []
        for blocked in ((), (signal.SIGUSR1, signal.SIGTERM), signal.valid_signals()):
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            before = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            supervise(directories[0])
            masks.append((before, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
        say(masks)
    """
    masks = run(script, {"web": "exit 0"}).told
    assert len(masks) == 3
    assert all(before == after for before, after in masks)
    assert signal.SIGTERM in masks[1][1]


def test_the_signals_handlers_are_as_before(run):
    script = """
        def dispositions():
            lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
            return {
                number: [what for what in ("SigIgn", "SigCgt") if int(lines[what], 16) >> (number - 1) & 1]
                for number in signal.valid_signals()
            }

        def handle(number, frame):
            pass

        signal.signal(signal.SIGUSR1, handle)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        before = dispositions()
        supervise(directories[0])
        after = dispositions()
        say({
            "kernel": {signal.Signals(n).name: (before[n], after[n]) for n in before if before[n] != after[n]},
            "python": [n for n, handler in handlers.items() if signal.getsignal(n) != handler],
        })
    """
    changed = run(script, {"web": "exit 0"}).told
    # The event loop keeps the one watcher for children that it has ever had.
    changed["kernel"].pop("SIGCHLD", None)
    assert changed == {"kernel": {}, "python": []}


def test_no_descriptor_and_no_error_handler_is_left_behind(run):
    script = """
        def descriptors():
            return {name: os.readlink(f"/proc/self/fd/{name}") for name in sorted(os.listdir("/proc/self/fd"))[:-1]}

        supervise(directories[0])  # brings up the hub, which stays
        before = descriptors()
        supervise(directories[0])
        say({"same": descriptors() == before, "handler": "handle_error" in vars(gevent.get_hub())})
    """
    assert run(script, {"web": "exit 0"}, {}).told == {"same": True, "handler": False}


@pytest.mark.parametrize("start", ["gevent.spawn(fail)", "gevent.get_hub().loop.run_callback(fail)"])
def test_an_unexpected_error_stops_everything_with_its_traceback_at_debug(run, start):
    script = f"""
        def fail():
            raise LookupError("of the test")

        def spoil():
            while not os.path.exists(directories[0] + "/web/ready"):
                gevent.sleep(0.005)
            {start}

        gevent.spawn(spoil)
        say(supervise(directories[0], log_level="debug"))
    """
    spoiled = run(script, {"web": "trap 'kill $!; echo stopped >&2; exit 0' TERM\nsleep 1000 & : >ready; wait"})
    assert spoiled.told == 1
    assert "ginit: error: unexpected error, stopping everything: LookupError: of the test" in spoiled.stderr
    assert any(line.startswith("ginit: debug: Traceback") for line in spoiled.stderr)
    assert any("in fail" in line for line in spoiled.stderr if line.startswith("ginit: debug:"))
    assert "web/run: stopped" in spoiled.stderr


def test_the_traceback_is_for_developers_alone(run):
    script = """
        gevent.spawn_later(0.05, lambda: 1 // 0)
        say(supervise(directories[0]))
    """
    spoiled = run(script, {"web": "exec sleep 1000"})
    assert spoiled.told == 1
    assert [line for line in spoiled.stderr if "unexpected" in line or "Traceback" in line] == [
        "ginit: error: unexpected error, stopping everything: ZeroDivisionError: integer division or modulo by zero"
    ]


def test_a_signal_that_ginit_did_not_ask_for_is_the_services_failure(run):
    script = """
        say(supervise(directories[0]))
    """
    assert run(script, {"web": "kill -TERM $$"}).told == 3


def test_all_services_disabled_is_no_failure(run):
    script = """
        say(supervise(directories[0]))
    """
    disabled = run(script, {"one": "exit 115", "two": "exit 115"})
    assert disabled.told == 0
    assert disabled.stderr == ["ginit: warn: every service has disabled itself, nothing is left to run"]


def test_names_of_services_are_taken_in_order_and_hidden_ones_skipped(run, tmp_path):
    script = """
        os.symlink(directories[1] + "/linked", directories[0] + "/b")
        os.symlink("nowhere", directories[0] + "/broken")
        open(directories[0] + "/file", "w").close()
        say(supervise(directories[0], log_level="info"))
    """
    services = {"c": "exit 115", "a": "exit 115", ".hidden": "exit 1"}
    found = run(script, services, {"linked": "exit 115"})
    assert found.told == 0
    assert re.findall(r"info: (\w+)/run: started", "\n".join(found.stderr)) == ["a", "b", "c"]
    assert os.listdir(tmp_path / "services0").count("b") == 1


def test_a_slow_machine_is_known_by_the_time_that_ginits_own_imports_took(run):
    script = """
        from ginit import supervisor
        told = []
        supervisor.Adopter = lambda output, started: told.append(started)
        orphans = supervisor.Orphans
        supervisor.Orphans = lambda *arguments: told.append(arguments[-1]) or orphans(*arguments)
        Supervisor(Settings(directory=os.fsencode(directories[0])), os.environb, 1.5).run()
        say(told)
    """
    assert run(script, {"web": "exit 0"}).told == [3.0, 3.0]
