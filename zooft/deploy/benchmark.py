"""What each precision costs: size, latency, throughput, measured alternately so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from zooft.compute import machine
from zooft.deploy.network import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Batch = Sequence[NDArray[Any]]

BATCHES = (1, 8)
_LEAST, _MOST = 3, 25
"""Rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a model costs on this machine.

    Attributes:
        megabytes: of its file, in units of 10^6 bytes.
        latency: in ms, medians, by threads (``1`` and ``all``) and size of the batch.
        throughput: samples a second, the best of these.
    """

    megabytes: float
    latency: Mapping[str, Mapping[int, float]]
    throughput: float


def measure(
    files: Mapping[str, Path],
    ports: Sequence[str],
    sample: Batch,
    *,
    torch: Callable[[Batch], object] | None = None,
    torch_file: Path | None = None,
    seconds: float = 2.0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Cost]:
    """Costs by name, torch's first.

    Args:
        files: ONNX files by name.
        ports: names of their inputs.
        sample: an array for each, without the batch axis, in native units.
        torch: the same model in torch, called with a batch; None where it isn't wanted.
        torch_file: with its weights, for their size.
        seconds: for each number of threads and size of the batch, about.
        advance: called for each of these.
    """
    names = (["torch"] if torch else []) + list(files)
    latency: dict[str, dict[str, dict[int, float]]] = {name: {} for name in names}
    for label, threads in threads_to_try().items():
        runs: dict[str, Callable[[Batch], object]] = {} if torch is None else {"torch": _with_threads(torch, threads)}
        runs |= {name: _runner(open_session(path, threads=threads), ports) for name, path in files.items()}
        for size in BATCHES:
            batch = [np.repeat(array[None], size, 0) for array in sample]
            for name, value in alternate({name: _bound(run, batch) for name, run in runs.items()}, seconds).items():
                latency[name].setdefault(label, {})[size] = value
            advance(1)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if torch and torch_file is not None:
        sizes["torch"] = torch_file.stat().st_size
    return {
        name: Cost(
            megabytes=sizes.get(name, 0) / 1e6,
            latency=latency[name],
            throughput=max(1000 * size / ms for by in latency[name].values() for size, ms in by.items()),
        )
        for name in names
    }


def threads_to_try() -> dict[str, int]:
    """One, and as many as this process has cores, by what a table calls them."""
    return {"1": 1, "all": machine.cores()}


def alternate(
    runs: Mapping[str, Callable[[], object]], seconds: float, *, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """The median of each in ms, one after the other in turns, after a turn that doesn't count."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    began = time.perf_counter()
    for turn in range(_MOST):
        for name, run in runs.items():
            start = clock()
            run()
            taken[name].append(1000 * (clock() - start))
        if turn + 1 >= _LEAST and time.perf_counter() - began > seconds:
            break
    return {name: median(values) for name, values in taken.items()}


def _bound(run: Callable[[Batch], object], batch: Batch) -> Callable[[], object]:
    return lambda: run(batch)


def _runner(session: Any, ports: Sequence[str]) -> Callable[[Batch], object]:
    wanted = {given.name for given in session.get_inputs()}

    def run(batch: Batch) -> object:
        return session.run(None, {name: array for name, array in zip(ports, batch, strict=True) if name in wanted})

    return run


def _with_threads(torch: Callable[[Batch], object], threads: int) -> Callable[[Batch], object]:
    """Torch's threads are the process's, so they are set for each call and set back."""
    import torch as framework

    def run(batch: Batch) -> object:
        before = framework.get_num_threads()
        framework.set_num_threads(threads)
        try:
            return torch(batch)
        finally:
            framework.set_num_threads(before)

    return run
