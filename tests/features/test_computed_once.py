"""Whole runs over one store: what the second one doesn't compute, what a change makes it compute, and what is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from zooft import finetune
from zooft.cli import zooft as command
from zooft.pipeline.reporter import LoggingReporter

BACKBONE = "timm:test_resnet"


@dataclass
class Told(LoggingReporter):
    """What a run computed, by title, and its messages."""

    computed: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """Counts what is done."""
        self.computed.setdefault(title, 0)

        def advance(done: int) -> None:
            self.computed[title] += done

        return advance

    def note(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return example_data.write_classes(tmp_path / "pictures", {"dark": 20, "light": 20})


def run(folder: Path, out: Path, **changes: Any) -> tuple[Any, Told]:
    messages = Told()
    usual: dict[str, Any] = {
        "backbone": BACKBONE, "task": "classification", "data": folder, "weights": "random", "epochs": 2, "out": out,
        "device": "cpu", "export": False, "bootstrap": 0, "report": False, "audit": False,
    }  # fmt: skip # a table of options
    return finetune(reporter=messages, **{**usual, **changes}), messages


def lines(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def frozen(messages: Told) -> int:
    return messages.computed.get("frozen stages, once", 0)


def test_the_second_run_computes_no_frozen_stage_and_ends_the_same(pictures: Path, tmp_path: Path) -> None:
    first, messages = run(pictures, tmp_path / "first")
    again, told_again = run(pictures, tmp_path / "again")
    assert (frozen(messages), frozen(told_again)) == (40, 0)
    assert lines(first.path) == lines(again.path)
    one, other = (load_file(result.path / "model.safetensors") for result in (first, again))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_another_head_and_rate_compute_nothing_either(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "first")
    assert frozen(run(pictures, tmp_path / "again", lr=1e-3, seed=0, epochs=3, schedule="constant")[1]) == 0


@pytest.mark.parametrize(
    "change",
    [{"weights": None}, {"features": "bf16"}, {"freeze": "last:1"}, {"colour": "grey"}],
    ids=["weights", "precision", "stages", "reading"],
)
def test_what_features_depend_on_makes_them_be_computed(pictures: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    first, _ = run(pictures, tmp_path / "first")
    if change.get("weights", "") is None:
        tensors = load_file(first.path / "model.safetensors")
        name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
        tensors[name][0] += 1e-3
        from safetensors.torch import save_file

        save_file(tensors, tmp_path / "other.safetensors")
        change = {"weights": str(tmp_path / "other.safetensors")}
    assert frozen(run(pictures, tmp_path / "again", **change)[1]) == 40


def test_one_changed_file_is_computed_and_no_other(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "first")
    example_data.save(pictures / "dark" / "03.png", 45, seed=999)
    assert frozen(run(pictures, tmp_path / "again")[1]) == 1


def test_moved_and_renamed_files_are_known_by_their_content(pictures: Path, tmp_path: Path) -> None:
    run(pictures, tmp_path / "first")
    moved = pictures.rename(tmp_path / "elsewhere")
    (moved / "dark" / "00.png").rename(moved / "dark" / "zz.png")
    assert frozen(run(moved, tmp_path / "again")[1]) == 0


def test_without_the_cache_nothing_is_cached_and_the_result_is_nearly_the_same(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, _ = run(pictures, tmp_path / "kept", batch_size=32)
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path / "unused"))
    plain, messages = run(pictures, tmp_path / "plain", batch_size=32, cache=False)
    assert frozen(messages) == 0
    assert not (tmp_path / "unused").exists()
    losses = [[line["val_loss"] for line in lines(result.path)] for result in (stored, plain)]
    np.testing.assert_allclose(*losses, rtol=2e-3)


def test_figures_from_cached_features_are_those_of_evaluate(pictures: Path, tmp_path: Path) -> None:
    """Which computes everything anew, in float32."""
    result, _ = run(pictures, tmp_path / "run")
    message = CliRunner().invoke(
        command, ["evaluate", str(result.path), "--data", str(pictures), "--split", "val", "--json"]
    )
    assert message.exit_code == 0, message.output
    fresh = json.loads(message.stdout)
    for name, value in result.evaluations["val"].metrics.items():
        assert fresh["metrics"][name]["value"] == pytest.approx(value.value, abs=2e-3)


def test_with_bf16_features_the_run_says_what_moved_and_evaluates_in_float32(pictures: Path, tmp_path: Path) -> None:
    result, messages = run(pictures, tmp_path / "run", features="bf16")
    assert any(note.startswith("features in bf16 differ by ") for note in messages.notes)
    assert any("of 8 answers; the figures are of float32" in note for note in messages.notes)
    assert result.evaluations["val"].metrics["accuracy"].value >= 0


def test_a_sweep_stands_in_the_record(pictures: Path, tmp_path: Path) -> None:
    result, messages = run(pictures, tmp_path / "run", sweep=True)
    record = json.loads((result.path / "run.json").read_text())
    assert len(record["trials"]) == 15
    best = max(record["trials"], key=lambda trial: (trial["primary"], -trial["val_loss"]))
    assert record["resolved"]["lr"] == best["lr"]
    assert record["resolved"]["weight_decay"] == best["weight_decay"]
    assert frozen(messages) == 40


def test_views_are_computed_once_and_chosen_by_validation(pictures: Path, tmp_path: Path) -> None:
    result, messages = run(pictures, tmp_path / "run", augment="light", epochs=4)
    record = json.loads((result.path / "run.json").read_text())
    assert [trial["views"] for trial in record["trials"]] == [0, 4]
    assert record["resolved"]["views"] in {0, 4}
    assert frozen(messages) == 8 + 32 * (1 + 4)


@pytest.mark.slow
def test_a_head_in_bags_learns_from_cached_features_too(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    result = CliRunner().invoke(command, ["demo", "ct", str(tmp_path / "ct")])
    assert result.exit_code == 0, result.output
    changes = {"task": "ct", "mode": "volume", "head": "mean", "hu_cache": "off", "augment": "none"}
    first, messages = run(tmp_path / "ct", tmp_path / "first", **changes)
    again, told_again = run(tmp_path / "ct", tmp_path / "again", **changes)
    assert frozen(messages) > 0
    assert frozen(told_again) == 0
    assert lines(first.path) == lines(again.path)


def test_thumbnails_of_the_audit_are_cached(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(pictures, tmp_path / "first", audit=True)
    from zooft.audit import thumbnails

    def read_again(*_arguments: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(thumbnails, "_thumbnail", read_again)
    again, _ = run(pictures, tmp_path / "again", audit=True)
    assert (first.path / "audit.json").read_text() == (again.path / "audit.json").read_text()


def test_a_profile_names_every_part_and_sums_to_the_whole(pictures: Path, tmp_path: Path) -> None:
    result, _ = run(pictures, tmp_path / "run", profile=True, freeze="none")
    record = json.loads((result.path / "run.json").read_text())["profile"]
    names = {part["name"] for part in record["parts"]}
    assert {
        "start-up",
        "finding the data",
        "building the model",
        "forward",
        "backward",
        "optimizer",
        "evaluation",
    } <= names
    assert result.profile is not None
    assert sum(part["wall_seconds"] for part in record["parts"]) == pytest.approx(result.profile.wall, abs=0.1)
    assert record["learning_gflop"] > 0


def test_no_report_is_written_where_the_option_is_off(pictures: Path, tmp_path: Path) -> None:
    result, _ = run(pictures, tmp_path / "run")
    assert not (result.path / "report.html").exists()


def test_nested_bars_of_the_command_line_do_not_end_a_run(tmp_path: Path) -> None:
    """A test split that isn't cached yet, and a cold sweep over views: work that begins other work."""
    folder = tmp_path / "pictures"
    for number, split in enumerate(("train", "val", "test")):
        for name, level in example_data.LEVELS.items():
            for index in range(12):
                example_data.save(folder / split / name / f"{index}.png", level, seed=1000 * number + index)
    message = CliRunner().invoke(
        command,
        [
            "finetune",
            "--backbone",
            BACKBONE,
            "--task",
            "classification",
            "--data",
            str(folder),
            "--weights",
            "random",
            "--epochs",
            "1",
            "--out",
            str(tmp_path / "run"),
            "--device",
            "cpu",
            "--no-export",
            "--bootstrap",
            "0",
            "--no-report",
            "--no-audit",
            "--augment",
            "light",
            "--sweep",
        ],
    )
    assert message.exit_code == 0, message.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(record["evaluation"]) == {"val", "test"}
    assert len(record["trials"]) == 2 + 15


def test_a_sweep_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    from zooft.errors import ConfigError

    for changes in ({"folds": 2}, {"cache": False}):
        with pytest.raises(ConfigError, match="--sweep"):
            run(tmp_path, tmp_path / "run", sweep=True, **changes)


def test_a_sweep_s_time_is_counted_where_it_goes(pictures: Path, tmp_path: Path) -> None:
    result, _ = run(pictures, tmp_path / "run", profile=True, sweep=True)
    times = {part.name: part.times for part in result.profile.parts}
    assert times["trying heads"] == 15
    assert times["frozen stages"] == 1
