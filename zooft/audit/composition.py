"""How the data is made up: groups against splits and targets, and how many samples each category has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zooft.audit.findings import MOST_SHOWN, Finding
from zooft.contracts.plurals import pluralize

if TYPE_CHECKING:
    from zooft.audit.findings import Kind, Severity
    from zooft.audit.targets import Targets
    from zooft.contracts import Sample

_FEW = 10
_IMBALANCED = 10


def find(samples: Sequence[Sample], targets: Targets, splits: Sequence[str | None]) -> list[Finding]:
    """Findings about groups and categories.

    Args:
        samples: all of them.
        targets: theirs.
        splits: of every sample, where known.
    """
    return [*_groups(samples, targets, splits), *_absent(targets, splits), *_balance(targets)]


def _groups(samples: Sequence[Sample], targets: Targets, splits: Sequence[str | None]) -> Iterator[Finding]:
    groups: defaultdict[str, list[int]] = defaultdict(list)
    alone = []
    for row, sample in enumerate(samples):
        if sample.group is not None:
            groups[sample.group].append(row)
        else:
            alone.append(row)
    yield from _find_mixed(
        samples,
        groups.values(),
        lambda row: splits[row],
        kind="torn_groups",
        severity="error",
        words="on both sides of the split, so figures are too good; move each to one side, or leave the split out",
    )
    yield from _find_mixed(
        samples,
        groups.values(),
        lambda row: _known_target(targets, row),
        kind="mixed_groups",
        severity="info",
        words="with several labels; right where the label is about the image, wrong where it is about the group",
    )
    if alone:
        of_all = "none of the samples names" if not groups else f"{len(alone)} of {len(samples)} samples don't name"
        yield Finding(
            kind="unknown_groups",
            severity="info",
            text=f"{of_all} a group: if several show one subject (a patient, a part, a place), name it in the data, or "
            "figures are too good",
            samples=tuple(samples[row].id for row in alone[:MOST_SHOWN]) if groups else (),
            count=len(alone),
        )


def _find_mixed(
    samples: Sequence[Sample],
    groups: Collection[Sequence[int]],
    key: Callable[[int], Any],
    *,
    kind: Kind,
    severity: Severity,
    words: str,
) -> Iterator[Finding]:
    """Groups whose samples have several known keys; named by samples, since a group's name may be a person's."""
    found = [rows for rows in groups if len({key(row) for row in rows} - {None}) > 1]
    if found:
        involved = [row for rows in found for row in rows]
        yield Finding(
            kind=kind,
            severity=severity,
            text=f"{pluralize(len(found), 'group')} of {len(groups)} ({pluralize(len(involved), 'sample')}) {words}",
            samples=tuple(samples[row].id for row in involved[:MOST_SHOWN]),
            count=len(involved),
        )


def _absent(targets: Targets, splits: Sequence[str | None]) -> Iterator[Finding]:
    """Categories that a split lacks, which its figures don't show."""
    for name in ("train", "val", "test"):
        there = {int(target) for target, split in zip(targets.numbers, splits, strict=True) if split == name}
        absent = [label for index, label in enumerate(targets.categories) if index not in there]
        if there and absent:
            more = f" and {len(absent) - MOST_SHOWN} more" if len(absent) > MOST_SHOWN else ""
            yield Finding(
                kind="absent_classes",
                severity="warning",
                text=f"{name} has no samples of {targets.name} {', '.join(absent[:MOST_SHOWN])}{more}, so "
                + ("it can't be trained" if name == "train" else "its figures don't cover it"),
            )


def _known_target(targets: Targets, row: int) -> int | None:
    number = int(targets.numbers[row])
    return number if number >= 0 else None


def _balance(targets: Targets) -> Iterator[Finding]:
    counts = targets.counts() if targets.categories else {}
    few = [f"{name} ({count})" for name, count in counts.items() if count < _FEW]
    if few:
        yield Finding(
            kind="tiny_classes",
            severity="info",
            text=f"fewer than {_FEW} samples of {', '.join(few)}: their figures will be guesses; add samples",
        )
    most, least = max(counts.values(), default=0), min(counts.values(), default=0)
    if most > _IMBALANCED * least:
        yield Finding(
            kind="imbalance",
            severity="info",
            text=f"the most frequent {targets.name} has {most} samples, the rarest {least}: don't rely on accuracy, "
            "and weigh them in the loss",
        )
