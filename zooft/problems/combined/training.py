"""How several answers are trained: each by its own loss, on the samples of which it is known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.contracts import Strata, Targets, TrainingPart
from zooft.errors import ConfigError, DataError
from zooft.problems.combined.options import TargetSpec, read_targets

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import Label, Labels
    from zooft.problems.combined.parts import Kinds


def training_part(kinds: Kinds) -> TrainingPart:
    """How several answers are trained."""
    return TrainingPart(
        outputs=partial(_outputs, kinds),
        loss=partial(_loss, kinds),
        read=partial(_read, kinds),
        check=partial(_check, kinds),
        prepare=partial(_prepare, kinds),
        encode=partial(_encode, kinds),
        strata=partial(_strata, kinds),
        absent=partial(_absent, kinds),
        unlearnable=partial(_unlearnable, kinds),
        check_options=partial(_check_options, kinds),
        unknown=partial(_unknown, kinds),
        relabel=partial(_relabel, kinds),
        distill=partial(_distill, kinds),
    )


def _check_options(kinds: Kinds, options: Any) -> None:
    for spec in read_targets(options.targets_toml, kinds.problems):
        if kinds.problems[spec.problem].training.read is None:
            raise ConfigError(f"[targets.{spec.name}]: {spec.problem} isn't read from tables")


def _outputs(kinds: Kinds, labels: Labels, options: Any) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for part in kinds.parts(labels):
        found |= part.rename(part.problem.training.outputs(part.labels, options))
    return found


def _loss(kinds: Kinds, labels: Labels, targets: Sequence[Any], options: Any) -> nn.Module:
    from zooft.problems.combined.losses import SummedLosses

    weights = {spec.name: spec.weight for spec in _specs(kinds, options)}
    losses = {}
    for part in kinds.parts(labels):
        known = [target for target in part.targets(targets) if target is not None]
        losses[part.name] = part.problem.training.loss(part.labels, known, options)
    return SummedLosses(losses, {name: weights.get(name, 1.0) for name in losses})


def _distill(kinds: Kinds, labels: Labels, theirs: Labels, options: Any, temperature: float) -> nn.Module:
    """Each answer's own, weighted as in the loss.

    Raises:
        ConfigError: one of them isn't taught that way.
    """
    from zooft.problems.combined.losses import SummedDivergences

    weights = {spec.name: spec.weight for spec in _specs(kinds, options)}
    known = {part.name: part.labels for part in kinds.parts(theirs)}
    made = {}
    for part in kinds.parts(labels):
        own = part.problem.training.distill
        if own is None:
            raise ConfigError(
                f"--distill: a teacher's answers of the kind {part.problem.name} (of {part.name}) can't be learnt from"
            )
        made[part.name] = own(part.labels, known[part.name], options, temperature)
    return SummedDivergences(made, {name: weights.get(name, 1.0) for name in made})


def _specs(kinds: Kinds, options: Any) -> Sequence[TargetSpec]:
    """The content of the file of targets; nothing where labels come from elsewhere than a table."""
    return read_targets(options.targets_toml, kinds.problems) if options.targets_toml else ()


def _read(kinds: Kinds, rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any) -> Targets:
    """Each answer's columns by the problem that the file of targets names for it.

    Raises:
        ConfigError: names that begin alike, or settings that the answer's problem can't read its column by.
        DataError: a column that isn't there, or that the answer's problem can't read.
    """
    specs = read_targets(options.targets_toml, kinds.problems)
    _refuse_names(specs)
    values: list[dict[str, Any]] = [{} for _ in rows]
    labels: list[Label] = []
    faults: dict[int, str] = {}
    notes: list[str] = []
    for spec in specs:
        found = _read_one(kinds, spec, rows, columns, options)
        labels += _labels(spec, found.labels)
        notes += [f"{spec.name}: {text}" for text in found.notes]
        faults |= {number: f"{spec.name}: {fault}" for number, fault in found.faults.items()}
        for number, value in enumerate(found.values):
            if value is not None:
                values[number][spec.name] = value
    whole = [value or None for value in values]
    read_columns = tuple(dict.fromkeys(name for spec in specs for name in spec.columns))
    return Targets(labels=tuple(labels), values=whole, faults=faults, notes=tuple(notes), columns=read_columns)


def _read_one(
    kinds: Kinds, spec: TargetSpec, rows: Sequence[Mapping[str, str]], columns: Sequence[str], options: Any
) -> Targets:
    """One answer of all rows; None of those whose cells are empty, unless the answer's problem is to read these."""
    missing = [name for name in spec.columns if name not in columns]
    if missing:
        raise DataError(
            f"[targets.{spec.name}] names the column {missing[0]!r}, and the table has {', '.join(columns) or 'none'}"
        )
    read = kinds.problems[spec.problem].training.read
    assert read is not None  # noqa: S101 -- the options were checked
    own = [{name: row[name] for name in spec.columns} for row in rows]
    filled = [number for number, row in enumerate(own) if any(cell.strip() for cell in row.values())]
    if not filled:
        raise DataError(f"[targets.{spec.name}]: {_of_columns(spec)} empty in every row")
    settings = _with_settings(options, spec)
    if spec.problem == "multilabel" and settings.empty_means == "none":
        filled = list(range(len(own)))
    try:
        found = read([own[number] for number in filled], spec.columns, settings)
    except (ConfigError, DataError) as error:
        raise type(error)(f"[targets.{spec.name}]: {error}") from error
    values: list[Any] = [None] * len(rows)
    for place, number in enumerate(filled):
        values[number] = found.values[place]
    return replace(found, values=values, faults={filled[place]: fault for place, fault in found.faults.items()})


def _of_columns(spec: TargetSpec) -> str:
    names = ", ".join(map(repr, spec.columns))
    return f"the column {names} is" if len(spec.columns) == 1 else f"the columns {names} are"


def _labels(spec: TargetSpec, found: Labels) -> Labels:
    """Of a column with one label, it is called as the answer is; several have their own names."""
    if len(found) == 1 and re.sub(r"\s*\[[^\[\]]*\]$", "", spec.columns[0]) == found[0].name:
        return (replace(found[0], name=spec.name, problem=spec.problem),)
    return tuple(replace(label, problem=spec.problem, answer=spec.name) for label in found)


def _with_settings(options: Any, spec: TargetSpec) -> Any:
    """The options as if its settings were given for this answer alone."""
    return replace(options, targets_file=None, **spec.settings) if spec.settings else options


def _refuse_names(specs: Sequence[TargetSpec]) -> None:
    for one in specs:
        other = next((o.name for o in specs if o is not one and o.name.startswith(one.name + "_")), None)
        if other is not None:
            raise ConfigError(
                f"[targets.{other}] begins with the name of [targets.{one.name}]; call one of them otherwise"
            )


def _check(kinds: Kinds, target: Any, labels: Labels) -> str:
    if not isinstance(target, Mapping) or not target:
        return "a mapping from the names of answers to their targets, at least one"
    parts = {part.name: part for part in kinds.parts(labels)}
    foreign = [name for name in target if name not in parts]
    if foreign:
        return f"targets of {', '.join(parts)}, and not of {', '.join(map(str, foreign))}"
    for name, value in target.items():
        expected = "" if value is None else parts[name].problem.training.check(value, parts[name].labels)
        if expected:
            return f"as its target of {name}, {expected}"
    return ""


def _prepare(kinds: Kinds, labels: Labels, targets: Sequence[Any], options: Any) -> Labels:
    """Each part's labels with what it computes from its own training targets."""
    found: list[Label] = []
    for part in kinds.parts(labels):
        known = [target for target in part.targets(targets) if target is not None]
        found += part.problem.training.prepare(part.labels, known, options)
    return tuple(
        replace(own, problem=label.problem, answer=label.answer) for own, label in zip(found, labels, strict=True)
    )


def _encode(kinds: Kinds, target: Any, labels: Labels) -> Any:
    """Each part's own, and whether it is known."""
    found: dict[str, Any] = {}
    for part in kinds.parts(labels):
        own, value = part.problem.training, target.get(part.name)
        if value is None and own.placeholder is None:
            raise ConfigError(f"samples without a target of {part.name} can't be trained on by {part.problem.name}")
        given = own.placeholder(part.labels) if value is None and own.placeholder is not None else value
        found[part.name] = {"target": own.encode(given, part.labels), "known": np.float32(value is not None)}
    return found


def _strata(kinds: Kinds, targets: Sequence[Any], labels: Labels) -> Strata:
    """By the first answer that is spread evenly; samples without it are a stratum of their own."""
    for part in kinds.parts(labels):
        own = part.targets(targets)
        known = [row for row, target in enumerate(own) if target is not None]
        found = part.problem.training.strata([own[row] for row in known], part.labels)
        if len(found.names) > 1:
            numbers = np.full(len(targets), len(found.names))
            numbers[known] = list(found.numbers)
            names = (*found.names, f"without {part.name}")
            return Strata(numbers.tolist(), names if len(known) < len(targets) else found.names, needed=False)
    return Strata([0] * len(targets), ("samples",), needed=False)


def _absent(kinds: Kinds, targets: Sequence[Any], labels: Labels) -> tuple[str, ...]:
    found: list[str] = []
    for part in kinds.parts(labels):
        known = [target for target in part.targets(targets) if target is not None]
        found += [f"{part.name} {name}" for name in part.problem.training.absent(known, part.labels)]
    return tuple(found)


def _unlearnable(kinds: Kinds, targets: Sequence[Any], labels: Labels) -> str:
    for part in kinds.parts(labels):
        known = [target for target in part.targets(targets) if target is not None]
        if not known:
            return f"no sample has a target of {part.name}"
        reason = part.problem.training.unlearnable(known, part.labels)
        if reason:
            return f"{part.name}: {reason}"
    return ""


def _unknown(kinds: Kinds, found: Labels, known: Labels) -> str:
    theirs = {part.name: part for part in kinds.parts(known)}
    for part in kinds.parts(found):
        if part.name not in theirs:
            return f"the data has targets of {part.name}, and the model answers about {', '.join(theirs)}"
        reason = part.problem.training.unknown(part.labels, theirs[part.name].labels)
        if reason:
            return f"{part.name}: {reason}"
    return ""


def _relabel(kinds: Kinds, target: Any, found: Labels, known: Labels) -> Any:
    theirs = {part.name: part for part in kinds.parts(known)}
    return {
        part.name: part.problem.training.relabel(target[part.name], part.labels, theirs[part.name].labels)
        for part in kinds.parts(found)
        if target.get(part.name) is not None
    }
