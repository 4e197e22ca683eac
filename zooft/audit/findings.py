"""The results of an audit: findings in words, a table of facts, and the pairs worth viewing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Severity = Literal["error", "warning", "info"]
Kind = Literal[
    "contradictory_labels",
    "exact_duplicates",
    "near_duplicates",
    "shortcut",
    "hint",
    "torn_groups",
    "mixed_groups",
    "unknown_groups",
    "absent_classes",
    "tiny_classes",
    "imbalance",
    "unreadable",
    "told_by_task",
]
Pair = tuple[str, str]
MOST_SHOWN = 20
"""Samples and pairs that a finding names at most; its count includes all."""
_ORDER: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that readers of the figures should know.

    Attributes:
        kind: its name, for programs.
        severity: ``error`` makes figures wrong, ``warning`` may, ``info`` is good to know.
        text: what was found, and what to do about it.
        samples: ids of samples it is about, the first 20.
        count: of all samples it is about, not only of those listed.
        pairs: ids that belong together, such as a picture and its copy; the first 20.
        auroc: of a shortcut.
    """

    kind: Kind
    severity: Severity
    text: str
    samples: tuple[str, ...] = ()
    count: int = 0
    pairs: tuple[Pair, ...] = ()
    auroc: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRow:
    """How well one fact predicts the category, without the image.

    Attributes:
        name: of the fact; ``all facts together`` for the last row.
        kind: how its values were interpreted.
        values: how many different ones there are, "not stated" among them; 0 for all facts together.
        stated: of how many samples it is known.
        auroc: on samples whose group the prediction had not seen; None where it can't be computed.
        low: lower end of the 95 % interval.
        high: upper end.
        shortcut: whether it predicts well enough for a warning.
    """

    name: str
    kind: Literal["category", "number", "all"]
    values: int
    stated: int
    auroc: float | None
    low: float | None
    high: float | None
    shortcut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found in a data set.

    Attributes:
        findings: errors first.
        facts: a row for each fact.
        samples: how many were compared.
        notes: what wasn't done, and why.
    """

    findings: tuple[Finding, ...]
    facts: tuple[FactRow, ...]
    samples: int
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


def by_severity(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then the rest; otherwise in the given order."""
    return tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))


def pairs_to_show(audit: Audit, most: int = MOST_SHOWN) -> tuple[tuple[str, str, str], ...]:
    """Pairs that a person should view, each once, with the reason: ``(id, id, why)``.

    Args:
        audit: the worst findings come first.
        most: pairs at most.
    """
    chosen: dict[Pair, str] = {}
    for finding in by_severity(audit.findings):
        if finding.kind in _WHY:
            for pair in finding.pairs:
                chosen.setdefault(pair, _WHY[finding.kind])
    return tuple((*pair, why) for pair, why in list(chosen.items())[:most])


_WHY: dict[Kind, str] = {
    "contradictory_labels": "one image under two labels",
    "exact_duplicates": "equal images",
    "near_duplicates": "nearly equal images",
}
