"""Random views of CT: air outside, all slices alike, no mirroring by default, the network's size and scale."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import zooft
from zooft_ct import augment, graph
from zooft_ct.options import CTOptions
from zooft_images import views
from zooft_images.options import ClassificationOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

LEVELS = ["light", "medium"]
SPEC = zooft.InputSpec(height=40, width=48, resize=40, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), mode="stretch")
SQUARE = zooft.InputSpec(height=64, width=64, resize=64, mean=(0.0,) * 3, std=(1 / 255,) * 3)
AIR = (-1024 + 600 + 750) / 1500 * 255
"""The level of air in the lung window."""
ENDS = (slice(0, 2), slice(-2, None))


def view_of(options: CTOptions, spec: zooft.InputSpec = SQUARE) -> Callable[..., Tensor]:
    made = augment.augment(spec, options)
    assert made is not None
    return made


def seen(view: Callable[..., Tensor], *arrays: NDArray[Any], seed: int = 0) -> NDArray[np.float32]:
    """The view under one seed, without disturbing anybody else's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = view(*arrays)
        result: NDArray[np.float32] = getattr(found, "image", found).numpy()
        return result


def noise(*shape: int) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1024, 3071, shape, dtype=np.int16)


def marked(*spots: tuple[int, int], slices: int = 3) -> NDArray[np.int16]:
    """Air with bright squares of 8 voxels, ``(slices, 64, 64)``."""
    hu = np.full((slices, 64, 64), -1024, dtype=np.int16)
    for row, column in spots:
        hu[:, row : row + 8, column : column + 8] = 150
    return hu


def middle(levels: NDArray[np.float32]) -> tuple[float, float]:
    """Row and column of the centre of mass above air."""
    mass = np.clip(levels - 150, 0, None)
    rows, columns = np.indices(mass.shape)
    return float((rows * mass).sum() / mass.sum()), float((columns * mass).sum() / mass.sum())


def test_none_leaves_the_plain_view() -> None:
    assert augment.augment(SPEC, CTOptions(augment="none")) is None


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("mode", "slices"), [("slice", 1), ("2.5d", 3), ("windows", 1), ("volume", 5)])
@pytest.mark.parametrize("spacing", [0.0, 0.9])
def test_a_view_has_the_size_and_scale_of_the_preprocessing(level: Any, mode: Any, slices: int, spacing: float) -> None:
    options = CTOptions(mode=mode, augment=level, spacing=spacing)
    hu, mm = noise(slices, 50, 60), np.array([0.8, 0.7], dtype=np.float32)
    arrays = (hu, mm) if spacing else (hu,)
    plain = graph.preprocess(SPEC, options)(*(torch.from_numpy(array)[None] for array in arrays))[0]
    darkest, brightest = (level - np.array(SPEC.mean)[:, None, None] for level in (0.0, 1.0))
    std = np.array(SPEC.std)[:, None, None]
    for seed in range(4):
        view = seen(view_of(options, SPEC), *arrays, seed=seed)
        assert view.dtype == np.float32
        assert view.shape == tuple(plain.shape)
        assert np.all(view >= darkest / std - 1e-4)
        assert np.all(view <= brightest / std + 1e-4)


@pytest.mark.parametrize("level", LEVELS)
def test_one_seed_gives_one_view_and_another_seed_another(level: Any) -> None:
    view, hu = view_of(CTOptions(augment=level)), noise(3, 64, 64)
    assert np.array_equal(seen(view, hu, seed=1), seen(view, hu, seed=1))
    assert np.abs(seen(view, hu, seed=1) - seen(view, hu, seed=2)).max() > 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mode", ["2.5d", "volume"])
def test_all_slices_of_a_sample_are_moved_alike(level: Any, mode: Any) -> None:
    view, hu = view_of(CTOptions(mode=mode, augment=level)), marked((20, 36))
    for seed in range(10):
        levels = seen(view, hu, seed=seed)
        slices = levels[:, 0] if mode == "volume" else levels
        places = [middle(levels) for levels in slices]
        assert np.ptp(places, axis=0).max() < 0.3


@pytest.mark.parametrize(("level", "least", "most"), [("light", 0.5, 4), ("medium", 1, 8)])
def test_what_is_in_the_middle_is_moved_a_little(level: Any, least: float, most: float) -> None:
    view, hu = view_of(CTOptions(augment=level)), marked((28, 28))
    moves = [np.hypot(*(np.array(middle(seen(view, hu, seed=seed)[1])) - 31.5)) for seed in range(30)]
    assert least < max(moves) < most


@pytest.mark.parametrize("level", LEVELS)
def test_it_is_turned_scaled_and_shown_brighter_and_darker_too(level: Any) -> None:
    hu, view = marked((28, 12), (28, 44)), view_of(CTOptions(augment=level))
    turns, lengths, brightest = [], [], []
    for seed in range(30):
        levels = seen(view, hu, seed=seed)[1]
        left, right = levels.copy(), levels.copy()
        left[:, 32:], right[:, :32] = 0, 0
        way = np.subtract(middle(right), middle(left))
        turns.append(np.degrees(np.arctan2(way[0], way[1])))
        lengths.append(np.hypot(*way) / 32)
        brightest.append(np.median(levels[levels > 200]))
    strength = augment.STRENGTHS[level]
    assert 0.4 * strength.turn < np.abs(turns).max() < 1.2 * strength.turn
    assert 0.4 * strength.scale < np.abs(np.subtract(lengths, 1)).max() < 1.5 * strength.scale
    assert np.ptp(brightest) > 255 * strength.window / 2


@pytest.mark.parametrize("level", LEVELS)
def test_what_comes_in_from_outside_is_air(level: Any) -> None:
    """A scan without any air in it: its corners, turned or shifted in, look like air, not like black or like tissue."""
    hu, view = np.full((3, 64, 64), 100, dtype=np.int16), view_of(CTOptions(augment=level))
    views = [seen(view, hu, seed=seed) for seed in range(30)]
    corners = [levels[:, rows, columns].mean() for levels in views for rows in ENDS for columns in ENDS]
    # the window moves by up to a tenth of its width either way and widens by as much
    assert min(corners) == pytest.approx(AIR, abs=255 * 1.6 * augment.STRENGTHS[level].window)


def test_the_edge_of_the_moved_picture_does_not_show_in_air() -> None:
    """The window begins at air; an edge that is half water would stand out by an eighth of all levels and more."""
    hu, view = np.full((3, 64, 64), -1024, dtype=np.int16), view_of(CTOptions(augment="light", window=("0/2048",)))
    strength = augment.STRENGTHS["light"]
    most = 255 * (1.6 * strength.window + 4 * strength.noise / 2048)
    assert max(np.percentile(seen(view, hu, seed=seed), 99.9) for seed in range(20)) < most


def test_noise_is_in_hu_and_differs_from_slice_to_slice() -> None:
    hu, view = np.full((3, 64, 64), -600, dtype=np.int16), view_of(CTOptions(augment="medium"))
    spreads = []
    for seed in range(20):
        inside = seen(view, hu, seed=seed)[:, 20:44, 20:44].reshape(3, -1)
        spreads.append(inside.std() / 255 * 1500)
        assert abs(np.corrcoef(inside)[0, 1]) < 0.2
    assert 15 < max(spreads) < 35


def test_left_stays_left_and_front_stays_front_unless_mirroring_is_requested() -> None:
    hu = marked((8, 8))

    def quarters(*, flip: bool) -> set[tuple[bool, bool]]:
        view = view_of(CTOptions(augment="medium", flip=flip))
        places = [middle(seen(view, hu, seed=seed)[1]) for seed in range(30)]
        return {(row < 32, column < 32) for row, column in places}

    assert quarters(flip=False) == {(True, True)}
    assert len(quarters(flip=True)) == 4


def test_the_sample_itself_is_not_changed() -> None:
    hu = noise(3, 40, 40)
    before = hu.copy()
    for seed in range(5):
        seen(view_of(CTOptions(augment="medium", flip=True)), hu, seed=seed)
    assert np.array_equal(hu, before)


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(zooft.ConfigError, match="takes three --window"):
        augment.augment(SPEC, CTOptions(mode="windows", window=("bone",), augment="light"))


@pytest.mark.parametrize("options", [CTOptions(augment="light"), CTOptions(augment="medium", flip=True)])
def test_a_view_sent_to_another_process_gives_the_same_under_one_seed(options: CTOptions) -> None:
    view, hu = view_of(options), noise(3, 64, 64)
    sent = pickle.loads(pickle.dumps(view))  # noqa: S301 -- our own
    assert np.array_equal(seen(sent, hu, seed=3), seen(view, hu, seed=3))


@pytest.mark.parametrize("level", LEVELS)
def test_a_view_of_a_photograph_can_be_sent_too(level: Any) -> None:
    view = views.augment(SPEC, ClassificationOptions(augment=level))
    assert view is not None
    levels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    sent = pickle.loads(pickle.dumps(view))  # noqa: S301 -- our own
    assert np.array_equal(seen(sent, levels, seed=3), seen(view, levels, seed=3))
