"""The Open Inference Protocol: what real clients get, and what isn't answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
from commands import command
from PIL import Image, ImageOps
from serving import Running, running
from test_runtime import changed_metadata, written

tritonclient = pytest.importorskip("tritonclient.http", reason="the Triton client isn't installed")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A file that answers by the mean of each channel, in two versions, and one of Hounsfield units."""
    folder = tmp_path_factory.mktemp("serve")
    for version in ("1", "3"):
        (folder / "colour" / version).mkdir(parents=True)
        written(folder / "colour" / version)
    with running(folder, folder / "colour", "--max-batch", "8", "--max-body", "2") as found:
        yield found


@pytest.fixture
def client(server: Running) -> Iterator[Any]:
    with tritonclient.InferenceServerClient(server.host, concurrency=8) as found:
        yield found


def truth(images: np.ndarray) -> np.ndarray:
    """What the file must say, by numpy alone."""
    logits = (2 * images.astype(np.float64).mean((1, 2))).astype(np.float32)
    whole = np.exp(logits - logits.max(1, keepdims=True))
    return whole / whole.sum(1, keepdims=True)


def of_levels(seed: int, rows: int = 1) -> np.ndarray:
    """Pictures of levels around 1, so that no class is certain."""
    return np.random.default_rng(seed).integers(0, 3, (rows, 8, 9, 3), dtype=np.uint8)


def infer(client: Any, images: np.ndarray, *, binary: bool = True, **more: Any) -> Any:
    given = tritonclient.InferInput("images", images.shape, "UINT8")
    given.set_data_from_numpy(images, binary_data=binary)
    wanted = [tritonclient.InferRequestedOutput(n, binary_data=binary) for n in ("probabilities", "prediction")]
    return client.infer("colour", [given], outputs=wanted, **more)


def test_tritons_client_finds_server_models_and_versions(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("colour")
    assert client.is_model_ready("colour", "1")
    assert not client.is_model_ready("colour", "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    about = client.get_model_metadata("colour")
    assert about["versions"] == ["1", "3"]
    assert about["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    assert about["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}
    index = client.get_model_repository_index()
    assert [(one["name"], one["version"], one["state"]) for one in index] == [
        ("colour", "1", "READY"),
        ("colour", "3", "READY"),
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_answers_are_the_files_own(client: Any, binary: bool) -> None:
    images = of_levels(0, rows=5)
    answer = infer(client, images, binary=binary, request_id="a7", model_version="1")
    np.testing.assert_allclose(answer.as_numpy("probabilities"), truth(images), rtol=1e-5)
    assert answer.as_numpy("prediction").tolist() == truth(images).argmax(1).tolist()
    assert (answer.get_response()["id"], answer.get_response()["model_version"]) == ("a7", "1")


def test_without_wanted_outputs_all_are_given(client: Any) -> None:
    given = tritonclient.InferInput("images", (1, 8, 9, 3), "UINT8")
    given.set_data_from_numpy(of_levels(0))
    answer = client.infer("colour", [given])
    assert answer.as_numpy("logits").shape == (1, 3)
    assert answer.get_response()["model_version"] == "3", "the newest"


def test_each_client_gets_its_own_answer(client: Any, server: Running) -> None:
    def ask(seed: int) -> bool:
        images = of_levels(seed, rows=1 + seed % 3)
        with tritonclient.InferenceServerClient(server.host) as own:
            found = infer(own, images).as_numpy("probabilities")
        np.testing.assert_allclose(found, truth(images), rtol=1e-5)
        return True

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(256)))
    text = server.get("metrics").text
    batches = float(text.partition('zooft_batch_samples_count{model="colour"} ')[2].split()[0])
    samples = float(text.partition('zooft_batch_samples_sum{model="colour"} ')[2].split()[0])
    assert samples > 1.2 * batches, "requests share batches"


def request(**changes: Any) -> bytes:
    """JSON of a picture of one pixel."""
    entry = {"name": "images", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [1, 2, 3], **changes}
    return json.dumps({"inputs": [entry]}).encode()


MALFORMED = {
    "no JSON": (b"{", "isn't JSON"),
    "no object": (b"[]", "isn't a JSON object"),
    "nested without end": (b"[" * 100_000, "isn't JSON"),
    "no inputs": (b"{}", "takes the inputs images; got none"),
    "another input": (request(name="pictures"), "got pictures"),
    "another type": (request(datatype="FP32"), r"uint8 ['batch', 'height', 'width', 3], but got float32"),
    "no type": (request(datatype="TEXT"), "is none of"),
    "another shape": (request(shape=[1, 1, 3]), "but got uint8 [1, 1, 3]"),
    "a shape of text": (request(shape=["1", 1, 1, 3]), "list of whole numbers"),
    "a negative shape": (request(shape=[-1, 1, 1, 3]), "list of whole numbers"),
    "a shape that is a bomb": (request(shape=[1, 10**9, 10**9, 3]), "pixels"),
    "no pixels": (request(shape=[1, 0, 1, 3], data=[]), "is empty"),
    "too many samples": (request(shape=[9, 1, 1, 3], data=[0] * 27), "at most 8"),
    "too few numbers": (request(data=[1, 2]), "has 3 numbers, got 2"),
    "ragged": (request(data=[[1, 2], [3]]), "isn't an array"),
    "texts": (request(data=["1", "2", "3"]), "aren't numbers"),
    "fractions": (request(data=[1, 2, 3.5]), "aren't numbers"),
    "beyond its type": (request(data=[1, 2, 300]), "don't fit into uint8"),
    "NaN": (request().replace(b"[1, 2, 3]", b"[1, 2, NaN]"), "isn't JSON"),
    "shared memory": (request(parameters={"shared_memory_region": "a"}), "isn't supported"),
    "binary data that isn't there": (request(parameters={"binary_data_size": 3}), "0 bytes are left"),
}


@pytest.mark.parametrize(("body", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_requests_are_refused_with_a_reason(server: Running, body: bytes, reason: str) -> None:
    answer = server.post("v2/models/colour/infer", body)
    assert answer.status_code in {400, 413}
    assert reason in answer.json()["error"]


@pytest.mark.parametrize(("length", "size"), [("x", 3), ("-1", 3), ("9999", 3), ("", 2), ("", 4)])
def test_malformed_binary_tensors_are_refused(server: Running, length: str, size: int) -> None:
    head = json.loads(request(parameters={"binary_data_size": 3}))
    del head["inputs"][0]["data"]
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(text))}
    assert server.post("v2/models/colour/infer", text + bytes(size), headers=headers).status_code == 400


def test_json_that_would_make_others_wait_is_refused(server: Running) -> None:
    padded = request() + b" " * 8_000_001
    assert server.post("v2/models/colour/infer", padded).status_code == 413


def test_answers_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    import onnx

    def overflow(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].raw_data = np.full(3, np.inf, np.float32).tobytes()

    with running(tmp_path, f"one={written(tmp_path, overflow)}") as server:
        answer = server.post("v2/models/one/infer", request())
    assert (answer.status_code, "NaN" in answer.json()["error"]) == (422, True)


def test_other_addresses_are_not_found(server: Running) -> None:
    assert server.post("v2/models/none/infer", request()).status_code == 404
    assert server.post("v2/models/colour/versions/2/infer", request()).status_code == 404
    assert server.get("v2/models/colour/infer").status_code == 405
    assert server.get("nowhere").json() == {"error": "Not Found"}


def test_models_are_unloaded_and_loaded_and_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    with running(tmp_path, f"one={path}") as server, tritonclient.InferenceServerClient(server.host) as client:
        path.unlink()
        whole = written(tmp_path, changed_metadata(intended_use="Another."))
        assert server.get("models").json()[0]["intended_use"] == "A test.", "what is open stays"
        client.load_model("one")
        assert server.get("models").json()[0]["intended_use"] == "Another."
        whole.write_bytes(b"torn")
        with pytest.raises(tritonclient.InferenceServerException, match="isn't a readable ONNX file") as caught:
            client.load_model("one")
        assert str(tmp_path) not in str(caught.value)
        assert server.post("v2/models/one/infer", request()).status_code == 200
        client.unload_model("one")
        assert not client.is_server_ready()
        assert server.post("v2/models/one/infer", request()).status_code == 404
        with pytest.raises(tritonclient.InferenceServerException, match="without parameters"):
            client.load_model("one", config="{}")


def test_hounsfield_units_are_not_levels_of_a_picture(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    from zooft import Port

    port = Port(name="images", dtype="int16", axes=("batch", "height", "width", 3), meaning="in HU -1024..3071")

    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.INT16, list(port.axes)))
        changed_metadata(ports=[{name: getattr(port, name) for name in ("name", "dtype", "axes", "meaning")}])(model)

    with running(tmp_path, f"hu={written(tmp_path, change)}") as server:

        def post(*values: int) -> tuple[int, str]:
            answer = server.post("v2/models/hu/infer", request(datatype="INT16", data=list(values)))
            return answer.status_code, answer.json().get("error", "")

        assert post(-1000, 40, 60) == (200, "")
        assert "as levels of a picture have" in post(10, 128, 255)[1]
        assert "-2000 to 0, and the model takes -1024..3071" in post(-2000, 0, 0)[1]
        assert server.post("v2/models/hu/infer", request()).status_code == 400, "uint8"


def test_what_is_not_exported_by_zooft_is_refused_at_the_start(tmp_path: Path) -> None:
    import onnx
    from onnx import helper

    path = written(tmp_path, lambda model: helper.set_model_props(model, {}))
    assert isinstance(onnx.load(path), onnx.ModelProto)
    assert "no zooft metadata" in command("serve", path, "--port", "0", status=1).stderr


@pytest.mark.slow
def test_tritons_client_gets_the_answers_of_predict_on_a_hundred_photographs(tmp_path: Path) -> None:
    """A network that is trained enough to answer, in batches of several clients."""
    photographs = sorted((example_data.real("hymenoptera") / "val").rglob("*.jpg"))[:100]
    assert len(photographs) == 100
    run = tmp_path / "run"
    command(
        "finetune",
        "--backbone",
        "timm:tf_efficientnet_lite0.in1k",
        "--task",
        "classification",
        "--data",
        example_data.real("hymenoptera"),
        "--epochs",
        "1",
        "--freeze",
        "backbone",
        "--out",
        run,
    )
    done = command("predict", run / "model.onnx", *photographs, "--format", "json")
    wanted = [row["probabilities"] for row in json.loads(done.stdout)["predictions"]]
    with running(tmp_path, f"colour={run / 'model.onnx'}") as server:
        own = threading.local()

        def ask(path: Path) -> list[float]:
            own.client = getattr(own, "client", None) or tritonclient.InferenceServerClient(server.host)
            image = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))[None]
            return infer(own.client, image).as_numpy("probabilities")[0].tolist()

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, photographs))
        posted = [server.post("predict/colour", path.read_bytes()).json()["predictions"][0] for path in photographs]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert [row["probabilities"] for row in posted] == wanted, "to the last digit"
