"""Decoded slices on disk: whole or missing, bounded, closed to others, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from zooft_ct import cache
from zooft_ct.cache import Cache


def hu(value: int = -7) -> NDArray[np.int16]:
    return np.full((4, 5), value, dtype=np.int16)


def test_what_is_put_is_got(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "hu")
    assert kept.get("ab") is None
    kept.put("ab", hu())
    np.testing.assert_array_equal(kept.get("ab"), hu())
    np.testing.assert_array_equal(np.load(tmp_path / "hu" / "ab.npy", allow_pickle=False), hu())


def test_others_may_not_look_into_it(tmp_path: Path) -> None:
    Cache(tmp_path / "hu").put("ab", hu())
    assert (tmp_path / "hu").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "hu" / "ab.npy").stat().st_mode & 0o777 == 0o600


def test_a_changed_or_torn_entry_counts_as_missing(tmp_path: Path) -> None:
    kept, entry = Cache(tmp_path), tmp_path / "ab.npy"
    kept.put("ab", hu())
    content = entry.read_bytes()
    for spoilt in (content[:-1], content[:140] + b"\1" + content[141:], b"", b"\x93NUMPY"):
        entry.write_bytes(spoilt)
        assert kept.get("ab") is None


def test_the_oldest_entries_leave_first(tmp_path: Path) -> None:
    size = 4 * 5 * 2 + 128 + 32
    kept = Cache(tmp_path, most_bytes=2 * size)
    for age, key in enumerate(("a1", "a2", "a3")):
        kept.put(key, hu())
        os.utime(tmp_path / f"{key}.npy", ns=(age, age))
    kept.trim()
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a2", "a3"]
    kept.put("00", hu())  # such a key trims by itself
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["00", "a3"]


def test_a_full_disk_is_told_of_once_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    cache._say_once.cache_clear()
    monkeypatch.setattr(Path, "replace", full)
    for key in ("a1", "a2"):
        Cache(tmp_path).put(key, hu())
    assert [record.message for record in caplog.records] == [
        "decoded slices can't be kept (No space left on device): reading goes on, slower; see --hu-cache"
    ]
    assert not list(tmp_path.iterdir())


def test_another_file_frame_size_or_time_is_another_entry(tmp_path: Path) -> None:
    one = tmp_path / "DOE^JANE"
    one.write_bytes(b"1")
    key = cache.key_of(one, 0)
    assert key == cache.key_of(one, 0)
    assert "DOE" not in key
    keys = {key, cache.key_of(one, 1), cache.key_of(one, 0, "nan to air")}
    os.utime(one, ns=(1, 1))
    keys.add(cache.key_of(one, 0))
    one.write_bytes(b"12")
    os.utime(one, ns=(1, 1))
    keys.add(cache.key_of(one, 0))
    assert len(keys) == 5


def test_the_option_chooses_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.chosen("off") is None
    assert cache.chosen("auto") == Cache(tmp_path / "zooft" / "hu")
    assert cache.chosen(str(tmp_path / "mine")) == Cache(tmp_path / "mine")
