"""The chart: a panel for each measure that's compared."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from .report import Report, WorkNote, format_ratio
from .results import Case, Measure

_COLUMNS = 4
#: Inches.
_PANEL_WIDTH, _BAR_HEIGHT, _PANEL_MARGIN = 3.4, 0.22, 0.75
_OWN_COLOR, _OTHER_COLOR, _REFERENCE_COLOR = "#2f6f4f", "#9aa7b1", "#d5b26a"


def draw(report: Report, path: Path) -> None:
    """Write an SVG with ratios as bars, medians with the lowest and the highest value, on a logarithmic scale.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    import matplotlib as mpl  # only who wants a chart needs it

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same numbers make the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the size
    from matplotlib import pyplot

    panels = [
        (work, case, measure)
        for work, case, measure in report.compared()
        if case.charted and measure.charted and _bars(report, work, case, measure)
    ]
    if not panels:
        return
    rows = math.ceil(len(panels) / _COLUMNS)
    most = max(len(_bars(report, *panel)) for panel in panels)
    size = (_PANEL_WIDTH * _COLUMNS, rows * (_BAR_HEIGHT * most + _PANEL_MARGIN) + 0.6)
    figure, grid = pyplot.subplots(rows, _COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for axes, panel in zip(grid.flat, panels):
        _draw_panel(axes, most, report, *panel)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    machine = report.machine
    figure.suptitle(
        f"in proportion to the reference (1x), logarithmic; {machine.processor}, {machine.cores} cores, "
        f"{machine.python}, {machine.date[:10]}",
        fontsize=9,
    )
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)


def _bars(report: Report, work: WorkNote, case: Case, measure: Measure) -> list[tuple[str, float, float, float]]:
    """Of each peer its name, and its median, its lowest and its highest value in proportion to the reference's median."""
    assert measure.reference
    reference = report.samples.spread(work.letter, case.key, measure.reference, measure.key)
    if reference is None or reference.median <= 0:
        return []
    bars = []
    for peer in report.samples.peers(work.letter, case.key):
        found = report.samples.spread(work.letter, case.key, peer, measure.key)
        if found is not None and found.low > 0:
            unit = reference.median
            bars.append((peer, found.median / unit, found.low / unit, found.high / unit))
    return bars


# matplotlib is optional, so its types aren't known here.
def _draw_panel(axes, most: int, report: Report, work: WorkNote, case: Case, measure: Measure) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    bars = _bars(report, work, case, measure)
    names = [name for name, *_ in bars]
    medians = [median for _, median, *_ in bars]
    errors = [[median - low for _, median, low, _ in bars], [high - median for _, median, _, high in bars]]
    colors = [_color(name, measure) for name in names]
    axes.barh(names, medians, xerr=errors, color=colors, ecolor="#444444", height=0.7, error_kw={"linewidth": 0.8})
    axes.set_xscale("log")
    axes.set_ylim(most - 0.5, -0.5)  # the first one on top, and bars as thick in every panel
    axes.axvline(1, color="#888888", linewidth=0.6, linestyle=":")
    for position, (_, median, _, high) in enumerate(bars):
        axes.annotate(f" {format_ratio(median)}", (max(median, high), position), va="center", fontsize=7)
    # On this scale no bar begins at 0; that all begin at the same distance from the reference makes a panel readable.
    axes.set_xlim(min([1.0, *medians]) / 2, max([1.0, *(high for *_, high in bars)]) * 3)
    axes.xaxis.set_visible(False)
    more = ", more is better" if measure.more_is_better else ""
    title = [*textwrap.wrap(f"({work.letter}) {work.title}", 46), f"{case.title}: {measure.title}{more}"]
    axes.set_title("\n".join(title), fontsize=8, loc="left")
    axes.tick_params(labelsize=7)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)


def _color(peer: str, measure: Measure) -> str:
    if peer == "ginit":
        return _OWN_COLOR
    return _REFERENCE_COLOR if peer == measure.reference else _OTHER_COLOR
