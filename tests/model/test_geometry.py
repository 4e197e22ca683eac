"""Where pixels lie in the network's input, and the way back, against torchvision, Pillow and torch's own interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as operations

from zooft.contracts import Geometry, InputSpec
from zooft.deploy import conversion
from zooft.model.geometry import ImageGeometry
from zooft.model.preprocess import Resize

SIZES = [(50, 130), (130, 50), (64, 64), (200, 333), (31, 97)]


def spec(mode: Any, *, height: int = 64, width: int = 96) -> InputSpec:
    return InputSpec(height=height, width=width, resize=72, mean=(0.5,) * 3, std=(0.5,) * 3, mode=mode)


def picture(rows: int, columns: int) -> Any:
    return np.zeros((rows, columns, 3), np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["stretch", "letterbox", "crop"])
def test_a_mask_lies_where_the_resized_picture_shows_it(size: tuple[int, int], mode: str) -> None:
    """A bright box of whole pixels; the resize of the picture itself is the truth, away from the edges of the box."""
    rows, columns = size
    inside = (rows // 4, columns // 3, 3 * rows // 4, 2 * columns // 3)
    image = picture(rows, columns)
    image[inside[0] : inside[2], inside[1] : inside[3]] = 255
    own = spec(mode, width=64) if mode == "crop" else spec(mode)
    geometry = ImageGeometry(own).of((image,))
    moved = geometry.mask(image[..., 0], outside=0)
    shown = Resize(own)(torch.from_numpy(image)[None].permute(0, 3, 1, 2))[0, 0].numpy()
    clear = (shown < 20) | (shown > 235)
    assert clear.mean() > 0.5
    assert np.array_equal(moved[clear] > 127, shown[clear] > 127)


@pytest.mark.parametrize(
    "size", [size for size in SIZES if size != (64, 64)]
)  # of which centres lie between two pixels
def test_a_stretched_mask_is_pillow_s_nearest(size: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 9, size, np.uint8)
    geometry = ImageGeometry(spec("stretch")).of((picture(*size),))
    assert np.array_equal(
        geometry.mask(labels, outside=255), np.array(Image.fromarray(labels).resize((96, 64), Image.Resampling.NEAREST))
    )


def test_what_the_sample_doesn_t_show_is_outside() -> None:
    geometry = ImageGeometry(spec("letterbox")).of((picture(50, 130),))
    moved = geometry.mask(np.ones((50, 130), np.uint8), outside=7)
    assert set(np.unique(moved)) == {1, 7}
    assert (moved[:, 40] == 7).sum() == pytest.approx(64 - 96 * 50 / 130, abs=1)


@pytest.mark.parametrize("turned", [0.0, 0.3])
def test_a_mask_s_pixel_is_what_lies_under_its_centre(turned: float) -> None:
    """Place by place, of maps with and without rotation."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        source, view = ((int(rows), int(columns)) for rows, columns in rng.integers(1, 25, (2, 2)))
        across, down = rng.choice([-1, 1], 2) * rng.uniform(0.2, 3, 2)
        matrix = np.array([[across, turned, 0], [-turned, down, 0]])
        matrix[:, 2] = rng.uniform(-9, 9, 2)
        labels = rng.integers(0, 9, source).astype(np.uint8)
        back = np.linalg.inv(matrix[:, :2])
        expected = np.full(view, 255)
        for row, column in np.ndindex(*view):
            x, y = np.floor(back @ (np.array([column + 0.5, row + 0.5]) - matrix[:, 2])).astype(int)
            if 0 <= y < source[0] and 0 <= x < source[1]:
                expected[row, column] = labels[y, x]
        found = Geometry(matrix=matrix, source=source, view=view).mask(labels, outside=255)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_move_as_torchvision_s_do(size: tuple[int, int]) -> None:
    boxes = np.array([[3.0, 4.0, 20.0, 25.0], [0.0, 0.0, size[1], size[0]], [10.5, 2.25, 30.75, 28.0]])
    geometry = ImageGeometry(spec("stretch")).of((picture(*size),))
    given = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    assert geometry.boxes(boxes) == pytest.approx(operations.resize(given, [64, 96]).numpy(), abs=1e-4)


def test_boxes_that_lie_outside_are_empty() -> None:
    geometry = ImageGeometry(spec("crop", width=64)).of((picture(50, 500),))
    (left, top, right, bottom), *_ = geometry.boxes(np.array([[0.0, 0.0, 10.0, 10.0]]))
    assert (right - left) * (bottom - top) == 0


@pytest.mark.parametrize("turn", [np.diag([-1.0, 1.0]), np.diag([1.0, -1.0]), np.array([[0.0, -1.0], [1.0, 0.0]])])
def test_turned_and_mirrored_masks_are_numpy_s(turn: Any) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (24, 24), np.uint8)
    shift = -np.minimum(turn @ np.array([[24, 0, 24], [0, 24, 24]]), 0).min(1)
    geometry = Geometry(matrix=np.column_stack([turn, shift]), source=(24, 24), view=(24, 24))
    expected = {(-1.0, 1.0): labels[:, ::-1], (1.0, -1.0): labels[::-1]}.get(tuple(np.diag(turn)), np.rot90(labels, -1))
    assert np.array_equal(geometry.mask(labels, outside=255), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [(16, 24), (64, 96), (8, 12)])
def test_stretched_maps_come_back_as_torch_interpolates(size: tuple[int, int], grid: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0))
    back = ImageGeometry(spec("stretch")).back((torch.from_numpy(picture(*size))[None],))
    expected = nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    assert torch.allclose(back.maps(maps), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_boxes_come_back_to_where_they_were(size: tuple[int, int], mode: str) -> None:
    boxes = np.array([[3.0, 4.0, 20.0, 25.0], [0.0, 0.0, size[1], size[0]], [10.5, 2.25, 30.75, 28.0]])
    geometry = ImageGeometry(spec(mode))
    there = torch.from_numpy(geometry.of((picture(*size),)).boxes(boxes)).float()
    back = geometry.back((torch.from_numpy(picture(*size))[None],))
    assert back.boxes(there).numpy() == pytest.approx(boxes, abs=1e-3)


class Both(nn.Module):
    """Maps and boxes of a batch brought back."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.geometry = ImageGeometry(spec(mode))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Of maps and boxes that depend on the images a little."""
        maps = images[:, :8, :12].permute(0, 3, 1, 2).float() / 255
        back = self.geometry.back((images,))
        return back.maps(maps), back.boxes(maps[:, 0, :2, :4] * 60)


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
def test_the_graph_s_way_back_is_torch_s_for_any_size(mode: str) -> None:
    module, rng = Both(mode).eval(), np.random.default_rng(0)
    example = torch.zeros(2, 256, 288, 3, dtype=torch.uint8)
    axes: Sequence[Any] = [{0: "batch", 1: "height", 2: "width"}]
    proto = conversion.convert(module, [example], inputs=["images"], outputs=["maps", "boxes"], axes=axes)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for count, (rows, columns) in zip((1, 2, 3, 1, 2), SIZES, strict=True):
        images = rng.integers(0, 256, (count, rows, columns, 3), np.uint8)
        expected = module(torch.from_numpy(images))
        for found, ours in zip(session.run(None, {"images": images}), expected, strict=True):
            assert found.shape == tuple(ours.shape)
            assert found == pytest.approx(ours.numpy(), abs=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_a_letterbox_that_isn_t_square_keeps_the_shape_of_what_it_shows(size: tuple[int, int]) -> None:
    """Pillow's resize to the size that fits, in the middle of black."""
    levels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    factor = min(64 / size[0], 96 / size[1])
    rows, columns = (
        min(expected, max(1, int(length * factor + 1e-9))) for length, expected in zip(size, (64, 96), strict=True)
    )
    small = np.array(Image.fromarray(levels).resize((columns, rows), Image.Resampling.BILINEAR))
    found = Resize(spec("letterbox"))(torch.from_numpy(levels)[None].permute(0, 3, 1, 2))[0].permute(1, 2, 0).numpy()
    top, left = ((expected - shown) // 2 for expected, shown in ((64, rows), (96, columns)))
    assert np.abs(found[top : top + rows, left : left + columns] - small.astype(float)).max() <= 1
    assert found.sum() == found[top : top + rows, left : left + columns].sum()


def test_the_graph_of_a_letterbox_that_isn_t_square_gives_torch_s_levels() -> None:
    module = Tiled().eval()
    example = torch.zeros(2, 256, 288, 3, dtype=torch.uint8)
    axes: Sequence[Any] = [{0: "batch", 1: "height", 2: "width"}]
    proto = conversion.convert(module, [example], inputs=["images"], outputs=["levels"], axes=axes)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows, columns in [*SIZES, (1000, 40), (33, 900)]:
        images = np.random.default_rng(0).integers(0, 256, (1, rows, columns, 3), np.uint8)
        (found,) = session.run(None, {"images": images})
        assert np.abs(found - module(torch.from_numpy(images)).numpy()).max() <= 1


class Tiled(nn.Module):
    """The resize as exported files contain it."""

    def __init__(self) -> None:
        super().__init__()
        self.resize = Resize(spec("letterbox"))

    def forward(self, images: Tensor) -> Tensor:
        """Levels of the network's input."""
        if torch.onnx.is_in_onnx_export():
            return self.resize.forward_tiles(images)
        found: Tensor = self.resize(images.permute(0, 3, 1, 2))
        return found
