"""Reads schema 2, of classification alone, as schema 3: a file's metadata, and what run records share with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

SCHEMA = 2
_DETAILS = ("per_class", "confusion", "group_confusion", "threshold", "at_threshold")
_UNFITTED = {"temperature": 1.0, "threshold": None, "fitted_on": ""}
_DATA = {"group_score": "group_rule", "classes": "counts"}
_LIMIT = 1e-2


def upgrade(whole: Mapping[str, Any], made: Collection[str]) -> dict[str, Any]:
    """Convert metadata of schema 2 to schema 3.

    Args:
        whole: those of schema 2, as JSON values.
        made: the outputs of the file's graph.

    Raises:
        TypeError, KeyError, AttributeError: they aren't those of schema 2.
    """
    fields = dict(whole)
    classes, calibration = list(fields.pop("classes")), dict(fields.pop("calibration"))
    activation, rule = fields.pop("activation"), fields.pop("group_score")
    return {
        **fields,
        "problem": "classification",
        "labels": [{"name": "class", "categories": classes, "unit": ""}],
        "fitted": convert_fitted(calibration),
        "outputs": _outputs(activation, len(classes), made),
        "group_rule": rule,
        "data": data(fields["data"]),
        "metrics": {split: figures(found) for split, found in fields["metrics"].items()},
    }


def _outputs(activation: str, classes: int, made: Collection[str]) -> list[dict[str, Any]]:
    each: dict[str, Any] = {
        "dtype": "float32",
        "axes": ["batch", classes],
        "unit": "",
        "measure": "spread",
        "tolerance": 1e-4,
    }
    found = [
        {
            **each,
            "name": "probabilities",
            "measure": "absolute",
            "tolerance": _LIMIT,
            "meaning": f"of the classes in their order, by {activation}",
        },
        {**each, "name": "logits", "meaning": "divided by the temperature"},
    ]
    if "prediction" in made:
        found.append(
            {
                **each,
                "name": "prediction",
                "dtype": "int64",
                "axes": ["batch"],
                "measure": "exact",
                "tolerance": 0.0,
                "meaning": "index of a class",
            }
        )
    return found


def convert_fitted(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What was fitted on validation data, without values that are the default.

    Raises:
        KeyError: it has other fields than a temperature, a threshold, and words.
    """
    unknown = calibration.keys() - _UNFITTED.keys()
    if unknown:
        raise KeyError(f"calibration has {', '.join(sorted(unknown))}")
    return {} if {**_UNFITTED, **calibration} == _UNFITTED else dict(calibration)


def data(found: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the data."""
    return {_DATA.get(name, name): value for name, value in found.items()}


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one split: tables and figures per class are separate fields in schema 3."""
    others = {key: value for key, value in found.items() if key not in _DETAILS}
    return {**others, "details": {key: found[key] for key in _DETAILS if key in found}}
