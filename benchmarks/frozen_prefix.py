"""What the frozen prefix costs as zooft runs it, against the trunk as tutorial loops run it.

    python benchmarks/frozen_prefix.py [FAMILY:MODEL ...] [--batch-sizes 8,16,32] [--threads 1] [--size 224]

The tutorial's is the zoo's own module in training mode without gradients; "eval" is the same in evaluation mode,
inference mode and channels-last. Random weights. CPU seconds of all threads, variants in turns within each round, the
fastest round of each counts; the ratio is how many times less than the tutorial's.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zooft.cli import process
from zooft.compute.kernels.numerics import fast_matmul
from zooft.contracts import parse_reference
from zooft.features import prefix
from zooft.hooks.registry import load as load_registry
from zooft.model.adapted import AdaptedModel
from zooft.model.backbone import load_backbone

MODELS = ["torchvision:resnet18", "torchvision:resnet50", "timm:tf_efficientnet_lite0", "timm:vit_base_patch16_224"]
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch-sizes", default="16")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    process.tune()  # as the command line does
    torch.set_num_threads(arguments.threads)
    print(f"CPU ms an image, and times less than the tutorial's; {ROUNDS} rounds, {arguments.threads} threads")
    for reference in arguments.models:
        model = load(reference)
        for batch_size in map(int, arguments.batch_sizes.split(",")):
            compare(reference, model, torch.randn(batch_size, 3, arguments.size, arguments.size))


def load(reference: str) -> AdaptedModel:
    family, name = parse_reference(reference)
    torch.manual_seed(0)
    backbone = load_backbone(load_registry().family(family), name, weights="random", sources=())
    return AdaptedModel(backbone, nn.Identity())


def compare(reference: str, model: AdaptedModel, x: Tensor) -> None:
    stop, notes = len(model.stages), list[str]()
    tutorial = copy.deepcopy(model.trunk).train()
    plain = copy.deepcopy(model.trunk).eval().to(memory_format=torch.channels_last)
    start = time.process_time()
    exact = prefix.runner(model, stop, x, note=notes.append)
    made = time.process_time() - start
    lower = prefix.runner(model, stop, x, dtype=torch.bfloat16, note=notes.append)

    variants: dict[str, Callable[[Tensor], Tensor]] = {
        "tutorial": torch.no_grad()(tutorial),
        "eval": torch.inference_mode()(lambda x: plain(x.contiguous(memory_format=torch.channels_last))),
        "zooft float32": exact.run,
        "zooft bfloat16": lower.run,
    }
    times = {name: [float("inf")] for name in variants}
    with fast_matmul(notes.append):
        for _ in range(ROUNDS):
            for name, run in variants.items():
                times[name].append(seconds(run, x))
    print(f"\n{reference}, {len(x)} at a time; {exact.folded} folded in {made:.1f} CPU s")
    for name, taken in times.items():
        ratio = min(times["tutorial"]) / min(taken)
        moved = {"zooft float32": exact.moved, "zooft bfloat16": lower.moved}.get(name)
        print(
            f"  {name:15}{1000 * min(taken) / len(x):8.2f}{ratio:7.2f}x", "" if moved is None else f"moved {moved:.0e}"
        )
    for line in dict.fromkeys(notes):
        print(f"  {line}")


def seconds(run: Callable[[Tensor], Tensor], x: Tensor) -> float:
    start = time.process_time()
    run(x)
    return time.process_time() - start


if __name__ == "__main__":
    main()
