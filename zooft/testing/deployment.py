"""The ways out of a backbone: its zoo's own checkpoint, and ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from zooft import runtime
from zooft.contracts import Output, Port
from zooft.deploy.export import DeployedModel, export
from zooft.errors import ConformanceError, ExportError
from zooft.model.adapted import AdaptedModel, zoo_state_dict
from zooft.model.preprocess import ImagePreprocess
from zooft.testing.breaches import expect, expect_close, report_breaches
from zooft.testing.inputs import noise
from zooft.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from zooft.contracts import Family
    from zooft.model.backbone import Backbone

_OUTPUTS = 16
"""Logits of the head in `check_export`: enough that their spread is meaningful for one image, too."""
_LOGITS = Output(name="logits", dtype="float32", axes=("batch", _OUTPUTS), meaning="of an untrained head")


class _AsTheyAre(torch.nn.Module):
    """The head's outputs, without more ado."""

    def forward(self, outputs: Mapping[str, Tensor], _batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(outputs.values())


@report_breaches()
def check_round_trip(family: Family, backbone: Backbone) -> None:
    """A head of the zoo's own number of classes goes into the zoo's own model, strictly, with the same logits."""
    zoo = family.build(backbone.name).eval()
    slot = zoo.get_submodule(backbone.slots[0].name)
    outputs = getattr(slot, "out_features", getattr(slot, "out_channels", None))
    if outputs is None:  # the zoo's model has no classifier unless one is requested
        return
    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, outputs)).eval()
    ours, tensors = zoo_state_dict(adapted), zoo.state_dict()
    expect(set(ours) == set(tensors), f"{backbone.reference}: the checkpoint has other names than the zoo's own")
    tensors.update(ours)
    zoo.load_state_dict(tensors, strict=True)
    x = noise(backbone, 2)
    with torch.inference_mode():
        expect_close(zoo(x), adapted(x)["logits"], f"{backbone.reference}: the zoo's own model with the checkpoint")


@report_breaches()
def check_export(backbone: Backbone, folder: Path) -> None:
    """The ONNX file answers as torch does, for batches of 1 and 3 and images of two sizes."""
    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, _OUTPUTS)).eval()
    deployed = DeployedModel(ImagePreprocess(backbone.input), adapted, _AsTheyAre()).eval()
    channels = backbone.input.channels
    port = Port(name="images", dtype="uint8", axes=("batch", "height", "width", channels), meaning="levels 0..255")
    example = torch.randint(0, 256, (2, 256, 288, channels), dtype=torch.uint8)
    path = folder / "conformance.onnx"
    try:
        export(
            deployed,
            path,
            ports=[port],
            outputs=[_LOGITS],
            example=[example],
            describe=lambda sha256: _metadata(backbone, port, sha256),
            others={},
        )
    except ExportError as error:
        raise ConformanceError(
            f"the stages of {backbone.reference} can't be written as ONNX, such as by Python's if on what was "
            f"computed: {error} (hook zooft_register_families, field Family.anatomy)"
        ) from error
    opened = runtime.load(path, provider="cpu")
    for shape in ((1, 200, 300, channels), (3, 331, 247, channels)):
        batch = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.inference_mode():
            (logits,) = deployed(batch)
        expect_close(
            torch.from_numpy(opened.run(batch.numpy())["logits"]), logits, f"{backbone.reference}: ONNX at {shape}"
        )


def _metadata(backbone: Backbone, port: Port, sha256: str) -> Any:
    return runtime.Metadata(
        version=__version__,
        task="conformance",
        options={},
        problem="none",
        labels=(),
        outputs=(_LOGITS,),
        fitted={},
        ports=(port,),
        group_rule="",
        preprocessing="inside the graph",
        backbone=backbone.reference,
        weights={},
        weights_sha256=sha256,
        data={},
        metrics={},
        intended_use="A test.",
    )
