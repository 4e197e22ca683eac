"""Several processes as one run: what three of them give, against one and against plain torch."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from processes import together as run_together
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from zooft.compute import distributed, launcher
from zooft.compute.distributed import Batches
from zooft.compute.distributed import shards as data
from zooft.errors import ConfigError, TrainingError, UnknownNameError

NUMBER = 3
CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


# Who gets which samples


@pytest.mark.parametrize("samples", [1, 2, 7, 8, 9, 31])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_the_parts_of_all_processes_are_the_batches_of_one(samples: int, processes: int) -> None:
    whole = Batches(samples=samples, size=4, seed=3, epoch=2)
    parts = [replace(whole, process=process, processes=processes) for process in range(processes)]
    for step, (batch, *theirs) in enumerate(zip(whole, *parts, strict=True)):
        counted = [own[:n] for own, n in zip(theirs, whole_counts(parts, step), strict=True)]
        assert list(chain(*counted)) == batch
        lengths = [len(own) for own in counted]
        assert max(lengths) - min(lengths) <= 1
        assert all(theirs), "a step runs in every process"
    assert sorted(chain(*whole)) == list(range(samples))
    assert len(whole) == len(list(whole)) == distributed.steps(samples, 4)
    assert all(len(batch) > 1 for batch in whole) or samples == 1
    assert max(map(len, whole)) <= 5


@pytest.mark.parametrize(
    ("samples", "size", "expected"),
    [
        (33, 32, [33]),
        (34, 32, [32, 2]),
        (65, 32, [32, 33]),
        (64, 32, [32, 32]),
        (3, 1, [1, 1, 1]),
        (1, 8, [1]),
        (5, 2, [2, 3]),
    ],
)
def test_a_last_sample_that_would_be_a_batch_by_itself_goes_into_the_one_before(
    samples: int, size: int, expected: list[int]
) -> None:
    assert [len(batch) for batch in Batches(samples=samples, size=size, seed=0)] == expected


def whole_counts(parts: list[Batches], step: int) -> tuple[int, ...]:
    assert len({part.counts(step) for part in parts}) == 1
    return parts[0].counts(step)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = [tuple(chain(*Batches(samples=50, size=7, seed=s, epoch=e))) for s in range(3) for e in range(3)]
    assert len(set(orders)) == 9
    assert orders[5] == tuple(chain(*Batches(samples=50, size=11, seed=1, epoch=2)))


def test_a_loader_takes_them() -> None:
    data = TensorDataset(torch.arange(10))
    batches = Batches(samples=10, size=4, seed=0, process=1, processes=2)
    assert [x.tolist() for (x,) in DataLoader(data, batch_sampler=batches)] == list(batches)


def test_seeds_of_several_numbers_do_not_meet() -> None:
    assert len({distributed.seed_of(a, b, c) for a in range(10) for b in range(10) for c in range(3)}) == 300
    assert distributed.seed_of(2**32 - 1, 10**6) < 2**63


# One process


def test_one_process_does_the_plain_thing() -> None:
    alone = Accelerator(cpu=True)
    model, x, y = tiny(), inputs(5), labels(5)
    assert distributed.wrap(model, alone) is model
    assert distributed.first(alone, lambda: "done") == "done"
    assert distributed.shard(5, alone) == range(5)
    assert torch.equal(
        distributed.global_loss(nn.functional.cross_entropy, model(x), y, alone),
        nn.functional.cross_entropy(model(x), y),
    )
    assert distributed.gather([x[:2], x[2:]], range(5), alone).tolist() == x.tolist()
    assert distributed.gather([x[[3, 0]], x[[1, 4, 2]]], [3, 0, 1, 4, 2], alone).tolist() == x.tolist()
    with pytest.raises(KeyError):
        distributed.first(alone, lambda: {}["missing"])


# Three processes


def tiny() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).eval()


def inputs(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1))


def labels(n: int) -> Tensor:
    return torch.arange(n) % 3


class Odd(nn.Module):
    """A loss that is no mean over samples: it depends on how they lie to each other."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return torch.logsumexp(logits.flatten(), 0) * logits[:, 0].var(unbiased=False) + targets.float().mean()


LOSSES = {
    "plain": nn.CrossEntropyLoss(),
    "weighted": nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
    "no mean": Odd(),
}
SIZES = (9, 7, 2, 1)


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {
        name.removeprefix("module."): None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }


def step(accelerator: Accelerator, model: nn.Module, wrapped: nn.Module, loss: nn.Module, size: int) -> Any:
    """One backward pass on this process's part of a batch: the loss and the gradients."""
    batches = distributed.batches(accelerator, samples=size, size=size, seed=0, epoch=0)
    (own,) = batches
    model.zero_grad(set_to_none=True)
    logits = wrapped(inputs(size)[own])
    value = distributed.global_loss(loss, logits, labels(size)[own], accelerator, counts=batches.counts(0))
    value.backward()
    return float(value.detach()) / accelerator.num_processes, gradients(model)


def exchanged(accelerator: Accelerator) -> dict[str, Any]:
    """Everything that three processes send each other."""
    rank = accelerator.process_index
    found: dict[str, Any] = {"process": (rank, accelerator.num_processes, accelerator.is_main_process)}
    found["first"] = distributed.first(accelerator, lambda: {"answer": 42, "by": rank})
    found["main only"] = distributed.main_only(accelerator, lambda: lambda: rank)  # which can't be sent
    began = time.monotonic()
    found["main first"] = distributed.main_process_first(
        accelerator, lambda: (time.sleep(0.3 * (rank == 0)), began, time.monotonic())
    )
    found["votes"] = [distributed.all_true(accelerator, True), distributed.all_true(accelerator, rank != 1)]
    found["each"] = distributed.all_gather_object({"rank": rank}, accelerator)
    for name, work in WORKS.items():
        try:
            distributed.first(accelerator, work)
        except Exception as error:
            found[name] = (type(error), str(error), dict(error.__dict__), launcher.is_reported_by_main(error))
    model = tiny()
    wrapped = distributed.wrap(model, accelerator)
    for name, loss in LOSSES.items():
        for size in SIZES:
            found[f"{name} {size}"] = step(accelerator, model, wrapped, loss, size)
    own = distributed.shard(7, accelerator)
    uneven = distributed.global_loss(LOSSES["weighted"], model(inputs(7)[list(own)]), labels(7)[list(own)], accelerator)
    found["uncounted"] = float(uneven.detach()) / NUMBER
    found["loss gradients"] = loss_gradients(accelerator)
    del wrapped
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    found["frozen"] = step(accelerator, model, distributed.wrap(model, accelerator), LOSSES["plain"], 7)
    for parameter in model[0].parameters():
        parameter.requires_grad_(True)
    found["thawed"] = step(accelerator, model, distributed.wrap(model, accelerator), LOSSES["plain"], 7)
    model[1].get_buffer("running_mean").fill_(float(rank + 5))
    distributed.broadcast_buffers(model, accelerator)
    found["still buffers"] = model[1].get_buffer("running_mean").tolist()
    distributed.broadcast_buffers(model.train(), accelerator)
    found["buffers"] = model[1].get_buffer("running_mean").tolist()
    found["counter"] = model[1].get_buffer("num_batches_tracked").shape
    try:
        distributed.wrap(model.train(), accelerator, sync_bn=True)
    except ConfigError as error:
        found["sync_bn"] = str(error)
    distributed.wrap(model.eval(), accelerator, sync_bn=True)
    found["gathered"] = gathered(accelerator)
    distributed.finish()
    found["main only"] = found["main only"] and found["main only"]()
    return found


def gathered(accelerator: Accelerator) -> list[Tensor]:
    rank = accelerator.process_index
    all_of_it = torch.arange(60.0).reshape(12, 5)
    owned = [[7, 1, 0, 11, 3, 2, 9], [], [4, 10, 5, 8, 6]][rank]
    own = [all_of_it[[index]].half() for index in owned]
    results = [distributed.gather(own, owned, accelerator)]
    shared = distributed.shard(12, accelerator)
    results.append(distributed.gather([all_of_it[list(shared)].long()], shared, accelerator))
    data.PIECE = 3 * all_of_it[0].nbytes
    results.append(distributed.gather([all_of_it[list(owned)]] if owned else [], owned, accelerator))
    return results


def unknown() -> None:
    raise UnknownNameError("there is no head 'x'", kind="head", name="x", near=("linear", "mlp"))


def full() -> None:
    raise OSError(28, "No space left on device", "run/last")


WORKS: dict[str, Any] = {
    "ours": unknown,
    "the system's": full,
    "plain": lambda: {}["missing"],
    "not to be sent": lambda: lambda: None,
}


class Scaled(nn.Module):
    """Cross entropy of logits that the loss itself scales."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss."""
        return nn.functional.cross_entropy(logits * self.scales, targets)


def loss_gradients(accelerator: Accelerator) -> Tensor:
    loss, model = Scaled(), distributed.wrap(tiny(), accelerator)
    mine = list(distributed.shard(7, accelerator))
    value = distributed.global_loss(loss, model(inputs(7)[mine]), labels(7)[mine], accelerator)
    value.backward()  # type: ignore[no-untyped-call]
    distributed.average_gradients(loss, accelerator)
    assert loss.scales.grad is not None
    return loss.scales.grad


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    results = run_together(exchanged, tmp_path_factory.mktemp("together"), number=NUMBER)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def test_every_process_knows_its_place(found: list[dict[str, Any]]) -> None:
    assert [result["process"] for result in found] == [(0, 3, True), (1, 3, False), (2, 3, False)]


def test_what_the_main_process_found_everyone_has(found: list[dict[str, Any]]) -> None:
    assert [result["first"] for result in found] == [{"answer": 42, "by": 0}] * NUMBER


def test_what_only_the_main_process_needs_is_not_sent(found: list[dict[str, Any]]) -> None:
    assert [result["main only"] for result in found] == [0, None, None]


def test_what_the_main_process_does_first_the_others_do_after_it(found: list[dict[str, Any]]) -> None:
    ended = found[0]["main first"][2]
    assert all(result["main first"][2] >= ended for result in found)


def test_all_agree_or_none(found: list[dict[str, Any]]) -> None:
    assert [result["votes"] for result in found] == [[True, False]] * NUMBER


def test_every_process_gets_each_result(found: list[dict[str, Any]]) -> None:
    assert [result["each"] for result in found] == [[{"rank": 0}, {"rank": 1}, {"rank": 2}]] * NUMBER


@pytest.mark.parametrize(
    ("work", "kind", "text"),
    [
        ("ours", UnknownNameError, "there is no head 'x'"),
        ("the system's", OSError, "[Errno 28] No space left on device: 'run/last'"),
        ("plain", KeyError, "'missing'"),
    ],
)
def test_what_the_main_process_could_not_do_reaches_every_process(
    work: str, kind: type[Exception], text: str, found: list[dict[str, Any]]
) -> None:
    assert [result[work][:2] for result in found] == [(kind, text)] * NUMBER
    assert [result[work][3] for result in found] == [False, True, True]


def test_an_error_keeps_what_it_carries(found: list[dict[str, Any]]) -> None:
    assert [result["ours"][2]["near"] for result in found] == [("linear", "mlp")] * NUMBER


def test_a_result_that_can_not_be_sent_is_an_error_and_no_endless_wait(found: list[dict[str, Any]]) -> None:
    assert all("pickle" in result["not to be sent"][1] for result in found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_each_process_s_gradient_is_that_of_the_whole_batch(name: str, size: int, found: list[dict[str, Any]]) -> None:
    (order,) = Batches(samples=size, size=size, seed=0)
    model = tiny()
    value = LOSSES[name](model(inputs(size)[order]), labels(size)[order])
    value.backward()
    expected = gradients(model)
    for result in found:
        given_value, given = result[f"{name} {size}"]
        assert given_value == pytest.approx(float(value.detach()), rel=1e-6)
        for key, gradient in expected.items():
            torch.testing.assert_close(given[key], gradient, rtol=1e-4, atol=1e-7)


def test_counts_that_nobody_gives_are_requested(found: list[dict[str, Any]]) -> None:
    expected = float(LOSSES["weighted"](tiny()(inputs(7)), labels(7)).detach())
    assert [result["uncounted"] for result in found] == [pytest.approx(expected, rel=1e-6)] * NUMBER


def test_a_model_is_wrapped_again_when_what_learns_changes(found: list[dict[str, Any]]) -> None:
    for result in found:
        frozen, thawed = result["frozen"][1], result["thawed"][1]
        assert [name for name, gradient in frozen.items() if gradient is None] == ["0.weight", "0.bias"]
        assert all(gradient is not None for gradient in thawed.values())
        torch.testing.assert_close(thawed, result["plain 7"][1])
        torch.testing.assert_close(frozen["3.weight"], thawed["3.weight"])


def test_running_statistics_are_the_main_process_s(found: list[dict[str, Any]]) -> None:
    assert [result["buffers"] for result in found] == [[5.0] * 6] * NUMBER
    assert [result["still buffers"] for result in found] == [[5.0] * 6, [6.0] * 6, [7.0] * 6]
    assert [result["counter"] for result in found] == [()] * NUMBER


def test_synchronous_batch_norms_on_a_cpu_are_refused_where_norms_learn(found: list[dict[str, Any]]) -> None:
    assert all("--sync-bn works on CUDA only" in result["sync_bn"] for result in found)


def test_rows_come_together_in_the_samples_order(found: list[dict[str, Any]]) -> None:
    expected = torch.arange(60.0).reshape(12, 5)
    for result in found:
        scrambled, shared, in_pieces = result["gathered"]
        assert torch.equal(scrambled, expected.half())
        assert torch.equal(shared, expected.long())
        assert torch.equal(in_pieces, expected)


# Faults


def dying(accelerator: Accelerator) -> None:
    """The last process is killed while the others wait for it."""
    with distributed.faults(accelerator, advice="go on with --resume"):
        if accelerator.process_index == accelerator.num_processes - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        distributed.gather([torch.zeros(1, 2)], [accelerator.process_index], accelerator)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_process_ends_the_others_which_say_who_they_are(tmp_path: Path) -> None:
    *others, last = run_together(
        dying, tmp_path, number=NUMBER
    )  # which ends them after minutes: they would wait for a day
    assert last is None
    for rank, error in enumerate(others):
        assert isinstance(error, TrainingError)
        assert str(error).startswith(f"process {rank} of 3 has lost another process of the run: ")
        assert str(error).endswith("; go on with --resume")


def told_to_end(accelerator: Accelerator) -> None:
    with distributed.faults(accelerator, advice="go on"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")
def test_a_request_to_end_is_an_error_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    several = Accelerator(cpu=True)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(TrainingError, match=r"process 0 of 2 was ended by its launcher \(SIGTERM\), .*; go on"):
            told_to_end(several)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN  # it is reported once
    finally:
        signal.signal(signal.SIGTERM, before)
    with distributed.faults(several):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


class Dying(TensorDataset):
    """Its third sample kills the loader's process."""

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def loading(accelerator: Accelerator) -> None:
    with distributed.faults(accelerator, advice="go on"):
        list(DataLoader(Dying(torch.arange(8)), batch_size=1, num_workers=1))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_loader_process_is_reported_with_advice(tmp_path: Path) -> None:
    (error,) = run_together(loading, tmp_path, number=1)
    assert isinstance(error, TrainingError)
    assert str(error).startswith("a loader process has ended: ")
    assert "try fewer --workers" in str(error)
    assert str(error).endswith("; go on")


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("x"), ConfigError("y"), KeyboardInterrupt()]
)
def test_other_errors_pass_as_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, distributed.faults(Accelerator(cpu=True), advice="go on"):
        raise error
    assert caught.value is error


def test_a_launcher_that_can_not_be_reached_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "no"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=r"process 1 of 2 can't reach the others: .*check the launcher's address"):
        distributed.start(cpu=True)


def test_nothing_of_numpy_is_needed_to_compute_shares() -> None:
    assert [list(part) for part in data._parts(7, 3)] == [list(p) for p in np.array_split(np.arange(7), 3)]


def test_each_process_has_the_whole_batch_s_gradient_of_the_loss_s_own_parameters(found: list[dict[str, Any]]) -> None:
    alone = loss_gradients(Accelerator(cpu=True))
    theirs = [result["loss gradients"] for result in found]
    assert all(torch.equal(theirs[0], one) for one in theirs)
    torch.testing.assert_close(theirs[0], alone, rtol=1e-5, atol=1e-7)
