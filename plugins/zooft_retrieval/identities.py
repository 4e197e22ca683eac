"""What a target is: who or what a picture shows, and which picture it is.

Names never leave the training machine: loss, columns and file know them as numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNKNOWN = -1
"""The number of an identity or a content that isn't known."""


class Identity(NamedTuple):
    """A sample's target.

    Attributes:
        name: of the person or thing.
        content: SHA-256 of the picture's levels, hexadecimal: copies of a picture have the same.
        pairs: numbers of the pairs of a list that the picture is in, such as LFW's; () where all pairs are compared.
    """

    name: str
    content: str
    pairs: tuple[int, ...] = ()


def number_of(text: str) -> int:
    """The same 63-bit number for the same text, on every machine; never `UNKNOWN`."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numbers_of(targets: Sequence[Any]) -> dict[str, NDArray[np.int64]]:
    """Columns ``identity`` and ``content`` ``(N,)`` and ``pairs`` ``(N, K)``, `UNKNOWN` where there is none."""
    known: dict[str, int] = {}

    def number(text: str) -> int:
        return known.setdefault(text, number_of(text))

    most = max((len(target.pairs) for target in targets if target is not None), default=0)
    pairs = np.full((len(targets), most), UNKNOWN, np.int64)
    for row, target in enumerate(targets):
        if target is not None:
            pairs[row, : len(target.pairs)] = target.pairs
    return {
        "identity": np.array([UNKNOWN if t is None else number(t.name) for t in targets], np.int64),
        "content": np.array([UNKNOWN if t is None else number(t.content) for t in targets], np.int64),
        "pairs": pairs,
    }


def content_of(levels: NDArray[np.uint8]) -> str:
    """SHA-256 of a picture's size and levels, hexadecimal: copies in files of other formats have the same."""
    return hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest()
