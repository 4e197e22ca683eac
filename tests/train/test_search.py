"""What validation chooses: rates, decays and views, against trying each by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from test_train import RECIPE, accuracy, flipped, fresh_model, keeping, of_classes, task_loss, views
from torch import nn

from zooft import EpochRecord, FreezePlan
from zooft.errors import ConfigError, DivergedError
from zooft.model.adapted import AdaptedModel
from zooft.train import Job, Watch, loop, search
from zooft.train.optimizer import Hyperparameters


def job(model: AdaptedModel, folder: Path, **changes: Any) -> Job:
    made = Job(
        model=model,
        train=views(range(18)),
        val=views(range(18, 28)),
        keep_last=False,
        loss=task_loss(changes.pop("loss", nn.CrossEntropyLoss())),
        metrics=of_classes(changes.pop("metrics", accuracy)),
        primary="accuracy",
        feature_cache=keeping(folder),
        plan=lambda _epoch: FreezePlan(frozen=frozenset({"low", "high"})),
    )
    return replace(made, **changes)


def watch(notes: list[str] | None = None, records: list[EpochRecord] | None = None) -> Watch:
    kept_notes, kept_records = ([] if notes is None else notes), ([] if records is None else records)
    return Watch(computing=lambda _t, _n: lambda _d: None, epoch=kept_records.append, note=kept_notes.append)


def chosen(
    given: Job,
    *,
    sweep: bool,
    requested: int | str = "auto",
    hyperparameters: Hyperparameters = RECIPE,
    notes: Any = None,
) -> Any:
    return search.choose(given, hyperparameters, Accelerator(cpu=True), watch(notes), views=requested, sweep=sweep)


def by_hand(given: Job, hyperparameters: Hyperparameters) -> tuple[float, float]:
    """The best epoch's metric and loss of training in one way."""
    records: list[EpochRecord] = []
    loop.fit(given, hyperparameters, Accelerator(cpu=True), watch(records=records))
    best = max(records, key=lambda record: loop.score(record.metrics["accuracy"], record.val_loss))
    return best.metrics["accuracy"], best.val_loss


def test_a_sweep_takes_the_way_that_validation_likes_best(tmp_path: Path) -> None:
    notes: list[str] = []
    hyperparameters = replace(RECIPE, lr=1e-3)
    choice = chosen(job(fresh_model(), tmp_path), sweep=True, hyperparameters=hyperparameters, notes=notes)
    assert len(choice.trials) == len(search.RATES) * len(search.DECAYS)
    for trial in (choice.trials[0], choice.trials[7], choice.trials[-1]):
        own = replace(hyperparameters, lr=trial.lr, weight_decay=trial.weight_decay)
        assert by_hand(job(fresh_model(), tmp_path), own) == (trial.primary, trial.val_loss)
    ranks = [loop.score(trial.primary, trial.val_loss) for trial in choice.trials]
    best = choice.trials[ranks.index(max(ranks))]
    assert (choice.hyperparameters.lr, choice.hyperparameters.weight_decay) == (best.lr, best.weight_decay)
    assert choice.hyperparameters.lr > hyperparameters.lr  # a thousandth is too slow for three epochs
    assert notes[-1].startswith("of 15 ways validation chose the learning rate")


def test_the_head_is_as_it_was_after_trying(tmp_path: Path) -> None:
    model = fresh_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen(job(model, tmp_path), sweep=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("likes_views", [False, True])
def test_validation_chooses_whether_frozen_stages_see_random_views(tmp_path: Path, likes_views: bool) -> None:
    calls: list[int] = []

    def metrics(_targets: NDArray[Any], _probabilities: NDArray[Any]) -> Mapping[str, float]:
        calls.append(1)
        with_views = len(calls) > RECIPE.epochs
        return {"accuracy": 0.9 if with_views == likes_views else 0.5}

    given = job(fresh_model(), tmp_path, train=views(range(18), flipped), metrics=metrics)
    choice = chosen(given, sweep=False)
    assert [trial.views for trial in choice.trials] == [0, search.SOME_VIEWS]
    assert choice.job.views == (search.SOME_VIEWS if likes_views else 0)


def test_a_number_of_views_is_a_number_of_views(tmp_path: Path) -> None:
    given = job(fresh_model(), tmp_path, train=views(range(18), flipped))
    choice = chosen(given, sweep=False, requested=2)
    assert (choice.job.views, choice.trials) == (2, ())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"feature_cache": None}, None), ({"train": views(range(18))}, None), ({"val": None}, search.SOME_VIEWS), ({"keep_last": True}, search.SOME_VIEWS)],
    ids=["nothing is kept", "not augmented", "no validation", "folds"],
)  # fmt: skip # a table of cases
def test_where_validation_cannot_choose_views_it_does_not(
    tmp_path: Path, changes: dict[str, Any], expected: int | None
) -> None:
    given = job(fresh_model(), tmp_path, **{"train": views(range(18), flipped), **changes})
    choice = chosen(given, sweep=False)
    assert (choice.job.views, choice.trials) == (expected, ())


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"keep_last": True}, "--folds"),
        ({"feature_cache": None}, "--no-cache"),
        ({"plan": lambda _epoch: FreezePlan(frozen=frozenset({"low"}))}, "--freeze backbone"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], messages: str
) -> None:
    with pytest.raises(ConfigError, match=messages):
        chosen(job(fresh_model(), tmp_path, **changes), sweep=True)


def test_a_way_that_diverges_is_left_out_and_only_all_of_them_end_the_run(tmp_path: Path) -> None:
    class Fragile(nn.Module):
        """Overflows where the head has moved far."""

        def __init__(self, least: float) -> None:
            super().__init__()
            self.least = least

        def forward(self, logits: Any, targets: Any) -> Any:
            value = nn.functional.cross_entropy(logits, targets)
            return value * float("inf") if float(value.detach()) < self.least else value

    choice = chosen(job(fresh_model(), tmp_path, loss=Fragile(0.5)), sweep=True)
    assert 0 < len(choice.trials) < 15
    with pytest.raises(DivergedError):
        chosen(job(fresh_model(), tmp_path, loss=Fragile(100.0)), sweep=True)


def test_features_are_fetched_once_for_all_ways_from_a_model_that_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another device than the features are on, the model couldn't run at all."""
    layouts: list[bool] = []

    def fed(model: AdaptedModel, *given: Any, **named: Any) -> Any:
        kernel = model.trunk.get_parameter("low.0.weight")
        layouts.append(kernel.is_contiguous(memory_format=torch.channels_last))
        return original(model, *given, **named)

    original = loop.features.feed
    monkeypatch.setattr(loop.features, "feed", fed)
    chosen(job(fresh_model(), tmp_path, train=views(range(18), flipped)), sweep=True)
    assert layouts == [True, True]  # without views and with some
