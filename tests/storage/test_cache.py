"""Arrays on disk: found only under what they depend on, never wrong, bounded, safe among processes."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zooft.errors import ConfigError
from zooft.storage import locks
from zooft.storage.cache import Shelf, Store, default_folder, default_store, parse_size, size_text
from zooft.storage.cache import shelf as shelves

WHAT = {"weights": "0" * 64, "stages": ["stem", "layer1"], "size": 224}
posix = pytest.mark.skipif(sys.platform == "win32", reason="locks and modes of POSIX")


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def row(number: int, width: int = 10) -> NDArray[np.float16]:
    """The record named `name(number)`; another process can compute it too."""
    return (np.arange(width) + number % 1000).astype(np.float16)


class Notes(list[str]):
    """What a store has reported."""

    def __call__(self, text: str) -> None:
        self.append(text)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def store(tmp_path: Path, notes: Notes) -> Store:
    return Store(tmp_path / "store", 10**9, notes)


def fill(store: Store, numbers: range, what: dict[str, Any] = WHAT, width: int = 10) -> None:
    with store.shelf(what) as shelf:
        shelf.put([name(n) for n in numbers], [row(n, width) for n in numbers])


def held_by(store: Store) -> list[Path]:
    return sorted(store.folder.rglob("*.seg"))


def age(store: Store, what: dict[str, Any], days: float) -> None:
    """As if the shelf was used so long ago."""
    with store.shelf(what) as shelf:
        lock = store.folder / shelf.key / "lock"
    then = time.time() - days * 86400
    os.utime(lock, (then, then))


def python(code: str, *arguments: object, **more: Any) -> subprocess.Popen[str]:
    """A fresh Python that knows `name` and `row` as this file does."""
    head = """
        import hashlib, os, sys, time
        from pathlib import Path
        import numpy as np
        from zooft.storage.cache import Store
        def name(n): return hashlib.sha256(str(n).encode()).hexdigest()
        def row(n, width=10): return (np.arange(width) + n % 1000).astype(np.float16)
        folder = Path(sys.argv[1])
    """
    return subprocess.Popen(
        [sys.executable, "-c", dedent(head) + dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    return out


# What is put is got


def test_rows_come_back_in_the_requested_order(store: Store) -> None:
    fill(store, range(50))
    expected = [7, 3, 3, 49, 0]
    with store.shelf(WHAT) as shelf:
        assert shelf.missing([name(n) for n in (*expected, 50)]) == [5]
        np.testing.assert_array_equal(shelf.gather([name(n) for n in expected]), [row(n) for n in expected])
        assert shelf.gather([name(7)]).dtype == np.float16
        assert name(7) in shelf
        assert name(50) not in shelf
        assert shelf.get(name(50)) is None


ARRAYS = [
    np.array(3.5),
    np.zeros((0, 4), np.int16),
    np.array([True, False]),
    np.arange(24, dtype=np.uint8).reshape(4, 6)[:, ::2],  # not contiguous
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i2"),
    np.array([np.nan, -0.0, np.inf], np.float16),
    np.arange(4, dtype=np.complex64),
    np.arange(100_000, dtype=np.int16).reshape(100, 1000),
]


@pytest.mark.parametrize("written", [False, True], ids=["waiting", "written"])
def test_arrays_of_any_shape_and_number_come_back_as_numpy_saves_them(
    store: Store, tmp_path: Path, written: bool
) -> None:
    """Truth: a copy in numpy's own files."""
    for index, array in enumerate(ARRAYS):
        np.save(tmp_path / f"{index}.npy", array)
    with store.shelf(WHAT) as shelf:
        shelf.put([name(i) for i in range(len(ARRAYS))], ARRAYS)
        if written:
            shelf.flush()
        for index in range(len(ARRAYS)):
            truth = np.load(tmp_path / f"{index}.npy")
            for got in (shelf.get(name(index)), shelf.gather([name(index)])[0, ...]):
                assert got is not None
                assert (got.dtype, got.shape) == (truth.dtype, truth.shape)
                assert got.tobytes() == truth.tobytes()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    widths=st.lists(st.integers(0, 200), min_size=1, max_size=30),
    segment_bytes=st.integers(1, 4000),
    picks=st.lists(st.integers(0, 29), max_size=20),
)
@pytest.mark.usefixtures("hasty")
def test_any_mixture_of_sizes_and_segments_comes_back(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], segment_bytes: int, picks: list[int]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"), 10**9, Notes(), segment_bytes)
    truth = [row(n, width) for n, width in enumerate(widths)]
    with store.shelf(WHAT) as shelf:
        for n, array in enumerate(truth):
            shelf.put([name(n)], [array])
    with store.shelf(WHAT) as shelf:
        assert shelf.missing([name(n) for n in range(31)]) == list(range(len(widths), 31))
        for n, array in enumerate(truth):
            np.testing.assert_array_equal(shelf.get(name(n)), array)
        like = [n for n in picks if n < len(widths) and widths[n] == widths[0]]
        if like:
            np.testing.assert_array_equal(shelf.gather([name(n) for n in like]), [truth[n] for n in like])


def test_a_batch_in_one_array_and_one_row_after_the_other_are_the_same(store: Store) -> None:
    batch = np.stack([row(n) for n in range(5)])
    with store.shelf(WHAT) as shelf:
        shelf.put([name(n) for n in range(5)], batch)
        batch[:] = 0  # what was put is a copy
        np.testing.assert_array_equal(shelf.gather([name(4)])[0], row(4))


def test_records_can_be_had_before_they_are_written(store: Store) -> None:
    with store.shelf(WHAT) as shelf:
        shelf.put([name(0)], [row(0)])
        shelf.flush()
        shelf.put([name(1)], [row(1)])
        assert len(held_by(store)) == 1
        np.testing.assert_array_equal(shelf.gather([name(1), name(0)]), [row(1), row(0)])


def test_an_array_given_out_can_t_be_written_to(store: Store) -> None:
    with store.shelf(WHAT) as shelf:
        shelf.put([name(0)], [row(0)])
        for _ in ("waiting", "written"):
            array = shelf.get(name(0))
            assert array is not None
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
            shelf.flush()
        gathered = shelf.gather([name(0)])
    gathered[0] = 1
    np.testing.assert_array_equal(array, row(0))  # the shelf is closed, and the array stays


def test_what_is_there_already_isn_t_written_again(store: Store) -> None:
    fill(store, range(10))
    before = [(path, path.stat().st_mtime_ns) for path in held_by(store)]
    fill(store, range(10))
    assert [(path, path.stat().st_mtime_ns) for path in held_by(store)] == before


def test_records_are_written_in_files_of_bounded_size(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", 10**9, Notes(), segment_bytes=10_000)
    fill(store, range(100), width=500)
    sizes = [path.stat().st_size for path in held_by(store)]
    assert len(sizes) > 10
    assert max(sizes) < 15_000


@pytest.mark.usefixtures("hasty")
def test_many_more_files_than_may_be_open_at_once_are_read(tmp_path: Path, notes: Notes) -> None:
    store = Store(tmp_path / "store", 10**9, notes, segment_bytes=1)
    fill(store, range(150))
    open_files = Path("/proc/self/fd")
    with store.shelf(WHAT) as shelf:
        before = len(list(open_files.iterdir())) if open_files.exists() else 0
        for order in (list(range(150)), np.random.default_rng(0).permutation(150).tolist()):
            got = shelf.gather([name(n) for n in order])
            np.testing.assert_array_equal(got, [row(n) for n in order])
        if before:
            assert len(list(open_files.iterdir())) - before < 100
    assert notes == []


def test_release_keeps_what_was_given_out(store: Store) -> None:
    fill(store, range(10))
    with store.shelf(WHAT) as shelf:
        array = shelf.get(name(3))
        shelf.release()
        np.testing.assert_array_equal(array, row(3))
        np.testing.assert_array_equal(shelf.gather([name(4)])[0], row(4))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system doesn't report resident memory")
def test_reading_more_than_memory_should_hold_doesn_t_make_the_process_grow(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))

    wide = 2**20
    with store.shelf(WHAT) as shelf:
        shelf.put([name(n) for n in range(60)], np.zeros((60, wide), np.uint8))
    monkeypatch.setattr(shelves, "_RESIDENT_BYTES", 8 * wide)
    with store.shelf(WHAT) as shelf:
        before = resident()
        most = 0
        for n in range(60):
            shelf.gather([name(n)])
            most = max(most, resident() - before)
        assert most < 20 * wide
    monkeypatch.undo()
    with store.shelf(WHAT) as shelf:  # without, all of it would be: so the measure measures
        before = resident()
        for n in range(60):
            shelf.gather([name(n)])
        assert resident() - before > 50 * wide
        shelf.release()
        assert resident() - before < 20 * wide


@pytest.mark.parametrize(
    "wrong",
    [
        ([name(0)], [np.array(["text"])]),
        ([name(0)], [np.array([object()])]),
        (["../../escape"], [row(0)]),
        (["A" * 64], [row(0)]),
        (["a" * 65], [row(0)]),
        ([name(0), name(1)], [row(0)]),
    ],
    ids=["text", "objects", "a path", "upper case", "too long", "too few arrays"],
)
def test_what_isn_t_numbers_under_a_digest_is_refused(store: Store, wrong: tuple[list[str], list[Any]]) -> None:
    with store.shelf(WHAT) as shelf, pytest.raises(ValueError):
        shelf.put(*wrong)


def test_gathering_what_is_missing_or_of_several_shapes_says_so(store: Store) -> None:
    with store.shelf(WHAT) as shelf:
        shelf.put([name(0), name(1), name(2)], [row(0), row(1, 20), row(2).astype(np.float32)])
        for _ in ("waiting", "written"):
            with pytest.raises(KeyError, match="1 of 2 records are missing"):
                shelf.gather([name(0), name(5)])
            for other in (1, 2):
                with pytest.raises(ValueError, match="one shape and dtype"):
                    shelf.gather([name(0), name(other)])
            shelf.flush()
        with pytest.raises(ValueError, match="one shape and dtype"):
            shelf.gather([])


# Never for other weights, data or preprocessing


def test_the_folder_is_named_for_everything_that_the_records_depend_on(store: Store) -> None:
    text = json.dumps({"format": 1, "what": WHAT}, sort_keys=True, separators=(",", ":"))
    fill(store, range(1))
    (folder,) = (path for path in store.folder.iterdir() if path.is_dir())
    assert folder.name == hashlib.sha256(text.encode()).hexdigest()
    assert json.loads((folder / "what.json").read_text()) == WHAT


@pytest.mark.parametrize(
    "other",
    [
        {**WHAT, "weights": "1" + "0" * 63},
        {**WHAT, "stages": ["layer1", "stem"]},
        {**WHAT, "size": 225},
        {**WHAT, "size": 224.5},
        {**WHAT, "size": "224"},
        {**WHAT, "view": None},
        {"weights": "0" * 64},
        {},
    ],
    ids=str,
)
def test_anything_else_finds_nothing(store: Store, other: dict[str, Any]) -> None:
    fill(store, range(3))
    with store.shelf(other) as shelf:
        assert shelf.missing([name(0), name(1)]) == [0, 1]
        assert shelf.get(name(0)) is None


def test_the_order_of_keys_doesn_t_matter(store: Store) -> None:
    fill(store, range(3))
    with store.shelf(dict(reversed(WHAT.items()))) as shelf:
        assert shelf.missing([name(0)]) == []


@pytest.mark.parametrize("wrong", [{"p": Path("x")}, {"x": float("nan")}], ids=str)
def test_what_json_can_t_say_is_refused(store: Store, wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        store.shelf(wrong)


def test_a_file_moved_from_another_shelf_isn_t_read(store: Store, notes: Notes) -> None:
    fill(store, range(3))
    fill(store, range(3, 4), {"weights": "others"})
    source = next(path for path in held_by(store) if path.parent.name == store.shelf(WHAT).key)
    target = next(path.parent for path in held_by(store) if path.parent != source.parent)
    (target / source.name).write_bytes(source.read_bytes())
    with store.shelf({"weights": "others"}) as shelf:
        assert shelf.missing([name(0), name(3)]) == [0]
    assert len(notes) == 1


# Damage


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small files are written: none needs to outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def small(tmp_path: Path, notes: Notes, hasty: None) -> tuple[Store, Path, bytes]:
    """A store with one file of three records, two of them of one shape."""
    store = Store(tmp_path / "store", 10**9, notes)
    with store.shelf(WHAT) as shelf:
        shelf.put([name(n) for n in range(3)], [row(0), row(1), row(2, 5)])
    (path,) = held_by(store)
    return store, path, path.read_bytes()


def check_never_wrong(store: Store, path: Path, content: bytes, notes: Notes) -> int:
    """Read a changed file; how many of its records are missing. They are reported, and can be put again."""
    truth = [row(0), row(1), row(2, 5)]
    path.write_bytes(content)
    fresh = Store(store.folder, store.most_bytes, notes)
    with fresh.shelf(WHAT) as shelf:
        got = [shelf.get(name(n)) for n in range(3)]
        for n, array in enumerate(got):
            if array is not None:
                np.testing.assert_array_equal(array, truth[n])
        absent = [n for n in range(3) if got[n] is None]
        assert shelf.missing([name(n) for n in range(3)]) == absent
        shelf.put([name(n) for n in range(3)], truth)
    with fresh.shelf(WHAT) as shelf:
        assert shelf.missing([name(n) for n in range(3)]) == []
        np.testing.assert_array_equal(shelf.gather([name(0), name(1)]), truth[:2])
        np.testing.assert_array_equal(shelf.get(name(2)), truth[2])
    for other in held_by(store):
        other.unlink()
    return len(absent)


def test_a_flipped_byte_anywhere_never_gives_a_wrong_array(small: tuple[Store, Path, bytes], notes: Notes) -> None:
    store, path, content = small
    lost = []
    for place in range(len(content)):
        notes.clear()
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        lost.append(check_never_wrong(store, path, bytes(spoilt), notes))
        assert len(notes) == (lost[-1] > 0)
    assert set(lost[:20]) == {1}  # the first record's bytes
    assert set(lost[20:64]) == {0}  # nothing lies there
    assert set(lost[192:]) == {3}  # names, places, shapes, footer


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_never_gives_a_wrong_array(
    small: tuple[Store, Path, bytes], notes: Notes, data: st.DataObject
) -> None:
    store, path, content = small
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, len(content)))
    check_never_wrong(store, path, content[:begin] + data.draw(st.binary(max_size=80)) + content[end:], notes)


def test_a_file_cut_anywhere_never_gives_a_wrong_array(small: tuple[Store, Path, bytes], notes: Notes) -> None:
    store, path, content = small
    assert {check_never_wrong(store, path, content[:end], notes) for end in range(len(content))} == {3}


def test_damage_is_reported_once_and_an_unreadable_file_is_removed(
    small: tuple[Store, Path, bytes], notes: Notes
) -> None:
    store, path, content = small
    path.write_bytes(content[:-1] + b"?")
    with store.shelf(WHAT) as shelf:
        assert shelf.missing([name(0)]) == [0]
    assert not path.exists()
    fill(store, range(1))
    (path,) = held_by(store)
    path.write_bytes(b"")
    store.shelf(WHAT).close()
    assert notes == ["some of what was stored in the cache is damaged; it is computed again"]


def test_a_record_that_was_written_anew_stands_in_for_the_damaged_one(
    small: tuple[Store, Path, bytes], notes: Notes
) -> None:
    store, path, content = small
    path.write_bytes(b"\xff" + content[1:])
    with store.shelf(WHAT) as shelf:
        with pytest.raises(KeyError, match="1 of 2"):
            shelf.gather([name(1), name(0)])
        assert shelf.missing([name(0), name(1)]) == [0]
        shelf.put([name(0)], [row(0)])
        assert shelf.missing([name(0)]) == []
    assert len(held_by(store)) == 2
    notes.clear()
    with Store(store.folder, 10**9, notes).shelf(WHAT) as shelf:
        np.testing.assert_array_equal(shelf.gather([name(0), name(1)]), [row(0), row(1)])
    assert notes == []  # the damaged one isn't even read


def test_a_checksum_is_of_what_is_on_disk_and_not_of_what_was_in_memory(store: Store) -> None:
    """Truth: zlib's CRC-32 of numpy's bytes stands in the file."""
    import zlib

    fill(store, range(1))
    (path,) = held_by(store)
    content = path.read_bytes()
    assert content[:20] == row(0).tobytes()
    assert zlib.crc32(row(0).tobytes()).to_bytes(4, "little") in content


def test_what_json_is_for_people_only(small: tuple[Store, Path, bytes], notes: Notes) -> None:
    store, path, _ = small
    for text in ("[]", "{", "\xff"):
        (path.parent / "what.json").write_text(text)
        assert [dict(info.what) for info in store.shelves()] == [{}]
        assert store.shelf(WHAT).missing([name(0)]) == []
    assert notes == []


# Several processes

FILL = """
    store = Store(folder, 10**9, print, segment_bytes=2000)
    with store.shelf({"shared": 1}) as shelf:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(int(sys.argv[2]), int(sys.argv[3])):
            shelf.put([name(n)], [row(n)])
"""


def test_two_processes_fill_one_shelf_at_once(tmp_path: Path, store: Store, notes: Notes) -> None:
    folder = store.folder
    with store.shelf({"shared": 1}) as early:
        assert early.missing([name(0)]) == [0]
        fillers = [python(FILL, folder, begin, begin + 300) for begin in (0, 200)]
        for filler in fillers:
            assert filler.stdout is not None
            assert filler.stdout.readline() == "ready\n"
        for filler in fillers:
            assert filler.stdin is not None
            filler.stdin.write("go\n")
            filler.stdin.flush()
        assert [finish(filler) for filler in fillers] == ["", ""]
        names = [name(n) for n in range(500)]
        assert early.missing(names) == []  # an open shelf sees what others have written
        np.testing.assert_array_equal(early.gather(names), [row(n) for n in range(500)])
    (info,) = store.shelves()
    assert 500 <= info.records <= 600
    assert notes == []


KILLED = """
    store = Store(folder, 10**9, print, segment_bytes=4000)
    with store.shelf({"shared": 1}) as shelf:
        print("ready", flush=True)
        for n in range(int(sys.argv[2]), 10**9):
            shelf.put([name(n)], [row(n, 300)])
"""


@posix
def test_a_writer_killed_at_any_moment_leaves_a_store_that_can_be_read(store: Store, notes: Notes) -> None:
    dice = np.random.default_rng(0)
    begun = trials = 0
    while trials < 12 or (not begun and trials < 300):  # on a busy machine the first ones may not come to writing
        trials += 1
        writer = python(KILLED, store.folder, begun)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with store.shelf({"shared": 1}) as shelf:
            there = [n for n in range(begun, begun + 100_000) if name(n) in shelf]
            assert shelf.missing([name(n) for n in there]) == []
            for n in there:
                np.testing.assert_array_equal(shelf.get(name(n)), row(n, 300))
        begun += len(there)
    assert begun > 0
    assert notes == []


@pytest.mark.parametrize("by", ["opening", "cleaning"])
def test_what_a_killed_writer_left_is_removed_when_it_is_old(store: Store, by: str) -> None:
    fill(store, range(1))
    (path,) = held_by(store)
    ages = {"draft-old": 2 * 3600, "draft-young": 1800, "other": 2 * 3600}
    for file, seconds in ages.items():
        (path.parent / file).write_bytes(b"half of it")
        os.utime(path.parent / file, (time.time() - seconds,) * 2)
    if by == "opening":
        store.shelf(WHAT).close()
    else:
        store.clean()
    assert {file for file in ages if (path.parent / file).exists()} == {"draft-young", "other"}


@posix
def test_a_draft_whose_writer_lives_stays_however_old(store: Store) -> None:
    code = """
        from zooft.storage import atomic
        with atomic.whole(folder / "x.seg") as file:
            print("ready", flush=True)
            sys.stdin.readline()
    """
    fill(store, range(1))
    (path,) = held_by(store)
    writer = python(code, path.parent)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    (draft,) = path.parent.glob("draft-*")
    os.utime(draft, (1, 1))
    store.clean()
    store.shelf(WHAT).close()
    assert draft.exists()
    finish(writer)
    assert not draft.exists()
    assert (path.parent / "x.seg").exists()


@posix
def test_cleaning_leaves_what_another_process_has_open(store: Store) -> None:
    code = """
        with Store(folder, 10**9, print).shelf({"shared": 1}) as shelf:
            print("ready", flush=True)
            sys.stdin.readline()
            shelf.put([name(5)], [row(5)])
            print(shelf.gather([name(0), name(5)]).sum())
    """
    fill(store, range(3), {"shared": 1})
    fill(store, range(3), {"other": 1})
    reader = python(code, store.folder)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    cleaned = store.clean(most_bytes=0)
    assert cleaned.shelves == 1
    assert [info.what for info in store.shelves()] == [{"shared": 1}]
    assert cleaned.stayed == {info.key for info in store.shelves()}
    assert float(finish(reader)) == row(0).sum() + row(5).sum()
    assert store.clean(most_bytes=0).stayed == frozenset()
    assert store.shelves() == []


@posix
def test_an_open_array_outlives_the_removal_of_its_file_by_hand(store: Store) -> None:
    fill(store, range(3))
    with store.shelf(WHAT) as shelf:
        array = shelf.get(name(1))
        for path in store.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        np.testing.assert_array_equal(array, row(1))
        np.testing.assert_array_equal(shelf.gather([name(2)])[0], row(2))


def test_a_file_that_vanished_before_it_was_mapped_is_missing(store: Store, notes: Notes) -> None:
    fill(store, range(3))
    with store.shelf(WHAT) as shelf:
        for path in held_by(store):
            path.unlink()
        assert name(0) in shelf
        assert shelf.missing([name(0)]) == [0]
        with pytest.raises(KeyError):
            shelf.gather([name(1)])
    assert len(notes) == 1
    assert "can't be read (No such file or directory)" in notes[0]


@posix
@pytest.mark.usefixtures("hasty")
def test_opening_and_removing_at_once_never_loses_what_was_put_after(
    store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shelves are opened, filled and read back while another thread removes whatever nobody has open."""
    monkeypatch.setattr(locks, "_PAUSE", 0.001)
    removed, ended = 0, False

    def remove() -> None:
        nonlocal removed
        while not ended:
            removed += store.clean(most_bytes=0).shelves

    with ThreadPoolExecutor() as pool:
        remover = pool.submit(remove)
        try:
            n = 0
            while (n < 100 or removed < 20) and not remover.done():
                with store.shelf(WHAT) as shelf:
                    shelf.put([name(n)], [row(n)])
                    assert shelf.missing([name(n)]) == []
                time.sleep(0.001)  # now it can be removed
                n += 1
        finally:
            ended = True
    remover.result()
    assert notes == []


@posix
def test_a_folder_removed_while_it_is_made_is_made_again(
    store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes it between the refusal to make what exists and the next look at it."""
    fill(store, range(1))
    make, removed = os.mkdir, []

    def make_late(path: str, *args: Any, **more: Any) -> None:
        try:
            make(path, *args, **more)
        except FileExistsError:
            if not removed:
                removed.append(store.clean(most_bytes=0).shelves)
            raise

    monkeypatch.setattr(os, "mkdir", make_late)
    fill(store, range(1))
    assert removed == [1]
    assert notes == []
    assert len(held_by(store)) == 1


def test_a_shelf_sent_to_another_process_is_opened_there(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with store.shelf(WHAT) as shelf:
        shelf.put([name(0), name(1)], [row(0), row(1)])
        shelf.flush()
        shelf.put([name(2)], [row(2)])
        copy: Shelf = pickle.loads(pickle.dumps(shelf))  # noqa: S301 -- as a loader's process gets it
        with copy:
            assert copy.missing([name(0), name(1), name(2)]) == [2]
            np.testing.assert_array_equal(copy.get(name(1)), row(1))
    with caplog.at_level(logging.WARNING):
        copy._store.note_once("a sentence")
    assert [record.message for record in caplog.records] == ["a sentence"]


# A disk that can't


def refuse(code: int) -> Callable[..., Any]:
    def failing(*_args: object, **_more: object) -> Any:
        raise OSError(code, os.strerror(code))

    return failing


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO], ids=os.strerror)
@pytest.mark.parametrize("where", ["os.fsync", "tempfile.mkstemp", "os.open"])
def test_a_disk_that_can_t_is_reported_once_and_done_without(
    store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch, where: str, code: int
) -> None:
    if where != "os.open":
        fill(store, range(2))
    files = held_by(store)
    module, function = where.split(".")
    monkeypatch.setattr(sys.modules[module], function, refuse(code))
    for what in (WHAT, {"another": 1}):
        with store.shelf(what) as shelf:
            shelf.put([name(n) for n in range(4)], [row(n) for n in range(4)])
            absent = shelf.missing([name(n) for n in range(4)])
            assert absent == [n for n in range(4) if what is not WHAT or not files or n > 1]
            shelf.put([name(2)], [row(2)])
            assert name(2) not in shelf
    assert len(notes) == 1
    assert os.strerror(code) in notes[0]
    assert "computed again" in notes[0]
    monkeypatch.undo()
    assert held_by(store) == files
    assert not list(store.folder.rglob("draft-*"))


@posix
def test_a_file_that_may_not_grow_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The system itself refuses: a limit on the size of files."""
    code = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with Store(folder, 10**9, print).shelf({"shared": 1}) as shelf:
            shelf.put([name(0)], [row(0)])
            shelf.flush()
            shelf.put([name(1)], [row(1, 50_000)])
            shelf.flush()
            shelf.put([name(2)], [row(2)])
            print(shelf.missing([name(0), name(1), name(2)]))
    """
    printed = finish(python(code, tmp_path / "store")).splitlines()
    assert printed[1:] == ["[1, 2]"]
    assert printed[0].startswith("the cache can't be written (File too large)")
    assert not list(tmp_path.rglob("draft-*"))


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read_is_read(store: Store, notes: Notes) -> None:
    fill(store, range(2))
    folder = held_by(store)[0].parent
    folder.chmod(0o500)
    try:
        with store.shelf(WHAT) as shelf:
            assert shelf.missing([name(0), name(1)]) == []
            assert notes == []
            shelf.put([name(2)], [row(2)])
            assert shelf.missing([name(2)]) == [0]
        assert len(notes) == 1
    finally:
        folder.chmod(0o700)


def test_a_lock_that_may_only_be_read_is_enough_to_read(
    store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a medium mounted for reading: the same, for root too."""
    fill(store, range(2))
    really = os.open

    def reading_only(path: Any, flags: int, *mode: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really(path, flags, *mode)

    monkeypatch.setattr(os, "open", reading_only)
    monkeypatch.setattr("tempfile.mkstemp", refuse(errno.EROFS))
    with store.shelf(WHAT) as shelf:
        assert shelf.missing([name(0), name(1)]) == []
        assert notes == []
        if sys.platform != "win32":
            monkeypatch.undo()
            assert store.clean(most_bytes=0).stayed == {shelf.key}  # it is held all the same


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder there where nothing can be made")
def test_where_no_folder_can_be_made_nothing_is_cached(notes: Notes) -> None:
    with Store(Path("/proc/self/zooft"), 10**9, notes).shelf(WHAT) as shelf:
        shelf.put([name(0)], [row(0)])
        assert shelf.missing([name(0)]) == [0]
    assert len(notes) == 1


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path: Path, notes: Notes) -> None:
    (tmp_path / "store").write_text("mine")
    store = Store(tmp_path / "store", 10**9, notes)
    fill(store, range(2))
    store.clean(most_bytes=0)
    assert store.shelves() == []
    assert (tmp_path / "store").read_text() == "mine"
    assert len(notes) == 1


@posix
def test_a_folder_of_another_user_isn_t_trusted(store: Store, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, range(2))
    stranger = store.folder.stat().st_uid + 1
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    with store.shelf(WHAT) as shelf:
        assert shelf.missing([name(0)]) == [0]
    assert notes == [
        "the cache can't be written (its folder belongs to another user); what isn't stored is computed again where "
        "it is "
        "needed ('zooft cache list' shows where it is, ZOOFT_CACHE moves it)"
    ]


@posix
def test_others_may_not_read_it(store: Store) -> None:
    mask = os.umask(0)
    try:
        fill(store, range(2))
    finally:
        os.umask(mask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (store.folder, *store.folder.glob("[0-9a-f]*"))}
    assert modes == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.folder.glob("*/*")} == {0o600}


# Limits and cleaning


def test_the_shelf_used_longest_ago_leaves_first(tmp_path: Path, notes: Notes) -> None:
    roomy = Store(tmp_path / "store", 10**9, notes)
    for days, what in ((1, "b"), (3, "a"), (2, "c")):
        fill(roomy, range(10), {"what": what}, width=5000)
        age(roomy, {"what": what}, days)
    tight = Store(tmp_path / "store", roomy.nbytes(), notes)
    fill(tight, range(10), {"what": "d"}, width=5000)
    assert [info.what["what"] for info in tight.shelves()] == ["d", "b", "c"]
    assert tight.nbytes() <= tight.most_bytes
    assert notes == []


def test_using_a_shelf_makes_it_young(tmp_path: Path, notes: Notes) -> None:
    roomy = Store(tmp_path / "store", 10**9, notes)
    for days, what in ((3, "a"), (2, "b")):
        fill(roomy, range(10), {"what": what}, width=5000)
        age(roomy, {"what": what}, days)
    with roomy.shelf({"what": "a"}) as shelf:
        shelf.get(name(0))
    fill(Store(tmp_path / "store", roomy.nbytes(), notes), range(10), {"what": "c"}, width=5000)
    assert {info.what["what"] for info in roomy.shelves()} == {"a", "c"}


def test_a_shelf_is_young_when_it_was_opened_and_when_it_was_closed(store: Store) -> None:
    fill(store, range(1))
    age(store, WHAT, 40)
    with store.shelf(WHAT) as shelf:
        assert abs(store.shelves()[0].last_used.timestamp() - time.time()) < 60
        os.utime(store.folder / shelf.key / "lock", (1, 1))
    assert abs(store.shelves()[0].last_used.timestamp() - time.time()) < 60


def test_an_old_shelf_loses_no_more_than_it_must(tmp_path: Path, notes: Notes) -> None:
    roomy = Store(tmp_path / "store", 10**9, notes, segment_bytes=20_000)
    fill(roomy, range(20), {"what": "old"}, width=5000)  # a file each two
    before = len(held_by(roomy))
    age(roomy, {"what": "old"}, 3)
    tight = Store(tmp_path / "store", roomy.nbytes() + 1000, notes)
    fill(tight, range(1), {"what": "new"}, width=5000)
    assert before - 2 <= len(held_by(tight)) - 1 < before
    with tight.shelf({"what": "old"}) as shelf:
        stored = [n for n in range(20) if name(n) in shelf]
        assert len(stored) >= 16
        np.testing.assert_array_equal(shelf.gather([name(n) for n in stored]), [row(n, 5000) for n in stored])


@pytest.mark.parametrize("most", [0, 1000, 25_000])
def test_at_its_limit_it_caches_no_more_and_says_so_once(tmp_path: Path, notes: Notes, most: int) -> None:
    store = Store(tmp_path / "store", most, notes, segment_bytes=10_000)
    with store.shelf(WHAT) as shelf:
        for n in range(20):
            shelf.put([name(n)], [row(n, 2000)])
        absent = shelf.missing([name(n) for n in range(20)])
        assert len(absent) == (20 if most <= 1000 else 16)
        assert [n for n in range(20) if name(n) not in shelf] == absent
    assert sum(path.stat().st_size for path in held_by(store)) <= most
    assert len(notes) == 1
    assert f"limit of {size_text(most)};" in notes[0]


def test_what_doesn_t_fit_anyway_drives_nothing_else_out(tmp_path: Path, notes: Notes) -> None:
    fill(Store(tmp_path / "store", 10**9, notes), range(10), {"what": "old"}, width=1000)
    tight = Store(tmp_path / "store", 30_000, notes)
    fill(tight, range(1), {"what": "huge"}, width=50_000)
    assert [info.what for info in tight.shelves()] == [{"what": "old"}]
    assert len(notes) == 1


@posix
def test_what_this_process_has_open_isn_t_deleted_under_it(tmp_path: Path, notes: Notes) -> None:
    store = Store(tmp_path / "store", 70_000, notes)
    with store.shelf({"what": "a"}) as first:
        first.put([name(n) for n in range(3)], [row(n, 10_000) for n in range(3)])
        first.flush()
        with store.shelf({"what": "b"}) as second:
            second.put([name(0)], [row(0, 10_000)])
            second.flush()
            assert name(0) not in second
        assert first.missing([name(n) for n in range(3)]) == []
    assert len(notes) == 1


def test_cleaning_by_age_removes_what_is_older_and_nothing_else(store: Store) -> None:
    for days in (1, 10, 40):
        fill(store, range(5), {"days": days})
        age(store, {"days": days}, days)
    (store.folder / "mine.txt").write_text("not ours")
    before = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    cleaned = store.clean(older_than=timedelta(days=30))
    after = sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file())
    assert [info.what["days"] for info in store.shelves()] == [1, 10]
    assert cleaned.shelves == 1
    assert cleaned.bytes == before - after > 0
    assert sum(path.is_dir() for path in store.folder.iterdir()) == 2
    assert (store.folder / "mine.txt").read_text() == "not ours"


def test_cleaning_by_size_keeps_to_it(store: Store) -> None:
    for days in (1, 10, 40):
        fill(store, range(5), {"days": days}, width=1000)
        age(store, {"days": days}, days)
    one = store.nbytes() // 3
    assert store.clean(most_bytes=3 * one + 3).bytes == 0
    assert store.clean(most_bytes=2 * one + 2).shelves == 1
    assert [info.what["days"] for info in store.shelves()] == [1, 10]
    cleaned = store.clean(older_than=timedelta(days=5), most_bytes=0)
    assert (cleaned.shelves, store.shelves(), store.nbytes()) == (2, [], 0)
    assert store.clean(most_bytes=0).shelves == 0


def test_cleaning_where_nothing_is_does_nothing(store: Store) -> None:
    assert store.clean(older_than=timedelta(0), most_bytes=0).bytes == 0
    assert not store.folder.exists()


def test_what_a_shelf_holds_is_reported(store: Store) -> None:
    fill(store, range(7))
    (info,) = store.shelves()
    files = list((store.folder / info.key).iterdir())
    assert info.what == WHAT
    assert info.records == 7
    assert info.bytes == sum(path.stat().st_size for path in files) == store.nbytes()
    assert abs(info.last_used.timestamp() - time.time()) < 60


# Where, and how much


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ZOOFT_CACHE", raising=False)
    home = tmp_path / "home" / ".cache" / "zooft" / "store"
    assert default_folder() == home
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == home
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "zooft" / "store"
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own" / "store"
    monkeypatch.setenv("ZOOFT_CACHE", "own")
    assert default_folder() == Path.cwd() / "own" / "store"


def test_a_user_without_a_home_has_a_place_all_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ZOOFT_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert default_folder().parent.parent == tmp_path


def test_the_limit_is_a_fifth_of_the_disk_but_never_more_than_50_gib(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path))
    monkeypatch.delenv("ZOOFT_CACHE_BYTES", raising=False)
    free = 10**9

    class Usage:
        def __init__(self, _path: Path) -> None:
            self.free = free

    monkeypatch.setattr("shutil.disk_usage", Usage)
    assert default_store().most_bytes == 200_000_000
    fill(default_store(), range(100), width=10_000)
    held = default_store().nbytes()
    assert held > 10**6
    free -= held  # as the disk would report now: the limit stays, and doesn't sink as the store fills
    assert default_store().most_bytes == 200_000_000
    free = 10**15
    assert default_store().most_bytes == 50 * 2**30
    monkeypatch.setenv("ZOOFT_CACHE_BYTES", "3GB")
    assert default_store().most_bytes == 3 * 10**9
    monkeypatch.setenv("ZOOFT_CACHE_BYTES", "plenty")
    with pytest.raises(ConfigError, match="ZOOFT_CACHE_BYTES is 'plenty'"):
        default_store()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("20GB", 20 * 10**9),
        ("20 GiB", 20 * 2**30),
        ("1.5kB", 1500),
        ("2m", 2 * 10**6),
        (" 7TB ", 7 * 10**12),
        ("512 MiB", 2**29),
        ("9B", 9),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text, what="--most") == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "20PB", "nan", "iB", "1iB", "1 GB 2", "½GB"])
def test_what_isn_t_a_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--most is .* isn't a size; write 20GB"):
        parse_size(text, what="--most")


def test_sizes_are_written_as_people_read_them() -> None:
    sizes = {
        0: "0 bytes",
        999: "999 bytes",
        1000: "1.0 kB",
        99_960: "100 kB",
        312_345: "312 kB",
        999_600: "1.0 MB",
        1_400_000_000: "1.4 GB",
        53 * 10**12: "53.0 TB",
    }
    assert {size: size_text(size) for size in sizes} == sizes
