"""What the tests need of the machine: where it's missing they are skipped, and fail in CI, where nothing may be missing."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

#: Debian's package of each tool, where that has another name.
_PACKAGES = {
    "docker": "docker.io",
    "flock": "util-linux",
    "nginx": "nginx-light",
    "prlimit": "util-linux",
    "psql": "postgresql",
    "redis-cli": "redis-tools",
    "runsvdir": "runit",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "sv": "runit",
    "unshare": "util-linux",
}
#: What `cannot` is told where only root can do it.
AS_ROOT = "run the tests as root"


def require(*tools: str) -> None:
    """Skip where a tool is missing; fail in CI, where none may be."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        verb = "isn't" if len(missing) == 1 else "aren't"
        cannot(f"{' and '.join(missing)} {verb} installed", install(*(_PACKAGES.get(tool, tool) for tool in missing)))


def install(*packages: str) -> str:
    """What `cannot` is told where Debian's `packages` are missing."""
    return f"apt install {' '.join(sorted(set(packages)))}"


def cannot(reason: str, remedy: str = "") -> NoReturn:
    """Skip, for a reason that this machine gives; fail in CI.

    Args:
        reason: what is missing.
        remedy: how to get it.
    """
    message = f"{reason} ({remedy})" if remedy else reason
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)


def namespace_command() -> list[str]:
    """What stands before a command to make it PID 1 of a PID namespace with a /proc of its own."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    return command


def require_namespaces() -> None:
    """Skip where the kernel gives no PID namespaces; fail in CI."""
    require("unshare")
    probe = subprocess.run([*namespace_command(), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if probe.returncode:
        remedy = "run the tests as root, and in a container with --privileged"
        cannot(f"no PID namespaces here: {' '.join(probe.stderr.split())}", remedy)


def free_port() -> int:
    """A TCP port for a server on 127.0.0.1 that nobody listens on.

    None that the kernel gives to those who ask for any, where there are others: one of the tests that run at the same time,
    or a client of theirs, could get it before the server is there.
    """
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10000, max(first_given, 20000))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections that are over don't count
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
