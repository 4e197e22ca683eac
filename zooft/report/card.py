"""A model card, filled in as far as the run knows, and visibly blank where only its user does.

The topics follow TRIPOD+AI (Collins et al., BMJ 2024;385:e078378) and CLAIM (2024 update, Tejani et al., Radiology:
Artificial Intelligence 2024;6:e240300), in our own short words, with the numbers of the former's items.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from zooft.contracts.plurals import pluralize
from zooft.report import formatting, results
from zooft.report.blocks import Card, CardRow, Section, Text

if TYPE_CHECKING:
    from zooft.report.inputs import ReportInputs


def card(inputs: ReportInputs) -> Section:
    """The whole card."""
    blank = "Lines in a dashed frame are yours to fill in; the run knows nothing about them."
    text = f"Arranged for TRIPOD+AI, with the numbers of its items, and for CLAIM (2024 update). {blank}"
    parts = (_purpose(inputs), _data(inputs), _truth(inputs), _method(inputs), _evidence(inputs), _rest(inputs))
    return Section("card", "Model card", (Text(text), *parts))


def _purpose(inputs: ReportInputs) -> Card:
    return Card(
        "Purpose",
        (
            _fill(
                "What it is",
                "TRIPOD+AI 1, 2; CLAIM",
                f"A deep network, {inputs.backbone} fine-tuned for the task {inputs.task}.",
                inputs.description.purpose,
            ),
            _fill("Stated use", "TRIPOD+AI 3b; CLAIM", inputs.intended_use)
            if inputs.intended_use not in {"", "Not stated."}
            else _blank(
                "Intended use",
                "TRIPOD+AI 3b; CLAIM",
                "which decision it is to support, where in the course of care, and who reads it.",
            ),
            _blank("Background", "TRIPOD+AI 3a; CLAIM", "the need, and what exists already."),
            _blank(
                "Known inequalities",
                "TRIPOD+AI 3c",
                "differences in health or care between groups that bear on this use.",
            ),
            _blank(
                "Aim and design",
                "TRIPOD+AI 4; CLAIM",
                "aims and hypotheses; whether the data was gathered before or after the plan.",
            ),
            _blank(
                "Not to be used for",
                "TRIPOD+AI 3b; CLAIM",
                "people, scanners, body parts or questions that it isn't made for.",
            ),
        ),
    )


def _data(inputs: ReportInputs) -> Card:
    data, description = inputs.record.data, inputs.labels[0].name
    held = {"train": data.train, "val": data.val, "test": data.test}
    counts = [f"{formatting.split(name)} {number:,}" for name, number in held.items() if number]
    rejected = pluralize(len(inputs.rejected), "file")
    return Card(
        "Data",
        (
            _blank(
                "Source and dates",
                "TRIPOD+AI 5a, 5b; CLAIM",
                "where the images come from, from when to when, and how well they represent the intended patients.",
            ),
            _blank(
                "Setting and choice of people",
                "TRIPOD+AI 6a, 6b, 6c; CLAIM",
                "centres; inclusion and exclusion criteria; treatments that affect the outcome.",
            ),
            _blank("Acquisition", "CLAIM", "scanners, protocols, reconstruction, contrast."),
            _blank("Removal of identities", "CLAIM", "how images and labels were de-identified."),
            _fill(
                "Numbers",
                "TRIPOD+AI 20a, 21; CLAIM",
                f"Samples: {', '.join(counts)}.",
                f"{rejected} left out, each with its reason in this report.",
            ),
            _blank("Sample size", "TRIPOD+AI 10; CLAIM", "how it was determined, and whether it suffices."),
            _blank(
                "People in each part",
                "TRIPOD+AI 20b, 20c; CLAIM",
                "age, sex, severity and other features of the people in each split.",
            ),
            _fill("Preparation", "TRIPOD+AI 7; CLAIM", _preparation(inputs)),
            _fill(
                "Missing and unusable data",
                "TRIPOD+AI 11; CLAIM",
                f"Files that couldn't be read were left out ({rejected}); no value was imputed.",
            )
            if inputs.rejected
            else _fill(
                "Missing and unusable data", "TRIPOD+AI 11; CLAIM", "Every file could be used; no value was imputed."
            ),
            _fill("Partition", "TRIPOD+AI 12a; CLAIM", *_partition(inputs)),
            *(
                (_fill(f"{description.capitalize()} balance", "TRIPOD+AI 13", *_balance(inputs)),)
                if inputs.categories
                else ()
            ),
        ),
    )


def _truth(inputs: ReportInputs) -> Card:
    each = f"each {inputs.labels[0].name}" if inputs.categories else "each label"
    return Card(
        "Reference standard",
        (
            _blank(
                "What counts as true",
                "TRIPOD+AI 8a; CLAIM",
                f"how {each} is defined, by which test or reading, and why.",
            ),
            _blank(
                "Who labelled",
                "TRIPOD+AI 8b, 8c; CLAIM",
                "how many readers, how trained, with what tools, and what they could see.",
            ),
            _blank("Agreement of readers", "CLAIM", "within and between readers, and how disagreement was resolved."),
        ),
    )


def _method(inputs: ReportInputs) -> Card:
    config, spec, weights = inputs.record.config, inputs.record.backbone.input, inputs.record.weights
    lr, batch_size = config["lr"], config["batch_size"]
    if inputs.record.resolved is not None:
        lr, batch_size = inputs.record.resolved.lr, inputs.record.resolved.batch_size
    frozen = [
        name if not trained else f"{name} but for {formatting.parameters(trained)} parameters"
        for name, size, trained in inputs.stages
        if trained < size
    ]
    return Card(
        "Model",
        (
            _fill(
                "Architecture",
                "TRIPOD+AI 12c, 22; CLAIM",
                f"{inputs.backbone}, input {spec.height}×{spec.width}, head {inputs.head}.",
            ),
            _fill("Starting point", "CLAIM", f"Weights: {weights.source}; {weights.licence or 'licence unknown'}."),
            _fill(
                "Training",
                "TRIPOD+AI 12c; CLAIM",
                f"{config['epochs']} epochs, {config['optimizer']}, learning rates {lr:.3g} (head) and "
                f"{config['backbone_lr']:.3g} (backbone), batches of {batch_size}, seed {config['seed']}; frozen: "
                f"{', '.join(frozen) or 'nothing'}.",
            ),
            _fill("Choice of the final model", "TRIPOD+AI 12c; CLAIM", _choice(inputs)),
            _fill("Output", "TRIPOD+AI 15", *(inputs.description.output or ("Not stated.",))),
            _fill("Software", "CLAIM", f"{inputs.software}."),
        ),
    )


def _evidence(inputs: ReportInputs) -> Card:
    best = results.headline(inputs)
    evaluation = inputs.evaluations.get(inputs.main_split)
    shown = (
        f"{best[0]} {formatting.with_interval(best[1])} on {formatting.split(inputs.main_split)} samples."
        if best
        else "None."
    )
    measured = ", ".join(formatting.metric(name) for name in evaluation.metrics) if evaluation else "none"
    subgroups = sorted({row.fact.replace("_", " ") for row in evaluation.subgroups}) if evaluation else []
    return Card(
        "Evidence",
        (
            _fill("Measures", "TRIPOD+AI 12e; CLAIM", f"{measured}."),
            _fill(
                "Uncertainty",
                "TRIPOD+AI 12e; CLAIM",
                "95 % percentile bootstrap intervals, over groups where groups are known.",
            ),
            _fill("Performance", "TRIPOD+AI 23a; CLAIM", shown, "This report has every figure with its interval."),
            _fill("Subgroups", "TRIPOD+AI 14, 23a", f"By {', '.join(subgroups)}; see the table.")
            if subgroups
            else _blank(
                "Subgroups and fairness",
                "TRIPOD+AI 14, 23a, 23b",
                "how it does for groups that differ by age, sex, origin, scanner or centre.",
            ),
            _fill("Failures", "CLAIM", "The most confident mistakes are shown as pictures."),
            _fill("Explanation", "CLAIM", "Grad-CAM pictures are shown." if inputs.gradcam else "None."),
            _blank(
                "Robustness",
                "TRIPOD+AI 12d, 23b; CLAIM",
                "how figures change with scanner, centre, noise or your own settings.",
            ),
            _blank(
                "Data from elsewhere",
                "TRIPOD+AI 16; CLAIM",
                "figures on data of another centre and time, and how that data differs.",
            ),
        ),
    )


def _rest(inputs: ReportInputs) -> Card:
    return Card(
        "Use and responsibility",
        (
            _blank(
                "Interpretation and limits",
                "TRIPOD+AI 25, 26; CLAIM",
                "what the figures mean for the use, and what may make them wrong.",
            ),
            _blank(
                "Poor or missing input, and users",
                "TRIPOD+AI 27a, 27b",
                "what happens with bad images; what users must know and do.",
            ),
            _blank(
                "Updating and next steps",
                "TRIPOD+AI 12f, 24, 27c",
                "how it will be monitored, by whom, and when it is trained anew.",
            ),
            _blank("Ethics", "TRIPOD+AI 17", "approval, consent or waiver, and its number."),
            _blank(
                "Protocol and registration",
                "TRIPOD+AI 18c, 18d; CLAIM",
                "where the protocol was registered in advance.",
            ),
            _blank("Availability", "TRIPOD+AI 18e, 18f; CLAIM", "where data, code and model are available."),
            _blank("Funding and interests", "TRIPOD+AI 18a, 18b; CLAIM", "who funded it, and conflicts of interest."),
            _blank("Patients and public", "TRIPOD+AI 19", "how they were involved, or that they weren't."),
            _blank("Responsible", "", "who is responsible for this model; contact; date of this card."),
        ),
    )


def _preparation(inputs: ReportInputs) -> str:
    spec = inputs.record.backbone.input
    set_to = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in inputs.record.options.items())
    return (
        f"Inside the deployed file: to {spec.height}×{spec.width}, then the backbone's own mean and spread. Options "
        f"of the task: {set_to or 'none'}."
    )


def _plain(value: object) -> str:
    return " ".join(str(item) for item in value) if isinstance(value, (list, tuple)) else str(value)


def _partition(inputs: ReportInputs) -> tuple[str, ...]:
    known = any(evaluation.groups for evaluation in inputs.evaluations.values()) or inputs.record.data.groups
    level = (
        "No group, such as a patient, is in two parts."
        if known
        else "By sample: groups, such as patients, weren't known."
    )
    folds = inputs.record.config.get("folds")
    how = f"Cross-validation with {folds} folds." if folds else "One fixed split into training and held-out samples."
    return (how, level)


def _balance(inputs: ReportInputs) -> tuple[str, ...]:
    """The rarest and the most frequent category, and how rare ones are weighted."""
    main = inputs.main
    if main is None:
        return ("Not evaluated.",)
    counts = Counter(inputs.text(one.target) for one in main.predictions.samples if one.target is not None)
    by_count = sorted(inputs.categories, key=lambda name: counts[name])
    least, most = by_count[0], by_count[-1]
    span = f"from {counts[least]:,} ({least}) to {counts[most]:,} ({most})"
    return (f"Among {formatting.split(inputs.main_split)} samples {span}.", *inputs.description.balance)


def _choice(inputs: ReportInputs) -> str:
    if inputs.record.config.get("folds"):
        return "One model, no ensemble, trained on all samples; the last epoch's weights."
    best = inputs.record.best_epoch
    by = f", the best on validation samples by {formatting.metric(inputs.primary)}" if inputs.primary else ""
    return f"One model, no ensemble; the weights of epoch {best}{by}." if best else "One model, no ensemble."


def _fill(topic: str, items: str, *answer: str) -> CardRow:
    return CardRow(topic=topic, ask="", answer=answer, items=items)


def _blank(topic: str, items: str, request: str) -> CardRow:
    return CardRow(topic=topic, ask=request, answer=(), items=items)
