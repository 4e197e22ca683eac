"""Names of result files in a new folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath


class FileNames:
    """Files by the names of samples, none twice, for the writers of a DeploymentPart.

    Args:
        folder: where they go; it is made.
        taken: names without endings, in lower case, that no sample's file gets.
    """

    def __init__(self, folder: Path, *, taken: Collection[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.taken = folder, set(taken)

    def path(self, key: str, ending: str) -> Path:
        """Of a sample: its name; where that is taken, with its folder's name before it, or a number behind."""
        parts = PurePosixPath(key.replace("\\", "/"))
        stem = parts.stem or "picture"
        above = [f"{parts.parent.name}_{stem}"] if parts.parent.name else []
        names = [stem, *above, *(f"{stem}_{number}" for number in range(2, len(self.taken) + 3))]
        name = next(name for name in names if name.lower() not in self.taken)
        self.taken.add(name.lower())
        return self.folder / f"{name}{ending}"
