"""Which execution provider runs a file, checked and reported rather than assumed.

onnxruntime falls back to the CPU without an exception. Here the provider's library is loaded first, so that
the missing one can be named, and afterwards the session is checked for the provider that it really uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zooft.errors import ProviderError

NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_OPTIONS = {"cuda": {"use_tf32": "0"}}
"""TF32, on by default, changes logits by a third of their spread: more than any verification would accept."""
_BEHIND = {"cpu": ("cpu",), "cuda": ("cuda", "cpu"), "tensorrt": ("tensorrt", "cuda", "cpu")}


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider to request for a session.

    Attributes:
        name: cpu, cuda or tensorrt.
        note: what the user should know, such as why it is the CPU; empty where there is nothing.
    """

    name: str
    note: str = ""

    @property
    def onnx_name(self) -> str:
        """Onnxruntime's name for it."""
        return NAMES[self.name]

    @property
    def chain(self) -> list[tuple[str, dict[str, str]]]:
        """The provider, then those that run the nodes that it can't: onnxruntime's names and options."""
        return [(NAMES[name], _OPTIONS.get(name, {})) for name in _BEHIND[self.name]]


def choose(requested: str) -> Choice:
    """The provider to request for a session.

    Args:
        requested: auto, cpu, cuda or tensorrt.

    Raises:
        ProviderError: the provider isn't available; names the missing library.
    """
    if requested == "cpu":
        return Choice("cpu")
    wanted = "cuda" if requested == "auto" else requested
    missing = missing_library(wanted)
    if missing is None:
        return Choice(wanted)
    if requested == "auto":
        return Choice("cpu", f"it runs on the CPU, since CUDA isn't usable here: {missing}")
    raise ProviderError(
        f"the provider {requested} can't be used: {missing}; install it, or use --provider cpu ('zooft doctor' shows "
        "all)"
    )


def refusal(provider: str, precision: str) -> str:
    """Why a provider can't run a file's network in its precision; empty where it can."""
    if (provider, precision) == ("tensorrt", "int8"):
        return (
            "TensorRT takes 8-bit activations with a sign and a zero at 0 only, and the file's have neither; use "
            "--provider cpu, or the fp16 or float32 file"
        )
    return ""


def remark(provider: str, precision: str) -> str:
    """What the user should know of a provider and a precision; may be empty."""
    return {
        ("cuda", "int8"): "int8 files are made for the CPU; on CUDA, most of their operators compute in float32",
        ("cpu", "fp16"): "the CPU computes fp16 files in float32: the file is smaller, not faster; fp16 is for CUDA",
    }.get((provider, precision), "")


def missing_library(name: str) -> str | None:
    """Why a provider can't be used, naming the missing library; None where its libraries load."""
    import onnxruntime

    if name == "cpu":
        return None
    if NAMES[name] not in onnxruntime.get_available_providers():
        return (
            conflict()
            or f"this onnxruntime ({', '.join(distributions()) or 'not installed'}) was built without {NAMES[name]}"
        )
    with contextlib.redirect_stdout(sys.stderr):  # it prints what it can't load, and standard output is for results
        onnxruntime.preload_dlls()
    folder = Path(onnxruntime.__file__).parent / "capi"
    library = next(iter(folder.glob(f"*onnxruntime_providers_{name}.*")), None)
    shared = next(iter(folder.glob("*onnxruntime_providers_shared.*")), None)
    if library is None or shared is None:
        return f"onnxruntime's own library for {NAMES[name]} isn't installed"
    try:
        ctypes.CDLL(str(shared), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error).split(": cannot open")[0] + " is missing" if "cannot open" in str(error) else str(error)
    return None


def usable() -> dict[str, str | None]:
    """Every known provider, and why it can't be used, or None."""
    return {name: missing_library(name) for name in NAMES}


def distributions() -> dict[str, str]:
    """The onnxruntime distributions in this environment and their versions."""
    found = {}
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def conflict() -> str | None:
    """What is wrong where several onnxruntime distributions share one folder, or None."""
    both = distributions()
    if len(both) < 2:
        return None
    listed = " and ".join(f"{name} {version}" for name, version in both.items())
    return (
        f"{listed} are both installed and overwrite each other, which silently removes CUDA; "
        "run 'pip uninstall -y onnxruntime onnxruntime-gpu' and install one of them again"
    )
