"""One self-contained ONNX file: what is in it, and what is not."""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from zooft import ImagePreprocess, InputSpec, Port, class_labels, runtime
from zooft.contracts import Output
from zooft.deploy.export import DeployedModel, export, try_out
from zooft.errors import ExportError, RuntimeModelError
from zooft.problems.classification import classification
from zooft.runtime import Metadata

SPEC = InputSpec(height=32, width=32, resize=36, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning="RGB levels 0..255")
CLASSES = ("zebra", "ant", "bee")
LABELS = class_labels(CLASSES)
PART = classification().deployment
OUTPUTS = tuple(PART.outputs(LABELS, {}))
REPOSITORY = Path(__file__).resolve().parents[2]


class Net(nn.Module):
    """What the exporter meets in real backbones: BatchNorm, dropout, attention, a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return {"logits": self.head((tokens + mixed).mean(1))}


class Named(nn.Module):
    """A network whose only output is logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)}


def metadata(sha256: str) -> Metadata:
    return Metadata(
        version="0.1.0",
        task="classification",
        options={},
        problem="classification",
        labels=LABELS,
        outputs=OUTPUTS,
        fitted={},
        ports=(PORT,),
        group_rule="mean",
        preprocessing="inside the graph",
        backbone="toy:net",
        weights={"licence": "MIT", "source": "a package"},
        weights_sha256=sha256,
        data={"train": 7},
        metrics={"val": {"accuracy": 0.5}},
        intended_use="A test.",
    )


def deployed(network: nn.Module | None = None, *, fitted: Any = (), activation: Any = "softmax") -> DeployedModel:
    torch.manual_seed(0)
    last = classification(activation=activation).deployment.graph(LABELS, dict(fitted))
    return DeployedModel(ImagePreprocess(SPEC), network or Net(), last)


def write(path: Path, model: DeployedModel, **changes: Any) -> Path:
    example = torch.randint(0, 256, (2, 50, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = {
        "ports": [PORT],
        "outputs": OUTPUTS,
        "example": [example],
        "describe": metadata,
        "others": PART.properties(LABELS),
    }
    export(model, path, **{**given, **changes})  # type: ignore[arg-type]
    return path


@dataclass(frozen=True)
class Exported:
    """A file and the model that it was made from."""

    path: Path
    model: DeployedModel

    def proto(self) -> onnx.ModelProto:
        return onnx.load(self.path, load_external_data=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = deployed().train()
    return Exported(write(tmp_path_factory.mktemp("exported") / "model.onnx", model), model)


@pytest.mark.parametrize("shape", [(1, 40, 52), (2, 50, 60), (3, 31, 33), (7, 200, 90), (1, 1, 300)], ids=str)
def test_the_file_answers_as_the_model_for_any_batch_and_image_size(
    exported: Exported, shape: tuple[int, int, int]
) -> None:
    session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    probabilities, logits = session.run(["probabilities", "logits"], {"images": images})
    with torch.inference_mode():
        wanted_probabilities, wanted_logits, _ = exported.model.eval()(torch.from_numpy(images))
    np.testing.assert_allclose(logits, wanted_logits.numpy(), atol=1e-3)
    np.testing.assert_allclose(probabilities, wanted_probabilities.numpy(), atol=1e-3)


def test_it_is_one_file_of_opset_18_and_ir_8_with_nothing_beside_it(exported: Exported) -> None:
    proto = exported.proto()
    assert {(entry.domain, entry.version) for entry in proto.opset_import} == {("", 18)}
    assert proto.ir_version == 8
    assert [p.name for p in exported.path.parent.iterdir()] == ["model.onnx"]
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in proto.graph.initializer)
    assert not proto.functions


def test_inputs_and_outputs_have_names_types_and_free_axes(exported: Exported) -> None:
    graph = exported.proto().graph
    (image,) = graph.input
    axes = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, image.type.tensor_type.elem_type, axes) == ("images", onnx.TensorProto.UINT8, list(PORT.axes))
    kinds = {output.name: output.type.tensor_type.elem_type for output in graph.output}
    numbers = onnx.TensorProto.FLOAT
    assert kinds == {"probabilities": numbers, "logits": numbers, "prediction": onnx.TensorProto.INT64}


def test_the_networks_input_has_a_name_inside_the_graph_and_is_no_output(exported: Exported) -> None:
    graph = exported.proto().graph
    makers = [node for node in graph.node if runtime.NETWORK_INPUT in node.output]
    readers = [node for node in graph.node if runtime.NETWORK_INPUT in node.input]
    assert len(makers) == 1
    assert [node.op_type for node in readers] == ["Conv"]
    assert [output.name for output in graph.output] == ["probabilities", "logits", "prediction"]


def test_the_preprocessing_can_be_run_alone(exported: Exported) -> None:
    alone = runtime.preprocessing(exported.path, provider="cpu")
    assert alone is not None
    images = np.random.default_rng(2).integers(0, 256, (2, 50, 61, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = exported.model.preprocess(torch.from_numpy(images)).numpy()
    level = 1 / (255 * min(SPEC.std))
    assert alone.run(images).shape == expected.shape == (2, 3, 32, 32)
    assert np.abs(alone.run(images) - expected).max() < 1.01 * level


def test_a_preprocessing_that_does_nothing_has_its_end_named_too(tmp_path: Path) -> None:
    port = Port(name="x", dtype="float32", axes=("batch", 3, "height", "width"), meaning="as the network wants it")
    torch.manual_seed(0)
    network = Named(nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    model = DeployedModel(nn.Identity(), network, PART.graph(LABELS, {}))
    path = write(
        tmp_path / "model.onnx",
        model,
        ports=[port],
        example=[torch.rand(2, 3, 20, 24)],
        describe=lambda sha: replace(metadata(sha), ports=(port,)),
    )
    graph = onnx.load(path).graph
    assert [node.op_type for node in graph.node if runtime.NETWORK_INPUT in node.input] == ["Conv"]
    x = np.random.default_rng(0).random((3, 3, 9, 8), dtype=np.float32)
    alone = runtime.preprocessing(path, provider="cpu")
    assert alone is not None
    np.testing.assert_array_equal(alone.run(x), x)
    with torch.inference_mode():
        expected = model(torch.from_numpy(x))[1].numpy()
    np.testing.assert_allclose(runtime.load(path, provider="cpu").run(x)["logits"], expected, atol=1e-5)


def test_a_file_of_before_that_does_not_name_its_networks_input_has_no_part_to_run_alone(
    exported: Exported, tmp_path: Path
) -> None:
    proto = onnx.load(exported.path)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == runtime.NETWORK_INPUT:
                    names[place] = "x"
    onnx.save(proto, tmp_path / "old.onnx")
    assert runtime.preprocessing(tmp_path / "old.onnx", provider="cpu") is None


def test_no_node_carries_notes_or_stack_traces(exported: Exported) -> None:
    graph = exported.proto().graph
    items = [*graph.node, *graph.input, *graph.output, *graph.initializer]
    assert not any(item.doc_string or len(item.metadata_props) for item in items)
    assert not graph.doc_string
    assert not graph.value_info
    assert not graph.metadata_props


def test_no_path_host_or_person_of_this_machine_is_in_the_bytes(exported: Exported) -> None:
    content = exported.path.read_bytes()
    personal = [str(REPOSITORY), str(Path.home()), str(exported.path.parent), f"/{getpass.getuser()}/", "site-packages"]
    host = socket.gethostname()
    personal += [host] if len(host) > 3 else []
    assert [text for text in personal if text.encode() in content] == []
    assert b".py" not in content


def test_nothing_that_only_trains_is_in_the_graph(exported: Exported) -> None:
    operators = {node.op_type for node in exported.proto().graph.node}
    assert operators.isdisjoint({"Dropout", "BatchNormalization", "RandomNormal", "RandomUniformLike", "Bernoulli"})
    assert "Resize" not in operators


def test_plain_onnx_reads_the_metadata_and_the_classes_in_order(exported: Exported) -> None:
    properties = {entry.key: entry.value for entry in exported.proto().metadata_props}
    assert json.loads(properties["classes"]) == list(CLASSES)
    whole = json.loads(properties["zooft"])
    assert [(label["name"], label["categories"], label["unit"]) for label in whole["labels"]] == [
        ("class", list(CLASSES), "")
    ]
    assert [output["name"] for output in whole["outputs"]] == ["probabilities", "logits", "prediction"]
    assert whole["ports"][0]["meaning"] == "RGB levels 0..255"
    assert whole["backbone"] == "toy:net"
    assert whole["intended_use"] == "A test."


def test_the_recorded_hash_is_that_of_the_tensors_in_the_file(exported: Exported) -> None:
    proto, digest = exported.proto(), hashlib.sha256()
    for tensor in sorted(proto.graph.initializer, key=lambda t: t.name):
        digest.update(tensor.name.encode() + tensor.raw_data)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(properties["zooft"])["weights_sha256"] == digest.hexdigest()


def test_two_exports_of_one_model_are_byte_identical(exported: Exported, tmp_path: Path) -> None:
    assert write(tmp_path / "again.onnx", exported.model).read_bytes() == exported.path.read_bytes()


def test_sigmoid_gives_independent_probabilities() -> None:
    images = torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8)
    probabilities, logits, _ = deployed(activation="sigmoid").eval()(images)
    torch.testing.assert_close(probabilities, torch.sigmoid(logits))
    softmax, _, _ = deployed().eval()(images)
    assert softmax.sum(1).tolist() == pytest.approx([1, 1])


def test_temperature_and_threshold_are_in_the_graph(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (7, 40, 44, 3), dtype=np.uint8)
    with torch.inference_mode():
        raw = deployed().eval()(torch.from_numpy(images))[1].numpy()
    expected = np.exp(raw / 2.5) / np.exp(raw / 2.5).sum(1, keepdims=True)
    threshold = float(np.median(expected[:, 1])) + 1e-4
    path = write(tmp_path / "model.onnx", deployed(fitted={"temperature": 2.5, "threshold": threshold}).eval())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities, logits, prediction = session.run(None, {"images": images})
    np.testing.assert_allclose(logits, raw / 2.5, atol=1e-3)
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)
    assert prediction.tolist() == (probabilities[:, 1] >= threshold).astype(int).tolist()
    assert 0 < prediction.sum() < 7


class Undecided(nn.Module):
    """Goes one way or the other by what is in the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))


class Dropping(nn.Module):
    """Drops in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x.mean((2, 3)), 0.5, training=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Undecided(), "can't export this backbone: .*--no-export"),
        (Dropping(), "training-time operators: Dropout|Random"),
    ],
)
def test_a_backbone_that_cannot_be_exported_is_an_error_and_leaves_no_file(
    tmp_path: Path, network: nn.Module, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=f"(?s){message}") as caught:
        write(tmp_path / "model.onnx", deployed(Named(network)))
    assert len(str(caught.value)) < 800
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_example_of_one_sample_is_our_own_mistake(tmp_path: Path) -> None:
    example = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="two samples"):
        write(tmp_path / "m.onnx", deployed(), example=[example])


def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zooft.deploy import export as module

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    proto = onnx.helper.make_model(
        onnx.helper.make_graph([], "empty", [], []), opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    with pytest.raises(OSError, match="No space"):
        module._write(proto, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_above_the_limit_the_tensors_go_into_one_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zooft.deploy import export as exporting

    monkeypatch.setattr(exporting, "SINGLE_FILE_LIMIT", 100)
    network = deployed()
    example = torch.randint(0, 256, (2, 40, 44, 3), dtype=torch.uint8)
    path = tmp_path / "model.onnx"
    for _ in range(2):  # a second export replaces both files
        write(path, network, example=[example])
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", runtime.DATA_FILE}
    with torch.inference_mode():
        expected = network(example)[0].numpy()
    assert np.allclose(runtime.load(path, provider="cpu").run(example.numpy())["probabilities"], expected, atol=1e-5)
    alone = runtime.preprocessing(path, provider="cpu")
    assert alone is not None
    assert alone.run(example.numpy()).shape == (2, 3, 32, 32)
    assert runtime.in_two_files(path)
    assert runtime.file_tensors_sha256(path) == runtime.load(path, provider="cpu").metadata.weights_sha256


def test_a_second_file_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zooft.deploy import export as exporting

    monkeypatch.setattr(exporting, "SINGLE_FILE_LIMIT", 100)
    example = torch.zeros(2, 40, 44, 3, dtype=torch.uint8)
    write(tmp_path / "model.onnx", deployed(), example=[example])
    (tmp_path / "another name").hardlink_to(tmp_path / runtime.DATA_FILE)
    with pytest.raises(RuntimeModelError, match="has tensors in other files"):
        runtime.load(tmp_path / "model.onnx", provider="cpu")


class TwoHeads(nn.Module):
    """A number for the whole image, and one for each place in it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        map_ = self.convolution(x)
        return {"map": map_, "value": map_.mean((1, 2, 3))}


class OfTheImagesSize(nn.Module):
    """Both outputs, the one of places as large as the image that was given."""

    def forward(self, outputs: dict[str, Tensor], batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (images,) = batch
        grown = nn.functional.interpolate(outputs["map"], size=images.shape[1:3], mode="nearest")
        return outputs["value"], grown


def test_a_file_may_give_several_outputs_and_some_of_the_size_of_its_input(tmp_path: Path) -> None:
    outputs = (
        Output(name="value", dtype="float32", axes=("batch",), meaning="of the image"),
        Output(name="map", dtype="float32", axes=("batch", 2, "height", "width"), meaning="of each place"),
    )
    torch.manual_seed(0)
    model = DeployedModel(ImagePreprocess(SPEC), TwoHeads(), OfTheImagesSize()).eval()
    path = write(
        tmp_path / "model.onnx",
        model,
        outputs=outputs,
        describe=lambda sha: replace(metadata(sha), outputs=outputs),
        others={},
    )
    opened = runtime.load(path, provider="cpu")
    for shape in ((1, 40, 52, 3), (3, 31, 33, 3)):
        images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        answers = opened.run(images)
        with torch.inference_mode():
            value, places = model(torch.from_numpy(images))
        np.testing.assert_allclose(answers["value"], value.numpy(), atol=1e-3)
        np.testing.assert_allclose(answers["map"], places.numpy(), atol=2e-2)  # a level may be rounded the other way
        assert answers["map"].shape == (shape[0], 2, *shape[1:3])
    empty = opened.run(np.zeros((0, 8, 8, 3), np.uint8))
    assert {name: found.shape for name, found in empty.items()} == {"value": (0,), "map": (0, 2, 0, 0)}


def test_networks_of_several_outputs_are_tried_out() -> None:
    try_out(TwoHeads(), torch.rand(2, 3, 20, 24), axes={0: "batch"})
    with pytest.raises(ExportError, match="nothing was trained"):
        try_out(Named(Undecided()), torch.rand(2, 3, 20, 24), axes={0: "batch"})
