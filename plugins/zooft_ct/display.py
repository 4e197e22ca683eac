"""What people see of CT: a sample as a grey picture, and tables of how it was acquired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct.windows import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft_ct.options import CTOptions

ACQUISITION = ("manufacturer", "model", "kernel", "slice_thickness", "kvp", "contrast", "matrix", "transfer_syntax")
_MOST_ROWS = 12
_AIR = -900
"""HU; lungs are denser, and hang together with the body."""
_MIDDLE = 0.75
"""Of the way from the picture's middle to its sides."""
_SMALL = 0.02
"""Of the picture."""


def show(arrays: zooft.Arrays, options: CTOptions) -> NDArray[Any]:
    """The middle slice through the first window, ``(H, W)`` uint8."""
    import numpy as np

    center, width = parse(options.window[0])
    hu = arrays[0][arrays[0].shape[0] // 2].astype(np.float32)
    levels = (hu - (center - width / 2)) * (255 / width)
    picture: NDArray[Any] = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return picture


def redact(arrays: zooft.Arrays, _options: CTOptions) -> zooft.Arrays:
    """Each slice without small things far from the middle: letters in its corners."""
    import numpy as np

    return np.stack([_without_corner_text(hu) for hu in arrays[0]]), *arrays[1:]


def _without_corner_text(hu: NDArray[Any]) -> NDArray[Any]:
    """Names are burned into the air around the body, of images that don't declare it, too: letters become air.

    What is brighter than air, hangs together, is small and has its middle far from the picture's, goes.
    """
    import numpy as np
    from scipy import ndimage

    parts, count = ndimage.label(hu > _AIR, structure=np.ones((3, 3)))
    if not count:
        return hu
    places = np.nonzero(parts)
    owners = parts[places]
    sizes = np.bincount(owners, minlength=count + 1)
    sizes[0] = 1  # the air
    middles = [np.bincount(owners, weights=place, minlength=count + 1) / sizes for place in places]
    away = np.hypot(*(2 * middle / (side - 1) - 1 for middle, side in zip(middles, hu.shape, strict=True))) > _MIDDLE
    small = away & (sizes < _SMALL * hu.size)
    small[0] = False
    letters = small[parts]
    if not letters.any():
        return hu
    return np.where(ndimage.binary_dilation(letters, iterations=2), -1024, hu)


def explain(spec: zooft.InputSpec, options: CTOptions) -> str:
    """What the graph does to HU, in words."""
    shown = " and ".join(f"{center:g}/{width:g}" for center, width in map(parse, options.window))
    size = (
        f"resampled to {options.spacing:g} mm, the centre {spec.height}x{spec.width} cut out or padded with air"
        if options.spacing
        else f"the whole field of view stretched to {spec.height}x{spec.width}"
    )
    return (
        f"window {shown} HU (center/width) to 0..255, {size} (antialiased {spec.interpolation}), then mean "
        f"{spec.mean} and std {spec.std} on the scale 0..1"
    )


def report(samples: Sequence[zooft.Sample], _options: CTOptions) -> tuple[zooft.Table, ...]:
    """How the data was acquired: patients and samples by each value of each fact."""
    rows = [row for fact in ACQUISITION for row in _rows(fact, samples)]
    return (zooft.Table(title="Acquisition", columns=("", "value", "patients", "samples"), rows=tuple(rows)),)


def _rows(fact: str, samples: Sequence[zooft.Sample]) -> list[tuple[str, ...]]:
    values = [str(sample.facts.get(fact, "not stated")) for sample in samples]
    counts = Counter(values).most_common(_MOST_ROWS)
    rows: list[tuple[str, ...]] = []
    for value, count in counts:
        patients = {s.group for s, own in zip(samples, values, strict=True) if own == value}
        rows.append((fact.replace("_", " "), value, str(len(patients)), str(count)))
    rest = len(samples) - sum(count for _, count in counts)
    return [*rows, (fact.replace("_", " "), "others", "", str(rest))] if rest else rows
