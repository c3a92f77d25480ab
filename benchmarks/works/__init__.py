"""The works, by their letters."""

from __future__ import annotations

from .adoption import Adoption
from .base import Work
from .idleness import Memory, Wakeups
from .latency import Latency
from .lifecycle import Lifecycle
from .lines import EightServices, LineByLine, LongLines, MixedLines, OneService
from .orphans import Orphans

WORKS: tuple[type[Work], ...] = (
    OneService,
    EightServices,
    LineByLine,
    LongLines,
    MixedLines,
    Latency,
    Lifecycle,
    Memory,
    Wakeups,
    Orphans,
    Adoption,
)
