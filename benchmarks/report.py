"""What there is to report, and its forms: for machines (JSON) and for people (markdown)."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, Iterator, Mapping, Sequence

from .machine import Machine
from .results import Case, Measure, Samples, Spread


@dataclass(frozen=True)
class PeerNote:
    """What is to be said of a peer."""

    name: str
    #: None where it's missing.
    version: str | None
    remark: str
    source: str


@dataclass(frozen=True)
class WorkNote:
    """What is to be said of a work."""

    letter: str
    title: str
    cases: Sequence[Case]


@dataclass(frozen=True)
class Report:
    """All that a run of the benchmarks has to say."""

    machine: Machine
    peers: Sequence[PeerNote]
    works: Sequence[WorkNote]
    #: How much there was to do, by name.
    sizes: Mapping[str, Any]
    repetitions: int
    samples: Samples

    def compared(self) -> Iterator[tuple[WorkNote, Case, Measure]]:
        """Every measure that has ratios and samples."""
        for work in self.works:
            for case in work.cases:
                if self.samples.peers(work.letter, case.key):
                    yield from ((work, case, measure) for measure in case.measures if measure.reference)


def to_json(report: Report) -> str:
    """The whole report, with the raw samples."""
    content = {
        "machine": dataclasses.asdict(report.machine),
        "peers": [dataclasses.asdict(peer) for peer in report.peers],
        "works": [dataclasses.asdict(work) for work in report.works],
        "sizes": dict(report.sizes),
        "repetitions": report.repetitions,
        "samples": [dataclasses.asdict(sample) for sample in report.samples.all],
    }
    return json.dumps(content, indent=1) + "\n"


def to_markdown(report: Report) -> str:
    """The report as tables: ratios first, then each case."""
    parts = ["# Benchmarks", *_heading(report), "## Ratios", *_ratios(report)]
    for work in report.works:
        parts.append(f"## ({work.letter}) {work.title}")
        for case in work.cases:
            parts += _case(report, work, case)
    return "\n\n".join(parts) + "\n"


def _heading(report: Report) -> Iterator[str]:
    machine = report.machine
    cores = f"{machine.cores} core" + "s" * (machine.cores != 1)
    yield (
        f"On {machine.processor}, {cores}, {machine.memory / 2**30:.1f} GiB of memory, {machine.kernel}; "
        f"{machine.python}, gevent {machine.gevent}; {machine.date}, load before {machine.load:.1f}. "
        f"Repetitions: {report.repetitions}. Lines: {report.sizes['lines']:,} of 90 bytes."
    )
    rows = [
        [peer.name, peer.version if peer.version is not None else f"**missing** ({peer.source})", peer.remark]
        for peer in report.peers
    ]
    yield table(["peer", "version", "remark"], rows)


def _ratios(report: Report) -> Iterator[str]:
    yield (
        "Medians in proportion to the reference's, which is 1x. Less is better, except where it says *more*. "
        "Empty: takes no part. *failed*: see below."
    )
    present = [peer.name for peer in report.peers if peer.version is not None]
    rows = []
    for work, case, measure in report.compared():
        more = ", *more*" if measure.more_is_better else ""
        row = [f"({work.letter}) {case.title}: {measure.title}{more}"]
        rows.append(row + [_ratio_cell(report.samples, work, case, peer, measure) for peer in present])
    yield table(["", *present], rows)


def _ratio_cell(samples: Samples, work: WorkNote, case: Case, peer: str, measure: Measure) -> str:
    if samples.failure(work.letter, case.key, peer):
        return "failed"
    ratio = samples.ratio(work.letter, case.key, peer, measure)
    if ratio is None:
        # Without the reference there is a value all the same.
        found = samples.spread(work.letter, case.key, peer, measure.key)
        return format_value(found.median, measure.unit) if found else ""
    lost = samples.spread(work.letter, case.key, peer, "lost")
    return format_ratio(ratio) + (f", {lost.high:,.0f} lost" if lost and lost.high > 0 else "")


def _case(report: Report, work: WorkNote, case: Case) -> Iterator[str]:
    peers = report.samples.peers(work.letter, case.key)
    if not peers:
        return
    head = [case.title]
    for measure in case.measures:
        head.append(measure.title)
        if measure.reference:
            head.append(f"to {measure.reference}")
    rows = []
    failures = []
    for peer in peers:
        row = [peer]
        for measure in case.measures:
            found = report.samples.spread(work.letter, case.key, peer, measure.key)
            row.append(format_spread(found, measure.unit) if found else "")
            if measure.reference:
                ratio = report.samples.ratio(work.letter, case.key, peer, measure)
                row.append("" if ratio is None else format_ratio(ratio))
        rows.append(row)
        failure = report.samples.failure(work.letter, case.key, peer)
        if failure:
            failures.append(f"- {peer} failed: {failure}")
    yield table(head, rows)
    if failures:
        yield "\n".join(failures)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown, whose columns are aligned in the source, too."""
    lines = [[cell.replace("\n", " ").replace("|", "\\|") for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


def format_ratio(ratio: float) -> str:
    """`3.2x`, `0.04x`, `120x`."""
    return f"{_significant(ratio, 2)}x"


def format_spread(found: Spread, unit: str) -> str:
    """The median, and in brackets the lowest and the highest value."""
    median = format_value(found.median, unit)
    if found.low == found.high:
        return median
    return f"{median} ({format_value(found.low, unit)} .. {format_value(found.high, unit)})"


def format_value(value: float, unit: str) -> str:
    """A value for people, in a multiple of its unit that suits it.

    Args:
        value: in its unit.
        unit: `s` seconds, `B` bytes; any other one is put behind the value.
    """
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if abs(value) * factor >= 1:
                return f"{_significant(value * factor, 3)} {name}"
        return f"{_significant(value * 1e6, 3)} µs"
    if unit == "B":
        return f"{_significant(value / 2**20, 3)} MiB"
    if unit == "lines":
        return f"{value:,.0f}"
    separator = "" if unit.startswith("/") else " "
    return f"{_significant(value, 3)}{separator}{unit}".strip()


def _significant(value: float, digits: int) -> str:
    """`value` with so many significant digits, but all those before the point."""
    if value == 0 or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    # Not by the format `g`, which has an exponent where the value is small.
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{decimals}f}".rstrip("0").rstrip(".")
