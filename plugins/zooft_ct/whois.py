"""The way back from salted ids: which patient, series, slice or file one stands for.

For who has the data and its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import zooft
from zooft_ct import privacy, task_parts
from zooft_ct.header import SliceHeader


def whois(samples: Sequence[zooft.Sample], data: Path, ids: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """What is known of each id that is of this data.

    Args:
        samples: of the data.
        data: the data folder, or its table of labels.
        ids: of samples, or a part of one between slashes: a group, a series, a slice; or of a rejected file.
    """
    root = data.parent if data.is_file() else data
    found = {text: _of_samples(text, samples) or _of_file(text, root) for text in ids}
    return {text: facts for text, facts in found.items() if facts}


def _of_samples(text: str, samples: Sequence[zooft.Sample]) -> Mapping[str, str]:
    depth, matching = _find_samples(text, samples)
    if not matching:
        return {}
    slices = matching[0].source.slices
    one = slices[len(slices) // 2]
    facts = {"samples": str(len(matching))}
    if not isinstance(one, SliceHeader):
        return {**facts, "file": str(one.volume.path), **(task_parts.which(one) if depth > 1 else {})}
    facts["PatientID"] = one.patient_id
    if depth > 0:
        facts["SeriesInstanceUID"] = one.series_uid
    if depth > 1:
        facts |= {"SOPInstanceUID": one.sop_uid, "file": str(one.path), **task_parts.which(one)}
    return facts


def _find_samples(text: str, samples: Sequence[zooft.Sample]) -> tuple[int, list[zooft.Sample]]:
    """How deep the id names (0 a group, 1 a series, 2 a slice), and the samples that it names."""
    if text not in {part for sample in samples for part in sample.id.split("/")}:
        text = text.partition("-")[0]  # zooft predict puts a study behind a patient with several
    for sample in samples:
        parts = sample.id.split("/")
        if text == sample.id or text in parts:
            depth = len(parts) - 1 if text == sample.id else parts.index(text)
            return depth, [s for s in samples if s.id == text or text in s.id.split("/")]
    return 0, []


def _of_file(text: str, root: Path) -> Mapping[str, str]:
    path = privacy.find(root, text if text.startswith("file ") else f"file {text}")
    return {"file": str(path)} if path else {}
