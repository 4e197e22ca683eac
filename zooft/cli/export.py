"""``zooft export``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft import runtime
from zooft.cli import layout as layouts
from zooft.cli import model_argument
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_verification
from zooft.cli.screen import echo
from zooft.errors import RunError
from zooft.run import folder as runs


@click.command(
    epilog="""\b
Examples:
  zooft export runs/classification-vit_base-1 --provider cuda
  zooft export runs/classification-vit_base-1 --layout triton --out serving/ants""",
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
@model_argument.provider_flag
@json_flag
def export(
    run: Path | None,
    data: Path | None,
    samples: int,
    layout: str | None,
    out: Path | None,
    provider: str,
    as_json: bool,
) -> None:
    """Export a run to ONNX and verify the file on the run's validation samples.

    A file that fails is saved as model.unverified.onnx, and the exit status is 1.

    With --layout, a verified file is copied into a folder with the configuration of a model server, and with a
    Dockerfile that needs onnxruntime alone.
    """
    layouts.check(layout, out)
    from zooft.deploy import saved
    from zooft.hooks import registry

    runtime.choose(provider)
    chosen = model_argument.find(run)
    if chosen.run is None:
        raise RunError(f"{run} doesn't lie in a run folder; name a run")
    folder = chosen.run
    with Live() as live:
        opened = saved.open_run(folder, registry.load())
        picked, available, notes = saved.samples_to_verify(opened, chosen.data(data), run=folder, most=samples)
        for text in (*saved.about_unfitted(opened), *notes):
            live.note(text)
        live.step("exporting to ONNX")
        candidate = folder / (runs.ONNX_FILE + ".candidate")
        saved.export_run(opened, candidate, note=live.note)
        live.step("verifying the file")
        record = saved.verify_file(
            opened,
            candidate,
            picked,
            available=available,
            provider=provider,
            advance=live.computing("samples, in torch and from the file", len(picked)),
        )
        target = saved.settle(folder, candidate, record)
    written = layouts.write(layout, out, target, provider) if record.passed else None
    more = {} if layout is None else {"layout": written}
    print_json({"model": target, "verification": record, **more}) if as_json else print_verification(record)
    if not as_json:
        echo(f"model:   {target}")
    if not as_json and written is not None:
        echo(f"layout:  {written}")
    if not record.passed:
        raise click.exceptions.Exit(1)
