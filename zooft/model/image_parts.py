"""Ready-made parts that a task can be put together from. Light: the registry loads tasks without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zooft.contracts import Port

if TYPE_CHECKING:
    from torch import nn

    from zooft.contracts import InputGeometry, InputSpec


def image_port(_options: Any) -> Port:
    """8-bit RGB images of any size, for a Task's `port`."""
    return Port(
        name="images",
        dtype="uint8",
        axes=("batch", "height", "width", 3),
        meaning="RGB levels 0..255, sRGB, rows from top to bottom, EXIF rotation already applied",
    )


def image_preprocess(spec: InputSpec, _options: Any) -> nn.Module:
    """The preprocessing of 8-bit images, for a Task's `preprocess`."""
    from zooft.model.preprocess import ImagePreprocess

    return ImagePreprocess(spec)


def image_geometry(spec: InputSpec, _options: Any, *, axes: tuple[int, int] = (1, 2)) -> InputGeometry:
    """How `image_preprocess` places images ``(N, H, W, C)`` in the network's input, for a Task's `geometry`.

    Args:
        spec: mode and size of the network's input.
        axes: of rows and columns in a batch, of arrays with other axes.
    """
    from zooft.model.geometry import ImageGeometry

    return ImageGeometry(spec, axes)


def image_reader(_options: Any) -> str:
    """Source that reads 8-bit images with Pillow, for a Task's `reader`."""
    return """\
from PIL import Image, ImageOps


def read(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return [(np.asarray(image)[None],)]
"""
