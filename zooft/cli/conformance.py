"""``zooft plugins check``: every check of the conformance kit that fits what a plugin registers, on examples of it."""

from __future__ import annotations

import dataclasses
import difflib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from zooft.errors import ConfigError, ConformanceError, UnknownNameError, ZooftError
from zooft.hooks import registry
from zooft.hooks.guard import call_plugin, redirect_prints

if TYPE_CHECKING:
    from zooft.contracts import Family, Freezer, Head, Source, Task, WeightsSource
    from zooft.hooks.loading import PluginInfo
    from zooft.hooks.registry import Entry, Registry

_MOST_MODELS = 20
"""Of a family with more, the user names one that is small enough to be built and exported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """What a plugin is checked on.

    Attributes:
        backbones: ``FAMILY:MODEL``.
        freezers: ``NAME:ARGUMENT``.
        data: of tasks and data sources; None for a task's own demo.
    """

    backbones: tuple[str, ...] = ()
    freezers: tuple[str, ...] = ()
    data: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one check has found.

    Attributes:
        check: its name in `zooft.testing`.
        subject: what was checked.
        status: ``not checked`` where an example is missing.
        text: what is wrong, or missing; "" where it passed.
        seconds: that it took.
    """

    check: str
    subject: str
    status: Literal["passed", "failed", "not checked"]
    text: str = ""
    seconds: float = 0.0


class _NoExample(Exception):  # noqa: N818 -- never leaves this module
    """Something can't be checked without an example that only its author knows."""


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    subject: str
    run: Callable[[Path], None]


def run(name: str, examples: Examples) -> Iterator[Outcome]:
    """Check the plugin called `name`, one outcome after the other.

    Raises:
        UnknownNameError: no such plugin.
        ConfigError: an example is of something that the plugin doesn't register.
    """
    found = registry.load()
    info = _find_plugin(found, name)
    problem = found.problems.get(info)
    if problem is not None:
        yield Outcome(check="check_plugin", subject=name, status="failed", text=f"it is left out: {problem}")
        return
    _refuse_strange(found, info, examples)
    with tempfile.TemporaryDirectory(prefix="zooft-check-") as folder:
        for number, one in enumerate(_checks(found, info, examples)):
            place = Path(folder, str(number))
            place.mkdir()
            yield _outcome(one, place)


def _find_plugin(found: Registry, name: str) -> PluginInfo:
    known = [info.name for info in found.plugins.infos]
    if name in known:
        return found.plugins.info(name)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    raise UnknownNameError(
        f"there is no plugin {name!r}; {'nearest' if near else 'installed are'}: "
        f"{', '.join(near or sorted(set(known)))}; "
        "one that is being written must be installed first: pip install -e FOLDER",
        kind="plugin",
        name=name,
        near=near,
    )


def _refuse_strange(found: Registry, info: PluginInfo, examples: Examples) -> None:
    owned = found.names_of(info)
    for option, kind, texts in (
        ("--backbone", "families", examples.backbones),
        ("--freeze", "freezers", examples.freezers),
    ):
        for text in texts:
            name, colon, rest = text.partition(":")
            if not colon or not rest or name not in owned.get(kind, ()):
                raise ConfigError(
                    f"{option} {text}: {info.name} has {kind} {', '.join(owned.get(kind, ())) or 'none'}; write "
                    "NAME:WHAT, with NAME one of these"
                )


def _outcome(check: _Check, folder: Path) -> Outcome:
    began = time.perf_counter()

    def outcome(status: Literal["passed", "failed", "not checked"], text: str = "") -> Outcome:
        seconds = round(time.perf_counter() - began, 3)
        return Outcome(check=check.name, subject=check.subject, status=status, text=text, seconds=seconds)

    try:
        with redirect_prints():
            check.run(folder)
    except _NoExample as error:
        return outcome("not checked", str(error))
    except ZooftError as error:
        return outcome("failed", str(error))
    return outcome("passed")


def _checks(found: Registry, info: PluginInfo, examples: Examples) -> Iterator[_Check]:
    from zooft import testing

    def own(entries: Sequence[Entry[Any]]) -> list[Any]:
        return [entry.value for entry in entries if entry.owner == info]

    heads = own(found.heads)
    module = found.plugins.manager.get_plugin(info.name)
    yield _Check("check_plugin", info.name, lambda folder: testing.check_plugin(module, folder=folder))
    for family in own(found.families):
        yield from _of_family(family, examples)
    for head in heads:
        yield _of_head(head)
    for freezer in own(found.freezers):
        yield from _of_freezer(freezer, examples)
    for task in own(found.tasks):
        yield _of_task(task, heads, examples)
    for source in own(found.weights):
        yield _of_weights(source, found)
    forms = own(found.sources)
    for form in forms:
        yield _of_source(form, examples, alone=len(forms) == 1 and not own(found.tasks))


def _of_family(family: Family, examples: Examples) -> Iterator[_Check]:
    from zooft import testing

    named = [text.partition(":")[2] for text in examples.backbones if text.startswith(f"{family.name}:")]

    def check(model: str) -> _Check:
        return _Check(
            "check_family", f"{family.name}:{model}", lambda folder: testing.check_family(family, model, folder=folder)
        )

    def check_first(folder: Path) -> None:
        models = list(family.models())
        if not models:
            raise ConformanceError(f"{family.name} lists no model")
        if len(models) > _MOST_MODELS:
            raise _NoExample(f"it has {len(models)} models; --backbone {family.name}:MODEL checks one")
        testing.check_family(family, models[0], folder=folder)

    if named:
        yield from map(check, named)
    else:
        yield _Check("check_family", family.name, check_first)


def _of_head(head: Head) -> _Check:
    from zooft import testing

    return _Check("check_head", head.name, lambda _folder: testing.check_head(head))


def _of_freezer(freezer: Freezer, examples: Examples) -> Iterator[_Check]:
    from zooft import testing

    named = [text.partition(":")[2] for text in examples.freezers if text.startswith(f"{freezer.name}:")]

    def check(argument: str) -> _Check:
        return _Check(
            "check_freezer", f"{freezer.name}:{argument}", lambda _folder: testing.check_freezer(freezer, argument)
        )

    def check_bare(_folder: Path) -> None:
        try:
            testing.check_freezer(freezer, None)
        except ConformanceError as error:
            if freezer.argument is not None and isinstance(error.__cause__, ConfigError):
                words = f"it wants an argument; --freeze {freezer.name}:{freezer.argument} checks it"
                raise _NoExample(words) from error
            raise

    if named:
        yield from map(check, named)
    else:
        yield _Check("check_freezer", freezer.name, check_bare)


def _of_task(task: Task, heads: Sequence[Head], examples: Examples) -> _Check:
    from zooft import testing

    def check(folder: Path) -> None:
        if any(_is_required(field) for field in dataclasses.fields(task.options)):
            raise _NoExample("its options have no defaults; call zooft.testing.check_task with some")
        data = examples.data
        if data is None:
            if task.demo is None:
                raise _NoExample("it has no demo; --data FOLDER checks it on data")
            data = folder / "data"
            task.demo(data, 0)
        testing.check_task(task, data, heads=heads)

    return _Check("check_task", task.name, check)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _of_weights(source: WeightsSource, found: Registry) -> _Check:
    from zooft import testing

    def check(_folder: Path) -> None:
        served = sorted({reference.partition(":")[0] for reference in source.models()})
        if not served:
            raise _NoExample("it serves no model at this moment; put one where it searches")
        for family in served:
            testing.check_weights(source, found.family(family))

    return _Check("check_weights", source.name, check)


def _of_source(source: Source, examples: Examples, *, alone: bool) -> _Check:
    """Where the data may be meant for something else of the plugin's, such as its task, a source need not know it."""
    from zooft import testing

    def check(_folder: Path) -> None:
        if examples.data is None or not (alone or call_plugin(source, "recognises", examples.data)):
            raise _NoExample("--data PATH checks it on a few rows of its form")
        testing.check_source(source, examples.data)

    return _Check("check_source", source.name, check)
