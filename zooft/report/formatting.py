"""Numbers and names formatted for readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft.contracts.words import format_figure

if TYPE_CHECKING:
    from zooft.contracts import OutputDifference
    from zooft.evaluation.bootstrap import Interval

SPLITS = {
    "train": "training",
    "val": "validation",
    "test": "test",
    "cross-validation": "cross-validation",
    "all": "all data",
}
_SHORT = {"auroc", "auprc", "ece", "mae", "npv", "ppv", "r2", "rmse"}


def figure(value: float | None, digits: int = 3) -> str:
    """A figure of merit; ``undefined`` for NaN."""
    return format_figure(value, form=f".{digits}f")


def interval(value: Interval) -> str:
    """Both ends of an interval, or ""."""
    if value.low is None or value.high is None:
        return ""
    return f"{value.low:.3f} to {value.high:.3f}"


def with_interval(value: Interval) -> str:
    """A figure and its interval."""
    return format_figure(value.value, value)


_WITHIN = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "auroc": "AUROC", "map": "mAP", "r": "R", "tar": "TAR", "far": "FAR",
}  # fmt: skip # a table of words
"""Words of a metric's name as the field writes them."""


def metric(name: str) -> str:
    """A metric's name in words.

    ``balanced_accuracy`` becomes "Balanced accuracy", ``auroc`` "AUROC", ``mae/age`` "MAE of age".
    """
    name, _, of = name.partition("/")
    if of:
        return f"{metric(name)} of {of.replace('/', ' of ')}"
    if name == "map":
        return "mAP"
    if name in {"macro_f1", "micro_f1"}:
        return name.replace("_f1", " F1").capitalize().replace("f1", "F1")
    if name in _SHORT:
        return name.upper()
    parts = name.split("_")
    if parts[-1].isdigit() and parts[0] in {"sensitivity", "specificity"}:
        return f"{' '.join(parts[:-1]).capitalize()} {parts[-1]} %"
    text = " ".join(_WITHIN.get(part, part) for part in parts)
    return text[:1].upper() + text[1:] if parts[0] not in _WITHIN else text


def difference(found: OutputDifference, value: float) -> str:
    """How far an output of a file is from torch's, `value` in terms of its measure."""
    if found.measure == "spread":
        return f"differs by {value:.1e} of its spread among samples"
    if found.measure == "absolute":
        return f"differs by at most {value:.1e}"
    return f"differs in {value:.2%} of the samples"


def plural(one: str) -> str:
    """``groups``, ``patients``, ``studies``, ``series``."""
    return one if one.endswith("s") else one[:-1] + "ies" if one.endswith("y") else one + "s"


def seconds(value: float) -> str:
    """``48 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value < 9.95:
        return f"{value:.2f} s" if value < 0.95 else f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(number: float) -> str:
    """Bytes as ``4.2 MB``, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if number < (999.5 if unit == "B" else 999.95):  # what rounds to 1000 is one of the next unit
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def parameters(number: int) -> str:
    """``3.4 M``, ``12 k``."""
    if number >= 999_500:
        return f"{number / 1e6:.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 10_000 else f"{number / 1e3:.1f} k" if number >= 1000 else str(number)


def split(name: str) -> str:
    """A split's name in a sentence."""
    return SPLITS.get(name, name)
