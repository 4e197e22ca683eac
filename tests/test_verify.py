"""The verification against injected defects: each is caught, and a good file passes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from sklearn.datasets import load_sample_image
from torch import nn

from zooft import ImagePreprocess, Port, Sample, Verification, classification_metrics, runtime, verify
from zooft import model as models
from zooft.contracts import Calibration
from zooft.export import DeployedModel, export
from zooft.model import AdaptedModel
from zooft.runtime import Metadata
from zooft.verify import Material
from zooft_efficientnet_lite import convert, zooft_register_weights
from zooft_timm import zooft_register_families

CLASSES = ("ant", "bee", "cat", "dog")
PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning="RGB levels 0..255")
Change = Callable[[onnx.ModelProto], None]
Answers = tuple[NDArray[Any], NDArray[Any]]


def metadata(sha256: str) -> Metadata:
    return Metadata(
        version="0.1.0", task="classification", options={}, classes=CLASSES, activation="softmax", ports=(PORT,), calibration=Calibration(), group_score="mean",
        preprocessing="inside the graph", backbone="timm:tf_efficientnet_lite0", weights={}, weights_sha256=sha256,
        data={}, metrics={}, intended_use="A test.",
    )  # fmt: skip


def photographs() -> list[tuple[NDArray[Any], ...]]:
    """Cut-outs of two real photographs, of several sizes."""
    cuts = []
    for name in ("china.jpg", "flower.jpg"):
        whole = load_sample_image(name)
        for size, row, column in ((224, 0, 0), (256, 100, 150), (300, 60, 320), (180, 240, 400)):
            cuts.append((np.array(whole[row : row + size, column : column + size + 16]),))
    return cuts


class Reference:
    """The model in torch, each batch answered once."""

    def __init__(self, model: DeployedModel) -> None:
        self.model = model
        self.known: dict[bytes, Answers] = {}

    def __call__(self, batch: NDArray[Any]) -> Answers:
        key = str(batch.shape).encode() + batch.tobytes()
        if key not in self.known:
            with torch.inference_mode():
                probabilities, logits, _ = self.model(torch.from_numpy(batch))
            self.known[key] = probabilities.numpy(), logits.numpy()
        return self.known[key]


class Bench:
    """A pretrained EfficientNet-Lite0 with a head of four classes, in torch and as a file."""

    def __init__(self, path: Path) -> None:
        (family,) = zooft_register_families()
        backbone = models.load_backbone(
            family, "tf_efficientnet_lite0", weights="pretrained", sources=zooft_register_weights()
        )
        torch.manual_seed(0)
        head = nn.Linear(backbone.width, len(CLASSES))
        model = DeployedModel(ImagePreprocess(backbone.input), AdaptedModel(backbone, head), "softmax").eval()
        self.path, self.reference = path, Reference(model)
        example = torch.randint(0, 256, (2, 256, 288, 3), dtype=torch.uint8)
        export(model, path, ports=[PORT], example=[example], describe=metadata)

    def judge(self, path: Path, **changes: Any) -> Verification:
        """Verify a file against the model."""
        arrays = photographs()
        given: dict[str, Any] = {
            "reference": self.reference,
            "material": Material(
                arrays=arrays, targets=np.arange(len(arrays)) % len(CLASSES), available=20, data="real"
            ),
            "metrics": classification_metrics,
            "requested": "cpu",
        }
        return verify.verify(runtime.load(path, provider="cpu"), path, **{**given, **changes})

    def edited(self, folder: Path, change: Change) -> Path:
        proto = onnx.load(self.path)
        change(proto)
        path = folder / "edited.onnx"
        onnx.save_model(proto, path)
        return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip(convert.module_name(0), reason="install zooft[lite] for a pretrained model without a hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZOOFT_WEIGHTS", raising=False)
        return Bench(tmp_path_factory.mktemp("verify") / "model.onnx")


def rewrite(proto: onnx.ModelProto, chosen: Callable[[onnx.TensorProto], bool], change: Callable[[Any], Any]) -> None:
    """Change the values of some weights; at least one."""
    found = [tensor for tensor in proto.graph.initializer if chosen(tensor)]
    assert found, "no such tensor in the file"
    for tensor in found:
        values = numpy_helper.to_array(tensor).copy()
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(change(values), dtype=values.dtype), tensor.name))


def kernels(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2 and min(tensor.dims[:2]) >= 1


def first_kernel(tensor: onnx.TensorProto) -> bool:
    return list(tensor.dims) == [32, 3, 3, 3]


def middle_kernel(tensor: onnx.TensorProto) -> bool:
    return "blocks.3.0.conv_pw.weight" in tensor.name


def head_weight(tensor: onnx.TensorProto) -> bool:
    return sorted(tensor.dims) == [len(CLASSES), 1280]


def head_bias(tensor: onnx.TensorProto) -> bool:
    return list(tensor.dims) == [len(CLASSES)]


def shift_of_normalisation(tensor: onnx.TensorProto) -> bool:
    return tensor.name.endswith("preprocess.shift")


def without_channel(values: Any) -> Any:
    values[7] = 0
    return values


def swap_first_two(values: Any) -> Any:
    axis = values.shape.index(len(CLASSES))
    order = [1, 0, *range(2, len(CLASSES))]
    return np.take(values, order, axis=axis)


def swap_classes(proto: onnx.ModelProto) -> None:
    rewrite(proto, head_weight, swap_first_two)
    rewrite(proto, head_bias, swap_first_two)


DEFECTS: dict[str, Change] = {
    "a channel set to zero": lambda p: rewrite(p, middle_kernel, without_channel),
    "the head's bias dropped": lambda p: rewrite(p, head_bias, np.zeros_like),
    "the mean off by one level": lambda p: rewrite(p, shift_of_normalisation, lambda v: v + 1 / 255 / 0.5),
    "weights rounded to half precision": lambda p: rewrite(p, kernels, lambda v: v.astype(np.float16)),
    "blue and red swapped": lambda p: rewrite(p, first_kernel, lambda v: v[:, ::-1]),
    "two classes swapped": swap_classes,
}


def test_a_good_file_passes_with_numbers_near_to_rounding(bench: Bench) -> None:
    record = bench.judge(bench.path)
    assert record.failures == ()
    assert record.passed
    assert record.relative_rms < 2e-4
    assert record.max_probability_difference < 1e-3
    assert record.top1_agreement == 1.0
    assert record.batch_sizes == (1, 2, 3, 7)
    assert (record.samples, record.available, record.data) == (8, 20, "real")
    assert "compared on 8 of 20 validation samples, evenly spread" in record.notes


def test_the_record_says_what_ran_where_on_which_file(bench: Bench) -> None:
    record = bench.judge(bench.path)
    assert (record.provider, record.requested_provider) == ("CPUExecutionProvider", "cpu")
    assert record.placement["CPUExecutionProvider"] > 50
    assert record.onnx_sha256 == hashlib.sha256(bench.path.read_bytes()).hexdigest()
    assert all(ours == theirs for ours, theirs in record.metrics.values())
    assert {"accuracy", "balanced_accuracy"} <= set(record.metrics)


@pytest.mark.parametrize("defect", DEFECTS)
def test_an_injected_defect_is_caught(bench: Bench, tmp_path: Path, defect: str) -> None:
    record = bench.judge(bench.edited(tmp_path, DEFECTS[defect]))
    assert not record.passed
    assert any("the logits differ by" in failure for failure in record.failures)
    assert record.relative_rms > 2 * verify.RELATIVE_RMS_LIMIT


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_caught(bench: Bench, tmp_path: Path, bad: float) -> None:
    broken = bench.edited(tmp_path, lambda p: rewrite(p, head_bias, lambda v: np.full_like(v, bad)))
    record = bench.judge(broken)
    assert not record.passed
    assert any("aren't finite" in failure for failure in record.failures)


def test_a_model_that_answers_the_same_to_everything_proves_nothing(bench: Bench, tmp_path: Path) -> None:
    def silence(proto: onnx.ModelProto) -> None:
        rewrite(proto, head_weight, np.zeros_like)
        rewrite(proto, head_bias, np.zeros_like)

    def constant(batch: NDArray[Any]) -> Answers:
        shape = (len(batch), len(CLASSES))
        return np.full(shape, 1 / len(CLASSES), np.float32), np.zeros(shape, np.float32)

    record = bench.judge(bench.edited(tmp_path, silence), reference=constant)
    assert not record.passed
    assert any("answers the same to everything" in failure for failure in record.failures)


def test_a_model_that_prefers_one_class_but_sees_no_image_proves_nothing_either(bench: Bench, tmp_path: Path) -> None:
    biases = np.array([3.0, -1.0, 0.0, 1.0], np.float32)

    def deafen(proto: onnx.ModelProto) -> None:
        rewrite(proto, head_weight, np.zeros_like)
        rewrite(proto, head_bias, lambda _v: biases)

    def constant(batch: NDArray[Any]) -> Answers:
        logits = np.repeat(biases[None], len(batch), axis=0)
        return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), logits

    record = bench.judge(bench.edited(tmp_path, deafen), reference=constant)
    assert not record.passed
    assert any("answers the same to everything" in failure for failure in record.failures)


def bake_batch(proto: onnx.ModelProto) -> None:
    """A reshape that forgets about the batch, as some exporters write it."""
    node = next(n for n in proto.graph.node if "probabilities" in n.output)
    shape = numpy_helper.from_array(np.array([1, len(CLASSES)]), "baked")
    proto.graph.initializer.append(shape)
    logits = node.input[0]
    node.input[0] = "reshaped"
    position = list(proto.graph.node).index(node)
    proto.graph.node.insert(position, onnx.helper.make_node("Reshape", [logits, "baked"], ["reshaped"]))


def test_a_batch_size_baked_into_the_graph_is_caught(bench: Bench, tmp_path: Path) -> None:
    record = bench.judge(bench.edited(tmp_path, bake_batch))
    assert not record.passed
    assert any("doesn't run on a batch of 2" in failure for failure in record.failures)


def test_where_there_are_no_targets_no_metric_is_told(bench: Bench) -> None:
    arrays = verify.generated([PORT])
    record = bench.judge(bench.path, material=Material(arrays=arrays, targets=None, available=0, data="generated"))
    assert record.passed
    assert record.metrics == {}
    assert any("generated images only" in note for note in record.notes)


def test_every_sample_done_is_told_of(bench: Bench) -> None:
    told: list[int] = []
    bench.judge(bench.path, advance=told.append)
    assert told == [1] * 8


@pytest.mark.parametrize(("count", "most", "wanted"), [
    (3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (100, 1, [0]), (0, 4, []),
])  # fmt: skip
def test_samples_are_spread_evenly_over_the_list(count: int, most: int, wanted: Sequence[int]) -> None:
    samples = [Sample(id=str(i), source=i, target=0) for i in range(count)]
    assert verify.spread(samples, most) == wanted


def test_generated_samples_fit_the_port_and_differ_in_size() -> None:
    arrays = verify.generated([PORT])
    assert {a.dtype for (a,) in arrays} == {np.dtype(np.uint8)}
    assert len({a.shape for (a,) in arrays}) > 1
    assert all(a.shape[2] == 3 and a.std() > 20 for (a,) in arrays)


def test_generated_samples_of_a_volume_are_hounsfield_units_with_a_spacing() -> None:
    hu = Port(name="hu", dtype="int16", axes=("batch", "slices", "rows", "columns"), meaning="HU")
    spacing = Port(name="spacing", dtype="float32", axes=("batch", 2), meaning="mm")
    made = verify.generated([hu, spacing])
    assert all(volume.ndim == 3 and volume.dtype == np.int16 and volume.min() < 0 for volume, _ in made)
    assert all(mm.shape == (2,) and mm.dtype == np.float32 and (mm > 0).all() for _, mm in made)
