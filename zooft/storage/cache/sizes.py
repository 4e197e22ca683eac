"""Sizes as people write and read them."""

from __future__ import annotations

import re

from zooft.errors import ConfigError


def parse_size(text: str, *, what: str) -> int:
    """Bytes: ``20GB`` (10^9), ``20GiB`` (2^30), ``500MB``, ``0``.

    Raises:
        ConfigError: it isn't a size; the message begins with `what`.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    if found is None or (found[3] and not found[2]):
        raise ConfigError(f"{what} is {text!r}, which isn't a size; write 20GB, 500MB, 20GiB or a number of bytes")
    power = " KMGT".index(found[2].upper() or " ")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)


def size_text(number: float) -> str:
    """``312 kB``, ``1.4 GB``; powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 99.5 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
