"""Real files: values equal to an independent reader's, or a reason."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from example_data import real
from numpy.typing import NDArray

import zooft
from zooft_ct import geometry
from zooft_ct.header import SliceHeader, read_headers
from zooft_ct.pixels import hu
from zooft_ct.series import scan

_LOSSLESS = ("JLSL", "J2KR", "JPLL", "RLE")
_NEAR = 4
"""JPEG-LS's NEAR parameter in wg04's near-lossless files: no value is off by more."""
_REFUSED = {
    "no pixels in the file": "dicomdirtests/TINY_ALPHA/",
    "a localizer": "dicomdirtests/98892001/CT2N/",
    "the values aren't HU": "/7",
}
"""Reason to where such files lie: headers without pixels, scouts, and a head whose brain is stored at 1400 HU and its air at 77."""


def _itk(header: SliceHeader) -> NDArray[np.float64]:
    """The same slice by ITK, which makes its own parser's and rescale's values; axial ones by its axes, too."""
    image = SimpleITK.ReadImage(str(header.path))
    if header.orientation and geometry.is_axial(header.orientation) and image.GetDepth() == 1:
        image = SimpleITK.DICOMOrient(image, "LPS")
    volume = SimpleITK.GetArrayFromImage(image).reshape(-1, header.rows, header.columns)
    clipped: NDArray[np.float64] = np.clip(np.rint(volume[header.frame].astype(np.float64)), -1024, 3071)
    return clipped


def _read(path: Path) -> tuple[list[tuple[SliceHeader, NDArray[np.int16]]], str]:
    try:
        return [(header, hu(header)) for header in read_headers(path)], ""
    except zooft.DataError as error:
        return [], str(error)


def _inventory_of_ct() -> list[Path]:
    with real("dicom_inventory.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["plain"] == "ok"]
    return [real(row["path"]) for row in rows if "CT" in {row["modality"], row["sop"].split(" Image")[0]}]


def test_every_ct_file_equals_itk_or_is_refused_for_a_known_reason() -> None:
    counts = Counter[str]()
    for path in [*_inventory_of_ct(), *sorted(real("siim_ct/dicom").iterdir())]:
        slices, reason = _read(path)
        for header, ours in slices:
            np.testing.assert_array_equal(ours, _itk(header))
            counts["equal"] += 1
        if reason:
            known = [words for words, place in _REFUSED.items() if reason.startswith(words) and place in str(path)]
            assert known, reason
            counts[known[0]] += 1
    assert counts == {"equal": 171, "no pixels in the file": 50, "a localizer": 2, "the values aren't HU": 6}


def test_what_is_no_ct_is_refused_and_named() -> None:
    found = scan(real("dicom_corner/highdicom"))
    assert len(found.series) == 1
    assert len(found.rejected) > 15
    assert all(reason.startswith("not a CT image but ") for reason in (refused.reason for refused in found.rejected))


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[np.int16]]:
    """WG-04's uncompressed truth."""
    if shutil.which("zstd") is None:
        pytest.skip("the program zstd unpacks the reference files")
    folder, truth = tmp_path_factory.mktemp("wg04"), {}
    for name in ("CT1", "CT2"):
        plain = folder / name
        packed = real(f"dicom_corner/wg04/REF/{name}_UNC.zst")
        subprocess.run(["zstd", "-q", "-d", str(packed), "-o", str(plain)], check=True)
        truth[name] = hu(read_headers(plain)[0])
    return truth


@pytest.mark.parametrize("name", ["CT1", "CT2"])
@pytest.mark.parametrize("coding", _LOSSLESS)
def test_lossless_twin_gives_the_reference_exactly(
    coding: str, name: str, references: dict[str, NDArray[np.int16]]
) -> None:
    (header,) = read_headers(real(f"dicom_corner/wg04/{coding}/{name}_{coding}"))
    np.testing.assert_array_equal(hu(header), references[name])


@pytest.mark.parametrize("name", ["CT1", "CT2"])
def test_near_lossless_twin_is_within_its_bound(name: str, references: dict[str, NDArray[np.int16]]) -> None:
    (header,) = read_headers(real(f"dicom_corner/wg04/JLSN/{name}_JLSN"))
    assert np.abs(hu(header).astype(int) - references[name]).max() == _NEAR


def test_siim_slices_separate_their_copies() -> None:
    found = scan(real("siim_ct/dicom"))
    assert sum(len(series.slices) + len(series.copies) for series in found.series) == 100
    assert len(found.rejected) == sum(len(series.copies) for series in found.series) == 5


def test_padding_of_siim_is_air_whatever_its_sign() -> None:
    by_padding = {63536: 0, -2000: 0}
    for path in sorted(real("siim_ct/dicom").iterdir()):
        image = SimpleITK.ImageFileReader()
        image.SetFileName(str(path))
        image.ReadImageInformation()
        if not image.HasMetaDataKey("0028|0120"):
            continue
        (header,) = read_headers(path)
        assert header.layout.padding == (-2000, -2000)
        by_padding[int(image.GetMetaData("0028|0120"))] += 1
    assert min(by_padding.values()) > 0


def test_order_of_the_siemens_series_is_itks() -> None:
    folder = real("ct_series/totalseg_example_ct_dicom")
    (series,) = scan(folder).series
    heights = [header.position[2] for header in series.slices if header.position]
    assert heights == sorted(heights)
    assert (len(heights), series.increment, series.tilt, series.gaps) == (20, 2.0, 0.0, ())
    assert (series.uid, series.patient_id) == ("", "")


def test_tilt_and_uneven_spacing_of_the_ge_head_are_reported_and_no_gap_is_made_up() -> None:
    """Its header says 18.5°; 4 mm slices below, 7 mm above."""
    (series,) = scan(real("ct_series/dcm_qa_ct_GE")).series
    assert len(series.slices) == 28
    assert series.tilt == pytest.approx(18.5, abs=0.01)
    assert series.gaps == ()
    assert "18.5°" in " ".join(series.notes)
    assert "from 1.08 to 7.00 mm" in " ".join(series.notes)


def test_facts_of_a_real_slice_are_those_of_its_header() -> None:
    header = read_headers(sorted(real("siim_ct/dicom").iterdir())[0])[0]
    assert header.facts == {
        "manufacturer": "SIEMENS",
        "model": "SOMATOM PLUS 4",
        "kernel": "59 .10.AB50",
        "slice_thickness": 8.0,
        "kvp": 140.0,
        "sex": "M",
        "age": 60.0,
        "contrast": "none",
        "body_part": "CHEST",
        "transfer_syntax": "Implicit VR Little Endian",
        "matrix": "512x512",
        "bits": "12 unsigned",
    }
