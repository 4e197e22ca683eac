"""A model zoo, as types: its models, how they are built, their weights, and the input that they want."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zooft.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

Interpolation = Literal["bilinear", "bicubic"]


ResizeMode = Literal["crop", "stretch", "letterbox"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a backbone wants to see.

    Attributes:
        height: rows of the network's input, pixels.
        width: columns of the network's input, pixels.
        resize: pixels; in mode ``crop`` the shorter side is resized to this before the centre is cut out.
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
        interpolation: the filter of the antialiased resize.
        mode: ``crop`` (shorter side to ``resize``, centre crop), ``stretch`` (both sides to the input's),
            ``letterbox`` (longer side to the input's, padded with black).
    """

    height: int
    width: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    mode: ResizeMode = "crop"

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a trunk, in terms of the zoo's own module.

    Attributes:
        parts: dotted names of the submodules, parameters and buffers of the zoo's module that the stage owns.
        forward: ``(module, x) -> y``; None runs the parts one after the other. It takes the zoo's module as an
            argument, so that a copied model runs its own tensors.
    """

    parts: tuple[str, ...]
    forward: Callable[[Any, Tensor], Tensor] | None = None

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """Run the stage of `module` on `x`."""
        if self.forward is not None:
            return self.forward(module, x)
        for part in self.parts:
            x = module.get_submodule(part)(x)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """How a zoo's module is built: its stages, its classifier, the input that it was trained on.

    Attributes:
        stages: name to stage, shallow to deep; run in this order they are the trunk's forward,
            ``(N, C, H, W) -> (N, width)``.
        classifier: dotted names of the modules that are replaced (two for distilled transformers).
        input: as the weights were trained.
        first_convolution: dotted name of the convolution that sees the image; None where other channel
            counts aren't supported.
    """

    stages: Mapping[str, Stage]
    classifier: tuple[str, ...]
    input: InputSpec
    first_convolution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """A zoo's tensors and where they come from.

    Attributes:
        tensors: the zoo's parameter names to tensors.
        source: what a reader of the run should know: a URL, a package and its version, a file's name.
        licence: SPDX identifier or the zoo's own words; None where unknown.
        file_sha256: of the file they were read from, hexadecimal, where there was one.
    """

    tensors: Mapping[str, Tensor]
    source: str
    licence: str | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """What a run remembers of the weights it started from."""

    kind: Literal["file", "folder", "plugin", "zoo", "random"]
    source: str
    licence: str | None
    file_sha256: str | None
    tensors_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedSizes:
    """In what sizes a pruned module differs from the zoo's: enough to build it again for weights to be loaded.

    Attributes:
        tensors: the zoo's names of parameters and buffers to their shapes.
        attributes: the zoo's names of modules to their sizes, such as ``out_channels``.
    """

    tensors: Mapping[str, tuple[int, ...]]
    attributes: Mapping[str, Mapping[str, int | tuple[int, ...]]]


def _same_name(name: str) -> str:
    return name


def _never(_name: str) -> bool:
    return False


def _nowhere(_name: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model zoo behind a prefix: ``--backbone NAME:MODEL``.

    Attributes:
        name: the prefix.
        summary: one line for ``zooft backbones``.
        models: all model names, shortest import possible.
        build: a model by full name, the zoo's own module with its classifier, random weights. Parameters that it builds
            with ``requires_grad=False`` are never trained.
        anatomy: the map of such a module.
        pretrained: the zoo's own weights, downloading if need be; None where the zoo has none.
        aliases: short names for full ones.
        canonical: a model's full name with its default weights tag; raises KeyError for unknown ones. Without it, a
            full name is one that `models` has.
        at_hand: whether ``pretrained`` would need no network.
        local: the weights file of a model whose name, as it is typed, holds where it lies on this machine; `canonical`
            gives a name for it that doesn't, and that is enough to build it elsewhere.
    """

    name: str
    summary: str
    models: Callable[[], Iterable[str]]
    build: Callable[[str], nn.Module]
    anatomy: Callable[[str, nn.Module], Anatomy]
    pretrained: Callable[[str], LoadedWeights] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    canonical: Callable[[str], str] = _same_name
    at_hand: Callable[[str], bool] = _never
    local: Callable[[str], Path | None] = _nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """A place besides the zoos that has pretrained weights, such as an installed package.

    Attributes:
        name: for ``zooft plugins`` and the run's record.
        summary: one line.
        models: which ``family:full_name`` it serves at this moment; cheap.
        load: the weights of one of them, under the zoo's parameter names. `expected` maps the zoo's
            names to shapes, in the zoo's order.
    """

    name: str
    summary: str
    models: Callable[[], Iterable[str]]
    load: Callable[[str, Mapping[str, tuple[int, ...]]], LoadedWeights]


def parse_reference(text: str) -> tuple[str, str]:
    """Split ``family:model``.

    Raises:
        ConfigError: there is no colon, or nothing on one of its sides.
    """
    family, colon, model = text.partition(":")
    if not (family and colon and model):
        raise ConfigError(
            f"a backbone is named FAMILY:MODEL, but {text!r} was given; for example timm:vit_base "
            "or torchvision:resnet18 ('zooft backbones' lists them)"
        )
    return family, model
