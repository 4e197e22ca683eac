"""What zooft wrote while all models told classes apart, as schema 3 has it: metadata of files, and what records of runs share with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

SCHEMA = 2
_DETAILS = ("per_class", "confusion", "group_confusion", "threshold", "at_threshold")
_UNFITTED = {"temperature": 1.0, "threshold": None, "fitted_on": ""}
_DATA = {"group_score": "group_rule", "classes": "counts"}
_LIMIT = 1e-2


def upgraded(whole: Mapping[str, Any], made: Collection[str]) -> dict[str, Any]:
    """The fields of schema 3.

    Args:
        whole: those of schema 2, as JSON has them.
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
        "fitted": fitted(calibration),
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
        {**each, "name": "probabilities", "measure": "absolute", "tolerance": _LIMIT, "meaning": f"of the classes in their order, by {activation}"},
        {**each, "name": "logits", "meaning": "divided by the temperature"},
    ]  # fmt: skip
    if "prediction" in made:
        found.append({
            **each, "name": "prediction", "dtype": "int64", "axes": ["batch"], "measure": "exact", "tolerance": 0.0,
            "meaning": "index of a class",
        })  # fmt: skip
    return found


def fitted(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What was fitted on validation data; nothing where everything was as it is by itself.

    Raises:
        KeyError: it isn't a temperature, a threshold, and words.
    """
    unknown = calibration.keys() - _UNFITTED.keys()
    if unknown:
        raise KeyError(f"calibration has {', '.join(sorted(unknown))}")
    return {} if {**_UNFITTED, **calibration} == _UNFITTED else dict(calibration)


def data(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the data."""
    return {_DATA.get(name, name): value for name, value in found.items()}


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Those of one split: tables and figures of classes stand by themselves now."""
    others = {key: value for key, value in found.items() if key not in _DETAILS}
    return {**others, "details": {key: found[key] for key in _DETAILS if key in found}}
