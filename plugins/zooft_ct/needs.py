"""Libraries that reading CT needs and that a plain installation lacks."""

from __future__ import annotations

import importlib.util

import zooft

EXTRA = "pip install 'zooft[ct]' (where zooft-runtime is installed: 'zooft-runtime[ct]')"
_LIBRARIES = ("pydicom", "nibabel")


def require() -> None:
    """Whether the libraries are there, without loading them.

    Raises:
        ConfigError: names the missing ones and the extra that brings them.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise zooft.ConfigError(f"CT needs {' and '.join(_LIBRARIES)} ({' and '.join(missing)} missing): {EXTRA}")
