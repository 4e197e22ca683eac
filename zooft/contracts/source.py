"""Where a task's images and their targets may lie besides files and folders, as types that a plugin fills in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts.data import Rejection, SplitName

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a data source knows of each image besides its pixels, such as its label.

    Attributes:
        name: of the column.
        categories: names of the whole numbers 0, 1, … that the column holds, in their order; empty where its values
            stand for themselves.
    """

    name: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One image of a data source, and what is known of it.

    Attributes:
        id: what run files call it, such as ``train.parquet/17``; the same each time, and of one row alone.
        content: what `Source.content` takes to give the image; opaque to the task. Small, and such as `pickle` takes,
            since loader processes read too.
        values: column to what it holds: text, a number, True or False, a list of those, or None where it is empty.
        split: where the source itself defines it, such as by a file's name. A column may do so too: the task reads it.
    """

    id: str
    content: Any
    values: Mapping[str, Any] = field(default_factory=dict)
    split: SplitName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A form of data for every task that reads images: ``--data PATH``. Must not import torch.

    Attributes:
        name: of the form, for `zooft plugins` and messages.
        summary: one line.
        recognises: whether a file or folder is of this form, by names and first bytes; cheap, and False where in doubt.
        columns: those that the task may ask for, by the form's own description of itself; not the image's.
        rows: ``(path, columns)`` to every image in order, with the values of these columns, one at a time; a Rejection
            for what can't be used.
        content: from a row's `content`, the bytes of an image's file, or decoded levels ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` or ``(H, W, 4)`` uint8, or grey ones uint16; several threads may call it at once. What can't
            be read any more is a DataError whose message is the reason alone.
    """

    name: str
    summary: str
    recognises: Callable[[Path], bool]
    columns: Callable[[Path], Sequence[Column]]
    rows: Callable[[Path, Sequence[str]], Iterator[Row | Rejection]]
    content: Callable[[Any], bytes | NDArray[Any]]
