"""An exported file's network, taken out of the graph and put back.

Owns where it begins and ends: at the tensors that `export` has marked. Preprocessing and what is made of the network's
outputs (softmax, boxes, masks) stay as they are, operator by operator, whatever is done to the network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.errors import ExportError
from zooft.runtime import NETWORK_INPUT, NETWORK_OUTPUTS
from zooft.runtime.parts import read_by

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_COPY = "_of_the_network"


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A file's graph, and its network as a graph of its own.

    Attributes:
        whole: the file; tensors that network and others read are there twice.
        network: what lies between the marked tensors. Its inputs may be more than `NETWORK_INPUT`, such as a batch's
            size.
        inside: places of the network's nodes in the whole.
    """

    whole: onnx.ModelProto
    network: onnx.ModelProto
    inside: frozenset[int]

    @property
    def inputs(self) -> list[str]:
        """Names of the tensors that the network reads."""
        return [given.name for given in self.network.graph.input]

    @property
    def outputs(self) -> list[str]:
        """Names of the tensors where it ends."""
        return [made.name for made in self.network.graph.output]


def is_marked(whole: onnx.ModelProto) -> bool:
    """Whether a file names where its network begins and ends; those of older versions don't."""
    return bool(_outputs(whole)) and any(NETWORK_INPUT in node.output for node in whole.graph.node)


def take_apart(whole: onnx.ModelProto) -> TakenApart:
    """Take the network out of a file's graph.

    Args:
        whole: with all its tensors; it is changed where network and others share a tensor.

    Raises:
        ExportError: it doesn't name where its network begins and ends, or there is nothing between.
    """
    import onnx

    if not is_marked(whole):
        raise ExportError("the file doesn't mark where its network begins and ends (an older zooft wrote it)")
    outputs = _outputs(whole)
    inside = _between(whole.graph, outputs)
    if not inside:
        raise ExportError("there is no operator between the preprocessing and the network's outputs")
    _unshare(whole.graph, inside)
    nodes = [whole.graph.node[place] for place in sorted(inside)]
    made, read = {name for node in nodes for name in node.output}, [name for node in nodes for name in read_by(node)]
    tensors = [tensor for tensor in whole.graph.initializer if tensor.name in set(read)]
    given = {name for node in whole.graph.node for name in node.output} | {port.name for port in whole.graph.input}
    inputs = [name for name in dict.fromkeys(read) if name in given - made]
    described = {info.name: info for info in _describe(whole)}
    graph = onnx.helper.make_graph(
        nodes, "network", [described[name] for name in inputs], [described[name] for name in outputs], tensors
    )
    model = onnx.helper.make_model(graph, opset_imports=list(whole.opset_import), ir_version=whole.ir_version)
    return TakenApart(whole, model, frozenset(inside))


def put_back(apart: TakenApart, network: onnx.ModelProto) -> onnx.ModelProto:
    """The file's graph with another network between the same tensors; metadata stay."""
    import onnx

    whole = apart.whole.graph
    outside = [node for place, node in enumerate(whole.node) if place not in apart.inside]
    first = min(apart.inside)
    ahead = sum(place not in apart.inside for place in range(first))
    read = {name for node in outside for name in read_by(node)}
    graph = onnx.helper.make_graph(
        _in_order([*outside[:ahead], *network.graph.node, *outside[ahead:]]),
        whole.name,
        list(whole.input),
        list(whole.output),
        [*(tensor for tensor in whole.initializer if tensor.name in read), *network.graph.initializer],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=list(apart.whole.opset_import), ir_version=apart.whole.ir_version
    )
    model.producer_name, model.producer_version = apart.whole.producer_name, apart.whole.producer_version
    model.metadata_props.extend(apart.whole.metadata_props)
    return model


def ahead_of(apart: TakenApart, names: Sequence[str]) -> onnx.ModelProto:
    """The operators that lead to some of the whole's tensors, which are its outputs."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(apart.whole)
    wanted, nodes = set(names), []
    for node in reversed(apart.whole.graph.node):
        if wanted.intersection(node.output):
            nodes.append(node)
            wanted.update(read_by(node))
    del model.graph.node[:], model.graph.output[:], model.graph.initializer[:]
    model.graph.node.extend(nodes[::-1])
    model.graph.initializer.extend(tensor for tensor in apart.whole.graph.initializer if tensor.name in wanted)
    inputs = {given.name: given for given in apart.network.graph.input}
    model.graph.output.extend(inputs[name] for name in names)
    return model


@dataclass(frozen=True, slots=True)
class Feeds:
    """What the network reads, of samples in native units.

    Attributes:
        ports: names of the file's inputs.
        names: of the network's inputs.
    """

    ports: tuple[str, ...]
    names: tuple[str, ...]
    _session: Any

    def of(self, arrays: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Of one sample, an array for each port, without the batch axis."""
        wanted = {given.name for given in self._session.get_inputs()}
        given = {name: array[None] for name, array in zip(self.ports, arrays, strict=True) if name in wanted}
        return dict(zip(self.names, self._session.run(list(self.names), given), strict=True))


def feeds(apart: TakenApart) -> Feeds:
    """What comes before the network, opened on the CPU."""
    names = tuple(apart.inputs)
    ports = tuple(given.name for given in apart.whole.graph.input)
    return Feeds(ports, names, open_session(ahead_of(apart, names)))


def open_session(model: onnx.ModelProto | Path, *, threads: int = 0) -> Any:
    """Onnxruntime's session on the CPU.

    Args:
        model: a graph, or where a file lies.
        threads: for computation; 0 for onnxruntime's own choice.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _outputs(whole: onnx.ModelProto) -> list[str]:
    text = next((entry.value for entry in whole.metadata_props if entry.key == NETWORK_OUTPUTS), "[]")
    try:
        names = json.loads(text)
    except ValueError:
        return []
    made = {name for node in whole.graph.node for name in node.output}
    return names if isinstance(names, list) and all(name in made for name in names) else []


def _between(graph: onnx.GraphProto, outputs: Sequence[str]) -> set[int]:
    """Places of the nodes that lead to `outputs` and not to the network's input."""
    return _ancestors(graph, outputs, stop=NETWORK_INPUT) - _ancestors(graph, [NETWORK_INPUT])


def _ancestors(graph: onnx.GraphProto, names: Sequence[str], *, stop: str = "") -> set[int]:
    wanted, found = set(names), set()
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if wanted.intersection(node.output) - {stop}:
            found.add(place)
            wanted.update(name for name in read_by(node) if name != stop)
    return found


def _unshare(graph: onnx.GraphProto, inside: set[int]) -> None:
    """A tensor that nodes inside and outside read becomes two."""
    outside = {name for place, node in enumerate(graph.node) if place not in inside for name in read_by(node)}
    outside.update(output.name for output in graph.output)
    for tensor in [tensor for tensor in graph.initializer if tensor.name in outside]:
        readers = [graph.node[place] for place in inside if tensor.name in graph.node[place].input]
        if not readers:
            continue
        copy = graph.initializer.add()
        copy.CopyFrom(tensor)
        copy.name = tensor.name + _COPY
        for node in readers:
            for place, name in enumerate(node.input):
                if name == tensor.name:
                    node.input[place] = copy.name


def _describe(whole: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Types and shapes of all tensors."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(whole).graph
    return [*inferred.value_info, *inferred.input, *inferred.output]


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Each node behind those whose outputs it reads, else as they were."""
    made = {name for node in nodes for name in node.output}
    done, ordered, left = set[str](), list[Any](), list(nodes)
    while left:
        later = []
        for node in left:
            if all(name in done or name not in made for name in read_by(node)):
                ordered.append(node)
                done.update(node.output)
            else:
                later.append(node)
        if len(later) == len(left):
            raise ExportError("the graph has a circle")
        left = later
    return ordered
