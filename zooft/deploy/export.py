"""From a trained model to one self-contained ONNX file.

Owns the deployed graph (native units in, the problem's outputs out), the exporter's settings and traps, and what is
stripped from the file: stack traces with local paths above all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.deploy import conversion
from zooft.deploy.conversion import OPSET
from zooft.errors import ExportError
from zooft.runtime import DATA_FILE, NETWORK_INPUT, NETWORK_OUTPUTS, tensors_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from zooft.contracts import InputGeometry, Output, Port
    from zooft.runtime import Metadata

IR_VERSION = 8
SINGLE_FILE_LIMIT = 2**31 - 2**24
_TRAINING_OPERATORS = {
    "Dropout",
    "RandomUniform",
    "RandomUniformLike",
    "RandomNormal",
    "RandomNormalLike",
    "Bernoulli",
}


class DeployedModel(nn.Module):
    """What the file contains: native units to the outputs of `DeploymentPart.graph`, in their order.

    Args:
        preprocess: native units to the network's input.
        network: the network's input to the head's outputs, by name.
        last: these and the batch to the file's outputs.
    """

    def __init__(self, preprocess: nn.Module, network: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.network, self.last = preprocess, network, last

    def forward(self, *batch: Tensor) -> tuple[Tensor, ...]:
        """A tensor for each of the problem's outputs, of a tensor for each port."""
        return self.answer(self.preprocess(*batch), batch)

    def answer(self, x: Tensor, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same from the network's input `x` on; `batch` is what it was made from."""
        made: tuple[Tensor, ...] = self.last(self.network(x), batch)
        return made


class Placed(nn.Module):
    """A last piece of the graph that brings answers to the samples' own pixels.

    Args:
        last: ``(outputs, batch, back)`` to the file's outputs.
        geometry: what gives the way back of a batch.
    """

    def __init__(self, last: nn.Module, geometry: InputGeometry) -> None:
        super().__init__()
        self.last, self.geometry = last, geometry

    def forward(self, outputs: Mapping[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The file's outputs."""
        made: tuple[Tensor, ...] = self.last(outputs, batch, self.geometry.back(batch))
        return made


class _InParts(nn.Module):
    """A deployed model that gives the network's input and the head's outputs too.

    The exporter leaves an output's tensor apart, whatever it folds and fuses around it: so the file can be taken apart
    into preprocessing, network and what is made of the network's outputs.
    """

    def __init__(self, model: DeployedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> tuple[Tensor, ...]:
        x = self.model.preprocess(*batch)
        heads = self.model.network(x)
        return (*self.model.last(heads, batch), x, *heads.values())


class _Flat(nn.Module):
    """A network's outputs without their names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network(x).values())


def export(
    model: DeployedModel,
    path: Path,
    *,
    ports: Sequence[Port],
    outputs: Sequence[Output],
    example: Sequence[Tensor],
    describe: Callable[[str], Metadata],
    others: Mapping[str, str],
    note: Callable[[str], None] = lambda _text: None,
) -> None:
    """Write `model` to `path`.

    Args:
        model: on the CPU; is put in evaluation mode.
        path: of the file.
        ports: the inputs' names and axes.
        outputs: those of `model`, in order.
        example: two samples, a tensor for each port; with one sample the exporter bakes the batch size into
            attention layers.
        describe: from the SHA-256 of the file's tensors to the metadata.
        others: metadata for tools that don't know zooft.
        note: called with one sentence on what was done to make it work.

    Raises:
        ExportError: the exporter failed, or made something that we don't ship.
    """
    if any(tensor.shape[0] != 2 for tensor in example):
        raise ValueError("the example must hold two samples")
    heads = _head_outputs(model.eval(), example)
    proto = _to_proto(model, example, ports, [output.name for output in outputs], heads, note)
    del proto.graph.output[len(outputs) :]
    _keep_input(proto.graph)
    network_outputs = [_keep_output(proto.graph, _network_output_name(name)) for name in heads]
    _strip(proto)
    _refuse(proto)
    proto.ir_version = IR_VERSION
    metadata = describe(tensors_sha256(proto))
    proto.producer_name, proto.producer_version = "zooft", metadata.version
    _set_properties(proto, metadata.to_properties(others) | {NETWORK_OUTPUTS: json.dumps(network_outputs)})
    _write(proto, path)


def _head_outputs(model: DeployedModel, example: Sequence[Tensor]) -> list[str]:
    """Names of what the network gives; none where it doesn't run, which the exporter will explain."""
    try:
        with torch.no_grad():
            return list(model.network(model.preprocess(*example)))
    except Exception:
        return []


def _network_output_name(name: str) -> str:
    return f"zooft_network_output_{name}"


def _to_proto(
    model: DeployedModel,
    example: Sequence[Tensor],
    ports: Sequence[Port],
    outputs: Sequence[str],
    heads: Sequence[str],
    note: Callable[[str], None],
) -> onnx.ModelProto:
    axes = tuple({index: axis for index, axis in enumerate(port.axes) if isinstance(axis, str)} for port in ports)
    try:
        return conversion.convert(
            _InParts(model).eval(),
            example,
            inputs=[port.name for port in ports],
            outputs=[*outputs, NETWORK_INPUT, *map(_network_output_name, heads)],
            axes=(axes,),
            note=note,
        )
    except ExportError as error:
        raise ExportError(f"{error}; the fine-tuned weights are saved, and --no-export leaves this step out") from error


def try_out(network: nn.Module, example: Tensor, *, axes: Mapping[int, str]) -> None:
    """Whether `network` will be exportable when it is trained.

    Args:
        network: what a `DeployedModel` will hold, of any values, on the CPU; it is left as it is.
        example: its input, two samples.
        axes: of the input, the dynamic ones.

    Raises:
        ExportError: it won't.
    """
    try:
        proto = conversion.try_out(_Flat(network), example, axes=axes)
        if proto is not None:
            _refuse(proto)
    except ExportError as error:
        raise ExportError(
            f"{error}; nothing was trained: --no-export trains it without a file, or choose another backbone"
        ) from error


def _keep_output(graph: onnx.GraphProto, marked: str) -> str:
    """The tensor that one of the network's outputs is; a copy that is an output no more goes."""
    node = next(node for node in graph.node if marked in node.output)
    if node.op_type != "Identity" or any(marked in other.input for other in graph.node):
        return marked
    graph.node.remove(node)
    return str(node.input[0])


def _keep_input(graph: onnx.GraphProto) -> None:
    """The network's input is a tensor that everything behind it reads, by the same name.

    A preprocessing that does nothing is exported as a copy that nobody reads.
    """
    copy = next((node for node in graph.node if NETWORK_INPUT in node.output), None)
    if copy is None or copy.op_type != "Identity" or any(NETWORK_INPUT in node.input for node in graph.node):
        return
    given, others = (
        copy.input[0],
        [node for node in graph.node if node is not copy and NETWORK_INPUT not in node.output],
    )
    for node in others:
        for place, name in enumerate(node.input):
            if name == given:
                node.input[place] = NETWORK_INPUT
    first = next((place + 1 for place, node in enumerate(others) if given in node.output), 0)
    moved = [*others[:first], copy, *others[first:]]
    del graph.node[:]
    graph.node.extend(moved)


def _strip(proto: onnx.ModelProto) -> None:
    """Remove what holds local paths, and shapes that quantisation tools stumble over."""
    graph = proto.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        node.ClearField("doc_string")
    del graph.metadata_props[:]
    del graph.value_info[:]
    del proto.metadata_props[:]
    graph.doc_string = proto.doc_string = ""
    graph.name = "zooft"


def _refuse(proto: onnx.ModelProto) -> None:
    opset = {entry.domain: entry.version for entry in proto.opset_import}
    if opset.get("") != OPSET:
        raise ExportError(f"the exporter wrote opset {opset.get('')} instead of {OPSET}")
    training = sorted({node.op_type for node in proto.graph.node} & _TRAINING_OPERATORS)
    if training:
        raise ExportError(f"the graph has training-time operators: {', '.join(training)}; the backbone ignores eval()")


def _set_properties(proto: onnx.ModelProto, properties: dict[str, str]) -> None:
    import onnx

    onnx.helper.set_model_props(proto, properties)


def _write(proto: onnx.ModelProto, path: Path) -> None:
    import onnx

    partial = path.with_name(path.name + ".partial")
    try:
        if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > SINGLE_FILE_LIMIT:
            _write_in_two(proto, partial)
        else:
            onnx.checker.check_model(proto, full_check=True)
            partial.write_bytes(proto.SerializeToString(deterministic=True))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write_in_two(proto: onnx.ModelProto, path: Path) -> None:
    """Above 2 GB a protobuf message can't be written: the tensors go into a second file beside the first."""
    import onnx

    path.with_name(DATA_FILE).unlink(missing_ok=True)  # onnx would append
    onnx.save_model(proto, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=DATA_FILE)
    onnx.checker.check_model(str(path))
