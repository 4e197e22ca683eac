"""Large pictures in tiles: each pixel counts once, answers are blended, and the shortest program gives the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plugged
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_segmentation import DEPLOY, OPTIONS, command, independent_miou, pixels, recorded, session

import zooft
from zooft.contracts import Label
from zooft_segmentation import demo, tiles
from zooft_segmentation.discover import discover
from zooft_segmentation.options import SegmentationOptions

SIZE = 64


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "segmentation", "zooft_segmentation")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    demo.shapes(root, 0)
    return root


def test_each_pixel_of_a_mask_is_in_one_tile(data: Path) -> None:
    whole = discover(data, SegmentationOptions())
    parts = discover(data, SegmentationOptions(tiles=SIZE))
    assert len(parts.samples) == 64 * 4  # two rows of 64 and 32, two columns of 64
    assert {sample.group for sample in parts.samples} == {sample.id for sample in whole.samples}
    for sample in whole.samples[:4]:
        mask, again = pixels(sample.target.path), np.full((96, 128), 255, np.uint8)
        own = [part for part in parts.samples if part.group == sample.id]
        for part in own:
            source, found = part.source, part.target.pixels()
            rows, columns = np.nonzero(found != 255)
            assert (again[rows + source.top, columns + source.left] == 255).all()
            again[rows + source.top, columns + source.left] = found[rows, columns]
            shown = pixels(sample.source)[source.top : source.top + SIZE, source.left : source.left + SIZE]
            assert np.array_equal(tiles.read(source, None), shown)
            assert {part.split} == {sample.split}
        assert np.array_equal(again, mask)
        assert np.array_equal(np.sum([part.target.counts for part in own], 0), sample.target.counts)
    assert len({tiles.digest(part.source, None) for part in parts.samples}) == len(parts.samples)


def test_a_small_picture_is_one_tile_with_a_black_border(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    picture = np.full((30, 50, 3), 9, np.uint8)
    mask = np.repeat(np.arange(2, dtype=np.uint8)[:, None], 15, 0).repeat(50, 1)
    Image.fromarray(picture).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (sample,) = discover(tmp_path, SegmentationOptions(tiles=SIZE)).samples
    read = tiles.read(sample.source, None)
    assert read.shape == (SIZE, SIZE, 3)
    assert read.sum() == picture.sum()
    assert (sample.target.counts, sample.target.void) == ((750, 750), SIZE * SIZE - 1500)


@pytest.mark.parametrize(("rows", "columns"), [(30, 50), (64, 64), (65, 200), (150, 97)])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_probabilities_are_blended_pixel_by_pixel(rows: int, columns: int, overlap: int) -> None:
    """Against sums pixel by pixel of answers that differ from tile to tile."""
    rng = np.random.default_rng(rows + overlap)
    image = rng.integers(0, 256, (rows, columns, 3), np.uint8)

    def run(arrays: Any) -> dict[str, NDArray[Any]]:
        scores = (arrays[0].astype(np.float64) * (1 + arrays[0][0, 0]) + 1).transpose(2, 0, 1)[None]
        return {"probabilities": (scores / scores.sum(1)).astype(np.float32)}

    known = {"tiles": float(SIZE), "overlap": float(overlap), "probabilities": 1.0}
    labels = (Label(name="a", constants=known), Label(name="b"), Label(name="c"))
    made = tiles.whole_answer(run, (image,), labels)
    sums, total = np.zeros((3, rows, columns)), np.zeros((rows, columns))
    weight = np.minimum(np.arange(SIZE) + 1, SIZE - np.arange(SIZE)).astype(float)
    for top in {*range(0, max(1, rows - SIZE), SIZE - overlap), max(0, rows - SIZE)}:
        for left in {*range(0, max(1, columns - SIZE), SIZE - overlap), max(0, columns - SIZE)}:
            padded = np.zeros((SIZE, SIZE, 3), np.uint8)
            part = image[top : top + SIZE, left : left + SIZE]
            padded[: part.shape[0], : part.shape[1]] = part
            answer = run((padded,))["probabilities"][0]
            for y, x in np.ndindex(*part.shape[:2]):
                sums[:, top + y, left + x] += answer[:, y, x] * weight[y] * weight[x]
                total[top + y, left + x] += weight[y] * weight[x]
    assert made["mask"].shape == (1, rows, columns)
    assert made["probabilities"][0] == pytest.approx(sums / total, abs=1e-5)
    assert np.array_equal(made["mask"], made["probabilities"].argmax(1))


def test_sizes_and_overlaps_that_are_none_are_refused() -> None:
    with pytest.raises(zooft.ConfigError, match="tiles: 8; give a side from 32"):
        SegmentationOptions(tiles=8)
    with pytest.raises(zooft.ConfigError, match=r"tile-overlap: 0.9; give a share from 0 to 0\.5"):
        SegmentationOptions(tiles=64, tile_overlap=0.9)


def test_tiles_from_data_to_masks_of_whole_pictures(data: Path, tmp_path: Path) -> None:
    own = {name: value for name, value in OPTIONS.items() if name not in {"size", "probabilities"}}
    result = zooft.finetune(data=data, out=tmp_path / "run", tiles=SIZE, verify_samples=8, **{**own, "batch_size": 32})
    assert result.verification is not None
    assert result.verification.passed
    about = session(result.path).get_modelmeta().custom_metadata_map
    assert (about["tiles"], about["overlap"]) == ("64", "16")
    answered = json.loads(command("evaluate", result.path / "model.onnx", "--data", data, "--json").stdout)
    figures = recorded(result.path)
    assert re.search(rf'"miou":.*?{re.escape(str(figures["miou"])[:8])}', json.dumps(answered))

    names = [f"{n:02}.png" for n in range(16)]
    command("predict", result.path, data / "images" / "val", "--format", "masks", "--out", tmp_path / "of_val")
    found, true = (
        [pixels(folder / name) for name in names] for folder in (tmp_path / "of_val", data / "masks" / "val")
    )
    counted = pytest.approx(independent_miou(found, true), abs=1e-6)
    assert figures["miou"] == counted
    for subject in (result.path, result.path / "model.onnx"):
        own = json.loads(command("evaluate", subject, "--data", data, "--json").stdout)
        assert own["metrics"]["miou"]["value"] == counted
        assert own["samples"] == len(names)
    assert command("verify", result.path / "model.onnx", "--data", data).exit_code == 0

    large, mask = tmp_path / "large.png", tmp_path / "masks" / "large.png"
    four = [[pixels(data / kind / "val" / f"{n:02}.png") for n in range(4)] for kind in ("images", "masks")]
    both = [np.concatenate([np.concatenate(some[:2], 1), np.concatenate(some[2:], 1)]) for some in four]
    Image.fromarray(both[0]).save(large)
    small = data / "images" / "val" / "00.png"
    command("predict", result.path, large, small, "--format", "masks", "--out", tmp_path / "masks")
    assert pixels(mask).shape == (192, 256)
    assert independent_miou([pixels(mask)], [both[1]]) > figures["miou"] - 0.1

    block = next(b for b in re.findall(r"```python\n(.*?)```", DEPLOY.read_text(), re.DOTALL) if '"overlap"' in b)
    assert set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)) == {
        "json",
        "sys",
        "pathlib",
        "numpy",
        "onnxruntime",
        "PIL",
    }
    words = [sys.executable, "-c", block, result.path / "model.onnx", large, small]
    subprocess.run(words, check=True, cwd=tmp_path)
    for path in (large, small):
        one, other = pixels(tmp_path / f"{path.stem}_mask.png"), pixels(tmp_path / "masks" / path.name)
        assert (one != other).mean() < 1e-4
