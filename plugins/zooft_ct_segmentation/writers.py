"""Results of ``zooft predict``: a label volume for each series, as NIfTI or as a DICOM segmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_ct import SliceHeader, require_highdicom, write_nifti, write_segmentation
from zooft_ct_segmentation.targets import VALUE
from zooft_segmentation import MASK, write_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = tuple[zooft.Label, ...]


@dataclass(frozen=True, slots=True)
class _Series:
    """The predictions for all slices of a series.

    Attributes:
        name: salted, of the group and the series.
        labels: ``(slices, rows, columns)`` uint8, numbers of classes.
        slices: where they come from.
    """

    name: str
    labels: NDArray[np.uint8]
    slices: Sequence[Any]


def write_volumes(answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path) -> Sequence[Path]:
    """``GROUP-SERIES.nii.gz`` for each series, with the values that the training data's label volumes had.

    Raises:
        ConfigError: the folder holds something.
        DataError: some weren't written; the others are.
    """
    values = np.array([int(label.constants.get(VALUE, n)) for n, label in enumerate(labels)])
    values = values.astype(np.uint8 if values.max() < 256 else np.uint16)

    def write(series: _Series) -> Path:
        path = folder / f"{series.name}.nii.gz"
        write_nifti(path, values[series.labels], series.slices)
        return path

    return _write_all(answers, folder, write, labels)


def write_segmentations(
    answers: Iterable[zooft.FileAnswer], labels: Labels, _fitted: Any, folder: Path
) -> Sequence[Path]:
    """``GROUP-SERIES.dcm`` for each series of DICOM, which names the patient as the images do.

    Raises:
        ConfigError: the folder holds something, or highdicom is missing.
        DataError: some weren't written; the others are.
    """
    require_highdicom()
    names = {number: label.name for number, label in enumerate(labels) if number}

    def write(series: _Series) -> Path:
        slices = [one for one in series.slices if isinstance(one, SliceHeader)]
        if not slices:
            raise zooft.DataError("a DICOM segmentation is about DICOM images, and these are NIfTI; use --format nifti")
        path = folder / f"{series.name}.dcm"
        write_segmentation(path, series.labels, slices, names, "zooft ct-segmentation")
        return path

    return _write_all(answers, folder, write, labels)


def _write_all(
    answers: Iterable[zooft.FileAnswer], folder: Path, write: Callable[[_Series], Path], labels: Labels
) -> Sequence[Path]:
    if folder.exists() and any(folder.iterdir()):
        raise zooft.ConfigError(f"--out {folder} isn't empty, and nothing is overwritten; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    failures: list[str] = []
    for series in _series(answers):
        if isinstance(series, str):
            failures.append(series)
            continue
        try:
            written.append(write(series))
        except zooft.DataError as error:
            failures.append(f"{series.name}: {error}")
    if written:
        written.append(write_classes(labels, folder))
    if failures:
        raise zooft.DataError(
            f"{len(failures)} of {len(failures) + max(0, len(written) - 1)} series weren't written (any others are): "
            f"{'; '.join(failures)}"
        )
    return written


def _series(answers: Iterable[zooft.FileAnswer]) -> Iterator[_Series | str]:
    """Series by series; of one that lacks slices, what is missing."""
    for name, of_series in groupby(answers, key=_name):
        planes: dict[int, NDArray[Any]] = {}
        slices: dict[int, Any] = {}
        count = 0
        for answer in of_series:
            assert answer.sample is not None  # noqa: S101 -- the task gathers samples
            source = answer.sample.source
            planes[source.number], slices[source.number] = answer.outputs[MASK], source.middle
            count = source.count
        if len(planes) < count:
            yield f"{name}: {count - len(planes)} of its {count} slices have no prediction"
        else:
            yield _Series(name, np.stack([planes[n] for n in range(count)]), [slices[n] for n in range(count)])


def _name(answer: zooft.FileAnswer) -> str:
    group, series, *_ = answer.key.split("/")
    return f"{group}-{series}" if group != series else series
