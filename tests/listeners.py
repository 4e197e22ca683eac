"""Short runs that plugins listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zooft
from zooft.hooks.registry import Registry
from zooft.hooks.registry import load as load_registry

SMALL: dict[str, Any] = {
    "backbone": "timm:test_resnet", "weights": "random", "task": "classification", "epochs": 2, "batch_size": 8,
    "audit": False, "export": False, "report": False, "bootstrap": 20, "workers": 0, "lr": 0.01, "device": "cpu",
}  # fmt: skip # a table of options


def listening(*listeners: object) -> Registry:
    """What is installed, but for the trackers among it, and these."""
    found = load_registry()
    manager = found.plugins.manager
    for name in ("tensorboard", "mlflow"):
        if manager.has_plugin(name):
            manager.unregister(name=name)
    for number, listener in enumerate(listeners):
        manager.register(listener, name=f"listener{number}")
    return found


def finetune(pictures: Path, *listeners: object, **values: Any) -> zooft.FinetuneResult:
    """A run of seconds beside its data."""
    given = {**SMALL, "data": pictures, "out": pictures.parent / "run", **values}
    return zooft.finetune(registry=listening(*listeners), **given)
