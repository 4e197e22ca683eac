"""Matplotlib's figures as inline SVG that takes its colours from the page.

Colours are drawn as placeholders and become CSS variables, so that a figure follows the page into dark mode and print.
Text stays text. Ids carry the figure's name, so that several figures fit on one page.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#fefefe"
BLUE, ORANGE, GREEN, VIOLET, TEAL, ROSE = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
SERIES = (BLUE, ORANGE, GREEN, VIOLET, TEAL, ROSE)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
"""Lines differ in their dashes too, for readers who can't distinguish the colours."""
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    VIOLET: "violet",
    TEAL: "teal",
    ROSE: "rose",
}
_LONG = 22
"""Characters of a name of which two fit side by side."""
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "text.parse_math": False,
    "text.usetex": False,
}


@contextmanager
def axes(*, width: float, height: float) -> Iterator[Axes]:
    """Axes in the page's style, inches; `to_svg` must be called inside, where the style holds."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        yield figure.add_subplot()


def to_svg(axes: Axes, *, name: str, label: str) -> Markup:
    """The figure as an ``<svg>`` element.

    Args:
        axes: the figure's, drawn in this module's colours.
        name: unique on the page; letters, digits and dashes.
        label: for screen readers.
    """
    import matplotlib as mpl
    from markupsafe import Markup

    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 -- `axes` has made it
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA, facecolor="none")
    name = f"{name}-{zlib.crc32(buffer.getvalue()):08x}"
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 -- matplotlib has just written it
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith("}style")]:
            parent.remove(child)  # it would style the whole page
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {key.rpartition("}")[2]: _in_page(key, value, name) for key, value in parent.items()}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 -- texts are escaped in it


def legend_below(axes: Axes) -> None:
    """A legend outside of the axes, where it hides nothing; long names stand below each other."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101 -- `axes` has made it
    longest = max((len(name) for name in axes.get_legend_handles_labels()[1]), default=0)
    figure.legend(loc="outside lower center", ncols=1 if longest > _LONG else 2, fontsize=9)


def _in_page(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"(?<=url\(#)|(?<=^#)(?=[a-zA-Z])", f"{name}-", value)
    if key != "style":
        return value
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, f"var(--{variable})")
    return re.sub(r"font-family: [^;]*", "font-family: inherit", value)
