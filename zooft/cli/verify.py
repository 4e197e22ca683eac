"""``zooft verify``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft import run as runs
from zooft.cli import subject
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_verification
from zooft.errors import RunError


@click.command(
    epilog="""\b
Examples:
  zooft verify runs/classification-vit_base-1/model.onnx
  zooft verify model.onnx --run runs/classification-vit_base-1 --data DIR --provider cuda""",
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--run",
    "run",
    type=click.Path(path_type=Path),
    help="the run it was exported from [default: the folder it lies in]",
)
@subject.data_flag
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="how many at most")
@subject.provider_flag
@json_flag
def verify(model: Path | None, run: Path | None, data: Path | None, samples: int, provider: str, as_json: bool) -> None:
    """Compare an ONNX file with the run's model, on real validation samples.

    Exits with 1 where they don't agree. Without data that can be found, generated images are used, and said so.
    """
    from zooft import registry, saved

    chosen = subject.find(model)
    folder = run or chosen.run
    if folder is None:
        raise RunError(f"{model} doesn't lie in a run folder; name the run that it was exported from with --run")
    with Live() as live:
        opened = saved.open_run(folder, registry.load())
        found = data or subject.Subject(folder, None).own_data()
        picked, available, notes = (
            saved.samples_to_verify(opened, found, run=folder, most=samples) if found else ([], 0, ())
        )
        for text in notes:
            live.note(text)
        record = saved.verify_file(
            opened, chosen.file or folder / runs.ONNX_FILE, picked, available=available, provider=provider,
            advance=live.computing("samples, in torch and from the file", len(picked)),
        )  # fmt: skip
    print_json(record) if as_json else print_verification(record)
    if not record.passed:
        raise click.exceptions.Exit(1)
