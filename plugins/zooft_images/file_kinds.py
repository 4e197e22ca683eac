"""What a file is that isn't a picture for this task, recognised by how it begins, and what to do with it.

The answers are whole sentences of their own, the same for every file of a kind, so that they can be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = 512
"""Bytes from the start of a file that are read."""
_CT = "it's not a picture but medical images: use --task ct (pip install 'zooft[ct]')"
_EXPORT = "export it as JPEG or PNG"
_RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip # a table of suffixes
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
"""ISO/IEC 23008-12, annex B and 10.2."""
NO_HEIF = (
    "HEIF (HEIC), which needs pillow-heif: pip install 'zooft[heif]' (where zooft-runtime is installed: "
    "'zooft-runtime[heif]')"
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files that begin alike.

    Attributes:
        answer: what they are, and what to do.
        starts: bytes, any of which stands at `at`.
        at: position of those bytes.
        suffixes: of names; where there are no `starts`, any of these alone decides.
    """

    answer: str
    starts: Sequence[bytes] = ()
    at: int = 0
    suffixes: tuple[str, ...] = ()


RAW_ANSWER = f"a camera's raw file: develop it, or {_EXPORT}; what Pillow would read of it is a preview"
_KINDS = (
    _Kind(f"DICOM: {_CT}", (b"DICM",), at=128),
    _Kind(f"DICOM: {_CT}", suffixes=(".dcm", ".dicom")),
    _Kind(f"NIfTI: {_CT}", (b"n+1\0", b"ni1\0"), at=344),
    _Kind(f"NIfTI: {_CT}", suffixes=(".nii", ".nii.gz")),
    _Kind(f"NRRD: {_CT}, after converting it to NIfTI", (b"NRRD0",)),
    _Kind(f"MetaImage: {_CT}, after converting it to NIfTI", (b"ObjectType =", b"NDims =")),
    _Kind(f"MetaImage: {_CT}, after converting it to NIfTI", suffixes=(".mha", ".mhd")),
    _Kind(RAW_ANSWER, suffixes=_RAW_SUFFIXES),
    _Kind(RAW_ANSWER, (b"II*\0\x10\0\0\0CR", b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0")),
    _Kind(RAW_ANSWER, (b"ftypcrx ",), at=4),
    _Kind(
        "a video: take still images from it, such as with ffmpeg",
        (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV\x01", b"0&\xb2u\x8ef\xcf\x11"),
    ),
    _Kind("a video: take still images from it, such as with ffmpeg", (b"AVI ",), at=8),
    _Kind(
        "a video: take still images from it, such as with ffmpeg",
        tuple(
            b"ftyp" + brand
            for brand in (
                b"isom",
                b"iso2",
                b"iso4",
                b"iso5",
                b"iso6",
                b"mp41",
                b"mp42",
                b"avc1",
                b"qt  ",
                b"M4V ",
                b"3gp",
                b"dash",
                b"MSNV",
            )
        ),
        at=4,
    ),
    _Kind("a PDF: export its pages or images as JPEG or PNG", (b"%PDF",)),
    _Kind("JPEG XL, which Pillow doesn't read: convert it to JPEG or PNG", (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    _Kind(f"PostScript (EPS), which is a program: {_EXPORT}", (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    _Kind(f"Photoshop (PSD): {_EXPORT}", (b"8BPS",)),
    _Kind(f"OpenEXR: map its range to 8 bits a level, and {_EXPORT}", (b"v/1\x01",)),
    _Kind(f"Radiance HDR: map its range to 8 bits a level, and {_EXPORT}", (b"#?RADIANCE", b"#?RGBE")),
    _Kind(f"TIFF of 64-bit offsets (BigTIFF), which Pillow doesn't always read: {_EXPORT}", (b"II+\0", b"MM\0+")),
    _Kind(f"a Zeiss microscope's CZI: {_EXPORT}", (b"ZISRAWFILE",)),
    _Kind("a numpy array: save it as PNG", (b"\x93NUMPY",)),
    _Kind(
        "Parquet, a table that may hold many pictures: predict takes it by its own name, which ends in .parquet, "
        "finetune and evaluate with --data",
        (b"PAR1",),
    ),
    _Kind(
        "Arrow, a table that may hold many pictures: predict takes a folder of datasets' save_to_disk, finetune and "
        "evaluate with --data",
        suffixes=(".arrow",),
    ),
    _Kind("HDF5 (MATLAB, Keras and others): save what it holds as JPEG or PNG", (b"\x89HDF\r\n\x1a\n",)),
    _Kind(
        "an archive: unpack it",
        (b"PK\x03\x04", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"),
    ),
    _Kind("a placeholder of Git LFS, not the picture: fetch it with git lfs pull", (b"version https://git-lfs",)),
    _Kind("what macOS writes beside a picture (AppleDouble), not the picture", (b"\0\x05\x16\x07", b"\0\x05\x16\0")),
)
_MARKUP = (
    (b"<svg", "SVG, a drawing: export it as PNG"),
    (b"<html", "a web page, not the picture: the download may have failed"),
    (b"<!doctype html", "a web page, not the picture: the download may have failed"),
)
_EMPTY = "an empty file"
_ANSWERS = frozenset({NO_HEIF, _EMPTY, *(kind.answer for kind in _KINDS), *(answer for _, answer in _MARKUP)})


def what_is(head: bytes, name: str) -> str:
    """What a file is that Pillow can't read or mustn't, in words with what to do; nothing where that isn't known.

    Args:
        head: its first bytes.
        name: of the file, for kinds that don't begin alike.
    """
    if not head:
        return _EMPTY
    for kind in _KINDS:
        if any(head.startswith(start, kind.at) for start in kind.starts) or (
            not kind.starts and name.lower().endswith(kind.suffixes)
        ):
            return kind.answer
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<", b"\xff\xfe<")):
        return next((answer for start, answer in _MARKUP if start in text), "")
    return ""


def is_kind(reason: str) -> bool:
    """Whether a reason is one of `what_is`, or that HEIF can't be read here."""
    return reason in _ANSWERS


def is_raw(name: str) -> bool:
    """Whether a name is that of a camera's raw file; many of those are TIFF files besides."""
    return name.lower().endswith(_RAW_SUFFIXES)


def is_heif(head: bytes) -> bool:
    """Whether the bytes begin a HEIF file, as iPhones write them with the name .heic; AVIF, its kin, is Pillow's."""
    return (
        head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avif" not in head[8:64] and b"avis" not in head[8:64]
    )
