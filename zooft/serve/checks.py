"""A client's arrays against what the file's metadata states of its inputs: type, shape, range."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Any

from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Port
    from zooft.serve.limits import Limits

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def check_batch(ports: Sequence[Port], arrays: Arrays, limits: Limits) -> None:
    """Raise RequestRefused where arrays, one a port and with the batch axis, aren't what the ports take."""
    rows = {len(array) for array in arrays}
    if len(rows) > 1:
        raise RequestRefused(400, f"the inputs have different numbers of samples: {sorted(rows)}")
    for port, array in zip(ports, arrays, strict=True):
        check_values(port, array)
    check_size(arrays[0].shape, ports[0], limits)


def check_shape(port: Port, shape: tuple[int, ...], dtype: str) -> None:
    """Raise RequestRefused where an array's shape or type isn't the port's."""
    fits = len(shape) == len(port.axes) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(port.axes, shape, strict=True)
    )
    if dtype != port.dtype or not fits:
        raise RequestRefused(
            400,
            f"the model takes {port.name}: {port.dtype} {list(port.axes)}, but got {dtype} {list(shape)}: "
            f"{port.meaning}",
        )
    if 0 in shape:
        raise RequestRefused(400, f"{port.name} of shape {list(shape)} is empty; send samples with pixels")


def check_size(shape: tuple[int, ...], port: Port, limits: Limits) -> None:
    """Raise RequestRefused where there are too many samples, or too many pixels in one."""
    if shape[0] > limits.batch:
        raise RequestRefused(
            413, f"{shape[0]} samples in one request, and at most {limits.batch} are taken (--max-batch)"
        )
    pixels = prod(shape[1:]) // (3 if port.axes[-1] == 3 else 1)
    if pixels > limits.pixels:
        raise RequestRefused(
            413, f"a sample of {pixels:,} pixels, and at most {limits.pixels:,} are taken (--max-pixels)"
        )


def check_values(port: Port, array: NDArray[Any]) -> None:
    """Raise RequestRefused where numbers aren't finite, or outside of the range that the port's meaning states.

    Values of a range that begins below zero, none of which is, are levels of a picture: a photograph isn't diagnosed
    as if it were Hounsfield units.
    """
    import numpy as np

    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestRefused(400, f"{port.name} holds numbers that aren't finite")
    stated = _RANGE.search(port.meaning)
    if stated is None or array.dtype == np.uint8:
        return
    low, high = map(int, stated.groups())
    least, most = array.min(), array.max()
    if least < low or most > high:
        raise RequestRefused(
            400, f"{port.name} has values {least:g} to {most:g}, and the model takes {low}..{high}: {port.meaning}"
        )
    if low < 0 <= array.reshape(len(array), -1).min(axis=1).max():
        raise RequestRefused(
            400,
            f"{port.name} has a sample without any value below 0, as levels of a picture have, and the model takes "
            f"{low}..{high}: {port.meaning}",
        )
