"""Where a file that differs from its run begins to: the first operator whose inputs are right and whose output isn't.

The file is compared, tensor by tensor, with a graph that was exported from the run just now: both have the same names.
Only what leads to a tensor that differs is searched, several tensors a run, so that deep graphs cost a few runs and
no more memory than these tensors take.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft import runtime
from zooft.contracts import Deviation
from zooft.runtime import NETWORK_INPUT

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from zooft.contracts import Arrays

LIMIT = 2e-5
"""Of a tensor's spread: two right runs of one graph on a CPU differ by 1e-6, weights in half precision by 2e-4."""
DEVICE_LIMIT = 5e-4
"""The same where another processor's arithmetic is compared with the CPU's."""
_AT_ONCE = 7
"""Tensors that one run gives: it finds the eighth part of the graph that matters."""
_SHOWN = 80
_HALF = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""By how much of itself rounding moves a number at most."""


def locate(
    path: Path,
    fresh: Path,
    samples: Iterable[Arrays],
    *,
    provider: str,
    stages: Mapping[str, str] | None = None,
) -> Deviation | None:
    """The first operator of a file that deviates from its run's; None where no tensor does on any of the samples.

    Args:
        path: the file.
        fresh: a file that was exported from the run just now.
        samples: an array for each port, without the batch axis; each is run alone, until one shows a difference.
        provider: that runs the file; the fresh one always runs on the CPU.
        stages: names of the run's modules, such as ``trunk.conv1``, to names of stages.

    Raises:
        RuntimeModelError: a part of one of them can't be run.
    """
    limit = LIMIT if runtime.choose(provider).name == "cpu" else DEVICE_LIMIT
    pair = _Pair(_Graph(path, provider), _Graph(fresh, "cpu"), limit)
    for sample in samples:
        found = pair.first({port: array[None] for port, array in zip(pair.wanted.ports, sample, strict=False)})
        if found is not None:
            return _explain(pair, found, stages or {})
    return None


class _Graph:
    """A file's operators and constants, any of whose tensors can be computed.

    Args:
        path: of the file, which `zooft.runtime.load` has checked.
        provider: that computes.
    """

    def __init__(self, path: Path, provider: str) -> None:
        self.whole, self._folder, self._provider = runtime.parse_file(path), path.parent, provider
        graph = self.whole.graph
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.order = {name: place for place, name in enumerate(self.makers)}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.ports = [given.name for given in graph.input]
        self.outputs = [given.name for given in graph.output]

    def before(self, name: str) -> set[str]:
        """The tensors that lead to one, without itself."""
        found, left = set[str](), [name]
        while left:
            maker = self.makers.get(left.pop())
            for given in () if maker is None else runtime.read_by(maker):
                if given in self.makers and given not in found:
                    found.add(given)
                    left.append(given)
        return found

    def compute(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Tensors by name."""
        session = runtime.part(self.whole, self._folder, names, provider=self._provider)
        taken = {given.name for given in session.get_inputs()}
        made = session.run(list(names), {name: array for name, array in feed.items() if name in taken})
        return dict(zip(names, made, strict=True))

    def constant(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None where a tensor is computed."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor, str(self._folder)))


@dataclass(frozen=True, slots=True)
class _Found:
    """A tensor that differs, by how much, and the largest difference among the tensors that it is made of."""

    name: str
    apart: float
    inputs: float


@dataclass(frozen=True, slots=True)
class _Pair:
    """A file and the one that it should be, given the same."""

    file: _Graph
    wanted: _Graph
    limit: float
    known: dict[str, float] = field(default_factory=dict)

    def first(self, feed: Mapping[str, NDArray[Any]]) -> _Found | None:
        """The first tensor that differs on this sample, all that it is made of being right."""
        self.known.clear()
        outputs = [name for name in self.wanted.outputs if name in self.file.makers]
        apart = self.differences(outputs, feed)
        wrong = [name for name in outputs if apart[name] > self.limit]
        if not wrong:
            return None
        last = min(wrong, key=self.wanted.order.__getitem__)
        while True:
            last = self._earlier(last, feed)
            inputs = self._common(runtime.read_by(self.wanted.makers[last]))
            near = self.differences(inputs, feed)
            worse = [name for name in inputs if near[name] > self.limit]
            if not worse:
                return _Found(last, self.known[last], max(near.values(), default=0.0))
            last = min(worse, key=self.wanted.order.__getitem__)

    def _earlier(self, last: str, feed: Mapping[str, NDArray[Any]]) -> str:
        """The earliest tensor that a search by parts finds among those that lead to one."""
        open_ = self._common(self.wanted.before(last))
        while open_:
            step = max(1, len(open_) // (_AT_ONCE + 1))
            some = open_[step - 1 :: step][:_AT_ONCE] if len(open_) > _AT_ONCE else open_
            apart = self.differences(some, feed)
            right = set[str]()
            for name in some:
                if apart[name] > self.limit:
                    last = name
                    break
                right |= {name, *self.wanted.before(name)}
            leading = self.wanted.before(last)
            open_ = [name for name in open_ if name in leading and name not in right]
        return last

    def _common(self, names: Iterable[str]) -> list[str]:
        """Those that both compute, in the order in which they are computed."""
        both = {name for name in names if name in self.wanted.makers and name in self.file.makers}
        return sorted(both, key=self.wanted.order.__getitem__)

    def differences(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> dict[str, float]:
        """By tensor, how far the two are apart: of its spread, of whole numbers the share that differs."""
        new = [name for name in names if name not in self.known]
        if new:
            ours, theirs = self.wanted.compute(new, feed), self.file.compute(new, feed)
            self.known.update({name: difference(ours[name], theirs[name]) for name in new})
        return {name: self.known[name] for name in names}


def difference(ours: Any, theirs: Any) -> float:
    """How far two tensors are apart: root mean square over the spread of the first; of whole numbers, the share.

    Infinite where shapes differ or a number isn't finite in one alone.
    """
    one, other = np.asarray(ours), np.asarray(theirs)
    if one.shape != other.shape:
        return np.inf
    if one.dtype.kind != "f" or other.dtype.kind != "f":
        return float((one != other).mean()) if one.size else 0.0
    one, other = one.astype(np.float64), other.astype(np.float64)
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    if not (np.isfinite(one) == np.isfinite(other)).all():
        return np.inf
    finite = np.isfinite(one)
    apart = float(np.sqrt(((one - other)[finite] ** 2).mean()))
    scale = float(one[finite].std()) or float(np.abs(one[finite]).max())
    return apart / scale if scale > 0 else np.inf


# words


def _explain(pair: _Pair, found: _Found, stages: Mapping[str, str]) -> Deviation:
    ours, theirs = pair.wanted.makers[found.name], pair.file.makers[found.name]
    kind, what = _other_operator(pair, ours, theirs) or _other_constants(pair, ours, theirs) or _alike(pair, found)
    if kind in ("weights", "precision") and (others := _count_changed(pair) - 1) > 0:
        what += f"; {others:,} more of the file's constants aren't the run's"
    if kind != "precision" and (found.name == NETWORK_INPUT or found.name in pair.wanted.before(NETWORK_INPUT)):
        kind = "preprocessing"
    return Deviation(
        kind=kind,
        node=theirs.name or found.name,
        operator=theirs.op_type,
        place=_place(pair.wanted, found.name, stages),
        inputs=found.inputs,
        output=found.apart,
        what=what,
    )


def _other_operator(pair: _Pair, ours: onnx.NodeProto, theirs: onnx.NodeProto) -> tuple[str, str] | None:
    if (ours.op_type, ours.domain) != (theirs.op_type, theirs.domain):
        return "operator", f"it is {theirs.op_type}, and {ours.op_type} in an export of the run"
    wanted, found = _attributes(ours), _attributes(theirs)
    other = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if other:
        texts = [f"{name} is {_short(found.get(name))}, and {_short(wanted.get(name))} there" for name in other]
        return "operator", f"its {'; '.join(texts)}"
    moved = [(one, other) for one, other in zip(ours.input, theirs.input, strict=False) if one != other]
    if len(ours.input) == len(theirs.input) and not any(pair.file.makers.get(other) for _, other in moved):
        return None  # constants by other names
    if moved or len(ours.input) != len(theirs.input):
        had, should = [other for _, other in moved], [one for one, _ in moved]
        return (
            "operator",
            f"it reads {', '.join(had) or 'other inputs'}, and {', '.join(should)} in an export of the run",
        )
    return None


def _other_constants(pair: _Pair, ours: onnx.NodeProto, theirs: onnx.NodeProto) -> tuple[str, str] | None:
    for one, other in zip(ours.input, theirs.input, strict=False):
        wanted, found = pair.wanted.constant(one), pair.file.constant(other)
        if wanted is None or found is None or np.array_equal(wanted, found):
            continue
        if wanted.shape != found.shape:
            return "weights", f"{other} has the shape {found.shape}, and {wanted.shape} in the run"
        if found.size == 1 and ".network." not in f".{one}":
            return "operator", f"its {other} is {found.item():g}, and {wanted.item():g} in an export of the run"
        rounded = _narrower_type(wanted, found)
        if rounded:
            return "precision", f"{other} is rounded to {rounded}"
        apart = wanted.astype(np.float64) != found.astype(np.float64)
        largest = np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max()
        return "weights", (
            f"{int(apart.sum()):,} of the {apart.size:,} values of {other} aren't those of the run, by up to "
            f"{largest:.2g}"
        )
    return None


def _count_changed(pair: _Pair) -> int:
    """Constants of the run that have other values in the file."""
    both = pair.wanted.constants.keys() & pair.file.constants.keys()
    return sum(not np.array_equal(pair.wanted.constant(name), pair.file.constant(name)) for name in both)  # type: ignore[arg-type]


def _narrower_type(wanted: NDArray[Any], found: NDArray[Any]) -> str:
    """The type with fewer digits that a constant was rounded to; empty where it wasn't."""
    if wanted.dtype != np.float32:
        return ""
    if found.dtype == np.float16:
        return "float16"
    values = found.astype(np.float32)
    with np.errstate(over="ignore"):
        if np.array_equal(values, wanted.astype(np.float16).astype(np.float32)):
            return "float16"
    near = np.abs(values - wanted) <= _HALF["bfloat16"] * np.abs(wanted)
    if near.all() and not (values.view(np.uint32) & 0xFFFF).any():
        return "bfloat16"
    return ""


def _alike(pair: _Pair, found: _Found) -> tuple[str, str]:
    """Of an operator that is the same in both files."""
    small = found.apart < 1e-2
    kind = "precision" if small else "operator"
    return kind, "it is the same operator with the same constants, so what runs the file computes it otherwise"


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {each.name: _plain(helper.get_attribute_value(each)) for each in node.attribute}


def _plain(value: Any) -> Any:
    if hasattr(value, "SerializeToString"):
        return value.SerializeToString(deterministic=True)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes) else value


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _place(graph: _Graph, name: str, stages: Mapping[str, str]) -> str:
    """The module whose tensors an operator reads, with its stage; of one without any, the last such before it."""
    own = _module(graph, name)
    before = sorted(graph.before(name), key=graph.order.__getitem__, reverse=True)
    last = own or next((found for found in (_module(graph, one) for one in before) if found), "")
    if not last:
        return ""
    stage = stages.get(last, "")
    return f"{'' if own else 'behind '}{last}{f', stage {stage}' if stage else ''}"


def _module(graph: _Graph, name: str) -> str:
    """The module whose tensors an operator reads; empty where it reads none."""
    maker = graph.makers[name]
    for given in maker.input:
        if given in graph.constants and ".network." in f".{given}":
            return str(given).split("network.", 1)[1].rpartition(".")[0]
    return ""
