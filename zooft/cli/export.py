"""``zooft export``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft import runtime
from zooft.cli import layout as layouts
from zooft.cli import model_argument, precision
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_verification
from zooft.cli.precision import export_float32
from zooft.cli.screen import echo
from zooft.errors import ConfigError, RunError


@click.command(
    epilog="""\b
Examples:
  zooft export runs/classification-vit_base-1 --provider cuda
  zooft export runs/classification-vit_base-1 --layout triton --out serving/ants
  zooft export runs/classification-vit_base-1 --precision int8 --max-drop 0.005""",
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@model_argument.data_flag
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="how many to verify on at most",
)
@layouts.flags
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8"]),
    multiple=True,
    help="of the network in the file; int8 and fp16 are files of their own beside model.onnx; may be given twice",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="by how much an int8 or fp16 file's primary figure may be worse on validation samples",
)
@click.option(
    "--calibration",
    type=click.IntRange(min=8),  # fewer say nothing of ranges
    default=128,
    show_default=True,
    help="training samples at most that int8 measures ranges of activations on",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of their choice")
@model_argument.provider_flag
@json_flag
def export(
    run: Path | None,
    data: Path | None,
    samples: int,
    layout: str | None,
    out: Path | None,
    precisions: tuple[str, ...],
    max_drop: float,
    calibration: int,
    seed: int,
    provider: str,
    as_json: bool,
) -> None:
    """Export a run to ONNX and verify the file on the run's validation samples.

    A file that fails is saved as model.unverified.onnx, and the exit status is 1.

    With --precision int8 or fp16 a second file is made of the verified one: smaller, on a CPU int8 is faster too. Its
    figures are compared with the first one's; where they drop too far, layers go back to float32 until they don't, or
    nothing is written and the exit status is 1. A table shows what each costs.

    With --layout, a verified file is copied into a folder with the configuration of a model server, and with a
    Dockerfile that needs onnxruntime alone.
    """
    layouts.check(layout, out)
    lower = [name for name in dict.fromkeys(precisions) if name != "fp32"]
    if lower and layout is not None:
        raise ConfigError("--layout takes model.onnx in float32; leave --precision out of this call")
    runtime.choose(provider)
    chosen = model_argument.find(run)
    if chosen.run is None:
        raise RunError(f"{run} doesn't lie in a run folder; name a run")
    if lower:
        precision.export(
            chosen.run,
            chosen.data(data),
            lower,
            samples=samples,
            max_drop=max_drop,
            calibration=calibration,
            seed=seed,
            provider=provider,
            anew="fp32" in precisions,
            as_json=as_json,
        )
        return
    with Live() as live:
        record, target = export_float32(chosen.run, chosen.data(data), samples=samples, provider=provider, live=live)
    written = layouts.write(layout, out, target, provider) if record.passed else None
    more = {} if layout is None else {"layout": written}
    print_json({"model": target, "verification": record, **more}) if as_json else print_verification(record)
    if not as_json:
        echo(f"model:   {target}")
    if not as_json and written is not None:
        echo(f"layout:  {written}")
    if not record.passed:
        raise click.exceptions.Exit(1)
