"""Adoption: how long a daemon stands still while its output is redirected."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Mapping, Sequence

from ..peers import Peer, Service
from ..results import Case, Measure, percentile
from .base import Work
from .marked import read_marked

#: Before the time in a line.
MARK = b"@pause "
_PROGRAM = Path(__file__).resolve().parent.parent / "programs" / "adopted.py"


class Adoption(Work):
    """A service that starts daemons."""

    letter = "k"
    title = "a daemon is adopted: for how long it stands still"

    @property
    def cases(self) -> Sequence[Case]:
        """One."""
        measures = (
            Measure("p50", "median", "s"),
            Measure("p99", "p99", "s"),
            Measure("most", "longest", "s"),
            Measure("failed", "not adopted", ""),
        )
        return [Case("adoption", f"{self.sizes.adoptions} daemons", measures)]

    def refusal(self, peer: Peer, case: Case) -> str | None:
        """It must know how."""
        return super().refusal(peer, case) if peer.policy_variable else "adopts nothing"

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:  # noqa: ARG002
        """What the daemons tell."""
        assert peer.policy_variable
        count = self.sizes.adoptions
        command = [sys.executable, "-I", "-S", str(_PROGRAM), str(count), MARK.decode()]
        layout = peer.lay_out([Service("parent", " ".join(map(shlex.quote, command)), lasting=True)], directory)
        layout = dataclasses.replace(layout, environ={**layout.environ, peer.policy_variable: "adopt"})
        arrivals = read_marked(layout, directory, MARK, count, self.sizes)
        pauses = [arrival.number / 1e9 for arrival in arrivals]
        values = {"p50": percentile(pauses, 50), "p99": percentile(pauses, 99), "most": max(pauses)}
        return {**values, "failed": count - len(pauses)}
