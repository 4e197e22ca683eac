"""Finding, loading and isolating plugins.

Owns the walk over the entry points of group ``zooft``. pluggy's own loader stops at the first import that
fails; here one broken plugin is dropped with its reason, and the others stay.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

import pluggy

from zooft.contracts import API_VERSION
from zooft.hooks import specs as hookspecs
from zooft.hooks.guard import redirect_prints

if TYPE_CHECKING:
    from collections.abc import Iterable

GROUP = "zooft"
logger = logging.getLogger("zooft")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """A plugin, loaded or dropped.

    Attributes:
        name: of the entry point.
        distribution: the installed package that declares it.
        version: of that package.
        problem: why it was dropped, None where it works.
        seconds: that its import took, including modules that weren't loaded before.
    """

    name: str
    distribution: str
    version: str
    problem: str | None = None
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Plugins:
    """All plugins of one environment: the manager that calls them, and the state of each."""

    manager: pluggy.PluginManager
    infos: tuple[PluginInfo, ...]

    @property
    def broken(self) -> tuple[PluginInfo, ...]:
        """The plugins that were dropped."""
        return tuple(info for info in self.infos if info.problem is not None)

    def info(self, name: str) -> PluginInfo:
        """The plugin called `name`; of several of that name, the one that works."""
        return min((info for info in self.infos if info.name == name), key=lambda info: info.problem is not None)

    def events(self, name: str) -> list[str]:
        """The events that the plugin called `name` listens to, in the order of a run; none where it was dropped."""
        plugin = self.manager.get_plugin(name)
        heard = {caller.name for caller in self.manager.get_hookcallers(plugin) or []} if plugin is not None else set()
        return [hook for hook in vars(hookspecs) if hook.startswith("zooft_on_") and hook in heard]

    def implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Every implementation of `hook`, in order of registration, to be called and guarded one by one."""
        return list(getattr(self.manager.hook, hook).get_hookimpls())


def discover(entry_points: Iterable[metadata.EntryPoint] | None = None) -> Plugins:
    """Load every installed plugin; drop, log and record those that fail.

    Args:
        entry_points: instead of the environment's, for tests.
    """
    manager = new_manager()
    found = _each_once(metadata.entry_points(group=GROUP) if entry_points is None else entry_points)
    infos = tuple(_load(manager, entry_point) for entry_point in sorted(found, key=lambda e: e.name))
    for info in infos:
        if info.problem is not None:
            logger.warning(
                "the plugin %s of %s %s is left out: %s",
                info.name,
                info.distribution,
                info.version,
                info.problem,
            )
    return Plugins(manager, infos)


def _each_once(entry_points: Iterable[metadata.EntryPoint]) -> Iterable[metadata.EntryPoint]:
    """Each entry point once, since zooft and zooft-runtime declare the same ones; `zooft doctor` reports it."""
    return {
        (point.name, point.value, (point.dist.name if point.dist else "").removesuffix("-runtime")): point
        for point in entry_points
    }.values()


def new_manager() -> pluggy.PluginManager:
    """A plugin manager with zooft's hooks and without plugins."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _load(manager: pluggy.PluginManager, entry_point: metadata.EntryPoint) -> PluginInfo:
    distribution, began = entry_point.dist, time.perf_counter()
    problem = _register(manager, entry_point)
    return PluginInfo(
        name=entry_point.name,
        distribution=distribution.name if distribution else "unknown",
        version=distribution.version if distribution else "unknown",
        problem=problem,
        seconds=time.perf_counter() - began,
    )


def _register(manager: pluggy.PluginManager, entry_point: metadata.EntryPoint) -> str | None:
    """Register a plugin; the reason why it can't be used, or None."""
    if manager.has_plugin(entry_point.name):
        return f"another package's plugin is called {entry_point.name!r} as well, and came first"
    try:
        with redirect_prints():
            plugin = entry_point.load()
    except (Exception, SystemExit) as error:  # a third party's import may fail in any way; the others must still load
        return f"importing {entry_point.value} failed: {type(error).__name__}: {error}"
    if manager.is_registered(plugin):
        return f"{entry_point.value} is the plugin {manager.get_name(plugin)!r} already; name it by one entry point"
    return register(manager, plugin, entry_point.name)


def register(manager: pluggy.PluginManager, plugin: object, name: str) -> str | None:
    """Register a loaded module; the reason why it can't be used, or None."""
    wanted = getattr(plugin, "zooft_api", API_VERSION)
    if wanted != API_VERSION:
        return f"it is written for version {wanted} of zooft's hooks, and this zooft has version {API_VERSION}"
    try:
        manager.register(plugin, name=name)
        problem = _unknown_hooks(manager, plugin)
        if problem is None:
            manager.check_pending()
            problem = _no_hooks(manager, plugin)
    except (pluggy.PluginValidationError, ValueError) as error:
        problem = str(error).strip()
    if problem is not None and manager.has_plugin(name):
        manager.unregister(name=name)
    return problem


def _unknown_hooks(manager: pluggy.PluginManager, plugin: object) -> str | None:
    """Which hooks of a plugin don't exist, with the nearest ones; None where all do."""
    known = [name for name in vars(hookspecs) if name.startswith("zooft_")]
    unknown = [caller.name for caller in manager.get_hookcallers(plugin) or [] if caller.name not in known]
    if not unknown:
        return None
    near = difflib.get_close_matches(unknown[0], known, n=3)
    return f"there is no hook {unknown[0]}; {'nearest' if near else 'there are'}: {', '.join(near or known)}"


def _no_hooks(manager: pluggy.PluginManager, plugin: object) -> str | None:
    """The fault of a plugin whose functions aren't marked as hooks, or that has none; None where there is no fault."""
    known = [name for name in vars(hookspecs) if name.startswith("zooft_")]
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or []}
    forgotten = [name for name in known if name not in marked and inspect.isroutine(getattr(plugin, name, None))]
    if forgotten:
        return f"{', '.join(forgotten)} isn't marked as a hook; write @zooft.hookimpl above it"
    if not marked:
        return (
            "it has no hook; a hook is a function of one of these names with @zooft.hookimpl above it: "
            f"{', '.join(known)}"
        )
    return None
