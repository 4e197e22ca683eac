"""DICOM files that the tests write themselves, sound ones and hostile ones, by pydicom or byte by byte."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    generate_uid,
)

ROWS, COLUMNS = 12, 16
UID = "1.2.826.0.1.3680043.10.1.{}"
NESTED = 3000


def stored(seed: int = 0, *, rows: int = ROWS, columns: int = COLUMNS) -> NDArray[np.uint16]:
    """12-bit numbers as a scanner stores them, air to bone, mostly soft."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 30, 900, 1024, 1080, 1100, 2300], np.uint16), (rows, columns))


def ct(height: float = 0.0, *, seed: int = 0, **elements: Any) -> Dataset:
    """One axial CT slice at `height` mm; elements given as None are left out."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[str(height), str(seed)])
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = UID.format(1), UID.format(2)
    dataset.Modality, dataset.ImageType, dataset.PatientID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "P1"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = ROWS, COLUMNS, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-10.0, -20.0, height], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing = [0.5, 0.75]
    dataset.PixelData = stored(seed).tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return dataset


def write(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """One file with a preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or UID.format(3)
    dataset.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return path


def write_series(folder: Path, heights: Sequence[float], **elements: Any) -> list[Path]:
    """A slice for each height, named in this order."""
    return [
        write(folder / f"{index:03}.dcm", ct(height, seed=index, InstanceNumber=len(heights) - index, **elements))
        for index, height in enumerate(heights)
    ]


def multiframe(slices: Sequence[Dataset]) -> Dataset:
    """An Enhanced CT of the same slices, each with its own position and rescale."""
    dataset = ct(SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(slices))
    for keyword in ("RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(dataset, keyword)
    dataset.PixelData = b"".join(each.PixelData for each in slices)
    shared = Dataset()
    shared.PixelMeasuresSequence = Items([_of(PixelSpacing=slices[0].PixelSpacing, SliceThickness=2)])
    shared.PlaneOrientationSequence = Items([_of(ImageOrientationPatient=slices[0].ImageOrientationPatient)])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items([_frame(each) for each in slices])
    del dataset.PixelSpacing
    return dataset


def _frame(single: Dataset) -> Dataset:
    frame = Dataset()
    frame.PlanePositionSequence = Items([_of(ImagePositionPatient=single.ImagePositionPatient)])
    frame.PixelValueTransformationSequence = Items(
        [_of(RescaleSlope=single.RescaleSlope, RescaleIntercept=single.RescaleIntercept, RescaleType="HU")]
    )
    return frame


def _of(**elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.update(elements)
    return dataset


def encapsulated(codestream: bytes, **elements: Any) -> Dataset:
    """A slice whose pixels are a codestream, whatever that is."""
    dataset = ct(**elements)
    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    return dataset


def jpeg(marker: int, rows: int, columns: int, *, precision: int = 16, components: int = 1) -> bytes:
    """The head of a JPEG (C3) or JPEG-LS (F7) codestream, and a little of no meaning."""
    frame = struct.pack(">BHHB", precision, rows, columns, components) + b"\x01\x11\x00" * components
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame + _SCAN


_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" + bytes(200) + b"\xff\xd9"


def jpeg_2000(rows: int, columns: int, *, tile: int | None = None, components: int = 1) -> bytes:
    """The SIZ segment of a JPEG 2000 codestream, and a little of no meaning."""
    size = struct.pack(">H8I", 0, columns, rows, 0, 0, tile or columns, tile or rows, 0, 0)
    size += struct.pack(">H", components) + b"\x0f\x01\x01" * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + bytes(200) + b"\xff\xd9"


def deflated_bomb(path: Path, gigabytes: int = 4) -> Path:
    """About 1 MB for each GB that it grows to."""
    write(path, ct(), ExplicitVRLittleEndian)
    content = path.read_bytes()
    meta = content[: content.index(b"\x08\x00\x08\x00CS")]
    longer = meta.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    longer = longer.replace(b"UI\x14\x00" + b"1.2.840.10008.1.2.1.99", b"UI\x16\x00" + b"1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(longer + block * (gigabytes * 64) + packer.flush())
    return path


def nested_too_deep(path: Path) -> Path:
    """A sequence in a sequence in a sequence, of undefined length each."""
    write(path, ct())
    content = path.read_bytes()
    at = content.index(b"\x10\x00\x20\x00LO")
    opening = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00" + b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    path.write_bytes(content[:at] + opening * NESTED + closing * NESTED + content[at:])
    return path


def _huge(**elements: Any) -> Callable[[Path], Path]:
    return lambda path: write(path, ct(**elements))


def _stream(codestream: bytes, syntax: str, **elements: Any) -> Callable[[Path], Path]:
    return lambda path: write(path, encapsulated(codestream, Rows=128, Columns=128, **elements), syntax)


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "matrix": (_huge(Rows=65535, Columns=65535), "matrix of 65535x65535"),
    "matrix-jpeg-ls": (_stream(jpeg(0xF7, 128, 128), JPEGLSLossless, NumberOfFrames=1_000_000), "frames"),
    "frames": (_huge(NumberOfFrames=1_000_000), "1000000 frames"),
    "jpeg-ls": (_stream(jpeg(0xF7, 40000, 40000), JPEGLSLossless), "is 40000x40000"),
    "jpeg-lossless": (_stream(jpeg(0xC3, 40000, 40000), JPEGLosslessSV1), "is 40000x40000"),
    "jpeg-components": (_stream(jpeg(0xC3, 128, 128, components=3), JPEGLosslessSV1), "3 components"),
    "jpeg-precision": (_stream(jpeg(0xC3, 128, 128, precision=8), JPEGLosslessSV1), "8 bits"),
    "jpeg-two-heads": (
        _stream(jpeg(0xC3, 128, 128)[:-212] + jpeg(0xC3, 40000, 40000)[2:], JPEGLosslessSV1),
        "unexpected JPEG marker",
    ),
    "jpeg-2000": (_stream(jpeg_2000(40000, 40000), JPEG2000Lossless), "is 40000x40000"),
    "jpeg-2000-tiles": (_stream(jpeg_2000(128, 128, tile=1), JPEG2000Lossless), "tiles"),
    "jpeg-without-end": (_stream(jpeg(0xF7, 128, 128)[:-2], JPEGLSLossless), "has no end"),
    "not-a-codestream": (_stream(b"\0" * 300, JPEG2000Lossless), "doesn't begin"),
    "empty-codestream": (_stream(b"\xff\xd8\xff\xd9", JPEGLSLossless), "compressed frame"),
    "deflated": (deflated_bomb, "deflated"),
    "nested": (nested_too_deep, "nested too deep"),
    "truncated": (_huge(Rows=500, Columns=500), "truncated"),
}
"""What may not harm: name to who writes it, and words of the reason for which it is refused."""
