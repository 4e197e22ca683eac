"""In which precision a file's network computes, as the file states it.

Owns the entry of ``metadata_props``; a file without one is float32 throughout. One in lower precision belongs to the
float32 file that it was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from zooft.errors import RuntimeModelError

KEY = "zooft_precision"
Name = Literal["fp32", "fp16", "int8"]
NAMES: tuple[str, ...] = get_args(Name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What is stated of a file in lower precision.

    Attributes:
        name: ``int8`` or ``fp16``; ``fp32`` for a file that states nothing.
        source_sha256: of the float32 file that it was made from.
        calibration: how many training samples its ranges are of; 0 where it has none.
        operators: types that were quantised; empty for all that can be.
        left_out: names of layers that stayed in float32.
        layers: how many could be quantised.
        primary: the figure by which it was compared with the float32 file.
        max_drop: by how much that was allowed to be worse; where smaller figures are better, as a share of the float32
            file's.
    """

    name: str = "fp32"
    source_sha256: str = ""
    calibration: int = 0
    operators: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    layers: int = 0
    primary: str = ""
    max_drop: float = 0.0

    def to_properties(self) -> dict[str, str]:
        """As ``metadata_props``."""
        return {KEY: json.dumps(asdict(self), sort_keys=True)}


def parse(properties: Mapping[str, str]) -> Precision:
    """The inverse of `Precision.to_properties`.

    Raises:
        RuntimeModelError: the entry is damaged, or of a precision that this zooft doesn't know.
    """
    if KEY not in properties:
        return Precision()
    try:
        fields = json.loads(properties[KEY])
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        found = Precision(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise RuntimeModelError(
            f"what the ONNX file states of its precision is damaged ({error}); export it again"
        ) from error
    if found.name not in NAMES or not isinstance(found.max_drop, (int, float)):
        raise RuntimeModelError(
            f"the ONNX file states the precision {str(found.name)[:40]!r}; this zooft knows {', '.join(NAMES)}"
        )
    return found


def is_stale(path: Path, stated: Precision) -> bool:
    """Whether the float32 file beside a file in lower precision is another one than it was made from.

    Args:
        path: such as ``model.int8.onnx``; beside it, ``model.onnx`` is meant.
        stated: by the file.
    """
    ending = f".{stated.name}.onnx"
    source = path.with_name(path.name.removesuffix(ending) + ".onnx")
    if not stated.source_sha256 or not path.name.endswith(ending) or not source.is_file():
        return False
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() != stated.source_sha256


def refuse_stale(path: Path, stated: Precision) -> None:
    """Raise RuntimeModelError where `is_stale`: its answers would be those of an older model."""
    if is_stale(path, stated):
        raise RuntimeModelError(
            f"{path} was made from another float32 file than the one beside it, which has been exported anew since; "
            f"'zooft export RUN --precision {stated.name}' makes it again, or move it away from there if it is meant"
        )
