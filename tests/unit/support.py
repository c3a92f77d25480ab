"""What the unit tests share: waiting for a condition, running a script in an interpreter of its own, services."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Callable

import gevent
from gevent.os import make_nonblocking, nb_read

#: Seconds after which a condition that hasn't come true is taken as one that never will.
PATIENCE = 40


def wait_for(condition: Callable[[], Any], what: str = "") -> Any:
    """Wait until `condition` returns something true, and return that; other greenlets run meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true: {what or condition}")
        gevent.sleep(0.005)


def let_others_run(passes: int = 20) -> None:
    """Give every greenlet that can go on its turn, several times over."""
    for _ in range(passes):
        gevent.sleep(0.001)


def pipe_size(fd: int) -> int:
    """The number of bytes that the pipe `fd` holds."""
    return fcntl.fcntl(fd, 1032)  # F_GETPIPE_SZ


def read_to_end(fd: int, size: int = 65536) -> bytes:
    """All that comes out of `fd`, read in blocks of `size`; other greenlets run meanwhile."""
    make_nonblocking(fd)
    blocks = []
    while True:
        try:
            block = nb_read(fd, size)
        except OSError:  # how a terminal's other end says that it is closed
            block = b""
        if not block:
            return b"".join(blocks)
        blocks.append(block)


def clean_environ(**variables: str) -> dict[str, str]:
    """This process's environment without ginit's variables, and with `variables`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GINIT_", "DINIT_"))}
    return {**inherited, **variables}


def run_script(source: str, *arguments: Any, status: int = 0, **popen: Any) -> str:
    """Run `source` in an interpreter of its own, and return what it prints; it is to end with `status`."""
    popen.setdefault("stdout", subprocess.PIPE)
    popen.setdefault("stderr", subprocess.PIPE)
    popen.setdefault("env", clean_environ())
    command = [sys.executable, "-c", textwrap.dedent(source), *map(os.fspath, arguments)]
    script = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False, **popen)
    errors = (script.stderr or b"").decode(errors="replace")
    assert script.returncode == status, f"the script ended with {script.returncode}\n{errors}"
    return (script.stdout or b"").decode()


def write_executable(path: Path, text: str) -> Path:
    """Make `path` an executable file; `#!/bin/sh` is put before a text without `#!`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text if text.startswith("#!") else f"#!/bin/sh\n{text}\n").encode())
    path.chmod(0o755)
    return path
