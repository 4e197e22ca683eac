"""Several processes as one run: who works, who waits, and how their parts become one result.

Owns all communication between processes. torchrun or ``accelerate launch`` start them; with a single one every function
here does the obvious thing and costs nothing. Batches are global: a run gives the same result however many
processes share it, up to rounding and to what is random or normalised within a process.
"""

from __future__ import annotations

from zooft.compute.distributed.collectives import all_gather_object, all_true, first, main_only, main_process_first
from zooft.compute.distributed.faults import faults
from zooft.compute.distributed.gradients import average_gradients, broadcast_buffers, global_loss, global_sums, wrap
from zooft.compute.distributed.process import alone, check_device, finish, start
from zooft.compute.distributed.shards import Batches, batches, gather, seed_of, shard, steps

__all__ = [
    "Batches",
    "all_gather_object",
    "all_true",
    "alone",
    "average_gradients",
    "batches",
    "broadcast_buffers",
    "check_device",
    "faults",
    "finish",
    "first",
    "gather",
    "global_loss",
    "global_sums",
    "main_only",
    "main_process_first",
    "seed_of",
    "shard",
    "start",
    "steps",
    "wrap",
]
