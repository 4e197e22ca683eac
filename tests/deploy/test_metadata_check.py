"""What a file says of itself, against its run and its tensors: files that were changed on purpose are refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import example_data
import onnx
import pytest
from commands import command
from onnx import numpy_helper
from test_without_torch import modules_of_training, without

import zooft
import zooft.runtime
from zooft.errors import VerificationError
from zooft.problems.classification import classification
from zooft.runtime import metadata

Change = Callable[[Path], None]
PART = classification().deployment


def labels(*classes: str) -> list[dict[str, Any]]:
    return [{"name": "class", "categories": list(classes), "unit": ""}]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that differ in brightness, split by folders."""
    root = tmp_path_factory.mktemp("pictures")
    example_data.write_classes(root / "train", {"dark": 8, "light": 8})
    example_data.write_classes(root / "val", {"dark": 4, "light": 4})
    return root


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests copy it."""
    return zooft.finetune(
        backbone="timm:test_resnet",
        weights="random",
        task="classification",
        data=pictures,
        epochs=4,
        bootstrap=100,
        lr=0.05,
        out=tmp_path_factory.mktemp("runs") / "run",
        audit=False,
        report=False,
        cache=False,
    ).path


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
        message = metadata.parse(properties)
        properties |= message.to_properties(PART.properties(message.labels))

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
FITTED = {"temperature": 1.0, "threshold": 1.0, "fitted_on": ""}
SIGMOID = [
    asdict(output)
    for output in classification(activation="sigmoid").deployment.outputs(zooft.class_labels(("dark", "light")), {})
]
LIES: dict[str, tuple[Change, str]] = {
    "classes in another order": (
        say(labels=labels("light", "dark")),
        r"labels: class \(light, dark\); its run has class \(dark, light\)",
    ),
    "another preprocessing": (say(preprocessing="inside the graph: none"), "preprocessing: inside the graph: none"),
    "another order of colours": (say(ports=[PORT]), "BGR levels"),
    "a threshold": (say(fitted={"temperature": 1.0, "threshold": 0.9, "fitted_on": ""}), "fitted: .*0.9"),
    "another temperature": (
        say(fitted={"temperature": 2.0, "threshold": None, "fitted_on": ""}),
        "fitted: .*2.0",
    ),
    "other figures": (say(metrics={"val": {"accuracy": 1.0}}), "metrics: "),
    "another backbone": (say(backbone="timm:resnet50"), "backbone: timm:resnet50; its run has timm:test_resnet"),
    "sigmoid for softmax": (say(outputs=SIGMOID), "outputs: .*by sigmoid.*; its run has .*by softmax"),
    "another hash of the tensors": (say(weights_sha256="ab" * 32), "tensors aren't those that its metadata names"),
    "a weight that was changed a little": (nudge_a_weight, "tensors aren't those that its metadata names"),
    "other classes for other tools": (tell_others(classes='["light", "dark"]'), "gives other tools classes"),
    "other names for other tools": (tell_others(names="{0: 'light', 1: 'dark'}"), "gives other tools names"),
}


def test_an_unchanged_file_is_verified_with_its_metadata(run: Path) -> None:
    record = json.loads(command("verify", run / "model.onnx", "--provider", "cpu", "--json").stdout)
    assert record["passed"]
    assert record["failures"] == []
    assert {"labels", "outputs", "ports", "preprocessing", "fitted", "tensors", "names for other tools"} <= {
        *record["declared"]
    }
    written = json.loads((run / "verification.json").read_text())
    assert {key for key in record if record[key] != written[key]} <= {"requested_provider", "notes"}


def test_three_names_for_two_outputs_are_refused(copied: Path, pictures: Path) -> None:
    say(labels=labels("dark", "light", "grey"))(copied / "model.onnx")
    failures = json.loads(command("verify", copied / "model.onnx", "--json", status=1).stdout)["failures"]
    assert any("labels: class (dark, light, grey); its run has class (dark, light)" in text for text in failures)
    for arguments in (("predict", pictures / "val" / "dark"), ("evaluate", "--data", pictures)):
        message = command(arguments[0], copied / "model.onnx", *arguments[1:], status=1).stderr
        assert "its labels ask for other outputs than its probabilities, logits" in " ".join(message.split())


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_says_something_else_than_its_run_is_not_verified(copied: Path, lie: str) -> None:
    change, message = LIES[lie]
    change(copied / "model.onnx")
    record = json.loads(command("verify", copied / "model.onnx", "--json", status=1).stdout)
    assert not record["passed"]
    assert re.search(message, record["failures"][0]), record["failures"]


def test_other_words_of_another_version_are_reported_and_no_fault(copied: Path) -> None:
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


def test_a_backbone_of_random_weights_that_has_learnt_nothing_is_reported_as_that_with_what_to_do(
    pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(VerificationError) as refused:
        zooft.finetune(
            backbone="timm:test_efficientnet",
            weights="random",
            task="classification",
            data=pictures,
            epochs=1,
            lr=1e-9,
            bootstrap=0,
            out=tmp_path / "run",
            audit=False,
            report=False,
            cache=False,
        )
    message = str(refused.value)
    assert "answers the same to everything" in message
    assert (
        "began with random weights and wasn't trained yet: begin with pretrained ones (--weights), or train longer"
        in message
    )
    assert not (tmp_path / "run" / "model.onnx").exists()


# Away from the run: by labels, without torch


@pytest.mark.slow
def test_where_a_file_begins_to_differ_is_in_the_record(copied: Path, pictures: Path) -> None:
    file = copied / "model.onnx"
    assert json.loads(command("verify", file, "--data", pictures, "--json").stdout)["deviation"] is None
    proto = onnx.load(file)
    tensor = next(each for each in proto.graph.initializer if len(each.dims) == 4)  # others may not matter yet
    module = tensor.name.removeprefix("model.network.").removesuffix(".weight")
    values = numpy_helper.to_array(tensor).copy()
    values[:] = -values
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    (reads,) = (node for node in proto.graph.node if tensor.name in node.input)
    onnx.save(proto, file)
    record = json.loads(command("verify", file, "--data", pictures, "--json", status=1).stdout)
    found = record["deviation"]
    assert found, record
    assert (found["kind"], found["node"], found["operator"]) == ("weights", reads.name, "Conv")
    assert found["place"].startswith(f"{module}, stage ")
    assert f"{values.size:,} of the {values.size:,} values of {tensor.name}" in found["what"]
    shown = command("verify", file, "--data", pictures, status=1).stdout
    assert f"it begins at {reads.name}, Conv ({module}, stage " in " ".join(shown.split())


def test_export_writes_a_model_server_s_folder_of_a_verified_file(copied: Path, pictures: Path, tmp_path: Path) -> None:
    arguments = ["export", copied, "--data", pictures, "--layout", "triton"]
    assert "--layout and --out belong together" in command(*arguments, status=2).stderr
    out = tmp_path / "served" / "lights"
    done = json.loads(command(*arguments, "--out", out, "--json").stdout)
    assert done["layout"] == str(out)
    served = out / "models" / "lights" / "1" / "model.onnx"
    assert hashlib.sha256(served.read_bytes()).hexdigest() == done["verification"]["onnx_sha256"]
    assert (out / "models" / "lights" / "labels.txt").read_text().split() == ["dark", "light"]
    assert json.loads((out / "verification.json").read_text())["passed"]
    assert "isn't empty, and nothing is overwritten" in command(*arguments, "--out", out, status=2).stderr


@pytest.fixture
def alone(run: Path, tmp_path: Path) -> Path:
    """The file, and nothing beside it."""
    (tmp_path / "away").mkdir()
    return Path(shutil.copy(run / "model.onnx", tmp_path / "away" / "model.onnx"))


def by_labels(file: Path, pictures: Path, *more: str, status: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        command("verify", file, "--data", pictures, *more, "--json", status=status).stdout
    )
    assert found["against"] == "labels"
    return found


def test_away_from_its_run_a_file_is_compared_with_labels_and_says_so(alone: Path, run: Path, pictures: Path) -> None:
    found = by_labels(alone, pictures)
    assert found["passed"]
    assert (found["split"], found["samples"], found["recorded_split"], found["same_samples"]) == ("val", 8, "val", True)
    truth = json.loads((run / "run.json").read_text())["evaluation"]["val"]["metrics"]["accuracy"]["value"]
    assert found["metrics"]["accuracy"] == pytest.approx([truth, truth])
    message = command("verify", alone, "--data", pictures).stdout
    assert message.startswith("verified by labels with onnxruntime")
    assert "not with the model in torch" in message


def test_by_labels_nothing_of_training_is_needed(alone: Path, run: Path, pictures: Path) -> None:
    expected: list[list[str | Path]] = [
        ["verify", alone, "--data", pictures, "--json"],
        ["verify", run / "model.onnx", "--json"],
    ]
    elsewhere, beside = without(modules_of_training(), *expected)
    for status, out, err in (elsewhere, beside):
        assert status == 0, err
        assert (json.loads(out)["passed"], json.loads(out)["against"]) == (True, "labels")
    assert "torch isn't installed" in beside[2]


BY_LABELS: dict[str, tuple[Change, str]] = {
    "classes in another order": (say(labels=labels("light", "dark")), "very val samples .* answers 8 of 8 otherwise"),
    "a weight that was changed a little": (nudge_a_weight, "tensors aren't those that its metadata names"),
    "other classes for other tools": (tell_others(classes='["light", "dark"]'), "gives other tools classes"),
    "a threshold": (say(fitted=FITTED), "the output prediction isn't the class"),
    "figures that are too good": (
        say(metrics={"val": {"samples": 8, "details": {"confusion": [[0, 4], [4, 0]]}}}),
        "8 of 8 otherwise",
    ),
}


@pytest.mark.parametrize("lie", BY_LABELS)
def test_by_labels_a_file_that_was_changed_is_not_verified(alone: Path, pictures: Path, lie: str) -> None:
    change, message = BY_LABELS[lie]
    change(alone)
    found = by_labels(alone, pictures, status=1)
    assert not found["passed"]
    assert re.search(message, " ".join(found["failures"])), found["failures"]


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other pictures of the same kinds, in no split."""
    root = tmp_path_factory.mktemp("others")
    for name, level in example_data.LEVELS.items():
        for number in range(12):
            example_data.save(root / name / f"{number}.png", level, seed=100 + number)
    return root


def test_other_data_of_the_same_kind_verifies_a_right_file_and_not_one_with_swapped_classes(
    alone: Path, others: Path
) -> None:
    found = by_labels(alone, others)
    assert (found["passed"], found["same_samples"], found["split"], found["samples"]) == (True, False, "all", 24)
    say(labels=labels("light", "dark"))(alone)
    failures = " ".join(by_labels(alone, others, status=1)["failures"])
    assert "may be in the wrong order" in failures
    assert "its accuracy on this data is 0.0000" in failures


def test_without_data_and_run_a_message_says_what_to_give(alone: Path) -> None:
    message = command("verify", alone, status=1).stderr
    assert "--data" in message
    assert "--run" in message


def test_with_its_run_named_a_file_elsewhere_is_compared_with_torch(alone: Path, run: Path, pictures: Path) -> None:
    found = json.loads(command("verify", alone, "--run", run, "--data", pictures, "--json").stdout)
    assert (found["against"], found["passed"]) == ("torch", True)


# Using a file that isn't the verified one gives a warning


def uses(file: Path, pictures: Path) -> dict[str, str]:
    """What predict and evaluate say besides their answers."""
    return {
        "predict": command("predict", file, pictures / "val" / "dark", "--provider", "cpu").stderr,
        "evaluate": command("evaluate", file, "--data", pictures, "--provider", "cpu").stderr,
    }


def test_nothing_is_reported_of_a_file_that_was_verified_nor_of_a_copy_of_it(
    run: Path, alone: Path, pictures: Path
) -> None:
    for message in (*uses(run / "model.onnx", pictures).values(), *uses(alone, pictures).values()):
        assert "SHA-256" not in message
        assert "verif" not in message


def only_say(path: Path) -> None:
    say(intended_use="Everything.")(path)


def without_record(path: Path) -> None:
    (path.parent / "verification.json").unlink()


def torn_record(path: Path) -> None:
    (path.parent / "verification.json").write_text("{")


def failed_record(path: Path) -> None:
    record = path.parent / "verification.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "passed": False}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (only_say, "isn't the file that verification.json beside it is about"),
        (nudge_a_weight, "isn't the file that verification.json beside it is about"),
        (without_record, "no record shows that model.onnx was verified"),
        (torn_record, "verification.json can't be read"),
        (failed_record, "failed its verification"),
    ],
)
def test_who_uses_another_file_than_the_verified_one_is_reported(
    copied: Path, pictures: Path, change: Change, message: str
) -> None:
    change(copied / "model.onnx")
    for messages in uses(copied / "model.onnx", pictures).values():
        assert message in " ".join(messages.split())


def test_elsewhere_the_tensors_must_be_those_that_the_metadata_names(alone: Path, pictures: Path) -> None:
    nudge_a_weight(alone)
    for messages in uses(alone, pictures).values():
        assert "tensors aren't those that its metadata names" in " ".join(messages.split())


def test_elsewhere_classes_in_another_order_than_the_file_gives_other_tools_are_reported(
    alone: Path, pictures: Path
) -> None:
    def swap(properties: dict[str, str]) -> None:
        whole = json.loads(properties["zooft"])
        properties["zooft"] = json.dumps({**whole, "labels": labels("light", "dark")})

    change_properties(alone, swap)
    for messages in uses(alone, pictures).values():
        assert "the file gives other tools positive_class: light, but zooft dark" in " ".join(messages.split())
