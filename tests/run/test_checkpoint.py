"""What a killed run resumes from: whole at every moment, and as it was."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zooft.contracts import EpochRecord
from zooft.errors import RunError
from zooft.run import checkpoint as state
from zooft.run.checkpoint import CheckpointWriter, Progress

TENSORS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "bn.num_batches_tracked": torch.tensor(7)}


def record(epoch: int, **changes: Any) -> EpochRecord:
    values: dict[str, Any] = {
        "epoch": epoch,
        "train_loss": 1 / (3 * epoch),
        "val_loss": 0.1 + 0.2,
        "metrics": {"accuracy": 2 / 3},
        "learning_rate": 1e-3,
        "seconds": 0.5,
        "learning": ("head",),
        "best": True,
    }
    return EpochRecord(**(values | changes))


def progress(epochs: int, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "records": tuple(record(n) for n in range(1, epochs + 1)),
        "score": (2 / 3, -0.3),
        "best": epochs,
        "resolved": {"batch_size": 48, "precision": "bf16"},
    }
    return Progress(**(values | changes))


def learner(kind: str, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    others = [*model[1].parameters(), *model[3].parameters()]
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": others}]
    made: torch.optim.Optimizer = getattr(torch.optim, kind)(groups, lr=0.1, **settings)
    return model, made


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def same(given: Any, expected: Any) -> bool:
    return set(given) == set(expected) and all(torch.equal(given[name], expected[name]) for name in expected)


# What is saved comes back


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    model, optimizer = learner("AdamW")
    step(model, optimizer, 1)
    state.save(tmp_path, progress(3), TENSORS, optimizer, best={"layer.weight": torch.ones(2, 3)})
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert saved.progress == progress(3)
    assert same(saved.model, TENSORS)
    assert saved.best is not None
    assert same(saved.best, {"layer.weight": torch.ones(2, 3)})
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == [
        "best.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    assert listed(tmp_path) == ["last"]


def test_numbers_that_json_does_not_have_come_back_too(tmp_path: Path) -> None:
    odd = record(1, val_loss=math.nan, metrics={"auroc": math.nan})
    state.save(tmp_path, progress(1, records=(odd,), score=(-math.inf, -0.5)), TENSORS, learner("SGD")[1])
    text = (tmp_path / "last" / "state.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} isn't JSON"))
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert math.isnan(saved.progress.records[0].val_loss)
    assert math.isnan(saved.progress.records[0].metrics["auroc"])
    assert saved.progress.score == (-math.inf, -0.5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("AdamW", {"fused": True}), ("Adam", {}), ("SGD", {"momentum": 0.9}), ("SGD", {})],
    ids=["adamw-fused", "adam", "sgd-momentum", "sgd"],
)
def test_an_optimizer_that_comes_back_goes_on_as_the_one_that_was_saved(
    kind: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model, optimizer = learner(kind, **settings)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for seed in range(3):
        step(model, optimizer, seed)
        schedule.step()
    state.save(tmp_path, progress(1), model.state_dict(), optimizer)
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    other, fresh = learner(kind, **settings)
    other.load_state_dict(dict(saved.model))
    state.restore_optimizer(fresh, saved.optimizer, saved.settings)
    for seed in range(3, 6):
        step(model, optimizer, seed)
        step(other, fresh, seed)
    for parameter in other[0].parameters():
        memory = fresh.state[parameter].get("exp_avg", parameter)
        assert memory.stride() == parameter.stride()
    assert same(other.state_dict(), model.state_dict())
    assert [type(g.get("betas")) for g in fresh.param_groups] == [type(g.get("betas")) for g in optimizer.param_groups]


def test_an_optimizer_of_other_parameters_is_refused(tmp_path: Path) -> None:
    model, optimizer = learner("AdamW")
    step(model, optimizer, 1)
    tensors, settings = state.optimizer_tensors(optimizer)
    wider = torch.optim.AdamW(
        [{"params": nn.Linear(16, 4).parameters()}, {"params": [nn.Parameter(torch.zeros(4)) for _ in range(4)]}]
    )
    with pytest.raises(RunError, match="shape of parameter 0 differs"):
        state.restore_optimizer(wider, tensors, settings)
    with pytest.raises(RunError, match="groups of parameters differs"):
        state.restore_optimizer(torch.optim.AdamW([nn.Parameter(torch.zeros(1))]), tensors, settings)


def test_no_pickle_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = learner("AdamW")
    step(model, optimizer, 1)
    state.save(tmp_path, progress(1), TENSORS, optimizer)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a pickle")

    for name in ("pickle.load", "pickle.loads", "torch.load"):
        monkeypatch.setattr(name, refuse)
    assert state.load(tmp_path).checkpoint is not None


# Torn and damaged


def saved(folder: Path, epochs: int, name: str = "last") -> None:
    """A state, moved to another of its names."""
    draft = folder / "draft"
    draft.mkdir()
    state.save(draft, progress(epochs), TENSORS, learner("SGD")[1])
    (draft / "last").rename(folder / name)
    draft.rmdir()


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"last": 4}, 4),
        ({"last.old": 3}, 3),  # killed between the two renames, the new one lost
        ({"last.old": 3, "last.partial": 4}, 4),  # killed between the two renames
        ({"last": 3, "last.partial": 4}, 4),  # killed before them
        ({"last": 4, "last.old": 3}, 4),  # killed after them
        ({}, None),
    ],
)
def test_the_newest_whole_state_is_found_and_put_in_its_place(
    there: dict[str, int], expected: int | None, tmp_path: Path
) -> None:
    for name, epochs in there.items():
        saved(tmp_path, epochs, name)
    found = state.load(tmp_path)
    assert (found.checkpoint.progress.epoch if found.checkpoint else None) == expected
    assert found.notes == ()
    assert listed(tmp_path) == ([] if expected is None else ["last"])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_state_is_reported_and_the_one_before_taken(name: str, damage: str, tmp_path: Path) -> None:
    saved(tmp_path, 4)
    saved(tmp_path, 3, "last.old")
    DAMAGES[damage](tmp_path / "last" / name)
    found = state.load(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.progress.epoch == 3
    assert f"{tmp_path / 'last'} can't be used" in found.notes[0]
    assert name.split(".")[0] in found.notes[0]


def test_with_nothing_whole_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    saved(tmp_path, 4)
    (tmp_path / "last" / "model.safetensors").unlink()
    found = state.load(tmp_path)
    assert found.checkpoint is None
    assert len(found.notes) == 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0 if path.suffix == ".json" else len(content) // 2] ^= 0x40
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "short": lambda path: path.write_bytes(path.read_bytes()[:-1] if path.suffix != ".json" else b'{"schema": 1'),
    "gone": lambda path: path.unlink(),
}


def test_a_state_of_another_schema_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    path = tmp_path / "last" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(RunError, match="isn't of schema 1"):
        state.load(tmp_path)


def test_a_full_disk_leaves_the_state_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            state.save(tmp_path, progress(2), TENSORS, learner("SGD")[1])
    found = state.load(tmp_path)
    assert found.checkpoint is not None
    assert found.checkpoint.progress.epoch == 1
    assert listed(tmp_path) == ["last"]


KILLED_WHILE_SAVING = """
import os, pathlib, random, signal, sys, time
import torch
from test_checkpoint import learner, progress, step
from zooft.run import checkpoint as state

def save_for_ever(folder, ready):
    model, optimizer = learner("AdamW")
    writer = state.CheckpointWriter(folder)
    for epoch in range(1, 10**6):
        step(model, optimizer, epoch)
        weights = {"w": torch.full((50_000,), float(epoch))}
        writer.after(progress(epoch), lambda: weights, optimizer, final=True)
        if epoch == 2:
            os.write(ready, b"!")

torch.set_num_threads(1)
step(*learner("AdamW"), 0)  # loads what each child would load
chance = random.Random(0)
for trial in range(12):
    folder = pathlib.Path(sys.argv[1]) / str(trial)
    folder.mkdir()
    reading, ready = os.pipe()
    child = os.fork()
    if not child:
        save_for_ever(folder, ready)
    os.read(reading, 1)
    time.sleep(chance.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_killed_at_any_moment_of_saving_a_whole_state_is_left(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WHILE_SAVING, tmp_path], cwd=Path(__file__).parent, check=True)
    left = sorted(tmp_path.iterdir())
    assert len(left) == 12
    for folder in left:
        saved = state.load(folder).checkpoint
        assert saved is not None
        assert torch.equal(saved.model["w"], torch.full((50_000,), float(saved.progress.epoch)))
        state.restore(folder, saved)
        assert torch.equal(weights_of(folder)["w"], saved.model["w"])


# What a run has beside it


def weights_of(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def save_epoch(writer: CheckpointWriter, epoch: int, best: int, *, final: bool = False) -> None:
    values = {"still": torch.zeros(2), "moving": torch.full((2,), float(epoch))}
    writer.after(progress(epoch, best=best), lambda: values, learner("SGD")[1], final=final)


def saving(folder: Path, epochs: list[tuple[int, int]], *, dear: set[int]) -> int:
    """Epochs and the best one so far, of which those in `dear` come too soon after a save; the epoch saved last."""
    writer = CheckpointWriter(folder, frozen=frozenset({"still"}))
    for epoch, best in epochs:
        writer._cost = 1e9 if epoch in dear else 0.0
        save_epoch(writer, epoch, best)
    saved = state.load(folder).checkpoint
    assert saved is not None
    return saved.progress.epoch


def test_the_first_and_the_last_epoch_are_always_saved(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    save_epoch(writer, 1, 1)
    writer._cost = 1e9
    save_epoch(writer, 2, 2)
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert saved.progress.epoch == 1
    save_epoch(writer, 3, 2, final=True)
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert saved.progress.epoch == 3


def test_a_best_epoch_that_was_not_saved_itself_is_published_with_the_next_save(tmp_path: Path) -> None:
    assert saving(tmp_path, [(1, 1), (2, 2), (3, 2)], dear={2}) == 3
    assert weights_of(tmp_path)["moving"].tolist() == [2.0, 2.0]
    assert weights_of(tmp_path)["still"].tolist() == [0.0, 0.0]
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert saved.model["moving"].tolist() == [3.0, 3.0]


@pytest.mark.parametrize("epochs", [[(1, 1), (2, 2)], [(1, 1), (2, 2), (3, 2)]], ids=["best-last", "best-before"])
def test_weights_that_a_kill_left_behind_the_state_are_published_again(
    epochs: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(state, "publish_best", lambda *_args, **_named: None)  # killed before it
        saving(tmp_path, epochs, dear={2} if len(epochs) == 3 else set())
    assert not (tmp_path / "model.safetensors").exists()
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    state.restore(tmp_path, saved)
    assert weights_of(tmp_path)["moving"].tolist() == [2.0, 2.0]


def test_the_best_weights_of_an_earlier_save_stay_the_run_s(tmp_path: Path) -> None:
    assert saving(tmp_path, [(1, 1), (2, 1), (3, 1)], dear=set()) == 3
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    assert saved.best is None
    state.restore(tmp_path, saved)
    assert weights_of(tmp_path)["moving"].tolist() == [1.0, 1.0]


def test_publishing_what_is_published_already_leaves_no_draft(tmp_path: Path) -> None:
    saving(tmp_path, [(1, 1)], dear=set())
    saved = state.load(tmp_path).checkpoint
    assert saved is not None
    state.restore(tmp_path, saved)
    assert sorted(listed(tmp_path)) == ["last", "metrics.jsonl", "model.safetensors"]


def test_the_curve_is_cut_back_to_the_state(tmp_path: Path) -> None:
    from zooft.run import folder as runs

    runs.write_json_lines(tmp_path / "metrics.jsonl", map(record, (1, 2, 3)))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"epoch": 4, "tr')
    saved(tmp_path, 2)
    found = state.load(tmp_path).checkpoint
    assert found is not None
    state.restore(tmp_path, found)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == lines[:2]


def test_a_file_system_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", unable)
    assert saving(tmp_path, [(1, 1)], dear=set()) == 1
    assert weights_of(tmp_path)["moving"].tolist() == [1.0, 1.0]


def test_a_last_epoch_that_is_not_whole_is_no_ground_to_go_on_from(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"can't be continued.*it isn't there.*train anew"):
        state.refuse_unfit(tmp_path)
    saved(tmp_path, 2)
    state.refuse_unfit(tmp_path)
    (tmp_path / "last" / "optimizer.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"optimizer\.safetensors isn't what was written"):
        state.refuse_unfit(tmp_path)
