"""The library that YOLO's form needs and that zooft-runtime lacks; timm brings it."""

from __future__ import annotations

import importlib.util

import zooft

EXTRA = "pip install 'zooft[detection]'"


def require_yaml() -> None:
    """Whether it is there, without loading it.

    Raises:
        ConfigError: names it and the extra that brings it.
    """
    if importlib.util.find_spec("yaml") is None:
        raise zooft.ConfigError(f"YOLO's YAML needs pyyaml: {EXTRA}")
