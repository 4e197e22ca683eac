"""What a teacher adds to a loss, against numpy and scipy, and how it adds up with the task's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, rel_entr, softmax
from torch import Tensor, nn

import zooft
from zooft.contracts import Label, Loss, class_labels
from zooft.features.teaching import TARGET, TEACHER
from zooft.hooks import registry
from zooft.model.adapted import FEATURES
from zooft.train.distillation import DistilledLoss, make_divergence, try_divergence
from zooft.train.loss import make_loss

OTHER = np.random.default_rng(0)


def task_of(problem: zooft.Problem) -> zooft.Task:
    from dataclasses import replace

    return replace(registry.load().task("classification"), problem=problem, options=problem.options)


def numbers(*shape: int, seed: int, scale: float = 3.0) -> NDArray[np.float32]:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def divergence(
    problem: zooft.Problem,
    labels: tuple[Label, ...],
    ours: Mapping[str, NDArray[Any]],
    theirs: Mapping[str, NDArray[Any]],
    *,
    temperature: float,
    others: tuple[Label, ...] | None = None,
) -> Loss:
    made = make_divergence(task_of(problem), labels, others or labels, problem.options(), temperature=temperature)
    both = ({name: torch.from_numpy(array) for name, array in each.items()} for each in (ours, theirs))
    found: Loss = made(*both)
    return found


def kl(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """Summed, in float64, of probabilities."""
    return float(rel_entr(np.asarray(wanted, np.float64), np.asarray(found, np.float64)).sum())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_classes_diverge_as_scipy_has_it(temperature: float) -> None:
    ours, theirs = numbers(7, 5, seed=1), numbers(7, 5, seed=2)
    found = divergence(
        zooft.classification(),
        class_labels(tuple("abcde")),
        {"logits": ours},
        {"logits": theirs},
        temperature=temperature,
    )
    soft = [softmax(each.astype(np.float64) / temperature, axis=1) for each in (theirs, ours)]
    assert float(found.total) == pytest.approx(temperature**2 * kl(*soft), rel=1e-5)
    assert float(found.weight) == 7


def test_the_gradient_is_the_difference_of_the_softened_probabilities() -> None:
    """Hinton et al. 2015, section 2: q - p over the temperature, times its square."""
    ours = torch.from_numpy(numbers(6, 4, seed=3)).requires_grad_()
    theirs = numbers(6, 4, seed=4)
    made = make_divergence(
        task_of(zooft.classification()), class_labels(tuple("abcd")), class_labels(tuple("abcd")), None, temperature=3.0
    )
    made({"logits": ours}, {"logits": torch.from_numpy(theirs)}).total.backward()
    assert ours.grad is not None
    q, p = (softmax(each / 3.0, axis=1) for each in (ours.detach().numpy(), theirs))
    np.testing.assert_allclose(ours.grad.numpy(), 3.0 * (q - p), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_label_diverges_as_two_classes(temperature: float) -> None:
    labels = tuple(Label(name=name) for name in "abc")
    ours, theirs = numbers(6, 3, seed=5), numbers(6, 3, seed=6)
    found = divergence(zooft.multilabel(), labels, {"logits": ours}, {"logits": theirs}, temperature=temperature)
    p, q = (expit(each.astype(np.float64) / temperature) for each in (theirs, ours))
    assert float(found.total) == pytest.approx(temperature**2 * (kl(p, q) + kl(1 - p, 1 - q)), rel=1e-5)
    assert float(found.weight) == 18


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("grades", [2, 5])
def test_grades_diverge_by_their_own_probabilities(grades: int, temperature: float) -> None:
    ours, theirs = numbers(8, grades - 1, seed=7), numbers(8, grades - 1, seed=8)
    found = divergence(
        zooft.ordinal(),
        class_labels(tuple("abcde")[:grades]),
        {"steps": ours},
        {"steps": theirs},
        temperature=temperature,
    )

    def probabilities(steps: NDArray[Any]) -> NDArray[np.float64]:
        steps = steps.astype(np.float64)
        gaps = np.log1p(np.exp(steps[:, 1:])) + 1e-6
        falling = np.concatenate([steps[:, :1], steps[:, :1] - np.cumsum(gaps, axis=1)], axis=1) / temperature
        at_least = np.concatenate([np.ones((8, 1)), expit(falling), np.zeros((8, 1))], axis=1)
        found: NDArray[np.float64] = at_least[:, :-1] - at_least[:, 1:]
        return found

    assert probabilities(ours).sum(1) == pytest.approx(1)
    wanted = temperature**2 * kl(probabilities(theirs), probabilities(ours))
    assert float(found.total) == pytest.approx(wanted, rel=1e-4)


def test_numbers_of_a_teacher_with_another_scale_are_compared_in_their_unit() -> None:
    ours, theirs = numbers(5, 2, seed=9), numbers(5, 2, seed=10)
    own = (
        Label(name="age", constants={"mean": 50.0, "std": 10.0}),
        Label(name="size", constants={"mean": 3.0, "std": 2.0}),
    )
    other = (
        Label(name="age", constants={"mean": 44.0, "std": 7.0}),
        Label(name="size", constants={"mean": 4.0, "std": 1.0}),
    )
    found = divergence(
        zooft.regression(), own, {"standardised": ours}, {"standardised": theirs}, temperature=9.0, others=other
    )
    in_units = ours * [10.0, 2.0] + [50.0, 3.0], theirs * [7.0, 1.0] + [44.0, 4.0]
    wanted = (((in_units[0] - in_units[1]) / [10.0, 2.0]) ** 2).sum()
    assert float(found.total) == pytest.approx(wanted, rel=1e-5)
    assert float(found.weight) == 10


def test_several_answers_add_up_with_their_weights() -> None:
    task = registry.load().task("multitask")
    toml = '[targets.view]\nproblem = "classification"\ncolumn = "v"\n[targets.age]\nproblem = "regression"\ncolumn = "a"\nweight = 0.25\n'
    labels = (
        Label(name="view", categories=("front", "side"), problem="classification"),
        Label(name="age", problem="regression"),
    )
    made = make_divergence(task, labels, labels, task.options(targets_toml=toml), temperature=2.0)
    ours = {"view_logits": numbers(4, 2, seed=1), "age_standardised": numbers(4, 1, seed=2)}
    theirs = {"view_logits": numbers(4, 2, seed=3), "age_standardised": numbers(4, 1, seed=4)}
    found = made(*({name: torch.from_numpy(array) for name, array in each.items()} for each in (ours, theirs)))
    p, q = (softmax(each["view_logits"].astype(np.float64) / 2, axis=1) for each in (theirs, ours))
    squares = ((ours["age_standardised"] - theirs["age_standardised"]) ** 2).sum()
    assert float(found.total) == pytest.approx(4 * kl(p, q) + 0.25 * squares, rel=1e-5)
    assert float(found.weight) == 4


def test_pixels_diverge_each_and_a_larger_map_is_resized() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    task = registry.load().task("segmentation")
    labels = tuple(Label(name=name) for name in "abc")
    made = make_divergence(task, labels, labels, task.options(), temperature=2.0)
    ours, theirs = numbers(2, 3, 4, 6, seed=1), numbers(2, 3, 4, 6, seed=2)
    found = made({"logits": torch.from_numpy(ours)}, {"logits": torch.from_numpy(theirs)})
    p, q = (softmax(each.astype(np.float64) / 2, axis=1) for each in (theirs, ours))
    assert float(found.total) == pytest.approx(4 * kl(p, q) / 24, rel=1e-5)
    assert float(found.weight) == 2
    # a map that is constant in squares of 2 x 2 resizes to their values but for the filter's reach beyond each square
    flat = np.broadcast_to(theirs[:, :, :1, :1], theirs.shape).copy()
    large = np.broadcast_to(theirs[:, :, :1, :1], (2, 3, 8, 12)).copy()
    small, resized = (
        made({"logits": torch.from_numpy(ours)}, {"logits": torch.from_numpy(each)}) for each in (flat, large)
    )
    assert float(small.total) == pytest.approx(float(resized.total), rel=1e-5)


def test_boxes_and_embeddings_are_not_taught() -> None:
    tasks = [entry.value for entry in registry.load().tasks if entry.value.name in {"detection", "retrieval"}]
    assert [task.problem.training.distill for task in tasks] == [None] * len(tasks)


# The whole loss


def targets(count: int) -> Tensor:
    return torch.arange(count) % 3


def taught(ours: Tensor, theirs: Tensor, count: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {"logits": ours}, {TARGET: targets(count), TEACHER: {"logits": theirs}}


def loss_of(share: float, *, weights: list[float] | None = None, **more: Any) -> DistilledLoss:
    module = nn.CrossEntropyLoss(weight=None if weights is None else torch.tensor(weights))
    task = task_of(zooft.classification(loss=lambda _targets, _options: module))
    labels = class_labels(tuple("abc"))
    own = make_loss(task, labels, [0, 1, 2], task.options(), seed=0)
    divergence = make_divergence(task, labels, labels, task.options(), temperature=4.0)
    return DistilledLoss(own, divergence, share=share, **more)


def test_the_whole_is_hinton_s_sum() -> None:
    ours, theirs = numbers(9, 3, seed=1), numbers(9, 3, seed=2)
    found = loss_of(0.3)(*taught(torch.from_numpy(ours), torch.from_numpy(theirs), 9))
    truth = -log_softmax(ours.astype(np.float64), axis=1)[np.arange(9), targets(9).numpy()].mean()
    p, q = (softmax(each.astype(np.float64) / 4, axis=1) for each in (theirs, ours))
    assert float(found) == pytest.approx(0.7 * truth + 0.3 * 16 * kl(p, q) / 9, rel=1e-5)


@pytest.mark.parametrize("weights", [None, [1.0, 4.0, 0.5]])
def test_halves_of_a_batch_add_up_to_the_whole(weights: list[float] | None) -> None:
    made = loss_of(0.5, weights=weights, worth=1.7)
    outputs, wanted = taught(torch.from_numpy(numbers(10, 3, seed=1)), torch.from_numpy(numbers(10, 3, seed=2)), 10)
    whole = made.sums(outputs, wanted)
    parts = []
    for rows in (slice(0, 4), slice(4, 10)):
        own = {TARGET: wanted[TARGET][rows], TEACHER: {"logits": wanted[TEACHER]["logits"][rows]}}
        parts.append(made.sums({"logits": outputs["logits"][rows]}, own))
    for name in ("total", "weight"):
        assert sum(float(getattr(part, name)) for part in parts) == pytest.approx(float(getattr(whole, name)), rel=1e-5)
    assert float(made(outputs, wanted)) == pytest.approx(float(whole.total) / float(whole.weight))


def test_features_add_one_minus_the_cosine_after_the_projection() -> None:
    projection = nn.Linear(5, 7)
    made = loss_of(0.5, features=2.0, projection=projection)
    outputs, wanted = taught(torch.from_numpy(numbers(6, 3, seed=1)), torch.from_numpy(numbers(6, 3, seed=2)), 6)
    ours, theirs = numbers(6, 5, seed=3), numbers(6, 7, seed=4)
    given = {**outputs, FEATURES: torch.from_numpy(ours)}
    also = {TARGET: wanted[TARGET], TEACHER: {**wanted[TEACHER], FEATURES: torch.from_numpy(theirs)}}
    matrix, bias = projection.weight.detach().numpy(), projection.bias.detach().numpy()
    moved = ours @ matrix.T + bias
    cosine = (moved * theirs).sum(1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(theirs, axis=1)
    plain = loss_of(0.5)(outputs, wanted)
    assert float(made(given, also).detach()) == pytest.approx(float(plain) + 2.0 * (1 - cosine).mean(), rel=1e-5)
    assert {name for name, _ in made.named_parameters()} == {"projection.weight", "projection.bias"}


def test_without_a_teacher_s_answers_it_is_the_task_s_own() -> None:
    logits = torch.from_numpy(numbers(6, 3, seed=1))
    assert float(loss_of(0.9)({"logits": logits}, targets(6))) == float(nn.CrossEntropyLoss()(logits, targets(6)))


def test_a_divergence_s_weight_is_measured_where_it_is_0() -> None:
    task, labels = task_of(zooft.multilabel()), tuple(Label(name=name) for name in "abcd")
    made = make_divergence(task, labels, labels, task.options(), temperature=4.0)
    assert try_divergence(task, made, {"logits": torch.from_numpy(numbers(6, 4, seed=1))}) == 4
