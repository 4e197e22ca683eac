"""Resolves names: ``--backbone``, ``--head``, ``--freeze``, ``--task`` and weights sources.

Owns strict lookup: an unknown name gets the nearest ones and who provides them, a name with two owners gets
both and the way to choose one (``PLUGIN/NAME``).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from zooft.config import FinetuneConfig, names
from zooft.contracts import Family, Freezer, Head, Source, Task, WeightsSource
from zooft.errors import AmbiguousNameError, ConfigError, UnknownNameError
from zooft.hooks import loading as plugin_loading
from zooft.hooks.guard import HOOKS, guard_functions, misfit_of, redirect_prints

if TYPE_CHECKING:
    from zooft.hooks.guard import Guarded
    from zooft.hooks.loading import PluginInfo, Plugins


class Named(Protocol):
    """Anything that a plugin registers."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def summary(self) -> str:
        """One line."""


T = TypeVar("T", bound=Named)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""What is typed on a command line."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered thing and the plugin that owns it."""

    value: T
    owner: PluginInfo


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that the installed plugins register."""

    plugins: Plugins
    families: tuple[Entry[Family], ...]
    heads: tuple[Entry[Head], ...]
    freezers: tuple[Entry[Freezer], ...]
    tasks: tuple[Entry[Task], ...]
    weights: tuple[Entry[WeightsSource], ...]
    sources: tuple[Entry[Source], ...]
    problems: Mapping[PluginInfo, str]

    def family(self, name: str) -> Family:
        """The model zoo called `name`."""
        return _find(self, "family", self.families, name).value

    def head(self, name: str) -> Head:
        """The head called `name`."""
        return _find(self, "head", self.heads, name).value

    def task(self, name: str) -> Task:
        """The task called `name`, with the data sources of all plugins where its `discover` takes them."""
        return _with_sources(_find(self, "task", self.tasks, name).value, [entry.value for entry in self.sources])

    def freezer(self, text: str) -> tuple[Freezer, str | None]:
        """The freezer and its argument from ``NAME`` or ``NAME:ARGUMENT``.

        Raises:
            UnknownNameError: there is no such freezer.
            ConfigError: it takes no argument, and one is given.
        """
        name, colon, argument = text.partition(":")
        found = _find(self, "freezer", self.freezers, name).value
        if colon and found.argument is None:
            raise ConfigError(f"--freeze {name} takes no argument, but {argument!r} was given")
        return found, argument if colon else None

    def qualified_name(self, kind: Literal["family", "head", "task"], name: str) -> str:
        """``PLUGIN/NAME``, which stays unambiguous when other plugins are installed later."""
        entries: dict[str, tuple[Entry[Any], ...]] = {"family": self.families, "head": self.heads, "task": self.tasks}
        entry = _find(self, kind, entries[kind], name)
        return f"{entry.owner.name}/{entry.value.name}"

    def names_of(self, plugin: PluginInfo) -> dict[str, list[str]]:
        """Kind to names of what a plugin registers."""
        kinds: dict[str, tuple[Entry[Any], ...]] = {
            "families": self.families,
            "heads": self.heads,
            "freezers": self.freezers,
            "tasks": self.tasks,
            "weights": self.weights,
            "sources": self.sources,
        }
        owned = {kind: [e.value.name for e in entries if e.owner == plugin] for kind, entries in kinds.items()}
        return {kind: names for kind, names in owned.items() if names}


def _find(registry: Registry, kind: str, entries: tuple[Entry[T], ...], name: str) -> Entry[T]:
    owner, slash, bare = name.rpartition("/")
    matches = [e for e in entries if e.value.name == bare and (not slash or e.owner.name == owner)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise _unknown(registry, kind, entries, name)
    both = " and ".join(f"{e.owner.name} (of {e.owner.distribution} {e.owner.version})" for e in matches)
    choices = " or ".join(f"{e.owner.name}/{bare}" for e in matches)
    raise AmbiguousNameError(f"the {kind} {bare!r} is registered by {both}; write {choices}")


def _unknown(registry: Registry, kind: str, entries: tuple[Entry[T], ...], name: str) -> UnknownNameError:
    known = {entry.value.name: entry.owner.distribution for entry in entries}
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = ", ".join(f"{n} (from {known[n]})" for n in near or sorted(known)) or "none"
    message = f"there is no {kind} {name!r}; {'nearest' if near else 'there are'}: {listed}"
    for plugin, problem in registry.problems.items():
        message += f"\nthe plugin {plugin.name} may have it, but was left out: {problem}"
    return UnknownNameError(message, kind=kind, name=name, near=near)


def load(plugins: Plugins | None = None) -> Registry:
    """What the installed plugins register; a plugin whose hook fails is dropped with its reason.

    Args:
        plugins: instead of the environment's, for tests.
    """
    found = plugin_loading.discover() if plugins is None else plugins
    problems = {info: info.problem for info in found.broken if info.problem is not None}
    collected = {hook: _collect(found, hook, kind, problems) for hook, kind in HOOKS.items()}

    def entries_of(hook: str) -> tuple[Entry[Any], ...]:
        return tuple(entry for entry in collected[hook] if entry.owner not in problems)

    return Registry(
        plugins=found,
        families=entries_of("zooft_register_families"),
        heads=entries_of("zooft_register_heads"),
        freezers=entries_of("zooft_register_freezers"),
        tasks=entries_of("zooft_register_tasks"),
        weights=entries_of("zooft_register_weights"),
        sources=entries_of("zooft_register_sources"),
        problems=problems,
    )


def _with_sources(task: Task, sources: Sequence[Source]) -> Task:
    """A task whose `discover` takes `sources` gets them here, where plugins meet: they don't know each other."""
    if "sources" not in inspect.signature(task.discover).parameters:
        return task
    discover = cast("Guarded", task.discover)  # as is all that is registered
    bound = functools.partial(discover.function, sources=tuple(sources))
    return dataclasses.replace(task, discover=dataclasses.replace(discover, function=bound))


def announce(registry: Registry, event: str, *, named: set[tuple[str, str]] | None = None, **facts: Any) -> None:
    """Call every plugin's listener of an event; one that fails is logged, and the run continues.

    Args:
        registry: whose plugins listen.
        event: the hook.
        named: plugins and hooks whose faults were logged already and aren't again; new ones are added.
        facts: the hook's arguments.
    """
    for listener in registry.plugins.implementations(event):
        try:
            with redirect_prints():
                listener.function(*(facts[name] for name in listener.argnames))
        except KeyboardInterrupt:  # from the user
            raise
        except BaseException as error:  # plugin code, which may exit, or be cancelled, too
            where = (listener.plugin_name, event)
            if named is None or where not in named:
                plugin_loading.logger.warning("the plugin %s failed in %s: %s: %s", *where, type(error).__name__, error)
            if named is not None:
                named.add(where)


def _collect(plugins: Plugins, hook: str, kind: type[Any], problems: dict[PluginInfo, str]) -> list[Entry[Any]]:
    """What all plugins register by one hook; a plugin that fails goes into `problems`."""
    entries: list[Entry[Any]] = []
    for implementation in plugins.implementations(hook):
        plugin = plugins.info(implementation.plugin_name)
        try:
            with redirect_prints():
                values = _check_registered(cast("Iterable[Any]", implementation.function()), kind)
        except (Exception, SystemExit) as error:  # plugin code
            problems[plugin] = f"{hook} failed: {type(error).__name__}: {error}"
            plugin_loading.logger.warning("the plugin %s is left out: %s", plugin.name, problems[plugin])
            continue
        entries += [Entry(guard_functions(value, plugin), plugin) for value in values]
    return entries


def _check_registered(values: Iterable[Any], kind: type[Any]) -> list[Any]:
    if not isinstance(values, Iterable):
        raise TypeError(f"expected a list of {kind.__name__}, got {type(values).__name__}")
    checked = list(values)
    for value in checked:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        check_fields(value)
    twice = [name for name, count in Counter(value.name for value in checked).items() if count > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)} is registered twice")
    return checked


def check_fields(value: Any) -> None:
    """Raise TypeError or ValueError where a field of something that a plugin provides doesn't match its type."""
    found = misfit_of(value)
    what = f"{type(value).__name__} {value.name!r}"
    if found is not None:
        came = f"{found.came!r} ({type(found.came).__name__})"
        raise TypeError(f"{what}: the field {found.where} is {came}, expected {found.expected}")
    if not _NAME.fullmatch(value.name):
        hint = (
            f", such as {near!r}" if _NAME.fullmatch(near := re.sub(r"[^a-z0-9_.-]+", "-", value.name.lower())) else ""
        )
        raise ValueError(
            f"{value.name!r} can't be a name: it must be of lower-case letters, digits, '-', '_' and '.'{hint}"
        )
    if isinstance(value, Task):
        _refuse_odd_options(value)


def _refuse_odd_options(task: Task) -> None:
    if not dataclasses.is_dataclass(task.options):
        raise TypeError(
            f"Task {task.name!r}: the field options is {task.options.__name__}, expected a frozen dataclass"
        )
    taken = sorted(set(names(task.options)) & set(names(FinetuneConfig)))
    if taken:
        raise TypeError(f"the task {task.name!r} calls its options {', '.join(taken)}, as the core does")
