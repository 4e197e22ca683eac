"""Size, speed, accuracy and error of fp16 and int8 files of many architectures, beside torch.

    python benchmarks/precisions.py --data FOLDER_WITH_JPEGS [MODEL ...]
    python benchmarks/precisions.py --digits [MODEL ...]

Weights are random at first, so that nothing is downloaded. With `--data`, they stay so: size and speed are those of
trained weights; errors and agreement aren't. Each model is measured in one process, torch and files in turns, one
thread, batch 1, by the CPU time of the process. With `--digits`, each model learns scikit-learn's handwritten digits
at 64x64, all of it, and answers the 360 that it hasn't seen, without a gate that puts layers back to float32.
Prints rows of Markdown, as in docs/precisions.md.
"""

# ruff: noqa: E501 -- holds Markdown

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from zooft import ImagePreprocess, InputSpec, Port, class_labels
from zooft.deploy import network as networks
from zooft.deploy import precisions, quantize, rounding
from zooft.deploy.benchmark import alternate
from zooft.deploy.export import DeployedModel, export
from zooft.problems.classification import classification
from zooft.runtime import Metadata, Precision

MODELS = (
    "tf_efficientnet_lite0", "resnet18", "resnet50", "vit_base_patch16_224", "vit_tiny_patch16_224", "deit3_small_patch16_224",
    "convnext_tiny", "swin_tiny_patch4_window7_224", "mobilenetv3_large_100", "efficientnet_b0", "regnety_008", "densenet121",
    "mobilenetv4_conv_small", "resnext50_32x4d",
)  # fmt: skip # a table of models
LABELS = class_labels([f"class {number}" for number in range(10)])
PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning="RGB levels 0..255")
CALIBRATION = 12
SIZE, DIGITS, BATCH = 224, 64, 64
"""Pixels of a side, of pictures and digits; samples of a step."""


class Named(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)}


def pictures(folder: Path, count: int) -> list[np.ndarray]:
    paths = sorted(folder.rglob("*.jpg"))
    chosen = [paths[place] for place in np.random.default_rng(0).permutation(len(paths))[:count]]
    return [np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in chosen]


def built(name: str, size: int) -> DeployedModel:
    torch.manual_seed(0)
    sized = {"img_size": size} if name.startswith(("vit", "deit", "swin")) else {}
    model = timm.create_model(name, pretrained=False, num_classes=10, **sized)
    spec = InputSpec(height=size, width=size, resize=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    return DeployedModel(ImagePreprocess(spec), Named(model), classification().deployment.graph(LABELS, {})).eval()


def write(deployed: DeployedModel, name: str, path: Path) -> None:
    part = classification().deployment
    outputs = tuple(part.outputs(LABELS, {}))

    def describe(sha256: str) -> Metadata:
        return Metadata(
            version="0",
            task="classification",
            options={},
            problem="classification",
            labels=LABELS,
            outputs=outputs,
            fitted={},
            ports=(PORT,),
            group_rule="mean",
            preprocessing="inside the graph",
            backbone=f"timm:{name}",
            weights={},
            weights_sha256=sha256,
            data={},
            metrics={},
            intended_use="",
        )

    example = torch.randint(0, 256, (2, 250, 260, 3), dtype=torch.uint8)
    export(deployed, path, ports=[PORT], outputs=outputs, example=[example], describe=describe, others={})


def lower(
    apart: networks.TakenApart, given: list[dict[str, np.ndarray]], few: list[dict[str, np.ndarray]]
) -> tuple[dict[str, onnx.ModelProto], str]:
    """As `zooft export` does it, without a gate: the networks, what was left out, and errors of the choices."""
    choices, errors = quantize.choose_operators(quantize.calibrate(apart.network, given), few)
    calibrated, left = precisions.fastest(choices, few[0])
    calibrated = replace(calibrated, shifts=rounding.shifts(calibrated, given[:16]))
    made = {
        "int8": quantize.quantize(calibrated, left_out=quantize.nodes(left)),
        "fp16": quantize.halve(apart.network),
    }
    chosen = f"{'narrow' if calibrated.operators else 'all'}{f' but {len(left)}' if left else ''}"
    return made, f"{chosen} ({errors['all']:.3f}, {errors['narrow']:.3f})"


def compare(wanted: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> tuple[float, float]:
    """Error of the logits, and how often the class is the same."""
    agree = np.mean([ours[0].argmax() == theirs[0].argmax() for ours, theirs in zip(wanted, found, strict=True)])
    return quantize.error(wanted, found), float(agree)


def digits_row(name: str, folder: Path, epochs: int) -> str:
    images, targets = load_digits(return_X_y=True)
    levels = np.clip(np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)), 0, 255).astype(np.uint8).repeat(3, axis=3)
    train, test = train_test_split(np.arange(len(targets)), test_size=360, stratify=targets, random_state=0)
    deployed = built(name, DIGITS)
    learn(deployed, levels[train], targets[train], epochs)
    write(deployed, name, folder / "fp32.onnx")
    apart = networks.take_apart(onnx.load(folder / "fp32.onnx"))
    feeds = networks.feeds(apart)
    given, few = ([feeds.of([levels[place]]) for place in places] for places in (train[:128], test))
    made, chosen = lower(apart, given, given[:16])
    answers = {kind: quantize.answers(network, few) for kind, network in ({"fp32": apart.network} | made).items()}
    right = {
        kind: np.mean([one[0].argmax() == target for one, target in zip(found, targets[test], strict=True)])
        for kind, found in answers.items()
    }
    apart_by = {kind: compare(answers["fp32"], answers[kind]) for kind in made}
    return (
        f"| {name} | {' / '.join(f'{right[kind]:.3f}' for kind in ('fp32', 'fp16', 'int8'))} "
        f"| {' / '.join(f'{apart_by[kind][1]:.1%}' for kind in ('fp16', 'int8'))} | {apart_by['int8'][0]:.3f} | {chosen} |"
    )


def learn(deployed: DeployedModel, levels: np.ndarray, targets: np.ndarray, epochs: int) -> None:
    """All of the network, from random weights, by AdamW with a rate that rises and falls."""
    with torch.no_grad():
        images = torch.cat([deployed.preprocess(torch.from_numpy(one[None])) for one in levels])
    wanted, network = torch.from_numpy(targets), deployed.network.train()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        for places in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[places])["logits"], wanted[places]).backward()
            optimizer.step()
            schedule.step()
    deployed.eval()


def row(name: str, images: list[np.ndarray], folder: Path, seconds: float) -> str:
    files = {kind: folder / f"{kind}.onnx" for kind in ("fp32", "int8", "fp16")}
    deployed = built(name, SIZE)
    write(deployed, name, files["fp32"])
    apart = networks.take_apart(onnx.load(files["fp32"]))
    feeds = networks.feeds(apart)
    given = [feeds.of([image]) for image in images]
    few = given[CALIBRATION:]
    made, chosen = lower(apart, given[:CALIBRATION], few[:8])
    wanted = quantize.answers(apart.network, few)
    by = {kind: compare(wanted, quantize.answers(network, few)) for kind, network in made.items()}
    for kind, network in made.items():
        precisions.write(apart, network, files[kind], Precision(name=kind))
    sessions = {kind: networks.open_session(path, threads=1) for kind, path in files.items()}
    batch = images[0][None].copy()

    def by_torch() -> object:
        with torch.inference_mode():
            return deployed(torch.from_numpy(batch))

    runs = {"torch": by_torch} | {
        kind: (lambda session=session: session.run(None, {"images": batch})) for kind, session in sessions.items()
    }
    ms = alternate(runs, seconds, clock=time.process_time)
    mega = {kind: path.stat().st_size / 1e6 for kind, path in files.items()}
    return (
        f"| {name} | {mega['fp32']:.1f} / {mega['fp16']:.1f} / {mega['int8']:.1f} | {ms['fp32']:.1f} | {ms['torch'] / ms['fp32']:.2f} "
        f"| {ms['fp32'] / ms['fp16']:.2f} | {ms['fp32'] / ms['int8']:.2f} "
        f"| {' | '.join(f'{by[kind][0]:.4f} / {by[kind][1]:.0%}' for kind in ('fp16', 'int8'))} | {chosen} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with JPEGs, for size and speed")
    parser.add_argument("--digits", action="store_true", help="train on digits, for accuracy")
    parser.add_argument("--epochs", type=int, default=12, help="on digits")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, a model")
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    if (arguments.data is None) == (not arguments.digits):
        parser.error("give --data FOLDER or --digits")
    torch.set_num_threads(1)
    if arguments.digits:
        print("| | accuracy fp32 / fp16 / int8 | same class as fp32, fp16 / int8 | int8 error | quantised (errors) |")
        print("|---|---|---|---|---|")
        make = functools.partial(digits_row, epochs=arguments.epochs)
    else:
        images = pictures(arguments.data, CALIBRATION + 16)
        print(
            "| | MB fp32 / fp16 / int8 | fp32 ms | fp32 × torch | fp16 × fp32 | int8 × fp32 | fp16 error / agreement | int8 error / agreement | quantised (errors) |"
        )
        print("|---|---|---|---|---|---|---|---|---|")
        make = functools.partial(row, images=images, seconds=arguments.seconds)
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(make(name, folder=Path(folder)), flush=True)
            except Exception as error:
                print(f"| {name} | {type(error).__name__}: {str(error)[:200]} |", flush=True)


if __name__ == "__main__":
    main()
