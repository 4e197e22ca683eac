"""What a file's metadata states, compared with what is true: its run, its tensors, the record of its verification.

Owns what a difference means. Numbers alone don't find a file whose labels are in another order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.hooks.guard import code_of, part_place
from zooft.model.weights import file_sha256
from zooft.run import folder as runs
from zooft.runtime import metadata as file_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from zooft.contracts import Labels, Output, Problem, Task
    from zooft.runtime import Metadata, OnnxModel

_WORDED = ("preprocessing", "ports", "outputs", "intended_use")
"""What plugins put into words, which another version may choose otherwise."""
_COMPARED_ELSEWHERE = ("weights_sha256", "schema")
_MOST = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What the comparison of a file's metadata with what is true has shown.

    Attributes:
        compared: what.
        faults: what isn't as it should be, in words.
        notes: what a reader should know.
    """

    compared: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def against_run(model: OnnxModel, path: Path, expected: Metadata, problem: Problem, *, version: str) -> Declaration:
    """A file's metadata against its run's.

    Args:
        model: the file, opened: its inputs and outputs are those that its metadata names.
        path: where it lies.
        expected: what an export of the run would state.
        problem: the run's.
        version: of this zooft. Where another one wrote the file, other words for the same are notes, no fault.
    """
    found = model.metadata
    faults, notes = list(_tensor_faults(path, found)), list[str]()
    names = [field.name for field in fields(found) if field.name not in _COMPARED_ELSEWHERE]
    for name in names:
        ours, theirs = _plain(expected, name), _plain(found, name)
        if ours == theirs:
            continue
        shown, wanted = (
            _short(_labels(one.labels) if name == "labels" else _plain(one, name)) for one in (found, expected)
        )
        text = f"the file's metadata states {name}: {shown}; its run has {wanted}"
        old = (found.version, found.schema) != (version, file_metadata.SCHEMA) and name in _WORDED
        (notes if old and _wordless(expected, name) == _wordless(found, name) else faults).append(text)
    return Declaration(
        compared=("inputs and outputs", "tensors", *names, "weights_sha256", "names for other tools"),
        faults=(*faults, *_other_tools(model, problem)),
        notes=tuple(notes),
    )


def alone(model: OnnxModel, path: Path, problem: Problem) -> Declaration:
    """A file's metadata against the file itself, where there is no run to compare with."""
    return Declaration(
        compared=("inputs and outputs", "tensors", "names for other tools"),
        faults=(*_tensor_faults(path, model.metadata), *_other_tools(model, problem)),
    )


def doubts(model: OnnxModel, path: Path, problem: Problem) -> tuple[str, ...]:
    """Why a file may not be the one that was verified; for whoever uses it.

    Beside a ``verification.json`` its SHA-256 must be the recorded one, else its tensors those that its metadata names,
    and what it gives other tools, such as the names of labels, the same.
    """
    record, name = record_of(model, path), path.name
    if record.is_file():
        return tuple(_against_record(record, path, model.metadata))
    found = (*_tensor_faults(path, model.metadata), *_other_tools(model, problem))
    faults = [f"{fault}; 'zooft export' writes a run's file again" for fault in found]
    if (path.parent / runs.RUN_FILE).is_file():
        faults.append(
            f"no record shows that {name} was verified: there is no {record.name} beside it; 'zooft export "
            f"{path.parent}' writes and verifies it again"
        )
    return tuple(faults)


def record_of(model: OnnxModel, path: Path) -> Path:
    """Where a file's record of verification lies: each precision has its own."""
    precision = model.precision.name
    own = runs.VERIFICATION_FILE if precision == "fp32" else runs.PRECISION_VERIFICATION_FILE.format(precision)
    return path.parent / own


def _against_record(record: Path, path: Path, metadata: Metadata) -> Iterator[str]:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        wanted, passed = str(content["onnx_sha256"]), bool(content["passed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{record} can't be read ({type(error).__name__}), so no record shows that {path.name} was verified"
        return
    actual = file_sha256(path)
    if actual != wanted:
        yield (
            f"{path.name} isn't the file that {record.name} beside it is about: its SHA-256 is {actual[:12]}…, the "
            f"verified one's {wanted[:12]}…; 'zooft export' writes and verifies a run's file again, or move the "
            "record away if it belongs to another file"
        )
    elif not passed:
        yield f"{path.name} failed its verification: {record.name} beside it gives the reasons"
    elif runtime.in_two_files(path):
        yield from _tensor_faults(path, metadata)


def _tensor_faults(path: Path, metadata: Metadata) -> Iterator[str]:
    actual = runtime.file_tensors_sha256(path)
    if actual != metadata.weights_sha256:
        yield (
            f"the file's tensors aren't those that its metadata names: their SHA-256 is {actual[:12]}…, the named one "
            f"{metadata.weights_sha256[:12]}…, so something has changed it since it was exported"
        )


def _other_tools(model: OnnxModel, problem: Problem) -> Iterator[str]:
    """What the file gives to tools that don't know zooft must be the same."""
    others = problem.deployment.properties(model.metadata.labels)
    for key, value in model.metadata.to_properties(others).items():
        found = model.properties.get(key)
        if key != file_metadata.KEY and found != value:
            yield f"the file gives other tools {key}: {_short(found)}, but zooft {_short(value)}"


def _plain(metadata: Metadata, name: str) -> Any:
    """As JSON has it, so that a tuple and a list are the same."""
    return json.loads(json.dumps(runs.to_json(getattr(metadata, name)), sort_keys=True))


def _labels(labels: Labels) -> list[str]:
    return [f"{label.name} ({', '.join(label.categories) or label.unit})" for label in labels]


def _wordless(metadata: Metadata, name: str) -> Any:
    """Without words that may have been chosen anew."""
    if name == "ports":
        return _plain(replace(metadata, ports=tuple(replace(port, meaning="") for port in metadata.ports)), name)
    # how closely an output is compared is its problem's choice, too
    return [(output.name, output.dtype, output.axes) for output in metadata.outputs] if name == "outputs" else None


def _short(value: Any) -> str:
    text = (
        ", ".join(map(str, value)) if isinstance(value, list) and all(isinstance(v, str) for v in value) else str(value)
    )
    if isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"


def refuse_undeclared(task: Task, declared: Sequence[Output], found: Any, *, rows: int) -> None:
    """Raise PluginError where the last piece of a graph gives other tensors than are declared.

    Args:
        task: whose problem's graph.
        declared: what `DeploymentPart.outputs` gives.
        found: what the graph has made of some samples.
        rows: how many.
    """
    place, code = part_place(task, "deployment", "graph"), code_of(task.problem.deployment, "graph")
    names = ", ".join(output.name for output in declared)
    if not isinstance(found, (tuple, list)):
        what = "what its module makes"
        raise place.amiss(found, f"a tuple of {len(declared)} tensors ({names})", what=what, code=code)
    if len(found) != len(declared):
        text = f"makes a module that gives {len(found)} tensors; expected {len(declared)}, as `outputs` names {names}"
        raise place.error(text, code=code)
    for output, tensor in zip(declared, found, strict=True):
        kind, shape = str(getattr(tensor, "dtype", "")).removeprefix("torch."), tuple(getattr(tensor, "shape", ()))
        sizes = (rows, *output.axes[1:])
        fits = len(shape) == len(sizes) and all(
            isinstance(wanted, str) or size == wanted for size, wanted in zip(shape, sizes, strict=True)
        )
        if kind != output.dtype or not fits:
            expected = f"{output.dtype} {output.axes}, as `outputs` gives"
            text = (
                f"makes a module that gives {output.name} as {kind or type(tensor).__name__} {shape} of {rows} "
                f"samples; expected {expected}"
            )
            raise place.error(text, code=code)
