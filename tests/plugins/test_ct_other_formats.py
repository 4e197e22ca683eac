"""Files of other formats given to the task ct: named as what their own writers made them, with what to give instead."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import ct, write
from PIL import Image

import zooft
from zooft_ct.discover import discover, gather
from zooft_ct.options import ClassificationOptions

OPTIONS = ClassificationOptions(mode="slice", hu_cache="off")


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))


def by_sitk(path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 8, 8), np.int16)), str(path))


def by_pillow(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)


def by_nibabel(path: Path) -> None:
    made = nibabel.Nifti1Pair if path.suffix == ".hdr" else nibabel.Nifti1Image
    image = made(np.zeros((8, 8, 2), np.int16), np.eye(4))
    nibabel.save(image, path if path.suffix == ".hdr" else path.with_suffix(".nii"))
    if path.suffix == ".image":
        path.with_suffix(".nii").rename(path)
    if path.suffix == ".zip-nifti":
        path.write_bytes(gzip.compress(path.with_suffix(".nii").read_bytes()))
        path.with_suffix(".nii").unlink()


def by_numpy(path: Path) -> None:
    np.save(path, np.zeros((2, 8, 8), np.int16))


def by_zipfile(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.dcm", b"x")


def by_tarfile(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.dcm"), io.BytesIO())


def by_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * 128 + b"DICM" + b"x" * 400))


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("scan.nrrd", by_sitk, "not DICOM but an NRRD image: convert it to NIfTI (.nii.gz)"),
        ("scan.nhdr", by_sitk, "not DICOM but an NRRD image: convert it to NIfTI (.nii.gz)"),
        ("scan.mha", by_sitk, "not DICOM but a MetaImage (.mha, .mhd): convert it to NIfTI"),
        ("scan.mhd", by_sitk, "not DICOM but a MetaImage (.mha, .mhd): convert it to NIfTI"),
        (
            "slice.png",
            by_pillow,
            "a PNG picture, whose grey levels aren't HU: give the DICOM or NIfTI that it was made of",
        ),
        ("slice.jpg", by_pillow, "a JPEG picture, whose grey levels aren't HU"),
        ("slice.bmp", by_pillow, "a BMP picture, whose grey levels aren't HU"),
        ("slice.tif", by_pillow, "a TIFF picture, whose grey levels aren't HU"),
        ("slice.gif", by_pillow, "a GIF picture, whose grey levels aren't HU"),
        ("scan.hdr", by_nibabel, "the header of an image in two files (Analyze or NIfTI, .hdr and .img)"),
        ("scan.image", by_nibabel, "NIfTI, by its content: give it a name that ends with .nii"),
        ("scan.zip-nifti", by_nibabel, "NIfTI in gzip, by its content: give it a name that ends with .nii.gz"),
        ("scan.npy", by_numpy, "an array without its place in the patient: save it as NIfTI"),
        ("scans.zip", by_zipfile, "an archive: unpack it"),
        ("scans.tar", by_tarfile, "an archive: unpack it"),
        ("slice.dcm.gz", by_gzip, "compressed with gzip: unpack it"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_other_formats_are_named_with_what_to_give_instead(
    tmp_path: Path, name: str, make: Callable[[Path], None], words: str, force: bool
) -> None:
    folder = tmp_path / "yes"
    folder.mkdir()
    make(folder / name)
    options = ClassificationOptions(mode="slice", hu_cache="off", force_dicom=force)
    reasons = [one.reason for one in gather([tmp_path], options).rejected]
    assert any(words in reason for reason in reasons)
    with pytest.raises(zooft.DataError) as caught:
        discover(tmp_path, options)
    assert words in str(caught.value)


def test_dicom_without_a_preamble_isn_t_mistaken_for_anything_else(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ct())
    path.write_bytes(path.read_bytes()[132:])
    assert "--force-dicom reads DICOM without one" in gather([tmp_path], OPTIONS).rejected[0].reason
    assert len(gather([tmp_path], ClassificationOptions(mode="slice", hu_cache="off", force_dicom=True)).samples) == 1
