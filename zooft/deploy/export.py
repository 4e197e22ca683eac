"""From a trained model to one self-contained ONNX file.

Owns the deployed graph (native units in, probabilities out), the exporter's settings and traps, and what is
stripped from the file: stack traces with local paths above all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zooft.contracts import Calibration
from zooft.deploy import conversion
from zooft.deploy.conversion import OPSET
from zooft.errors import ExportError
from zooft.runtime import DATA_FILE, NETWORK_INPUT, tensors_sha256

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from zooft.contracts import Activation, Port
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


OUTPUTS = ("probabilities", "logits", "prediction")


class DeployedModel(nn.Module):
    """What the file contains: native units to ``(probabilities, logits, prediction)``.

    Args:
        preprocess: native units to the network's input.
        network: the network's input to logits.
        activation: logits to probabilities.
        calibration: temperature and threshold.
    """

    def __init__(
        self, preprocess: nn.Module, network: nn.Module, activation: Activation, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.preprocess, self.network, self.activation = preprocess, network, activation
        self.calibration = calibration or Calibration()

    def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities and logits, both ``(N, classes)`` float32, and the class ``(N,)`` int64.

        The logits are calibrated ones, divided by the temperature.
        """
        return self.answer(self.preprocess(*batch))

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same from the network's input on."""
        logits = self.network(x)
        if logits.dtype != torch.float64:  # which only who asks for it has
            logits = logits.float()
        if self.calibration.temperature != 1:
            logits = logits / self.calibration.temperature
        probabilities = activate(self.activation)(logits)
        return probabilities, logits, self._decide(probabilities)

    def _decide(self, probabilities: Tensor) -> Tensor:
        if self.calibration.threshold is None:
            return probabilities.argmax(1)
        return (probabilities[:, 1] >= self.calibration.threshold).to(torch.int64)


class _InTwoParts(nn.Module):
    """A deployed model that gives the network's input too.

    The exporter keeps an output's tensor apart, whatever it folds and fuses around it.
    """

    def __init__(self, model: DeployedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.model.preprocess(*batch)
        return (*self.model.answer(x), x)


def activate(activation: Activation) -> Callable[[Tensor], Tensor]:
    """The function from logits ``(N, classes)`` to probabilities.

    Raises:
        ExportError: there is none of that name, as a task may say that was never registered.
    """
    if activation not in _ACTIVATIONS:
        raise ExportError(f"there is no activation {activation!r}; there are {' and '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[activation]


def export(
    model: DeployedModel,
    path: Path,
    *,
    ports: Sequence[Port],
    example: Sequence[Tensor],
    describe: Callable[[str], Metadata],
    note: Callable[[str], None] = lambda _text: None,
) -> None:
    """Write `model` to `path`.

    Args:
        model: on the CPU; is put in evaluation mode.
        path: of the file.
        ports: the inputs' names and axes.
        example: two samples, a tensor for each port; with one sample the exporter bakes the batch size into
            attention layers.
        describe: from the SHA-256 of the file's tensors to the metadata.
        note: told in one sentence what was done to make it work.

    Raises:
        ExportError: the exporter failed, or made something that we don't ship.
    """
    if any(tensor.shape[0] != 2 for tensor in example):
        raise ValueError("the example must hold two samples")
    proto = _to_proto(model.eval(), example, ports, note)
    _keep_boundary(proto.graph)
    _strip(proto)
    _refuse(proto)
    proto.ir_version = IR_VERSION
    metadata = describe(tensors_sha256(proto))
    proto.producer_name, proto.producer_version = "zooft", metadata.version
    _set_properties(proto, metadata)
    _write(proto, path)


def _to_proto(
    model: DeployedModel, example: Sequence[Tensor], ports: Sequence[Port], note: Callable[[str], None]
) -> onnx.ModelProto:
    axes = tuple({index: axis for index, axis in enumerate(port.axes) if isinstance(axis, str)} for port in ports)
    try:
        return conversion.convert(
            _InTwoParts(model).eval(), example, inputs=[port.name for port in ports],
            outputs=[*OUTPUTS, NETWORK_INPUT], axes=(axes,), note=note,
        )  # fmt: skip
    except ExportError as error:
        raise ExportError(f"{error}; the fine-tuned weights are kept, and --no-export leaves this step out") from error


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
        proto = conversion.try_out(network, example, axes=axes)
        if proto is not None:
            _refuse(proto)
    except ExportError as error:
        raise ExportError(
            f"{error}; nothing was trained: --no-export trains it without a file, or choose another backbone"
        ) from error


def _keep_boundary(graph: onnx.GraphProto) -> None:
    """The network's input is an output no more, but a tensor that everything behind it reads, by the same name.

    A preprocessing that does nothing is exported as a copy that nobody reads.
    """
    del graph.output[len(OUTPUTS)]
    copy = next((node for node in graph.node if NETWORK_INPUT in node.output), None)
    if copy is None or copy.op_type != "Identity" or any(NETWORK_INPUT in node.input for node in graph.node):
        return
    given, kept = copy.input[0], [node for node in graph.node if node is not copy and NETWORK_INPUT not in node.output]
    for node in kept:
        for place, name in enumerate(node.input):
            if name == given:
                node.input[place] = NETWORK_INPUT
    first = next((place + 1 for place, node in enumerate(kept) if given in node.output), 0)
    moved = [*kept[:first], copy, *kept[first:]]
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


def _set_properties(proto: onnx.ModelProto, metadata: Metadata) -> None:
    import onnx

    onnx.helper.set_model_props(proto, metadata.to_properties())


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


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"softmax": _softmax, "sigmoid": torch.sigmoid}
