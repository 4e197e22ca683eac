"""The store that writes nothing keeps what a store on disk keeps, up to its bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zooft.storage.cache import MemoryStore, Store

NAMES = [f"{number:064x}" for number in range(6)]
ROWS = np.arange(6 * 5, dtype=np.float32).reshape(6, 5)


def test_it_answers_as_the_store_on_disk(tmp_path: Path) -> None:
    for store in (MemoryStore(10**6), Store(tmp_path / "store", 10**9)):
        shelf = store.shelf({"what": "rows"})
        assert shelf.missing(NAMES) == [0, 1, 2, 3, 4, 5]
        shelf.put(NAMES[:4], ROWS[:4])
        shelf.put(NAMES[1:5], ROWS[1:5] + 100)  # what is there stays
        shelf.flush()
        assert shelf.missing(NAMES) == [5]
        assert NAMES[0] in shelf
        assert NAMES[5] not in shelf
        np.testing.assert_array_equal(shelf.gather([NAMES[3], NAMES[0], NAMES[3]]), ROWS[[3, 0, 3]])
        np.testing.assert_array_equal(shelf.get(NAMES[4]), ROWS[4] + 100)
        assert shelf.get(NAMES[5]) is None
        assert store.shelf({"what": "other rows"}).missing(NAMES[:1]) == [0]
        np.testing.assert_array_equal(store.shelf({"what": "rows"}).gather(NAMES[:1]), ROWS[:1])


def test_what_exceeds_the_bound_of_all_shelves_is_not_stored() -> None:
    store = MemoryStore(5 * ROWS[0].nbytes)
    first, second = store.shelf({"what": 1}), store.shelf({"what": 2})
    first.put(NAMES[:3], ROWS[:3])
    second.put(NAMES, ROWS)
    assert [len(shelf.missing(NAMES)) for shelf in (first, second)] == [3, 4]


def test_rows_are_copied() -> None:
    rows, shelf = ROWS.copy(), MemoryStore(10**6).shelf({"what": "rows"})
    shelf.put(NAMES, rows)
    rows[:] = 0
    np.testing.assert_array_equal(shelf.gather(NAMES), ROWS)
