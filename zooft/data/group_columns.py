"""Columns of a table that look like groups that no split may divide, though none was set: patients, subjects, series.

A hint, never a decision: what a column means, its owner knows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

_WHO = frozenset(
    """
    patient patients pat subject subjects subj person persons people participant participants proband
    individual case cases client owner user speaker donor animal mouse rat dog family twin mrn pid group
    groups patientin patienten sujet paciente
    """.split()  # noqa: SIM905 -- a list of words
)
_WHAT = frozenset(
    """
    specimen biopsy slide wafer lot study exam examination encounter visit session acquisition scan series
    video clip movie sequence burst scene
    """.split()  # noqa: SIM905 -- the same
)
"""Of which, or of which recording, several images may be."""
_NUMBERING = frozenset(
    {"id", "ids", "uid", "uuid", "identifier", "no", "nr", "num", "number", "name", "code", "key", "index"}
)
_UID = "instanceuid"
"""As DICOM's keywords end, in lower case."""
_IDS = frozenset({"id", "ids", "uid", "uuid", "identifier", "code", "key", "barcode", "hash"})
_FLAGS = frozenset(
    {"0", "1", "yes", "no", "y", "n", "true", "false", "t", "f", "case", "control", "patient", "healthy", "sick"}
)
_FEWEST = 10
"""Different values that a column must have to be taken for ids by these alone."""
_KNOWN_SHAPES = frozenset(
    {"9", "9a", "9.9", "9,9", "9a9", "9-9", "9-9-9", "9.9.9", "9/9/9", "9:9", "9:9:9", "9-9-9 9:9:9"}
)
"""Numbers, numbers with a unit, sizes, ranges, dates and times."""


def likely_groups(columns: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Those that look so, by their names (``patient``, ``subject_id``) or by ids that several rows share.

    The likeliest first.

    Args:
        columns: of each by its name the cells of all rows, "" for empty ones; no cells at all where they aren't known.
    """
    words = {name: subject_word(name) for name in columns}
    named = [name for name, cells in columns.items() if words[name] and _may_group(cells)]
    others = [name for name, cells in columns.items() if not words[name] and _are_ids(name, cells)]
    return (
        *sorted(named, key=lambda name: words[name] in _WHAT),
        *sorted(others, key=lambda name: len(set(columns[name]))),
    )


def subject_word(name: str) -> str:
    """Of whom or of which recording an image is by a column's name, such as ``patient`` for ``PatientID``.

    "" for others.
    """
    words = [word for word in _words(name) if not word.isdigit() and word not in _NUMBERING and word != "instance"]
    if len(words) != 1:  # the age of a patient is none
        return ""
    ends = ("", _UID, *_NUMBERING)
    bare = [words[0].removesuffix(end) for end in ends if words[0].endswith(end)]
    return next((word for word in bare if word in _WHO | _WHAT), "")


def _may_group(cells: Sequence[str]) -> bool:
    """Whether several rows share a value, and not all one; also where nothing is known of them."""
    known = [cell for cell in cells if cell]
    different = set(known)
    flags = {cell.casefold() for cell in different} <= _FLAGS
    return not cells or (1 < len(different) < len(known) and not flags)


def _are_ids(name: str, cells: Sequence[str]) -> bool:
    """Whether cells look like ids, most of which several rows share."""
    known = [cell for cell in cells if cell]
    counts = Counter(known)
    shared = sum(count for count in counts.values() if count > 1)
    if len(counts) < _FEWEST or 2 * shared <= len(known) or 2 * len(known) < len(cells):
        return False
    called_id = bool(_IDS & set(_words(name)))
    shapes = Counter(map(_shape, counts))
    shape, most = shapes.most_common(1)[0]
    if _are_hashes(counts):
        return True
    if 10 * most < 9 * len(counts) or "9" not in shape:
        return False
    if shape == "9":
        padded = len({len(cell) for cell in counts}) == 1 and any(cell.startswith("0") for cell in counts)
        return called_id or padded
    return called_id or shape not in _KNOWN_SHAPES


def _are_hashes(values: Counter[str]) -> bool:
    """Hexadecimal numbers of one length, of which some have letters and digits; UUIDs too."""
    bare = [value.replace("-", "").casefold() for value in values]
    return (
        len({len(one) for one in bare}) == 1
        and all(re.fullmatch(r"[0-9a-f]{8,}", one) for one in bare)
        and any(re.search(r"[a-f].*\d|\d.*[a-f]", one) for one in bare)
    )


def _shape(text: str) -> str:
    """``a9`` for ``P003``, ``a_9-9`` for ``scan_12-7``: of any length."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", text.strip()))


def _words(name: str) -> list[str]:
    """In lower case; ``PatientID`` is two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.casefold())
