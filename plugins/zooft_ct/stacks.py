"""What lies below a folder, DICOM series and NIfTI volumes in one shape: slices in order, nothing decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_ct import nifti, privacy, series, walk
from zooft_ct.header import SliceHeader
from zooft_ct.person import Person
from zooft_ct.read import NiftiSlice, SliceRef

if TYPE_CHECKING:
    from zooft_ct.options import CTOptions

_OBLIQUE = 5.0
"""Degrees that are worth a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """One series or volume.

    Attributes:
        name: identifies it in the data; never shown.
        series: SeriesInstanceUID; "" for NIfTI.
        study: StudyInstanceUID, or "".
        study_date: StudyDate, or "".
        patient: PatientID, or "".
        persons: whom else its files name; none for NIfTI.
        slices: from feet to head; of series that aren't axial, from right to left or from front to back.
        copies: of slices, from files that are the same byte for byte; among the rejected files, too.
        positions: of the slices along their normal, mm, ascending.
        gaps: i where something is missing between slices i and i + 1.
        lost: slices that aren't there, as `series.Series` counts them.
        notes: sentences that name nobody.
    """

    name: str
    series: str = ""
    study: str = ""
    study_date: str = ""
    patient: str = ""
    persons: frozenset[Person] = frozenset()
    slices: tuple[SliceRef, ...]
    copies: tuple[SliceHeader, ...] = ()
    positions: tuple[float, ...]
    gaps: frozenset[int] = frozenset()
    lost: int = 0
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Of its first slice."""
        return path_of(self.slices[0])


@dataclass(frozen=True, slots=True)
class Found:
    """All stacks, and the files that make none, with reasons."""

    stacks: tuple[Stack, ...]
    rejected: tuple[series.Refused, ...]


def below(
    roots: Sequence[Path],
    base: Path | None,
    options: CTOptions,
    computing: zooft.Computing,
    leave: Collection[Path] = (),
) -> Found:
    """Everything usable below some folders and in some files.

    Args:
        roots: folders and files.
        base: what names are relative to, if anything.
        options: the task's.
        computing: shows how far it is.
        leave: NIfTI files that are no images, such as label volumes, resolved.
    """
    scan = series.scan(*roots, computing=computing, force=options.force_dicom, max_gap=options.max_gap)
    every = dict.fromkeys(path for root in roots for path in walk.walk(root) if nifti.is_nifti(path))
    volumes = [path for path in every if path.resolve() not in leave] if leave else list(every)
    opened = [_volume(path, base) for path in volumes]
    return Found(
        stacks=(
            *(_of_series(one, base) for one in scan.series),
            *(stack for stack in opened if isinstance(stack, Stack)),
        ),
        rejected=(
            *(refused for refused in scan.rejected if not nifti.is_nifti(refused.path)),
            *(refused for refused in opened if not isinstance(refused, Stack)),
        ),
    )


def path_of(ref: SliceRef) -> Path:
    """The file that a slice is in."""
    return ref.volume.path if isinstance(ref, NiftiSlice) else ref.path


def spacing_of(ref: SliceRef) -> tuple[float, float] | None:
    """Mm between rows, between columns."""
    return ref.volume.spacing if isinstance(ref, NiftiSlice) else ref.spacing


def sop_of(ref: SliceRef) -> str:
    """SOPInstanceUID, or "" where there is none."""
    return "" if isinstance(ref, NiftiSlice) else ref.sop_uid


def thickness_of(stack: Stack, number: int) -> float:
    """Mm of the patient that a slice stands for: the mean of its distances to its neighbours, gaps left out.

    Of a lone slice, its own thickness; 0 where that isn't known.
    """
    places = stack.positions
    steps = [
        places[i + 1] - places[i] for i in (number - 1, number) if 0 <= i < len(places) - 1 and i not in stack.gaps
    ]
    if steps:
        return sum(steps) / len(steps)
    ref = stack.slices[number]
    return ref.volume.increment if isinstance(ref, NiftiSlice) else float(ref.facts.get("slice_thickness", 0.0))


def facts_of(ref: SliceRef) -> Mapping[str, str | float]:
    """What may go into artefacts."""
    if isinstance(ref, SliceHeader):
        return ref.facts
    _, height, width = ref.volume.shape
    return {"transfer_syntax": "NIFTI", "matrix": f"{height}x{width}", "slice_thickness": ref.volume.increment}


def _of_series(one: series.Series, root: Path | None) -> Stack:
    first = one.slices[0]
    return Stack(
        name=f"{one.uid or privacy.relative(root, first.path.parent)}#{one.acquisition}",
        series=one.uid,
        study=one.study_uid,
        study_date=max(each.study_date for each in one.slices),
        patient=one.patient_id.strip(),
        persons=frozenset(each.person for each in one.slices),
        slices=one.slices,
        copies=one.copies,
        positions=one.heights,
        gaps=frozenset(one.gaps),
        lost=one.lost,
        notes=one.notes,
    )


def _volume(path: Path, root: Path | None) -> Stack | series.Refused:
    try:
        volume = nifti.open_volume(path)
    except zooft.DataError as error:
        return series.Refused(path, str(error), slices=1)
    leans = f"its axes lean by {volume.obliquity:.0f}° from the patient's; slices are taken along them"
    return Stack(
        name=privacy.relative(root, path),
        notes=(*((leans,) if volume.obliquity > _OBLIQUE else ()), *volume.notes),
        slices=tuple(NiftiSlice(volume, index) for index in range(volume.shape[0])),
        positions=tuple(index * volume.increment for index in range(volume.shape[0])),
    )
