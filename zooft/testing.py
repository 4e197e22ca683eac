"""The conformance kit: what a plugin's author runs to know that the plugin keeps its contract.

    from zooft import testing

    def test_family(tmp_path):
        testing.check_family(my_plugin.FAMILY, "my_model", folder=tmp_path)

Each check raises ConformanceError with what was expected and what was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from zooft import freeze, samples
from zooft import model as models
from zooft.contracts import Calibration, FreezePlan, InputSpec, Port
from zooft.errors import ConformanceError, ZooftError
from zooft.export import DeployedModel, export
from zooft.preprocess import ImagePreprocess

if TYPE_CHECKING:
    from pathlib import Path

    from zooft.contracts import Family, Freezer, Head, Sample, Task
    from zooft.model import Backbone

_TOLERANCE = 1e-4


def check_family(family: Family, model: str, *, folder: Path) -> None:
    """Everything that zooft relies on in a family, tried on one of its models with random weights.

    The name is known; the trunk gives ``(N, width)``; stages hold every tensor once and compose to the trunk; frozen
    stages stay bit-equal while the others learn; a checkpoint goes back into the zoo's own model and answers
    the same; the ONNX file answers the same at two batch sizes and two image sizes.

    Args:
        family: what the plugin registers.
        model: a name of it.
        folder: for the ONNX file.
    """
    _expect(models.full_name(family, model) != "", f"{family.name} has an empty name for {model}")
    torch.manual_seed(0)
    backbone = _load(family, model)
    check_freezing(backbone)
    torch.manual_seed(0)
    check_round_trip(family, _load(family, model))
    check_export(_load(family, model), folder)


def check_freezing(backbone: Backbone) -> None:
    """Two steps of training with all but the last stage frozen: these stay bit-equal, and something else moves."""
    adapted = models.AdaptedModel(backbone, torch.nn.Linear(backbone.width, 2))
    stages = freeze.learnable_stages(adapted)
    _expect(len(stages) > 0, f"{backbone.reference} has no stage with parameters")
    frozen = stages[:-1]
    before, head = freeze.fingerprints(adapted, frozen), adapted.head.state_dict()["weight"].clone()
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    for _ in range(2):
        freeze.apply(adapted, frozen)
        optimizer.zero_grad()
        adapted(_noise(backbone, 4)).square().mean().backward()
        optimizer.step()
    freeze.check_unchanged(adapted, before, frozen)
    _expect(not torch.equal(head, adapted.head.state_dict()["weight"]), "the head doesn't learn")


def check_round_trip(family: Family, backbone: Backbone) -> None:
    """A head of the zoo's own number of classes goes into the zoo's own model, strictly, with the same logits."""
    zoo = family.build(backbone.name).eval()
    slot = zoo.get_submodule(backbone.slots[0].name)
    outputs = getattr(slot, "out_features", getattr(slot, "out_channels", None))
    if outputs is None:  # the zoo's model has no classifier unless asked for one
        return
    adapted = models.AdaptedModel(backbone, torch.nn.Linear(backbone.width, outputs)).eval()
    ours, tensors = models.zoo_tensors(adapted), zoo.state_dict()
    _expect(set(ours) == set(tensors), f"{backbone.reference}: the checkpoint has other names than the zoo's own")
    tensors.update(ours)
    zoo.load_state_dict(tensors, strict=True)
    x = _noise(backbone, 2)
    with torch.inference_mode():
        _expect_close(zoo(x), adapted(x), f"{backbone.reference}: the zoo's own model with the checkpoint")


def check_export(backbone: Backbone, folder: Path) -> None:
    """The ONNX file answers as torch does, for batches of 1 and 3 and images of two sizes."""
    from zooft import runtime

    adapted = models.AdaptedModel(backbone, torch.nn.Linear(backbone.width, 3)).eval()
    deployed = DeployedModel(ImagePreprocess(backbone.input), adapted, "softmax").eval()
    channels = backbone.input.channels
    port = Port(name="images", dtype="uint8", axes=("batch", "height", "width", channels), meaning="levels 0..255")
    example = torch.randint(0, 256, (2, 256, 288, channels), dtype=torch.uint8)
    path = folder / "conformance.onnx"
    export(deployed, path, ports=[port], example=[example], describe=lambda sha256: _metadata(backbone, port, sha256))
    opened = runtime.load(path, provider="cpu")
    for shape in ((1, 200, 300, channels), (3, 331, 247, channels)):
        batch = torch.randint(0, 256, shape, dtype=torch.uint8)
        with torch.inference_mode():
            _, logits, _ = deployed(batch)
        _expect_close(torch.from_numpy(opened.run(batch.numpy())[1]), logits, f"{backbone.reference}: ONNX at {shape}")


def check_head(head: Head) -> None:
    """``(N, width) -> (N, outputs)``, or ``(N, Z, width)`` for a bag, finite, with gradients to every parameter."""
    module = head.build(16, 3)
    logits = module(torch.randn((5, 7, 16) if head.bag else (5, 16)))
    _expect(tuple(logits.shape) == (5, 3), f"the head {head.name} gives {tuple(logits.shape)}, expected (5, 3)")
    _expect(bool(torch.isfinite(logits).all()), f"the head {head.name} gives numbers that aren't finite")
    logits.square().mean().backward()
    idle = [name for name, parameter in module.named_parameters() if parameter.grad is None]
    _expect(not idle, f"the head {head.name} doesn't use {', '.join(idle)}")


def check_freezer(freezer: Freezer, argument: str | None) -> None:
    """Plans name stages that exist, for shallow and deep backbones, in the first and a later epoch."""
    for stages in (("stem", "layer1", "layer2", "pool"), tuple(f"block{i}" for i in range(24))):
        for epoch in (0, 7):
            plan = freezer.plan(stages, argument, epoch)
            _expect(isinstance(plan, FreezePlan), f"the freezer {freezer.name} gives {type(plan).__name__}")
            foreign = sorted((plan.frozen | set(plan.scales)) - set(stages))
            _expect(not foreign, f"the freezer {freezer.name} names stages that don't exist: {', '.join(foreign)}")


def check_task(task: Task, data: Path, options: Any = None) -> None:
    """Discovery and reading are deterministic and fit the port; preprocessing and metrics give what is promised.

    Args:
        task: what the plugin registers.
        data: a folder with at least one sample of each class.
        options: the task's own; None for its defaults.
    """
    options = task.options() if options is None else options
    found = task.discover(data, options)
    _expect(found == task.discover(data, options), f"{task.name}: discovering twice gives two different answers")
    _expect(len(found.samples) > 0, f"{task.name}: found no samples in the data")
    ids = [sample.id for sample in found.samples]
    _expect(len(set(ids)) == len(ids), f"{task.name}: ids aren't unique")
    targets = np.array([sample.target for sample in found.samples])
    _expect(set(targets) <= set(range(len(found.classes))), f"{task.name}: targets aren't indices into the classes")
    _check_reading(task, found.samples[0], options)
    probabilities = np.full((len(targets), len(found.classes)), 1 / len(found.classes))
    values = task.metrics(targets, probabilities)
    _expect(task.primary in values, f"{task.name}: its primary metric {task.primary} isn't among {', '.join(values)}")
    logits = torch.zeros(len(targets), len(found.classes), requires_grad=True)
    loss = task.loss([int(t) for t in targets], options)(logits, torch.from_numpy(targets))
    _expect(loss.ndim == 0 and bool(torch.isfinite(loss)), f"{task.name}: its loss isn't one finite number")


def _check_reading(task: Task, sample: Sample, options: Any) -> None:
    arrays, again = samples.read(task, options, sample), samples.read(task, options, sample)
    _expect(all(map(np.array_equal, arrays, again)), f"{task.name}: reading isn't deterministic")
    ports, channels = samples.ports(task, options), task.channels(options)
    _expect(len(arrays) == len(ports), f"{task.name}: reads {len(arrays)} arrays for {len(ports)} ports")
    for array, port in zip(arrays, ports, strict=True):
        _expect(
            str(array.dtype) == port.dtype and array.ndim == len(port.axes) - 1,
            f"{task.name}: reads {array.dtype} {array.shape}, but its port is {port.dtype} {port.axes}",
        )
    spec = InputSpec(height=32, width=32, resize=36, mean=(0.5,) * channels, std=(0.5,) * channels)
    x = task.preprocess(spec, options)(*(torch.from_numpy(array)[None] for array in arrays))
    wanted = (1, len(arrays[0]), channels, 32, 32) if task.bag(options) else (1, channels, 32, 32)
    _expect(
        tuple(x.shape) == wanted and x.dtype == torch.float32,
        f"{task.name}: preprocessing gives {x.dtype} {tuple(x.shape)}, expected float32 {wanted}",
    )
    picture = samples.show(task, options, sample)
    _expect(
        picture.dtype == np.uint8 and picture.ndim in (2, 3),
        f"{task.name}: shows {picture.dtype} {picture.shape}, expected a uint8 picture",
    )


def _load(family: Family, model: str) -> Backbone:
    try:
        return models.load_backbone(family, model, weights="random", sources=())
    except ZooftError as error:
        raise ConformanceError(str(error)) from error


def _noise(backbone: Backbone, count: int) -> torch.Tensor:
    spec = backbone.input
    return torch.randn(count, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(1))


def _metadata(backbone: Backbone, port: Port, sha256: str) -> Any:
    from zooft import __version__, runtime

    return runtime.Metadata(
        version=__version__, task="conformance", options={}, classes=("a", "b", "c"), activation="softmax",
        ports=(port,), calibration=Calibration(), group_score="mean",
        preprocessing="inside the graph", backbone=backbone.reference, weights={}, weights_sha256=sha256, data={},
        metrics={}, intended_use="A test.",
    )  # fmt: skip


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def _expect_close(got: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    scale = max(float(wanted.std()), 1e-6)
    worst = float((got - wanted).abs().max()) / scale
    _expect(worst < _TOLERANCE * 10, f"{what} differs by {worst:.1e} of the logits' spread")
