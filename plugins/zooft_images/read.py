"""One image file to levels 0..255, or a reason why not. numpy and Pillow only: deployment reads by it too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import zooft

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from zooft_images.options import ClassificationOptions

MOST_PIXELS = 100_000_000
"""Refused above this from the header, before anything is decoded."""
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_SEVERAL_PICTURES_ARE_USUAL = frozenset({"MPO"})
"""Camera JPEGs with previews behind the picture; the first one is the picture."""
T = TypeVar("T")


def read(source: Path, options: ClassificationOptions) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)``, or ``(H, W, 1)`` in grey, uint8, EXIF rotation applied.

    Raises:
        DataError: the file isn't an image that we can use; the message is the reason alone.
    """
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which doesn't bear on the pixels, and of large images, checked here
        warnings.simplefilter("ignore")
        return decode(source, options)


def decode(source: Path, options: ClassificationOptions) -> NDArray[np.uint8]:
    """What `read` does, without touching the process's warning filters, so that threads may call it side by side."""
    return _opened(source, options, lambda image: _pixels(image, options))


def inspect(source: Path, options: ClassificationOptions) -> dict[str, str | float]:
    """What the file tells besides its picture, once that is decoded to the last row; may run in threads too.

    Sizes are as stored, pixels; ``bytes_per_pixel`` is the file's size over its pixels.

    Raises:
        DataError: as `read` does.
    """
    return _opened(source, options, lambda image: _facts(source, image, options))


def _opened(source: Path, options: ClassificationOptions, use: Callable[[Image], T]) -> T:
    """What `use` makes of the image, once its header is found in order."""
    import PIL.Image

    _refuse_special(source)
    try:
        with PIL.Image.open(source) as image:
            _check_header(image, options)
            return use(image)
    except zooft.DataError:
        raise
    except PIL.UnidentifiedImageError:
        raise zooft.DataError("not an image that Pillow knows") from None
    except MemoryError:
        raise zooft.DataError("too large for this machine's memory") from None
    except Exception as error:  # a hostile or torn file fails in any way inside a decoder
        raise zooft.DataError(f"can't be decoded: {_words(error)}") from error


def _refuse_special(source: Path) -> None:
    """Opening a pipe would wait for ever, and the rest has no content."""
    if source.is_file():
        return
    if source.is_dir():
        raise zooft.DataError("a folder, or a link to one, which isn't followed")
    if source.is_symlink() and not source.exists():
        raise zooft.DataError("a link that leads nowhere")
    raise zooft.DataError("not a regular file" if source.exists() else "no such file")


def _words(error: Exception) -> str:
    """The system's errors would repeat the whole path, which a reason doesn't need."""
    system = error.strerror if isinstance(error, OSError) else None
    return system or f"{type(error).__name__}: {error}"


def _check_header(image: Image, options: ClassificationOptions) -> None:
    accepted = {name.upper() for name in options.formats}
    if (image.format or "").upper() not in accepted:
        raise zooft.DataError(f"{image.format} isn't an accepted format ({', '.join(options.formats)})")
    width, height = image.size
    if width < 1 or height < 1:
        raise zooft.DataError(f"has no pixels ({width} x {height})")
    if width * height > MOST_PIXELS:
        raise zooft.DataError(f"{width} x {height} is above {MOST_PIXELS:,} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _SEVERAL_PICTURES_ARE_USUAL:
        raise zooft.DataError(f"holds {frames} pictures (animated or multi-page); save the one that is meant")
    if image.mode in _SIXTEEN_BIT and options.sixteen_bit == "reject":
        raise zooft.DataError("16 bits a level; convert it with a fixed window, or give --sixteen-bit scale")
    if image.mode not in _MODES | _SIXTEEN_BIT:
        raise zooft.DataError(f"pixel type {image.mode} has no fixed range of levels; convert it to 8 bits a level")


def _pixels(image: Image, options: ClassificationOptions) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import ImageOps

    upright: Any = ImageOps.exif_transpose(image)
    if upright.mode in _SIXTEEN_BIT:
        levels = np.round(np.asarray(upright, dtype=np.float64) / 257).astype(np.uint8)
        grey = levels[:, :, None]
        return grey if options.colour == "grey" else np.repeat(grey, 3, axis=2)
    if options.colour == "grey":
        return np.array(upright.convert("L"))[:, :, None]
    return np.array(upright.convert("RGB"))


def _facts(source: Path, image: Image, options: ClassificationOptions) -> dict[str, str | float]:
    (width, height), mode = image.size, image.mode
    _pixels(image, options)
    return {
        "format": str(image.format),
        "mode": mode,
        "width": float(width),
        "height": float(height),
        "aspect": round(width / height, 3),
        "bytes_per_pixel": round(source.stat().st_size / (width * height), 4),
        "exif": "there" if "exif" in image.info else "none",
    }
