"""Who is one patient, by all files together.

A PatientID alone isn't a person: it belongs to its issuer, anonymisers write one for everybody, and files get mixed up.
Nothing is merged that the files contradict, and what was assumed is reported, by salted ids.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import zooft
from zooft_ct.person import Person, all_differences, differ, fingerprint, merge, name_key, stands_for_nobody

_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """The PatientIDs of all files.

    Attributes:
        shared: PatientIDs that several issuers have given: each issuer's is another patient.
        torn: patients, as `of` calls them, whose files speak of several persons, and what differs.
        everybodys: the PatientID that all files name, where there are several series; "" elsewhere.
    """

    shared: frozenset[str]
    torn: Mapping[str, tuple[str, ...]]
    everybodys: str

    def of(self, patient_id: str, persons: Iterable[Person]) -> str:
        """What identifies this patient, to be hashed; "" where it isn't known who it is."""
        known = patient_id.strip()
        if not known or stands_for_nobody(known):
            return ""
        if known not in self.shared:
            return known
        issuer = merge(persons).issuer
        return f"{known}\0{issuer}" if issuer else ""

    def apart(self, patient_id: str, persons: Iterable[Person]) -> str:
        """As `of`, and of several persons under one PatientID each by itself."""
        own = tuple(persons)
        known = self.of(patient_id, own)
        return f"{known}\0{fingerprint(merge(own))}" if known in self.torn else known


def examine(found: Iterable[tuple[str, frozenset[Person]]]) -> Patients:
    """Look for PatientIDs that aren't one person's.

    Args:
        found: of every series its PatientID, and whom else its files name.
    """
    series = [(name.strip(), persons) for name, persons in found]
    issuers: defaultdict[str, set[str]] = defaultdict(set)
    for name, persons in series:
        issuers[name] |= {person.issuer for person in persons} - {""}
    shared = frozenset(name for name, known in issuers.items() if name and len(known) > 1)
    ids = {name for name, _ in series}
    everybodys = next(iter(ids)) if len(ids) == 1 and len(series) > 1 else ""
    only = Patients(shared=shared, torn={}, everybodys=everybodys)
    own: defaultdict[str, set[Person]] = defaultdict(set)
    for name, persons in series:
        own[only.of(name, persons)] |= persons
    torn = {name: what for name, persons in own.items() if name and (what := all_differences(persons))}
    return Patients(shared=shared, torn=torn, everybodys=everybodys)


def about_shared(patients: Patients, hashed: Callable[[str], str], found: Iterable[str]) -> list[str]:
    """PatientIDs of several issuers; `found` are all patients, as `Patients.of` calls them."""
    names = sorted({name for name in found if name.partition("\0")[0] in patients.shared})
    if not patients.shared:
        return []
    return [
        f"warning: {zooft.pluralize(len(patients.shared), 'PatientID was', 'PatientIDs were')}"
        " given by several issuers (IssuerOfPatientID), and each "
        f"issuer's is a patient of its own{_such_as(names, hashed)}; a series that doesn't name its issuer is nobody's"
    ]


def about_torn(patients: Patients, shown: Sequence[str], *, then: str) -> list[str]:
    """PatientIDs of several persons; `shown` are those whom messages name, `then` what is done about them."""
    if not patients.torn:
        return []
    what = differ(list(dict.fromkeys(word for words in patients.torn.values() for word in words)))
    names = f" ({', '.join(shown[:_SHOWN])}{' …' if len(shown) > _SHOWN else ''})" if shown else ""
    return [
        f"warning: {zooft.pluralize(len(patients.torn), 'PatientID stands', 'PatientIDs stand')}"
        f" for several persons each, by their files: {what}{names}; "
        f"{then}"
    ]


def about_alike(names: Iterable[str], hashed: Callable[[str], str]) -> list[str]:
    """PatientIDs that may be one in two spellings."""
    alike: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        alike[_spelling(name)].add(name)
    torn = [sorted(own) for own in alike.values() if len(own) > 1]
    if not torn:
        return []
    return [
        f"warning: {sum(map(len, torn))} PatientIDs differ from another one only in case, spaces, leading zeros or "
        f"Unicode form, and may be {zooft.pluralize(len(torn), 'patient')}"
        f"{_such_as(torn[0], hashed)}. Spell each patient's the same, or "
        "one may stand on both sides of a split, and figures are too good"
    ]


def about_names(patients: Mapping[str, Iterable[Person]], hashed: Callable[[str], str]) -> list[str]:
    """Patients of different PatientIDs who have one name and one birth date."""
    same: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for name, persons in patients.items():
        for person in persons:
            if person.name and person.birth_date:
                same[name_key(person.name), person.birth_date].add(name)
    torn = [sorted(own) for own in same.values() if len(own) > 1]
    if not torn:
        return []
    return [
        f"warning: {sum(map(len, torn))} PatientIDs share name and birth date with another one, and may be "
        f"{zooft.pluralize(len(torn), 'patient')}"
        f"{_such_as(torn[0], hashed)}. Give each patient one patient_id, or one may stand on both "
        "sides of a split, and figures are too good"
    ]


def _such_as(names: Sequence[str], hashed: Callable[[str], str]) -> str:
    return f" (patients {', '.join(map(hashed, names[:_SHOWN]))}{' …' if len(names) > _SHOWN else ''})" if names else ""


def _spelling(name: str) -> str:
    patient_id, _, rest = name.partition("\0")
    return re.sub(r"(?<!\d)0+(?=\d)", "", zooft.spelling(patient_id)) + f"\0{rest}"
