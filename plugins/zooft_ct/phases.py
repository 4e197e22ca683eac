"""Several volumes under one SeriesInstanceUID (phases, echoes, kernels, energies), by their headers.

Put together they would be a volume of nobody: each slice between those of another phase. Where slices of two values of
a tag alternate along the stack, or lie at the same places, each value is a volume. Acquisitions that follow each other
along the patient are one.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zooft_ct.header import SliceHeader

KINDS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "NominalPercentageOfCardiacPhase",
    "EchoNumbers",
    "ImageType",
    "ConvolutionKernel",
    "KVP",
    "FilterType",
    "ContrastBolusAgent",
    "ProtocolName",
    "SeriesDescription",
    "ImageComments",
)
"""What names a volume."""
TIMES = ("AcquisitionTime", "ContentTime")
"""What names an instant, of a slice or of all."""
_MOST_PARTS = 64
_TURNS = 3
"""Times as many changes as values that follow each other make."""
_SURE, _FEW = 6, 4
_GAP = 3.0
_SAME_PLACE = 0.01
_DERIVED = frozenset({"MPR", "REFORMATTED", "RESAMPLED", "AVERAGE", "MEAN", "MIP", "MINIP", "MAX", "MIN", "VRT", "SSD"})
"""Words of ImageType that may be repeated: others could be anything."""
_ALTERNATING = 8
"""Slices from which on it can't be chance."""


@dataclass(frozen=True, slots=True)
class Part:
    """A volume among others of its series.

    Attributes:
        numbers: which slices, in the order of their heights.
        values: tag to its value, of those that separated it.
    """

    numbers: tuple[int, ...]
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Distinguishes it from the others; an acquisition's number alone where that was enough."""
        if list(self.values) == ["AcquisitionNumber"]:
            return self.values["AcquisitionNumber"]
        return ";".join(f"{tag}={value}" for tag, value in self.values.items())


def parts(slices: Sequence[SliceHeader], heights: Sequence[float]) -> list[Part]:
    """The volumes of a series.

    Args:
        slices: of the series, ordered by height.
        heights: mm along their normal.
    """
    return _divide(Part(tuple(range(len(slices)))), slices, heights)


def collide(heights: Sequence[float]) -> bool:
    """Whether two slices lie at one place; `heights` ascend."""
    return any(upper - lower < _SAME_PLACE for lower, upper in pairwise(heights))


def notes(slices: Sequence[SliceHeader]) -> list[str]:
    """What is odd about a volume's slices, which are in the order of their heights."""
    return [*_about_derived(slices), *_about_alternation(slices)]


def _divide(part: Part, slices: Sequence[SliceHeader], heights: Sequence[float]) -> list[Part]:
    """The part, or those of it that the first tag separates, each split again."""
    places = [heights[number] for number in part.numbers]
    together = collide(places)
    for tag in KINDS:
        values = [slices[number].marks.get(tag, "") for number in part.numbers]
        if _alternate(values) or (together and _resolves(values, places)):
            return _each(part, tag, values, slices, heights)
    for tag in (*TIMES, "AcquisitionNumber"):
        instants = _numbers(slices[number].marks.get(tag, "") for number in part.numbers)
        counted = tag not in TIMES  # no pause between two numbers, and nobody finishes them in another order
        turns = _turns_at_places(instants, places) if together else _turns(instants, counted=counted)
        if turns:
            return _each(part, tag, [str(turn) for turn in turns], slices, heights)
    return [part]


def _each(
    part: Part, tag: str, values: Sequence[str], slices: Sequence[SliceHeader], heights: Sequence[float]
) -> list[Part]:
    by: defaultdict[str, list[int]] = defaultdict(list)
    for number, value in zip(part.numbers, values, strict=True):
        by[value].append(number)
    found = [Part(tuple(own), {**part.values, tag: value}) for value, own in by.items()]
    return [smaller for each in found for smaller in _divide(each, slices, heights)]


def _alternate(values: Sequence[str]) -> bool:
    """Whether slices of one value lie between those of another, more often than volumes that follow each other make."""
    counts = Counter(values)
    several = sum(count > 1 for count in counts.values())
    changes = sum(one != other for one, other in pairwise(values))
    return several > 1 and len(counts) <= _MOST_PARTS and changes >= _TURNS * (len(counts) - 1)


def _resolves(values: Sequence[str], places: Sequence[float]) -> bool:
    """Whether each value has one slice at each place at most, and there aren't as many values as slices."""
    by: defaultdict[str, list[float]] = defaultdict(list)
    for value, place in zip(values, places, strict=True):
        by[value].append(place)
    most = max(Counter(_place_numbers(places)).values())
    few = len(by) <= most or min(map(len, by.values())) > 1
    return 1 < len(by) <= _MOST_PARTS and few and not any(map(collide, by.values()))


def _place_numbers(places: Sequence[float]) -> list[int]:
    numbers = [0]
    for lower, upper in pairwise(places):
        numbers.append(numbers[-1] + int(upper - lower >= _SAME_PLACE))
    return numbers


def _turns(instants: Sequence[float] | None, *, counted: bool) -> list[int] | None:
    """Which volume each slice is of, where so many take turns along the stack, each at a time of its own."""
    if instants is None or len(instants) < _FEW:
        return None
    for count in range(2, min(len(instants) // 2, _MOST_PARTS) + 1):
        own = [instants[turn::count] for turn in range(count)]
        constant = all(len(set(times)) == 1 for times in own)
        if _follow(own) and (constant or (len(instants) >= _SURE and (counted or _far_apart(own)))):
            return [number % count for number in range(len(instants))]
    return None


def _turns_at_places(instants: Sequence[float] | None, places: Sequence[float]) -> list[int] | None:
    """As `_turns`, where all volumes have slices at the same places."""
    if instants is None:
        return None
    by: defaultdict[int, list[int]] = defaultdict(list)
    for number, place in enumerate(_place_numbers(places)):
        by[place].append(number)
    turns = [0] * len(instants)
    for own in by.values():
        for turn, number in enumerate(sorted(own, key=lambda number: instants[number])):
            turns[number] = turn
    several = [
        [time for time, turn in zip(instants, turns, strict=True) if turn == wanted] for wanted in range(max(turns) + 1)
    ]
    return turns if len({len(own) for own in by.values()}) == 1 and _follow(several) else None


def _follow(several: Iterable[Sequence[float]]) -> bool:
    """Whether one volume ends before the next begins."""
    spans = sorted((min(times), max(times)) for times in several)
    return all(one[1] < other[0] for one, other in pairwise(spans))


def _far_apart(several: Sequence[Sequence[float]]) -> bool:
    """Whether more time lies between volumes than within."""
    ordered = sorted(several, key=min)
    between = [min(other) - max(one) for one, other in pairwise(ordered)]
    within = [b - a for times in ordered for a, b in pairwise(sorted(times))]
    return min(between) > _GAP * statistics.median(within)


def _numbers(texts: Iterable[str]) -> list[float] | None:
    """Seconds of DICOM's times (``HHMMSS.F``, perhaps behind a date), or numbers; None where one isn't that."""
    found: list[float] = []
    for text in texts:
        time = re.fullmatch(r"(?:\d{8})?(\d{2})(\d{2})(\d{2}(?:\.\d+)?)(?:[+-]\d{4})?", text)
        number = re.fullmatch(r"-?\d{1,6}(\.\d+)?", text)
        if time is None and number is None:
            return None
        found.append(3600 * int(time[1]) + 60 * int(time[2]) + float(time[3]) if time else float(text))
    return found if all(map(math.isfinite, found)) else None


def _about_derived(slices: Sequence[SliceHeader]) -> list[str]:
    kinds = [re.split(r"[^A-Z0-9]+", each.marks.get("ImageType", "")) for each in slices]
    derived = [words for words in kinds if "DERIVED" in words]
    if not derived:
        return []
    known = sorted(_DERIVED & {word for words in derived for word in words})
    what = f" as {', '.join(known)}" if known else ""
    which = "its slices were" if len(derived) == len(slices) else "some of its slices were"
    return [f"{which} computed from other images{what} (ImageType DERIVED), so their HU may not be a scanner's"]


def _about_alternation(slices: Sequence[SliceHeader]) -> list[str]:
    numbers = _numbers(each.marks.get("InstanceNumber", "") for each in slices)
    if numbers is None or len(slices) < _ALTERNATING:
        return []
    for count in range(2, 5):
        if _follow([numbers[turn::count] for turn in range(count)]):
            return [
                f"its InstanceNumbers go through the stack {count} times, as if {count} volumes were put together, "
                "and no other tag separates them"
            ]
    return []
