"""A plugin registered by itself, as zooft does it for those that are installed."""

from __future__ import annotations

from zooft.hooks import loading, registry
from zooft.testing.breaches import expect


def register(plugin: object) -> registry.Registry:
    """What a module registers.

    Raises:
        ConformanceError: it has no hook, one that isn't marked, or registers something of a wrong type.
    """
    manager = loading.new_manager()
    problem = loading.register(manager, plugin, "plugin")
    expect(problem is None, f"the plugin can't be used: {problem}")
    info = loading.PluginInfo(name="plugin", distribution="tested", version="0")
    found = registry.load(loading.Plugins(manager, (info,)))
    expect(info not in found.problems, f"the plugin is left out: {found.problems.get(info)}")
    return found
