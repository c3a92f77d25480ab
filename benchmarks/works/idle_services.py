"""Services that do nothing, and being told when they run."""

from __future__ import annotations

import os
import select
import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import final

from ..namespace import Namespace
from ..peers import IDLE, Service
from ..results import HangError, PeerError

#: Seconds after which it's looked whether the peer is still there.
_LOOK_INTERVAL = 0.2


@final
class Ready:
    """A FIFO that services tell by when they run."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ready"
        os.mkfifo(self.path)
        # For writing, too: so it neither waits for a writer nor ends when one ends.
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)

    def tell(self) -> str:
        """The shell's command for telling."""
        return f"echo >{shlex.quote(str(self.path))}"

    def wait(self, count: int, namespace: Namespace, timeout: float) -> tuple[float, float]:
        """Wait until `count` services run.

        Returns:
            When the first one and when the last one did, in seconds on the monotonic clock.

        Raises:
            PeerError: the peer ended, or they don't run within `timeout` seconds.
        """
        first = last = 0.0
        seen = 0
        deadline = time.monotonic() + timeout
        while seen < count:
            if select.select([self._fd], [], [], _LOOK_INTERVAL)[0]:
                seen += len(os.read(self._fd, 65536))
                last = time.monotonic()
                first = first or last
            elif namespace.status is not None:
                raise PeerError(f"ended with status {namespace.status} when {seen} of {count} services ran")
            elif time.monotonic() > deadline:
                raise HangError(f"{seen} of {count} services run after {timeout:g} s")
        return first, last

    def told(self) -> bool:
        """Whether a service has told since it was asked last."""
        return bool(select.select([self._fd], [], [], 0)[0] and os.read(self._fd, 65536))

    def __enter__(self) -> Ready:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        os.close(self._fd)
        self.path.unlink()


def make_services(count: int, ready: Ready) -> list[Service]:
    """So many services, which tell that they run and then do nothing."""
    return [Service(f"service-{number:04d}", IDLE, before=ready.tell(), lasting=True) for number in range(1, count + 1)]


def manager_processes(namespace: Namespace) -> list[int]:
    """The PIDs of the peer's own processes: all but the services'."""
    return [process.pid for process in namespace.processes() if process.command != IDLE.split()[0]]


def services_title(count: int) -> str:
    """`1 service`, `100 services`."""
    return f"{count} service" + "s" * (count != 1)
