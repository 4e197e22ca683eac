"""Ultralytics' classification trainer, around timm's model.

Its own trainer, loader, schedule, moving average and validator run. Replaced: the model; saving and evaluating the best
checkpoint once more at the end, which the others don't do. Its `freeze` names layers of its own models by number; here
the same is done by parameter names: no gradients, frozen batch norms in evaluation mode.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.loss import v8ClassificationLoss

from peers import job as jobs


class Layer(nn.Module):
    """The whole network as the one layer of an Ultralytics model; takes pixels from 0 to 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        mean, std = jobs.normalisation(network)
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        self.i, self.f = 0, -1  # its number, and that it takes the previous layer's output

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits


class Model(BaseModel):
    """What the trainer expects of a model."""

    def __init__(self, network: nn.Module, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.model = nn.Sequential(Layer(network))
        self.save: list[int] = []
        self.stride = torch.tensor([1.0])
        self.names = dict(enumerate(classes))
        self.yaml = {"nc": len(classes)}

    def init_criterion(self) -> v8ClassificationLoss:
        """Cross entropy."""
        return v8ClassificationLoss()


def train(job: jobs.Job) -> None:
    """Train with the trainer's own loop."""

    class Trainer(ClassificationTrainer):
        """Its own, except for the model and the last evaluation."""

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Model:
            """The job's model."""
            return Model(jobs.build(job), job.classes)

        def save_model(self) -> bool:
            """Not."""
            return False

        def final_eval(self) -> None:
            """Not."""

    trainer = Trainer(overrides=_overrides(job))
    trainer.add_callback("on_train_batch_start", lambda running: _freeze(running.model, job.frozen))
    trainer.add_callback("on_fit_epoch_end", lambda running: _note(job, running.validator))
    trainer.train()


def _freeze(model: nn.Module, frozen: tuple[str, ...]) -> None:
    names = set(frozen)
    network = model.model[0].network  # type: ignore[index,union-attr]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in names)
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and f"{name}.weight" in names:
            module.eval()


def _note(job: jobs.Job, validator: Any) -> None:
    targets = torch.cat(validator.targets).tolist()
    jobs.note_epoch(job, targets, torch.cat(validator.pred)[:, 0].tolist())


def _overrides(job: jobs.Job) -> dict[str, Any]:
    return {
        "model": "timm",
        "data": _link(job),
        "project": job.scratch,
        "name": "run",
        "imgsz": job.size,
        "batch": job.batch,
        "nbs": job.batch,  # a step for each batch, as the others do
        "epochs": job.epochs,
        "patience": job.epochs,
        "workers": job.workers,  # it takes none on a CPU
        "optimizer": "AdamW",
        "lr0": job.lr,
        "warmup_epochs": 0,
        "seed": job.seed,
        "device": "cpu",
        "amp": False,  # its bf16 requires CUDA
        "compile": "compile" in job.settings,
        "deterministic": False,
        "plots": False,
        "save": False,
        "scale": 0.92,  # crops of 8 to 100 % of the area
        "auto_augment": None,
        "erasing": 0.0,
        "hsv_h": 0.0,
        "hsv_s": 0.0,
        "hsv_v": 0.0,
        "verbose": False,
    }


def _link(job: jobs.Job) -> str:
    """A folder of links to the data: it writes a list of the images beside them, once."""
    folder = Path(job.scratch) / "data"
    folder.mkdir()
    for split in ("train", "val"):
        (folder / split).symlink_to((Path(job.data) / split).resolve(), target_is_directory=True)
    return str(folder)


if __name__ == "__main__":
    jobs.run(train)
