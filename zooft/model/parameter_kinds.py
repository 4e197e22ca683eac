"""What kinds of parameters the stages of a model hold: norms, biases and the rest, as freezers see them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from zooft.contracts import ParameterInfo, StageInfo

_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norms of all dimensions
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_NORM_NAME = re.compile("norm(?!al)|abn", re.IGNORECASE)
"""Zoos write norms that don't derive from torch's, such as timm's RmsNorm, EvoNorm2dS0 and InplaceAbn."""
_BIAS_NAME = re.compile(r"bias|bias_.+|.+_bias")
"""Such as bias, in_proj_bias, q_bias, bias_ih_l0."""


def stage_infos(trunk: nn.Module, stages: Mapping[str, Sequence[str]]) -> tuple[StageInfo, ...]:
    """Each stage with what is known of its parameters.

    Args:
        trunk: holds them.
        stages: stage to the names of its parameters.
    """
    return tuple(
        StageInfo(stage, [parameter_info(trunk, name) for name in parameters]) for stage, parameters in stages.items()
    )


def parameter_info(trunk: nn.Module, name: str) -> ParameterInfo:
    """What is known of the parameter of `trunk` that is called `name`."""
    holder, _, leaf = name.rpartition(".")
    module = trunk.get_submodule(holder)
    shape = tuple(module.get_parameter(leaf).shape)
    vector = max(shape, default=1) == module.get_parameter(leaf).numel()
    return ParameterInfo(
        name=name,
        shape=shape,
        layer=type(module).__name__,
        norm=vector and is_norm(module),
        bias=vector and _BIAS_NAME.fullmatch(leaf) is not None,
    )


def is_norm(module: nn.Module) -> bool:
    """Whether a layer normalises: by torch's classes, or by what its own class is called."""
    return isinstance(module, _NORMS) or _NORM_NAME.search(type(module).__name__) is not None
