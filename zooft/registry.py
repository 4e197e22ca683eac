"""Names to things: what ``--backbone``, ``--head``, ``--freeze``, ``--task`` and weights sources resolve to.

Owns strict lookup: an unknown name gets the nearest ones and who provides them, a name with two owners gets
both and the way to say which (``PLUGIN/NAME``).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, cast

from zooft import plugins as plugin_loading
from zooft.config import FinetuneConfig, names
from zooft.contracts import Family, Freezer, Head, Task, WeightsSource
from zooft.errors import AmbiguousNameError, UnknownNameError

if TYPE_CHECKING:
    from zooft.plugins import PluginInfo, Plugins


class Named(Protocol):
    """Anything that a plugin registers."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""

    @property
    def summary(self) -> str:
        """One line."""


T = TypeVar("T", bound=Named)
_KINDS: Mapping[str, type[Any]] = {
    "zooft_register_families": Family,
    "zooft_register_heads": Head,
    "zooft_register_freezers": Freezer,
    "zooft_register_tasks": Task,
    "zooft_register_weights": WeightsSource,
}


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
    problems: Mapping[PluginInfo, str]

    def family(self, name: str) -> Family:
        """The model zoo called `name`."""
        return _find(self, "family", self.families, name).value

    def head(self, name: str) -> Head:
        """The head called `name`."""
        return _find(self, "head", self.heads, name).value

    def task(self, name: str) -> Task:
        """The task called `name`."""
        return _find(self, "task", self.tasks, name).value

    def freezer(self, text: str) -> tuple[Freezer, str | None]:
        """The freezer and the argument in ``NAME`` or ``NAME:ARGUMENT``."""
        name, colon, argument = text.partition(":")
        return _find(self, "freezer", self.freezers, name).value, argument if colon else None

    def owned_name(self, kind: Literal["family", "head", "task"], name: str) -> str:
        """``PLUGIN/NAME``, which stays unambiguous when other plugins are installed later."""
        entries: dict[str, tuple[Entry[Any], ...]] = {"family": self.families, "head": self.heads, "task": self.tasks}
        entry = _find(self, kind, entries[kind], name)
        return f"{entry.owner.name}/{entry.value.name}"

    def owned_by(self, plugin: PluginInfo) -> dict[str, list[str]]:
        """Kind to names of what a plugin registers."""
        kinds: dict[str, tuple[Entry[Any], ...]] = {
            "families": self.families, "heads": self.heads, "freezers": self.freezers,
            "tasks": self.tasks, "weights": self.weights,
        }  # fmt: skip
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
    raise AmbiguousNameError(f"the {kind} {bare!r} is registered by {both}; say {choices}")


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
    collected = {hook: _collect(found, hook, kind, problems) for hook, kind in _KINDS.items()}

    def working(hook: str) -> tuple[Entry[Any], ...]:
        return tuple(entry for entry in collected[hook] if entry.owner not in problems)

    return Registry(
        plugins=found,
        families=working("zooft_register_families"),
        heads=working("zooft_register_heads"),
        freezers=working("zooft_register_freezers"),
        tasks=working("zooft_register_tasks"),
        weights=working("zooft_register_weights"),
        problems=problems,
    )


def announce(registry: Registry, event: str, **facts: Any) -> None:
    """Tell every listening plugin of an event; one that fails is logged, and the run goes on."""
    for listener in registry.plugins.implementations(event):
        try:
            listener.function(*(facts[name] for name in listener.argnames))
        except Exception as error:  # plugin code
            plugin_loading.logger.warning(
                "the plugin %s failed in %s: %s: %s", listener.plugin_name, event, type(error).__name__, error
            )


def _collect(plugins: Plugins, hook: str, kind: type[Any], problems: dict[PluginInfo, str]) -> list[Entry[Any]]:
    """What all plugins register by one hook; one that fails goes into `problems`."""
    entries: list[Entry[Any]] = []
    for implementation in plugins.implementations(hook):
        plugin = plugins.info(implementation.plugin_name)
        try:
            values = _checked(cast("Iterable[Any]", implementation.function()), kind)
        except (Exception, SystemExit) as error:  # plugin code
            problems[plugin] = f"{hook} failed: {type(error).__name__}: {error}"
            plugin_loading.logger.warning("the plugin %s is left out: %s", plugin.name, problems[plugin])
            continue
        entries += [Entry(value, plugin) for value in values]
    return entries


def _checked(values: Iterable[Any], kind: type[Any]) -> list[Any]:
    checked = list(values)
    for value in checked:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
        if not value.name or set(value.name) & set("/: "):
            raise ValueError(f"{value.name!r} can't be a name: it must not be empty nor hold a slash, colon or space")
    twice = [name for name, count in Counter(value.name for value in checked).items() if count > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)} is registered twice")
    for value in checked:
        if isinstance(value, Task):
            _refuse_taken_options(value)
    return checked


def _refuse_taken_options(task: Task) -> None:
    taken = sorted(set(names(task.options)) & set(names(FinetuneConfig)))
    if taken:
        raise TypeError(f"the task {task.name!r} calls its options {', '.join(taken)}, as the core does")
