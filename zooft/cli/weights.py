"""``zooft weights``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft.cli.output import json_flag, print_json
from zooft.cli.screen import echo
from zooft.hooks import registry


@click.group(epilog="\b\nExample:\n  zooft weights fetch timm:vit_base --to weights")
def weights() -> None:
    """Prepare pretrained weights for a machine without network."""


@weights.command(epilog="\b\nExample:\n  zooft weights fetch timm:vit_base torchvision:resnet50 --to weights")
@click.argument("backbones", nargs=-1, required=True)
@click.option("--to", "folder", type=click.Path(path_type=Path), required=True, help="the folder to fill")
@json_flag
def fetch(backbones: tuple[str, ...], folder: Path, as_json: bool) -> None:
    """Write the pretrained weights of BACKBONES (FAMILY:MODEL) as safetensors files into a folder.

    Bring the folder to the machine without network and set ZOOFT_WEIGHTS to it.
    """
    from zooft.model.zoo import fetch_weights

    found = registry.load()
    rows = []
    for reference in backbones:
        path, record = fetch_weights(found, reference, folder)
        rows.append({"backbone": reference, "file": path, "weights": record})
        if not as_json:
            echo(path)
            echo(
                f"  from {record.source}, licence {record.licence or 'unknown'}, tensors SHA-256 "
                f"{record.tensors_sha256}"
            )
    if as_json:
        print_json(rows)
    else:
        echo(f"there, set ZOOFT_WEIGHTS={folder.resolve()}")
