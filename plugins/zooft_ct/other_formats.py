"""Files that are neither DICOM nor NIfTI, recognised by how they begin: what each is, and what to give instead."""

from __future__ import annotations

import struct
import zlib

HEAD = 352
"""Bytes that are read."""
_CONVERT = (
    "convert it to NIfTI (.nii.gz), which preserves HU and the way it lies in the patient: in Python, "
    "SimpleITK.WriteImage(SimpleITK.ReadImage(path), 'scan.nii.gz'), or 3D Slicer, Save"
)
_PICTURE = (
    "whose grey levels aren't HU: give the DICOM or NIfTI that it was made of; pictures as they are can be trained on "
    "with --task classification"
)
_ARRAY = "an array without its place in the patient: save it as NIfTI with its affine, in HU, or give the DICOM files"
_ARCHIVE = "an archive: unpack it, and give the folder"
_BEGINNINGS = {
    b"NRRD": f"an NRRD image: {_CONVERT}",
    b"\x89PNG\r\n\x1a\n": f"a PNG picture, {_PICTURE}",
    b"\xff\xd8\xff": f"a JPEG picture, {_PICTURE}",
    b"\0\0\0\x0cjP  ": f"a JPEG 2000 picture, {_PICTURE}",
    b"GIF8": f"a GIF picture, {_PICTURE}",
    b"II*\0": f"a TIFF picture, {_PICTURE}",
    b"MM\0*": f"a TIFF picture, {_PICTURE}",
    b"PK\x03\x04": _ARCHIVE,
    b"7z\xbc\xaf\x27\x1c": _ARCHIVE,
    b"Rar!": _ARCHIVE,
    b"BZh": "compressed with bzip2: unpack it",
    b"\xfd7zXZ\0": "compressed with xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it",
    b"\x93NUMPY": _ARRAY,
    b"\x89HDF\r\n\x1a\n": _ARRAY,
    b"MATLAB 5.0": _ARRAY,
    b"CDF\x01": f"a MINC image: {_CONVERT}",
    b"%PDF": "a PDF document",
}
_METAIMAGE = (b"ObjectType", b"NDims", b"Comment")


def reason(head: bytes) -> str | None:
    """Why a file that begins so isn't used, and what to give instead; None for what may be DICOM.

    Args:
        head: the first `HEAD` bytes.
    """
    if not head:
        return "an empty file"
    if head[128:132] == b"DICM":
        return None
    known = next((reason for start, reason in _BEGINNINGS.items() if head.startswith(start)), None)
    if known:
        return f"not DICOM but {known}"
    if head.startswith(b"BM") and head[6:10] == b"\0" * 4:
        return f"not DICOM but a BMP picture, {_PICTURE}"
    if head.startswith(_METAIMAGE) and b"=" in head[:32]:
        return f"not DICOM but a MetaImage (.mha, .mhd): {_CONVERT}"
    if head[257:262] == b"ustar":
        return f"not DICOM but {_ARCHIVE}"
    if head.startswith(b"\x1f\x8b"):
        return _in_gzip(head)
    if is_text(head):
        return "a text or a table, not an image"
    return _like_nifti(head)


def is_text(head: bytes) -> bool:
    """Whether a file begins as texts do that lie about, such as README; one without bytes is none."""
    return bool(head) and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head)


def _in_gzip(head: bytes) -> str:
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        inner = b""
    if inner[:4] in {struct.pack("<i", 348), struct.pack(">i", 348)}:
        return "not DICOM but NIfTI in gzip, by its content: give it a name that ends with .nii.gz"
    return "not DICOM but compressed with gzip: unpack it"


def _like_nifti(head: bytes) -> str | None:
    if head[:4] not in {struct.pack("<i", 348), struct.pack(">i", 348)}:
        return None
    if head[344:348] == b"n+1\0":
        return "not DICOM but NIfTI, by its content: give it a name that ends with .nii"
    return f"not DICOM but the header of an image in two files (Analyze or NIfTI, .hdr and .img): {_CONVERT}"
