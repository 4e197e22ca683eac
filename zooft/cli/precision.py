"""What ``zooft export --precision`` does: files in lower precision beside a run's, and the table of their costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.cli.live import Live
from zooft.cli.output import print_json, print_table, print_verification
from zooft.cli.screen import echo
from zooft.deploy import bill
from zooft.errors import DataError, VerificationError
from zooft.hooks import registry
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import Sample, Verification
    from zooft.deploy.benchmark import Cost
    from zooft.deploy.precisions import Lowered
    from zooft.deploy.saved import SavedRun


def export(
    folder: Path,
    data: Path,
    names: Sequence[str],
    *,
    samples: int,
    max_drop: float,
    calibration: int,
    seed: int,
    provider: str,
    anew: bool,
    as_json: bool,
) -> None:
    """Make files in lower precision, verify them, and show what each costs.

    Args:
        folder: the run's.
        data: the run's.
        names: of precisions.
        samples: validation samples at most.
        max_drop: by how much the primary figure may be worse.
        calibration: training samples at most.
        seed: of their choice.
        provider: onnxruntime's.
        anew: whether the float32 file is exported again even if it is there, verified.
        as_json: whether the result is printed as JSON.
    """
    from zooft.deploy import precisions, saved

    with Live() as live:
        if anew or not precisions.usable_source(folder):
            record, _ = export_float32(folder, data, samples=samples, provider=provider, live=live)
            if not record.passed:
                raise VerificationError(
                    f"the float32 file isn't the model ({'; '.join(record.failures)}), so none is made of it"
                )
        run = saved.open_run(folder, registry.load())
        picked, available, notes = saved.samples_to_verify(run, data, run=folder, most=samples)
        for text in notes:
            live.note(text)
        made: dict[str, tuple[Path, Lowered, Verification]] = {}
        for name in names:
            settings = precisions.Settings(
                name=name, max_drop=max_drop, calibration=calibration, seed=seed, provider=provider
            )
            made[name] = _make(run, folder, data, settings, picked, available, live)
        costs = _costs(run, folder, {name: path for name, (path, _, _) in made.items()}, picked[0], live)
    rows = _record(run, folder, made, costs)
    if as_json:
        print_json({"models": {name: path for name, (path, _, _) in made.items()}, "precisions": rows})
        return
    for path, _, verification in made.values():
        print_verification(verification)
        echo(f"model:   {path}")
    print_costs(rows)


def export_float32(folder: Path, data: Path, *, samples: int, provider: str, live: Live) -> tuple[Verification, Path]:
    """Export a run's model as it is and verify the file."""
    from zooft.deploy import saved

    opened = saved.open_run(folder, registry.load())
    picked, available, notes = saved.samples_to_verify(opened, data, run=folder, most=samples)
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
    return record, saved.settle(folder, candidate, record, note=live.note)


def _make(
    run: SavedRun, folder: Path, data: Path, settings: Any, picked: list[Sample], available: int, live: Live
) -> tuple[Path, Lowered, Verification]:
    from zooft.deploy import precisions, saved

    live.step(f"{settings.name}: making the file")
    lowered = precisions.lower(
        run,
        folder / runs.ONNX_FILE,
        folder / (runs.PRECISION_FILE.format(settings.name) + ".candidate"),
        settings=settings,
        calibration=_calibration(run, folder, data, settings, live) if settings.name == "int8" else (),
        samples=picked,
        note=live.note,
        computing=live.computing,
    )
    live.note(f"{settings.name}: {lowered.drop.describe()}, on {lowered.drop.samples} samples")
    live.step(f"{settings.name}: verifying the file")
    record = saved.verify_file(
        run,
        lowered.path,
        picked,
        available=available,
        provider=settings.provider,
        advance=live.computing("samples, in torch and from the file", len(picked)),
    )
    gate = {"gate": asdict(lowered.drop), "seed": settings.seed}
    record = replace(record, precision={**(record.precision or {}), **gate})
    return precisions.settle(folder, lowered, record), lowered, record


def _calibration(run: SavedRun, folder: Path, data: Path, settings: Any, live: Live) -> list[Sample]:
    from zooft.deploy import precisions, saved

    all_trained_on = run.record.data.val == 0
    try:
        _, members, _ = saved.find_samples(
            run.task,
            run.options,
            run.labels,
            data,
            run=folder,
            split="all" if all_trained_on else "train",
            trained_on_val=all_trained_on,
        )
    except DataError as error:
        raise DataError(f"int8 needs training samples to calibrate activations on: {error}") from error
    chosen, notes = precisions.calibration_samples(members, most=settings.calibration, seed=settings.seed)
    for text in notes:
        live.note(text)
    return chosen


def _costs(run: SavedRun, folder: Path, files: dict[str, Path], sample: Sample, live: Live) -> dict[str, Cost]:
    import torch

    from zooft.data import samples as sample_tables
    from zooft.deploy import benchmark, saved

    live.step("measuring latency")
    module = saved.deployed_model(run)

    def answer(batch: Any) -> object:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, batch))

    return benchmark.measure(
        {"fp32": folder / runs.ONNX_FILE} | files,
        [port.name for port in sample_tables.ports(run.task, run.options)],
        sample_tables.read(run.task, run.options, sample),
        torch=answer,
        torch_file=folder / runs.WEIGHTS_FILE,
    )


def _has_exact_maps(run: SavedRun) -> bool:
    """Whether its exact answers are masks, of which no two are the same in every pixel."""
    outputs = run.problem.deployment.outputs(run.labels, run.fitted)
    return any(output.measure == "exact" and len(output.axes) > 1 for output in outputs)


def _record(
    run: SavedRun, folder: Path, made: dict[str, tuple[Path, Lowered, Verification]], costs: dict[str, Cost]
) -> dict[str, dict[str, Any]]:
    """Rows by precision, which the records of verification get, too."""
    rows: dict[str, dict[str, Any]] = {name: asdict(cost) for name, cost in costs.items()}
    for name, (_, lowered, verification) in made.items():
        drop, primary = lowered.drop, lowered.drop.metric
        rows["torch"] |= {"metric": primary, "value": verification.metrics[primary][0]}
        rows["fp32"] |= {"metric": primary, "value": drop.before}
        rows[name] |= {
            "metric": primary,
            "value": drop.now,
            "drop": drop.value,
            "drop_low": drop.low,
            "drop_high": drop.high,
            "agreement": None if _has_exact_maps(run) else verification.agreement,
            "left_out": len(lowered.precision.left_out),
        }
    for name, (_, _, verification) in made.items():
        precision = {**(verification.precision or {}), "table": rows}
        path = folder / runs.PRECISION_VERIFICATION_FILE.format(name)
        runs.write_json(path, replace(verification, precision=precision).as_json())
    bill.describe_exports(folder)
    return rows


def print_costs(rows: dict[str, dict[str, Any]]) -> None:
    """The table of precisions."""
    first = next(iter(rows.values()))
    sizes = list(next(iter(first["latency"].values())))
    batches = " / ".join(map(str, sizes))
    columns = (
        "precision",
        "MB",
        *(f"ms, {threads} thread{'' if threads == '1' else 's'}" for threads in first["latency"]),
        "samples/s",
        str(first.get("metric", "")).replace("_", " "),
        "worse by (95 % interval)",
        "agrees with torch",
    )
    title = f"on this machine's CPU; latency is the median for batches of {batches}"
    print_table(title, columns, [_row(name, row) for name, row in rows.items()])


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    drop = ""
    if "drop" in row:
        ends = "" if row["drop_low"] is None else f" ({row['drop_low']:+.3f} … {row['drop_high']:+.3f})"
        drop = f"{row['drop']:+.4f}{ends}"
    return (
        name,
        f"{row['megabytes']:.1f}",
        *(" / ".join(f"{ms:.1f}" for ms in by.values()) for by in row["latency"].values()),
        f"{row['throughput']:.1f}",
        f"{row['value']:.4f}" if "value" in row else "",
        drop,
        "" if row.get("agreement") is None else f"{row['agreement']:.1%}",
    )
