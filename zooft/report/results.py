"""The results: figures with intervals, the problem's own tables and pictures, subgroups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts import Picture, Table
from zooft.contracts.plurals import pluralize
from zooft.report import embedded_images, formatting
from zooft.report.blocks import Block, Grid, Heading, Photo, Section, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from zooft.evaluation.bootstrap import Interval
    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.report.inputs import ReportInputs

MOST_SUBGROUPS = 60


def results(inputs: ReportInputs) -> list[Section]:
    """A section for each split, the main one first."""
    names = sorted(inputs.evaluated, key=lambda name: name != inputs.main_split)
    return [_section(inputs, name, inputs.evaluated[name]) for name in names]


def headline(inputs: ReportInputs) -> tuple[str, Interval] | None:
    """The name and value of the primary metric, per group where there is such a figure."""
    if inputs.main is None:
        return None
    evaluation = inputs.main.evaluation
    figures_of = evaluation.group_metrics or evaluation.metrics
    name = inputs.primary or next(iter(figures_of))
    return (formatting.metric(name), figures_of[name]) if name in figures_of else None


def wrong(inputs: ReportInputs) -> tuple[int, int]:
    """How many predictions on the main split are wrong, and of how many; 0 of 0 where that can't be counted."""
    wrong, main = inputs.problem.presentation.wrong, inputs.main
    if wrong is None or main is None:
        return 0, 0
    return int(wrong(main.predictions, inputs.labels).sum()), len(main.predictions)


def to_blocks(items: Iterable[Picture | Table | Block]) -> list[Block]:
    """Pictures and tables of a task or a problem as blocks; blocks as they are."""
    return [_block(item) for item in items]


def _block(item: Picture | Table | Block) -> Block:
    if isinstance(item, Table):
        return Grid(title=item.title, columns=item.columns, rows=item.rows, numbers=False)
    if isinstance(item, Picture):
        return Photo(
            sources=(embedded_images.png_source(item.png),), alt=item.caption, title=item.title, lines=(item.caption,)
        )
    return item


def _section(inputs: ReportInputs, name: str, evaluated: Evaluated) -> Section:
    evaluation = evaluated.evaluation
    blocks: list[Block] = [Text(_about(inputs, evaluation)), _metrics(evaluation)]
    blocks += _of_answers(inputs, name)
    blocks += _subgroups(inputs, evaluation)
    return Section(f"results-{name}", f"Results: {formatting.split(name)} samples", tuple(blocks))


def _of_answers(inputs: ReportInputs, split: str) -> list[Block]:
    """What the problem adds to the figures of a split; of several answers at once, what each one's does."""
    if not inputs.answers:
        return _of_problem(inputs, inputs.evaluated[split])
    note = inputs.description.note
    blocks: list[Block] = [Text(f"{note[:1].upper()}{note[1:]}.")] if note else []
    for answer in inputs.answers:
        own = inputs.of(answer)
        blocks.append(Heading(answer.name))
        if split in own.evaluated:
            count = pluralize(len(own.evaluated[split].predictions), "sample")
            blocks += [Text(f"It is known of {count}."), *_of_problem(own, own.evaluated[split])]
        else:
            blocks.append(Text("It is known of no sample."))
    return blocks


def _of_problem(inputs: ReportInputs, evaluated: Evaluated) -> list[Block]:
    part, labels = inputs.problem.presentation, inputs.labels
    if part.sections is not None:
        return to_blocks(part.sections(evaluated, labels, inputs.fitted, inputs.record.data.group_rule))
    remarks = [Text(text) for text in part.remarks(evaluated.evaluation, labels)]
    return [*remarks, *to_blocks(part.tables(evaluated.evaluation, labels))]


def _about(inputs: ReportInputs, evaluation: Evaluation) -> str:
    one, many = evaluation.group_name, formatting.plural(evaluation.group_name)
    of = f" of {pluralize(evaluation.groups, one, many)}" if evaluation.groups else ""
    mixed = pluralize(evaluation.mixed_groups, f"{one} has", f"{many} have")
    sentences = (
        f"{pluralize(evaluation.samples, 'sample')}{of}.",
        _role(inputs, evaluation.split),
        f"{mixed} samples with different targets." if evaluation.mixed_groups else "",
    )
    return " ".join(filter(None, sentences))


def _role(inputs: ReportInputs, split: str) -> str:
    """What a split's samples were used for."""
    fitted = inputs.description.fitted
    if split == "test":
        return "Test samples were used for nothing but these figures."
    if split == "cross-validation":
        of_others = f", with {fitted} fitted on the other folds" if fitted else ""
        of_all = f", and {fitted} were fitted on all of these predictions" if fitted else ""
        return (
            f"Every sample was predicted by a model that wasn't trained on its group{of_others}; the deployed model "
            f"was trained on all of them{of_all}."
        )
    if split == "val":
        chosen = f"The best epoch, and {fitted}," if fitted else "The best epoch"
        verb = "were" if fitted else "was"
        return f"{chosen} {verb} chosen on these samples, so the figures are slightly optimistic."
    return ""


def _metrics(evaluation: Evaluation) -> Grid:
    by_group = evaluation.group_metrics
    columns = (
        "Figure",
        "Per sample",
        "95 % interval",
        *((f"Per {evaluation.group_name}", "95 % interval") if by_group else ()),
    )
    rows = []
    for name, value in evaluation.metrics.items():
        label = formatting.metric(name) + (" (smaller is better)" if name in evaluation.smaller else "")
        row = [label, formatting.figure(value.value), formatting.interval(value)]
        if by_group:
            other = by_group.get(name)
            row += [formatting.figure(other.value), formatting.interval(other)] if other else ["", ""]
        rows.append(tuple(row))
    drawn = formatting.plural(evaluation.group_name) if evaluation.groups else "samples"
    return Grid(title=f"Figures; intervals by bootstrap over {drawn}", columns=columns, rows=tuple(rows))


def _subgroups(inputs: ReportInputs, evaluation: Evaluation) -> list[Block]:
    if not evaluation.subgroups:
        return []
    last = inputs.categories[-1:]
    rows = tuple(
        (
            f"{row.fact.replace('_', ' ')}: {row.value}",
            f"{row.samples:,}",
            f"{row.groups:,}" if row.groups else "",
            *(f"{row.positives:,}" for _ in last),
            "too few to evaluate" if row.small else formatting.figure(row.metric.value),
            "" if row.small else formatting.interval(row.metric),
        )
        for row in evaluation.subgroups[:MOST_SUBGROUPS]
    )
    groups = formatting.plural(evaluation.group_name).capitalize()
    metric = formatting.metric(inputs.primary) if inputs.primary else "Primary metric"
    columns = ("Subgroup", "Samples", groups, *_of_last(last), metric, "95 % interval")
    blocks: list[Block] = [Grid(title="Subgroups, per sample", columns=columns, rows=rows)]
    if len(evaluation.subgroups) > MOST_SUBGROUPS:
        blocks.append(Text(f"And {len(evaluation.subgroups) - MOST_SUBGROUPS} more; run.json has them all."))
    return blocks


def _of_last(last: Sequence[str]) -> Sequence[str]:
    return [f"Of them {name}" for name in last]
