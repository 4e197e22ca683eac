"""AUROC on patients never seen, for phantoms of the chest with and without a nodule of 8 to 20 mm.

    python benchmarks/ct_phantom.py [--patients 236] [--test-patients 159] [--epochs 12] [--out FOLDER]

Writes the phantoms, one labelled slice of each patient, fine-tunes EfficientNet-Lite0 on that slice and its two
neighbours, as a whole unless --freeze is given, and prints a Markdown row for each seed: the AUROC on the test patients
with its 95 % interval. Every other patient has a nodule. The phantoms show how well the chain learns, and nothing about
real patients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import zooft
from zooft_ct.demo import generate


def main() -> None:
    arguments = _arguments()
    print(
        "| seed | mode | freeze | augment | epochs | patients trained on, tested on | test AUROC (95 %) | minutes |",
        flush=True,
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for seed in range(arguments.seeds):
        print(_row(arguments, seed), flush=True)


def _row(arguments: argparse.Namespace, seed: int) -> str:
    data = arguments.out / f"phantoms-{arguments.patients}-{arguments.test_patients}-{seed}"
    if not (data / "README.txt").exists():  # written last
        generate(data, patients=arguments.patients, test_patients=arguments.test_patients, seed=seed, one_slice=True)
    began = time.perf_counter()
    result = zooft.finetune(
        backbone="timm:tf_efficientnet_lite0",
        task="ct",
        data=data,
        mode=arguments.mode,
        augment=arguments.augment,
        freeze=arguments.freeze,
        epochs=arguments.epochs,
        batch_size=16,
        seed=seed,
        out=arguments.out / f"{arguments.mode}-{arguments.freeze}-{arguments.augment}-{arguments.epochs}-{seed}",
    )
    minutes = (time.perf_counter() - began) / 60
    test = result.evaluations["test"]
    auroc = test.metrics["auroc"]
    counts = f"{arguments.patients}, {test.samples}"
    return (
        f"| {seed} | {arguments.mode} | {arguments.freeze} | {arguments.augment} | {arguments.epochs} | {counts} "
        f"| {auroc.value:.3f} ({auroc.low:.3f}–{auroc.high:.3f}) | {minutes:.1f} |"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=236)
    parser.add_argument("--test-patients", type=int, default=159)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--mode", default="2.5d", choices=["slice", "2.5d", "windows"])
    parser.add_argument("--augment", default="light", choices=["none", "light", "medium"])
    parser.add_argument("--freeze", default="none")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/ct-phantom"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
