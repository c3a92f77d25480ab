"""Orphans: short-lived processes whose parents ended, which PID 1 has to reap."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Mapping, Sequence

from .. import procfs
from ..namespace import Namespace
from ..peers import IDLE, Peer, Service
from ..results import Case, HangError, Measure
from .base import Work, running
from .idle_services import Ready

#: Seconds between two looks at the zombies; each look costs about as much as a dozen of orphans.
_PAUSE = 0.01
#: Seconds without a change after which it's taken that the zombies stay. Some peers only look every five seconds.
_PATIENCE = 6.0


class Orphans(Work):
    """A service that leaves processes to PID 1."""

    letter = "j"
    title = "orphans that end at once, left to PID 1"

    @property
    def cases(self) -> Sequence[Case]:
        """One."""
        return [
            Case(
                "orphans",
                f"{self.sizes.orphans} orphans",
                (
                    Measure("rate", "reaped", "/s", reference="ginit", more_is_better=True),
                    Measure("most", "most zombies at a time", ""),
                    Measure("left", f"left unreaped for {_PATIENCE:g} s", ""),
                ),
            )
        ]

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:  # noqa: ARG002
        """The rate, from the first one's start until the last one is reaped."""
        count = self.sizes.orphans
        with Ready(self.place.services) as ready:
            # Each is a shell's that ends at once itself. Two of the shell's forks take 0.3 ms, Python's three times that.
            loop = f"i=0; while [ $i -lt {count} ]; do ( : & ); i=$((i+1)); done"
            before = "\n".join((ready.tell(), loop, ready.tell()))
            layout = peer.lay_out([Service("parent", IDLE, before=before, lasting=True)], directory)
            with running(layout, directory) as namespace:
                return self._watch(ready, namespace, count)

    def _watch(self, ready: Ready, namespace: Namespace, count: int) -> Mapping[str, float]:
        start, _ = ready.wait(1, namespace, self.sizes.timeout)
        deadline = start + self.sizes.timeout
        most = 0
        done = False
        last_change = end = start
        previous = -1
        while True:
            zombies = count_zombies(namespace.init)
            now = time.monotonic()
            most = max(most, zombies)
            if zombies != previous:
                previous, last_change = zombies, now
            done = done or ready.told()
            if done and not zombies:
                end = now
                break
            if done and now - last_change > _PATIENCE:
                end = last_change  # it doesn't reap them, and won't
                break
            if now > deadline:
                raise HangError(f"not done within {self.sizes.timeout:g} s, {zombies} zombies")
            time.sleep(_PAUSE)
        values = {"most": float(most), "left": float(zombies)}
        if not zombies:
            values["rate"] = count / (end - start)
        return values


def count_zombies(pid: int) -> int:
    """How many zombies the process `pid` has for children."""
    return sum(process.state == "Z" and process.parent == pid for process in procfs.processes())
