"""Which part of the HU scale is shown: windows by name or as CENTER/WIDTH."""

from __future__ import annotations

import math
from types import MappingProxyType

import zooft

PRESETS = MappingProxyType(
    {
        "lung": (-600.0, 1500.0),
        "mediastinum": (40.0, 400.0),
        "bone": (400.0, 1800.0),
        "brain": (40.0, 80.0),
        "subdural": (80.0, 200.0),
        "liver": (60.0, 160.0),
    }
)
"""Name to centre and width in HU, as radiologists commonly set them."""


def parse(text: str) -> tuple[float, float]:
    """Centre and width in HU of a preset's name or of ``CENTER/WIDTH``, such as ``-600/1500``.

    Raises:
        ConfigError: neither of the two, or a width that isn't above 0.
    """
    if text in PRESETS:
        return PRESETS[text]
    try:
        center, width = (float(part) for part in text.split("/"))
    except ValueError:
        raise _refuse(text) from None
    if not (math.isfinite(center) and math.isfinite(width) and width > 0):
        raise _refuse(text)
    return center, width


def _refuse(text: str) -> zooft.ConfigError:
    return zooft.ConfigError(
        f"--window takes {', '.join(PRESETS)}, or CENTER/WIDTH in HU with a width above 0, such as -600/1500; "
        f"{text!r} was given"
    )
