"""What columns are by datasets' own description: which one holds the images, and whose numbers have names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zooft
from zooft_hf_datasets.folder import Part, parts

_IMAGE_NAMES = ("image", "img", "picture")


def columns(path: Path) -> list[zooft.Column]:
    """All but the images'.

    Raises:
        DataError: a description that can't be read, no column of images, or splits that name classes in different ways.
    """
    known: list[zooft.Column] = []
    for part in parts(path):
        image = image_column(part)
        ours = [
            zooft.Column(name=name, categories=_categories(kind))
            for name, kind in part.features.items()
            if name != image
        ]
        names = {column.name: column.categories for column in known}
        for column in ours:
            if names.get(column.name, column.categories) != column.categories:
                raise zooft.DataError(
                    f"{path}: the split {part.name} names the numbers of the column {column.name} otherwise than "
                    f"{parts(path)[0].name}: {', '.join(column.categories) or 'not at all'} and "
                    f"{', '.join(names[column.name]) or 'not at all'}; save them alike"
                )
        known = known or ours
    return known


def image_column(part: Part) -> str:
    """The column with the images: the one that is declared as such; of several the one that is called so.

    Raises:
        DataError: none, or more than one.
    """
    found = [name for name, kind in part.features.items() if kind.get("_type") == "Image"]
    if len(found) > 1:
        found = [name for name in _IMAGE_NAMES if name in found][:1] or found
    if len(found) == 1:
        return found[0]
    having = ", ".join(f"{name} ({_kind(kind)})" for name, kind in part.features.items()) or "none"
    what = (
        f"several columns hold images: {', '.join(found)}; call one image" if found else "no column is a datasets.Image"
    )
    raise zooft.DataError(
        f"{part.files[0].parent}: {what}; the columns are {having}. cast_column('NAME', datasets.Image()) declares one"
    )


def _categories(kind: Mapping[str, Any]) -> tuple[str, ...]:
    names = kind.get("names") if kind.get("_type") == "ClassLabel" else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _kind(feature: Mapping[str, Any]) -> str:
    return str(feature.get("dtype") or feature.get("_type") or "unknown")
