"""What reading CT costs, against plain pydicom for the same files.

    python benchmarks/ct_reading.py [FOLDER]

Ours is the walk, the headers, the order with its checks, and HU; pydicom's is ``dcmread`` and ``pixel_array``. CPU
seconds of all threads, rounds taken in turns, the fastest of each counts. Without a folder,
100 uncompressed slices of 512x512 are written and read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from zooft_ct.pixels import hu
from zooft_ct.series import scan

ROUNDS = 7


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", nargs="?", type=Path)
    folder = arguments.parse_args().folder
    if folder:
        compare(folder)
        return
    with tempfile.TemporaryDirectory() as made:
        write(Path(made))
        compare(Path(made))


def compare(folder: Path) -> None:
    files = [each.path for series in scan(folder).series for each in series.slices]
    plain, ours = [], []
    for _ in range(ROUNDS):
        plain.append(seconds(lambda: with_pydicom(files)))
        ours.append(seconds(lambda: with_zooft(folder)))
    per_slice = 1000 / len(files)
    print(f"{len(files)} slices, CPU ms a slice, fastest of {ROUNDS} rounds")
    print(f"pydicom  {min(plain) * per_slice:6.3f}  dcmread, pixel_array")
    print(f"zooft    {min(ours) * per_slice:6.3f}  walk, headers, order and checks, HU")
    print(f"ratio    {min(ours) / min(plain):6.2f}  at most 2 is required")


def seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def with_pydicom(files: list[Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in files:
            assert pydicom.dcmread(path).pixel_array.ndim == 2


def with_zooft(folder: Path) -> None:
    for series in scan(folder).series:
        for each in series.slices:
            assert hu(each).ndim == 2


def write(folder: Path, count: int = 100, size: int = 512) -> None:
    """A series in shuffled order, with as many elements as scanners write."""
    rng = np.random.default_rng(0)
    series, study = generate_uid(), generate_uid()
    pixels = rng.integers(0, 2000, (size, size), dtype=np.uint16)
    for index, height in enumerate(rng.permutation(count)):
        dataset = pydicom.Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, study
        dataset.Modality, dataset.PatientID, dataset.ImageType = "CT", "1", ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, float(height)], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness, dataset.InstanceNumber = [0.7, 0.7], 1, index
        private = dataset.private_block(0x19, "SCANNER", create=True)
        for element in range(80):
            private.add_new(element, "LO", f"VALUE {element}")
        dataset.PixelData = pixels.tobytes()
        dataset.save_as(folder / f"{index:04}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    main()
