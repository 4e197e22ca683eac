"""What rounding to 8 bits does to each layer of a network: how far it moves means, and how much of the error it makes.

Means are moved back by the layers' biases, as in Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization
and Bias Correction", section 4.2, measured on samples; layers that make most of the error stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.deploy import quantize
from zooft.deploy.network import open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from zooft.deploy.quantize import Calibrated, Layer

    Feed = Mapping[str, NDArray[Any]]


_FEWEST_DIMENSIONS = 2
"""Of weights by which an output has channels."""


def shifts(calibrated: Calibrated, feeds: Sequence[Feed]) -> dict[str, NDArray[Any]]:
    """By the name of a layer's operator, how much less the mean of each channel of its output is once it is rounded.

    Each layer reads what it reads in float32, so that a layer's shift doesn't depend on which others are rounded.
    Layers without a bias have none.

    Args:
        calibrated: the network.
        feeds: of some samples.

    Returns:
        Arrays ``(channels,)``.
    """
    probe, names = _probe(calibrated, quantize.quantize(calibrated))
    if not names:
        return {}
    session = open_session(probe)
    found = [session.run(list(names), dict(feed)) for feed in feeds]
    return {layer: np.mean(rows, axis=0) for layer, rows in zip(names.values(), zip(*found, strict=True), strict=True)}


def rank(
    calibrated: Calibrated,
    layers: Sequence[Layer],
    feeds: Sequence[Feed],
    advance: Callable[[int], None] = lambda _: None,
) -> list[tuple[Layer, float]]:
    """Layers by the error of the network's outputs where one of them alone is rounded, the worst first.

    Args:
        calibrated: the network in float32.
        layers: those that are asked for.
        feeds: of some samples.
        advance: called for each layer.
    """
    wanted, every = quantize.answers(calibrated.network, feeds), quantize.layers(calibrated.network)
    found = []
    for layer in layers:
        others = [other for other in every if other.name != layer.name]
        alone = quantize.quantize(calibrated, left_out=quantize.nodes(others))
        found.append((layer, quantize.error(wanted, quantize.answers(alone, feeds))))
        advance(1)
    return sorted(found, key=lambda pair: -pair[1])


def _probe(calibrated: Calibrated, quantized: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The network, with each rounded layer beside the exact one, and by output the name of the layer it is of."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(calibrated.network)
    graph, given = calibrated.network.graph, {tensor.name: tensor for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    rounded, eight = {node.name: node for node in quantized.graph.node}, quantize.quantized_nodes(quantized)
    names, read = {}, set[str]()
    for node in graph.node:
        if node.name not in eight or quantize.bias_reader(graph, node) is None:
            continue
        activations, weights = (makers[name] for name in rounded[node.name].input[:2])
        dimensions = len(given[weights.input[0]].dims) if weights.input[0] in given else 0
        if dimensions < _FEWEST_DIMENSIONS:
            continue
        added = [*_rounded(node, activations, weights), *_mean(node, dimensions)]
        made.graph.node.extend(added)
        read.update(name for other in added for name in other.input)
        names[added[-1].output[0]] = node.name
    had = {tensor.name for tensor in made.graph.initializer}
    made.graph.initializer.extend(tensor for name, tensor in given.items() if name in read - had)
    del made.graph.output[:]
    made.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    return made, names


def _rounded(node: onnx.NodeProto, activations: onnx.NodeProto, weights: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The layer on its rounded input, with its rounded weights."""
    import onnx

    make, name, scale = onnx.helper.make_node, node.name, list(activations.input[1:3])
    dequantized = onnx.NodeProto()
    dequantized.CopyFrom(weights)
    dequantized.name, dequantized.output[0] = f"{name} weights", f"{name} weights"
    again = onnx.NodeProto()
    again.CopyFrom(node)
    again.name = again.output[0] = f"{name} rounded"
    again.input[0], again.input[1] = f"{name} x", f"{name} weights"
    return [
        make("QuantizeLinear", [node.input[0], *scale], [f"{name} integers"]),
        make("DequantizeLinear", [f"{name} integers", *scale], [f"{name} x"]),
        dequantized,
        again,
    ]


def _mean(node: onnx.NodeProto, dimensions: int) -> list[onnx.NodeProto]:
    """Of the exact layer less the rounded one, over all but the channels: a product's last axis, else the second."""
    import onnx

    make, name, axes = onnx.helper.make_node, node.name, [0, *range(2, dimensions)]
    nodes = [make("Sub", [node.output[0], f"{name} rounded"], [f"{name} less"])]
    if node.op_type in ("MatMul", "Gemm"):
        nodes.append(make("Flatten", [f"{name} less"], [f"{name} rows"], axis=-1))
        axes = [0]
    nodes.append(make("Constant", [], [f"{name} axes"], value_ints=axes))
    nodes.append(make("ReduceMean", [nodes[-2].output[0], f"{name} axes"], [f"{name} mean"], keepdims=0))
    return nodes
