"""This process's place among those of the run: how it joins and leaves, and the device that it uses."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from zooft.compute import launcher
from zooft.compute.distributed.faults import first_line
from zooft.errors import ConfigError, TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

PATIENCE = timedelta(hours=24)
"""How long a process waits for another: reading a million files is the main process's work, and the others wait for
it. A process that died is noticed at once, by its connection."""


def start(*, cpu: bool) -> Accelerator:
    """This process's place among those of the run.

    Args:
        cpu: no GPU, even where there are some.

    Raises:
        TrainingError: the others can't be reached.
    """
    from accelerate import Accelerator

    cpu = cpu or not torch.cuda.is_available()
    if launcher.processes() > 1 and not distributed.is_initialized():
        # two backends: what is on the CPU, Python objects included, goes by gloo and needs no GPU
        try:
            distributed.init_process_group("gloo" if cpu else "cpu:gloo,cuda:nccl", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(
                f"process {launcher.process()} of {launcher.processes()} can't reach the others: {first_line(error)}; "
                "check the launcher's address and port, and that every node started"
            ) from error
    return Accelerator(cpu=cpu)


def finish() -> None:
    """Leave the group of processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def alone(device: str) -> Accelerator:
    """The place of the only process there is.

    Args:
        device: auto, cpu, cuda or mps.

    Raises:
        ConfigError: the device isn't there.
    """
    from accelerate import Accelerator

    check_device(device)
    return Accelerator(cpu=device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available()))


def check_device(device: str) -> None:
    """Refuse a device that isn't there.

    Raises:
        ConfigError: names the devices that there are.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise ConfigError(
            f"--device {device}: torch {torch.__version__} finds no such device here; "
            "use --device auto ('zooft doctor' shows what there is)"
        )
