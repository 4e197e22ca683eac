"""``zooft demo``."""

from __future__ import annotations

from pathlib import Path

import click

from zooft.cli.screen import echo
from zooft.contracts.plurals import pluralize
from zooft.errors import ConfigError, RunError
from zooft.hooks import registry


@click.command(epilog="\b\nExample:\n  zooft demo classification digits")
@click.argument("task")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--masks", is_flag=True, help="with a mask for every image: the data of the task TASK-segmentation")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of generated data")
def demo(task: str, folder: Path, masks: bool, seed: int) -> None:
    """Write a task's small real data set to FOLDER, offline."""
    found = registry.load()
    task = f"{task}-segmentation" if masks else task
    chosen = found.task(task)
    if chosen.demo is None:
        able = [entry.value.name for entry in found.tasks if entry.value.demo]
        raise ConfigError(f"the task {task} has no demo data; {', '.join(able) or 'no task'} has")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} isn't empty; name a new folder")
    partial = folder.with_name(folder.name + ".partial")
    chosen.demo(partial, seed)
    if folder.exists():
        folder.rmdir()
    partial.replace(folder)
    echo(f"wrote {pluralize(sum(1 for path in folder.rglob('*') if path.is_file()), 'file')} to {folder}")
    echo(f"next: zooft finetune --backbone timm:tf_efficientnet_lite0 --task {task} --data {folder}")
