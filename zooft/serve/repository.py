"""Which models are served, in which versions, from which files; loading and unloading them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft import runtime
from zooft.errors import ConfigError, ZooftError
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from zooft.contracts import Task
    from zooft.hooks.registry import Registry
    from zooft.runtime import OnnxModel
    from zooft.serve.batching import Batcher
    from zooft.serve.search import Indexes, IndexFile

FILE = "model.onnx"
_log = logging.getLogger("zooft.serve")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
Places = Mapping[str, Mapping[int, Path]]
"""Name to version to file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One version of a model, open.

    Attributes:
        name: in addresses.
        version: in addresses.
        model: the open file; a file that replaces it is read by loading it again.
        task: that reads pictures for it.
        options: the task's.
        doubts: why the file may not be the one that was verified.
        batcher: that joins requests.
        index: that its embeddings are searched in.
    """

    name: str
    version: int
    model: OnnxModel
    task: Task
    options: Any
    doubts: tuple[str, ...]
    batcher: Batcher
    index: IndexFile | None = None


def open_served(
    registry: Registry,
    *,
    provider: str,
    threads: int,
    batcher: Callable[[str, OnnxModel], Batcher],
    indexes: Indexes,
) -> Callable[[str, int, Path], Served]:
    """What opens a file of a name and a version, by the rules that `zooft predict` has.

    The function raises ZooftError where a file is refused.
    """

    def open_(name: str, version: int, path: Path) -> Served:
        from zooft.deploy import metadata_check, saved

        model = runtime.load(path, provider=provider, threads=threads)
        task, options = saved.task_of_file(model, registry)
        doubts = metadata_check.doubts(model, path, task.problem)
        if doubts:
            _log.warning("unverified", extra={"fields": {"model": name, "version": version}})
        return Served(
            name=name,
            version=version,
            model=model,
            task=task,
            options=options,
            doubts=doubts,
            batcher=batcher(name, model),
            index=indexes.of(name, version, path),
        )

    return open_


def find(typed: Sequence[str]) -> Places:
    """The files meant by ``FILE``, ``NAME=FILE``, a run's folder, or a folder NAME/VERSION/model.onnx of models.

    Raises:
        ConfigError: there is no such file, or two have one name.
    """
    found: dict[str, Mapping[int, Path]] = {}
    for text in typed:
        for name, versions in _of_one(text):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} can't be a model's name; use letters, digits, '.', '_' and '-': NAME={text}"
                )
            if name in found:
                raise ConfigError(f"two models are called {name!r}; give them names: NAME=FILE")
            found[name] = versions
    return found


def _of_one(text: str) -> Iterator[tuple[str, Mapping[int, Path]]]:
    given, equals, rest = text.partition("=")
    path = Path(rest) if equals and not Path(text).exists() else Path(text)
    name = given if equals and not Path(text).exists() else ""
    if path.is_file():
        yield name or _name_of(path), {1: path}
    elif (path / FILE).is_file():
        yield name or path.absolute().name, {1: path / FILE}
    elif versions := versions_in(path):
        yield name or path.absolute().name, versions
    else:
        models = {each.name: versions_in(each) for each in sorted(path.iterdir())} if path.is_dir() else {}
        if name or not any(models.values()):
            raise ConfigError(
                f"there is no model at {path}; give a file, a run's folder, or one with NAME/VERSION/{FILE}"
            )
        yield from ((each, versions) for each, versions in models.items() if versions)


def _name_of(path: Path) -> str:
    return path.absolute().parent.name if path.name == FILE else path.stem


def versions_in(folder: Path) -> dict[int, Path]:
    """Version to file of a model's folder, as it is now."""
    if not folder.is_dir():
        return {}
    named = [one for one in folder.iterdir() if one.name.isascii() and one.name.isdecimal() and (one / FILE).is_file()]
    return {int(one.name): one / FILE for one in sorted(named, key=lambda one: int(one.name))}


def _without_paths(text: str, paths: Iterable[Path]) -> str:
    """Clients needn't know where files lie."""
    for path in paths:
        text = text.replace(str(path), path.name).replace(f"{path.parent}/", "")
    return text


class Repository:
    """The models that are served. What is open stays as it is until something is loaded in its place.

    Args:
        places: of the files.
        open_: name, version and file to a `Served`.
    """

    def __init__(self, places: Places, open_: Callable[[str, int, Path], Served]) -> None:
        self._places, self._open = {name: dict(versions) for name, versions in places.items()}, open_
        self._served: dict[str, dict[int, Served]] = {}
        self._reasons: dict[str, str] = {}

    def names(self) -> list[str]:
        """Of all models, open or not."""
        return list(self._places)

    def open_models(self) -> list[Served]:
        """Every version that is open."""
        return [one for versions in self._served.values() for one in versions.values()]

    def get(self, name: str, version: str = "") -> Served:
        """One version of a model; the newest where none is named.

        Raises:
            RequestRefused: there is none, or it isn't loaded.
        """
        if name not in self._places:
            raise RequestRefused(404, f"there is no model {name[:100]!r}; there are {', '.join(self._places)}")
        versions = self._served.get(name, {})
        if not versions:
            raise RequestRefused(404, f"the model {name} isn't loaded; POST /v2/repository/models/{name}/load loads it")
        number = max(versions) if not version else int(version) if version.isdecimal() else -1
        if number not in versions:
            raise RequestRefused(
                404, f"the model {name} has no version {version[:20]!r}; it has {', '.join(map(str, versions))}"
            )
        return versions[number]

    def load_all(self) -> None:
        """Open every model.

        Raises:
            ZooftError: a file is refused.
        """
        for name, places in self._places.items():
            self._served[name] = {number: self._open(name, number, path) for number, path in places.items()}

    def load(self, name: str) -> None:
        """Open all versions of a model anew; what ran before answers until that is done, and if it fails.

        Raises:
            RequestRefused: there is no such model, or a file of it is refused.
        """
        if name not in self._places:
            raise RequestRefused(404, f"there is no model {name[:100]!r}; there are {', '.join(self._places)}")
        places = self._places[name]
        folder = next(iter(places.values())).parent.parent
        # versions may have come and gone since
        again = versions_in(folder) if all(path.parent.name == str(number) for number, path in places.items()) else {}
        places = again or places
        try:
            opened = {number: self._open(name, number, path) for number, path in places.items()}
        except ZooftError as error:
            self._reasons[name] = _without_paths(str(error), places.values())
            raise RequestRefused(400, self._reasons[name]) from error
        self._places[name], self._served[name] = places, opened
        self._reasons.pop(name, None)

    def unload(self, name: str) -> None:
        """Answer no more requests with a model; those that it has been given are finished.

        Raises:
            RequestRefused: there is no such model.
        """
        if name not in self._places:
            raise RequestRefused(404, f"there is no model {name[:100]!r}; there are {', '.join(self._places)}")
        self._served.pop(name, None)
        self._reasons[name] = "unloaded"

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Every version and its state, as the repository extension has it."""
        found = []
        for name, places in self._places.items():
            served = self._served.get(name, {})
            for number in served or places:
                state = "READY" if number in served else "UNAVAILABLE"
                if state == "READY" or not ready:
                    reason = "" if state == "READY" else self._reasons.get(name, "")
                    found.append({"name": name, "version": str(number), "state": state, "reason": reason})
        return found
