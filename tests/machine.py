"""What the tests need of the machine: where it's missing they are skipped, and fail in CI, where nothing may be missing."""

from __future__ import annotations

import os
import random
import shutil
import socket
from pathlib import Path
from typing import NoReturn

import pytest


def require(tool: str) -> None:
    """Skip where a tool is missing; fail in CI, where none may be."""
    if shutil.which(tool) is None:
        cannot(f"{tool} isn't installed")


def cannot(message: str) -> NoReturn:
    """Skip, for a reason that this machine gives; fail in CI."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)


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
