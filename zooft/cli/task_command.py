"""Commands whose options depend on the task that is named among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zooft.cli import flags
from zooft.config import read_toml
from zooft.hooks import registry

_OWN = "zooft.task_options"


class TaskCommand(click.Command):
    """A command that has a task's own options too.

    Args:
        core: a dataclass whose fields are options as well.
    """

    def __init__(self, *args: Any, core: type[Any] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.core = core

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the task first, then parse with its options."""
        name = _find_task(args)
        if name is not None:
            task = registry.load().task(name)
            ctx.meta[_OWN] = flags.of(task.options, group=task.name)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The core's options, the task's own, and the command's."""
        core = flags.of(self.core) if self.core else []
        return [*core, *ctx.meta.get(_OWN, []), *super().get_params(ctx)]


def _find_task(args: list[str]) -> str | None:
    """The task among the arguments, or in the config file among them."""
    name = _value(args, "--task")
    file = _value(args, "--config")
    if name is None and file is not None:
        named = read_toml(Path(file)).get("task")
        return named if isinstance(named, str) else None
    return name


def _value(args: list[str], flag: str) -> str | None:
    for index, argument in enumerate(args):
        if argument == flag and index + 1 < len(args):
            return args[index + 1]
        if argument.startswith(flag + "="):
            return argument.partition("=")[2]
    return None
