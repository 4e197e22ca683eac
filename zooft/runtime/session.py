"""An exported file, opened with care and run.

Owns the check that the provider asked for is the one that runs; what is refused in files that we didn't write is
`zooft.runtime.policy`'s matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.compute import machine
from zooft.errors import ProviderError, RuntimeModelError
from zooft.runtime import metadata as file_metadata
from zooft.runtime import policy, providers

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from zooft.contracts import Port
    from zooft.runtime.metadata import Metadata

_KINDS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"} | {
    f"tensor({kind})": kind
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "bool")
}
"""onnxruntime's names of types to numpy's."""


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An open file.

    Attributes:
        metadata: what it says of itself.
        provider: the one that runs it.
        placement: provider to the number of nodes that it runs.
        note: what the user should know about the provider; may be empty.
        properties: the file's whole ``metadata_props``, with what it says to other tools.
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

    def run(self, *batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities and logits, both ``(N, classes)`` float32, of a batch in native units, an array for each port.

        The output ``prediction`` has the classes by the threshold in the graph; `decide` gives the same.

        A batch of no samples has answers of no rows.

        Raises:
            RuntimeModelError: the batch's type or shape isn't what the ports say, or its samples hold no pixels.
        """
        probabilities, logits, _ = self.outputs(*batch)
        return probabilities, logits

    def outputs(
        self, *batch: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64] | None]:
        """As `run`, with the output ``prediction`` ``(N,)``; None where the file has none.

        Raises:
            RuntimeModelError: as `run`.
        """
        import numpy as np

        if len(batch) != len(self.ports):
            names = ", ".join(port.name for port in self.ports)
            raise RuntimeModelError(f"the model takes {len(self.ports)} inputs ({names}), but got {len(batch)}")
        for port, array in zip(self.ports, batch, strict=True):
            _check(port, array)
        if not len(batch[0]):
            nothing = np.zeros((0, len(self.metadata.classes)), np.float32)
            return nothing, nothing.copy(), np.zeros(0, np.int64)
        feed = {port.name: array for port, array in zip(self.ports, batch, strict=True)}
        made = {output.name for output in self._session.get_outputs()}
        wanted = [name for name in ("probabilities", "logits", "prediction") if name in made]
        probabilities, logits, *said = self._session.run(wanted, feed)
        _check_answer(probabilities, len(batch[0]), self.metadata.classes)
        return probabilities, logits, said[0] if said else None

    def decide(self, probabilities: NDArray[Any]) -> NDArray[np.int64]:
        """The classes ``(N,)`` of probabilities ``(N, classes)``, by the threshold that the file was fitted with."""
        import numpy as np

        threshold = self.metadata.calibration.threshold
        if threshold is None:
            return np.asarray(probabilities.argmax(1), dtype=np.int64)
        return np.asarray(probabilities[:, 1] >= probabilities.dtype.type(threshold), dtype=np.int64)


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
        raise RuntimeModelError(
            f"{port.name} of shape {array.shape} holds nothing to answer about; give samples with pixels"
        )


def _check_answer(probabilities: NDArray[Any], samples: int, classes: tuple[str, ...]) -> None:
    if probabilities.shape != (samples, len(classes)):
        raise RuntimeModelError(
            f"the file gave probabilities of shape {probabilities.shape} for {samples} samples and {len(classes)} classes "
            f"({', '.join(classes)}); its graph and its metadata don't belong together, export it again"
        )


def load(path: str | Path, *, provider: str = "auto", threads: int = 0) -> OnnxModel:
    """Open an exported file.

    Args:
        path: of the .onnx file.
        provider: auto, cpu, cuda or tensorrt.
        threads: that compute; 0 takes ``OMP_NUM_THREADS``, else as many as this process may use cores.

    Raises:
        RuntimeModelError: not a file that we can read, or one that we refuse.
        ProviderError: the provider isn't to be had.
    """
    import onnxruntime

    path = Path(path)
    policy.check(parse_file(path), path)
    choice = providers.choose(provider)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    options.intra_op_num_threads = threads or _threads()
    # threads that wait for work let go of their cores: spinning costs twice the CPU for the same pace on few cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=choice.chain)
    except Exception as error:  # onnxruntime raises its own kinds, which it doesn't export as one
        raise RuntimeModelError(f"onnxruntime can't open {path}: {error}") from error
    actual = session.get_providers()[0]
    if actual != choice.wanted:
        raise ProviderError(
            f"{choice.wanted} was asked for, but onnxruntime runs the file on {actual}; 'zooft doctor' shows what is missing"
        )
    properties = session.get_modelmeta().custom_metadata_map
    metadata = file_metadata.parse(properties)
    _refuse_contradictions(session, metadata, path)
    return OnnxModel(metadata, actual, _placement(session), choice.note, properties, session)


def _threads() -> int:
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdigit() and int(said) else machine.cores()


def _refuse_contradictions(session: Any, metadata: Metadata, path: Path) -> None:
    """What the metadata says of inputs and outputs must be what the graph has: a class more would get another's name."""
    outputs = {output.name: output.shape for output in session.get_outputs()}
    faults = [f"its graph has no output {name}" for name in ("probabilities", "logits") if name not in outputs]
    columns = {outputs[name][-1] for name in outputs.keys() & {"probabilities", "logits"} if outputs[name]}
    faults += [
        f"its metadata names {len(metadata.classes)} classes ({', '.join(metadata.classes)}), its outputs have {number}"
        for number in columns
        if isinstance(number, int) and number != len(metadata.classes)
    ]
    if len(set(metadata.classes)) < len(metadata.classes):
        faults.append(f"its metadata names a class twice: {', '.join(metadata.classes)}")
    faults += _port_faults(session, metadata.ports)
    if faults:
        raise RuntimeModelError(
            f"{path} contradicts itself: {'; '.join(sorted(faults))}; export it again with 'zooft export'"
        )


def _port_faults(session: Any, ports: tuple[Port, ...]) -> Iterator[str]:
    inputs = {given.name: given for given in session.get_inputs()}
    said, had = {port.name for port in ports}, set(inputs)
    if said != had:
        yield f"its metadata names the inputs {', '.join(sorted(said))}, its graph has {', '.join(sorted(had))}"
        return
    for port in ports:
        given = inputs[port.name]
        kind = _KINDS.get(given.type, given.type)
        fits = len(given.shape) == len(port.axes) and all(
            not isinstance(size, int) or size == axis for size, axis in zip(given.shape, port.axes, strict=True)
        )
        if kind != port.dtype or not fits:
            yield f"its metadata says {port.name}: {port.dtype} {port.axes}, its graph has {kind} {tuple(given.shape)}"


def parse_file(path: Path) -> onnx.ModelProto:
    """A file's graph, without tensors that lie beside it.

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
