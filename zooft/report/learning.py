"""How the network learnt: stages, curves, time and memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zooft.report import figures, words
from zooft.report.blocks import Block, Drawing, Facts, Grid, Heading, Row, Section, Step, Strip, Text

if TYPE_CHECKING:
    from zooft.report.inputs import Material
    from zooft.run.record import TrialRecord


def network(material: Material) -> Section:
    """The stages from image to answer, with what was frozen."""
    frozen = sum(size - learning for _, size, learning in material.stages)
    total = sum(size for _, size, _ in material.stages)
    cut = _cut(material)
    where = ""
    if 0 < cut < len(material.stages):
        where = f" The dashed line marks where features leave the frozen part, before {material.stages[cut][0]}."
    elif cut and cut == len(material.stages):
        where = " Only the new head learnt; the dashed line marks where features leave the frozen part."
    share = f"{frozen / total:.0%}" if total else "none"
    text = (
        f"{material.backbone}: {words.parameters(total)} parameters in {len(material.stages)} stages, {share} of them "
        f"frozen in the last epoch, and a new head for {words.count(len(material.classes), 'class', 'classes')}.{where}"
    )
    return Section("network", "What learnt and what stayed", (Text(text), Strip(_steps(material, cut))))


def learning(material: Material) -> Section:
    """Curves by epoch."""
    if not material.epochs:
        return Section("learning", "How it learnt", (Text("No epoch was recorded."),))
    best = next((record["epoch"] for record in reversed(material.epochs) if record.get("best")), None)
    drawings = [figures.losses(material.epochs), figures.progress(material.epochs, best=best)]
    shown: tuple[Drawing, ...] = tuple(drawing for drawing in drawings if drawing is not None)
    text = f"{words.count(len(material.epochs), 'epoch')} were run; {_kept(material, best)}."
    return Section("learning", "How it learnt", (Text(text), Row(blocks=shown), *_settled(material)))


def _settled(material: Material) -> list[Block]:
    """What the run chose or measured by itself, and what it was chosen from."""
    resolved = material.record.resolved
    if resolved is None:
        return []
    pairs = [
        ("Batch size", str(resolved.batch_size)),
        ("Learning rate of the head", f"{resolved.lr:.3g}"),
        ("Weight decay", f"{resolved.weight_decay:g}"),
        ("Views of each image", _views(resolved.views)),
        ("Learning part computed in", _precisions(resolved.precision)),
    ]
    blocks: list[Block] = [Heading("Settled by the run"), Facts(tuple(pairs))]
    trials = material.record.trials
    if trials:
        rows = tuple(_trial(one) for one in sorted(trials, key=lambda one: one.primary or 0.0, reverse=True))
        columns = (
            "Learning rate",
            "Weight decay",
            "Random views",
            "Best epoch",
            words.metric(material.primary),
            "Loss",
        )
        blocks.append(
            Grid(
                title="Ways that were tried; validation chose, which flatters its figures a little",
                columns=columns,
                rows=rows,
            )
        )
    return blocks


def _views(kept: int | None) -> str:
    """How often frozen stages saw an image; promised wherever random views are kept."""
    if kept is None:
        return "the same in every epoch, or a fresh random one with augmentation"
    return f"the plain one and {kept} random ones, computed once" if kept else "the plain one, computed once"


def _precisions(by_boundary: Mapping[str, Mapping[str, Any]]) -> str:
    said = [f"{one['dtype']}{' with our kernels' if one['kernels'] else ''}" for one in by_boundary.values()]
    return ", then ".join(dict.fromkeys(said))


def _trial(one: TrialRecord) -> tuple[str, ...]:
    primary, loss = ("" if value is None else f"{value:.4f}" for value in (one.primary, one.val_loss))
    return f"{one.lr:.3g}", f"{one.weight_decay:g}", str(one.views), str(one.epoch), primary, loss


def _kept(material: Material, best: int | None) -> str:
    if material.record.config.get("folds"):
        return "the last one's weights were kept, since all samples were learnt from and none was left to choose by"
    by = f", the best by {words.metric(material.primary)} on the validation samples" if material.primary else ""
    return f"the weights of epoch {best} were kept{by}"


def cost(material: Material) -> Section:
    """Time and memory."""
    seconds = [float(record["seconds"]) for record in material.epochs if record.get("seconds") is not None]
    pairs: list[tuple[str, str]] = []
    if seconds:
        middle = sorted(seconds)[len(seconds) // 2]
        pairs.append(("An epoch", f"{words.seconds(middle)} in the median, {words.seconds(max(seconds))} at most"))
        pairs.append(("All epochs", words.seconds(sum(seconds))))
    resources = material.record.resources
    for name, value in resources.seconds.items() if resources is not None else ():
        pairs.append((f"Part: {name.replace('_', ' ')}", words.seconds(value)))
    if resources is not None and resources.peak_memory_mb is not None:
        pairs.append(("Most memory held", f"{resources.peak_memory_mb:,} MB"))
    pairs.append(("Device asked for", str(material.record.config.get("device", "auto"))))
    blocks: list[Block] = [Facts(tuple(pairs))]
    versions = material.record.versions
    if versions:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        blocks += [Heading("Software"), Text(f"zooft {material.record.zooft}, {listed}.")]
    return Section("cost", "Time and memory", tuple(blocks))


def _cut(material: Material) -> int:
    """How many leading stages don't learn, those without parameters among them."""
    count = 0
    for _, _, learning in material.stages:
        if learning:
            break
        count += 1
    return count if any(size and not learning for _, size, learning in material.stages) else 0


def _parameters(size: int, learning: int) -> str:
    """Such as 2.1 M, or 9.6 k of 2.1 M where only some of them learn."""
    if not size:
        return ""
    whole = words.parameters(size)
    return whole if learning in (0, size) else f"{words.parameters(learning)} of {whole}"


def _steps(material: Material, cut: int) -> tuple[Step, ...]:
    steps = [
        Step(
            name=name, parameters=_parameters(size, learning), cut=index == cut and index > 0,
            state="none" if not size else "learning" if learning else "frozen",
        )
        for index, (name, size, learning) in enumerate(material.stages)
    ]  # fmt: skip
    head = Step(name="head", parameters=material.record.head.rpartition("/")[2], state="new",
                cut=0 < cut == len(material.stages))  # fmt: skip
    return (*steps, head)
