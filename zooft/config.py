"""The options of one fine-tuning: one dataclass, filled from flags, from a TOML file or from Python arguments.

Owns reading values from these three and checking them together, so that a user sees all faults at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt

from zooft.errors import ConfigError

Device = Literal["auto", "cpu", "cuda", "mps"]
Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
_GROUP = "group"
"""Key of a field's metadata: the dataclass of the options that the field holds."""
T = TypeVar("T")
U = TypeVar("U")


def option(default: Any, help: str, *, local: bool = False) -> Any:  # noqa: A002  -- the word that click and argparse use
    """A dataclass field with a help text, shown by the command line and the docs.

    Args:
        default: where nothing is given.
        help: one line.
        local: whether it is a place on this machine; runs and exported files don't record it then.
    """
    return dataclasses.field(default=default, metadata={"help": help, "local": local})


def required(help: str, *, local: bool = False) -> Any:  # noqa: A002  -- as above
    """A dataclass field without a default."""
    return dataclasses.field(metadata={"help": help, "local": local})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def group(cls: type[Any]) -> Any:
    """A dataclass field that holds options of its own; they are given flat, among those beside it."""
    if any(map(_is_required, dataclasses.fields(cls))):
        return dataclasses.field(metadata={_GROUP: cls})
    return dataclasses.field(default_factory=cls, metadata={_GROUP: cls})


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """What is fine-tuned, and which part of it learns."""

    backbone: str = required("FAMILY:MODEL, such as timm:vit_base or torchvision:resnet18")
    head: str | None = option(None, "what replaces the classifier; 'zooft heads' lists them [default: the task's]")
    freeze: str = option("standard/backbone", "what stays as it is; 'zooft freezers' lists the rules")
    weights: str = option("pretrained", "pretrained, random, or a .safetensors or .pth file")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How long and in what steps it learns."""

    epochs: Annotated[int, Ge(1)] = option(15, "passes over the training data")
    batch_size: Annotated[int, Ge(1)] | Literal["auto"] | None = option(
        None,
        "samples a step, of all processes together; auto finds the largest that fits "
        "[default: 32, more for a head alone]",
    )
    sweep: bool = option(False, "try several learning rates and weight decays of the head; validation chooses")
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "how what learns is computed; auto measures")
    compile: Literal["auto", "on", "off"] = option("auto", "torch.compile what learns; auto on CUDA for long runs")
    sync_bn: bool = option(False, "BatchNorm statistics over all processes (CUDA)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerOptions:
    """How a step changes the weights, and how the learning rate moves."""

    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "sgd has momentum")
    lr: Annotated[float, Gt(0), Lt(math.inf)] = option(5e-3, "learning rate of the head")
    backbone_lr: Annotated[float, Gt(0), Lt(math.inf)] = option(1e-4, "learning rate of what learns of the backbone")
    momentum: Annotated[float, Ge(0), Lt(1)] = option(0.9, "for sgd")
    weight_decay: Annotated[float, Ge(0), Lt(math.inf)] = option(0.01, "not applied to norms and biases")
    schedule: Literal["cosine", "step", "polynomial", "constant"] = option(
        "cosine", "how the rate falls after the warm-up"
    )
    warmup: Annotated[float, Ge(0), Lt(1)] = option(0.1, "share of all steps in which the rate rises")
    step_epochs: Annotated[int, Ge(1)] = option(7, "for --schedule step: epochs between drops")
    step_factor: Annotated[float, Gt(0), Lt(1)] = option(0.1, "for --schedule step: factor of a drop")
    power: Annotated[float, Gt(0), Lt(math.inf)] = option(0.9, "for --schedule polynomial: rate = lr (1 - t/T)^power")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """What is learnt from a teacher besides the targets."""

    distill: Path | None = option(
        None, "a finished run on the same task whose answers are learnt from too, as a teacher's", local=True
    )
    distill_weight: Annotated[float, Ge(0), Le(1)] = option(0.5, "share of the teacher's answers in the loss")
    temperature: Annotated[float, Gt(0), Lt(math.inf)] = option(4.0, "divides both models' logits for --distill")
    distill_features: Annotated[float, Ge(0), Lt(math.inf)] = option(
        0.0, "weight of the teacher's pooled features, added to the loss: 1 - cosine after a projection that learns"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What is held out, and how its figures are made."""

    val_fraction: Annotated[float, Gt(0), Lt(1)] = option(
        0.2, "share held out for validation where the data has no split"
    )
    folds: Annotated[int, Ge(2)] | None = option(
        None, "cross-validate in K grouped, stratified folds; the model itself then learns from all samples"
    )
    bootstrap: Annotated[int, Ge(0)] = option(1000, "resamples behind the 95 % intervals; 0 for none")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """Where it is computed."""

    device: Device = option("auto", "where to train")
    workers: Annotated[int, Ge(0)] | None = option(None, "loader processes [default: by the machine]")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How frozen stages are computed and cached."""

    cache: bool = option(True, "compute frozen stages once and cache their outputs; no-cache runs them in every epoch")
    features: Literal["fp32", "bf16"] = option(
        "fp32", "how frozen stages are computed; bf16 is faster and moves features by some percent"
    )
    views: Annotated[int, Ge(0), Le(1000)] | Literal["auto"] = option(
        "auto",
        "augmented views of each image that frozen stages see, beside the plain one; auto lets validation choose",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """The deployed file and its verification."""

    export: bool = option(True, "write and verify model.onnx")
    provider: Provider = option("auto", "onnxruntime execution provider that verifies the file")
    verify_samples: Annotated[int, Ge(1)] = option(500, "validation samples to verify on at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneConfig:
    """Everything that `zooft finetune` takes, apart from the task's own options.

    In groups by the room that reads them; whoever gives them writes them flat. What only the pipeline reads stands
    here.
    """

    model: ModelOptions = group(ModelOptions)
    task: str = required("what to learn; 'zooft tasks' lists them")
    data: Path = required("folder or manifest, as the task reads it", local=True)
    out: Path | None = option(None, "run folder to make [default: runs/TASK-MODEL-N]", local=True)
    training: TrainingOptions = group(TrainingOptions)
    optimization: OptimizerOptions = group(OptimizerOptions)
    distillation: DistillOptions = group(DistillOptions)
    evaluation: EvaluationOptions = group(EvaluationOptions)
    machine: MachineOptions = group(MachineOptions)
    caching: CacheOptions = group(CacheOptions)
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = option(0, "of splits, head, order, augmentation")
    audit: bool = option(True, "look for leaks and shortcuts before training")
    deployment: ExportOptions = group(ExportOptions)
    report: bool = option(True, "write report.html")
    profile: bool = option(False, "print where the time went")
    resume: Path | None = option(
        None,
        "resume an interrupted run, or a finished one for more --epochs; takes that run's options",
        local=True,
    )


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a dataclass, or of a group in it.

    Attributes:
        field: with its name, default and help text.
        owner: the dataclass that has the field.
    """

    field: dataclasses.Field[Any]
    owner: type[Any]


def options_of(cls: type[Any]) -> list[Option]:
    """The options of a dataclass, those of its groups among them, as they are given: flat, the required ones first."""
    found: list[Option] = []
    for field in dataclasses.fields(cls):
        found += options_of(field.metadata[_GROUP]) if _GROUP in field.metadata else [Option(field, cls)]
    return sorted(found, key=lambda option: not _is_required(option.field))


def names(cls: type[Any]) -> tuple[str, ...]:
    """The option names of a dataclass."""
    return tuple(option.field.name for option in options_of(cls))


def read(values: Mapping[str, Any], core: type[T], own: type[U]) -> tuple[T, U]:
    """The core's options and a task's own from one flat mapping, every name, type and bound checked.

    Raises:
        ConfigError: lists all faults of both, with the nearest names for unknown ones.
    """
    known = (*names(core), *names(own))
    faults = _unknown_among(values, known)
    made: list[Any] = []
    for cls in (core, own):
        try:
            made.append(build(cls, {name: value for name, value in values.items() if name in names(cls)}))
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("; ".join(faults))
    return made[0], made[1]


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An instance of a dataclass from plain values, every name, type and bound checked.

    Raises:
        ConfigError: lists all faults.
    """
    from pydantic import TypeAdapter, ValidationError

    faults = _unknown_among(values, names(cls))
    try:
        made = TypeAdapter(cls).validate_python(_gather(cls, values))
    except ValidationError as error:
        errors = [{**item, "loc": _without_groups(cls, item["loc"])} for item in error.errors()]
        faults += [_fault(cls, items) for items in _by_field(errors).values()]
    if faults:
        raise ConfigError("; ".join(faults))
    return made


def read_toml(path: Path, *, errors: str = "strict") -> dict[str, Any]:
    """The keys of a TOML file, dashes read as underscores.

    Args:
        path: of the file.
        errors: as `open` takes it, for what isn't UTF-8.

    Raises:
        ConfigError: no such file, or not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8", errors=errors))
    except OSError as error:
        raise ConfigError(f"the config file {path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the config file {path} isn't TOML: {error}") from error
    return {name.replace("-", "_"): value for name, value in values.items()}


def to_toml(values: Mapping[str, Any]) -> str:
    """Plain values as `read_toml` reads them; what is None is left out."""
    # JSON's strings, numbers, booleans and lists of them are TOML's too, but for the escape of DEL
    lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items() if value is not None)
    return "".join(line.replace("\x7f", "\\u007f") + "\n" for line in lines)


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values, tuples as lists; places on this machine are left out."""
    return {field.name: _plain(held) for field, held in _option_values(value) if not field.metadata.get("local")}


def local(value: Any) -> dict[str, Any]:
    """What `plain` leaves out."""
    return {field.name: held for field, held in _option_values(value) if field.metadata.get("local")}


def local_names(cls: type[Any]) -> tuple[str, ...]:
    """The options of a dataclass that are places on this machine."""
    return tuple(option.field.name for option in options_of(cls) if option.field.metadata.get("local"))


def _option_values(value: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Every option of a dataclass and of its groups, with what was given for it."""
    for field in dataclasses.fields(value):
        held = getattr(value, field.name)
        if _GROUP in field.metadata:
            yield from _option_values(held)
        else:
            yield field, held


def _gather(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Flat values as the dataclass holds them, those of a group together."""
    made: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if _GROUP in field.metadata:
            made[field.name] = _gather(field.metadata[_GROUP], values)
        elif field.name in values:
            made[field.name] = values[field.name]
    return made


def _without_groups(cls: type[Any], place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The path to a fault without the groups in it."""
    parts = {field.name: field.metadata.get(_GROUP) for field in dataclasses.fields(cls)}
    part = parts.get(str(place[0])) if place else None
    return place if part is None else _without_groups(part, place[1:])


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _unknown_among(values: Iterable[str], known: tuple[str, ...]) -> list[str]:
    """A sentence for each unknown name with the nearest known ones; one more for the rest, which lists all."""
    faults, strange = list[str](), list[str]()
    for name in (name for name in values if name not in known):
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            faults.append(f"there is no option {name!r}; did you mean {' or '.join(near)}?")
        else:
            strange.append(repr(name))
    if strange:
        faults.append(f"there is no option {', '.join(strange)}; there are {', '.join(known)}")
    return faults


def _by_field(errors: Sequence[Any]) -> dict[str, list[Any]]:
    """Errors by the option that they are about: one that takes this or that gives an error for each."""
    found: dict[str, list[Any]] = {}
    for item in errors:
        index = [part for part in item["loc"][1:] if isinstance(part, int)]
        found.setdefault(".".join(map(str, [*item["loc"][:1], *index])), []).append(item)
    return found


def _fault(cls: type[Any], items: Sequence[Any]) -> str:
    item = items[0]
    name = ".".join(str(part) for part in item["loc"]) or cls.__name__
    index = [part for part in item["loc"][1:] if isinstance(part, int)]
    if item["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"} and not index:
        help_text = next(option.field.metadata["help"] for option in options_of(cls) if option.field.name == name)
        return f"{name.replace('_', '-')} is required: {help_text}"
    name = ".".join(map(str, [*item["loc"][:1], *index])) or cls.__name__
    wrong = ", or ".join(dict.fromkeys(each["msg"].lower() for each in items))
    return f"{name.replace('_', '-')}: {wrong}, but {item['input']!r} was given"
