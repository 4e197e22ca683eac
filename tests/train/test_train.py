"""The training loop: rates against torch's own schedulers, losses against running everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler

import zooft_images
from zooft import Anatomy, EpochRecord, Family, FreezePlan, ImagePreprocess, InputSpec, Sample, Stage
from zooft.errors import FrozenChangedError, TrainingError
from zooft.features import FeatureCache, SampleDataset
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import load_backbone
from zooft.problems.classification.losses import sums_of
from zooft.storage.cache import Store
from zooft.train import Job, Watch, loop
from zooft.train.loss import TaskLoss
from zooft.train.optimizer import Hyperparameters, make_optimizer, rate_factor

SPEC = InputSpec(height=12, width=12, resize=12, mean=(0.5,) * 3, std=(0.5,) * 3)
RECIPE = Hyperparameters(
    epochs=3,
    batch_size=4,
    optimizer="adamw",
    lr=0.05,
    backbone_lr=0.01,
    momentum=0.9,
    weight_decay=0.01,
    schedule="cosine",
    warmup=0.0,
    step_epochs=2,
    step_factor=0.1,
    power=0.9,
    workers=0,
    seed=0,
)


class Net(nn.Module):
    """Two convolutions with BatchNorm and dropout, small enough to train in a blink."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Dropout(0.2), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.fc: nn.Module = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.high(self.low(x)).mean((2, 3)))
        return logits


def family() -> Family:
    stages = {
        "low": Stage(("low",)),
        "high": Stage(("high",)),
        "pool": Stage((), lambda m, x: x.mean((2, 3))),
    }
    return Family(
        name="toy",
        summary="",
        models=lambda: ["net"],
        build=lambda _name: Net(),
        anatomy=lambda _name, _module: Anatomy(stages=stages, classifier=("fc",), input=SPEC),
    )


def fresh_model() -> AdaptedModel:
    torch.manual_seed(0)
    backbone = load_backbone(family(), "net", weights="random", sources=())
    torch.manual_seed(0)
    return AdaptedModel(backbone, nn.Linear(backbone.width, 2))


def read(sample: Sample) -> tuple[NDArray[Any], ...]:
    """Dark for even sources, light for odd ones."""
    rng = np.random.default_rng(sample.source)
    return (np.clip(rng.normal(60 + 130 * (sample.source % 2), 40, (12, 12, 3)), 0, 255).astype(np.uint8),)


def keeping(folder: Path, **changes: Any) -> FeatureCache:
    """Cached in a folder, under the pictures' own numbers."""
    number = {"digest": lambda sample: f"{sample.source:064x}"}
    return FeatureCache(store=Store(folder, 2**30), of={"test": "train"}, **{**number, **changes})


def views(numbers: range, augment: Callable[[NDArray[Any]], Tensor] | None = None) -> SampleDataset:
    samples = [Sample(id=str(i), source=i, target=i % 2) for i in numbers]
    return SampleDataset(samples, read=read, preprocess=ImagePreprocess(SPEC), augment=augment)


def together(data: SampleDataset) -> tuple[Tensor, Tensor]:
    """All of them as one batch."""
    pairs = [data[index] for index in range(len(data))]
    return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs])


def flipped(array: NDArray[Any]) -> Tensor:
    """A view that is sometimes upside down."""
    plain: Tensor = ImagePreprocess(SPEC)(torch.from_numpy(array)[None])[0]
    return plain.flip(1) if float(torch.rand(())) < 0.5 else plain


def accuracy(targets: NDArray[Any], probabilities: NDArray[Any]) -> Mapping[str, float]:
    return {"accuracy": float((probabilities.argmax(1) == targets).mean())}


def of_classes(metrics: Callable[..., Mapping[str, float]]) -> Callable[..., Mapping[str, float]]:
    """Of targets and probabilities, as the loop calls it: of outputs and targets."""

    def of_outputs(outputs: Mapping[str, NDArray[Any]], targets: Sequence[Any]) -> Mapping[str, float]:
        return metrics(np.array(targets), torch.from_numpy(outputs["logits"]).softmax(1).numpy())

    return of_outputs


def task_loss(own: nn.Module) -> TaskLoss:
    """A loss of logits and targets as a task's."""
    (task,) = (one for one in zooft_images.zooft_register_tasks() if one.name == "classification")
    return TaskLoss(task, sums_of(own))


@dataclass(frozen=True)
class Seen:
    """What a run reported."""

    records: list[EpochRecord]
    notes: list[str]
    computed: list[str]

    def losses(self) -> list[tuple[float, float]]:
        return [(r.train_loss, r.val_loss) for r in self.records]


def run(
    model: AdaptedModel,
    hyperparameters: Hyperparameters = RECIPE,
    *,
    frozen: tuple[str, ...] = (),
    after_epoch: Callable[[EpochRecord], None] = lambda _record: None,
    store: Path | None = None,
    **changes: Any,
) -> Seen:
    """Fit a model to dark and light pictures on the CPU."""
    seen = Seen([], [], [])
    job = Job(
        model=model,
        train=views(range(18)),
        val=views(range(18, 28)),
        keep_last=False,
        loss=task_loss(changes.pop("loss", nn.CrossEntropyLoss())),
        metrics=of_classes(changes.pop("metrics", accuracy)),
        primary="accuracy",
        plan=lambda _epoch: FreezePlan(frozen=frozenset(frozen)),
    )

    def computing(title: str, _total: int) -> Callable[[int], None]:
        seen.computed.extend([] if title == "the samples' content" else [title])
        return lambda _done: None

    def epoch(record: EpochRecord) -> None:
        seen.records.append(record)
        after_epoch(record)

    watch = Watch(computing=computing, epoch=epoch, note=seen.notes.append)
    if store is not None:
        job = replace(job, feature_cache=keeping(store, computing=computing, note=seen.notes.append))
    loop.fit(replace(job, **changes), hyperparameters, Accelerator(cpu=True), watch)
    return seen


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_learns_to_classify_dark_and_light(optimizer: str) -> None:
    seen = run(fresh_model(), replace(RECIPE, optimizer=optimizer, epochs=6))
    assert seen.records[-1].train_loss < 0.5 * seen.records[0].train_loss
    assert max(r.metrics["accuracy"] for r in seen.records) == 1.0


@pytest.mark.parametrize("frozen", [(), ("low",), ("low", "high")])
def test_features_cached_from_frozen_stages_give_the_losses_of_running_everything(
    frozen: tuple[str, ...], tmp_path: Path
) -> None:
    hyperparameters = replace(RECIPE, optimizer="sgd")  # Adam makes steps of the rounding in gradients that are zero
    stored = run(fresh_model(), hyperparameters, frozen=frozen, store=tmp_path)
    title = "frozen stages, once" if frozen else "reading the samples, once"
    assert stored.computed[:2] == [title, title]  # of validation and of training
    everything = run(fresh_model(), hyperparameters, frozen=frozen)
    np.testing.assert_allclose(stored.losses(), everything.losses(), atol=1e-4, rtol=0)
    again = run(fresh_model(), hyperparameters, frozen=frozen, store=tmp_path)
    assert title not in again.computed
    assert again.losses() == stored.losses()


def test_fresh_views_in_every_epoch_keep_the_frozen_stages_running_and_the_user_is_warned(tmp_path: Path) -> None:
    seen = run(fresh_model(), frozen=("low",), train=views(range(18), flipped), store=tmp_path, views=None)
    assert seen.notes == ["the frozen stages run in every epoch, because every epoch sees views of its own"]


def test_frozen_stages_see_each_cached_view_once_whatever_the_epochs(tmp_path: Path) -> None:
    messages: list[int] = []

    def computing(title: str, total: int) -> Callable[[int], None]:
        messages.extend([total] if title == "frozen stages, once" else [])
        return lambda _done: None

    stored = keeping(tmp_path, computing=computing)
    hyperparameters = replace(RECIPE, epochs=5)
    run(
        fresh_model(),
        hyperparameters,
        frozen=("low", "high"),
        train=views(range(18), flipped),
        feature_cache=stored,
        views=2,
    )
    assert messages == [10, 18, 18, 18]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_seed_gives_the_same_losses_whatever_the_workers(workers: int) -> None:
    changes: dict[str, Any] = {"train": views(range(18), flipped), "frozen": ("low", "high")}
    hyperparameters = replace(RECIPE, epochs=2)
    first = run(fresh_model(), hyperparameters, **changes)
    again = run(fresh_model(), replace(hyperparameters, workers=workers), **changes)
    assert first.losses() == again.losses()


def test_another_seed_gives_another_order() -> None:
    assert run(fresh_model()).losses() != run(fresh_model(), replace(RECIPE, seed=1)).losses()


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("frozen", [("low",), ("high",), ("low", "high")])
def test_frozen_stages_are_bit_equal_after_training_and_the_others_have_learnt(
    frozen: tuple[str, ...], stored: bool, tmp_path: Path
) -> None:
    model = fresh_model()
    before = tensors(model.trunk)
    run(model, frozen=frozen, store=tmp_path if stored else None)
    same = {name for name, t in model.trunk.state_dict().items() if torch.equal(t, before[name])}
    assert same == {name for name in before if name.split(".")[0] in frozen}


def test_a_frozen_tensor_that_moves_all_the_same_ends_the_run() -> None:
    model = fresh_model()

    def tamper(_record: EpochRecord) -> None:
        model.trunk.get_buffer("low.1.running_mean").add_(1e-3)

    with pytest.raises(FrozenChangedError, match=r"low\.1\.running_mean"):
        run(model, frozen=("low",), after_epoch=tamper)


def test_a_plan_may_thaw_stages_as_epochs_go_on() -> None:
    model = fresh_model()
    history: list[dict[str, Tensor]] = [tensors(model.trunk)]
    seen = run(
        model,
        plan=lambda epoch: FreezePlan(
            frozen=frozenset({"low", "high"} if epoch == 0 else {"low"} if epoch == 1 else ())
        ),
        after_epoch=lambda _record: history.append(tensors(model.trunk)),
    )
    assert [r.learning for r in seen.records] == [("head",), ("high", "head"), ("low", "high", "head")]
    for stage, first in (("high", 2), ("low", 3)):
        name = f"{stage}.0.weight"
        moved = [not torch.equal(history[i][name], history[i - 1][name]) for i in (1, 2, 3)]
        assert moved == [epoch >= first for epoch in (1, 2, 3)]


def test_features_move_with_the_boundary(tmp_path: Path) -> None:
    """Cached outputs of the stages frozen at the time give the losses of running everything in every epoch."""
    thawing = [("low", "high"), ("low", "high"), ("low",), ()]
    plans = [FreezePlan(frozen=frozenset(stages)) for stages in thawing]
    hyperparameters = replace(RECIPE, epochs=4, optimizer="sgd")
    seen = [
        run(fresh_model(), hyperparameters, plan=lambda epoch: plans[epoch], store=store) for store in (tmp_path, None)
    ]
    assert seen[0].computed.count("frozen stages, once") == 2 * 2  # two boundaries, training and validation
    assert np.allclose(seen[0].losses(), seen[1].losses(), atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "head_only", "expected"), [(600, False, 32), (600, True, 32), (5000, True, 128), (10**6, True, 256)]
)
def test_a_head_alone_takes_larger_batches_where_steps_enough_remain(
    samples: int, head_only: bool, expected: int
) -> None:
    assert loop.usual_batch(samples, head_only=head_only) == expected


def test_the_best_epoch_is_the_one_with_the_best_primary_metric() -> None:
    values = iter([0.5, 0.8, 0.8, 0.7, math.nan, 0.9])
    seen = run(
        fresh_model(),
        replace(RECIPE, epochs=6, lr=1e-9, backbone_lr=1e-9, schedule="constant"),
        metrics=lambda _t, _p: {"score": next(values), "other": 1.0},
        primary="score",
        frozen=("low", "high"),
    )
    bests = [r.best for r in seen.records]
    assert bests[:2] == [True, True]
    assert bests[3:] == [False, False, True]


def test_of_two_epochs_with_one_metric_the_lower_validation_loss_is_better() -> None:
    seen = run(fresh_model(), metrics=lambda _t, _p: {"accuracy": 0.5})
    losses = [r.val_loss for r in seen.records]
    assert [r.best for r in seen.records] == [loss == min(losses[: i + 1]) for i, loss in enumerate(losses)]


class Exploding(nn.Module):
    """Cross entropy that overflows at its seventh step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        self.steps += self.training
        value = nn.functional.cross_entropy(logits, targets)
        return value * float("inf") if self.steps == 7 else value


def test_a_loss_that_overflows_stops_with_epoch_step_and_advice() -> None:
    with pytest.raises(TrainingError, match=r"the loss became inf in epoch 2, step 2, .*--lr.*--warmup.*--batch-size"):
        run(fresh_model(), loss=Exploding())


def test_the_validation_loss_is_the_mean_over_samples_whatever_the_batches() -> None:
    model = fresh_model()
    whole = run(model, replace(RECIPE, epochs=1, batch_size=4)).records[0].val_loss
    model.eval()
    x, y = together(views(range(18, 28)))
    with torch.inference_mode():
        assert whole == pytest.approx(float(nn.functional.cross_entropy(model(x)["logits"], y)), abs=1e-5)


def test_norms_and_biases_do_not_decay() -> None:
    model = fresh_model()
    optimizer = make_optimizer(model, RECIPE, [FreezePlan(frozen=frozenset())])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        kernel = name in {"trunk.low.0.weight", "trunk.high.0.weight", "head.weight"}
        assert decay[id(parameter)] == (RECIPE.weight_decay if kernel else 0.0), name


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_tokens_and_positions_of_a_transformer_do_not_decay(name: str) -> None:
    from zooft_timm import zooft_register_families

    (timm_family,) = zooft_register_families()
    backbone = load_backbone(timm_family, name, weights="random", sources=())
    model = AdaptedModel(backbone, nn.Linear(backbone.width, 2))
    optimizer = make_optimizer(model, RECIPE, [FreezePlan(frozen=frozenset())])
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    still = dict(backbone.module.named_parameters())
    spared = getattr(backbone.module, "no_weight_decay")()  # noqa: B009 -- timm's own list, which torch's types lack
    assert [n for n in spared if n in still and decay[id(still[n])] != 0.0] == []


def test_backbone_and_head_have_their_own_rates_and_stages_their_factors() -> None:
    model = fresh_model()
    optimizer = make_optimizer(model, RECIPE, [FreezePlan(frozen=frozenset(), scales={"low": 0.5})])
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {"trunk.low": 0.005, "trunk.high": 0.01, "head": 0.05}
    for name, parameter in model.named_parameters():
        assert rate[id(parameter)] == pytest.approx(next(v for k, v in expected.items() if name.startswith(k)))


def test_parameters_that_no_epoch_trains_are_left_out_of_the_optimizer() -> None:
    model = fresh_model()
    plans = [FreezePlan(frozen=frozenset({"low", "high"})), FreezePlan(frozen=frozenset({"low"}))]
    optimizer = make_optimizer(model, RECIPE, plans)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if not n.startswith("trunk.low")}


def factors(schedule: Callable[[SGD], lr_scheduler.LRScheduler], steps: int) -> list[float]:
    """What one of torch's schedulers makes of a rate of 1, step by step."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


STEPS, EPOCHS = 5, 6
TOTAL = STEPS * EPOCHS


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("cosine", lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL)),
        ("polynomial", lambda o: lr_scheduler.PolynomialLR(o, total_iters=TOTAL, power=0.9)),
        ("step", lambda o: lr_scheduler.StepLR(o, step_size=2 * STEPS, gamma=0.1)),
        ("constant", lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
)
def test_schedules_are_torchs_own_step_by_step(
    schedule: str, theirs: Callable[[SGD], lr_scheduler.LRScheduler]
) -> None:
    hyperparameters = replace(RECIPE, epochs=EPOCHS, schedule=schedule)
    ours = [rate_factor(step, STEPS, hyperparameters) for step in range(TOTAL)]
    np.testing.assert_allclose(ours, factors(theirs, TOTAL), atol=1e-9)


def test_the_warm_up_rises_in_equal_steps_to_the_whole_rate_and_the_schedule_follows() -> None:
    hyperparameters = replace(RECIPE, epochs=EPOCHS, warmup=0.2)
    ours = [rate_factor(step, STEPS, hyperparameters) for step in range(TOTAL)]
    np.testing.assert_allclose(ours[:6], np.arange(1, 7) / 6)
    after = factors(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL - 6), TOTAL - 6)
    np.testing.assert_allclose(ours[6:], after, atol=1e-9)


def test_predictions_come_in_order_and_none_twice() -> None:
    from zooft.features import loader

    model = fresh_model()
    accelerator = Accelerator(cpu=True)
    data = accelerator.prepare(loader(views(range(11)), batch_size=4, workers=0))
    logits, targets = loop.predict(model, data, accelerator)
    assert targets.tolist() == [i % 2 for i in range(11)]
    with torch.inference_mode():
        expected = model.eval()(together(views(range(11)))[0])
    torch.testing.assert_close(logits, expected)


def test_each_epoch_says_what_learnt_and_at_which_rate() -> None:
    seen = run(fresh_model(), frozen=("low",))
    assert [r.epoch for r in seen.records] == [1, 2, 3]
    assert all(r.learning == ("high", "head") for r in seen.records)
    steps = math.ceil(18 / RECIPE.batch_size)
    expected = [RECIPE.lr * rate_factor(steps * e, steps, RECIPE) for e in (1, 2, 3)]
    assert [r.learning_rate for r in seen.records] == pytest.approx(expected)


def test_training_mode_is_restored_after_each_validation() -> None:
    model = fresh_model()
    learning = model.trunk.get_submodule("high")
    modes: list[bool] = []

    def watching(array: NDArray[Any]) -> Tensor:
        modes.append(learning.training)
        return flipped(array)

    run(model, train=views(range(18), watching))
    assert len(modes) == 3 * 18
    assert all(modes)
