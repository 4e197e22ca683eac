"""fastai's Learner: its loaders, transforms and Adam; what is frozen is its first parameter group, and `freeze`.

As in its own fine-tuning, batch norms learn in frozen groups too (``train_bn``). The classifier is timm's, not fastai's
larger one, so that the model is the same as the others'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastai.callback.channelslast import ChannelsLast
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AccumMetric
from fastai.vision.augment import Flip, RandomResizedCrop
from fastai.vision.data import ImageDataLoaders
from torch import nn

from peers import job as jobs


def train(job: jobs.Job) -> None:
    """Freeze and fit."""
    model = jobs.build(job)
    frozen = set(job.frozen)

    def groups(module: nn.Module) -> list[list[nn.Parameter]]:
        named = list(module.named_parameters())
        still = [parameter for name, parameter in named if name in frozen]
        return [part for part in (still, [p for name, p in named if name not in frozen]) if part]

    def note(predictions: Any, targets: Any) -> float:
        answers = predictions.tolist(), targets.tolist()
        jobs.note_epoch(job, answers[1], answers[0])
        return jobs.accuracy(answers[1], answers[0])

    learner = Learner(
        _loaders(job, *jobs.normalisation(model)),
        model,
        loss_func=CrossEntropyLossFlat(),
        splitter=groups,
        metrics=AccumMetric(note, dim_argmax=1),
        path=Path(job.scratch),
        cbs=[ChannelsLast()] if "channels_last" in job.settings else None,
        lr=job.lr,
    )
    if frozen:
        learner.freeze_to(1)
    with learner.no_bar(), learner.no_logging():
        learner.fit(job.epochs)


def _loaders(job: jobs.Job, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageDataLoaders:
    return ImageDataLoaders.from_folder(
        Path(job.data),
        train="train",
        valid="val",
        item_tfms=RandomResizedCrop(job.size),
        batch_tfms=[Flip(), Normalize.from_stats(mean, std, cuda=False)],
        bs=job.batch,
        num_workers=job.workers,
    )


if __name__ == "__main__":
    jobs.run(train)
