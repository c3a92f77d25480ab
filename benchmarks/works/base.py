"""What a work is: cases, and a peer doing one of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Sequence, final

from ..namespace import Namespace
from ..peers import Layout, Peer, environment
from ..readers import DISCARD, LAST_LINES, Reader
from ..results import Case, PeerError


@dataclass(frozen=True)
class Sizes:
    """How much there is to do."""

    #: Lines of 90 bytes in all; the works that take others derive their number from it.
    lines: int = 5_000_000
    #: Numbers of services that do nothing.
    services: Sequence[int] = (1, 100, 1000)
    #: Lines of the quiet service.
    quiet_lines: int = 400
    #: Seconds for which idleness is watched, and before that those in which a start is left to settle.
    idle_seconds: float = 10.0
    settling_seconds: float = 2.0
    #: Processes that are left to PID 1.
    orphans: int = 5000
    #: Daemons that are adopted.
    adoptions: int = 500
    #: Seconds without an arrival that count as the end, for peers that don't end themselves.
    quiet_seconds: float = 2.0
    #: Seconds after which a peer counts as hung.
    timeout: float = 120.0


#: Enough to see that it works.
QUICK = Sizes(
    lines=20_000,
    services=(1, 10),
    quiet_lines=20,
    idle_seconds=1.0,
    settling_seconds=0.5,
    orphans=100,
    adoptions=10,
    quiet_seconds=0.3,
    timeout=20.0,
)


@final
class Place:
    """Directories to work in, empty at first; gone when the context is left."""

    def __init__(self, memory_needed: int) -> None:
        """
        Args:
            memory_needed: bytes of data; they are kept in memory where there's room, so that no disk is measured.
        """
        self._stack = contextlib.ExitStack()
        #: For service directories: files there can be executed.
        self.services = self._make(None)
        #: For data.
        self.data = self._make(_memory_directory(memory_needed))

    def _make(self, parent: str | None) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-", dir=parent)))

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _memory_directory(needed: int) -> str | None:
    """A directory that is memory and has room; None where there's none."""
    shm = "/dev/shm"
    with contextlib.suppress(OSError):
        if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > needed:
            return shm
    return None


class Work(ABC):
    """Something that every peer is given to do."""

    #: How it's asked for.
    letter: str
    title: str
    #: The peers there for comparison that take part.
    references: Sequence[str] = ()

    def __init__(self, sizes: Sizes, place: Place) -> None:
        self.sizes = sizes
        self.place = place

    @property
    @abstractmethod
    def cases(self) -> Sequence[Case]:
        """Its variants."""

    def refusal(self, peer: Peer, case: Case) -> str | None:
        """Why a peer takes no part in a case; None where it does."""
        if peer.is_reference and peer.name not in self.references:
            return "not for this work"
        if peer.most_services is not None and self.services(case) > peer.most_services:
            return f"runs at most {peer.most_services} services"
        return None

    def services(self, case: Case) -> int:
        """How many services a case has."""
        return case.size

    @abstractmethod
    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:
        """Have a peer do it.

        Args:
            peer: one that doesn't refuse.
            case: one of `cases`.
            directory: an empty directory for the peer.

        Returns:
            Values by the keys of the case's measures; one that a peer can't have is left out.

        Raises:
            PeerError: the peer didn't do it, or hangs.
        """

    def prepare(self, case: Case) -> None:  # noqa: B027
        """Make what `run` needs, once for all peers; nothing by default."""


@contextlib.contextmanager
def running(layout: Layout, directory: Path) -> Iterator[Namespace]:
    """A peer whose output isn't looked at; if it fails, the last lines of its stderr say why."""
    with Reader(DISCARD) as out, Reader(LAST_LINES) as err:
        try:
            with Namespace(layout.command, {**environment(), **layout.environ}, directory, out.fd, err.fd) as namespace:
                out.close_input()
                err.close_input()
                yield namespace
        except PeerError as failure:
            # What util-linux's `unshare` says when PID 1 is killed isn't the peer's.
            said = " ".join(line for line in err.result().splitlines() if not line.startswith("unshare: sigprocmask"))
            raise type(failure)(f"{failure}; {said}" if said else str(failure)) from failure
