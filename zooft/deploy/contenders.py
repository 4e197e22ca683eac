"""Exported files that answer the same samples in competition: their figures, sizes and costs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.contracts import Computing, unseen
from zooft.data import samples as sample_tables
from zooft.deploy import benchmark, precision_gate, precisions, saved
from zooft.errors import VerificationError
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import Sample
    from zooft.deploy.precision_gate import Drop
    from zooft.deploy.saved import SavedRun
    from zooft.evaluation.predictions import Predictions

RESAMPLES = 1000
"""Of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A run and its verified file."""

    run: SavedRun
    file: Path


@contextmanager
def verified_file(run: SavedRun, samples: Sequence[Sample], *, provider: str) -> Iterator[Path]:
    """The run's ``model.onnx`` where it is verified and unchanged, else one exported anew for as long as it is needed.

    Raises:
        VerificationError: the new one isn't the model.
    """
    if precisions.usable_source(run.path):
        yield run.path / runs.ONNX_FILE
        return
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / runs.ONNX_FILE
        saved.export_run(run, path)
        found = saved.verify_file(
            run, path, samples, available=len(samples), provider=provider, advance=lambda _done: None
        )
        if not found.passed:
            raise VerificationError(
                f"the file exported from {run.path} isn't its model ({'; '.join(found.failures)}), so nothing can be "
                "compared with it",
                found,
            )
        yield path


def answers(
    contender: Contender, samples: Sequence[Sample], *, provider: str, computing: Computing = unseen
) -> Predictions:
    """What a file answers, as `zooft evaluate` computes it."""
    model = runtime.load(contender.file, provider=provider)
    advance = computing(f"validation samples, by {contender.run.record.backbone.name}", len(samples))
    run = contender.run
    return saved.predict_file(model, run.task, run.options, samples, advance=advance)


def drop(first: SavedRun, before: Predictions, now: Predictions, *, seed: int) -> Drop:
    """By how much a file's figure is worse than the first one's, with an interval."""
    return precision_gate.drop(first.problem, first.labels, before, now, resamples=RESAMPLES, seed=seed)


def table(
    contenders: Mapping[str, Contender],
    predictions: Mapping[str, Predictions],
    sample: Sample,
    *,
    seed: int,
    seconds: float = 2.0,
) -> dict[str, dict[str, Any]]:
    """Costs and figures by name.

    Args:
        contenders: the first is the one that the others are compared with.
        predictions: of each.
        sample: whose arrays latency is measured with.
        seed: of the bootstrap.
        seconds: of measuring, for each number of threads and size of the batch.
    """
    from zooft.model import pruning

    first = next(iter(contenders))
    run = contenders[first].run
    ports = [port.name for port in sample_tables.ports(run.task, run.options)]
    costs = benchmark.measure(
        {name: each.file for name, each in contenders.items()},
        ports,
        sample_tables.read(run.task, run.options, sample),
        seconds=seconds,
    )
    compare = partial(drop, run, predictions[first], seed=seed)
    rows = {}
    for name, each in contenders.items():
        found = compare(predictions[name])
        rows[name] = {
            "backbone": each.run.record.backbone.reference,
            "parameters": sum(parameter.numel() for parameter in each.run.model.parameters()),
            "multiplications": pruning.multiplications(each.run.model.cpu(), each.run.input),
            **asdict(costs[name]),
            "metric": found.metric,
            "value": found.now,
            "drop": found.value,
            "drop_low": found.low,
            "drop_high": found.high,
        }
    return rows
