"""A folder by ``save_to_disk``.

One data set, or splits of one, each with its description and its Arrow files in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import zooft

_SPLITS, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_MOST_BYTES = 64 * 2**20
"""Of a description; one of a hundred thousand classes takes three."""
_INDICES = ("_indices_files", "_indices_data_files")
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True)
class Part:
    """One data set of a folder.

    Attributes:
        name: of the split as the folder calls it; "row" where there are no splits.
        split: which it is.
        files: of Arrow, in order.
        features: column to its entry in datasets' features.
    """

    name: str
    split: Split | None
    files: tuple[Path, ...]
    features: Mapping[str, Mapping[str, Any]]


def recognises(path: Path) -> bool:
    """Whether the files are there that ``save_to_disk`` writes beside the data."""
    if not path.is_dir():
        return False
    return (path / _SPLITS).is_file() or ((path / _STATE).is_file() and (path / _INFO).is_file())


def parts(path: Path) -> list[Part]:
    """The data sets of a folder, in its own order.

    Raises:
        DataError: descriptions that can't be read, or a split that is none of ours.
    """
    if not (path / _SPLITS).is_file():
        return [_part(path, "row", None)]
    names = _json(path / _SPLITS).get("splits")
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise zooft.DataError(f"{path / _SPLITS} names no splits; save the data again with datasets' save_to_disk")
    unknown = [name for name in names if name.lower() not in zooft.SPLIT_NAMES]
    if unknown:
        raise zooft.DataError(
            f"{path} has the split {unknown[0]!r}; there are train, val and test. Give one split's folder, such as "
            f"--data {path / names[0]}, or save the data without that split"
        )
    return [_part(path / name, name, zooft.SPLIT_NAMES[name.lower()]) for name in names]


def _part(folder: Path, name: str, split: Split | None) -> Part:
    state, info = _json(folder / _STATE), _json(folder / _INFO)
    if any(state.get(key) for key in _INDICES):
        raise zooft.DataError(
            f"{folder} holds a choice of rows apart from the data, as old versions of datasets wrote it; load it, and "
            "save it again with save_to_disk"
        )
    listed = state.get("_data_files")
    files = [each.get("filename") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    names = [file for file in files if isinstance(file, str) and _is_name(file)]
    if not names or len(names) < len(files):
        raise zooft.DataError(f"{folder / _STATE} names no files of data; save it again with datasets' save_to_disk")
    features = info.get("features")
    if not isinstance(features, dict):
        raise zooft.DataError(
            f"{folder / _INFO} doesn't describe the columns; save the data again with datasets' save_to_disk"
        )
    described = {key: value if isinstance(value, dict) else {} for key, value in features.items()}
    return Part(name, split, tuple(folder / file for file in names), described)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise zooft.DataError(f"{path} has {path.stat().st_size:,} bytes, too many for a description")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise zooft.DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(found, dict):
        raise zooft.DataError(f"{path} isn't a JSON object; save the data again with datasets' save_to_disk")
    return found


def _is_name(text: object) -> bool:
    """Whether it names something right in the folder: a description may come from anywhere."""
    return isinstance(text, str) and bool(text) and text not in {".", ".."} and not set("/\\:\0") & set(text)
