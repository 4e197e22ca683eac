"""How masks are learnt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

import zooft
from zooft_segmentation import needs
from zooft_segmentation.masks import OUTSIDE
from zooft_segmentation.tiles import constants

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Labels = tuple[zooft.Label, ...]

HEAD = "logits"


@runtime_checkable
class Target(Protocol):
    """What a sample's target has, from whatever data it comes."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Pixels of each class."""

    @property
    def mark(self) -> str:
        """Equal for equal masks."""

    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W)``, the number of each pixel's class; 255 where there is none."""

    def renumber(self, numbers: Sequence[int], count: int) -> Target:
        """With other numbers of the classes: ``numbers[old]``, of `count` ones."""


_MOST_WEIGHT = 10.0


def training_part() -> zooft.TrainingPart:
    """What is learnt."""
    return zooft.TrainingPart(
        outputs=_outputs,
        gives="map",
        loss=_loss,
        check=_check,
        prepare=_prepare,
        encode=_encode,
        move=_move,
        strata=_strata,
        absent=_absent,
        unlearnable=_unlearnable,
        check_options=needs.require,
        unknown=_unknown,
        relabel=_relabel,
        distill=_distill,
    )


def _outputs(labels: Labels, _options: Any) -> Mapping[str, int]:
    return {HEAD: len(labels)}


def _check(target: Any, labels: Labels) -> str:
    if not isinstance(target, Target):
        return "a mask"
    if len(target.counts) != len(labels):
        return f"a mask of {len(labels)} classes"
    return ""


def _prepare(labels: Labels, _targets: Sequence[Any], options: Any) -> Labels:
    """The first label knows whether the file gives probabilities, and of its tiles: its outputs depend on that."""
    own = {"probabilities": float(options.probabilities), **constants(options)}
    first = replace(labels[0], constants={**labels[0].constants, **own})
    return (first, *labels[1:])


def _encode(target: Target, _labels: Labels) -> NDArray[np.uint8]:
    return target.pixels()


def _move(mask: NDArray[np.uint8], geometry: zooft.Geometry) -> NDArray[np.uint8]:
    return geometry.mask(mask, outside=OUTSIDE)


def _loss(_labels: Labels, targets: Sequence[Target], options: Any) -> nn.Module:
    from zooft_segmentation.losses import PictureLoss

    weights = class_weights(targets) if options.class_weights == "balanced" else None
    return PictureLoss(options.segmentation_loss, weights)


def _distill(_labels: Labels, _theirs: Labels, _options: Any, temperature: float) -> nn.Module:
    from zooft_segmentation.losses import SoftenedPixels

    return SoftenedPixels(temperature)


def class_weights(targets: Sequence[Target]) -> list[float]:
    """Median frequency balancing (Eigen and Fergus 2015), ten at most; of classes that nowhere are, 1.

    A class's frequency is its share of the pixels of those pictures in which it is.
    """
    own, of = (np.zeros(len(targets[0].counts)) for _ in range(2))
    for target in targets:
        counts = np.array(target.counts, np.float64)
        own += counts
        of += np.where(counts > 0, counts.sum(), 0)
    there = own > 0
    shares = np.divide(own, of, out=np.ones_like(own), where=there)
    weights = np.median(shares[there]) / shares if there.any() else np.ones_like(own)
    return [float(weight) for weight in np.where(there, np.minimum(weights, _MOST_WEIGHT), 1.0)]


def _strata(targets: Sequence[Target], labels: Labels) -> zooft.Strata:
    """By the rarest class that a picture has."""
    frequency = Counter(number for target in targets for number, count in enumerate(target.counts) if count)
    numbers = [
        min((number for number, count in enumerate(target.counts) if count), key=lambda n: (frequency[n], n), default=0)
        for target in targets
    ]
    return zooft.Strata(numbers, tuple(label.name for label in labels), needed=False)


def _absent(targets: Sequence[Target], labels: Labels) -> tuple[str, ...]:
    there = {number for target in targets for number, count in enumerate(target.counts) if count}
    return tuple(label.name for number, label in enumerate(labels) if number not in there)


def _unlearnable(targets: Sequence[Target], labels: Labels) -> str:
    absent = _absent(targets, labels)
    if len(labels) - len(absent) < 2:
        return "the masks of the training samples show fewer than two classes"
    return ""


def _unknown(found: Labels, known: Labels) -> str:
    """Classes of data that a model doesn't have; data without names of classes is matched by their numbers."""
    if _by_number(found, known):
        return ""
    names = {label.name for label in known}
    others = [label.name for label in found if label.name not in names]
    if not others:
        return ""
    return (
        f"the data has the classes {', '.join(others[:4])}{' …' if others[4:] else ''}, which the model doesn't know; "
        f"it knows {', '.join(label.name for label in known)}"
    )


def _relabel(target: Target, found: Labels, known: Labels) -> Target:
    numbers = {label.name: number for number, label in enumerate(known)}
    by_number = _by_number(found, known)
    own = [number if by_number else numbers[label.name] for number, label in enumerate(found)]
    if own == list(range(len(known))):
        return target
    return target.renumber(own, len(known))


def _by_number(found: Labels, known: Labels) -> bool:
    """Whether the data's classes have no names, and are those of the model by their numbers."""
    nameless = all(label.name == f"class {number}" for number, label in enumerate(found))
    named = not any(label.name.startswith("class ") for label in known)
    return nameless and named and len(found) <= len(known)
