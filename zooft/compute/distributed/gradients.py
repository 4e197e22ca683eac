"""One model that learns in several processes as in one: loss, gradients and BatchNorm's statistics."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn

from zooft.compute import trees
from zooft.compute.distributed.shards import all_gather_rows
from zooft.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerate import Accelerator

    from zooft.contracts import Loss

_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the name in newer and in older versions of torch
    if name in inspect.signature(nn.parallel.DistributedDataParallel).parameters
)
"""Whether buffers are exchanged at every step. They aren't: nothing reads them before `broadcast_buffers`."""


def global_loss(
    loss: Callable[[Any, Any], Tensor],
    outputs: Any,
    targets: Any,
    accelerator: Accelerator,
    *,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """The loss of the global batch, times the number of processes: on which `backward` is called.

    Computed on the outputs of all processes, of which only this one's carry a gradient. DistributedDataParallel takes
    the mean of the processes' gradients, so each parameter gets exactly the gradient that one process would have
    computed on the whole batch, for any loss, weighted ones too, and however the batch is cut. Divided by
    the number of processes, the value is the global batch's loss, the same everywhere.

    Args:
        loss: ``(outputs, targets) -> scalar``.
        outputs: of this process's samples, tensors ``(n, …)`` or mappings of them.
        targets: theirs.
        accelerator: of this process.
        counts: how many of each process's rows count, as `Batches.counts` gives it; all of them where None.
    """
    if accelerator.num_processes == 1:
        return loss(outputs, targets)
    known = tuple(counts) if counts is not None else _all_counts(trees.length(outputs), accelerator)
    process, number = accelerator.process_index, int(accelerator.num_processes)
    # rows that are left out get a gradient of zero: a process without samples takes part in the exchange, too
    return loss(_of_all(outputs, known, process), _of_all(targets, known, None)) * number


def global_sums(
    sums: Callable[[Any, Any], Loss], outputs: Any, targets: Any, accelerator: Accelerator, *, counts: Sequence[int]
) -> Tensor:
    """As `global_loss`, of a loss that is a sum over samples: each process computes its own samples' part.

    Outputs and targets stay where they are, so targets may have another size in each process, as boxes have, and
    maps of the image aren't sent around. Only the gradient of its own part flows back in each process; their sum is
    the global batch's.

    Args:
        sums: ``(outputs, targets) -> Loss``.
        outputs: as in `global_loss`.
        targets: theirs.
        accelerator: of this process.
        counts: as in `global_loss`.
    """
    # a process that has a sample only so that it takes part in the exchange counts for nothing
    factor = float(counts[accelerator.process_index] > 0)
    own = sums(outputs, targets)
    total = own.total * factor
    both = torch.stack([total.detach().double(), torch.as_tensor(own.weight, device=total.device).double() * factor])
    distributed.all_reduce(both)
    part = total / both[1].to(total.dtype)
    return (part + ((both[0] / both[1]).to(total.dtype) - part.detach())) * int(accelerator.num_processes)


def _of_all(tree: Any, counts: Sequence[int], own: int | None) -> Any:
    """All processes' rows of each tensor; those of process `own` carry their gradient."""

    def gather(tensor: Tensor) -> Tensor:
        parts = [part[:n] for part, n in zip(all_gather_rows(tensor.detach(), max(counts)), counts, strict=True)]
        if own is not None:
            parts[own] = tensor[: counts[own]]
        return torch.cat(parts)

    return trees.tree_map(gather, tree)


def wrap(model: nn.Module, accelerator: Accelerator, *, sync_bn: bool = False) -> nn.Module:
    """The module whose forward pass trains: the model itself, or one that exchanges gradients.

    To be called again when other parameters learn than before, after releasing what it returned then.

    Args:
        model: on its device, with `requires_grad` set.
        accelerator: of this process.
        sync_bn: BatchNorm layers that learn take their statistics from all processes.

    Raises:
        ConfigError: `sync_bn` on a CPU, for which torch has no such layer.
    """
    if accelerator.num_processes == 1:
        return model
    if sync_bn:
        _synchronise_norms(model, accelerator)
    device = accelerator.device
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device.index] if device.type == "cuda" else None, **options
    )


def average_gradients(loss: object, accelerator: Accelerator, *, summed: bool = False) -> None:
    """Average the gradients of the loss's own parameters over all processes.

    `global_loss` computes it everywhere from all logits, so each process has the whole gradient already, times their
    number; the mean makes it the same to the last bit, and is the one that a single process would have computed.
    After `global_sums` (`summed`) each has its own part, times their number.
    """
    if accelerator.num_processes == 1 or not isinstance(loss, nn.Module):
        return
    for parameter in loss.parameters():
        if parameter.grad is not None:
            parameter.grad /= accelerator.num_processes
            distributed.all_reduce(parameter.grad)
            if not summed:
                parameter.grad /= accelerator.num_processes


def broadcast_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give every process the main one's running statistics, which differ after an epoch on different samples.

    To be called in training mode: frozen layers, which aren't in it, have changed nothing.
    """
    if accelerator.num_processes == 1:
        return
    moving = [buffer for module in model.modules() if module.training for buffer in module.buffers(recurse=False)]
    for dtype in dict.fromkeys(buffer.dtype for buffer in moving):
        own = [buffer for buffer in moving if buffer.dtype == dtype]
        together = torch.cat([buffer.reshape(-1) for buffer in own])
        distributed.broadcast(together, src=0)
        with torch.no_grad():
            for buffer, values in zip(own, torch.split(together, [buffer.numel() for buffer in own]), strict=True):
                buffer.copy_(values.view_as(buffer))


def _all_counts(own: int, accelerator: Accelerator) -> tuple[int, ...]:
    counts = all_gather_rows(torch.tensor([own], device=accelerator.device), 1)
    return tuple(int(count) for count in counts)


def _synchronise_norms(model: nn.Module, accelerator: Accelerator) -> None:
    norms = (nn.modules.batchnorm._BatchNorm,)
    learning = [name for name, module in model.named_modules() if isinstance(module, norms) and module.training]
    if not learning:
        return
    if accelerator.device.type != "cuda":
        raise ConfigError(
            f"--sync-bn works on CUDA only, and this run is on {accelerator.device.type} with {len(learning)} "
            "BatchNorm layers that learn; leave --sync-bn out: each process then normalises by its own samples"
        )
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activation that timm has inside a norm

    convert_sync_batchnorm(model)
