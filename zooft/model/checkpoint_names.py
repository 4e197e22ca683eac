"""Names in checkpoints that others wrote: what wrappers put before a model's own names, taken off again.

torch.compile writes ``_orig_mod.``, data parallel training ``module.``, Lightning the attribute's name, such as
``model.``, and averaging a counter beside the tensors. What is left must still fit the model strictly; that is
`model`'s to check.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that only wrappers write: torch.compile's, and those of torch's sharding and checkpointing.

At any depth.
"""
_COUNTER = "n_averaged"
"""What ``torch.optim.swa_utils.AveragedModel`` counts beside the tensors."""


@dataclass(frozen=True, slots=True)
class OwnNames:
    """A checkpoint's names as the model has them.

    Attributes:
        names: as written to as the model has them; what isn't the model's is left out.
        taken_off: what was left out of the names, in words; empty where they fitted as they were.
    """

    names: Mapping[str, str]
    taken_off: tuple[str, ...]


def own_names(written: Collection[str], expected: Collection[str]) -> OwnNames:
    """Take off what wrappers wrote, and then one prefix that all names share, where a name then fits.

    Args:
        written: the checkpoint's names.
        expected: the model's.
    """
    wanted = set(expected)
    if any(name in wanted for name in written):
        return OwnNames({name: name for name in written}, ())
    bare = {name: _without_wrappers(name) for name in written if name != _COUNTER}
    prefix = ""
    while bare and not any(name[len(prefix) :] in wanted for name in bare.values()):
        first = {name[len(prefix) :].partition(".")[0] for name in bare.values()}
        if len(first) > 1 or any("." not in name[len(prefix) :] for name in bare.values()):
            return OwnNames({name: name for name in written}, ())
        prefix += first.pop() + "."
    wrappers = [part for part in _WRAPPERS if any(part in name.split(".") for name in written)]
    counter = [_COUNTER] if _COUNTER in written else []
    taken_off = (*(f"{part}." for part in wrappers), *([prefix] if prefix else []), *counter)
    return OwnNames({name: short[len(prefix) :] for name, short in bare.items()}, taken_off)


def beginnings(names: Iterable[str]) -> str:
    """What names begin with and how many do, the most frequent first: ``model (60), criterion (1)``."""
    counted = Counter(name.partition(".")[0] for name in names).most_common(4)
    return ", ".join(f"{first} ({count})" for first, count in counted)


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
