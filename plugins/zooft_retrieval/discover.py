"""Pictures and whose they are: a folder for each identity, a CSV manifest, or a list of pairs as LFW has it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_retrieval import pairs
from zooft_retrieval.identities import Identity, content_of

if TYPE_CHECKING:
    from zooft_retrieval.options import RetrievalOptions

_MANIFEST, _PAIRS = "labels.csv", "pairs.txt"
_PATH, _SPLIT, _LABEL, _IDENTITY = "path", "split", "label", "identity"
_NAMED = 5
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that isn't opened yet.

    Attributes:
        id: as run files call it.
        path: of the file.
        identity: whose.
        split: where the data defines it.
        pairs: of a list.
        place: line of a table, for messages; "" where there is none.
    """

    id: str
    path: Path
    identity: str
    split: Any = None
    pairs: tuple[int, ...] = ()
    place: str = ""


@dataclass(slots=True)
class Listing:
    """What was found, and what the user should know."""

    candidates: list[Candidate]
    rejected: list[zooft.Rejection] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def discover(root: Path, options: RetrievalOptions, *, computing: zooft.Computing = zooft.unseen) -> zooft.Discovery:
    """Samples, each with its identity as target and as group, so that no one is on both sides of a split.

    Args:
        root: a folder, a manifest or a list of pairs.
        options: the task's own.
        computing: shows progress.

    Raises:
        DataError: none of these, or nothing that can be used.
    """
    listing = _list(root, options)
    if not listing.candidates:
        first = f"; the first: {listing.rejected[0].id}: {listing.rejected[0].reason}" if listing.rejected else ""
        raise zooft.DataError(
            f"no pictures of identities in {root}: expected a folder for each identity, a CSV file with the columns "
            f"path and {options.identity_column}, or a list of pairs as LFW has it{first}"
        )
    samples = list(_samples(listing, computing))
    samples = _without_contradictions(samples, listing)
    if not samples:
        raise zooft.DataError(
            f"none of the {len(listing.candidates):,} pictures in {root} can be used; the first: "
            f"{listing.rejected[0].id}: {listing.rejected[0].reason}"
        )
    return zooft.Discovery(
        samples=zooft.spill(samples),
        labels=(zooft.Label(name=_IDENTITY),),
        rejected=tuple(listing.rejected),
        notes=(*listing.notes, *_about(samples)),
        group_name=_IDENTITY,
    )


def _list(root: Path, options: RetrievalOptions) -> Listing:
    if root.is_file():
        if pairs.is_list(root):
            return _of_pairs(root, pairs.read(root), root.parent)
        if zooft.looks_like_picture(root):
            raise zooft.DataError(
                f"{root} is a picture; --data takes a folder with a folder for each identity, or a CSV file"
            )
        return _of_table(root, options)
    if not root.is_dir():
        raise zooft.DataError(f"{root} can't be read: no such file or folder")
    if (root / _MANIFEST).is_file():
        return _of_table(root / _MANIFEST, options)
    if (root / _PAIRS).is_file() and pairs.is_list(root / _PAIRS):
        return _of_folders_and_pairs(root)
    return _of_folders(root)


# folders


def _of_folders(root: Path) -> Listing:
    """NAME/… or train/NAME/…, val/NAME/…, test/NAME/…."""
    found = Listing([])
    tops = _folders(root, root, found)
    splits = {top: zooft.SPLIT_NAMES.get(top.name.lower()) for top in tops}
    if tops and all(splits.values()):
        for top, split in splits.items():
            for folder in _folders(top, root, found):
                _add_folder(folder, folder.name, split, root, found)
    else:
        some = [top.name for top, split in splits.items() if split and any(each.is_dir() for each in top.iterdir())]
        if some:
            rest = ", ".join(top.name for top, split in splits.items() if not split)
            raise zooft.DataError(
                f"{root} has split folders ({', '.join(some)}) and others beside them ({rest}); leave nothing else "
                "beside splits"
            )
        for top in tops:
            _add_folder(top, top.name, None, root, found)
    return found


def _folders(folder: Path, root: Path, found: Listing) -> list[Path]:
    """Those right below; pictures beside them are nobody's."""
    inner = []
    for path in sorted(folder.iterdir()):
        if zooft.is_hidden(path.name):
            continue
        if path.is_dir():
            inner.append(path)
        elif zooft.looks_like_picture(path):
            found.rejected.append(
                zooft.Rejection(_identity(root, path), "beside the identities' folders, so without a name")
            )
    return inner


def _add_folder(folder: Path, name: str, split: Any, root: Path, found: Listing) -> None:
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(each for each in inner if not zooft.is_hidden(each))
        for each in sorted(each for each in names if not zooft.is_hidden(each)):
            path = Path(place) / each
            found.candidates.append(Candidate(_identity(root, path), path, printable(name), split))


def _identity(root: Path, path: Path) -> str:
    return printable(os.path.relpath(path, root).replace(os.sep, "/"))


def printable(name: str) -> str:
    """A name whose bytes aren't Unicode, in characters that every file of a run can hold."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


# tables


def _of_table(path: Path, options: RetrievalOptions) -> Listing:
    table = zooft.read_csv(path)
    column = _column(path, table.columns, options)
    found = Listing([], notes=list(table.notes))
    lines: dict[str, tuple[int, Candidate]] = {}
    for number, row in table.rows:
        place = f"{path.name}, line {number}"
        candidate = _of_row(path.parent, row, column, place)
        if isinstance(candidate, zooft.Rejection):
            found.rejected.append(candidate)
            continue
        first, known = lines.setdefault(os.path.realpath(candidate.path), (number, candidate))
        if (known.identity, known.split) != (candidate.identity, candidate.split):
            raise zooft.DataError(
                f"{place}: {candidate.id} is {candidate.identity!r} here and {known.identity!r} in line {first}, or "
                "in another split; remove one of the two"
            )
    found.candidates = [candidate for _, candidate in lines.values()]
    return found


def _column(path: Path, columns: Sequence[str], options: RetrievalOptions) -> str:
    wanted = options.identity_column.lower()
    known = [wanted, _LABEL] if wanted == _IDENTITY else [wanted]
    column = next((name for name in known if name in columns), "")
    if _PATH not in columns or not column:
        missing = " and ".join(name for name in (_PATH, wanted) if name not in columns)
        raise zooft.DataError(
            f"{path} needs the columns path and {wanted}, and has {', '.join(columns[:8]) or 'nothing'}; {missing} "
            "missing (--identity-column names the one with who is shown)"
        )
    return column


def _of_row(root: Path, row: Mapping[str, str], column: str, place: str) -> Candidate | zooft.Rejection:
    name, who = row.get(_PATH, ""), row.get(column, "")
    if not name or not who:
        return zooft.Rejection(name or place, f"{place}: no {_PATH if not name else column}")
    split = row.get(_SPLIT, "").strip().lower()
    if split and split not in zooft.SPLIT_NAMES:
        raise zooft.DataError(f"{place}: {name} is in the split {split!r}; there are train, val and test")
    try:
        path = zooft.path_in_table(root, name)
        there = path.is_file()
    except (OSError, ValueError) as error:
        return zooft.Rejection(name, f"{place}: not a usable path: {error}")
    if not there:
        return zooft.Rejection(name, f"{place}: no such file; paths are relative to the table's folder")
    return Candidate(_identity(root, path), path, who, zooft.SPLIT_NAMES.get(split), place=place)


# lists of pairs


def _of_pairs(path: Path, listed: Sequence[pairs.Pair], root: Path) -> Listing:
    """The pictures that a list names; all of them are compared as it lists them."""
    root = pairs.root_of(root, listed)
    found = Listing([])
    numbers: dict[tuple[str, int], list[int]] = {}
    lines: dict[tuple[str, int], int] = {}
    for pair in listed:
        for who in (pair.first, pair.second):
            numbers.setdefault(who, []).append(pair.line)
            lines.setdefault(who, pair.line)
    for (name, number), within in numbers.items():
        picture = pairs.picture_of(root, name, number)
        if picture is None:
            where = f"{path.name}, line {lines[name, number]}"
            found.rejected.append(
                zooft.Rejection(f"{name}/{name}_{number:04}", f"{where}: no such picture in {root.name}")
            )
            continue
        found.candidates.append(Candidate(_identity(root, picture), picture, name, None, tuple(within)))
    missing = len(found.rejected)
    found.notes.append(
        f"{len(listed):,} pairs of {path.name} are compared, and no others"
        + (
            f"; {missing:,} of {len(numbers):,} pictures that it names aren't there, so their pairs are left out"
            if missing
            else ""
        )
    )
    return found


def _of_folders_and_pairs(root: Path) -> Listing:
    """People whom the list names are for testing, by its pairs; the others to learn from."""
    listed = pairs.read(root / _PAIRS)
    of_list = _of_pairs(root / _PAIRS, listed, root)
    named = {name for pair in listed for name, _ in (pair.first, pair.second)}
    found = _of_folders(pairs.root_of(root, listed))
    rest = [
        Candidate(each.id, each.path, each.identity, "train") for each in found.candidates if each.identity not in named
    ]
    test = [Candidate(each.id, each.path, each.identity, "test", each.pairs) for each in of_list.candidates]
    left = sum(each.identity in named for each in found.candidates) - len(test)
    notes = [
        *found.notes,
        *of_list.notes,
        f"the test split is the {len(named):,} people of {_PAIRS}, the training data the others",
    ]
    if left:
        notes.append(f"{zooft.pluralize(left, 'picture')} of people of {_PAIRS} in none of its pairs: not used")
    if not rest:  # all that can be done with it is to evaluate
        test = [Candidate(each.id, each.path, each.identity, None, each.pairs) for each in of_list.candidates]
    return Listing([*rest, *test], [*found.rejected, *of_list.rejected], notes)


# pictures


def _samples(listing: Listing, computing: zooft.Computing) -> Iterator[zooft.Sample]:
    """Every picture that can be decoded. In threads: Pillow's decoders let go of the interpreter."""
    advance = computing("looking into pictures", len(listing.candidates))

    def look(candidate: Candidate) -> zooft.Sample | zooft.Rejection:
        try:
            levels = zooft.image_decode(candidate.path)
        except zooft.DataError as error:
            where = f"{candidate.place}: " if candidate.place else ""
            return zooft.Rejection(candidate.id, f"{where}{error}")
        height, width = levels.shape[:2]
        return zooft.Sample(
            id=candidate.id,
            source=candidate.path,
            target=Identity(candidate.identity, content_of(levels), candidate.pairs),
            group=candidate.identity,
            split=candidate.split,
            facts={"width": float(width), "height": float(height), "format": candidate.path.suffix.lower().lstrip(".")},
        )

    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # once for all threads: the filters belong to the process
        warnings.simplefilter("ignore")
        for begin in range(0, len(listing.candidates), _AT_ONCE):
            some = listing.candidates[begin : begin + _AT_ONCE]
            for made in pool.map(look, some):
                if isinstance(made, zooft.Rejection):
                    listing.rejected.append(made)
                else:
                    yield made
            advance(len(some))


def _without_contradictions(samples: Sequence[zooft.Sample], listing: Listing) -> list[zooft.Sample]:
    """A picture under two names trains them as the same, and counts as a mistake: neither is used."""
    names: dict[str, dict[str, str]] = {}
    for sample in samples:
        names.setdefault(sample.target.content, {}).setdefault(sample.target.name, sample.id)
    single = []
    for sample in samples:
        under = names[sample.target.content]
        if len(under) == 1:
            single.append(sample)
            continue
        other = next(id_ for name, id_ in under.items() if name != sample.target.name)
        listing.rejected.append(
            zooft.Rejection(sample.id, f"the same picture is {other}, of another identity; fix one of the two")
        )
    return single


def _about(samples: Sequence[zooft.Sample]) -> list[str]:
    """Identities that are alone, copies, and names that may be one."""
    contents: dict[str, set[str]] = {}
    for sample in samples:
        contents.setdefault(sample.target.name, set()).add(sample.target.content)
    notes = [
        f"{zooft.pluralize(len(contents), 'identity', 'identities')} in {zooft.pluralize(len(samples), 'picture')}"
    ]
    alone = sorted(name for name, own in contents.items() if len(own) == 1)
    if alone:
        notes.append(
            f"{zooft.pluralize(len(alone), 'identity has', 'identities have')}"
            f" one picture only ({zooft.list_some(alone, _NAMED)}): negatives in "
            "training, distractors in evaluation, never queries"
        )
    copies = len(samples) - sum(map(len, contents.values()))
    if copies:
        notes.append(
            f"{zooft.pluralize(copies, 'picture is a copy', 'pictures are copies')}"
            " of another of the same identity; copies never "
            "count as each other's match"
        )
    spelt: dict[str, list[str]] = {}
    for name in contents:
        spelt.setdefault(zooft.spelling(name), []).append(name)
    twice = [" and ".join(sorted(names)) for names in spelt.values() if len(names) > 1]
    if twice:
        notes.append(
            f"warning: names that differ only in case, spaces or Unicode form: {'; '.join(twice[:_NAMED])}; if they "
            "are one, it may be on both sides of the split: spell it the same"
        )
    return notes
