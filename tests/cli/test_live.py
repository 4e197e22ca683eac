"""Long work on a terminal and in a log: what each shows of epochs, steps and names."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any

import pytest

import zooft
from zooft.cli import live
from zooft.cli.live import Live


def record(epoch: int, *, best: bool = False, **metrics: float) -> zooft.EpochRecord:
    return zooft.EpochRecord(
        epoch=epoch,
        train_loss=1 / epoch,
        val_loss=2 / epoch,
        metrics=metrics,
        learning_rate=0.005,
        seconds=1.25,
        learning=("head",),
        best=best,
    )


@pytest.fixture
def log() -> io.StringIO:
    """What is no terminal."""
    return io.StringIO()


class Terminal(io.StringIO):
    """One of a width."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def plain(written: io.StringIO) -> str:
    """Without what colours and moves."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.getvalue())


def test_a_log_has_one_line_for_each_epoch(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Live() as shown:
        shown.epoch(record(1, best=True, balanced_accuracy=0.5, auroc=0.25), 3)
        shown.epoch(record(2), 3)
        shown.epoch(record(3, best=True), 3)
    assert log.getvalue().splitlines() == [
        "  epoch 1/3: train loss 1.0000, val loss 2.0000, balanced accuracy 0.5000, auroc 0.2500, 1.2 s, best so far",
        "  epoch 2/3: train loss 0.5000, 1.2 s",
        "  epoch 3/3: train loss 0.3333, 1.2 s, best",
    ]


def test_a_long_line_of_a_log_is_not_broken(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Live() as shown:
        shown.note("word " * 200)
    assert len(log.getvalue().splitlines()) == 1


def test_names_act_neither_on_the_terminal_nor_as_markup(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Live() as shown:
        shown.step("[red]step[/red]")
        shown.note("\x1b[31m[link=x]a[/link]\nb :smile:")
        shown.epoch(record(1, best=True, **{"f1[bold]": 1.0}), 1)
    text = log.getvalue()
    assert "[red]step[/red]\n" in text
    assert r"\x1b[31m[link=x]a[/link]\x0ab :smile:" in text
    assert "f1[bold] 1.0000" in text


def test_the_first_rejected_are_named_and_the_others_counted(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Live() as shown:
        shown.list_rejected([zooft.Rejection(f"{n}.png", "torn") for n in range(7)])
        shown.list_rejected([])
    assert [line.strip() for line in log.getvalue().splitlines()] == [
        "rejected: 7 (all in the run's rejected.csv)",
        *(f"{n}.png: torn" for n in range(5)),
        "and 2 more",
    ]


def test_on_a_terminal_the_last_epochs_and_the_best_one_remain(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal), Live() as shown:
        for epoch in range(1, 31):
            shown.epoch(record(epoch, best=epoch == 4, accuracy=0.01 * epoch), 30)
    rows = re.findall(r"^\s+(\d+)/30\s", plain(terminal).rpartition("train loss")[2], re.MULTILINE)
    assert [int(row) for row in rows] == [4, *range(11, 31)]
    (best,) = [line for line in plain(terminal).rpartition("train loss")[2].splitlines() if "best" in line]
    assert best.split()[0] == "4/30"


def test_a_cross_validation_s_folds_have_a_table_each(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal), Live() as shown:
        for epoch in (1, 2, 1):
            shown.epoch(record(epoch, best=True), 2)
    assert re.findall(r"(\d)/2\s", plain(terminal).rpartition("train loss")[2]) == ["1"]


def test_what_is_not_drawn_leaves_a_terminal_alone(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal), Live(drawn=False) as shown:
        shown.computing("files", 3)(1)
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("width", [40, 80, 120, 400])
def test_columns_are_left_out_whole_from_the_right(width: int) -> None:
    columns = ["epoch", "", "train loss", "val loss", *(f"metric {n}" for n in range(12)), "seconds", "rate"]
    found = live._that_fit(columns, width)
    assert found == columns[: len(found)]
    assert len(found) >= 5
    taken = 2 + sum(max(len(name), 7) + 3 for name in found)
    assert taken <= width or len(found) == 5
    if len(found) < len(columns):
        assert taken + max(len(columns[len(found)]), 7) + 3 > width


def test_work_that_is_done_makes_room_and_late_words_of_it_do_no_harm(log: io.StringIO) -> None:
    with contextlib.redirect_stderr(log), Live() as shown:
        first: Any = shown.computing("first", 2)
        first(2)
        second: Any = shown.computing("second", 2)
        names = [task.description for task in shown._progress.tasks]
        assert names == ["second"]
        shown.step("another step")
        second(1)
        assert shown._progress.tasks == []
