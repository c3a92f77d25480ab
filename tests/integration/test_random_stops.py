"""A stop is a stop, at any moment: a random search among services, policies, signals and the moments at which they come.

A case is a handful of services that are just being started when one or two signals come. ginit has to end, with the right status,
and without an error of its own.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from harness import GINIT, Ginit, Services, wait_for, write_executable
from hypothesis import strategies as st
from search import case_services, in_parts, search

#: What services do. Each says first that it has started, by a file.
RUNS = {
    "a sleep": "exec sleep 1000",
    "a shell": "while :; do sleep 0.02; done",
    "a shell that ends in its own way": "trap 'echo bye; exit 5' TERM; while :; do sleep 0.02; done",
    "a shell that prints": "while :; do echo tick; echo tick >&2; done",
    "a daemon beside": "(sleep 1000 &); exec sleep 1000",
    "a daemon in a session of its own": "setsid sleep 1000 & exec sleep 1000",
    "daemons that come and go": "while :; do (sleep 0.03 &); sleep 0.01; done",
    "a daemon that prints": "(sh -c 'while :; do echo tick; sleep 0.01; done' &); exec sleep 1000",
    "a daemon that takes no TERM": "(trap '' TERM; sleep 1000 &); exec sleep 1000",
    "the end": "exit 0",
    "a failure": "exit 3",
    "a late end": "sleep 0.05; exit 0",
    "a late failure": "sleep 0.05; kill -KILL $$",
    "nothing to do": "exit 115",
}
#: Those that end without being told to, and with what.
ENDS = {"the end": 0, "a failure": 3, "a late end": 0, "a late failure": 3}
LOGS = {
    "cat": "exec cat",
    "a shell": "while read line; do echo $line; done; echo bye",
    "one that ends": "read line; exit 0",
    "one that fails": "sleep 0.03; exit 3",
}
LOG_ENDS = {"one that ends": 0, "one that fails": 3}
TERMINATES = {
    "TERM": "kill $GINIT_PID",
    "late": "sleep 0.05; kill $GINIT_PID",
    "a failure": "exit 1",
    "no program": "#!/nowhere",
}
SIGNALS = ("TERM", "INT", "HUP", "QUIT")
#: What ginit may call an error here: a `terminate` that doesn't work.
ALLOWED = re.compile(r"/term: |can't start .*terminate|can't send TERM")


# What is drawn.


class Service(NamedTuple):
    """A service: what it does, and what stands beside its `run`."""

    run: str
    log: str | None = None
    terminate: str | None = None
    finish: bool = False


class Case(NamedTuple):
    """One run of ginit."""

    services: tuple[Service, ...]
    #: Empty for the one that counts where the environment says nothing.
    policy: str = ""
    restart: str = "no"
    supervise: bool = False
    runsvdir: bool = False
    #: Milliseconds from the first service's start to the first signal.
    after: int = 0
    signals: tuple[str, ...] = ("TERM",)
    #: Milliseconds between two signals.
    between: int = 0


SERVICES = st.builds(
    Service,
    st.sampled_from(sorted(RUNS)),
    st.none() | st.none() | st.sampled_from(sorted(LOGS)),
    st.none() | st.none() | st.sampled_from(("TERM", "late", "a failure", "no program")),
    st.booleans(),
)
CASES = st.builds(
    Case,
    st.lists(SERVICES, min_size=1, max_size=5).map(tuple),
    st.sampled_from(("", "terminate", "adopt", "ignore")),
    st.sampled_from(("no", "no", "on-failure", "on-failure:1", "always")),
    st.booleans(),
    st.sampled_from((False, False, True)),
    st.integers(0, 120),
    st.lists(st.sampled_from(SIGNALS), min_size=1, max_size=2).map(tuple),
    st.integers(0, 60),
)


def can_end(case: Case) -> bool:
    """Whether all that the case has does end: ginit sends no KILL to a daemon that it has adopted."""
    return case.policy != "adopt" or all(service.run != "a daemon that takes no TERM" for service in case.services)


# What happens.


def add(services: Services, name: str, service: Service) -> None:
    log = service.log and LOGS[service.log]
    terminate = service.terminate and TERMINATES[service.terminate]
    directory = services.add(name, f": >started; {RUNS[service.run]}", log=log, terminate=terminate)
    if service.finish:
        write_executable(directory / "finish", "echo finish; sleep 0.01")


def run(case: Case, services: Services, path: Path) -> tuple[int, str]:
    """Run ginit and send it the signals; return its exit status, and all that came out."""
    program = path / "runsvdir"
    program.symlink_to(GINIT)
    env = {
        "GINIT_REPARENTING_POLICY": case.policy,
        "GINIT_RESTART": case.restart,
        "GINIT_SUPERVISE": str(int(case.supervise)),
        "GINIT_LOG_LEVEL": "debug",
        "GINIT_JSON_STDOUT": "0",
        "GINIT_KILL_TIMEOUT": "0.2",
        # So long ginit waits, too, for a log program whose stdin an ignored daemon holds open.
        "GINIT_DRAIN_TIMEOUT": "3",
    }
    if case.runsvdir:
        for name in ("GINIT_RESTART", "GINIT_SUPERVISE"):
            del env[name]
    ginit = Ginit([str(services.path)], env, command=[str(program) if case.runsvdir else GINIT], stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: ginit.process.poll() is not None or any(services.path.glob("*/started")), "a service's start")
        time.sleep(case.after / 1000)
        for index, name in enumerate(case.signals):
            time.sleep(case.between / 1000 if index else 0)
            # It may have ended by itself.
            with contextlib.suppress(ProcessLookupError, AssertionError):
                if ginit.process.poll() is None:
                    ginit.kill(signal.Signals[f"SIG{name}"])
        try:
            status = ginit.wait()
        except subprocess.TimeoutExpired:
            left = "\n".join(f"{process.pid}: {process.cmdline()}" for process in ginit.descendants())
            raise AssertionError(f"ginit doesn't end; there are\n{left}\nIt has printed\n{ginit.stdout.text[-3000:]}") from None
    finally:
        ginit.destroy()
    return status, ginit.stdout.text


def possible_statuses(case: Case) -> set[int]:
    """The statuses that ginit may exit with: what comes first, a service's end or a signal, isn't known."""
    # What prints may die of SIGPIPE when its log program has gone.
    pipe_ends = {3 for service in case.services if service.log in LOG_ENDS}
    if case.runsvdir:  # where the services' ends mean nothing, but those of adopted processes do
        told = {111 if name == "HUP" else 0 for name in case.signals}
        return told | {0} | pipe_ends if case.policy == "adopt" else told
    ends = {ENDS[service.run] for service in case.services if service.run in ENDS}
    ends |= {LOG_ENDS[service.log] for service in case.services if service.log in LOG_ENDS}
    return {0} | ends | pipe_ends


def check(case: Case) -> None:
    with case_services(case.services, add) as (services, path):
        status, text = run(case, services, path)
    for line in text.splitlines():
        is_error = re.match(r"\S+ ginit: error: ", line) and not ALLOWED.search(line)
        assert not is_error, f"{line}\n{text[-3000:]}"
        assert not re.search("Traceback|unexpected error", line), f"{line}\n{text[-3000:]}"
    possible = possible_statuses(case)
    assert status in possible, f"the exit status is {status}, not one of {possible}\n{text[-3000:]}"


@in_parts
def test_ginit_ends_as_it_should_whenever_it_is_told_to(request, part):
    search(request, part, CASES.filter(can_end), check, few=30)
