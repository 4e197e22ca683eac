"""What a file's columns are by its own description: which one holds the images, and whose numbers have names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_parquet.files import File, find

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_IMAGE_NAMES = ("image", "img", "picture")
_HEAD = b"PAR1"


def columns(path: Path) -> list[zooft.Column]:
    """All but the images', as the first whole file has them.

    Raises:
        DataError: no file is whole, none has a column of images, or files that name classes in different ways.
    """
    known: list[zooft.Column] = []
    faults = []
    for found in find(path):
        try:
            description = open_file(found.file).schema_arrow
        except zooft.DataError as error:
            faults.append(f"{found.name}: {error}")
            continue
        image = image_column(description, found.name)
        ours = _columns(description, image)
        _refuse_other_categories(path, known, ours, found.name)
        known = known or ours
    if not known and faults:
        raise zooft.DataError(f"{path}: no Parquet file that can be read; {faults[0]}")
    return known


def open_file(file: File) -> pq.ParquetFile:
    """A file whose description was read.

    Raises:
        DataError: pyarrow isn't installed, or it isn't a whole Parquet file; the message is the reason alone.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise zooft.DataError("Parquet needs pyarrow: pip install 'zooft[parquet]'") from None
    try:
        with Path(file.path).open("rb") as start:
            head = start.read(len(_HEAD))
        if head != _HEAD:
            raise zooft.DataError(f"isn't a Parquet file: it begins with {head!r}" if head else "an empty file")
        # buffered, so that a column is read piece by piece, however large its row group is
        return pq.ParquetFile(file.path, buffer_size=2**20, pre_buffer=False)
    except pa.ArrowException as error:
        raise zooft.DataError(f"isn't a whole Parquet file: it may have been cut off ({first_line(error)})") from error
    except OSError as error:
        raise zooft.DataError(f"can't be read: {error.strerror or first_line(error)}") from error


def image_column(description: pa.Schema, name: str) -> str:
    """The column with the images: declared as such, or called so, or the only one that holds bytes.

    Args:
        description: of the file.
        name: of the file, for messages.

    Raises:
        DataError: none, or more than one.
    """
    declared = [key for key, feature in _features(description).items() if feature.get("_type") == "Image"]
    usable = [field.name for field in description if _may_hold_images(field.type)]
    by_name = [key for key in _IMAGE_NAMES if key in usable]
    binary = [key for key in usable if not _is_text(description.field(key).type)]
    found = [key for key in declared if key in usable]
    if len(found) != 1:
        found = by_name[:1] or found or binary
    if len(found) == 1:
        return found[0]
    having = ", ".join(f"{field.name} ({field.type})" for field in description) or "none"
    what = f"several columns may hold the images: {', '.join(found)}" if found else "no column holds images"
    raise zooft.DataError(
        f"{name}: {what}; its columns are {having}. Call one image: bytes of an image's file, a struct of bytes and "
        "path, or a path"
    )


def leaves(description: pa.Schema, column: str) -> list[str]:
    """What of the images' column is read: of a struct the bytes and the path."""
    import pyarrow as pa

    kind = description.field(column).type
    inner = [field.name for field in kind] if pa.types.is_struct(kind) else []
    return [f"{column}.{key}" for key in ("bytes", "path") if key in inner] or [column]


def _columns(description: pa.Schema, image: str) -> list[zooft.Column]:
    features = _features(description)
    return [
        zooft.Column(name=field.name, categories=_categories(features.get(field.name, {})))
        for field in description
        if field.name != image
    ]


def _features(description: pa.Schema) -> Mapping[str, Mapping[str, Any]]:
    """What Hugging Face's datasets writes into a file's description.

    Nothing where that isn't there, or isn't of its form.
    """
    try:
        found = json.loads((description.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _categories(feature: Mapping[str, Any]) -> tuple[str, ...]:
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _may_hold_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind) or _is_text(kind)


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _refuse_other_categories(path: Path, known: list[zooft.Column], ours: list[zooft.Column], name: str) -> None:
    names = {column.name: column.categories for column in known}
    for column in ours:
        if names.get(column.name, column.categories) != column.categories:
            raise zooft.DataError(
                f"{path}: {name} names the numbers of the column {column.name} otherwise than the files before it, "
                f"{', '.join(column.categories) or 'not at all'} and {', '.join(names[column.name]) or 'not at all'}; "
                "write them alike"
            )


def first_line(error: BaseException) -> str:
    """Of an error of pyarrow, which may have many."""
    return str(error).strip().partition("\n")[0]
