"""A virtual environment for each peer that isn't part of zooft's own, with pinned versions.

They see the packages of the interpreter that runs the comparison through one line in a ``.pth`` file, so that torch,
torchvision, timm and Pillow are the same files for all; their own packages come first.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

PINS: dict[str, tuple[str, ...]] = {
    "hf": ("transformers==5.23.0",),
    "fastai": ("fastai==2.8.12",),
    "ultralytics": ("ultralytics==8.4.190",),
}
"""Tool to what is installed for it; tools that aren't here run in zooft's own environment."""

_MODULES = {"hf": "transformers", "fastai": "fastai.vision.all", "ultralytics": "ultralytics"}
_REPORTED = ("torch", "torchvision", "timm", "pillow", "numpy")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a tool runs.

    Attributes:
        python: its interpreter; None where it can't be run.
        reason: why not.
        versions: distribution to version, of the tool and of the packages that all share.
    """

    python: Path | None
    reason: str
    versions: dict[str, str]


def provide(tool: str, folder: Path, *, shared: bool) -> Environment:
    """The tool's environment below `folder`, made at the first call; a later one finds it.

    Args:
        tool: as on the command line.
        folder: of all environments.
        shared: see the running interpreter's packages; else torch and timm are installed anew, several GB each.
    """
    pins = PINS.get(tool)
    if pins is None:
        return Environment(Path(sys.executable), "", _versions(Path(sys.executable), ()))
    wanted = pins if shared else (*pins, *_own())
    home = folder / f"{tool}-{hashlib.sha256(repr((wanted, shared, sys.version)).encode()).hexdigest()[:8]}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        problem = _make(home, wanted, shared=shared)
        if problem:
            return Environment(None, problem, {})
    problem = _call([str(python), "-W", "ignore", "-c", f"import {_MODULES[tool]}, timm, safetensors"])
    if problem:
        return Environment(None, f"it can't be imported: {problem}", {})
    (home / "complete").touch()
    return Environment(python, "", _versions(python, tuple(pin.split("==")[0] for pin in pins)))


def _make(home: Path, wanted: tuple[str, ...], *, shared: bool) -> str:
    """Make and fill an environment; the reason where that fails."""
    venv.create(home, with_pip=True, clear=True)
    if shared:
        place = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (place / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    problem = _call([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted])
    return f"pip couldn't install {', '.join(wanted)}: {problem}" if problem else ""


def _own() -> tuple[str, ...]:
    """The running interpreter's own versions of what all tools share, as requirements."""
    from importlib.metadata import version

    return tuple(f"{name}=={version(name).partition('+')[0]}" for name in (*_REPORTED, "safetensors"))


def _versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version; print(*(version(name) for name in sys.argv[1:]))"
    wanted = (*names, *_REPORTED)
    done = subprocess.run([str(python), "-c", code, *wanted], capture_output=True, text=True, check=True)
    return dict(zip(wanted, done.stdout.split(), strict=True))


def _call(command: list[str]) -> str:
    """Run a command to its end; its last line where it failed, else ""."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    words = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    return words[-1].strip()[:300] if words else f"exit status {done.returncode}"
