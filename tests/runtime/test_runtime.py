"""Opening and running exported files: what is refused, and that none of it needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from zooft import Port, class_labels, runtime
from zooft.data import samples
from zooft.errors import DataError, ProviderError, RuntimeModelError
from zooft.problems.classification import classification
from zooft.runtime import Metadata, OnnxModel, metadata, providers

PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning="RGB levels 0..255")
LABELS = class_labels(("zebra", "ant", "bee é"))
DEPLOYMENT = classification().deployment
METADATA = Metadata(
    version="0.1.0",
    task="classification",
    options={"colour": "rgb"},
    problem="classification",
    labels=LABELS,
    outputs=tuple(DEPLOYMENT.outputs(LABELS, {})),
    fitted={},
    ports=(PORT,),
    group_rule="mean",
    preprocessing="none",
    backbone="toy:net",
    weights={"licence": "MIT"},
    weights_sha256="ab" * 32,
    data={"train": 3},
    metrics={},
    intended_use="A test.",
)


def properties(about: Metadata = METADATA) -> dict[str, str]:
    """The metadata in a file."""
    return about.to_properties(DEPLOYMENT.properties(about.labels))


def mean_colour() -> onnx.ModelProto:
    """A graph of five operators: the mean of each channel, times two, is the logit of one class."""
    doubled = numpy_helper.from_array(np.full(3, 2.0, dtype=np.float32), "two")
    axes = numpy_helper.from_array(np.array([1, 2]), "axes")
    nodes = [
        helper.make_node("Cast", ["images"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["levels", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "two"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["prediction"], axis=1, keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in ("probabilities", "logits")]
    outputs.append(helper.make_tensor_value_info("prediction", TensorProto.INT64, ["batch"]))
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, list(PORT.axes))
    graph = helper.make_graph(nodes, "zooft", [images], outputs, [doubled, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, properties())
    return model


def written(folder: Path, change: Callable[[onnx.ModelProto], None] = lambda _model: None) -> Path:
    model = mean_colour()
    change(model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def opened(tmp_path: Path) -> OnnxModel:
    return runtime.load(written(tmp_path), provider="cpu")


def set_property(model: onnx.ModelProto, value: str | None) -> None:
    """Give the metadata another text, or take it away."""
    others = {p.key: p.value for p in model.metadata_props if p.key != metadata.KEY}
    helper.set_model_props(model, others if value is None else {**others, metadata.KEY: value})


def changed_metadata(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    whole = json.loads(properties()[metadata.KEY])
    return lambda model: set_property(model, json.dumps({**whole, **changes}))


OF_BEFORE = {
    "schema": 2,
    "version": "0.1.9",
    "task": "classification",
    "options": {"colour": "rgb"},
    "classes": ["zebra", "ant", "bee é"],
    "activation": "softmax",
    "ports": [asdict(PORT)],
    "calibration": {"temperature": 1.0, "threshold": None, "fitted_on": ""},
    "group_score": "mean",
    "preprocessing": "none",
    "backbone": "toy:net",
    "weights": {"licence": "MIT"},
    "weights_sha256": "ab" * 32,
    "data": {"train": 3, "classes": {"train": {"zebra": 3}}, "group_score": "mean"},
    "intended_use": "A test.",
    "metrics": {"val": {"samples": 3, "metrics": {"accuracy": {"value": 1.0}}, "confusion": [[3]], "threshold": None}},
}
"""What was written under ``zooft`` while all problems were classification."""


def of_before(**changes: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: set_property(model, json.dumps({**OF_BEFORE, **changes}))


def without_prediction(model: onnx.ModelProto) -> None:
    """As the first files of schema 2."""
    del model.graph.output[2], model.graph.node[4]
    of_before()(model)


def test_of_two_classes_the_file_names_the_positive_one() -> None:
    assert "positive_class" not in properties()
    assert properties(replace(METADATA, labels=class_labels(("clear", "nodule"))))["positive_class"] == "nodule"


def test_a_file_runs_and_says_what_it_is(opened: OnnxModel) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 9, 7, 3), dtype=np.uint8)
    answers = opened.run(images)
    assert list(answers) == ["probabilities", "logits", "prediction"]
    np.testing.assert_allclose(answers["logits"], 2 * images.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(answers["probabilities"].sum(1), 1, rtol=1e-5)
    assert answers["prediction"].tolist() == images.mean((1, 2)).argmax(1).tolist()
    assert opened.metadata == METADATA
    assert opened.provider == "CPUExecutionProvider"
    assert opened.placement == {"CPUExecutionProvider": 5}


def test_metadata_goes_there_and_back() -> None:
    assert metadata.parse(properties()) == METADATA


def test_other_tools_find_the_classes_in_order(tmp_path: Path) -> None:
    found = {p.key: p.value for p in onnx.load(written(tmp_path)).metadata_props}
    assert json.loads(found["classes"]) == ["zebra", "ant", "bee é"]
    assert found["names"] == "{0: 'zebra', 1: 'ant', 2: 'bee é'}"
    assert found["model_info labels"] == "zebra ant bee_é"
    assert found["backbone_license"] == "MIT"
    assert found["Image.BitmapPixelFormat"] == "Rgb8"


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
    ],
    ids=lambda b: f"{b.dtype}{b.shape}",
)
def test_a_batch_of_another_type_or_shape_is_refused_with_what_is_expected(opened: OnnxModel, batch: Any) -> None:
    with pytest.raises(RuntimeModelError) as caught:
        opened.run(batch)
    assert "takes images: uint8 ('batch', 'height', 'width', 3)" in str(caught.value)
    assert f"got {batch.dtype} {batch.shape}" in str(caught.value)
    assert "RGB levels 0..255" in str(caught.value)


def test_a_batch_of_nothing_has_answers_of_no_rows(opened: OnnxModel) -> None:
    answers = opened.run(np.zeros((0, 8, 8, 3), np.uint8))
    assert {name: (found.shape, str(found.dtype)) for name, found in answers.items()} == {
        "probabilities": ((0, 3), "float32"),
        "logits": ((0, 3), "float32"),
        "prediction": ((0,), "int64"),
    }


@pytest.mark.parametrize("shape", [(1, 0, 0, 3), (2, 0, 8, 3), (1, 8, 0, 3)])
def test_an_image_without_pixels_gets_no_class(opened: OnnxModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeModelError, match="has no pixels; give samples with pixels"):
        opened.run(np.zeros(shape, np.uint8))


def test_a_task_that_reads_an_image_without_pixels_gets_its_name() -> None:
    assert samples.as_arrays(np.zeros((2, 3, 3), np.uint8), "a.png")[0].shape == (2, 3, 3)
    with pytest.raises(DataError, match=r"a\.png has no pixels \(shape \(0, 3, 3\)\)"):
        samples.as_arrays((np.zeros(2, np.float32), np.zeros((0, 3, 3), np.uint8)), "a.png")


def of_one_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 224


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            of_before(classes=["zebra", "ant"]),
            r"states logits: float32 \('batch', 2\), its graph has float32 \('batch', 3\)",
        ),
        (
            changed_metadata(labels=[{"name": "class", "categories": ["zebra", "ant", "ant"], "unit": ""}]),
            "names a class twice: zebra, ant, ant",
        ),
        (changed_metadata(outputs=[{**asdict(METADATA.outputs[0]), "name": "mask"}]), "its graph has no output mask"),
        (
            changed_metadata(outputs=[{**asdict(METADATA.outputs[2]), "dtype": "int32"}]),
            "states prediction: int32 .*, its graph has int64",
        ),
        (
            changed_metadata(ports=[{**asdict(PORT), "name": "pictures"}]),
            "names the inputs pictures, its graph has images",
        ),
        (
            changed_metadata(ports=[{**asdict(PORT), "dtype": "float32"}]),
            "states images: float32 .*, its graph has uint8",
        ),
        (changed_metadata(ports=[{**asdict(PORT), "axes": ["batch", 3, "height", "width"]}]), "its graph has uint8"),
        (of_one_size, r"its graph has uint8 \('batch', 224, 'width', 3\)"),
    ],
)
def test_a_file_whose_metadata_contradicts_its_graph_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(RuntimeModelError, match=f"contradicts itself: .*{message}.*zooft export"):
        runtime.load(written(tmp_path, change), provider="cpu")


def test_names_for_other_numbers_than_the_graph_gives_are_refused_where_only_running_shows_it(
    opened: OnnxModel,
) -> None:
    two = tuple(DEPLOYMENT.outputs(class_labels(("zebra", "ant")), {}))
    fewer = replace(opened, metadata=replace(METADATA, outputs=two))
    with pytest.raises(
        RuntimeModelError, match=r"shape \(1, 3\) for 1 samples, and its metadata states \('batch', 2\)"
    ):
        fewer.run(np.zeros((1, 8, 8, 3), np.uint8))


def put_outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")


def put_outside_in_a_constant(model: onnx.ModelProto) -> None:
    """The same as an attribute of a Constant node."""
    tensor = TensorProto()
    tensor.CopyFrom(model.graph.initializer[0])
    put_outside(model)
    tensor.CopyFrom(model.graph.initializer[0])
    del model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["two"], value=tensor))


def put_outside_in_a_branch(model: onnx.ModelProto) -> None:
    """The same inside a subgraph."""
    put_outside(model)
    tensor = TensorProto()
    tensor.CopyFrom(model.graph.initializer[0])
    del model.graph.initializer[0]
    tensor.name = "inner"
    result = helper.make_tensor_value_info("result", TensorProto.FLOAT, [3])
    branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["result"])], "branch", [], [result], [tensor])
    always = numpy_helper.from_array(np.array(True), "always")
    model.graph.initializer.append(always)
    model.graph.node.insert(0, helper.make_node("If", ["always"], ["two"], then_branch=branch, else_branch=branch))


@pytest.mark.parametrize("change", [put_outside, put_outside_in_a_constant, put_outside_in_a_branch])
def test_tensors_in_other_files_are_refused_wherever_they_hide(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    (tmp_path / "weights.data").write_bytes(np.full(3, 7.0, dtype=np.float32).tobytes())
    with pytest.raises(RuntimeModelError, match="has tensors in other files"):
        runtime.load(written(tmp_path, change), provider="cpu")


def use_custom_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.node[3].CopyFrom(helper.make_node("Gelu", ["logits"], ["probabilities"], domain="com.microsoft"))


def use_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Softmax", ["x"], ["y"])]
    model.functions.append(helper.make_function("local", "Mine", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node[3].CopyFrom(helper.make_node("Mine", ["logits"], ["probabilities"], domain="local"))


@pytest.mark.parametrize(("change", "domain"), [(use_custom_operator, r"com\.microsoft"), (use_function, "local")])
def test_operators_that_are_not_onnxs_own_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], domain: str
) -> None:
    with pytest.raises(RuntimeModelError, match=f"operators that aren't ONNX's own: {domain}"):
        runtime.load(written(tmp_path, change), provider="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: set_property(m, None), "has no zooft metadata.*zooft export"),
        (lambda m: set_property(m, "{"), "metadata is damaged"),
        (lambda m: set_property(m, "[]"), "metadata is damaged"),
        (lambda m: set_property(m, "{}"), "metadata is damaged"),
        (
            changed_metadata(schema=99, version="7.5"),
            r"schema 99 of zooft 7\.5, and this zooft \S+ reads schema 2 and 3; update zooft",
        ),
        (
            changed_metadata(schema=1),
            r"schema 1, and this zooft \S+ reads schema 2 and 3; zooft 0\.1 wrote it .*train and export again",
        ),
        (changed_metadata(schema="3"), 'metadata is damaged: schema is "3", expected a whole number'),
        (changed_metadata(ports=None), "metadata is damaged"),
        (changed_metadata(labels=None), "metadata is damaged"),
        (of_before(classes=None), "metadata is damaged: its fields aren't those of schema 2"),
        (of_before(surprise=1), "metadata is damaged: its fields aren't .*surprise"),
        (changed_metadata(surprise=1), "metadata is damaged: its fields aren't .*surprise"),
        (
            of_before(classes=[1, 2, 3]),
            r"metadata is damaged: labels\[0\].categories\[0\] is 1, expected text.*export it again",
        ),
        (
            changed_metadata(labels=[{"name": "class", "categories": ["a", {"b": 1}, "c"]}]),
            r"metadata is damaged: labels\[0\].categories\[1\] is {\"b\": 1}, expected text",
        ),
        (
            changed_metadata(outputs=[{**asdict(METADATA.outputs[0]), "measure": "none"}]),
            "metadata is damaged: outputs\\[0\\].measure is \"none\", expected 'spread' or 'absolute' or 'exact' or 'own'",
        ),
        (changed_metadata(options=[]), r"metadata is damaged: options is \[\], expected a mapping"),
        (of_before(calibration={"warmth": 1}), "metadata is damaged: its fields aren't those of schema 2 .*warmth"),
        (changed_metadata(fitted=[]), r"metadata is damaged: fitted is \[\], expected a mapping"),
    ],
)
def test_files_without_sound_metadata_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(RuntimeModelError, match=message):
        runtime.load(written(tmp_path, change), provider="cpu")


@pytest.mark.parametrize(("change", "outputs"), [(of_before(), 3), (without_prediction, 2)])
def test_a_file_of_schema_2_is_read_as_one_of_classes(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], outputs: int
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    opened = runtime.load(written(tmp_path, change), provider="cpu")
    found = opened.metadata
    assert (found.schema, found.problem, found.labels, found.fitted, found.group_rule) == (
        2,
        "classification",
        LABELS,
        {},
        "mean",
    )
    kinds = [(output.name, output.dtype, output.axes, output.measure) for output in METADATA.outputs]
    assert [(one.name, one.dtype, one.axes, one.measure) for one in found.outputs] == kinds[:outputs]
    assert found.data == {"train": 3, "counts": {"train": {"zebra": 3}}, "group_rule": "mean"}
    assert found.metrics["val"]["details"] == {"confusion": [[3]], "threshold": None}
    np.testing.assert_allclose(opened.run(images)["logits"], 2 * images.mean((1, 2)), rtol=1e-5)


def test_what_was_fitted_of_a_file_of_schema_2_stays(tmp_path: Path) -> None:
    calibration = {"temperature": 2.0, "threshold": None, "fitted_on": "val"}
    opened = runtime.load(written(tmp_path, of_before(calibration=calibration)), provider="cpu")
    assert opened.metadata.fitted == calibration


@pytest.mark.parametrize("length", [0, 1, 10, 100, 300, -40, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = written(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RuntimeModelError):
        runtime.load(path, provider="cpu")


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    with pytest.raises(RuntimeModelError, match=r"picture\.onnx isn't a readable ONNX file"):
        runtime.load(tmp_path / "picture.onnx")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeModelError, match=r"there is no file .*gone\.onnx"):
        runtime.load(tmp_path / "gone.onnx")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeModelError):
        runtime.load(tmp_path)


def without_gpu() -> None:
    if runtime.missing_library("cuda") is None:
        pytest.skip("this machine has a usable CUDA provider")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_cannot_be_had_is_an_error_that_names_what_is_missing(tmp_path: Path, provider: str) -> None:
    without_gpu()
    with pytest.raises(ProviderError) as caught:
        runtime.load(written(tmp_path), provider=provider)
    message = str(caught.value)
    assert f"the provider {provider} can't be used" in message
    assert ".so" in message or "was built without" in message
    assert "zooft doctor" in message


def test_auto_says_that_it_is_the_cpu_and_why(tmp_path: Path) -> None:
    without_gpu()
    opened = runtime.load(written(tmp_path), provider="auto")
    assert opened.provider == "CPUExecutionProvider"
    assert opened.note.startswith("it runs on the CPU, since CUDA isn't usable here: ")


@pytest.mark.skipif(sys.platform != "linux", reason="names Linux's libraries")
def test_on_a_machine_without_a_driver_the_drivers_library_is_named(tmp_path: Path) -> None:
    missing = runtime.missing_library("cuda") or ""
    if "libcuda" not in missing:
        pytest.skip(f"here it is another one: {missing or 'none is missing'}")
    with pytest.raises(ProviderError, match=r"libcuda\.so\.1"):
        runtime.load(written(tmp_path), provider="cuda")


def test_two_onnxruntimes_in_one_environment_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.27" if "directml" not in name else "1.0")
    assert "are both installed and overwrite each other" in (providers.conflict() or "")


def test_running_a_file_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np, zooft.runtime\n"
        "model = zooft.runtime.load(sys.argv[1], provider='cpu')\n"
        "model.run(np.zeros((1, 8, 8, 3), np.uint8))\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'sklearn', 'accelerate') if name in sys.modules])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(written(tmp_path))], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_on_cuda_tf32_is_off_since_it_alone_would_fail_a_verification() -> None:
    assert providers.Choice("cuda").chain == [
        ("CUDAExecutionProvider", {"use_tf32": "0"}),
        ("CPUExecutionProvider", {}),
    ]


def in_two_files(folder: Path) -> Path:
    """As onnx writes a model above 2 GB."""

    def split(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        (folder / runtime.DATA_FILE).write_bytes(b"before" + tensor.raw_data)
        onnx.external_data_helper.set_external_data(tensor, runtime.DATA_FILE, offset=6, length=len(tensor.raw_data))
        tensor.ClearField("raw_data")

    return written(folder, split)


def test_a_file_in_two_parts_runs_as_one(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    logits = runtime.load(in_two_files(tmp_path), provider="cpu").run(images)["logits"]
    np.testing.assert_allclose(logits, 2 * images.mean((1, 2)), rtol=1e-5)


def leave_behind(second: Path) -> None:
    second.unlink()


def rename(second: Path) -> None:
    second.rename(second.with_name("bees.onnx.data"))


def link(second: Path) -> None:
    second.symlink_to(second.rename(second.with_name("elsewhere")))


def link_hard(second: Path) -> None:
    second.with_name("elsewhere").hardlink_to(second)


def cut_off(second: Path) -> None:
    second.write_bytes(second.read_bytes()[:5])


def make_a_folder(second: Path) -> None:
    second.unlink()
    second.mkdir()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (leave_behind, "isn't there; bring both files together"),
        (rename, "isn't there (there is bees.onnx.data: if it is the one, name it model.onnx.data again)"),
        (link, "is a symbolic link"),
        (link_hard, "is a hard link"),
        (cut_off, "has 5 bytes, and the tensors of model.onnx reach to byte"),
        (make_a_folder, "isn't a regular file"),
    ],
)
def test_of_a_file_in_two_parts_what_is_wrong_with_the_second_is_reported(
    change: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    path = in_two_files(tmp_path)
    change(tmp_path / runtime.DATA_FILE)
    with pytest.raises(RuntimeModelError) as caught:
        runtime.load(path, provider="cpu")
    assert str(tmp_path / "model.onnx.data") in str(caught.value)
    assert words in str(caught.value)
    assert "could be any file" not in str(caught.value)


def import_without_using(model: onnx.ModelProto) -> None:
    """As onnxruntime's quant_pre_process leaves files."""
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def define_without_using(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Softmax", ["x"], ["y"])]
    model.functions.append(helper.make_function("local", "Mine", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))
    model.opset_import.append(helper.make_opsetid("local", 1))


@pytest.mark.parametrize("change", [import_without_using, define_without_using])
def test_operators_that_no_node_uses_are_no_reason_to_refuse(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    assert runtime.load(written(tmp_path, change), provider="cpu").metadata == METADATA


def use_in_a_branch(model: onnx.ModelProto) -> None:
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    node = helper.make_node("Gelu", ["logits"], ["probabilities"], domain="com.microsoft")
    branch = helper.make_graph([node], "branch", [], [result])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    model.graph.node[3].CopyFrom(
        helper.make_node("If", ["always"], ["probabilities"], then_branch=branch, else_branch=branch)
    )


def overrule_a_standard_one(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Softmax", ["x"], ["y"], body, [helper.make_opsetid("", 18)]))


@pytest.mark.parametrize(
    ("change", "named"), [(use_in_a_branch, r"com\.microsoft\.Gelu"), (overrule_a_standard_one, "Softmax")]
)
def test_foreign_operators_are_found_wherever_they_hide(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], named: str
) -> None:
    with pytest.raises(RuntimeModelError, match=f"operators that aren't ONNX's own: {named}"):
        runtime.load(written(tmp_path, change), provider="cpu")


@pytest.mark.parametrize(
    ("environment", "given", "threads"), [("3", 0, 3), ("3,1", 0, 3), ("3", 2, 2), ("", 0, 5), ("x", 0, 5)]
)
def test_computing_threads_are_those_given_or_those_of_openmp_or_the_machines_and_none_of_them_spins(
    environment: str, given: int, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr("zooft.compute.machine.cores", lambda: 5)
    options = runtime.load(written(tmp_path), provider="cpu", threads=given)._session.get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
