"""Decoded slices on disk: whole or missing, bounded, closed to others, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from dicom_files import COLUMNS, ROWS, ct, write
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from zooft_ct import cache, read
from zooft_ct.cache import Cache
from zooft_ct.header import read_headers
from zooft_ct.options import CTOptions
from zooft_ct.read import Source


def hu(value: int = -7) -> NDArray[np.int16]:
    return np.full((4, 5), value, dtype=np.int16)


def test_what_is_put_is_got(tmp_path: Path) -> None:
    stored = Cache(tmp_path / "hu")
    assert stored.get("ab") is None
    stored.put("ab", hu())
    np.testing.assert_array_equal(stored.get("ab"), hu())
    np.testing.assert_array_equal(np.load(tmp_path / "hu" / "ab.npy", allow_pickle=False), hu())


def test_others_may_not_read_it(tmp_path: Path) -> None:
    Cache(tmp_path / "hu").put("ab", hu())
    assert (tmp_path / "hu").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "hu" / "ab.npy").stat().st_mode & 0o777 == 0o600


def test_a_changed_or_torn_entry_counts_as_missing(tmp_path: Path) -> None:
    stored, entry = Cache(tmp_path), tmp_path / "ab.npy"
    stored.put("ab", hu())
    content = entry.read_bytes()
    for spoilt in (content[:-1], content[:140] + b"\1" + content[141:], b"", b"\x93NUMPY"):
        entry.write_bytes(spoilt)
        assert stored.get("ab") is None


def test_the_oldest_entries_leave_first(tmp_path: Path) -> None:
    size = 4 * 5 * 2 + 128 + 32
    stored = Cache(tmp_path, most_bytes=2 * size)
    for age, key in enumerate(("a1", "a2", "a3")):
        stored.put(key, hu())
        os.utime(tmp_path / f"{key}.npy", ns=(age, age))
    stored.trim()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a2", "a3"]
    stored.put("00", hu())  # such a key trims by itself
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["00", "a3"]


def test_a_full_disk_is_reported_once_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    cache._say_once.cache_clear()
    monkeypatch.setattr(Path, "replace", full)
    for key in ("a1", "a2"):
        Cache(tmp_path).put(key, hu())
    assert [record.message for record in caplog.records] == [
        "decoded slices can't be cached (No space left on device): reading continues, slower; see --hu-cache"
    ]
    assert not list(tmp_path.iterdir())


def test_another_content_frame_or_option_is_another_entry() -> None:
    keys = {cache.key_of("a", 0), cache.key_of("b", 0), cache.key_of("a", 1), cache.key_of("a", 0, "nan to air")}
    assert len(keys) == 4
    assert cache.key_of("a", 0) == cache.key_of("a", 0)


def compressed(path: Path, level: int) -> Path:
    """A slice in RLE, whose files have one length for all levels."""
    numbers = np.full((ROWS, COLUMNS), 900 + level, np.uint16)
    numbers[0] = 24
    dataset = ct(PixelData=numbers.tobytes())
    write(path, dataset)
    dataset.compress(RLELossless, generate_instance_uid=False)
    return write(path, dataset, RLELossless)


def brightest(path: Path, options: CTOptions) -> int:
    (header,) = read_headers(path)
    return int(read.read(Source(slices=(header,), spacing=None), options).max())  # type: ignore[union-attr]


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_changed_under_the_same_name_size_and_time_is_read_anew(tmp_path: Path, replaced: bool) -> None:
    """As rsync -t, cp -p and restored backups leave it; what numpy wrote is the truth."""
    options = CTOptions(mode="slice", hu_cache=str(tmp_path / "kept"))
    path = compressed(tmp_path / "a.dcm", 100)
    about = path.stat()
    assert brightest(path, options) == brightest(path, options) == 900 + 100 - 1024
    assert list((tmp_path / "kept").iterdir())
    other = compressed(tmp_path / "b.dcm", 200)
    if replaced:
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    assert brightest(path, options) == 900 + 200 - 1024


def test_a_file_that_moved_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = CTOptions(mode="slice", hu_cache=str(tmp_path / "kept"))
    path = compressed(tmp_path / "a.dcm", 100)
    assert brightest(path, options) == 900 + 100 - 1024
    monkeypatch.setattr(read, "_fresh", lambda refs, _options: dict.fromkeys(refs))
    assert brightest(path.rename(tmp_path / "c.dcm"), options) == 900 + 100 - 1024


def test_the_option_chooses_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.from_option("off") is None
    with monkeypatch.context() as patch:
        for nowhere in ("here", "~nobody-of-this-name"):
            patch.setenv("XDG_CACHE_HOME", nowhere)
            assert cache.from_option("auto") is None
    assert cache.from_option("auto") == Cache(tmp_path / "zooft" / "hu")
    assert cache.from_option(str(tmp_path / "mine")) == Cache(tmp_path / "mine")
