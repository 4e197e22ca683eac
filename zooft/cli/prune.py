"""``zooft prune``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zooft.cli.live import Live
from zooft.cli.model_argument import data_flag, provider_flag
from zooft.cli.output import json_flag, print_json, print_table, print_verification
from zooft.cli.screen import echo
from zooft.errors import ConfigError, PruningError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zooft.pipeline.prune import Pruned


@click.command(
    epilog="""\b
Examples:
  zooft prune runs/classification-resnet50-1 --ratio 0.3
  zooft prune runs/classification-resnet50-1 --ratio 0.5 --epochs 10 --max-drop 0.02 --smaller timm:resnet26""",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--ratio", type=float, required=True, help="share of the channels to take out of each group of layers")
@click.option("--epochs", type=click.IntRange(min=1), help="after pruning [default: a third of the run's, 3 at least]")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="by how much the primary figure may be worse than the run's on validation samples",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=500, show_default=True, help="validation samples for it at most"
)
@click.option("--smaller", metavar="FAMILY:MODEL", help="backbone to compare with [default: found in the zoo]")
@click.option("--no-smaller", is_flag=True, help="compare with none")
@data_flag
@click.option("--out", type=click.Path(path_type=Path), help="run folder to make [default: the run's with -pruned]")
@click.option(
    "--local",
    "local",
    metavar="NAME=VALUE",
    multiple=True,
    help="an option of the task for where things lie, which runs don't record, such as masks=DIR; may be given twice",
)
@click.option("--device", help="where to train, as for finetune [default: the run's own]")
@provider_flag
@json_flag
def prune(
    run: Path,
    ratio: float,
    epochs: int | None,
    max_drop: float,
    samples: int,
    smaller: str | None,
    no_smaller: bool,
    data: Path | None,
    out: Path | None,
    local: tuple[str, ...],
    device: str | None,
    provider: str,
    as_json: bool,
) -> None:
    """Take channels out of a finished run's backbone, train some epochs more, and publish what is good enough.

    The new run lies beside the old one, with weights, a verified ONNX file and a report; all commands open it. Where
    its primary figure drops by more than --max-drop, nothing is written and the exit status is 1. A smaller backbone of
    the same family is trained as long and put into the same table, since that often wins.
    """
    from zooft.pipeline import prune as pruning

    if smaller is not None and no_smaller:
        raise ConfigError("--smaller and --no-smaller contradict each other; give one of them")
    settings = pruning.Settings(
        ratio=ratio,
        max_drop=max_drop,
        epochs=epochs,
        samples=samples,
        smaller=smaller,
        compare=not no_smaller,
        provider=provider,
    )
    extra = {**_pairs(local), **({"device": device} if device else {})}
    try:
        with Live() as live:
            made = pruning.prune(run, settings, data=data, out=out, local=extra, reporter=live)
    except PruningError as error:
        if not as_json:
            print_rows(error.record)
        raise
    if as_json:
        print_json(
            {
                "path": made.result.path,
                "onnx": made.result.onnx,
                "smaller": made.smaller,
                "gate": made.drop,
                "verification": made.result.verification,
                "table": made.table,
            }
        )
        return
    _print(made)


def _print(made: Pruned) -> None:
    if made.result.verification is not None:
        print_verification(made.result.verification)
    print_rows(made.table)
    echo(f"run:     {made.result.path}")
    if made.smaller is not None:
        echo(f"smaller: {made.smaller}")
    echo(f"model:   {made.result.onnx}")


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs) or not all(pairs.values()):
        raise ConfigError(f"--local takes NAME=VALUE, such as masks=DIR; found {', '.join(texts)}")
    return {name.replace("-", "_"): value for name, value in pairs.items()}


def print_rows(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """The table: what each model costs, and what it reaches."""
    first = next(iter(rows.values()))
    batches = " / ".join(str(size) for size in next(iter(first["latency"].values())))
    columns = (
        "model",
        "parameters",
        "GMAC",
        "MB",
        *(f"ms, {threads} thread{'' if threads == '1' else 's'}" for threads in first["latency"]),
        "samples/s",
        str(first["metric"]).replace("_", " "),
        "worse by (95 % interval)",
    )
    title = f"ONNX files on this machine's CPU; latency is the median for batches of {batches}"
    print_table(title, columns, [_row(name, row) for name, row in rows.items()])


def _row(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    ends = "" if row["drop_low"] is None else f" ({row['drop_low']:+.3f} … {row['drop_high']:+.3f})"
    return (
        name,
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['multiplications'] / 1e9:.3g}",
        f"{row['megabytes']:.1f}",
        *(" / ".join(f"{ms:.1f}" for ms in by.values()) for by in row["latency"].values()),
        f"{row['throughput']:.1f}",
        f"{row['value']:.4f}",
        "" if name == "original" else f"{row['drop']:+.4f}{ends}",
    )
