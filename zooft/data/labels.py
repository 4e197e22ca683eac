"""What may be the name of a class, and which names are the same in another spelling.

Separate from the tasks, so that a label in a table, a folder's name and a shard's label obey the same rules: names of
classes go into every artefact, and two spellings of one class would be trained as two.
"""

from __future__ import annotations

import decimal
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from zooft.errors import DataError

LABEL_LIMIT = 100
"""Characters."""
_NO_LABEL = frozenset(
    {
        "nan",
        "-nan",
        "na",
        "n/a",
        "n.a.",
        "#n/a",
        "#na",
        "<na>",
        "nat",
        "null",
        "(null)",
        "#null!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
        "#div/0!",
        "?",
        ".",
    }
)
"""What programs and people write where no label is known, by `spelling`."""
_SAME = (frozenset({"1", "yes", "true", "positive", "pos"}), frozenset({"0", "no", "false", "negative", "neg"}))
"""Words with the same meaning, by `spelling`."""
_LETTERS = (frozenset({"y", "yes"}), frozenset({"n", "no"}), frozenset({"t", "true"}), frozenset({"f", "false"}))
"""Likewise, among `_FEW` classes at most: of many, each letter may be a class."""
_FEW = 4
_SEPARATORS = ',;|"'
_SEPARATOR = re.compile(r"(?<=[^\W\d_])[-_'\u2010-\u2015\u2018\u2019]+(?=[^\W\d_])")
"""Between two letters."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d\d?)?")
_EXACT = decimal.Context(prec=1000)
_MEASURED, _FEW_EACH = 10, 3
"""More different numbers than the first, with fewer lines each than the second on average, aren't classes."""
_PLACES_NAMED = 3


def spelling(text: str) -> str:
    """A name without case, spaces, invisible marks and Unicode form; of a number, what it is worth.

    Names with the same result are one name in two spellings, such as 1, 01, 1.0 and 1e0. Forms are NFKC's, case is
    folded (Unicode, 3.13).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    bare = "".join(c for c in folded if not (c.isspace() or _is_invisible(c))).replace("\N{MINUS SIGN}", "-")
    if not _NUMBER.fullmatch(bare):
        return bare
    value = decimal.Decimal(bare.replace(",", "."))
    return f"{value.normalize(_EXACT):f}" if value else "0"


def label_fault(label: str, *, in_table: bool = False) -> str | None:
    """Why a text can't be the name of a class; None where it can. Doesn't repeat the text.

    Args:
        label: without spaces around it.
        in_table: whether it is a table's cell, in which a separator means that cells were run together.
    """
    if not label:
        return "it is empty"
    if len(label) > LABEL_LIMIT:
        return f"it has {len(label):,} characters, and a class's name has at most {LABEL_LIMIT}"
    if in_table and any(
        unicodedata.category(c) in {"Cc", "Zl", "Zp"} for c in label
    ):  # in a folder's name it is allowed
        return "it holds a line break, a tab or another control character"
    if in_table and any(
        unicodedata.bidirectional(c) in {"LRE", "RLE", "LRO", "RLO", "LRI", "RLI", "FSI"} for c in label
    ):
        return "it holds a mark that turns the direction of writing"
    if in_table and any(c in _SEPARATORS for c in label):
        return (
            "it holds a comma, semicolon, bar or quotation mark, as where cells ran together or several labels stand "
            "in one"
        )
    if not any(unicodedata.category(c)[0] in "LNSP" for c in label) or not spelling(label):
        return "it holds nothing that can be seen"
    return "it means that there is no label" if spelling(label) in _NO_LABEL else None


def check_labels(found: Iterable[tuple[str, str]], *, in_table: bool = False, private: bool = False) -> tuple[str, ...]:
    """Refuse labels that can't be classes, and classes that are there in two spellings.

    Args:
        found: every label, without spaces around it, and where it stands, such as ``labels.csv, line 7`` or ``the
            folder train/ants``. Labels that are left out because they are empty don't belong here.
        in_table: whether each stands for one sample or series in a table, so that their counts are informative.
        private: whether labels may be names of people, where columns were mixed up.

    Returns:
        What the user should know.

    Raises:
        DataError: with the spellings and where they stand.
    """
    counts: Counter[str] = Counter()
    places: defaultdict[str, list[str]] = defaultdict(list)
    for label, place in found:
        counts[label] += 1
        if len(places[label]) < _PLACES_NAMED:
            places[label].append(place)
    _refuse_faults(counts, places, in_table=in_table)
    _refuse_spellings(counts, places)
    _refuse_synonyms(counts, places)
    _refuse_no_label_among_numbers(counts, places)
    about_numbers = _about_numbers(counts, places, private=private) if in_table else ()
    return (*about_numbers, *_about_separators(counts, places))


def _refuse_faults(counts: Mapping[str, int], places: Mapping[str, Sequence[str]], *, in_table: bool) -> None:
    faults = [(label, fault) for label in counts if (fault := label_fault(label, in_table=in_table))]
    if not faults:
        return
    label, fault = faults[0]
    unlabelled = [label for label, _ in faults if spelling(label) in _NO_LABEL]
    if label in unlabelled:
        what = " and ".join(f"{_where(places, one, counts)}: {one!r}" for one in unlabelled[:_PLACES_NAMED])
        advice = "leave the cell empty, and the line is left out and listed; a class must be called something else"
        advice = advice if in_table else "call the class something else"
        raise DataError(f"{what} can't be the name of a class: {fault}; {advice}")
    more = f" ({len(faults)} such labels in all)" if len(faults) > 1 else ""
    raise DataError(
        f"{_where(places, label, counts)}: the label can't be the name of a class{more}: {fault}; call the class "
        "something else"
    )


def _refuse_spellings(counts: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> None:
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike[spelling(label)].append(label)
    torn = [sorted(labels) for labels in alike.values() if len(labels) > 1]
    if not torn:
        return
    listed = "; ".join(
        " and ".join(f"{_spell_out(label, labels)} ({_where(places, label, counts)})" for label in labels)
        for labels in torn[:_PLACES_NAMED]
    )
    more = f", and {len(torn) - _PLACES_NAMED} more" if len(torn) > _PLACES_NAMED else ""
    raise DataError(
        "classes that differ only in case, spaces, invisible marks, Unicode form, leading zeros or a trailing .0: "
        f"{listed}{more}. They would be trained as different classes; spell each the same everywhere"
    )


def _refuse_synonyms(counts: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> None:
    """Where several people or programs wrote one column."""
    for words in (*_SAME, *(_LETTERS if len(counts) <= _FEW else ())):
        found = sorted(label for label in counts if spelling(label) in words)
        if len(found) > 1:
            listed = " and ".join(f"{label!r} ({_where(places, label, counts)})" for label in found)
            raise DataError(
                f"classes that mean the same: {listed}; they would be trained as different ones, so write one of them"
            )


def _refuse_no_label_among_numbers(counts: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> None:
    """``None`` is a class beside names, such as nodule, and means no value beside numbers."""
    none = [label for label in counts if spelling(label) == "none"]
    others = [label for label in counts if label not in none]
    if none and others and all(_NUMBER.fullmatch(label) for label in others):
        raise DataError(
            f"{_where(places, none[0], counts)}: {none[0]!r} among numbers means that there is no label; leave the "
            "cell empty, or call the class something else"
        )


def _about_separators(counts: Mapping[str, int], places: Mapping[str, Sequence[str]]) -> list[str]:
    """A note on names that may be one class spelled in two ways, or two classes."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        alike[_SEPARATOR.sub("", spelling(label))].append(label)
    return [
        "warning: classes that differ only in spaces, hyphens, underscores or apostrophes: "
        f"{' and '.join(f'{label!r} ({_where(places, label, counts)})' for label in sorted(labels))}; they are trained "
        "as different ones, so spell each the same where they are one"
        for labels in alike.values()
        if len(labels) > 1
    ]


def _about_numbers(counts: Mapping[str, int], places: Mapping[str, Sequence[str]], *, private: bool) -> tuple[str, ...]:
    lines, kinds = sum(counts.values()), len(counts)
    values = [_value(label) for label in counts]
    numbers = [value for value in values if value is not None]
    if len(numbers) < kinds or not kinds:
        if private and kinds > _MEASURED and lines < 2 * kinds:
            raise DataError(
                f"{kinds} different labels in {lines} lines: nearly every line has its own, so these aren't classes; "
                "does the column label hold what it should?"
            )
        return ()
    parts = any(value % 1 for value in numbers)
    numbered = not parts and min(numbers) in {0, 1} and max(numbers) - min(numbers) + 1 == kinds  # as classes are
    few = lines < (_FEW_EACH - 1 if numbered else _FEW_EACH) * kinds
    if (kinds > _MEASURED and (parts or few)) or (parts and few and kinds > _MEASURED // 2):
        label = next(iter(counts))
        first = f" ({places[label][0]}{'' if private else f': {label}'})"
        raise DataError(
            f"{kinds} different numbers in {lines} lines, from {min(numbers):g} to {max(numbers):g}{first}: the label "
            f"looks like a measurement, and this task is a classification. --task {'ct-' if private else ''}regression "
            "learns numbers; for classes, write a few that cover the range into the column, such as "
            f"'up to {_middle(numbers):g}' and 'above {_middle(numbers):g}'"
        )
    if kinds > 2 * _MEASURED and max(numbers) - min(numbers) >= kinds:
        return (
            f"the {kinds} classes are all numbers, from {min(numbers):g} to {max(numbers):g}: where they are "
            "measurements, such as ages, their order isn't used; a few classes that cover the range would be more "
            "useful",
        )
    return ()


def _middle(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def _value(label: str) -> float | None:
    plain = label.replace(",", ".", 1)
    return float(plain) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", plain) else None


def _where(places: Mapping[str, Sequence[str]], label: str, counts: Mapping[str, int]) -> str:
    """Such as ``labels.csv, lines 3, 5 and 9 …``, with the common start of the places once."""
    listed = list(places[label])
    starts = {text.rpartition(" ")[0] for text in listed}
    if len(listed) > 1 and len(starts) == 1 and (start := starts.pop()).endswith("line"):
        listed = [f"{start}s {', '.join(text.rpartition(' ')[2] for text in listed)}"]
    more = counts[label] - len(places[label])
    return f"{'; '.join(listed)}{f' and {more:,} more' if more > 0 else ''}"


def _spell_out(label: str, others: Sequence[str]) -> str:
    """A spelling in which the differences can be seen."""
    plain = all(unicodedata.is_normalized("NFKC", other) and not any(map(_is_invisible, other)) for other in others)
    return repr(label) if plain else ascii(label)


def _is_invisible(character: str) -> bool:
    """Format characters such as zero-width spaces and soft hyphens, variation selectors and fillers."""
    return (
        unicodedata.category(character) == "Cf"
        or character in "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
        or ("\ufe00" <= character <= "\ufe0f" or "\u180b" <= character <= "\u180f")
    )
