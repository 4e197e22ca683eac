"""What a page is made of: plain values that the templates know how to draw.

Every text in them is untrusted, and escaped by the templates; only `Drawing.svg` is markup, made by `drawing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from markupsafe import Markup

Tone = Literal["plain", "good", "note", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, one under the other."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table.

    Attributes:
        title: its caption.
        columns: their heads; the first column names the rows.
        rows: cells as text.
        numbers: whether the cells after the first are figures, to be aligned at the right.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaded:
    """A square table of counts, each cell shaded by its share of its row.

    Attributes:
        title: its caption.
        names: of rows and columns.
        counts: rows are targets, columns predictions.
        shares: of the row, whole per cent.
    """

    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    shares: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure as inline SVG."""

    title: str
    svg: Markup
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """A picture, or several side by side, with a caption.

    Attributes:
        sources: ``data:`` addresses of the pictures.
        alt: describes the picture, for readers who can't see it.
        title: the first line below it.
        lines: further lines below it.
    """

    sources: tuple[str, ...]
    alt: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Figures and pictures beside each other where there is room.

    With `narrow`, more of them fit in a row, with `wide`, fewer.
    """

    blocks: tuple[Drawing | Photo | Grid | Shaded, ...]
    narrow: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Code:
    """Text to type or to paste."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One stage of a network in the strip of stages."""

    name: str
    parameters: str
    state: Literal["frozen", "learning", "new", "none"]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Strip:
    """A network's stages, from the image to the prediction."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRow:
    """One line of the model card; without an answer it is visibly left to the reader."""

    topic: str
    ask: str
    answer: tuple[str, ...]
    items: str


@dataclass(frozen=True, slots=True)
class Card:
    """A part of the model card."""

    title: str
    rows: tuple[CardRow, ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Details that are shown on a click, and in print."""

    summary: str
    blocks: tuple[Block, ...]


Block = Text | Items | Facts | Grid | Shaded | Drawing | Photo | Row | Code | Strip | Card | Heading | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with an anchor."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One of the few figures at the top of the page."""

    label: str
    value: str
    detail: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole page."""

    title: str
    lead: str
    keys: tuple[Key, ...]
    sections: tuple[Section, ...]
    foot: str
