"""Builds a family's module, reads its anatomy, and checks both."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import nn

from zooft.contracts import Family
from zooft.hooks.guard import call_plugin, code_of, place_of
from zooft.model import weights as weight_files
from zooft.model.skip_init import skip_init

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Anatomy, InputSpec, WeightsSource


_SCALE = "on the scale 0..1 of pixels; what is given for 0..255 is to be divided by 255"


def weight_places(
    family: Family, full: str, sources: Sequence[WeightsSource], *, folder: Path | None
) -> weight_files.Places:
    """Where weights of a model may lie."""
    return weight_files.Places(family=family, model=full, sources=sources, folder=folder)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The zoo's names of tensors to their shapes."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def build_module(family: Family, name: str, *, drawn: bool = True) -> nn.Module:
    """The zoo's module; with random values only if `drawn`, since others will be loaded."""

    def build() -> nn.Module:
        module: nn.Module = call_plugin(family, "build", name, doing=f"to build {name}")
        return module

    return build() if drawn else skip_init(build)


def read_anatomy(family: Family, name: str, module: nn.Module) -> Anatomy:
    """The family's map of a module, its names and its input checked."""
    anatomy: Anatomy = call_plugin(family, "anatomy", name, module, doing=f"to describe {name}")
    _check_names(family, name, module, anatomy)
    _check_input(family, anatomy.input)
    return anatomy


def _check_input(family: Family, spec: InputSpec) -> None:
    """Raise PluginError where no image can be brought to the input that the map of a module describes."""
    positive = {name: getattr(spec, name) for name in ("height", "width", "resize")}
    positive |= {f"std[{i}]": value for i, value in enumerate(spec.std)}
    wrong = [(what, value, "a finite number above 0") for what, value in positive.items() if not 0 < value < math.inf]
    wrong += [(f"mean[{i}]", value, f"a number {_SCALE}") for i, value in enumerate(spec.mean) if not 0 <= value <= 1]
    wrong += [(f"std[{i}]", value, f"a number {_SCALE}") for i, value in enumerate(spec.std) if value > 1]
    if len(spec.mean) != len(spec.std) or not spec.mean:
        wrong.append(("std", spec.std, f"as many numbers as mean has, {len(spec.mean)}, one a channel"))
    for what, value, expected in wrong[:1]:
        raise place_of(family, "anatomy").amiss(value, expected, what=f"input.{what}", code=code_of(family, "anatomy"))


def _check_names(family: Family, name: str, module: nn.Module, anatomy: Anatomy) -> None:
    """Raise PluginError where the map of a module names something that it doesn't have."""
    place, code = place_of(family, "anatomy"), code_of(family, "anatomy")
    modules = {inner for inner, _ in module.named_modules() if inner}
    named = {f"classifier[{i}]": (one, modules) for i, one in enumerate(anatomy.classifier)}
    if anatomy.first_convolution is not None:
        named["first_convolution"] = (anatomy.first_convolution, modules)
    for key, stage in anatomy.stages.items():
        if stage.forward is None:  # else its parts may be all that models of its kind have
            named |= {f"stages[{key!r}].parts[{i}]": (part, modules) for i, part in enumerate(stage.parts)}
    for field, (given, known) in named.items():
        if given not in known:
            raise place.amiss(given, _a_name_of(name, given, known), what=field, code=code)
    if not anatomy.classifier:
        raise place.amiss(
            anatomy.classifier, f"the name of the module of {name} to be replaced", what="classifier", code=code
        )


def _a_name_of(model: str, given: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(given, sorted(known), n=3, cutoff=0.3)
    return f"the name of a module of {model}" + (f", such as {' or '.join(near)}" if near else "")


def check_first_convolution(family: Family, name: str, module: nn.Module, anatomy: Anatomy) -> nn.Conv2d:
    """The convolution that sees the image.

    Raises:
        PluginError: the map of the module names none, or something else.
    """
    place, code, given = place_of(family, "anatomy"), code_of(family, "anatomy"), anatomy.first_convolution
    modules = dict(module.named_modules())
    if given not in modules or not given:
        raise place.amiss(given, _a_name_of(name, str(given), modules), what="first_convolution", code=code)
    found = modules[given]
    if not isinstance(found, nn.Conv2d):
        raise place.amiss(type(found).__name__, "a torch.nn.Conv2d", what=f"first_convolution, {given},", code=code)
    if found.in_channels != anatomy.input.channels:
        expected = f"the convolution that sees the image, which has {anatomy.input.channels} channels"
        raise place.amiss(
            found.in_channels, expected, what=f"the in_channels of first_convolution, {given},", code=code
        )
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
