"""The problem of metric learning: embeddings of identities, new ones too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_retrieval import presentation
from zooft_retrieval.identities import Identity, number_of, numbers_of
from zooft_retrieval.metrics import AUROC, PRIMARY, figures, galleries, normalise, roc
from zooft_retrieval.options import RetrievalOptions, check

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

EMBEDDING, SIZE = "embedding", "size"
_COSINE = 0.99999
"""How alike a file's embedding must at least be to the model's."""
_CURVE = 200
"""Points of a curve in the run's record."""


def retrieval() -> zooft.Problem:
    """The problem. A target is an `Identity`."""
    return zooft.Problem(
        name="retrieval",
        training=zooft.TrainingPart(
            outputs=lambda labels, options: {EMBEDDING: options.embedding_size},
            loss=_loss,
            check=_check,
            prepare=_prepare,
            encode=_encode,
            order=_order,
            unlearnable=_unlearnable,
            check_options=check,
            coupled=True,
        ),
        evaluation=zooft.EvaluationPart(
            columns=_columns,
            metrics=lambda predictions, labels: figures(predictions.columns),
            primary=PRIMARY,
            fit=_fit,
            details=_details,
            telling=("recall_at_1", AUROC),
            guessing=lambda labels: {AUROC: 0.5},
        ),
        deployment=zooft.DeploymentPart(outputs=_outputs, graph=_graph, columns=_deploy_columns, agree=_agree),
        presentation=presentation.presentation(),
        options=RetrievalOptions,
    )


def _loss(_labels: Any, targets: Sequence[Any], options: RetrievalOptions) -> nn.Module:
    from zooft_retrieval.losses import MetricLoss

    return MetricLoss(targets, options)


def _order(targets: Sequence[Any], options: RetrievalOptions, size: int, seed: int) -> Sequence[int]:
    from zooft_retrieval.losses import order

    return order(targets, options, size, seed)


def _check(target: Any, _labels: Any) -> str:
    fits = isinstance(target, Identity) and bool(target.name) and bool(target.content)
    return "" if fits else "an Identity: the name of who or what is shown, and the picture's content"


def _prepare(labels: Sequence[zooft.Label], _targets: Any, options: RetrievalOptions) -> tuple[zooft.Label, ...]:
    """With the size of an embedding, which the file's output has."""
    return tuple(replace(label, constants={SIZE: float(options.embedding_size)}) for label in labels)


def _encode(target: Any, _labels: Any) -> NDArray[np.int64]:
    return np.array(number_of(target.name), np.int64)


def _unlearnable(targets: Sequence[Any], _labels: Any) -> str:
    counts: dict[str, int] = {}
    for target in targets:
        counts[target.name] = counts.get(target.name, 0) + 1
    if len(counts) < 2:
        return f"all pictures show {next(iter(counts), 'nothing')}; at least two identities are needed"
    if max(counts.values()) < 2:
        return (
            f"each of the {len(counts):,} identities has a single picture; there is nothing to learn what makes one "
            "the same"
        )
    return ""


def _columns(outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any], _labels: Any) -> Mapping[str, NDArray[Any]]:
    return {EMBEDDING: normalise(outputs[EMBEDDING]), **numbers_of(targets)}


def _deploy_columns(
    answers: Mapping[str, NDArray[Any]], targets: Sequence[Any], _labels: Any, _fitted: Any
) -> Mapping[str, NDArray[Any]]:
    return {EMBEDDING: answers[EMBEDDING].astype(np.float32), **numbers_of(targets)}


def _fit(predictions: zooft.Predictions, _labels: Any, _rule: str, options: RetrievalOptions) -> Mapping[str, Any]:
    found = roc(galleries(predictions.columns))
    if not found.defined:
        return {}
    at = found.threshold(options.far)
    if at + 1 < len(found.thresholds):  # between two pairs, so that rounding decides none of them
        similar = (found.thresholds[at] + found.thresholds[at + 1]) / 2
    else:
        similar = found.thresholds[at]
    return {
        "threshold": float(1 - similar),
        "threshold_of": "cosine distance (1 - a·b); the same where it is at most this",
        "rule": f"FAR at most {options.far:g}" if options.far > 0 else "largest TAR - FAR",
        "tar": float(found.tar[at]),
        "far": float(found.far[at]),
    }


def _details(
    predictions: zooft.Predictions, _groups: Any, _labels: Any, fitted: Mapping[str, Any], _intervals: bool
) -> Mapping[str, Any]:
    parts = galleries(predictions.columns)
    found = roc(parts)
    counts = {
        "identities": int(sum(len(np.unique(part.identities)) for part in parts)),
        "pictures": int(sum(len(part.rows) for part in parts)),
        "copies": int(len(predictions) - sum(len(part.rows) for part in parts)),
        "distractors": int(sum((part.others == 0).sum() for part in parts)),
    }
    if not found.defined:
        return {**counts, "same_pairs": 0, "other_pairs": 0}
    counts |= {"same_pairs": int(found.same[-1]), "other_pairs": int(found.other[-1])}
    return {**counts, **_at_threshold(found, fitted), "roc": _curve(found)}


def _at_threshold(found: Any, fitted: Mapping[str, Any]) -> Mapping[str, float]:
    """What the fitted threshold does on these pairs."""
    if "threshold" not in fitted:
        return {}
    accepted = found.thresholds >= 1 - fitted["threshold"]
    tar, far = (float(share[accepted].max(initial=0.0)) for share in (found.tar, found.far))
    return {"tar_at_threshold": tar, "far_at_threshold": far}


def _curve(found: Any) -> Mapping[str, list[float]]:
    """Some points, denser where FAR is small."""
    wanted = np.unique(np.concatenate([np.geomspace(1e-5, 1, _CURVE // 2), np.linspace(0, 1, _CURVE // 2)]))
    at = np.unique(np.clip(np.searchsorted(found.far, wanted, side="right") - 1, 0, None))
    return {
        "far": found.far[at].tolist(),
        "tar": found.tar[at].tolist(),
        "distance": (1 - found.thresholds[at]).tolist(),
    }


# deployment


def _outputs(labels: Sequence[zooft.Label], _fitted: Any) -> Sequence[zooft.Output]:
    return (
        zooft.Output(
            name=EMBEDDING,
            dtype="float32",
            axes=("batch", int(labels[0].constants[SIZE])),
            meaning=(
                "of length 1; 1 - a·b is the cosine distance of two, the same identity where it is at most "
                "fitted.threshold"
            ),
        ),
    )


def _graph(_labels: Any, _fitted: Any) -> nn.Module:
    from zooft_retrieval.graph import Normalised

    return Normalised()


def _agree(
    torch: Mapping[str, NDArray[Any]], file: Mapping[str, NDArray[Any]], _labels: Any, _fitted: Any, _slack: Any
) -> tuple[str, ...]:
    ours, theirs = (np.asarray(each[EMBEDDING], np.float64) for each in (torch, file))
    if not len(ours):
        return ()
    faults = []
    lengths = np.linalg.norm(theirs, axis=1)
    if np.abs(lengths - 1).max() > 1e-4:
        faults.append(f"an embedding has the length {lengths[np.abs(lengths - 1).argmax()]:.6f}, expected 1")
    cosine = (ours * theirs).sum(1) / np.maximum(np.linalg.norm(ours, axis=1) * lengths, 1e-12)
    if not cosine.min() >= _COSINE:
        faults.append(f"an embedding's cosine to the model's is {cosine.min():.7f} (at least {_COSINE} passes)")
    return tuple(faults)
