"""``zooft doctor``."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import click

from zooft.cli.output import json_flag, print_json, print_table
from zooft.cli.screen import echo
from zooft.runtime import providers

_PACKAGES = (
    "zooft",
    "zooft-runtime",
    "torch",
    "torchvision",
    "timm",
    "accelerate",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "pluggy",
    "numpy",
    "pillow",
    "scikit-learn",
    "safetensors",
    "captum",
    "pydicom",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "python-gdcm",
    "nibabel",
    "highdicom",
)


@click.command(epilog="\b\nExample:\n  zooft doctor --json")
@json_flag
def doctor(as_json: bool) -> None:
    """Show versions, devices and providers, what would run where, and what is wrong.

    Exits with 1 where something needs mending.
    """
    versions = {name: _version(name) for name in _PACKAGES}
    devices = _devices()
    usable = providers.usable()
    problems = [text for text in (_both(versions), providers.conflict(), _mismatch(devices, usable)) if text]
    runs = {
        "training": next((name for name in ("cuda", "mps", "cpu") if devices.get(name)), None),
        "verification": _first(usable),
    }
    if as_json:
        print_json(
            {
                "python": platform.python_version(),
                "versions": versions,
                "devices": devices,
                "providers": usable,
                "runs": runs,
                "problems": problems,
            }
        )
    else:
        print_table(
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
            ("package", "version"),
            [(name, version or "not installed") for name, version in versions.items()],
        )
        if devices:
            print_table("", ("torch device", ""), [(name, value or "not found") for name, value in devices.items()])
        print_table("", ("onnxruntime provider", ""), [(name, why or "usable") for name, why in usable.items()])
        if runs["training"]:
            echo(f"training would run on {runs['training']}, verification on {runs['verification']}")
        else:
            echo(
                "without torch, ONNX files are used and nothing is trained: predict and evaluate run on "
                f"{runs['verification']}"
            )
        for text in problems:
            echo(text, fg="red")
    if problems:
        raise click.exceptions.Exit(1)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _both(versions: dict[str, str | None]) -> str | None:
    if not (versions["zooft"] and versions["zooft-runtime"]):
        return None
    return (
        "zooft and zooft-runtime are both installed and own the same files, so that removing one breaks the other; run "
        "'pip uninstall -y zooft zooft-runtime' and install one of them again: zooft to train, zooft-runtime to use "
        "ONNX files"
    )


def _devices() -> dict[str, str | None]:
    """Where torch could compute; nothing where there is no torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return {}

    cuda = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or None
    mps = "Apple GPU" if torch.backends.mps.is_available() else None
    return {"cuda": cuda, "mps": mps, "cpu": f"{torch.get_num_threads()} threads"}


def _first(usable: dict[str, str | None]) -> str:
    return "cuda" if usable["cuda"] is None else "cpu"


def _mismatch(devices: dict[str, Any], usable: dict[str, str | None]) -> str | None:
    if devices.get("cuda") and usable["cuda"]:
        return f"torch sees a GPU, but onnxruntime can't use it: {usable['cuda']}"
    return None
