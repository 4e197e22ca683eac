"""The Trainer of transformers, with timm's model in transformers' own wrapper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import datasets, transforms
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification, Trainer, TrainingArguments

from peers import job as jobs


class Pictures(Dataset):
    """Images of a folder as the Trainer needs them: one dictionary each."""

    def __init__(self, folder: Path, steps: list[Any]) -> None:
        self._images = datasets.ImageFolder(str(folder), transforms.Compose(steps))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, label = self._images[index]
        return {"pixel_values": pixels, "labels": label}


def train(job: jobs.Job) -> None:
    """Train, with an evaluation after each epoch."""
    source = jobs.build(job)
    model = TimmWrapperForImageClassification(
        TimmWrapperConfig(architecture=job.model, id2label=dict(enumerate(job.classes)))
    )
    model.timm_model.load_state_dict(source.state_dict())
    jobs.freeze(model.timm_model, job.frozen)
    if "channels_last" in job.settings:
        model.to(memory_format=torch.channels_last)
    mean, std = jobs.normalisation(source)
    last = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    random = [transforms.RandomResizedCrop(job.size), transforms.RandomHorizontalFlip(), *last]
    plain = [transforms.Resize(round(job.size * 256 / 224)), transforms.CenterCrop(job.size), *last]

    def note(answers: Any) -> dict[str, float]:
        predictions = np.argmax(answers.predictions, axis=1).tolist()
        targets = answers.label_ids.tolist()
        jobs.note_epoch(job, targets, predictions)
        return {"accuracy": jobs.accuracy(targets, predictions)}

    Trainer(
        model=model,
        args=_arguments(job),
        train_dataset=Pictures(Path(job.data) / "train", random),
        eval_dataset=Pictures(Path(job.data) / "val", plain),
        compute_metrics=note,
    ).train()


def _arguments(job: jobs.Job) -> TrainingArguments:
    return TrainingArguments(
        output_dir=job.scratch,
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.batch,
        per_device_eval_batch_size=job.batch,
        learning_rate=job.lr,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=job.workers,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        use_cpu=True,
        seed=job.seed,
        bf16="bf16" in job.settings,
        torch_compile="compile" in job.settings,
    )


if __name__ == "__main__":
    jobs.run(train)
