"""Open Inference Protocol v2 over HTTP: requests to arrays and arrays to answers, with the binary tensor extension.

https://github.com/kserve/open-inference-protocol and, of binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.serve import checks
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Output, Port
    from zooft.serve.limits import Limits

HEADER = "Inference-Header-Content-Length"
_DATATYPES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64"} | {
    f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)
}
"""From numpy's names."""
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}
_MOST_JSON = 8_000_000
"""Bytes of JSON, whose parsing makes all others wait; larger tensors are sent as binary ones."""
_MOST_NUMBERS = 2_000_000
_UNSUPPORTED = ("sequence_id", "shared_memory_region", "classification")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """What a client asks for.

    Attributes:
        id: of the request, as the client calls it; "" where it has none.
        arrays: one a port, with the batch axis.
        outputs: those to return, and whether as binary tensors.
    """

    id: str
    arrays: Arrays
    outputs: Mapping[str, bool]


def describe(port: Port | Output) -> dict[str, Any]:
    """An input or output, as metadata has it."""
    shape = [axis if isinstance(axis, int) else -1 for axis in port.axes]
    return {"name": port.name, "datatype": _DATATYPES[port.dtype], "shape": shape}


def parse(
    body: bytes, json_length: str | None, ports: Sequence[Port], outputs: Sequence[Output], limits: Limits
) -> InferRequest:
    """A request from its body.

    Args:
        body: JSON, and after it binary tensors.
        json_length: the value of `HEADER`; None where the whole body is JSON.
        ports: of the model.
        outputs: of the model.
        limits: of pixels and batch.

    Raises:
        RequestRefused: with what doesn't fit.
    """
    whole, binary = _split(body, json_length)
    given = _inputs(whole, binary)
    names = [port.name for port in ports]
    if sorted(given) != sorted(names):
        raise RequestRefused(400, f"the model takes the inputs {', '.join(names)}; got {', '.join(given) or 'none'}")
    arrays = tuple(_array(port, *given[port.name], limits) for port in ports)
    checks.check_batch(ports, arrays, limits)
    identifier = whole.get("id", "")
    if not isinstance(identifier, str):
        raise RequestRefused(400, "id isn't a text")
    return InferRequest(
        id=identifier, arrays=arrays, outputs=_requested_outputs(whole, [output.name for output in outputs])
    )


def encode(
    request: InferRequest, answers: Mapping[str, NDArray[Any]], *, model: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """The body and headers of an answer.

    Raises:
        RequestRefused: it is too large for JSON.
    """
    entries, tensors = [], []
    for name, as_binary in request.outputs.items():
        array = np.ascontiguousarray(answers[name])
        entry: dict[str, Any] = {"name": name, "datatype": _DATATYPES[str(array.dtype)], "shape": list(array.shape)}
        if as_binary:
            tensors.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(tensors[-1])}
        elif array.size > _MOST_NUMBERS:
            raise RequestRefused(413, f"{name} has {array.size:,} numbers, too many for JSON; ask for binary_data")
        else:
            entry["data"] = array.reshape(-1).tolist()
        entries.append(entry)
    whole = {"model_name": model, "model_version": version, "outputs": entries}
    head = json.dumps(whole | ({"id": request.id} if request.id else {})).encode()
    if not tensors:
        return head, {"Content-Type": "application/json"}
    return b"".join((head, *tensors)), {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def json_object(body: bytes) -> dict[str, Any]:
    """A JSON object; an empty one of an empty body.

    Raises:
        RequestRefused: it is none.
    """
    if not body.strip():
        return {}
    if len(body) > _MOST_JSON:
        raise RequestRefused(
            413, f"{len(body):,} bytes of JSON, and at most {_MOST_JSON:,} are taken; send binary tensors"
        )
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RequestRefused(400, f"the request isn't JSON: {error}") from None
    if not isinstance(found, dict):
        raise RequestRefused(400, "the request isn't a JSON object")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} isn't a number of JSON")


def _split(body: bytes, json_length: str | None) -> tuple[dict[str, Any], memoryview]:
    if json_length is None:
        return json_object(body), memoryview(b"")
    if not json_length.isdecimal() or int(json_length) > len(body):
        raise RequestRefused(400, f"{HEADER} is {json_length[:20]!r}, and the request has {len(body)} bytes")
    return json_object(body[: int(json_length)]), memoryview(body)[int(json_length) :]


def _entries(whole: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = whole.get(name, [])
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("parameters", {}), dict)
        for one in found
    ):
        raise RequestRefused(400, f"{name} isn't a list of objects with a name")
    for one in found:
        _check_parameters(one.get("parameters", {}))
    return found


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name in _UNSUPPORTED:
        if parameters.get(name):
            raise RequestRefused(400, f"the parameter {name} isn't supported")


def _inputs(whole: Mapping[str, Any], binary: memoryview) -> dict[str, tuple[dict[str, Any], memoryview | None]]:
    """Each input with the bytes of its tensor, which follow each other; None where it stands in the JSON."""
    given: dict[str, tuple[dict[str, Any], memoryview | None]] = {}
    at = 0
    for entry in _entries(whole, "inputs"):
        size = entry.get("parameters", {}).get("binary_data_size")
        if entry["name"] in given:
            raise RequestRefused(400, f"the input {entry['name']} is given twice")
        if size is None:
            given[entry["name"]] = (entry, None)
            continue
        if type(size) is not int or size < 0 or at + size > len(binary):
            raise RequestRefused(
                400, f"binary_data_size of {entry['name']} is {size!r}, and {len(binary) - at} bytes are left"
            )
        given[entry["name"]] = (entry, binary[at : at + size])
        at += size
    if at != len(binary):
        raise RequestRefused(400, f"{len(binary) - at} bytes follow the last binary tensor")
    return given


def _array(port: Port, entry: Mapping[str, Any], raw: memoryview | None, limits: Limits) -> NDArray[Any]:
    shape, datatype = entry.get("shape"), entry.get("datatype")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise RequestRefused(400, f"the shape of {port.name} isn't a list of whole numbers")
    if not isinstance(datatype, str) or datatype not in _DTYPES:
        raise RequestRefused(400, f"the datatype of {port.name} is none of {', '.join(_DTYPES)}")
    checks.check_shape(port, tuple(shape), _DTYPES[datatype])
    checks.check_size(tuple(shape), port, limits)
    if raw is None:
        return _from_json(port, entry.get("data"), tuple(shape))
    dtype = np.dtype(port.dtype)
    needed = prod(shape) * dtype.itemsize
    if len(raw) != needed:
        raise RequestRefused(
            400, f"{port.name} of shape {shape} and type {datatype} has {needed} bytes, got {len(raw)}"
        )
    found: NDArray[Any] = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)
    return found.astype(dtype, copy=False)


def _from_json(port: Port, data: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RequestRefused(400, f"data of {port.name} isn't an array: {error}") from None
    if found.size != prod(shape):
        raise RequestRefused(400, f"{port.name} of shape {list(shape)} has {prod(shape)} numbers, got {found.size}")
    dtype = np.dtype(port.dtype)
    kinds = {"f": "iuf", "b": "b"}.get(dtype.kind, "iu")
    if found.dtype.kind not in kinds:
        raise RequestRefused(400, f"data of {port.name} aren't numbers of the type {port.dtype}")
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= found.min() <= found.max() <= np.iinfo(dtype).max:
        raise RequestRefused(400, f"data of {port.name} don't fit into {port.dtype}: {found.min()} to {found.max()}")
    return found.astype(dtype).reshape(shape)


def _requested_outputs(whole: Mapping[str, Any], known: Sequence[str]) -> dict[str, bool]:
    parameters = whole.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestRefused(400, "parameters isn't an object")
    _check_parameters(parameters)
    usual = bool(parameters.get("binary_data_output", False))
    entries = _entries(whole, "outputs")
    if not entries:
        return dict.fromkeys(known, usual)
    unknown = [entry["name"] for entry in entries if entry["name"] not in known]
    if unknown:
        raise RequestRefused(400, f"the model has the outputs {', '.join(known)}, not {', '.join(unknown)}")
    return {entry["name"]: bool(entry.get("parameters", {}).get("binary_data", usual)) for entry in entries}
