"""How embeddings are shown: neighbours, distances, and how well they part the same from others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_retrieval import report
from zooft_retrieval.metrics import galleries, nearest, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EMBEDDING = "embedding"


def presentation() -> zooft.PresentationPart:
    """The part of the problem."""
    return zooft.PresentationPart(
        cells=_cells,
        columns=lambda labels: [_EMBEDDING],
        target=lambda target, labels: target.name,
        brief=_brief,
        record=lambda cells, labels: {_EMBEDDING: json.loads(cells[_EMBEDDING]) if cells[_EMBEDDING] else None},
        entries=(_EMBEDDING,),
        about=_about,
        opening=_opening,
        worst=_worst,
        wrong=_wrong,
        caption=_caption,
        remarks=_remarks,
        sections=_sections,
        describe=_describe,
        usage=_usage,
    )


def _cells(predictions: zooft.Predictions, _labels: Any, _fitted: Any) -> Mapping[str, Sequence[Any]]:
    """Embeddings of length 1 as JSON; seven digits are all of a float32."""
    rows = normalise(predictions[_EMBEDDING])
    return {_EMBEDDING: ["[" + ", ".join(f"{number:.7g}" for number in row) + "]" for row in rows]}


def _brief(cells: Mapping[str, Any], _labels: Any) -> Mapping[str, Any]:
    if not cells[_EMBEDDING]:
        return {_EMBEDDING: ""}
    numbers = json.loads(cells[_EMBEDDING])
    return {_EMBEDDING: f"{', '.join(f'{number:.3f}' for number in numbers[:4])}, … ({len(numbers)} numbers)"}


def _about(_labels: Any, fitted: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"threshold": fitted.get("threshold")}


def _opening(_labels: Any, fitted: Mapping[str, Any]) -> Sequence[str]:
    if "threshold" not in fitted:
        return ()
    return (
        f"two embeddings are of the same where their cosine distance is at most {fitted['threshold']:.4f}; 'zooft "
        "index' and 'zooft search' compare pictures",
    )


def _nearest(predictions: zooft.Predictions) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Of each row whether the nearest other picture shows another, and by how much it is nearer than the same."""
    wrong, margin = np.zeros(len(predictions), bool), np.full(len(predictions), -2.0)
    for part in galleries(predictions.columns):
        others = part.others
        for queries, places, similar in nearest(part, len(part.rows) - 1):
            same = part.identities[places] == part.identities[queries][:, None]
            nearest_same = np.where(same, similar, -np.inf).max(1, initial=-np.inf)
            nearest_other = np.where(~same, similar, -np.inf).max(1, initial=-np.inf)
            can = (others[queries] > 0) & np.isfinite(nearest_other)
            rows = part.rows[queries]
            margin[rows[can]] = (nearest_other - nearest_same)[can]
            wrong[rows] = can & (nearest_other > nearest_same)
    return wrong, margin


def _worst(predictions: zooft.Predictions, _labels: Any) -> NDArray[Any]:
    return _nearest(predictions)[1]


def _wrong(predictions: zooft.Predictions, _labels: Any) -> NDArray[Any]:
    return _nearest(predictions)[0]


def _caption(predictions: zooft.Predictions, _labels: Any, _fitted: Any) -> tuple[str, Sequence[str]]:
    target = predictions.samples[0].target if len(predictions.samples) else None
    return (target.name if target is not None else "unknown"), ()


def _remarks(evaluation: Any, _labels: Any) -> Sequence[str]:
    found = evaluation.details
    parts = [
        f"{found['pictures']:,} pictures of {found['identities']:,} identities that weren't trained on, compared "
        "with each other"
        if evaluation.split != "train"
        else f"{found['pictures']:,} pictures of {found['identities']:,} identities, compared with each other"
    ]
    if found.get("copies"):
        parts.append(f"{found['copies']:,} are copies of others, and never found by these")
    if found.get("distractors"):
        parts.append(f"{found['distractors']:,} are alone of their identity: searched among, and never searched for")
    if "tar_at_threshold" in found:
        parts.append(
            f"at the threshold, {found['tar_at_threshold']:.1%} of {found['same_pairs']:,} pairs of the same are "
            f"accepted, and {found['far_at_threshold']:.2%} of {found['other_pairs']:,} pairs of others"
        )
    return ("; ".join(parts),)


def _sections(evaluated: Any, labels: Any, fitted: Mapping[str, Any], _rule: str) -> Sequence[Any]:
    return [_words(evaluated.evaluation, labels), *report.of_split(evaluated, fitted)]


def _words(evaluation: Any, labels: Any) -> zooft.Table:
    found = evaluation.details
    rows = [(text.capitalize(),) for text in _remarks(evaluation, labels)[0].split("; ")]
    counts = [(f"{found[name]:,} {name.replace('_', ' ')}",) for name in ("same_pairs", "other_pairs")]
    return zooft.Table(
        title=f"What was compared ({evaluation.split})", columns=("Pictures and pairs",), rows=(*rows, *counts)
    )


def _describe(_labels: Any, fitted: Mapping[str, Any], _options: Mapping[str, Any]) -> Any:
    return zooft.Description(
        aim="tell whether pictures show the same",
        purpose="It turns a picture into an embedding: near ones show the same person or thing.",
        head="an embedding",
        output=(
            "The file gives an embedding of length 1: 1 - a·b is the cosine distance of two pictures.",
            *(
                (f"They show the same where it is at most {fitted['threshold']:.4f} ({fitted['rule']}).",)
                if "threshold" in fitted
                else ()
            ),
        ),
        fitted="the threshold" if "threshold" in fitted else "",
    )


def _usage(_labels: Any, fitted: Mapping[str, Any], _rule: str, _group_name: str) -> Sequence[str]:
    lines = ['embeddings = outputs["embedding"]', "distances = 1 - embeddings @ embeddings.T"]
    return [*lines, f"print(distances <= {fitted['threshold']:.6f})"] if "threshold" in fitted else lines
