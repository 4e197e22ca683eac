"""Who gets one answer of a deployed model: a patient, and each study of one by itself.

Studies of different dates are different questions, and a structured report belongs to one study.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from zooft_ct.patients import Patients, about_alike, about_names, about_shared, about_torn, examine
from zooft_ct.person import Person, stands_for_nobody
from zooft_ct.stacks import Found, Stack

Hashed = Callable[[str, str], str]
"""From a kind, such as patient, and a value to its salted hash."""
_STUDY_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """Which series go together.

    Attributes:
        patients: what all files say of PatientIDs.
        studies: of each patient, as `Patients.apart` calls them.
    """

    patients: Patients
    studies: Mapping[str, frozenset[str]]

    def of(self, patient_id: str, persons: Iterable[Person], study: str, hashed: Hashed) -> str:
        """The name of the answer, with a part for the study where the patient has several; "" where nobody is named."""
        patient = self.patients.apart(patient_id, persons)
        if not patient:
            return ""
        name = hashed("patient", patient)
        several = len(self.studies.get(patient, ())) > 1
        return f"{name}-{hashed('study', study)[:_STUDY_DIGITS]}" if several else name

    def of_stack(self, stack: Stack, hashed: Hashed) -> str:
        """The same for a series or volume; one that names nobody has an answer of its own."""
        return self.of(stack.patient, stack.persons, stack.study, hashed) or hashed("series", stack.name)

    def notes(self, every: Sequence[Stack], hashed: Hashed) -> tuple[str, ...]:
        """What was assumed."""
        persons: defaultdict[str, set[Person]] = defaultdict(set)
        for stack in every:
            persons[self.patients.of(stack.patient, stack.persons)] |= stack.persons
        nameless = sum(not self.patients.of(stack.patient, stack.persons) for stack in every)
        persons.pop("", None)

        def of_patient(name: str) -> str:
            return hashed("patient", name)

        return (
            *about_shared(self.patients, of_patient, persons),
            *about_torn(self.patients, of_patient, then="each is answered apart"),
            *_about_nameless(nameless, every),
            *self._about_studies(),
            *about_alike(persons, of_patient),
            *about_names(persons, of_patient),
        )

    def _about_studies(self) -> list[str]:
        several = [len(studies) for studies in self.studies.values() if len(studies) > 1]
        if not several:
            return []
        return [
            f"{len(several)} patients have several studies, {sum(several)} in all; each study gets an answer of its own, named "
            "PATIENT-STUDY"
        ]


def answers_of(found: Found) -> Answers:
    """Who gets an answer, refused slices of CT counted in."""
    series = [(stack.patient, stack.persons, stack.study) for stack in found.stacks if stack.persons]
    refused = [
        (each.owner.patient, frozenset({each.owner.person}), each.owner.study) for each in found.rejected if each.slices
    ]
    patients = examine((name, persons) for name, persons, _ in chain(series, refused))
    studies: defaultdict[str, set[str]] = defaultdict(set)
    for name, persons, study in chain(series, refused):
        studies[patients.apart(name, persons)].add(study)
    studies.pop("", None)
    return Answers(patients, {name: frozenset(own) for name, own in studies.items()})


def _about_nameless(count: int, every: Sequence[Stack]) -> list[str]:
    if not count:
        return []
    nobodys = sum(stands_for_nobody(stack.patient) for stack in every)
    such = f" ({nobodys} have a PatientID such as ANONYMOUS, which anonymisers write for everybody)" if nobodys else ""
    return [f"{count} of {len(every)} series and volumes name no patient{such}; each gets an answer of its own"]
