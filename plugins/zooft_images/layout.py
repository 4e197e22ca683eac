"""Which folders are classes and which are splits; layouts that would be misread are refused in their own words.

ants/ bees/                                classes
train/ants/ train/bees/ val/ants/ …        splits of classes
ants/train/ ants/val/ bees/train/ …        classes of splits
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zooft
from zooft_images.listing import LeftOut, Split, folders, identity, others, printable
from zooft_images.names import looks_like_picture

_LIKE_A_SPLIT = re.compile(
    r"(?P<train>train|(?<![a-z])trn(?![a-z]))|(?P<rest>test|valid|hold.?out|eval|(?<![a-z])(val|dev|tst)(?![a-z]))",
    re.IGNORECASE,
)
_OF_PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "input", "inputs"})
_OF_ANSWERS = frozenset(
    {
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "annotation",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
        "bboxes",
        "boxes",
        "ground_truth",
        "groundtruth",
        "gt",
        "targets",
    }
)
_ANSWER_FILES = frozenset({".json", ".xml", ".yaml", ".yml", ".txt"})
_NAMED = 4
_CALL = "call splits train, val and test, and leave nothing else beside them"


@dataclass(frozen=True, slots=True)
class ClassFolder:
    """A folder whose pictures are of one class, at any depth.

    Attributes:
        path: of the folder.
        label: the class's name, of another folder where that holds splits.
        split: where the layout has one.
    """

    path: Path
    label: str
    split: Split | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a data folder is laid out.

    Attributes:
        classes: their folders, in order.
        beside: files that lie in no class folder.
        rejected: folders that can't be followed.
        notes: what the user should know.
        splits: names of folders that are splits, and which.
    """

    classes: Sequence[ClassFolder]
    beside: Sequence[Path]
    rejected: Sequence[zooft.Rejection]
    notes: Sequence[str]
    splits: Mapping[str, Split]


@dataclass(frozen=True, slots=True)
class _Inside:
    """What lies right below a folder: folders, and whether a picture does, by names."""

    folders: Sequence[Path]
    picture: bool

    @property
    def of_folders(self) -> bool:
        """Whether pictures can lie in its folders only."""
        return bool(self.folders) and not self.picture


def lay_out(root: Path, left_out: LeftOut) -> Layout:
    """Find the classes' folders and the splits.

    Args:
        root: the data folder.
        left_out: collects what is hidden.

    Raises:
        DataError: a layout that would be misread, with what it looks like and what to do.
    """
    circles, tops = _without_circles(root, folders(root, left_out))
    inside = {top: _look(top) for top in tops}
    splits = [top for top in tops if split_of(top.name)]
    strays = others(root, left_out)
    notes: list[str] = []
    if splits and len(splits) == len(tops):
        found, beside, notes = _splits_of_classes(root, inside, left_out)
        strays += beside
    elif any(inside[top].folders or not inside[top].picture for top in splits):
        rest = ", ".join(printable(top.name) for top in tops if top not in splits)
        raise zooft.DataError(
            f"{_show(root)} has split folders ({_names(splits)}) and others beside them: {rest}; {_CALL}"
        )
    elif circled := [top for top in tops if any(split_of(below.name) for below in inside[top].folders)]:
        _refuse_too_high(root, inside)
        found = _classes_of_splits(root, inside, circled, left_out)
        strays += [path for top in tops for path in others(top, left_out)]
        notes = ["each class folder holds folders of splits, which are used as such"]
    else:
        if not splits:
            _refuse_too_high(root, inside)
            _refuse_unnamed_splits(root, inside)
        notes = [
            f"{_names(splits)}: read as classes, not as splits, since pictures lie right in them and other classes "
            "beside them"
        ] * bool(splits)
        found = [ClassFolder(top, printable(top.name)) for top in tops]
        notes += _about_nested(inside) + _about_splits_beside(root)
    _refuse_twice(root, found)
    _refuse_answers_as_classes(root, found)
    _refuse_answers_beside(root, found, strays)
    named = (
        {printable(top.name): split for top in tops if (split := split_of(top.name))}
        if len(splits) == len(tops)
        else {}
    )
    return Layout(classes=found, beside=strays, rejected=circles, notes=notes, splits=named)


def holds_classes(root: Path) -> bool:
    """Whether class folders can be meant, so that a manifest beside them isn't: two at least, or splits with any."""
    tops = folders(root)
    like_splits = [top for top in tops if split_of(top.name) or _LIKE_A_SPLIT.search(top.name)]
    if len(like_splits) == len(tops):
        return any(folders(top) for top in tops)
    return len(tops) > 1


def split_of(name: str) -> Split | None:
    """The split that a folder's name means."""
    return zooft.SPLIT_NAMES.get(name.lower())


def _without_circles(root: Path, tops: Sequence[Path]) -> tuple[list[zooft.Rejection], list[Path]]:
    """Links to a folder that they lie in would give all its pictures one more class."""
    above = {*Path(os.path.realpath(root)).parents, Path(os.path.realpath(root))}
    circles = [top for top in tops if top.is_symlink() and Path(os.path.realpath(top)) in above]
    why = "a link to a folder that it lies in, which isn't followed"
    return [zooft.Rejection(identity(root, top), why) for top in circles], [top for top in tops if top not in circles]


def _refuse_twice(root: Path, found: Sequence[ClassFolder]) -> None:
    """A link beside the folder that it leads to gives every picture two classes."""
    known: dict[str, ClassFolder] = {}
    for each in found:
        other = known.setdefault(os.path.realpath(each.path), each)
        if other is not each:
            one, two = identity(root, other.path), identity(root, each.path)
            raise zooft.DataError(f"{_show(root)}: {one} and {two} are one folder, by a link; leave one of the two")


def _look(path: Path) -> _Inside:
    """By what the system gives of entries in one go: a class may have a million."""
    inner, picture = [], False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if zooft.is_hidden(entry.name):
                    continue
                # of a link that leads in circles, only Path gives an answer
                if (path / entry.name).is_dir() if entry.is_symlink() else entry.is_dir():
                    inner.append(path / entry.name)
                elif not picture:
                    picture = looks_like_picture(entry.name) or "." not in entry.name
    except OSError as error:
        _refuse_unreadable(error)
    return _Inside(sorted(inner), picture)


# splits of classes, and classes of splits


def _splits_of_classes(
    root: Path, inside: Mapping[Path, _Inside], left_out: LeftOut
) -> tuple[list[ClassFolder], list[Path], list[str]]:
    for top, within in inside.items():
        below = within.folders[0] if len(within.folders) == 1 and not within.picture else None
        if below is not None and len(_look(below).folders) > 1 and _look(below).of_folders:
            raise zooft.DataError(
                f"{_show(top)} holds one folder, {printable(below.name)}, and the folders of the classes lie in "
                f"that; move what {printable(below.name)} holds up into {printable(top.name)}"
            )
    found = [
        ClassFolder(folder, printable(folder.name), split_of(top.name))
        for top in inside
        for folder in folders(top, left_out)
    ]
    beside = [path for top in inside for path in others(top, left_out)]
    names: dict[Split, list[str]] = {}
    for top in inside:
        if split := split_of(top.name):
            names.setdefault(split, []).append(printable(top.name))
    notes = [f"the folders {' and '.join(tops)} are all read as {split}" for split, tops in names.items() if tops[1:]]
    return found, beside, [*notes, *_about_nested({each.path: _look(each.path) for each in found})]


def _classes_of_splits(
    root: Path, inside: Mapping[Path, _Inside], having: Sequence[Path], left_out: LeftOut
) -> list[ClassFolder]:
    odd = [
        top
        for top, within in inside.items()
        if not within.of_folders or not all(split_of(below.name) for below in within.folders)
    ]
    if odd:
        raise zooft.DataError(
            f"{_show(root)}: {_names(having[:1])} holds folders of splits ({_names(inside[having[0]].folders)}), and "
            f"{_names(odd)} other folders or pictures; give every class folder the splits train, val and test and "
            "nothing else, or none"
        )
    return [
        ClassFolder(below, printable(top.name), split_of(below.name))
        for top in inside
        for below in folders(top, left_out)
    ]


# what would be misread


def _refuse_too_high(root: Path, inside: Mapping[Path, _Inside]) -> None:
    """One folder alone is no class beside others, but may hold the data."""
    if len(inside) != 1:
        return
    ((top, within),) = inside.items()
    chain = [top]
    while (manifest := _manifest(chain[-1])) is None and len(within.folders) == 1 and not within.picture:
        chain.append(within.folders[0])
        within = _look(chain[-1])
    if manifest is None and (len(within.folders) < 2 or within.picture):
        return
    chain = chain[: next((i for i, step in enumerate(chain) if split_of(step.name)), len(chain))]
    what = manifest or _names(_look(chain[-1]).folders)
    raise zooft.DataError(
        f"{_show(root)} holds one folder, {printable(top.name)}, and what looks like the data lies in it ({what}): "
        f"give --data {_show(chain[-1])}; if {printable(top.name)} is a class itself, put its pictures right into it"
    )


def _manifest(folder: Path) -> str | None:
    return next((path.name for path in others(folder) if path.suffix.lower() in {".csv", ".tar"}), None)


def _refuse_unnamed_splits(root: Path, inside: Mapping[Path, _Inside]) -> None:
    """Folders such as seg_train and seg_test would be trained as classes, and distinguished by what they hold."""
    found = {top: match.lastgroup == "train" for top in inside if (match := _LIKE_A_SPLIT.search(top.name))}
    like = [*found]
    if len(set(found.values())) < 2 or not (len(like) == len(inside) or any(inside[top].folders for top in like)):
        return
    table = next((path for path in others(root) if path.suffix.lower() == ".csv"), None)
    raise zooft.DataError(
        f"{_show(root)}: {_names(like)} look like splits and aren't called so; {_CALL}, each with a folder for each "
        "class" + (f", or give --data {_show(table)} if that names files and classes" if table else "")
    )


def _refuse_answers_as_classes(root: Path, found: Sequence[ClassFolder]) -> None:
    """Pictures beside their masks or boxes would be trained as two classes, and easily distinguished."""
    names = {each.label.lower(): each.label for each in found}
    kinds = [names.keys() & known for known in (_OF_PICTURES, _OF_ANSWERS)]
    if all(kinds) and len(kinds[0]) + len(kinds[1]) == len(names):
        raise zooft.DataError(
            f"{_show(root)}: {' and '.join(names.values())} look like pictures and what is marked in them (masks, "
            "boxes), not like classes; --task classification learns one class a picture: give each class a folder of "
            "its own, or name pictures and classes in a labels.csv with the columns path and label, and give that "
            "with --data"
        )


def _refuse_answers_beside(root: Path, found: Sequence[ClassFolder], beside: Sequence[Path]) -> None:
    """One folder of all pictures has no classes; a file beside it may have them, in a form of other tasks."""
    labels = {each.label for each in found}
    files = [path for path in beside if path.suffix.lower() in _ANSWER_FILES]
    if len(labels) == 1 and labels.pop().lower() in _OF_PICTURES and files:
        raise zooft.DataError(
            f"{_show(root)} has all pictures in {_names([each.path for each in found])} and no folder for each class; "
            f"what is known of them may stand in {_names(files)}: boxes are learnt by --task detection, masks by "
            "--task segmentation, classes from a labels.csv with the columns path and label, given with --data"
        )


def _about_nested(inside: Mapping[Path, _Inside]) -> list[str]:
    """Folders in class folders are of that class; reported, since the inner ones may have been meant as classes."""
    nested = {top: [below.name for below in within.folders] for top, within in inside.items() if within.folders}
    if not nested:
        return []
    first = next(iter(nested))
    below = f"{printable(first.name)}/{printable(nested[first][0])}"
    shared = set.intersection(*(set(names) for names in nested.values())) if len(nested) > 1 else set()
    if len(nested) == len(inside) > 1 and len(shared) > 1 and all(within.of_folders for within in inside.values()):
        tops, inner = _names(list(nested)), ", ".join(map(printable, sorted(shared)[:_NAMED]))
        return [
            f"warning: the classes are {tops}, and all of them hold the folders {inner}: if those are the classes, "
            "and the outer ones splits, call the outer ones train, val and test"
        ]
    return [
        f"{zooft.pluralize(len(nested), 'class folder holds', 'class folders hold')}"
        f" folders, such as {below}: all that lies in them is of the outer one's "
        "class. If the inner ones are subjects (a patient, a part), name them in a manifest's column group, or one "
        "may be on both sides"
    ]


def _about_splits_beside(root: Path) -> list[str]:
    """Who gives the folder of one split trains on it alone."""
    here = Path(os.path.abspath(root))  # noqa: PTH100 -- links stay as they were named
    if not split_of(here.name):
        return []
    try:
        beside = [path for path in folders(here.parent) if split_of(path.name) and path.name != here.name]
    except zooft.DataError:  # the folder above is no business of ours
        return []
    if not beside:
        return []
    return [
        f"{_names(beside)} lies beside {printable(here.name)} and isn't used; give the folder above to use that split"
    ]


def below(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """Whatever lies at any depth and isn't hidden: files, and what the reader will refuse.

    Links to folders are named and not followed, so that the walk ends.

    Raises:
        DataError: a folder can't be read.
    """
    for place, inner, names in os.walk(folder, onerror=_refuse_unreadable):
        here = Path(place)
        for name in sorted(name for name in (*inner, *names) if zooft.is_hidden(name)):
            left_out.add(here / name)
        inner[:] = sorted(name for name in inner if not zooft.is_hidden(name))
        links = [name for name in inner if (here / name).is_symlink()]
        yield from (here / name for name in sorted([*names, *links]) if not zooft.is_hidden(name))


def _refuse_unreadable(error: OSError) -> None:
    raise zooft.DataError(f"{printable(str(error.filename))} can't be read: {error.strerror}") from error


def _names(paths: Sequence[Path]) -> str:
    names = [printable(path.name) for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (", ".join(names) if more or len(names) < 2 else f"{', '.join(names[:-1])} and {names[-1]}") + more


def _show(path: Path) -> str:
    return printable(str(path))
