"""One picture's file to levels 0..255, or a reason why not."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Refused above this from the header, before anything is decoded."""
_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_ENDINGS = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
        ".ppm",
        ".pgm",
        ".pnm",
        ".jp2",
        ".avif",
        ".heic",
    }
)


def read(source: Path, _options: Any) -> NDArray[np.uint8]:
    """The picture ``(H, W, 3)`` uint8, EXIF rotation applied.

    Raises:
        DataError: the file isn't a picture that we can use; the message is the reason alone.
    """
    import numpy as np
    from PIL import ImageOps

    with opened(source) as image:
        if image.mode not in _MODES:
            raise zooft.DataError(f"a picture of mode {image.mode}, with more than 8 bits a level; save it with 8 bits")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


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


@contextmanager
def opened(source: Path) -> Iterator[Image]:
    """A picture whose header is in order; whatever fails while it is used is a DataError with the reason."""
    import PIL.Image

    if not source.is_file():
        raise zooft.DataError("no such file" if not source.exists() else "not a regular file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which doesn't bear on the pixels
            with PIL.Image.open(source) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise zooft.DataError(f"{image.width}x{image.height} pixels; at most {MOST_PIXELS:,} are read")
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                    raise zooft.DataError("several pictures in one file; save the one that is meant")
                yield image
    except zooft.DataError:
        raise
    except PIL.UnidentifiedImageError:
        raise zooft.DataError("not a picture that Pillow knows") from None
    except MemoryError:
        raise zooft.DataError("too large for this machine's memory") from None
    except Exception as error:  # a hostile or torn file fails in any way inside a decoder
        raise zooft.DataError(f"can't be decoded: {error}") from error


def looks_like_picture(path: Path) -> bool:
    """By its name's ending."""
    return path.suffix.lower() in _ENDINGS
