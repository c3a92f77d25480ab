"""What a peer takes while its services do nothing: memory, wake-ups, CPU time."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Mapping, Sequence

from .. import procfs
from ..namespace import Namespace
from ..peers import Peer
from ..results import Case, Measure
from .base import Work, running
from .idle_services import Ready, make_services, manager_processes, services_title


class _IdleWork(Work):
    measures: Sequence[Measure]

    @property
    def cases(self) -> Sequence[Case]:
        """A number of services each."""
        most = max(self.sizes.services)
        return [
            Case(str(count), services_title(count), self.measures, count, charted=count == most) for count in self.sizes.services
        ]

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:
        """Start the services, wait until all is settled, and look."""
        with Ready(self.place.services) as ready:
            layout = peer.lay_out(make_services(case.size, ready), directory)
            with running(layout, directory) as namespace:
                ready.wait(case.size, namespace, self.sizes.timeout)
                time.sleep(self.sizes.settling_seconds)
                return self.look(namespace)

    @abstractmethod
    def look(self, namespace: Namespace) -> Mapping[str, float]:
        """The values, of a peer that idles."""


class Memory(_IdleWork):
    """The memory of the manager's own processes."""

    letter = "h"
    title = "memory (PSS) of the manager's own processes"
    measures = (Measure("memory", "memory", "B", reference="ginit"), Measure("processes", "processes", ""))

    def look(self, namespace: Namespace) -> Mapping[str, float]:
        """Memory, and how many processes have it."""
        pids = manager_processes(namespace)
        return {"memory": procfs.memory(pids), "processes": len(pids)}


class Wakeups(_IdleWork):
    """Wake-ups and CPU time of the manager's own processes."""

    letter = "i"
    title = "wake-ups and CPU time of the manager's own processes, idle"
    measures = (
        Measure("wakeups", "wake-ups", "/min", reference="ginit"),
        Measure("cpu", "CPU time", "s/min", reference="ginit", charted=False),
    )

    def look(self, namespace: Namespace) -> Mapping[str, float]:
        """What is used in a while, scaled to a minute."""
        pids = manager_processes(namespace)
        start, before = time.monotonic(), procfs.use(pids)
        time.sleep(self.sizes.idle_seconds)
        after = procfs.use(pids)
        minutes = (time.monotonic() - start) / 60
        return {"wakeups": (after.switches - before.switches) / minutes, "cpu": (after.seconds - before.seconds) / minutes}
