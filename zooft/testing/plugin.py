"""A plugin's module as a whole: its hooks, what they register, and its listeners."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zooft.contracts import EpochRecord, Figure, RunEnded, RunEvaluated, RunStarted, Verification
from zooft.errors import ConformanceError
from zooft.hooks import loading, registry
from zooft.hooks import specs as hookspecs
from zooft.hooks.guard import printing_aside
from zooft.testing.breaches import conforming, expect

if TYPE_CHECKING:
    from pathlib import Path

_VERIFIED: Mapping[str, Any] = {
    "passed": True, "provider": "CPUExecutionProvider", "requested_provider": "cpu", "placement": {}, "onnx_sha256": "",
    "batch_sizes": (1,), "metrics": {}, "failures": (), "notes": (), "data": "real",
}  # fmt: skip


@conforming()
def check_plugin(plugin: object, *, folder: Path) -> None:
    """The module as a whole: it has hooks, all marked; what they register is of the right types; listeners neither fail nor exit.

    Args:
        plugin: the module.
        folder: what listeners are told is the run's.
    """
    manager = loading.new_manager()
    problem = loading.registered(manager, plugin, "plugin")
    expect(problem is None, f"the plugin can't be used: {problem}")
    info = loading.PluginInfo(name="plugin", distribution="tested", version="0")
    found = registry.load(loading.Plugins(manager, (info,)))
    expect(info not in found.problems, f"the plugin is left out: {found.problems.get(info)}")
    record = EpochRecord(
        epoch=1, train_loss=1.0, val_loss=1.0, metrics={"accuracy": 0.5}, learning_rate=0.1, seconds=1.0,
        learning=("head",), best=True,
    )  # fmt: skip
    verification = Verification(**{**dict.fromkeys(Verification.__dataclass_fields__, 0), **_VERIFIED})
    model = folder / "model.onnx.candidate"
    model.write_bytes(b"")
    figures = {"val": {"accuracy": Figure(value=0.5, low=0.25, high=0.75), "auroc": Figure(value=math.nan)}}
    facts = {
        "run": folder, "samples": 10, "record": record, "fold": None, "repeated": False, "model": model, "verification": verification,
        "started": RunStarted(
            name=folder.name, config={"epochs": 1, "head": None}, counts={"train": {"a": 8}, "val": {"a": 2}}, resumed=False, epochs_done=0
        ),
        "evaluated": RunEvaluated(best_epoch=1, figures=figures, group_figures={}),
        "ended": RunEnded(status="finished", error="", folder=folder),
    }  # fmt: skip
    for event in (name for name in vars(hookspecs) if name.startswith("zooft_on_")):
        for listener in found.plugins.implementations(event):
            try:
                with printing_aside():
                    listener.function(*(facts[name] for name in listener.argnames))
            except (Exception, SystemExit) as error:  # plugin code
                raise ConformanceError(
                    f"{event} failed: {type(error).__name__}: {error}; a listener mustn't end a run"
                ) from error
