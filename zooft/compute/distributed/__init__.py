"""Several processes as one run: who works, who waits, and how their parts become one result.

Owns all that is said between processes. torchrun or ``accelerate launch`` start them; with a single one every function
here does the plain thing and costs nothing. Batches are global: a run gives the same result however many
processes share it, up to rounding and to what is random or normalised within a process.
"""

from __future__ import annotations

from zooft.compute.distributed.collectives import agree, first, from_each, main_first, main_only
from zooft.compute.distributed.faults import faults
from zooft.compute.distributed.gradients import global_loss, same_buffers, same_gradients, wrap
from zooft.compute.distributed.process import alone, check_device, finish, start
from zooft.compute.distributed.shards import Batches, batches, gather, seed_of, share, steps

__all__ = [
    "Batches", "agree", "alone", "batches", "check_device", "faults", "finish", "first", "from_each", "gather",
    "global_loss", "main_first", "main_only", "same_buffers", "same_gradients", "seed_of", "share", "start", "steps", "wrap",
]  # fmt: skip
