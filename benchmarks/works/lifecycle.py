"""Up and down: from the peer's exec to the services', and from TERM to the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Mapping, Sequence

from ..peers import Peer
from ..results import Case, Measure
from .base import Work, running
from .idle_services import Ready, make_services, services_title

_FIRST = Measure("first", "first service", "s", reference="import-gevent")
_UP = Measure("up", "all services", "s", reference="popen")
_DOWN = Measure("down", "down", "s", reference="popen", charted=False)


class Lifecycle(Work):
    """Services up and down."""

    letter = "g"
    title = "up, from its exec to the services', and down, from TERM to its exit"
    references = ("import-gevent", "popen")

    @property
    def cases(self) -> Sequence[Case]:
        """A number of services each."""
        return [
            Case(
                str(count),
                services_title(count),
                (_FIRST, _DOWN) if count == 1 else (_UP, _DOWN),
                count,
                charted=count in (1, max(self.sizes.services)),
            )
            for count in self.sizes.services
        ]

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:
        """The time from the peer's exec to the first and the last service's exec, and from TERM until the peer has ended."""
        with Ready(self.place.services) as ready:
            layout = peer.lay_out(make_services(case.size, ready), directory)
            with running(layout, directory) as namespace:
                first, last = ready.wait(case.size, namespace, self.sizes.timeout)
                values = {"first": first - namespace.started, "up": last - namespace.started}
                time.sleep(self.sizes.settling_seconds)
                if peer.can_be_stopped:
                    start = time.monotonic()
                    namespace.stop(self.sizes.timeout)
                    values["down"] = time.monotonic() - start
        return {measure.key: values[measure.key] for measure in case.measures if measure.key in values}
