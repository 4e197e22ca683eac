"""report.html: a run as one self-contained page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from zooft.contracts.plurals import pluralize
from zooft.report import card, formatting, html, learning, pictures, results, settings, verification
from zooft.report.blocks import Key, Page, Section
from zooft.report.inputs import ReportInputs
from zooft.run.folder import write_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ReportInputs", "render", "write"]


def render(inputs: ReportInputs) -> str:
    """The page as HTML."""
    given = inputs.record.data.path
    where = "" if inputs.private or not given else f" on {given.rstrip('/').rpartition('/')[2]}"
    page = Page(
        title=f"Fine-tuning report: {inputs.task}",
        lead=f"{inputs.backbone}, fine-tuned{where} to {inputs.description.aim}.",
        keys=tuple(_keys(inputs)),
        sections=tuple(_sections(inputs)),
        foot=(
            f"Made by zooft {inputs.record.zooft}. Figures come from the run's own files; nothing on this page is "
            "loaded from elsewhere."
        ),
    )
    return html.to_html(page)


def write(path: Path, inputs: ReportInputs) -> None:
    """Write the page, whole or not at all."""
    # names of files that aren't UTF-8 are shown with their bytes escaped
    write_text(path, render(inputs), errors="backslashreplace")


def _sections(inputs: ReportInputs) -> Iterator[Section]:
    yield settings.settings(inputs)
    yield settings.data(inputs)
    audit = settings.audit(inputs)
    if audit is not None:
        yield audit
    yield from results.results(inputs)
    yield pictures.mistakes(inputs)
    yield pictures.gradcam(inputs)
    if inputs.extra:
        yield Section("task", f"More on {inputs.task}", tuple(results.to_blocks(inputs.extra)))
    yield learning.network(inputs)
    yield learning.learning(inputs)
    yield learning.cost(inputs)
    yield verification.verification(inputs)
    yield verification.deployment(inputs)
    yield card.card(inputs)


def _keys(inputs: ReportInputs) -> Iterator[Key]:
    best = results.headline(inputs)
    if best is not None:
        name, value = best
        evaluation = inputs.evaluations[inputs.main_split]
        level = f"per {evaluation.group_name}, " if evaluation.group_metrics else ""
        ends = formatting.interval(value)
        detail = f"{level}{formatting.split(inputs.main_split)} samples" + (f"; 95 % interval {ends}" if ends else "")
        yield Key(label=name, value=formatting.figure(value.value), detail=detail)
    wrong, total = results.wrong(inputs)
    if total:
        yield Key(
            label="Wrong predictions",
            value=f"{wrong:,} of {total:,}",
            detail=f"{formatting.split(inputs.main_split)} samples",
        )
    if inputs.audit is not None:
        yield _audit_key(inputs)
    yield _verification_key(inputs)


def _audit_key(inputs: ReportInputs) -> Key:
    assert inputs.audit is not None  # noqa: S101 -- the caller has checked
    found = [finding.severity for finding in inputs.audit.findings]
    errors, warnings = found.count("error"), found.count("warning")
    if errors:
        return Key(
            label="Audit of the data",
            value=pluralize(errors, "error"),
            tone="error",
            detail=pluralize(warnings, "warning"),
        )
    if warnings:
        return Key(label="Audit of the data", value=pluralize(warnings, "warning"), tone="warning", detail="no error")
    return Key(label="Audit of the data", value="No warning", tone="good", detail="no copies, leaks or shortcuts found")


def _verification_key(inputs: ReportInputs) -> Key:
    found = inputs.verification
    if found is None:
        return Key(label="Deployed file", value="None", detail="none requested", tone="note")
    if not found.passed:
        return Key(label="Deployed file", value="Refused", detail="outputs differ from the model's", tone="error")
    samples = f"{found.samples:,} {found.data} samples"
    measured = not math.isnan(found.relative_rms)
    detail = (
        f"outputs differ by {found.relative_rms:.0e} of their spread, on {samples}" if measured else f"on {samples}"
    )
    return Key(
        label="Deployed file", value="Verified", detail=detail, tone="good" if found.data == "real" else "warning"
    )
