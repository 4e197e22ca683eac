"""Many pictures' embeddings in one file, and which of them are nearest to another's: without torch.

Owns the index file: an npz archive of plain arrays, never of pickles, that records which model made it. Up to `EXACT`
embeddings all are compared; beyond, usearch's graph (HNSW, Malkov and Yashunin 2018) names candidates, whose distances
are then computed exactly.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Output
from zooft.errors import ConfigError, DataError, RuntimeModelError
from zooft.storage import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from zooft.runtime import OnnxModel

OUTPUT = "embedding"
"""The output of a model that an index can be made with."""
EXACT = 10_000
"""Embeddings that are all compared."""
SCHEMA = 1
_CANDIDATES = 64
"""At least as many as are requested of the graph."""
_LENGTH = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Embeddings of files.

    Attributes:
        model_sha256: of the ONNX file's bytes that made them.
        model: where that file lay, relative to the index.
        threshold: cosine distance up to which two are of the same; None where the model has none.
        files: relative to the folder that was indexed, with forward slashes.
        embeddings: ``(N, D)`` float32, of length 1.
        graph: usearch's, serialised; None up to `EXACT`.
    """

    model_sha256: str
    model: str
    threshold: float | None
    files: Sequence[str]
    embeddings: NDArray[np.float32]
    graph: bytes | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A file of an index, its cosine distance, and whether that means the same; None where there is no threshold."""

    file: str
    distance: float
    same: bool | None


def embedding_of(model: OnnxModel) -> Output | None:
    """The output that holds embeddings, where a model has one."""
    for output in model.metadata.outputs:
        if output.name == OUTPUT and len(output.axes) == 2 and output.dtype == "float32":
            return output
    return None


def refuse_other_model(model: OnnxModel, path: Path) -> Output:
    """The output that holds embeddings.

    Raises:
        RuntimeModelError: the file has none.
    """
    output = embedding_of(model)
    if output is not None:
        return output
    names = ", ".join(output.name for output in model.metadata.outputs)
    raise RuntimeModelError(
        f"{path} gives no embeddings but {names}; an index needs a model that was trained with --task retrieval"
    )


def threshold_of(model: OnnxModel) -> float | None:
    """The distance up to which two are of the same, where validation data has fitted one."""
    found = model.metadata.fitted.get("threshold")
    return float(found) if isinstance(found, (int, float)) else None


def identity_of(file: str) -> str:
    """Who or what a file shows: the name of the folder that it lies in, else its own."""
    path = PurePosixPath(file)
    return path.parent.name or path.name


def make_graph(embeddings: NDArray[np.float32], *, threads: int) -> bytes | None:
    """Usearch's graph of many; None of few.

    Raises:
        ConfigError: usearch isn't installed.
    """
    if len(embeddings) <= EXACT:
        return None
    graph = _usearch(embeddings.shape[1])
    graph.add(np.arange(len(embeddings)), embeddings, threads=threads)
    return bytes(graph.save())


def write(index: Index, path: Path) -> None:
    """The file, whole or not at all."""
    about = {
        "schema": SCHEMA,
        "kind": "zooft index",
        "model_sha256": index.model_sha256,
        "model": index.model,
        "threshold": index.threshold,
        "files": list(index.files),
        "graph_sha256": hashlib.sha256(index.graph).hexdigest() if index.graph else None,
    }
    arrays: dict[str, NDArray[Any]] = {"about": _bytes(json.dumps(about).encode()), "embeddings": index.embeddings}
    if index.graph:
        arrays["graph"] = _bytes(index.graph)
    with atomic.whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _bytes(content: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(content, np.uint8)


def is_index(path: Path) -> bool:
    """Whether a file is one of ours, by its beginning."""
    try:
        read(path)
    except (DataError, OSError):
        return False
    return True


def read(path: Path) -> Index:
    """The way back of `write`.

    Raises:
        DataError: there is no such file, or it isn't an index that this zooft reads.
    """
    if not path.is_file():
        raise DataError(f"there is no index {path}; 'zooft index DIR --model MODEL --out {path}' makes one")
    try:
        # opened here, since numpy leaves a torn file open
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):  # numpy would advise to unpickle it
                raise ValueError("no npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                embeddings = arrays["embeddings"]
                graph = arrays["graph"].tobytes() if "graph" in arrays.files else None
        found = _check(about, embeddings, graph)
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        zipfile.BadZipFile,
        MemoryError,
    ) as error:
        raise DataError(
            f"{path} isn't an index that this zooft reads ({error}); make it again with 'zooft index'"
        ) from error
    return found


def _check(about: Any, embeddings: NDArray[Any], graph: bytes | None) -> Index:
    if about["schema"] != SCHEMA:
        raise ValueError(f"schema {about['schema']!r}, expected {SCHEMA}")
    files = about["files"]
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(files):
        raise ValueError(f"embeddings {embeddings.dtype} {embeddings.shape} of {len(files)} files")
    if not np.isfinite(embeddings).all() or np.abs(np.linalg.norm(embeddings, axis=1) - 1).max(initial=0) > _LENGTH:
        raise ValueError("embeddings that aren't of length 1")
    if (hashlib.sha256(graph).hexdigest() if graph else None) != about["graph_sha256"]:
        raise ValueError("a graph that isn't what was written")
    if not all(isinstance(file, str) for file in files):
        raise TypeError("names that aren't text")
    return Index(
        model_sha256=str(about["model_sha256"]),
        model=str(about["model"]),
        threshold=None if about["threshold"] is None else float(about["threshold"]),
        files=files,
        embeddings=embeddings,
        graph=graph,
    )


class Searcher:
    """An index that is searched again and again.

    Args:
        index: that is searched.

    Raises:
        ConfigError: it is large, and usearch isn't installed.
    """

    def __init__(self, index: Index) -> None:
        self._index, self._graph = index, None
        self._lock = threading.Lock()
        self.identities = len({identity_of(file) for file in index.files})
        if index.graph is not None:
            self._graph = _usearch(index.embeddings.shape[1])
            self._graph.load(index.graph)

    def nearest(self, embedding: NDArray[np.float32], count: int) -> list[Neighbour]:
        """At most `count`, the nearest first; equal ones in the order of the index.

        Args:
            embedding: ``(D,)`` of length 1.
            count: how many.
        """
        index = self._index
        rows = self._candidates(embedding, count)
        distances = 1 - index.embeddings[rows].astype(np.float64) @ embedding.astype(np.float64)
        order = np.lexsort((rows, distances))[:count]
        return [
            Neighbour(
                index.files[rows[at]],
                max(0.0, float(distances[at])),
                None if index.threshold is None else bool(distances[at] <= index.threshold),
            )
            for at in order
        ]

    def nearest_identities(self, embedding: NDArray[np.float32], count: int) -> list[tuple[str, Neighbour]]:
        """At most `count` of them, by name, each with its nearest picture; the nearest first.

        Args:
            embedding: ``(D,)`` of length 1.
            count: how many.
        """
        everyone, wanted = len(self._index.files), min(count, self.identities)
        pictures = wanted
        while True:
            found: dict[str, Neighbour] = {}
            for each in self.nearest(embedding, pictures):
                found.setdefault(identity_of(each.file), each)
            if len(found) >= wanted or pictures >= everyone:
                return list(found.items())[:wanted]
            pictures = min(4 * pictures, everyone)

    def _candidates(self, embedding: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        everyone = len(self._index.files)
        if self._graph is None:
            similar = self._index.embeddings @ embedding
            rows = np.argpartition(-similar, count)[: count + 1] if count < everyone else np.arange(everyone)
            # those as near as the last, so that rounding and order decide nothing
            return np.flatnonzero(similar >= similar[rows].min() - 1e-6)
        with self._lock:  # threads that search one graph at once would share its scratch space
            keys = np.asarray(self._graph.search(embedding, max(count, _CANDIDATES)).keys, np.int64)
        return np.unique(keys[(keys >= 0) & (keys < everyone)])


def _usearch(size: int) -> Any:
    try:
        from usearch.index import Index as Graph
    except ImportError:
        raise ConfigError(
            f"more than {EXACT:,} embeddings are searched with usearch, which isn't installed: pip install "
            "'zooft[retrieval]' (where zooft-runtime is installed: pip install usearch)"
        ) from None
    return Graph(ndim=size, metric="cos", dtype="f32", expansion_search=2 * _CANDIDATES)
