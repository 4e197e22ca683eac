"""What a file is made of: valid by CycloneDX's own library, licences named or called unknown, checksums that hold."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_runtime import METADATA, written

from zooft import runtime
from zooft.deploy import bill, layouts

SHA256 = "ab" * 32
PRETRAINED = {"kind": "zoo", "source": "timm 1.0", "licence": "CC-BY-NC-4.0", "file_sha256": SHA256}


def of(weights: dict[str, Any], path: Path) -> dict[str, Any]:
    return bill.bill_of_materials(replace(METADATA, weights=weights), path, name="ants")


@pytest.mark.parametrize("weights", [PRETRAINED, {"kind": "random", "source": "none", "licence": None}, {}])
def test_it_is_valid_by_cyclonedx_s_own_library(weights: dict[str, Any], tmp_path: Path) -> None:
    validation = pytest.importorskip(
        "cyclonedx.validation.json", reason="pip install 'cyclonedx-python-lib[json-validation]' to validate it"
    )
    pytest.importorskip("jsonschema", reason="pip install 'cyclonedx-python-lib[json-validation]' to validate it")
    from cyclonedx.schema import SchemaVersion

    text = json.dumps(of(weights, written(tmp_path)))
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_the_weights_licence_and_hashes_are_in_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = of(PRETRAINED, path)
    weights = next(each for each in found["components"] if each["bom-ref"] == "weights")
    assert weights["licenses"] == [{"license": {"name": "CC-BY-NC-4.0"}}]
    assert weights["hashes"] == [{"alg": "SHA-256", "content": SHA256}]
    assert found["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == of(PRETRAINED, path), "the same file gives the same"


def test_a_licence_that_is_not_known_is_called_so(tmp_path: Path) -> None:
    given = {**PRETRAINED, "licence": None}
    weights = of(given, written(tmp_path))["components"][0]
    assert weights["licenses"] == [{"license": {"name": "unknown"}}]
    text = bill.licences(replace(METADATA, weights=given))
    assert text.startswith("pretrained weights: unknown (")
    assert "find out before you pass the model on" in text
    assert "find out" not in bill.licences(replace(METADATA, weights={"kind": "random", "licence": None}))


def test_a_run_s_exports_are_described_and_what_is_gone_isnt(tmp_path: Path) -> None:
    run = tmp_path / "john doe"
    run.mkdir()
    model = written(run)
    (run / "verification.json").write_text("{}")
    (run / "samples.csv").write_text("id")
    bill.describe_exports(run)
    texts = {name: (run / name).read_text() for name in ("model.cdx.json", "LICENSES.txt", "SHA256SUMS")}
    assert not any("john" in text or str(tmp_path) in text for text in texts.values())
    listed = dict(line.split("  ")[::-1] for line in texts["SHA256SUMS"].splitlines())
    assert list(listed) == sorted(["LICENSES.txt", "model.cdx.json", "model.onnx", "verification.json"])
    assert listed["model.onnx"] == hashlib.sha256(model.read_bytes()).hexdigest()
    bill.describe_exports(run)
    assert texts == {name: (run / name).read_text() for name in texts}, "the same files give the same"
    model.unlink()
    bill.describe_exports(run)
    assert sorted(path.name for path in run.iterdir()) == ["samples.csv", "verification.json"]


def test_checksums_are_those_of_coreutils(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    model = written(tmp_path / "run")
    file = layouts.to_serve(runtime.load(model, provider="cpu"), model, name="ants")
    out = layouts.write("triton", file, tmp_path / "out")
    listed = (out / "SHA256SUMS").read_text().splitlines()
    places = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {line.partition("  ")[2] for line in listed} == places - {"SHA256SUMS"}
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum on the PATH")
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=out, check=True)
