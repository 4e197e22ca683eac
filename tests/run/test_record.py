"""run.json: written and read with all that it holds, and refused in words where it can't be."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from example_data import REPOSITORY
from run_records import data_record, run_record

from zooft.compute.resources import Resources
from zooft.contracts import PrunedSizes
from zooft.errors import RunError
from zooft.problems.classification.calibration import Calibration
from zooft.problems.classification.evaluation import calibration_of
from zooft.run.folder import claim
from zooft.run.record import (
    READABLE,
    SCHEMA,
    PrunedRecord,
    ResolvedRecord,
    RunRecord,
    TrialRecord,
    is_run,
    read_record,
    update_record,
    write_record,
)
from zooft.runtime import schemas
from zooft.version import __version__

FULL = run_record(
    options={"formats": ["PNG", "JPEG"], "limit": None},
    notes=("a note", "á"),
    data=data_record(path="/some/where"),
    resolved=ResolvedRecord(batch_size=32, lr=0.01, weight_decay=0, views=None, precision={"3": {"dtype": "float32"}}),
    trials=(TrialRecord(lr=0.01, weight_decay=0.1, views=4, epoch=2, primary=None, val_loss=0.5),),
    fitted={"temperature": 1.5, "threshold": 0.4, "fitted_on": "the validation samples"},
    evaluation={
        "val": {
            "metrics": {"auroc": {"value": None, "low": None, "high": None}},
            "samples": 40,
            "details": {"threshold": 0.4},
        }
    },
    best_epoch=2,
    resources=Resources(seconds={"training": 3.5}, peak_memory_mb=None),
    profile={"parts": []},
    resumed=2,
    ended_at=(2, 4),
    pruned=PrunedRecord(
        ratio=0.3,
        sizes=PrunedSizes(
            tensors={"conv1.weight": (12, 3, 3, 3)},
            attributes={"conv1": {"out_channels": 12}, "norm": {"shape": (12,)}},
        ),
        groups=1,
        whole=2,
        before=16,
        after=12,
        gate={"drop": 0.01, "drop_low": None},
        table={"original": {"parameters": 5}},
    ),
)


def written(folder: Path, **changes: Any) -> Path:
    """A folder whose record has other values than it was written with."""
    write_record(folder, FULL)
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("record", [run_record(), FULL], ids=["begun", "finished"])
def test_a_record_is_read_as_it_was_written(record: RunRecord, tmp_path: Path) -> None:
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_what_becomes_known_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    write_record(tmp_path, run_record())
    update_record(tmp_path, best_epoch=3)
    update_record(tmp_path, fitted={"temperature": 2.0})
    assert read_record(tmp_path) == run_record(best_epoch=3, fitted={"temperature": 2.0})


def test_a_figure_that_is_undefined_is_null(tmp_path: Path) -> None:
    trial = TrialRecord(lr=0.1, weight_decay=0, views=0, epoch=1, primary=float("nan"), val_loss=float("inf"))
    write_record(tmp_path, run_record(trials=(trial,)))
    assert "NaN" not in (tmp_path / "run.json").read_text()
    assert read_record(tmp_path).trials == (dataclasses.replace(trial, primary=None, val_loss=None),)


def test_what_was_fitted_is_read_or_else_the_model_as_it_is() -> None:
    assert calibration_of(run_record().fitted) == Calibration()
    expected = Calibration(temperature=1.5, threshold=0.4, fitted_on="the validation samples")
    assert calibration_of(FULL.fitted) == expected
    with pytest.raises(RunError, match=r"fitted is damaged.*'heat'"):
        calibration_of({"heat": 1})


def test_a_split_that_was_not_evaluated_has_no_figures() -> None:
    assert FULL.figures("val")["samples"] == 40
    assert FULL.figures("test") == {}


# Other schemas


def test_a_record_of_schema_2_is_read_under_the_names_of_today(tmp_path: Path) -> None:
    write_record(tmp_path, FULL)
    values = json.loads((tmp_path / "run.json").read_text())
    # as zooft wrote it before: nothing stood there before it was known, and all problems were classification
    new = {"resolved", "profile", "problem", "labels", "fitted"}
    old = {name: value for name, value in values.items() if name not in new} | {
        "schema": 2,
        "settled": values["resolved"],
        "classes": ["no", "yes"],
        "positive": "yes",
        "calibration": values["fitted"],
    }
    data = old["data"]
    old["data"] = data | {"group_score": data.pop("group_rule"), "classes": data.pop("counts")}
    figures = old["evaluation"]["val"]
    figures |= figures.pop("details")
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert read_record(tmp_path) == dataclasses.replace(FULL, profile=None)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"schema": 1},
            r"is of schema 1, and this zooft \S+ reads schema 2 and 3; zooft 0\.1 wrote it and reads it: use",
        ),
        ({"schema": 9, "zooft": "7.5"}, r"is of schema 9 of zooft 7\.5, and this zooft \S+ reads .*; update zooft"),
        ({"schema": "3"}, "has no schema number"),
        ({"schema": None}, "has no schema number"),
    ],
    ids=["older", "newer", "text", "none"],
)
def test_a_record_of_another_schema_says_which_zooft_reads_it(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=reason) as caught:
        read_record(written(tmp_path, **changes))
    assert str(tmp_path / "run.json") in str(caught.value)


def test_the_schema_that_is_written_is_readable() -> None:
    assert max(READABLE) == SCHEMA
    assert __version__ not in schemas._WRITERS.values()


# Damage


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": None}, r"task: input should be a valid string, found null"),
        ({"labels": [{"categories": ["a", 3]}]}, r"labels\.0\.categories\.1: input should be a valid string, found 3"),
        ({"labels": [{"categories": "ab"}]}, r"labels\.0\.categories: .*found \"ab\""),
        ({"surprise": 1}, "surprise: unexpected keyword argument, found 1"),
        ({"best_epoch": "2"}, 'best_epoch: .*found "2"'),
        ({"data": {}}, r"data\.fingerprint: field required;"),
        ({"backbone": 3}, "backbone: .*found 3"),
        ({"evaluation": {"val": 3}}, r"evaluation\.val: .*found 3"),
    ],
    ids=str,
)
def test_a_damaged_record_names_the_field(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"is damaged: {reason}") as caught:
        read_record(written(tmp_path, **changes))
    assert "train again" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{torn", "can't be read"),
        (b"", "can't be read"),
        (b'{"schema": "\xff"}', "can't be read"),
        (b"[1, 2]", "has no schema number"),
        (b"{}", "has no schema number"),
    ],
    ids=["torn", "empty", "not-utf-8", "another-shape", "nothing"],
)
def test_a_file_that_is_no_record_is_refused_by_its_path(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert not is_run(tmp_path)
    with pytest.raises(RunError, match=reason) as caught:
        read_record(tmp_path)
    assert str(tmp_path / "run.json") in str(caught.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(RunError, match=r"isn't a run folder: it has no run\.json$"):
        read_record(tmp_path)


def test_an_incomplete_run_is_refused_as_such(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it is incomplete"):
        read_record(claim(tmp_path / "mine", task="classification", model="tiny").path)


def test_a_run_is_distinguished_from_other_folders(tmp_path: Path) -> None:
    assert is_run(written(tmp_path))
    assert not is_run(written(tmp_path, schema=1))


# What surrounds it


def test_every_field_is_documented() -> None:
    text = (REPOSITORY / "docs" / "runs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE)
    assert [name for name in fields(RunRecord) if name not in rows] == []


def fields(kind: type[Any], prefix: str = "") -> list[str]:
    """Its fields and those of its parts, dotted."""
    hints = typing.get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        kinds = (hints[field.name], *typing.get_args(hints[field.name]))
        part = next((each for each in kinds if dataclasses.is_dataclass(each)), None)
        own = f"{prefix}{field.name}"
        found += fields(part, f"{own}.") if isinstance(part, type) else [own]
    return found


def test_the_record_s_module_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "pydantic"]
    code = f"import sys, zooft.run.record; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
