"""Who a file's patient is, and whether two files can be of one person.

Honest files differ: names in other case, order and script, with more given names or another family name, and fields
that are empty. None of that makes two persons; what does is named by its DICOM keyword.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations

_NOBODY = re.compile(
    r"""(de[\s_-]?identified | anonym\w* | anon | pseudonym\w* | unknown | unnamed | undefined | unspecified
    | none | null | nan | n/?a
    | no[\s_-]?(name|id|patient([\s_-]?id)?) | patient([\s_-]?(id|name))? | removed | redacted | withheld
    | masked | hidden | blank
    | empty | dummy | n\.\ ?n\.? | not[\s_-]?(available|applicable|specified|known) | x{3,} | [-_.*?]+ )""",
    re.IGNORECASE | re.VERBOSE,
)
"""What stands in place of a name or a PatientID, for everybody alike."""
_LATIN = str.maketrans({"ø": "o", "æ": "a", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
"""Letters with a stroke or grown together, as systems without them write these."""
_MOST_COMPARED = 64
_LONG_ENOUGH, _NEARLY = 5, 0.85
_NO_DATES = frozenset({"19000101", "00010101", "18000101", "17000101", "18581117"})


@dataclass(frozen=True, slots=True)
class Person:
    """What a file states of a patient besides the PatientID; "" where it doesn't, or where it can't be meant.

    Attributes:
        issuer: who gave the PatientID.
        name: as it stands in the file.
        birth_date: ``YYYYMMDD``.
        sex: ``M`` or ``F``.
    """

    issuer: str = field(default="", repr=False)
    name: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)


@functools.lru_cache(maxsize=2**12)
def person(*, issuer: str, name: str, birth_date: str, sex: str) -> Person:
    """By the texts of the elements; the slices of a series share one."""
    digits = re.sub(r"[.\-/\s]", "", birth_date)
    known = re.fullmatch(r"\d{8}", digits) and digits not in _NO_DATES
    return Person(
        issuer=" ".join(issuer.split()).casefold(),
        name="" if _is_nobodys(name) else name.strip(),
        birth_date=digits if known else "",
        sex=sex.upper() if sex.upper() in {"M", "F"} else "",
    )


def stands_for_nobody(text: str) -> bool:
    """Whether a PatientID or a name is what anonymisers write for everybody.

    Numbers aren't, since they are given to people.
    """
    words = text.replace("^", " ").split()
    return bool(words) and (_NOBODY.fullmatch(" ".join(words)) is not None or all(map(_NOBODY.fullmatch, words)))


def _is_nobodys(name: str) -> bool:
    """A name of such words alone, with numbers perhaps."""
    bare = re.sub(r"\d+", " ", name.replace("^", " "))
    return stands_for_nobody(" ".join(bare.split())) or all(map(stands_for_nobody, bare.split()))


def differences(one: Person, other: Person) -> tuple[str, ...]:
    """What two persons can't share, in words; nothing where both may be one.

    A name that agrees in the given name alone counts as another family name of one person where the birth dates agree.
    """
    dates = _dates_differ(one.birth_date, other.birth_date)
    found = {
        "issuer of the PatientID": bool(one.issuer and other.issuer) and one.issuer != other.issuer,
        "birth date": dates,
        "sex": bool(one.sex and other.sex) and one.sex != other.sex,
        "name": _names_differ(one.name, other.name, same_birth=bool(one.birth_date and other.birth_date) and not dates),
    }
    return tuple(what for what, differs in found.items() if differs)


def all_differences(persons: Iterable[Person]) -> tuple[str, ...]:
    """What differs among persons that should be one; nothing where they may be."""
    known = sorted(set(persons), key=fingerprint)[:_MOST_COMPARED]
    return tuple(dict.fromkeys(what for one, other in combinations(known, 2) for what in differences(one, other)))


def merge(persons: Iterable[Person]) -> Person:
    """One person of what several files state of the same one; the fullest of each."""
    known = sorted(persons, key=fingerprint)
    fields = ([getattr(one, name) for one in known] for name in ("issuer", "name", "birth_date", "sex"))
    issuer, name, birth_date, sex = (max(values, key=len, default="") for values in fields)
    return Person(issuer, name, birth_date, sex)


def differ(words: Sequence[str]) -> str:
    """``birth date, sex and name differ``."""
    return f"{', '.join(words[:-1])} and {words[-1]} differ" if len(words) > 1 else f"{words[0]} differs"


def fingerprint(one: Person) -> str:
    """Text that is the same for equal persons, in any spelling of the name."""
    return "|".join((one.issuer, one.birth_date, one.sex, name_key(one.name)))


def name_key(name: str) -> str:
    """The words of a name in one order and case, without accents; of several scripts, those of the first."""
    return " ".join(sorted(_words(name.partition("=")[0] or name)))


def _dates_differ(one: str, other: str) -> bool:
    """A first of January may stand for the year alone."""
    if not one or not other or one == other:
        return False
    return one[:4] != other[:4] or not (one.endswith("0101") or other.endswith("0101"))


def _names_differ(one: str, other: str, *, same_birth: bool) -> bool:
    """By each script that both are written in: alphabetic, ideographic, phonetic (DICOM PS3.5, 6.2.1)."""
    pairs = [(a, b) for a, b in zip(one.split("="), other.split("="), strict=False) if _comparable(a, b)]
    return bool(pairs) and not any(_alike(a, b, same_birth=same_birth) for a, b in pairs)


def _comparable(one: str, other: str) -> bool:
    """Whether both hold letters, and of the same alphabet, as far as that is known."""
    first, second = "".join(_words(one)), "".join(_words(other))
    if not first or not second or "\ufffd" in one + other:
        return False
    return any(c.isascii() for c in first) == any(c.isascii() for c in second)


def _alike(one: str, other: str, *, same_birth: bool) -> bool:
    (family, given), (other_family, other_given) = _parts(one), _parts(other)
    if not (given and other_given and family and other_family):
        return bool({*family, *given} & {*other_family, *other_given}) or _join(one) == _join(other)
    same_family = (
        _share(family, other_family) or "".join(family) == "".join(other_family) or _is_typo(family, other_family)
    )
    if _share(given, other_given) or (same_birth and same_family and _is_typo(given, other_given)):
        return same_family or same_birth
    return _share(family, other_given) and _share(given, other_family)  # in the other order


def _parts(name: str) -> tuple[list[str], list[str]]:
    """Words of the family name, and of the given ones."""
    family, _, rest = name.partition("^" if "^" in name else ",")
    return _words(family), _words(" ".join(rest.split("^")[:2]))


def _share(one: list[str], other: list[str]) -> bool:
    """A word, or an initial of one."""
    return any(a == b or (min(len(a), len(b)) == 1 and a[0] == b[0]) for a in one for b in other)


def _is_typo(one: list[str], other: list[str]) -> bool:
    """Words of five letters and more that differ in about one of them."""
    return any(
        min(len(a), len(b)) >= _LONG_ENOUGH and SequenceMatcher(None, a, b).ratio() > _NEARLY
        for a in one
        for b in other
    )


def _join(name: str) -> str:
    return "".join(_words(name))


def _words(text: str) -> list[str]:
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    plain = bare.casefold().replace("'", "").translate(_LATIN)
    return re.findall(r"[^\W_]+", re.sub(r"([aou])e", r"\1", plain))  # Müller, Mueller and MULLER
