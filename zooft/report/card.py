"""A model card, filled in as far as the run knows, and visibly blank where only its user does.

The topics follow TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) and CLAIM (2024 update, Tejani et al., Radiology:
Artificial Intelligence 2024;6:e240300), in our own short words, with the numbers of the former's items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.report import results, words
from zooft.report.blocks import Card, CardRow, Section, Text

if TYPE_CHECKING:
    from zooft.report.inputs import Material


def card(material: Material) -> Section:
    """The whole card."""
    blank = "Lines in a dashed frame are yours to fill in; nothing about them is known to the run."
    text = f"Arranged for TRIPOD+AI, with the numbers of its items, and for CLAIM (2024 update). {blank}"
    parts = (_purpose(material), _data(material), _truth(), _method(material), _evidence(material), _rest(material))
    return Section("card", "Model card", (Text(text), *parts))


def _purpose(material: Material) -> Card:
    classes = ", ".join(material.classes[:12]) + (", …" if len(material.classes) > 12 else "")
    return Card("Purpose", (
        _known("What it is", "TRIPOD+AI 1, 2; CLAIM", f"A deep network, {material.backbone} fine-tuned for the task {material.task}.",
               f"It tells {len(material.classes)} classes apart: {classes}."),
        _known("Stated use", "TRIPOD+AI 3b; CLAIM", material.intended_use) if material.intended_use not in {"", "Not stated."}
        else _blank("Intended use", "TRIPOD+AI 3b; CLAIM", "what decision it is to support, where in the course of care, and who reads it."),
        _blank("Background", "TRIPOD+AI 3a; CLAIM", "the need, and what exists already."),
        _blank("Known inequalities", "TRIPOD+AI 3c", "differences in health or care between groups that bear on this use."),
        _blank("Aim and design", "TRIPOD+AI 4; CLAIM", "aims and hypotheses; whether the data was gathered before or after the plan."),
        _blank("Not to be used for", "TRIPOD+AI 3b; CLAIM", "people, scanners, body parts or questions that it isn't made for."),
    ))  # fmt: skip


def _data(material: Material) -> Card:
    data = material.record.data
    held = {"train": data.train, "val": data.val, "test": data.test}
    counts = [f"{words.split(name)} {number:,}" for name, number in held.items() if number]
    rejected = words.count(len(material.rejected), "file")
    return Card("Data", (
        _blank("Source and dates", "TRIPOD+AI 5a, 5b; CLAIM", "where the images come from, from when to when, and how well they stand for the people meant."),
        _blank("Setting and choice of people", "TRIPOD+AI 6a, 6b, 6c; CLAIM", "centres; who was let in and who was left out; treatments that bear on the outcome."),
        _blank("Acquisition", "CLAIM", "scanners, protocols, reconstruction, contrast."),
        _blank("Removal of identities", "CLAIM", "how images and labels were freed of what names people."),
        _known("Numbers", "TRIPOD+AI 20a, 21; CLAIM", f"Samples: {', '.join(counts)}.", f"{rejected} left out, each with its reason in this report."),
        _blank("Sample size", "TRIPOD+AI 10; CLAIM", "how it was settled, and whether it suffices."),
        _blank("People in each part", "TRIPOD+AI 20b, 20c; CLAIM", "age, sex, severity and other features of the people in each split."),
        _known("Preparation", "TRIPOD+AI 7; CLAIM", _preparation(material)),
        _known("Missing and unusable data", "TRIPOD+AI 11; CLAIM", f"Files that couldn't be read were left out ({rejected}); no value was made up.")
        if material.rejected else _known("Missing and unusable data", "TRIPOD+AI 11; CLAIM", "Every file could be used; no value was made up."),
        _known("Partition", "TRIPOD+AI 12a; CLAIM", *_partition(material)),
        _known("Class balance", "TRIPOD+AI 13", _balance(material)),
    ))  # fmt: skip


def _truth() -> Card:
    return Card("Reference standard", (
        _blank("What counts as true", "TRIPOD+AI 8a; CLAIM", "how each class is defined, by what test or reading, and why that."),
        _blank("Who labelled", "TRIPOD+AI 8b, 8c; CLAIM", "how many readers, how trained, with what tools, and what they could see."),
        _blank("Agreement of readers", "CLAIM", "within and between readers, and how disagreement was settled."),
    ))  # fmt: skip


def _method(material: Material) -> Card:
    record, config = material.record, material.record.config
    lr, batch_size = config["lr"], config["batch_size"]
    if record.resolved is not None:
        lr, batch_size = record.resolved.lr, record.resolved.batch_size
    frozen = [
        name if not learning else f"{name} but for {words.parameters(learning)} parameters"
        for name, size, learning in material.stages
        if learning < size
    ]
    weights, size = record.weights, record.backbone.input
    software = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return Card("Model", (
        _known("Architecture", "TRIPOD+AI 12c, 22; CLAIM", f"{material.backbone}, input {size.height}×{size.width}, head {record.head.rpartition('/')[2]}."),
        _known("Starting point", "CLAIM", f"Weights: {weights.source}; {weights.licence or 'licence unknown'}."),
        _known("Training", "TRIPOD+AI 12c; CLAIM", f"{config['epochs']} epochs, {config['optimizer']}, learning rates {lr:.3g} (head) and {config['backbone_lr']:.3g} (backbone), batches of {batch_size}, seed {config['seed']}; frozen: {', '.join(frozen) or 'nothing'}."),
        _known("Choice of the final model", "TRIPOD+AI 12c; CLAIM", _choice(material)),
        _known("Output", "TRIPOD+AI 15", *_output(material)),
        _known("Software", "CLAIM", f"zooft {record.zooft}, {software}."),
    ))  # fmt: skip


def _evidence(material: Material) -> Card:
    best = results.headline(material)
    evaluation = material.evaluations.get(material.judged)
    shown = f"{best[0]} {words.with_interval(best[1])} on {words.split(material.judged)} samples." if best else "None."
    measured = ", ".join(words.metric(name) for name in evaluation.metrics) if evaluation else "none"
    subgroups = sorted({row.fact.replace("_", " ") for row in evaluation.subgroups}) if evaluation else []
    return Card("Evidence", (
        _known("Measures", "TRIPOD+AI 12e; CLAIM", f"{measured}."),
        _known("Uncertainty", "TRIPOD+AI 12e; CLAIM", "95 % percentile bootstrap intervals, over groups where groups are known."),
        _known("Performance", "TRIPOD+AI 23a; CLAIM", shown, "Every figure with its interval stands in this report."),
        _known("Subgroups", "TRIPOD+AI 14, 23a", f"By {', '.join(subgroups)}; see the table.")
        if subgroups else _blank("Subgroups and fairness", "TRIPOD+AI 14, 23a, 23b", "how it does for groups that differ by age, sex, origin, scanner or centre."),
        _known("Failures", "CLAIM", "The most confident mistakes are shown as pictures."),
        _known("Explanation", "CLAIM", "Grad-CAM pictures are shown." if material.looked else "None."),
        _blank("Robustness", "TRIPOD+AI 12d, 23b; CLAIM", "how figures change with scanner, centre, noise or choices of yours."),
        _blank("Data from elsewhere", "TRIPOD+AI 16; CLAIM", "figures on data of another centre and time, and how that data differs."),
    ))  # fmt: skip


def _rest(material: Material) -> Card:
    return Card("Use and responsibility", (
        _blank("Interpretation and limits", "TRIPOD+AI 25, 26; CLAIM", "what the figures mean for the use, and what may make them wrong."),
        _blank("Poor or missing input, and users", "TRIPOD+AI 27a, 27b", "what happens with bad images; what users must know and do."),
        _blank("Updating and next steps", "TRIPOD+AI 12f, 24, 27c", "how it will be watched, by whom, and when it is trained anew."),
        _blank("Ethics", "TRIPOD+AI 17", "approval, consent or waiver, and its number."),
        _blank("Protocol and registration", "TRIPOD+AI 18c, 18d; CLAIM", "where the plan was written down before."),
        _blank("Availability", "TRIPOD+AI 18e, 18f; CLAIM", "where data, code and model can be had."),
        _blank("Funding and interests", "TRIPOD+AI 18a, 18b; CLAIM", "who paid, and who gains."),
        _blank("Patients and public", "TRIPOD+AI 19", "how they took part, or that they didn't."),
        _blank("Responsible", "", "who answers for this model; contact; date of this card."),
    ))  # fmt: skip


def _preparation(material: Material) -> str:
    spec = material.record.backbone.input
    set_to = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in material.record.options.items())
    return f"Inside the deployed file: to {spec.height}×{spec.width}, then the backbone's own mean and spread. Options of the task: {set_to or 'none'}."


def _plain(value: object) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _partition(material: Material) -> tuple[str, ...]:
    known = any(evaluation.groups for evaluation in material.evaluations.values()) or material.record.data.groups
    level = (
        "No group, such as a patient, is in two parts."
        if known
        else "By sample: groups, such as patients, weren't known."
    )
    folds = material.record.config.get("folds")
    how = f"Cross-validation with {folds} folds." if folds else "One fixed split into training and held-out samples."
    return (how, level)


def _balance(material: Material) -> str:
    for name in (material.judged, *material.evaluations):
        if name in material.evaluations:
            rows = material.evaluations[name].per_class
            most, least = max(rows, key=lambda row: row.support), min(rows, key=lambda row: row.support)
            weights = material.record.options.get("class_weights")
            how = f" Class weights in the loss: {weights}." if weights else ""
            return f"Among {words.split(name)} samples from {least.support:,} ({least.name}) to {most.support:,} ({most.name}).{how}"
    return "Not evaluated."


def _choice(material: Material) -> str:
    if material.record.config.get("folds"):
        return "One model, no ensemble, learnt from all samples; the last epoch's weights."
    kept = material.record.best_epoch
    by = f", the best on validation samples by {words.metric(material.primary)}" if material.primary else ""
    return f"One model, no ensemble; the weights of epoch {kept}{by}." if kept else "One model, no ensemble."


def _output(material: Material) -> tuple[str, ...]:
    fitted = material.record.fitted
    lines = ["A probability for each class."]
    if len(material.classes) == 2:
        lines.append(f"The positive class, which is looked for, is {material.classes[1]}.")
    if fitted.temperature != 1.0:
        source = fitted.fitted_on or "validation samples"
        lines.append(f"Calibrated with temperature {fitted.temperature:.3f}, fitted on {source}.")
    if fitted.threshold is not None:
        lines.append(f"{material.classes[-1]} is the answer from {fitted.threshold:.3f} upwards.")
    return tuple(lines)


def _known(topic: str, items: str, *answer: str) -> CardRow:
    return CardRow(topic=topic, ask="", answer=answer, items=items)


def _blank(topic: str, items: str, ask: str) -> CardRow:
    return CardRow(topic=topic, ask=ask, answer=(), items=items)
