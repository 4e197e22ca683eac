"""The conformance kit: what a plugin's author runs to know that the plugin keeps its contract.

    from zooft import testing

    def test_family(tmp_path):
        testing.check_family(my_plugin.FAMILY, "my_model", folder=tmp_path)

Each check raises ConformanceError with what was expected and what was found, and names hook and field where one is at fault.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from zooft.contracts import Calibration, EpochRecord, InputSpec, Port, Verification
from zooft.data import samples
from zooft.deploy.export import DeployedModel, export
from zooft.errors import ConformanceError, UnknownNameError, ZooftError
from zooft.hooks import loading, registry
from zooft.hooks import specs as hookspecs
from zooft.hooks.guard import ask, guarded, place_of, printing_aside, within
from zooft.model import building, freeze
from zooft.model.adapted import AdaptedModel, adapt, zoo_tensors
from zooft.model.backbone import load_backbone
from zooft.model.names import full_name
from zooft.model.preprocess import ImagePreprocess
from zooft.train.loss import learnt, make_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from zooft.contracts import Discovery, Family, Freezer, Head, Sample, Task, WeightsSource
    from zooft.model.backbone import Backbone

T = TypeVar("T")
_TOLERANCE = 1e-4
_OUTPUTS = 16
"""Logits of the head in `check_export`: enough that their spread says something of one image, too."""
_MOST_READ = 100
_ASKED = 10
"""Times that a freezer is asked the same."""


@contextlib.contextmanager
def _conforming() -> Iterator[None]:
    """Whatever zooft finds wrong is a breach of the contract here."""
    try:
        yield
    except ConformanceError:
        raise
    except ZooftError as error:
        raise ConformanceError(str(error)) from error
    except Exception as error:  # plugin code, such as a stage or a preprocessing that fails
        raise ConformanceError(f"failed: {type(error).__name__}: {error}") from error


def _accepted(value: T) -> T:
    """What a plugin registers, its fields checked, its functions under guard."""
    try:
        registry.check_fields(value)
    except (TypeError, ValueError) as error:
        raise ConformanceError(str(error)) from error
    return guarded(value)


@_conforming()
def check_plugin(plugin: object, *, folder: Path) -> None:
    """The module as a whole: it has hooks, all marked; what they register is of the right types; listeners neither fail nor exit.

    Args:
        plugin: the module.
        folder: what listeners are told is the run's.
    """
    manager = loading.new_manager()
    problem = loading.registered(manager, plugin, "plugin")
    _expect(problem is None, f"the plugin can't be used: {problem}")
    info = loading.PluginInfo(name="plugin", distribution="tested", version="0")
    found = registry.load(loading.Plugins(manager, (info,)))
    _expect(info not in found.problems, f"the plugin is left out: {found.problems.get(info)}")
    record = EpochRecord(
        epoch=1, train_loss=1.0, val_loss=1.0, metrics={"accuracy": 0.5}, learning_rate=0.1, seconds=1.0,
        learning=("head",), best=True,
    )  # fmt: skip
    verification = Verification(**{**dict.fromkeys(Verification.__dataclass_fields__, 0), **_VERIFIED})
    model = folder / "model.onnx.candidate"
    model.write_bytes(b"")
    facts = {"run": folder, "samples": 10, "record": record, "model": model, "verification": verification}
    for event in (name for name in vars(hookspecs) if name.startswith("zooft_on_")):
        for listener in found.plugins.implementations(event):
            try:
                with printing_aside():
                    listener.function(*(facts[name] for name in listener.argnames))
            except (Exception, SystemExit) as error:  # plugin code
                raise ConformanceError(
                    f"{event} failed: {type(error).__name__}: {error}; a listener mustn't end a run"
                ) from error


_VERIFIED: Mapping[str, Any] = {
    "passed": True, "provider": "CPUExecutionProvider", "requested_provider": "cpu", "placement": {}, "onnx_sha256": "",
    "batch_sizes": (1,), "metrics": {}, "failures": (), "notes": (), "data": "real",
}  # fmt: skip


@_conforming()
def check_family(family: Family, model: str, *, folder: Path) -> None:
    """Everything that zooft relies on in a family, tried on one of its models with random weights.

    The name is known and unknown ones are refused; the trunk gives ``(N, width)``; stages hold every tensor once, compose to the
    trunk and keep nothing to themselves; frozen stages stay bit-equal while the others learn; a checkpoint goes back into the
    zoo's own model and answers the same; the ONNX file answers the same at two batch sizes and two image sizes.

    Args:
        family: what the plugin registers.
        model: a name of it.
        folder: for the ONNX file.
    """
    family = _accepted(family)
    full = full_name(family, model)
    _expect(full != "", f"{family.name} has an empty name for {model}")
    _check_unknown(family)
    torch.manual_seed(0)
    backbone = load_backbone(family, model, weights="random", sources=())
    check_stages(family, backbone)
    check_freezing(backbone)
    torch.manual_seed(0)
    check_round_trip(family, _load(family, model))
    check_export(_load(family, model), folder)


def _check_unknown(family: Family) -> None:
    try:
        made_up = full_name(family, "a-model-that-nobody-has")
    except UnknownNameError:
        return
    words = f"gives {made_up!r} for a model that nobody has; expected a KeyError"
    raise place_of(family, "canonical").error(words)


@_conforming()
def check_stages(family: Family, backbone: Backbone) -> None:
    """Stages run the module that they are given, twice alike, each image for itself, and in training as the zoo does.

    Args:
        family: of the backbone.
        backbone: as it was loaded.
    """
    place, stages = place_of(family, "anatomy"), list(backbone.stages.values())
    module, x, other = backbone.module.eval(), _noise(backbone, 3), _noise(backbone, 3, seed=2)

    def run(trunk: nn.Module, batch: Tensor) -> Tensor:
        for stage in stages:
            batch = stage(trunk, batch)
        return batch

    def expect_same(got: Tensor, wanted: Tensor, words: str, tolerance: float = _TOLERANCE) -> None:
        if _difference(got, wanted) > tolerance:
            raise place.error(f"{words}: they differ by {_difference(got, wanted):.1e}")

    with torch.no_grad():
        wanted = run(module, x)
        expect_same(run(module, x), wanted, "stages answer one image in two ways in evaluation mode", 0.0)
        expect_same(
            run(module, x[:1]), wanted[:1], "stages answer an image by the others in its batch", 10 * _TOLERANCE
        )
        one, two = x, other
        for stage in stages:  # side by side, as threads run them
            one, two = stage(module, one), stage(module, two)
        expect_same(one, wanted, "stages keep on the module what they find out about an image")
        again = copy.deepcopy(module)
        for parameter in again.parameters():
            parameter.mul_(1.1)
        expect_same(
            run(again, x),
            again(x),
            "stages run another module than the one that they are given, such as one they hold on to",
        )
        _check_training(place, copy.deepcopy(module).train(), run, x)
    _check_first_convolution(family, backbone)


def _check_training(place: Any, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> None:
    """Dropout is where the zoo has it: with the same random numbers both ways give the same."""
    state = copy.deepcopy(module.state_dict())
    torch.manual_seed(3)
    whole = module(x)
    if not isinstance(whole, Tensor) or whole.ndim != 2:  # with answers of other branches, which zooft doesn't train
        return
    module.load_state_dict(state)
    torch.manual_seed(3)
    staged = run(module, x)
    if _difference(staged, whole) > 10 * _TOLERANCE:
        raise place.error(
            f"stages don't compose to the trunk in training mode, such as by a dropout that one of them leaves out: they differ by "
            f"{_difference(staged, whole):.1e}"
        )


def _check_first_convolution(family: Family, backbone: Backbone) -> None:
    module = ask(family, "build", backbone.name)
    anatomy = ask(family, "anatomy", backbone.name, module)
    if anatomy.first_convolution is not None:
        building.check_first_convolution(family, backbone.name, module, anatomy)


@_conforming()
def check_freezing(backbone: Backbone) -> None:
    """Two steps of training with all but the last stage frozen: these stay bit-equal, and something else moves.

    What the zoo has built with ``requires_grad=False`` stays too, with nothing frozen.
    """
    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, 2))
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
    if backbone.fixed:
        freeze.apply(adapted, ())
        adapted(_noise(backbone, 4)).square().mean().backward()
        optimizer.step()
        freeze.check_unchanged(adapted, {name: before[name] for name in backbone.fixed}, ())
    _expect(not torch.equal(head, adapted.head.state_dict()["weight"]), "the head doesn't learn")


@_conforming()
def check_round_trip(family: Family, backbone: Backbone) -> None:
    """A head of the zoo's own number of classes goes into the zoo's own model, strictly, with the same logits."""
    zoo = family.build(backbone.name).eval()
    slot = zoo.get_submodule(backbone.slots[0].name)
    outputs = getattr(slot, "out_features", getattr(slot, "out_channels", None))
    if outputs is None:  # the zoo's model has no classifier unless asked for one
        return
    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, outputs)).eval()
    ours, tensors = zoo_tensors(adapted), zoo.state_dict()
    _expect(set(ours) == set(tensors), f"{backbone.reference}: the checkpoint has other names than the zoo's own")
    tensors.update(ours)
    zoo.load_state_dict(tensors, strict=True)
    x = _noise(backbone, 2)
    with torch.inference_mode():
        _expect_close(zoo(x), adapted(x), f"{backbone.reference}: the zoo's own model with the checkpoint")


@_conforming()
def check_export(backbone: Backbone, folder: Path) -> None:
    """The ONNX file answers as torch does, for batches of 1 and 3 and images of two sizes."""
    from zooft import runtime

    adapted = AdaptedModel(backbone, torch.nn.Linear(backbone.width, _OUTPUTS)).eval()
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


@_conforming()
def check_head(head: Head) -> None:
    """``(N, width) -> (N, outputs)``, or ``(N, Z, width)`` for a bag, finite, with gradients to every parameter that learns.

    A parameter that is to stay as it was drawn is marked with ``requires_grad_(False)``. In evaluation mode a sample gets the same
    answer twice, and whatever other samples are in its batch.
    """
    head = _accepted(head)
    place = place_of(head, "build")
    module: nn.Module = ask(head, "build", 16, 3)
    x = torch.randn((5, 7, 16) if head.bag else (5, 16), generator=torch.Generator().manual_seed(0))
    logits = _logits(head, module, x)
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise place.error(
            f"gives a module that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )
    module.eval()
    with torch.no_grad():
        wanted = _logits(head, module, x)
        if _difference(_logits(head, module, x), wanted) > 0:
            raise place.error(
                "gives a module that answers one sample in two ways in evaluation mode, such as by dropout"
            )
        if _difference(module(x[:1]), wanted[:1]) > _TOLERANCE:
            raise place.error("gives a module that answers a sample by the others in its batch in evaluation mode")
    adapt(_stub(9), head, 2)


def _logits(head: Head, module: nn.Module, x: Tensor) -> Tensor:
    try:
        logits = module(x)
    except Exception as error:  # plugin code
        words = f"gives a module that fails on {tuple(x.shape)}: {type(error).__name__}: {error}"
        raise place_of(head, "build").error(words) from error
    if not isinstance(logits, Tensor):
        raise place_of(head, "build").amiss(logits, "a tensor (5, 3)", what="what its module makes")
    _expect(tuple(logits.shape) == (5, 3), f"the head {head.name} gives {tuple(logits.shape)}, expected (5, 3)")
    _expect(bool(torch.isfinite(logits).all()), f"the head {head.name} gives numbers that aren't finite")
    return logits


def _stub(width: int) -> Any:
    """As much of a backbone as a head needs to be built for."""
    from types import SimpleNamespace

    return SimpleNamespace(module=nn.Identity(), stages={}, slots=(), fixed=frozenset(), width=width)


@_conforming()
def check_freezer(freezer: Freezer, argument: str | None) -> None:
    """Plans name stages that exist and factors that are some, the same each time, for shallow and deep backbones, early and late."""
    freezer = _accepted(freezer)
    for stages in (("stem", "layer1", "layer2", "pool"), tuple(f"block{i}" for i in range(24))):
        for epoch in (0, 1, 7, 50):
            plan = ask(freezer, "plan", stages, argument, epoch)
            freeze.check_plan(freezer, plan, stages, epoch)
            if any(ask(freezer, "plan", stages, argument, epoch) != plan for _ in range(_ASKED)):
                raise place_of(freezer, "plan").error(
                    f"gives two different plans for epoch {epoch}; expected the same each time"
                )


@_conforming()
def check_weights(source: WeightsSource, family: Family) -> None:
    """What the source serves of a family's models loads strictly: every name and shape fits, but for the classifier's.

    Args:
        source: what the plugin registers.
        family: of which it serves models.
    """
    source, family = _accepted(source), _accepted(family)
    served = [model for model in ask(source, "models") if model.startswith(f"{family.name}:")]
    place = place_of(source, "models")
    if not served:
        raise place.error(f"names no model of {family.name}; expected names such as {family.name}:MODEL")
    for reference in served:
        name = reference.partition(":")[2]
        if full_name(family, name) != name:
            raise place.error(f"names {reference}; expected the full name, {family.name}:{full_name(family, name)}")
        load_backbone(family, name, weights="pretrained", sources=[source])


@_conforming()
def check_task(task: Task, data: Path, options: Any = None, *, heads: Sequence[Head] = ()) -> None:
    """Discovery and reading are deterministic and fit the port; preprocessing, loss and metrics give what is promised.

    Args:
        task: what the plugin registers.
        data: a folder with at least one sample of each class.
        options: the task's own; None for its defaults.
        heads: the plugin's own, where the task names one by default and the plugin isn't installed.
    """
    task = _accepted(task)
    options = task.options() if options is None else options
    found = samples.discover(task, data, options, learning=False)
    _expect(
        found == samples.discover(task, data, options, learning=False),
        f"{task.name}: discovering twice gives two different answers",
    )
    targets = np.array([sample.target for sample in found.samples])
    _check_default_head(task, options, heads)
    _check_reader(task, options)
    ask(task, "operating_point", options)
    ask(task, "report", found.samples, options)
    for sample in found.samples[:: math.ceil(len(found.samples) / _MOST_READ)]:
        samples.read(task, options, sample)  # refuses arrays that aren't as the ports say
    _check_reading(task, found.samples[0], options)
    _check_metrics(task, targets, len(found.classes))
    _check_loss(task, found, options)


def _check_default_head(task: Task, options: Any, heads: Sequence[Head]) -> None:
    name, bag = ask(task, "head", options), ask(task, "bag", options)
    own = [head for head in heads if head.name == name.rpartition("/")[2]]
    try:
        head = own[0] if own else registry.load().head(name)
    except UnknownNameError as error:
        raise place_of(task, "head").error(f"names a head that isn't registered: {error}") from error
    if head.bag != bag:
        raise place_of(task, "head").error(f"names {name}, whose bag is {head.bag}; its own bag is {bag}")


def _check_reader(task: Task, options: Any) -> None:
    source = ask(task, "reader", options)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise place_of(task, "reader").error(f"gives a source that isn't Python: {error}") from error
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    if source.strip() and "read" not in named:
        raise place_of(task, "reader").error("gives a source without a function read(path)")


def _check_reading(task: Task, sample: Sample, options: Any) -> None:
    arrays, again = samples.read(task, options, sample), samples.read(task, options, sample)
    _expect(all(map(np.array_equal, arrays, again)), f"{task.name}: reading isn't deterministic")
    if task.digest is not None:
        digest = samples.digest(task, options, sample)
        _expect(digest == samples.digest(task, options, sample), f"{task.name}: a sample's digest isn't the same twice")
    channels = ask(task, "channels", options)
    spec = InputSpec(height=32, width=32, resize=36, mean=(0.5,) * channels, std=(0.5,) * channels)
    preprocess = within(task, "preprocess", ask(task, "preprocess", spec, options))
    x = preprocess(*(torch.from_numpy(array)[None] for array in arrays))
    wanted = (1, len(arrays[0]), channels, 32, 32) if ask(task, "bag", options) else (1, channels, 32, 32)
    _expect(
        tuple(x.shape) == wanted and x.dtype == torch.float32,
        f"{task.name}: preprocessing gives {x.dtype} {tuple(x.shape)}, expected float32 {wanted}",
    )
    view = ask(task, "augment", spec, options)
    if view is not None:
        seen = within(task, "augment", view)(*samples.sketch(task, spec, options, sample))
        _expect(
            tuple(seen.shape) == wanted[1:], f"{task.name}: augment gives {tuple(seen.shape)}, expected {wanted[1:]}"
        )
    ask(task, "explain", spec, options)
    picture = samples.show(task, options, sample)
    _expect(
        picture.dtype == np.uint8 and picture.ndim in (2, 3),
        f"{task.name}: shows {picture.dtype} {picture.shape}, expected a uint8 picture",
    )


def _check_metrics(task: Task, targets: NDArray[Any], classes: int) -> None:
    """The same names for answers of any kind; the primary one is a number, and larger for better answers."""
    place, rng = place_of(task, "metrics"), np.random.default_rng(0)
    targets = np.concatenate([targets, np.arange(classes).repeat(2)])
    right = np.full((len(targets), classes), 0.1 / max(1, classes - 1))
    right[np.arange(len(targets)), targets] = 0.9
    answers = {
        "right": right, "wrong": np.roll(right, 1, axis=1), "even": np.full((len(targets), classes), 1 / classes),
        "random": rng.dirichlet(np.ones(classes), len(targets)),
    }  # fmt: skip
    values = {name: ask(task, "metrics", targets, probabilities) for name, probabilities in answers.items()}
    for name, given in values.items():
        if set(given) != set(values["right"]):
            raise place.error(
                f"gives {', '.join(given)} for {name} answers and {', '.join(values['right'])} for right ones"
            )
        if not math.isfinite(given[task.primary]):
            raise place.amiss(
                given[task.primary], "a finite number", what=f"the primary metric, {task.primary}, of {name} answers"
            )
    best, worst = (float(values[name][task.primary]) for name in ("right", "wrong"))
    if classes > 1 and not best > worst:
        raise place.error(
            f"gives {best:.4g} as {task.primary} for right answers and {worst:.4g} for wrong ones; the primary metric must be larger "
            "for better ones, since it chooses the best epoch"
        )
    some = targets != classes - 1  # as a small split may lack a class; figures may then be undefined
    ask(task, "metrics", targets[some], right[some])


def _check_loss(task: Task, found: Discovery, options: Any) -> None:
    targets = [int(sample.target) for sample in found.samples]
    logits = torch.zeros(len(targets), len(found.classes), requires_grad=True)
    module = make_loss(task, targets, options, seed=0)
    loss = module(logits, torch.tensor(targets))
    _expect(bool(torch.isfinite(loss)), f"{task.name}: its loss isn't finite")
    loss.backward()
    idle = [name.removeprefix("own.") for name, parameter in learnt(module) if parameter.grad is None]
    if idle:
        raise place_of(task, "loss").error(
            f"makes a loss that doesn't use {', '.join(idle)}; use it, or mark what is to stay fixed with requires_grad_(False)"
        )


def _load(family: Family, model: str) -> Backbone:
    try:
        return load_backbone(family, model, weights="random", sources=())
    except ZooftError as error:
        raise ConformanceError(str(error)) from error


def _noise(backbone: Backbone, count: int, *, seed: int = 1) -> Tensor:
    spec = backbone.input
    return torch.randn(count, spec.channels, spec.height, spec.width, generator=torch.Generator().manual_seed(seed))


def _metadata(backbone: Backbone, port: Port, sha256: str) -> Any:
    from zooft import runtime
    from zooft.version import __version__

    return runtime.Metadata(
        version=__version__, task="conformance", options={}, classes=tuple(f"class {i}" for i in range(_OUTPUTS)), activation="softmax",
        ports=(port,), calibration=Calibration(), group_score="mean",
        preprocessing="inside the graph", backbone=backbone.reference, weights={}, weights_sha256=sha256, data={},
        metrics={}, intended_use="A test.",
    )  # fmt: skip


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


def _expect_close(got: Tensor, wanted: Tensor, what: str) -> None:
    worst = _difference(got, wanted)
    _expect(worst < _TOLERANCE * 10, f"{what} differs by {worst:.1e} of the logits' size")


def _difference(got: Tensor, wanted: Tensor) -> float:
    """The largest, over the root mean square of what is wanted: the spread of a few numbers may be nothing by chance."""
    if got.shape != wanted.shape:
        return math.inf
    scale = max(float(wanted.square().mean().sqrt()), 1e-6)
    return float((got - wanted).abs().max()) / scale
