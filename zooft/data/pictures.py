"""One picture's file to levels 0..255, or a reason why not: by Pillow, checked from the header on. Loads no torch."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from zooft.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

MOST_PIXELS = 100_000_000
"""Refused above this from the header, before anything is decoded."""
MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
"""Pillow's pixel types with a fixed range of levels."""
_ENDINGS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "GIF", "JPEG2000"})


def looks_like_picture(path: Path) -> bool:
    """By its name's ending; whether it can be read is another question."""
    return path.suffix.lower() in _ENDINGS


def image_read(source: Path, _options: Any = None) -> NDArray[np.uint8]:
    """The picture ``(H, W, 3)`` uint8 in RGB, EXIF rotation applied, for a Task's `read`.

    Raises:
        DataError: the file isn't a picture that can be used; the message is the reason alone.
    """
    with warnings.catch_warnings():
        # Pillow's, of odd metadata, which doesn't bear on the pixels, and of large pictures, whose size is checked here
        warnings.simplefilter("ignore")
        return image_decode(source)


def image_decode(source: Path) -> NDArray[np.uint8]:
    """As `image_read`, without changing the process's warning filters, so that threads may call it side by side."""
    import numpy as np
    from PIL import ImageOps

    with image_opened(source) as image:
        if image.mode not in MODES:
            raise DataError(f"pixel type {image.mode} has no fixed range of levels; convert it to 8 bits a level")
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def image_digest(source: Path, _options: Any = None) -> str:
    """SHA-256 of the file, hexadecimal, for a Task's `digest`; nothing is decoded.

    Raises:
        DataError: it can't be read any more.
    """
    refuse_special(source)
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"can't be read: {fault_words(error)}") from error


@contextmanager
def image_opened(source: Path) -> Iterator[Image]:
    """A picture whose header is in order, of any pixel type; whatever fails while it is used is a DataError."""
    import PIL.Image

    refuse_special(source)
    with image_decoding():
        try:
            image = PIL.Image.open(source)
        except PIL.UnidentifiedImageError:
            raise DataError("not a picture that Pillow knows") from None
        with image:
            if image.format not in _FORMATS:
                raise DataError(f"{image.format} isn't read here; convert it to JPEG or PNG")
            check_size(image)
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # cameras put previews behind the picture
                raise DataError("holds several pictures (animated or multi-page); save the one that is meant")
            yield image


@contextmanager
def image_decoding() -> Iterator[None]:
    """Put whatever a decoder fails by into a DataError's words."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError("too large for this machine's memory") from None
    except Exception as error:  # a hostile or torn file fails in any way inside a decoder
        raise DataError(f"can't be decoded: {fault_words(error)}") from error


def check_size(image: Image) -> None:
    """Raise DataError where a picture has no pixels, or more than `MOST_PIXELS`."""
    width, height = image.size
    if width < 1 or height < 1:
        raise DataError(f"has no pixels ({width} x {height})")
    if width * height > MOST_PIXELS:
        raise DataError(f"{width} x {height} is above {MOST_PIXELS:,} pixels")


def refuse_special(source: Path) -> None:
    """Raise DataError where a path is no file: opening a pipe would wait for ever, and the rest has no content."""
    if source.is_file():
        return
    if source.is_dir():
        raise DataError("a folder, or a link to one, which isn't followed")
    if source.is_symlink() and not source.exists():
        raise DataError("a link that leads nowhere")
    raise DataError("not a regular file" if source.exists() else "no such file")


def fault_words(error: Exception) -> str:
    """An error in words; the system's would repeat the whole path, which a reason doesn't need."""
    system = error.strerror if isinstance(error, OSError) else None
    return system or f"{type(error).__name__}: {error}"
