"""The library that training on masks needs and a plain installation lacks; exported files run without it."""

from __future__ import annotations

import importlib.util
from typing import Any

import zooft

EXTRA = "pip install 'zooft[segmentation]'"
_LIBRARY = "segmentation_models_pytorch"


def require(_options: Any = None) -> None:
    """Whether it is there, without loading it.

    Raises:
        ConfigError: names it and the extra that brings it.
    """
    if importlib.util.find_spec(_LIBRARY) is None:
        raise zooft.ConfigError(f"training on masks needs {_LIBRARY} (decoders and losses): {EXTRA}")


def require_coco() -> None:
    """Whether the library of COCO's shapes is there, without loading it.

    Raises:
        ConfigError: it isn't, with the extra that brings it.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise zooft.ConfigError(f"COCO's polygons and run lengths need pycocotools: {EXTRA}")
