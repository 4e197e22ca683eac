"""What a file says of itself, against its run and its tensors: files that were changed on purpose are refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import data
import onnx
import pytest
from commands import command

import zooft
import zooft.runtime

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in brightness, split by folders."""
    root = tmp_path_factory.mktemp("pictures")
    data.write_classes(root / "train", {"dark": 8, "light": 8})
    data.write_classes(root / "val", {"dark": 4, "light": 4})
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests copy it."""
    return zooft.finetune(
        backbone="timm:test_resnet", weights="random", task="classification", data=pictures, epochs=4, bootstrap=100,
        lr=0.05, out=tmp_path_factory.mktemp("runs") / "run", audit=False, report=False, cache=False,
    ).path  # fmt: skip


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


def change_properties(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    proto = onnx.load(path)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    change(properties)
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def say(**changes: Any) -> Change:
    """Change what the file says, everywhere where it says it."""

    def change(properties: dict[str, str]) -> None:
        whole = {**json.loads(properties["zooft"]), **changes}
        properties["zooft"] = json.dumps(whole)
        if "classes" in changes:
            names = changes["classes"]
            properties |= {
                "classes": json.dumps(names), "names": str(dict(enumerate(names))), "model_info labels": " ".join(names),
            }  # fmt: skip

    return lambda path: change_properties(path, change)


def tell_others(**changes: str) -> Change:
    """Change what the file says to tools that don't know zooft."""
    return lambda path: change_properties(path, lambda properties: properties.update(changes))


def nudge_a_weight(path: Path) -> None:
    """Too little for any answer to change visibly."""
    proto = onnx.load(path)
    tensor = next(tensor for tensor in proto.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-7
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, path)


PORT = {"name": "images", "dtype": "uint8", "axes": ["batch", "height", "width", 3], "meaning": "BGR levels 0..255"}
LIES: dict[str, tuple[Change, str]] = {
    "classes in another order": (say(classes=["light", "dark"]), "classes: light, dark; its run has dark, light"),
    "another preprocessing": (say(preprocessing="inside the graph: none"), "preprocessing: inside the graph: none"),
    "another order of colours": (say(ports=[PORT]), "BGR levels"),
    "a threshold": (say(calibration={"temperature": 1.0, "threshold": 0.9, "fitted_on": ""}), "calibration: .*0.9"),
    "another temperature": (
        say(calibration={"temperature": 2.0, "threshold": None, "fitted_on": ""}),
        "calibration: .*2.0",
    ),
    "other figures": (say(metrics={"val": {"accuracy": 1.0}}), "metrics: "),
    "another backbone": (say(backbone="timm:resnet50"), "backbone: timm:resnet50; its run has timm:test_resnet"),
    "sigmoid for softmax": (say(activation="sigmoid"), "activation: sigmoid; its run has softmax"),
    "another hash of the tensors": (say(weights_sha256="ab" * 32), "tensors aren't those that its metadata names"),
    "a weight that was changed a little": (nudge_a_weight, "tensors aren't those that its metadata names"),
    "other classes for other tools": (tell_others(classes='["light", "dark"]'), "tells other tools classes"),
    "other names for other tools": (tell_others(names="{0: 'light', 1: 'dark'}"), "tells other tools names"),
}


def test_an_unchanged_file_is_verified_with_its_metadata(run: Path) -> None:
    record = json.loads(command("verify", run / "model.onnx", "--provider", "cpu", "--json").stdout)
    assert record["passed"]
    assert record["failures"] == []
    assert {"classes", "ports", "preprocessing", "calibration", "tensors", "names for other tools"} <= {
        *record["declared"]
    }
    written = json.loads((run / "verification.json").read_text())
    assert {key for key in record if record[key] != written[key]} <= {"requested_provider", "notes"}


def test_three_names_for_two_outputs_are_refused(copied: Path) -> None:
    say(classes=["dark", "light", "grey"])(copied / "model.onnx")
    said = command("verify", copied / "model.onnx", status=1).stderr
    assert "names 3 classes (dark, light, grey), its outputs have 2" in " ".join(said.split())


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_says_something_else_than_its_run_is_not_verified(copied: Path, lie: str) -> None:
    change, said = LIES[lie]
    change(copied / "model.onnx")
    record = json.loads(command("verify", copied / "model.onnx", "--json", status=1).stdout)
    assert not record["passed"]
    assert len(record["failures"]) == 1
    assert re.search(said, record["failures"][0]), record["failures"]


def test_other_words_of_another_version_are_told_and_no_fault(copied: Path) -> None:
    change_record(copied, zooft="0.1.0")
    say(version="0.1.0", preprocessing="inside the graph: in other words")(copied / "model.onnx")
    record = json.loads(command("verify", copied / "model.onnx", "--json").stdout)
    assert any("in other words" in note for note in record["notes"])


def change_record(run: Path, **changes: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **changes}))


def test_the_hash_of_the_tensors_is_what_anyone_can_compute(run: Path) -> None:
    proto, digest = onnx.load(run / "model.onnx"), hashlib.sha256()
    for tensor in sorted(proto.graph.initializer, key=lambda t: t.name):
        digest.update(tensor.name.encode() + tensor.raw_data)
    assert zooft.runtime.file_tensors_sha256(run / "model.onnx") == digest.hexdigest()
