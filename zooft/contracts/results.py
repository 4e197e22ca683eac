"""What comes out, as types: answers, records of epochs and of verifications, pictures and tables for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from zooft.contracts.data import Label, Rejection, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture for the report.

    Attributes:
        title: what it shows.
        png: the image.
        caption: what to see in it; also read out where the picture can't be seen.
    """

    title: str
    png: bytes
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table for the report.

    Attributes:
        title: what it shows.
        columns: their headings.
        rows: each with a cell a column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A problem in words, for the head of a report and its model card.

    Attributes:
        aim: what a model is fine-tuned to do, such as ``distinguish ants and bees``.
        purpose: the same as a sentence for the model card.
        head: what the new head is for, such as ``2 classes``.
        note: what a reader of figures must know of the labels, such as which class is the positive one; "" for nothing.
        output: sentences about what the deployed file gives.
        fitted: what is fitted on validation data, such as ``the temperature and the threshold``; "" for nothing.
        balance: sentences about how rare targets are weighed in training.
    """

    aim: str
    purpose: str
    head: str
    note: str = ""
    output: tuple[str, ...] = ()
    fitted: str = ""
    balance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResult:
    """A deployed model's answer about one group, such as a patient.

    Attributes:
        group: its salted name, or its file's.
        answer: what is shown of it, by column, the answer itself first, such as ``class`` and a probability a class.
        columns: the same as the problem's metrics see it, such as ``probabilities``.
        members: the samples that it was made from.
        decisive: the sample that spoke most for the answer.
        unjudged: what of the group couldn't be used, and why.
    """

    group: str
    answer: Mapping[str, Any]
    columns: Mapping[str, Any]
    members: tuple[Sample, ...]
    decisive: Sample
    unjudged: tuple[Rejection, ...] = ()

    @property
    def missing(self) -> int:
        """How many samples the answer lacks."""
        return sum(rejected.missing for rejected in self.unjudged)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAnswer:
    """What a deployed model gave of one file, for a problem's own formats.

    Attributes:
        key: the file as it was named.
        outputs: by name, without the batch axis.
        picture: makes the file's picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8.
        sample: what was answered, of tasks that gather samples; those of one group follow each other.
    """

    key: str
    outputs: Mapping[str, NDArray[Any]]
    picture: Callable[[], NDArray[Any]]
    sample: Sample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedFile:
    """Which file gave an answer, for formats that record it.

    Attributes:
        problem: what kind of answer it gives.
        labels: what its answers mean.
        fitted: what was fitted on validation data, such as ``threshold``.
        backbone: ``family:full_name``.
        version: of the zooft that wrote it.
        weights_sha256: of its tensors.
    """

    problem: str
    labels: tuple[Label, ...]
    fitted: Mapping[str, Any]
    backbone: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of ``metrics.jsonl``.

    Attributes:
        epoch: from 1.
        train_loss: mean over the epoch's training samples, in training mode.
        val_loss: mean over the validation samples.
        metrics: the task's, on the validation samples.
        learning_rate: of the head, at the epoch's end.
        seconds: wall time of the epoch, validation included.
        learning: stages that were trained, and ``head``.
        best: whether the epoch is the best so far.
    """

    epoch: int
    train_loss: float
    val_loss: float
    metrics: Mapping[str, float]
    learning_rate: float
    seconds: float
    learning: tuple[str, ...]
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDifference:
    """How far two preprocessings are apart, in levels.

    1/255 of the scale that the backbone's mean and std are given on.

    Attributes:
        values: how many were compared.
        differing: how many of them differ by half a level or more.
        largest: difference.
        mean: of the differences without their signs.
        whole: whether torch's values are whole levels, as those of an 8-bit image, which rounding may flip.
    """

    values: int
    differing: int
    largest: float
    mean: float
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """How far one output of a file is from torch's, in terms of its measure.

    Attributes:
        measure: ``spread``: root mean square of the difference over the standard deviation among samples. ``absolute``:
            the largest difference. ``exact``: the share of samples that differ.
        whole: from native units on.
        network: where torch's network is given what the file's preprocessing made, so that only the networks differ; of
            ``spread`` on generated images too, and the larger one. None where the file doesn't mark where its
            preprocessing ends.
        limit: of `network`, of a file that passes without more ado.
        spread: what ``spread`` is measured by; None of others.
    """

    measure: Literal["spread", "absolute", "exact"]
    whole: float
    network: float | None
    limit: float
    spread: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """Where a file begins to differ from its run: the first operator whose inputs are right and whose output isn't.

    Attributes:
        kind: ``weights`` that aren't the run's, another ``operator`` than in an export of the run, ``precision``:
            fewer digits, or ``preprocessing``: it lies before the network.
        node: the operator's name in the file.
        operator: its type, such as ``Conv``.
        place: the module of the model and its stage; may be empty.
        inputs: how far its inputs are apart, of their spread.
        output: how far its output is; infinite where shapes differ, or numbers aren't finite in one alone.
        what: is different, in words.
    """

    kind: str
    node: str
    operator: str
    place: str
    inputs: float
    output: float
    what: str

    def __str__(self) -> str:
        """One sentence."""
        where = f" ({self.place})" if self.place else ""
        return (
            f"it begins at {self.node}, {self.operator}{where}: inputs differ by {self.inputs:.1e} of their spread, "
            f"its output by {self.output:.1e}; {self.kind}: {self.what}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The content of ``verification.json``: the file on disk against the model in torch.

    Attributes:
        passed: whether every check held.
        provider: the one that truly ran.
        requested_provider: as set.
        placement: provider to how many of the graph's nodes it ran.
        onnx_sha256: of the file's bytes.
        samples: how many real samples were compared.
        available: how many there were.
        batch_sizes: those run.
        relative_rms: the largest `OutputDifference.whole` of outputs that are measured by their spread; NaN where there
        are none.
        agreement: share of samples in which all exact outputs, such as a class, are torch's; None where there are none.
        metrics: the problem's, as pairs (torch, onnx).
        failures: what didn't hold, in words.
        notes: what a reader should know.
        data: ``real`` validation samples, or ``generated`` images, which prove much less.
        against: ``torch``, the model that the file was made from.
        preprocessing: the file's against torch's; None where the file doesn't mark where its preprocessing ends.
        network_rms: as `relative_rms`, of `OutputDifference.network`.
        spread: standard deviation among the samples of the output that `network_rms` is of, or a tenth of that among
            generated images where that is more, as among samples that are nearly alike.
        declared: what of the file's metadata was compared with the run, the graph and the tensors.
        outputs: by name, how far each is from torch's.
        figures: what the problem adds to these; beside the others in JSON.
        deviation: of a file that differs, where that begins; None where it doesn't, or where that wasn't found.
        precision: of a file in lower precision what it states of it and by what it was measured; None of others, and
            then not in JSON.
    """

    passed: bool
    provider: str
    requested_provider: str
    placement: Mapping[str, int]
    onnx_sha256: str
    samples: int
    available: int
    batch_sizes: tuple[int, ...]
    relative_rms: float
    agreement: float | None
    metrics: Mapping[str, tuple[float, float]]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    data: Literal["real", "generated"]
    against: Literal["torch"] = "torch"
    preprocessing: LevelDifference | None = None
    network_rms: float | None = None
    spread: float | None = None
    declared: tuple[str, ...] = ()
    outputs: Mapping[str, OutputDifference] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    deviation: Deviation | None = None
    precision: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """As ``verification.json`` and the command line give it, the problem's figures beside the others."""
        left_out = {"figures"} if self.precision is not None else {"figures", "precision"}
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}
        return {**found, **{name: value for name, value in self.figures.items() if name not in found}}


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelVerification:
    """What a file was found to be worth by labelled data, where the run that it was made from isn't at hand.

    Attributes:
        passed: whether it is as good as its metadata states, and doesn't contradict itself.
        provider: the one that truly ran; nodes by provider in `placement`.
        requested_provider: as set.
        onnx_sha256: of the file's bytes.
        split: of the data, on which it was evaluated.
        samples: how many, of `available` ones.
        recorded_split: whose figures in the metadata it is compared with; empty where it has none.
        same_samples: whether those are of the same samples.
        metrics: the problem's, as pairs (recorded, found now).
        primary: name of the one that counts most.
        failures: what didn't hold, in words.
        notes: what a reader should know.
        declared: what of the file's metadata was compared with its graph and tensors.
        against: ``labels``: it isn't compared with a model in torch.
    """

    passed: bool
    provider: str
    requested_provider: str
    placement: Mapping[str, int]
    onnx_sha256: str
    split: str
    samples: int
    available: int
    recorded_split: str
    same_samples: bool
    metrics: Mapping[str, tuple[float | None, float]]
    primary: str
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    declared: tuple[str, ...] = ()
    against: Literal["labels"] = "labels"
