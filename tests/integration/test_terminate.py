"""A service's `terminate`, which is run instead of sending TERM."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from harness import GINIT, wait_for

#: Says which signals come, and goes on until there is a file `end` in its directory.
STUBBORN = """\
trap 'echo got TERM' TERM
trap 'echo got USR1' USR1
echo ready $$
while [ ! -e end ]; do echo tick; sleep 0.02; done
echo bye"""


@pytest.fixture
def stopping(services, start):
    """Starts ginit over a stubborn service with a `terminate`, and tells it to stop; gives the service's directory too."""

    def stopping(terminate: str, run: str = STUBBORN, **settings: str):
        directory = services.add("web", run, terminate=terminate)
        ginit = start(**{"JSON_STDOUT": "0", **settings})
        ginit.wait_for_line("ready")
        ginit.kill()
        return ginit, directory

    return stopping


def errors(ginit) -> list[str]:
    return [text for text in ginit.stderr.texts if text.startswith("ginit: error: ")]


def test_terminate_is_run_instead_of_sending_term(stopping):
    ginit, directory = stopping("kill -USR1 $GINIT_PID")
    ginit.wait_for_line("web/run: got USR1")
    ginit.wait_for_more_lines("web/run: tick")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert "got TERM" not in ginit.stdout.text
    assert ginit.stdout.texts[-1] == "web/run: bye"
    assert ginit.stderr.texts == []


def test_terminate_finds_the_pid_in_both_variables(stopping):
    ginit, _ = stopping("echo $GINIT_PID $DINIT_PID; kill -KILL $GINIT_PID")
    assert ginit.wait() == 0
    pid = ginit.stdout.texts[0].split()[-1]
    assert f"web/term: {pid} {pid}" in ginit.stdout.texts


def test_terminate_gets_ginits_environment_and_the_name_and_the_pid_and_nothing_else(services, start):
    services.add("web", "echo ready $$ >&2; while :; do sleep 0.05; done", terminate="while :; do sleep 0.05; done")
    entries = [f"PATH={os.environ['PATH']}", "A=1", "GINIT_PID=outer", "DINIT_PID=outer"]
    ginit = start(popen={"command": ["env", "-i", *entries, GINIT]})
    pid = ginit.wait_for_line("ready", "stderr")[0].split()[-1]
    ginit.kill()
    terminate = wait_for(lambda: ginit.find("web/terminate"))[0]
    environment = Path(f"/proc/{terminate.pid}/environ").read_text().split("\0")[:-1]
    assert sorted(environment) == sorted([*entries[:2], "GINIT_SERVICE=web", f"GINIT_PID={pid}", f"DINIT_PID={pid}"])


def test_terminate_runs_in_the_directory_of_the_service_with_dev_null_as_stdin(stopping):
    ginit, directory = stopping("pwd -P; readlink /proc/self/fd/0; kill -KILL $GINIT_PID")
    assert ginit.wait() == 0
    assert [text for text in ginit.stdout.texts if "/term" in text] == [f"web/term: {directory}", "web/term: /dev/null"]


def test_terminate_only_starts_the_stopping(stopping):
    ginit, directory = stopping("echo asked", LOG_LEVEL="info")
    ginit.wait_for_line("web/term: asked")
    wait_for(lambda: not ginit.find("web/terminate"))
    ginit.wait_for_more_lines("web/run: tick")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "web/run: bye"
    assert "got TERM" not in ginit.stdout.text


@pytest.mark.parametrize("policy", ["terminate", "ignore"])
def test_ginit_waits_for_a_terminate_that_outlives_its_service(stopping, policy):
    terminate = """\
kill -KILL $GINIT_PID
while kill -0 $GINIT_PID; do sleep 0.02; done 2>/dev/null
while [ ! -e end ]; do echo tick; sleep 0.02; done
echo bye"""
    ginit, directory = stopping(terminate, REPARENTING_POLICY=policy, DRAIN_TIMEOUT="0")
    ginit.wait_for_more_lines("web/term: tick", count=20)
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts[-1] == "web/term: bye"


def test_the_output_of_terminate_is_labelled_term(stopping):
    ginit, _ = stopping(
        """echo '{"a":1}'; echo out; echo err >&2; kill -KILL $GINIT_PID""",
        JSON_STDOUT="1",
        run="""\
echo '{"ready":true}'
exec sleep 1000""",
    )
    assert ginit.wait() == 0
    assert re.fullmatch(r'\{"a":1,"service":"web","stage":"term","logged":"[^"]*"\}', ginit.stdout.lines[-1])
    assert sorted(ginit.stderr.texts) == ["ginit: warn: web/term: not JSON on stdout: out", "web/term: err"]


def test_a_terminate_that_returns_an_error_is_an_error_and_term_is_sent(stopping):
    ginit, directory = stopping("exit 7")
    ginit.wait_for_line("web/run: got TERM")
    (directory / "end").touch()
    assert ginit.wait() == 0
    (error,) = errors(ginit)
    assert re.search(r"web/term: .*\b7\b.*TERM", error)


def test_a_terminate_that_is_ended_by_a_signal_is_an_error_and_term_is_sent(stopping):
    ginit, directory = stopping("kill -USR2 $$")
    ginit.wait_for_line("web/run: got TERM")
    (directory / "end").touch()
    assert ginit.wait() == 0
    (error,) = errors(ginit)
    assert re.search(r"web/term: .*SIGUSR2.*TERM", error)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.chmod(0o644), "executable"),
        (lambda file: file.write_text("#!/nowhere/interpreter\n"), "/nowhere/interpreter"),
        (lambda file: file.write_text("echo hello\n"), "#!"),
        (lambda file: (file.unlink(), file.mkdir()), "isn't a file"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere")), "link"),
    ],
    ids=["not executable", "no interpreter", "no #!", "a directory", "a link to nowhere"],
)
def test_a_terminate_that_cant_be_started_is_an_error_and_term_is_sent(services, start, make, reason):
    directory = services.add("web", STUBBORN, terminate="true")
    make(directory / "terminate")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    ginit.kill()
    ginit.wait_for_line("web/run: got TERM")
    (directory / "end").touch()
    assert ginit.wait() == 0
    (error,) = errors(ginit)
    assert "web/term" in error
    assert f"{directory}/terminate" in error
    assert reason in error


def test_terminate_is_run_too_when_another_service_has_ended(services, start):
    services.add("a", "while [ ! -e end ]; do sleep 0.02; done; exit 4")
    services.add("b", "echo ready; exec sleep 1000", terminate="echo asked; kill $GINIT_PID")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("b/run: ready")
    (services.path / "a" / "end").touch()
    assert ginit.wait() == 3
    assert ginit.stdout.texts == ["b/run: ready", "b/term: asked"]


def test_terminate_is_not_run_for_a_service_that_has_ended(services, start):
    services.add("web", "exit 0", terminate="echo asked")
    ginit = start(JSON_STDOUT="0")
    assert ginit.wait() == 0
    assert ginit.stdout.texts == []


def test_terminate_is_run_once_however_many_signals_come(stopping):
    ginit, directory = stopping("echo asked")
    ginit.wait_for_line("web/term: asked")
    ginit.kill()
    ginit.kill(signal.SIGINT)
    ginit.wait_for_line("while stopping", "stderr", count=2)
    ginit.wait_for_more_lines("web/run: tick")
    (directory / "end").touch()
    assert ginit.wait() == 0
    assert ginit.stdout.texts.count("web/term: asked") == 1


def test_terminate_is_run_when_ginit_has_run_for_long(services, start):
    services.add("web", "echo ready; exec sleep 1000", terminate="echo terminating >&2; kill $GINIT_PID")
    ginit = start(JSON_STDOUT="0")
    ginit.wait_for_line("ready")
    # By then it has done, too, what it puts off until the services are on their way.
    started = ginit.psutil.create_time()
    wait_for(lambda: time.time() > started + 2)
    assert ginit.stop() == 0
    assert ginit.stderr.texts == ["web/term: terminating"]
