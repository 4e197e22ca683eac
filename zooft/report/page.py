"""report.html: a run as one page, that needs nothing but itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.report import card, html, learning, pictures, results, verification, words
from zooft.report import settings as asked
from zooft.report.blocks import Key, Page, Section
from zooft.report.inputs import Material
from zooft.run.folder import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Material", "render", "write"]


def render(material: Material) -> str:
    """The page as HTML."""
    given = material.record.data.path
    where = "" if material.private or not given else f" on {given.rstrip('/').rpartition('/')[2]}"
    page = Page(
        title=f"Fine-tuning report: {material.task}",
        lead=f"{material.backbone}, fine-tuned{where} to tell {_listed(material.classes)} apart.",
        keys=tuple(_keys(material)),
        sections=tuple(_sections(material)),
        foot=f"Made by zooft {material.record.zooft}. Figures come from the run's own files; nothing on this page is loaded from elsewhere.",
    )
    return html.to_html(page)


def write(path: Path, material: Material) -> None:
    """Write the page, whole or not at all."""
    # names of files that aren't UTF-8 are shown as their bytes are escaped elsewhere
    write_text(path, render(material), errors="backslashreplace")


def _sections(material: Material) -> Iterator[Section]:
    yield asked.asked(material)
    yield asked.data(material)
    audit = asked.audit(material)
    if audit is not None:
        yield audit
    yield from results.results(material)
    yield pictures.mistakes(material)
    yield pictures.looked(material)
    own = pictures.of_task(material)
    if own:
        yield Section("task", f"More on {material.task}", tuple(own))
    yield learning.network(material)
    yield learning.learning(material)
    yield learning.cost(material)
    yield verification.verification(material)
    yield verification.deployment(material)
    yield card.card(material)


def _keys(material: Material) -> Iterator[Key]:
    best = results.headline(material)
    if best is not None:
        name, value = best
        evaluation = material.evaluations[material.judged]
        level = f"per {evaluation.group_name}, " if evaluation.group_metrics else ""
        ends = words.interval(value)
        detail = f"{level}{words.split(material.judged)} samples" + (f"; 95 % interval {ends}" if ends else "")
        yield Key(label=name, value=words.figure(value.value), detail=detail)
    wrong, total = results.wrong(material)
    if total:
        yield Key(
            label="Wrong answers", value=f"{wrong:,} of {total:,}", detail=f"{words.split(material.judged)} samples"
        )
    if material.audit is not None:
        yield _audited(material)
    yield _verified(material)


def _audited(material: Material) -> Key:
    found = [finding.severity for finding in material.audit.findings]  # type: ignore[union-attr]
    errors, warnings = found.count("error"), found.count("warning")
    if errors:
        return Key(label="Audit of the data", value=words.count(errors, "error"), tone="error", detail=words.count(warnings, "warning"))  # fmt: skip
    if warnings:
        return Key(label="Audit of the data", value=words.count(warnings, "warning"), tone="warning", detail="no error")
    return Key(label="Audit of the data", value="No warning", tone="good", detail="no copies, leaks or shortcuts found")


def _verified(material: Material) -> Key:
    found = material.verification
    if found is None:
        return Key(label="Deployed file", value="None", detail="not asked for", tone="note")
    if not found.passed:
        return Key(label="Deployed file", value="Refused", detail="answers differ from the model's", tone="error")
    detail = f"probabilities differ by at most {found.max_probability_difference:.0e} on {found.samples:,} {found.data} samples"
    return Key(
        label="Deployed file", value="Verified", detail=detail, tone="good" if found.data == "real" else "warning"
    )


def _listed(classes: tuple[str, ...]) -> str:
    if len(classes) > 6:
        return f"{len(classes)} classes"
    return f"{', '.join(classes[:-1])} and {classes[-1]}" if len(classes) > 1 else classes[0]
