"""A data source, tried on data of its form."""

from __future__ import annotations

import io
import pickle
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from zooft.contracts import Column, Rejection, Row, Source
from zooft.hooks.guard import call_plugin, place_of
from zooft.testing.breaches import accept, report_breaches

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_READ = 16
"""Images that are read, evenly spread."""
_THREADS = 4
_CHANNELS = (1, 3, 4)


@report_breaches()
def check_source(source: Source, path: Path) -> None:
    """It knows its own form of data, gives the same rows each time, and images to threads and other processes.

    Args:
        source: what the plugin registers.
        path: of a few rows of data of its form, with at least one image that Pillow opens.
    """
    source = accept(source)
    _check_recognition(source, path)
    columns = call_plugin(source, "columns", path)
    _check_columns(source, columns)
    rows = _rows(source, path, columns)
    _check_ids(source, rows)
    for row in rows:
        _check_categories(source, row, columns)
    _check_content(source, rows[:: max(1, len(rows) // _MOST_READ)])


def _check_recognition(source: Source, path: Path) -> None:
    place = place_of(source, "recognises")
    if not call_plugin(source, "recognises", path):
        raise place.error(f"rejects {path.name}; expected True for data of its own form")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "classes" / "ants").mkdir(parents=True)
        PIL.Image.new("RGB", (4, 4)).save(root / "classes" / "ants" / "1.png")
        (root / "labels.csv").write_text("path,label\nclasses/ants/1.png,ants\n")
        others = {
            "a path where nothing is": root / "nothing",
            "a folder of class folders": root / "classes",
            "a manifest": root / "labels.csv",
            "a picture": root / "classes" / "ants" / "1.png",
        }
        for words, other in others.items():
            if call_plugin(source, "recognises", other):
                raise place.error(f"accepts {words}; expected False, since it would take the place of what reads that")


def _check_columns(source: Source, columns: Sequence[Column]) -> None:
    twice = [name for name, count in Counter(column.name for column in columns).items() if count > 1]
    if twice:
        raise place_of(source, "columns").error(f"gives the column {twice[0]} twice; expected each name once")


def _rows(source: Source, path: Path, columns: Sequence[Column]) -> list[Row]:
    """All of them, which are the same whichever columns are requested."""
    place, names = place_of(source, "rows"), [column.name for column in columns]
    found: list[Row | Rejection] = list(call_plugin(source, "rows", path, names))
    rows = [row for row in found if isinstance(row, Row)]
    if not rows:
        raise place.error(f"gives no row of {path.name} that can be used; expected one at least")
    if [_comparable(row) for row in call_plugin(source, "rows", path, names)] != [_comparable(row) for row in found]:
        raise place.error("gives other rows the second time; expected the same")
    for wanted in (names, names[:1], []):
        some = [row for row in call_plugin(source, "rows", path, wanted) if isinstance(row, Row)]
        if [row.id for row in some] != [row.id for row in rows]:
            raise place.error(
                f"gives other rows where the columns {wanted} are wanted than where all are; expected the same"
            )
        odd = next((row for row in some if sorted(row.values) != sorted(wanted)), None)
        if odd is not None:
            raise place.error(
                f"gives the columns {sorted(odd.values)} of {odd.id} where {sorted(wanted)} were wanted; expected "
                "those alone"
            )
    return rows


def _comparable(row: Row | Rejection) -> tuple[Any, ...]:
    """What can be compared: NaN isn't equal to itself."""
    return (row.id, repr(row.values), row.split) if isinstance(row, Row) else (row.id, row.reason)


def _check_ids(source: Source, rows: Sequence[Row]) -> None:
    place = place_of(source, "rows")
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise place.error(f"calls {twice[0]!r} more than one row; expected an id for each alone")
    odd = next((row.id for row in rows if not row.id or not row.id.isprintable()), None)
    if odd is not None:
        raise place.error(f"calls a row {odd!r}; expected text that can be printed")


def _check_categories(source: Source, row: Row, columns: Sequence[Column]) -> None:
    for column in columns:
        value = row.values[column.name]
        if (
            column.categories
            and value is not None
            and not (isinstance(value, int) and -1 <= value < len(column.categories))
        ):
            raise place_of(source, "rows").error(
                f"gives {value!r} in the column {column.name} of {row.id}; expected a whole number below "
                f"{len(column.categories)}, since the column has categories, -1 or None"
            )


def _check_content(source: Source, rows: Sequence[Row]) -> None:
    """The same images at once in several threads as one after the other, and by what another process would be sent."""
    place = place_of(source, "content")
    sent = []
    for row in rows:
        try:
            sent.append(pickle.loads(pickle.dumps((source.content, row.content))))  # noqa: S301 -- made in this line
        except Exception as error:  # a lambda, an open file: pickle fails in many ways
            raise place.error(f"of {row.id} can't be sent to a loader process: {error}") from error
    alone = [call_plugin(source, "content", row.content, doing=f"to read {row.id}") for row in rows]
    for row, found in zip(rows, alone, strict=True):
        _check_image(source, row, found)
    with ThreadPoolExecutor(_THREADS) as pool:
        together = list(pool.map(lambda pair: pair[0](pair[1]), sent * _THREADS))
    for row, found, again in zip([*rows] * _THREADS, alone * _THREADS, together, strict=True):
        if not np.array_equal(_bytes(found), _bytes(again)):
            raise place.error(f"gives another image of {row.id} where threads read at once; expected the same")


def _bytes(content: bytes | NDArray[Any]) -> NDArray[Any]:
    return np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content


def _check_image(source: Source, row: Row, content: bytes | NDArray[Any]) -> None:
    place = place_of(source, "content")
    if isinstance(content, bytes):
        try:
            with PIL.Image.open(io.BytesIO(content)) as image:
                image.load()
        except Exception as error:  # a decoder fails in any way
            raise place.error(f"gives bytes of {row.id} that Pillow doesn't open: {error}") from error
        return
    grey = content.ndim == 2 or content.shape[2:] == (1,)
    fits = content.ndim == 2 or (content.ndim == 3 and content.shape[2] in _CHANNELS)
    if not fits or not (content.dtype == np.uint8 or (content.dtype == np.uint16 and grey)):
        raise place.error(
            f"gives {content.dtype.name} of shape {content.shape} of {row.id}; expected uint8 of shape (H, W), (H, W, "
            "1), (H, W, 3) or (H, W, 4), or grey uint16"
        )
