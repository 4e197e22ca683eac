"""Which places of a picture an answer hangs on, without gradients: each is covered in turn, and the answer compared.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.data import samples as sample_tables
from zooft.deploy import predict as answers
from zooft.errors import ZooftError
from zooft.serve.images import png, receive_files
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import Arrays, Port
    from zooft.serve.images import ReceivedFiles
    from zooft.serve.limits import Limits
    from zooft.serve.repository import Served

GRID = 12
"""Places along each side."""
_BATCH = 8
_LONGEST = 512
"""Pixels: a larger picture is made smaller first, since it is computed more than a hundred times."""


def occlude(served: Served, body: bytes, limits: Limits) -> dict[str, Any]:
    """How much the answer changes where each place of a picture is covered.

    Returns:
        ``changes``: `GRID` rows of `GRID` numbers, of which larger ones mean places that matter more; ``of``: what
        changes, in words; ``picture``.

    Raises:
        RequestRefused: the picture can't be read, or its answer has nothing that could be compared.
    """
    with receive_files(body, limits) as given:
        try:
            arrays, picture = _read_sample(served, given)
            changes, words = _measure_changes(served, arrays)
        except ZooftError as error:
            raise RequestRefused(422, given.name(str(error))) from error
    return {"of": words, "changes": changes.round(6).tolist(), "picture": png(picture)}


def _read_sample(served: Served, given: ReceivedFiles) -> tuple[Arrays, NDArray[Any]]:
    """The arrays of the picture, or of the middle one of a series, and how people see it."""
    task, options = served.task, served.options
    if task.gather is None:
        path = given.files()[0]
        arrays = sample_tables.as_arrays(task.read(path, options), path.name)
        arrays = (_shrink(served.model.ports[0], arrays[0]), *arrays[1:])
        return arrays, sample_tables.picture(task, options, arrays)
    found = answers.discover_groups(task, [given.folder], options, lambda _title, _total: lambda _done: None)
    if not found.samples:
        reasons = "; ".join(dict.fromkeys(each.reason for each in found.rejected))
        raise RequestRefused(422, given.name(f"there is nothing that the model reads: {reasons}"))
    sample = found.samples[len(found.samples) // 2]
    return sample_tables.read(task, options, sample), sample_tables.show(task, options, sample)


def _shrink(port: Port, picture: NDArray[Any]) -> NDArray[Any]:
    import PIL.Image

    if port.dtype != "uint8" or max(picture.shape[:2]) <= _LONGEST:
        return picture
    image = PIL.Image.fromarray(picture.squeeze())
    image.thumbnail((_LONGEST, _LONGEST))
    return np.asarray(image).reshape(*image.size[::-1], picture.shape[2])


def _measure_changes(served: Served, arrays: Arrays) -> tuple[NDArray[Any], str]:
    plain = served.model.run(*(array[None] for array in arrays))
    found: list[NDArray[Any]] = []
    words = ""
    for boxes, batch in _cover_places(served.model.ports[0], arrays):
        words, change = _compare(plain, served.model.run(*batch), boxes, served)
        found.append(change)
    return np.concatenate(found).reshape(GRID, GRID), words


def _cover_places(port: Port, arrays: Arrays) -> Iterator[tuple[list[tuple[slice, slice]], Arrays]]:
    """Batches of the picture with one place after the other in its mean colour."""
    first, colours = arrays[0], port.axes[-1] in (1, 3)
    height, width = first.shape[-3:-1] if colours else first.shape[-2:]
    rows, columns = (np.linspace(0, size, GRID + 1).round().astype(int) for size in (height, width))
    boxes = [(slice(rows[r], rows[r + 1]), slice(columns[c], columns[c + 1])) for r in range(GRID) for c in range(GRID)]
    mean = first.mean(axis=(-3, -2) if colours else None).astype(first.dtype)
    for begin in range(0, len(boxes), _BATCH):
        some = boxes[begin : begin + _BATCH]
        covered = np.repeat(first[None], len(some), axis=0)
        for one, (down, along) in zip(covered, some, strict=True):
            one[(..., down, along, slice(None)) if colours else (..., down, along)] = mean
        yield some, (covered, *(np.repeat(array[None], len(some), axis=0) for array in arrays[1:]))


def _compare(
    plain: Mapping[str, NDArray[Any]],
    covered: Mapping[str, NDArray[Any]],
    boxes: list[tuple[slice, slice]],
    served: Served,
) -> tuple[str, NDArray[Any]]:
    """What is compared, in words, and how much it changes ``(N,)``: of the first output that has it."""
    if "probabilities" in plain and plain["probabilities"].ndim == 2:
        top = int(plain["probabilities"][0].argmax())
        names = [name for label in served.model.metadata.labels for name in label.categories or (label.name,)]
        name = names[top] if len(names) == plain["probabilities"].shape[1] else f"number {top}"
        return (
            f"how far the probability of {name} falls",
            plain["probabilities"][0, top] - covered["probabilities"][:, top],
        )
    for output in served.model.metadata.outputs:
        before, after = plain[output.name], covered[output.name]
        if before.dtype.kind == "f" and before.ndim == 2:
            return f"how much {output.name} changes", np.linalg.norm(after.astype(np.float64) - before, axis=1)
        if before.dtype.kind in "iu" and before.ndim == 3:
            differs = after != before
            for one, box in zip(differs, boxes, strict=True):
                one[box] = False  # what is covered itself says nothing
            return "the share of other pixels whose class changes", differs.mean(axis=(1, 2))
    raise RequestRefused(422, "answers of this model have nothing that an occlusion map compares")
