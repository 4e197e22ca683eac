"""One picture to RGB levels, or a reason why not. Deployment reads by this module too, without torch."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Refused above this from the header, before anything is decoded."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pnm", ".pbm", ".avif"}
)
_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "PPM", "AVIF"})
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})


def read(source: Path, _options: Any) -> NDArray[np.uint8]:
    """The picture ``(H, W, 3)`` uint8, EXIF rotation applied.

    Raises:
        DataError: it can't be used; the message is the reason alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and of large pictures, whose size is checked here
        return decode(source)


def decode(source: Path) -> NDArray[np.uint8]:
    """What `read` does, without touching the process's warning filters, so that threads may call it side by side."""
    import numpy as np
    import PIL.Image
    from PIL import ImageOps

    if not source.is_file():
        raise zooft.DataError("not a regular file" if source.exists() else "no such file")
    try:
        with PIL.Image.open(source) as image:
            _check(image)
            upright = ImageOps.exif_transpose(image)
            return np.array(upright.convert("RGB"))
    except zooft.DataError:
        raise
    except PIL.UnidentifiedImageError:
        raise zooft.DataError("not a picture that Pillow knows") from None
    except MemoryError:
        raise zooft.DataError("too large for this machine's memory") from None
    except Exception as error:  # a hostile or torn file fails in any way inside a decoder
        words = error.strerror if isinstance(error, OSError) else None
        raise zooft.DataError(f"can't be decoded: {words or f'{type(error).__name__}: {error}'}") from error


def _check(image: Image) -> None:
    width, height = image.size
    if image.format not in _FORMATS:
        raise zooft.DataError(f"{image.format} isn't read here; convert it to JPEG or PNG")
    if width * height > MOST_PIXELS:
        raise zooft.DataError(f"{width} x {height} is above {MOST_PIXELS:,} pixels")
    if width < 1 or height < 1:
        raise zooft.DataError(f"has no pixels ({width} x {height})")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise zooft.DataError("holds several pictures (animated or multi-page); save the one that is meant")
    if image.mode not in _MODES:
        raise zooft.DataError(f"pixel type {image.mode} has no fixed range of levels; convert it to 8 bits a level")


def digest(source: Path, _options: Any) -> str:
    """SHA-256 of the file, hexadecimal.

    Raises:
        DataError: it can't be read any more.
    """
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise zooft.DataError(f"can't be read: {error.strerror}") from error


def content(levels: NDArray[np.uint8]) -> str:
    """SHA-256 of a picture's size and levels, hexadecimal: copies in files of other formats have the same."""
    return hashlib.sha256(repr(levels.shape).encode() + levels.tobytes()).hexdigest()
