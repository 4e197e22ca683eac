"""What the network sees of an image in training, and how a mistake is weighed."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import zooft

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from zooft_images.options import ClassOptions, ImageOptions


def port(options: ImageOptions) -> zooft.Port:
    """RGB, or one grey channel."""
    made = zooft.image_port(options)
    if options.colour == "grey":
        meaning = made.meaning.replace("RGB levels", "grey levels (Pillow's L)")
        made = replace(made, axes=("batch", "height", "width", 1), meaning=meaning)
    if options.sixteen_bit == "reject":
        return made
    black, white = options.sixteen_bit_range
    scale = f"16-bit grey images are first brought from {black}..{white} to 0..255, rounded, what lies beyond cut off"
    return replace(made, meaning=f"{made.meaning}; {scale}")


def reader(options: ImageOptions) -> str:
    """Source that reads one image with Pillow, in colour or in grey."""
    source = zooft.image_reader(options)
    if options.sixteen_bit == "scale":
        black, white = options.sixteen_bit_range
        source = source.replace(
            '.convert("RGB")',
            f"""
    if image.mode.startswith("I;16"):  # 16-bit grey: {black} is black and {white} is white
        values = np.clip(np.asarray(image, np.float64), {black}, {white})
        image = Image.fromarray(np.round((values - {black}) * 255 / {white - black}).astype(np.uint8))
    image = image.convert("RGB")""",
        )
    if options.colour == "grey":
        source = source.replace('convert("RGB")', 'convert("L")').replace("(image)[None]", "(image)[None, ..., None]")
    return source


def whole_picture(spec: zooft.InputSpec, _options: ImageOptions) -> zooft.InputSpec:
    """An input without a crop, since what a label is about may be at the border."""
    return replace(spec, mode="stretch")


def of_answers(spec: zooft.InputSpec, options: Any) -> zooft.InputSpec:
    """The input for several answers at once: without a crop where one of them is of several labels."""
    answers = tomllib.loads(options.targets_toml).get("targets", {}).values()
    several = any(answer["problem"] == "multilabel" for answer in answers)
    return whole_picture(spec, options) if several else spec


def augment(spec: zooft.InputSpec, options: ImageOptions) -> Callable[[NDArray[Any]], Tensor] | None:
    """Random crops and flips (``light``), smaller crops with colour and geometric changes too (``medium``).

    Levels in uint8.
    """
    if options.augment == "none":
        return None
    from torchvision.transforms import v2
    from torchvision.transforms.v2.functional import InterpolationMode

    changes = None
    if options.augment == "medium":
        changes = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    return _View(
        size=(spec.height, spec.width),
        least=0.6 if options.augment == "light" else 0.25,
        interpolation=spec.interpolation,
        changes=changes,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _View:
    """A random view; of a class, so that it can be sent to loader processes that don't inherit it.

    The crop and the flip are torchvision's, drawn and computed as its transforms do, but called as functions: the
    machinery around those classes takes a third of a view's time.

    Attributes:
        size: of the view, height and width.
        least: share of the image's area that a crop shows.
        interpolation: of the crop's resize.
        changes: what else happens to levels ``(C, height, width)`` uint8.
    """

    size: tuple[int, int]
    least: float
    interpolation: str
    changes: nn.Module | None

    def __call__(self, array: NDArray[Any]) -> Tensor:
        import torch
        from torchvision.transforms.v2 import RandomResizedCrop
        from torchvision.transforms.v2 import functional as operations

        image = torch.from_numpy(array).permute(2, 0, 1)
        top, left, height, width = RandomResizedCrop.get_params(image, scale=[self.least, 1.0], ratio=[3 / 4, 4 / 3])
        view: Tensor = operations.resized_crop(
            image,
            top,
            left,
            height,
            width,
            size=list(self.size),
            interpolation=operations.InterpolationMode(self.interpolation),
            antialias=True,
        )
        if torch.rand(1) < 0.5:
            view = view.flip(-1)
        if self.changes is not None:
            view = self.changes(view)
        return view


def loss(targets: Sequence[int], options: ClassOptions) -> nn.Module:
    """Cross entropy; with ``balanced``, classes weigh n / (classes × their count), as in scikit-learn."""
    import torch
    from torch import nn

    if options.class_weights == "none":
        return nn.CrossEntropyLoss()
    counts = Counter(targets)
    absent = [index for index in range(max(counts, default=0) + 1) if not counts[index]]
    if absent:
        raise zooft.DataError(
            f"balanced class weights need training samples of every class; class number {absent[0] + 1} has none"
        )
    weights = [len(targets) / (len(counts) * counts[index]) for index in range(len(counts))]
    return nn.CrossEntropyLoss(weight=torch.tensor(weights))
