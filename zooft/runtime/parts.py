"""An exported file in its parts: its tensors, and its preprocessing alone.

For checking a file; nothing here is needed to run one. It stands beside `session` because it reads files with
the same care.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.errors import RuntimeModelError
from zooft.runtime import providers
from zooft.runtime.session import parse_file

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

NETWORK_INPUT = "zooft_network_input"
"""The tensor in the graph where the preprocessing ends and the network begins."""
NETWORK_OUTPUTS = "zooft_network_outputs"
"""The key of ``metadata_props`` with a JSON list of the tensors where the network ends."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What an exported file does before its network, to be run alone."""

    _names: tuple[str, ...]
    _session: Any

    def run(self, *batch: NDArray[Any]) -> NDArray[np.float32]:
        """The network's input ``(N, C, H, W)``, or ``(N, Z, C, H, W)`` of a bag, of a batch in native units."""
        wanted = {given.name for given in self._session.get_inputs()}
        feed = {name: array for name, array in zip(self._names, batch, strict=True) if name in wanted}
        (made,) = self._session.run([NETWORK_INPUT], feed)
        result: NDArray[np.float32] = made
        return result


def preprocessing(path: Path, *, provider: str) -> Preprocessing | None:
    """The operators of a file that lead to the network's input; None where the file doesn't name it.

    The file itself isn't changed. `zooft.runtime.load` has checked it before.

    Raises:
        RuntimeModelError: they can't be run alone.
    """
    whole = parse_file(path)
    if not any(NETWORK_INPUT in node.output for node in whole.graph.node):
        return None
    try:
        session = part(whole, path.parent, [NETWORK_INPUT], provider=provider)
    except RuntimeModelError as error:
        raise RuntimeModelError(f"onnxruntime can't run the preprocessing of {path} alone: {error}") from error
    return Preprocessing(tuple(given.name for given in whole.graph.input), session)


def part(whole: onnx.ModelProto, folder: Path, names: Sequence[str], *, provider: str) -> Any:
    """A session of the operators that lead to some of a graph's tensors, which are its outputs.

    Args:
        whole: the graph, which stays as it is.
        folder: with the tensors that aren't in the graph itself.
        names: of the tensors.
        provider: auto, cpu, cuda or tensorrt.

    Raises:
        RuntimeModelError: they can't be run alone.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised anyway
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    chain = providers.choose(provider).chain
    try:
        return onnxruntime.InferenceSession(_before(whole, folder, names).SerializeToString(), options, providers=chain)
    except Exception as error:  # onnxruntime raises its own kinds, which it doesn't export as one
        raise RuntimeModelError(str(error)) from error


def tensors_sha256(model: onnx.ModelProto, folder: Path | None = None) -> str:
    """SHA-256 of a graph's tensors, by name, hexadecimal.

    Args:
        model: the graph.
        folder: with the tensors that aren't in the graph itself.
    """
    digest = hashlib.sha256()
    for tensor in sorted(model.graph.initializer, key=lambda t: t.name):
        digest.update(tensor.name.encode())
        for piece in _content(tensor, folder):
            digest.update(piece)
    return digest.hexdigest()


def file_tensors_sha256(path: Path) -> str:
    """The same for a file, including the tensors in its second file."""
    return tensors_sha256(parse_file(path), path.parent)


def in_two_files(path: Path) -> bool:
    """Whether tensors lie beside the file."""
    from onnx.external_data_helper import uses_external_data

    return any(uses_external_data(tensor) for tensor in parse_file(path).graph.initializer)


def _content(tensor: onnx.TensorProto, folder: Path | None) -> Iterator[bytes]:
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    if not uses_external_data(tensor):
        yield tensor.raw_data
        return
    where = ExternalDataInfo(tensor)
    if folder is None:
        raise ValueError("the tensors lie in another file")
    with (folder / where.location).open("rb") as file:
        file.seek(where.offset or 0)
        left = where.length if where.length is not None else -1
        while left and (piece := file.read(2**20 if left < 0 else min(left, 2**20))):
            left -= len(piece) if left > 0 else 0
            yield piece


def _before(whole: onnx.ModelProto, folder: Path, names: Sequence[str]) -> onnx.ModelProto:
    """A model of the operators that lead to some tensors."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

    wanted, nodes = set(names), []
    for node in reversed(whole.graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(read_by(node))
    tensors = [tensor for tensor in whole.graph.initializer if tensor.name in wanted]
    graph = onnx.helper.make_graph(
        nodes[::-1],
        "part",
        [given for given in whole.graph.input if given.name in wanted],
        [onnx.ValueInfoProto(name=name) for name in names],
        tensors,
    )
    for tensor in graph.initializer:
        if uses_external_data(tensor):
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    return onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)


def read_by(node: onnx.NodeProto) -> Iterator[str]:
    """The names that an operator reads, in its branches too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for own in inner.node:
                yield from read_by(own)
            yield from (output.name for output in inner.output)
