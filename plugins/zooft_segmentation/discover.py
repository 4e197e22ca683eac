"""Pictures and masks, every one of them decoded once before training starts."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_segmentation import classes, coco, masks, tiles
from zooft_segmentation.pairs import Pair, find_pairs

if TYPE_CHECKING:
    from zooft_segmentation.options import SegmentationOptions

_NAMED = 4


@dataclass(frozen=True, slots=True)
class _DecodedPair:
    """What a pair's files hold.

    Attributes:
        pair: of which.
        mask: what the mask holds.
        facts: of the picture.
    """

    pair: Pair
    mask: masks.Inspection
    facts: dict[str, str | float]


def discover(root: Path, options: SegmentationOptions, *, computing: zooft.Computing = zooft.unseen) -> zooft.Discovery:
    """Samples, classes in their order, and what was rejected.

    Args:
        root: a folder, or a table of pairs.
        options: the task's own.
        computing: called with the progress.

    Raises:
        DataError: no pairs of pictures and masks, or none that can be used, or unknown classes.
        ConfigError: a file of classes that can't be read.
    """
    files = coco.annotation_files(root)
    found = coco.discover(root, files, options, computing) if files else _of_pairs(root, options, computing)
    return tiles.in_tiles(found, options, computing)


def _of_pairs(root: Path, options: SegmentationOptions, computing: zooft.Computing) -> zooft.Discovery:
    pairs = find_pairs(root, options)
    given, notes = _specified_classes(root, options)
    colours = frozenset(masks.pack_colour(each.colour) for each in given if each.colour is not None)
    decoded: list[_DecodedPair] = []
    rejected = list(pairs.rejected)
    for found in _decode_all(pairs.found, computing, colours):
        if isinstance(found, zooft.Rejection):
            rejected.append(found)
        else:
            decoded.append(found)
    if not decoded:
        raise zooft.DataError(f"no picture with a mask in {root} can be used{_why_none(rejected)}")
    every = given or _by_values(decoded, options)
    code, used = masks.code_of(every, options.ignore_index)
    _refuse_numbers(used, root)
    samples = []
    for one in decoded:
        if fault := masks.fault_of(one.mask, code):
            rejected.append(zooft.Rejection(one.pair.id, f"{one.pair.mask.name}: {fault}"))
            continue
        counts, void = masks.count_pixels(one.mask, code, len(used))
        samples.append(
            zooft.Sample(
                id=one.pair.id,
                source=one.pair.image,
                group=one.pair.group,
                split=one.pair.split,
                facts=one.facts,
                target=masks.Mask(one.pair.mask, code, counts, void, one.mask.mark),
            )
        )
    if not samples:
        raise zooft.DataError(f"no mask in {root} can be used{_why_none(rejected)}")
    return zooft.Discovery(
        samples=tuple(samples),
        labels=classes.labels_of(used),
        rejected=tuple(rejected),
        notes=(*pairs.notes, *notes, *_about(samples, used, options, named=bool(given))),
    )


def _specified_classes(root: Path, options: SegmentationOptions) -> tuple[Sequence[classes.ClassSpec], list[str]]:
    """By the option, or by a file that lies with the data."""
    if options.classes_json:
        return classes.from_json(options.classes_json), []
    folder = root if root.is_dir() else root.parent
    path = next((folder / name for name in classes.FILES if (folder / name).is_file()), None)
    if path is None:
        return (), []
    return classes.read_file(path), [f"the classes are those of {path.name} in the data"]


def _by_values(decoded: Sequence[_DecodedPair], options: SegmentationOptions) -> Sequence[classes.ClassSpec]:
    """Of masks whose classes have no names."""
    ignored = {int(each) for each in options.ignore_index if each.isdigit()}
    values = {key for one in decoded for key in one.mask.counts}
    if values <= {0, 255} and 255 in values:
        ignored -= {255}  # black and white: what is marked, and what isn't
    left = sorted(values - ignored)
    if len(left) < 2:
        raise zooft.DataError(
            f"all masks hold the value {left[0] if left else 'of void alone'}; expected two classes at least"
        )
    if left[-1] >= masks.MOST_CLASSES and left != [0, 255]:
        raise zooft.DataError(
            f"the masks hold the values {', '.join(map(str, left[:_NAMED]))} … {left[-1]}, and nothing says what they "
            "mean; give --classes-file with names and values, or leave values out with --ignore-index (now "
            f"{','.join(options.ignore_index)})"
        )
    return classes.of_numbers(left)


def _refuse_numbers(used: Sequence[classes.ClassSpec], root: Path) -> None:
    if len(used) < 2:
        raise zooft.DataError(
            f"{root}: {zooft.pluralize(len(used), 'class is', 'classes are')}"
            " left without those of --ignore-index; expected two at least"
        )
    if len(used) > masks.MOST_CLASSES:
        raise zooft.DataError(f"{root} has {len(used)} classes; a mask of 8 bits holds {masks.MOST_CLASSES} at most")


def _decode_all(
    pairs: Sequence[Pair], computing: zooft.Computing, colours: frozenset[int]
) -> Iterator[_DecodedPair | zooft.Rejection]:
    """In threads: Pillow's decoders let go of the interpreter."""
    advance = computing("decoding pictures and masks", len(pairs))
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        # once for all threads: the filters belong to the process
        warnings.simplefilter("ignore")
        for found in pool.map(lambda pair: _decode(pair, colours), pairs):
            advance(1)
            yield found


def _decode(pair: Pair, colours: frozenset[int]) -> _DecodedPair | zooft.Rejection:
    try:
        with zooft.image_opened(pair.image) as image:
            image.load()
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            rows, columns = (image.width, image.height) if turned else (image.height, image.width)
            facts: dict[str, str | float] = {
                "format": image.format or "",
                "mode": image.mode,
                "width": float(columns),
                "height": float(rows),
            }
    except zooft.DataError as error:
        return zooft.Rejection(pair.id, str(error))
    try:
        mask = masks.inspect(pair.mask, colours)
    except zooft.DataError as error:
        return zooft.Rejection(pair.id, f"{pair.mask.name}: {error}")
    if mask.size != (rows, columns):
        hint = "; the picture's EXIF turns it, so turn the mask, too" if turned else "; a mask has its picture's size"
        return zooft.Rejection(
            pair.id, f"{pair.mask.name}: the mask is {mask.size[1]}x{mask.size[0]}, the picture {columns}x{rows}{hint}"
        )
    return _DecodedPair(pair, mask, facts)


def _why_none(rejected: Sequence[zooft.Rejection]) -> str:
    return f"; the first of {len(rejected)}: {rejected[0].id}: {rejected[0].reason}" if rejected else ""


def _about(
    samples: Sequence[zooft.Sample], used: Sequence[classes.ClassSpec], options: SegmentationOptions, *, named: bool
) -> Iterator[str]:
    if not named:
        yield (
            "nothing names the classes, so they go by the values in the masks: "
            f"{', '.join(each.name for each in used[:_NAMED])}"
            f"{' …' if len(used) > _NAMED else ''}; --classes-file names them"
        )
    absent = Counter(
        each.name for number, each in enumerate(used) if not any(sample.target.counts[number] for sample in samples)
    )
    if absent:
        yield f"warning: no mask shows {', '.join(list(absent)[:_NAMED])}{' …' if len(absent) > _NAMED else ''}"
    empty = sum(1 for sample in samples if not any(sample.target.counts))
    if empty:
        yield (
            f"warning: {zooft.pluralize(empty, 'mask holds', 'masks hold')} nothing but what --ignore-index leaves out"
        )
