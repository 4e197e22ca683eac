"""What a command is about: a run folder or an ONNX file, named or the latest; opened the same way everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click

from zooft.cli.screen import echo
from zooft.config import Provider
from zooft.errors import DataError
from zooft.run import folder as runs
from zooft.run.record import is_run, read_record

provider_flag = click.option(
    "--provider",
    type=click.Choice(get_args(Provider)),
    default="auto",
    show_default=True,
    help="onnxruntime execution provider; auto takes CUDA where it works",
)
data_flag = click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="folder, manifest or what a data source reads [default: the run's own, where it records it]",
)


@dataclass(frozen=True, slots=True)
class ModelArgument:
    """A run folder, an ONNX file, or both.

    Attributes:
        run: the run folder; None for a file outside of one.
        file: the ONNX file that was named; None where a run was.
    """

    run: Path | None
    file: Path | None

    def data(self, given: Path | None) -> Path:
        """The data to evaluate on.

        Raises:
            DataError: none was given, and the run doesn't record where its own is.
        """
        found = given or self.own_data()
        if found is None:
            raise DataError(
                "it isn't known where the data is (runs of medical tasks hold no paths); give a folder or a manifest "
                "with --data"
            )
        return found

    def own_data(self) -> Path | None:
        """Where the run's data was, if it is recorded and still there."""
        if self.run is None:
            return None
        path = read_record(self.run).data.path
        return Path(path) if path and Path(path).exists() else None


def find(path: Path | None) -> ModelArgument:
    """A run folder or an ONNX file by its path; the latest run for None."""
    if path is None:
        path = runs.latest()
        echo(f"the latest run: {path}", err=True)
    if path.suffix != ".onnx":
        read_record(path)
        return ModelArgument(run=path, file=None)
    return ModelArgument(run=path.parent if is_run(path.parent) else None, file=path)
