"""The pages of the documentation, followed from beginning to end: files written, commands pasted, what they print compared."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from engine import own_engine, wait_for
from machine import cannot, require
from pages import DEPLOY, FOLLOWED, MAKE_FILES, NOT_RUN, ROOT, Block, Command, blocks

#: Images that Dockerfiles are built on; none can be pulled here, so the base image takes their place.
BASES = ("python:3.13-slim", "python:3.11-slim", "debian:bookworm-slim")
#: What Python's images have and Debian's python3 doesn't: a pip that may install, and these names.
LIKE_PYTHON_S = """
FROM {base}
RUN python3 -m venv /usr/local --system-site-packages && ln -sf pip3 /usr/local/bin/pip
"""
#: What Debian's slim image hasn't, and the base image has for other tests.
LIKE_DEBIAN_S = """
FROM {base}
RUN apt-get purge --yes procps 'python3*' 'libpython3*' && ! command -v python3
"""
#: `docker` as readers have it, but that a build reaches the network that this machine has.
DOCKER = """#!/bin/sh
case $1 in build) shift; exec {client} build --network host "$@";; esac
exec {client} "$@"
"""
#: Seconds for a command, the builds among them.
PATIENCE = 600
#: The ports that what is on the pages listens on.
PORTS = (8000, 8080)
REDIS_PORT = 6379
#: What goes on until Ctrl-C: the next commands are typed in another terminal, and it has ended before the next of its kind.
GOES_ON = re.compile(r"docker run --rm (--name|--env GINIT_JSON_STDOUT=0) |(\S+=\S+ )*(\.venv/bin/)?ginit examples/")
#: What the commands of a page take.
TOOLS = {
    "examples/nginx/README.md": ("nginx",),
    "examples/redis/README.md": ("redis-server", "redis-cli"),
    "examples/guestbook/README.md": ("nginx", "redis-server", "flock", "pkill"),
}
#: What is awaited before a block, as a person would, who reads on meanwhile.
SERVED = "docker service ls --filter name=guestbook_app --format '{{.Replicas}}' | grep --quiet ^3/3"
UPDATED = "docker service inspect --format '{{.UpdateStatus.State}}' guestbook_app | grep --quiet ^completed"
AWAITED = {
    f"$ RELEASE=2 {DEPLOY}": SERVED,
    "$ docker service logs --raw guestbook_app": UPDATED,
    "$ docker run --rm --network guestbook_default --entrypoint python3 guestbook -c \\": SERVED,
}
#: The stack as a kernel without IPVS can have it, which the page says, too: that is what the routing mesh takes.
WITHOUT_MESH = {"PUBLISH_MODE": "host", "PORT": "0", "ENDPOINT_MODE": "dnsrr"}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of somebody who follows a page, with an engine that has no images but those that are built on."""
    require("curl")
    bin_directory = tmp_path_factory.mktemp("bin")
    with own_engine() as engine:
        base = engine.load_base()
        for name in BASES:
            text = LIKE_PYTHON_S if name.startswith("python") else LIKE_DEBIAN_S
            (bin_directory / "Dockerfile").write_text(text.format(base=base))
            engine("tag", engine.build(str(bin_directory / "Dockerfile"), context=bin_directory), name)
        docker = bin_directory / "docker"
        docker.write_text(DOCKER.format(client=engine.client))
        docker.chmod(0o755)
        yield {**engine.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that has been set up; what is made in it is left nowhere."""
    path = tmp_path_factory.mktemp("checkout") / "ginit"
    ignored = shutil.ignore_patterns(".git", ".venv*", ".tox", "*.egg-info", "__pycache__", "build", "dist", "data", ".*_cache")
    shutil.copytree(ROOT, path, ignore=ignored, symlinks=True)
    (path / ".venv").symlink_to(Path(sys.executable).parents[1])
    return path


def followed(page: str) -> list[Block]:
    return [block for block in blocks(ROOT / page) if (page, block.opening) not in NOT_RUN]


#: What is different each time: dates and times, versions and addresses, PIDs. Other numbers, as statuses, aren't.
CHANGES = re.compile(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d(?:\.\d+)?|\d+(?:\.\d+)+|(?<=\[)\d+(?=\])|(?<=\(PID )\d+(?=\))")


def shape(line: str) -> str:
    """A line without what is different each time."""
    return CHANGES.sub("0", line)


def test_a_status_isn_t_what_changes_each_time():
    assert not is_shown(["0"], ["137"])
    assert is_shown(["2026-11-25T01:32:04.135Z web/run: ended (PID 7)"], ["2027-01-02T03:04:05.678Z web/run: ended (PID 81)"])


def is_shown(output: list[str], printed: list[str]) -> bool:
    """Whether the lines that a page shows are among those that were printed: whose come first isn't known."""
    found = set(map(shape, printed))
    return all(shape(line) in found for line in output if line != "…")


#: Leaves no container and no swarm; the bridge that a swarm makes would outlive its engine.
LEAVE = """
docker swarm leave --force >&2 2>/dev/null && until docker network rm docker_gwbridge; do sleep 0.5; done
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes
"""


class Follower:
    """Somebody who follows a page in a shell."""

    def __init__(self, page: str, environ: dict[str, str], checkout: Path, elsewhere: Path) -> None:
        self._blocks = followed(page)
        self._environ = environ
        self._checkout = checkout
        #: Where the next command is typed: in the checkout, until something is to be made elsewhere.
        self._here = checkout
        self._elsewhere = elsewhere
        self._makes_files = page in MAKE_FILES
        #: What goes on in another terminal.
        self._running: tuple[Command, subprocess.Popen[bytes], Path] | None = None

    def follow(self) -> None:
        for block in self._blocks:
            if self._makes_files and block.file is not None:
                path = self._here / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "console":
                self._await(AWAITED.get(block.opening))
                self._paste(block)
            # The first commands make the image ginit, in the checkout.
            if self._makes_files and self._here == self._checkout:
                self._here = self._elsewhere
        self._end_what_goes_on()

    def leave(self) -> None:
        """End what is left to run."""
        if self._running is not None:
            self._running[1].kill()
            self._running[1].wait()
        subprocess.run(["sh", "-c", LEAVE], env=self._environ, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)

    def _await(self, condition: str | None) -> None:
        if condition is not None:
            shell = f"until {condition}; do sleep 0.5; done"
            subprocess.run(["sh", "-c", shell], env=self._environ, timeout=PATIENCE, check=True)

    def _paste(self, block: Block) -> None:
        """Type all commands of a block at once."""
        together: list[Command] = []
        for command in block.commands:
            if GOES_ON.match(command.text):
                self._type(together)
                together = []
                self._end_what_goes_on()
                self._start(command)
            else:
                together.append(command)
        self._type(together)

    def _start(self, command: Command) -> None:
        output = self._elsewhere / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {command.text}"],
                env=self._environ,
                cwd=self._here,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._running = (command, process, output)

    def _end_what_goes_on(self) -> None:
        """Press Ctrl-C, when what the page shows has come; unless the page itself has it stopped."""
        if self._running is None:
            return
        command, process, output = self._running
        wait_for(lambda: output.read_text() and is_shown(command.output, output.read_text().splitlines()))
        if "docker run --rm --name" not in command.text:
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0, output.read_text()
        self._running = None

    def _type(self, commands: list[Command]) -> None:
        mark = "----- status:"
        place = self._elsewhere / "place"
        script = "".join(f"{command.text}\necho '{mark}' $?\n" for command in commands) + f"pwd >{place}\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._here,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=False,
        )
        printed = done.stdout.decode(errors="replace")
        parts = re.split(f"{mark} (\\d+)\n", printed)
        for command, text, status in zip(commands, parts[::2], parts[1::2]):
            may_fail = any(word in line for line in command.output for word in ("curl: (", "ginit: error: "))
            assert status == "0" or may_fail, f"{command.text}\n{printed[-5000:]}"
            assert is_shown(command.output, text.splitlines()), f"{command.text}\n{text[-5000:]}"
        assert len(parts) == 2 * len(commands) + 1, printed
        self._here = Path(place.read_text().strip())


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_can_be_followed_and_what_it_shows_is_what_one_sees(reader, checkout, page, tmp_path):
    require(*TOOLS.get(page, ()))
    for port in (REDIS_PORT,) if page == "examples/redis/README.md" else PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                cannot(f"something listens on port {port}, which what is on the pages takes")
    environ = {**reader, **WITHOUT_MESH} if page == "docs/how-to/docker-swarm.md" else reader
    follower = Follower(page, environ, checkout, tmp_path)
    try:
        follower.follow()
    finally:
        follower.leave()
