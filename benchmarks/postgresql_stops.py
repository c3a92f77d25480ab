"""`python -m benchmarks.postgresql_stops`: how PostgreSQL is closed when its container is stopped, by ginit and by runit.

A database that is kept busy is stopped by `docker stop` again and again, and the log of each next start says whether it had
been closed. Every way has the same image, that of examples/postgresql with Debian's package `runit` added.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterable, Iterator, Mapping, Sequence, TypeVar

from .machine import Machine, describe_machine
from .report import format_spread, table
from .results import spread

_ROOT = Path(__file__).resolve().parents[1]
#: Seconds after which something that hasn't come is taken as never to come.
_PATIENCE = 60
#: Transactions of pgbench after which the database is busy.
_BUSY = 100

#: Runs a command of docker's client, whose words are its arguments, and returns what it prints.
Docker = Callable[..., str]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Way:
    """A way to run the service and to stop it."""

    name: str
    #: Of `docker run`, before the image.
    options: Sequence[str] = ()
    #: After the image.
    arguments: Sequence[str] = ()


_RUNSVDIR = ("--entrypoint", "runsvdir")
_WAYS = (
    Way("ginit"),
    Way("runit's `runsvdir`", _RUNSVDIR, ("-P", "/etc/service")),
    Way("the same, stopped by HUP", (*_RUNSVDIR, "--stop-signal", "HUP"), ("-P", "/etc/service")),
)


@dataclass(frozen=True)
class Stop:
    """What became of a stop."""

    #: How long `docker stop` took.
    seconds: float
    #: The container's exit status.
    status: int
    #: Whether the next start found a database that had been closed, and had nothing to recover.
    clean: bool


def stop_while_busy(docker: Docker, container: str, stops: int) -> Iterator[Stop]:
    """Stop a container of examples/postgresql again and again, each time with clients at work.

    Args:
        docker: the engine's client.
        container: it has just been started.
        stops: how often.
    """
    _last_start(docker, container, 1)
    _as_postgres(docker, container, "pgbench", "--initialize", "--quiet", "postgres")
    for number in range(1, stops + 1):
        _keep_busy(docker, container)
        before = time.monotonic()
        docker("stop", "--time", str(_PATIENCE), container)
        seconds = time.monotonic() - before
        status = int(docker("wait", container))
        docker("start", container)
        yield Stop(seconds, status, _was_closed(_last_start(docker, container, number + 1)))


def _keep_busy(docker: Docker, container: str) -> None:
    """Have clients at work, until the database or an hour ends."""
    busy = _transactions(docker, container) + _BUSY
    _as_postgres(docker, container, "pgbench", "--no-vacuum", "--client=4", "--time=3600", "postgres", detach=True)
    _wait_for("pgbench's transactions", lambda: _transactions(docker, container) >= busy)


def _as_postgres(docker: Docker, container: str, *command: str, detach: bool = False) -> str:
    return docker("exec", *(["--detach"] * detach), "--user", "postgres", container, *command)


def _transactions(docker: Docker, container: str) -> int:
    """How many pgbench has done in all."""
    return int(_as_postgres(docker, container, "psql", "-Atc", "SELECT count(*) FROM pgbench_history"))


def _last_start(docker: Docker, container: str, number: int) -> str:
    """The log from the start of that number on, once it's up."""

    def log() -> str:
        parts = docker("logs", container).split("starting PostgreSQL ")
        return parts[number] if len(parts) > number and "ready to accept connections" in parts[number] else ""

    return _wait_for(f"start {number}", log)


def _was_closed(log: str) -> bool:
    return "database system was shut down at" in log and "not properly shut down" not in log


def _wait_for(what: str, condition: Callable[[], _T]) -> _T:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {_PATIENCE} s")
        time.sleep(0.05)


def main() -> int:
    """Count, and print the table."""
    options = _parse()
    # So that every context is left, and with it every container and image removed.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(1))
    machine = describe_machine()
    found = {}
    with _image(options.base_image) as image:
        for way in _WAYS:
            with _container(image, way) as container:
                found[way] = list(_show(way, stop_while_busy(_docker, container, options.stops)))
    print(_heading(machine, options.stops))
    print(_to_table(found))
    return 0


def _show(way: Way, stops: Iterable[Stop]) -> Iterator[Stop]:
    """Pass stops on, and say of each what became of it."""
    try:
        for stop in stops:
            print(f"{way.name}: {stop}", file=sys.stderr, flush=True)
            yield stop
    except TimeoutError as error:
        sys.exit(f"{way.name}: {error}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.postgresql_stops", description="Stops a busy PostgreSQL in a container.")
    parser.add_argument("--stops", type=int, default=20, help="of each way to run it (default: %(default)s)")
    image = "which docker/Dockerfile begins with (default: %(default)s)"
    parser.add_argument("--base-image", metavar="IMAGE", default="python:3.13-slim", help=image)
    options = parser.parse_args()
    if options.stops < 1:
        parser.error("--stops takes a positive number")
    if shutil.which("docker") is None:
        parser.error("docker isn't on the path; its client is needed, and an engine that runs")
    return options


@contextlib.contextmanager
def _image(base: str) -> Iterator[str]:
    """The image that every way has."""
    name = f"ginit-stops-{uuid.uuid4().hex[:12]}"
    tags = [f"{name}:ginit", f"{name}:postgresql", f"{name}:runit"]
    add_runit = f"FROM {tags[1]}\nRUN apt-get update && apt-get install -y --no-install-recommends runit\n"
    try:
        _build(tags[0], base, "--file", str(_ROOT / "docker/Dockerfile"), str(_ROOT))
        _build(tags[1], tags[0], str(_ROOT / "examples/postgresql"))
        _build(tags[2], tags[1], "-", stdin=add_runit)
        yield tags[2]
    finally:
        subprocess.run(["docker", "rmi", "--force", *tags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def _build(tag: str, base: str, *arguments: str, stdin: str = "") -> None:
    print(f"building {tag}", file=sys.stderr, flush=True)
    options = ("--quiet", "--network", "host", "--tag", tag, "--build-arg", f"BASE_IMAGE={base}")
    _docker("build", *options, *arguments, stdin=stdin)


@contextlib.contextmanager
def _container(image: str, way: Way) -> Iterator[str]:
    container = _docker("run", "--detach", *way.options, image, *way.arguments).split()[-1]
    try:
        yield container
    finally:
        _docker("rm", "--force", "--volumes", container)


def _docker(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["docker", *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"docker {' '.join(arguments)}: {done.stdout}")
    return done.stdout


def _heading(machine: Machine, stops: int) -> str:
    return (
        f"{stops} stops each, four clients of pgbench at work; {machine.processor}, {machine.cores} cores, {machine.kernel}, "
        f"Docker {_docker('version', '--format', '{{.Server.Version}}').strip()}, {machine.date}.\n"
    )


def _to_table(found: Mapping[Way, Sequence[Stop]]) -> str:
    rows = []
    for way, stops in found.items():
        clean = sum(stop.clean for stop in stops)
        statuses = ", ".join(sorted({str(stop.status) for stop in stops}))
        seconds = format_spread(spread([stop.seconds for stop in stops]), "s")
        rows.append([way.name, str(clean), str(len(stops) - clean), statuses, seconds])
    return table(["", "closed", "recovered at the next start", "exit status", "`docker stop`: median, least and most"], rows)


if __name__ == "__main__":
    sys.exit(main())
