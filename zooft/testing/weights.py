"""A source of weights, tried on what it serves of a family."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from zooft.hooks.guard import call_plugin, place_of
from zooft.model.backbone import load_backbone
from zooft.model.names import full_name
from zooft.testing.breaches import accept, expect, report_breaches

if TYPE_CHECKING:
    from zooft.contracts import Family, WeightsRecord, WeightsSource


_SHA256 = re.compile("[0-9a-f]{64}")


@report_breaches()
def check_weights(source: WeightsSource, family: Family) -> None:
    """What the source serves of a family's models loads strictly: every name and shape fits, but for the classifier's.

    Its words for where they come from are fit to stand in runs and ONNX files.

    Args:
        source: what the plugin registers.
        family: of which it serves models.
    """
    source, family = accept(source), accept(family)
    served = [model for model in call_plugin(source, "models") if model.startswith(f"{family.name}:")]
    place = place_of(source, "models")
    if not served:
        raise place.error(f"names no model of {family.name}; expected names such as {family.name}:MODEL")
    for reference in served:
        name = reference.partition(":")[2]
        if full_name(family, name) != name:
            raise place.error(f"names {reference}; expected the full name, {family.name}:{full_name(family, name)}")
        _check_record(source, reference, load_backbone(family, name, weights="pretrained", sources=[source]).weights)


def _check_record(source: WeightsSource, reference: str, record: WeightsRecord) -> None:
    """What runs and ONNX files will state as the weights' source."""
    place = place_of(source, "load")
    expect(
        record.kind == "plugin",
        f"the weights of {reference} come from the {record.kind} {record.source}, not from {source.name}; take "
        "ZOOFT_WEIGHTS out of the environment of this test",
    )
    if not record.source.strip():
        expected = "a few words on where the weights come from, such as a URL, or a package and its version"
        raise place.amiss(record.source, expected, what=f"the source of {reference}")
    if PurePosixPath(record.source).is_absolute() or PureWindowsPath(record.source).is_absolute():
        expected = "words without a path of this machine, since they are written into every run and ONNX file"
        raise place.amiss(record.source, expected, what=f"the source of {reference}")
    if record.file_sha256 is not None and not _SHA256.fullmatch(record.file_sha256):
        raise place.amiss(record.file_sha256, "64 hexadecimal digits, or None", what=f"the file_sha256 of {reference}")
