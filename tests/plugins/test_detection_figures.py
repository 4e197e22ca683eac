"""Average precision and what belongs to it, against pycocotools and faster-coco-eval, and by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import zooft
from zooft_detection import evaluation, matching
from zooft_detection.target import Boxes

CLASSES = 3
LABELS = tuple(zooft.Label(name=name) for name in ("cell", "clump", "dust"))
NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "recall")
PLACES = (0, 1, 2, 3, 4, 5, 8)
"""Of these among pycocotools' twelve figures."""


def a_case(seed: int, *, pictures: int = 12, crowds: bool = False) -> tuple[list[Boxes], dict[str, NDArray[Any]]]:
    """True boxes of all sizes, and found ones near them, twice, elsewhere and of other classes."""
    rng = np.random.default_rng(seed)
    targets, answers = [], {name: [] for name in ("boxes", "scores", "labels")}
    for _ in range(pictures):
        count = int(rng.integers(0, 9))
        corner, size = (
            rng.uniform(0, 300, (count, 2)),
            rng.choice([12, 40, 150], (count, 1)) * rng.uniform(0.6, 1.4, (count, 2)),
        )
        true = np.concatenate([corner, corner + size], 1)
        classes = rng.integers(0, CLASSES, count)
        ignored = tuple((rng.random(count) < 0.2).tolist()) if crowds else (False,) * count
        targets.append(Boxes((480, 640), tuple(map(tuple, true.tolist())), tuple(classes.tolist()), ignored))
        near = np.concatenate(
            [true + rng.normal(0, 0.08, true.shape) * size.repeat(2, 0).reshape(-1, 4) for _ in range(2)]
        )
        far = rng.uniform(0, 300, (10, 2))
        boxes = np.concatenate([near, np.concatenate([far, far + rng.uniform(5, 120, (10, 2))], 1)])
        labels = np.concatenate([classes, classes, rng.integers(0, CLASSES, 10)])
        labels = np.where(rng.random(len(labels)) < 0.15, rng.integers(0, CLASSES, len(labels)), labels)
        scores = rng.uniform(0.05, 1, len(labels)).astype(np.float32)
        order = np.argsort(-scores)
        for name, values, empty in (("boxes", boxes, 0.0), ("scores", scores, 0.0), ("labels", labels, -1)):
            padded = np.full((30, *values.shape[1:]), empty, values.dtype)
            padded[: len(order)] = values[order]
            answers[name].append(padded)
    return targets, {name: np.stack(found) for name, found in answers.items()}


def predictions_of(targets: list[Boxes], answers: dict[str, NDArray[Any]]) -> zooft.Predictions:
    columns = evaluation.deployed_columns(answers, targets, LABELS, {})
    return zooft.Predictions(samples=(), columns=columns)


def as_coco(targets: list[Boxes], answers: dict[str, NDArray[Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results in COCO's form."""
    images = [{"id": n, "height": 480, "width": 640, "file_name": str(n)} for n in range(len(targets))]
    annotations, results = [], []
    for image, target in enumerate(targets):
        for (x, y, right, bottom), name, crowd in zip(target.corners, target.classes, target.ignored, strict=True):
            box = [x, y, right - x, bottom - y]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": name,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        for (x, y, right, bottom), score, name in zip(
            *(answers[k][image] for k in ("boxes", "scores", "labels")), strict=True
        ):
            if name >= 0:
                box = [float(x), float(y), float(right - x), float(bottom - y)]
                results.append({"image_id": image, "category_id": int(name), "bbox": box, "score": float(score)})
    categories = [{"id": n, "name": label.name} for n, label in enumerate(LABELS)]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}, results


def outside_figures(
    library: str, truth: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[list[float], NDArray[Any]]:
    """The twelve figures, and the precisions behind them ``(T, R, C, A)``."""
    if library == "pycocotools":
        coco = pytest.importorskip("pycocotools.coco").COCO
        evaluator = pytest.importorskip("pycocotools.cocoeval").COCOeval
    else:
        coco = pytest.importorskip("faster_coco_eval").COCO
        evaluator = pytest.importorskip("faster_coco_eval").COCOeval_faster
    with contextlib.redirect_stdout(io.StringIO()):
        given = coco()
        given.dataset = truth
        given.createIndex()
        found = evaluator(given, given.loadRes(results), "bbox")
        for step in (found.evaluate, found.accumulate, found.summarize):
            step()
    return list(found.stats), found.eval["precision"][..., -1]


@pytest.mark.parametrize("library", ["pycocotools", "faster_coco_eval"])
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_figures_are_those_of_coco_s_own_code(library: str, seed: int, crowds: bool) -> None:
    targets, answers = a_case(seed, crowds=crowds)
    ours = evaluation.metrics(predictions_of(targets, answers), LABELS)
    stats, curves = outside_figures(library, *as_coco(targets, answers))
    assert [ours[name] for name in NAMES] == pytest.approx([stats[place] for place in PLACES], abs=1e-9)
    for number, label in enumerate(LABELS):
        assert ours[f"ap/{label.name}"] == pytest.approx(curves[:, :, number, 0].mean(), abs=1e-9)
        assert ours[f"ap50/{label.name}"] == pytest.approx(curves[0, :, number, 0].mean(), abs=1e-9)


def test_a_picture_drawn_twice_counts_twice_as_in_coco() -> None:
    targets, answers = a_case(5)
    rows = np.array([0, 3, 3, 7, 7, 7])
    ours = predictions_of(targets, answers).rows(rows)
    found = evaluation.metrics(zooft.Predictions(samples=(), columns=ours), LABELS)
    drawn = as_coco([targets[row] for row in rows], {name: column[rows] for name, column in answers.items()})
    assert found["ap"] == pytest.approx(outside_figures("pycocotools", *drawn)[0][0], abs=1e-9)


def test_the_hundred_likeliest_boxes_of_a_class_count() -> None:
    truth = Boxes((480, 640), ((0.0, 0.0, 50.0, 50.0),), (0,), (False,))
    boxes = np.tile(np.array([[100.0, 100, 120, 120]]), (1, 120, 1))
    boxes[0, 110] = truth.corners[0]
    answers = {"boxes": boxes, "scores": np.linspace(0.9, 0.1, 120)[None], "labels": np.zeros((1, 120), np.int64)}
    ours = evaluation.metrics(predictions_of([truth], answers), LABELS)
    stats, _ = outside_figures("pycocotools", *as_coco([truth], answers))
    assert ours["ap"] == stats[0] == 0


def test_nothing_to_find_has_no_figures() -> None:
    answers = {"boxes": np.zeros((1, 4, 4)), "scores": np.zeros((1, 4)), "labels": np.full((1, 4), -1)}
    found = evaluation.metrics(predictions_of([Boxes((480, 640))], answers), LABELS)
    assert all(np.isnan(value) for value in found.values())


def one_class() -> zooft.Predictions:
    """Three objects in two pictures; found from above: right, wrong, right, wrong, wrong."""
    true = ((10.0, 10.0, 50.0, 50.0), (100.0, 100.0, 150.0, 150.0))
    targets = [Boxes((200, 200), true, (0, 0), (False,) * 2), Boxes((200, 200), true[:1], (0,), (False,))]
    beside = (60.0, 10.0, 90.0, 40.0)
    answers = {
        "boxes": np.array([[true[0], beside, true[1]], [beside, (0, 150, 40, 190), (0, 0, 0, 0)]]),
        "scores": np.array([[0.9, 0.8, 0.7], [0.4, 0.2, 0.0]]),
        "labels": np.array([[0, 0, 0], [0, 0, -1]]),
    }
    return predictions_of(targets, answers)


def test_the_threshold_has_the_largest_f1_and_lies_between_two_scores() -> None:
    fit = evaluation.evaluation_part().fit(one_class(), LABELS, "", None)
    # F1 by hand: 2*1/(1+3), 2*1/(2+3), 2*2/(3+3) = 0.667, 2*2/(4+3), 2*2/(5+3)
    assert fit["thresholds"] == [pytest.approx(0.55), 0.5, 0.5]
    found = evaluation.details(one_class(), None, LABELS, fit, False)["classes"][0]
    assert (found["precision"], found["recall"], found["wrong_per_image"]) == (2 / 3, 2 / 3, 0.5)


def test_wrong_boxes_where_so_many_objects_are_found() -> None:
    found = evaluation.details(one_class(), None, LABELS, {}, False)
    # 50 % needs both right ones (2 of 3), the wrong one between them costs 1 in two pictures; the rest is never found
    assert found["sensitivities"][:2] == [0.5, 0.7]
    assert found["classes"][0]["froc"] == [0.5, None, None, None, None]


def test_a_picture_s_own_figure_distinguishes_good_ones_from_bad_ones() -> None:
    worst = evaluation.row_ap50(one_class())
    assert worst[0] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert worst[1] == 0


def test_rows_are_small() -> None:
    targets, answers = a_case(0)
    columns = predictions_of(targets, answers).columns
    assert all(column[0].size <= 10_000 for column in columns.values())
    assert set(columns) == {matching.SCORES, matching.LABELS, matching.HITS, matching.LEFT_OUT, matching.TRUTHS}
