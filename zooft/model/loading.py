"""Tensors into a module, all of them or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.contracts.words import list_some
from zooft.errors import WeightsError
from zooft.model.checkpoint_names import beginnings

if TYPE_CHECKING:
    pass


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], *, without: Sequence[str], what: str) -> None:
    """Copy `tensors` into `module`, all of them or none.

    Args:
        module: the zoo's own.
        tensors: under the zoo's names.
        without: dotted names of modules that needn't match, the classifier.
        what: the tensors' origin, for the message.

    Raises:
        WeightsError: names or shapes differ; lists them.
    """
    own = module.state_dict()
    skip = tuple(f"{name}." for name in without)
    wanted = {name: t for name, t in own.items() if not name.startswith(skip)}
    given = {name: t for name, t in tensors.items() if not name.startswith(skip)}
    missing = [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")]
    foreign = [n for n in given if n not in wanted]
    shapes = [
        f"{n} is {tuple(given[n].shape)} instead of {tuple(wanted[n].shape)}"
        for n in wanted
        if n in given and given[n].shape != wanted[n].shape
    ]
    kinds = [
        f"{n} is {str(given[n].dtype).removeprefix('torch.')}"
        for n in wanted
        if n in given and given[n].is_floating_point() != wanted[n].is_floating_point()
    ]
    infinite = [n for n, t in given.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    faults = [
        list_names("of another kind of number", kinds),
        list_names("not finite", infinite),
        list_names("missing", missing),
        list_names("not in the model", foreign),
        list_names("of other shape", shapes),
    ]
    if any(faults):
        foreign_only = foreign and not wanted.keys() & given.keys()
        hint = f"; none of its names is the model's: they begin with {beginnings(foreign)}" if foreign_only else ""
        raise WeightsError(f"the weights from {what} don't fit the model: {'; '.join(f for f in faults if f)}{hint}")
    own.update(given)  # in place: the mapping carries versions of layouts, which some models insist on
    module.load_state_dict(own, strict=True)


def list_names(what: str, names: Sequence[str]) -> str:
    """How many names there are, and the first of them; nothing for none."""
    if not names:
        return ""
    return f"{len(names)} {what}: {list_some(names, 3)}"
