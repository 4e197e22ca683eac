"""The kit's check of data sources: sound ones pass, and each mistake is named."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import zooft
import zooft_hf_datasets
import zooft_parquet
from zooft import testing


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def recognises(path: Path) -> bool:
    return path.suffix == ".levels" and path.is_file()


def columns(_path: Path) -> list[zooft.Column]:
    return [zooft.Column(name="label", categories=("dark", "light")), zooft.Column(name="note")]


def rows(path: Path, expected: Sequence[str]) -> Iterator[zooft.Row | zooft.Rejection]:
    for number, line in enumerate(path.read_text().split()):
        if line == "-":
            yield zooft.Rejection(f"{number}", "no level")
            continue
        values = {"label": int(int(line) > 99), "note": float("nan")}
        yield zooft.Row(id=f"{number}", content=int(line), values={name: values[name] for name in expected})


def content(level: int) -> bytes:
    return png(level)


SOUND = zooft.Source(
    name="levels", summary="a level a picture", recognises=recognises, columns=columns, rows=rows, content=content
)


@pytest.fixture
def levels(tmp_path: Path) -> Path:
    path = tmp_path / "a.levels"
    path.write_text("10 200 - 30 220")
    return path


def changed(change: Callable[[zooft.Row], zooft.Row]) -> Callable[[Path, Sequence[str]], Iterator[Any]]:
    def some(path: Path, expected: Sequence[str]) -> Iterator[Any]:
        for row in rows(path, expected):
            yield change(row) if isinstance(row, zooft.Row) else row

    return some


def counted() -> Callable[[Path, Sequence[str]], Iterator[Any]]:
    """Ids that go on counting from call to call."""
    calls: list[int] = []
    return changed(lambda row: dataclasses.replace(row, id=f"{row.id}-{calls.append(0) or len(calls)}"))  # type: ignore[func-returns-value]


def empty(_path: Path, _wanted: Sequence[str]) -> Iterator[Any]:
    yield from ()


def fewer(path: Path, expected: Sequence[str]) -> Iterator[Any]:
    yield from list(rows(path, expected))[: None if expected else 1]


class Shared:
    """Reads from one place for all threads, as an open file does."""

    place = 0

    def __call__(self, level: int) -> bytes:
        import time

        self.place = level
        time.sleep(0.002)
        return png(self.place)


SHARED = Shared()


def shared(level: int) -> bytes:
    return SHARED(level)


def floats(level: int) -> Any:
    return np.zeros((4, 5, 3)) + level


def text(_level: int) -> bytes:
    return b"no picture"


def grey(level: int) -> Any:
    return np.full((4, 5), level, np.uint16)


def test_a_sound_source_passes(levels: Path) -> None:
    testing.check_source(SOUND, levels)
    testing.check_source(dataclasses.replace(SOUND, content=grey), levels)


def test_our_own_sources_pass(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets isn't installed: pip install 'zooft[dev]'")
    datasets.disable_progress_bars()
    names = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["a", "b"]),
        "note": datasets.Value("string"),
    }
    cells = {"image": [{"bytes": png(n), "path": None} for n in range(6)], "label": [0, 1] * 3, "note": ["n"] * 6}
    data = datasets.Dataset.from_dict(cells, features=datasets.Features(names))
    data.save_to_disk(str(tmp_path / "saved"))
    data.to_parquet(str(tmp_path / "a.parquet"))
    testing.check_source(*zooft_hf_datasets.zooft_register_sources(), tmp_path / "saved")
    testing.check_source(*zooft_parquet.zooft_register_sources(), tmp_path / "a.parquet")


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "its own form unknown": ({"recognises": lambda _: False}, "rejects a.levels"),
    "every file": ({"recognises": lambda _: True}, "accepts a path where nothing is"),
    "every folder": ({"recognises": lambda p: p.is_dir() or recognises(p)}, "accepts a folder of class folders"),
    "a column twice": ({"columns": lambda p: columns(p) * 2}, "gives the column label twice"),
    "no rows": ({"rows": empty}, "gives no row of a.levels that can be used"),
    "a list in place of an iterator": ({"rows": lambda p, w: list(rows(p, w))}, "expected an Iterator"),
    "other rows each time": ({"rows": counted()}, "gives other rows the second time"),
    "rows by columns": ({"rows": fewer}, "where the columns [] are wanted"),
    "more columns than wanted": (
        {"rows": lambda p, _: rows(p, ["label", "note"])},
        "where ['label'] were wanted; expected those alone",
    ),
    "one id for two": (
        {"rows": changed(lambda r: dataclasses.replace(r, id="same"))},
        "calls 'same' more than one row",
    ),
    "an id of two lines": (
        {"rows": changed(lambda r: dataclasses.replace(r, id=f"{r.id}\n"))},
        "expected text that can be printed",
    ),
    "names in place of numbers": (
        {
            "rows": changed(
                lambda r: dataclasses.replace(r, values=r.values | ({"label": "dark"} if "label" in r.values else {}))
            )
        },
        "gives 'dark' in the column label of 0; expected a whole number below 2",
    ),
    "content that can't be sent": ({"content": lambda level: png(level)}, "can't be sent to a loader process"),
    "content that threads mix up": ({"content": shared}, "gives another image of"),
    "no image": ({"content": text}, "gives bytes of 0 that Pillow doesn't open"),
    "floats": ({"content": floats}, "gives float64 of shape (4, 5, 3) of 0; expected uint8"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_field(change: dict[str, Any], message: str, levels: Path) -> None:
    with pytest.raises(testing.ConformanceError) as caught:
        testing.check_source(dataclasses.replace(SOUND, **change), levels)
    assert message in str(caught.value)
    assert f"field Source.{next(iter(change))}" in str(caught.value)
