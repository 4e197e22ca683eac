"""Tasks with CT: what CT has in common, joined with the kind of prediction."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import augment, deploy, discover, display, graph, read, task_parts, whois

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def ct_task(
    name: str, problem: zooft.Problem, *, summary: str, own: type[Any], answers: str, **more: Any
) -> zooft.Task:
    """A task of CT with targets in columns of the table of labels.

    Args:
        name: as on the command line.
        problem: the kind of answer; it reads targets from tables.
        summary: one line.
        own: the type of all its options, joined from `CTOptions`, `TargetOptions` and the problem's.
        answers: what it does with CT, for the ONNX metadata, such as: sorted into the listed classes.
        more: other fields of the task, or others than these.
    """
    find = more.pop("discover", None) or _Columns(problem)
    given: dict[str, Any] = {
        "options": own,
        "discover": find,
        "whois": partial(_whois, find),
        "intended_use": task_parts.INTENDED_USE.format(answers=answers),
        "begin": discover.begin,
        "gather": discover.gather,
        "read": read.read,
        "digest": read.digest,
        "port": graph.port,
        "preprocess": graph.preprocess,
        "explain": display.explain,
        "geometry": graph.geometry,
        "augment": augment.augment,
        "head": task_parts.head,
        "bag": task_parts.bag,
        "reader": deploy.reader,
        "private": True,
        "subgroups": ("manufacturer", "kernel", "slice_thickness", "sex", "age"),
        "show": display.show,
        "redact": display.redact,
        "report": display.report,
        "identify": task_parts.identify,
    }
    return zooft.Task(name=name, summary=summary, problem=problem, **{**given, **more})


class _Columns:
    """`discover_columns` of one problem, with the parameters that the core recognises.

    Args:
        problem: that reads the columns.
    """

    def __init__(self, problem: zooft.Problem) -> None:
        self.problem = problem

    def __call__(
        self, root: Any, options: Any, computing: zooft.Computing = zooft.unseen, *, learning: bool = True
    ) -> zooft.Discovery:
        """Samples and what can't be used."""
        return discover.discover_columns(self.problem, root, options, computing, learning=learning)


def _whois(
    find: Callable[..., zooft.Discovery], data: Path, ids: Sequence[str], options: Any
) -> Mapping[str, Mapping[str, str]]:
    return whois.whois(find(data, options, learning=False).samples, data, ids)
