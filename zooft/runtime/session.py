"""An exported file, opened with care and run.

Owns the policy for files that we didn't write (no external data, no custom operators, no functions) and the
check that the provider asked for is the one that runs.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.errors import ProviderError, RuntimeModelError
from zooft.runtime import metadata as file_metadata
from zooft.runtime import providers

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from zooft.contracts import Port
    from zooft.runtime.metadata import Metadata

DATA_FILE = "model.onnx.data"
"""The second file of a model above 2 GB, beside the first; tensors in any other file are refused."""
_STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """An open file.

    Attributes:
        metadata: what it says of itself.
        provider: the one that runs it.
        placement: provider to the number of nodes that it runs.
        note: what the user should know about the provider; may be empty.
    """

    metadata: Metadata
    provider: str
    placement: Mapping[str, int]
    note: str
    _session: Any

    @property
    def ports(self) -> tuple[Port, ...]:
        """The inputs."""
        return self.metadata.ports

    def run(self, *batch: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities and logits, both ``(N, classes)`` float32, of a batch in native units, an array for each port.

        The output ``prediction`` has the classes by the threshold in the graph; `decide` gives the same.

        Raises:
            RuntimeModelError: the batch's type or shape isn't what the ports say.
        """
        if len(batch) != len(self.ports):
            names = ", ".join(port.name for port in self.ports)
            raise RuntimeModelError(f"the model takes {len(self.ports)} inputs ({names}), but got {len(batch)}")
        for port, array in zip(self.ports, batch, strict=True):
            _check(port, array)
        feed = {port.name: array for port, array in zip(self.ports, batch, strict=True)}
        probabilities, logits = self._session.run(["probabilities", "logits"], feed)
        return probabilities, logits

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


def load(path: str | Path, *, provider: str = "auto", threads: int = 0) -> OnnxModel:
    """Open an exported file.

    Args:
        path: of the .onnx file.
        provider: auto, cpu, cuda or tensorrt.
        threads: within an operator; 0 lets onnxruntime choose.

    Raises:
        RuntimeModelError: not a file that we can read, or one that we refuse.
        ProviderError: the provider isn't to be had.
    """
    import onnxruntime

    path = Path(path)
    _refuse_unsafe(_parse(path), path.parent)
    choice = providers.choose(provider)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
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
    return OnnxModel(file_metadata.parse(properties), actual, _placement(session), choice.note, session)


def _parse(path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise RuntimeModelError(f"there is no file {path}; 'zooft export RUN' writes a run's model.onnx") from None
    except (OSError, DecodeError) as error:
        raise RuntimeModelError(f"{path} isn't a readable ONNX file: {error}") from error


def _refuse_unsafe(model: onnx.ModelProto, folder: Path) -> None:
    from onnx.external_data_helper import uses_external_data

    outside = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if outside and not (all(_location(tensor) == DATA_FILE for tensor in outside) and _is_plain(folder / DATA_FILE)):
        raise RuntimeModelError("the ONNX file keeps tensors in other files, which could be any file on this machine")
    foreign = {entry.domain for entry in model.opset_import} - _STANDARD_DOMAINS
    if foreign or model.functions:
        raise RuntimeModelError(f"the ONNX file uses operators that aren't ONNX's own: {', '.join(sorted(foreign))}")


def _location(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _is_plain(path: Path) -> bool:
    """A regular file with one name: a link, hard or symbolic, could lead to any file on this machine."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All of them: in constants and in the branches of control flow too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from _tensors(inner)


def _placement(session: Any) -> dict[str, int]:
    count: dict[str, int] = {}
    for group in session.get_provider_graph_assignment_info():
        count[group.ep_name] = count.get(group.ep_name, 0) + len(group.get_nodes())
    return count
