"""What pruning takes out of many architectures, and how much sooner the ONNX file answers.

    python benchmarks/pruning.py [--ratio 0.3] [FAMILY:MODEL ...]

Weights are random, so that nothing is downloaded: parameters, multiplications and time are those of trained weights;
figures aren't measured here. The network alone (no preprocessing) is exported whole and pruned; onnxruntime runs both
in turns, one thread, batch 1, by the CPU time of the process. Prints rows of Markdown, as in docs/prune.md.
"""

# ruff: noqa: E501 -- holds Markdown

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch

from zooft.contracts import parse_reference
from zooft.deploy.benchmark import alternate
from zooft.deploy.network import open_session
from zooft.errors import ZooftError
from zooft.hooks import registry
from zooft.model import pruning
from zooft.model.adapted import AdaptedModel, adapt
from zooft.model.backbone import Backbone, load_backbone

MODELS = (
    "timm:tf_efficientnet_lite0",
    "torchvision:resnet18",
    "timm:resnet50",
    "timm:resnext50_32x4d",
    "timm:regnety_008",
    "timm:mobilenetv3_large_100",
    "timm:mobilenetv4_conv_small",
    "timm:convnext_tiny",
    "timm:vit_small_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "torchvision:vgg11_bn",
    "torchvision:squeezenet1_1",
    "timm:densenet121",
    "torchvision:shufflenet_v2_x1_0",
    "timm:hrnet_w18_small",
    "timm:inception_v3",
)


def parameters(model: AdaptedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def session(backbone: Backbone, model: AdaptedModel, path: Path) -> onnxruntime.InferenceSession:
    image = torch.zeros(1, 3, backbone.input.height, backbone.input.width)
    torch.onnx.export(model.eval(), (image,), path, dynamo=True, external_data=False, verbose=False)
    return open_session(path, threads=1)


def row(reference: str, ratio: float, seconds: float, folder: Path) -> str:
    known = registry.load()
    family, name = parse_reference(reference)
    torch.manual_seed(0)
    backbone = load_backbone(known.family(family), name, weights="random", sources=())
    model = adapt(backbone, known.head("standard/linear"), {"logits": 10})
    before = (parameters(model), pruning.multiplications(model, backbone.input))
    whole = session(backbone, model, folder / "whole.onnx")
    began = time.process_time()
    outcome = pruning.prune(model, backbone.input, ratio)
    took = time.process_time() - began
    after = (parameters(model), pruning.multiplications(model, backbone.input))
    files = {"whole": whole, "pruned": session(backbone, model, folder / "pruned.onnx")}
    image = {"x": torch.randn(1, 3, backbone.input.height, backbone.input.width).numpy()}
    ms = alternate(
        {key: (lambda one=one: one.run(None, image)) for key, one in files.items()}, seconds, clock=time.process_time
    )
    return (
        f"| {reference} | {outcome.groups} of {outcome.groups + outcome.whole} | {before[0] / 1e6:.2f} → {after[0] / 1e6:.2f} "
        f"| {before[1] / 1e9:.2f} → {after[1] / 1e9:.2f} | {ms['whole']:.1f} → {ms['pruned']:.1f} (× {ms['whole'] / ms['pruned']:.2f}) "
        f"| {took:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratio", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of measuring, a model")
    parser.add_argument("models", nargs="*", default=MODELS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| | groups that lose channels | parameters, millions | GMAC | ms | seconds of pruning |\n|---|---|---|---|---|---|"
    )
    for reference in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(row(reference, arguments.ratio, arguments.seconds, Path(folder)), flush=True)
            except ZooftError as error:
                print(f"| {reference} | {type(error).__name__}: {str(error)[:200]} |", flush=True)


if __name__ == "__main__":
    main()
