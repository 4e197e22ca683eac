"""The words that the core and its plugins share, as types.

Frozen dataclasses of plain values and callables: a plugin fills one in, nobody inherits. Nothing here
imports torch or numpy; annotations name their types only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from zooft.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

Arrays: TypeAlias = "tuple[NDArray[Any], ...]"
"""One sample in native units, an array for each port of its task, without the batch axis."""
API_VERSION = 1
"""The version of the hooks and of the types in this module; a plugin may declare its own as ``zooft_api``."""

Interpolation = Literal["bilinear", "bicubic"]
ResizeMode = Literal["crop", "stretch", "letterbox"]
Activation = Literal["softmax", "sigmoid"]
SplitName = Literal["train", "val", "test"]
GroupScore = Literal["mean", "max"]
Advance = Callable[[int], None]
Scale = Mapping[str, float]
SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""How data calls its splits, in lower case, to our names of them."""
UNLABELLED = -1
"""The target of a sample that is only to be predicted."""


class Computing(Protocol):
    """A progress bar: told what is done and how many units of it, it gives what is called with each number done."""

    def __call__(self, title: str, total: int, /) -> Advance:
        """Begin."""


def unseen(_title: str, _total: int) -> Advance:
    """A progress bar that nobody looks at."""
    return lambda _done: None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a backbone wants to see.

    Attributes:
        height: rows of the network's input, pixels.
        width: columns of the network's input, pixels.
        resize: pixels; in mode ``crop`` the shorter side is resized to this before the centre is cut out.
        mean: per channel, on the scale 0..1.
        std: per channel, on the scale 0..1.
        interpolation: the filter of the antialiased resize.
        mode: ``crop`` (shorter side to ``resize``, centre crop), ``stretch`` (both sides to the input's),
            ``letterbox`` (longer side to the input's, padded with black).
    """

    height: int
    width: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    mode: ResizeMode = "crop"

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a trunk, in terms of the zoo's own module.

    Attributes:
        parts: dotted names of the submodules, parameters and buffers of the zoo's module that the stage owns.
        forward: ``(module, x) -> y``; None runs the parts one after the other. It takes the zoo's module as an
            argument, so that a copied model runs its own tensors.
    """

    parts: tuple[str, ...]
    forward: Callable[[Any, Tensor], Tensor] | None = None

    def __call__(self, module: nn.Module, x: Tensor) -> Tensor:
        """Run the stage of `module` on `x`."""
        if self.forward is not None:
            return self.forward(module, x)
        for part in self.parts:
            x = module.get_submodule(part)(x)
        return x


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """How a zoo's module is built: its stages, its classifier, the input that it was trained on.

    Attributes:
        stages: name to stage, shallow to deep; run in this order they are the trunk's forward,
            ``(N, C, H, W) -> (N, width)``.
        classifier: dotted names of the modules that are replaced (two for distilled transformers).
        input: as the weights were trained.
        first_convolution: dotted name of the convolution that sees the image; None where other channel
            counts aren't supported.
    """

    stages: Mapping[str, Stage]
    classifier: tuple[str, ...]
    input: InputSpec
    first_convolution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """A zoo's tensors and where they come from.

    Attributes:
        tensors: the zoo's parameter names to tensors.
        source: what a reader of the run should know: a URL, a package and its version, a file's name.
        licence: SPDX identifier or the zoo's own words; None where unknown.
        file_sha256: of the file they were read from, hexadecimal, where there was one.
    """

    tensors: Mapping[str, Tensor]
    source: str
    licence: str | None = None
    file_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsRecord:
    """What a run remembers of the weights it started from."""

    kind: Literal["file", "folder", "plugin", "zoo", "random"]
    source: str
    licence: str | None
    file_sha256: str | None
    tensors_sha256: str


def _same_name(name: str) -> str:
    return name


def _never(_name: str) -> bool:
    return False


def _nowhere(_name: str) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model zoo behind a prefix: ``--backbone NAME:MODEL``.

    Attributes:
        name: the prefix.
        summary: one line for ``zooft backbones``.
        models: all model names, shortest import possible.
        build: a model by full name, the zoo's own module with its classifier, random weights. Parameters that it builds with
            ``requires_grad=False`` are never trained.
        anatomy: the map of such a module.
        pretrained: the zoo's own weights, downloading if need be; None where the zoo has none.
        aliases: short names for full ones.
        canonical: a model's full name with its default weights tag; raises KeyError for unknown ones. Without it, a full name is
            one that `models` has.
        at_hand: whether ``pretrained`` would need no network.
        local: the weights file of a model whose name, as it is typed, says where it lies on this machine; `canonical` gives a
            name for it that doesn't, and that is enough to build it elsewhere.
    """

    name: str
    summary: str
    models: Callable[[], Iterable[str]]
    build: Callable[[str], nn.Module]
    anatomy: Callable[[str, nn.Module], Anatomy]
    pretrained: Callable[[str], LoadedWeights] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    canonical: Callable[[str], str] = _same_name
    at_hand: Callable[[str], bool] = _never
    local: Callable[[str], Path | None] = _nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """A place besides the zoos that has pretrained weights, such as an installed package.

    Attributes:
        name: for ``zooft plugins`` and the run's record.
        summary: one line.
        models: which ``family:full_name`` it serves at this moment; cheap.
        load: the weights of one of them, under the zoo's parameter names. `expected` maps the zoo's
            names to shapes, in the zoo's order.
    """

    name: str
    summary: str
    models: Callable[[], Iterable[str]]
    load: Callable[[str, Mapping[str, tuple[int, ...]]], LoadedWeights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands in place of the classifier: ``--head NAME``.

    Attributes:
        name: as on the command line.
        summary: one line.
        build: ``(width, outputs) -> module`` taking ``(N, width)`` to ``(N, outputs)`` logits, every
            parameter initialised.
        bag: whether the module takes ``(N, Z, width)`` instead: a sample's Z instances, such as slices of a volume.
    """

    name: str
    summary: str
    build: Callable[[int, int], nn.Module]
    bag: bool = False


@dataclass(frozen=True, slots=True)
class FreezePlan:
    """Which stages learn in one epoch.

    Attributes:
        frozen: names of stages that must stay bit-equal, buffers too.
        scales: learning-rate factor by stage, on top of the backbone's rate, finite and not negative; 1.0 where unnamed.
    """

    frozen: frozenset[str]
    scales: Scale = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freezer:
    """A rule for what stays: ``--freeze NAME`` or ``--freeze NAME:ARGUMENT``.

    Attributes:
        name: as on the command line.
        summary: one line.
        plan: ``(stages that hold parameters to learn, argument or None, epoch from 0) -> plan``, the same each time; raises
            ConfigError for an argument it can't use.
        argument: what stands behind the colon, for help texts; None where there is nothing.
    """

    name: str
    summary: str
    plan: Callable[[Sequence[str], str | None, int], FreezePlan]
    argument: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One thing to learn from.

    Attributes:
        id: what run files call it; never a patient's name or number.
        source: what the task's `read` takes; opaque to the core.
        target: index into the classes; ``UNLABELLED`` where it is only to be predicted.
        group: what must not be torn apart by a split (a patient); None where unknown.
        split: where the data itself says so.
        facts: allow-listed values for subgroup tables and for the audit; what stands here goes into artefacts, so
            nothing that names a person.
    """

    id: str
    source: Any
    target: int
    group: str | None = None
    split: SplitName | None = None
    facts: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that isn't used, and why.

    Attributes:
        id: what run files call it.
        reason: in words.
        group: whose it is, as in `Sample.group`; None where that isn't known.
        missing: how many samples (slices of a patient) an answer lacks because of it; 0 for what no answer would have
            been made of, such as a text that lies about.
    """

    id: str
    reason: str
    group: str | None = None
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What a task found below a data folder. Nothing is left out unsaid.

    Attributes:
        samples: what can be used; of very many, as `zooft.spilled` keeps them out of memory.
        classes: names, in the order of the targets. Of two, the second is the positive one.
        rejected: what can't, and why.
        notes: what the user should know.
        group_score: how the samples of one group make one answer: their mean probability, or the probabilities of
            the sample in which the last class is likeliest.
        group_name: what a group is, in the singular, such as patient.
    """

    samples: Sequence[Sample]
    classes: tuple[str, ...]
    rejected: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()
    group_score: GroupScore = "mean"
    group_name: str = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input of the deployed graph, in native units.

    Attributes:
        name: of the ONNX input.
        dtype: numpy's name, such as ``uint8``.
        axes: names of dynamic axes, numbers of static ones, batch first.
        meaning: what a caller must know: units, colour order, orientation.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    meaning: str

    def shape(self, rows: int, columns: int, *, others: int = 3) -> tuple[int, ...]:
        """One sample's shape, without the batch axis: the last two dynamic axes are an image's, before them others."""
        dynamic = [index for index, axis in enumerate(self.axes) if index and isinstance(axis, str)]
        sizes = dict(zip(reversed(dynamic), (columns, rows), strict=False))
        return tuple(
            axis if isinstance(axis, int) else sizes.get(index, others) for index, axis in enumerate(self.axes) if index
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture for the report.

    Attributes:
        title: what it shows.
        png: the image.
        caption: what to see in it; also read out where the picture can't be seen.
    """

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table for the report.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: each with a cell a column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """How the threshold of two classes is to be chosen, on validation data only.

    Attributes:
        rule: ``youden`` for the largest sensitivity + specificity - 1 (Youden 1950), or the figure that is to be
            reached, with the other one as large as it can be.
        at_least: for the latter, such as 0.9.
    """

    rule: Literal["youden", "sensitivity", "specificity"] = "youden"
    at_least: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was fitted after training, on validation data, and is part of the deployed graph.

    Attributes:
        temperature: the logits are divided by it (Guo et al. 2017).
        threshold: of two classes, the second is said where its probability is at least this; None for the likelier.
        fitted_on: which samples it was fitted on, in words.
    """

    temperature: float = 1.0
    threshold: float | None = None
    fitted_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """A deployed model's answer about one group, such as a patient.

    Attributes:
        group: its salted name, or its file's.
        prediction: the class.
        probabilities: in the order of the classes.
        members: the samples that it was made from.
        decisive: the sample that spoke most for the last class.
        unjudged: what of the group couldn't be used, and why.
    """

    group: str
    prediction: str
    probabilities: tuple[float, ...]
    members: tuple[Sample, ...]
    decisive: Sample
    unjudged: tuple[Rejection, ...] = ()

    @property
    def missing(self) -> int:
        """How many samples the answer lacks."""
        return sum(rejected.missing for rejected in self.unjudged)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedFile:
    """Which file gave an answer, for formats that say so.

    Attributes:
        classes: in the order of the probabilities.
        threshold: of the last of two classes; None where the likelier one is said.
        backbone: ``family:full_name``.
        version: of the zooft that wrote it.
        weights_sha256: of its tensors.
    """

    classes: tuple[str, ...]
    threshold: float | None
    backbone: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True)
class NoOptions:
    """A task without options of its own."""


def _nothing_to_begin(_data: Path, _options: Any) -> None:
    return None


def _no_augmentation(_spec: InputSpec, _options: Any) -> None:
    return None


def _rgb(_options: Any) -> int:
    return 3


def _linear(_options: Any) -> str:
    return "standard/linear"


def _no_bag(_options: Any) -> bool:
    return False


def _uncalibrated(_options: Any) -> None:
    return None


def _nothing_to_show(_samples: Sequence[Sample], _options: Any) -> tuple[Picture | Table, ...]:
    return ()


def _nameless(_result: GroupResult, _options: Any) -> Mapping[str, str]:
    return {}


def _image_steps(spec: InputSpec, _options: Any) -> str:
    return (
        f"{spec.mode} to {spec.height}x{spec.width} (resize {spec.resize}, antialiased {spec.interpolation}), "
        f"then mean {spec.mean} and std {spec.std} on the scale 0..1"
    )


def _no_reader(_options: Any) -> str:
    return ""


def _as_it_is(arrays: Arrays, _options: Any) -> NDArray[Any]:
    return arrays[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is learnt, from what data: ``--task NAME``.

    All callables take the task's own options (an instance of `options`) last.

    Attributes:
        name: as on the command line.
        summary: one line.
        discover: samples below a folder (or in a file), rejected ones with reasons. Must not import torch. With a
            parameter named ``computing`` it is given one, to show how far it is; with one named ``learning``, whether
            the data is to be learnt from: a finished model has its classes and their order already.
        begin: ``(data, options)``, called once before a run's own `discover` and by no other command: the only place where a
            task may write into the data folder, such as the key of its ids. Must not import torch.
        read: one sample's array in native units, without the batch axis, or a tuple of arrays where the graph has
            several inputs; deterministic. Must not import torch.
        digest: ``(source, options)`` to the SHA-256 (hexadecimal) of the content that `read` would read, without decoding it:
            what was computed from a sample is kept under it. None hashes the arrays that were read.
        sketch: ``(source, spec, options)`` to arrays that stand for those of `read` where random views are made: smaller, or
            decoded faster, never where a plain view is wanted. None takes those of `read`.
        port: the deployed graph's input, or a tuple of them.
        preprocess: native units ``(N, …)``, one tensor for each port, to the network's input ``(N, C, H, W)``
            float32, or ``(N, Z, C, H, W)`` for a bag, as a module that can be exported.
        explain: `preprocess` in words, for the ONNX metadata.
        loss: from all training targets, a module ``(logits, targets) -> scalar``. Parameters of its own learn at the head's rate
            and are kept for ``--resume``; no file of the model holds them.
        metrics: ``(targets (N,), probabilities (N, classes)) -> name to value``.
        primary: the one of `metrics` that chooses the best epoch; better when larger.
        options: a frozen dataclass; its fields become flags, config keys and arguments.
        augment: ``(spec, options) -> (arrays -> network input (C, H, W))``, the arrays as `read` gives them and one
            argument each, or None for the plain view. A view in uint8 is levels of 0 to 255, which the core brings to
            the backbone's scale a batch at a time. Randomness comes from torch's global generator, which the core
            seeds per sample and epoch.
        channels: of the network's input.
        head: the head that is used where the user names none.
        bag: whether a sample is a bag of instances.
        activation: what turns logits into probabilities in the deployed graph.
        operating_point: how the threshold of two classes is chosen. With one, a temperature is fitted too; None
            leaves probabilities as they are.
        reader: Python source for whoever deploys the file without zooft: a function ``read(path)`` and its imports
            that gives a list of samples, each a tuple of arrays with the batch axis, one a port. Goes into the report.
        intended_use: goes into the ONNX metadata.
        probability_limit: how much a probability of the exported file may differ from the model's; the default leaves
            room for rounding to whole levels of 8-bit images inside the graph.
        private: True where paths and ids may name people; runs then hold none.
        subgroups: names of facts whose values get a row each in the table of subgroups.
        show: a sample's arrays as a picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8.
        redact: ``(arrays, options)`` to the same arrays without text that may be burned into them: what pictures are made of, never
            answers. None where there is none to fear.
        report: pictures and tables of the task's own for the report.
        gather: ``(paths, options, computing) -> Discovery`` of unlabelled samples, for ``zooft predict``; None where each file is
            one sample that `read` takes. A rejection's and a sample's id may name what the user typed.
        identify: what a group and its decisive sample are called where they come from, such as a PatientID: shown by
            ``zooft predict`` only when asked.
        whois: ``(data, ids, options)`` to what each salted id stands for: what ``zooft whois`` shows. None where ids are
            no secrets.
        writers: name to ``(results, file, folder, options)`` that writes the results of ``zooft predict`` in a
            format of the task's own and returns the files.
        demo: ``(folder, seed)`` writes a small real data set offline.
    """

    name: str
    summary: str
    discover: Callable[..., Discovery]
    read: Callable[[Any, Any], NDArray[Any] | Arrays]
    port: Callable[[Any], Port | tuple[Port, ...]]
    preprocess: Callable[[InputSpec, Any], nn.Module]
    loss: Callable[[Sequence[int], Any], nn.Module]
    metrics: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, float]]
    primary: str
    options: type[Any] = NoOptions
    begin: Callable[[Path, Any], None] = _nothing_to_begin
    digest: Callable[[Any, Any], str] | None = None
    sketch: Callable[[Any, InputSpec, Any], Arrays] | None = None
    explain: Callable[[InputSpec, Any], str] = _image_steps
    augment: Callable[[InputSpec, Any], Callable[..., Tensor] | None] = _no_augmentation
    channels: Callable[[Any], int] = _rgb
    head: Callable[[Any], str] = _linear
    bag: Callable[[Any], bool] = _no_bag
    activation: Activation = "softmax"
    operating_point: Callable[[Any], OperatingPoint | None] = _uncalibrated
    reader: Callable[[Any], str] = _no_reader
    intended_use: str = "Not stated."
    probability_limit: float = 1e-2
    private: bool = False
    subgroups: tuple[str, ...] = ()
    show: Callable[[Arrays, Any], NDArray[Any]] = _as_it_is
    redact: Callable[[Arrays, Any], Arrays] | None = None
    report: Callable[[Sequence[Sample], Any], Sequence[Picture | Table]] = _nothing_to_show
    gather: Callable[[Sequence[Path], Any, Computing], Discovery] | None = None
    identify: Callable[[GroupResult, Any], Mapping[str, str]] = _nameless
    whois: Callable[[Path, Sequence[str], Any], Mapping[str, Mapping[str, str]]] | None = None
    writers: Mapping[str, Callable[[Sequence[GroupResult], DeployedFile, Path, Any], Sequence[Path]]] = field(
        default_factory=dict
    )
    demo: Callable[[Path, int], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of ``metrics.jsonl``.

    Attributes:
        epoch: from 1.
        train_loss: mean over the epoch's training samples, in training mode.
        val_loss: mean over the validation samples.
        metrics: the task's, on the validation samples.
        learning_rate: of the head, at the epoch's end.
        seconds: wall time of the epoch, validation included.
        learning: stages that learnt, and ``head``.
        best: whether the epoch is the best so far.
    """

    epoch: int
    train_loss: float
    val_loss: float
    metrics: Mapping[str, float]
    learning_rate: float
    seconds: float
    learning: tuple[str, ...]
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDifference:
    """How far two preprocessings are apart, in levels: 1/255 of the scale that the backbone's mean and std are given on.

    Attributes:
        values: how many were compared.
        differing: how many of them differ by half a level or more.
        largest: difference.
        mean: of the differences without their signs.
        whole: whether torch's values are whole levels, as those of an 8-bit image, which rounding may flip.
    """

    values: int
    differing: int
    largest: float
    mean: float
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What ``verification.json`` says: the file on disk against the model in torch.

    Attributes:
        passed: whether every check held.
        provider: the one that truly ran.
        requested_provider: what was asked for.
        placement: provider to how many of the graph's nodes it ran.
        onnx_sha256: of the file's bytes.
        samples: how many real samples were compared.
        available: how many there were.
        batch_sizes: those run.
        max_probability_difference: over all samples and classes.
        relative_rms: root mean square of the logits' difference over `spread`.
        top1_agreement: share of samples with the same best class.
        metrics: the task's, as pairs (torch, onnx).
        failures: what didn't hold, in words.
        notes: what a reader should know.
        data: ``real`` validation samples, or ``generated`` images, which prove much less.
        against: ``torch``, the model that the file was made from.
        preprocessing: the file's against torch's; None where the file doesn't say where its preprocessing ends.
        network_rms: as `relative_rms`, where torch's network is given what the file's preprocessing made, so that only the networks
            differ; on generated images too, and the larger one.
        spread: standard deviation of the logits among the samples, or a tenth of that among generated images where that is more,
            as among samples that are nearly alike.
        declared: what of the file's metadata was compared with the run, the graph and the tensors.
    """

    passed: bool
    provider: str
    requested_provider: str
    placement: Mapping[str, int]
    onnx_sha256: str
    samples: int
    available: int
    batch_sizes: tuple[int, ...]
    max_probability_difference: float
    relative_rms: float
    top1_agreement: float
    metrics: Mapping[str, tuple[float, float]]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    data: Literal["real", "generated"]
    against: Literal["torch"] = "torch"
    preprocessing: LevelDifference | None = None
    network_rms: float | None = None
    spread: float | None = None
    declared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVerification:
    """What a file was found to be worth by labelled data, where the run that it was made from isn't at hand.

    Attributes:
        passed: whether it is as good as its metadata says, and doesn't contradict itself.
        provider: the one that truly ran; nodes by provider in `placement`.
        requested_provider: what was asked for.
        onnx_sha256: of the file's bytes.
        split: of the data, which was asked.
        samples: how many, of `available` ones.
        recorded_split: whose figures in the metadata it is compared with; empty where it has none.
        same_samples: whether those are of the same samples.
        metrics: the task's, as pairs (recorded, found now).
        primary: name of the one that counts most.
        failures: what didn't hold, in words.
        notes: what a reader should know.
        declared: what of the file's metadata was compared with its graph and tensors.
        against: ``labels``: it isn't compared with a model in torch.
    """

    passed: bool
    provider: str
    requested_provider: str
    placement: Mapping[str, int]
    onnx_sha256: str
    split: str
    samples: int
    available: int
    recorded_split: str
    same_samples: bool
    metrics: Mapping[str, tuple[float | None, float]]
    primary: str
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    declared: tuple[str, ...] = ()
    against: Literal["labels"] = "labels"


def parse_reference(text: str) -> tuple[str, str]:
    """Split ``family:model``.

    Raises:
        ConfigError: there is no colon, or nothing on one of its sides.
    """
    family, colon, model = text.partition(":")
    if not (family and colon and model):
        raise ConfigError(
            f"a backbone is named FAMILY:MODEL, but {text!r} was given; for example timm:vit_base "
            "or torchvision:resnet18 ('zooft backbones' lists them)"
        )
    return family, model
