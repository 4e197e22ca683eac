"""Pictures within the page: decoded again by Pillow, they are what was given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from zooft.report import embedded_images

_LOSS = 6
"""Levels that JPEG of this quality may be off in smooth areas."""


def shown(source: str, kind: str = "jpeg") -> NDArray[np.int16]:
    head, _, content = source.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).astype(np.int16)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """Brighter to the right and to the bottom."""
    rows, columns = np.mgrid[0:height, 0:width]
    return (255 * (rows + columns) / (height + width - 2)).round().astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 1), (40, 60, 3)])
def test_a_small_picture_is_shown_as_it_is(shape: tuple[int, ...]) -> None:
    picture = np.broadcast_to(smooth(40, 60).reshape(40, 60, 1), (40, 60, shape[2] if len(shape) > 2 else 1)).reshape(
        shape
    )
    seen = shown(embedded_images.source(picture))
    assert seen.shape == ((40, 60, 3) if shape[2:] == (3,) else (40, 60))
    assert np.abs(seen - picture.squeeze()).max() <= _LOSS


def test_the_longer_side_of_a_large_one_is_brought_down_and_its_shape_stays() -> None:
    picture = smooth(400, 1200)
    seen = shown(embedded_images.source(picture))
    assert seen.shape == (96, 288)
    expected = smooth(96, 288).astype(np.int16)
    assert np.abs(seen - expected).mean() < 2


def test_heat_colours_where_it_is_and_leaves_the_picture_elsewhere() -> None:
    heat = np.zeros((2, 2))
    heat[0, 1] = 1
    seen = shown(embedded_images.overlay(np.full((64, 64), 100, np.uint8), heat))
    cold, hot = seen[60, 4], seen[4, 60]
    assert np.abs(cold - 100).max() <= _LOSS
    # inferno at 1 is (252, 255, 164), laid on by three quarters
    assert np.abs(hot - (0.25 * 100 + 0.75 * np.array([252, 255, 164]))).max() <= 2 * _LOSS


def test_a_finished_png_is_passed_on_byte_by_byte() -> None:
    file = io.BytesIO()
    Image.fromarray(smooth(5, 7)).save(file, "PNG")
    np.testing.assert_array_equal(shown(embedded_images.png_source(file.getvalue()), "png"), smooth(5, 7))


def test_a_matrix_is_darker_where_more_of_its_row_is() -> None:
    matrix = np.array([[3, 1, 0], [0, 5, 5], [0, 0, 0]])
    seen = shown(embedded_images.shares(matrix))
    assert seen.shape == (480, 480)
    cells = seen[80::160, 80::160]
    expected = 255 - 255 * np.array([[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]])
    assert np.abs(cells - expected).max() <= _LOSS
