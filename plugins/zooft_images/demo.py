"""A real data set that needs no network: scikit-learn's handwritten digits.

1,797 digits of 43 people, 8 × 8 levels 0..16: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits,
UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ENLARGED = 4


def digits(root: Path, seed: int) -> None:
    """Write ``root/DIGIT/NNNN.png``, 32 × 32 pixels, each level of the original as one grey level.

    Args:
        root: an empty or new folder.
        seed: not used; the data is what it is.
    """
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for index, (levels, digit) in enumerate(zip(data.images, data.target, strict=True)):
        folder = root / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.kron(np.round(levels * 255 / 16), np.ones((_ENLARGED, _ENLARGED))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:04}.png")
