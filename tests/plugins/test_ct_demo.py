"""The phantoms: valid DICOM by dciodvfy, read back by SimpleITK, labels that say what is in the pixels."""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from scipy.ndimage import gaussian_filter, label

from zooft_ct import demo, phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SMALL = phantom.Size(pixels=96, slices=8)


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / "data"
    demo.generate(root, patients=4, test_patients=2, seed=3, size=SMALL)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def headers(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def in_order(folder: Path) -> list[pydicom.Dataset]:
    return sorted(headers(folder), key=lambda dataset: float(dataset.ImagePositionPatient[2]))


def digests(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_dciodvfy_has_nothing_to_say_about_any_file(chests: Path) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (dicom3tools) isn't installed")
    files = sorted(chests.rglob("*.dcm"))
    assert len(files) == 6 * SMALL.slices
    for path in files:
        done = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
        message = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
        assert (message, done.returncode) == ([], 0)


def test_simpleitk_reads_the_drawn_hu_in_the_drawn_geometry(chests: Path) -> None:
    folder = chests / "dicom" / "PHANTOM-0001"
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    ours = np.stack([dataset.pixel_array.astype(np.int32) - 1024 for dataset in in_order(folder)])
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), ours)
    assert image.GetSpacing() == pytest.approx((SMALL.spacing, SMALL.spacing, SMALL.increment), abs=1e-5)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    middle = image.TransformContinuousIndexToPhysicalPoint([(SMALL.pixels - 1) / 2] * 2 + [0])
    assert middle == pytest.approx((0, 0, 0), abs=1e-3)


def test_neither_file_names_nor_instance_numbers_give_the_order_of_the_slices(chests: Path) -> None:
    for folder in (chests / "dicom").iterdir():
        by_name = [float(dataset.ImagePositionPatient[2]) for dataset in headers(folder)]
        by_number = [int(dataset.InstanceNumber) for dataset in in_order(folder)]
        assert sorted(by_name) == pytest.approx(np.arange(SMALL.slices) * SMALL.increment)
        assert sorted(by_number) == list(range(1, SMALL.slices + 1))
        assert by_name not in (sorted(by_name), sorted(by_name, reverse=True))
        assert by_number not in (sorted(by_number), sorted(by_number, reverse=True))


def test_the_tables_name_every_series_and_slice_once(chests: Path) -> None:
    found = {
        (str(d.PatientID), str(d.SeriesInstanceUID), str(d.SOPInstanceUID))
        for folder in (chests / "dicom").iterdir()
        for d in headers(folder)
    }
    slices, series = rows(chests / "slice_labels.csv"), rows(chests / "labels.csv")
    assert len(slices) == len(found) == 6 * SMALL.slices
    assert {(row["patient_id"], row["series_uid"], row["sop_uid"]) for row in slices} == found
    assert {(row["patient_id"], row["series_uid"]) for row in series} == {one[:2] for one in found}
    assert [row["label"] for row in series] == ["clear", "nodule"] * 3
    assert [row["split"] for row in series] == ["train"] * 4 + ["test"] * 2
    having = {row["patient_id"] for row in slices if row["label"] == "nodule"}
    assert having == {row["patient_id"] for row in series if row["label"] == "nodule"}


def test_every_text_says_that_all_is_synthetic(chests: Path) -> None:
    assert (chests / "README.txt").read_text(encoding="utf-8").startswith("All of this is synthetic.")
    dataset = headers(chests / "dicom" / "PHANTOM-0000")[0]
    assert "SYNTHETIC" in dataset.SeriesDescription
    assert str(dataset.PatientName) == "Phantom^PHANTOM-0000"


def test_one_seed_gives_equal_files_and_a_larger_set_holds_the_smaller_one(tmp_path: Path, chests: Path) -> None:
    demo.generate(tmp_path / "again", patients=2, seed=3, size=SMALL)
    again, known = digests(tmp_path / "again" / "dicom"), digests(chests / "dicom")
    assert again.items() <= known.items()
    demo.generate(tmp_path / "other", patients=1, seed=4, size=SMALL)
    assert not digests(tmp_path / "other" / "dicom").items() & known.items()


def test_one_slice_a_patient_is_the_largest_cut_of_the_nodule_or_any_inner_slice(tmp_path: Path) -> None:
    demo.generate(tmp_path / "data", patients=6, seed=1, size=SMALL, one_slice=True)
    for row in rows(tmp_path / "data" / "slice_labels.csv"):
        slices = [str(d.SOPInstanceUID) for d in in_order(tmp_path / "data" / "dicom" / row["patient_id"])]
        assert 0 < slices.index(row["sop_uid"]) < SMALL.slices - 1
    labels = [row["label"] for row in rows(tmp_path / "data" / "slice_labels.csv")]
    assert labels == ["clear", "nodule"] * 3


def twins(seed: int, nodules: phantom.Nodules) -> tuple[NDArray[np.float64], phantom.Scan]:
    """What a nodule changes in one and the same chest, but for noise; and the scan with it."""
    with_it = phantom.scan(np.random.default_rng(seed), size=phantom.Size(), nodules=nodules)
    without = phantom.scan(np.random.default_rng(seed), size=phantom.Size(), nodules=None)
    return gaussian_filter(with_it.hu.astype(float) - without.hu, (0, 0.7, 0.7)), with_it


@pytest.mark.parametrize("seed", range(5))
def test_a_slice_is_called_nodule_where_the_pixels_show_one(seed: int) -> None:
    """In the difference of two chests alike but for the nodule, one round spot of the right size stands out."""
    nodules = phantom.Nodules(diameter=(14.0, 20.0), hu=(0.0, 60.0))
    change, scan = twins(seed, nodules)
    pixel = phantom.Size().spacing
    for plane, section, visible in zip(change, scan.section, scan.visible, strict=True):
        spots, count = label(plane > 350)
        areas = [pixel**2 * np.sum(spots == spot + 1) for spot in range(count)]
        if visible:
            assert 2 * np.sqrt(max(areas) / np.pi) == pytest.approx(section, abs=pixel)
        elif not section:
            assert max(areas, default=0) < 3 * pixel**2
    assert 14 <= scan.nodule <= 20
    assert scan.section.max() == pytest.approx(scan.nodule)


def test_a_nodule_that_no_lung_has_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="doesn't fit"):
        phantom.scan(np.random.default_rng(0), size=SMALL, nodules=phantom.Nodules(diameter=(150, 150)))


@pytest.mark.parametrize("seed", range(3))
def test_the_tissues_of_a_chest_have_their_hu(seed: int) -> None:
    hu = phantom.scan(np.random.default_rng(seed), size=phantom.Size(), nodules=None).hu
    shares = {
        name: np.mean((hu >= low) & (hu < high))
        for name, (low, high) in {
            "air": (-1024, -950),
            "lung": (-930, -700),
            "fat": (-160, -50),
            "soft": (0, 110),
            "bone": (250, 1500),
        }.items()
    }
    assert shares["air"] > 0.3
    assert 0.08 < shares["lung"] < 0.35
    assert 0.02 < shares["fat"] < 0.2
    assert 0.1 < shares["soft"] < 0.35
    assert 0.005 < shares["bone"] < 0.06
    assert hu[:, 0, 0].mean() == pytest.approx(-1000, abs=20)


def test_the_demo_is_small_and_shows_every_nodule(tmp_path: Path) -> None:
    demo.demo(tmp_path / "demo", 0)
    series, slices = rows(tmp_path / "demo" / "labels.csv"), rows(tmp_path / "demo" / "slice_labels.csv")
    seen: dict[str, Any] = {row["patient_id"]: 0 for row in series if row["label"] == "nodule"}
    for row in slices:
        if row["label"] == "nodule":
            seen[row["patient_id"]] += 1
    assert (len(series), len(seen)) == (80, 40)
    assert min(seen.values()) >= 1
    assert list(series[0]) == ["patient_id", "series_uid", "label"]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 40e6
