"""Our kernels against torch's own in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zooft.compute.kernels.operations import FastKernels

CONVOLUTIONS = [
    # kernel, stride, padding, rows, columns
    ((5, 5), (1, 1), (2, 2), 9, 11),
    ((5, 5), (2, 2), (2, 2), 12, 9),
    ((5, 5), (2, 2), (0, 0), 12, 9),
    ((7, 7), (1, 1), (3, 3), 8, 8),
    ((4, 4), (1, 2), (1, 0), 9, 10),
    ((3, 5), (2, 1), (1, 2), 9, 10),
    ((1, 6), (3, 3), (0, 1), 7, 13),
]


def gradients(result: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    weights = torch.randn(result.shape)
    return list(torch.autograd.grad((result * weights.to(result.dtype)).sum(), inputs))


def far(ours: Tensor, truth: Tensor) -> float:
    ours, truth = ours.detach().double(), truth.detach().double()
    return float((ours - truth).norm() / truth.norm())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "padding", "rows", "columns"), CONVOLUTIONS)
def test_depthwise_convolutions_equal_float64(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    rows: int,
    columns: int,
    dtype: torch.dtype,
    bias: bool,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8, rows, columns).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = torch.randn(8, 1, *kernel).to(dtype).requires_grad_()
    given = [x, w, *([torch.randn(8).to(dtype).requires_grad_()] if bias else [])]
    with FastKernels() as mode:
        ours = F.conv2d(x, w, given[2] if bias else None, stride, padding, groups=8)
    assert mode.used == {"convolution": 1}
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = F.conv2d(exact[0], exact[1], exact[2] if bias else None, stride, padding, groups=8)
    limit = 1e-5 if dtype is torch.float32 else 1e-2
    assert far(ours, truth) < limit
    for own, requested in zip(gradients(ours, given), gradients(truth, exact), strict=True):
        assert own.dtype is dtype
        assert far(own, requested) < limit


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("required", [(True, True), (False, True), (True, False)])
def test_wide_convolutions_equal_float64(bias: bool, required: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 128, 9, 14).contiguous(memory_format=torch.channels_last).requires_grad_(required[0])
    w = (torch.randn(136, 128, 3, 3) / 30).requires_grad_(required[1])
    given = [x, w, *([torch.randn(136).requires_grad_()] if bias else [])]
    with FastKernels() as mode:
        ours = F.conv2d(x, w, given[2] if bias else None, padding=1)
    assert mode.used == {"convolution": 1}
    exact = [t.detach().double().requires_grad_(t.requires_grad) for t in given]
    truth = F.conv2d(exact[0], exact[1], exact[2] if bias else None, padding=1)
    assert far(ours, truth) < 1e-5
    learning = [(own, true) for own, true in zip(given, exact, strict=True) if own.requires_grad]
    found = gradients(ours, [own for own, _ in learning])
    requested = gradients(truth, [true for _, true in learning])
    assert all(far(own, true) < 1e-5 for own, true in zip(found, requested, strict=True))


def test_a_wide_convolution_in_bfloat16_is_torchs_own() -> None:
    x, w = torch.randn(1, 128, 8, 8, requires_grad=True), torch.randn(128, 128, 3, 3)
    with FastKernels() as mode:
        F.conv2d(x.bfloat16(), w.bfloat16(), padding=1)
        F.conv2d(x, w, padding=1, stride=2)
        F.conv2d(x, w)
        with torch.autocast("cpu", torch.bfloat16):
            F.conv2d(x, w, padding=1)
    assert mode.used == {}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        ((3, 3), 2, 1, (13, 14)),
        ((3, 3), (2, 1), (1, 0), (9, 8)),
        ((1, 1), 1, 0, (7, 8)),
        ((1, 1), 2, 0, (13, 13)),
        ((3, 1), 1, 0, (7, 3)),
    ],
)
def test_deep_convolutions_equal_float64(
    kernel: Any, stride: Any, padding: Any, size: Any, dtype: torch.dtype, bias: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 130, *size).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = (torch.randn(140, 130, *kernel) / 30).to(dtype).requires_grad_()
    given = [x, w, *([torch.randn(140).to(dtype).requires_grad_()] if bias else [])]
    with FastKernels() as mode:
        ours = F.conv2d(x, w, given[2] if bias else None, stride, padding)
    assert mode.used == {"convolution": 1}
    torchs = F.conv2d(x, w, given[2] if bias else None, stride, padding)
    assert torch.equal(ours, torchs)
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = F.conv2d(exact[0], exact[1], exact[2] if bias else None, stride, padding)
    for own, theirs, requested in zip(
        gradients(ours, given), gradients(torchs, given), gradients(truth, exact), strict=True
    ):
        assert own.dtype is dtype
        assert far(own, requested) < max(1.2 * far(theirs, requested), 1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (96, 64), (300, 64)])
def test_1x1_convolutions_in_bfloat16_equal_float64(inputs: int, outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, inputs, 13, 11).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    w = (torch.randn(outputs, inputs, 1, 1) / 10).bfloat16().requires_grad_()
    with FastKernels() as mode:
        ours = F.conv2d(x, w, None, stride)
    assert mode.used == {"convolution": 1}
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torchs = F.conv2d(x, w, None, stride)
    exact = [t.detach().double().requires_grad_() for t in (x, w)]
    truth = F.conv2d(exact[0], exact[1], None, stride)
    assert far(ours, truth) <= 1.2 * far(torchs, truth)
    for own, theirs, requested in zip(
        gradients(ours, [x, w]), gradients(torchs, [x, w]), gradients(truth, exact), strict=True
    ):
        assert own.dtype is torch.bfloat16
        assert far(own, requested) < 1.2 * far(theirs, requested)


@pytest.mark.parametrize(
    ("dtype", "channels", "kernel"),
    [(torch.bfloat16, 64, 1), (torch.float32, 128, 3), (torch.bfloat16, 128, 3), (torch.float32, 32, 5)],
)
def test_what_a_convolution_gives_may_be_changed_in_place(dtype: torch.dtype, channels: int, kernel: int) -> None:
    torch.manual_seed(0)
    groups = channels if kernel == 5 else 1
    x = torch.randn(2, channels, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    w = (torch.randn(channels, channels // groups, kernel, kernel) / 10).to(dtype).requires_grad_()
    with FastKernels() as mode:
        ours = F.relu(F.conv2d(x, w, None, 1, kernel // 2, groups=groups), inplace=True)
    assert mode.used == {"convolution": 1}
    exact = [t.detach().double().requires_grad_() for t in (x, w)]
    truth = F.relu(F.conv2d(exact[0], exact[1], None, 1, kernel // 2, groups=groups))
    assert far(ours, truth) < (1e-2 if dtype is torch.bfloat16 else 1e-5)
    for own, requested in zip(gradients(ours, [x, w]), gradients(truth, exact), strict=True):
        assert far(own, requested) < (5e-2 if dtype is torch.bfloat16 else 1e-4)


def test_what_a_linear_layer_gives_may_be_changed_in_place() -> None:
    torch.manual_seed(0)
    given = [torch.randn(shape).bfloat16().requires_grad_() for shape in ((2, 5, 16), (8, 16), (8,))]
    with FastKernels() as mode:
        ours = F.relu(F.linear(*given), inplace=True)
    assert mode.used == {"linear": 1}
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = F.relu(F.linear(*exact))
    assert far(ours, truth) < 1e-2
    for own, requested in zip(gradients(ours, given), gradients(truth, exact), strict=True):
        assert far(own, requested) < 5e-2


def test_1x1_convolutions_that_gain_nothing_are_left_to_torch() -> None:
    w = torch.randn(64, 64, 1, 1, requires_grad=True)
    layout = {"memory_format": torch.channels_last}
    with FastKernels() as mode:
        F.conv2d(torch.randn(2, 64, 8, 8).contiguous(**layout), w)  # float32
        with torch.autocast("cpu", torch.bfloat16):
            F.conv2d(torch.randn(2, 64, 8, 8), w)  # channels first
            F.conv2d(torch.randn(2, 64, 17, 17).contiguous(**layout), w)  # too many places
            F.conv2d(torch.randn(2, 64, 8, 8).contiguous(**layout), w, padding=1)
            F.conv2d(torch.randn(2, 32, 8, 8).contiguous(**layout), w[:, :32])  # too few channels
            F.conv2d(torch.zeros(0, 64, 8, 8).contiguous(**layout), w)
            F.conv2d(torch.randn(2, 64, 8, 8).contiguous(**layout), w, torch.zeros(64))
            assert not mode.used
            F.conv2d(torch.randn(2, 64, 8, 8).contiguous(**layout).requires_grad_(), w.detach()).sum().backward()
    assert mode.used == {"convolution": 1}


def test_deep_convolutions_in_bfloat16_take_wide_3x3_ones_too_and_leave_the_others() -> None:
    x, w = torch.randn(2, 128, 8, 8), torch.randn(128, 128, 3, 3, requires_grad=True)
    with FastKernels() as mode, torch.autocast("cpu", torch.bfloat16):
        F.conv2d(x, w, padding=1)
        assert mode.used == {"convolution": 1}
        F.conv2d(torch.randn(2, 128, 9, 9), w, padding=1)  # too many places
        F.conv2d(torch.randn(2, 64, 8, 8), w[:, :64], padding=1)  # too few channels
        F.conv2d(x.requires_grad_(), w.detach(), padding=1)  # its weights don't learn
        with pytest.raises(RuntimeError, match="channels"):
            F.conv2d(torch.randn(2, 256, 8, 8), w, padding=1)
    assert mode.used == {"convolution": 1}


def test_a_stride_of_nothing_is_torchs_to_refuse() -> None:
    x, w = torch.randn(1, 128, 4, 4), torch.randn(128, 128, 1, 1, requires_grad=True)
    with FastKernels(), pytest.raises(RuntimeError, match="stride"):
        F.conv2d(x, w, stride=0)


def test_a_deep_convolution_of_no_images_flows_back_zeros() -> None:
    x, w = torch.zeros(0, 128, 7, 7, requires_grad=True), torch.randn(128, 128, 3, 3, requires_grad=True)
    with FastKernels() as mode:
        F.conv2d(x, w, stride=2).sum().backward()
    assert mode.used == {"convolution": 1}
    assert w.grad is not None
    assert not w.grad.any()


def test_a_strided_depthwise_convolution_in_bfloat16_equals_float64() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(2, 16, 9, 9).bfloat16().requires_grad_(), torch.randn(16, 1, 3, 3).bfloat16().requires_grad_()
    with FastKernels() as mode:
        ours = F.conv2d(x, w, stride=2, padding=1, groups=16)
    assert mode.used
    exact = [t.detach().double().requires_grad_() for t in (x, w)]
    truth = F.conv2d(*exact, stride=2, padding=1, groups=16)
    for own, requested in zip(gradients(ours, [x, w]), gradients(truth, exact), strict=True):
        assert far(own, requested) < 1e-2


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("keys", [7, 11])
def test_attention_is_as_near_to_float64_as_torchs_own(keys: int, scale: float | None) -> None:
    torch.manual_seed(0)
    shapes = [(2, 3, 7, 16), (2, 3, keys, 16), (2, 3, keys, 16)]
    given = [(2 * torch.randn(shape)).bfloat16().requires_grad_() for shape in shapes]
    with FastKernels() as mode:
        ours = F.scaled_dot_product_attention(*given, scale=scale)
    assert mode.used == {"attention": 1}
    torchs = F.scaled_dot_product_attention(*given, scale=scale)
    assert torch.equal(ours, torchs)
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = gradients(F.scaled_dot_product_attention(*exact, scale=scale), exact)
    for own, theirs, requested in zip(gradients(ours, given), gradients(torchs, given), truth, strict=True):
        assert far(own, requested) < max(1.2 * far(theirs, requested), 4e-3)


def test_attention_that_torch_answers_otherwise_is_left_to_it() -> None:
    torch.manual_seed(0)
    wide = torch.randn(2, 3, 16, 20).bfloat16()
    turned = [wide.transpose(-1, -2).requires_grad_(), *(torch.randn(2, 3, 20, 16).bfloat16() for _ in range(2))]
    none = [torch.zeros(2, 3, 0, 16).bfloat16().requires_grad_() for _ in range(3)]
    with FastKernels() as mode:
        ours = F.scaled_dot_product_attention(*turned)
        F.scaled_dot_product_attention(*none)
    assert mode.used == {}
    assert torch.equal(ours, F.scaled_dot_product_attention(*turned))


def test_attention_flows_back_in_float32_inside_autocast_and_with_a_graph() -> None:
    torch.manual_seed(0)
    given = [(2 * torch.randn(2, 3, 9, 16)).bfloat16().requires_grad_() for _ in range(3)]
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = gradients(F.scaled_dot_product_attention(*exact), exact)
    with torch.autocast("cpu", torch.bfloat16), FastKernels() as mode:
        ours = F.scaled_dot_product_attention(*given)
        torch.manual_seed(1)
        flowing = torch.randn(ours.shape).to(ours.dtype)
        found = torch.autograd.grad(ours, given, flowing, create_graph=True)
    assert mode.used == {"attention": 1}
    assert all(far(own, requested) < 8e-3 for own, requested in zip(found, truth, strict=True))


def test_what_is_checkpointed_is_left_to_torch() -> None:
    x, weight, bias = torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 4), torch.randn(5)
    with torch.autocast("cpu", torch.bfloat16), FastKernels() as mode:
        result = checkpoint(F.linear, x, weight, bias, use_reentrant=False)
    assert mode.used == {}
    result.float().sum().backward()
    assert x.grad is not None


def test_masked_or_causal_attention_is_left_to_torch() -> None:
    given = [torch.randn(1, 2, 4, 8).bfloat16().requires_grad_() for _ in range(3)]
    with FastKernels() as mode:
        F.scaled_dot_product_attention(*given, is_causal=True)
        F.scaled_dot_product_attention(*given, attn_mask=torch.zeros(4, 4, dtype=torch.bfloat16))
        F.scaled_dot_product_attention(*given, dropout_p=0.5)
    assert mode.used == {}


@pytest.mark.parametrize("shape", [(2, 5, 16), (2, 3, 4, 16)])
def test_linear_layers_in_bfloat16_are_torchs_own_to_rounding(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given = [t.requires_grad_() for t in (torch.randn(shape), torch.randn(8, 16), torch.randn(8))]
    with torch.autocast("cpu", torch.bfloat16), FastKernels() as mode:
        ours = F.linear(*given)
    assert mode.used == {"linear": 1}
    with torch.autocast("cpu", torch.bfloat16):
        torchs = F.linear(*given)
    assert ours.dtype is torchs.dtype is torch.bfloat16
    assert ours.shape == torchs.shape
    exact = [t.detach().bfloat16().double().requires_grad_() for t in given]
    requested = F.linear(*exact)
    assert far(ours, requested) < max(1.2 * far(torchs, requested), 4e-3)
    truth = gradients(requested, exact)
    for own, theirs, right in zip(gradients(ours, given), gradients(torchs, given), truth, strict=True):
        assert own.dtype is torch.float32
        assert far(own, right) < max(1.2 * far(theirs, right), 4e-3)


def test_linear_layers_that_gain_nothing_are_left_to_torch() -> None:
    x, weight, bias = (torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 4), torch.randn(5))
    with FastKernels() as mode:
        F.linear(x, weight, bias)  # float32
        with torch.autocast("cpu", torch.bfloat16):
            F.linear(x, weight)  # no bias
            F.linear(x[0], weight, bias)  # a classifier's rows
            F.linear(x[:0], weight, bias)  # no rows
            F.linear(x.detach(), weight, bias)  # nothing learns
            three = F.linear(x, weight, torch.tensor(3.0))  # one bias for all
            torch.testing.assert_close(three, (x @ weight.t() + 3).bfloat16(), rtol=2e-2, atol=2e-2)
            assert F.linear(x, weight, torch.zeros(3, 5)).shape == (2, 3, 5)  # a bias for each row
            with pytest.raises(RuntimeError, match="mat1 and mat2"):
                F.linear(x[..., :3], weight, bias)
        with pytest.raises(RuntimeError, match="same dtype"):
            F.linear(x.bfloat16(), weight, bias)
    assert mode.used == {}


def test_linear_layers_give_only_the_gradients_that_are_needed() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 3, 4), torch.randn(5, 4, requires_grad=True), torch.randn(5)
    with torch.autocast("cpu", torch.bfloat16), FastKernels() as mode:
        ours = F.linear(x, weight, bias)
    assert mode.used == {"linear": 1}
    (of_weight,) = gradients(ours, [weight])
    exact = weight.detach().double().requires_grad_()
    (truth,) = gradients(F.linear(x.double(), exact, bias.double()), [exact])
    assert far(of_weight, truth) < 1e-2


def test_relu6_in_place_gives_the_same_bits_and_saves_nothing_more_than_its_output() -> None:
    torch.manual_seed(0)
    x = (4 * torch.randn(4, 5)).requires_grad_()
    x.data[0, :3] = torch.tensor([0.0, 6.0, -0.0])
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):  # type: ignore[func-returns-value]
        scaled = x * 1.0
        with FastKernels() as mode:
            ours = nn.ReLU6(inplace=True)(scaled)
    assert mode.used == {"relu6": 1}
    assert ours.data_ptr() == scaled.data_ptr()
    assert ours.data_ptr() in saved
    plain = F.relu6(x * 1.0)
    assert torch.equal(ours, plain)
    assert torch.equal(gradients(ours, [x])[0], gradients(plain, [x])[0])


@pytest.mark.parametrize(("groups", "sides"), [(32, (8, 12)), (16, (40, 48))])
def test_group_norm_of_channels_last_maps_is_torchs_own_to_rounding(groups: int, sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(2, 64, *sides) + 1).bfloat16().contiguous(memory_format=torch.channels_last)
    given = [t.requires_grad_() for t in (x, torch.rand(64) + 0.5, torch.randn(64))]
    with FastKernels() as mode:
        ours = nn.ReLU(inplace=True)(F.group_norm(given[0], groups, given[1], given[2]))
    assert mode.used == {"group norm": 1}
    torchs = F.relu(F.group_norm(given[0], groups, given[1], given[2]))
    assert ours.dtype is torchs.dtype is torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    exact = [t.detach().double().requires_grad_() for t in given]
    truth = F.relu(F.group_norm(exact[0], groups, exact[1], exact[2]))
    assert far(ours, truth) < max(1.2 * far(torchs, truth), 4e-3)
    found, theirs, right = gradients(ours, given), gradients(torchs, given), gradients(truth, exact)
    for own, other, requested in zip(found, theirs, right, strict=True):
        assert own.dtype is other.dtype
        assert far(own, requested) < max(1.2 * far(other, requested), 4e-3)


def test_group_norm_gives_only_the_gradients_that_are_needed_and_leaves_the_rest_to_torch() -> None:
    x = torch.randn(2, 8, 4, 6).bfloat16().contiguous(memory_format=torch.channels_last)
    weight, bias = torch.ones(8, requires_grad=True), torch.zeros(8)
    with FastKernels() as mode:
        F.group_norm(x, 4, weight, bias).float().square().sum().backward()
    assert mode.used == {"group norm": 1}
    assert weight.grad is not None
    with FastKernels() as mode, torch.inference_mode():
        assert torch.equal(F.group_norm(x, 4, weight, bias), F.group_norm(x.contiguous(), 4, weight, bias))
    assert mode.used == {"group norm": 1}
    large = torch.randn(1, 8, 40, 40).bfloat16().contiguous(memory_format=torch.channels_last)
    with FastKernels() as mode:
        F.group_norm(large, 4, torch.ones(8), bias)  # nothing learns, and torch is fast
        F.group_norm(x.contiguous(), 4, weight, bias)  # rows of pixels already
        F.group_norm(x.float(), 4, weight, bias)
        F.group_norm(x.requires_grad_(), 4)
        F.group_norm(torch.zeros(2, 64, 4, 6).bfloat16().to(memory_format=torch.channels_last).requires_grad_(), 1)
        with pytest.raises(RuntimeError, match="divisible"):
            F.group_norm(x, 3, weight, bias)
    assert mode.used == {}


def test_other_calls_are_torchs_own() -> None:
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    with FastKernels() as mode:
        F.conv2d(x, torch.randn(6, 1, 3, 3), groups=6)  # torch's kernel is fast
        F.conv2d(x, torch.randn(6, 2, 5, 5), groups=3)  # groups, but not depthwise
        F.conv2d(x, torch.randn(6, 1, 5, 5), groups=6, dilation=2, padding="same")
        F.conv2d(x, torch.randn(6, 1, 5, 5), groups=6, dilation=(1, 2), padding=4)
        F.conv2d(x.double(), torch.randn(6, 1, 5, 5).double(), groups=6)
        F.relu6(x)
        with torch.no_grad():
            F.conv2d(x, torch.randn(6, 1, 5, 5), groups=6)
    assert mode.used == {}


@pytest.mark.parametrize(
    ("name", "expected"), [("tf_efficientnet_lite0", {"convolution", "relu6"}), ("resnet18", {"convolution"})]
)
def test_a_whole_network_learns_the_same(name: str, expected: set[str]) -> None:
    import timm

    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3).train()
    ours = copy.deepcopy(plain)
    x, y = torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
    F.cross_entropy(plain(x), y).backward()
    with FastKernels() as mode:
        loss = F.cross_entropy(ours(x), y)
    loss.backward()
    assert set(mode.used) == expected
    for (which, own), requested in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert own.grad is not None
        assert requested.grad is not None
        assert torch.allclose(
            own.grad, requested.grad, rtol=1e-3, atol=1e-4 * float(requested.grad.abs().max()) + 1e-7
        ), which
