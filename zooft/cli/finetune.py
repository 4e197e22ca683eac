"""``zooft finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zooft.cli import flags
from zooft.cli.output import json_flag, print_evaluation, print_json, print_verification
from zooft.config import FinetuneConfig, read_toml

_TASK_OPTIONS = "zooft.task_options"


class FinetuneCommand(click.Command):
    """A command whose options depend on the task that is named among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the task first, then parse with its options."""
        name = _named_task(args)
        if name is not None:
            from zooft import registry

            task = registry.load().task(name)
            ctx.meta[_TASK_OPTIONS] = flags.of(task.options, group=task.name)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The core's options and the task's own."""
        return [*flags.of(FinetuneConfig), *ctx.meta.get(_TASK_OPTIONS, []), *super().get_params(ctx)]


@click.command(
    cls=FinetuneCommand,
    epilog="""\b
Examples:
  zooft finetune --backbone timm:vit_base --task classification --data DIR
  zooft finetune --backbone torchvision:resnet18 --task classification --data DIR --freeze last:2 --augment light
Name a task before --help to see its own options: zooft finetune --task classification --help""",
)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with any of these options")
@json_flag
def finetune(config_file: Path | None, as_json: bool, **typed: Any) -> None:
    """Fine-tune a backbone on your data, export it to ONNX and verify the file.

    The backbone's classifier is replaced, part of it stays frozen, the best epoch by validation is kept. The run folder
    holds the weights under the zoo's own names, the verified ONNX file, every figure and a picture.
    """
    from zooft.cli.live import Live
    from zooft.recipe import finetune as run

    values = read_toml(config_file) if config_file else {}
    values |= {name: value for name, value in typed.items() if value is not None}
    with Live() as live:
        result = run(listener=live, **values)
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
        print_evaluation(evaluation)
    if result.verification is not None:
        print_verification(result.verification)
    click.echo(f"best:    epoch {result.best_epoch}")
    click.echo(f"run:     {result.path}\npicture: {result.path / 'summary.png'}")
    if result.onnx is not None:
        click.echo(f"model:   {result.onnx}")


def _named_task(args: list[str]) -> str | None:
    """The task among the arguments, or in the config file among them."""
    name = _value(args, "--task")
    file = _value(args, "--config")
    if name is None and file is not None:
        named = read_toml(Path(file)).get("task")
        return named if isinstance(named, str) else None
    return name


def _value(args: list[str], flag: str) -> str | None:
    for index, argument in enumerate(args):
        if argument == flag and index + 1 < len(args):
            return args[index + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None
