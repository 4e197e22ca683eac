"""One training job, as every peer gets it, and the log that every peer writes.

Imported in each peer's own environment: nothing but torch, timm and safetensors, and these where they are used.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is trained, on what, for how long.

    Attributes:
        model: timm's name.
        weights: a safetensors file under timm's own parameter names; its classifier isn't used.
        frozen: timm's names of the parameters that don't learn.
        data: a folder with ``train/CLASS`` and ``val/CLASS``.
        classes: sorted, as the folders are called.
        size: of the square image, pixels.
        batch: images a step.
        epochs: passes over the training images.
        seed: of the new classifier, the order and the augmentation.
        workers: loader processes.
        lr: learning rate, for tools that have no default of their own for this job.
        settings: of the tool, beyond its defaults: ``bf16``, ``channels_last``, ``compile``.
        log: a line of JSON for each epoch is appended here.
        scratch: an empty folder.
    """

    model: str
    weights: str
    frozen: tuple[str, ...]
    data: str
    classes: tuple[str, ...]
    size: int
    batch: int
    epochs: int
    seed: int
    workers: int
    lr: float
    settings: tuple[str, ...]
    log: str
    scratch: str

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")


def read(path: Path) -> Job:
    """What `Job.write` wrote."""
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Job(**made)


def run(train: Callable[[Job], None]) -> None:
    """Train the job whose file is the command line's only argument, with all seeds set."""
    import numpy as np
    import torch

    job = read(Path(sys.argv[1]))
    random.seed(job.seed)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    train(job)


def build(job: Job) -> nn.Module:
    """The job's model: timm's architecture, the file's tensors, a new classifier drawn from the seed.

    Raises:
        ValueError: the file isn't of this architecture.
    """
    import timm
    import torch
    from safetensors.torch import load_file

    torch.manual_seed(job.seed)
    module: nn.Module = timm.create_model(job.model, num_classes=len(job.classes))
    classifier = module.pretrained_cfg["classifier"]  # type: ignore[union-attr,index]
    tensors = {name: t for name, t in load_file(job.weights).items() if not name.startswith(f"{classifier}.")}
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    if unexpected or any(not name.startswith(f"{classifier}.") for name in missing):
        raise ValueError(
            f"{job.weights} isn't of {job.model}: {len(missing)} tensors missing, {len(unexpected)} too many"
        )
    return module


def freeze(module: nn.Module, frozen: Sequence[str]) -> None:
    """Disable gradients of the named parameters.

    Raises:
        ValueError: the module has no parameter of such a name.
    """
    named = dict(module.named_parameters())
    unknown = [name for name in frozen if name not in named]
    if unknown:
        raise ValueError(f"no such parameters: {unknown[:3]}")
    for name in frozen:
        named[name].requires_grad_(False)


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def normalisation(module: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that the model was pretrained on."""
    config: Any = module.pretrained_cfg
    return tuple(config["mean"]), tuple(config["std"])


def note_epoch(job: Job, targets: Sequence[int], predictions: Sequence[int]) -> None:
    """Log the finished epoch's accuracy on the validation images."""
    line = {
        "time": time.time(),
        "accuracy": accuracy(targets, predictions),
        "balanced_accuracy": balanced_accuracy(targets, predictions),
    }
    with Path(job.log).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def accuracy(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """The share of correct predictions.

    Raises:
        ValueError: of different lengths, or empty.
    """
    return sum(t == p for t, p in zip(targets, predictions, strict=True)) / _count(targets)


def balanced_accuracy(targets: Sequence[int], predictions: Sequence[int]) -> float:
    """The mean share of correct predictions over the classes that occur.

    Raises:
        ValueError: of different lengths, or empty.
    """
    right: dict[int, list[bool]] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        right.setdefault(int(target), []).append(bool(target == prediction))
    _count(targets)
    return sum(sum(answers) / len(answers) for answers in right.values()) / len(right)


def _count(targets: Sequence[int]) -> int:
    if not len(targets):
        raise ValueError("there are no validation predictions")
    return len(targets)
