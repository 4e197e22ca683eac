"""Results as a Markdown table and as a plot, and their place in docs/benchmarks.md."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from peers import results
from peers.results import Comparison, Row, Run, Spread

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_JOBS = {"head": "head only (everything else frozen)", "last": "last stage and head", "full": "everything learns"}
_WORDS = {"zooft": "an empty cache", "zooft+warm": "a warm one"}
_MIB = 1024 * 1024


def sections(runs: Sequence[Run], pictures: dict[Comparison, str]) -> dict[str, str]:
    """Headings to their sections in Markdown, one for each comparison.

    Args:
        runs: any.
        pictures: comparison to the plot's address, relative to the document.
    """
    found = {}
    for key, members in results.group(runs).items():
        table = results.rows(members)
        parts = [_measurement(members), _headline(table), _table(table)]
        if key in pictures:
            parts.append(f"![validation accuracy over time, {title(key)}]({pictures[key]})")
        found[title(key)] = "\n\n".join(part for part in parts if part)
    return found


def title(key: Comparison) -> str:
    """The comparison in words; no two have the same."""
    epochs, threads = f"{key.epochs} epoch{'s' * (key.epochs != 1)}", f"{key.threads} thread{'s' * (key.threads != 1)}"
    job = _JOBS.get(key.job, key.job)
    return f"{key.model}, {job}, {epochs}, {key.data}, batches of {key.batch}, {key.size} pixels, {threads}"


def slug(key: Comparison) -> str:
    """For a file name."""
    words = f"{key.model}-{key.job}-{key.epochs}-{key.data}-{key.batch}-{key.size}-{key.threads}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def insert(text: str, measured: Mapping[str, str]) -> str:
    """`text` with these sections between the two marks; sections there with other headings stay.

    Raises:
        ValueError: the marks aren't there, or a heading is there twice.
    """
    head, begin, rest = text.partition(BEGIN)
    between, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the lines {BEGIN} and {END}, between which the results go")
    first, *old = re.split(r"^### (.+)$", between, flags=re.MULTILINE)
    others = dict(zip(old[::2], (body.strip() for body in old[1::2]), strict=True))
    if len(others) < len(old[::2]):
        raise ValueError("a heading occurs twice between the marks; take one of the two out")
    parts = [first.strip()] + [f"### {heading}\n\n{body.strip()}" for heading, body in {**others, **measured}.items()]
    return "\n\n".join([head + BEGIN, *filter(None, parts), END + tail])


def plot(key: Comparison, runs: Sequence[Run], path: Path) -> bool:
    """Best balanced accuracy so far over seconds since the start, log axis, a line for each run; False without runs."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    drawn = [(run, _points(run)) for run in runs if not run.problem and len(_points(run)) > 0]
    if not drawn:
        return False
    tools = sorted({run.tool for run, _ in drawn}, key=lambda tool: (not tool.startswith("zooft"), tool))
    with mpl.rc_context({"svg.hashsalt": "zooft", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for run, points in drawn:
            number = tools.index(run.tool)
            label = run.tool if run is next(r for r, _ in drawn if r.tool == run.tool) else None
            axes.plot(
                *zip(*points, strict=True),
                color=f"C{number % 10}",
                label=label,
                marker="o",
                markersize=3,
                drawstyle="steps-post",
                linewidth=2 if run.tool.startswith("zooft") else 1,
            )
        axes.set_xscale("log")
        axes.set_xlabel("seconds since the process started")
        axes.set_ylabel("best validation balanced accuracy so far")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
        axes.set_title("\n".join(textwrap.wrap(title(key), 80)), fontsize=9)
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(loc="best")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
    return True


def _points(run: Run) -> list[tuple[float, float]]:
    best, points = 0.0, []
    for epoch in run.epochs:
        best = max(best, epoch.balanced_accuracy)
        if epoch.seconds is not None:
            points.append((epoch.seconds, best))
    return points


def _measurement(runs: Sequence[Run]) -> str:
    machines = sorted({run.machine for run in runs})
    dates = sorted({run.date for run in runs})
    versions: dict[str, set[str]] = {}
    for run in runs:
        for name, version in run.versions.items():
            versions.setdefault(name, set()).add(version)
    named = ", ".join(f"{name} {'/'.join(sorted(found))}" for name, found in sorted(versions.items()))
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Measured {when} on {'; '.join(machines)}. {named}."


def _headline(table: Sequence[Row]) -> str:
    parts = []
    peer = results.fastest(table)
    for name in _ours(table):
        words = _WORDS.get(name, f"`{name.removeprefix('zooft+')}`")
        against = []
        tutorial = next((row for row in table if row.tool == "tutorial" and name in row.ratios), None)
        if tutorial is not None:
            against.append(f"**{_times(tutorial.ratios[name])}** than the tutorial's loop")
        if peer is not None and name in peer.ratios:
            against.append(f"**{_times(peer.ratios[name])}** than the fastest other tool ({peer.tool})")
        if against:
            parts.append(f"with {words} {' and '.join(against)}")
    return f"CPU time: zooft needs, {'; '.join(parts)}." if parts else ""


def _ours(table: Sequence[Row]) -> list[str]:
    """zooft's rows that others are compared with: cold before warm, then by name."""
    names = {name for row in table for name in row.ratios}
    return sorted(names, key=lambda name: (list(_WORDS).index(name) if name in _WORDS else len(_WORDS), name))


def _table(table: Sequence[Row]) -> str:
    ours = _ours(table)
    over = "".join(f" CPU time over {name}'s |" for name in ours)
    lines = [
        f"| tool | CPU s | wall s |{over} peak memory, MiB | balanced accuracy, best epoch |",
        "|---|---|---|" + "---|" * len(ours) + "---|---|",
    ]
    for row in table:
        if row.cpu is None:
            lines.append(f"| {row.tool} | not run: {_cell(row.problem)} |" + " |" * (3 + len(ours)))
            continue
        ratio = [_spread_cell(row.ratios[name], 1) if name in row.ratios else "" for name in ours]
        peak = "" if row.peak is None else f"{row.peak.middle / _MIB:.0f}"
        cells = [
            row.tool,
            _spread_cell(row.cpu, 1),
            _spread_cell(row.wall, 1),
            *ratio,
            peak,
            _spread_cell(row.accuracy, 3),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(value: Spread) -> str:
    if value.middle >= 1:
        return f"{value.middle:.1f} times less"
    return f"{1 / value.middle:.2f} times more"


def _spread_cell(value: Spread | None, digits: int) -> str:
    """The median, and the range where there are several values."""
    if value is None:
        return ""
    middle = f"{value.middle:.{digits}f}"
    return middle if value.count == 1 else f"{middle} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
