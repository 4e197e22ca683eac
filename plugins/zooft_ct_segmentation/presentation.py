"""How masks of CT are shown: mm³ of each structure, and a row for each patient in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_ct_segmentation.dice import VOLUMES, pixels_of, voxels_of
from zooft_segmentation import AREAS, BOTH, FOUND, SHARES, TRUE, problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]

STRUCTURES = "structures"
_NONE = "none"
_MOST_ROWS = 60
_LISTED = 6


def presentation_part() -> zooft.PresentationPart:
    """How masks of CT are shown."""
    return replace(
        problem().presentation,
        cells=_cells,
        columns=_columns,
        brief=lambda cells, _labels: cells,
        record=_record,
        entries=(STRUCTURES, VOLUMES),
        worst=_worst,
        caption=_caption,
        sections=_sections,
        tables=_tables,
        describe=_describe,
    )


def _columns(labels: Labels) -> Sequence[str]:
    return (STRUCTURES, *(f"mm3({label.name})" for label in labels[1:]))


def _cells(predictions: zooft.Predictions, labels: Labels, _fitted: Any) -> Mapping[str, Sequence[Any]]:
    """Structures that were found, and mm³ of each; "" where the size of voxels isn't known."""
    shares = predictions[SHARES]
    volumes = _volumes(predictions)
    found = [", ".join(label.name for n, label in enumerate(labels) if n and row[n] > 0) or _NONE for row in shares]
    return {STRUCTURES: found} | {
        f"mm3({label.name})": ["" if np.isnan(volume) else float(volume) for volume in volumes[:, number]]
        for number, label in enumerate(labels)
        if number
    }


def _volumes(predictions: zooft.Predictions) -> NDArray[np.float64]:
    """Mm³ that were found ``(N, C)``."""
    if VOLUMES in predictions.columns:
        return np.asarray(predictions[VOLUMES][..., FOUND], np.float64)
    sizes = pixels_of(predictions) * voxels_of(predictions)
    return np.asarray(predictions[SHARES] * sizes[:, None], np.float64)


def _record(cells: Mapping[str, Any], labels: Labels) -> Mapping[str, Any]:
    return {
        STRUCTURES: cells[STRUCTURES],
        VOLUMES: {label.name: cells[f"mm3({label.name})"] for label in labels[1:]},
    }


def _slice_dice(areas: NDArray[Any]) -> NDArray[np.float64]:
    """Of each slice ``(N,)``: the mean over the structures that are there or were found; NaN where there are none."""
    true, found, both = (areas[:, 1:, part].astype(np.float64) for part in (TRUE, FOUND, BOTH))
    there = true + found > 0
    dice = np.divide(2 * both, true + found, out=np.zeros_like(both), where=there)
    means: NDArray[np.float64] = np.divide(
        dice.sum(1), there.sum(1), out=np.full(len(areas), np.nan), where=there.any(1)
    )
    return means


def _worst(predictions: zooft.Predictions, _labels: Labels) -> NDArray[Any]:
    """What a slice's Dice lacks; of slices where nothing is and nothing was found, nothing."""
    return np.asarray(1 - np.nan_to_num(_slice_dice(predictions[AREAS]), nan=1.0))


def _caption(predictions: zooft.Predictions, labels: Labels, _fitted: Any) -> tuple[str, Sequence[str]]:
    areas = predictions[AREAS][:1]
    dice = float(_slice_dice(areas)[0])
    title = "nothing there, nothing found" if np.isnan(dice) else f"Dice {dice:.3f}"
    lines = []
    for name, part in (("predicted", FOUND), ("true", TRUE)):
        pixels = [(label.name, int(areas[0, n, part])) for n, label in enumerate(labels) if n and areas[0, n, part]]
        listed = zooft.list_some([f"{structure} {count:,}" for structure, count in pixels], _LISTED)
        lines.append(f"{name}: {f'{listed} pixels' if pixels else _NONE}")
    return title, lines


def _patients(evaluation: Any) -> Sequence[zooft.Table]:
    rows = [
        (
            each["patient"],
            each["structure"],
            _number(each["true_mm3"]),
            _number(each["found_mm3"]),
            _number(each["error_mm3"], sign="+"),
            "" if each["dice"] is None else f"{each['dice']:.3f}",
        )
        for each in sorted(evaluation.details.get("patients", ()), key=lambda row: _rank(row["dice"]))
    ]
    if not rows:
        return ()
    title = "Per patient" if len(rows) <= _MOST_ROWS else f"Per patient, the lowest {_MOST_ROWS} of {len(rows)} by Dice"
    columns = ("Patient", "Structure", "True mm³", "Found mm³", "Error mm³", "Dice")
    return (zooft.Table(title=title, columns=columns, rows=tuple(rows[:_MOST_ROWS])),)


def _structures(evaluation: Any, labels: Labels) -> Sequence[zooft.Table]:
    """Figures of patients by structure; nothing where patients have no figures."""
    figures = evaluation.group_metrics
    if not figures:
        return ()
    rows = tuple(
        (
            label.name,
            _figure(figures[f"dice/{label.name}"], ".3f"),
            _figure(figures[f"volume_error/{label.name}"], ",.0f"),
            _figure(figures[f"volume_bias/{label.name}"], "+,.0f"),
            _figure(figures[f"false_positives/{label.name}"], ".0%"),
        )
        for label in labels[1:]
    )
    columns = ("Structure", "Dice", "Volume error mm³", "Volume bias mm³", "Found where there is none")
    return (zooft.Table(title=f"Per structure, the mean over {evaluation.group_name}s", columns=columns, rows=rows),)


def _figure(found: Any, form: str) -> str:
    return zooft.format_figure(found.value, found, form=form)


def _rank(dice: float | None) -> float:
    return 2.0 if dice is None else dice


def _number(value: float | None, *, sign: str = "") -> str:
    return "unknown" if value is None else f"{value:{sign},.0f}"


def _tables(evaluation: Any, labels: Labels) -> Sequence[zooft.Table]:
    own = problem().presentation.tables(evaluation, labels)
    return (*own, *_structures(evaluation, labels), *_patients(evaluation))


def _sections(evaluated: Any, labels: Labels, fitted: Any, rule: str) -> Sequence[Any]:
    sections = problem().presentation.sections
    assert sections is not None  # noqa: S101 -- segmentation has them
    own = (*_structures(evaluated.evaluation, labels), *_patients(evaluated.evaluation))
    return (*own, *sections(evaluated, labels, fitted, rule))


def _describe(labels: Labels, fitted: Any, options: Mapping[str, Any]) -> zooft.Description:
    made = problem().presentation.describe(labels, fitted, options)
    return replace(
        made,
        note="Dice is of all voxels of a patient together; of patients without a structure none is defined",
        output=("A mask of the slice's own size, each pixel the number of its class.",),
    )
