"""A head, tried on features of one width and of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.deploy import conversion
from zooft.errors import ExportError
from zooft.hooks.guard import ask, place_of
from zooft.model.adapted import adapt
from zooft.testing.breaches import TOLERANCE, accepted, conforming, difference

if TYPE_CHECKING:
    from zooft.contracts import Head
    from zooft.hooks.guard import Place

_WIDTH = 16
_OUTPUTS = 3


@conforming()
def check_head(head: Head) -> None:
    """``(N, width) -> (N, outputs)``, or ``(N, Z, width)`` for a bag, finite, with gradients to all that learns and to the features.

    A parameter that is to stay as it was drawn is marked with ``requires_grad_(False)``, or is a buffer. In evaluation mode a sample
    gets the same answer twice, and whatever other samples are in its batch, and nothing in the module changes. A bag may have one
    instance. The ONNX graph answers as torch does, for other numbers of samples and instances than it was made with.
    """
    head = accepted(head)
    place = place_of(head, "build")
    module: nn.Module = ask(head, "build", _WIDTH, _OUTPUTS)
    _check_gradients(place, module, _features(head, 5, 7))
    module.eval()
    with torch.no_grad():
        _check_evaluation(place, module, _features(head, 5, 7))
        if head.reads == "bag":
            _logits(place, module, _features(head, 2, 1))
    _check_graph(place, module, head)
    adapt(_stub(9), head, {"logits": 2})


def _features(head: Head, samples: int, instances: int) -> Tensor:
    shape = (samples, instances, _WIDTH) if head.reads == "bag" else (samples, _WIDTH)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _check_gradients(place: Place, module: nn.Module, x: Tensor) -> None:
    """Everything that learns has a gradient, and so have the features, without which nothing learns in front of the head."""
    x = x.requires_grad_()
    learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    logits = _logits(place, module, x)
    if not learning:
        raise place.error("gives a module with no parameter that learns; expected at least one")
    if logits.requires_grad:
        logits.square().mean().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, parameter in learning.items() if parameter.grad is None]
    if idle:
        raise place.error(
            f"gives a module that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False), or "
            "hold it as a buffer"
        )
    if x.grad is None or not bool(x.grad.any()):
        raise place.error(
            "gives a module whose answer doesn't depend on the features, or that detaches them; stages in front of it couldn't learn"
        )


def _check_evaluation(place: Place, module: nn.Module, x: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wanted = _logits(place, module, x)
    if difference(_logits(place, module, x), wanted) > 0:
        raise place.error("gives a module that answers one sample in two ways in evaluation mode, such as by dropout")
    if difference(module(x[:1]), wanted[:1]) > TOLERANCE:
        raise place.error("gives a module that answers a sample by the others in its batch in evaluation mode")
    changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
    if changed:
        raise place.error(
            f"gives a module that changes {', '.join(changed)} in evaluation mode; change it in training mode only"
        )


def _check_graph(place: Place, module: nn.Module, head: Head) -> None:
    import onnxruntime

    axes = {0: "samples", 1: "instances"} if head.reads == "bag" else {0: "samples"}
    try:
        proto = conversion.convert(module, [_features(head, 2, 6)], inputs=["x"], outputs=["y"], axes=[axes])
    except ExportError as error:
        why = str(error).removeprefix("torch's exporter can't export this backbone: ")
        raise place.error(f"gives a module that can't be written as ONNX: {why}") from error
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for samples, instances in ((1, 4), (5, 9)):
        x = _features(head, samples, instances)
        with torch.no_grad():
            wanted = module(x)
        (got,) = session.run(None, {"x": x.numpy()})
        worst = difference(torch.from_numpy(got), wanted)
        if worst > 10 * TOLERANCE:
            raise place.error(
                f"gives a module whose ONNX graph answers {tuple(x.shape)} otherwise than torch does: by {worst:.1e}"
            )


def _logits(place: Place, module: nn.Module, x: Tensor) -> Tensor:
    try:
        logits = module(x)
    except Exception as error:  # plugin code
        words = f"gives a module that fails on {tuple(x.shape)}: {type(error).__name__}: {error}"
        raise place.error(words) from error
    expected = f"a finite tensor {(len(x), _OUTPUTS)}"
    if not isinstance(logits, Tensor):
        raise place.amiss(logits, expected, what="what its module makes")
    if tuple(logits.shape) != (len(x), _OUTPUTS):
        raise place.amiss(tuple(logits.shape), expected, what=f"the shape of what its module makes of {tuple(x.shape)}")
    if not bool(torch.isfinite(logits).all()):
        raise place.error(f"gives a module that makes numbers that aren't finite of {tuple(x.shape)}")
    return logits


def _stub(width: int) -> Any:
    """As much of a backbone as a head needs to be built for."""
    return SimpleNamespace(module=nn.Identity(), stages={}, slots=(), fixed=frozenset(), width=width)
