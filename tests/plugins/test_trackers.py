"""TensorBoard and MLflow: what their own libraries read back of runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from example_data import write_classes
from listeners import finetune, listening

import zooft
import zooft_mlflow
import zooft_tensorboard
from zooft import testing
from zooft.errors import DivergedError
from zooft.run import checkpoint

mlflow = pytest.importorskip("mlflow", reason="pip install 'zooft[mlflow]'")
accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'zooft[tensorboard]'"
)

pytestmark = [
    # MLflow's own queries use an option that the newest SQLAlchemy wants to do without
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    # of its database's connections, which MLflow keeps for the life of the process
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
]
DIVERGES = {"lr": 1e30, "optimizer": "sgd", "schedule": "constant", "warmup": 0}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "data", {"dark": 9, "light": 8})


@pytest.fixture
def requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Both are switched on, and write below one folder."""
    monkeypatch.setenv("ZOOFT_TENSORBOARD", str(tmp_path / "curves"))
    monkeypatch.setenv("ZOOFT_MLFLOW", "lamps")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield tmp_path
    mlflow.set_tracking_uri(before)


def trackers() -> tuple[object, object]:
    return zooft_tensorboard.Tracker(), zooft_mlflow.Tracker()


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of one folder of event files."""
    read = accumulator.EventAccumulator(str(folder), purge_orphaned_data=False)
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def texts(folder: Path) -> dict[str, str]:
    read = accumulator.EventAccumulator(str(folder))
    read.Reload()
    tags = [tag for tag in read.Tags()["tensors"] if tag.endswith("/text_summary")]
    return {
        tag.removesuffix("/text_summary"): read.Tensors(tag)[-1].tensor_proto.string_val[0].decode() for tag in tags
    }


def only_run() -> Any:
    """The one that MLflow has."""
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("lamps").experiment_id])
    return found


def history(run: Any, key: str) -> list[tuple[int, float]]:
    found = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in found)


def recorded(folder: Path, name: str) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(record["epoch"], record[name]) for record in map(json.loads, lines)]


def test_every_epoch_and_every_figure_is_what_the_run_s_files_say(pictures: Path, requested: Path) -> None:
    result = finetune(pictures, *trackers(), folds=2)
    shown, run = curves(requested / "curves" / "run"), only_run()
    for fold, folder in ((None, result.path), (1, result.path / "folds" / "1"), (2, result.path / "folds" / "2")):
        expected = recorded(folder, "train_loss")
        assert [step for step, _ in expected] == [1, 2]
        of_fold = shown if fold is None else curves(requested / "curves" / "run" / f"fold-{fold}")
        assert of_fold["loss/train"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
        assert history(run, "train_loss" if fold is None else f"fold-{fold}/train_loss") == expected
    assert "loss/val" not in shown, "no sample is left to validate on, and NaN is no point"

    figures = json.loads((result.path / "run.json").read_text())["evaluation"]["cross-validation"]["metrics"]
    for name, figure in figures.items():
        assert run.data.metrics[f"cross-validation/{name}"] == figure["value"]
        assert run.data.metrics[f"cross-validation/{name}-low"] == figure["low"]
        assert shown[f"cross-validation/{name}"][-1][1] == pytest.approx(figure["value"], rel=1e-6)
        assert shown[f"cross-validation/{name}-high"][-1][1] == pytest.approx(figure["high"], rel=1e-6)


def test_options_and_the_end_of_a_run_without_an_export_are_there(pictures: Path, requested: Path) -> None:
    finetune(pictures, *trackers())
    run, shown = only_run(), texts(requested / "curves" / "run")
    assert (run.info.status, run.info.run_name, "zooft.error" in run.data.tags) == ("FINISHED", "run", False)
    assert (run.data.params["epochs"], run.data.params["backbone"]) == ("2", "timm:test_resnet.r160_in1k")
    assert int(run.data.params["samples/train"]) + int(run.data.params["samples/val"]) == 17
    assert shown["status"] == "finished"
    assert "| epochs | 2 |" in shown["options"]
    assert str(requested) not in json.dumps({**run.data.params, **run.data.tags, **shown})


def test_a_run_with_a_verified_file_says_so(pictures: Path, requested: Path) -> None:
    finetune(pictures, *trackers(), export=True)
    run = only_run()
    assert (run.info.status, run.data.tags["zooft.verified"]) == ("FINISHED", "passed")


def test_a_failed_run_is_failed_with_its_reason(pictures: Path, requested: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        finetune(pictures, *trackers(), **DIVERGES)
    run = only_run()
    assert (run.info.status, run.data.tags["zooft.error"]) == ("FAILED", str(caught.value))
    assert texts(requested / "curves" / "run")["status"] == f"failed: {caught.value}"


class Impatient:
    """Interrupts as Ctrl-C does, after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    @zooft.hookimpl
    def zooft_on_epoch_end(self, record: zooft.EpochRecord) -> None:
        if record.epoch == self.epochs:
            raise KeyboardInterrupt


def test_an_interrupted_run_is_killed_and_goes_on_without_points_that_come_twice(
    pictures: Path, requested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)  # the first epoch is saved, and no other before the last
    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, *trackers(), Impatient(3), epochs=5)
    killed = only_run()
    assert (killed.info.status, texts(requested / "curves" / "run")["status"]) == ("KILLED", "interrupted: interrupted")
    assert [step for step, _ in history(killed, "train_loss")] == [1, 2, 3]

    result = zooft.finetune(resume=pictures.parent / "run", registry=listening(*trackers()))
    run = only_run()
    assert (run.info.run_id, run.info.status) == (killed.info.run_id, "FINISHED")
    assert (killed.data.tags["zooft.error"], run.data.tags["zooft.error"]) == ("interrupted", "")
    expected = recorded(result.path, "train_loss")
    assert [step for step, _ in expected] == [1, 2, 3, 4, 5]
    assert history(run, "train_loss") == expected
    assert curves(requested / "curves" / "run")["loss/train"] == [
        (step, pytest.approx(value, rel=1e-6)) for step, value in expected
    ]
    assert [path.name for path in (requested / "curves").iterdir()] == ["run"]


def test_a_run_that_is_tracked_only_when_it_is_resumed_has_all_that_is_learnt_then(
    pictures: Path, requested: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SHARE", 1e-9)
    with pytest.raises(KeyboardInterrupt):
        finetune(pictures, Impatient(3), epochs=4)
    zooft.finetune(resume=pictures.parent / "run", registry=listening(*trackers()))
    assert [step for step, _ in history(only_run(), "train_loss")] == [2, 3, 4]
    assert [step for step, _ in curves(requested / "curves" / "run")["loss/train"]] == [2, 3, 4]


def test_two_runs_of_one_name_have_curves_of_their_own(pictures: Path, requested: Path) -> None:
    for folder in ("one", "two"):
        finetune(pictures, zooft_tensorboard.Tracker(), out=requested / folder / "run", epochs=1)
    assert [len(curves(requested / "curves" / name)["loss/train"]) for name in ("run", "run-2")] == [1, 1]


def test_what_a_request_could_not_bring_the_next_one_brings(
    pictures: Path, requested: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right, calls = mlflow.MlflowClient.log_batch, []

    def flaky(self: Any, run_id: str, **parts: Any) -> None:
        calls.append(parts)
        if len(calls) == 2:  # the first epoch; the first call of all brings the options
            raise mlflow.exceptions.MlflowException("no connection")
        right(self, run_id, **parts)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", flaky)
    result = finetune(pictures, zooft_mlflow.Tracker())
    assert [r.getMessage() for r in caplog.records if r.name == "zooft" and r.levelname == "WARNING"] == [
        "the plugin listener0 failed in zooft_on_epoch_end: MlflowException: no connection"
    ]
    assert history(only_run(), "train_loss") == recorded(result.path, "train_loss")


# Switched off


def test_unless_configured_they_do_nothing_and_load_nothing(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("ZOOFT_TENSORBOARD", raising=False)
    monkeypatch.delenv("ZOOFT_MLFLOW", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{pictures.parent / 'mlflow.db'}")
    result = finetune(pictures, *trackers(), epochs=1)
    assert not [path.name for path in result.path.iterdir() if path.name in {"mlflow.txt", "tensorboard.txt"}]
    assert sorted(path.name for path in pictures.parent.iterdir()) == [".latest", "data", "run"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("variable", "module", "tracker"),
    [
        ("ZOOFT_TENSORBOARD", "torch.utils.tensorboard", zooft_tensorboard.Tracker()),
        ("ZOOFT_MLFLOW", "mlflow", zooft_mlflow.Tracker()),
    ],
)
def test_where_the_extra_is_missing_the_warning_says_how_it_is_installed(
    variable: str, module: str, tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setitem(sys.modules, module, None)
    started = zooft.RunStarted(name="run", config={}, counts={}, resumed=False, epochs_done=0)
    extra = variable.removeprefix("ZOOFT_").lower()
    with pytest.raises(zooft.ConfigError, match=rf"{variable} is set and .* pip install 'zooft\[{extra}\]'"):
        tracker.zooft_on_start(run=tmp_path, started=started)
    tracker.zooft_on_end(run=tmp_path, ended=zooft.RunEnded(status="failed", error="", folder=None))


@pytest.mark.parametrize("tracker", [zooft_tensorboard.plugin, zooft_mlflow.plugin], ids=["tensorboard", "mlflow"])
def test_they_pass_the_conformance_kit_switched_on(tracker: object, requested: Path) -> None:
    testing.check_plugin(tracker, folder=requested)
