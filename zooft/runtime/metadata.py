"""The metadata of an exported file, in ONNX ``metadata_props``.

Owns the schema, which versions of it are read, and what to do about the others: one JSON text under ``zooft``, and the
same facts under the keys that other tools read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zooft.contracts import Label, Output, Port
from zooft.errors import RuntimeModelError
from zooft.hooks import guard
from zooft.runtime import schema_2, schemas

KEY = "zooft"
SCHEMA = 3
READABLE = (schema_2.SCHEMA, SCHEMA)
"""Schemas whose files work here."""
_SHOWN = 60
"""Characters of a value that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Everything a caller needs to use the file, and where it comes from; no path, host or person.

    Attributes:
        version: of the zooft that wrote it.
        task: ``PLUGIN/NAME``.
        options: the task's own, as far as they affect reading samples.
        problem: the kind of prediction, such as ``classification``.
        labels: the meaning of the outputs.
        outputs: of the graph, in order.
        fitted: what was fitted on validation data, inside the graph.
        ports: the inputs.
        group_rule: how the samples of a group, such as a patient, are combined into one prediction.
        preprocessing: what the graph does to its input, in words.
        backbone: ``family:full_name``, and how much of it was pruned.
        weights: what the pretrained weights were: kind, source, licence, SHA-256.
        weights_sha256: of the tensors in this file.
        data: fingerprint and counts of the training data.
        metrics: on held-out samples, with the split's name.
        intended_use: in the task's words.
        schema: the one that it was read from; the newest is always written.
    """

    version: str
    task: str
    options: Mapping[str, Any]
    problem: str
    labels: tuple[Label, ...]
    outputs: tuple[Output, ...]
    fitted: Mapping[str, Any]
    ports: tuple[Port, ...]
    group_rule: str
    preprocessing: str
    backbone: str
    weights: Mapping[str, Any]
    weights_sha256: str
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    intended_use: str
    schema: int = SCHEMA

    def to_properties(self, others: Mapping[str, str]) -> dict[str, str]:
        """As ``metadata_props``: zooft's own, the problem's for other tools, and the ONNX specification's image keys.

        Args:
            others: as `DeploymentPart.properties` gives them.
        """
        whole = {**asdict(self), "schema": SCHEMA}
        properties = {
            **others,
            KEY: json.dumps(whole, sort_keys=True, ensure_ascii=False),
            "task": self.task.rpartition("/")[2],
            "backbone_license": str(self.weights.get("licence") or "unknown"),
        }
        if self.ports[0].dtype == "uint8" and self.ports[0].axes[-1] == 3:
            properties |= {
                "Image.BitmapPixelFormat": "Rgb8",
                "Image.ColorSpaceGamma": "SRGB",
                "Image.NominalPixelRange": "NominalRange_0_255",
            }
        return properties


def parse(properties: Mapping[str, str], made: Collection[str] = ()) -> Metadata:
    """The inverse of `Metadata.to_properties`.

    Args:
        properties: the file's ``metadata_props``.
        made: the outputs of the file's graph, which older metadata doesn't list.

    Raises:
        RuntimeModelError: zooft didn't write the file, it is damaged, or has another schema.
    """
    if KEY not in properties:
        raise RuntimeModelError(
            "the ONNX file has no zooft metadata, so the meaning of its outputs and its preprocessing are unknown; "
            "give a file that 'zooft export' wrote"
        )
    try:
        whole = json.loads(properties[KEY])
        schema = whole.pop("schema")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damage_error(f"no JSON object with a schema ({error})") from error
    _check_schema(schema, whole)
    try:
        fields = schema_2.upgrade(whole, made) if schema == schema_2.SCHEMA else whole
        found = _metadata(fields, schema)
    except (TypeError, KeyError, AttributeError) as error:
        raise _damage_error(f"its fields aren't those of schema {schema} ({error})") from error
    misfit = guard.misfit_of(found)
    if misfit is not None:
        raise _damage_error(
            f"{misfit.where} is {json.dumps(misfit.came, default=str)[:_SHOWN]}, expected {misfit.expected}"
        )
    return found


def _metadata(fields: Mapping[str, Any], schema: int) -> Metadata:
    """`Metadata` from JSON values.

    Raises:
        TypeError, KeyError, AttributeError: they aren't those of `Metadata`.
    """
    return Metadata(
        **{
            **fields,
            "labels": tuple(Label(**{**label, "categories": tuple(label["categories"])}) for label in fields["labels"]),
            "outputs": tuple(Output(**{**output, "axes": tuple(output["axes"])}) for output in fields["outputs"]),
            "ports": tuple(Port(**{**port, "axes": tuple(port["axes"])}) for port in fields["ports"]),
            "schema": schema,
        }
    )


def _check_schema(schema: Any, whole: Mapping[str, Any]) -> None:
    if not isinstance(schema, int):
        raise _damage_error(f"schema is {json.dumps(schema)[:_SHOWN]}, expected a whole number")
    subject, again = "the ONNX file has metadata", "train and export again"
    if why := schemas.refusal(subject, schema, READABLE, version=whole.get("version"), again=again):
        raise RuntimeModelError(why)


def _damage_error(how: str) -> RuntimeModelError:
    return RuntimeModelError(
        f"the ONNX file's zooft metadata is damaged: {how}; something has changed it since 'zooft export' wrote it: "
        "export it again"
    )
