"""Pictures: the surest mistakes, and where the model looked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.report import examples as answers
from zooft.report import photos, results, words
from zooft.report.blocks import Block, Photo, Row, Section, Text

if TYPE_CHECKING:
    from zooft.contracts import Picture
    from zooft.evaluation.judge import Predictions
    from zooft.report.inputs import Material

MOST_MISTAKES = 8
MOST_CLASSES = 6
HITS = 2
"""Right answers shown of each class."""
_HEAT = (
    "Yellow is where the network's deepest layer that still has places in the image spoke most for the class (Grad-CAM, Selvaraju "
    "et al. 2017). "
    "It shows where, not why, and is coarse; a hot spot away from the finding is a reason to doubt, a hot spot on it is "
    "no proof. The picture is what the network saw: cut, scaled and windowed."
)


def mistakes(material: Material) -> Section:
    """The surest wrong answers."""
    wrong, total = results.wrong(material)
    if not total:
        return Section("mistakes", "Mistakes", (Text("No answers of held-out samples are at hand."),))
    name = words.split(material.judged)
    if not wrong:
        return Section("mistakes", "Mistakes", (Text(f"None of {words.count(total, f'{name} sample')} is answered wrongly.", "good"),))  # fmt: skip
    given = material.predictions[material.judged]
    threshold = material.evaluations[material.judged].threshold
    chosen = answers.mistakes(given, threshold, MOST_MISTAKES)
    said = answers.said(given, threshold)
    shown = tuple(_photo(material, given, row, int(said[row])) for row in chosen)
    text = f"{wrong:,} of {words.count(total, f'{name} sample')} are answered wrongly ({wrong / total:.1%})"
    text += f"; the surest {len(chosen)}:" if wrong > len(chosen) else ":"
    return Section("mistakes", "The most confident mistakes", (Text(text), Row(blocks=shown, narrow=True)))


def looked(material: Material) -> Section:
    """Heat over the surest right answers of each class, and over the surest mistakes for the class that was said."""
    blocks: list[Block] = []
    if material.looked is not None and material.judged in material.predictions:
        given = material.predictions[material.judged]
        threshold = material.evaluations[material.judged].threshold
        targets = range(len(material.classes))[:MOST_CLASSES]
        right = [row for k in targets for row in answers.hits(given, threshold, target=k, most=HITS)]
        wrong = answers.mistakes(given, threshold, 4)
        said = answers.said(given, threshold)
        shown = [_heat(material, given, row, int(said[row])) for row in (*right, *wrong)]
        found = tuple(photo for photo in shown if photo is not None)
        if found:
            blocks = [Text(_HEAT), *_of_folds(material), Row(blocks=found)]
    if not blocks:
        blocks = [Text("This backbone has no stage whose output still has places in the image, so it can't be shown.")]
    return Section("looked", "Where the model looked", tuple(blocks))


def _of_folds(material: Material) -> list[Block]:
    if material.judged != "cross-validation":
        return []
    return [Text("The heat is of the deployed model, which has learnt from these samples; the answers are the folds'.", "note")]  # fmt: skip


def of_task(material: Material) -> list[Block]:
    """The task's own pictures and tables."""
    from zooft.contracts import Table
    from zooft.report.blocks import Grid

    return [
        Grid(title=item.title, columns=item.columns, rows=item.rows, numbers=False)
        if isinstance(item, Table)
        else _own(item)
        for item in material.extra
    ]


def _own(picture: Picture) -> Photo:
    return Photo(
        sources=(photos.png_source(picture.png),), alt=picture.caption, title=picture.title, lines=(picture.caption,)
    )


def _photo(material: Material, given: Predictions, row: int, said: int) -> Photo:
    title, lines = _words(material, given, row, said)
    source = photos.source(material.show(given.samples[row]))
    return Photo(sources=(source,), alt=f"Sample {given.samples[row].id}", title=title, lines=lines)


def _heat(material: Material, given: Predictions, row: int, said: int) -> Photo | None:
    assert material.looked is not None  # noqa: S101 -- the caller has asked
    look = material.looked(given.samples[row], said)
    if look is None:
        return None
    title, lines = _words(material, given, row, said)
    if look.instance is not None:
        lines = (*lines, f"the instance that spoke most for it: number {look.instance + 1}")
    if look.against:
        where = "; yellow is where least spoke against it" if look.heat.any() else ""
        lines = (*lines, f"no place in it spoke for this class{where}")
    sources = (photos.source(look.picture), photos.overlaid(look.picture, look.heat))
    return Photo(sources=sources, alt=f"Sample {given.samples[row].id}, and where the model looked", title=title, lines=lines)  # fmt: skip


def _words(material: Material, given: Predictions, row: int, said: int) -> tuple[str, tuple[str, ...]]:
    """What is true and what was said, and how sure the answer is."""
    true, name = int(given.targets[row]), given.samples[row].id
    threshold = material.evaluations[material.judged].threshold
    sure = f"probability of {material.classes[said]}: {float(given.probabilities[row, said]):.1%}"
    if threshold is not None:
        score = float(given.probabilities[row, -1])
        sure = f"probability of {material.classes[-1]}: {score:.1%}, threshold {threshold:.1%}"
    if said == true:
        return f"{material.classes[true]}, rightly", (sure, name)
    return f"{material.classes[true]}, taken for {material.classes[said]}", (sure, name)
