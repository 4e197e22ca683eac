"""Every slice that samples are made of is decoded once.

Which samples can be used, what the others lack, what is odd.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_ct import nifti, privacy, units
from zooft_ct.read import NiftiSlice, Place, SliceRef, decode, place

if TYPE_CHECKING:
    from zooft_ct.options import CTOptions

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Sound:
    """What came of decoding.

    Attributes:
        samples: whose slices can all be decoded.
        rejected: the others' files, with reasons.
        notes: what is odd about slices that were decoded.
    """

    samples: tuple[zooft.Sample, ...]
    rejected: tuple[zooft.Rejection, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """Slices by their places: those that can't be decoded, with reasons, and those that are odd, with what they are."""

    torn: Mapping[Place, str]
    odd: Mapping[Place, str]


def sound(
    samples: Sequence[zooft.Sample],
    options: CTOptions,
    file_name: Callable[[Path], str],
    computing: zooft.Computing,
) -> Sound:
    """Look at all slices; fills the cache.

    Args:
        samples: with ids of the form ``group/series`` or ``group/series/slice``.
        options: the task's own.
        file_name: what runs call a file.
        computing: shows progress.
    """
    seen = _see({place(ref): ref for sample in samples for ref in sample.source.slices}, options, computing)
    faults = [_fault(sample, seen.torn, options, file_name) for sample in samples]
    counts = Counter((*fault, sample.group) for sample, fault in zip(samples, faults, strict=True) if fault is not None)
    return Sound(
        samples=tuple(sample for sample, fault in zip(samples, faults, strict=True) if fault is None),
        rejected=tuple(
            zooft.Rejection(name, f"{reason} ({n} samples of it)", group=group, missing=n)
            for (name, reason, group), n in counts.items()
        ),
        notes=tuple(_about_odd(samples, seen.odd)),
    )


def such_as(names: Iterable[str]) -> str:
    """Salted names of the first few series, in brackets."""
    known = sorted(set(names))
    return f" (series {', '.join(known[:_SHOWN])}{' …' if len(known) > _SHOWN else ''})"


def _about_odd(samples: Sequence[zooft.Sample], odd: Mapping[Place, str]) -> list[str]:
    series: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples if odd else ():
        for ref in sample.source.slices:
            if place(ref) in odd:
                series[odd[place(ref)]].add(sample.id.split("/")[1])
    counts = Counter(odd.values())
    return [f"{zooft.pluralize(counts[what], 'slice')} with {what}{such_as(own)}" for what, own in series.items()]


def _fault(
    sample: zooft.Sample, torn: Mapping[Place, str], options: CTOptions, file_name: Callable[[Path], str]
) -> tuple[str, str] | None:
    """What is at fault, and why, where a sample can't be used."""
    if options.spacing and sample.source.spacing is None:
        _, series, *_ = sample.id.split("/")
        return f"series {series}", "its pixel spacing isn't known, so --spacing can't resample it"
    places = (place(ref) for ref in sample.source.slices)
    return next(((file_name(at[0]), torn[at]) for at in places if at in torn), None)


def _see(slices: Mapping[Place, SliceRef], options: CTOptions, computing: zooft.Computing) -> _Seen:
    volumes: defaultdict[Path, list[SliceRef]] = defaultdict(list)
    for ref in slices.values():
        if isinstance(ref, NiftiSlice):
            volumes[ref.volume.path].append(ref)
    jobs: list[list[SliceRef]] = list(volumes.values())
    jobs += [[ref] for ref in slices.values() if not isinstance(ref, NiftiSlice)]
    advance = computing("slices decoded", len(slices))
    torn: dict[Place, str] = {}
    odd: dict[Place, str] = {}
    with privacy.quiet_pydicom(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for refs, found in zip(jobs, pool.map(lambda refs: _check_slices(refs, options), jobs), strict=True):
            advance(len(refs))
            if isinstance(found, str):
                torn |= {place(ref): found for ref in refs}
            else:
                odd |= found
    return _Seen(torn, odd)


def _check_slices(refs: Sequence[SliceRef], options: CTOptions) -> dict[Place, str] | str:
    """What is odd about slices of one file; or why they can't be decoded."""
    first = refs[0]
    try:
        if isinstance(first, NiftiSlice) and not first.volume.compressed:
            nifti.whole(first.volume, nan_to_air=options.nan_to_air)  # a slice alone doesn't show its units
        decoded = decode(refs, options)
    except zooft.DataError as error:
        return str(error)
    except MemoryError:
        return "too large for this machine's memory"
    return {at: what for at, hu in decoded.items() if (what := units.oddity(hu))}
