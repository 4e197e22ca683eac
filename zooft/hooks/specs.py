"""The hooks: what a plugin may register, and what it may listen to.

Registering hooks take nothing, do no work and return cheap descriptions. Event hooks are called during a run and
can't change it. docs/plugins.md has one complete plugin for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from zooft.contracts import (
        EpochRecord,
        Family,
        Freezer,
        Head,
        RunEnded,
        RunEvaluated,
        RunStarted,
        Source,
        Task,
        Verification,
        WeightsSource,
    )

PROJECT = "zooft"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def zooft_register_families() -> Iterable[Family]:  # type: ignore[empty-body]
    """Model zoos behind a prefix.

    A complete plugin::

        import zooft

        def build(name):
            from torchvision.models import resnet18
            return resnet18(weights=None)

        def anatomy(name, module):
            return zooft.Anatomy(
                stages={
                    "stem": zooft.Stage(("conv1", "bn1", "relu", "maxpool")),
                    **{f"layer{i}": zooft.Stage((f"layer{i}",)) for i in (1, 2, 3, 4)},
                    "pool": zooft.Stage(("avgpool",), lambda m, x: m.avgpool(x).flatten(1)),
                },
                classifier=("fc",),
                input=zooft.InputSpec(height=224, width=224, resize=256, mean=(0.5,) * 3, std=(0.5,) * 3),
                first_convolution="conv1",
            )

        @zooft.hookimpl
        def zooft_register_families():
            return [zooft.Family(name="mine", summary="one ResNet", models=lambda: ["resnet18"],
                                 build=build, anatomy=anatomy)]
    """


@hookspec
def zooft_register_heads() -> Iterable[Head]:  # type: ignore[empty-body]
    """What can replace a classifier.

    A complete plugin::

        import zooft

        def build(width, outputs):
            from torch import nn
            return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

        @zooft.hookimpl
        def zooft_register_heads():
            return [zooft.Head(name="normed", summary="layer norm, then linear", build=build)]
    """


@hookspec
def zooft_register_freezers() -> Iterable[Freezer]:  # type: ignore[empty-body]
    """Rules for what is frozen.

    A complete plugin::

        import zooft

        def plan(stages, argument, epoch):
            return zooft.FreezePlan(frozen=frozenset(stages[::2]))

        @zooft.hookimpl
        def zooft_register_freezers():
            return [zooft.Freezer(name="every-other", summary="every other stage is frozen", plan=plan)]
    """


@hookspec
def zooft_register_tasks() -> Iterable[Task]:  # type: ignore[empty-body]
    """Kinds of data and what is trained on them.

    A complete plugin::

        import zooft

        def discover(root, options):
            files = sorted(root.glob("*.png"))   # day_01.png, night_02.png, ...
            samples = [zooft.Sample(id=f.name, source=f, target=int(f.name.startswith("night"))) for f in files]
            return zooft.Discovery(samples=tuple(samples), labels=zooft.class_labels(("day", "night")))

        def read(source, options):
            import numpy
            from PIL import Image
            return numpy.array(Image.open(source).convert("RGB"))

        @zooft.hookimpl
        def zooft_register_tasks():
            return [zooft.Task(name="daylight", summary="day or night", discover=discover, read=read,
                               port=zooft.image_port, preprocess=zooft.image_preprocess,
                               problem=zooft.classification(primary="accuracy"))]
    """


@hookspec
def zooft_register_weights() -> Iterable[WeightsSource]:  # type: ignore[empty-body]
    """Places besides the zoos that have pretrained weights.

    A complete plugin::

        import zooft

        def load(model, expected):
            from safetensors.torch import load_file
            return zooft.LoadedWeights(tensors=load_file("/srv/weights/resnet18.safetensors"),
                                       source="our server", licence="internal")

        @zooft.hookimpl
        def zooft_register_weights():
            return [zooft.WeightsSource(name="ours", summary="what we trained", load=load,
                                        models=lambda: ["torchvision:resnet18"])]
    """


@hookspec
def zooft_register_sources() -> Iterable[Source]:  # type: ignore[empty-body]
    """Forms of data that every task with images can read.

    A complete plugin::

        import json
        import zooft

        def recognises(path):   # a line each: {"file": "a.png", "label": "cat"}, files beside it
            return path.suffix == ".jsonl"

        def records(path):
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

        def columns(path):
            names = {name: None for record in records(path) for name in record if name != "file"}
            return [zooft.Column(name=name) for name in names]

        def rows(path, columns):
            for number, record in enumerate(records(path), 1):
                values = {name: record.get(name) for name in columns}
                yield zooft.Row(id=f"{path.name}/{number}", content=path.parent / record["file"], values=values)

        def content(file):
            try:
                return file.read_bytes()
            except OSError as error:
                raise zooft.DataError(f"can't be read: {error.strerror}") from error

        @zooft.hookimpl
        def zooft_register_sources():
            return [zooft.Source(name="json-lines", summary="a picture's file and label in each line",
                                 recognises=recognises, columns=columns, rows=rows, content=content)]
    """


@hookspec
def zooft_on_start(run: Path, samples: int, started: RunStarted) -> None:
    """A run is about to train: its folder, how many samples it has, its options, and whether it resumes.

    A complete plugin::

        import logging
        import zooft

        @zooft.hookimpl
        def zooft_on_start(samples, started):
            onwards = f", from epoch {started.epochs_done + 1} on" if started.resumed else ""
            logging.getLogger("mine").info("%s: training on %d samples%s", started.name, samples, onwards)
    """


@hookspec
def zooft_on_epoch_end(run: Path, record: EpochRecord, fold: int | None, repeated: bool) -> None:
    r"""An epoch has ended, of a fold or of the training that the run is made for.

    A complete plugin::

        import zooft

        @zooft.hookimpl
        def zooft_on_epoch_end(run, record, fold, repeated):
            if repeated:
                return
            name = "losses.txt" if fold is None else f"losses-of-fold-{fold}.txt"
            with open(run / name, "a") as file:
                file.write(f"{record.epoch} {record.train_loss}\n")
    """


@hookspec
def zooft_on_evaluated(run: Path, evaluated: RunEvaluated) -> None:
    r"""The weights that the run saves have been evaluated.

    A complete plugin::

        import zooft

        @zooft.hookimpl
        def zooft_on_evaluated(run, evaluated):
            with open(run / "figures.txt", "w") as file:
                for split, figures in evaluated.figures.items():
                    for name, figure in figures.items():
                        file.write(f"{split} {name} {figure.value} {figure.low} {figure.high}\n")
    """


@hookspec
def zooft_on_exported(run: Path, model: Path) -> None:
    r"""An ONNX file has been written and not yet verified.

    A complete plugin::

        import zooft

        @zooft.hookimpl
        def zooft_on_exported(run, model):
            (run / "size.txt").write_text(f"{model.stat().st_size} bytes\n")
    """


@hookspec
def zooft_on_verified(run: Path, verification: Verification) -> None:
    """An ONNX file has been verified, or has failed to be.

    A complete plugin::

        import zooft

        @zooft.hookimpl
        def zooft_on_verified(run, verification):
            (run / "badge.txt").write_text("passed" if verification.passed else "failed")
    """


@hookspec
def zooft_on_end(run: Path, ended: RunEnded) -> None:
    """A run that was announced by `zooft_on_start` has ended: finished, failed or interrupted.

    A complete plugin::

        import logging
        import zooft

        @zooft.hookimpl
        def zooft_on_end(ended):
            logging.getLogger("mine").info("%s: %s", ended.status, ended.error or ended.folder)
    """
