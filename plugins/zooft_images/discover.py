"""Images below a folder, in a manifest, in shards or in a data source, each decoded once before training starts.

A folder holds class folders, or ``train``, ``val`` and ``test`` folders of class folders. A manifest is a CSV file
with the columns path and label, and, where known, group and split; paths are relative to it. Shards are the matter of
`zooft_images.webdataset`, forms that other plugins read that of `zooft_images.from_source`.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.columns import list_columns, table_of_manifest, table_of_source
from zooft_images.file_kinds import is_kind
from zooft_images.from_source import list_rows
from zooft_images.groups import Groups
from zooft_images.layout import Layout, below, holds_classes, lay_out
from zooft_images.listing import Candidate, LeftOut, Listing, identity, others, printable
from zooft_images.manifest import list_manifest
from zooft_images.options import GROUP_COLUMN, LABEL_COLUMN
from zooft_images.read import Inspection, inspect, is_picture, kind_of_file
from zooft_images.sixteen_bit import Depths
from zooft_images.webdataset import holds_shards, is_shard, list_shards

if TYPE_CHECKING:
    from zooft_images.options import ImageOptions

_MANIFEST = "labels.csv"
_TABLES = (".csv", ".tsv", ".tab")
_SHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
_OTHER_TABLES = (".json", ".jsonl", ".yaml", ".yml", ".xml", ".parquet", ".feather", ".pkl", ".npy", ".mat")
ALONE = "beside the class folders, so without a label"
_MANY, _FEW_EACH = 20, 3
_AT_ONCE = 64
"""Pictures that a thread is given at a time."""


def discover(
    root: Path,
    options: Any,
    *,
    computing: zooft.Computing = zooft.unseen,
    learning: bool = True,
    sources: Sequence[zooft.Source] = (),
) -> zooft.Discovery:
    """Samples, classes in their order, and what was rejected.

    Args:
        root: a folder, a manifest or a shard.
        options: the task's own.
        computing: shows progress.
        learning: whether the order of the classes is to be settled; a finished model has one.
        sources: other forms of data, that plugins register.

    Raises:
        DataError: neither class folders nor a manifest nor shards, or labels that contradict each other.
    """
    source = zooft.source_of(root, sources)
    listing = list_rows(source, root, options) if source else _list(root, options, computing)
    if not listing.candidates:
        raise zooft.DataError(f"no images in {root}: {_why_none(root, listing.rejected)}")
    if learning and len(listing.classes) == 1:
        _refuse_table_beside(root)
    positive = options.positive if learning else ""
    classes, order = zooft.order_classes(listing.classes, positive, fixed=listing.ordered)
    targets = {name: index for index, name in enumerate(classes)}
    found = _decode_all(root, listing, targets, options, computing)
    notes = (*listing.notes, *(order if learning else ()), *found.notes, *_about_many(classes, len(found.samples)))
    return replace(found, labels=zooft.class_labels(classes, nothing=zooft.nothing_of(classes, positive)), notes=notes)


def discover_columns(
    problem: zooft.Problem,
    root: Path,
    options: Any,
    *,
    computing: zooft.Computing = zooft.unseen,
    sources: Sequence[zooft.Source] = (),
) -> zooft.Discovery:
    """Samples whose targets are columns of a table, and what was rejected.

    Args:
        problem: that reads the columns.
        root: a manifest, a folder with one, or what a data source reads.
        options: the task's own.
        computing: shows progress.
        sources: other forms of data, that plugins register.

    Raises:
        DataError: no table, or columns that the problem can't read.
    """
    source = zooft.source_of(root, sources)
    table = table_of_source(source, root, options) if source else table_of_manifest(_manifest_of(root), options)
    listing, targets, labels = list_columns(table, problem, options)
    if not listing.candidates:
        raise zooft.DataError(f"no images with targets in {root}: {_why_none(root, listing.rejected)}")
    found = _decode_all(root, listing, targets, options, computing)
    return replace(found, labels=labels, notes=(*listing.notes, *found.notes))


def _manifest_of(root: Path) -> Path:
    if root.is_dir():
        if not (root / _MANIFEST).is_file():
            raise zooft.DataError(f"{root} has no {_MANIFEST}, whose columns are path and the targets of each picture")
        return root / _MANIFEST
    _refuse_other_file(root)
    return root


def _decode_all(
    root: Path, listing: Listing, targets: Mapping[str, Any], options: Any, computing: zooft.Computing
) -> zooft.Discovery:
    """Every picture that can be decoded, with the target of its label."""
    undecodable: list[zooft.Rejection] = []
    depths, groups = Depths(), Groups()

    def sound() -> Iterator[zooft.Sample]:
        for c, answer in _inspect_all(listing.candidates, options, computing):
            if isinstance(answer, str):
                undecodable.append(zooft.Rejection(c.id, answer))
                continue
            depths.add(answer)
            groups.add(c.group)
            yield zooft.Sample(
                id=c.id, source=c.source, target=targets[c.label], group=c.group, split=c.split, facts=answer.facts
            )

    samples = zooft.spill(sound())
    other_kinds = _kinds([*listing.rejected, *undecodable])
    if not samples and other_kinds:
        raise zooft.DataError(f"no images in {root}: {'; '.join(_count_kinds(other_kinds))}")
    return zooft.Discovery(
        samples=samples,
        rejected=(*listing.rejected, *undecodable),
        notes=(*_count_kinds(other_kinds), *depths.notes(options), *groups.notes()),
    )


def _about_many(classes: Sequence[str], pictures: int) -> list[str]:
    """Folders or labels of subjects, one each, look like a great many classes."""
    if len(classes) <= _MANY or pictures >= _FEW_EACH * len(classes):
        return []
    return [
        f"warning: {len(classes):,} classes in {pictures:,} pictures, fewer than {_FEW_EACH} each: are they subjects "
        "(patients, parts) rather than classes? Those belong into a manifest's column group"
    ]


def _why_none(root: Path, rejected: Sequence[zooft.Rejection]) -> str:
    """What lies there instead, and what is expected."""
    kinds, alone = _kinds(rejected), [each.id for each in rejected if each.reason == ALONE]
    if kinds:
        return "; ".join(_count_kinds(kinds))
    if alone:
        table = next((path for path in others(root) if path.suffix.lower() in _TABLES), None) if root.is_dir() else None
        if table is not None:
            return (
                f"{zooft.pluralize(len(alone), 'file lies', 'files lie')}"
                f" beside each other without class folders; if {printable(table.name)} names "
                "their classes, give it with --data"
            )
        return (
            f"{zooft.pluralize(len(alone), 'file lies', 'files lie')}"
            f" beside each other without class folders, such as {alone[0]}; give each class a "
            f"folder of its own, or name the classes in a {_MANIFEST} with the columns path and label"
        )
    first = f"; the first: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
    return f"expected class folders with images, or a CSV manifest, or WebDataset shards{first}"


def _kinds(rejected: Iterable[zooft.Rejection]) -> Counter[str]:
    return Counter(each.reason for each in rejected if is_kind(each.reason))


def _count_kinds(kinds: Mapping[str, int]) -> list[str]:
    """A line for each kind of file that isn't a picture, the most frequent first."""
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    return [f"{count:,} {'file isn' if count == 1 else 'files aren'}'t used: {kind}" for kind, count in most]


def _list(root: Path, options: Any, computing: zooft.Computing) -> Listing:
    if root.is_file():
        if is_shard(root):
            return list_shards(root, options, computing=computing)
        _refuse_other_file(root)
        return list_manifest(root, options)
    if (root / _MANIFEST).is_file() and not holds_classes(root):
        return list_manifest(root / _MANIFEST, options)
    if holds_shards(root):
        return list_shards(root, options, computing=computing)
    return _from_folders(root, options)


def _refuse_other_file(path: Path) -> None:
    """Whatever is neither a shard nor text, by what it is."""
    if path.name.lower().endswith(_SHEETS):
        raise zooft.DataError(f"{path} is a spreadsheet: save it as CSV (UTF-8), with the columns path and label")
    if path.suffix.lower() in _OTHER_TABLES:
        raise zooft.DataError(f"{path} isn't read: write it as CSV (UTF-8), with the columns path and label")
    if kind := kind_of_file(path):
        raise zooft.DataError(f"{path} isn't a manifest of pictures: {kind}")
    if is_picture(path):
        raise zooft.DataError(
            f"{path} is a picture; --data takes a folder of class folders, a CSV manifest, or WebDataset shards "
            "('zooft predict' takes single pictures)"
        )


def _refuse_table_beside(root: Path) -> None:
    """One folder of pictures and a table: the table names the classes."""
    tables = [path for path in others(root) if path.suffix.lower() == ".csv"] if root.is_dir() else []
    if tables:
        raise zooft.DataError(
            f"{root} holds one folder, and {tables[0].name} beside it: give --data {tables[0]} if that names files "
            "and classes"
        )


def _from_folders(root: Path, options: Any) -> Listing:
    left_out = LeftOut(root)
    layout = lay_out(root, left_out)
    having: set[str | None] = set()

    def list_candidates() -> Iterator[Candidate]:
        for folder in layout.classes:
            for path in below(folder.path, left_out):
                having.add(folder.split)
                yield Candidate(identity(root, path), path, folder.label, folder.split)

    candidates = zooft.spill(list_candidates())
    empty = [
        f"the folder {name} has no files in class folders, so there is no split of that name"
        for name, split in layout.splits.items()
        if split not in having
    ]
    beside = [
        zooft.Rejection(identity(root, path), kind_of_file(path) or ALONE)
        for path in layout.beside
        if path.name != _MANIFEST
    ]
    return Listing(
        candidates=candidates,
        rejected=[*beside, *layout.rejected, *left_out.rejected],
        notes=[*layout.notes, *empty, *left_out.notes(), *_folder_notes(root, options)],
        classes=_class_names(root, layout),
    )


def _class_names(root: Path, layout: Layout) -> tuple[str, ...]:
    """In order."""
    zooft.check_labels((folder.label, f"the folder {identity(root, folder.path)}") for folder in layout.classes)
    return tuple(sorted({folder.label for folder in layout.classes}))


def _folder_notes(root: Path, options: Any) -> list[str]:
    manifest, notes = root / _MANIFEST, []
    if manifest.is_file():
        notes.append(f"class folders are used, not {_MANIFEST} beside them; give --data {manifest} to use it")
    if options.group_column != GROUP_COLUMN:
        notes.append(f"class folders name no groups; --group-column {options.group_column} is for manifests")
    if options.label_column != LABEL_COLUMN:
        notes.append(f"class folders name the classes; --label-column {options.label_column} is for manifests")
    return notes


def _inspect_all(
    candidates: Sequence[Candidate], options: ImageOptions, computing: zooft.Computing
) -> Iterator[tuple[Candidate, Inspection | str]]:
    """Facts, or the reason why not, of each picture. In threads: Pillow's decoders let go of the interpreter."""
    advance = computing("looking into pictures", len(candidates))

    def look(some: Sequence[Candidate]) -> list[tuple[Candidate, Inspection | str]]:
        return [(one, _inspection_or_reason(one, options)) for one in some]

    workers = min(8, os.cpu_count() or 1)
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=workers) as pool:
        # once for all threads: the filters belong to the process, and each thread restoring its own would lose some
        warnings.simplefilter("ignore")
        rest, waiting = iter(candidates), deque[Future[list[tuple[Candidate, Inspection | str]]]]()
        while True:
            # no more than the threads need: a task for each of a million pictures would take a gigabyte
            while len(waiting) < 2 * workers and (some := list(islice(rest, _AT_ONCE))):
                waiting.append(pool.submit(look, some))
            if not waiting:
                return
            done = waiting.popleft().result()
            yield from done
            advance(len(done))


def _inspection_or_reason(candidate: Candidate, options: ImageOptions) -> Inspection | str:
    try:
        return inspect(candidate.source, options)
    except zooft.DataError as error:
        return str(error)
