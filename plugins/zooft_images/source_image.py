"""An image in a data source, and what its content is once it is in memory: an image's file, or levels."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zooft
from zooft_images.shards import MOST_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, slots=True)
class Stored:
    """One image of a data source.

    Attributes:
        content: the source's own function.
        reference: what that takes.
    """

    content: Callable[[Any], bytes | NDArray[Any]]
    reference: Any

    def fetch(self) -> Encoded | Levels:
        """Its content, in memory.

        Raises:
            DataError: it can't be read, is too large, or is an array that is no image.
        """
        content = self.content(self.reference)
        if not isinstance(content, bytes):
            return Levels(content)
        if len(content) > MOST_BYTES:
            raise zooft.DataError(f"has {len(content):,} bytes, above {MOST_BYTES:,}")
        return Encoded(content)


@dataclass(frozen=True, slots=True)
class Encoded:
    """The bytes of an image's file."""

    content: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    def open(self) -> io.BytesIO:
        """As a file."""
        return io.BytesIO(self.content)


@dataclass(frozen=True, slots=True)
class Levels:
    """An image that the source has decoded, ``(H, W)`` or ``(H, W, channels)``."""

    array: NDArray[Any]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.array.nbytes)

    def open(self) -> io.BytesIO:
        """Type, shape and levels, for a digest."""
        return io.BytesIO(f"{self.array.dtype.name} {self.array.shape} ".encode() + self.array.tobytes())

    def image(self) -> Image:
        """As Pillow's image, of the mode that its file would have.

        Raises:
            DataError: another type or shape than an image's.
        """
        import numpy as np
        import PIL.Image

        levels = np.ascontiguousarray(self.array)
        shape, kind = levels.shape, levels.dtype.name
        grey = levels.ndim == 2 or shape[2:] == (1,)
        fits = levels.ndim == 2 or (levels.ndim == 3 and shape[2] in _CHANNELS)
        if not fits or not (kind == "uint8" or (kind == "uint16" and grey)) or not levels.size:
            raise zooft.DataError(
                f"its source gives {kind} of shape {shape}; levels are uint8 of shape (H, W), (H, W, 1), (H, W, 3) or "
                "(H, W, 4), or grey ones uint16"
            )
        return PIL.Image.fromarray(levels.reshape(shape[:2]) if grey else levels)
