"""Tasks with images: what images have in common, joined with the kind of prediction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images import discover, from_source, options, read, views

if TYPE_CHECKING:
    from collections.abc import Callable


def image_task(
    name: str, problem: zooft.Problem, *, summary: str, own: type[Any], intended_use: str, **more: Any
) -> zooft.Task:
    """A task of images with targets in columns of a table.

    Args:
        name: as on the command line.
        problem: the kind of answer; it reads targets from tables.
        summary: one line.
        own: the type of all its options, joined from `ImageOptions`, `TargetOptions` and the problem's.
        intended_use: goes into the ONNX metadata.
        more: other fields of the task, or others than these.
    """
    given: dict[str, Any] = {
        "options": own,
        "discover": _Columns(partial(discover.discover_columns, problem)),
        "read": read.read,
        "digest": read.digest,
        "decode_small": read.decode_small,
        "of_row": from_source.of_row,
        "port": views.port,
        "channels": options.channels,
        "preprocess": zooft.image_preprocess,
        "augment": views.augment,
        "reader": views.reader,
    }
    return zooft.Task(name=name, summary=summary, problem=problem, intended_use=intended_use, **{**given, **more})


class _Columns:
    """`discover_columns` of one problem, with the parameters that the core recognises.

    Args:
        work: the same, with its problem given.
    """

    def __init__(self, work: Callable[..., zooft.Discovery]) -> None:
        self.work = work

    def __call__(
        self,
        root: Any,
        options: Any,
        *,
        computing: zooft.Computing = zooft.unseen,
        sources: Any = (),
    ) -> zooft.Discovery:
        """What was found below a folder or in a table."""
        return self.work(root, options, computing=computing, sources=sources)
