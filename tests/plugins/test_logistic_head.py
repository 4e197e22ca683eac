"""The head of standardised features and penalised weights, against numpy and scikit-learn; on real pictures, slow."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from example_data import real
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from torch import nn

import zooft
from zooft.hooks import registry
from zooft.model.adapted import AdaptedModel, adapt, zoo_state_dict
from zooft.pipeline.training import weight_penalty
from zooft.train.optimizer import penalise
from zooft_standard.standardised import Standardise

COMMON = (0, 2, 26, 41, 45, 56, 60, 74)
"""Of COCO's 80 classes those with at least 8 training and 5 validation pictures among the 256."""


def seen(module: Standardise, batches: list[torch.Tensor]) -> None:
    module.train()
    for batch in batches:
        module(batch)
    module.eval()


def test_the_first_fifty_batches_weigh_alike() -> None:
    rows = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 0.1, 3, 7]) + 4
    module = Standardise(5)
    seen(module, list(rows.split(8)))
    table = rows.double().numpy()
    assert module.mean.numpy() == pytest.approx(table.mean(0), rel=1e-4)
    assert module.variance.numpy() == pytest.approx(table.var(0), rel=1e-3)
    found = module(rows).numpy()
    assert found.mean(0) == pytest.approx(np.zeros(5), abs=1e-3)
    assert found.std(0) == pytest.approx(np.ones(5), rel=1e-3)


def test_a_feature_that_never_varies_stays_finite_and_a_single_sample_is_a_batch() -> None:
    module = Standardise(3)
    seen(module, [torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[3.0, 5.0, 4.0]])])
    found = module(torch.tensor([[2.0, 5.0, 3.0], [4.0, 5.0, 5.0]]))
    assert torch.isfinite(found).all()
    assert found[0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_evaluation_changes_nothing_and_features_get_their_gradient() -> None:
    module = Standardise(4)
    seen(module, [torch.randn(32, 4)])
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    x = torch.randn(3, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad[0].numpy() == pytest.approx(1 / before["variance"].sqrt().numpy(), rel=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_the_penalty_leads_to_scikit_learn_s_logistic_regression() -> None:
    """Outputs of a standard deviation of 2 by 6 features: weights of variance 4 / 6, which is its C."""
    rng = np.random.default_rng(0)
    x, penalty = rng.normal(size=(60, 6)), weight_penalty(model(), width=6, weight=60)
    y = (x[:, 0] - x[:, 1] + rng.normal(size=60) > 0).astype(int)
    layer = nn.Linear(6, 1).double()
    optimizer = torch.optim.SGD(
        [{"params": [layer.weight], "lr": 0.5, "penalty": penalty}, {"params": [layer.bias], "lr": 0.5}]
    )
    for _ in range(2000):
        optimizer.zero_grad()
        logits = layer(torch.from_numpy(x))[:, 0]
        nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(y).double()).backward()
        penalise(optimizer)
        optimizer.step()
    theirs = LogisticRegression(C=4 / 6, tol=1e-10).fit(x, y)
    assert layer.weight.detach().numpy() == pytest.approx(theirs.coef_, abs=1e-4)
    assert float(layer.bias.detach()) == pytest.approx(theirs.intercept_[0], abs=1e-4)


def model() -> AdaptedModel:
    backbone: Any = SimpleNamespace(module=nn.Identity(), stages={}, slots=(), fixed=frozenset(), width=8)
    return adapt(backbone, registry.load().head("logistic"), {"logits": 2})


def test_what_is_saved_of_a_head_doesn_t_move_with_later_epochs() -> None:
    adapted = model()
    tensors = zoo_state_dict(adapted)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for tensor in adapted.state_dict().values():
            tensor.add_(1)
    assert before
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


def test_it_is_the_head_of_several_labels() -> None:
    found = registry.load()
    task = found.task("multilabel")
    assert found.head(task.head(task.options())).logit_std > 0


def coco(folder: Path) -> tuple[Path, list[str]]:
    root, names = real("coco128"), [f"class {number}" for number in COMMON]
    with (folder / "coco.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", *names])
        for split in ("train", "val"):
            for picture in sorted((root / "images" / f"{split}2017").glob("*.jpg")):
                labels = root / "object_detection" / "labels" / f"{split}2017" / f"{picture.stem}.txt"
                lines = labels.read_text().splitlines() if labels.exists() else []
                there = {int(line.split()[0]) for line in lines if line.strip()}
                table.writerow([picture, split, *(int(number in there) for number in COMMON)])
    return folder / "coco.csv", names


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coco_s_common_classes_from_frozen_features(tmp_path: Path, seed: int) -> None:
    data, names = coco(tmp_path)
    result = zooft.finetune(
        backbone="timm:tf_efficientnet_lite0",
        task="multilabel",
        data=data,
        targets=names,
        freeze="backbone",
        seed=seed,
        bootstrap=0,
        out=tmp_path / "run",
    )
    figure = result.evaluations["val"].metrics["map"].value
    assert figure >= 0.53  # a logistic regression on the features reaches 0.547, chance is 0.138
    with (result.path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with data.open(newline="", encoding="utf-8") as file:
        truth = {row["path"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    theirs = [
        average_precision_score(
            [int(truth[row["id"].rpartition("/")[2]][name]) for row in rows], [float(row[f"p({name})"]) for row in rows]
        )
        for name in names
    ]
    assert figure == pytest.approx(np.mean(theirs), abs=1e-6)
    assert result.verification is not None
    assert result.verification.passed
