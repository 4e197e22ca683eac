"""Labelled phantoms of the chest as DICOM CT series: data to try zooft on, offline, that shows no person."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zooft_ct import needs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    from zooft_ct.phantom import Nodules, Scan, Size

POSITIVE, NEGATIVE = "nodule", "clear"
README = """\
All of this is synthetic. A program drew every slice; no person was scanned, and the names, ages and
scanners in the files are made up.

dicom/PATIENT/      one CT series of the chest each, its files and instance numbers shuffled
labels.csv          patient_id, series_uid, label: whether there is a nodule in the series
slice_labels.csv    patient_id, series_uid, sop_uid, label: whether a nodule is clearly to be seen in the slice

The labels are nodule and clear. Nodules are balls of
{diameter[0]:g} to {diameter[1]:g} mm at {hu[0]:g} to {hu[1]:g} HU.
A model trained on this means nothing for real patients.
"""
MASKS_README = """
masks/PATIENT.nii.gz  a label volume for each series, 1 in the nodule, 0 elsewhere; labels.csv names it in the column
                      mask, classes.csv says what the numbers mean, and --task ct-segmentation learns them.
"""
_SCANNERS = (("Phantom Imaging", "Drawn 1"), ("Synthetic Systems", "Sketch 64"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """Who is made up, and with what scanner; nothing of it gives the label."""

    id: str
    positive: bool
    split: str
    sex: str
    age: int
    scanner: tuple[str, str]
    sharp: bool


def demo(root: Path, seed: int) -> None:
    """A small set, on which a minute of training is clearly better than chance.

    Args:
        root: an empty or new folder.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a missing library.
    """
    needs.require()
    from zooft_ct.phantom import Size

    generate(root, patients=80, seed=seed, size=Size(slices=12))


def with_masks(root: Path, seed: int) -> None:
    """A set of the same kind with a label volume for each series.

    Args:
        root: an empty or new folder.
        seed: of everything that is drawn.

    Raises:
        ConfigError: a missing library.
    """
    needs.require()
    from zooft_ct.phantom import Size

    generate(root, patients=64, seed=seed, size=Size(slices=12), masks=True)


def generate(
    root: Path,
    *,
    patients: int,
    test_patients: int = 0,
    seed: int = 0,
    size: Size | None = None,
    nodules: Nodules | None = None,
    one_slice: bool = False,
    masks: bool = False,
) -> None:
    """Write series of phantoms, of which every second one has a nodule, with their labels.

    Args:
        root: an empty or new folder.
        patients: how many, one series each.
        test_patients: how many more; with any, the tables get a column ``split`` with ``train`` and ``test``.
        seed: of everything that is drawn; patient number n is the same however many there are.
        size: what is scanned.
        nodules: from what ranges nodules are drawn.
        one_slice: whether slice_labels.csv names one slice of each series only: where the nodule is largest, or any
            slice of a clear chest but the first and the last.
        masks: whether label volumes are written, too, for the task ct-segmentation.
    """
    import numpy as np

    from zooft_ct import phantom

    size, nodules = size or phantom.Size(), nodules or phantom.Nodules()
    series_rows, slice_rows = [], []
    for number in range(patients + test_patients):
        rng = np.random.default_rng((seed, number))
        split = ("test" if number >= patients else "train") if test_patients else ""
        patient = _patient(rng, number, split)
        scan = phantom.scan(rng, size=size, nodules=nodules if patient.positive else None, sharp=patient.sharp)
        uids = _write_series(root / "dicom" / patient.id, scan.hu, patient, rng, size, seed)
        start, end = (patient.id, uids.series), (split,) * bool(split)
        mask = (_write_mask(root, patient.id, scan.mask, size),) if masks else ()
        series_rows.append((*start, _label(patient.positive), *mask, *end))
        shown = [_best_slice(scan, rng)] if one_slice else range(size.slices)
        slice_rows += [(*start, uids.slices[i], _label(bool(scan.visible[i])), *end) for i in shown]
    end = ("split",) * bool(test_patients)
    _write_table(root / "labels.csv", ("patient_id", "series_uid", "label", *("mask",) * masks, *end), series_rows)
    _write_table(root / "slice_labels.csv", ("patient_id", "series_uid", "sop_uid", "label", *end), slice_rows)
    text = README.format(diameter=nodules.diameter, hu=nodules.hu) + MASKS_README * masks
    if masks:
        _write_table(root / "classes.csv", ("name", "value"), [("background", "0"), (POSITIVE, "1")])
    (root / "README.txt").write_text(text, encoding="utf-8")


def _patient(rng: Generator, number: int, split: str) -> _Patient:
    return _Patient(
        id=f"PHANTOM-{number:04}",
        positive=number % 2 == 1,
        split=split,
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(35, 86)),
        scanner=_SCANNERS[rng.integers(len(_SCANNERS))],
        sharp=bool(rng.random() < 0.5),
    )


def _label(positive: bool) -> str:
    return POSITIVE if positive else NEGATIVE


def _best_slice(scan: Scan, rng: Generator) -> int:
    if scan.nodule:
        return int(scan.section.argmax())
    return int(rng.integers(1, max(2, len(scan.hu) - 1)))


def _write_mask(root: Path, patient: str, mask: NDArray[np.bool_], size: Size) -> str:
    """As NIfTI with the series' own grid: mm to the right, front and head. Gives the path below `root`."""
    import nibabel
    import numpy as np

    (root / "masks").mkdir(parents=True, exist_ok=True)
    corner = (size.pixels - 1) / 2 * size.spacing
    affine = np.diag([-size.spacing, -size.spacing, size.increment, 1.0])
    affine[:2, 3] = corner
    kind: Any = nibabel.Nifti1Image
    image = kind(mask.astype(np.uint8).transpose(), affine)
    image.header["xyzt_units"] = 2
    path = root / "masks" / f"{patient}.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
    return f"masks/{path.name}"


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@dataclass(frozen=True, slots=True)
class _Uids:
    series: UID
    slices: tuple[UID, ...]


def _write_series(
    folder: Path, hu: NDArray[np.int16], patient: _Patient, rng: Generator, size: Size, seed: int
) -> _Uids:
    """One file a slice; neither the files' names nor the instance numbers are in the slices' order."""
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    source = [str(seed), patient.id]
    study, series, frame = (generate_uid(entropy_srcs=[*source, name]) for name in ("study", "series", "frame"))
    uids = _Uids(series, tuple(generate_uid(entropy_srcs=[*source, str(index)]) for index in range(len(hu))))
    names, instances = rng.permutation(len(hu)), rng.permutation(len(hu))
    for index, plane in enumerate(hu):
        dataset = _scan(patient, size)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uids.slices[index]
        dataset.InstanceNumber = int(instances[index]) + 1
        corner = -(size.pixels - 1) / 2 * size.spacing
        dataset.ImagePositionPatient = [round(corner, 4), round(corner, 4), index * size.increment]
        _set_pixels(dataset, plane)
        dataset.save_as(folder / f"{names[index]:04}.dcm", enforce_file_format=True)
    return uids


def _scan(patient: _Patient, size: Size) -> Dataset:
    """All that the slices of a series have in common."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.PatientID, dataset.PatientName = patient.id, f"Phantom^{patient.id}"
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "", patient.sex, f"{patient.age:03}Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "120000", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    dataset.StudyDescription, dataset.SeriesDescription = "SYNTHETIC PHANTOM", "SYNTHETIC CHEST, NO PATIENT"
    dataset.Modality, dataset.SeriesNumber, dataset.AcquisitionNumber = "CT", 1, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Manufacturer, dataset.ManufacturerModelName = patient.scanner
    dataset.BodyPartExamined, dataset.PatientPosition, dataset.PositionReferenceIndicator = "CHEST", "HFS", ""
    dataset.KVP, dataset.ConvolutionKernel = 120, "SHARP" if patient.sharp else "SOFT"
    dataset.SliceThickness, dataset.ImageOrientationPatient = size.increment, [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [round(size.spacing, 6)] * 2
    return dataset


def _set_pixels(dataset: Dataset, hu: NDArray[np.int16]) -> None:
    """12 bits, stored value = HU + 1024, to be shown in a lung window."""
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = -600, 1500
    dataset.PixelData = (hu + 1024).astype("<u2").tobytes()
