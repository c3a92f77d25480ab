"""How long a quiet service's line takes to ginit's reader, alone and beside services that flood."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Mapping

from ..peers import Peer, Service
from ..results import Case, Measure, percentile
from .base import Work
from .lines import LINE_SIZE, make_line
from .marked import read_marked

#: Before the time in a line; the flood has nothing like it.
MARK = b"@quiet-line "
#: Seconds between two lines of the quiet service.
_PAUSE = 0.01
_PROGRAM = Path(__file__).resolve().parent.parent / "programs" / "quiet.py"

_MEASURES = (
    Measure("p50", "p50", "s", reference="cat", charted=False),
    Measure("p99", "p99", "s", reference="cat"),
    Measure("lost", "lines lost", "lines"),
)


class Latency(Work):
    """A quiet service, and the floods beside it."""

    letter = "f"
    title = "a quiet service's line, from its write to the reader"
    references = ("cat",)
    cases = (
        Case("alone", "alone", _MEASURES, size=0),
        Case("flooded", "beside three services that flood", _MEASURES, size=3),
    )

    def services(self, case: Case) -> int:
        """The floods, and the quiet one."""
        return case.size + 1

    def refusal(self, peer: Peer, case: Case) -> str | None:
        """There must be a stdout to read."""
        return super().refusal(peer, case) if peer.writes_to_stdout else "doesn't write to stdout"

    def run(self, peer: Peer, case: Case, directory: Path) -> Mapping[str, float]:
        """The times of the quiet service's lines."""
        count = self.sizes.quiet_lines
        quiet = [sys.executable, "-I", "-S", str(_PROGRAM), str(count), str(_PAUSE), MARK.decode()]
        services = [Service("quiet", " ".join(map(shlex.quote, quiet)), lasting=True)]
        flood = "yes " + shlex.quote(make_line(LINE_SIZE, 1).decode().rstrip("\n"))
        services += [Service(f"flood-{number}", flood, lasting=True) for number in range(case.size)]
        layout = peer.lay_out(services, directory)
        arrivals = read_marked(layout, directory, MARK, count, self.sizes)
        times = [(arrival.moment - arrival.number) / 1e9 for arrival in arrivals]
        return {"p50": percentile(times, 50), "p99": percentile(times, 99), "lost": count - len(times)}
