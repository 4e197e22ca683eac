"""Folders for model servers, read by what others wrote: Triton's own message, OpenVINO, the oldest onnxruntime."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import example_data
import numpy as np
import pytest
import yaml
from PIL import Image
from test_runtime import LABELS, METADATA, written

from zooft import Label, Output, Port, runtime
from zooft.deploy import layouts
from zooft.deploy.layouts import Served
from zooft.errors import ExportError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return written(tmp_path / "run")


def folder(model: Path, layout: str, name: str = "ants_2") -> Path:
    record = model.with_name("verification.json")
    record.write_text("{}")
    file = layouts.to_serve(runtime.load(model, provider="cpu"), model, name=name, beside=[record])
    return layouts.write(layout, file, model.parent.parent / "served" / name)


def parsed(path: Path) -> object:
    """Triton's configuration as Triton's own message has it."""
    message = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="pip install 'tritonclient[grpc]' to read Triton's configuration"
    )
    text_format = pytest.importorskip("google.protobuf.text_format")
    return text_format.Parse(path.read_text(encoding="utf-8"), message.ModelConfig())


@pytest.mark.parametrize("layout", ["triton", "kserve", "openvino"])
def test_a_folder_holds_the_file_as_it_was_verified_and_its_record(layout: str, model: Path) -> None:
    out = folder(model, layout)
    served = out / "models" / "ants-2" / "1" / "model.onnx"
    assert hashlib.sha256(served.read_bytes()).digest() == hashlib.sha256(model.read_bytes()).digest()
    assert (out / "verification.json").read_text() == "{}"
    assert "onnxruntime" in (out / "Dockerfile").read_text()
    assert sorted(path.name for path in out.parent.iterdir()) == ["ants_2"], "no draft is left"


def test_triton_reads_types_sizes_classes_and_batching(model: Path) -> None:
    out = folder(model, "triton")
    config = parsed(out / "models" / "ants-2" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("ants-2", "onnxruntime", 8)  # type: ignore[attr-defined]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000  # type: ignore[attr-defined]
    kinds = type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number  # type: ignore[attr-defined]
    given = {one.name: (kinds[one.data_type].name, list(one.dims)) for one in config.input}  # type: ignore[attr-defined]
    made = {one.name: (kinds[one.data_type].name, list(one.dims)) for one in config.output}  # type: ignore[attr-defined]
    assert given == {"images": ("TYPE_UINT8", [-1, -1, 3])}
    assert made == {
        "probabilities": ("TYPE_FP32", [3]),
        "logits": ("TYPE_FP32", [3]),
        "prediction": ("TYPE_INT64", [1]),
    }
    by_name = {one.name: one for one in config.output}  # type: ignore[attr-defined]
    assert by_name["prediction"].HasField("reshape"), "a number for each sample has no axis of its own"
    assert not by_name["probabilities"].HasField("reshape")
    assert by_name["probabilities"].label_filename == "labels.txt"
    names = (out / "models" / "ants-2" / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert names == list(LABELS[0].categories)


def test_every_type_that_a_port_can_have_is_triton_s(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    kinds = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64", "bool"]  # fmt: skip # a table of types
    ports = [Port(name=kind, dtype=kind, axes=("batch", "slices", 7), meaning="") for kind in kinds]
    masks = Output(
        name="mask", dtype="uint8", axes=("batch", "height", "width"), meaning="", measure="own", tolerance=0
    )
    file = Served(
        path=tmp_path / "m.onnx",
        name="m",
        ports=ports,
        outputs=[masks],
        labels=(Label(categories=("a", "b")),),
        metadata=METADATA,
    )
    config = parsed(layouts.write("triton", file, tmp_path / "out") / "models" / "m" / "config.pbtxt")
    numbers = [one.data_type for one in config.input]  # type: ignore[attr-defined]
    assert len(set(numbers)) == len(kinds)
    assert [list(one.dims) for one in config.output] == [[-1, -1]]  # type: ignore[attr-defined]
    assert config.output[0].label_filename == "", "a mask has no class of its own"  # type: ignore[attr-defined]


def test_kserve_gets_triton_s_folder_and_a_service_by_protocol_v2(model: Path) -> None:
    out = folder(model, "kserve")
    assert (out / "models" / "ants-2" / "config.pbtxt").is_file()
    service = yaml.safe_load((out / "ants-2.yaml").read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    wanted = service["spec"]["predictor"]["model"]
    assert (wanted["protocolVersion"], wanted["runtime"]) == ("v2", "kserve-tritonserver")
    assert wanted["storageUri"].endswith("/models")


def test_openvino_computes_what_onnxruntime_does(model: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino isn't installed")
    out = folder(model, "openvino")
    (entry,) = json.loads((out / "models" / "config.json").read_text())["model_config_list"]
    wanted = entry["config"]
    assert (wanted["name"], wanted["base_path"]) == ("ants-2", "/models/ants-2")
    path = out / wanted["base_path"].removeprefix("/") / "1" / "model.onnx"
    compiled = openvino.Core().compile_model(str(path), wanted["target_device"], wanted["plugin_config"])
    images = np.random.default_rng(0).integers(0, 4, (2, 20, 30, 3)).astype(np.uint8)
    ours = runtime.load(path, provider="cpu").run(images)["probabilities"]
    np.testing.assert_allclose(compiled([images])["probabilities"], ours, atol=1e-6)


def test_openvino_s_own_format_would_answer_the_same_to_the_last_bit(model: Path, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino isn't installed")
    ir = tmp_path / "model.xml"
    openvino.save_model(openvino.convert_model(str(model)), str(ir), compress_to_fp16=False)
    images = np.random.default_rng(1).integers(0, 4, (2, 20, 30, 3)).astype(np.uint8)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    as_onnx, as_ir = (
        openvino.Core().compile_model(str(path), "CPU", exact)([images])["probabilities"] for path in (model, ir)
    )
    assert np.array_equal(as_onnx, as_ir)


def test_the_script_in_the_image_answers_as_the_runtime_does(model: Path, tmp_path: Path) -> None:
    out = folder(model, "triton")
    levels = np.zeros((20, 30, 3), np.uint8)
    levels[..., 1] = 2
    Image.fromarray(levels).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", levels)
    command = [sys.executable, out / "predict.py", out / "models" / "ants-2" / "1" / "model.onnx"]
    done = subprocess.run(
        [*command, tmp_path / "a.png", tmp_path / "a.npy"], capture_output=True, text=True, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ours = runtime.load(model, provider="cpu").run(levels[None])["probabilities"][0]
    for answer in answers:
        np.testing.assert_allclose(answer["probabilities"], ours, atol=1e-7)
        assert answer["class"] == LABELS[0].categories[1]
    assert len(answers) == 2


def test_nothing_is_overwritten(model: Path, tmp_path: Path) -> None:
    (tmp_path / "served" / "ants_2").mkdir(parents=True)
    (tmp_path / "served" / "ants_2" / "mine.txt").write_text("mine")
    with pytest.raises(ExportError, match="isn't empty, and nothing is overwritten"):
        folder(model, "triton")
    assert [path.name for path in (tmp_path / "served" / "ants_2").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(("name", "slug"), [("Ants & Bees 2", "ants-bees-2"), ("ü", "model"), ("a" * 80, "a" * 50)])
def test_names_are_such_as_servers_take(name: str, slug: str, model: Path) -> None:
    assert layouts.to_serve(runtime.load(model, provider="cpu"), model, name=name).name == slug


@pytest.mark.slow
def test_the_oldest_onnxruntime_that_the_documentation_names_gives_the_same(model: Path, tmp_path: Path) -> None:
    text = (example_data.REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    (oldest,) = set(re.findall(r"onnxruntime (\d+\.\d+\.\d+) and newer", text))
    assert oldest == layouts.OLDEST_RUNTIME
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    python = tmp_path / "old" / "bin" / "python"
    wanted = [f"onnxruntime=={oldest}", "numpy<2", "pillow"]
    installed = subprocess.run(
        [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        pytest.skip(f"onnxruntime {oldest} can't be installed for this Python: {installed.stderr[-200:]}")
    out = folder(model, "triton")
    levels = np.full((20, 30, 3), 1, np.uint8)
    np.save(tmp_path / "a.npy", levels)
    script = [python, out / "predict.py", out / "models" / "ants-2" / "1" / "model.onnx", tmp_path / "a.npy"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    ours = runtime.load(model, provider="cpu").run(levels[None])["probabilities"][0]
    np.testing.assert_allclose(json.loads(done.stdout)["probabilities"], ours, atol=1e-6)
