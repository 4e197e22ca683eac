"""One image file to levels 0..255, or a reason why not.

Only small_pictures, which random views are made of, need torch: deployment reads by this module too.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import zooft
from zooft_images.file_kinds import HEAD, NO_HEIF, RAW_ANSWER, is_heif, is_raw, what_is
from zooft_images.options import NOT_PICTURES, WHITE
from zooft_images.shards import Member
from zooft_images.source_image import Encoded, Levels, Stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from zooft_images.options import ImageOptions

MOST_PIXELS = 100_000_000
"""Refused above this from the header, before anything is decoded."""
_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BIT = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_SEVERAL_PICTURES_ARE_USUAL = frozenset({"MPO", "HEIF"})
"""Camera JPEGs with previews behind the picture, and HEIF, which marks which of its images is the picture."""
_DRAFTED = frozenset({"JPEG", "MPO"})
"""Decoded at less than full size by the same data; drafts of other formats are another picture, a thumbnail."""
_MOST_ABOVE = 0.01
"""Of a 16-bit image's values, above the given white: single hot pixels are, another range's aren't single."""
_DNG_VERSION = 50706
_SKETCH = 1.5
"""The shorter side of a small picture over the network's input: a crop of half its area fills a view."""
Source = Path | Member | Stored
"""A file, a file within a shard, or an image in a data source."""
_Opened = Path | Member | Encoded | Levels
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a file holds besides its picture.

    Attributes:
        facts: for the audit and for subgroups.
        largest: of a picture with 16 bits a level, the largest value, of those 65,536 or of the 256 that are read.
        in_colour: whether that is a colour picture, whose upper 8 bits are read.
    """

    facts: dict[str, str | float]
    largest: int | None = None
    in_colour: bool = False


def read(source: Source, options: ImageOptions) -> NDArray[np.uint8]:
    """The image ``(H, W, 3)``, or ``(H, W, 1)`` in grey, uint8, EXIF rotation applied.

    Raises:
        DataError: the file isn't an image that we can use; the message is the reason alone.
    """
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which doesn't bear on the pixels, and of large images, checked here
        warnings.simplefilter("ignore")
        return decode(source, options)


def decode(source: Source, options: ImageOptions) -> NDArray[np.uint8]:
    """What `read` does, without touching the process's warning filters, so that threads may call it side by side."""
    return _open(source, options, lambda image: _pixels(image, options))


def decode_small(source: Source, spec: zooft.InputSpec, options: ImageOptions) -> tuple[NDArray[np.uint8]]:
    """The image as `read` gives it, its shorter side brought down to 1.5 of the network's input where it is longer.

    JPEGs are decoded at a half, a quarter or an eighth of their size first, which leaves out most of the work. For
    random views, not for plain ones: a view's levels differ from those of the whole picture by about a half on
    average (photographs of 1024x768 and 2048x1536), by more where detail is as fine as the pixels.

    Raises:
        DataError: as `read` does.
    """
    shorter = round(_SKETCH * max(spec.resize, spec.height, spec.width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (_open(source, options, lambda image: _sketch(image, shorter, options)),)


def digest(source: Source, options: ImageOptions) -> str:
    """SHA-256 of the file, hexadecimal; nothing is decoded. How the options read it isn't part of it.

    Raises:
        DataError: there is no such file any more, or it can't be read.
    """
    content = _fetch(source)
    if not isinstance(content, Path):
        return hashlib.sha256(content.open().getbuffer()).hexdigest()
    return zooft.image_digest(content)


def inspect(source: Source, options: ImageOptions) -> Inspection:
    """What the file holds besides its picture, once that is decoded to the last row; may run in threads too.

    Sizes are as stored, pixels; ``bytes_per_pixel`` is the file's size over its pixels.

    Raises:
        DataError: as `read` does.
    """
    content = _fetch(source)
    return _open(content, options, lambda image: _inspect(_bytes(content), image, options))


def kind_of_file(path: Path) -> str:
    """What a file is that is no picture for this task, by its first bytes; nothing of pictures and the rest."""
    if not path.is_file():
        return ""
    try:
        head = _head(path)
    except OSError:
        return ""
    return what_is(head, path.name) if head and not is_picture(path) else ""


def is_picture(path: Path) -> bool:
    """Whether Pillow, or pillow-heif, knows how the file begins."""
    import PIL.Image

    try:
        with warnings.catch_warnings(), PIL.Image.open(path) as image:
            warnings.simplefilter("ignore")
            return image.format not in NOT_PICTURES
    except Exception:  # a hostile file fails in any way
        return is_heif(_head(path))


def _fetch(source: Source | _Opened) -> _Opened:
    """With the content of a data source's image in memory."""
    return source.fetch() if isinstance(source, Stored) else source


def _file(source: _Opened) -> Path | BinaryIO:
    """As Pillow opens it."""
    if not isinstance(source, Path):
        return source.open()
    zooft.refuse_special(source)
    return source


def _bytes(source: _Opened) -> int:
    return source.stat().st_size if isinstance(source, Path) else source.size


def _open(source: Source | _Opened, options: ImageOptions, use: Callable[[Image], T]) -> T:
    """What `use` makes of the image, once its header is found in order."""
    content = _fetch(source)
    with zooft.image_decoding(), _image(content) as image:
        _check_header(image, content, options)
        return use(image)


def _image(source: _Opened) -> Image:
    import PIL.Image

    if isinstance(source, Levels):
        return source.image()
    try:
        return PIL.Image.open(_file(source))
    except PIL.UnidentifiedImageError:
        head = _head(source)
        if is_heif(head):
            return _heif(source)
        raise zooft.DataError(what_is(head, _name(source)) or "not an image that Pillow knows") from None


def _heif(source: _Opened) -> Image:
    """By pillow-heif, called directly: registered with Pillow, it would bear on the whole process."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise zooft.DataError(NO_HEIF) from None
    image: Image = HeifImageFile(_file(source))  # type: ignore[no-untyped-call]
    return image


def _head(source: _Opened) -> bytes:
    if not isinstance(source, Path):
        return source.open().read(HEAD)
    with source.open("rb") as file:
        return file.read(HEAD)


def _name(source: _Opened) -> str:
    return source.name if isinstance(source, Path) else ""


def _check_header(image: Image, source: _Opened, options: ImageOptions) -> None:
    accepted = {name.upper() for name in options.formats}
    if not isinstance(source, Levels) and (image.format or "").upper() not in accepted:
        raise zooft.DataError(
            what_is(_head(source), _name(source))
            or (
                f"{image.format} isn't an accepted format ({', '.join(options.formats)}); convert it, or add it to "
                "--formats"
            )
        )
    if image.format == "TIFF" and (is_raw(_name(source)) or _DNG_VERSION in image.tag_v2):  # type: ignore[attr-defined]
        raise zooft.DataError(RAW_ANSWER)
    width, height = image.size
    if width < 1 or height < 1:
        raise zooft.DataError(f"has no pixels ({width} x {height})")
    if width * height > MOST_PIXELS:
        raise zooft.DataError(f"{width} x {height} is above {MOST_PIXELS:,} pixels")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _SEVERAL_PICTURES_ARE_USUAL:
        raise zooft.DataError(f"holds {frames} pictures (animated or multi-page); save the one that is meant")
    if image.mode in _SIXTEEN_BIT and options.sixteen_bit == "reject":
        raise zooft.DataError(
            "16 bits a level; convert it with a fixed window, or give --sixteen-bit scale, and --sixteen-bit-range "
            "0,4095 where 12 of them are used"
        )
    if _sixteen_in_colour(image) and options.sixteen_bit_range != (0, WHITE):
        raise zooft.DataError(
            "16 bits a level in colour, of which Pillow reads the upper 8: --sixteen-bit-range is for grey images; "
            "convert it"
        )
    if image.mode not in _MODES | _SIXTEEN_BIT:
        raise zooft.DataError(f"pixel type {image.mode} has no fixed range of levels; convert it to 8 bits a level")


def _sixteen_in_colour(image: Image) -> bool:
    """Whether Pillow leaves out the lower 8 bits of every level, by the layout that its decoder is given."""
    layouts = [tile[3] for tile in getattr(image, "tile", ())]
    return image.mode not in _SIXTEEN_BIT and any(";16" in str(layout) for layout in layouts)


def _pixels(image: Image, options: ImageOptions) -> NDArray[np.uint8]:
    import numpy as np

    levels = np.array(_upright(image, options))
    return levels[:, :, None] if levels.ndim == 2 else levels


def _upright(image: Image, options: ImageOptions) -> Image:
    """Turned as EXIF gives, of 8 bits a level, in colour or in grey; not a copy where it is so already."""
    from PIL import ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _SIXTEEN_BIT:
        image = _scale(image, *options.sixteen_bit_range)
    wanted = "L" if options.colour == "grey" else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _scale(image: Image, black: int, white: int) -> Image:
    """16 bits a level to 8: one scale for all files, so that equal values stay equal; beyond its ends all is one level.

    Raises:
        DataError: so much lies above white that the file must be of another range.
    """
    import numpy as np
    import PIL.Image

    values = np.asarray(image)
    above = np.count_nonzero(values > white) / values.size
    if above > _MOST_ABOVE:
        raise zooft.DataError(
            f"{above:.0%} of its values lie above {white}, which --sixteen-bit-range takes for white (the largest is "
            f"{values.max()}): it is of another range than the others"
        )
    levels = np.round((np.clip(np.arange(WHITE + 1.0), black, white) - black) * 255 / (white - black)).astype(np.uint8)
    return PIL.Image.fromarray(levels[values])


def _sketch(image: Image, shorter: int, options: ImageOptions) -> NDArray[np.uint8]:
    import torch

    if image.format in _DRAFTED:
        image.draft(None, (shorter, shorter))  # the least size that isn't below
    whole = _pixels(image, options)
    share = shorter / min(whole.shape[:2])
    if share >= 1:
        return whole
    # not Pillow's resize, which takes several times as long and more than the decoding
    size = [max(1, round(side * share)) for side in whole.shape[:2]]
    levels = torch.from_numpy(whole).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(levels, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    decoded: NDArray[np.uint8] = small.contiguous().numpy()
    return decoded


def _inspect(size: int, image: Image, options: ImageOptions) -> Inspection:
    (width, height), mode, in_colour = image.size, image.mode, _sixteen_in_colour(image)
    # of a JPEG, an eighth of each side: all of the coded data is read, and what is torn refused, as at full size
    if image.format in _DRAFTED:
        image.draft(None, (1, 1))
    image.load()
    exif = "exif" in image.info  # may stand behind the pixels, and is gone once the picture is turned
    deep = in_colour or mode in _SIXTEEN_BIT
    largest = _largest(image) if deep else None
    _upright(image, options)
    facts: dict[str, str | float] = {
        "format": image.format or "levels",
        "mode": mode,
        "width": float(width),
        "height": float(height),
        "aspect": round(width / height, 3),
        "bytes_per_pixel": round(size / (width * height), 4),
        "exif": "there" if exif else "none",
    }
    return Inspection(facts, largest, in_colour)


def _largest(image: Image) -> int:
    """Of all channels but transparency."""
    import numpy as np

    if image.mode in _SIXTEEN_BIT:
        return int(np.asarray(image).max())
    channels = zip(image.getbands(), image.split(), strict=True)
    return max(int(np.asarray(channel).max()) for name, channel in channels if name != "A")
