"""The training step of PyTorch's transfer-learning tutorial against zooft's: whole model, random weights and images.

    python benchmarks/learning_step.py [MODEL …] [--rounds 5] [--steps] [--shares]

The tutorial's: float32, contiguous, plain SGD, the C library's defaults. zooft's: channels-last, freed memory retained,
fused SGD, the precision and the kernels that `zooft.train.speed.choose_precision` picks. One computing thread each, in
two processes that take turns; CPU seconds, the median over the rounds. ``--steps`` adds the levers one by one, in
eight processes at once, of 2 GB each for a ViT-B; ``--shares`` prints the share of the measured peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

BATCH = {"resnet18": 32, "resnet50": 32, "vit_base_patch16_224": 8, "tf_efficientnet_lite0": 32}
WANTED = {"resnet18": 2.5, "resnet50": 2.6, "vit_base_patch16_224": 3.5, "tf_efficientnet_lite0": 2.6}
CHAIN = ("tutorial", "channels-last", "memory retained", "fused SGD", "kernels", "bfloat16", "bfloat16, kernels")


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        child(arguments.child, arguments.models[0])
        return
    ways = (*CHAIN, "ours") if arguments.steps else ("tutorial", "ours")
    for model in arguments.models:
        compare(model, ways, arguments.rounds, shares=arguments.shares)


def compare(model: str, ways: tuple[str, ...], rounds: int, *, shares: bool) -> None:
    with contextlib.ExitStack() as open_processes:
        steps = {way: open_processes.enter_context(_process(way, model)) for way in ways}
        settings = {way: step()["settings"] for way, step in steps.items()}
        times: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, step in steps.items():
                times[way].append(step())
    median = {way: statistics.median(row["cpu"] for row in rows) for way, rows in times.items()}
    print(f"\n{model}, batch {BATCH[model]}: {settings['ours']}")
    for way in ways:
        each = 1000 * median[way] / BATCH[model]
        share = f"  {times[way][0]['gflop'] / median[way] / times[way][0]['peak']:4.0%} of peak" if shares else ""
        print(f"  {way:18} {each:7.1f} CPU ms an image  {median['tutorial'] / median[way]:5.2f} x{share}")
    print(f"  wanted {WANTED[model]} x", flush=True)


@contextlib.contextmanager
def _process(way: str, model: str) -> Iterator[Callable[[], dict]]:  # type: ignore[type-arg]
    """A process that runs a step for each line it is sent."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, __file__, model, "--child", way]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        requests, answers = running.stdin, running.stdout

        def step() -> dict:  # type: ignore[type-arg]
            print("go", file=requests, flush=True)
            answer: dict = json.loads(answers.readline())  # type: ignore[type-arg]
            return answer

        yield step
        requests.close()


def child(way: str, model: str) -> None:
    from zooft.cli import process

    later = CHAIN.index(way) if way in CHAIN else len(CHAIN)
    if later >= CHAIN.index("memory retained"):
        process.tune()
    import time

    import timm
    import torch

    from zooft.compute import profile
    from zooft.train import speed

    torch.manual_seed(0)
    net = timm.create_model(model, num_classes=4).train()
    x, y = torch.randn(BATCH[model], 3, 224, 224), torch.randint(0, 4, (BATCH[model],))
    if later >= CHAIN.index("channels-last"):
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    fused = speed.optimizer_settings("sgd", x.device) if later >= CHAIN.index("fused SGD") else {}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, **fused)
    loss = torch.nn.CrossEntropyLoss()
    precision = {
        "kernels": speed.Precision(kernels=True),
        "bfloat16": speed.Precision(dtype=torch.bfloat16),
        "bfloat16, kernels": speed.Precision(dtype=torch.bfloat16, kernels=True),
    }.get(way, speed.Precision())
    if way == "ours":
        precision = speed.choose_precision(net, net, loss, (x, y), steps=1000)

    def step() -> float:
        began = time.process_time()
        with precision(x.device):
            logits = net(x)
        loss(logits.float(), y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.process_time() - began

    step()
    gflop = profile.step_flops(lambda: loss(net(x), y), list(net.parameters())) / 1e9
    peak = profile.measure_peak(x.device).of(precision.dtype)
    for _ in sys.stdin:
        print(json.dumps({"cpu": step(), "settings": precision.reason, "gflop": gflop, "peak": peak}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(BATCH), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--shares", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
