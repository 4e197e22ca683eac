"""``run.json``: everything that a run resolved, as types; written and read here alone.

A record is written when a run starts, and again whenever more is known. Owns the schema: which versions of the
file are readable, and what to do about the others.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from zooft.compute.resources import Resources
from zooft.contracts import InputSpec, Label, PrunedSizes, WeightsRecord
from zooft.errors import RunError
from zooft.run.folder import RUN_FILE, SUFFIX, write_json
from zooft.runtime import schema_2, schemas

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import TypeAdapter

SCHEMA = 3
READABLE = (schema_2.SCHEMA, SCHEMA)
"""Schema 2 has other names for a few fields, see `_upgrade`; schema 1 has too little to build the model again."""
_SHOWN = 60
"""Characters of a value that a message shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRecord:
    """The backbone that was adapted.

    Attributes:
        family: ``PLUGIN/NAME`` of its zoo.
        name: in the zoo, aliases resolved.
        width: of its features.
        stages: their names, shallow to deep.
        input: the images that it expects.
        fixed: parameters that are never trained, by the zoo's names.
        taps: the stages behind which it has a map of the image, where the head reads maps.
    """

    family: str
    name: str
    width: int
    stages: tuple[str, ...]
    input: InputSpec
    fixed: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """``family:name``, without the family's plugin."""
        return f"{self.family.rpartition('/')[2]}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecord:
    """The data that was trained on and held out.

    Attributes:
        fingerprint: SHA-256 over all ids, labels, groups and splits.
        rejected: how many files weren't used.
        group_rule: how a group's samples are combined into one prediction, by the problem's name.
        group_name: what a group is, such as a patient.
        counts: split to class, or another stratum, to number of samples.
        groups: how many there are.
        train: number of samples.
        val: number of samples.
        test: number of samples.
        path: where the data was; None for private data, whose path may name people.
    """

    fingerprint: str
    rejected: int
    group_rule: str
    group_name: str
    counts: Mapping[str, Mapping[str, int]]
    groups: int
    train: int
    val: int
    test: int
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedRecord:
    """What a run chose or measured itself.

    Attributes:
        batch_size: samples a step, of all processes together.
        lr: learning rate of the head.
        weight_decay: of the optimizer.
        views: random views of each image beside the plain one, computed once; None where images are read in every
            epoch.
        precision: number of stages before the learning part, to how the learning part is computed.
    """

    batch_size: int
    lr: float
    weight_decay: float
    views: int | None
    precision: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """Settings of the head that were tried before training, and their best epoch on the validation samples.

    Attributes:
        lr: learning rate.
        weight_decay: of the optimizer.
        views: random views of each image beside the plain one.
        epoch: from 1.
        primary: the task's first metric; None where it is undefined.
        val_loss: mean over the validation samples.
    """

    lr: float
    weight_decay: float
    views: int
    epoch: int
    primary: float | None
    val_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationRecord:
    """The finished run whose answers were learnt from too; how, is in the options.

    Attributes:
        backbone: the teacher's, ``family:name``.
        weights_sha256: of its ``model.safetensors``.
        data_fingerprint: of what it was trained and held out on, as in its own record.
    """

    backbone: str
    weights_sha256: str
    data_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedRecord:
    """What ``zooft prune`` took out of the backbone.

    Attributes:
        ratio: of the channels of each group of layers, as requested.
        sizes: of the backbone's tensors and layers, where they differ from the zoo's.
        groups: of layers that share channels, which lost some.
        whole: groups that lost none.
        before: channels of the groups that lost some.
        after: the same, afterwards.
        gate: the primary figure of the run that was pruned and of this one, on validation samples.
        table: what each costs: the run that was pruned, this one, and one with a smaller backbone.
    """

    ratio: float
    sizes: PrunedSizes
    groups: int
    whole: int
    before: int
    after: int
    gate: Mapping[str, Any] = field(default_factory=dict)
    table: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """``run.json``. What a run finds out is None, or empty, until then.

    Attributes:
        schema: of the file.
        zooft: version that made the run.
        versions: of the packages that training and reading depend on.
        task: ``PLUGIN/NAME``.
        head: ``PLUGIN/NAME``.
        options: the task's own, as in TOML.
        problem: the kind of prediction.
        labels: the meaning of the predictions, such as a label with the classes in the order of the outputs.
        backbone: what was adapted.
        weights: what training started from.
        data: what it was trained on.
        notes: messages to the user about data and splits.
        config: the core's options, flat as in TOML; without those that are places on this machine.
        resolved: what the run chose or measured itself; known after the first epoch.
        trials: what was tried to choose it.
        fitted: what was fitted on validation data, as the problem defines it, such as a temperature and a threshold.
        evaluation: split to its figures; `figures` reads them.
        best_epoch: from 1; the one whose weights were saved.
        resources: time and memory.
        profile: where the time went, with ``--profile``.
        resumed: how often the run was resumed.
        ended_at: the number of epochs after which it had ended, where it was continued for more.
        distillation: the teacher, with ``--distill``.
        pruned: what was taken out of the backbone; None where it is as the zoo builds it.
    """

    # strict, for the types of its parts too: an unknown field is a fault, and a text is no number
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True}

    schema: int = SCHEMA
    zooft: str
    versions: Mapping[str, str]
    task: str
    head: str
    options: Mapping[str, Any]
    problem: str
    labels: tuple[Label, ...]
    backbone: BackboneRecord
    weights: WeightsRecord
    data: DataRecord
    notes: tuple[str, ...]
    config: Mapping[str, Any]
    resolved: ResolvedRecord | None = None
    trials: tuple[TrialRecord, ...] = ()
    fitted: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    best_epoch: int | None = None
    resources: Resources | None = None
    profile: Mapping[str, Any] | None = None
    resumed: int = 0
    ended_at: tuple[int, ...] = ()
    distillation: DistillationRecord | None = None
    pruned: PrunedRecord | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories of all labels, one after the other."""
        return tuple(name for label in self.labels for name in label.categories)

    @property
    def backbone_in_words(self) -> str:
        """``family:name``, and how much of it was pruned."""
        pruned = "" if self.pruned is None else f" (pruned, ratio {self.pruned.ratio:g})"
        return self.backbone.reference + pruned

    def figures(self, split: str) -> Mapping[str, Any]:
        """A split's figures as `Evaluation` has them, in JSON's types; empty where it wasn't evaluated."""
        return self.evaluation.get(split, {})


def write_record(folder: Path, record: RunRecord) -> None:
    """Write ``run.json``, whole or not at all."""
    write_json(folder / RUN_FILE, record)


def update_record(folder: Path, **changes: Any) -> None:
    """Update fields of ``run.json``."""
    write_record(folder, replace(read_record(folder), **changes))


def read_record(folder: Path) -> RunRecord:
    """A run's ``run.json``, every field and its type checked.

    Raises:
        RunError: no run, an incomplete one, a damaged record, or one of another schema.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        hint = "; it is incomplete" if folder.name.endswith(SUFFIX) else ""
        raise RunError(f"{folder} isn't a run folder: it has no {RUN_FILE}{hint}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}") from error
    _check_schema(path, values)
    return _validate(path, _upgrade(values))


def is_run(folder: Path) -> bool:
    """Whether `folder` has a record of a schema that `read_record` reads."""
    try:
        values = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("schema") in READABLE


def _check_schema(path: Path, values: Any) -> None:
    schema = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(schema, int):
        raise RunError(f"{path} isn't a record of a run: it has no schema number; name the folder of a run")
    if why := schemas.refusal(f"{path} is", schema, READABLE, version=values.get("zooft"), again="train again"):
        raise RunError(why)


def _upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields under the names of the present schema."""
    found = {**values, "schema": SCHEMA}
    if values["schema"] == SCHEMA:
        return found
    if "settled" in found:
        found["resolved"] = found.pop("settled")
    found.pop("positive", None)
    found |= {"problem": "classification", "labels": [{"name": "class", "categories": found.pop("classes", [])}]}
    found["fitted"] = found.pop("calibration", None) or {}
    # damaged fields stay as they are: validation reports them
    with contextlib.suppress(KeyError, AttributeError):
        found["fitted"] = schema_2.convert_fitted(found["fitted"])
    with contextlib.suppress(KeyError, AttributeError):
        found["data"] = schema_2.data(found["data"])
    with contextlib.suppress(AttributeError):
        found["evaluation"] = {split: schema_2.figures(one) for split, one in found.get("evaluation", {}).items()}
    return found


def _validate(path: Path, values: Mapping[str, Any]) -> RunRecord:
    from pydantic import ValidationError

    try:
        # as JSON, where a list may stand for a tuple, and nothing else for anything else
        record = _adapter().validate_json(json.dumps(values, ensure_ascii=False).translate(_STAND_INS))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        found = "" if first["type"].startswith("missing") else f", found {json.dumps(first['input'])[:_SHOWN]}"
        raise RunError(
            f"{path} is damaged: {where}: {first['msg'].lower()}{found}; bring the file back as the run wrote it, or "
            "train again"
        ) from error
    # only the place of the data may have a name whose bytes aren't Unicode, and it has to lead there
    data = record.data
    return replace(record, data=replace(data, path=data.path and data.path.translate(_BACK)))


_STAND_INS = {code: 0xF0000 + code for code in range(0xD800, 0xE000)}
"""Private characters for lone surrogates, as which Python represents bytes of names that aren't Unicode; JSON has
none."""
_BACK = {stand_in: code for code, stand_in in _STAND_INS.items()}


@cache
def _adapter() -> TypeAdapter[RunRecord]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunRecord)
