"""The file that was written: what was proven of it, and how to use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zooft.report import words
from zooft.report.blocks import Block, Code, Facts, Grid, Items, Section, Text
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import Port, Verification
    from zooft.report.inputs import Material


def verification(material: Material) -> Section:
    """The file on disk against the model in torch."""
    found = material.verification
    if found is None:
        text = "No ONNX file was written in this run; 'zooft export RUN' writes and verifies one."
        return Section("verification", "Verification", (Text(text, "note"),))
    said = (
        f"model.onnx was run by onnxruntime and answers as the model in torch did, on {found.samples:,} of "
        f"{words.count(found.available, 'real sample')}."
        if found.data == "real"
        else "The file was run by onnxruntime on generated images only, which proves much less than real samples would."
    )
    verdict = Text(said, "good" if found.data == "real" else "warning")
    if not found.passed:
        verdict = Text("The file couldn't be verified. It is kept as model.unverified.onnx; don't use it.", "error")  # fmt: skip
    blocks: list[Block] = [verdict]
    if found.failures:
        blocks.append(Items(found.failures, "error"))
    blocks.append(Facts(_numbers(found)))
    if found.metrics:
        rows = tuple((words.metric(k), words.figure(a, 4), words.figure(b, 4)) for k, (a, b) in found.metrics.items())
        blocks.append(Grid(title="Figures on these samples", columns=("Figure", "Model in torch", "File"), rows=rows))
    if found.notes:
        blocks.append(Items(found.notes))
    return Section("verification", "Verification", tuple(blocks))


def deployment(material: Material) -> Section:
    """How to use the file, by the command line and in ten lines of Python."""
    found = material.verification
    if found is None or not found.passed:
        return Section("deploy", "How to deploy", (Text("There is no verified file to deploy."),))
    blocks: list[Block] = [
        Text("The file holds everything from native units to probabilities: scaling, network, calibration."),
        Code(f"zooft predict {runs.ONNX_FILE} FILE_OR_FOLDER", "With zooft, which reads the files too; torch isn't needed:"),
    ]  # fmt: skip
    if material.ports:
        blocks.append(
            Code(snippet(material), "Without zooft:" if material.reader else "With numpy and onnxruntime alone:")
        )
        rows = tuple(
            (port.name, port.dtype, " × ".join(str(axis) for axis in port.axes), port.meaning)
            for port in material.ports
        )
        columns = ("Input", "Type", "Shape (names: any size)", "Meaning")
        blocks.append(Grid(title="What goes in", columns=columns, rows=rows, numbers=False))
    if material.intended_use:
        blocks.append(Text(f"Intended use: {material.intended_use}"))
    return Section("deploy", "How to deploy", tuple(blocks))


def snippet(material: Material) -> str:
    """Python that runs this very file: on files where the task says how to read them, else on an array of zeros."""
    return _on_files(material) if material.reader else _on_zeros(material)


def _on_files(material: Material) -> str:
    names = ", ".join(json.dumps(port.name) for port in material.ports)
    score = material.record.data.group_score
    joined = "rows.mean(0)" if score == "mean" else "rows[rows[:, -1].argmax()]"
    how = "their mean" if score == "mean" else f"the one with the most of {json.dumps(material.classes[-1])}"
    return "\n".join(
        (
            "import sys",
            "",
            "import numpy as np",
            "import onnxruntime",
            material.reader.rstrip(),
            "",
            "",
            f'session = onnxruntime.InferenceSession("{runs.ONNX_FILE}", providers=["CPUExecutionProvider"])',
            f"classes = {_literal(material.classes)}",
            f'rows = [session.run(["probabilities"], dict(zip([{names}], sample)))[0] for sample in read(sys.argv[1])]',
            "rows = np.concatenate(rows)",
            f"answer = {joined}  # of several samples, {how}",
            *_decision("answer", material),
        )
    )


def _on_zeros(material: Material) -> str:
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("{runs.ONNX_FILE}", providers=["CPUExecutionProvider"])',
    ]
    for port in material.ports:
        shape = ", ".join(str(size) for size in example_shape(port, material))
        axes = ", ".join(str(axis) for axis in port.axes)
        lines.append(f"# {port.name}: {port.dtype} ({axes}): {' '.join(port.meaning.split())}")
        lines.append(f"{_variable(port)} = np.zeros(({shape}), np.{port.dtype})  # yours in its place")
    feed = ", ".join(f"{json.dumps(port.name)}: {_variable(port)}" for port in material.ports)
    lines.append(f'probabilities, logits = session.run(["probabilities", "logits"], {{{feed}}})')
    lines.append(f"classes = {_literal(material.classes)}")
    return "\n".join((*lines, *_decision("probabilities[0]", material)))


def _decision(answer: str, material: Material) -> tuple[str, ...]:
    threshold = material.record.fitted.threshold
    if threshold is None:
        return (f"print(classes[int({answer}.argmax())], {answer})",)
    return (
        f"said = int({answer}[1] >= {threshold!r})  # the operating threshold{_level(material)}",
        f"print(classes[said], {answer})",
    )


def example_shape(port: Port, material: Material) -> tuple[int, ...]:
    """One sample; rows and columns as the network sees them, three of any other axis of free size."""
    spec = material.record.backbone.input
    sizes = {"height": spec.height, "width": spec.width, "rows": spec.height, "columns": spec.width}
    sizes |= {"h": spec.height, "w": spec.width, "y": spec.height, "x": spec.width}
    rest = [axis if isinstance(axis, int) else sizes.get(axis.lower(), 3) for axis in port.axes[1:]]
    return (1, *rest)


def _level(material: Material) -> str:
    if not any(evaluation.groups for evaluation in material.evaluations.values()):
        return ""
    score = material.record.data.group_score
    how = "the mean over" if score == "mean" else "the largest of"
    return f", for {how} a {material.record.data.group_name}'s samples"


def _variable(port: Port) -> str:
    return port.name if port.name.isidentifier() and port.name not in {"np", "classes", "session"} else "array"


def _literal(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(repr(name) for name in names) + "]"


def _numbers(found: Verification) -> tuple[tuple[str, str], ...]:
    nodes = ", ".join(f"{n} on {name.removesuffix('ExecutionProvider')}" for name, n in found.placement.items())
    return (
        ("Largest difference of a probability", f"{found.max_probability_difference:.1e}"),
        ("Difference of the logits", f"{found.relative_rms:.1e} of their spread among samples"),
        *_parts(found),
        ("Same best class", f"{found.top1_agreement:.2%} of the samples"),
        ("Samples", f"{found.samples:,} {found.data}"),
        ("Batch sizes", ", ".join(str(n) for n in found.batch_sizes)),
        ("Run by", f"{found.provider.removesuffix('ExecutionProvider')}, {found.requested_provider} was asked for"),
        ("Operators", nodes),
        ("SHA-256 of the file", found.onnx_sha256),
        *((("Of its metadata, compared with the run", ", ".join(found.declared)),) if found.declared else ()),
    )


def _parts(found: Verification) -> tuple[tuple[str, str], ...]:
    """Preprocessing and network, each compared alone."""
    level = found.preprocessing
    if level is None or found.network_rms is None:
        return ()
    return (
        (
            "Preprocessing alone",
            f"{level.differing:,} of {level.values:,} levels differ by half a level or more, the largest by {level.largest:.2g}",
        ),
        ("Network alone, on the same input", f"logits differ by {found.network_rms:.1e} of their spread"),
    )
