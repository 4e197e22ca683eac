"""The kind of prediction, as types: a problem's four parts, each read by one room of the core.

A task defines the data and how it becomes a network's input; a problem defines what a target is, what is trained
on it, how good an answer is, what the deployed file gives, and how an answer is shown. The two combine freely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from zooft.contracts.data import Arrays, Label, Sample
from zooft.contracts.geometry import Geometry
from zooft.contracts.options import NoOptions
from zooft.contracts.parts import Gives
from zooft.contracts.results import Description, FileAnswer, OutputDifference, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from zooft.evaluation.evaluate import Evaluated, Evaluation
    from zooft.evaluation.predictions import Predictions

Labels = tuple[Label, ...]
Columns = Mapping[str, "NDArray[Any]"]
"""Names to arrays with one row a sample; small: no row holds a picture."""
Fitted = Mapping[str, Any]
"""What was fitted on validation data, as JSON has it: numbers, texts, lists of them."""
Measure = Literal["spread", "absolute", "exact", "own"]
Direction = Literal["larger", "smaller"]
GroupRule = str
"""How the samples of one group make one answer, in the problem's own words, such as ``mean`` or ``max``.

"" for its usual one.
"""


class Loss(NamedTuple):
    """A loss as two sums, so that halves of a batch and the parts of several processes add up.

    Attributes:
        total: scalar tensor, the sum over the samples.
        weight: what it is divided by to be a mean: the number of samples, or the sum of their weights.
        mean: the mean as the loss computes it by itself, where that rounds otherwise than `total` over `weight`; None
            for these.
    """

    total: Tensor
    weight: Tensor | float
    mean: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Targets read from a table.

    Attributes:
        labels: what they mean.
        values: one a row; None where a row has none.
        faults: number of the row (from 0) to what is wrong with it, in words; such rows aren't used.
        notes: what the user should know.
        columns: those that were read; None for all that were given.
    """

    labels: Labels
    values: Sequence[Any]
    faults: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output of the deployed graph, in native units.

    Attributes:
        name: of the ONNX output.
        dtype: numpy's name, such as ``float32``.
        axes: names of dynamic axes, numbers of static ones, batch first.
        meaning: what a caller must know.
        unit: of its numbers; "" where they have none.
        measure: how a file's output is compared with torch's. ``spread``: root mean square of the difference over the
            standard deviation among samples. ``absolute``: the largest difference. ``exact``: left to the problem's
            `agree`; how many samples have the very same is recorded. ``own``: left to `agree` alone, such as boxes,
            which right files move by less than a pixel and of which nearly tied ones change places.
        tolerance: the largest that passes, in terms of `measure`.
    """

    name: str
    dtype: str
    axes: tuple[str | int, ...]
    meaning: str
    unit: str = ""
    measure: Measure = "spread"
    tolerance: float = 1e-4


def _as_it_is(target: Any, _labels: Labels) -> Any:
    return target


def _nothing_wrong(_target: Any, _labels: Labels) -> str:
    return ""


class Strata(NamedTuple):
    """What a split spreads evenly.

    Attributes:
        numbers: of a stratum for each sample, from 0.
        names: of the strata, in the order of their numbers.
        needed: whether each must have samples to learn from, and should have some on every side, as classes must.
    """

    numbers: Sequence[int]
    names: tuple[str, ...]
    needed: bool = True


def _all_alike(targets: Sequence[Any], _labels: Labels) -> Strata:
    return Strata([0] * len(targets), ("samples",), needed=False)


def _none_absent(_targets: Sequence[Any], _labels: Labels) -> tuple[str, ...]:
    return ()


def _all_options_fit(_options: Any) -> None:
    return None


def _learnable(_targets: Sequence[Any], _labels: Labels) -> str:
    return ""


def _others(found: Labels, known: Labels) -> str:
    if [label.name for label in found] == [label.name for label in known]:
        return ""
    names = (", ".join(label.name for label in labels) or "nothing" for labels in (found, known))
    return "the data's targets are of {}, and the model answers about {}".format(*names)


def _as_they_are(labels: Labels, _targets: Sequence[Any], _options: Any) -> Labels:
    return labels


def _of_the_same(target: Any, _found: Labels, _known: Labels) -> Any:
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPart:
    """What is trained.

    Attributes:
        outputs: ``(labels, options)`` to the head's outputs, name to width, such as ``{"logits": 3}``. Every head that
            reads a vector or a bag is built once for each of them, one that reads maps once for all.
        gives: the shape that these outputs must have, as `Head.gives`: ``vector``, ``map`` or ``places``. Only heads
            that give it are accepted.
        loss: ``(labels, targets, options)`` to a module ``(outputs, targets) -> Loss``; `targets` are all training
            samples', as they stand in `Sample.target`, and the module gets a batch's, as `encode` gives them, stacked.
            Parameters of its own learn at the head's rate and are saved for resuming; no file of the model holds them.
        read: ``(rows, columns, options)`` to `Targets`: from the cells of a table, as text, those columns that a task
            has found to hold targets. None where targets aren't read from tables.
        check: ``(target, labels)`` to what was expected, in words, where a sample's target isn't that; "" where it is.
        prepare: ``(labels, targets, options)`` to the same labels with `Label.constants` of these targets, those of all
            training samples, such as the mean and the standard deviation that numbers are standardised by. Called once
            a training (of each fold, too), before `outputs`, `encode` and `loss`; run and exported file record the
            labels, and every other function gets them.
        encode: ``(target, labels)`` to a number, an array or a mapping of arrays, of the same shapes for every sample.
        move: of problems whose targets have places in the image, such as masks and boxes: ``(encoded, geometry)`` to
            the encoded target in the pixels of the network's input, of the same shapes for every sample unless
            `collate` joins others. `EvaluationPart.columns` and the loss get these. None where moving an image leaves
            its target as it is.
        collate: a list of encoded (and moved) targets to a batch: a tensor, a mapping of tensors, or a list with one
            item a sample; a copy, since encoded targets may be used again. None to stack them.
        placeholder: ``(labels)`` to any target of the shape that targets have, for samples of which this one isn't
            known while others are. None where such samples can't be trained on.
        strata: ``(targets, labels)`` to what a split spreads evenly among its sides.
        absent: ``(targets, labels)`` to the names of categories that no target has.
        unlearnable: ``(targets, labels)`` to why nothing can be trained on these, in words; "" where it can.
        check_options: raises ConfigError where the task's options, the problem's among them, don't go together; called
            before any data is read.
        coupled: whether the loss needs the whole batch at once, as contrastive ones do; it is then never halved.
        order: ``(targets, options, size, seed)`` to numbers of the training samples in the order of one epoch, as many
            as there are, for losses that need certain samples together in a batch of `size`; some may be there twice,
            and others in another epoch. None for every sample once, at random.
        unknown: ``(labels of data, labels of a model)`` to what of the data the model knows nothing of, in words, such
            as a class; "" where it can be evaluated on it.
        relabel: ``(target, labels of data, labels of a model)`` to the same target as the model has it, such as the
            index of a class in the model's order; only where `unknown` gives "".
        distill: ``(labels, the teacher's labels, options, temperature)`` to a module ``(outputs, the teacher's outputs)
            -> Loss`` for ``--distill``: how far answers are from those that a teacher gives to the same samples, 0
            where they are the same, as sums over samples. It needs no targets. The labels differ in `Label.constants`
            alone; the temperature divides logits, and what it takes from the gradient the module multiplies back
            (Hinton et al. 2015). Outputs ``map`` may be of other sizes. None where answers aren't taught that way.
    """

    outputs: Callable[[Labels, Any], Mapping[str, int]]
    loss: Callable[[Labels, Sequence[Any], Any], nn.Module]
    gives: Gives = "vector"
    read: Callable[[Sequence[Mapping[str, str]], Sequence[str], Any], Targets] | None = None
    check: Callable[[Any, Labels], str] = _nothing_wrong
    prepare: Callable[[Labels, Sequence[Any], Any], Labels] = _as_they_are
    encode: Callable[[Any, Labels], Any] = _as_it_is
    move: Callable[[Any, Geometry], Any] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    placeholder: Callable[[Labels], Any] | None = None
    strata: Callable[[Sequence[Any], Labels], Strata] = _all_alike
    absent: Callable[[Sequence[Any], Labels], tuple[str, ...]] = _none_absent
    unlearnable: Callable[[Sequence[Any], Labels], str] = _learnable
    check_options: Callable[[Any], None] = _all_options_fit
    coupled: bool = False
    order: Callable[[Sequence[Any], Any, int, int], Sequence[int]] | None = None
    unknown: Callable[[Labels, Labels], str] = _others
    relabel: Callable[[Any, Labels, Labels], Any] = _of_the_same
    distill: Callable[[Labels, Labels, Any, float], nn.Module] | None = None


def _nothing_fitted(_predictions: Predictions, _labels: Labels, _rule: GroupRule, _options: Any) -> Fitted:
    return {}


def _the_first(_predictions: Predictions, _labels: Labels) -> int:
    return 0


def _no_one_answer(_predictions: Predictions, _groups: Predictions, _labels: Labels) -> str:
    return ""


def _identity(predictions: Predictions, _fitted: Fitted, _labels: Labels) -> Predictions:
    return predictions


def _no_details(
    _predictions: Predictions, _groups: Predictions | None, _labels: Labels, _fitted: Fitted, _intervals: bool
) -> Mapping[str, Any]:
    return {}


def _no_guess(_labels: Labels) -> Mapping[str, float]:
    return {}


def _not_counted(_before: Mapping[str, Any], _now: Mapping[str, Any]) -> float:
    return math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPart:
    """How good answers are.

    All functions look at columns, never at pictures, so that the core can draw rows again and again.

    Attributes:
        columns: ``(outputs, targets, labels)``: the head's outputs ``(N, …)`` and N targets, as in `Sample.target`, to
            columns. Where `TrainingPart.move` is given, this is called for every batch of validation samples alone, and
            `targets` are the moved ones, as numpy has them; finished models are then evaluated by
            `DeploymentPart.columns`, at the samples' own size. In a cross-validation the core adds a column ``fold``,
            whose model it was that answered.
        metrics: ``(predictions, labels)`` to figures; NaN where one isn't defined. A figure of one of several labels is
            called by both, as in ``mae/diameter``.
        primary: the one that chooses the best epoch.
        smaller: names of figures that are better when smaller, ``mae`` for ``mae/diameter`` too; all others are better
        when larger.
        group: ``(predictions, members, labels, rule)``: from the rows of each group to columns with one row a group.
            None where groups get no answer of their own.
        decisive: ``(predictions of one group, labels)`` to the row that spoke most for the group's answer.
        one_answer: ``(predictions, groups, labels)`` to the answer that every group counts as though its samples
            differ, such as a class: figures per group would be right always, so there are none. "" where that isn't so.
        rules: the group rules that it knows, the usual one first.
        fit: ``(predictions, labels, rule, options)`` to what fits validation data, such as a temperature.
        apply: ``(predictions, fitted, labels)`` to predictions as the deployed file gives them.
        details: ``(predictions, groups or None, labels, fitted, intervals)`` to tables of the problem's own, as JSON
            has them: of one answer a group, where these mean something, and with intervals or without.
        telling: names of figures besides the primary one by which a file is compared with its metadata.
        guessing: ``(labels)`` to what whoever guesses reaches, by name of a figure; a model that is clearly below has
        its answers mixed up.
        moved: ``(details of before, details of now)`` of the same samples to how many of them are answered otherwise;
            NaN where the details don't show it.
    """

    columns: Callable[[Columns, Sequence[Any], Labels], Columns]
    metrics: Callable[[Predictions, Labels], Mapping[str, float]]
    primary: str
    smaller: frozenset[str] = frozenset()
    group: Callable[[Predictions, Sequence[NDArray[Any]], Labels, GroupRule], Columns] | None = None
    decisive: Callable[[Predictions, Labels], int] = _the_first
    one_answer: Callable[[Predictions, Predictions, Labels], str] = _no_one_answer
    rules: tuple[GroupRule, ...] = ()
    fit: Callable[[Predictions, Labels, GroupRule, Any], Fitted] = _nothing_fitted
    apply: Callable[[Predictions, Fitted, Labels], Predictions] = _identity
    details: Callable[[Predictions, Predictions | None, Labels, Fitted, bool], Mapping[str, Any]] = _no_details
    telling: tuple[str, ...] = ()
    guessing: Callable[[Labels], Mapping[str, float]] = _no_guess
    moved: Callable[[Mapping[str, Any], Mapping[str, Any]], float] = _not_counted


def _all_agree(
    _torch: Columns, _file: Columns, _labels: Labels, _fitted: Fitted, _slack: Mapping[str, float]
) -> tuple[str, ...]:
    return ()


def _as_given(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples


def _no_properties(_labels: Labels) -> Mapping[str, str]:
    return {}


def _no_figures(_differences: Mapping[str, OutputDifference]) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPart:
    """What the deployed file gives.

    Attributes:
        outputs: ``(labels, fitted)`` to the graph's outputs, in order.
        graph: ``(labels, fitted)`` to a module ``(outputs, batch) -> tuple of tensors`` in the order of `outputs`: the
            last piece of the graph, behind the head. `batch` are the graph's inputs, for answers that have their size.
            Where `TrainingPart.move` is given, it is ``(outputs, batch, back)``, and `back` brings maps and boxes to
            the samples' own pixels, as `zooft.Back` gives them.
        columns: ``(answers, targets, labels, fitted)``: as `EvaluationPart.columns` and `apply`, from what the file
            gives, by the names of `outputs`.
        agree: ``(torch, file, labels, fitted, slack)``: what of two answers to N samples doesn't agree, in words. Both
            are by name of an output, ``(N, …)``; of an output whose size differs from sample to sample, ``(N,)``
            arrays. `slack` has how far a right file may move the numbers of the outputs that are measured by their
            spread; infinite where that isn't known.
        properties: ``(labels)`` to entries of the ONNX metadata that other tools read.
        writers: name of a format of ``zooft predict`` to ``(answers, labels, fitted, folder)``, which writes answers
            such as masks into a new folder and returns the files; `answers` come one after the other, each to be
            dropped before the next.
        whole: ``(run, arrays, labels)`` to the outputs for one sample, with the batch axis, in ``zooft predict``:
            a problem that learns from tiles cuts the sample's arrays here, gives those of each tile to ``run``,
            whose outputs have the batch axis, and puts these together. Must not import torch. None where a sample is
            answered at once.
        whole_samples: samples to those that figures are computed of. Where they were cut into tiles to learn from,
            these are the samples as they were before, each answered by `whole`; elsewhere what it was given.
        figures: ``(differences by output)`` to what ``verification.json`` has of them under names of the problem's
            own.
    """

    outputs: Callable[[Labels, Fitted], Sequence[Output]]
    graph: Callable[[Labels, Fitted], nn.Module]
    columns: Callable[[Columns, Sequence[Any], Labels, Fitted], Columns]
    agree: Callable[[Columns, Columns, Labels, Fitted, Mapping[str, float]], tuple[str, ...]] = _all_agree
    properties: Callable[[Labels], Mapping[str, str]] = _no_properties
    writers: Mapping[str, Callable[[Iterable[FileAnswer], Labels, Fitted, Path], Sequence[Path]]] = field(
        default_factory=dict
    )
    whole: Callable[[Callable[[Arrays], Columns], Arrays, Labels], Columns] | None = None
    whole_samples: Callable[[Sequence[Sample]], Sequence[Sample]] = _as_given
    figures: Callable[[Mapping[str, OutputDifference]], Mapping[str, float]] = _no_figures


def _no_tables(_evaluation: Evaluation, _labels: Labels) -> Sequence[Table]:
    return ()


def _no_remarks(_evaluation: Evaluation, _labels: Labels) -> Sequence[str]:
    return ()


def _in_order(predictions: Predictions, _labels: Labels) -> NDArray[Any]:
    import numpy as np

    return np.zeros(len(predictions))


def _every_cell(cells: Mapping[str, Any], _labels: Labels) -> Mapping[str, Any]:
    return cells


def _nothing_of_all(_labels: Labels, _fitted: Fitted) -> Mapping[str, Any]:
    return {}


def _no_words(_labels: Labels, _fitted: Fitted) -> Sequence[str]:
    return ()


def _by_names(labels: Labels, _fitted: Fitted, _options: Mapping[str, Any]) -> Description:
    names = ", ".join(label.name for label in labels)
    return Description(aim=f"predict {names}", purpose=f"It predicts {names}.", head=names)


def _one_alone(_labels: Labels) -> Sequence[Answer]:
    return ()


def _print_outputs(_labels: Labels, _fitted: Fitted, _rule: GroupRule, _group_name: str) -> Sequence[str]:
    return ("for name, array in outputs.items():", "    print(name, array)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentationPart:
    """How answers are shown.

    Attributes:
        cells: ``(predictions, labels, fitted)`` to columns of what ``zooft predict`` gives, in order, a list of texts
            or numbers each, the answer itself first, such as ``class``. ``predictions.csv`` has the same and calls the
            first ``prediction``, unless it begins with the name of one of several labels.
        columns: ``(labels)`` to the names of these columns, in order.
        target: ``(target, labels)`` to text, for ``samples.csv``, captions and the audit. Of a single label with
            categories, it is one of these.
        brief: one row of `cells` to what fits on a screen; of a row without an answer, all cells are "".
        record: one row of `cells` to an entry of JSON. A mapping in it, such as a probability a class, stays one in
            entries that stand by themselves; among those of ``--format json`` about files it becomes the list of its
            values.
        entries: names that every `record` has, by which a file of earlier answers is known; () for the names of
        `columns`.
        about: ``(labels, fitted)`` to what JSON has for all answers, such as the classes in the order of such lists.
        opening: ``(labels, fitted)`` to sentences about answers that are to come, such as where a threshold lies.
        worst: ``(predictions, labels)`` to a number a row ``(N,)``, larger for what is more worth a look; of right
            answers smaller for surer ones.
        wrong: ``(predictions, labels)`` to which answers are wrong, ``(N,)`` bool. None where answers are more or less
            good, as numbers are: the report then shows the rows of the largest `worst`, and counts none.
        caption: ``(predictions of one row, labels, fitted)`` to a title and lines for its picture. None for its target
            and the first of its `cells`.
        tables: ``(evaluation, labels)`` to tables of one split, for the screen.
        remarks: ``(evaluation, labels)`` to paragraphs about one split, for the screen; lines of one are shown below
        each other.
        sections: ``(evaluated, labels, fitted, rule)`` to what the report shows of one split besides the figures, in
            order: `Picture`, `Table`, and blocks of `zooft.report`. None for `remarks` and `tables`.
        describe: ``(labels, fitted, options)`` to the problem in words; `options` are the task's, as JSON has them.
        usage: ``(labels, fitted, rule, group_name)`` to lines of Python for the report that print the answer from
            ``outputs``: name to array ``(N, ...)`` of what the file gave for the samples of one group. `group_name` is
            "" where groups aren't known; ``np`` is there.
        picture: ``(picture, answers, target, labels, fitted)`` to a picture ``(H, W, 3)`` uint8 with an answer drawn
            in: `picture` is the sample for people, ``(H, W)`` or ``(H, W, 3)`` uint8, `answers` what the file gives of
            it, by name and without the batch axis, `target` as in `Sample.target` or None. The report draws those that
            it shows. None where words suffice.
        explained: ``(outputs, row, labels)`` to the scalar tensor whose gradient Grad-CAM follows, and what it stands
            for in words, from the head's outputs ``(1, ...)`` of one sample and its columns; None where there is no
            such thing.
        answers: ``(labels)`` to each `Answer` of a problem that gives several at once: the report shows figures, curves
            and Grad-CAM of each as its own problem shows them, in place of `sections` and `explained`. Nothing of a
            problem that gives one.
    """

    cells: Callable[[Predictions, Labels, Fitted], Mapping[str, Sequence[Any]]]
    columns: Callable[[Labels], Sequence[str]]
    target: Callable[[Any, Labels], str]
    brief: Callable[[Mapping[str, Any], Labels], Mapping[str, Any]] = _every_cell
    record: Callable[[Mapping[str, Any], Labels], Mapping[str, Any]] = _every_cell
    entries: tuple[str, ...] = ()
    about: Callable[[Labels, Fitted], Mapping[str, Any]] = _nothing_of_all
    opening: Callable[[Labels, Fitted], Sequence[str]] = _no_words
    worst: Callable[[Predictions, Labels], NDArray[Any]] = _in_order
    wrong: Callable[[Predictions, Labels], NDArray[Any]] | None = None
    caption: Callable[[Predictions, Labels, Fitted], tuple[str, Sequence[str]]] | None = None
    tables: Callable[[Evaluation, Labels], Sequence[Table]] = _no_tables
    remarks: Callable[[Evaluation, Labels], Sequence[str]] = _no_remarks
    sections: Callable[[Evaluated, Labels, Fitted, GroupRule], Sequence[Any]] | None = None
    describe: Callable[[Labels, Fitted, Mapping[str, Any]], Description] = _by_names
    usage: Callable[[Labels, Fitted, GroupRule, str], Sequence[str]] = _print_outputs
    picture: Callable[[NDArray[Any], Columns, Any, Labels, Fitted], NDArray[Any]] | None = None
    explained: Callable[[Mapping[str, Tensor], Mapping[str, Any], Labels], tuple[Tensor, str]] | None = None
    answers: Callable[[Labels], Sequence[Answer]] = _one_alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The kind of prediction.

    Attributes:
        name: such as ``classification``.
        training: what is trained.
        evaluation: how good answers are.
        deployment: what the file gives.
        presentation: how answers are shown.
        options: a frozen dataclass of its own options, all with defaults; a task joins them to its own with
            `join_options`.
    """

    name: str
    training: TrainingPart
    evaluation: EvaluationPart
    deployment: DeploymentPart
    presentation: PresentationPart
    options: type[Any] = NoOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of several answers that a problem gives at once, as a problem by itself.

    Attributes:
        name: of the answer.
        problem: its kind.
        labels: its own.
        primary: what the kind's primary figure is called among the figures of all, such as ``mae/age``.
        outputs: of the head, to its own, by the names that its problem knows.
        evaluated: predictions and figures of one split, to its own: the samples of which it is known. None where it is
        known of none.
        fitted: what was fitted for all, to its own.
    """

    name: str
    problem: Problem
    labels: Labels
    primary: str
    outputs: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    evaluated: Callable[[Evaluated], Evaluated | None]
    fitted: Callable[[Fitted], Fitted]
