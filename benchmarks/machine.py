"""What the numbers were measured on."""

from __future__ import annotations

import datetime
import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine and the interpreter."""

    processor: str
    #: Those that this process may use.
    cores: int
    #: Bytes.
    memory: int
    kernel: str
    python: str
    gevent: str
    #: UTC, as in `2026-11-23T22:33:47Z`.
    date: str
    #: How many processes wanted to run, on an average of the last minute, before anything was measured.
    load: float


def describe_machine() -> Machine:
    """This one, now."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        gevent=_version("gevent"),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        load=os.getloadavg()[0],
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "missing"
