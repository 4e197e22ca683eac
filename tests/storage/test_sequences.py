"""Sequences that may be too long for memory, and what stands on them."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import example_data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import zooft
from zooft.errors import DataError
from zooft.storage import sequences as spill
from zooft.storage.cache.index import Index
from zooft.storage.cache.segments import Segment
from zooft.storage.lookup import Lookup


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five items are many."""
    monkeypatch.setattr(spill, "IN_MEMORY", 4)
    monkeypatch.setattr(spill, "BYTES_IN_MEMORY", 100)


def sample(number: int) -> zooft.Sample:
    return zooft.Sample(id=f"s{number}", source=Path(f"a/{number}"), target=number % 3, facts={"width": number / 7})


def test_few_items_are_a_tuple_and_many_come_back_equal(tiny: None) -> None:
    assert zooft.spill(iter([1, 2, 3, 4])) == (1, 2, 3, 4)
    truth = [sample(number) for number in range(50)]
    items = zooft.spill(iter(truth))
    assert not isinstance(items, tuple)
    assert list(items) == truth
    assert (len(items), items[0], items[-1], items[17]) == (50, truth[0], truth[-1], truth[17])
    assert list(items[3:40:5]) == truth[3:40:5]
    assert truth[9] in items
    for index in (50, -51):
        with pytest.raises(IndexError):
            items[index]


@given(st.lists(st.integers(-30, 29)), st.lists(st.integers(0, 10)))
def test_picked_items_are_those_of_a_list(rows: list[int], again: list[int]) -> None:
    truth = list(range(100, 130))
    for items in (tuple(truth), spill._OnDisk(spill._File(*spill._write(truth)), range(len(truth)))):
        picked = spill.pick(items, rows)
        assert list(picked) == [truth[row] for row in rows]
        assert list(picked[1:3]) == [truth[row] for row in rows][1:3]
        twice = [row for row in again if row < len(rows)]
        assert list(spill.pick(picked, twice)) == [truth[rows[row]] for row in twice]


def test_another_process_gets_the_items_by_any_way_of_starting_it(tiny: None) -> None:
    items = zooft.spill(map(sample, range(20)))
    picked = spill.pick(items, [3, 7])
    copy = pickle.loads(pickle.dumps((items, picked)))  # noqa: S301
    assert copy == (items, (sample(3), sample(7)))
    assert isinstance(copy[0].file.content, mmap.mmap)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(items.__getitem__, range(20)) == list(items)


def test_threads_may_read_side_by_side(tiny: None) -> None:
    items = zooft.spill(range(2000))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(items.__getitem__, range(2000))) == list(range(2000))


def test_an_item_on_disk_takes_a_few_bytes_of_memory(tiny: None) -> None:
    held = []
    for count in (1000, 21000):
        tracemalloc.start()
        items = zooft.spill(f"a sample of a long name, number {number}" for number in range(count))
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert len(items) == count
    assert (held[1] - held[0]) / 20000 < 12


@pytest.mark.parametrize("what", ["items", "blocks"])
def test_a_full_disk_is_reported_with_what_to_do(tiny: None, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    class Full:
        def write(self, _content: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None: ...

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(DataError, match=r"No space left on device.*TMPDIR"):
        spill.spill(range(10)) if what == "items" else spill.stack([np.zeros(80), np.zeros(80)])


@pytest.mark.skipif(sys.platform == "win32", reason="limits are POSIX's")
@pytest.mark.parametrize(
    "code",
    [
        "spill.spill(str(n) * 50 for n in range(20_000))",
        "spill.spill(str(n) for n in range(2_000))",  # refused only as the last of it is flushed
        "spill.stack(np.zeros((1000, 8)) for _ in range(20))",
        "Lookup().update((f'{n:064}', 'x' * 64) for n in range(50_000))",
    ],
)
def test_the_system_s_own_refusal_is_reported_too(code: str) -> None:
    head = """
        import resource
        import numpy as np
        from zooft.storage import sequences as spill
        from zooft.errors import DataError
        from zooft.storage.lookup import Lookup
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        spill.IN_MEMORY = spill.BYTES_IN_MEMORY = 10
        try:
            {}
        except DataError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(head).format(code)], capture_output=True, text=True, timeout=600, check=True
    )
    assert "temporary folder" in done.stdout
    assert "TMPDIR" in done.stdout


def test_without_any_temporary_folder_the_same_is_reported(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_: object) -> Any:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    with pytest.raises(DataError, match=r"No usable temporary directory.*TMPDIR"):
        spill.spill(range(10))


def test_sequences_are_equal_where_their_items_are(tiny: None) -> None:
    """The conformance kit checks that two discoveries of the same data are equal."""
    first, again = (
        zooft.Discovery(samples=zooft.spill(map(sample, range(9))), labels=zooft.class_labels(("a",))) for _ in range(2)
    )
    assert first == again
    assert first.samples == tuple(map(sample, range(9)))
    assert tuple(map(sample, range(9))) == first.samples
    assert spill.pick(first.samples, [1, 2]) == (sample(1), sample(2))
    assert first.samples != tuple(map(sample, range(8)))
    assert spill.pick(first.samples, [1, 2]) != (sample(1), sample(3))


def test_an_error_of_the_items_own_is_not_mistaken_for_the_disk_s(tiny: None) -> None:
    def items() -> Any:
        yield from range(10)
        raise PermissionError(errno.EACCES, "their own")

    with pytest.raises(PermissionError, match="their own"):
        zooft.spill(items())


def test_stacked_blocks_are_those_of_numpy(tiny: None) -> None:
    rng = np.random.default_rng(0)
    for sizes in ([2, 1], [0, 3], [40, 0, 1, 7]):
        blocks: list[NDArray[Any]] = [rng.integers(0, 255, (size, 3, 2), dtype=np.uint8) for size in sizes]
        found = spill.stack(iter(blocks))
        np.testing.assert_array_equal(found, np.concatenate(blocks))
        assert found.dtype == np.uint8


# tables on them


def test_a_lookup_is_a_dict(tmp_path: Path) -> None:
    truth = {f"id {number} ä": hashlib.sha256(str(number).encode()).hexdigest() for number in range(300)}
    found = Lookup()
    found.update(list(truth.items())[:200])
    found.update(list(truth.items())[100:])
    found["id 7 ä"] = truth["id 7 ä"] = "changed"
    assert dict(found.items()) == truth
    assert list(found.items()) == sorted(truth.items())
    assert found.sha256() == hashlib.sha256(json.dumps(sorted(truth.items())).encode()).hexdigest()
    assert (len(found), found["id 8 ä"], found.get("none"), "none" in found) == (300, truth["id 8 ä"], None, False)
    with pytest.raises(KeyError, match="none"):
        found["none"]


def test_threads_may_fill_a_lookup_side_by_side() -> None:
    found, ready = Lookup(), threading.Barrier(4)

    def fill(start: int) -> None:
        ready.wait()
        for number in range(start, 400, 4):
            found[str(number)] = str(-number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(fill, range(4)))
    assert dict(found.items()) == {str(number): str(-number) for number in range(400)}


names = st.integers(0, 40).map(lambda number: hashlib.sha256(str(number).encode()).hexdigest())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(names, unique=True)),
            st.tuples(st.just("forget"), st.lists(names)),
        ),
        max_size=12,
    ),
    st.lists(names),
)
def test_an_index_is_a_dict_of_what_was_listed_first(done: list[tuple[str, list[str]]], names: list[str]) -> None:
    index, truth = Index(), dict[str, tuple[Segment, int]]()
    nothing = np.empty(0)
    for what, some in done:
        if what == "forget":
            index.forget(some)
            for one in some:
                truth.pop(one, None)
            continue
        segment = Segment(Path(), 0, (), *[nothing] * 5)
        index.add([(segment, some)])
        for row, one in enumerate(some):
            truth.setdefault(one, (segment, row))
    places, absent = index.places(names)
    assert absent.tolist() == [position for position, one in enumerate(names) if one not in truth]
    found = {
        int(at): (segment, int(row))
        for segment, (ats, rows) in places.items()
        for at, row in zip(ats, rows, strict=True)
    }
    assert found == {position: truth[one] for position, one in enumerate(names) if one in truth}
    assert [index.place(one) for one in names] == [truth.get(one) for one in names]
    index.clear()
    assert not any(one in index for one in names)


# the whole chain


@pytest.mark.parametrize("freeze", ["backbone", "none"])
def test_a_run_over_spilled_samples_ends_as_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, freeze: str
) -> None:
    folder = example_data.write_classes(tmp_path / "folder", {"dark": 12, "light": 12})
    results = []
    for few in (10_000, 4):
        monkeypatch.setattr(spill, "IN_MEMORY", few)
        monkeypatch.setattr(spill, "BYTES_IN_MEMORY", few)
        monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path / f"cache-{few}"))
        result = zooft.finetune(
            backbone="timm:test_resnet",
            task="classification",
            data=folder,
            out=tmp_path / f"run-{few}",
            weights="random",
            freeze=freeze,
            epochs=1,
            bootstrap=0,
            export=False,
            device="cpu",
            seed=3,
            precision="fp32",
        )
        record = json.loads((result.path / "run.json").read_text())
        results.append(
            [
                *((result.path / name).read_text() for name in ("samples.csv", "predictions.csv", "audit.json")),
                [json.loads(line)["metrics"] for line in (result.path / "metrics.jsonl").read_text().splitlines()],
                record["data"],
                record["evaluation"],
            ]
        )
    assert results[0] == results[1]
