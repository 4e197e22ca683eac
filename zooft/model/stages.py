"""Stages hold every tensor exactly once and compose to the trunk: checked, and who owns what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.errors import ModelError
from zooft.model.loading import list_names

if TYPE_CHECKING:
    from zooft.contracts import InputSpec, Stage

_TOLERANCE = 1e-4


def owners(names: Iterable[str], stages: Mapping[str, Stage]) -> dict[str, tuple[str, ...]]:
    """Which stages own each tensor or submodule: those that list it or something that it lies in, as a part."""
    listed: dict[str, list[str]] = {}
    for stage_name, stage in stages.items():
        for part in stage.parts:
            listed.setdefault(part, []).append(stage_name)
    found = {}
    for name in names:
        pieces = name.split(".")
        around = (".".join(pieces[: i + 1]) for i in range(len(pieces)))
        found[name] = tuple(dict.fromkeys(stage for part in around for stage in listed.get(part, ())))
    return found


def check_ownership(name: str, module: nn.Module, stages: Mapping[str, Stage]) -> None:
    """Raise ModelError where a tensor is in no stage, or in several."""
    found = owners(module.state_dict(), stages)
    orphans = [tensor for tensor, owned_by in found.items() if not owned_by]
    shared = [f"{tensor} ({' and '.join(o)})" for tensor, o in found.items() if len(o) > 1]
    if orphans or shared:
        faults = [list_names("in no stage", orphans), list_names("in several stages", shared)]
        raise ModelError(f"the stages of {name} don't hold every tensor once: {'; '.join(f for f in faults if f)}")


def check_composition(name: str, module: nn.Module, stages: Mapping[str, Stage], spec: InputSpec) -> int:
    """The width; the trunk is run as the zoo runs it and stage by stage, and both must agree; on meta, their shapes."""
    module.eval()
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, spec.channels, spec.height, spec.width, generator=generator, device="cpu")
    image = image.to(_device(module))
    with torch.inference_mode():
        try:
            whole = module(image)
        except Exception as error:  # plugin code
            raise ModelError(f"{name} doesn't run on an image: {type(error).__name__}: {error}") from error
        staged = _run_stages(name, module, stages, image)
    if not isinstance(whole, Tensor) or whole.ndim != 2 or staged.shape != whole.shape:
        got = (
            f"{tuple(staged.shape)} against {tuple(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__}"
        )
        raise ModelError(f"the trunk of {name} should give (N, width), stage by stage and whole; it gives {got}")
    if not whole.is_meta and not bool(torch.isfinite(whole).all()):
        raise ModelError(f"{name} gives numbers that aren't finite for noise; are all of its weights initialised?")
    if not whole.is_meta and not torch.allclose(
        staged, whole, rtol=_TOLERANCE, atol=_TOLERANCE * float(whole.abs().max())
    ):
        worst = float((staged - whole).abs().max())
        raise ModelError(f"the stages of {name} don't compose to its trunk: they differ by {worst:.2g}")
    return int(whole.shape[1])


def _run_stages(name: str, module: nn.Module, stages: Mapping[str, Stage], x: Tensor) -> Tensor:
    """What leaves the last stage."""
    for key, stage in stages.items():
        try:
            x = stage(module, x)
        except Exception as error:  # plugin code
            raise ModelError(f"the stages of {name} don't run: {key}: {type(error).__name__}: {error}") from error
        if not isinstance(x, Tensor):
            raise ModelError(f"the stage {key} of {name} gives {type(x).__name__}, expected a tensor")
    return x


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
