"""How the data is made up: groups against splits and labels, and how many samples each class has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zooft.audit.findings import MOST_SHOWN, Finding, counted

if TYPE_CHECKING:
    from zooft.audit.findings import Kind, Severity
    from zooft.contracts import Sample

_FEW = 10
_IMBALANCED = 10


def find(samples: Sequence[Sample], classes: Sequence[str], splits: Mapping[str, str]) -> list[Finding]:
    """What groups and classes look like.

    Args:
        samples: all of them.
        classes: their names.
        splits: sample id to split, where known.
    """
    return [*_groups(samples, splits), *_classes(samples, classes)]


def _groups(samples: Sequence[Sample], splits: Mapping[str, str]) -> Iterator[Finding]:
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.group is not None:
            groups[sample.group].append(sample)
    yield from _differing(
        groups.values(), lambda sample: splits.get(sample.id), kind="torn_groups", severity="error",
        words="on both sides of the split, so figures are too good; move each to one side, or leave the split out",
    )  # fmt: skip
    yield from _differing(
        groups.values(), lambda sample: sample.target, kind="mixed_groups", severity="info",
        words="with several labels; right where the label is about the image, wrong where it is about the group",
    )  # fmt: skip
    alone = [sample.id for sample in samples if sample.group is None]
    if alone:
        of_all = "none of the samples names" if not groups else f"{len(alone)} of {len(samples)} samples don't name"
        yield Finding(
            kind="unknown_groups",
            severity="info",
            text=f"{of_all} a group: if several show one subject (a patient, a part, a place), say so in the data, or "
            "figures are too good",
            samples=tuple(alone[:MOST_SHOWN]) if groups else (),
            count=len(alone),
        )


def _differing(
    groups: Collection[Sequence[Sample]], key: Callable[[Sample], Any], *, kind: Kind, severity: Severity, words: str
) -> Iterator[Finding]:
    """Groups whose samples have several known keys; named by samples, since a group's name may be a person's."""
    found = [members for members in groups if len({key(sample) for sample in members} - {None}) > 1]
    if found:
        ids = [sample.id for members in found for sample in members]
        yield Finding(
            kind=kind,
            severity=severity,
            text=f"{counted(len(found), 'group')} of {len(groups)} ({counted(len(ids), 'sample')}) {words}",
            samples=tuple(ids[:MOST_SHOWN]),
            count=len(ids),
        )


def _classes(samples: Sequence[Sample], classes: Sequence[str]) -> Iterator[Finding]:
    counts = Counter(sample.target for sample in samples)
    few = [f"{name} ({counts[index]})" for index, name in enumerate(classes) if counts[index] < _FEW]
    if few:
        yield Finding(
            kind="tiny_classes",
            severity="info",
            text=f"fewer than {_FEW} samples of {', '.join(few)}: their figures will be guesses; add samples",
        )
    most, least = max(counts.values(), default=0), min((counts[index] for index in range(len(classes))), default=0)
    if most > _IMBALANCED * least:
        yield Finding(
            kind="imbalance",
            severity="info",
            text=f"the largest class has {most} samples, the smallest {least}: don't judge by accuracy, and weigh classes",
        )
