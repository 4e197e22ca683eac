"""Where a file begins to differ, against defects whose place is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_verify import (
    IN_THE_PREPROCESSING,
    Bench,
    bench,  # noqa: F401 -- a fixture
    bypass,
    kernels,
    photographs,
    rewrite,
)

from zooft.contracts import Deviation
from zooft.deploy import deviation
from zooft.errors import RuntimeModelError

Change = Callable[[onnx.ModelProto], None]
DEPTHWISE = "blocks.3.0.conv_dw.weight"
PADDED = "blocks.3.1.conv_dw.weight"


def place(bench: Bench, folder: Path, change: Change) -> Deviation | None:  # noqa: F811
    path = bench.edited(folder, change)
    return deviation.locate(
        path, bench.path, photographs()[:1], provider="cpu", stages={"trunk.blocks.3.0.conv_dw": "s3"}
    )


def reader(path: Path, tensor: str) -> onnx.NodeProto:
    """The operator that reads a tensor: where a defect of it begins."""
    (found,) = (node for node in onnx.load(path).graph.node if any(tensor in name for name in node.input))
    return found


def a_corrupted_kernel(proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        values.reshape(-1)[100:194] += 0.3
        return values

    rewrite(proto, lambda tensor: tensor.name.endswith(DEPTHWISE), change)


def test_a_right_file_has_no_such_place(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    assert place(bench, tmp_path, lambda _proto: None) is None


def test_one_corrupted_depthwise_kernel_is_found(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    found = place(bench, tmp_path, a_corrupted_kernel)
    assert found is not None
    wanted = reader(bench.path, DEPTHWISE)
    assert (found.node, found.operator, found.kind) == (wanted.name, "Conv", "weights")
    assert found.place == "trunk.blocks.3.0.conv_dw, stage s3"
    assert "94 of the " in found.what
    assert found.inputs == 0
    assert found.output > 1e-2
    assert f"it begins at {wanted.name}, Conv (trunk.blocks.3.0.conv_dw, stage s3)" in str(found)


def test_the_first_of_two_defects_is_found(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    def change(proto: onnx.ModelProto) -> None:
        a_corrupted_kernel(proto)
        rewrite(proto, lambda tensor: tensor.name.endswith("blocks.5.0.conv_pw.weight"), lambda values: values * 1.1)

    found = place(bench, tmp_path, change)
    assert found is not None
    assert found.node == reader(bench.path, DEPTHWISE).name
    assert "1 more of the file's constants aren't the run's" in found.what


def test_an_attribute_that_was_changed_is_named(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    def change(proto: onnx.ModelProto) -> None:
        (node,) = (node for node in proto.graph.node if any(PADDED in name for name in node.input))
        pads = next(each for each in node.attribute if each.name == "pads")
        pads.ints[:] = [0, 0, sum(pads.ints[::2]), sum(pads.ints[1::2])]

    found = place(bench, tmp_path, change)
    assert found is not None
    assert (found.node, found.kind) == (reader(bench.path, PADDED).name, "operator")
    assert found.what.startswith("its pads is [0, 0, ")


def test_an_activation_s_bound_is_no_weight(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    clips = [node.name for node in onnx.load(bench.path).graph.node if node.op_type == "Clip"]

    def change(proto: onnx.ModelProto) -> None:
        node = next(node for node in proto.graph.node if node.name == clips[9])
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.5), "bound"))
        node.input[2] = "bound"

    found = place(bench, tmp_path, change)
    assert found is not None
    assert (found.node, found.operator, found.kind) == (clips[9], "Clip", "operator")
    assert found.what == "its bound is 1.5, and 6 in an export of the run"
    assert found.place.startswith("behind trunk.")


def test_an_operator_that_reads_something_else_is_named(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    found = place(bench, tmp_path, bypass)
    assert found is not None
    assert (found.operator, found.kind) == ("Conv", "operator")
    assert found.what.startswith("it reads other, and zooft_network_input ")


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_with_fewer_digits_are_a_matter_of_precision(bench: Bench, tmp_path: Path, kind: str) -> None:  # noqa: F811
    import torch

    def rounded(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.asarray(torch.from_numpy(values).to(getattr(torch, kind)).float().numpy())

    found = place(bench, tmp_path, lambda proto: rewrite(proto, lambda t: kernels(t) and len(t.dims) == 4, rounded))
    assert found is not None
    assert found.kind == "precision"
    assert f"is rounded to {kind}" in found.what


@pytest.mark.parametrize(
    "defect", ["the mean off by one level", "the image shifted by one row", "values that aren't finite"]
)
def test_the_preprocessing_is_told_from_the_network(bench: Bench, tmp_path: Path, defect: str) -> None:  # noqa: F811
    found = place(bench, tmp_path, IN_THE_PREPROCESSING[defect])
    assert found is not None
    assert found.kind == "preprocessing"


def test_a_part_that_cannot_be_run_is_an_error(bench: Bench, tmp_path: Path) -> None:  # noqa: F811
    def change(proto: onnx.ModelProto) -> None:
        next(node for node in proto.graph.node if node.op_type == "Gemm").op_type = "NoSuchOperator"

    path = bench.edited(tmp_path, change)
    with pytest.raises(RuntimeModelError, match="NoSuchOperator"):
        deviation.locate(path, bench.path, photographs()[:1], provider="cpu")


@pytest.mark.parametrize(
    ("ours", "theirs", "apart"),
    [
        (np.array([1.0, 3.0], np.float32), np.array([1.0, 3.0], np.float32), 0.0),
        (np.array([1.0, 3.0]), np.array([1.0, 4.0]), np.sqrt(0.5)),
        (np.array([2.0, 2.0]), np.array([2.0, 3.0]), np.sqrt(0.5) / 2),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.25),
        (np.zeros((2, 3)), np.zeros((3, 2)), np.inf),
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0.0),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), np.inf),
        (np.zeros(2), np.ones(2), np.inf),
        (np.zeros(0, int), np.zeros(0, int), 0.0),
    ],
)
def test_differences_are_by_the_spread_or_a_share(ours: object, theirs: object, apart: float) -> None:
    assert deviation.difference(ours, theirs) == pytest.approx(apart)
