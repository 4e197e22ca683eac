"""A network in 8-bit integers, and in half precision: graphs in, graphs out, without torch.

Owns onnxruntime's quantiser and its settings: activations of 8 bits without, weights of 8 bits with a sign, each output
channel with a scale of its own; what is quantised is given by the operators, and which of them a network bears is
measured. The network's own outputs are never quantised: 256 levels are too few for an answer in millimetres.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.deploy.network import open_session
from zooft.errors import ExportError
from zooft.runtime.parts import read_by

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx
    from numpy.typing import NDArray

    Feed = Mapping[str, NDArray[Any]]

LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")
"""Operators with weights, or products of matrices: what takes the time."""
NARROW = (*LAYERS, "Relu", "Clip")
"""With what belongs to a convolution: without it, ranges are taken before the activation cuts them."""
_ROUNDED_BY_RUNTIME = ("Conv", "ConvTranspose", "Gemm")
"""Operators whose float32 weights onnxruntime's optimiser rounds."""
_BIAS = 2
"""Input that is the bias of a convolution or `Gemm`."""
_MANY_CHANNELS = 16
"""Of a convolution's input, from which on its kernels of 8 bits aren't slow."""
_STEM = 3
"""First layers that may be faster in float32; measured: a fourth was never worth it."""
_BEARABLE = 1.25
"""Times the error of the narrow choice, up to which all operators are quantised, which is faster."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Operators that are quantised or left in float32 together.

    Attributes:
        name: of the one with weights, or the first of those that share them.
        nodes: names of all: these, and what follows them up to the next one with weights.
    """

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A network, the ranges of its activations, and how it is rounded.

    Attributes:
        network: with the shapes of its tensors.
        ranges: as onnxruntime's calibrator gives them.
        samples: how many they were measured on.
        operators: types that are quantised; all that onnxruntime can where there are none.
        shifts: by the name of a layer's operator, what is added to its bias, ``(channels,)``, so that rounding doesn't
            move the mean of its output.
    """

    network: onnx.ModelProto
    ranges: Any
    samples: int
    operators: Sequence[str] = ()
    shifts: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class _Reader:
    """Samples as onnxruntime's calibrator asks for them."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds, self.count = iter(feeds), 0

    def get_next(self) -> Feed | None:
        found = next(self._feeds, None)
        self.count += found is not None
        return found


def calibrate(network: onnx.ModelProto, feeds: Iterable[Feed]) -> Calibrated:
    """Measure the least and the largest value of each activation.

    Args:
        network: in float32, without what comes before and after it.
        feeds: of each sample the network's inputs by name, ``(1, …)``; read one after the other.

    Raises:
        ExportError: the network has nothing to quantise.
    """
    import onnx
    from onnxruntime.quantization import calibrate as calibrators

    if not layers(network):
        raise ExportError(
            f"the network has nothing that can be quantised: none of {', '.join(LAYERS)} among its operators, "
            f"{', '.join(sorted({node.op_type for node in network.graph.node}))}"
        )
    reader = _Reader(feeds)
    with tempfile.TemporaryDirectory(prefix="zooft-") as name, _quiet():
        path = Path(name) / "network.onnx"
        onnx.save(network, str(path))
        calibrator = calibrators.create_calibrator(path, augmented_model_path=str(Path(name) / "augmented.onnx"))
        calibrator.collect_data(reader)
        ranges = calibrator.compute_data()
    return Calibrated(onnx.shape_inference.infer_shapes(network), ranges, reader.count)


def layers(network: onnx.ModelProto) -> list[Layer]:
    """What can be quantised, from the input to the outputs.

    Operators that share their weights, such as a detector's head on maps of several sizes, are one layer: onnxruntime's
    quantiser rounds a tensor for all that read it.
    """
    groups, of, with_weights = dict[str, list[str]](), dict[str, str](), dict[str, str]()
    tensors = {tensor.name for tensor in network.graph.initializer}
    for node in network.graph.node:
        owner = next((of[name] for name in node.input if name in of), "")
        if node.op_type in LAYERS:
            weights = next((name for name in node.input[:2] if name in tensors), node.name)
            owner = with_weights.setdefault(weights, node.name)
            groups.setdefault(owner, [])
        if owner:
            groups[owner].append(node.name)
            of.update(dict.fromkeys(node.output, owner))
    return [Layer(name, tuple(nodes)) for name, nodes in groups.items()]


def nodes(found: Sequence[Layer]) -> list[str]:
    """Names of all operators of several layers."""
    return [name for layer in found for name in layer.nodes]


def stem(network: onnx.ModelProto) -> list[Layer]:
    """The first three layers, half of all at most, where the first is a convolution of an image's few channels.

    Kernels of 8 bits are slow there: they are made for many channels and few places. None of other networks.
    """
    shapes = {tensor.name: tensor.dims for tensor in network.graph.initializer}
    first = next((node for node in network.graph.node if node.op_type in LAYERS), None)
    if first is None or first.op_type != "Conv" or first.input[0] not in {each.name for each in network.graph.input}:
        return []
    few = shapes.get(first.input[1], (0, _MANY_CHANNELS))[1] < _MANY_CHANNELS
    found = layers(network)
    return found[: min(_STEM, len(found) // 2)] if few else []


def quantize(calibrated: Calibrated, *, left_out: Sequence[str] = ()) -> onnx.ModelProto:
    """The network with its activations and weights in 8 bits.

    Args:
        calibrated: the network.
        left_out: names of nodes that stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copy = onnx.ModelProto()
    copy.CopyFrom(calibrated.network)
    _move_biases(copy.graph, calibrated.shifts, left_out)
    kinds = list(calibrated.operators or dict.fromkeys((*QLinearOpsRegistry, *QDQRegistry)))
    with _quiet():
        quantizer = QDQQuantizer(
            copy,
            True,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            calibrated.ranges,
            [],
            [*left_out, *_after_outputs(copy.graph)],
            kinds,
            {},
        )
        quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    _free_outputs(made.graph)
    _keep_floats(made.graph)
    _plain_tensors(made.graph)
    return made


def choose_operators(calibrated: Calibrated, feeds: Sequence[Feed]) -> tuple[dict[str, Calibrated], dict[str, float]]:
    """Which types of operators may be quantised, by name, and the errors by which that was found.

    Convolutions and matrix products alone, and all, unless that costs much more, as with transformers, whose norms and
    softmaxes don't bear it.

    Args:
        calibrated: the network.
        feeds: of some samples.
    """
    choices = {"all": calibrated, "narrow": replace(calibrated, operators=NARROW)}
    wanted = answers(calibrated.network, feeds)
    errors = {name: error(wanted, answers(quantize(each), feeds)) for name, each in choices.items()}
    bearable = _BEARABLE * errors["narrow"]
    return {name: each for name, each in choices.items() if errors[name] <= bearable}, errors


def bias_reader(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
    """The operator that reads a layer's bias, and the input where it does: the layer's own, or an `Add` behind it."""
    tensors = {tensor.name for tensor in graph.initializer}
    if node.op_type != "MatMul":
        return (node, _BIAS) if len(node.input) > _BIAS and node.input[_BIAS] in tensors else None
    readers = [other for other in graph.node if node.output[0] in other.input]
    if len(readers) != 1 or readers[0].op_type != "Add":
        return None
    place = next((place for place, name in enumerate(readers[0].input) if name in tensors), None)
    return None if place is None else (readers[0], place)


def answers(network: onnx.ModelProto, feeds: Sequence[Feed]) -> list[list[NDArray[Any]]]:
    """The network's outputs of each sample."""
    session = open_session(network)
    return [session.run(None, dict(feed)) for feed in feeds]


def error(wanted: Sequence[Sequence[NDArray[Any]]], found: Sequence[Sequence[NDArray[Any]]]) -> float:
    """Root mean square of the outputs' differences over their standard deviation; the largest of several outputs.

    Infinite where there is a NaN.
    """
    worst = 0.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        right, other = (np.concatenate([np.ravel(one) for one in some]).astype(np.float64) for some in (ours, theirs))
        share = float(np.sqrt(((right - other) ** 2).mean()) / max(right.std(), 1e-12))
        worst = max(worst, math.inf if math.isnan(share) else share)
    return worst


def quantized_nodes(network: onnx.ModelProto) -> set[str]:
    """Names of the layers that compute in 8 bits: all that they read comes from integers."""
    dequantized = {name for node in network.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {
        node.name
        for node in network.graph.node
        if node.op_type in LAYERS and all(name in dequantized for name in node.input[:2])
    }


def halve(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network in half precision; what it reads and gives stays float32.

    Operators that need more, by onnxruntime's own list, are left in float32.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    with _quiet():
        made: onnx.ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    _plain_tensors(made.graph)
    return made


def _after_outputs(graph: onnx.GraphProto) -> list[str]:
    """Activations of what is an output too: the quantiser would put them before the output."""
    outputs = {output.name for output in graph.output}
    return [node.name for node in graph.node if node.op_type in ("Relu", "Clip") and node.input[0] in outputs]


def _move_biases(graph: onnx.GraphProto, shifts: Mapping[str, NDArray[Any]], left_out: Sequence[str]) -> None:
    """Each quantised layer's bias is its own, moved by what rounding takes from the mean of its output."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        found = bias_reader(graph, node) if node.name in shifts and node.name not in left_out else None
        if found is None:
            continue
        reader, place = found
        moved = numpy_helper.to_array(tensors[reader.input[place]]) + shifts[node.name].astype(np.float32)
        name = f"{reader.input[place]}_of_{node.name}"
        graph.initializer.append(numpy_helper.from_array(moved, name))
        reader.input[place] = name


def _keep_floats(graph: onnx.GraphProto) -> None:
    """What stays in float32 reads integers by a scale for each channel, all of them the same.

    With one scale for all, onnxruntime (its optimiser `WeightBiasQuantization`) would round the weights nevertheless,
    by one scale for all channels, which loses more than quantising the layer did.
    """
    import onnx
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes = list[onnx.NodeProto]()
    for node in graph.node:
        read = makers.get(node.input[0]) if node.op_type in _ROUNDED_BY_RUNTIME else None
        if read is not None and read.op_type == "DequantizeLinear" and node.input[1] in tensors:
            count, axis = _channels(node, tensors[node.input[1]].dims)
            names = [f"{name}_of_{node.name}" for name in read.input[1:3]]
            for old, new in zip(read.input[1:3], names, strict=True):
                values = numpy_helper.to_array(tensors[old])
                graph.initializer.append(numpy_helper.from_array(np.full(count, values), new))
            node.input[0] = f"{read.output[0]}_of_{node.name}"
            nodes.append(
                onnx.helper.make_node(
                    "DequantizeLinear", [read.input[0], *names], [node.input[0]], f"{node.name}_input", axis=axis
                )
            )
        nodes.append(node)
    used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    kept = [node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)


def _channels(node: onnx.NodeProto, weights: Sequence[int]) -> tuple[int, int]:
    """How many channels a layer's input has, and which of its axes they are."""
    given = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Conv":
        return int(weights[1] * given.get("group", 1)), 1
    return int(weights[1] if given.get("transB") else weights[0]), 0 if given.get("transA") else 1


def _free_outputs(graph: onnx.GraphProto) -> None:
    """The network's outputs as they are before they would be rounded to 256 levels."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for output in graph.output:
        last = makers.get(output.name)
        rounding = makers.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
        if last is None or rounding is None or rounding.op_type != "QuantizeLinear" or readers.get(output.name):
            continue
        exact = rounding.input[0]
        _rename(graph, exact, output.name)
        graph.node.remove(last)
        if readers[last.input[0]] == 1:
            graph.node.remove(rounding)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old and not (node.op_type == "DequantizeLinear" and new in node.output):
                    names[place] = new


def _plain_tensors(graph: onnx.GraphProto) -> None:
    """Values that are read, as raw bytes, which `tensors_sha256` needs, in an order that doesn't depend on sets."""
    from onnx import numpy_helper

    read = {name for node in graph.node for name in read_by(node)} | {output.name for output in graph.output}
    plain = [_raw(numpy_helper.to_array(tensor), tensor) for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(sorted(plain, key=lambda tensor: str(tensor.name)))


def _raw(values: NDArray[Any], tensor: onnx.TensorProto) -> onnx.TensorProto:
    import onnx

    return onnx.helper.make_tensor(tensor.name, tensor.data_type, list(tensor.dims), values.tobytes(), raw=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs advice for its own developers."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
