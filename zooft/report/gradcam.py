"""Grad-CAM over the network's input, for convolutions and transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from zooft.data import samples
from zooft.features import SampleDataset, reader
from zooft.model import taps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts import Answer, Arrays, InputSpec, Sample
    from zooft.deploy.saved import SavedRun
    from zooft.model.adapted import AdaptedModel

    _Interrupted = tuple[
        nn.Module, nn.Module, Tensor
    ]  # the module that takes the features, the layer that captum hooks, the features

_MOST_LAYERS = 6
"""Layers that are tried, deepest first.

Of stages the last ones, of layers within them some of all, as neighbours are alike.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCam:
    """The network's input, and which of its pixels contributed to the prediction.

    Attributes:
        picture: the network's input for people, ``(H, W)`` or ``(H, W, 3)`` uint8; of a bag, one instance.
        heat: ``(H, W)`` float32 in 0..1, for the same pixels.
        words: the explained quantity, such as the predicted class.
        instance: of a bag, the number of the instance that contributed most; None otherwise.
        against: whether no place supports it, and the heat is where it is contradicted least.
    """

    picture: NDArray[np.uint8]
    heat: NDArray[np.float32]
    words: str
    instance: int | None = None
    against: bool = False


def grad_cam(
    saved: SavedRun, sample: Sample, row: Mapping[str, Any], *, answer: Answer | None = None
) -> GradCam | None:
    """Grad-CAM (Selvaraju et al. 2017), by captum, of the number that the problem explains, such as the class's logit.

    Taken at the deepest stage whose output still has places in the image and on which that number depends, or at the
    deepest layer within a stage; the class token of a transformer doesn't depend on the patches of its last block, so
    there it is the block before.

    Args:
        saved: a run, opened.
        sample: what to explain.
        row: its columns, as predicted.
        answer: of several at once, the one that is explained; `row` has its columns alone.

    Returns:
        None where the problem explains nothing, or where no stage's output has places: a backbone that is one stage
        without a usable convolution.
    """
    from captum.attr import LayerAttribution

    scalar = _scalar(saved, row, answer)
    if scalar is None:
        return None
    model, spec = saved.model, saved.input
    x = _network_input(saved, sample)
    with torch.enable_grad():
        found = _attribution(model, spec, x[None].requires_grad_(), scalar)
    if found is None:
        return None
    against = float(found.max()) <= 0
    if against:
        found = found - found.amin((1, 2, 3), keepdim=True)
    grown = LayerAttribution.interpolate(found, tuple(x.shape[-2:]), interpolate_mode="bilinear")[:, 0]
    strongest = int(found.flatten(1).sum(1).argmax())
    chosen = grown[strongest].cpu().numpy().astype(np.float32)
    most = float(chosen.max())
    shown = x if saved.task.redact is None else _network_input(saved, sample, redact=saved.task.redact)
    seen = shown[strongest] if model.bag else shown
    return GradCam(
        picture=_picture(seen.detach().cpu(), spec, grey=_is_grey(saved, sample)),
        heat=chosen / most if most > 0 else np.zeros_like(chosen),
        words=scalar.words,
        instance=strongest if model.bag else None,
        against=against,
    )


def _scalar(saved: SavedRun, row: Mapping[str, Any], answer: Answer | None) -> _Scalar | None:
    problem, labels = (saved.problem, saved.record.labels) if answer is None else (answer.problem, answer.labels)
    explained = problem.presentation.explained
    if explained is None:
        return None
    return _Scalar(lambda outputs: explained(outputs if answer is None else answer.outputs(outputs), row, labels))


class _Scalar:
    """The number that is explained, of the head's outputs of one sample."""

    def __init__(self, explained: Callable[[Mapping[str, Tensor]], tuple[Tensor, str]]) -> None:
        self._explained, self.words = explained, ""

    def __call__(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """``(1,)``."""
        found, self.words = self._explained(outputs)
        return found.reshape(1)


def _network_input(saved: SavedRun, sample: Sample, *, redact: Callable[[Arrays, Any], Arrays] | None = None) -> Tensor:
    device, read = next(saved.model.parameters()).device, reader(saved.task, saved.options)
    views = SampleDataset(
        (sample,),
        read=read if redact is None else lambda each: redact(read(each), saved.options),
        preprocess=saved.task.preprocess(saved.input, saved.options),
        encode=bool,  # targets may not be stackable, and aren't used
    )
    return views[0][0].to(device)


def _is_grey(saved: SavedRun, sample: Sample) -> bool:
    return samples.show(saved.task, saved.options, sample).ndim == 2


def _picture(x: Tensor, spec: InputSpec, *, grey: bool) -> NDArray[np.uint8]:
    """A network's input ``(C, H, W)`` with the normalisation undone; for a grey sample the middle channel."""
    array = x.numpy() * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]
    levels: NDArray[np.uint8] = (255 * np.clip(array, 0, 1)).round().astype(np.uint8)
    return levels[len(levels) // 2] if grey or len(levels) != 3 else np.moveaxis(levels, 0, -1)


def _attribution(model: AdaptedModel, spec: InputSpec, x: Tensor, scalar: _Scalar) -> Tensor | None:
    """``(instances, 1, h, w)``, not negative, from the deepest layer at which a place supports the prediction.

    Where there is none, the contradiction, not positive, from the deepest layer at which places differ.
    """
    from captum.attr import LayerGradCam

    against: Tensor | None = None
    for network, layer, given in _layers(model, spec, x, scalar):
        found: Tensor = LayerGradCam(network, layer).attribute(given).detach()
        if float(found.max()) > 0:
            return torch.relu(found)
        if against is None or float(against.amax() - against.amin()) == 0:
            against = found
    return against


def _layers(model: AdaptedModel, spec: InputSpec, x: Tensor, scalar: _Scalar) -> Iterator[_Interrupted]:
    """The model interrupted where its features have places, deepest first: behind stages, then within them.

    Within them where no stage's output supports the prediction: a class token that mixes with the patches only inside
    the last stage, as in CaiT, leaves its output patches without influence.
    """
    behind: list[tuple[int, Tensor]] = []
    out = x
    with torch.no_grad():  # no gradient is needed before the explained layer
        for number, name in enumerate(model.stages, 1):
            out = model.run(out, [name])
            if taps.tap_of(name, (out.flatten(0, 1) if model.bag else out).shape, spec):
                behind.append((number, out))
    if not model.readings:  # else the head reads more than what leaves one stage
        yield from (_behind_stage(model, spec, scalar, stop, out) for stop, out in reversed(behind[-_MOST_LAYERS:]))
    inner = _inner_layers(model, spec, x, scalar)
    spread = np.linspace(len(inner) - 1, 0, min(_MOST_LAYERS, len(inner))).round().astype(int)
    yield from (_behind_layer(model, spec, scalar, inner[number], x) for number in spread)


def _behind_stage(model: AdaptedModel, spec: InputSpec, scalar: _Scalar, stop: int, out: Tensor) -> _Interrupted:
    def run(features: Tensor, here: nn.Module) -> Tensor:
        flat = features.flatten(0, 1) if model.bag else features
        return scalar(model(_through(flat, here, spec).reshape(features.shape), stop))

    return *_interrupt(run), out.detach().requires_grad_()


def _behind_layer(model: AdaptedModel, spec: InputSpec, scalar: _Scalar, layer: nn.Module, x: Tensor) -> _Interrupted:
    def run(image: Tensor, here: nn.Module) -> Tensor:
        hook = layer.register_forward_hook(lambda _module, _in, out: _through(out, here, spec))
        try:
            return scalar(model(image))
        finally:
            hook.remove()

    return *_interrupt(run), x


def _interrupt(run: Callable[[Tensor, nn.Module], Tensor]) -> tuple[nn.Module, nn.Module]:
    """A module around `run`, and the identity in it that passes features as ``(N, C, h, w)``, for captum to hook."""

    class Interrupted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.here = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return run(x, self.here)

    whole = Interrupted().eval()
    return whole, whole.here


def _through(out: Tensor, here: nn.Module, spec: InputSpec) -> Tensor:
    """The same features, having passed `here` as ``(N, C, h, w)``, class and register tokens left aside."""
    tap = taps.tap_of("", out.shape, spec)
    assert tap is not None  # noqa: S101 -- only such features are chosen
    return taps.from_map(here(taps.as_map(out, tap)), out, tap)


def _inner_layers(model: AdaptedModel, spec: InputSpec, x: Tensor, scalar: _Scalar) -> list[nn.Module]:
    """Layers of the deeper half whose output has places on which the prediction depends, in the order they run."""
    ran: list[tuple[nn.Module, Tensor]] = []
    instances = x.shape[0] * x.shape[1] if model.bag else x.shape[0]  # layers over patches or windows have more rows

    def note(module: nn.Module, _given: Any, out: Any) -> None:
        if (
            isinstance(out, torch.Tensor)
            and out.requires_grad
            and len(out) == instances
            and taps.tap_of("", out.shape, spec)
        ):
            ran.append((module, out))

    hooks = [module.register_forward_hook(note) for module in model.trunk.modules() if module is not model.trunk]
    try:
        number = scalar(model(x))
    finally:
        for hook in hooks:
            hook.remove()
    deeper = ran[len(ran) // 2 :]
    gradients = torch.autograd.grad(number, [out for _, out in deeper], allow_unused=True) if deeper else ()
    return [module for (module, _), gradient in zip(deeper, gradients, strict=True) if _depends(gradient, spec)]


def _depends(gradient: Tensor | None, spec: InputSpec) -> bool:
    """Whether a gradient is other than zero at some patch."""
    if gradient is None:
        return False
    tap = taps.tap_of("", gradient.shape, spec)
    before = tap.prefix_tokens if tap else 0
    return bool((gradient[:, before:] != 0).any())
