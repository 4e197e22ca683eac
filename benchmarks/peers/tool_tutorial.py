"""The loop of PyTorch's transfer-learning tutorial, in its style.

SGD at 0.001 with momentum 0.9, a tenth of it every 7 epochs, random crops and flips, no gradients for frozen parameters
but the whole model in training mode, the best weights saved to a file, two loader processes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from peers import job as jobs


def train(job: jobs.Job) -> None:
    """Train and validate in turn."""
    model = jobs.build(job)
    jobs.freeze(model, job.frozen)
    loaders = _loaders(job, *jobs.normalisation(model))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(jobs.learning(model), lr=0.001, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best, weights = 0.0, Path(job.scratch) / "best.pt"
    torch.save(model.state_dict(), weights)
    for _ in range(job.epochs):
        model.train()
        for inputs, labels in loaders["train"]:
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
        scheduler.step()
        targets, predictions = _validate(model, loaders["val"])
        jobs.note_epoch(job, targets, predictions)
        if (accuracy := jobs.accuracy(targets, predictions)) > best:
            best = accuracy
            torch.save(model.state_dict(), weights)
    model.load_state_dict(torch.load(weights, weights_only=True))


def _validate(model: nn.Module, loader: DataLoader) -> tuple[list[int], list[int]]:
    model.eval()
    targets: list[int] = []
    predictions: list[int] = []
    with torch.no_grad():
        for inputs, labels in loader:
            targets += labels.tolist()
            predictions += model(inputs).argmax(1).tolist()
    return targets, predictions


def _loaders(job: jobs.Job, mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, DataLoader]:
    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    views = {
        "train": [transforms.RandomResizedCrop(job.size), transforms.RandomHorizontalFlip(), *last],
        "val": [transforms.Resize(round(job.size * 256 / 224)), transforms.CenterCrop(job.size), *last],
    }
    sets = {
        split: datasets.ImageFolder(str(Path(job.data) / split), transforms.Compose(steps))
        for split, steps in views.items()
    }
    return {
        split: DataLoader(data, batch_size=job.batch, shuffle=True, num_workers=job.workers)
        for split, data in sets.items()
    }


if __name__ == "__main__":
    jobs.run(train)
