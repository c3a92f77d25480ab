"""How long a quiet service's line takes to ginit's reader, alone and beside services that flood."""

from __future__ import annotations

import os
import select
import shlex
import sys
import time
from pathlib import Path
from typing import Iterator, Mapping

from ..namespace import Namespace
from ..peers import Peer, Service, environment
from ..readers import LAST_LINES, Reader
from ..results import Case, Measure, PeerError, percentile
from .base import Work
from .lines import LINE_SIZE, make_line

#: Before the time in a line; the flood has nothing like it.
MARK = b"@quiet-line "
#: Seconds between two lines of the quiet service.
_PAUSE = 0.01
_READ_SIZE = 1 << 20
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
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb", buffering=0), Reader(LAST_LINES) as err:
            try:
                environ = {**environment(), **layout.environ}
                namespace = Namespace(layout.command, environ, directory, write_end, err.fd)
            finally:
                os.close(write_end)
                err.close_input()
            with namespace:
                times = list(self._times(read_end, count))
            if not times:
                raise PeerError(f"no line has arrived; {err.result()}")
        return {"p50": percentile(times, 50), "p99": percentile(times, 99), "lost": count - len(times)}

    def _times(self, fd: int, count: int) -> Iterator[float]:
        """Seconds that each of `count` lines took to here, as far as they come."""
        deadline = time.monotonic() + self.sizes.timeout
        rest = b""
        while count and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            block = os.read(fd, _READ_SIZE)
            now = time.monotonic_ns()
            if not block:
                return
            written, rest = find_times(rest + block)
            for moment in written:
                count -= 1
                yield (now - moment) / 1e9
            if written:
                deadline = time.monotonic() + max(5.0, self.sizes.quiet_seconds)
            elif time.monotonic() > deadline:
                return


def find_times(block: bytes) -> tuple[list[int], bytes]:
    """The times in the quiet service's lines in `block`.

    Returns:
        The times, in nanoseconds, and the end of `block` that may be the beginning of another one.
    """
    found: list[int] = []
    position = 0
    while True:
        start = block.find(MARK, position)
        if start < 0:
            # What could be the mark's beginning.
            return found, block[max(position, len(block) - len(MARK) + 1) :]
        end = block.find(b"@", start + len(MARK))
        if end < 0:
            return found, block[start:]
        found.append(int(block[start + len(MARK) : end]))
        position = end + 1
