"""timm's own pieces, put together as its train.py does: dataset, loader, optimizer, schedule, autocast.

Its script has no flag to freeze; frozen parameters have no gradients, and the whole model is in training mode.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter
from torch import nn

from peers import job as jobs


def train(job: jobs.Job) -> None:
    """Train and validate in turn."""
    model = jobs.build(job)
    jobs.freeze(model, job.frozen)
    if "channels_last" in job.settings:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = resolve_model_data_config(model)
    loaders = {split: _loader(job, split, config) for split in ("train", "val")}
    steps = len(loaders["train"])
    optimizer = create_optimizer_v2(model, opt="adamw", lr=job.lr, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=job.epochs, warmup_epochs=0, updates_per_epoch=steps
    )
    criterion = nn.CrossEntropyLoss()
    running = torch.compile(model) if "compile" in job.settings else model
    for epoch in range(job.epochs):
        model.train()
        losses = AverageMeter()
        for step, (images, labels) in enumerate(loaders["train"]):
            with _autocast(job):
                loss = criterion(running(_laid_out(images, job)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), len(images))
            scheduler.step_update(num_updates=epoch * steps + step + 1, metric=losses.avg)
        jobs.note_epoch(job, *_validate(job, model, running, loaders["val"]))
        scheduler.step(epoch + 1)


def _validate(job: jobs.Job, model: nn.Module, running: Any, loader: Any) -> tuple[list[int], list[int]]:
    model.eval()
    targets: list[int] = []
    predictions: list[int] = []
    with torch.inference_mode():
        for images, labels in loader:
            with _autocast(job):
                logits = running(_laid_out(images, job))
            targets += labels.tolist()
            predictions += logits.argmax(1).tolist()
    return targets, predictions


def _loader(job: jobs.Job, split: str, config: dict[str, Any]) -> Any:
    return create_loader(
        create_dataset("", root=str(Path(job.data) / split)),
        input_size=(3, job.size, job.size),
        batch_size=job.batch,
        is_training=split == "train",
        color_jitter=None,  # as in the other tools
        interpolation="random" if split == "train" else config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=job.workers,
        pin_memory=False,
        persistent_workers=False,
        device=torch.device("cpu"),
    )


def _laid_out(images: torch.Tensor, job: jobs.Job) -> torch.Tensor:
    return images.contiguous(memory_format=torch.channels_last) if "channels_last" in job.settings else images


def _autocast(job: jobs.Job) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if "bf16" in job.settings else nullcontext()


if __name__ == "__main__":
    jobs.run(train)
