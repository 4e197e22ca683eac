"""Events that plugins get of a run: an end for every beginning, folds apart, repeated epochs marked."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from example_data import write_classes
from listeners import finetune, listening

import zooft
from zooft.errors import DivergedError, VerificationError
from zooft.run import checkpoint


class Tracker:
    """A plugin that records all events, and does something at one of them."""

    def __init__(self, at: str = "", act: Callable[..., None] | None = None) -> None:
        self.heard = list[tuple[str, dict[str, Any]]]()
        self.at, self.act = at, act

    def hear(self, event: str, **facts: Any) -> None:
        self.heard.append((event, facts))
        if event == self.at and self.act is not None:
            self.act(**facts)

    @zooft.hookimpl
    def zooft_on_start(self, run: Path, samples: int, started: zooft.RunStarted) -> None:
        self.hear("start", run=run, samples=samples, started=started)

    @zooft.hookimpl
    def zooft_on_epoch_end(self, run: Path, record: zooft.EpochRecord, fold: int | None, repeated: bool) -> None:
        self.hear("epoch", run=run, record=record, fold=fold, repeated=repeated)

    @zooft.hookimpl
    def zooft_on_evaluated(self, run: Path, evaluated: zooft.RunEvaluated) -> None:
        self.hear("evaluated", run=run, evaluated=evaluated)

    @zooft.hookimpl
    def zooft_on_exported(self, run: Path, model: Path) -> None:
        self.hear("exported", run=run, model=model)

    @zooft.hookimpl
    def zooft_on_verified(self, run: Path, verification: zooft.Verification) -> None:
        self.hear("verified", run=run, verification=verification)

    @zooft.hookimpl
    def zooft_on_end(self, run: Path, ended: zooft.RunEnded) -> None:
        self.hear("end", run=run, ended=ended)

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.heard]

    def last(self, event: str) -> dict[str, Any]:
        return [facts for name, facts in self.heard if name == event][-1]

    @property
    def epochs(self) -> list[tuple[int | None, int, bool]]:
        return [(f["fold"], f["record"].epoch, f["repeated"]) for name, f in self.heard if name == "epoch"]


def interrupt(**_facts: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", {"dark": 9, "light": 8})


def test_a_run_is_announced_from_its_options_to_its_final_folder(pictures: Path) -> None:
    tracker = Tracker()
    result = finetune(pictures, tracker)
    assert tracker.events == ["start", "epoch", "epoch", "evaluated", "end"]
    assert {facts["run"] for _, facts in tracker.heard} == {pictures.parent / "run.incomplete"}
    assert tracker.last("end")["ended"] == zooft.RunEnded(status="finished", error="", folder=result.path)

    started = tracker.last("start")["started"]
    assert (started.name, started.resumed, started.epochs_done) == ("run", False, 0)
    totals = [sum(split[name] for split in started.counts.values()) for name in ("dark", "light")]
    assert totals == [9, 8]
    assert (started.config["epochs"], started.config["backbone"]) == (2, "timm:test_resnet.r160_in1k")
    assert str(pictures.parent) not in json.dumps(dict(started.config))


def test_what_is_announced_are_the_figures_that_the_run_s_record_has(pictures: Path) -> None:
    tracker = Tracker()
    result = finetune(pictures, tracker)
    evaluated = tracker.last("evaluated")["evaluated"]
    recorded = json.loads((result.path / "run.json").read_text())["evaluation"]["val"]["metrics"]
    heard = {name: {"value": f.value, "low": f.low, "high": f.high} for name, f in evaluated.figures["val"].items()}
    assert heard == recorded
    assert evaluated.best_epoch == result.best_epoch


def test_folds_are_distinguished(pictures: Path) -> None:
    tracker = Tracker()
    finetune(pictures, tracker, folds=2)
    assert tracker.epochs == [
        (1, 1, False),
        (1, 2, False),
        (2, 1, False),
        (2, 2, False),
        (None, 1, False),
        (None, 2, False),
    ]
    assert list(tracker.last("evaluated")["evaluated"].figures) == ["cross-validation"]


def test_an_interrupted_run_ends_as_that_and_says_what_it_left(pictures: Path) -> None:
    tracker = Tracker("epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, tracker)
    assert tracker.events == ["start", "epoch", "end"]
    left = zooft.RunEnded(status="interrupted", error="interrupted", folder=pictures.parent / "run.incomplete")
    assert tracker.last("end")["ended"] == left


def test_epochs_that_were_announced_but_not_saved_are_marked_when_they_come_again(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)  # the first epoch is saved, and no other before the last

    def impatient(record: zooft.EpochRecord, **_facts: Any) -> None:
        if record.epoch == 3:
            raise KeyboardInterrupt

    before, after = Tracker("epoch", impatient), Tracker()
    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, before, epochs=5)
    zooft.finetune(resume=pictures.parent / "run", registry=listening(after))
    assert before.epochs == [(None, 1, False), (None, 2, False), (None, 3, False)]
    assert after.epochs == [(None, 2, True), (None, 3, True), (None, 4, False), (None, 5, False)]
    started = after.last("start")["started"]
    assert (started.resumed, started.epochs_done) == (True, 3)
    first, again = (
        [f["record"] for name, f in tracker.heard if name == "epoch" and f["record"].epoch in (2, 3)]
        for tracker in (before, after)
    )
    assert [record.train_loss for record in first] == [record.train_loss for record in again]


def test_of_a_resumed_fold_the_epochs_of_before_are_marked(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)

    def impatient(record: zooft.EpochRecord, fold: int | None, **_facts: Any) -> None:
        if (record.epoch, fold) == (2, 2):
            raise KeyboardInterrupt

    before, after = Tracker("epoch", impatient), Tracker()
    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, before, epochs=3, folds=2)
    zooft.finetune(resume=pictures.parent / "run", registry=listening(after))
    assert after.epochs == [(2, 2, True), (2, 3, False), *((None, epoch, False) for epoch in (1, 2, 3))]


def test_epochs_that_a_finished_run_goes_on_with_are_new(pictures: Path) -> None:
    result, tracker = finetune(pictures), Tracker()
    zooft.finetune(resume=result.path, epochs=3, out=pictures.parent / "longer", registry=listening(tracker))
    assert tracker.epochs == [(None, 3, False)]
    assert tracker.last("start")["started"].epochs_done == 2


def test_a_failed_run_ends_with_the_reason(pictures: Path) -> None:
    tracker = Tracker()
    with pytest.raises(DivergedError):
        finetune(pictures, tracker, lr=1e30, optimizer="sgd", schedule="constant", warmup=0)
    ended = tracker.last("end")["ended"]
    assert (ended.status, ended.folder) == ("failed", None)
    assert "the loss became" in ended.error.lower() or "loss became" in ended.error


def test_a_run_that_never_began_has_no_end(pictures: Path) -> None:
    tracker = Tracker()
    with pytest.raises(zooft.DataError):
        finetune(pictures / "nowhere", tracker)
    assert tracker.heard == []


def test_a_file_that_cannot_be_verified_fails_the_run_which_is_whole(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from zooft.deploy import saved

    right = saved.verify_file
    monkeypatch.setattr(
        saved, "verify_file", lambda *a, **k: replace(right(*a, **k), passed=False, failures=("logits differ",))
    )
    tracker = Tracker()
    with pytest.raises(VerificationError):
        finetune(pictures, tracker, export=True)
    assert tracker.events == ["start", "epoch", "epoch", "evaluated", "exported", "verified", "end"]
    ended = tracker.last("end")["ended"]
    assert (ended.status, ended.folder) == ("failed", pictures.parent / "run")
    assert "logits differ" in ended.error


def test_of_private_tasks_an_error_s_text_isn_t_passed_on() -> None:
    from zooft.pipeline.events import RunEvents
    from zooft.run.folder import WorkingFolder

    tracker = Tracker()
    events = RunEvents(listening(tracker), WorkingFolder(Path("none.incomplete"), Path("none")), private=True)
    events.on_start(samples=1, config={}, counts={}, resumed=False)
    with pytest.raises(OSError, match="Smith"), events.until_the_end():
        raise OSError("can't read /data/Smith^John.dcm")
    assert tracker.last("end")["ended"] == zooft.RunEnded(status="failed", error="OSError", folder=None)


# Listeners that fail


def test_a_listener_that_fails_is_named_once_a_hook_and_the_others_hear_all(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    class Fails:
        @zooft.hookimpl
        def zooft_on_epoch_end(self) -> None:
            raise RuntimeError("no network")

        @zooft.hookimpl
        def zooft_on_evaluated(self) -> None:
            raise SystemExit(0)

        @zooft.hookimpl
        def zooft_on_end(self) -> None:
            raise asyncio.CancelledError

    tracker = Tracker()
    result = finetune(pictures, Fails(), tracker, epochs=3)
    assert result.path.is_dir()
    assert tracker.events == ["start", "epoch", "epoch", "epoch", "evaluated", "end"]
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and r.name == "zooft"] == [
        "the plugin listener0 failed in zooft_on_epoch_end: RuntimeError: no network",
        "the plugin listener0 failed in zooft_on_evaluated: SystemExit: 0",
        "the plugin listener0 failed in zooft_on_end: CancelledError: ",
    ]


def test_a_listener_written_for_fewer_arguments_works_unchanged(pictures: Path) -> None:
    heard = []

    class Old:
        @zooft.hookimpl
        def zooft_on_start(self, run: Path, samples: int) -> None:
            heard.append((run.name, samples))

        @zooft.hookimpl
        def zooft_on_epoch_end(self, run: Path, record: zooft.EpochRecord) -> None:
            heard.append((run.name, record.epoch))

    finetune(pictures, Old())
    assert heard == [("run.incomplete", 17), ("run.incomplete", 1), ("run.incomplete", 2)]
