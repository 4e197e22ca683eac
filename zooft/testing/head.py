"""A head, tried on features of one width and of another."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zooft.contracts import Tap
from zooft.deploy import conversion
from zooft.errors import ExportError, ZooftError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model.adapted import adapt, check_outputs
from zooft.testing.breaches import TOLERANCE, accept, difference, report_breaches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zooft.contracts import Head
    from zooft.hooks.guard import Place

_WIDTH = 16
_OUTPUTS = 3


@report_breaches()
def check_head(head: Head, sizes: Mapping[str, int] | None = None) -> None:
    """What it reads to what it gives, finite, with gradients to all that learns and to what it reads.

    A parameter that is to stay as it was drawn is marked with ``requires_grad_(False)``, or is a buffer. In evaluation
    mode a sample gets the same answer twice, and whatever other samples are in its batch, and nothing in the module
    changes. A bag may have one instance. The ONNX graph answers as torch does, for other numbers of samples and
    instances than it was made with.

    Args:
        head: what the plugin registers.
        sizes: of a head that reads maps, the outputs of the problem that it is for; None for ``{"logits": 3}``.
    """
    head = accept(head)
    place = place_of(head, "build")
    if head.dense:
        sizes = sizes or {"logits": _OUTPUTS}
        module: nn.Module = _Flat(call_plugin(head, "build", _taps(head), sizes), head, sizes)
    else:
        module = call_plugin(head, "build", _WIDTH, _OUTPUTS)
    _check_gradients(place, module, _features(head, 5, 7))
    module.eval()
    with torch.no_grad():
        _check_evaluation(place, module, _features(head, 5, 7))
        if head.reads == "bag":
            _logits(place, module, _features(head, 2, 1))
    _check_graph(place, module, head)
    if not head.dense:
        adapt(_stub(9), head, {"logits": 2})


class _Flat(nn.Module):
    """A head that reads maps, as a module from one row a sample to one row: so that all heads are checked alike.

    Args:
        head: the module.
        of: defines what it reads and gives.
        sizes: of its outputs.
    """

    def __init__(self, head: nn.Module, of: Head, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.head, self.of, self.sizes = head, of, dict(sizes)
        self.shapes = [(tap.channels, tap.rows, tap.columns) for tap in _taps(of)]

    def forward(self, rows: Tensor) -> Tensor:
        """``(N, numbers)`` of all maps to ``(N, numbers)`` of all outputs."""
        parts = torch.split(rows, [math.prod(shape) for shape in self.shapes], 1)
        maps = [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        made = self.head(maps)
        if not torch.compiler.is_exporting():  # looking at the number of samples would fix it in the graph
            check_outputs(self.of, made, self.sizes, rows=len(rows))
        return torch.cat([made[name].flatten(1) for name in self.sizes], 1)


def _taps(head: Head) -> tuple[Tap, ...]:
    strides = (4, 8, 16, 32) if head.reads == "pyramid" else (32,)
    return tuple(
        Tap(
            stage=f"stride{stride}",
            layout="map",
            channels=_WIDTH,
            rows=128 // stride,
            columns=96 // stride,
            stride=stride,
        )
        for stride in strides
    )


def _features(head: Head, samples: int, instances: int) -> Tensor:
    """What the head may read of so many samples."""
    shape = (samples, instances, _WIDTH) if head.reads == "bag" else (samples, _WIDTH)
    if head.dense:
        shape = (samples, sum(tap.channels * tap.rows * tap.columns for tap in _taps(head)))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _check_gradients(place: Place, module: nn.Module, x: Tensor) -> None:
    """Everything that learns has a gradient, and so have the features: else nothing learns in front of the head."""
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
            f"gives a module that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with "
            "requires_grad_(False), or hold it as a buffer"
        )
    if x.grad is None or not bool(x.grad.any()):
        raise place.error(
            "gives a module whose answer doesn't depend on the features, or that detaches them; stages in front of it "
            "couldn't learn"
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
    except ZooftError:
        raise
    except Exception as error:  # plugin code
        words = f"gives a module that fails on {tuple(x.shape)}: {type(error).__name__}: {error}"
        raise place.error(words) from error
    shape = (len(x), _OUTPUTS)
    if not isinstance(logits, Tensor):
        raise place.amiss(logits, f"a finite tensor {shape}", what="what its module makes")
    if not isinstance(module, _Flat) and tuple(logits.shape) != shape:
        what = f"the shape of what its module makes of {tuple(x.shape)}"
        raise place.amiss(tuple(logits.shape), f"a finite tensor {shape}", what=what)
    if not bool(torch.isfinite(logits).all()):
        raise place.error(f"gives a module that makes numbers that aren't finite of {tuple(x.shape)}")
    return logits


def _stub(width: int) -> Any:
    """As much of a backbone as a head needs to be built for."""
    return SimpleNamespace(module=nn.Identity(), stages={}, slots=(), fixed=frozenset(), width=width)
