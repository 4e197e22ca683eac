"""Accuracy of the exported file on ants and bees, for three ways of freezing and three seeds.

    python benchmarks/hymenoptera.py DATA [--seeds 3] [--out FOLDER]

DATA is the data set of PyTorch's transfer-learning tutorial (244 training and 153 validation images). Prints a
Markdown table: the accuracy of the ONNX file on the validation images, mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import zooft

MODES: dict[str, dict[str, object]] = {
    "backbone": {},
    "last:2": {"epochs": 8},
    "none": {"epochs": 8},
}


def main() -> None:
    arguments = _arguments()
    print("| --freeze | epochs | accuracy of the ONNX file | each seed | AUROC | minutes a run |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for mode in arguments.modes:
        runs = [_run(arguments, mode, seed) for seed in range(arguments.seeds)]
        print(_row(mode, runs), flush=True)


def _run(arguments: argparse.Namespace, mode: str, seed: int) -> tuple[float, float, float]:
    began = time.perf_counter()
    result = zooft.finetune(
        backbone="timm:tf_efficientnet_lite0",
        task="classification",
        data=arguments.data,
        freeze=mode,
        seed=seed,
        out=arguments.out / f"{mode.replace(':', '-')}-{seed}",
        **MODES[mode],
    )
    assert result.verification is not None
    metrics = result.verification.metrics
    return metrics["accuracy"][1], metrics["auroc"][1], (time.perf_counter() - began) / 60


def _row(mode: str, runs: list[tuple[float, float, float]]) -> str:
    accuracy, auroc, minutes = zip(*runs, strict=True)
    spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
    each = ", ".join(f"{value:.3f}" for value in accuracy)
    epochs = MODES[mode].get("epochs", "default")
    return (
        f"| {mode} | {epochs} | {statistics.mean(accuracy):.3f} ± {spread:.3f} | {each} "
        f"| {statistics.mean(auroc):.3f} | {statistics.mean(minutes):.1f} |"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES))
    parser.add_argument("--out", type=Path, default=Path("runs/hymenoptera"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
