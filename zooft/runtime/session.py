"""An exported file, checked, opened and run.

Owns the check that the requested provider is the one that runs; what is refused in files that zooft didn't write is
in `zooft.runtime.policy`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.compute import machine
from zooft.contracts import Port
from zooft.contracts.plurals import pluralize
from zooft.errors import ProviderError, RuntimeModelError
from zooft.runtime import metadata as file_metadata
from zooft.runtime import policy, precision, providers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from zooft.contracts import Output
    from zooft.runtime.metadata import Metadata
    from zooft.runtime.precision import Precision

_KINDS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"} | {
    f"tensor({kind})": kind
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")
}
"""Types from onnxruntime's names to numpy's."""


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An open file.

    Attributes:
        metadata: as the file states it.
        provider: the one that runs it.
        placement: provider to the number of nodes that it runs.
        note: what the user should know about the provider; may be empty.
        properties: the file's whole ``metadata_props``, including keys for other tools.
    """

    metadata: Metadata
    provider: str
    placement: Mapping[str, int]
    note: str
    properties: Mapping[str, str]
    _session: Any

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs."""
        return self.metadata.ports

    @property
    def precision(self) -> Precision:
        """In which the network computes."""
        return precision.parse(self.properties)

    def run(self, *batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run a batch: an array in native units for each port; the outputs of `Metadata.outputs` by name.

        An empty batch gives empty outputs.

        Raises:
            RuntimeModelError: the batch's type or shape isn't what the ports require, or its samples have no pixels.
        """
        if len(batch) != len(self.ports):
            names = ", ".join(port.name for port in self.ports)
            raise RuntimeModelError(
                f"the model takes {pluralize(len(self.ports), 'input')} ({names}), but got {len(batch)}"
            )
        for port, array in zip(self.ports, batch, strict=True):
            _check(port, array)
        if not len(batch[0]):
            return self.nothing()
        feed = {port.name: array for port, array in zip(self.ports, batch, strict=True)}
        wanted = [output.name for output in self.metadata.outputs]
        answers = dict(zip(wanted, self._session.run(wanted, feed), strict=True))
        for output in self.metadata.outputs:
            _check_answer(output, answers[output.name], len(batch[0]))
        return answers

    def nothing(self) -> dict[str, NDArray[Any]]:
        """The outputs for an empty batch: arrays without rows."""
        import numpy as np

        return {
            output.name: np.zeros([axis if isinstance(axis, int) else 0 for axis in output.axes], output.dtype)
            for output in self.metadata.outputs
        }


def _check(port: Port, array: NDArray[Any]) -> None:
    wanted = port.axes
    fits = array.ndim == len(wanted) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(wanted, array.shape, strict=True)
    )
    if not fits or str(array.dtype) != port.dtype:
        raise RuntimeModelError(
            f"the model takes {port.name}: {port.dtype} {wanted}, but got {array.dtype} {array.shape}: {port.meaning}"
        )
    if 0 in array.shape[1:]:
        raise RuntimeModelError(f"{port.name} of shape {array.shape} has no pixels; give samples with pixels")


def _check_answer(output: Output, answer: NDArray[Any], samples: int) -> None:
    wanted = (samples, *output.axes[1:])
    if len(wanted) != answer.ndim or any(
        isinstance(size, int) and size != had for size, had in zip(wanted, answer.shape, strict=True)
    ):
        raise RuntimeModelError(
            f"the file gave {output.name} of shape {answer.shape} for {samples} samples, and its metadata states "
            f"{output.axes}; its graph and its metadata don't belong together, export it again"
        )


def load(path: str | Path, *, provider: str = "auto", threads: int = 0) -> OnnxModel:
    """Open an exported file.

    Args:
        path: of the .onnx file.
        provider: auto, cpu, cuda or tensorrt.
        threads: for computation; 0 for ``OMP_NUM_THREADS``, or else the number of cores that this process may use.

    Raises:
        RuntimeModelError: the file can't be read, or is refused.
        ProviderError: the provider isn't available.
    """
    import onnxruntime

    path = Path(path)
    graph = parse_file(path)
    policy.check(graph, path)
    choice = providers.choose(provider)
    stated = precision.parse({entry.key: entry.value for entry in graph.metadata_props})
    precision.refuse_stale(path, stated)
    refusal = providers.refusal(choice.name, stated.name)
    if refusal:
        raise ProviderError(f"{path} can't be used with the provider {choice.name}: {refusal}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised anyway
    options.intra_op_num_threads = threads or default_threads()
    # idle threads release their cores: spinning costs twice the CPU time for the same speed on few cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=choice.chain)
    except Exception as error:  # onnxruntime raises its own kinds, which it doesn't export as one
        kind = "" if stated.name == "fp32" else f" (its network is {stated.name}, on {choice.name})"
        raise RuntimeModelError(f"onnxruntime can't open {path}{kind}: {error}") from error
    actual = session.get_providers()[0]
    if actual != choice.onnx_name:
        raise ProviderError(
            f"{choice.onnx_name} was requested, but onnxruntime runs the file on {actual}; 'zooft doctor' shows what "
            "is missing"
        )
    properties = session.get_modelmeta().custom_metadata_map
    metadata = file_metadata.parse(properties, {output.name for output in session.get_outputs()})
    _refuse_contradictions(session, metadata, path)
    note = "; ".join(filter(None, [choice.note, providers.remark(choice.name, stated.name)]))
    return OnnxModel(metadata, actual, _placement(session), note, properties, session)


def read_metadata(path: str | Path) -> Metadata:
    """What an exported file states of itself, without opening it in onnxruntime.

    Raises:
        RuntimeModelError: the file can't be read, or is refused.
    """
    path = Path(path)
    proto = parse_file(path)
    policy.check(proto, path)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    return file_metadata.parse(properties, {output.name for output in proto.graph.output})


def read_precision(path: Path) -> Precision:
    """In which precision a file states to compute, without opening it in onnxruntime.

    Raises:
        RuntimeModelError: the file can't be read.
    """
    return precision.parse({entry.key: entry.value for entry in parse_file(path).metadata_props})


def default_threads() -> int:
    """Computing threads where none are asked for: ``OMP_NUM_THREADS``, else the cores that this process may use."""
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(value) if value.isdigit() and int(value) else machine.cores()


def _refuse_contradictions(session: Any, metadata: Metadata, path: Path) -> None:
    """What the metadata states of inputs and outputs must be what the graph has.

    An answer more would get another's name.
    """
    faults = [*_output_faults(session, metadata), *_port_faults(session, metadata.ports)]
    faults += [
        f"its metadata names a {label.name} twice: {', '.join(label.categories)}"
        for label in metadata.labels
        if len(set(label.categories)) < len(label.categories)
    ]
    if faults:
        raise RuntimeModelError(
            f"{path} contradicts itself: {'; '.join(sorted(faults))}; export it again with 'zooft export'"
        )


def _output_faults(session: Any, metadata: Metadata) -> Iterator[str]:
    made = {output.name: output for output in session.get_outputs()}
    # an axis of the outputs' own, such as the rows of the network's map, may have one size in this graph
    of_inputs = {axis for port in metadata.ports for axis in port.axes if isinstance(axis, str)}
    for output in metadata.outputs:
        if output.name not in made:
            yield f"its graph has no output {output.name}"
        elif had := _unlike(made[output.name], output, of_inputs):
            yield f"its metadata states {output.name}: {output.dtype} {output.axes}, its graph has {had}"


def _port_faults(session: Any, ports: tuple[Port, ...]) -> Iterator[str]:
    inputs = {given.name: given for given in session.get_inputs()}
    stated, had = {port.name for port in ports}, set(inputs)
    if stated != had:
        yield f"its metadata names the inputs {', '.join(sorted(stated))}, its graph has {', '.join(sorted(had))}"
        return
    for port in ports:
        if other := _unlike(inputs[port.name], port, port.axes):
            yield f"its metadata states {port.name}: {port.dtype} {port.axes}, its graph has {other}"


def _unlike(had: Any, stated: Port | Output, dynamic: Collection[str | int]) -> str:
    """What an input or output of the graph is, where that isn't what the metadata states.

    An output that was made for one size of batches alone is found by whoever runs or verifies the file.

    Args:
        had: of the graph.
        stated: by the metadata.
        dynamic: names of axes that can't have one size alone.
    """
    kind, first = _KINDS.get(had.type, had.type), 0 if isinstance(stated, Port) else 1
    fits = len(had.shape) == len(stated.axes) and all(
        not isinstance(size, int) or size == axis or (isinstance(axis, str) and axis not in dynamic)
        for size, axis in zip(had.shape[first:], stated.axes[first:], strict=True)
    )
    return "" if kind == stated.dtype and fits else f"{kind} {tuple(had.shape)}"


def parse_file(path: Path) -> onnx.ModelProto:
    """A file's graph, without the tensors in its second file.

    Raises:
        RuntimeModelError: there is no such file, or it isn't one of ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise RuntimeModelError(f"there is no file {path}; 'zooft export RUN' writes a run's model.onnx") from None
    except (OSError, DecodeError) as error:
        raise RuntimeModelError(f"{path} isn't a readable ONNX file: {error}") from error


def _placement(session: Any) -> dict[str, int]:
    count: dict[str, int] = {}
    for group in session.get_provider_graph_assignment_info():
        count[group.ep_name] = count.get(group.ep_name, 0) + len(group.get_nodes())
    return count
