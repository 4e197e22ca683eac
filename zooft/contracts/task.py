"""What is trained on what data, as one type that a plugin fills in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts.data import Arrays, Discovery, Port, Sample
from zooft.contracts.geometry import InputGeometry, View
from zooft.contracts.options import NoOptions
from zooft.contracts.problem import Problem
from zooft.contracts.progress import Computing
from zooft.contracts.results import DeployedFile, GroupResult, Picture, Table
from zooft.contracts.source import Row, Source
from zooft.contracts.zoo import InputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

API_VERSION = 1
"""The version of the hooks and of the types in this module; a plugin may declare its own as ``zooft_api``."""


def _nothing_to_begin(_data: Path, _options: Any) -> None:
    return None


def _no_augmentation(_spec: InputSpec, _options: Any) -> None:
    return None


def _as_trained(spec: InputSpec, _options: Any) -> InputSpec:
    return spec


def _rgb(_options: Any) -> int:
    return 3


def _linear(_options: Any) -> str:
    return "standard/linear"


def _no_bag(_options: Any) -> bool:
    return False


def _nothing_to_show(_samples: Sequence[Sample], _options: Any) -> tuple[Picture | Table, ...]:
    return ()


def _nameless(_result: GroupResult, _options: Any) -> Mapping[str, str]:
    return {}


def _image_steps(spec: InputSpec, _options: Any) -> str:
    return (
        f"{spec.mode} to {spec.height}x{spec.width} (resize {spec.resize}, antialiased {spec.interpolation}), "
        f"then mean {spec.mean} and std {spec.std} on the scale 0..1"
    )


def _no_reader(_options: Any) -> str:
    return ""


def _as_it_is(arrays: Arrays, _options: Any) -> NDArray[Any]:
    return arrays[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is trained, on what data: ``--task NAME``.

    All callables take the task's own options (an instance of `options`) last.

    Attributes:
        name: as on the command line.
        summary: one line.
        discover: samples below a folder (or in a file), rejected ones with reasons. Must not import torch. With a
            parameter named ``computing`` it is given one, to show how far it is; with one named ``learning``, whether
            the data is to be trained on: a finished model has its classes and their order already.
        begin: ``(data, options)``, called once before a run's own `discover` and by no other command: the only place
            where a task may write into the data folder, such as the key of its ids. Must not import torch.
        read: one sample's array in native units, without the batch axis, or a tuple of arrays where the graph has
            several inputs; deterministic; several threads may call it at once. Must not import torch.
        digest: ``(source, options)`` to the SHA-256 (hexadecimal) of the content that `read` would read, without
            decoding it: what was computed from a sample is cached under it. None hashes the arrays that were read.
        decode_small: ``(source, spec, options)`` to arrays that stand for those of `read` where random views are made:
            smaller, or decoded faster, never for a plain view. None takes those of `read`.
        port: the deployed graph's input, or a tuple of them.
        preprocess: native units ``(N, …)``, one tensor for each port, to the network's input ``(N, C, H, W)``
            float32, or ``(N, Z, C, H, W)`` for a bag, as a module that can be exported.
        input: ``(spec, options)`` to the input that the network gets in this task, such as another mode or size than
            the backbone was trained at; every other function gets it as `spec`.
        geometry: ``(spec, options)`` to how `preprocess` places a sample in the network's input, for problems whose
            targets have places; `zooft.image_geometry` for that of images. None where that isn't known: such problems
            refuse the task.
        explain: `preprocess` in words, for the ONNX metadata.
        problem: the kind of prediction.
        options: a frozen dataclass; its fields become flags, config keys and arguments.
        augment: ``(spec, options) -> (arrays -> network input (C, H, W))``, the arrays as `read` gives them and one
            argument each, or None for the plain view. In place of a view it may give `View`, which holds how pixels
            have moved, as problems need whose targets have places. A view in uint8 is levels of 0 to 255, which the
            core brings to the backbone's scale a batch at a time. Randomness comes from torch's global generator, which
            the core seeds per sample and epoch.
        channels: of the network's input.
        head: the head that is used where the user names none.
        bag: whether a sample is a bag of instances.
        reader: Python source for whoever deploys the file without zooft: a function ``read(path)`` and its imports
            that gives a list of samples, each a tuple of arrays with the batch axis, one a port. Goes into the report.
        intended_use: goes into the ONNX metadata.
        private: True where paths and ids may name people; runs then hold none.
        subgroups: names of facts whose values get a row each in the table of subgroups.
        show: a sample's arrays as a picture for people, ``(H, W)`` or ``(H, W, 3)`` uint8.
        redact: ``(arrays, options)`` to the same arrays without text that may be burned into them: what pictures are
            made of, never answers. None where there is none to fear.
        report: pictures and tables of the task's own for the report.
        gather: ``(paths, options, computing) -> Discovery`` of unlabelled samples, for ``zooft predict``; None where
            each file is one sample that `read` takes. A rejection's and a sample's id may name what the user typed.
        of_row: ``(source, row, options)`` to the sample, without a target, that a row of a data source is: what ``zooft
            predict`` reads where it is given such data. None where the task reads no data sources.
        identify: what a group and its decisive sample are called where they come from, such as a PatientID: shown by
            ``zooft predict`` only when set.
        whois: ``(data, ids, options)`` to what each salted id stands for: what ``zooft whois`` shows. None where ids
            are no secrets.
        writers: name to ``(results, file, folder, options)`` that writes the results of ``zooft predict`` in a
            format of the task's own and returns the files.
        demo: ``(folder, seed)`` writes a small real data set offline.
    """

    name: str
    summary: str
    discover: Callable[..., Discovery]
    read: Callable[[Any, Any], NDArray[Any] | Arrays]
    port: Callable[[Any], Port | tuple[Port, ...]]
    preprocess: Callable[[InputSpec, Any], nn.Module]
    problem: Problem
    options: type[Any] = NoOptions
    begin: Callable[[Path, Any], None] = _nothing_to_begin
    digest: Callable[[Any, Any], str] | None = None
    decode_small: Callable[[Any, InputSpec, Any], Arrays] | None = None
    explain: Callable[[InputSpec, Any], str] = _image_steps
    input: Callable[[InputSpec, Any], InputSpec] = _as_trained
    geometry: Callable[[InputSpec, Any], InputGeometry] | None = None
    augment: Callable[[InputSpec, Any], Callable[..., Tensor | View] | None] = _no_augmentation
    channels: Callable[[Any], int] = _rgb
    head: Callable[[Any], str] = _linear
    bag: Callable[[Any], bool] = _no_bag
    reader: Callable[[Any], str] = _no_reader
    intended_use: str = "Not stated."
    private: bool = False
    subgroups: tuple[str, ...] = ()
    show: Callable[[Arrays, Any], NDArray[Any]] = _as_it_is
    redact: Callable[[Arrays, Any], Arrays] | None = None
    report: Callable[[Sequence[Sample], Any], Sequence[Picture | Table]] = _nothing_to_show
    gather: Callable[[Sequence[Path], Any, Computing], Discovery] | None = None
    of_row: Callable[[Source, Row, Any], Sample] | None = None
    identify: Callable[[GroupResult, Any], Mapping[str, str]] = _nameless
    whois: Callable[[Path, Sequence[str], Any], Mapping[str, Mapping[str, str]]] | None = None
    writers: Mapping[str, Callable[[Sequence[GroupResult], DeployedFile, Path, Any], Sequence[Path]]] = field(
        default_factory=dict
    )
    demo: Callable[[Path, int], None] | None = None
