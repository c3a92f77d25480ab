"""The order of measuring: each case, each repetition, each peer in turn."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Callable, Iterator, Sequence, TypeVar

from .peers import Peer
from .results import Case, PeerError, Sample
from .works.base import Work

T = TypeVar("T")


def measure(works: Sequence[Work], peers: Sequence[Peer], repetitions: int, progress: Callable[[Sample], None]) -> list[Sample]:
    """Have every peer do every work that it takes part in.

    Within a case the peers take turns, so that what else the machine does falls on all of them. A peer that fails in a
    case isn't tried in it again: a hang takes long.

    Args:
        works: in this order.
        peers: those that are there.
        repetitions: of each case.
        progress: told of each sample when it is there.
    """
    samples = []
    for work in works:
        for case in work.cases:
            taking_part = [peer for peer in peers if work.refusal(peer, case) is None]
            if taking_part:
                work.prepare(case)
            failed: set[str] = set()
            for repetition, peer in turns(taking_part, repetitions):
                if peer.name not in failed:
                    sample = _measure_one(work, case, peer, repetition)
                    if sample.failure:
                        failed.add(peer.name)
                    progress(sample)
                    samples.append(sample)
    return samples


def turns(things: Sequence[T], repetitions: int) -> Iterator[tuple[int, T]]:
    """Each of `things` once in a repetition, in an order that is turned round from one to the next, with its number from 1."""
    for repetition in range(1, repetitions + 1):
        for thing in things if repetition % 2 else reversed(things):
            yield repetition, thing


def _measure_one(work: Work, case: Case, peer: Peer, repetition: int) -> Sample:
    with tempfile.TemporaryDirectory(dir=work.place.services) as directory:
        try:
            values = work.run(peer, case, Path(directory))
        except PeerError as failure:
            return Sample(work.letter, case.key, peer.name, repetition, {}, str(failure) or type(failure).__name__)
    return Sample(work.letter, case.key, peer.name, repetition, values)
