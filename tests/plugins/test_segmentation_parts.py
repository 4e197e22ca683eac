"""Losses, figures, views and heads of masks, against what numpy and PyTorch's own functions say."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist, directed_hausdorff
from torch import nn

import zooft
from zooft import testing
from zooft_segmentation import areas, borders, classes, decoders, heads, masks, views
from zooft_segmentation.decoders import Ladder
from zooft_segmentation.graph import Masks
from zooft_segmentation.losses import PictureLoss
from zooft_segmentation.options import SegmentationOptions
from zooft_segmentation.training import class_weights

CLASSES = 3
SPEC = zooft.InputSpec(height=64, width=96, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3, mode="letterbox")


def batch(rows: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, CLASSES, 4, 6, generator=random)
    targets = torch.randint(0, CLASSES, (rows, 16, 24), generator=random, dtype=torch.uint8)
    targets[:, :3] = masks.OUTSIDE
    return logits, targets


def value(kind: str, logits: torch.Tensor, targets: torch.Tensor, weights: list[float] | None = None) -> float:
    total, weight, _ = PictureLoss(kind, weights)({"logits": logits}, targets)
    return float(total / weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_a_coarse_map_are_enlarged_as_torch_does(dtype: torch.dtype) -> None:
    logits, targets = batch()
    given = logits.to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    total, weight, _ = PictureLoss("ce", None)({"logits": given}, targets)
    (found,) = torch.autograd.grad(total / weight, given)
    exact = given.detach().double().requires_grad_()
    large = nn.functional.interpolate(exact, targets.shape[-2:], mode="bilinear", align_corners=False)
    truth = nn.functional.cross_entropy(large, targets.long(), ignore_index=masks.OUTSIDE)
    assert (total / weight).item() == pytest.approx(truth.item(), rel=1e-6)
    (expected,) = torch.autograd.grad(truth, exact)
    tolerance = 1e-6 if dtype is torch.float32 else 1e-2
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def test_the_likeliest_class_is_numpy_s_and_of_equals_the_first() -> None:
    outputs = {"logits": torch.randint(0, 3, (2, 5, 8, 9)).float()}  # most places have a tie
    back = SimpleNamespace(maps=lambda maps: maps)
    mask, _ = Masks(probabilities=False)(outputs, (), back)
    wanted = outputs["logits"].numpy().argmax(1)
    assert np.array_equal(mask.numpy(), wanted)
    labels = tuple(zooft.Label(name=str(n)) for n in range(5))
    part = areas.evaluation_part().columns({"logits": outputs["logits"].numpy()}, list(wanted.astype(np.uint8)), labels)
    assert (part[areas.AREAS][..., areas.BOTH] == part[areas.AREAS][..., areas.TRUE]).all()


def test_the_pyramid_decoder_gives_what_the_library_s_gives() -> None:
    from segmentation_models_pytorch.decoders.fpn.decoder import FPNDecoder

    torch.manual_seed(0)
    channels = [8, 12, 16, 20]
    library = FPNDecoder(channels, encoder_depth=3, **decoders._FPN_WIDTHS).eval()
    ours = decoders._fpn(channels).eval()
    ours.load_state_dict(library.state_dict())
    maps = [torch.randn(2, size, 32 >> level, 48 >> level) for level, size in enumerate(channels)]
    torch.testing.assert_close(ours(maps), library(maps), rtol=1e-5, atol=1e-5)


# losses


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_cross_entropy_is_pytorch_s_of_each_picture(weights: list[float] | None) -> None:
    logits, targets = batch()
    grown = nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False)
    given = None if weights is None else torch.tensor(weights)
    each = [
        nn.functional.cross_entropy(grown[n : n + 1], targets[n : n + 1].long(), weight=given, ignore_index=255)
        for n in range(len(logits))
    ]
    assert value("ce", logits, targets, weights) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)


def test_dice_is_its_formula_of_each_picture() -> None:
    """1 - 2 |A and B| / (|A| + |B|) with probabilities, the mean over the classes that a picture has."""
    logits, targets = batch()
    targets[0][targets[0] == 2] = 0  # one that lacks a class
    found = (
        nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False).softmax(1).double().numpy()
    )
    lost = []
    for p, t in zip(found, targets.numpy(), strict=True):
        seen = t != 255
        each = [
            1 - 2 * (p[c] * (t == c) * seen).sum() / ((p[c] * seen).sum() + (t == c).sum())
            for c in range(CLASSES)
            if (t == c).any()
        ]
        lost.append(np.mean(each))
    assert value("dice", logits, targets) == pytest.approx(float(np.mean(lost)), rel=1e-5)


@pytest.mark.parametrize("kind", ["focal", "lovasz"])
def test_others_are_the_library_s_of_each_picture(kind: str) -> None:
    import segmentation_models_pytorch as smp

    logits, targets = batch()
    grown = nn.functional.interpolate(logits, (16, 24), mode="bilinear", align_corners=False)
    library = smp.losses.FocalLoss if kind == "focal" else smp.losses.LovaszLoss
    loss = library("multiclass", ignore_index=255)
    each = [loss(grown[n : n + 1], targets[n : n + 1].long()) for n in range(len(logits))]
    assert value(kind, logits, targets) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["ce+dice", "ce", "dice", "focal", "lovasz"])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.5]])
def test_losses_add_up_and_void_pictures_count_nothing(kind: str, weights: list[float] | None) -> None:
    logits, targets = batch()
    logits.requires_grad_()
    loss = PictureLoss(kind, weights)
    with torch.no_grad():
        whole = loss({"logits": logits}, targets)
        halves = [loss({"logits": logits[rows]}, targets[rows]) for rows in (slice(0, 1), slice(1, 4))]
    assert float(whole.total) == pytest.approx(sum(float(half.total) for half in halves), rel=1e-5)
    assert float(whole.weight) == sum(float(half.weight) for half in halves) == 4
    targets[1:] = masks.OUTSIDE
    with torch.no_grad():
        first = loss({"logits": logits}, targets)
    assert float(first.weight) == 1
    assert float(first.total) == pytest.approx(float(halves[0].total), rel=1e-5)
    none = loss({"logits": logits}, torch.full_like(targets, masks.OUTSIDE))
    none.total.backward()
    assert (float(none.total.detach()), float(none.weight)) == (0, 0)
    assert logits.grad is not None


def test_rare_classes_weigh_more() -> None:
    """Median frequency balancing by hand: frequencies 0.9, 0.1 and 0.5 where each is, of which the median is 0.5."""
    code = masks.Code(masks.Table((), ()))
    targets = [masks.Mask(Path(), code, counts) for counts in ((90, 10, 0, 0), (0, 0, 50, 0))]
    targets[1] = masks.Mask(Path(), code, (50, 0, 50, 0))
    shares = np.array([140 / 200, 10 / 100, 50 / 100])
    assert class_weights(targets) == pytest.approx([*(0.5 / shares), 1.0])
    rarest = [masks.Mask(Path(), code, (10_000, 1))]
    assert class_weights(rarest)[1] == 10


# figures


def pairs(count: int = 5) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(0)
    found = [rng.integers(0, CLASSES, (10 + n, 12), dtype=np.uint8) for n in range(count)]
    true = [np.where(rng.random(f.shape) < 0.6, f, rng.integers(0, 2, f.shape)).astype(np.uint8) for f in found]
    for each in true:
        each[:2] = masks.OUTSIDE
    return found, true


def test_figures_are_what_scikit_learn_says_of_all_pixels() -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, jaccard_score

    found, true = pairs()
    columns = areas.columns_of(found, true, CLASSES)
    labels = classes.labels_of([classes.ClassSpec(name) for name in "abc"])
    predictions = zooft.Predictions(samples=(), columns=columns)
    figures = areas.metrics(predictions, labels)
    ours, theirs = (np.concatenate([each.ravel() for each in some]) for some in (found, true))
    ours, theirs = ours[theirs != 255], theirs[theirs != 255]
    assert figures["miou"] == pytest.approx(jaccard_score(theirs, ours, average="macro"))
    assert figures["mdice"] == pytest.approx(f1_score(theirs, ours, average="macro"))
    assert figures["pixel_accuracy"] == pytest.approx(accuracy_score(theirs, ours))
    assert figures["mean_accuracy"] == pytest.approx(balanced_accuracy_score(theirs, ours))
    each = jaccard_score(theirs, ours, average=None)
    assert [figures[f"iou/{name}"] for name in "abc"] == pytest.approx(list(each))
    details = areas.details(predictions, None, labels, {}, False)
    assert details["confusion"] == confusion_matrix(theirs, ours).tolist()
    assert [row["pixels"] for row in details["classes"]] == np.bincount(theirs).tolist()


def test_a_class_that_no_mask_shows_has_no_figure_and_no_share_in_the_mean() -> None:
    found, true = pairs()
    true = [np.where(each == 2, 0, each) for each in true]
    figures = areas.metrics(
        zooft.Predictions(samples=(), columns=areas.columns_of(found, true, CLASSES)),
        classes.labels_of([classes.ClassSpec(name) for name in "abc"]),
    )
    assert np.isnan(figures["iou/c"])
    assert figures["miou"] == pytest.approx((figures["iou/a"] + figures["iou/b"]) / 2)


def test_a_picture_without_a_mask_has_shares_alone() -> None:
    found, _ = pairs(1)
    columns = areas.columns_of(found, [None], CLASSES)
    assert columns["areas"].sum() == 0
    assert columns["shares"][0] == pytest.approx(np.bincount(found[0].ravel(), minlength=3) / found[0].size)


@pytest.mark.parametrize(("count", "confused"), [(99, True), (100, False)])
def test_a_hundred_classes_have_no_confusion(count: int, confused: bool) -> None:
    columns = areas.columns_of([np.zeros((2, 2), np.uint8)], [np.zeros((2, 2), np.uint8)], count)
    assert ("confusion" in columns) == confused
    assert all(column[0].size <= 10_000 for column in columns.values())


# views


@pytest.mark.parametrize("augment", ["light", "medium"])
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("shape", [(80, 50), (30, 200), (64, 96)])
def test_a_mask_moves_as_its_picture_does(augment: Any, fit: Any, shape: tuple[int, int]) -> None:
    """The truth is the picture itself: bright where the mask is 1, black around it."""
    options = SegmentationOptions(augment=augment, fit=fit)
    view = views.augment(views.network_input(SPEC, options), options)
    assert view is not None
    rows, columns = shape
    mask = np.zeros(shape, np.uint8)
    mask[rows // 5 : rows // 2, columns // 4 : columns // 2] = 1
    picture = np.repeat(np.where(mask, 255, 120).astype(np.uint8)[..., None], 3, -1)
    torch.manual_seed(0)
    for _ in range(20):
        made = view(picture)
        assert made.image.shape == (3, 64, 96)
        assert made.image.dtype == torch.uint8
        moved = made.geometry.mask(mask, outside=masks.OUTSIDE)
        grey = made.image.float().mean(0).numpy()
        assert np.array_equal(grey == 0, moved == masks.OUTSIDE)
        bright = grey > (grey[moved == 1].max() + grey[moved == 0].min()) / 2 if (moved == 1).any() else grey < 0
        seen = moved != masks.OUTSIDE
        assert (bright != (moved == 1))[seen].mean() < 0.06  # borders, which the resize blends


def test_the_input_s_size() -> None:
    assert views.network_input(SPEC, SegmentationOptions()) == SPEC
    for size, expected in (((128,), (128, 128)), ((96, 160), (96, 160))):
        spec = views.network_input(SPEC, SegmentationOptions(size=size, fit="stretch"))
        assert (spec.height, spec.width, spec.mode) == (*expected, "stretch")


# heads


@pytest.mark.parametrize("head", heads.heads(), ids=lambda head: str(head.name))
def test_heads_pass_the_kit(head: zooft.Head) -> None:
    testing.check_head(head, {"logits": 5})


@pytest.mark.parametrize("head", heads.heads()[1:], ids=lambda head: str(head.name))
@pytest.mark.parametrize(
    "sizes",
    [
        [(60, 80), (30, 40), (15, 20), (8, 10)],  # of 240x320
        [(56, 56), (28, 28), (14, 14), (7, 7)],
        [(148, 148), (74, 74), (37, 37), (18, 18)],  # a plain transformer of 37 patches
        [(14, 14), (7, 7)],
        [(9, 13)],
    ],
)
def test_heads_read_maps_of_any_size(head: zooft.Head, sizes: list[tuple[int, int]]) -> None:
    taps = tuple(
        zooft.Tap(stage=str(n), layout="map", channels=5 + 3 * n, rows=rows, columns=columns, stride=4 << n)
        for n, (rows, columns) in enumerate(sizes)
    )
    module = head.build(taps, {"logits": 4}).eval()
    with torch.no_grad():
        made = module([torch.randn(2, tap.channels, tap.rows, tap.columns) for tap in taps])["logits"]
    assert made.shape[:2] == (2, 4)
    assert made.shape[2] >= sizes[0][0]
    assert torch.isfinite(made).all()


def test_the_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from zooft_segmentation import needs

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(zooft.ConfigError, match=r"pip install 'zooft\[segmentation\]'"):
        needs.require()


# formats


def test_pictures_of_one_name_are_written_beside_each_other(tmp_path: Path) -> None:
    from zooft_segmentation import deploy

    labels = classes.labels_of([classes.ClassSpec("sky"), classes.ClassSpec("road")])
    mask = np.array([[0, 1], [1, 1]], np.uint8)
    answers = [
        zooft.FileAnswer(key=key, outputs={"mask": mask}, picture=lambda: np.zeros((2, 2, 3), np.uint8))
        for key in ("one/a.jpg", "two/a.jpg", "a.png", "pictures.parquet/17")
    ]
    written = deploy.write_masks(answers, labels, {}, tmp_path / "masks")
    assert [path.name for path in written] == ["classes.csv", "a.png", "two_a.png", "a_2.png", "17.png"]
    with Image.open(written[1]) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), mask)
        assert np.array_equal(np.array(image.convert("RGB"))[0, 1], classes.colours_of(labels)[1])
    assert [each.name for each in classes.read_file(written[0])] == ["sky", "road"]
    overlays = deploy.write_overlays(answers[:1], labels, {}, tmp_path / "overlays")
    with Image.open(overlays[0]) as image:
        assert np.array_equal(np.array(image)[0, 1], np.array(classes.colours_of(labels)[1]) // 2)


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept:DeprecationWarning"
)  # pycocotools' own arrays
def test_coco_s_run_lengths_are_read_back_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    from zooft_segmentation import deploy

    labels = classes.labels_of([classes.ClassSpec("sky"), classes.ClassSpec("road")])
    mask = np.random.default_rng(0).integers(0, 2, (7, 9), np.uint8)
    answer = zooft.FileAnswer(key="a.jpg", outputs={"mask": mask}, picture=lambda: mask)
    (path,) = deploy.write_coco([answer], labels, {}, tmp_path)
    read = COCO(str(path))
    for number in (0, 1):
        (found,) = read.loadAnns(read.getAnnIds(catIds=[number]))
        assert np.array_equal(read.annToMask(found), mask == number)
        assert found["area"] == (mask == number).sum()


def boundary_f1(found: NDArray[Any], true: NDArray[Any], classes: int) -> NDArray[Any]:
    return borders.border_figures(found, true, classes)[0]


def hd95(found: NDArray[Any], true: NDArray[Any], classes: int) -> NDArray[Any]:
    return borders.border_figures(found, true, classes)[1]


def test_boundary_f1_by_hand() -> None:
    true = np.zeros((100, 100), np.uint8)
    true[:, 50:] = 1
    found = np.zeros_like(true)
    found[:, 51:] = 1  # one pixel off, as far as 0.75 % of the diagonal allows
    assert boundary_f1(found, true, 3)[:2] == pytest.approx(1)
    far = np.where(np.arange(100) < 60, 0, 1).astype(np.uint8)[None].repeat(100, 0)
    assert boundary_f1(far, true, 3)[:2] == pytest.approx(0)
    half = true.copy()
    half[:50] = far[:50]  # half of the border lies right; its corner is near both
    precision, recall = 51 / 110, 51 / 100
    assert boundary_f1(half, true, 3)[1] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.02)
    assert np.isnan(boundary_f1(found, true, 3)[2])


def blobs(seed: int) -> NDArray[np.uint8]:
    """Three classes, of which two are blobs that touch neither each other nor the picture's end."""
    y, x = np.mgrid[:90, :160]
    rng = np.random.default_rng(seed)
    mask = np.zeros((90, 160), np.uint8)
    for number, middle in ((1, 45), (2, 115)):
        row, column, high, wide = 45 + rng.normal(0, 4), middle + rng.normal(0, 4), *rng.uniform(8, 24, 2)
        mask[((y - row) / high) ** 2 + ((x - column) / wide) ** 2 < 1] = number
    return mask


def test_hd95_is_the_percentile_of_all_distances_between_borders() -> None:
    """Pixels of borders by scipy's erosion, every distance between them; the largest of all by its own function."""
    for seed in range(6):
        found, true = blobs(seed), blobs(seed + 10)
        figures = hd95(found, true, 4)
        for number in (1, 2):
            ours, theirs = (np.argwhere((mask == number) ^ binary_erosion(mask == number)) for mask in (found, true))
            table = cdist(ours, theirs)
            wanted = max(np.percentile(table.min(1), 95), np.percentile(table.min(0), 95))
            assert figures[number] == pytest.approx(wanted, abs=1e-5)
            largest = max(directed_hausdorff(ours, theirs)[0], directed_hausdorff(theirs, ours)[0])
            assert figures[number] <= largest + 1e-5
        assert np.isnan(figures[3])
    assert hd95(true, true, 3) == pytest.approx(0)


def test_hd95_of_a_class_that_is_found_nowhere_is_the_picture_s_diagonal() -> None:
    true = blobs(0)
    figures = hd95(np.where(true == 2, 0, true).astype(np.uint8), true, 3)
    assert figures[1] == 0
    assert figures[2] == pytest.approx(np.hypot(90, 160))


def test_borders_of_void_and_of_the_picture_are_none() -> None:
    true = np.zeros((60, 60), np.uint8)
    true[:, 30:] = masks.OUTSIDE
    anything = np.where(true == masks.OUTSIDE, 1, 0).astype(np.uint8)
    assert boundary_f1(anything, true, 2)[0] == 1  # no border in truth, none found beside void
    anything[20:30, 5:15] = 1
    assert boundary_f1(anything, true, 2)[0] == 0


@pytest.mark.parametrize("size", [(224, 224), (240, 320), (100, 180), (200, 300)])
@pytest.mark.parametrize("rounded", [math.ceil, math.floor])
def test_a_place_is_the_same_part_of_the_image_at_every_level(size: tuple[int, int], rounded: Any) -> None:
    """A bright square, averaged over the part of the image that each place of a stride's map is of.

    It doesn't reach the last row or column of maps that end before the image, since these are repeated there.
    """
    strides, share = (4, 8, 16, 32), 0.75 if rounded is math.ceil else 0.45
    middle = [share * side for side in size]
    taps, maps = [], []
    image = torch.zeros(1, 1, *(4 * side for side in size))  # what lies behind its end, too
    square = [slice(round(place) - 16, round(place) + 16) for place in middle]
    image[:, :, square[0], square[1]] = 1
    for number, stride in enumerate(strides):
        rows, columns = (rounded(side / stride) for side in size)
        taps.append(zooft.Tap(stage=str(number), layout="map", channels=1, rows=rows, columns=columns, stride=stride))
        maps.append(nn.functional.avg_pool2d(image, stride)[:, :, :rows, :columns])
    ladder = Ladder(taps)
    fitted = ladder(maps)
    for level, found in enumerate(fitted):
        assert tuple(found.shape[-2:]) == tuple(side // 2**level for side in fitted[0].shape[-2:])
        for axis, place in enumerate(middle):
            weights = found[0, 0].sum(1 - axis)
            centre = ((torch.arange(len(weights)) + 0.5) * weights).sum() / weights.sum() * strides[level]
            assert float(centre) == pytest.approx(round(place), abs=1)
    assert tuple(ladder.cut(fitted[0]).shape[-2:]) == (taps[0].rows, taps[0].columns)
