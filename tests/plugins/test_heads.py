"""What the standard heads compute, against numpy, and that bags of any size go through the exported file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from zooft.hooks.loading import discover
from zooft.hooks.registry import load as load_registry
from zooft_standard import bags, heads

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, OUTPUTS = 24, 3
BUILDERS = {"mean": heads.mean, "max": heads.largest, "attention": heads.attention}


def bag(batch: int, instances: int, *, seed: int = 0) -> Tensor:
    return torch.randn(batch, instances, WIDTH, generator=torch.Generator().manual_seed(seed))


def built(name: str, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return BUILDERS[name](WIDTH, OUTPUTS).eval()


def test_the_bag_heads_are_registered_as_such_and_linear_is_not() -> None:
    registry = load_registry(discover())
    assert {name: registry.head(f"standard/{name}").reads for name in ("linear", "mean", "max", "attention")} == {
        "linear": "vector",
        "mean": "bag",
        "max": "bag",
        "attention": "bag",
    }


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("instances", [1, 2, 40])
def test_each_bag_gives_one_row_of_finite_logits(name: str, instances: int) -> None:
    logits = built(name)(bag(5, instances))
    assert logits.shape == (5, OUTPUTS)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("name", BUILDERS)
def test_the_order_of_the_instances_is_of_no_account(name: str) -> None:
    features = bag(3, 7)
    head = built(name)
    torch.testing.assert_close(head(features), head(features[:, torch.randperm(7)]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_learns(name: str) -> None:
    head = built(name)
    head(bag(4, 6)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())


@pytest.mark.parametrize("name", BUILDERS)
def test_two_builds_under_one_seed_are_equal_and_start_from_even_odds(name: str) -> None:
    one, two = built(name, seed=3), built(name, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert float(one(bag(8, 5)).detach().softmax(1).sub(1 / OUTPUTS).abs().max()) < 0.1


def test_mean_and_max_are_numpys_before_a_linear_layer() -> None:
    features = bag(4, 9)
    for name, pool in (("mean", np.mean), ("max", np.max)):
        head = built(name)
        linear = head.get_submodule("classifier")
        weight, bias = (linear.get_parameter(p).detach().numpy() for p in ("weight", "bias"))
        expected = pool(features.numpy(), axis=1) @ weight.T + bias
        np.testing.assert_allclose(head(features).detach().numpy(), expected, atol=1e-6)


def test_attention_is_the_papers_formula() -> None:
    head = built("attention")
    assert isinstance(head, bags.GatedAttention)
    features = bag(2, 5)
    weights = {name: tensor.double().numpy() for name, tensor in head.state_dict().items()}
    for row, instances in enumerate(features.double().numpy()):
        value = np.tanh(instances @ weights["value.weight"].T + weights["value.bias"])
        gate = 1 / (1 + np.exp(-(instances @ weights["gate.weight"].T + weights["gate.bias"])))
        scores = np.exp((value * gate) @ weights["score.weight"][0])
        pooled = (scores / scores.sum()) @ instances
        expected = pooled @ weights["classifier.weight"].T + weights["classifier.bias"]
        np.testing.assert_allclose(head(features)[row].detach().numpy(), expected, atol=1e-6)


def test_attention_learns_which_instance_makes_a_bag_positive() -> None:
    """One instance of a positive bag is marked; in the mean over sixteen it would drown in the noise."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(512, 16, WIDTH, generator=generator)
    positive = torch.arange(512) % 2
    marked = torch.randint(0, 16, (512,), generator=generator)
    features[torch.arange(512), marked, 0] += 5.0 * positive
    torch.manual_seed(0)
    head = bags.GatedAttention(WIDTH, heads.linear(WIDTH, 2))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(features), positive).backward()
        optimizer.step()
    assert float((head(features).argmax(1) == positive).double().mean()) > 0.95
    found = head.weights(features)[:, :, 0].argmax(1) == marked
    assert float(found[positive == 1].double().mean()) > 0.95


@pytest.mark.parametrize("name", BUILDERS)
def test_onnxruntime_gives_the_same_logits_for_bags_of_any_size(name: str, tmp_path: Path) -> None:
    head, path = built(name), tmp_path / "head.onnx"
    torch.onnx.export(
        head,
        (bag(2, 3),),
        path,
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: "batch", 1: "slices"},),
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (3, 8), (2, 40)):
        features = bag(*shape, seed=1)
        (got,) = session.run(None, {session.get_inputs()[0].name: features.numpy()})
        np.testing.assert_allclose(got, head(features).detach().numpy(), atol=1e-5)
