"""The settings, the data, and what the audit found in it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING

from zooft.audit import pairs_to_show
from zooft.config import to_toml
from zooft.contracts.plurals import pluralize
from zooft.report import embedded_images, formatting
from zooft.report.blocks import Block, Code, Facts, Folded, Grid, Heading, Items, Photo, Row, Section, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zooft.audit import FactRow, Finding
    from zooft.contracts import Rejection, Sample
    from zooft.report.blocks import Tone
    from zooft.report.inputs import ReportInputs

MOST_REJECTED = 50
MOST_CATEGORIES = 40
MOST_PAIRS = 12
_TONES: Mapping[str, Tone] = {"error": "error", "warning": "warning", "info": "note"}


def settings(inputs: ReportInputs) -> Section:
    """The settings in short, and in full as a file to repeat the run with."""
    config, weights = inputs.record.config, inputs.record.weights
    licence = f" ({weights.licence})" if weights.licence else ""
    facts = (
        ("Task", inputs.task),
        ("Backbone", inputs.backbone),
        ("Pretrained weights", f"{weights.source}{licence}"),
        ("Head", inputs.head),
        ("Frozen", str(config["freeze"]).rpartition("/")[2]),
        ("Epochs", str(config["epochs"])),
        ("Seed", str(config["seed"])),
    )
    blocks: tuple[Block, ...] = (
        Facts(facts),
        Code(_again(inputs), "To repeat the run:"),
        Folded("All settings: settings.toml", (Code(to_toml({**config, **inputs.record.options})),)),
    )
    return Section("settings", "Settings", blocks)


def _again(inputs: ReportInputs) -> str:
    pruned = inputs.record.pruned
    if pruned is not None:
        return f"zooft prune RUN --ratio {pruned.ratio:g} --epochs {inputs.record.config['epochs']}"
    return f"zooft finetune --config settings.toml --data {_data(inputs)}"


def data(inputs: ReportInputs) -> Section:
    """Counts by split, category and group, notes, and the files that weren't used."""
    blocks: list[Block] = [_counts(inputs)]
    if inputs.record.notes:
        blocks += [Heading("Notes"), Items(inputs.record.notes)]
    blocks += _rejections(inputs.rejected)
    blocks.append(Text(f"Fingerprint of the data: {inputs.record.data.fingerprint}"))
    return Section("data", "Data", tuple(blocks))


def audit(inputs: ReportInputs) -> Section | None:
    """What was found, worst first, with thumbnails of images that are too similar."""
    if inputs.audit is None:
        return None
    found = inputs.audit
    blocks: list[Block] = [Text(f"{pluralize(found.samples, 'sample')} audited before training.")]
    blocks += [Text(_finding(finding), _TONES[finding.severity]) for finding in found.findings]
    if not found.findings:
        blocks.append(Text("Nothing was found: no copies, no leaks, no shortcuts in the known facts.", "good"))
    if found.facts:
        blocks.append(_facts(inputs, found.facts))
    blocks += _pairs(inputs)
    blocks += [Text(str(note)) for note in found.notes]
    return Section("audit", "Leaks and shortcuts", tuple(blocks))


def _data(inputs: ReportInputs) -> str:
    path = inputs.record.data.path
    return "DATA" if inputs.private or not path else json.dumps(path) if " " in path else path


def _counts(inputs: ReportInputs) -> Block:
    """Samples by split; for a label with categories, by category too."""
    data = inputs.record.data
    by_split = _by_category(inputs) if inputs.categories else {}
    splits = [name for name in by_split if sum(by_split[name].values())]
    if not splits:
        numbers = {"train": data.train, "val": data.val, "test": data.test}
        plain = tuple(
            (formatting.split(name).capitalize(), f"{number:,}") for name, number in numbers.items() if number
        )
        return Grid(title="Samples", columns=("Split", "Samples"), rows=plain)
    label, shown = inputs.labels[0].name, inputs.categories[:MOST_CATEGORIES]
    rows: tuple[tuple[str, ...], ...] = tuple(
        (name, *(f"{by_split[split].get(name, 0):,}" for split in splits)) for name in shown
    )
    rest = inputs.categories[MOST_CATEGORIES:]
    if rest:
        others = [sum(by_split[split].get(name, 0) for name in rest) for split in splits]
        rows += ((f"{len(rest)} more", *(f"{number:,}" for number in others)),)
    rows += (("All", *(f"{sum(by_split[split].values()):,}" for split in splits)),)
    groups, one = _groups(inputs, splits), data.group_name
    columns = (label.capitalize(), *(formatting.split(split).capitalize() for split in splits))
    title = f"Samples by {label} and split"
    if not any(groups) and data.groups:
        title += f", of {pluralize(data.groups, one, formatting.plural(one))}"
    if any(groups):
        rows += ((formatting.plural(one).capitalize(), *(f"{number:,}" for number in groups)),)
    return Grid(title=title, columns=columns, rows=rows)


def _by_category(inputs: ReportInputs) -> Mapping[str, Mapping[str, int]]:
    """Split to category to number of samples, from the samples themselves or from what the run recorded."""
    if not inputs.samples:
        return inputs.record.data.counts
    return {split: _tally(inputs, members) for split, members in inputs.samples.items()}


def _tally(inputs: ReportInputs, samples: Sequence[Sample]) -> dict[str, int]:
    counts = Counter(inputs.text(sample.target) for sample in samples if sample.target is not None)
    return {name: counts[name] for name in inputs.categories}


def _groups(inputs: ReportInputs, splits: Sequence[str]) -> list[int]:
    return [
        len({sample.group for sample in inputs.samples.get(split, ()) if sample.group is not None}) for split in splits
    ]


def _rejections(rejected: Sequence[Rejection]) -> list[Block]:
    if not rejected:
        return [Text("Every file could be used.")]
    rows = tuple((rejection.id, rejection.reason) for rejection in rejected[:MOST_REJECTED])
    title = f"{pluralize(len(rejected), 'file')} not used, and why"
    blocks: list[Block] = [Grid(title=title, columns=("File", "Reason"), rows=rows, numbers=False)]
    if len(rejected) > MOST_REJECTED:
        blocks.append(Text(f"And {len(rejected) - MOST_REJECTED:,} more; rejected.csv in the run folder has them all."))
    return blocks


def _finding(finding: Finding) -> str:
    named = [*finding.samples[:3]]
    if finding.severity == "info" or not named or any(str(name) in finding.text for name in named):
        return str(finding.text)
    more = finding.count - len(named)
    return f"{finding.text} ({', '.join(named)}{f' and {more} more' if more > 0 else ''})"


def _facts(inputs: ReportInputs, rows: Sequence[FactRow]) -> Block:
    label = ", ".join(one.name for one in inputs.labels)
    cells = tuple(
        (
            row.name.replace("_", " "),
            f"{row.values:,}" if row.values else "",
            f"{row.stated:,}",
            "" if row.auroc is None else formatting.figure(row.auroc),
            "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}",
            f"predicts the {label}" if row.shortcut else "",
        )
        for row in rows
    )
    columns = ("Fact", "Values", "Known of", "AUROC", "95 % interval", "")
    title = f"How well the {label} can be predicted without the image (0.5: not at all)"
    return Grid(title=title, columns=columns, rows=cells)


def _pairs(inputs: ReportInputs) -> list[Block]:
    """Pictures of pairs, where both samples are known here."""
    assert inputs.audit is not None  # noqa: S101 -- the section is about it
    found = pairs_to_show(inputs.audit)
    wanted = {name for a, b, _ in found for name in (a, b)}
    everyone = chain(*inputs.samples.values(), *(part.predictions.samples for part in inputs.evaluated.values()))
    known = {sample.id: sample for sample in everyone if sample.id in wanted} if wanted else {}
    pairs = [(a, b, why) for a, b, why in found if a in known and b in known]
    if not pairs:
        return []
    shown = tuple(_pair(inputs, known[a], known[b], why) for a, b, why in pairs[:MOST_PAIRS])
    return [Heading("Pairs to check"), Row(blocks=shown)]


def _pair(inputs: ReportInputs, first: Sample, second: Sample, why: str) -> Photo:
    sides = [f"{sample.id}: {inputs.text(sample.target)}" for sample in (first, second)]
    sources = tuple(embedded_images.source(inputs.show(sample)) for sample in (first, second))
    return Photo(sources=sources, alt=f"Two samples: {why}", title=why.capitalize(), lines=tuple(sides))
