"""The images of a data source as plain files of the same names, to train on either and compare."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import example_data
import numpy as np

import zooft
from zooft_images import read as reader
from zooft_images.options import ClassificationOptions

OPTIONS = ClassificationOptions()


def photographs() -> dict[str, list[Path]]:
    """Some of ants and bees by split, in order."""
    source = example_data.real("hymenoptera")
    return {split: sorted((source / split).rglob("*.jpg"))[::16] for split in ("train", "val")}


def write_files(root: Path, named: Mapping[str, Path], splits: Mapping[str, str]) -> Path:
    """A manifest of files that are called as a source calls its rows: random views are drawn by these names.

    Args:
        root: of the new files.
        named: name to the photograph that it stands for, whose folder is its class.
        splits: the same names to splits.
    """
    rows = []
    for name, path in named.items():
        copy = root / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        rows.append((name, path.parent.name, splits[name]))
    return example_data.write_manifest(root / "labels.csv", ("path", "label", "split"), rows)


def assert_found_alike(ours: zooft.Discovery, theirs: zooft.Discovery) -> None:
    """A source's samples are those of its files: names, targets, splits, digests and pixels."""
    assert ours.classes == theirs.classes == ("ants", "bees")
    assert not ours.rejected
    assert len(ours.samples) == len(theirs.samples) > 20
    for sample, like in zip(ours.samples, theirs.samples, strict=True):
        assert (sample.id, sample.target, sample.split) == (like.id, like.target, like.split)
        assert dict(sample.facts) == dict(like.facts)
        assert reader.digest(sample.source, OPTIONS) == hashlib.sha256(like.source.read_bytes()).hexdigest()
        np.testing.assert_array_equal(reader.read(sample.source, OPTIONS), reader.read(like.source, OPTIONS))


def assert_trained_alike(both: tuple[Path, Path], out: Path) -> None:
    """Runs on a source and on its files have equal figures and predictions."""
    (ours, predicted), (theirs, expected) = (_trained(data, out / f"run{number}") for number, data in enumerate(both))
    assert ours == theirs
    assert predicted == expected
    assert len(predicted) > 8


def _trained(data: Path, out: Path) -> tuple[list[Any], list[dict[str, str]]]:
    """Each epoch's figures, and predictions.csv, of a short run with options of the task."""
    run = zooft.finetune(
        backbone="timm:test_resnet",
        task="classification",
        data=data,
        out=out,
        weights="random",
        freeze="none",
        epochs=2,
        bootstrap=0,
        export=False,
        device="cpu",
        seed=3,
        augment="light",
        class_weights="balanced",
        colour="grey",
    ).path
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [(line["train_loss"], line["val_loss"], line["metrics"]) for line in epochs]
    return figures, list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
