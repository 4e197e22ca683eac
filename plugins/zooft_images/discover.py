"""Images below a folder or in a manifest, every one of them decoded once before training starts.

A folder holds class folders, or ``train``, ``val`` and ``test`` folders of class folders. A manifest is a CSV file
with the columns path and label, and, where known, group and split; paths are relative to it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.read import read

if TYPE_CHECKING:
    from zooft_images.options import ClassificationOptions

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_MANIFEST = "labels.csv"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file with a label, not yet looked into."""

    id: str
    path: Path
    label: str
    split: Any = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class _Listing:
    candidates: Sequence[_Candidate]
    rejected: Sequence[zooft.Rejection]
    notes: Sequence[str]
    labels: Sequence[str]


def discover(root: Path, options: ClassificationOptions) -> zooft.Discovery:
    """Samples, classes in the order of their names, and what was rejected.

    Raises:
        DataError: neither class folders nor a manifest, or a manifest that contradicts itself.
    """
    listing = _list(root, options)
    if not listing.candidates:
        first = f"; the first: {listing.rejected[0].id}: {listing.rejected[0].reason}" if listing.rejected else ""
        raise zooft.DataError(f"no images in {root}: expected class folders with images, or a CSV manifest{first}")
    classes = tuple(sorted(set(listing.labels)))
    reasons = _decode_all([c.path for c in listing.candidates], lambda path: _reason(path, options))
    samples = tuple(
        zooft.Sample(id=c.id, source=c.path, target=classes.index(c.label), group=c.group, split=c.split)
        for c, reason in zip(listing.candidates, reasons, strict=True)
        if reason is None
    )
    undecodable = [
        zooft.Rejection(c.id, reason)
        for c, reason in zip(listing.candidates, reasons, strict=True)
        if reason is not None
    ]
    return zooft.Discovery(
        samples=samples,
        classes=classes,
        rejected=(*listing.rejected, *undecodable),
        notes=tuple(listing.notes),
    )


def _list(root: Path, options: ClassificationOptions) -> _Listing:
    if root.is_file():
        return _from_manifest(root, options)
    if not _folders(root) and (root / _MANIFEST).is_file():
        return _from_manifest(root / _MANIFEST, options)
    return _from_folders(root)


def _from_folders(root: Path) -> _Listing:
    tops = _folders(root)
    splits = [folder for folder in tops if folder.name.lower() in _SPLITS]
    if splits and len(splits) < len(tops):
        odd = ", ".join(folder.name for folder in tops if folder not in splits)
        raise zooft.DataError(f"{root} has split folders and others beside them: {odd}; move those elsewhere")
    candidates: list[_Candidate] = []
    rejected = [
        zooft.Rejection(_id(root, path), "beside the class folders, so without a label") for path in _files(root)
    ]
    labels: list[str] = []
    parents: list[tuple[Path, Any]] = [(folder, _SPLITS[folder.name.lower()]) for folder in splits] or [(root, None)]
    for parent, split in parents:
        if split is not None:
            rejected += [
                zooft.Rejection(_id(root, p), "beside the class folders, so without a label") for p in _files(parent)
            ]
        for folder in _folders(parent):
            labels.append(folder.name)
            candidates += [_Candidate(_id(root, p), p, folder.name, split) for p in _files_below(folder)]
    return _Listing(candidates, rejected, _folder_notes(root), labels)


def _folder_notes(root: Path) -> list[str]:
    manifest = root / _MANIFEST
    return (
        [f"class folders are used, not {_MANIFEST} beside them; give --data {manifest} to use it"]
        if manifest.is_file()
        else []
    )


def _from_manifest(path: Path, options: ClassificationOptions) -> _Listing:
    rows, columns = _rows(path)
    candidates: dict[str, _Candidate] = {}
    rejected: list[zooft.Rejection] = []
    root = path.parent
    for number, row in rows:
        candidate = _candidate(root, row, options)
        if isinstance(candidate, str):
            rejected.append(zooft.Rejection(row.get("path") or f"line {number}", candidate))
            continue
        known = candidates.get(candidate.id)
        if known is not None and known.label != candidate.label:
            raise zooft.DataError(
                f"{path.name}, line {number}: {candidate.id} is labelled {candidate.label!r} here and {known.label!r} "
                "above; remove one of the two"
            )
        candidates[candidate.id] = candidate
    used = {"path", "label", "split", options.group_column}
    unused = [name for name in columns if name not in used]
    notes = (
        [f"columns of {path.name} that aren't used: {', '.join(unused)} (--group-column names the one to split by)"]
        if unused
        else []
    )
    return _Listing(list(candidates.values()), rejected, notes, [c.label for c in candidates.values()])


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}) for row in reader]
            columns = [name for name in reader.fieldnames or [] if name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise zooft.DataError(f"{path} isn't a readable CSV manifest in UTF-8: {error}") from error
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        found = ", ".join(columns[:8]) or "nothing"
        raise zooft.DataError(
            f"{path} needs the columns path and label, and has {found}; {' and '.join(missing)} is missing"
        )
    return rows, columns


def _candidate(root: Path, row: dict[str, str], options: ClassificationOptions) -> _Candidate | str:
    """What a manifest's line names, or why it can't be used."""
    if not row["path"] or not row["label"]:
        return "the line has no path or no label"
    split = row.get("split", "").lower()
    if split and split not in _SPLITS:
        return f"unknown split {split!r}; known are train, val and test"
    try:
        path = (root / row["path"]).resolve()
        known = path.is_file()
    except (OSError, ValueError) as error:
        return f"not a usable path: {error}"
    if not known:
        return "no such file"
    identity = _id(root.resolve(), path)
    return _Candidate(identity, path, row["label"], _SPLITS.get(split), row.get(options.group_column) or None)


def _reason(path: Path, options: ClassificationOptions) -> str | None:
    try:
        read(path, options)
    except zooft.DataError as error:
        return str(error)
    return None


def _decode_all(paths: Sequence[Path], check: Callable[[Path], str | None]) -> list[str | None]:
    """In threads: Pillow's decoders let go of the interpreter."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(check, paths))


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in _entries(root) if path.is_dir() and not path.name.startswith("."))


def _files(root: Path) -> list[Path]:
    return sorted(path for path in _entries(root) if path.is_file() and not path.name.startswith("."))


def _files_below(root: Path) -> Iterable[Path]:
    """Regular files at any depth; links to folders aren't followed, so that the walk ends."""
    for folder, inner, names in os.walk(root):
        inner.sort()
        yield from (
            Path(folder) / name
            for name in sorted(names)
            if not name.startswith(".") and (Path(folder) / name).is_file()
        )


def _entries(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise zooft.DataError(f"{root} can't be read: {error.strerror}") from error


def _id(root: Path, path: Path) -> str:
    """The path below the data folder, with forward slashes."""
    return os.path.relpath(path, root).replace(os.sep, "/")
