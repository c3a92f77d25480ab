"""What is measured, and what came of it: measures, cases, samples, and the numbers that sum them up."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Iterable, Mapping, NamedTuple, Sequence


class PeerError(Exception):
    """A peer that didn't do the work; the text says in what way."""


class HangError(PeerError):
    """A peer that had to be ended, because it didn't come to an end."""


@dataclass(frozen=True)
class Measure:
    """One thing that is measured in a case."""

    key: str
    title: str
    #: A unit that `table.format_value` knows.
    unit: str
    #: The peer whose median is 1 in ratios; None where a ratio says nothing.
    reference: str | None = None
    #: Whether a larger value is the better one.
    more_is_better: bool = False
    #: Whether the chart has a panel for it, where there's a reference.
    charted: bool = True


@dataclass(frozen=True)
class Case:
    """One variant of a work, as plain or JSON, or a number of services."""

    key: str
    title: str
    measures: Sequence[Measure]
    #: A number that the work understands (services, say).
    size: int = 1
    #: Whether the chart shows it.
    charted: bool = True


@dataclass(frozen=True)
class Sample:
    """What one peer did in one repetition."""

    work: str
    case: str
    peer: str
    repetition: int
    #: By the key of the measure, in its unit.
    values: Mapping[str, float]
    #: Why there are no values.
    failure: str | None = None


class Spread(NamedTuple):
    """A few values, summed up."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median of `values`, which are some, the lowest and the highest."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest of `values` that `percent` percent of them don't exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(1, math.ceil(len(ordered) * percent / 100))
    return ordered[rank - 1]


class Samples:
    """All samples, and what they say of a peer in a case."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.all = list(samples)

    def spread(self, work: str, case: str, peer: str, measure: str) -> Spread | None:
        """The spread over the repetitions; None where there's no value."""
        values = [sample.values[measure] for sample in self._of(work, case, peer) if measure in sample.values]
        return spread(values) if values else None

    def ratio(self, work: str, case: str, peer: str, measure: Measure) -> float | None:
        """The median in proportion to the reference's; None where one of them is missing or the reference's is 0."""
        if measure.reference is None:
            return None
        own = self.spread(work, case, peer, measure.key)
        reference = self.spread(work, case, measure.reference, measure.key)
        if own is None or reference is None or not reference.median:
            return None
        return own.median / reference.median

    def failure(self, work: str, case: str, peer: str) -> str | None:
        """Why a repetition failed, if one did."""
        return next((sample.failure for sample in self._of(work, case, peer) if sample.failure), None)

    def peers(self, work: str, case: str) -> list[str]:
        """The peers that were measured, in the order in which they first were."""
        return list(dict.fromkeys(sample.peer for sample in self.all if (sample.work, sample.case) == (work, case)))

    def _of(self, work: str, case: str, peer: str) -> list[Sample]:
        return [sample for sample in self.all if (sample.work, sample.case, sample.peer) == (work, case, peer)]
