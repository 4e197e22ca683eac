"""Pictures: the most confident mistakes, and Grad-CAM of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zooft.contracts.plurals import pluralize
from zooft.report import embedded_images, formatting, results
from zooft.report.blocks import Block, Heading, Photo, Row, Section, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.evaluation.evaluate import Evaluated
    from zooft.report.inputs import ReportInputs

MOST_MISTAKES = 8
MOST_EXPLAINED_MISTAKES = 4
MOST_CATEGORIES = 6
HITS = 2
"""Correct predictions shown of each category."""
MOST_OF_SEVERAL = 1
"""Wrong answers that are explained of each of several at once, and right ones of each category: the page would grow."""
_HEAT = (
    "Yellow marks the places that contributed most to the prediction, at the network's deepest layer that still has "
    "places in the image (Grad-CAM, Selvaraju et al. 2017). It shows where, not why, and is coarse. A hot spot away "
    "from the finding is a reason to doubt; a hot spot on it is no proof. The picture is the network's input: "
    "cropped, scaled and windowed."
)


def mistakes(inputs: ReportInputs) -> Section:
    """The most confident mistakes; for predictions that are numbers, those with the largest errors."""
    main = inputs.main
    if main is None or not len(main.predictions):
        return Section("mistakes", "Mistakes", (Text("There are no predictions for held-out samples."),))
    name, title = formatting.split(inputs.main_split), "The most confident mistakes"
    chosen = worst(inputs, main, MOST_MISTAKES)
    if inputs.problem.presentation.wrong is None:
        title = "The largest errors"
        text = f"The {len(chosen)} of {pluralize(len(main.predictions), f'{name} sample')} with the largest errors:"
    else:
        wrong, total = results.wrong(inputs)
        of_all = pluralize(total, f"{name} sample")
        if not wrong:
            return Section("mistakes", "Mistakes", (Text(f"None of {of_all} is predicted wrongly.", "good"),))
        text = f"{wrong:,} of {of_all} are predicted wrongly ({wrong / total:.1%})"
        text += f"; the most confident {len(chosen)}:" if wrong > len(chosen) else ":"
    drawn = inputs.problem.presentation.picture is not None and inputs.answer is not None
    shown = Row(blocks=tuple(_photo(inputs, main, row) for row in chosen), narrow=not drawn, wide=drawn)
    if not drawn:
        return Section("mistakes", title, (Text(text), shown))
    good = Row(blocks=tuple(_photo(inputs, main, row) for row in best(inputs, main) if row not in chosen), wide=True)
    more = (Text("Those with the smallest:"), good) if good.blocks else ()
    return Section("mistakes", title, (Text(text), shown, *more))


def _why_none(inputs: ReportInputs) -> str:
    if inputs.problem.presentation.explained is None and not inputs.answers:
        return "It explains one number, and predictions of this kind have no single one, so it isn't shown."
    return "This model has no stage whose output still has places in the image, so it can't be shown."


def gradcam(inputs: ReportInputs) -> Section:
    """Grad-CAM of the most confident correct predictions of each category, and of the most confident mistakes.

    Of several answers at once, for each.
    """
    shown: list[Block] = []
    for answer in inputs.answers:
        own = inputs.of(answer)
        main = own.evaluated.get(inputs.main_split)
        found = () if main is None else _heats(own, main, hits=MOST_OF_SEVERAL, most=MOST_OF_SEVERAL)
        shown += [Heading(answer.name), Row(blocks=found)] if found else []
    if not inputs.answers and inputs.main is not None:
        found = _heats(inputs, inputs.main, hits=HITS, most=MOST_EXPLAINED_MISTAKES)
        shown += [Row(blocks=found)] if found else []
    blocks = [Text(_HEAT), *_of_folds(inputs), *shown] if shown else [Text(_why_none(inputs))]
    return Section("gradcam", "Grad-CAM", tuple(blocks))


def _heats(inputs: ReportInputs, evaluated: Evaluated, *, hits: int, most: int) -> tuple[Photo, ...]:
    """Of right answers `hits` of each category, and at most so many wrong ones."""
    if inputs.gradcam is None or inputs.problem.presentation.explained is None:
        return ()
    rows = dict.fromkeys((*best(inputs, evaluated, hits=hits), *worst(inputs, evaluated, most)))
    found = [_explanation(inputs, evaluated, row) for row in rows]
    return tuple(photo for photo in found if photo is not None)


def worst(inputs: ReportInputs, evaluated: Evaluated, most: int) -> list[int]:
    """Positions of the most confident mistakes, or of the largest errors."""
    wrong = _wrong(inputs, evaluated)
    rows = np.arange(len(evaluated.predictions)) if wrong is None else np.flatnonzero(wrong)
    return _sort(-_scores(inputs, evaluated), rows)[:most]


def best(inputs: ReportInputs, evaluated: Evaluated, *, hits: int = HITS) -> list[int]:
    """Positions of the most confident correct predictions.

    So many of each of the first categories, or twice as many where there are none.
    """
    scores, wrong = _scores(inputs, evaluated), _wrong(inputs, evaluated)
    right = np.ones(len(scores), np.bool_) if wrong is None else ~wrong
    if not inputs.categories:
        return _sort(scores, np.flatnonzero(right))[: 2 * hits]
    names = np.array([inputs.text(sample.target) for sample in evaluated.predictions.samples])
    shown = inputs.categories[:MOST_CATEGORIES]
    return [row for name in shown for row in _sort(scores, np.flatnonzero(right & (names == name)))[:hits]]


def _scores(inputs: ReportInputs, evaluated: Evaluated) -> NDArray[np.float64]:
    return np.asarray(inputs.problem.presentation.worst(evaluated.predictions, inputs.labels), np.float64)


def _wrong(inputs: ReportInputs, evaluated: Evaluated) -> NDArray[np.bool_] | None:
    wrong = inputs.problem.presentation.wrong
    return None if wrong is None else np.asarray(wrong(evaluated.predictions, inputs.labels), np.bool_)


def _sort(keys: NDArray[np.float64], rows: NDArray[np.int64]) -> list[int]:
    """Some rows sorted by their keys."""
    return [int(row) for row in rows[np.argsort(keys[rows], kind="stable")]]


def _of_folds(inputs: ReportInputs) -> list[Block]:
    if inputs.main_split != "cross-validation":
        return []
    return [
        Text(
            "The heat is of the deployed model, which was trained on these samples; the predictions are the folds'.",
            "note",
        )
    ]


def _photo(inputs: ReportInputs, evaluated: Evaluated, row: int) -> Photo:
    title, lines = _caption(inputs, evaluated, row)
    sample = evaluated.predictions.samples[row]
    picture = inputs.show(sample)
    draw = inputs.problem.presentation.picture
    if draw is None or inputs.answer is None:
        return Photo(
            sources=(embedded_images.source(picture),),
            alt=f"Sample {sample.id}",
            title=title,
            lines=(*lines, sample.id),
        )
    drawn = draw(picture, inputs.answer(sample), sample.target, inputs.labels, inputs.fitted)
    sources = (embedded_images.source(picture), embedded_images.source(drawn, longest=embedded_images.DRAWN))
    return Photo(sources=sources, alt=f"Sample {sample.id}, and its answer", title=title, lines=(*lines, sample.id))


def _explanation(inputs: ReportInputs, evaluated: Evaluated, row: int) -> Photo | None:
    assert inputs.gradcam is not None  # noqa: S101 -- the caller has checked
    sample = evaluated.predictions.samples[row]
    found = inputs.gradcam(sample, {name: column[row] for name, column in evaluated.predictions.columns.items()})
    if found is None:
        return None
    title, lines = _caption(inputs, evaluated, row)
    lines = (*lines, sample.id)
    if found.instance is not None:
        lines = (*lines, f"the instance that contributed most: number {found.instance + 1}")
    if found.against:
        where = "; yellow is where it is contradicted least" if found.heat.any() else ""
        lines = (*lines, f"no place in it supports {found.words}{where}")
    sources = (embedded_images.source(found.picture), embedded_images.overlay(found.picture, found.heat))
    return Photo(sources=sources, alt=f"Sample {sample.id}, and its Grad-CAM", title=title, lines=tuple(lines))


def _caption(inputs: ReportInputs, evaluated: Evaluated, row: int) -> tuple[str, Sequence[str]]:
    """The problem's caption, or the target and the prediction."""
    part, one = inputs.problem.presentation, evaluated.predictions.take(np.array([row]))
    if part.caption is not None:
        return part.caption(one, inputs.labels, inputs.fitted)
    cells = part.cells(one, inputs.labels, inputs.fitted)
    answer = next(iter(cells.values()))[0]
    return f"{inputs.text(one.samples[0].target)}, predicted {answer}", ()
