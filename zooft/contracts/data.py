"""What data is made of, as types.

Samples, what was found and what was not usable, and the inputs of a deployed graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays: TypeAlias = "tuple[NDArray[Any], ...]"
"""One sample in native units, an array for each port of its task, without the batch axis."""


SplitName = Literal["train", "val", "test"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a target means.

    Attributes:
        name: of the answer, such as ``class``, ``age``, ``nodule``.
        categories: of answers that are one of several names, in order; empty for others. Of two, the second is the
        positive one.
        unit: of numbers, such as ``mm``; "" where they have none.
        constants: what a problem has computed from the training targets and its answers depend on, such as the mean and
            the standard deviation that numbers are standardised by; empty before the data is split.
        problem: of several answers at once, the kind of this one, such as ``regression``; "" where there is one kind
        alone.
        answer: of several answers at once, the name of the one that this label is part of, such as ``findings``; ""
            where there is one alone, and of an answer with a single label, whose name it has.
        nothing: of three and more categories, the one that means that nothing was found, such as ``normal``; "" where
            there is none, or where it isn't known. Any other outranks it in a group whose samples differ.
    """

    name: str = "class"
    categories: tuple[str, ...] = ()
    unit: str = ""
    problem: str = ""
    constants: Mapping[str, float] = field(default_factory=dict)
    nothing: str = ""
    answer: str = ""


def class_labels(names: Sequence[str], *, name: str = "class", nothing: str = "") -> tuple[Label, ...]:
    """The labels of classes that exclude each other, in the order of the targets; `nothing` as in `Label`.

    Raises:
        ValueError: `nothing` isn't one of three or more names.
    """
    if nothing and (nothing not in names or len(names) < 3):
        raise ValueError(
            f'nothing is {nothing!r}, expected one of three or more classes, or ""; they are {list(names)}'
        )
    return (Label(name=name, categories=tuple(names), nothing=nothing),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One thing to learn from.

    Attributes:
        id: what run files call it; never a patient's name or number.
        source: what the task's `read` takes; opaque to the core.
        target: what is true of it, as the problem has it, such as an index into the classes; None where it is only to
        be predicted.
        group: what must not be torn apart by a split (a patient); None where unknown.
        split: where the data itself defines it.
        facts: allow-listed values for subgroup tables and for the audit; what stands here goes into artefacts, so
            nothing that names a person.
    """

    id: str
    source: Any
    target: Any = None
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
    """What a task found below a data folder. Nothing is left out silently.

    Attributes:
        samples: what can be used; of very many, as `zooft.spill` stores them outside of memory.
        labels: the meaning of the targets, such as one label with the names of the classes in the order of the targets.
        rejected: what can't, and why.
        notes: what the user should know.
        group_rule: how the samples of one group make one answer, as the problem calls it; "" for its usual one. Of
            classes: ``mean`` of the probabilities, or ``max`` for those of the sample in which `Label.nothing` is least
            likely, else the last class likeliest.
        group_name: what a group is, in the singular, such as patient.
    """

    samples: Sequence[Sample]
    labels: tuple[Label, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    notes: tuple[str, ...] = ()
    group_rule: str = ""
    group_name: str = "group"

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories of all labels, one after the other."""
        return tuple(name for label in self.labels for name in label.categories)


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
