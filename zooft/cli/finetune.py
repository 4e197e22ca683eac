"""``zooft finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_evaluation, print_json, print_table, print_verification
from zooft.cli.screen import echo
from zooft.cli.task_command import TaskCommand
from zooft.compute import launcher
from zooft.compute import profile as timing
from zooft.config import FinetuneConfig, read_toml

if TYPE_CHECKING:
    from zooft.compute.profile import Profile


@click.command(
    cls=TaskCommand,
    core=FinetuneConfig,
    epilog="""\b
Examples:
  zooft finetune --backbone timm:vit_base --task classification --data DIR
  zooft finetune --backbone torchvision:resnet18 --task classification --data DIR --freeze last:2 --augment light
  zooft finetune --resume runs/classification-resnet18-1
  zooft finetune --resume runs/classification-resnet18-1 --epochs 30
  zooft finetune --backbone timm:tf_efficientnet_lite0 --task classification --data DIR --freeze none --distill RUN
  torchrun --nproc-per-node 2 -m zooft finetune --backbone timm:resnet50 --task classification --data DIR --freeze none
Name a task before --help to see its own options: zooft finetune --task classification --help""",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with any of these options")
@json_flag
def finetune(config_file: Path | None, as_json: bool, **typed: Any) -> None:
    """Fine-tune a backbone on your data, export it to ONNX and verify the file.

    The backbone's classifier is replaced, part of it stays frozen, the best validation epoch is saved. The run folder
    holds the weights under the zoo's own names, the verified ONNX file, every figure and a report.
    """
    from zooft.pipeline.finetune import finetune as run

    values = read_toml(config_file) if config_file else {}
    values |= {name: value for name, value in typed.items() if value is not None}
    if launcher.process() != 0:
        _in_silence(values)
        return

    with Live() as live:
        result = run(reporter=live, **values)
    if as_json:
        print_json(
            {
                "path": result.path,
                "best_epoch": result.best_epoch,
                "onnx": result.onnx,
                "evaluations": result.evaluations,
                "verification": result.verification,
            }
        )
        return
    for evaluation in result.evaluations.values():
        print_evaluation(evaluation, result.problem, result.labels)
    if result.verification is not None:
        print_verification(result.verification)
    if result.profile is not None:
        _print_profile(result.profile)
    echo(f"best:    epoch {result.best_epoch}")
    echo(f"run:     {result.path}")
    if (result.path / "report.html").is_file():
        echo(f"report:  {result.path / 'report.html'}")
    if result.onnx is not None:
        echo(f"model:   {result.onnx}")


def _print_profile(profile: Profile) -> None:
    print_table("where the time went", timing.COLUMNS, timing.rows(profile))
    text = timing.sentence(profile)
    if text:
        echo(text)


def _in_silence(values: dict[str, Any]) -> None:
    """What a process does that isn't the main one: it speaks only of what the main one doesn't know."""
    from zooft.pipeline.finetune import finetune as run

    try:
        run(**values)
    except Exception as error:  # of any kind: it has come from the main process
        if launcher.is_reported_by_main(error):
            raise SystemExit(1) from error
        raise
