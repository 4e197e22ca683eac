"""What a command is about: a run, a file or both, and where the data to evaluate them on is."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_records import data_record, run_record

from zooft.cli import model_argument
from zooft.errors import DataError, RunError
from zooft.run.record import write_record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Whose data was in a folder beside it."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    write_record(tmp_path / "runs" / "one", run_record(data=data_record(path=str(tmp_path / "data"))))
    (tmp_path / "runs" / "one" / "model.onnx").touch()
    return tmp_path / "runs" / "one"


def test_a_run_is_named_by_its_folder_and_a_file_within_it_belongs_to_it(run: Path, tmp_path: Path) -> None:
    assert model_argument.find(run) == model_argument.ModelArgument(run=run, file=None)
    assert model_argument.find(run / "model.onnx") == model_argument.ModelArgument(run=run, file=run / "model.onnx")
    assert model_argument.find(tmp_path / "model.onnx") == model_argument.ModelArgument(
        run=None, file=tmp_path / "model.onnx"
    )


def test_without_a_name_it_is_the_latest_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parents[1])
    (run.parent / ".latest").write_text("one\n")
    found = model_argument.find(None)
    assert found.run is not None
    assert found.run.samefile(run)
    assert capsys.readouterr().err.startswith("the latest run: runs/one")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="isn't a run folder"):
        model_argument.find(tmp_path)


def test_the_data_is_what_is_given_else_the_run_s_own_as_long_as_it_is_there(run: Path, tmp_path: Path) -> None:
    chosen = model_argument.find(run / "model.onnx")
    assert chosen.data(Path("other")) == Path("other")
    assert chosen.data(None) == tmp_path / "data"
    (tmp_path / "data").rmdir()
    with pytest.raises(DataError, match="isn't known where the data is"):
        chosen.data(None)


def test_a_file_by_itself_says_nothing_of_data(tmp_path: Path) -> None:
    chosen = model_argument.find(tmp_path / "model.onnx")
    assert chosen.own_data() is None
    with pytest.raises(DataError, match="give a folder or a manifest with --data"):
        chosen.data(None)
