"""CT samples below a folder: series in order, labels in place, every slice that is used decoded once.

Nothing that names a person leaves here but in `Sample.source`: ids and groups are salted hashes, reasons and notes
are counts.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zooft
from zooft_ct import assign, decode_check, graph, label_volumes, labels, needs, nifti, pairs, privacy, stacks
from zooft_ct.assign import Assigned, Labelled
from zooft_ct.columns import read_columns
from zooft_ct.decode_check import such_as
from zooft_ct.patients import Patients, about_alike, about_names, about_shared, about_torn, examine
from zooft_ct.person import Person, stands_for_nobody
from zooft_ct.prediction_groups import PredictionGroups, prediction_groups
from zooft_ct.read import SliceRef, Source, place
from zooft_ct.series import Refused
from zooft_ct.stacks import Stack

if TYPE_CHECKING:
    from zooft_ct.options import CTOptions

_DOCUMENTS = frozenset({".txt", ".md", ".csv", ".tsv", ".json", ".pdf", ".html", ".xml", ".xlsx", ".png", ".jpg"})
"""Endings of files that lie beside images in every archive; ``--strict`` lets them be."""
_FACTS = ("manufacturer", "kernel", "slice_thickness", "sex", "age")
"""Those that tables of subgroups need."""

_Target = tuple[Any, Literal["train", "val", "test"] | None]
"""As the problem has it, None where it isn't known; and the split."""
_MORE_POSITIVE = ", and with the largest probability speaking for a patient, it calls more patients positive"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Salted names for what is in one data folder, or anywhere, but for files that the user has typed."""

    key: privacy.Key
    root: Path | None
    typed: Mapping[Path, str] = field(default_factory=dict)

    def file(self, path: Path) -> str:
        return self.typed.get(path) or privacy.file_id(self.key, self.root, path)

    def series(self, stack: Stack) -> str:
        return privacy.hash_value(self.key, "series", stack.name)

    def group(self, kind: str, value: str) -> str:
        return privacy.hash_value(self.key, kind, value)

    def slice(self, stack: Stack, ref: SliceRef) -> str:
        path, number = place(ref)
        name = stacks.sop_of(ref) or privacy.relative(self.root, path)
        return privacy.hash_value(self.key, "slice", f"{stack.name}#{name}#{number}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What lies below a data folder, with labels in their places.

    Attributes:
        root: as it was given.
        table: path of the table of labels; None where class folders are the labels.
        found: series and refused files.
        patients: the files' PatientIDs.
        names: salted.
        assigned: labels of slices.
    """

    root: Path
    table: Path | None
    found: stacks.Found
    patients: Patients
    names: _Names
    assigned: Assigned


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """Samples, and what can't be used."""

    samples: Sequence[zooft.Sample]
    rejected: tuple[zooft.Rejection, ...]
    notes: tuple[str, ...]


def discover(
    root: Path, options: Any, computing: zooft.Computing = zooft.unseen, *, learning: bool = True
) -> zooft.Discovery:
    """Samples with classes, the positive one last, and what can't be used.

    Args:
        root: a data folder, or its table of labels.
        options: the task's own.
        computing: shows progress.
        learning: whether the order of the classes is to be settled; a finished model has one.

    Raises:
        ConfigError: options that don't go together, a missing library, or two classes of which either may be positive.
        DataError: no CT, no labels, labels that contradict themselves or the files, series without a patient.
    """
    _check(options)
    path = labels.table_of(root, by_slice=options.mode != "volume")
    scene = _scene(root, labels.read_table(path) if path else None, path, options, computing)
    positive = getattr(options, "positive", "")  # which the options that all tasks with CT share don't have
    classes, order = _classes(scene.assigned, positive, learning=learning)
    class_labels = zooft.class_labels(classes, nothing=zooft.nothing_of(classes, positive))
    made = _make_samples(
        scene, {name: index for index, name in enumerate(classes)}, options, computing, learning=learning
    )
    one_class = _about_one_class(made.samples, scene.assigned, class_labels, options) if learning else []
    return zooft.Discovery(
        samples=made.samples,
        labels=class_labels,
        rejected=made.rejected,
        notes=(*scene.assigned.notes, *order, *made.notes, *one_class, *_notes(scene, _MORE_POSITIVE, options)),
        group_rule="max" if scene.assigned.by_slice else "mean",
        group_name=options.group_by,
    )


def discover_columns(
    problem: zooft.Problem,
    root: Path,
    options: Any,
    computing: zooft.Computing = zooft.unseen,
    *,
    learning: bool = True,
) -> zooft.Discovery:
    """Samples whose targets are columns of the table of labels, and what can't be used.

    Args:
        problem: that reads the columns.
        root: a data folder, or its table of labels.
        options: the task's own.
        computing: shows progress.
        learning: whether what can't be split safely is refused.

    Raises:
        ConfigError: options that don't go together, or a missing library.
        DataError: no CT, no table, lines that contradict themselves or the files, targets that the problem can't read,
            series without a patient.
    """
    _check(options)
    path = labels.table_of(root, by_slice=options.mode != "volume")
    if path is None:
        raise zooft.DataError(
            f"there are no labels: write {labels.TABLE} (patient_id, series_uid or path, and the "
            "columns to learn) into the data folder"
        )
    columns = read_columns(path, problem, options)
    scene = _scene(root, columns.table, path, options, computing)
    made = _make_samples(scene, columns.targets, options, computing, learning=learning)
    return zooft.Discovery(
        samples=made.samples,
        labels=columns.labels,
        rejected=made.rejected,
        notes=(*scene.assigned.notes, *made.notes, *_notes(scene, "", options)),
        group_rule=_rule(problem, by_slice=scene.assigned.by_slice),
        group_name=options.group_by,
    )


def discover_volumes(
    meaning: Callable[[Sequence[label_volumes.LabelVolume], Path, Any], label_volumes.Meaning],
    root: Path,
    options: Any,
    computing: zooft.Computing = zooft.unseen,
    *,
    learning: bool = True,
) -> zooft.Discovery:
    """Samples whose targets come from label volumes, and what can't be used.

    Args:
        meaning: ``(volumes, folder, options)`` to the targets of their slices.
        root: a data folder, or its table.
        options: the task's own.
        computing: shows how far reading is.
        learning: whether what can't be split safely is refused.

    Raises:
        ConfigError: options that don't go together, or a missing library.
        DataError: no CT, no label volumes, or none that can be used, series without a patient.
    """
    _check(options)
    folder = root.parent if root.is_file() else root
    found = stacks.below([folder], folder, options, computing, pairs.masks_below(root))
    _refuse_nothing(found)
    which = pairs.pairs_of(root, found)
    used = {path.resolve() for paths in which.files.values() for path in paths}
    others = [refused for refused in found.rejected if refused.path.resolve() not in used]
    found = replace(found, rejected=(*others, *which.rejected))
    patients = examine((stack.patient, stack.persons) for stack in found.stacks if stack.persons)
    names = _Names(key=privacy.key_of(folder), root=folder)
    assigned = assign.by_table(which.table, found.stacks, folder, patients, whole=False)
    masked = _attach_masks(assigned, which, meaning, names, options, computing)
    scene = _Scene(root=root, table=which.path, found=found, patients=patients, names=names, assigned=masked.assigned)
    made = _make_samples(scene, masked.targets, options, computing, learning=learning)
    return zooft.Discovery(
        samples=made.samples,
        labels=masked.meaning.labels,
        rejected=made.rejected,
        notes=(*masked.assigned.notes, *masked.meaning.notes, *made.notes, *_notes(scene, "", options)),
        group_name=options.group_by,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masked:
    """Series with label volumes; a slice's label is the key of its target."""

    assigned: Assigned
    targets: Mapping[str, Any]
    meaning: label_volumes.Meaning


def _attach_masks(
    assigned: Assigned, which: pairs.Pairs, meaning: Callable[..., Any], names: _Names, options: Any, computing: Any
) -> _Masked:
    rejected: list[zooft.Rejection] = []
    read: list[tuple[Labelled, str, label_volumes.LabelVolume]] = []
    advance = computing("label volumes", len(assigned.labelled))
    for one in assigned.labelled:
        keys = {label for label, _ in one.labels.values()}
        files = which.files[next(iter(keys))]
        mask = " and ".join(names.file(path) for path in files)
        try:
            if len(keys) > 1:
                raise zooft.DataError("its slices have different label volumes")
            read.append((one, mask, label_volumes.read(files, one.stack)))
        except zooft.DataError as error:
            rejected.append(zooft.Rejection(f"series {names.series(one.stack)}", f"its labels, {mask}: {error}"))
        advance(1)
    _refuse_unlabelled(read, rejected)
    found = meaning([volume for _, _, volume in read], names.root, options)
    targets: dict[str, Any] = {}
    labelled: list[Labelled] = []
    for number, ((one, mask, volume), own) in enumerate(zip(read, found.targets, strict=True)):
        series = f"series {names.series(one.stack)}"
        if isinstance(own, str):
            rejected.append(zooft.Rejection(series, f"its labels, {mask}: {own}"))
            continue
        places = {i: (f"{number}/{i}", split) for i, (_, split) in one.labels.items() if i in own}
        if len(volume.planes) < len(one.stack.slices):
            covered = f"its labels, {mask}, cover {len(volume.planes)} of {len(one.stack.slices)} slices"
            rejected.append(zooft.Rejection(series, f"{covered}; the others aren't used"))
        targets |= {key: own[i] for i, (key, _) in places.items()}
        labelled.append(replace(one, labels=places))
    _refuse_unlabelled(labelled, rejected)
    return _Masked(
        assigned=replace(assigned, labelled=tuple(labelled), rejected=(*assigned.rejected, *rejected)),
        targets=targets,
        meaning=found,
    )


def _refuse_unlabelled(left: Sequence[Any], rejected: Sequence[zooft.Rejection]) -> None:
    if not left:
        first = f"; the first of {len(rejected)}: {rejected[0].id}: {rejected[0].reason}" if rejected else ""
        raise zooft.DataError(f"no label volume in the data can be used{first}")


def _rule(problem: zooft.Problem, *, by_slice: bool) -> str:
    """One slice with a finding is a patient with it, but slices of a labelled series speak together.

    "" where that is usual.
    """
    wanted, rules = "max" if by_slice else "mean", problem.evaluation.rules
    return wanted if wanted in rules[1:] else ""


def _check(options: CTOptions) -> None:
    needs.require()
    graph.check(options)


def _scene(
    root: Path, table: labels.Table | None, path: Path | None, options: CTOptions, computing: zooft.Computing
) -> _Scene:
    whole = options.mode == "volume"
    folder = root.parent if root.is_file() else root
    found = stacks.below([folder], folder, options, computing)
    _refuse_nothing(found)
    patients = examine((stack.patient, stack.persons) for stack in found.stacks if stack.persons)
    names = _Names(key=privacy.key_of(folder), root=folder)
    assigned = (
        assign.by_table(table, found.stacks, folder, patients, whole=whole)
        if table
        else assign.by_folders(found.stacks, folder, patients, names.series, whole=whole)
    )
    return _Scene(root=root, table=path, found=found, patients=patients, names=names, assigned=assigned)


def _make_samples(
    scene: _Scene, targets: Mapping[str, Any], options: CTOptions, computing: zooft.Computing, *, learning: bool
) -> _Made:
    """Samples with the target of each label, every slice that is used decoded once."""
    names, assigned = scene.names, scene.assigned
    grouped, doubtful = _group_stacks(assigned, names, options, learning=learning)
    made = [sample for one, group in grouped for sample in _of_labelled(one, group, targets, names, options)]
    sound = decode_check.sound(made, options, names.file, computing)
    files = _unused_files(scene.found, assigned, scene.root)
    rejected = (*_rejections(files, assigned, names), *doubtful, *sound.rejected)
    if options.strict:
        _refuse_rejected(files, len(rejected))
    return _Made(samples=sound.samples, rejected=rejected, notes=tuple(sound.notes))


def begin(data: Path, _options: CTOptions) -> None:
    """Make the key of the data's ids, before a run that others may ask about.

    Raises:
        DataError: it can be written nowhere.
        ConfigError: ``ZOOFT_KEY_FILE`` isn't a whole path.
    """
    if data.exists():  # what doesn't is reported by `discover`
        privacy.keep_key(data)


def gather(paths: Sequence[Path], options: CTOptions, computing: zooft.Computing = zooft.unseen) -> zooft.Discovery:
    """Unlabelled samples of files and folders, one group a patient and study, for a deployed model.

    A series without PatientID, and a NIfTI volume, is a group by itself: whose it is can't be known.

    Raises:
        ConfigError: options that don't go together, or a missing library.
    """
    needs.require()
    graph.check(options)
    typed = {path.resolve(): str(path) for path in paths if not path.is_dir()}
    names = _Names(key=privacy.key_near(paths), root=None, typed=typed)
    found = stacks.below([path.resolve() for path in paths], names.root, options, computing)
    answers = prediction_groups(found)
    samples = [sample for stack in found.stacks for sample in _unlabelled_samples(stack, answers, names, options)]
    sound = decode_check.sound(samples, options, names.file, computing)
    rejected = _with_groups(found, answers, names)
    rejected += _missing_slices(found, answers, names, rejected)
    return zooft.Discovery(
        samples=sound.samples,
        rejected=(*rejected, *sound.rejected),
        notes=(*sound.notes, *answers.notes(found.stacks, names.group), *_about_stacks(found.stacks, names, options)),
    )


def _with_groups(found: stacks.Found, answers: PredictionGroups, names: _Names) -> list[zooft.Rejection]:
    """Refused files as parts of patients' answers, or as patients without one, so that no answer looks whole.

    A file goes with the rest of its series, else of its patient; one without an owner goes with those
    beside it in its folder, where they are of one patient.
    """
    by_series: defaultdict[str, set[str]] = defaultdict(set)
    by_folder: defaultdict[Path, set[str]] = defaultdict(set)
    for stack in found.stacks:
        group = answers.of_stack(stack, names.group)
        by_series[stack.series].add(group)
        by_folder[stack.path.parent].add(group)
    return [
        zooft.Rejection(
            names.file(each.path),
            each.reason,
            group=_group_of(each, answers, by_series.get(each.owner.series, set()), by_folder[each.path.parent], names),
            missing=each.slices,
        )
        for each in found.rejected
    ]


def _missing_slices(
    found: stacks.Found, answers: PredictionGroups, names: _Names, refused: Sequence[zooft.Rejection]
) -> list[zooft.Rejection]:
    """Slices that nobody has given; those that were refused leave gaps, too, and are counted by then."""
    counted: Counter[str] = Counter()
    for each in refused:
        counted[each.group or ""] += each.missing
    pairs = [(stack, answers.of_stack(stack, names.group)) for stack in found.stacks]
    return [
        zooft.Rejection(
            f"series {names.series(stack)}",
            f"slices missing from the series: {stack.lost - counted[group]}, by positions and InstanceNumbers; give "
            "the whole series",
            group=group,
            missing=stack.lost - counted[group],
        )
        for stack, group in pairs
        if stack.lost > counted[group]
    ]


def _group_of(
    refused: Refused, answers: PredictionGroups, of_series: Collection[str], beside: Collection[str], names: _Names
) -> str | None:
    owner = refused.owner
    if owner.series and len(of_series) == 1:
        return next(iter(of_series))
    of_patient = answers.of(owner, {owner.person}, names.group)
    if of_patient:
        return of_patient
    if owner.series or nifti.is_nifti(refused.path):
        name = f"{owner.series}#" if owner.series else privacy.relative(names.root, refused.path)
        return names.group("series", name)
    return next(iter(beside)) if refused.slices and len(beside) == 1 else None


def _unlabelled_samples(
    stack: Stack, answers: PredictionGroups, names: _Names, options: CTOptions
) -> Iterator[zooft.Sample]:
    targets: dict[int, _Target] = dict.fromkeys(range(len(stack.slices)), (None, None))
    return _of_stack(stack, answers.of_stack(stack, names.group), targets, names, options)


def _refuse_nothing(found: stacks.Found) -> None:
    if found.stacks:
        return
    counts = Counter(refused.reason for refused in found.rejected).most_common(5)
    seen = "; ".join(f"{count}: {reason}" for reason, count in counts) or "there are no files"
    raise zooft.DataError(
        "no CT in the data that can be used, of "
        f"{zooft.pluralize(len(found.rejected), 'file or series', 'files or series')} read ({seen})"
    )


def _unused_files(found: stacks.Found, assigned: Assigned, root: Path) -> list[Refused]:
    """Files that no sample is made of, but for tables of labels."""
    used = {os.path.realpath(header.path) for one in assigned.labelled for _, header in one.copies}
    used |= {os.path.realpath(path) for path in (root, root / labels.TABLE, root / labels.SLICE_TABLE)}
    return [refused for refused in found.rejected if os.path.realpath(refused.path) not in used]


def _refuse_rejected(files: Sequence[Refused], rejected: int) -> None:
    count = rejected - sum(refused.path.suffix.lower() in _DOCUMENTS for refused in files)
    if count:
        raise zooft.DataError(
            f"{zooft.pluralize(count, 'file, series or line', 'files, series or lines')}"
            " can't be used, and --strict was given; run without it to have them "
            "listed with reasons"
        )


def _classes(assigned: Assigned, positive: str, *, learning: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """In the order of the targets, the positive one last, and notes on it."""
    names = assigned.classes
    if not learning:
        return names, ()
    classes, notes = zooft.order_classes(names, positive, ask=True)
    if len(names) < 3 or not assigned.by_slice:
        return classes, notes
    ordered = classes if positive else zooft.nothing_first(classes)
    return ordered, (_about_several(ordered, zooft.nothing_of(ordered, positive)),)


def _about_several(classes: Sequence[str], nothing: str) -> str:
    """How slices of more than two classes make a patient's answer and truth."""
    tie = f"of equally many as the later one of {', '.join(classes)}"
    if nothing:
        return (
            f"a patient's answer is that of the slice which is least likely {nothing!r}, and a patient with slices of "
            f"several classes counts as what most of the slices are that aren't {nothing!r}, {tie}"
        )
    return (
        f"a patient's answer is that of the slice which is likeliest {classes[-1]!r}, as no class is known to mean "
        "that nothing was found, and a patient with slices of several classes counts as what most of the slices are, "
        f"{tie}; --positive puts another class last"
    )


def _group_stacks(
    assigned: Assigned, names: _Names, options: CTOptions, *, learning: bool
) -> tuple[list[tuple[Labelled, str]], list[zooft.Rejection]]:
    """Labelled stacks with the hashes of what must not be divided, and those of which it can't be known.

    Raises:
        DataError: nothing could be held out safely.
    """
    by_patient = options.group_by == "patient"
    doubtful = [one for one in assigned.labelled if by_patient and one.doubt]
    sure = [one for one in assigned.labelled if not (by_patient and one.doubt)]
    groups = [_group(one, options, names.root) for one in sure]
    if learning:
        _refuse_unknown(sure, groups, names, options)
    if doubtful and not sure:
        raise zooft.DataError(
            f"all {len(doubtful)} labelled series, the first is {names.series(doubtful[0].stack)}: "
            f"{doubtful[0].doubt}, so whose they are can't be known. {_way_out(options)}"
        )
    return (
        [
            (one, names.group(options.group_by, group) if group else names.group("series", one.stack.name))
            for one, group in zip(sure, groups, strict=True)
        ],
        [
            zooft.Rejection(f"series {names.series(one.stack)}", f"{one.doubt} ({len(one.stack.slices)} slices)")
            for one in doubtful
        ],
    )


def _refuse_unknown(labelled: Sequence[Labelled], groups: Sequence[str], names: _Names, options: CTOptions) -> None:
    unknown = groups.count("")
    if unknown:
        nobodys = sum(stands_for_nobody(one.stack.patient) for one in labelled)
        such = f" ({nobodys} of them have a PatientID such as ANONYMOUS, which anonymisers write for everybody)"
        reason = such if nobodys and options.group_by == "patient" else ""
        raise zooft.DataError(
            f"can't split safely: of {len(groups)} labelled series, {unknown} name no {options.group_by}, the first "
            "is series "
            f"{names.series(labelled[groups.index('')].stack)}{reason}, "
            f"so one patient could stand on both sides. {_way_out(options)}"
        )
    if len(groups) > 1 and len(set(groups)) == 1:
        what = {"patient": "PatientID", "study": "StudyInstanceUID"}.get(options.group_by, options.group_by)
        raise zooft.DataError(
            f"all {len(groups)} labelled series name one {what}, so nothing can be held out: it stands for everybody, "
            f"as anonymisers write it, or there is one {options.group_by} only. {_way_out(options)}"
        )


def _way_out(options: CTOptions) -> str:
    others = ", ".join(kind for kind in ("patient", "study", "series", "folder") if kind != options.group_by)
    if options.group_by != "patient":
        return f"Choose what a split must not divide with --group-by {others}"
    return (
        f"Write the true ones into the column patient_id of {labels.TABLE}, which is believed then, or choose what is "
        f"must not be divided with --group-by {others}"
    )


def _of_labelled(
    one: Labelled, group: str, meaning: Mapping[str, Any], names: _Names, options: CTOptions
) -> Iterator[zooft.Sample]:
    targets: dict[int, _Target] = {i: (meaning[label], split) for i, (label, split) in one.labels.items()}
    yield from _of_stack(one.stack, group, targets, names, options)
    if options.mode == "volume":
        return
    for i, header in one.copies:
        slices = (*one.stack.slices[:i], header, *one.stack.slices[i + 1 :])
        copied = replace(one.stack, name=f"{one.stack.name}#{privacy.relative(names.root, header.path)}", slices=slices)
        yield from _of_stack(copied, group, {i: targets[i]}, names, options)


def _group(one: Labelled, options: CTOptions, root: Path | None) -> str:
    """What a split must not divide, unhashed; "" where it isn't known."""
    by: Mapping[str, str] = {
        "patient": one.patient,
        "study": one.stack.study,
        "series": one.stack.name,
        "folder": privacy.relative(root, one.stack.path.parent),
    }
    return by[options.group_by]


def _of_stack(
    stack: Stack, group: str, targets: Mapping[int, _Target], names: _Names, options: CTOptions
) -> Iterator[zooft.Sample]:
    """A sample for each slice that has a target, or one for the whole stack."""
    name = f"{group}/{names.series(stack)}"
    if options.mode == "volume":
        chosen = spread(stack.positions, options.slices)
        yield _sample(name, group, stack, chosen, next(iter(targets.values())), chosen[len(chosen) // 2])
        return
    for i, target in sorted(targets.items()):
        chosen = neighbours(i, len(stack.slices), stack.gaps) if options.mode == "2.5d" else (i,)
        yield _sample(f"{name}/{names.slice(stack, stack.slices[i])}", group, stack, chosen, target, i)


def _sample(
    identity: str, group: str, stack: Stack, chosen: Sequence[int], target: _Target, number: int
) -> zooft.Sample:
    middle = stack.slices[number]
    return zooft.Sample(
        id=identity,
        source=Source(
            slices=tuple(stack.slices[i] for i in chosen),
            spacing=stacks.spacing_of(middle),
            number=number,
            count=len(stack.slices),
            thickness=stacks.thickness_of(stack, number),
        ),
        target=target[0],
        group=group,
        split=target[1],
        facts=stacks.facts_of(middle),
    )


def neighbours(i: int, count: int, gaps: Collection[int]) -> tuple[int, int, int]:
    """A slice between the ones before and after it; at an end or a gap it stands for the missing one itself."""
    before = i - 1 if i > 0 and i - 1 not in gaps else i
    after = i + 1 if i + 1 < count and i not in gaps else i
    return before, i, after


def spread(positions: Sequence[float], count: int) -> tuple[int, ...]:
    """`count` slices, evenly spaced by position.

    What the stack covers is cut into `count` equal parts; the slice nearest to the middle of each is taken, so a
    short stack repeats slices.

    Args:
        positions: of the slices along the normal, mm, ascending.
        count: how many are wanted.
    """
    import numpy as np

    places = np.asarray(positions, dtype=np.float64)
    step = (places[-1] - places[0]) / max(len(places) - 1, 1)
    middles = places[0] - step / 2 + (np.arange(count) + 0.5) * (step * len(places) / count)
    nearest = np.abs(places[None] - middles[:, None]).argmin(axis=1)
    return tuple(int(i) for i in nearest)


def _rejections(files: Sequence[Refused], assigned: Assigned, names: _Names) -> tuple[zooft.Rejection, ...]:
    return (
        *assigned.rejected,
        *(zooft.Rejection(names.file(refused.path), refused.reason) for refused in files),
        *(
            zooft.Rejection(f"series {names.series(stack)}", f"no label ({len(stack.slices)} slices)")
            for stack in assigned.unlabelled
        ),
    )


def _notes(scene: _Scene, more: str, options: CTOptions) -> list[str]:
    """What the user should know of the data.

    Args:
        scene: the data.
        more: what follows, of classes, from predictions of slices that nobody has labelled.
        options: the task's.
    """
    assigned, names, table = scene.assigned, scene.names, scene.table
    labelled = assigned.labelled
    notes = _about_patients(assigned, scene.patients, names, options)
    notes += [_about_table(table)] if table and table.name == labels.SLICE_TABLE else []
    notes += _about_unlabelled_slices(assigned, more)
    notes += _about_stacks([one.stack for one in labelled], names, options)
    notes += _about_spacing(labelled, options) + _about_facts(labelled)
    if options.group_by != "patient":
        notes += _about_groups(labelled, options)
    return notes


def _about_one_class(
    samples: Sequence[zooft.Sample], assigned: Assigned, class_labels: tuple[zooft.Label, ...], options: CTOptions
) -> list[str]:
    """Where everybody counts as one class, though slices differ."""
    targets: defaultdict[str, list[int]] = defaultdict(list)
    for sample in samples:
        targets[sample.group or sample.id].append(sample.target)
    if not assigned.by_slice or len({sample.target for sample in samples}) < 2:
        return []
    true = {zooft.class_of_group(own, class_labels) for own in targets.values()}
    if len(true) != 1:
        return []
    name, one = class_labels[0].categories[true.pop()], options.group_by
    return [
        f"warning: each {one} of {len(targets)} has a slice of the class {name!r}, so each counts as {name!r}: there "
        f"are no figures per {one}, and zooft predict would predict {name!r} for everybody. Check whether {name!r} is "
        "the positive class (--positive), and add some without it"
    ]


def _about_patients(assigned: Assigned, patients: Patients, names: _Names, options: CTOptions) -> list[str]:
    def hash_patient(patient: str) -> str:
        return names.group("patient", patient)

    persons: defaultdict[str, set[Person]] = defaultdict(set)
    for one in assigned.labelled:
        if one.patient:
            persons[one.patient] |= one.stack.persons
    torn = replace(patients, torn={name: what for name, what in patients.torn.items() if name in persons})
    then = (
        f"their series are left out. {_way_out(options)}"
        if options.group_by == "patient"
        else f"--group-by {options.group_by} doesn't go by it"
    )
    unknown = sum(not one.patient for one in assigned.labelled)
    return [
        *about_shared(patients, hash_patient, persons),
        *about_torn(torn, [f"series {names.series(one.stack)}" for one in assigned.labelled if one.doubt], then=then),
        *about_alike(persons, hash_patient),
        *about_names(persons, hash_patient),
        *(
            [f"{unknown} of {len(assigned.labelled)} series name no patient; each counts as one of its own"]
            if unknown and options.group_by == "patient"
            else []
        ),
    ]


def _about_table(table: Path) -> str:
    return f"labels are of single slices, from {table.name}; --mode volume takes those of {labels.TABLE}"


def _about_unlabelled_slices(assigned: Assigned, more: str) -> list[str]:
    partly = [one for one in assigned.labelled if len(one.labels) < len(one.stack.slices)]
    if not assigned.by_slice or not partly:
        return []
    slices, having = (
        sum(counts) for counts in zip(*((len(o.stack.slices), len(o.labels)) for o in partly), strict=True)
    )
    return [
        f"{len(partly)} of {len(assigned.labelled)} labelled series have slices without a label ({slices - having} of "
        f"their {slices}): figures{', temperature and threshold' if more else ''} are of the labelled slices alone; "
        f"zooft predict reads all slices of a series{more}"
    ]


def _about_stacks(every: Sequence[Stack], names: _Names, options: CTOptions) -> list[str]:
    noted: defaultdict[str, list[str]] = defaultdict(list)
    for stack in every:
        for note in stack.notes:
            noted[note].append(names.series(stack))
    notes = [
        f"{len(own)} of {len(every)} series: {note}{such_as(own) if len(every) > 1 else ''}"
        for note, own in noted.items()
    ]
    alone = sum(len(stack.slices) == 1 for stack in every)
    if alone and options.mode in ("2.5d", "volume"):
        notes.append(
            f"{alone} of {len(every)} series have a single slice, which --mode {options.mode} repeats; --mode slice "
            "needs no others"
        )
    return notes


def _about_spacing(labelled: Sequence[Labelled], options: CTOptions) -> list[str]:
    known = [spacing[1] for one in labelled if (spacing := stacks.spacing_of(one.stack.slices[0]))]
    if options.spacing or not known or max(known) < 1.1 * min(known):
        return []
    return [
        f"pixels are {min(known):.2f} to {max(known):.2f} mm wide, so one size in mm has many in pixels; --spacing "
        "resamples all to one"
    ]


def _about_facts(labelled: Sequence[Labelled]) -> list[str]:
    missing = Counter(name for one in labelled for name in _FACTS if name not in stacks.facts_of(one.stack.slices[0]))
    if not missing:
        return []
    listed = ", ".join(f"{name.replace('_', ' ')} in {count}" for name, count in missing.items())
    return [f"of {len(labelled)} series, files don't state: {listed}"]


def _about_groups(labelled: Sequence[Labelled], options: CTOptions) -> list[str]:
    several = Counter(one.patient for one in labelled if one.patient)
    count = sum(series > 1 for series in several.values())
    if not count:
        return []
    return [
        f"{zooft.pluralize(count, 'patient has', 'patients have')}"
        f" several series, and --group-by {options.group_by} may put them on both sides of a "
        "split: figures are then too good"
    ]
