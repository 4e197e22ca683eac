"""Size, speed and error of fp16 and int8 files of many architectures, beside torch.

    python benchmarks/precisions.py --data FOLDER_WITH_JPEGS [MODEL ...]

Weights are random, so that nothing is downloaded: size and speed are those of trained weights; errors and agreement
aren't. Each model is measured in one process, torch and files in turns, one thread, batch 1, by the CPU time of the
process. Prints rows of Markdown, as in docs/precisions.md.
"""

# ruff: noqa: E501 -- holds Markdown

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import timm
import torch
from PIL import Image
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


def write(name: str, path: Path) -> DeployedModel:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10).eval()
    spec = InputSpec(height=224, width=224, resize=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    part = classification().deployment
    deployed = DeployedModel(ImagePreprocess(spec), Named(model), part.graph(LABELS, {})).eval()
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
    return deployed


def row(name: str, images: list[np.ndarray], folder: Path, seconds: float) -> str:
    files = {kind: folder / f"{kind}.onnx" for kind in ("fp32", "int8", "fp16")}
    deployed = write(name, files["fp32"])
    apart = networks.take_apart(onnx.load(files["fp32"]))
    feeds = networks.feeds(apart)
    given = [feeds.of([image]) for image in images]
    calibrated = quantize.calibrate(apart.network, given[:CALIBRATION])
    few = given[CALIBRATION:]
    choices, errors = quantize.choose_operators(calibrated, few[:8])
    calibrated, left = precisions.fastest(choices, few[0])
    calibrated = replace(calibrated, shifts=rounding.shifts(calibrated, given[:CALIBRATION]))
    made = {
        "int8": quantize.quantize(calibrated, left_out=quantize.nodes(left)),
        "fp16": quantize.halve(apart.network),
    }
    wanted = quantize.answers(apart.network, few)
    apart_by, agree = {}, {}
    for kind, network in made.items():
        precisions.write(apart, network, files[kind], Precision(name=kind))
        found = quantize.answers(network, few)
        apart_by[kind] = quantize.error(wanted, found)
        agree[kind] = np.mean(
            [ours[0].argmax() == theirs[0].argmax() for ours, theirs in zip(wanted, found, strict=True)]
        )
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
        f"| {ms['fp32'] / ms['fp16']:.2f} | {ms['fp32'] / ms['int8']:.2f} | {apart_by['fp16']:.4f} / {agree['fp16']:.0%} "
        f"| {apart_by['int8']:.3f} / {agree['int8']:.0%} | {'narrow' if calibrated.operators else 'all'}{f' but {len(left)}' if left else ''} ({errors['all']:.3f}, {errors['narrow']:.3f}) |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, a model")
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = pictures(arguments.data, CALIBRATION + 16)
    print(
        "| | MB fp32 / fp16 / int8 | fp32 ms | fp32 × torch | fp16 × fp32 | int8 × fp32 | fp16 error / agreement | int8 error / agreement | quantised (errors) |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(row(name, images, Path(folder), arguments.seconds), flush=True)
            except Exception as error:
                print(f"| {name} | {type(error).__name__}: {str(error)[:200]} |", flush=True)


if __name__ == "__main__":
    main()
