"""Pictures of the report's sections: the confusion matrix, and the colours of masks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft_segmentation.classes import Colour

_MOST_NUMBERS = 16
_MOST_NAMES = 60


def confusion(table: NDArray[Any], names: Sequence[str]) -> zooft.Picture:
    """Shares of the pixels of each true class (rows) that were predicted as each class (columns)."""
    from matplotlib.figure import Figure

    sums = table.sum(1, keepdims=True)
    shares = np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)
    side = min(9.0, 2.5 + 0.42 * len(names))
    figure = Figure(figsize=(side, side * 0.92), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) <= _MOST_NUMBERS:
        for row in range(len(names)):
            for column in range(len(names)):
                share = shares[row, column]
                if share >= 0.005:
                    ink = "white" if share > 0.5 else "black"
                    axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=7, color=ink)
    return zooft.Picture(
        title="Confusion by pixels",
        png=_png(figure),
        caption="Each row is a class in truth, and shows the shares of its pixels that were given each class.",
    )


def legend(names: Sequence[str], colours: Sequence[Colour]) -> zooft.Picture:
    """The colour of each class."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(7, 0.6 + 0.3 * -(-len(names) // 4)), layout="constrained")
    patches = [
        Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="grey", label=name)
        for name, (red, green, blue) in zip(names, colours, strict=True)
    ]
    figure.legend(handles=patches, loc="center", ncols=4, frameon=False)
    caption = "The colours in which masks are drawn: the prediction first, the truth beside or below it."
    return zooft.Picture(title="Colours", png=_png(figure), caption=caption)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
