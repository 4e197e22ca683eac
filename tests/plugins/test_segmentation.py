"""Masks from data to deployed file: the whole way on small synthetic pictures, checked by counts on written PNGs."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import onnxruntime
import plugged
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from test_without_torch import modules_of_training, without

import zooft
import zooft_segmentation
from zooft import cli, testing
from zooft.deploy import saved
from zooft.hooks import registry
from zooft_segmentation import demo

DEPLOY = example_data.REPOSITORY / "docs" / "deploy.md"
OPTIONS: dict[str, Any] = {
    "task": "segmentation", "backbone": "timm:tf_efficientnet_lite0", "freeze": "backbone", "epochs": 2, "batch_size": 8, "lr": 0.003,
    "bootstrap": 20, "views": 0, "size": (96, 128), "probabilities": True,
}  # fmt: skip # a table of options


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "segmentation", "zooft_segmentation")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    demo.shapes(root, 0)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from pretrained weights that a package carries."""
    with pytest.MonkeyPatch.context() as patch:
        plugged.install(patch, tmp_path_factory.mktemp("site"), "segmentation", "zooft_segmentation")
        result = zooft.finetune(data=data, out=tmp_path_factory.mktemp("runs") / "run", **OPTIONS)
    assert result.verification is not None
    assert result.verification.passed
    return result.path


def command(*words: Any) -> Result:
    done = CliRunner().invoke(cli.zooft, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def independent_miou(found: list[NDArray[Any]], true: list[NDArray[Any]], *, void: int = 255) -> float:
    """The mean over the classes that the truth has, counted with numpy alone."""
    ours, theirs = (np.concatenate([each.ravel() for each in some]) for some in (found, true))
    ours, theirs = ours[theirs != void], theirs[theirs != void]
    each = [((ours == c) & (theirs == c)).sum() / ((ours == c) | (theirs == c)).sum() for c in np.unique(theirs)]
    return float(np.mean(each))


def independent_boundary_f1(found: NDArray[Any], true: NDArray[Any]) -> dict[int, float]:
    """Of each class that the truth has, pair by pair; nothing is void (Csurka et al. 2013, 0.75 % of the diagonal)."""

    def border(mask: NDArray[Any], number: int) -> NDArray[Any]:
        rows, columns = mask.shape
        return np.array(
            [
                (y, x)
                for y, x in np.argwhere(mask == number)
                if any(
                    0 <= y + dy < rows and 0 <= x + dx < columns and mask[y + dy, x + dx] != number
                    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))
                )
            ]
        ).reshape(-1, 2)

    limit = max(1.0, 0.0075 * np.hypot(*true.shape))
    figures = {}
    for number in np.unique(true).tolist():
        ours, theirs = border(found, number), border(true, number)
        if not len(ours) or not len(theirs):
            figures[number] = float(len(ours) == len(theirs))
            continue
        near = np.hypot(*(ours[:, None] - theirs[None]).transpose(2, 0, 1)) <= limit
        precision, recall = near.any(1).mean(), near.any(0).mean()
        figures[number] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return figures


def recorded(path: Path) -> dict[str, float]:
    metrics = json.loads((path / "run.json").read_text())["evaluation"]["val"]["metrics"]
    return {name: figure["value"] for name, figure in metrics.items()}


def session(run: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])


def test_the_task_passes_the_kit(data: Path) -> None:
    (task,) = zooft_segmentation.zooft_register_tasks()
    testing.check_task(task, data, heads=zooft_segmentation.zooft_register_heads())


def test_the_plugin_passes_the_kit(tmp_path: Path) -> None:
    testing.check_plugin(zooft_segmentation, folder=tmp_path)


def test_written_masks_give_the_run_s_figure(run: Path, data: Path, tmp_path: Path) -> None:
    command("predict", run, data / "images" / "val", "--format", "masks", "--out", tmp_path / "masks")
    names = sorted(path.name for path in (data / "masks" / "val").iterdir())
    found, true = ([pixels(folder / name) for name in names] for folder in (tmp_path / "masks", data / "masks" / "val"))
    figures = recorded(run)
    assert independent_miou(found, true) == pytest.approx(figures["miou"], abs=1e-6)
    ours, theirs = (np.concatenate([each.ravel() for each in some]) for some in (found, true))
    assert (ours == theirs).mean() == pytest.approx(figures["pixel_accuracy"], abs=1e-6)
    each = [independent_boundary_f1(one, other) for one, other in zip(found, true, strict=True)]
    means = [np.mean([one[number] for one in each if number in one]) for number in range(4)]
    assert np.mean(means) == pytest.approx(figures["boundary_f1"], abs=1e-6)
    assert figures["miou"] > 0.4  # of four classes, the ground alone reaches 0.2


def test_other_formats(run: Path, data: Path, tmp_path: Path) -> None:
    some = [data / "images" / "val" / f"{n:02}.png" for n in range(2)]
    command("predict", run, *some, "--format", "overlays", "--out", tmp_path / "overlays")
    for path in some:
        assert pixels(tmp_path / "overlays" / path.name).shape == pixels(path).shape
    command("predict", run, *some, "--format", "coco-rle", "--out", tmp_path / "coco")
    message = json.loads((tmp_path / "coco" / "masks.json").read_text())
    assert [each["file_name"] for each in message["images"]] == [str(path) for path in some]
    assert [each["name"] for each in message["categories"]] == ["ground", "disc", "square", "triangle"]
    answers = json.loads(command("predict", run, some[0], "--format", "json").stdout)
    assert sum(answers["predictions"][0]["shares"]) == pytest.approx(1)


def test_masks_are_not_written_over_the_pictures(run: Path, data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "in" / "00.png"
    picture.parent.mkdir()
    picture.write_bytes((data / "images" / "val" / "00.png").read_bytes())
    before = picture.read_bytes()
    words = ["predict", str(run), str(picture), "--format", "masks", "--out", str(tmp_path / "in")]
    done = CliRunner().invoke(cli.zooft, words)
    assert done.exit_code != 0
    assert isinstance(done.exception, zooft.ConfigError) or "holds files already" in done.output
    assert picture.read_bytes() == before
    assert [path.name for path in picture.parent.iterdir()] == ["00.png"]


def test_run_and_file_are_evaluated_alike(run: Path, data: Path) -> None:
    figures = recorded(run)
    for words in (("evaluate", run), ("evaluate", run / "model.onnx", "--data", data)):
        message = json.loads(command(*words, "--json").stdout)
        assert re.search(rf'"miou":.*?{re.escape(str(figures["miou"])[:8])}', json.dumps(message))


def test_masks_are_predicted_and_evaluated_without_torch_as_with_it(run: Path, data: Path, tmp_path: Path) -> None:
    commands = [
        ["predict", run / "model.onnx", data / "images" / "val" / "00.png", "--format", "json"],
        ["evaluate", run / "model.onnx", "--data", data, "--json"],
        ["predict", run / "model.onnx", data / "images" / "val", "--format", "masks", "--out", tmp_path / "masks"],
    ]
    blocked = [*modules_of_training(), "pycocotools", "segmentation_models_pytorch"]
    *answers, masks = without(blocked, *commands)
    (predicted, evaluated), (answer, figures) = answers, [json.loads(command(*words).stdout) for words in commands[:2]]
    assert predicted[0] == 0, predicted[2]
    assert json.loads(predicted[1]) == answer
    assert evaluated[0] == 0, evaluated[2]
    found = json.loads(evaluated[1])["metrics"]
    assert found == {name: figures["metrics"][name] for name in found}
    assert set(figures["metrics"]) - set(found) == {"boundary_f1", "hd95"}  # by scipy
    assert masks[0] == 0, masks[2]


def test_masks_of_any_size_come_out_of_any_batch(run: Path) -> None:
    opened, rng = session(run), np.random.default_rng(0)
    for count, rows, columns in ((1, 30, 200), (2, 96, 128), (3, 301, 47), (7, 64, 64)):
        images = rng.integers(0, 256, (count, rows, columns, 3), np.uint8)
        mask, logits, probabilities = opened.run(["mask", "logits", "probabilities"], {"images": images})
        assert mask.shape == (count, rows, columns)
        assert mask.dtype == np.uint8
        assert logits.shape[:2] == (count, 4)
        assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(probabilities.argmax(1), mask)
        one = np.concatenate([opened.run(["mask"], {"images": image[None]})[0] for image in images])
        assert (one != mask).mean() < 1e-3


def test_the_shortest_program_of_the_docs(run: Path, data: Path, tmp_path: Path) -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", DEPLOY.read_text(), re.DOTALL) if '["mask"]' in b)
    imports = set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE))
    assert imports == {"json", "sys", "pathlib", "numpy", "onnxruntime", "PIL"}
    some = [data / "images" / "val" / f"{n:02}.png" for n in range(3)]
    words = [sys.executable, "-c", block, run / "model.onnx", *some]
    message = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    command("predict", run, *some, "--format", "masks", "--out", tmp_path / "masks")
    for path in some:
        assert np.array_equal(pixels(tmp_path / f"{path.stem}_mask.png"), pixels(tmp_path / "masks" / path.name))
    assert "ground" in message


def test_the_report_shows_classes_and_pictures(run: Path) -> None:
    page = (run / "report.html").read_text()
    for words in (
        "Per class",
        "Confusion by pixels",
        "triangle",
        "classify every pixel as ground, disc, square, triangle",
    ):
        assert words in page
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["prediction"] == "ground"
    assert sum(float(value) for name, value in rows[0].items() if name.startswith("share(")) == pytest.approx(
        1, abs=1e-4
    )


def test_the_file_says_what_its_classes_are(run: Path) -> None:
    about = session(run).get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["ground", "disc", "square", "triangle"]
    assert json.loads(about["palette"])[1] == [220, 60, 60]


def test_named_classes_are_part_of_the_run_s_settings(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("a\nb\nc\nd\n")
    options = {**OPTIONS, "epochs": 1, "classes_file": tmp_path / "mine.txt", "weights": "random"}
    result = zooft.finetune(data=data, out=tmp_path / "run", export=False, report=False, **options)
    assert {"iou/a", "iou/b", "iou/c", "iou/d"} < set(recorded(result.path))
    assert str(tmp_path) not in (result.path / "settings.toml").read_text().replace(str(data), "")


def test_a_head_called_as_another_plugin_s_is_the_one_that_fits(data: Path, tmp_path: Path) -> None:
    result = zooft.finetune(
        data=data,
        out=tmp_path / "run",
        export=False,
        report=False,
        **{**OPTIONS, "head": "linear", "weights": "random", "epochs": 1},
    )
    assert json.loads((result.path / "run.json").read_text())["head"] == "segmentation/linear"


def test_a_run_whose_head_reads_behind_stages_that_are_gone_is_refused_by_their_names(
    run: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(run, tmp_path / "old"))
    record = json.loads((old / "run.json").read_text())
    record["backbone"]["taps"] = ["features"]
    (old / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        zooft.errors.RunError, match=r"was trained on maps behind features of timm:.*whose stages are stem"
    ):
        saved.open_run(old, registry.load())
