"""What was asked, the data, and what the audit found in it."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from zooft.config import to_toml
from zooft.data.samples import by_class
from zooft.report import photos, words
from zooft.report.blocks import Block, Code, Facts, Folded, Grid, Heading, Items, Photo, Row, Section, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zooft.contracts import Rejection, Sample
    from zooft.report.blocks import Tone
    from zooft.report.inputs import Material

MOST_REJECTED = 50
MOST_CLASSES = 40
MOST_PAIRS = 12
_TONES: Mapping[str, Tone] = {"error": "error", "warning": "warning", "info": "note"}


def asked(material: Material) -> Section:
    """The settings in short, and in full as a file that asks for the same again."""
    record, config = material.record, material.record.config
    weights = record.weights
    licence = f" ({weights.licence})" if weights.licence else ""
    facts = (
        ("Task", material.task),
        ("Backbone", material.backbone),
        ("Pretrained weights", f"{weights.source}{licence}"),
        ("Head", record.head.rpartition("/")[2]),
        ("Frozen", str(config["freeze"]).rpartition("/")[2]),
        ("Epochs", str(config["epochs"])),
        ("Seed", str(config["seed"])),
    )
    blocks: tuple[Block, ...] = (
        Facts(facts),
        Code(f"zooft finetune --config settings.toml --data {_data(material)}", "The same again:"),
        Folded("All settings: settings.toml", (Code(to_toml({**config, **record.options})),)),
    )
    return Section("asked", "What was asked", blocks)


def data(material: Material) -> Section:
    """Counts by split, class and group, notes, and the files that aren't used."""
    blocks: list[Block] = [_counts(material)]
    if material.record.notes:
        blocks += [Heading("Notes"), Items(material.record.notes)]
    blocks += _rejected(material.rejected)
    blocks.append(Text(f"Fingerprint of the data: {material.record.data.fingerprint}"))
    return Section("data", "Data", tuple(blocks))


def audit(material: Material) -> Section | None:
    """What was found, worst first, with thumbnails of what is too much alike."""
    if material.audit is None:
        return None
    found = material.audit
    blocks: list[Block] = [Text(f"{words.count(found.samples, 'sample')} looked at before training.")]
    blocks += [Text(_finding(finding), _TONES[finding.severity]) for finding in found.findings]
    if not found.findings:
        blocks.append(
            Text("Nothing was found: no copies, no leaks, no shortcuts in what is known of the files.", "good")
        )
    if found.facts:
        blocks.append(_facts(found.facts))
    blocks += _pairs(material)
    blocks += [Text(str(note)) for note in found.notes]
    return Section("audit", "Leaks and shortcuts", tuple(blocks))


def _data(material: Material) -> str:
    path = material.record.data.path
    return "DATA" if material.private or not path else json.dumps(path) if " " in path else path


def _counts(material: Material) -> Block:
    by_split = _by_class(material)
    data = material.record.data
    total = {"train": data.train, "val": data.val, "test": data.test}
    splits = [name for name in by_split if sum(by_split[name].values())]
    if not splits:
        plain = tuple((words.split(name).capitalize(), f"{number:,}") for name, number in total.items() if number)
        return Grid(title="Samples", columns=("Split", "Samples"), rows=plain)
    shown = material.classes[:MOST_CLASSES]
    rows: tuple[tuple[str, ...], ...] = tuple(
        (name, *(f"{by_split[split].get(name, 0):,}" for split in splits)) for name in shown
    )
    rest = len(material.classes) - len(shown)
    if rest:
        others = [sum(by_split[split].get(name, 0) for name in material.classes[MOST_CLASSES:]) for split in splits]
        rows += ((f"{rest} more classes", *(f"{number:,}" for number in others)),)
    rows += (("All", *(f"{sum(by_split[split].values()):,}" for split in splits)),)
    groups = _groups(material, splits)
    columns = ("Class", *(words.split(split).capitalize() for split in splits))
    title = "Samples by class and split"
    if not any(groups) and data.groups:
        title += f", of {words.count(data.groups, data.group_name, words.plural(data.group_name))}"
    if any(groups):
        rows += ((words.plural(data.group_name).capitalize(), *(f"{number:,}" for number in groups)),)
    return Grid(title=title, columns=columns, rows=rows)


def _by_class(material: Material) -> Mapping[str, Mapping[str, int]]:
    """Split to class to number of samples, from the samples themselves or from what the run recorded."""
    if material.samples:
        return {split: by_class(members, material.classes) for split, members in material.samples.items()}
    return material.record.data.classes


def _groups(material: Material, splits: Sequence[str]) -> list[int]:
    return [
        len({sample.group for sample in material.samples.get(split, ()) if sample.group is not None})
        for split in splits
    ]


def _rejected(rejected: Sequence[Rejection]) -> list[Block]:
    if not rejected:
        return [Text("Every file could be used.")]
    rows = tuple((rejection.id, rejection.reason) for rejection in rejected[:MOST_REJECTED])
    title = f"{words.count(len(rejected), 'file')} not used, and why"
    blocks: list[Block] = [Grid(title=title, columns=("File", "Reason"), rows=rows, numbers=False)]
    if len(rejected) > MOST_REJECTED:
        blocks.append(Text(f"And {len(rejected) - MOST_REJECTED:,} more; rejected.csv in the run folder has them all."))
    return blocks


def _finding(finding: Any) -> str:
    named = [*finding.samples[:3]]
    if finding.severity == "info" or not named or any(str(name) in finding.text for name in named):
        return str(finding.text)
    more = finding.count - len(named)
    return f"{finding.text} ({', '.join(named)}{f' and {more} more' if more > 0 else ''})"


def _facts(rows: Sequence[Any]) -> Block:
    cells = tuple(
        (
            row.name.replace("_", " "), f"{row.values:,}" if row.values else "", f"{row.stated:,}",
            "" if row.auroc is None else words.figure(row.auroc),
            "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}",
            "tells the class" if row.shortcut else "",
        )
        for row in rows
    )  # fmt: skip
    columns = ("Fact", "Values", "Known of", "AUROC", "95 % interval", "")
    return Grid(title="How well the class can be told without looking at the image (0.5: not at all)",
                columns=columns, rows=cells)  # fmt: skip


def _pairs(material: Material) -> list[Block]:
    """Pictures of pairs, as far as both samples are known here."""
    from zooft.audit import pairs_to_show

    told = pairs_to_show(material.audit)  # type: ignore[arg-type]
    wanted = {name for a, b, _ in told for name in (a, b)}
    everyone = chain(*material.samples.values(), *(answers.samples for answers in material.predictions.values()))
    known = {sample.id: sample for sample in everyone if sample.id in wanted} if wanted else {}
    pairs = [(a, b, why) for a, b, why in told if a in known and b in known]
    if not pairs:
        return []
    shown = tuple(_pair(material, known[a], known[b], why) for a, b, why in pairs[:MOST_PAIRS])
    return [Heading("Pairs to look at"), Row(blocks=shown)]


def _pair(material: Material, first: Sample, second: Sample, why: str) -> Photo:
    sides = [f"{sample.id}: {_class(material, sample)}" for sample in (first, second)]
    sources = tuple(photos.source(material.show(sample)) for sample in (first, second))
    return Photo(sources=sources, alt=f"Two samples: {why}", title=why.capitalize(), lines=tuple(sides))


def _class(material: Material, sample: Sample) -> str:
    return material.classes[sample.target] if 0 <= sample.target < len(material.classes) else "unlabelled"
