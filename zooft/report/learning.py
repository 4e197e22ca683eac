"""How the network was trained: stages, curves, time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zooft.contracts.plurals import pluralize
from zooft.report import figures, formatting
from zooft.report.blocks import Block, Drawing, Facts, Grid, Heading, Row, Section, Step, Strip, Text

_MOST_METRICS = 4

if TYPE_CHECKING:
    from zooft.report.inputs import ReportInputs
    from zooft.run.record import TrialRecord


def network(inputs: ReportInputs) -> Section:
    """The stages from image to prediction, and which were frozen."""
    frozen = sum(size - trained for _, size, trained in inputs.stages)
    total = sum(size for _, size, _ in inputs.stages)
    cut = _cut(inputs)
    where = ""
    if 0 < cut < len(inputs.stages):
        where = f" The dashed line marks where features leave the frozen part, before {inputs.stages[cut][0]}."
    elif cut and cut == len(inputs.stages):
        where = " Only the new head was trained; the dashed line marks where features leave the frozen part."
    share = f"{frozen / total:.0%}" if total else "none"
    text = (
        f"{inputs.backbone}: {formatting.parameters(total)} parameters in {len(inputs.stages)} stages, {share} of them "
        f"frozen in the last epoch, and a new head for {inputs.description.head}.{where}"
    )
    return Section("network", "Trained and frozen parts", (Text(text), Strip(_steps(inputs, cut))))


def learning(inputs: ReportInputs) -> Section:
    """Curves by epoch."""
    if not inputs.epochs:
        return Section("learning", "Training", (Text("No epoch was recorded."),))
    best = next((epoch["epoch"] for epoch in reversed(inputs.epochs) if epoch.get("best")), None)
    drawings = [figures.losses(inputs.epochs), figures.progress(inputs.epochs, _plot(inputs), best=best)]
    shown: tuple[Drawing, ...] = tuple(drawing for drawing in drawings if drawing is not None)
    text = f"{pluralize(len(inputs.epochs), 'epoch')} were run; {_describe_best_epoch(inputs, best)}."
    return Section("learning", "Training", (Text(text), Row(blocks=shown), *_choices(inputs)))


def _plot(inputs: ReportInputs) -> list[str]:
    """Figures to draw: the first ones, or the primary one and each answer's own."""
    if inputs.answers:
        return [inputs.primary, *(answer.primary for answer in inputs.answers)]
    return list(inputs.epochs[0].get("metrics", {}))[:_MOST_METRICS]


def _choices(inputs: ReportInputs) -> list[Block]:
    """What the run chose or measured itself, and the candidates."""
    resolved = inputs.record.resolved
    if resolved is None:
        return []
    pairs = [
        ("Batch size", str(resolved.batch_size)),
        ("Learning rate of the head", f"{resolved.lr:.3g}"),
        ("Weight decay", f"{resolved.weight_decay:g}"),
        ("Views of each image", _views(resolved.views)),
        ("Trained part computed in", _precisions(resolved.precision)),
    ]
    blocks: list[Block] = [Heading("Chosen by the run"), Facts(tuple(pairs))]
    trials = inputs.record.trials
    if trials:
        rows = tuple(_trial(one) for one in sorted(trials, key=lambda one: one.primary or 0.0, reverse=True))
        columns = (
            "Learning rate",
            "Weight decay",
            "Random views",
            "Best epoch",
            formatting.metric(inputs.primary),
            "Loss",
        )
        blocks.append(
            Grid(
                title=(
                    "Settings that were tried; the best on validation samples was chosen, so its figures are slightly "
                    "optimistic"
                ),
                columns=columns,
                rows=rows,
            )
        )
    return blocks


def _views(number: int | None) -> str:
    """How often frozen stages saw an image; recorded wherever random views are cached."""
    if number is None:
        return "the same in every epoch, or a fresh random one with augmentation"
    return f"the plain one and {number} random ones, computed once" if number else "the plain one, computed once"


def _precisions(by_boundary: Mapping[str, Mapping[str, Any]]) -> str:
    names = [one["dtype"] + (" with zooft kernels" if one["kernels"] else "") for one in by_boundary.values()]
    return ", then ".join(dict.fromkeys(names))


def _trial(one: TrialRecord) -> tuple[str, ...]:
    primary, loss = ("" if value is None else f"{value:.4f}" for value in (one.primary, one.val_loss))
    return f"{one.lr:.3g}", f"{one.weight_decay:g}", str(one.views), str(one.epoch), primary, loss


def _describe_best_epoch(inputs: ReportInputs, best: int | None) -> str:
    if inputs.record.config.get("folds"):
        return "the last one's weights were saved, since all samples were trained on and none was left to choose by"
    by = f", the best by {formatting.metric(inputs.primary)} on the validation samples" if inputs.primary else ""
    return f"the weights of epoch {best} were saved{by}"


def cost(inputs: ReportInputs) -> Section:
    """Time and memory."""
    seconds = [float(epoch["seconds"]) for epoch in inputs.epochs if epoch.get("seconds") is not None]
    pairs: list[tuple[str, str]] = []
    if seconds:
        middle = sorted(seconds)[len(seconds) // 2]
        pairs.append(
            ("An epoch", f"{formatting.seconds(middle)} in the median, {formatting.seconds(max(seconds))} at most")
        )
        pairs.append(("All epochs", formatting.seconds(sum(seconds))))
    resources = inputs.record.resources
    for name, value in resources.seconds.items() if resources is not None else ():
        pairs.append((f"Part: {name.replace('_', ' ')}", formatting.seconds(value)))
    if resources is not None and resources.peak_memory_mb is not None:
        pairs.append(("Peak memory", f"{resources.peak_memory_mb:,} MB"))
    pairs.append(("Requested device", str(inputs.record.config.get("device", "auto"))))
    blocks: list[Block] = [Facts(tuple(pairs))]
    blocks += [Heading("Software"), Text(f"{inputs.software}.")]
    return Section("cost", "Time and memory", tuple(blocks))


def _cut(inputs: ReportInputs) -> int:
    """How many leading stages are frozen, including those without parameters."""
    count = 0
    for _, _, trained in inputs.stages:
        if trained:
            break
        count += 1
    return count if any(size and not trained for _, size, trained in inputs.stages) else 0


def _parameters(size: int, trained: int) -> str:
    """Such as 2.1 M, or 9.6 k of 2.1 M where only some of them were trained."""
    if not size:
        return ""
    whole = formatting.parameters(size)
    return whole if trained in (0, size) else f"{formatting.parameters(trained)} of {whole}"


def _steps(inputs: ReportInputs, cut: int) -> tuple[Step, ...]:
    steps = [
        Step(
            name=name,
            parameters=_parameters(size, trained),
            cut=index == cut and index > 0,
            state="none" if not size else "learning" if trained else "frozen",
        )
        for index, (name, size, trained) in enumerate(inputs.stages)
    ]
    head = Step(name="head", parameters=inputs.head, state="new", cut=0 < cut == len(inputs.stages))
    return (*steps, head)
