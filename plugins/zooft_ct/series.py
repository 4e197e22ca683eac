"""Slices put together into series: by identifier, ordered by position, checked."""

from __future__ import annotations

import filecmp
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import zooft
from zooft_ct import geometry, other_formats, person, phases
from zooft_ct.header import Owner, SliceHeader, UnusableError, headers
from zooft_ct.privacy import quiet_pydicom
from zooft_ct.walk import walk

_SAME_SPACING = 1e-3
_UNEVEN = 0.05
_GAP = 1.5
_WHOLE = 0.1
"""A distance is so many usual ones, to this share."""
_TILTED = 0.5
_THREADS = 8
_LOOKED_AT = 256
_SLICES = frozenset({"", "dcm", "dicom", "ima"})
"""Endings of DICOM files' names."""
_NOT_AXIAL = "not axial; rows, columns and slices are in the order in which they're stored"
_UNKNOWN_AXES = "files don't state how the slice lies in the patient; it is taken as stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Slices that belong together.

    Attributes:
        uid: SeriesInstanceUID; "" where the files have none and lie in one folder.
        study_uid: "" where missing.
        patient_id: "" where missing.
        acquisition: its number, where one series held several; what else separated volumes; else "".
        slices: ordered by position along the normal, ascending; from the feet to the head for axial ones.
        heights: of the slices along their normal, mm, ascending; 0 for a lone slice.
        copies: files that are the same, byte for byte, as one of the slices; they are among the rejected ones, too.
        gaps: i where something is missing between slices i and i + 1.
        lost: slices that aren't there by positions and InstanceNumbers alike, so that no protocol has left them out.
        increment: the median distance along the normal, mm; None for a single slice.
        tilt: degrees between the direction in which the slices are stacked and their normal.
        notes: what the user should know, without values that name a person.
    """

    uid: str
    study_uid: str
    patient_id: str
    acquisition: str
    slices: tuple[SliceHeader, ...]
    heights: tuple[float, ...]
    copies: tuple[SliceHeader, ...] = ()
    gaps: tuple[int, ...] = ()
    lost: int = 0
    increment: float | None = None
    tilt: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that isn't used, or the first one of a series that isn't.

    Attributes:
        path: of the file.
        reason: why, without values that name a person.
        owner: whose it is, as far as it is known.
        slices: how many slices of CT are lost with it; 0 for what is none.
        sop_class: SOPClassUID, where the file has one.
    """

    path: Path
    reason: str
    owner: Owner = field(default_factory=Owner)
    slices: int = 0
    sop_class: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found below a folder.

    Attributes:
        series: in the order of their first files.
        rejected: files and series that aren't used.
    """

    series: tuple[Series, ...]
    rejected: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A slice, and its position's component along the normal, mm (DICOM PS3.3, C.7.6.2.1.1)."""

    height: float
    position: tuple[float, float, float]
    header: SliceHeader


def scan(*roots: Path, computing: zooft.Computing = zooft.unseen, force: bool = False, max_gap: float = 3.0) -> Scan:
    """Every CT series below some folders, and every file that is in none.

    Args:
        roots: folders and files; what lies below two of them counts once.
        computing: shows how far it is.
        force: read files without a DICOM preamble, too.
        max_gap: a series with a gap of more than so many increments is refused.

    Raises:
        DataError: a folder can't be listed.
    """
    files = list(dict.fromkeys(path for root in roots for path in walk(root)))
    slices, rejected = _read(files, computing, force=force)
    series: list[Series] = []
    for members in _group(slices):
        try:
            unique, copies = _without_copies(members)
            series += [_with_copies(each, copies) for each in _arrange(unique, max_gap)]
        except zooft.DataError as error:
            rejected += _of_each_patient(members, f"a series of {_count(members, 'slice')}: {error}")
        else:
            copied = "a copy of another file of its series; one of them is used"
            rejected += [Refused(path, copied) for path in _files(copies)]
    return Scan(tuple(series), tuple(rejected))


def _of_each_patient(members: Sequence[SliceHeader], reason: str) -> list[Refused]:
    """A refused series, once for each patient whose slices are in it."""
    by: dict[str, list[SliceHeader]] = defaultdict(list)
    for each in members:
        by[each.patient_id].append(each)
    return [
        Refused(
            own[0].path,
            reason,
            Owner(
                patient=patient,
                study=own[0].study_uid,
                series=own[0].series_uid,
                person=own[0].person,
                study_date=own[0].study_date,
            ),
            len(own),
        )
        for patient, own in by.items()
    ]


def _read(files: Sequence[Path], computing: zooft.Computing, *, force: bool) -> tuple[list[SliceHeader], list[Refused]]:
    """In threads: most of the time goes to waiting for the disk or the network."""
    slices: list[SliceHeader] = []
    rejected: list[Refused] = []
    advance = computing("reading DICOM headers", len(files))
    with quiet_pydicom(), ThreadPoolExecutor(max_workers=min(_THREADS, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda path: _headers_or_reason(path, force=force), files):
            if isinstance(found, Refused):
                rejected.append(found)
            else:
                slices += found
            advance(1)
    return slices, rejected


def _headers_or_reason(path: Path, *, force: bool) -> list[SliceHeader] | Refused:
    try:
        return headers(path, force=force)
    except UnusableError as error:
        return Refused(path, str(error), error.owner, error.slices, error.sop_class)
    except zooft.DataError as error:
        return Refused(path, str(error), slices=int(_is_named_like_slice(path)))


def _is_named_like_slice(path: Path) -> bool:
    """Whether a file that can't be read may have been a slice: scanners' archives name them so, or by a UID's end."""
    ending = path.suffix.lower().removeprefix(".")
    if ending in _SLICES - {""}:
        return True
    return (not ending or ending.isdecimal()) and not _is_text(path)


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return other_formats.is_text(file.read(_LOOKED_AT))
    except OSError:
        return False


def _group(slices: Iterable[SliceHeader]) -> list[list[SliceHeader]]:
    """By series; by folder where a series has no identifier."""
    groups: dict[str | Path, list[SliceHeader]] = defaultdict(list)
    for each in slices:
        groups[each.series_uid or each.path.parent].append(each)
    return list(groups.values())


def _without_copies(slices: Sequence[SliceHeader]) -> tuple[list[SliceHeader], list[SliceHeader]]:
    """Each slice once, and those of files that are byte for byte the same as another.

    Raises:
        DataError: different files under one identifier.
    """
    chosen: dict[tuple[str, int], SliceHeader] = {}
    copies: list[SliceHeader] = []
    for each in slices:
        first = chosen.setdefault((each.sop_uid or str(each.path), each.frame), each)
        if first is each:
            continue
        if each.frame == 0 and not filecmp.cmp(first.path, each.path, shallow=False):
            raise zooft.DataError("different files have the same SOPInstanceUID; leave only the right ones")
        copies.append(each)
    return list(chosen.values()), copies


def _with_copies(series: Series, copies: Iterable[SliceHeader]) -> Series:
    chosen = {(each.sop_uid, each.frame) for each in series.slices}
    return replace(series, copies=tuple(each for each in copies if (each.sop_uid, each.frame) in chosen))


def _files(slices: Iterable[SliceHeader]) -> list[Path]:
    return list(dict.fromkeys(each.path for each in slices))


def _arrange(slices: Sequence[SliceHeader], max_gap: float) -> list[Series]:
    """One series, or one for each volume where several were put into one."""
    _refuse_mixture(slices)
    if len(slices) == 1:
        return [_series(slices, acquisition="", heights=[0.0])]
    placed = _place(slices)
    found = phases.parts([each.header for each in placed], [each.height for each in placed])
    if any(phases.collide([placed[number].height for number in part.numbers]) for part in found):
        raise zooft.DataError(
            "several slices lie at the same position, as in 4D or repeated series, and neither AcquisitionNumber nor "
            "another tag separates them; leave one of each"
        )
    tags = " and ".join(dict.fromkeys(tag for part in found for tag in part.values))
    note = [f"one of {len(found)} volumes in one series, separated by {tags}"] if tags else []
    parts = [
        _stack([placed[number] for number in part.numbers], acquisition=part.name, max_gap=max_gap) for part in found
    ]
    return [replace(part, notes=(*note, *part.notes)) for part in parts]


def _refuse_mixture(slices: Sequence[SliceHeader]) -> None:
    if len({each.patient_id for each in slices}) > 1:
        raise zooft.DataError("several PatientIDs in one series; they were mixed up when the data were made")
    if len({each.study_uid for each in slices} - {""}) > 1 or len({each.study_date for each in slices} - {""}) > 1:
        raise zooft.DataError(
            "slices of several studies in one series (StudyInstanceUID, StudyDate); they were mixed up when the data "
            "were made"
        )
    differing = person.all_differences(each.person for each in slices)
    if differing:
        raise zooft.DataError(
            f"slices of several persons in one series: {person.differ(differing)}; they were mixed up when the data "
            "were made"
        )
    if len({(each.rows, each.columns) for each in slices}) > 1:
        raise zooft.DataError("slices of different matrix sizes in one series")
    if any(not _same_spacing(slices[0].spacing, each.spacing) for each in slices):
        raise zooft.DataError("slices of different pixel spacings in one series")


def _same_spacing(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(math.isclose(a, b, rel_tol=_SAME_SPACING) for a, b in zip(one, other, strict=True))


def _place(slices: Sequence[SliceHeader]) -> list[_Placed]:
    """The slices in the order of their heights.

    Raises:
        DataError: they can't be put in order.
    """
    positions = [each.position for each in slices if each.position]
    orientations = [each.orientation for each in slices if each.orientation]
    lacking = len(slices) - min(len(positions), len(orientations))
    if lacking:
        raise zooft.DataError(
            f"{lacking} of them without a usable ImagePositionPatient or ImageOrientationPatient can't be put in order"
        )
    along = geometry.normal(orientations)
    placed = [_Placed(float(along @ place), place, each) for place, each in zip(positions, slices, strict=True)]
    return sorted(placed, key=lambda each: each.height)


def _stack(placed: Sequence[_Placed], *, acquisition: str, max_gap: float) -> Series:
    slices, heights = [each.header for each in placed], [each.height for each in placed]
    series = _series(slices, acquisition=acquisition, heights=heights)
    if len(placed) == 1:
        return series
    first, last = placed[0], placed[-1]
    distances = [upper.height - lower.height for lower, upper in pairwise(placed)]
    tilt = geometry.tilt(last.height - first.height, first.position, last.position)
    steps = geometry.steps(distances, [float(each.facts.get("slice_thickness", 0.0)) for each in slices])
    gaps = _gaps(steps, max_gap)
    return replace(
        series,
        gaps=gaps,
        lost=_count_lost(steps, [each.marks.get("InstanceNumber", "") for each in slices]),
        increment=statistics.median(distances),
        tilt=tilt,
        notes=(*_notes(distances, gaps, tilt), *series.notes),
    )


def _series(slices: Sequence[SliceHeader], *, acquisition: str, heights: Sequence[float]) -> Series:
    return Series(
        uid=slices[0].series_uid,
        study_uid=slices[0].study_uid,
        patient_id=slices[0].patient_id,
        acquisition=acquisition,
        slices=tuple(replace(each, marks={}) for each in slices),  # they were used; samples stay small
        heights=tuple(heights),
        notes=(*_about_axes(slices[0].orientation), *phases.notes(slices)),
    )


def _about_axes(orientation: Sequence[float] | None) -> list[str]:
    """What prevents slices from being turned as `pixels.hu` turns axial ones."""
    if orientation is None:
        return [_UNKNOWN_AXES]
    return [] if geometry.is_axial(orientation) else [_NOT_AXIAL]


def _gaps(steps: Sequence[float], max_gap: float) -> tuple[int, ...]:
    """Where something is missing: the distance is half as large again as is usual.

    Raises:
        DataError: too much is missing.
    """
    if max(steps) > max_gap:
        raise zooft.DataError(
            f"a gap of {max(steps):.1f} slices; give the whole series, or allow it with --max-gap "
            f"{math.ceil(max(steps))}"
        )
    return tuple(index for index, step in enumerate(steps) if step > _GAP)


def _count_lost(steps: Sequence[float], numbers: Sequence[str]) -> int:
    """Slices that both the distance and the InstanceNumbers of two neighbours leave out."""
    if not all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
        return 0
    apart = [abs(int(upper) - int(lower)) for lower, upper in pairwise(numbers)]
    return sum(
        skipped - 1
        for step, skipped in zip(steps, apart, strict=True)
        if step > _GAP and abs(step - skipped) < _WHOLE * skipped
    )


def _notes(distances: Sequence[float], gaps: Sequence[int], tilt: float) -> list[str]:
    notes = []
    if gaps:
        notes.append(f"{_count(gaps, 'gap')} between the slices")
    if max(distances) - min(distances) > _UNEVEN * max(distances):
        notes.append(f"the distance between slices goes from {min(distances):.2f} to {max(distances):.2f} mm")
    if tilt > _TILTED:
        notes.append(f"the slices are tilted by {tilt:.1f}° against the direction in which they are stacked")
    return notes


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
