"""`python -m benchmarks`: the options, and from them to the report."""

from __future__ import annotations

import argparse
import dataclasses
import resource
import shutil
import signal
import sys
from pathlib import Path
from typing import Sequence, TypeVar

from .machine import describe_machine
from .measure import measure
from .namespace import missing_tools
from .peers import PEERS, Peer
from .report import PeerNote, Report, WorkNote, to_json, to_markdown
from .results import Sample, Samples
from .works import WORKS
from .works.base import QUICK, Place, Sizes, Work
from .works.lines import LINE_SIZE

#: Bytes of data for a line: three works have files, and runit writes its lines, with their times, to another one.
_DATA_PER_LINE = 6 * LINE_SIZE

_T = TypeVar("_T")


def main() -> int:
    """Measure, and write and print the report.

    Returns:
        The exit status: 0, or 1 when nothing could be measured.
    """
    options = _parse()
    # So that every context is left, and with it every process ended.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(1))
    _raise_limit_of_files()
    versions = {peer.name: peer.find() for peer in options.peers}
    there = [peer for peer in options.peers if versions[peer.name] is not None]
    machine = describe_machine()
    with Place(options.sizes.lines * _DATA_PER_LINE) as place:
        works: list[Work] = [work(options.sizes, place) for work in options.works]
        samples = measure(works, there, options.repetitions, _show)
        report = Report(
            machine,
            [PeerNote(peer.name, versions[peer.name], peer.remark, peer.source) for peer in options.peers],
            [WorkNote(work.letter, work.title, work.cases) for work in works],
            dataclasses.asdict(options.sizes),
            options.repetitions,
            Samples(samples),
        )
    _write(report, options.output, options.chart)
    return 0 if any(sample.values for sample in samples) else 1


@dataclasses.dataclass(frozen=True)
class _Options:
    works: Sequence[type[Work]]
    peers: Sequence[Peer]
    repetitions: int
    sizes: Sizes
    output: Path
    chart: Path | None


def _parse() -> _Options:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measures ginit and its peers on the same work.")
    letters = ", ".join(f"{work.letter}: {work.title}" for work in WORKS)
    parser.add_argument("--works", metavar="LETTERS", help=f"separated by commas (default: all). {letters}")
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument("--peers", metavar="NAMES", help=f"separated by commas (default: all that are there): {names}")
    parser.add_argument("--repetitions", type=_positive, help="of everything (default: 5; with --quick 1)")
    parser.add_argument("--lines", type=_positive, help=f"of 90 bytes (default: {Sizes.lines:,}; with --quick {QUICK.lines:,})")
    parser.add_argument("--services", metavar="NUMBERS", help="numbers of services, separated by commas (default: 1,100,1000)")
    parser.add_argument("--timeout", type=_positive, metavar="SECONDS", help="after which a peer counts as hung (default: 120)")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="a directory (default: %(default)s)")
    parser.add_argument("--chart", type=Path, metavar="PATH", help="where the chart is put as well")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    given = parser.parse_args()
    missing = missing_tools()
    if missing:
        parser.error(f"{' and '.join(missing)} missing (util-linux); each peer is run as PID 1 of a PID namespace")
    try:
        works = _choose(given.works, {work.letter: work for work in WORKS})
        peers = _choose(given.peers, {peer.name: peer for peer in PEERS})
        services = tuple(map(_positive, given.services.split(","))) if given.services else None
    except (ValueError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    sizes = QUICK if given.quick else Sizes()
    changes = {"lines": given.lines, "services": services, "timeout": given.timeout}
    sizes = dataclasses.replace(sizes, **{name: value for name, value in changes.items() if value})
    return _Options(works, peers, given.repetitions or (1 if given.quick else 5), sizes, given.output, given.chart)


def _choose(names: str | None, things: dict[str, _T]) -> list[_T]:
    """Those of `things` that are named, in their own order; all, where none is."""
    wanted = set(things) if names is None else set(names.split(","))
    unknown = wanted - set(things)
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(things)}")
    return [thing for name, thing in things.items() if name in wanted]


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not number:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return number


def _raise_limit_of_files() -> None:
    # A thousand services take a peer a few thousand pipes.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _show(sample: Sample) -> None:
    values = ", ".join(f"{name} {value:.6g}" for name, value in sample.values.items())
    name = f"{sample.work}/{sample.case} {sample.repetition} {sample.peer}"
    print(f"{name}: {sample.failure or values}", file=sys.stderr, flush=True)


def _write(report: Report, directory: Path, chart: Path | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    text = to_markdown(report)
    (directory / "benchmarks.md").write_text(text, encoding="utf-8")
    (directory / "benchmarks.json").write_text(to_json(report), encoding="utf-8")
    print(text)
    try:
        from .chart import draw

        draw(report, directory / "benchmarks.svg")
    except ImportError as error:
        print(f"no chart: {error}", file=sys.stderr)
        return
    if chart is not None:
        chart.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / "benchmarks.svg", chart)


if __name__ == "__main__":
    sys.exit(main())
