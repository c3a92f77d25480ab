"""Patience: a time-out that is fair to who is waited for, on a slow machine too."""

from __future__ import annotations

import time

#: Seconds of processor time after which a program has started, at the earliest. Python takes 15 ms where this was measured.
_STARTED = 0.1
#: On a slower machine it has when it has taken as many times that of ginit's own imports, which took 45 ms there.
_STARTED_FACTOR = 2


def time_to_start(own: float) -> float:
    """Seconds of processor time after which a process has started.

    Args:
        own: seconds of processor time that ginit's own imports took, by which a slow machine is known.
    """
    return max(_STARTED, _STARTED_FACTOR * own)


class Patience:
    """Counts down only while this process gets to look.

    A container may be frozen (`docker pause`), or get a processor for a few milliseconds in a hundred (`docker run --cpus`).
    Who is waited for is in the same container and gets no further meanwhile. So between two looks no more than a step counts.
    """

    __slots__ = ("_looked", "_step", "left")

    def __init__(self, seconds: float, step: float) -> None:
        """
        Args:
            seconds: how long it lasts.
            step: seconds that count between two looks, at most.
        """
        #: Seconds that were left at the last look.
        self.left = seconds
        self._step = step
        self._looked = time.monotonic()

    def is_over(self) -> bool:
        """Look at the clock. Ask this first, and then whether what is waited for has come: what has come by then counts."""
        now = time.monotonic()
        self.left -= min(now - self._looked, self._step)
        self._looked = now
        return self.left <= 0
