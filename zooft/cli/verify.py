"""``zooft verify``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zooft.cli import model_argument
from zooft.cli.live import Live
from zooft.cli.output import json_flag, print_json, print_label_verification, print_verification
from zooft.cli.screen import echo
from zooft.deploy import signature as signatures
from zooft.errors import ConfigError, DataError, RuntimeModelError
from zooft.hooks import registry
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.contracts import LabelVerification, Verification


@click.command(
    epilog="""\b
Examples:
  zooft verify runs/classification-vit_base-1/model.onnx
  zooft verify model.onnx --data DIR
  zooft verify model.onnx --run runs/classification-vit_base-1 --data DIR --provider cuda
  zooft verify model.onnx --signature model.onnx.minisig --key minisign.pub""",
)
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option(
    "--run",
    "run",
    type=click.Path(path_type=Path),
    help="the run it was exported from [default: the folder it lies in]",
)
@model_argument.data_flag
@click.option("--samples", type=click.IntRange(min=1), default=500, show_default=True, help="how many at most")
@click.option("--signature", type=click.Path(path_type=Path), help="of the file by minisign, checked before all else")
@click.option("--key", type=click.Path(path_type=Path), help="the signer's public key")
@model_argument.provider_flag
@json_flag
def verify(
    model: Path | None,
    run: Path | None,
    data: Path | None,
    samples: int,
    signature: Path | None,
    key: Path | None,
    provider: str,
    as_json: bool,
) -> None:
    """Compare an ONNX file with the run's model, on real validation samples.

    Exits with 1 where they don't agree. Without data that can be found, generated images are used, which is stated.

    Away from its run, and where torch isn't installed, a file is run on the labelled samples of --data, and how
    well it does is compared with the figures in its metadata.

    With --signature and --key, a file that somebody else signed, or that was changed, is refused before it is opened;
    where there is neither run nor data, signature and SHA-256 of the tensors are all that is verified.
    """
    chosen = model_argument.find(model)
    folder = run or chosen.run
    file = chosen.file or (folder or Path()) / runs.ONNX_FILE
    if _verify_signature(file, signature, key, as_json=as_json, alone=folder is None and data is None):
        return
    record: Verification | LabelVerification
    if folder is None or not _has_torch():
        record = _by_labels(file, folder, data, samples=samples, provider=provider)
    else:
        record = _with_torch(file, folder, data, samples=samples, provider=provider)
    if as_json:
        print_json(record)
    elif record.against == "labels":
        print_label_verification(record)
    else:
        print_verification(record)
    if not record.passed:
        raise click.exceptions.Exit(1)


def _verify_signature(file: Path, signature: Path | None, key: Path | None, *, as_json: bool, alone: bool) -> bool:
    """Whether that was all to verify; raises where the signature doesn't hold."""
    if (signature is None) != (key is None):
        raise ConfigError("--signature and --key belong together: the signature, and the signer's public key")
    if signature is None or key is None:
        return False

    if not file.is_file():
        raise RuntimeModelError(f"there is no file {file}; 'zooft export RUN' writes a run's model.onnx")
    comment = signatures.check(file, signature, key)
    if not alone:
        echo(f"the signature is of this file, by the key {key}: {comment}", err=True)
        return False
    tensors = signatures.check_tensors(file)
    if as_json:
        print_json({"signature": "valid", "trusted_comment": comment, "weights_sha256": tensors})
    else:
        echo(f"the signature is of this file, by the key {key}: {comment}")
        echo(f"its tensors are those that its metadata names, SHA-256 {tensors}")
        echo("what it answers wasn't verified: give --data, or --run")
    return True


def _with_torch(file: Path, folder: Path, data: Path | None, *, samples: int, provider: str) -> Verification:
    from zooft.deploy import saved

    with Live() as live:
        opened = saved.open_run(folder, registry.load())
        found = data or model_argument.ModelArgument(folder, None).own_data()
        picked, available, notes = (
            saved.samples_to_verify(opened, found, run=folder, most=samples) if found else ([], 0, ())
        )
        for text in notes:
            live.note(text)
        return saved.verify_file(
            opened,
            file,
            picked,
            available=available,
            provider=provider,
            advance=live.computing("samples, in torch and from the file", len(picked)),
        )


def _by_labels(file: Path, folder: Path | None, data: Path | None, *, samples: int, provider: str) -> LabelVerification:
    from zooft.deploy import label_verification

    if not file.is_file():
        raise RuntimeModelError(f"there is no file {file}; 'zooft export RUN' writes a run's model.onnx")
    where = data or model_argument.ModelArgument(folder, None).own_data()
    if where is None:
        raise DataError(
            f"nothing to verify {file} by: give labelled samples with --data"
            + (
                ", or the run that it was exported from with --run"
                if folder is None
                else "; torch isn't installed here"
            )
        )
    with Live() as live:
        if folder is not None:
            live.note("torch isn't installed, so the file is compared with labels, not with its run's model")
        return label_verification.verify(
            file, where, registry.load(), most=samples, provider=provider, computing=live.computing
        )


def _has_torch() -> bool:
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):  # something in this Python stands in its way
        return False
