"""What an exported file is made of, and under which licences: CycloneDX 1.6, and checksums of a folder's files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.model.weights import file_sha256

if TYPE_CHECKING:
    from zooft.runtime import Metadata

FILE = "model.cdx.json"
LICENCES = "LICENSES.txt"
CHECKSUMS = "SHA256SUMS"
UNKNOWN = "unknown"


def bill_of_materials(about: Metadata, path: Path, *, name: str) -> dict[str, Any]:
    """Of a file: the model itself, the weights that it began with, and the zooft that wrote it.

    A licence that isn't known is called so. No date, path or host stands in it: the same file gives the same text.

    Args:
        about: the file's metadata.
        path: of the file.
        name: of the model.
    """
    sha256 = file_sha256(path)
    weights, zooft = _weights(about), _zooft(about)
    model = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": name,
        "version": sha256[:12],
        "description": about.intended_use,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "licenses": [{"license": {"name": f"{UNKNOWN}: its weights were trained from {weights['name']}; see there"}}],
        "properties": [
            {"name": "zooft:weights_sha256", "value": about.weights_sha256},
            {"name": "zooft:backbone", "value": about.backbone},
            {"name": "zooft:problem", "value": about.problem},
        ],
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": model},
        "components": [weights, zooft],
        "dependencies": [
            {"ref": "model", "dependsOn": ["weights", "zooft"]},
            {"ref": "weights", "dependsOn": []},
            {"ref": "zooft", "dependsOn": []},
        ],
    }


def licences(about: Metadata) -> str:
    """The same in a few lines for people, the weights' licence first."""
    licence = about.weights.get("licence") or UNKNOWN
    source = about.weights.get("source") or UNKNOWN
    lines = [f"pretrained weights: {licence} ({about.backbone}; {source})"]
    if licence == UNKNOWN and about.weights.get("kind") != "random":
        lines.append("  the zoo names no licence for these weights: find out before you pass the model on")
    lines.append(f"zooft {about.version}: wrote the file, and is no part of it")
    return "\n".join(lines) + "\n"


def checksums(folder: Path) -> str:
    """SHA-256 of every file below a folder, as ``sha256sum --check`` reads them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return "".join(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def _weights(about: Metadata) -> dict[str, Any]:
    given = about.weights
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "weights",
        "name": about.backbone,
        "version": str(given.get("source") or UNKNOWN),
        "licenses": [_licence(given.get("licence"))],
        "properties": [{"name": "zooft:kind", "value": str(given.get("kind") or UNKNOWN)}],
    }
    hashes = list(_hashes(given.get("file_sha256")))
    return {**found, "hashes": hashes} if hashes else found


def _hashes(sha256: Any) -> Iterator[dict[str, str]]:
    if isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256):
        yield {"alg": "SHA-256", "content": sha256}


def _zooft(about: Metadata) -> dict[str, Any]:
    return {"type": "application", "bom-ref": "zooft", "name": "zooft", "version": about.version}


def _licence(text: Any) -> dict[str, Any]:
    """By name: what a zoo writes needn't be an SPDX identifier, which others would be refused for."""
    return {"license": {"name": str(text) if text else UNKNOWN}}
