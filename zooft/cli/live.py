"""Long work, drawn: steps, progress with the time left, and a row an epoch while training runs.

On standard error. Where that isn't a terminal, one plain line for each thing worth a line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zooft.storage.escapes import visible

if TYPE_CHECKING:
    from types import TracebackType

    from rich.table import Table

    from zooft.contracts import EpochRecord, Rejection

_SHOWN_REJECTIONS = 5
_FIGURES = 8
"""Of an epoch's line; a problem may have one for each of a hundred classes."""
_SHOWN_EPOCHS = 20


class Live:
    """A listener for `zooft.finetune`, to be used in a ``with`` block.

    Args:
        drawn: whether progress is drawn at all, where there is a terminal.
    """

    def __init__(self, *, drawn: bool = True) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=True, emoji=False)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._records: list[EpochRecord] = []
        self._epochs = 0
        self._tasks: list[Any] = []
        self._overall: Any = None
        self._drawn = drawn and self._console.is_terminal
        self._live = RichLive(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what goes into a file doesn't go to the terminal
        )

    def __enter__(self) -> Live:
        """Begin to draw."""
        if self._drawn:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Leave the finished table on the screen."""
        if self._drawn:
            self._live.stop()
            if self._records:
                self._console.print(self._table())

    def step(self, title: str) -> None:
        """A new step."""
        for task in self._tasks:
            self._finish(task)
        self._tasks.clear()
        self._console.print(f"[bold]{_safe(title)}[/bold]")

    def note(self, text: str) -> None:
        """A sentence."""
        self._line(f"  {_safe(text)}")

    def list_rejected(self, rejected: Sequence[Rejection]) -> None:
        """How many files, the first few by name."""
        if not rejected:
            return
        self._console.print(f"  [yellow]rejected: {len(rejected)}[/yellow] (all in the run's rejected.csv)")
        for rejection in rejected[:_SHOWN_REJECTIONS]:
            self._line(f"    {_safe(rejection.id)}: {_safe(rejection.reason)}")
        if len(rejected) > _SHOWN_REJECTIONS:
            self._line(f"    and {len(rejected) - _SHOWN_REJECTIONS} more")

    def computing(self, title: str, total: int) -> Callable[[int], None]:
        """A bar below those that aren't full yet: work may begin other work."""
        for one in self._progress.tasks:
            if one.finished and one.id != self._overall:
                self._progress.remove_task(one.id)
        task = self._progress.add_task(visible(title), total=total)
        self._tasks.append(task)

        def advance(done: int) -> None:
            if task in self._progress.task_ids:  # else the next step has begun
                self._progress.advance(task, done)

        return advance

    def epoch(self, record: EpochRecord, epochs: int) -> None:
        """A row; a first epoch begins a new table, as each fold of a cross-validation does."""
        if record.epoch == 1:
            self._records = []
        if self._overall is None:
            self._overall = self._progress.add_task("training", total=epochs)
        self._progress.advance(self._overall, 1)
        self._records.append(record)
        self._epochs = epochs
        if not self._console.is_terminal:
            self._line("  " + _safe(_line(record, epochs)))
        if record.epoch == epochs:
            self._finish(self._overall)
            self._overall = None

    def _line(self, text: str) -> None:
        """One line, which only a terminal may break."""
        self._console.print(text, highlight=False, soft_wrap=not self._console.is_terminal)

    def _finish(self, task: Any) -> None:
        if task is not None and task in self._progress.task_ids:
            self._progress.remove_task(task)

    def _render(self) -> Any:
        from rich.console import Group

        return Group(self._table(), self._progress) if self._records else self._progress

    def _table(self) -> Table:
        """The last epochs and the best one, in as many columns as the terminal has room for."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        cells = [_cells(record, self._epochs) for record in self._records]
        columns = _that_fit(list(cells[0]), self._console.width)
        table = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for column in columns:
            table.add_column(Text(visible(column)), justify="right", no_wrap=True, min_width=len(column))
        best = max(i for i, record in enumerate(self._records) if record.best)
        for index, row in enumerate(cells):
            if index == best or index >= len(cells) - _SHOWN_EPOCHS:
                table.add_row(*(Text(row[column]) for column in columns))
        return table


def _cells(record: EpochRecord, epochs: int) -> dict[str, str]:
    return {
        "epoch": f"{record.epoch}/{epochs}",
        "": "best" if record.best else "    ",
        "train loss": f"{record.train_loss:.4f}",
        "val loss": f"{record.val_loss:.4f}" if record.metrics else "",
        **{name.replace("_", " "): f"{value:.4f}" for name, value in record.metrics.items()},
        "seconds": f"{record.seconds:.1f}",
        "rate": f"{record.learning_rate:.1e}",
    }


def _that_fit(columns: list[str], width: int) -> list[str]:
    """From the left; what doesn't fit is left out whole, never cut."""
    fitting: list[str] = []
    used = 2
    for column in columns:
        used += max(len(column), 7) + 3
        if used > width and len(fitting) > 4:
            break
        fitting.append(column)
    return fitting


def _line(record: EpochRecord, epochs: int) -> str:
    parts = [f"train loss {record.train_loss:.4f}"]
    if record.metrics:  # none where all samples are trained on
        parts.append(f"val loss {record.val_loss:.4f}")
        figures = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in record.metrics.items()]
        more = len(figures) - _FIGURES
        parts += [*figures[:_FIGURES], f"{more} more figures"] if more > 1 else figures
    parts.append(f"{record.seconds:.1f} s")
    if record.best:
        parts.append("best" if record.epoch == epochs else "best so far")
    return f"epoch {record.epoch}/{epochs}: {', '.join(parts)}"


def _safe(text: str) -> str:
    """Names of files and metrics may hold what rich takes for markup, or a terminal for an order."""
    from rich.markup import escape

    return escape(visible(text))
