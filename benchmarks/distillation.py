"""What small students learn from a larger teacher on ants and bees, with and without it, for several seeds.

    python benchmarks/distillation.py DATA [--seeds 3] [--teacher RUN] [--out FOLDER]

DATA is the data set of PyTorch's transfer-learning tutorial (244 training and 153 validation images, its own split, so
that the teacher has learnt from none of the latter). The teacher is EfficientNet-Lite2, frozen but for its head. Prints
a Markdown table: figures on the validation images, mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import zooft

TEACHER: dict[str, Any] = {"backbone": "timm:tf_efficientnet_lite2"}
STUDENTS: dict[str, dict[str, Any]] = {
    "lite0, its head": {"backbone": "timm:tf_efficientnet_lite0"},
    "lite0, last:2": {
        "backbone": "timm:tf_efficientnet_lite0",
        "freeze": "last:2",
        "epochs": 8,
        "augment": "light",
    },
    "test_resnet, random": {
        "backbone": "timm:test_resnet",
        "weights": "random",
        "freeze": "none",
        "epochs": 30,
        "augment": "light",
        "backbone_lr": 2e-3,
        "views": 8,
    },
}
WAYS: dict[str, dict[str, Any]] = {
    "alone": {},
    "distilled": {"distill": True},
    "weight 0.9": {"distill": True, "distill_weight": 0.9},
    "features 1": {"distill": True, "distill_features": 1.0},
}


class Measured(NamedTuple):
    """Of one run."""

    accuracy: float
    auroc: float
    loss: float
    seconds: float


def main() -> None:
    arguments = _arguments()
    teacher = arguments.teacher or zooft.finetune(**TEACHER, **_usual(arguments, "teacher", 0)).path
    figures = json.loads((teacher / "run.json").read_text(encoding="utf-8"))["evaluation"]["val"]["metrics"]
    print(f"teacher: accuracy {figures['accuracy']['value']:.3f}, AUROC {figures['auroc']['value']:.3f}", flush=True)
    print("| student | way | accuracy | each seed | AUROC | cross entropy | seconds a run |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    for student in arguments.students:
        for way in arguments.ways:
            own = WAYS[way]
            if "distill_features" in own and "freeze" not in STUDENTS[student]:
                continue  # nothing of the backbone learns
            given = {**own, "distill": teacher} if own else {}
            runs = [_run(arguments, student, way, given, seed) for seed in range(arguments.seeds)]
            print(_row(student, way, runs), flush=True)


def _usual(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    return {
        "task": "classification",
        "data": arguments.data,
        "seed": seed,
        "out": arguments.out / name,
        "audit": False,
        "export": False,
        "report": False,
        "bootstrap": 0,
    }


def _run(arguments: argparse.Namespace, student: str, way: str, given: dict[str, Any], seed: int) -> Measured:
    began = time.perf_counter()
    name = f"{student}-{way}-{seed}".replace(" ", "").replace(":", "").replace(",", "-")
    result = zooft.finetune(**{**_usual(arguments, name, seed), **STUDENTS[student], **given})
    metrics = result.evaluations["val"].metrics
    seconds = time.perf_counter() - began
    epochs = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    loss = epochs[result.best_epoch - 1]["val_loss"]
    return Measured(metrics["accuracy"].value, metrics["auroc"].value, loss, seconds)


def _row(student: str, way: str, runs: list[Measured]) -> str:
    spread = statistics.stdev(run.accuracy for run in runs) if len(runs) > 1 else 0.0
    each = ", ".join(f"{run.accuracy:.3f}" for run in runs)
    means = [statistics.mean(run[column] for run in runs) for column in range(4)]
    return (
        f"| {student} | {way} | {means[0]:.3f} ± {spread:.3f} | {each} "
        f"| {means[1]:.3f} | {means[2]:.3f} | {means[3]:.0f} |"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--teacher", type=Path, help="a finished run, in place of one that is trained first")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
