"""The verification against injected defects: each is caught, and a good file passes."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
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

from zooft import ImagePreprocess, InputSpec, Port, Sample, Verification, class_labels, runtime
from zooft.deploy import verify
from zooft.deploy.export import DeployedModel, export
from zooft.deploy.verify import Answering, Material, Reference
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import load_backbone
from zooft.problems.classification import classification
from zooft.runtime import Metadata
from zooft_efficientnet_lite import convert, zooft_register_weights
from zooft_timm import zooft_register_families

CLASSES = ("ant", "bee", "cat", "dog")
PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning="RGB levels 0..255")
Change = Callable[[onnx.ModelProto], None]
Answers = dict[str, NDArray[Any]]
LABELS = class_labels(CLASSES)
PROBLEM = classification()
ANSWERING = Answering(problem=PROBLEM, labels=LABELS, fitted={})
LIMIT = 1e-4
"""Of the logits' spread."""


def metadata(sha256: str) -> Metadata:
    return Metadata(
        version="0.1.0",
        task="classification",
        options={},
        problem="classification",
        labels=LABELS,
        outputs=tuple(ANSWERING.outputs()),
        fitted={},
        ports=(PORT,),
        group_rule="mean",
        preprocessing="inside the graph",
        backbone="timm:tf_efficientnet_lite0",
        weights={},
        weights_sha256=sha256,
        data={},
        metrics={},
        intended_use="A test.",
    )


def photographs() -> list[tuple[NDArray[Any], ...]]:
    """Cut-outs of two real photographs, of several sizes."""
    cuts = []
    for name in ("china.jpg", "flower.jpg"):
        whole = load_sample_image(name)
        for size, row, column in ((224, 0, 0), (300, 60, 320)):
            cuts.append((np.array(whole[row : row + size, column : column + size + 16]),))
    return cuts


def named(answers: Sequence[torch.Tensor]) -> Answers:
    names = [output.name for output in ANSWERING.outputs()]
    return {name: np.asarray(found.numpy()) for name, found in zip(names, answers, strict=True)}


def as_answers(logits: NDArray[Any]) -> Answers:
    """What the graph makes of logits."""
    with torch.inference_mode():
        return named(PROBLEM.deployment.graph(LABELS, {})({"logits": torch.from_numpy(logits)}, ()))


class Asked:
    """The model in torch, each batch answered once."""

    def __init__(self, model: DeployedModel, spec: InputSpec) -> None:
        self.model, self.spec = model, spec
        self.known: dict[bytes, Answers] = {}

    @cached_property
    def double(self) -> DeployedModel:
        return copy.deepcopy(self.model).double()

    def prepare(self, batch: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            return np.asarray(self.model.preprocess(torch.from_numpy(batch)).numpy())

    def answer(self, x: NDArray[Any], _batch: Sequence[NDArray[Any]] = ()) -> Answers:
        key = str(x.shape).encode() + x.tobytes()
        if key not in self.known:
            with torch.inference_mode():
                self.known[key] = named(self.model.answer(torch.from_numpy(x), ()))
        return self.known[key]

    def exact(self, x: NDArray[Any], _batch: Sequence[NDArray[Any]]) -> Answers:
        with torch.inference_mode():
            return named(self.double.answer(torch.from_numpy(x).double(), ()))

    def reference(self, **changes: Any) -> Reference:
        given: dict[str, Any] = {
            "prepare": self.prepare,
            "answer": self.answer,
            "exact": self.exact,
            "input": self.spec,
            "advice": "train it",
        }
        return Reference(**{**given, **changes})


class Bench:
    """A pretrained EfficientNet-Lite0 with a head of four classes, in torch and as a file."""

    def __init__(self, path: Path) -> None:
        (family,) = zooft_register_families()
        backbone = load_backbone(
            family, "tf_efficientnet_lite0", weights="pretrained", sources=zooft_register_weights()
        )
        torch.manual_seed(0)
        head = nn.Linear(backbone.width, len(CLASSES))
        model = DeployedModel(
            ImagePreprocess(backbone.input), AdaptedModel(backbone, head), PROBLEM.deployment.graph(LABELS, {})
        ).eval()
        self.path, self.asked = path, Asked(model, backbone.input)
        example = torch.randint(0, 256, (2, 256, 288, 3), dtype=torch.uint8)
        export(
            model,
            path,
            ports=[PORT],
            outputs=ANSWERING.outputs(),
            example=[example],
            describe=metadata,
            others=PROBLEM.deployment.properties(LABELS),
        )

    def judge(self, path: Path, **changes: Any) -> Verification:
        """Verify a file against the model."""
        arrays = photographs()
        given: dict[str, Any] = {
            "reference": self.asked.reference(),
            "parts": runtime.preprocessing(path, provider="cpu"),
            "material": Material(
                arrays=arrays, targets=[index % len(CLASSES) for index in range(len(arrays))], available=20, data="real"
            ),
            "answering": ANSWERING,
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
    return tensor.data_type == onnx.TensorProto.FLOAT and list(tensor.dims) == [len(CLASSES)]


def scale_of_normalisation(tensor: onnx.TensorProto) -> bool:
    return tensor.name.endswith("preprocess.scale")


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


def shift_by_one_row(proto: onnx.ModelProto) -> None:
    """The first row is cut off, before anything else is done."""
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            if name == "images":
                node.input[place] = "cut"
    for name, values in (("first", [1]), ("last", [2**31]), ("rows", [1])):
        proto.graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    proto.graph.node.insert(0, onnx.helper.make_node("Slice", ["images", "first", "last", "rows"], ["cut"]))


def bypass(proto: onnx.ModelProto) -> None:
    """The network's input is made as it should be, and something else goes into the network."""
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.01), "little"))
    readers = [node for node in proto.graph.node if runtime.NETWORK_INPUT in node.input]
    for node in readers:
        node.input[list(node.input).index(runtime.NETWORK_INPUT)] = "other"
    place = list(proto.graph.node).index(readers[0])
    proto.graph.node.insert(place, onnx.helper.make_node("Add", [runtime.NETWORK_INPUT, "little"], ["other"]))


IN_THE_NETWORK: dict[str, Change] = {
    "a channel set to zero": lambda p: rewrite(p, middle_kernel, without_channel),
    "the head's bias dropped": lambda p: rewrite(p, head_bias, np.zeros_like),
    "weights rounded to half precision": lambda p: rewrite(p, kernels, lambda v: v.astype(np.float16)),
    "blue and red swapped": lambda p: rewrite(p, first_kernel, lambda v: v[:, ::-1]),
    "two classes swapped": swap_classes,
    "another input than the preprocessing's": bypass,
}
IN_THE_PREPROCESSING: dict[str, Change] = {
    "the mean off by one level": lambda p: rewrite(p, shift_of_normalisation, lambda v: v + 1 / 255 / 0.5),
    "the mean off by a tenth of a level": lambda p: rewrite(p, shift_of_normalisation, lambda v: v + 0.1 / 255 / 0.5),
    "the scale off by a thousandth": lambda p: rewrite(p, scale_of_normalisation, lambda v: v * 1.001),
    "the image shifted by one row": shift_by_one_row,
    "values that aren't finite": lambda p: rewrite(p, shift_of_normalisation, lambda v: v * np.nan),
}


def test_a_good_file_passes_with_numbers_near_to_rounding(bench: Bench) -> None:
    record = bench.judge(bench.path)
    assert record.failures == ()
    assert record.passed
    assert record.relative_rms < 2e-4
    assert record.network_rms is not None
    assert record.network_rms < 1e-5
    assert record.agreement == 1.0
    of = record.outputs
    assert [(name, one.measure) for name, one in of.items()] == [
        ("probabilities", "absolute"),
        ("logits", "spread"),
        ("prediction", "exact"),
    ]
    assert 0 < of["probabilities"].whole < 1e-3
    assert (of["logits"].whole, of["logits"].network, of["logits"].spread) == (
        record.relative_rms,
        record.network_rms,
        record.spread,
    )
    assert of["prediction"].whole == 0.0
    assert record.batch_sizes == (1, 2, 3, 7)
    assert (record.samples, record.available, record.data, record.against) == (4, 20, "real", "torch")
    assert "compared on 4 of 20 validation samples, evenly spread" in record.notes


def test_the_preprocessing_is_compared_in_levels(bench: Bench) -> None:
    level = bench.judge(bench.path).preprocessing
    assert level is not None
    assert level.whole
    assert level.values == (4 + 4 + 2 + 3 + 7) * 3 * 224 * 224  # samples, generated images, batches
    assert level.largest <= 1.001
    assert level.differing <= 0.01 * level.values
    assert level.mean < 0.01


def test_the_record_says_what_ran_where_on_which_file(bench: Bench) -> None:
    record = bench.judge(bench.path)
    assert (record.provider, record.requested_provider) == ("CPUExecutionProvider", "cpu")
    assert record.placement["CPUExecutionProvider"] > 50
    assert record.onnx_sha256 == hashlib.sha256(bench.path.read_bytes()).hexdigest()
    assert all(ours == theirs for ours, theirs in record.metrics.values())
    assert {"accuracy", "balanced_accuracy"} <= set(record.metrics)


@pytest.mark.parametrize(("defect", "alike"), [
    *((defect, False) for defect in IN_THE_NETWORK),
    ("a channel set to zero", True), ("weights rounded to half precision", True),
])  # fmt: skip # a table of cases
def test_a_defect_in_the_network_is_caught(bench: Bench, tmp_path: Path, defect: str, alike: bool) -> None:
    record = bench.judge(bench.edited(tmp_path, IN_THE_NETWORK[defect]), **nearly_alike(alike))
    assert not record.passed
    assert any("the output logits differs by" in failure for failure in record.failures)
    assert record.network_rms is not None
    assert record.network_rms > 2 * LIMIT
    assert not any("preprocessing" in failure for failure in record.failures)


@pytest.mark.parametrize(("defect", "alike"), [
    *((defect, False) for defect in IN_THE_PREPROCESSING),
    ("the mean off by a tenth of a level", True), ("the image shifted by one row", True),
])  # fmt: skip # a table of cases
def test_a_defect_in_the_preprocessing_is_caught(bench: Bench, tmp_path: Path, defect: str, alike: bool) -> None:
    record = bench.judge(bench.edited(tmp_path, IN_THE_PREPROCESSING[defect]), **nearly_alike(alike))
    assert not record.passed
    assert any("the file's preprocessing" in failure for failure in record.failures)


def nearly_alike(expected: bool) -> dict[str, Any]:
    """One part before a fixed camera: four times the same picture, with a sensor's noise."""
    if not expected:
        return {}
    rng, still = np.random.default_rng(3), load_sample_image("china.jpg")[:300, :400].astype(float)
    arrays = [(np.clip(still + rng.normal(0, 0.3, still.shape), 0, 255).astype(np.uint8),) for _ in range(4)]
    return {"material": Material(arrays=arrays, targets=np.arange(4), available=4, data="real")}


def flipped_levels(bench: Bench, share: float, *, by: int = 1) -> dict[str, Any]:
    """Torch's preprocessing with levels that another implementation rounds the other way."""
    level = 1 / (255 * np.array(bench.asked.spec.std, np.float32))[:, None, None]

    def prepare(batch: NDArray[Any]) -> NDArray[Any]:
        x, rng = bench.asked.prepare(batch), np.random.default_rng(0)
        chosen = rng.random(x.shape) < share
        return np.asarray((x + chosen * rng.choice([-by, by], x.shape) * level).astype(np.float32))

    return {"reference": bench.asked.reference(prepare=prepare)}


def test_a_right_file_passes_on_samples_that_are_nearly_alike_though_levels_are_rounded_the_other_way(
    bench: Bench,
) -> None:
    record = bench.judge(bench.path, **flipped_levels(bench, 0.007), **nearly_alike(True))
    assert record.failures == ()
    assert record.relative_rms > 10 * LIMIT, "by the whole alone it would be refused"
    assert any("levels are rounded the other way" in note for note in record.notes)


def test_samples_that_are_nearly_alike_are_reported_and_measured_by_a_wider_spread(bench: Bench) -> None:
    given = nearly_alike(True)
    record = bench.judge(bench.path, **given)
    batches = [bench.asked.prepare(array[None]) for (array,) in given["material"].arrays]
    logits = np.concatenate([bench.asked.answer(x)["logits"] for x in batches])
    assert record.spread is not None
    assert record.spread > 2 * float((logits - logits.mean(0)).std())
    assert any("samples are nearly alike" in note for note in record.notes)
    assert not any("nearly alike" in note for note in bench.judge(bench.path).notes)


@pytest.mark.parametrize(("share", "by"), [(0.05, 1), (0.001, 5)], ids=["too many", "too far"])
def test_more_than_rounding_in_the_preprocessing_is_refused(bench: Bench, share: float, by: int) -> None:
    record = bench.judge(bench.path, **flipped_levels(bench, share, by=by))
    assert [failure for failure in record.failures if "preprocessing isn't torch's" in failure]


def test_a_prediction_that_is_not_the_likeliest_class_is_caught(bench: Bench, tmp_path: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        next(node for node in proto.graph.node if "prediction" in node.output).op_type = "ArgMin"

    failures = bench.judge(bench.edited(tmp_path, change)).failures
    messages = "of 4 samples the output prediction isn't the class that probabilities and threshold give"
    assert {messages, f"on generated images, {messages}"} <= {*failures}
    assert "a batch of 7 gives other answers than torch" in failures


def with_noise_of_rounding(bench: Bench, size: float) -> dict[str, Any]:
    """A network whose rounding shows as much as with random weights: torch's logits are off by so much of their spread."""

    def answer(x: NDArray[Any], _batch: Sequence[NDArray[Any]]) -> Answers:
        answers = bench.asked.answer(x)
        noise = np.random.default_rng(len(x)).normal(0, size * 0.2, answers["logits"].shape)
        return {**answers, "logits": (answers["logits"] + noise).astype(np.float32)}

    return {"answer": answer}


def test_where_rounding_itself_shows_float64_distinguishes_it_from_a_defect(bench: Bench, tmp_path: Path) -> None:
    shown = bench.asked.reference(**with_noise_of_rounding(bench, 5e-4))
    record = bench.judge(bench.path, reference=shown)
    assert record.failures == ()
    assert record.network_rms is not None
    assert record.network_rms > LIMIT
    assert any("against arithmetic in float64" in note for note in record.notes)
    wrong = bench.edited(tmp_path, IN_THE_NETWORK["weights rounded to half precision"])
    assert not bench.judge(wrong, reference=shown).passed


def test_a_network_that_cannot_run_in_float64_is_measured_by_the_spread_alone(bench: Bench) -> None:
    def refusing(_x: NDArray[Any], _batch: Sequence[NDArray[Any]]) -> Answers:
        raise RuntimeError("expected scalar type Float but found Double")

    shown = bench.asked.reference(**with_noise_of_rounding(bench, 5e-4), exact=refusing)
    assert any("the limit is 1e-04" in failure for failure in bench.judge(bench.path, reference=shown).failures)


def test_a_file_that_does_not_say_where_its_preprocessing_ends_is_compared_as_a_whole(bench: Bench) -> None:
    record = bench.judge(bench.path, parts=None)
    assert record.passed
    assert (record.preprocessing, record.network_rms) == (None, None)
    assert any("export it again" in note for note in record.notes)


def test_the_file_itself_is_not_changed_by_looking_into_it(bench: Bench) -> None:
    before = bench.path.read_bytes()
    assert runtime.preprocessing(bench.path, provider="cpu") is not None
    bench.judge(bench.path)
    assert bench.path.read_bytes() == before


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

    def constant(x: NDArray[Any], _batch: Sequence[NDArray[Any]]) -> Answers:
        return as_answers(np.zeros((len(x), len(CLASSES)), np.float32))

    record = bench.judge(bench.edited(tmp_path, silence), reference=bench.asked.reference(answer=constant))
    assert not record.passed
    assert any("answers the same to everything" in failure and "train it" in failure for failure in record.failures)


def test_a_model_that_prefers_one_class_but_sees_no_image_proves_nothing_either(bench: Bench, tmp_path: Path) -> None:
    biases = np.array([3.0, -1.0, 0.0, 1.0], np.float32)

    def deafen(proto: onnx.ModelProto) -> None:
        rewrite(proto, head_weight, np.zeros_like)
        rewrite(proto, head_bias, lambda _v: biases)

    def constant(x: NDArray[Any], _batch: Sequence[NDArray[Any]]) -> Answers:
        return as_answers(np.repeat(biases[None], len(x), axis=0))

    record = bench.judge(bench.edited(tmp_path, deafen), reference=bench.asked.reference(answer=constant))
    assert not record.passed
    assert any("answers the same to everything" in failure and "train it" in failure for failure in record.failures)


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


def test_where_there_are_no_targets_no_metric_is_reported(bench: Bench) -> None:
    arrays = verify.generate_samples([PORT])
    record = bench.judge(bench.path, material=Material(arrays=arrays, targets=None, available=0, data="generated"))
    assert record.passed
    assert record.metrics == {}
    assert any("generated images only" in note for note in record.notes)


def test_every_sample_done_is_reported(bench: Bench) -> None:
    messages: list[int] = []
    bench.judge(bench.path, advance=messages.append)
    assert messages == [1] * 4


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(3, 5, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (100, 1, [0]), (0, 4, [])],
)
def test_samples_are_spread_evenly_over_the_list(count: int, most: int, expected: Sequence[int]) -> None:
    samples = [Sample(id=str(i), source=i, target=0) for i in range(count)]
    assert verify.spread(samples, most) == expected


def test_generated_samples_fit_the_port_and_differ_in_size() -> None:
    arrays = verify.generate_samples([PORT])
    assert {a.dtype for (a,) in arrays} == {np.dtype(np.uint8)}
    assert len({a.shape for (a,) in arrays}) > 1
    assert all(a.shape[2] == 3 and a.std() > 20 for (a,) in arrays)


def test_generated_samples_of_a_volume_are_hounsfield_units_with_a_spacing() -> None:
    hu = Port(name="hu", dtype="int16", axes=("batch", "slices", "rows", "columns"), meaning="HU")
    spacing = Port(name="spacing", dtype="float32", axes=("batch", 2), meaning="mm")
    made = verify.generate_samples([hu, spacing])
    assert all(volume.ndim == 3 and volume.dtype == np.int16 and volume.min() < 0 for volume, _ in made)
    assert all(mm.shape == (2,) and mm.dtype == np.float32 and (mm > 0).all() for _, mm in made)
