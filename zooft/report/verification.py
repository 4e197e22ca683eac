"""The deployed file: its verification, and how to use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zooft.contracts.plurals import pluralize
from zooft.report import formatting
from zooft.report.blocks import Block, Code, Facts, Grid, Items, Section, Text
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import Port, Verification
    from zooft.report.inputs import ReportInputs

_SESSION = (
    f'session = onnxruntime.InferenceSession("{runs.ONNX_FILE}", providers=["CPUExecutionProvider"])',
    "names = [output.name for output in session.get_outputs()]",
)
_TAKEN = frozenset({"np", "names", "outputs", "session"})
"""Names that the snippet itself uses."""


def verification(inputs: ReportInputs) -> Section:
    """The file on disk against the model in torch."""
    found = inputs.verification
    if found is None:
        text = "No ONNX file was written in this run; 'zooft export RUN' writes and verifies one."
        return Section("verification", "Verification", (Text(text, "note"),))
    proven = (
        f"model.onnx was run by onnxruntime and gives the outputs of the model in torch, on {found.samples:,} of "
        f"{pluralize(found.available, 'real sample')}."
        if found.data == "real"
        else "The file was run by onnxruntime on generated images only, which proves much less than real samples would."
    )
    verdict = Text(proven, "good" if found.data == "real" else "warning")
    if not found.passed:
        verdict = Text("The file couldn't be verified. It is saved as model.unverified.onnx; don't use it.", "error")
    blocks: list[Block] = [verdict]
    if found.failures:
        blocks.append(Items(found.failures, "error"))
    blocks.append(Facts(_numbers(found)))
    if found.metrics:
        rows = tuple(
            (formatting.metric(k), formatting.figure(a, 4), formatting.figure(b, 4))
            for k, (a, b) in found.metrics.items()
        )
        blocks.append(Grid(title="Figures on these samples", columns=("Figure", "Model in torch", "File"), rows=rows))
    if found.notes:
        blocks.append(Items(found.notes))
    return Section("verification", "Verification", tuple(blocks))


def deployment(inputs: ReportInputs) -> Section:
    """How to use the file, by the command line and in ten lines of Python."""
    found = inputs.verification
    if found is None or not found.passed:
        return Section("deploy", "How to deploy", (Text("There is no verified file to deploy."),))
    blocks: list[Block] = [
        Text("The file holds everything from native units to the prediction: scaling, network, and what was fitted."),
        Code(
            f"zooft predict {runs.ONNX_FILE} FILE_OR_FOLDER",
            "With zooft, which reads the files too; torch isn't needed:",
        ),
    ]
    if inputs.ports:
        blocks.append(Code(snippet(inputs), "Without zooft:" if inputs.reader else "With numpy and onnxruntime alone:"))
        rows = tuple(
            (port.name, port.dtype, " × ".join(str(axis) for axis in port.axes), port.meaning) for port in inputs.ports
        )
        columns = ("Input", "Type", "Shape (names: any size)", "Meaning")
        blocks.append(Grid(title="Inputs", columns=columns, rows=rows, numbers=False))
    if inputs.intended_use:
        blocks.append(Text(f"Intended use: {inputs.intended_use}"))
    return Section("deploy", "How to deploy", tuple(blocks))


def snippet(inputs: ReportInputs) -> str:
    """Python that runs this file: on files where the task has a function to read them, else on an array of zeros."""
    known = any(evaluation.groups for evaluation in inputs.evaluations.values())
    data = inputs.record.data
    group_name = data.group_name if known else ""
    usage = inputs.problem.presentation.usage(inputs.labels, inputs.fitted, data.group_rule, group_name)
    return "\n".join((*(_on_files(inputs) if inputs.reader else _on_zeros(inputs)), *usage))


def _on_files(inputs: ReportInputs) -> tuple[str, ...]:
    names = ", ".join(json.dumps(port.name) for port in inputs.ports)
    return (
        "import sys",
        "",
        "import numpy as np",
        "import onnxruntime",
        inputs.reader.rstrip(),
        "",
        "",
        *_SESSION,
        f"parts = [session.run(None, dict(zip([{names}], sample))) for sample in read(sys.argv[1])]",
        "outputs = {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*parts))}",
    )


def _on_zeros(inputs: ReportInputs) -> tuple[str, ...]:
    lines = ["import numpy as np", "import onnxruntime", "", *_SESSION]
    for port in inputs.ports:
        shape = ", ".join(str(size) for size in example_shape(port, inputs))
        axes = ", ".join(str(axis) for axis in port.axes)
        lines.append(f"# {port.name}: {port.dtype} ({axes}): {' '.join(port.meaning.split())}")
        lines.append(f"{_variable(port)} = np.zeros(({shape}), np.{port.dtype})  # replace it by yours")
    feed = ", ".join(f"{json.dumps(port.name)}: {_variable(port)}" for port in inputs.ports)
    return (*lines, f"outputs = dict(zip(names, session.run(None, {{{feed}}})))")


def example_shape(port: Port, inputs: ReportInputs) -> tuple[int, ...]:
    """One sample; rows and columns as the network sees them, three of any other axis of free size."""
    spec = inputs.record.backbone.input
    sizes = {"height": spec.height, "width": spec.width, "rows": spec.height, "columns": spec.width}
    sizes |= {"h": spec.height, "w": spec.width, "y": spec.height, "x": spec.width}
    rest = [axis if isinstance(axis, int) else sizes.get(axis.lower(), 3) for axis in port.axes[1:]]
    return (1, *rest)


def _variable(port: Port) -> str:
    return port.name if port.name.isidentifier() and port.name not in _TAKEN else "array"


def _numbers(found: Verification) -> tuple[tuple[str, str], ...]:
    nodes = ", ".join(f"{n} on {name.removesuffix('ExecutionProvider')}" for name, n in found.placement.items())
    return (
        *((f"Output {name}", formatting.difference(one, one.whole)) for name, one in found.outputs.items()),
        *_parts(found),
        *((("Same exact outputs", f"{found.agreement:.2%} of the samples"),) if found.agreement is not None else ()),
        ("Samples", f"{found.samples:,} {found.data}"),
        ("Batch sizes", ", ".join(str(n) for n in found.batch_sizes)),
        ("Run by", f"{found.provider.removesuffix('ExecutionProvider')}, requested: {found.requested_provider}"),
        ("Operators", nodes),
        ("SHA-256 of the file", found.onnx_sha256),
        *((("Metadata compared with the run", ", ".join(found.declared)),) if found.declared else ()),
    )


def _parts(found: Verification) -> Iterator[tuple[str, str]]:
    """Preprocessing and network, each compared on its own."""
    level = found.preprocessing
    if level is not None:
        differing = f"{level.differing:,} of {level.values:,} levels differ by half a level or more"
        yield "Preprocessing alone", f"{differing}, the largest by {level.largest:.2g}"
    for name, one in found.outputs.items():
        if one.network is not None:
            yield f"Network alone, output {name}", formatting.difference(one, one.network)
