"""Who gets one answer of a deployed model: a patient, and each study of one by itself.

Studies of different dates are different questions, and a structured report belongs to one study.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import zooft
from zooft_ct.header import Owner
from zooft_ct.patients import Patients, about_alike, about_names, about_shared, about_torn, examine
from zooft_ct.person import Person, stands_for_nobody
from zooft_ct.stacks import Found, Stack

Hashed = Callable[[str, str], str]
"""From a kind, such as patient, and a value to its salted hash."""
_STUDY_DIGITS = 8


@dataclass(frozen=True, slots=True)
class PredictionGroups:
    """Which series go together.

    Attributes:
        patients: the PatientIDs of all files.
        studies: of each patient, as `Patients.apart` calls them, the dates of each StudyInstanceUID, as far as they're
            known.
    """

    patients: Patients
    studies: Mapping[str, Mapping[str, frozenset[str]]]

    def of(self, owner: Owner, persons: Iterable[Person], hashed: Hashed) -> str:
        """The name of the answer, with a part for the study where the patient has several; "" where nobody is named."""
        patient = self.patients.apart(owner.patient, persons)
        if not patient:
            return ""
        name, dates = hashed("patient", patient), self.studies.get(patient, {})
        several = len(dates.get(owner.study, ())) > 1
        study = f"{owner.study}\0{owner.study_date}" if several else owner.study
        return f"{name}-{hashed('study', study)[:_STUDY_DIGITS]}" if several or len(dates) > 1 else name

    def of_stack(self, stack: Stack, hashed: Hashed) -> str:
        """The same for a series or volume; one that names nobody has an answer of its own."""
        return self.of(_owner(stack), stack.persons, hashed) or hashed("series", stack.name)

    def notes(self, every: Sequence[Stack], hashed: Hashed) -> tuple[str, ...]:
        """What was assumed."""
        persons: defaultdict[str, set[Person]] = defaultdict(set)
        for stack in every:
            persons[self.patients.of(stack.patient, stack.persons)] |= stack.persons
        torn = [stack for stack in every if self.patients.of(stack.patient, stack.persons) in self.patients.torn]
        answers = sorted({self.of_stack(stack, hashed) for stack in torn})
        nameless = sum(not self.patients.of(stack.patient, stack.persons) for stack in every)
        persons.pop("", None)

        def of_patient(name: str) -> str:
            return hashed("patient", name)

        return (
            *about_shared(self.patients, of_patient, persons),
            *about_torn(self.patients, answers, then="each is answered apart"),
            *_about_nameless(nameless, every),
            *self._about_studies(),
            *about_alike(persons, of_patient),
            *about_names(persons, of_patient),
        )

    def _about_studies(self) -> list[str]:
        counts = [sum(max(len(dates), 1) for dates in studies.values()) for studies in self.studies.values()]
        several = [count for count in counts if count > 1]
        if not several:
            return []
        return [
            f"{zooft.pluralize(len(several), 'patient has', 'patients have')}"
            f" several studies, {sum(several)} in all; each study gets an answer of its "
            "own, named PATIENT-STUDY"
        ]


def prediction_groups(found: Found) -> PredictionGroups:
    """Who gets an answer, refused slices of CT counted in."""
    series = [(_owner(stack), stack.persons) for stack in found.stacks if stack.persons]
    refused = [(each.owner, frozenset({each.owner.person})) for each in found.rejected if each.slices]
    every = [*series, *refused]
    patients = examine((owner.patient, persons) for owner, persons in every)
    studies: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for owner, persons in every:
        studies[patients.apart(owner.patient, persons)][owner.study] |= {owner.study_date} - {""}
    studies.pop("", None)
    return PredictionGroups(
        patients,
        {name: {study: frozenset(dates) for study, dates in own.items()} for name, own in studies.items()},
    )


def _owner(stack: Stack) -> Owner:
    return Owner(patient=stack.patient, study=stack.study, study_date=stack.study_date)


def _about_nameless(count: int, every: Sequence[Stack]) -> list[str]:
    if not count:
        return []
    nobodys = sum(stands_for_nobody(stack.patient) for stack in every)
    such = (
        f" ({zooft.pluralize(nobodys, 'has', 'have')}"
        " a PatientID such as ANONYMOUS, which anonymisers write for everybody)"
        if nobodys
        else ""
    )
    return [f"{count} of {len(every)} series and volumes name no patient{such}; each gets an answer of its own"]
