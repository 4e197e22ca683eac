"""What an exported file is made of, and under which licences: CycloneDX 1.6, and checksums of a folder's files.

Owns these files' names, beside a run's exports and in the folders of model servers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.model.weights import file_sha256
from zooft.run import folder as runs

if TYPE_CHECKING:
    from zooft.runtime import Metadata

FILE = "model.cdx.json"
LICENCES = "LICENSES.txt"
CHECKSUMS = "SHA256SUMS"
_SUFFIX = ".cdx.json"
_LOWER = tuple(name for name in runtime.PRECISIONS if name != "fp32")
UNKNOWN = "unknown"


def describe_exports(run: Path) -> None:
    """Write beside a run's exported files what each is made of, the licences, and checksums of all that is deployed.

    What describes files that are gone is removed.

    Args:
        run: its folder.
    """
    exported = [path for path in _exports(run) if path.is_file()]
    for path in _exports(run):
        path.with_suffix(_SUFFIX).unlink(missing_ok=True)
    described: list[Path] = []
    for path in exported:
        about = runtime.read_metadata(path)
        runs.write_text(path.with_suffix(_SUFFIX), as_text(bill_of_materials(about, path, name=_name(about))))
        runs.write_text(run / LICENCES, licences(about))
        described += [path, path.with_suffix(_SUFFIX), path.with_name(runtime.DATA_FILE), run / LICENCES]
    if not exported:
        (run / LICENCES).unlink(missing_ok=True)
        (run / CHECKSUMS).unlink(missing_ok=True)
        return
    records = (run / name for name in (runs.VERIFICATION_FILE, *map(runs.PRECISION_VERIFICATION_FILE.format, _LOWER)))
    runs.write_text(run / CHECKSUMS, _sums(run, (path for path in {*described, *records} if path.is_file())))


def _exports(run: Path) -> list[Path]:
    """Where a run's verified files lie, there or not."""
    return [run / runs.ONNX_FILE, *(run / runs.PRECISION_FILE.format(name) for name in _LOWER)]


def _name(about: Metadata) -> str:
    """Of a run's model: a folder's name may be a person's."""
    return f"{about.task.rpartition('/')[2]}-{about.backbone.rpartition(':')[2]}"


def as_text(bill: dict[str, Any]) -> str:
    """A bill of materials as a file has it."""
    return json.dumps(bill, indent=2, ensure_ascii=False) + "\n"


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
    return _sums(folder, (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS))


def _sums(folder: Path, files: Iterable[Path]) -> str:
    return "".join(f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in sorted(files))


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
