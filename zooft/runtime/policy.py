"""What is refused in files that zooft didn't write.

Tensors in other files than the one beside it, and operators that aren't ONNX's own.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zooft.errors import RuntimeModelError

if TYPE_CHECKING:
    import onnx

DATA_FILE = "model.onnx.data"
"""The second file of a model above 2 GB, beside the first; tensors in any other file are refused."""
_STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def check(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file that reaches outside of itself, or whose second file is missing or cut off.

    Args:
        model: without the tensors of its second file.
        path: of the file.

    Raises:
        RuntimeModelError: names what is missing or refused.
    """
    from onnx.external_data_helper import uses_external_data

    outside = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if outside:
        _check_second_file(outside, path)
    foreign = _foreign_operators(model)
    if foreign:
        raise RuntimeModelError(f"the ONNX file uses operators that aren't ONNX's own: {', '.join(foreign)}")


def _check_second_file(outside: list[onnx.TensorProto], path: Path) -> None:
    elsewhere = sorted({place for place in map(_location, outside) if place != DATA_FILE})
    if elsewhere:
        raise RuntimeModelError(
            "the ONNX file has tensors in other files, which could be any file on this machine: "
            f"{', '.join(map(repr, elsewhere[:3]))}; only {DATA_FILE} beside it is read: export it again with 'zooft "
            "export'"
        )
    second = path.parent / DATA_FILE
    fault = _fault(second)
    if fault:
        raise RuntimeModelError(
            f"{path} has tensors in other files, and {second} {fault}{_near(second)}; "
            "bring both files together, under their names"
        )
    size, needed = second.stat().st_size, max(map(_end, outside))
    if size < needed:
        raise RuntimeModelError(
            f"{second} has {size:,} bytes, and the tensors of {path.name} reach to byte {needed:,}: it was cut off, "
            "or belongs to another model; copy it again"
        )


def _fault(path: Path) -> str:
    """Why a second file isn't read; empty where it is a regular file with one name. A link could lead to any file."""
    try:
        status = path.lstat()
    except OSError:
        return "isn't there"
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link, which could lead to any file on this machine: put the file itself there"
    if not stat.S_ISREG(status.st_mode):
        return "isn't a regular file"
    if status.st_nlink > 1:
        return "is a hard link, the file has another name somewhere on this machine: put a copy of its own there"
    return ""


def _near(missing: Path) -> str:
    """A file that may be the one, under another name."""
    if missing.is_symlink() or missing.exists():
        return ""
    others = sorted(found.name for found in missing.parent.glob("*.data") if found.is_file())
    return f" (there is {others[0]}: if it is the one, name it {missing.name} again)" if others else ""


def _location(tensor: onnx.TensorProto) -> str:
    return _entry(tensor, "location")


def _end(tensor: onnx.TensorProto) -> int:
    """The offset just after its last byte."""
    offset, length = _entry(tensor, "offset"), _entry(tensor, "length")
    return (int(offset) if offset.isdigit() else 0) + (int(length) if length.isdigit() else 0)


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors, including those in constants and in branches of control flow."""
    for one in _graphs(graph):
        yield from one.initializer
        for sparse in one.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in one.node for attribute in node.attribute):
            yield from (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else []))


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the branches of its control flow."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            yield from _graphs(inner)


def _foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Operators that nodes use: those that a file imports or defines and doesn't use never run."""
    defined = {(function.domain, function.name) for function in model.functions}
    used = {(node.domain, node.op_type) for graph in _graphs(model.graph) for node in graph.node}
    return sorted(
        f"{domain}.{name}".lstrip(".")
        for domain, name in used
        if domain not in _STANDARD_DOMAINS or (domain, name) in defined
    )
