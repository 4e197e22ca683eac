"""What a run says while it trains, where nothing can be drawn."""

from __future__ import annotations

import pytest

from zooft.cli.live import Live
from zooft.contracts import EpochRecord


def record(epoch: int, *, best: bool) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, train_loss=0.5, val_loss=0.4, metrics={"auroc": 0.75}, learning_rate=0.1, seconds=1.25, learning=("head",),
        best=best,
    )  # fmt: skip


@pytest.mark.parametrize(("epoch", "best", "end"), [(1, True, ", best so far"), (2, False, ""), (3, True, ", best")])
def test_an_epoch_is_a_line_that_says_whether_it_is_the_best(
    epoch: int, best: bool, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Live() as live:
        live.epoch(record(epoch, best=best), 3)
    assert (
        capsys.readouterr().err == f"  epoch {epoch}/3: train loss 0.5000, val loss 0.4000, auroc 0.7500, 1.2 s{end}\n"
    )
