"""``zooft evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zooft import runtime
from zooft.cli import model_argument
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_evaluation, print_json
from zooft.compute import machine
from zooft.config import Device
from zooft.hooks import registry

if TYPE_CHECKING:
    from zooft.cli.model_argument import ModelArgument
    from zooft.contracts import Labels, Problem
    from zooft.evaluation.evaluate import Evaluation


@click.command(
    epilog="""\b
Examples:
  zooft evaluate runs/classification-vit_base-1
  zooft evaluate model.onnx --data DIR --split test""",
)
@click.argument("run_or_model", type=click.Path(path_type=Path), required=False)
@model_argument.data_flag
@click.option(
    "--split",
    type=click.Choice(["auto", "train", "val", "test", "all"]),
    default="auto",
    show_default=True,
    help="which samples; auto takes test, else val, else all",
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="resamples behind the intervals",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of the resamples")
@click.option("--device", type=click.Choice(Device.__args__), help="where a run computes [default: auto]")  # type: ignore[attr-defined]
@click.option("--workers", type=click.IntRange(min=0), help="loader processes for a run [default: by the machine]")
@model_argument.provider_flag
@json_flag
def evaluate(
    run_or_model: Path | None,
    data: Path | None,
    split: str,
    bootstrap: int,
    seed: int,
    device: str | None,
    workers: int | None,
    provider: str,
    as_json: bool,
) -> None:
    """Evaluate a run or an ONNX file on data: both give the same figures.

    RUN_OR_MODEL is a run folder (evaluated in torch) or an .onnx file (evaluated by onnxruntime, without torch); the
    latest run where none is given.
    """
    chosen = model_argument.find(run_or_model)
    if chosen.file and (device, workers) != (None, None):
        raise click.UsageError("--device and --workers are for runs; an .onnx file runs in onnxruntime: --provider")
    if not chosen.file and provider != "auto":
        raise click.UsageError("--provider is for .onnx files; a run is evaluated in torch: --device")
    where = chosen.data(data)
    evaluation, problem, labels = (
        _file(chosen, where, split=split, bootstrap=bootstrap, seed=seed, provider=provider)
        if chosen.file
        else _run(chosen, where, split=split, bootstrap=bootstrap, seed=seed, device=device or "auto", workers=workers)
    )
    print_json(evaluation) if as_json else print_evaluation(evaluation, problem, labels)


def _run(
    chosen: ModelArgument, data: Path, *, split: str, bootstrap: int, seed: int, device: str, workers: int | None
) -> tuple[Evaluation, Problem, Labels]:
    from zooft.compute import distributed
    from zooft.deploy import saved
    from zooft.evaluation.evaluate import evaluate as evaluated

    assert chosen.run is not None  # noqa: S101 -- find() gives a run or a file
    accelerator = distributed.alone(device)
    if workers is None:
        workers = machine.loader_workers(accelerator.device.type)
    with distributed.faults(accelerator), Live() as live:
        opened = saved.open_run(chosen.run, registry.load())
        name, samples, notes = saved.find_samples(
            opened.task,
            opened.options,
            opened.labels,
            data,
            run=chosen.run,
            split=split,
            computing=live.computing,
            trained_on_val=opened.record.data.val == 0,
        )
        for text in (*saved.about_unfitted(opened), *notes):
            live.note(text)
        advance = live.computing(f"{name} samples", len(samples))
        predictions = saved.predict_run(
            opened, samples, device=str(accelerator.device), workers=workers, advance=advance
        )
    evaluation = evaluated(
        opened.problem,
        opened.labels,
        predictions,
        split=name,
        resamples=bootstrap,
        seed=seed,
        fitted=opened.fitted,
        group_rule=opened.group_rule,
        group_name=opened.record.data.group_name,
        facts=opened.task.subgroups,
    )
    return evaluation, opened.problem, opened.labels


def _file(
    chosen: ModelArgument, data: Path, *, split: str, bootstrap: int, seed: int, provider: str
) -> tuple[Evaluation, Problem, Labels]:
    from zooft.deploy import metadata_check, saved
    from zooft.evaluation.evaluate import evaluate as evaluated

    assert chosen.file is not None  # noqa: S101 -- find() gives a run or a file
    with Live() as live:
        model = runtime.load(chosen.file, provider=provider)
        task, options = saved.task_of_file(model, registry.load())
        about = model.metadata
        name, samples, notes = saved.find_samples(
            task,
            options,
            about.labels,
            data,
            run=chosen.run,
            split=split,
            computing=live.computing,
            trained_on_val=about.data["val"] == 0,
        )
        for text in (*metadata_check.doubts(model, chosen.file, task.problem), *notes, *filter(None, [model.note])):
            live.note(text)
        advance = live.computing(f"{name} samples", len(samples))
        predictions = saved.predict_file(model, task, options, samples, advance=advance)
    evaluation = evaluated(
        task.problem,
        about.labels,
        predictions,
        split=name,
        resamples=bootstrap,
        seed=seed,
        fitted=about.fitted,
        group_rule=about.group_rule,
        group_name=about.data["group_name"],
        facts=task.subgroups,
    )
    return evaluation, task.problem, about.labels
