"""Labels to slices: which line or folder speaks of which slice, and every way in which that can go wrong."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import zooft
from zooft_ct import labels
from zooft_ct.header import SliceHeader
from zooft_ct.labels import CELLS, Row, Table
from zooft_ct.patients import Patients
from zooft_ct.person import differ, stands_for_nobody
from zooft_ct.read import place
from zooft_ct.stacks import Stack, path_of, sop_of

Label = tuple[str, Literal["train", "val", "test"] | None]
"""Class and split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A stack with its labels.

    Attributes:
        stack: what is labelled.
        patient: what identifies the patient, by the files, else by the table; "" where neither does.
        doubt: why the files' PatientID can't be believed, where the table has none.
        labels: by number of the slice.
        copies: files that a table labels by path, though the stack holds an equal one; with the number of its slice.
    """

    stack: Stack
    patient: str
    labels: Mapping[int, Label]
    doubt: str = ""
    copies: tuple[tuple[int, SliceHeader], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """All labels in their places.

    Attributes:
        labelled: stacks with at least one labelled slice.
        unlabelled: stacks without any.
        rejected: lines of the table that label nothing.
        classes: names, sorted, those without data too.
        by_slice: whether single slices were labelled, not whole series.
        notes: what the user should know.
    """

    labelled: tuple[Labelled, ...]
    unlabelled: tuple[Stack, ...]
    rejected: tuple[zooft.Rejection, ...]
    classes: tuple[str, ...]
    by_slice: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Copy:
    """A slice of a file that a series has left out for an equal one, and that one's place."""

    header: SliceHeader
    number: int
    slice: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    """Where series, files, folders and slices are found among the stacks: their numbers, and those of slices."""

    stacks: Sequence[Stack]
    series: Mapping[str, Sequence[int]]
    files: Mapping[str, Sequence[tuple[int, int]]]
    folders: Mapping[str, frozenset[int]]
    slices: Mapping[tuple[str, str], Sequence[tuple[int, int]]]
    copies: Mapping[str, Sequence[_Copy]]


@dataclass(frozen=True, slots=True)
class _Match:
    """A line's meaning: of these slices of a stack, or of a file that is a copy of the one slice."""

    row: Row
    number: int
    slices: Sequence[int]
    copy: SliceHeader | None = None


def by_table(table: Table, stacks: Sequence[Stack], root: Path, patients: Patients, *, whole: bool) -> Assigned:
    """Labels of a table.

    Args:
        table: read and checked.
        stacks: what lies below `root`.
        root: what the table's paths are relative to.
        patients: the PatientIDs of all files.
        whole: whether samples are series, so that a label of one slice is of no use.

    Raises:
        DataError: lines that contradict each other or the files, or a folder that holds several series.
    """
    index = _index(stacks)
    matches: list[_Match] = []
    rejected = list(table.rejected)
    for row in table.rows:
        meant = _find_matches(row, index, root, table.name)
        if whole and not isinstance(meant, str):
            meant = _whole(meant, stacks)
        if isinstance(meant, str):
            rejected.append(zooft.Rejection(f"{table.name}, line {row.line}", meant))
        else:
            matches += meant
    _refuse_identifiers(matches, stacks, table.name)
    known, notes = _patients(matches, stacks, patients, table.name)
    placed, copies = _place(matches, table.name), _copies(matches)
    return Assigned(
        labelled=tuple(_label(stacks[i], known[i], patients, placed[i], copies.get(i, ())) for i in sorted(placed)),
        unlabelled=tuple(stack for i, stack in enumerate(stacks) if i not in placed),
        rejected=tuple(rejected),
        classes=tuple(sorted({row.label for row in table.rows})),
        by_slice=not whole and any(_labels_slice(one, stacks, root) for one in matches),
        notes=(*table.notes, *notes),
    )


def by_folders(
    stacks: Sequence[Stack], root: Path, patients: Patients, hashed: Callable[[Stack], str], *, whole: bool
) -> Assigned:
    """Labels by the class folder that each file lies in; arguments as of `by_table`, and what messages call a series.

    Raises:
        DataError: no class folders, folders that look like patients', one slice in two of them, or, where `whole`,
            one series.
    """
    splits = labels.has_splits(root)
    placed = [_in_folders(stack, root, splits=splits) for stack in stacks]
    pairs = list(zip(stacks, placed, strict=True))
    labelled = tuple(
        _label(stack, patients.of(stack.patient, stack.persons), patients, where, ()) for stack, where in pairs if where
    )
    torn = [one.stack for one in labelled if len(set(one.labels.values())) > 1]
    if torn and whole:
        raise zooft.DataError(
            f"{zooft.pluralize(len(torn), 'series has', 'series have')}"
            f" slices in several class folders (first: series {hashed(torn[0])}), and --mode "
            f"volume needs one label a series; move them together, or write {labels.TABLE}"
        )
    classes = tuple(sorted({label for where in placed for label, _ in where.values()}))
    if not classes:
        raise zooft.DataError(
            f"there are no labels: write {labels.TABLE} (patient_id, series_uid or path, label) into the "
            "data folder, or put the series into a folder for each class"
        )
    _refuse_patients_folders(labelled, classes)
    zooft.check_labels(
        sorted(
            {
                (label, f"a class folder of {split}" if split else "a class folder")
                for where in placed
                for label, split in where.values()
            }
        )
    )
    _refuse_torn_copies(stacks, placed, root, hashed, splits=splits)
    return Assigned(
        labelled=labelled,
        unlabelled=tuple(stack for stack, where in pairs if not where),
        rejected=(),
        classes=classes,
        by_slice=bool(torn),
        notes=(),
    )


def _index(stacks: Sequence[Stack]) -> _Index:
    series: defaultdict[str, list[int]] = defaultdict(list)
    files: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    folders: defaultdict[str, set[int]] = defaultdict(set)
    slices: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for number, stack in enumerate(stacks):
        series[stack.series].append(number)
        for i, ref in enumerate(stack.slices):
            files[os.path.realpath(path_of(ref))].append((number, i))
            slices[stack.series, sop_of(ref)].append((number, i))
    for name, places in files.items():
        for folder in Path(name).parents:
            folders[str(folder)] |= {number for number, _ in places}
    return _Index(
        stacks=stacks,
        series=series,
        files=files,
        folders={name: frozenset(numbers) for name, numbers in folders.items()},
        slices=slices,
        copies=_copy(stacks),
    )


def _copy(stacks: Sequence[Stack]) -> Mapping[str, Sequence[_Copy]]:
    """Copies by their files."""
    copies: defaultdict[str, list[_Copy]] = defaultdict(list)
    for number, stack in enumerate(stacks):
        if not stack.copies:
            continue
        places = {(sop_of(ref), place(ref)[1]): i for i, ref in enumerate(stack.slices)}
        for header in stack.copies:
            copies[os.path.realpath(header.path)].append(_Copy(header, number, places[header.sop_uid, header.frame]))
    return copies


def _find_matches(row: Row, index: _Index, root: Path, name: str) -> list[_Match] | str:
    """Stacks and their slices that a line speaks of, or why there are none."""
    matches = _by_series(row, index) if row.series else _by_path(row, index, root, name)
    if row.series and row.path:
        _refuse_two_places(row, matches, index, root, name)
    if isinstance(matches, str) or not row.sop:
        return matches
    named = {place for one in matches for place in index.slices.get((index.stacks[one.number].series, row.sop), ())}
    only = [replace(one, slices=[i for i in one.slices if (one.number, i) in named]) for one in matches]
    return [one for one in only if one.slices] or "there is no such slice among the usable ones of its series"


def _refuse_two_places(row: Row, matches: list[_Match] | str, index: _Index, root: Path, name: str) -> None:
    """A path that isn't here any more, as where tables come from elsewhere, is ignored.

    One that is here may contradict.
    """
    at_path = _by_path(row, index, root, name)
    if isinstance(matches, str) or isinstance(at_path, str):
        return
    if not {one.number for one in matches} & {one.number for one in at_path}:
        raise zooft.DataError(
            f"{name}, line {row.line}, names a series_uid and a path of another series; leave the one that is meant"
        )


def _by_series(row: Row, index: _Index) -> list[_Match] | str:
    if row.sop and (row.series, row.sop) in index.slices:
        return _at(row, index.slices[row.series, row.sop])
    matches = [_all_of(row, number, index) for number in index.series.get(row.series, ())]
    return matches or "there is no such series among the usable ones"


def _at(row: Row, places: Iterable[tuple[int, int]]) -> list[_Match]:
    """Places by their stacks."""
    slices: defaultdict[int, list[int]] = defaultdict(list)
    for number, i in places:
        slices[number].append(i)
    return [_Match(row, number, numbers) for number, numbers in slices.items()]


def _all_of(row: Row, number: int, index: _Index) -> _Match:
    return _Match(row, number, range(len(index.stacks[number].slices)))


def _by_path(row: Row, index: _Index, root: Path, name: str) -> list[_Match] | str:
    try:
        path = zooft.path_in_table(root, row.path).resolve()
        known = path.exists()
    except (OSError, ValueError):
        return "its path can't be used"
    if not known:
        return "there is no such file or folder"
    if path.is_dir():
        return _by_folder(row, path, index, name)
    return _at(row, index.files.get(str(path), ())) or _by_copy(row, path, index)


def _by_folder(row: Row, path: Path, index: _Index, name: str) -> list[_Match] | str:
    numbers = sorted(index.folders.get(str(path), ()))
    if len(numbers) > 1:
        raise zooft.DataError(
            f"{name}, line {row.line}, labels a folder that holds {len(numbers)} series; name the one that is meant "
            "by its series_uid, or each by a line of its own"
        )
    return [_all_of(row, number, index) for number in numbers] or "its folder has no usable series"


def _by_copy(row: Row, path: Path, index: _Index) -> list[_Match] | str:
    """Of two equal files a series takes one; a line may speak of the other."""
    matches = [_Match(row, copy.number, [copy.slice], copy=copy.header) for copy in index.copies.get(str(path), ())]
    return matches or "its file isn't among the usable ones of the data folder"


def _whole(matches: list[_Match], stacks: Sequence[Stack]) -> list[_Match] | str:
    if all(len(one.slices) == len(stacks[one.number].slices) for one in matches):
        return matches
    return "labels one slice of a series, and --mode volume needs labels of whole series"


def _labels_slice(matches: _Match, stacks: Sequence[Stack], root: Path) -> bool:
    """Whether a line speaks of a slice: by its UID, or by the DICOM file that it is."""
    if matches.row.sop:
        return True
    single = bool(stacks[matches.number].series) and len(matches.slices) == 1
    return single and not matches.row.series and zooft.path_in_table(root, matches.row.path).is_file()


def _copies(matches: Iterable[_Match]) -> Mapping[int, Sequence[tuple[int, SliceHeader]]]:
    """By number of the stack."""
    copies: defaultdict[int, list[tuple[int, SliceHeader]]] = defaultdict(list)
    for one in matches:
        if one.copy is not None:
            copies[one.number].append((one.slices[0], one.copy))
    return copies


def _patients(
    matches: Sequence[_Match], stacks: Sequence[Stack], patients: Patients, name: str
) -> tuple[dict[int, str], tuple[str, ...]]:
    """By number of the stack, and notes on it.

    The table is believed where the files don't know: they name nobody, one PatientID for everybody, or several persons
    by one.
    """
    stated: defaultdict[int, dict[str, int]] = defaultdict(dict)
    for one in matches:
        if one.row.patient and not stands_for_nobody(one.row.patient):
            stated[one.number].setdefault(one.row.patient, one.row.line)
        stated[one.number].setdefault("", one.row.line)
    ids = {number: {patient: line for patient, line in own.items() if patient} for number, own in stated.items()}
    torn = [own for own in ids.values() if len(own) > 1]
    if torn:
        lines = " and ".join(str(line) for line in sorted(torn[0].values())[:2])
        raise zooft.DataError(
            f"{name} gives {len(torn)} series several patient_ids each, first in lines {lines}; leave the right one"
        )
    several = len({patient for own in ids.values() for patient in own}) > 1
    known, wrong, believed = {}, [], 0
    for i, own in ids.items():
        by_file = patients.of(stacks[i].patient, stacks[i].persons)
        by_table, line = next(iter(own.items()), ("", 0))
        unsure = not by_file or by_file in patients.torn or (several and stacks[i].patient == patients.everybodys)
        other = by_table not in {"", stacks[i].patient}
        believable = other or not (by_file or stacks[i].patient in patients.shared)
        known[i] = by_table if unsure and by_table and believable else by_file
        believed += unsure and other and bool(stacks[i].patient)
        wrong += [line] if other and not unsure else []
    if wrong:
        raise zooft.DataError(
            f"{name} gives {len(wrong)} series another patient_id than their files do, first in line {min(wrong)}; "
            "fix it (spreadsheets drop leading zeros), or leave patient_id empty where the files have it"
        )
    if not believed:
        return known, ()
    return known, (
        f"patient_id of {name} is believed for {believed} series, whose files name one PatientID for several people",
    )


def _label(
    stack: Stack,
    patient: str,
    patients: Patients,
    where: Mapping[int, Label],
    copies: Sequence[tuple[int, SliceHeader]],
) -> Labelled:
    torn = patients.torn.get(patient, ())
    return Labelled(
        stack=stack,
        patient=patient,
        labels=where,
        doubt=f"its PatientID stands for several persons, whose {differ(torn)}" if torn else "",
        copies=tuple(copies),
    )


def _refuse_identifiers(matches: Sequence[_Match], stacks: Sequence[Stack], name: str) -> None:
    """Class names go into every artefact; where columns were mixed up, they would name patients."""
    own = [one for one in matches if _cells(one.row) & _identifiers(one.row, stacks[one.number])]
    if 2 * len(own) > len(matches):
        raise zooft.DataError(
            f"{name} has in a column of targets, in {len(own)} of {len(matches)} lines, first in line "
            f"{own[0].row.line}, what names their own patient or images (a PatientID, a name, a UID), and class names "
            "go into every artefact; does the column hold what it should?"
        )


def _cells(row: Row) -> set[str]:
    return {zooft.spelling(cell) for cell in row.label.split(CELLS)}


def _identifiers(row: Row, stack: Stack) -> set[str]:
    names = {row.patient, row.series, row.sop, stack.patient, stack.series, stack.study}
    names |= {person.name for person in stack.persons}
    return {zooft.spelling(name) for name in names if name}


def _place(matches: Sequence[_Match], name: str) -> dict[int, dict[int, Label]]:
    placed: defaultdict[int, dict[int, Label]] = defaultdict(dict)
    lines: dict[tuple[int, int], int] = {}
    torn: dict[tuple[int, int], int] = {}
    for one in matches:
        label = (one.row.label, one.row.split)
        for i in one.slices:
            lines.setdefault((one.number, i), one.row.line)
            if placed[one.number].setdefault(i, label) != label:
                torn.setdefault((one.number, i), one.row.line)
    if torn:
        place, line = next(iter(torn.items()))
        raise zooft.DataError(
            f"{name} gives {zooft.pluralize(len(torn), 'slice')}"
            f" of {len({number for number, _ in torn})} series two labels or splits, "
            f"by different lines (a series' and a slice's, or those of equal files), first in lines {lines[place]} "
            f"and {line}; leave one of each"
        )
    return placed


def _in_folders(stack: Stack, root: Path, *, splits: bool) -> dict[int, Label]:
    matches = ((i, labels.folder_label(root, path_of(ref), splits=splits)) for i, ref in enumerate(stack.slices))
    return {i: label for i, label in matches if label is not None}


def _refuse_patients_folders(labelled: Sequence[Labelled], classes: Sequence[str]) -> None:
    """Class names go into every artefact; folders that are called after patients must not become classes."""
    patients: defaultdict[str, set[str]] = defaultdict(set)
    for one in labelled:
        for label, _ in one.labels.values():
            patients[label].add(one.patient or one.stack.name)
    if all(len(names) == 1 for names in patients.values()) and len(set().union(*patients.values())) > 1:
        raise zooft.DataError(
            f"each of the {len(classes)} class folders holds a single patient, so they look like patients' folders and "
            f"not like classes; write {labels.TABLE} (patient_id, series_uid or path, label) into the data folder"
        )


def _refuse_torn_copies(
    stacks: Sequence[Stack],
    placed: Sequence[Mapping[int, Label]],
    root: Path,
    hashed: Callable[[Stack], str],
    *,
    splits: bool,
) -> None:
    """A file that was left out as a copy may lie in another class folder than the one that is used."""
    torn = [
        stacks[copy.number]
        for copies in _copy(stacks).values()
        for copy in copies
        if labels.folder_label(root, copy.header.path, splits=splits) != placed[copy.number].get(copy.slice)
    ]
    if torn:
        raise zooft.DataError(
            f"{zooft.pluralize(len(torn), 'slice lies', 'slices lie')}"
            f" in two class or split folders each (first: of series {hashed(torn[0])}); leave "
            "the right copy"
        )
