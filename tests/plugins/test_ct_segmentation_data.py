"""Label volumes of CT: read onto series by nibabel's, SimpleITK's and highdicom's own geometry, and written back."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import example_data
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

import zooft
import zooft_ct_segmentation
from zooft_ct import CTOptions, augment, demo, phantom, read, write_nifti, write_segmentation
from zooft_ct.discover import gather
from zooft_ct_segmentation.options import CTSegmentationOptions
from zooft_ct_segmentation.targets import slice_mask

highdicom: Any = pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")
SIZE = phantom.Size(pixels=64, slices=6)
(TASK,) = zooft_ct_segmentation.zooft_register_tasks()
BONE = 200
"""HU: what the tests mark, so that a mask's place can be seen in the image."""


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients without masks."""
    root = tmp_path_factory.mktemp("chests")
    demo.generate(root, patients=2, seed=1, size=SIZE)
    for name in ("labels.csv", "slice_labels.csv", "README.txt"):
        (root / name).unlink()
    return root


@pytest.fixture
def data(chests: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(chests, tmp_path / "data"))


def options(**given: Any) -> Any:
    return CTSegmentationOptions(**{"mode": "slice", "hu_cache": "off", **given})


def discovered(root: Path, **given: Any) -> zooft.Discovery:
    found: zooft.Discovery = TASK.discover(root, options(**given), learning=False)
    return found


def series(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def save_itk(labels: NDArray[Any], like: SimpleITK.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(labels.astype(np.uint8))
    image.CopyInformation(like)
    SimpleITK.WriteImage(image, str(path))


def mark_bones(data: Path, *, patients: Sequence[str] = ("PHANTOM-0000", "PHANTOM-0001")) -> None:
    for patient in patients:
        image = series(data / "dicom" / patient)
        save_itk(SimpleITK.GetArrayFromImage(image) > BONE, image, data / "masks" / f"{patient}.nii.gz")


def is_on_the_bones(found: zooft.Discovery) -> None:
    """Whether every sample's mask is where its own HU are."""
    for sample in found.samples:
        hu = read.read(sample.source, options())
        assert np.array_equal(sample.target.pixels(), hu[0] > BONE)
    assert sum(sample.target.counts[1] for sample in found.samples) > 100


def turn(data: Path, orientation: Sequence[float]) -> None:
    """Store the slices as rows and columns of this orientation see the same patient."""
    for path in data.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        pixels, place = dataset.pixel_array, [float(part) for part in dataset.ImagePositionPatient]
        spacing, across, down = float(dataset.PixelSpacing[0]), orientation[0], orientation[4]
        place[0] += 0 if across > 0 else (pixels.shape[1] - 1) * spacing
        place[1] += 0 if down > 0 else (pixels.shape[0] - 1) * spacing
        stored = pixels[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1]
        dataset.PixelData = np.ascontiguousarray(stored).tobytes()
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = list(orientation), place
        dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (-1, 0, 0, 0, 1, 0)])
def test_nifti_labels_of_a_dicom_series_lie_where_simpleitk_puts_them(data: Path, orientation: Any) -> None:
    turn(data, orientation)
    mark_bones(data)
    found = discovered(data)
    assert len(found.samples) == 2 * SIZE.slices
    assert len({sample.group for sample in found.samples}) == 2
    is_on_the_bones(found)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)])
def test_labels_of_a_dicom_series_are_written_where_simpleitk_has_it(data: Path, orientation: Any) -> None:
    turn(data, orientation)
    folder = data / "dicom" / "PHANTOM-0001"
    samples = gather([folder], CTOptions(mode="slice", hu_cache="off")).samples
    hu = np.concatenate([read.read(sample.source, options()) for sample in samples])
    write_nifti(data / "back.nii.gz", (hu > BONE).astype(np.uint8), [sample.source.middle for sample in samples])
    image, back = series(folder), SimpleITK.ReadImage(str(data / "back.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(back), SimpleITK.GetArrayFromImage(image) > BONE)
    for ours, theirs in (
        (back.GetOrigin(), image.GetOrigin()),
        (back.GetSpacing(), image.GetSpacing()),
        (back.GetDirection(), image.GetDirection()),
    ):
        assert ours == pytest.approx(theirs, abs=1e-4)


def nifti_case(root: Path, name: str, axes: str, *, mask_axes: str = "") -> tuple[Any, Any]:
    """A chest as NIfTI with these axes, oblique by 10 degrees, and its bones as a mask with these or others."""
    hu = phantom.scan(np.random.default_rng(len(name)), size=SIZE, nodules=None).hu
    turned = np.eye(4)
    angle = np.radians(10)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turned @ np.diag([-SIZE.spacing, -SIZE.spacing, SIZE.increment, 1.0])
    affine[:3, 3] = [101.5, 87.25, -33.75]
    image = nibabel.Nifti1Image(hu.transpose(), affine)
    mask = nibabel.Nifti1Image((hu.transpose() > BONE).astype(np.uint8), affine)
    for kind, made, expected in (("images", image, axes), ("masks", mask, mask_axes or axes)):
        change = nibabel.orientations.ornt_transform(
            nibabel.orientations.axcodes2ornt("LPS"), nibabel.orientations.axcodes2ornt(expected)
        )
        path = root / kind / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(made.as_reoriented(change), path)
    return nibabel.load(root / "images" / f"{name}.nii.gz"), nibabel.load(root / "masks" / f"{name}.nii.gz")


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PSR", "ILA"])
def test_nifti_labels_are_read_onto_their_image_and_written_back_to_the_byte(tmp_path: Path, axes: str) -> None:
    image, mask = nifti_case(tmp_path / "data", "one", axes)
    found = discovered(tmp_path / "data", group_by="series")
    is_on_the_bones(found)
    labels = np.stack([sample.target.pixels() for sample in found.samples])
    write_nifti(tmp_path / "back.nii.gz", labels, [sample.source.middle for sample in found.samples])
    back = nibabel.load(tmp_path / "back.nii.gz")
    assert np.array_equal(back.affine, image.affine)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(mask.dataobj))
    for name in ("sform_code", "qform_code", "pixdim"):
        assert np.array_equal(back.header[name], image.header[name])


def test_a_mask_stored_along_other_axes_is_of_the_same_places(tmp_path: Path) -> None:
    nifti_case(tmp_path / "data", "one", "RAS", mask_axes="PSR")
    is_on_the_bones(discovered(tmp_path / "data", group_by="series"))


def changed(path: Path, change: Any) -> None:
    image = nibabel.load(path)
    labels, affine = change(np.asarray(image.dataobj), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(labels, affine), path)


def moved(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
    affine[0, 3] += 5
    return labels, affine


def cut(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
    return labels[:-1], affine


def coarser(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
    return labels, affine @ np.diag([1.1, 1, 1, 1])


def broken(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
    return labels * 0.5, affine


def beyond(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
    return labels * 7, affine


@pytest.mark.parametrize(
    ("change", "words"),
    [(moved, r"affine isn't the image's.* 5 mm"), (cut, "6 x 64 x 63 voxels.*6 x 64 x 64"), (coarser, "against"),
     (broken, "whole numbers"), (beyond, "no class: 7, .* voxels")],
)  # fmt: skip # a table of cases
def test_a_mask_that_does_not_fit_is_listed_and_the_other_is_used(
    tmp_path: Path, change: Any, words: str, request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "data"
    nifti_case(root, "good", "RAS")
    nifti_case(root, "wrong", "RAS")
    changed(root / "masks" / "wrong.nii.gz", change)
    found = discovered(root, group_by="series", classes=("background", "bone"))
    assert len(found.samples) == SIZE.slices
    (rejected,) = [one for one in found.rejected if one.id.startswith("series")]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(rejected.reason)
    assert "file " in rejected.reason
    with pytest.raises(zooft.DataError, match="--strict"):
        discovered(root, group_by="series", classes=("background", "bone"), strict=True)


def test_without_any_mask_that_fits_the_first_reason_is_the_error(tmp_path: Path) -> None:
    nifti_case(tmp_path / "data", "wrong", "RAS")
    changed(tmp_path / "data" / "masks" / "wrong.nii.gz", moved)
    with pytest.raises(zooft.DataError, match="5 mm"):
        discovered(tmp_path / "data", group_by="series")


def test_an_empty_mask_is_a_negative(tmp_path: Path) -> None:
    root = tmp_path / "data"
    nifti_case(root, "one", "RAS")
    nifti_case(root, "empty", "RAS")
    changed(root / "masks" / "empty.nii.gz", lambda labels, affine: (labels * 0, affine))
    found = discovered(root, group_by="series")
    assert len(found.samples) == 2 * SIZE.slices
    empty = [sample for sample in found.samples if not sample.target.counts[1]]
    assert len(empty) >= SIZE.slices
    assert any("1 of 2 label volumes are empty" in note for note in found.notes)


def test_a_mask_of_some_slices_labels_these_and_the_others_are_listed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    nifti_case(root, "one", "LPS")

    def upper(labels: NDArray[Any], affine: NDArray[Any]) -> Any:
        affine[:3, 3] += affine[:3, 2] * 2
        return labels[..., 2:5], affine

    changed(root / "masks" / "one.nii.gz", upper)
    found = discovered(root, group_by="series")
    assert [sample.source.number for sample in found.samples] == [2, 3, 4]
    for sample in found.samples:
        assert np.array_equal(sample.target.pixels(), read.read(sample.source, options())[0] > BONE)
    assert any("cover 3 of 6 slices" in one.reason for one in found.rejected)


def test_a_table_names_masks_patients_and_splits_and_the_data_set_s_values_stay(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("a", "b"):
        nifti_case(root, name, "RAS")
        changed(root / "masks" / f"{name}.nii.gz", beyond)
        (root / "masks" / f"{name}.nii.gz").rename(root / f"{name} drawn.nii.gz")
    (root / "labels.json").write_text('{"background": 0, "bone": 7}')
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["patient_id", "path", "mask", "split"],
                ["007", "images/a.nii.gz", "a drawn.nii.gz", "train"],
                ["008", "images/b.nii.gz", "b drawn.nii.gz", "val"],
                ["009", "images/b.nii.gz", "", "val"],
                ["010", "images/b.nii.gz", "no.nii.gz", "val"],
            ]
        )
    found = discovered(root)
    assert [label.name for label in found.labels] == ["background", "bone"]
    assert [label.constants["value"] for label in found.labels] == [0, 7]
    assert [sample.split for sample in found.samples] == ["train"] * 6 + ["val"] * 6
    reasons = {one.id: one.reason for one in found.rejected}
    assert reasons["labels.csv, line 4"] == "has no mask"
    assert reasons["labels.csv, line 5"] == "there is no such mask"


# DICOM segmentations


def segmentation(folder: Path, masks: NDArray[Any], names: Sequence[str], path: Path) -> None:
    """By highdicom alone; masks ``(slices, rows, columns, segments)`` in the order of the positions."""
    sources = sorted((pydicom.dcmread(one) for one in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=masks.astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(number, name, codes.SCT.Tissue, codes.SCT.Bone, "MANUAL")
            for number, name in enumerate(names, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=2,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="a",
        manufacturer_model_name="b",
        software_versions="c",
        device_serial_number="d",
    )
    made.save_as(path)


def bones(folder: Path) -> NDArray[np.bool_]:
    """As stored, by position."""
    return np.asarray(SimpleITK.GetArrayFromImage(series(folder)) > BONE)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)])
def test_dicom_segmentations_are_found_by_the_series_that_they_refer_to(data: Path, orientation: Any) -> None:
    turn(data, orientation)
    for patient in ("PHANTOM-0000", "PHANTOM-0001"):
        folder = data / "dicom" / patient
        segmentation(folder, bones(folder)[..., None], ["Bone"], data / f"{patient}.dcm")
    found = discovered(data)
    assert [label.name for label in found.labels] == ["background", "Bone"]
    assert found.rejected == ()
    is_on_the_bones(found)


def test_overlapping_segments_are_refused_with_their_names(data: Path) -> None:
    one, other = (data / "dicom" / f"PHANTOM-000{n}" for n in (0, 1))
    segmentation(one, np.stack([bones(one)] * 2, -1), ["Bone", "Rib"], data / "one.dcm")
    segmentation(other, bones(other)[..., None], ["Bone"], data / "other.dcm")
    found = discovered(data)
    assert len(found.samples) == SIZE.slices
    (rejected,) = found.rejected
    assert "the segments 'Bone' and 'Rib' overlap" in rejected.reason
    assert "file " in rejected.reason


def test_segments_of_two_files_are_one_mask_and_may_not_overlap_either(data: Path) -> None:
    shutil.rmtree(data / "dicom" / "PHANTOM-0000")
    folder = data / "dicom" / "PHANTOM-0001"
    upper = bones(folder).copy()
    upper[:, SIZE.pixels // 2 :] = False
    segmentation(folder, upper[..., None], ["front"], data / "one.dcm")
    segmentation(folder, (bones(folder) & ~upper)[..., None], ["back"], data / "two.dcm")
    found = discovered(data)
    assert [label.name for label in found.labels] == ["background", "front", "back"]
    mask = np.stack([sample.target.pixels() for sample in found.samples])
    assert np.array_equal(mask > 0, bones(folder))
    assert np.array_equal(mask == 1, upper)
    segmentation(folder, bones(folder)[..., None], ["again"], data / "three.dcm")
    with pytest.raises(zooft.DataError, match="overlap"):
        discovered(data)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0)])
def test_a_written_segmentation_is_read_by_highdicom_slice_by_slice(data: Path, orientation: Any) -> None:
    turn(data, orientation)
    folder = data / "dicom" / "PHANTOM-0001"
    samples = gather([folder], CTOptions(mode="slice", hu_cache="off")).samples
    hu = np.concatenate([read.read(sample.source, options()) for sample in samples])
    labels = np.where(hu > BONE, 2, np.where(hu < -950, 1, 0)).astype(np.uint8)
    slices: Any = [sample.source.middle for sample in samples]
    write_segmentation(data / "back.dcm", labels, slices, {1: "air", 2: "bone"}, "test")
    seg = highdicom.seg.segread(data / "back.dcm")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["air", "bone"]
    ordered = sorted((pydicom.dcmread(one) for one in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    pixels = seg.get_pixels_by_source_instance([one.SOPInstanceUID for one in ordered])
    stored = np.stack([one.pixel_array.astype(int) - 1024 for one in ordered])
    assert np.array_equal(pixels[..., 1], stored > BONE)
    assert np.array_equal(pixels[..., 0], stored < -950)
    assert (seg.PatientID, seg.StudyInstanceUID) == (ordered[0].PatientID, ordered[0].StudyInstanceUID)


def test_a_segment_that_is_called_after_the_patient_is_refused(data: Path) -> None:
    folder = data / "dicom" / "PHANTOM-0001"
    segmentation(folder, bones(folder)[..., None], ["phantom-0001 rib"], data / "one.dcm")
    with pytest.raises(zooft.DataError, match="names the patient") as caught:
        discovered(data)
    assert "phantom-0001" not in str(caught.value).lower()


def test_a_real_series_is_written_where_simpleitk_has_it_and_as_a_segmentation(tmp_path: Path) -> None:
    """JPEG 2000, twenty slices."""
    folder = example_data.real("ct_series/totalseg_example_ct_dicom")
    samples = gather([folder], CTOptions(mode="slice", hu_cache="off")).samples
    hu = np.concatenate([read.read(sample.source, options()) for sample in samples])
    slices: Any = [sample.source.middle for sample in samples]
    write_nifti(tmp_path / "back.nii.gz", (hu > BONE).astype(np.uint8), slices)
    image, back = series(folder), SimpleITK.ReadImage(str(tmp_path / "back.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(back), SimpleITK.GetArrayFromImage(image) > BONE)
    for number in (0, 1, 2):
        assert back.GetOrigin()[number] == pytest.approx(image.GetOrigin()[number], abs=1e-3)
        assert back.GetSpacing()[number] == pytest.approx(image.GetSpacing()[number], abs=1e-4)
    assert back.GetDirection() == pytest.approx(image.GetDirection(), abs=1e-5)
    write_segmentation(tmp_path / "back.dcm", (hu > BONE).astype(np.uint8), slices, {1: "bone"}, "test")
    seg = highdicom.seg.segread(tmp_path / "back.dcm")
    pixels = seg.get_pixels_by_source_instance([one.sop_uid for one in slices])
    assert np.array_equal(pixels[..., 0], SimpleITK.GetArrayFromImage(image) > BONE)


def test_a_tilted_uneven_series_is_written_as_a_segmentation_only(tmp_path: Path) -> None:
    folder = example_data.real("ct_series/dcm_qa_ct_GE")
    samples = gather([folder], CTOptions(mode="slice", hu_cache="off")).samples
    hu = np.concatenate([read.read(sample.source, options()) for sample in samples])
    slices: Any = [sample.source.middle for sample in samples]
    with pytest.raises(zooft.DataError, match="don't lie evenly"):
        write_nifti(tmp_path / "back.nii.gz", (hu > BONE).astype(np.uint8), slices)
    (tmp_path / "data").mkdir()
    write_segmentation(tmp_path / "data" / "seg.dcm", (hu > BONE).astype(np.uint8), slices, {1: "bone"}, "test")
    shutil.copytree(folder, tmp_path / "data" / "dicom")
    found = discovered(tmp_path / "data", group_by="series")
    assert len(found.samples) == len(samples)
    is_on_the_bones(found)


def test_an_empty_segmentation_is_written_too(data: Path) -> None:
    samples = gather([data / "dicom" / "PHANTOM-0001"], CTOptions(mode="slice", hu_cache="off")).samples
    slices: Any = [sample.source.middle for sample in samples]
    write_segmentation(data / "back.dcm", np.zeros((6, 64, 64), np.uint8), slices, {1: "bone"}, "test")
    assert not highdicom.seg.segread(data / "back.dcm").pixel_array.any()


# views


@pytest.mark.parametrize("flip", [False, True])
def test_a_random_view_gives_where_pixels_have_moved(flip: bool) -> None:
    """A square in the image and in a mask lands in one place."""
    spec = zooft.InputSpec(height=96, width=80, resize=96, mean=(0.0,) * 3, std=(1 / 255,) * 3, mode="stretch")
    view = augment.augment(spec, CTOptions(mode="slice", augment="medium", flip=flip, window=("0/2000",)))
    assert view is not None
    hu = np.full((1, 64, 48), -1000, np.int16)
    hu[0, 12:30, 8:26] = 1000
    for seed in range(12):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, geometry = view(hu)
        assert geometry is not None
        mask = geometry.mask((hu[0] > 0).astype(np.uint8), outside=0)
        seen = image[0].numpy() > 128
        assert (mask.astype(bool) != seen).sum() < 0.06 * seen.sum() + 60
        rows, columns = np.indices(seen.shape)
        for axis in (rows, columns):
            assert axis[seen].mean() == pytest.approx(axis[mask > 0].mean(), abs=0.7)


# figures


def test_patients_figures_are_counts_over_all_their_slices() -> None:
    """Two patients of two slices, 4 pixels each of 2 mm³; the second one has nothing and something is found."""
    found = [np.array([[1, 1, 0, 0]]), np.array([[0, 1, 0, 0]]), np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 1]])]
    true = [np.array([[1, 0, 0, 0]]), np.array([[0, 1, 1, 0]]), np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 0]])]
    labels = tuple(zooft.Label(name=name) for name in ("background", "nodule"))
    part = zooft_ct_segmentation.problem().evaluation
    answers = {"mask": np.array(found, np.uint8)}
    targets: Any = [slice_mask(mask.astype(np.uint8), 2) for mask in true]
    columns = zooft_ct_segmentation.problem().deployment.columns(answers, targets, labels, {})
    source = read.Source(slices=(), spacing=(1.0, 2.0), thickness=1.0)
    samples = [
        zooft.Sample(id=str(n), source=Sized(source.voxel, 4), group="a" if n < 2 else "b") for n in range(len(found))
    ]
    predictions = zooft.Predictions(samples=samples, columns=columns)
    assert part.group is not None
    rows = part.group(predictions, [np.array([0, 1]), np.array([2, 3])], labels, "")
    patients = zooft.Predictions(samples=[samples[0], samples[2]], columns=rows)
    figures = part.metrics(patients, labels)
    assert figures["dice/nodule"] == pytest.approx(2 * 2 / (3 + 3))
    assert figures["volume_error/nodule"] == pytest.approx((0 + 2) / 2)
    assert figures["volume_bias/nodule"] == pytest.approx((0 + 2) / 2)
    assert figures["false_positives/nodule"] == 1
    assert part.metrics(predictions, labels)["dice/nodule"] == pytest.approx(2 * 2 / (4 + 3))
    shown = zooft_ct_segmentation.problem().presentation
    assert shown.worst(predictions, labels) == pytest.approx([1 - 2 / 3, 1 - 2 / 3, 0, 1])
    assert shown.caption is not None
    title, lines = shown.caption(predictions.take(np.array([0])), labels, {})
    assert (title, *lines) == ("Dice 0.667", "predicted: nodule 2 pixels", "true: nodule 1 pixels")
    first, second = part.details(predictions, patients, labels, {}, False)["patients"]
    assert (first["true_mm3"], first["found_mm3"], first["overlap_mm3"]) == (6, 6, 4)
    assert (second["dice"], second["error_mm3"]) == (None, 2)


@dataclass(frozen=True)
class Sized:
    voxel: float
    pixels: int


def test_a_model_knows_structures_by_name_and_nameless_data_by_value() -> None:
    part = zooft_ct_segmentation.problem().training

    def labels(**values: float) -> tuple[zooft.Label, ...]:
        return tuple(
            zooft.Label(name=name.replace("_", " "), constants={"value": value}) for name, value in values.items()
        )

    known = labels(background=0, liver=5, spleen=1)
    assert part.unknown(labels(background=0, spleen=7), known) == ""
    assert "kidney" in part.unknown(labels(background=0, kidney=1), known)
    mask = slice_mask(np.array([[0, 1, 1]], np.uint8), 2)
    assert part.relabel(mask, labels(background=0, spleen=7), known).pixels().tolist() == [[0, 2, 2]]
    assert part.relabel(mask, labels(background=0, class_5=5), known).pixels().tolist() == [[0, 1, 1]]
    assert "class 9" in part.unknown(labels(background=0, class_9=9), known)


# real data


def test_totalsegmentator_s_example_and_its_segmentation_of_thirty_slices() -> None:
    """The same affine, and fewer slices: those are labelled, the others are listed."""
    root = example_data.real("nifti_ct")
    found = discovered(root, group_by="series")
    truth = np.asarray(nibabel.load(root / "totalseg_example_seg.nii.gz").dataobj)
    values = np.array([label.constants["value"] for label in found.labels])
    assert values.tolist() == np.unique(truth).tolist()
    assert len(found.samples) == 30
    for z, sample in enumerate(found.samples):
        turned = truth[:, :, z][::-1, ::-1].transpose()  # from right, front, head to left, back, head
        assert np.array_equal(values[sample.target.pixels()], turned)
    assert any("cover 30 of 112 slices" in one.reason for one in found.rejected)
