"""Indexes of ``zooft index`` beside the models that made them: who or what of an index is nearest to a picture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from zooft.deploy import embeddings
from zooft.errors import ConfigError
from zooft.model.weights import file_sha256
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import FileAnswer
    from zooft.runtime import OnnxModel

MOST = 50
"""How many a client may have at once."""
HOW_TO = (
    "It gives embeddings, and no index says whose are near: 'zooft index FOLDER --model MODEL --out FILE' makes one of "
    "a folder of pictures, and 'zooft serve MODEL --index FILE' searches it."
)


@dataclass(frozen=True, slots=True)
class IndexFile:
    """An index that has been read.

    Attributes:
        path: of the file.
        index: its content.
        searcher: that searches it.
    """

    path: Path
    index: embeddings.Index
    searcher: embeddings.Searcher


class Indexes:
    """Indexes by the models that made them.

    Args:
        paths: of the files.

    Raises:
        ConfigError: two are of one model, or one is large and usearch isn't installed.
        DataError: a file isn't an index.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: dict[str, IndexFile] = {}
        self._of_models: dict[tuple[str, int], IndexFile] = {}
        for path in paths:
            index = embeddings.read(path)
            other = self._files.get(index.model_sha256)
            if other is not None:
                raise ConfigError(
                    f"{other.path} and {path} were made with the same model, and one index is searched for each; "
                    "name one of them"
                )
            self._files[index.model_sha256] = IndexFile(path, index, embeddings.Searcher(index))

    def of(self, name: str, version: int, model: Path) -> IndexFile | None:
        """The one that a model's file has made; None where there is none.

        Raises:
            ConfigError: the file that it was made with has been replaced by another.
        """
        found = self._files.get(file_sha256(model)) if self._files else None
        before = self._of_models.get((name, version))
        if before is not None and found is not before:
            raise ConfigError(
                f"the index {before.path.name} was made with the file that was there before; make it again with "
                "'zooft index' and start the server anew"
            )
        if found is not None:
            self._of_models[name, version] = found
        return found

    def refuse_unused(self, used: Collection[IndexFile | None], models: Sequence[str]) -> None:
        """Raise where distances would mean nothing.

        Args:
            used: those that belong to a model that is served.
            models: names of the models that are served.

        Raises:
            ConfigError: an index was made with a model that isn't served.
        """
        for sha256, file in self._files.items():
            if file not in used:
                raise ConfigError(
                    f"{file.path} was made with another model (SHA-256 {sha256[:12]}…) than what is served "
                    f"({', '.join(models)}), so distances would mean nothing; serve that model, {file.index.model} as "
                    "seen from the index, or make the index again with 'zooft index'"
                )


def is_searchable(model: OnnxModel) -> bool:
    """Whether an index can be made with a model."""
    return embeddings.embedding_of(model) is not None


def describe(model: OnnxModel, file: IndexFile | None) -> dict[str, Any]:
    """What the page shows of a model's index."""
    if file is None:
        return {"index": None, "index_hint": HOW_TO if is_searchable(model) else ""}
    about = {
        "pictures": len(file.index.files),
        "identities": file.searcher.identities,
        "threshold": file.index.threshold,
    }
    return {"index": about, "index_hint": ""}


def nearest(file: IndexFile, answer: FileAnswer, count: int) -> list[Mapping[str, Any]]:
    """Of each of the nearest identities its picture that is nearest, for JSON."""
    found = file.searcher.nearest_identities(answer.outputs[embeddings.OUTPUT], count)
    return [{"identity": identity, **asdict(each)} for identity, each in found]


def count_from(text: str | None, *, default: int) -> int:
    """How many a client wants.

    Raises:
        RequestRefused: that is no number from 1 to `MOST`.
    """
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MOST):
        raise RequestRefused(400, f"top is {text[:20]!r}; expected a whole number from 1 to {MOST}")
    return int(text)
