"""Heads, views, the assignment of boxes to places, the loss and the choice of boxes, each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

import zooft
import zooft_detection
from zooft import testing
from zooft_detection import demo, deploy, graph, heads, losses, options, pyramid, training, views
from zooft_detection.target import Boxes

LABELS = (zooft.Label(name="cell"), zooft.Label(name="clump"))


def spec(rows: int = 96, columns: int = 128) -> zooft.InputSpec:
    return zooft.InputSpec(
        height=rows,
        width=columns,
        resize=rows,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        mode="letterbox",
        interpolation="bilinear",
    )


def taps(rows: int, columns: int, *strides: int) -> list[zooft.Tap]:
    return [
        zooft.Tap(stage=str(s), layout="map", channels=8, rows=-(-rows // s), columns=-(-columns // s), stride=s)
        for s in strides
    ]


def test_the_head_passes_the_kit() -> None:
    (head,) = heads.heads()
    testing.check_head(head, {"classes": 3, "centreness": 1, "distances": 4, "squares": 4})


def test_the_task_passes_the_kit(tmp_path: Path) -> None:
    demo.shapes(tmp_path, 0)
    (task,) = zooft_detection.zooft_register_tasks()
    testing.check_task(task, tmp_path, heads=zooft_detection.zooft_register_heads())


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32), (16,), (4,), (14, 28)])
def test_places_cover_the_input_with_five_sizes_at_most(strides: tuple[int, ...]) -> None:
    """Also of sizes that no stride divides."""
    rows, columns = 90, 130
    head = pyramid.Fcos(taps(rows, columns, *strides), {"classes": 2, "centreness": 1, "distances": 4, "squares": 4})
    maps = [torch.randn(2, 8, tap.rows, tap.columns) for tap in taps(rows, columns, *strides)]
    made = head.eval()(maps)
    squares = made["squares"][0]
    assert {made[name].shape[:2] for name in made} == {(2, len(squares))}
    widths = (squares[:, 2] - squares[:, 0]).unique()
    first = min((s for s in strides if s >= 8), default=max(strides))
    assert widths.min() == first
    own = squares[squares[:, 2] - squares[:, 0] == first]
    assert own[:, :2].amin() == 0
    assert own[:, 2].max() >= columns
    assert own[:, 3].max() >= rows


def by_loops(squares: Tensor, boxes: Tensor) -> list[int]:
    """The assignment as FCOS's paper words it, -1 for none."""
    widths = [float(s[2] - s[0]) for s in squares]
    found = []
    for square, width in zip(squares, widths, strict=True):
        x, y = float(square[0] + width / 2), float(square[1] + width / 2)
        best, area = -1, float("inf")
        for number, (left, top, right, bottom) in enumerate(boxes.tolist()):
            sides = (x - left, y - top, right - x, bottom - y)
            centre = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < 1.5 * width
            lower = 0 if width == min(widths) else 4 * width
            upper = float("inf") if width == max(widths) else 8 * width
            size = (right - left) * (bottom - top)
            if min(sides) > 0 and centre and lower < max(sides) <= upper and size < area:
                best, area = number, size
        found.append(best)
    return found


def test_places_are_responsible_for_boxes_as_the_paper_says() -> None:
    squares = pyramid._squares(taps(256, 256, 8, 16, 32))
    corner = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)) * 150
    size = torch.tensor([10.0, 20, 40, 60, 80, 100]).repeat(2)[:, None] * torch.tensor([[1.0, 0.7]])
    boxes = torch.cat([corner, corner + size], 1)
    none = torch.zeros(1, 12, dtype=torch.bool)
    found = losses.assign(squares[None], boxes[None], torch.zeros(1, 12, dtype=torch.int64), none)
    ours = torch.where(found.found[0], found.box[0], -1).tolist()
    assert ours == by_loops(squares, boxes)
    assert len(set(ours)) > 8


def a_batch() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    squares = pyramid._squares(taps(96, 128, 8, 16, 32))
    random = torch.Generator().manual_seed(1)
    places = len(squares)
    outputs = {
        "classes": torch.randn(3, places, 2, generator=random) - 3,
        "centreness": torch.randn(3, places, 1, generator=random),
        "distances": torch.rand(3, places, 4, generator=random) * 3,
        "squares": squares.expand(3, -1, -1),
    }
    items = [
        {
            "boxes": np.array([[10, 10, 60, 70], [70, 20, 120, 60.0]]),
            "labels": np.array([0, 1]),
            "ignored": np.zeros(2, bool),
        },
        {"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int), "ignored": np.zeros(0, bool)},
        {"boxes": np.array([[0, 0, 30, 30.0]]), "labels": np.array([1]), "ignored": np.array([False])},
    ]
    return outputs, training.collate(items)


def test_the_loss_is_torchvision_s_own() -> None:
    """Its `FCOSHead.compute_loss` on our assignment, put together from its means over the places of boxes."""
    outputs, targets = a_batch()
    ours = losses.BoxLoss()(outputs, targets)
    found = losses.assign(outputs["squares"], targets["boxes"], targets["labels"], targets["ignored"])
    head = torchvision.models.detection.fcos.FCOSHead(64, 1, 2, 1)
    truth = [
        {"boxes": b[n >= 0], "labels": n[n >= 0]} for b, n in zip(targets["boxes"], targets["labels"], strict=True)
    ]
    theirs = head.compute_loss(
        truth,
        {
            "cls_logits": outputs["classes"],
            "bbox_regression": outputs["distances"],
            "bbox_ctrness": outputs["centreness"],
        },
        list(outputs["squares"]),
        list(torch.where(found.found, found.box, -1)),
    )
    assert float(ours.total) == pytest.approx(float(sum(theirs.values())) * int(found.found.sum()), rel=1e-5)
    assert float(ours.weight) == int(found.found.sum()) + 1  # one for the picture without objects


def test_regions_that_count_nowhere_cost_nothing() -> None:
    outputs, targets = a_batch()
    outputs["classes"] = outputs["classes"][:1].clone()
    outputs = {name: tensor[:1] for name, tensor in outputs.items()}
    targets = {name: tensor[:1].clone() for name, tensor in targets.items()}
    targets["ignored"][0, 1] = True
    before = float(losses.BoxLoss()(outputs, targets).total)
    squares = outputs["squares"][0]
    middle = (squares[:, :2] + squares[:, 2:]) / 2
    inside = ((middle > targets["boxes"][0, 1, :2]) & (middle < targets["boxes"][0, 1, 2:])).all(1)
    outputs["classes"][0, inside] = 9.0
    assert float(losses.BoxLoss()(outputs, targets).total) == pytest.approx(before)
    outputs["classes"][0, ~inside] = 9.0
    assert float(losses.BoxLoss()(outputs, targets).total) > before + 10


def some_boxes(pictures: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    corner = torch.rand(pictures, 200, 2, generator=random) * 80
    boxes = torch.cat([corner, corner + 5 + torch.rand(pictures, 200, 2, generator=random) * 40], -1)
    return boxes, torch.rand(pictures, 200, 4, generator=random) ** 3


@pytest.mark.parametrize("most", [5, 100, 300])
def test_boxes_are_chosen_as_torchvision_does(most: int) -> None:
    boxes, scores = some_boxes()
    found = graph.select(boxes, scores, most=most, iou=0.5)
    for row in range(len(boxes)):
        place, name = torch.nonzero(scores[row] > graph.FLOOR, as_tuple=True)
        stored = torchvision.ops.batched_nms(boxes[row, place], scores[row, place, name], name, 0.5)[:most]
        count = int(found.counts[row])
        assert count == len(stored)
        assert torch.equal(found.boxes[row, :count], boxes[row, place[stored]])
        assert torch.equal(found.scores[row, :count], scores[row, place[stored], name[stored]])
        assert torch.equal(found.labels[row, :count], name[stored])
        assert not found.boxes[row, count:].any()
        assert not found.scores[row, count:].any()
        assert (found.labels[row, count:] == -1).all()


def test_boxes_beside_the_picture_are_none() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 0, 20, 10], [0, 7, 10, 7]]])
    found = graph.select(boxes, torch.full((1, 3, 1), 0.9), most=3, iou=0.5)
    assert found.counts.tolist() == [1]


def test_more_boxes_than_places_are_none() -> None:
    found = graph.select(torch.tensor([[[0.0, 0, 9, 9]]]), torch.full((1, 1, 1), 0.9), most=7, iou=0.5)
    assert found.boxes.shape == (1, 7, 4)
    assert found.labels.tolist() == [[0, -1, -1, -1, -1, -1, -1]]


@pytest.mark.parametrize("augment", ["light", "medium"])
def test_boxes_follow_the_pixels(augment: str) -> None:
    """A bright rectangle lies where its box does, in every random view."""
    picture = np.zeros((100, 140, 3), np.uint8)
    picture[30:70, 40:110] = 255
    target = Boxes((100, 140), ((40.0, 30.0, 110.0, 70.0),), (0,), (False,))
    view = views.augment(spec(), options.DetectionOptions(augment=augment))  # type: ignore[arg-type]
    assert view is not None
    part, seen = training.training_part(), 0
    assert part.move is not None
    for seed in range(30):
        torch.manual_seed(seed)
        made = view(picture)
        assert made.geometry is not None
        moved = part.move(part.encode(target, LABELS), made.geometry)
        bright = np.asarray(made.image)[0] > 60
        if not len(moved["boxes"]):
            assert not bright.any()
            continue
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        corners = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert moved["boxes"][0] == pytest.approx(corners, abs=2)
        seen += 1
    assert seen > 20


def test_what_a_view_hardly_shows_counts_nowhere() -> None:
    part = training.training_part()
    assert part.move is not None
    geometry = zooft.Geometry(matrix=np.array([[1.0, 0, -30], [0, 1, 0]]), source=(40, 80), view=(40, 50))
    target = Boxes((40, 80), ((0.0, 0, 20, 20), (20, 0, 34, 20), (20, 0, 60, 20)), (0, 0, 1), (False,) * 3)
    moved = part.move(part.encode(target, LABELS), geometry)
    assert moved["labels"].tolist() == [0, 1]
    assert moved["ignored"].tolist() == [True, False]


def answer(*boxes: tuple[tuple[float, float, float, float], float, int]) -> dict[str, Any]:
    made = {
        "boxes": np.zeros((1, 4, 4)),
        "scores": np.zeros((1, 4)),
        "labels": np.full((1, 4), -1),
        "count": np.array([len(boxes)]),
    }
    for place, (corners, score, label) in enumerate(boxes):
        made["boxes"][0, place], made["scores"][0, place], made["labels"][0, place] = corners, score, label
    return made


@pytest.mark.parametrize(
    ("other", "lost"),
    [
        ([((1, 1, 9, 9.4), 0.9, 0), ((20, 20, 40, 40), 0.8, 1)], 0),
        ([((20, 20, 40, 40), 0.8, 1), ((1, 1, 9, 9), 0.9, 0)], 0),
        ([((1, 1, 9, 9.6), 0.9, 0), ((20, 20, 40, 40), 0.8, 1)], 2),
        ([((1, 1, 9, 9), 0.9, 1), ((20, 20, 40, 40), 0.8, 1)], 2),
        ([((1, 1, 9, 9), 0.9, 0)], 1),
        ([((1, 1, 9, 9), 0.9, 0), ((20, 20, 40, 40), 0.8, 1), ((5, 5, 9, 9), 0.3, 0)], 0),
        ([((1, 1, 9, 9), 0.9, 0), ((20, 20, 40, 40), 0.7, 1)], 2),
    ],
)
def test_answers_agree_box_by_box_above_the_thresholds(other: Any, lost: int) -> None:
    ours = answer(((1, 1, 9, 9), 0.9, 0), ((20, 20, 40, 40), 0.8, 1))
    agree = deploy.deployment_part().agree
    found = agree(ours, answer(*other), LABELS, {"thresholds": [0.5, 0.5]}, {})
    assert [fault.split()[0] for fault in found] == ([str(lost)] if lost else [])


@pytest.mark.parametrize("given", [{"size": (1, 2, 3)}, {"size": (8,)}, {"max_boxes": 0}, {"nms_iou": 1.0}])
def test_options_that_make_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(zooft.ConfigError, match=next(iter(given)).replace("_", "-")):
        options.DetectionOptions(**given)


def test_the_plugin_passes_the_kit(tmp_path: Path) -> None:
    testing.check_plugin(zooft_detection, folder=tmp_path)


def test_distances_that_have_become_small_still_learn() -> None:
    """Under torchvision's ReLU they wouldn't: all boxes stay points."""
    head = pyramid.Fcos(taps(64, 64, 8, 16, 32), {"classes": 2, "centreness": 1, "distances": 4, "squares": 4})
    torch.nn.init.constant_(head.head.regression_head.bbox_reg.bias, -5.0)
    made = head([torch.randn(1, 8, tap.rows, tap.columns) for tap in taps(64, 64, 8, 16, 32)])
    assert (made["distances"] > 0).all()
    made["distances"].sum().backward()
    assert head.head.regression_head.bbox_reg.bias.grad.abs().min() > 0


def test_classes_without_objects_are_no_hindrance(tmp_path: Path) -> None:
    part = training.training_part()
    assert part.absent([Boxes((9, 9))], LABELS) == ()
