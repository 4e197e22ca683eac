"""Files that aren't pictures for this task are named, with what to do; HEIC is read by pillow-heif and bounded as others are.

The truths: the formats' own specifications for how files begin, other packages' writers, pillow-heif's plain reader.
"""

from __future__ import annotations

import builtins
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
from commands import command
from PIL import Image, TiffImagePlugin

import zooft
from zooft_images.discover import discover
from zooft_images.options import FORMATS, ClassificationOptions
from zooft_images.read import inspect, read

OPTIONS = ClassificationOptions()
CT = "use --task ct"


def dicom() -> bytes:
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.CTImageStorage,
        pydicom.uid.generate_uid(),
    )
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    whole = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    whole.SOPClassUID, whole.Modality = meta.MediaStorageSOPClassUID, "CT"
    written = io.BytesIO()
    whole.save_as(written, enforce_file_format=True)
    return written.getvalue()


def nifti() -> bytes:
    nibabel = pytest.importorskip("nibabel")
    return bytes(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes())


def archive() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        file.writestr("a.jpg", b"x")
    return written.getvalue()


def numpy_array() -> bytes:
    written = io.BytesIO()
    np.save(written, np.zeros(3))
    return written.getvalue()


def dng() -> bytes:
    """A TIFF with the tag that makes it a DNG (Adobe's specification, chapter 4); Pillow takes it for a plain one."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[50706] = 1
    tags[50706] = b"\x01\x04\0\0"
    written = io.BytesIO()
    Image.fromarray(example_data.picture(90)).save(written, "TIFF", tiffinfo=tags)
    return written.getvalue()


def tiff() -> bytes:
    written = io.BytesIO()
    Image.fromarray(example_data.picture(90)).save(written, "TIFF")
    return written.getvalue()


KINDS: list[tuple[str, Any, str]] = [
    ("x.dcm", dicom, CT),
    ("IM0001", dicom, CT),
    ("x.nii", nifti, CT),
    ("x.nii.gz", lambda: b"\x1f\x8b\x08\0", CT),
    ("x.nrrd", lambda: b"NRRD0004\ntype: short\n", CT),
    ("x.mha", lambda: b"ObjectType = Image\nNDims = 3\n", CT),
    ("x.mp4", lambda: struct.pack(">I", 24) + b"ftypisom\0\0\2\0isomiso2", "a video"),
    ("x.mov", lambda: struct.pack(">I", 20) + b"ftypqt  \0\0\2\0qt  ", "a video"),
    ("x.avi", lambda: b"RIFF\x24\0\0\0AVI LIST", "a video"),
    ("x.mkv", lambda: b"\x1aE\xdf\xa3\x93B\x82", "a video"),
    ("x.mpg", lambda: b"\0\0\x01\xba\x44" + bytes(60), "a video"),
    ("x.pdf", lambda: b"%PDF-1.7\n", "a PDF"),
    ("x.svg", lambda: b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ("x.jpg", lambda: b"<!DOCTYPE html><html><head>", "a web page"),
    ("x.cr2", lambda: b"II*\0\x10\0\0\0CR\x02\0" + bytes(60), "raw file"),
    ("x.CR3", lambda: b"\0\0\0\x18ftypcrx \0\0\0\1", "raw file"),
    ("x.NEF", tiff, "raw file"),
    ("x.dng", dng, "raw file"),
    ("renamed.tif", dng, "raw file"),
    ("x.psd", lambda: b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 4, 4, 8, 3) + bytes(60), "Photoshop"),
    ("x.eps", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
    ("x.jxl", lambda: b"\xff\x0a" + bytes(30), "JPEG XL"),
    ("x.exr", lambda: b"v/1\x01\x02\0\0\0", "OpenEXR"),
    ("x.npy", numpy_array, "numpy"),
    ("x.zip", archive, "unpack"),
    ("x.png", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ("x.png", lambda: b"", "an empty file"),
]


@pytest.mark.parametrize(("name", "content", "message"), KINDS, ids=[f"{name}-{message}" for name, _, message in KINDS])
def test_what_is_no_picture_is_named_with_what_to_do(tmp_path: Path, name: str, content: Any, message: str) -> None:
    (tmp_path / name).write_bytes(content())
    for how in (read, inspect):
        with pytest.raises(zooft.DataError, match=message) as refused:
            how(tmp_path / name, OPTIONS)
        assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("suffix", [".dng", ".dcm", ".mp4", ".nii"])
def test_a_picture_under_a_wrong_name_is_a_picture(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(example_data.picture(90)).save(tmp_path / f"x{suffix}", "PNG")
    assert np.array_equal(read(tmp_path / f"x{suffix}", OPTIONS), example_data.picture(90))


def test_dicom_in_class_folders_is_one_answer_that_names_the_task(tmp_path: Path) -> None:
    content = dicom()
    for label in ("ill", "well"):
        (tmp_path / label).mkdir()
        for index in range(6):
            (tmp_path / label / f"{index}.dcm").write_bytes(content)
    with pytest.raises(zooft.DataError, match=rf"no images in .*: 12 files aren't used: DICOM.*{CT}"):
        discover(tmp_path, OPTIONS)
    messages = command("audit", tmp_path, "--task", "classification", status=1)
    assert CT in messages.stderr
    assert len(messages.stderr) < 1000


def test_volumes_without_class_folders_are_answered_with_the_task_too(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(nifti())
    (tmp_path / "other.nii.gz").write_bytes(b"\x1f\x8b\x08\0")
    with pytest.raises(zooft.DataError, match=CT):
        discover(tmp_path, OPTIONS)
    with pytest.raises(zooft.DataError, match=CT):
        discover(tmp_path / "scan.nii", OPTIONS)


def test_each_kind_is_reported_once_with_its_count_and_every_file_is_listed(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"ant": 2, "bee": 2})
    for index in range(30):
        (tmp_path / "ant" / f"{index}.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "bee" / "clip.avi").write_bytes(b"RIFF\x24\0\0\0AVI LIST")
    found = discover(tmp_path, OPTIONS)
    assert len(found.rejected) == 31
    about = [note for note in found.notes if "used:" in note]
    assert [note.split(":")[0] for note in about] == ["30 files aren't used", "1 file isn't used"]
    assert "a PDF" in about[0]


# HEIC


def heic(path: Path, pixels: Any) -> Path:
    """By libheif's encoder, without loss."""
    pillow_heif = pytest.importorskip("pillow_heif")
    made = pillow_heif.from_bytes("RGB", pixels.shape[1::-1], pixels.tobytes())
    made.save(path, quality=-1, chroma=444, matrix_coefficients=0)
    return path


def test_heic_is_read_to_its_pixels_without_registering_with_pillow(tmp_path: Path) -> None:
    pixels = example_data.picture(120, size=(64, 96))
    path = heic(tmp_path / "IMG_0001.HEIC", pixels)
    assert np.array_equal(read(path, OPTIONS), pixels)
    assert inspect(path, OPTIONS).facts["format"] == "HEIF"
    assert "HEIF" not in Image.OPEN


def test_heic_in_folders_and_in_shards_is_a_sample(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "folders", {"ant": 1, "bee": 1})
    content = heic(tmp_path / "folders" / "ant" / "x.heic", example_data.picture(99, size=(64, 64))).read_bytes()
    assert "ant/x.heic" in [sample.id for sample in discover(tmp_path / "folders", OPTIONS).samples]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name, part in (("1.heic", content), ("1.cls", b"ant"), ("2.heic", content), ("2.cls", b"bee")):
            info = tarfile.TarInfo(name)
            info.size = len(part)
            tar.addfile(info, io.BytesIO(part))
    assert [sample.id for sample in discover(tmp_path / "s.tar", OPTIONS).samples] == ["s.tar/1.heic", "s.tar/2.heic"]


def test_heic_is_turned_upright_as_pillow_heif_turns_it(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    made = pillow_heif.from_bytes("RGB", (96, 64), example_data.picture(120, size=(64, 96)).tobytes())
    made.save(tmp_path / "x.heic", quality=-1, chroma=444, matrix_coefficients=0, exif=exif.tobytes())
    assert np.array_equal(read(tmp_path / "x.heic", OPTIONS), np.rot90(example_data.picture(120, size=(64, 96)), -1))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_torn_heic_is_refused_by_inspection_and_reading(tmp_path: Path, share: float) -> None:
    path = heic(tmp_path / "x.heic", example_data.picture(120, size=(256, 256)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    for how in (read, inspect):
        with pytest.raises(zooft.DataError):
            how(path, OPTIONS)


def test_heic_that_lies_about_its_size_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = heic(tmp_path / "x.heic", example_data.picture(120, size=(64, 64)))
    whole = bytearray(path.read_bytes())
    at = whole.index(b"ispe") + 8  # width and height: ISO/IEC 23008-12, 6.5.3
    for width, height, message in ((20_000, 20_000, "above 100,000,000 pixels"), (8, 8, "can't be decoded")):
        whole[at : at + 8] = struct.pack(">II", width, height)
        path.write_bytes(whole)
        with pytest.raises(zooft.DataError, match=message):
            read(path, OPTIONS)


def test_without_pillow_heif_heic_is_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example_data.write_classes(tmp_path, {"ant": 2, "bee": 1})
    (tmp_path / "ant" / "x.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(100))
    true_import = builtins.__import__

    def without(name: str, *more: Any, **named: Any) -> Any:
        if name == "pillow_heif":
            raise ImportError(name)
        return true_import(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    found = discover(tmp_path, OPTIONS)
    (rejection,) = found.rejected
    assert "HEIF (HEIC)" in rejection.reason
    assert "pip install 'zooft[heif]'" in rejection.reason
    assert any("1 file isn't used: HEIF" in note for note in found.notes)


# --formats


def test_formats_that_nothing_reads_are_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(zooft.ConfigError, match=r"formats: nothing reads JPGE; there are JPEG, PNG.*GIF"):
        ClassificationOptions(formats=("JPGE", "PNG"))
    with pytest.raises(zooft.ConfigError, match="formats: none is given"):
        ClassificationOptions(formats=())
    messages = command("audit", "nowhere", "--task", "classification", "--formats", "dicom,png", status=2)
    assert "nothing reads dicom" in messages.stderr


def test_formats_may_be_given_as_file_names_end() -> None:
    assert ClassificationOptions(formats=("jpg", "tif", "heic", "JPEG", "gif")).formats == (
        "JPEG",
        "TIFF",
        "HEIF",
        "GIF",
    )
    assert OPTIONS.formats == FORMATS


def test_every_format_that_is_offered_has_a_reader_in_pillow() -> None:
    Image.init()
    assert set(FORMATS) - set(Image.OPEN) == {"HEIF", "MPO"}  # the latter comes by way of JPEG's
