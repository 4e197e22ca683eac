"""What is nearest in an index: over HTTP, and on the page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import onnx
import pytest
from browser import Browser, browser
from commands import command
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from serving import Running, running
from test_runtime import METADATA, PORT, written

import zooft
from zooft.deploy import embeddings
from zooft.errors import ConfigError
from zooft.model.weights import file_sha256
from zooft.serve.search import Indexes
from zooft_retrieval.problem import SIZE, retrieval

LABELS = (zooft.Label(name="identity", constants={SIZE: 3.0}),)
THRESHOLD = 0.02
COLOURS = {"ann": (200, 40, 40), "bob": (40, 200, 40), "cy": (40, 40, 200), "dan": (180, 180, 30)}


def colour_embedding(folder: Path, *, grey: float = 100.0, threshold: float | None = THRESHOLD) -> Path:
    """A model whose embedding is the mean colour's direction from a grey."""
    problem = retrieval()
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["means"], keepdims=0),
        helper.make_node("Sub", ["means", "grey"], ["apart"]),
        helper.make_node("LpNormalization", ["apart"], ["embedding"], axis=1, p=2),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2]), "axes"),
        numpy_helper.from_array(np.full(3, grey, np.float32), "grey"),
    ]
    image = helper.make_tensor_value_info("images", TensorProto.UINT8, list(PORT.axes))
    output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "zooft", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    about = replace(
        METADATA,
        task="retrieval",
        problem="retrieval",
        options={},
        labels=LABELS,
        outputs=tuple(problem.deployment.outputs(LABELS, {})),
        fitted={}
        if threshold is None
        else {"threshold": threshold, "rule": "largest TAR - FAR", "tar": 1.0, "far": 0.0},
    )
    helper.set_model_props(model, about.to_properties(problem.deployment.properties(LABELS)))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def paint(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-12, 13, (24, 32, 3)) + np.random.default_rng(seed).integers(-8, 9, 3)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    for number, (name, colour) in enumerate(COLOURS.items()):
        for each in range(4):
            paint(root / name / f"{each}.png", colour, 10 * number + each)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_embedding(tmp_path_factory.mktemp("models") / "colours")


@pytest.fixture(scope="module")
def index(model: Path, people: Path) -> Path:
    path = model.parent / "people.index"
    command("index", people, "--model", model, "--out", path)
    return path


@pytest.fixture(scope="module")
def server(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    other = colour_embedding(folder / "other", grey=90.0)
    with running(folder, f"colours={model}", f"plain={other}", "--index", index) as found:
        yield found


@pytest.fixture
def ann(tmp_path: Path) -> Path:
    return paint(tmp_path / "unseen <b>ann.png", COLOURS["ann"], 99)


def unit_colour(path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The embedding, by another way than the model's."""
    mean = np.asarray(Image.open(path), np.float64).reshape(-1, 3).mean(0) - 100.0
    return mean / np.linalg.norm(mean)


def test_a_picture_gets_the_nearest_identities_with_distances(server: Running, people: Path, ann: Path) -> None:
    (row,) = server.post("predict/colours", ann.read_bytes()).json()["predictions"]
    by_hand = {
        path.relative_to(people).as_posix(): 1 - unit_colour(path) @ unit_colour(ann) for path in people.glob("*/*.png")
    }
    best = {name: min((d, file) for file, d in by_hand.items() if file.startswith(f"{name}/")) for name in COLOURS}
    expected = sorted((distance, name, file) for name, (distance, file) in best.items())
    assert [(each["identity"], each["file"]) for each in row["nearest"]] == [(name, file) for _, name, file in expected]
    np.testing.assert_allclose([each["distance"] for each in row["nearest"]], [one[0] for one in expected], atol=1e-5)
    assert [each["same"] for each in row["nearest"]] == [distance <= THRESHOLD for distance, *_ in expected]
    assert [each["same"] for each in row["nearest"]] == [True, False, False, False]


def test_distances_are_those_of_search(server: Running, index: Path, ann: Path) -> None:
    found = json.loads(command("search", index, ann, "--top", "1", "--json").stdout)["answers"][0]["nearest"][0]
    (row,) = server.post("predict/colours?top=1", ann.read_bytes()).json()["predictions"]
    assert row["nearest"] == [{"identity": "ann", **found}]


def test_all_else_of_an_answer_stays(server: Running, model: Path, ann: Path) -> None:
    predicted = json.loads(command("predict", model, ann, "--format", "json").stdout)["predictions"][0]
    (row,) = server.post("predict/colours", ann.read_bytes()).json()["predictions"]
    assert row["embedding"] == predicted["embedding"]
    assert set(row) == {"file", "embedding", "nearest"}


@pytest.mark.parametrize("text", ["0", "51", "-1", "x", "1e1", "²", ""])
def test_top_is_a_number(server: Running, ann: Path, text: str) -> None:
    got = httpx.post(f"{server.address}predict/colours", params={"top": text}, content=ann.read_bytes())
    assert (got.status_code, "whole number from 1 to 50" in got.json()["error"]) == (400, True)


def test_a_model_without_an_index_answers_as_before_and_says_what_to_do(server: Running, ann: Path) -> None:
    assert "nearest" not in server.post("predict/plain", ann.read_bytes()).json()["predictions"][0]
    cards = {each["name"]: each for each in server.get("models").json()}
    assert cards["colours"]["index"] == {"pictures": 16, "identities": 4, "threshold": THRESHOLD}
    assert cards["colours"]["index_hint"] == ""
    assert cards["plain"]["index"] is None
    assert "zooft serve MODEL --index FILE" in cards["plain"]["index_hint"]


def test_a_model_without_embeddings_has_nothing_to_search(tmp_path: Path) -> None:
    with running(tmp_path, f"classes={written(tmp_path)}") as server:
        (card,) = server.get("models").json()
    assert (card["index"], card["index_hint"]) == (None, "")


def test_an_index_of_another_model_is_refused(index: Path, tmp_path: Path) -> None:
    other = colour_embedding(tmp_path / "other", grey=90.0)
    message = command("serve", f"mine={other}", "--index", index, "--port", "0", status=2).stderr
    assert "people.index was made with another model" in message
    assert "what is served (mine)" in message


def test_what_is_no_index_is_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("no index")
    for name, words in (("words", "isn't an index that this zooft reads"), ("nowhere", "there is no index")):
        message = command("serve", model, "--index", tmp_path / name, "--port", "0", status=1).stderr
        assert words in message
        assert "pickle" not in message


def test_two_indexes_of_one_model_are_refused(index: Path, tmp_path: Path) -> None:
    (tmp_path / "again.index").write_bytes(index.read_bytes())
    with pytest.raises(ConfigError, match="made with the same model"):
        Indexes([index, tmp_path / "again.index"])


def test_a_model_that_replaces_the_one_of_the_index_is_refused(
    index: Path, model: Path, ann: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mine.onnx"
    place.write_bytes(model.read_bytes())
    with running(tmp_path, f"mine={place}", "--index", index) as server:
        place.write_bytes(colour_embedding(tmp_path / "other", grey=90.0).read_bytes())
        got = server.post("v2/repository/models/mine/load")
        assert (got.status_code, "people.index was made with the file" in got.json()["error"]) == (400, True)
        (row,) = server.post("predict/mine", ann.read_bytes()).json()["predictions"]
        assert row["nearest"][0]["identity"] == "ann"


def test_each_identity_comes_once_however_many_pictures_it_has() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(400, 8)).astype(np.float32)
    vectors[:300] = vectors[0] + 0.01 * random.normal(size=(300, 8))  # one has most of what is near
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    files = [f"train/many/{n}.png" for n in range(300)] + [f"val/p{n % 7}/{n}.png" for n in range(99)] + ["alone.png"]
    made = embeddings.Index(model_sha256="", model="", threshold=None, files=files, embeddings=vectors)
    searcher = embeddings.Searcher(made)
    found = searcher.nearest_identities(vectors[3], 4)
    distances = 1 - vectors.astype(np.float64) @ vectors[3].astype(np.float64)
    names = np.array(["many"] * 300 + [f"p{n % 7}" for n in range(99)] + ["alone.png"])
    best = sorted((distances[names == name].min(), name) for name in set(names))
    assert searcher.identities == 9
    assert [name for name, _ in found] == [name for _, name in best[:4]]
    np.testing.assert_allclose([each.distance for _, each in found], [d.clip(0) for d, _ in best[:4]], atol=1e-6)
    assert len(searcher.nearest_identities(vectors[3], 40)) == 9


def test_an_index_is_found_by_the_model_s_content(index: Path, model: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy.onnx"
    copied.write_bytes(model.read_bytes())
    indexes = Indexes([index])
    found = indexes.of("any", 1, copied)
    assert found is not None
    assert found.index.model_sha256 == file_sha256(copied)
    assert Indexes([]).of("any", 1, copied) is None


# the page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_shows_the_nearest_by_name(page: Browser, server: Running, ann: Path, width: int, dark: bool) -> None:
    page.complaints.clear()
    page.requests.clear()
    page.open(server.address, width=width, dark=dark)
    page.wait("!document.getElementById('about').hidden")
    assert page.evaluate("document.getElementById('hint').hidden")
    page.choose("#files", ann)
    page.wait("document.querySelectorAll('.neighbours tbody tr').length == 4")
    assert page.evaluate("document.querySelector('.answer h3').textContent") == "ann"
    cells = page.evaluate(
        "[...document.querySelectorAll('.neighbours tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    wanted = server.post("predict/colours", ann.read_bytes()).json()["predictions"][0]["nearest"]
    assert cells == [
        [each["identity"] + each["file"], f"{each['distance']:.4f}", "same" if each["same"] else "other"]
        for each in wanted
    ]
    assert f"up to a distance of {THRESHOLD:.4f}" in page.evaluate(
        "document.querySelector('.neighbours + p').textContent"
    )
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")} == {server.host}
    assert not page.complaints


def test_the_page_names_nobody_where_nobody_is_the_same(page: Browser, server: Running, tmp_path: Path) -> None:
    page.open(server.address, width=1100)
    page.wait("!document.getElementById('about').hidden")
    page.choose("#files", paint(tmp_path / "grey.png", (30, 30, 30), 5))
    page.wait("document.querySelectorAll('.answer').length == 1")
    assert page.evaluate("document.querySelector('.answer h3').textContent") == "Not in the index"


def test_the_page_says_how_to_make_an_index(page: Browser, server: Running) -> None:
    page.open(server.address, width=1100)
    page.wait("!document.getElementById('about').hidden")
    page.evaluate("(find('model').value = '1', showModel())")
    assert "zooft index FOLDER" in page.evaluate("document.getElementById('hint').textContent")
    assert not page.evaluate("document.getElementById('hint').hidden")
