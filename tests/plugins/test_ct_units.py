"""Numbers that aren't what the header says: the physics of HU (air -1000, water 0) is the truth, as is WG-04's data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_files import ct, write
from example_data import real
from numpy.typing import NDArray
from pydicom.dataelem import DataElement

import zooft
from zooft_ct import nifti, units
from zooft_ct.discover import gather
from zooft_ct.header import Layout, SliceHeader, read_headers
from zooft_ct.options import CTOptions
from zooft_ct.pixels import hu

SIDE = 128


def body(*, radius: float = 0.7, seed: int = 0, bone: bool = True) -> NDArray[np.int16]:
    """HU of a chest as a scanner of some noise sees it: air around, fat, soft tissue, two lungs, a spine."""
    y, x = (np.mgrid[:SIDE, :SIDE] - SIDE / 2) / (SIDE / 2)
    values = np.full((SIDE, SIDE), -1000.0)
    values[np.hypot(x, y / 0.8) < radius] = -100
    values[np.hypot(x, y / 0.8) < 0.9 * radius] = 45
    for side in (-0.45, 0.45):
        values[np.hypot((x / radius - side) / 0.3, y / radius / 0.45) < 1] = -850
    if bone:
        values[np.hypot(x / radius, y / radius - 0.55) < 0.12] = 700
    noise = np.random.default_rng(seed).normal(0, 15, values.shape)
    rounded: NDArray[np.int16] = np.rint(values + noise).astype(np.int16)
    return rounded


def written(path: Path, numbers: NDArray[Any], *, bits: int = 16, **changes: Any) -> Path:
    elements = {
        "Rows": SIDE,
        "Columns": SIDE,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelData": numbers.tobytes(),
        **changes,
    }
    return write(path, ct(**elements))


def refusal(path: Path) -> str:
    with pytest.raises(zooft.DataError) as caught:
        hu(read_headers(path)[0])
    return str(caught.value)


TWELVE = {"bits": 12}
SPOILT: dict[str, tuple[NDArray[Any], dict[str, Any], str]] = {
    "intercept lost": ((body() + 1024).clip(0).astype(np.uint16), {"RescaleIntercept": "0", **TWELVE}, "lost"),
    "intercept lost, small body": (
        (body(radius=0.35) + 1024).clip(0).astype(np.uint16),
        {"RescaleIntercept": "0"},
        "air",
    ),
    "intercept lost, signed": (
        body(radius=0.5) + np.int16(1024),
        {"RescaleIntercept": "0", "PixelRepresentation": 1},
        "that air is near 0",
    ),
    "intercept twice": (body(), {"PixelRepresentation": 1}, "lie below -1100"),
    "slope 0.1": ((body() + 1024).clip(0).astype(np.uint16), {"RescaleSlope": "0.1"}, "neither that nor air"),
    "slope 0.5": ((body() + 1024).clip(0).astype(np.uint16), {"RescaleSlope": "0.5"}, "neither that nor air"),
    "slope 3": ((body() + 1024).clip(0).astype(np.uint16), {"RescaleSlope": "3"}, "neither that nor air"),
    "sign lost": (body(), {"RescaleIntercept": "0"}, "read without their sign"),
    "sign lost, 12 bits": (body() & np.int16(0xFFF), {"RescaleIntercept": "0", **TWELVE}, "intercept or sign"),
    "sign made up, 12 bits": (
        np.where(body() > 500, body() + 600, body()).astype(np.int16) + np.int16(1024),
        {"PixelRepresentation": 1, **TWELVE},
        "stored without a sign and read with one",
    ),
}
"""Name to the stored numbers, what the header says, and words of the reason."""


@pytest.mark.parametrize("name", SPOILT)
def test_a_slice_whose_header_is_wrong_is_refused_with_what_its_histogram_shows(name: str, tmp_path: Path) -> None:
    numbers, changes, words = SPOILT[name]
    message = refusal(written(tmp_path / "a.dcm", numbers, **changes))
    assert message.startswith("the values aren't HU: ")
    assert words in message
    assert any(digit in message for digit in "0123456789")


@pytest.mark.parametrize("radius", [0.2, 0.35, 0.5, 0.7, 0.9, 1.5])
@pytest.mark.parametrize("bone", [True, False])
def test_the_same_slices_under_the_right_header_are_read_exactly(radius: float, bone: bool, tmp_path: Path) -> None:
    truth = body(radius=radius, bone=bone)
    unsigned = (truth + 1024).clip(0).astype(np.uint16)
    signed = {"RescaleIntercept": "0", "PixelRepresentation": 1}
    for numbers, changes in (
        (unsigned, TWELVE),
        (unsigned, {}),
        (truth, signed),
        (truth & np.int16(0xFFF), {**signed, **TWELVE}),
        (truth * np.int16(10), {**signed, "RescaleSlope": "0.1"}),
    ):
        read = hu(read_headers(written(tmp_path / "a.dcm", numbers, **changes))[0])
        np.testing.assert_array_equal(read, truth.clip(-1024))


@pytest.mark.parametrize("padding", [-2000, -1500, -3024])
def test_padding_around_a_slice_hides_no_lost_intercept(padding: int, tmp_path: Path) -> None:
    numbers = body(radius=0.5) + np.int16(1024)
    corners = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE / 2)) > SIDE / 2
    numbers[corners] = padding
    path = written(tmp_path / "a.dcm", numbers, RescaleIntercept="0", PixelRepresentation=1)
    dataset = ct(
        Rows=SIDE,
        Columns=SIDE,
        BitsStored=16,
        HighBit=15,
        PixelData=numbers.tobytes(),
        PixelRepresentation=1,
        RescaleIntercept="0",
    )
    dataset.add(DataElement(0x00280120, "SS", padding))
    assert "that air is near 0" in refusal(write(path, dataset))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda volume: volume + 1024, "so that air is near 0"),
        (lambda volume: (volume + 1024) * 0.1 - 1024, "most of them not those of tissue"),
        (lambda volume: volume.astype(np.int16).view(np.uint16).astype(np.float32), "not HU"),
        (lambda volume: volume - 1024.0, "lie below -1100|most of them not"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volumes_are_checked_by_the_same_rules(spoil: Any, words: str, suffix: str, tmp_path: Path) -> None:
    volume = np.stack([body(seed=seed) for seed in range(4)]).astype(np.float32)
    path = tmp_path / f"v{suffix}"
    nibabel.save(nibabel.Nifti1Image(spoil(volume).transpose(), np.diag([-1.0, -1, 2, 1])), path)
    with pytest.raises(zooft.DataError, match=words):
        nifti.whole(nifti.open_volume(path))
    nibabel.save(nibabel.Nifti1Image(volume.transpose(), np.diag([-1.0, -1, 2, 1])), path)
    np.testing.assert_array_equal(nifti.whole(nifti.open_volume(path)), volume.clip(-1024))


def test_beyond_counts_what_numpy_counts() -> None:
    numbers = np.concatenate([np.full(7, -3024), np.full(3, -1300), np.full(2, -1101), np.arange(-1100, 100), [30000]])
    hidden = units.beyond(numbers.astype(np.int16), 1.0, 0.0)
    assert (hidden.but_lowest, hidden.scattered, hidden.over) == (5, 5, 1)
    both = hidden + units.beyond(numbers.astype(np.int16), 1.0, 0.0)
    assert (both.but_lowest, both.over) == (10, 2)


def test_real_slices_are_all_read(real_headers: list[SliceHeader]) -> None:
    """ID_0052 has intercept 0 and padding 63536; the others have -1024, slopes of 1.000244, and -3024 around them."""
    assert sum(hu(header).size > 0 for header in real_headers) == 148


def test_noise_below_the_darkest_number_that_wrapped_around_is_reported_and_not_refused(tmp_path: Path) -> None:
    """Some writers let the darkest noise of air wrap around to the brightest number."""
    noisy = np.where(body() < -950, body() - 5, body()).astype(np.int16)
    wrapped = (noisy.astype(int) + 1024).astype(np.uint16)
    share = (wrapped > 60000).mean()
    assert 0.01 < share < 0.1
    np.testing.assert_array_equal(
        hu(read_headers(written(tmp_path / "a.dcm", wrapped))[0])[wrapped < 60000], noisy[wrapped < 60000]
    )
    (note, *_) = gather([tmp_path], CTOptions(mode="slice", hu_cache="off")).notes
    assert note.startswith("1 slice with more than 1% of their values at 3071: metal, or negative numbers that lost")
    assert "(series " in note


@pytest.fixture(scope="module")
def real_headers() -> list[SliceHeader]:
    """148 slices of four makers."""
    paths = [*sorted(real("siim_ct/dicom").iterdir()), *sorted(real("ct_series").rglob("*"))]
    return [header for path in paths if path.is_file() for header in read_headers(path)]


Wrong = Callable[[Layout], Layout | None]
WRONG: dict[str, tuple[Wrong, int]] = {
    "intercept lost": (lambda layout: replace(layout, intercept=0.0) if layout.intercept < 0 else None, 0),
    "intercept 1024 too high": (lambda layout: replace(layout, intercept=layout.intercept + 1024), 0),
    "intercept twice": (lambda layout: replace(layout, intercept=layout.intercept - 1024), 10),
    "sign lost": (lambda layout: replace(layout, signed=False) if layout.signed and layout.bits == 16 else None, 0),
    "slope 0.1": (lambda layout: replace(layout, slope=0.1) if layout.intercept < 0 else None, 0),
    "slope 0.5": (lambda layout: replace(layout, slope=0.5) if layout.intercept < 0 else None, 0),
    "slope 10": (lambda layout: replace(layout, slope=10.0), 0),
}
"""Name to what the header would say, and how many of the slices may pass."""


@pytest.mark.parametrize("name", WRONG)
def test_real_slices_under_a_wrong_header_are_refused(name: str, real_headers: list[SliceHeader]) -> None:
    wrong, most = WRONG[name]
    spoilt = [replace(header, layout=layout) for header in real_headers if (layout := wrong(header.layout))]
    reasons = [reason(header) for header in spoilt]
    assert len(spoilt) > 60
    assert reasons.count("") <= most
    assert all(message.startswith("the values aren't HU: ") for message in reasons if message)


def test_what_is_cut_out_of_a_real_lung_is_hu_and_under_another_slope_isnt(real_headers: list[SliceHeader]) -> None:
    """Patches around nodules are cut so; that a lung is air with hardly any tissue is what the real slices show."""
    slices = [hu(header) for header in real_headers[:60:3]]
    places = [slice(at, at + 64) for at in range(0, 449, 64)]
    patches = [one[rows, columns] for one in slices for rows in places for columns in places]
    lung = [patch for patch in patches if ((patch > -940) & (patch < -650)).mean() > 0.7]
    assert len(lung) > 30
    assert [units.misfit(patch, units.beyond(patch, 1, 0)) for patch in lung].count("") > 0.85 * len(lung)
    assert sum("lung" in units.oddity(patch) for patch in lung) > 0.5 * len(lung)
    for slope in (0.1, 0.5, 2.0):
        crops = [
            np.rint((one[128:384, 128:384] + 1024.0) * slope - 1024).clip(-1024, 3071).astype(np.int16)
            for one in slices
        ]
        assert [units.misfit(crop, units.beyond(crop, 1, 0)) for crop in crops].count("") <= 1


def reason(header: SliceHeader) -> str:
    try:
        hu(header)
    except zooft.DataError as error:
        return str(error)
    return ""


def test_a_slope_that_leaves_everything_among_tissue_is_reported(real_headers: list[SliceHeader]) -> None:
    """Air at -1000 becomes -100, as fat is: with no offset in the numbers, only the lack of air speaks."""
    assert not any(units.oddity(hu(header)) for header in real_headers)
    without_offset = [header for header in real_headers if header.layout.intercept == 0]
    assert len(without_offset) == 29
    for header in without_offset:
        wrong = replace(header, layout=replace(header.layout, slope=0.1))
        assert "another slope or intercept" in units.oddity(hu(wrong))
