"""NIfTI volumes: the same slices as an independent reader gives, or a reason from the header."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from example_data import real
from numpy.typing import NDArray

import zooft
from zooft_ct import nifti

RIGHT_ANGLED = np.diag([-0.7, -0.8, 3.0, 1.0])
"""Voxel indices to mm (right, anterior, superior) where the array lies left, posterior, superior."""


def chest(shape: tuple[int, int, int] = (5, 6, 7), seed: int = 0) -> NDArray[np.int16]:
    """HU as slices, rows, columns; air, fat and tissue, no two slices alike."""
    return np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)


def save(
    path: Path, hu: NDArray[Any], affine: NDArray[Any] = RIGHT_ANGLED, *, slope: float = 1, intercept: float = 0
) -> Path:
    """An array of slices, rows, columns as the file's x, y, z."""
    image = nibabel.Nifti1Image(hu.transpose(), affine)
    if (slope, intercept) != (1, 0):
        image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, path)
    return path


def patched(path: Path, **fields: Any) -> Path:
    """The same file with header fields set to what no library would write."""
    content = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))
    return path


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(zooft.DataError) as caught:
        nifti.whole(nifti.open_volume(path), **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["totalseg_example_ct.nii.gz", "totalseg_aorta_ct_cropped.nii.gz"])
def test_real_volumes_equal_an_independent_reader(name: str) -> None:
    sitk = pytest.importorskip("SimpleITK")
    path = real(f"nifti_ct/{name}")
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    volume = nifti.open_volume(path)
    hu = nifti.whole(volume)
    assert hu.dtype == np.int16
    np.testing.assert_array_equal(hu, sitk.GetArrayFromImage(image).clip(-1024, 3071))
    columns, rows, slices = image.GetSpacing()
    assert (*volume.spacing, volume.increment) == pytest.approx((rows, columns, slices))
    np.testing.assert_array_equal(nifti.hu(volume, 40), hu[40])


@pytest.mark.parametrize("name", ["totalseg_example_seg.nii.gz", "niivue_CT_pitch.nii.gz"])
def test_masks_and_8_bit_pictures_are_refused_as_not_hu(name: str) -> None:
    assert refusal(real(f"nifti_ct/{name}")).startswith("not HU? its values go from 0 to")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("turned", list(itertools.product([1, -1], repeat=3)), ids=str)
def test_every_way_to_store_a_volume_gives_the_same_slices(
    tmp_path: Path, order: tuple[int, int, int], turned: tuple[int, int, int]
) -> None:
    hu = chest()
    stored = hu.transpose(2, 1, 0)[:: turned[0], :: turned[1], :: turned[2]].transpose(order)
    mm = np.array([0.7, 0.8, 3.0]) * np.array([-1, -1, 1]) * turned
    affine = np.eye(4)
    affine[:3, :3] = np.diag(mm)[:, order]
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "volume.nii")
    volume = nifti.open_volume(tmp_path / "volume.nii")
    np.testing.assert_array_equal(nifti.whole(volume), hu)
    np.testing.assert_array_equal(nifti.hu(volume, 3), hu[3])
    assert volume.shape == (5, 6, 7)
    assert (*volume.spacing, volume.increment) == pytest.approx((0.8, 0.7, 3.0))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slope_and_intercept_make_hu(tmp_path: Path, suffix: str) -> None:
    raw = np.full((2, 12, 3), 520, dtype=np.uint16)
    raw[0, :2] = [[0, 512, 600], [700, 4095, 100]]
    nibabel.save(nibabel.Nifti1Image(raw.transpose(), RIGHT_ANGLED), tmp_path / f"v{suffix}")
    path = patched(tmp_path / f"v{suffix}", scl_slope=2.0, scl_inter=-1024.0)
    hu = np.full(raw.shape, 16)
    hu[0, :2] = [[-1024, 0, 176], [376, 3071, -824]]
    np.testing.assert_array_equal(nifti.whole(nifti.open_volume(path)), hu)
    np.testing.assert_array_equal(nifti.hu(nifti.open_volume(path), 0), hu[0])


def test_fractions_are_rounded_and_the_range_is_that_of_12_bits(tmp_path: Path) -> None:
    values = np.full((1, 10, 4), 40.3, dtype=np.float32)
    values[0, 0] = [-3024.0, -0.6, 0.4, 9000.0]
    path = save(tmp_path / "v.nii", values)
    assert nifti.whole(nifti.open_volume(path))[0, :2].tolist() == [[-1024, -1, 0, 3071], [40, 40, 40, 40]]


def test_big_endian_and_nifti_2_are_read(tmp_path: Path) -> None:
    hu = chest()
    big = nibabel.Nifti1Image(hu.transpose(), RIGHT_ANGLED, nibabel.Nifti1Header(endianness=">"))
    nibabel.save(big, tmp_path / "big.nii")
    nibabel.save(nibabel.Nifti2Image(hu.transpose(), RIGHT_ANGLED), tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        np.testing.assert_array_equal(nifti.whole(nifti.open_volume(tmp_path / name)), hu)


def test_values_that_are_no_numbers_are_counted_and_become_air_on_demand(tmp_path: Path) -> None:
    hu = chest().astype(np.float32)
    hu[1, 2, 3], hu[4, 0, 0] = np.nan, np.inf
    for suffix in (".nii", ".nii.gz"):
        path = save(tmp_path / f"v{suffix}", hu)
        assert refusal(path) == "2 of its values aren't finite numbers; --nan-to-air takes them for air"
        read = nifti.whole(nifti.open_volume(path), nan_to_air=True)
        assert read[1, 2, 3] == read[4, 0, 0] == -1024
        assert nifti.hu(nifti.open_volume(path), 1, nan_to_air=True)[2, 3] == -1024


def test_a_fourth_dimension_is_refused_unless_it_is_one(tmp_path: Path) -> None:
    hu = chest().transpose()
    nibabel.save(nibabel.Nifti1Image(hu[..., None], RIGHT_ANGLED), tmp_path / "one.nii")
    nibabel.save(nibabel.Nifti1Image(np.stack([hu, hu], -1), RIGHT_ANGLED), tmp_path / "two.nii")
    assert nifti.whole(nifti.open_volume(tmp_path / "one.nii")).shape == (5, 6, 7)
    assert "has 4 dimensions" in refusal(tmp_path / "two.nii")


def test_affines_without_size_angle_or_meaning_are_refused(tmp_path: Path) -> None:
    sheared = RIGHT_ANGLED.copy()
    sheared[1, 2] = 1.0
    path = save(tmp_path / "v.nii", chest(), sheared)
    assert "sheared" in refusal(path)
    assert "zero, huge or not finite" in refusal(patched(path, srow_x=0, srow_y=0, srow_z=0))
    assert "zero, huge or not finite" in refusal(patched(path, srow_x=np.nan))
    assert "doesn't define how the volume lies" in refusal(patched(path, sform_code=0, qform_code=0))


def test_sizes_are_checked_from_the_header(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", chest())
    tracemalloc.start()
    assert "aren't a CT volume" in refusal(patched(path, dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]))
    assert "can't hold" in refusal(patched(path, dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]))
    assert "aren't a CT volume" in refusal(patched(path, dim=[3, -5, 6, 7, 1, 1, 1, 1]))
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_no_more_is_decompressed_than_the_header_declares(tmp_path: Path) -> None:
    path = save(tmp_path / "v.nii.gz", chest())
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(200_000_000), 1))
    tracemalloc.start()
    assert refusal(path).startswith("holds more data than its header declares: ")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_header_that_has_lost_a_slice_is_refused(name: str, tmp_path: Path) -> None:
    path = patched(save(tmp_path / name, chest()), dim=[3, 7, 6, 4, 1, 1, 1, 1])
    assert refusal(path).startswith("holds more data than its header declares: ")


def test_torn_files_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path / "v.nii.gz", chest((20, 32, 32))).read_bytes()
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "torn" in refusal(cut)
    spoilt = bytearray(whole)
    spoilt[-6] ^= 255  # the checksum
    cut.write_bytes(spoilt)
    assert "torn" in refusal(cut)
    short = save(tmp_path / "v.nii", chest())
    short.write_bytes(short.read_bytes()[:-10])
    assert "can't hold" in refusal(short)
    for content in (b"", b"text, and no volume", gzip.compress(b"text" * 100)):
        cut.write_bytes(content)
        assert refusal(cut)


def test_types_that_are_no_hu_are_refused(tmp_path: Path) -> None:
    hu = chest().transpose()
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.complex64), RIGHT_ANGLED), tmp_path / "v.nii")
    assert "complex64 aren't HU" in refusal(tmp_path / "v.nii")
    assert "data type" in refusal(patched(tmp_path / "v.nii", datatype=77))
    path = save(tmp_path / "z.nii", np.random.default_rng(0).normal(size=(4, 8, 8)))
    assert "not HU?" in refusal(path)
    assert "not HU?" in refusal(save(tmp_path / "b.nii", chest() + np.int16(2000)))


def test_two_file_images_are_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(chest().transpose(), RIGHT_ANGLED), tmp_path / "v.img")
    (tmp_path / "v.hdr").rename(tmp_path / "v.nii")
    assert "two-file" in refusal(tmp_path / "v.nii")


@pytest.mark.parametrize("content", [b"\x5c\x01\0\0abc", b"\x5c\x01\0\0abcdefghij", b"\x1c\x02\0\0" + bytes(400)])
def test_a_file_shorter_than_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "short.nii").write_bytes(content)
    assert refusal(tmp_path / "short.nii") == "its NIfTI header can't be read (WrapStructError)"


# Headers and names that lie; SimpleITK or the file's own bytes are the truth


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_data_at_byte_0_are_where_files_have_them_and_that_is_reported(suffix: str, tmp_path: Path) -> None:
    hu = chest()
    path = patched(save(tmp_path / f"v{suffix}", hu), vox_offset=0)
    volume = nifti.open_volume(path)
    np.testing.assert_array_equal(nifti.whole(volume), hu)
    assert any("puts the data at byte 0" in note for note in volume.notes)


@pytest.mark.parametrize("offset", [16, 348, 353.5, np.nan, -352, 1e9])
def test_data_within_the_header_or_nowhere_are_refused(offset: float, tmp_path: Path) -> None:
    path = patched(save(tmp_path / "v.nii", chest()), vox_offset=offset)
    assert "its header puts the data" in refusal(path)


def test_data_behind_an_extension_are_found_and_an_offset_that_forgets_it_is_refused(tmp_path: Path) -> None:
    hu = chest()
    image = nibabel.Nifti1Image(hu.transpose(), RIGHT_ANGLED)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 100))
    nibabel.save(image, tmp_path / "v.nii")
    np.testing.assert_array_equal(nifti.whole(nifti.open_volume(tmp_path / "v.nii")), hu)
    for offset in (0, 352, 368):
        assert "header and extensions end at" in refusal(patched(tmp_path / "v.nii", vox_offset=offset))


def test_more_bytes_than_the_data_make_byte_0_no_guess(tmp_path: Path) -> None:
    path = patched(save(tmp_path / "v.nii", chest()), vox_offset=0)
    path.write_bytes(path.read_bytes() + bytes(16))
    assert "its header puts the data 0 bytes into the file" in refusal(path)


@pytest.mark.parametrize(
    ("written", "named", "words"), [("nii", "nii.gz", "is compressed"), ("nii.gz", "nii", "not compressed")]
)
def test_whether_a_file_is_compressed_is_known_by_its_content(
    written: str, named: str, words: str, tmp_path: Path
) -> None:
    hu = chest()
    path = save(tmp_path / f"v.{written}", hu).rename(tmp_path / f"w.{named}")
    volume = nifti.open_volume(path)
    np.testing.assert_array_equal(nifti.whole(volume), hu)
    np.testing.assert_array_equal(nifti.hu(volume, 2), hu[2])
    assert words in volume.notes[0]


def test_two_sizes_of_the_values_are_refused(tmp_path: Path) -> None:
    assert "another one in bitpix" in refusal(patched(save(tmp_path / "v.nii", chest()), bitpix=32))


def test_sizes_in_micrometres_are_refused(tmp_path: Path) -> None:
    assert "micrometres" in refusal(patched(save(tmp_path / "v.nii", chest()), xyzt_units=3))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (np.diag([-0.7, -0.8, 3.0, 1]), None),
        (
            np.diag([-0.7, -0.8, 3.0, 1]) + np.array([[0, 0, 0, 9.0], *[[0] * 4] * 3]),
            "disagree by up to 9.0 mm; its sform",
        ),
        (np.diag([0.7, -0.8, 3.0, 1]), "even about which side is left"),
    ],
)
def test_two_statements_of_how_a_volume_lies_are_compared(
    other: NDArray[Any], words: str | None, tmp_path: Path
) -> None:
    image = nibabel.Nifti1Image(chest().transpose(), np.diag([-0.7, -0.8, 3.0, 1]))
    image.set_qform(other, code=1)
    image.set_sform(np.diag([-0.7, -0.8, 3.0, 1]), code=2)
    nibabel.save(image, tmp_path / "v.nii")
    notes = nifti.open_volume(tmp_path / "v.nii").notes
    assert [words in note for note in notes if words] == ([True] if words else [])
    assert words or not notes
