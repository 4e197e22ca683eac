"""From a module to an ONNX graph by torch's exporter, and whether it will work, before anything is trained.

Owns the call of the exporter, what is done where it can't express attention, a failure in one sentence, and
the trial. `export` owns what becomes of the graph.

The exporter traces a module, takes its operations apart and translates each. Only the last two are slow, and they don't
fail on the few dozen operations that most networks consist of: where the trace of the trial shows no others, nothing
more is tried.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zooft.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx

OPSET = 18
_AXES = 4
"""Of queries, keys and values in the exporter's attention."""
_ARGUMENTS = ("attn_mask", "is_causal", "enable_gqa")
"""Arguments of attention besides a scale."""
_LONGEST = 200
"""Characters of the exporter's own words in a message."""
_PLAIN = frozenset(
    """
    _assert_tensor_metadata _softmax _upsample_bicubic2d_aa adaptive_avg_pool2d add add_ amax arange avg_pool2d
    batch_norm cat chunk clone contiguous conv2d detach_ div dropout dropout_ expand feature_dropout
    feature_dropout_ flatten gelu group_norm hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_
    layer_norm lift_fresh_copy linear matmul max_pool2d mean mul mul_ new_zeros numpy_T pad permute relu relu6
    relu6_ relu_ reshape roll scaled_dot_product_attention select sigmoid sigmoid_ silu silu_ slice softmax
    softplus split squeeze sub sum sym_size tanh to transpose unbind unflatten unsqueeze upsample_bilinear2d
    upsample_nearest2d view
    """.split()  # noqa: SIM905  -- quotes around each of eighty words make them no clearer
)
"""Operations of torch that its exporter translates whatever they are given."""


def convert(
    model: nn.Module,
    example: Sequence[Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Sequence[Any],
    note: Callable[[str], None] = lambda _text: None,
) -> onnx.ModelProto:
    """What torch's exporter makes of `model`.

    Args:
        model: in evaluation mode, on the CPU.
        example: two samples, a tensor for each input.
        inputs: their names.
        outputs: names.
        axes: the dynamic ones of each argument of the model's forward, number to name.
        note: called with one sentence on what was done to make it work.

    Raises:
        ExportError: in one sentence; what to do about it is the caller's to add.
    """

    def attempt(writing: _WritingOut) -> onnx.ModelProto:
        with _quiet(), torch.no_grad(), writing:
            program = torch.onnx.export(
                model,
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                external_data=False,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(axes),
            )
        if program is None:
            raise ExportError("torch's exporter gave no program")
        return program.model_proto

    fused = _WritingOut(everything=False)
    try:
        proto = attempt(fused)
    except Exception as error:  # the exporter fails in as many ways as models are written
        if not fused.left:
            raise _export_error(error) from error
        try:
            proto = attempt(_WritingOut(everything=True))
        except Exception:
            raise _export_error(error) from error
        note(
            "attention is written out as matrix products in the file, since torch's exporter can't write it as one "
            "operation here"
        )
    return proto


def try_out(model: nn.Module, example: Tensor, *, axes: Mapping[int, str]) -> onnx.ModelProto | None:
    """What is made of `model`, or None, at little cost, where it consists of operations that are always translated.

    Args:
        model: of any values; it is left as it was.
        example: what it takes, two samples.
        axes: the dynamic ones.

    Raises:
        ExportError: it can't be exported.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            if _is_plain(model, example, axes):
                return None
            return convert(model, [example], inputs=["x"], outputs=["y"], axes=[axes])
    finally:
        for module, training in modes.items():
            module.training = training


def _is_plain(model: nn.Module, example: Tensor, axes: Mapping[int, str]) -> bool:
    """Whether it can be traced and the trace shows nothing but operations that are always translated."""
    dynamic = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    writing = _WritingOut(everything=False)
    try:
        with _quiet(), torch.no_grad(), writing:
            program = torch.export.export(model, (example,), dynamic_shapes=(dynamic,), strict=False)
    except Exception:  # the exporter has other ways to trace, which are dearer
        return False
    called = [node for node in program.graph.nodes if node.op == "call_function"]
    return writing.plain and all(_is_known(node.target) and not _drops(node) for node in called)


def _drops(node: torch.fx.Node) -> bool:
    """Whether it is a dropout that isn't off; the arguments are the input, the share and whether to train."""
    return "dropout" in str(node.target) and "attention" not in str(node.target) and node.args[2] is not False


def _is_known(target: Any) -> bool:
    """Whether it is Python's own, of sizes, or one of the plain operations."""
    if getattr(target, "__module__", "") in {"_operator", "math", "builtins"}:
        return True
    namespace, _, name = getattr(getattr(target, "_schema", None), "name", "").partition("::")
    return namespace == "aten" and name in _PLAIN


class _WritingOut(TorchFunctionMode):
    """While it is entered, attention is plain matrix products: on other axes than the exporter takes, or always.

    Args:
        everything: whether always.

    Attributes:
        left: calls that were left as they are.
        plain: whether these ask for nothing but a scale.
    """

    def __init__(self, *, everything: bool) -> None:
        super().__init__()
        self.everything, self.left, self.plain = everything, 0, True

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The same result."""
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query = args[0] if args else (kwargs or {})["query"]
        if self.everything or query.ndim != _AXES:
            return _attention(*args, **(kwargs or {}))
        self.left += 1
        self.plain &= len(args) <= 3 and not any((kwargs or {}).get(name) not in (None, False) for name in _ARGUMENTS)
        return func(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As torch's documentation of ``scaled_dot_product_attention`` writes it.

    ``(…, L, E), (…, S, E), (…, S, V) -> (…, L, V)``.
    """
    if enable_gqa:
        key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], dim=-3) for part in (key, value))
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def _export_error(error: BaseException) -> ExportError:
    return ExportError(f"torch's exporter can't export this backbone: {_innermost(error)}")


def _innermost(error: BaseException) -> str:
    """One sentence of the exception that all others were raised from, which names what it was."""
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = cause
    lines = [line.strip() for line in re.sub(r"\x1b\[[\d;]*m", "", str(error)).splitlines() if line.strip()]
    text = lines[0] if lines else "no reason given"
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST].rsplit(' ', 1)[0] + ' …'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and logs its own internals; none of it is for our users."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
