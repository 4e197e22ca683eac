"""Several processes of one run, as a launcher would start them, without its start-up time."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from example_data import REPOSITORY

_SHARED = [str(Path(__file__).parent), *(path for path in sys.path if Path(path).parent == Path(__file__).parent)]


def together(work: Callable[..., Any], folder: Path, *, number: int, seconds: float = 900) -> list[Any]:
    """What ``work(accelerator)`` gives in each of `number` processes: its result, or the exception that ended it.

    None stands for a process that has left nothing. `work` must be a module's own function.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module, path = work.__module__.rpartition(".")[2], [str(Path(inspect.getfile(work)).parent), *_SHARED]
    code = (
        f"import sys; sys.path[:0] = {path!r}; import processes; "
        f"processes.fork({module!r}, {work.__name__!r}, {str(folder)!r}, {number})"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        timeout=seconds,
        capture_output=True,
        text=True,
        check=False,
    )
    files = [folder / f"{rank}.pickle" for rank in range(number)]
    results = [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]  # noqa: S301 -- ours
    if all(result is None for result in results):
        raise AssertionError(done.stdout + done.stderr)
    return results


_PORTS = itertools.count()


def free_port() -> int:
    """A port that nobody listens at now, and that no other process of tests is given meanwhile.

    Not one of the system's choice: it would give the same to the next caller. These lie below the ports that it
    chooses from, and each process begins at its own.
    """
    while True:
        port = 10_240 + (os.getpid() * 31 + next(_PORTS)) % 20_000
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port


def fork(module: str, name: str, folder: str, number: int) -> None:
    """Run a function in `number` processes that have loaded torch together."""
    import importlib

    import torch

    torch.set_num_threads(1)
    work = getattr(importlib.import_module(module), name)
    children = []
    for rank in range(number):
        child = os.fork()
        if not child:
            _work(work, Path(folder), rank, number)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _work(work: Callable[..., Any], folder: Path, rank: int, number: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number))
    from zooft.compute import distributed as processes

    try:
        result = work(processes.start(cpu=True))
    except BaseException as error:
        result = error
        traceback.print_exc()
    with contextlib.suppress(Exception):
        draft = folder / f"{rank}.draft"
        draft.write_bytes(pickle.dumps(result))
        draft.rename(folder / f"{rank}.pickle")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
