"""What people see of CT shows the body, and none of the letters that Pillow writes beside it."""

from __future__ import annotations

import numpy as np
import pytest
from example_data import real
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from zooft_ct.display import redact, show
from zooft_ct.header import read_headers
from zooft_ct.options import CTOptions
from zooft_ct.pixels import hu

SIDE = 256
OPTIONS = CTOptions(window=("mediastinum",))


def body(seed: int = 0) -> NDArray[np.int16]:
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) / (SIDE / 2)
    values = np.where(np.hypot(x / 0.8, y / 0.6) < 1, 40.0, -1000.0)
    values[np.hypot((x - 0.3) / 0.2, y / 0.3) < 1] = -850
    rounded: NDArray[np.int16] = np.rint(values + np.random.default_rng(seed).normal(0, 15, values.shape)).astype(
        np.int16
    )
    return rounded


def seen(values: NDArray[np.int16]) -> NDArray[np.uint8]:
    """A slice as it is shown."""
    return show(redact((values[None],), OPTIONS), OPTIONS)


def letters(place: tuple[int, int], scale: int) -> NDArray[np.bool_]:
    """Where Pillow's letters are, a little larger."""
    small = Image.new("L", (SIDE // scale, SIDE // scale))
    ImageDraw.Draw(small).text((place[0] // scale, place[1] // scale), "DOE JOHN 7", fill=255)
    return np.kron(np.asarray(small) > 100, np.ones((scale, scale), bool))


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("place", [(4, 2), (130, 2), (4, 236), (120, 236)])
@pytest.mark.parametrize("level", [-500, 1500, 3071])
def test_letters_in_a_corner_aren_t_shown_and_the_body_is_unchanged(
    place: tuple[int, int], scale: int, level: int
) -> None:
    plain = body()
    where = letters(place, scale)
    assert where.sum() > 100
    written = np.where(where, level, plain).astype(np.int16)
    picture, clean = seen(written), seen(plain)
    assert picture[where].max() == 0
    np.testing.assert_array_equal(picture[60:200], clean[60:200])


def test_nothing_of_a_real_body_goes() -> None:
    paths = sorted(real("siim_ct/dicom").iterdir())[:12]
    for path in paths:
        values = hu(read_headers(path)[0])
        picture = seen(values)
        plain = np.clip(np.rint((values.astype(np.float32) + 160) * (255 / 400)), 0, 255)
        assert (picture != plain).mean() < 0.01


def test_a_slice_of_air_is_shown_as_it_is() -> None:
    assert not seen(np.full((40, 50), -1000, np.int16)).any()
