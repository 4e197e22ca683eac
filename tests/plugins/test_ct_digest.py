"""What a sample's digest hangs on: files by their bytes, which slices of them, nothing else; hashlib is the truth."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dicom_files
import nibabel
import numpy as np
import pytest

import zooft
from zooft_ct import nifti, read
from zooft_ct.header import read_headers
from zooft_ct.options import CTOptions
from zooft_ct.read import NiftiSlice, Source

OPTIONS = CTOptions(hu_cache="off")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    read._sha256_of.cache_clear()
    yield
    read._sha256_of.cache_clear()


def sources(folder: Path, heights: tuple[float, ...] = (0.0, 5.0, 10.0)) -> list[Source]:
    """A sample for each slice of a series."""
    paths = dicom_files.write_series(folder, heights)
    headers = [header for path in paths for header in read_headers(path)]
    return [Source(slices=(header,), spacing=header.spacing) for header in headers]


def volume(path: Path) -> nifti.NiftiVolume:
    values = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), path)  # type: ignore[no-untyped-call]
    return nifti.open_volume(path)


def hashed_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened to be hashed from now on."""
    seen: list[str] = []
    real = hashlib.file_digest

    def noting(file: object, algorithm: str) -> object:
        seen.append(Path(str(getattr(file, "name", ""))).name)
        return real(file, algorithm)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr(hashlib, "file_digest", noting)
    return seen


def test_it_is_a_sha256_of_the_files_that_stays_the_same(tmp_path: Path) -> None:
    one, two, _ = sources(tmp_path / "a")
    again = sources(tmp_path / "b")[0]
    first = read.digest(one, OPTIONS)
    assert len(bytes.fromhex(first)) == hashlib.sha256().digest_size
    assert read.digest(one, OPTIONS) == first
    assert read.digest(again, OPTIONS) == first, "the same bytes in another folder"
    assert read.digest(two, OPTIONS) != first


def test_each_slice_counts_and_so_does_their_order(tmp_path: Path) -> None:
    slices = tuple(ref for source in sources(tmp_path) for ref in source.slices)
    orders = [slices, slices[::-1], slices[:2], (slices[0], slices[0], slices[1]), (slices[0], slices[1], slices[1])]
    digests = {read.digest(Source(slices=order, spacing=None), OPTIONS) for order in orders}
    assert len(digests) == len(orders)


def test_frames_of_a_file_and_slices_of_a_volume_differ(tmp_path: Path) -> None:
    whole = volume(tmp_path / "volume.nii.gz")
    digests = {read.digest(Source(slices=(NiftiSlice(whole, i),), spacing=None), OPTIONS) for i in range(4)}
    (header,) = read_headers(dicom_files.write(tmp_path / "one.dcm", dicom_files.ct()))
    frames = {read.digest(Source(slices=(replace(header, frame=frame),), spacing=None), OPTIONS) for frame in range(3)}
    assert (len(digests), len(frames)) == (4, 3)


def test_spacing_counts_since_it_is_read_too(tmp_path: Path) -> None:
    (source, *_) = sources(tmp_path)
    assert read.digest(replace(source, spacing=(9.0, 9.0)), OPTIONS) != read.digest(source, OPTIONS)


def test_a_byte_that_changes_changes_it_though_size_and_time_stay(tmp_path: Path) -> None:
    (source, *_) = sources(tmp_path)
    before = read.digest(source, OPTIONS)
    path = tmp_path / "000.dcm"
    content, about = bytearray(path.read_bytes()), path.stat()
    content[-1] ^= 1
    copy = tmp_path / "changed"
    copy.write_bytes(content)
    os.utime(copy, ns=(about.st_atime_ns, about.st_mtime_ns))
    copy.replace(path)  # another inode: as editors and copying tools leave it
    assert read.digest(source, OPTIONS) != before


def test_a_volume_is_hashed_once_for_all_its_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = volume(tmp_path / "volume.nii")
    seen = hashed_files(monkeypatch)
    samples = [Source(slices=(NiftiSlice(whole, i),), spacing=None) for i in range(4)]
    for source in samples:
        read.digest(source, OPTIONS)
    assert seen == ["volume.nii"]
    os.utime(tmp_path / "volume.nii", ns=(0, 10**18))
    for source in samples:
        read.digest(source, OPTIONS)
    assert seen == ["volume.nii"] * 2, "once more after it was touched"


def test_nothing_is_decoded(tmp_path: Path) -> None:
    (source, *_) = sources(tmp_path)
    (tmp_path / "000.dcm").write_bytes(b"no DICOM any more")
    with pytest.raises(zooft.DataError):
        read.read(source, OPTIONS)
    assert read.digest(source, OPTIONS)


def test_a_file_that_is_gone_is_refused_without_its_name(tmp_path: Path) -> None:
    (source, *_) = sources(tmp_path)
    (tmp_path / "000.dcm").unlink()
    with pytest.raises(zooft.DataError, match="can't be read") as refused:
        read.digest(source, OPTIONS)
    assert "000" not in str(refused.value)


def test_the_task_offers_it(tmp_path: Path) -> None:
    from zooft_ct import zooft_register_tasks

    task = next(one for one in zooft_register_tasks() if one.name == "ct")
    assert task.digest is read.digest
