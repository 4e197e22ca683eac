"""What the report shows of one split.

The ROC, distances of the same and of others, and queries beside what was found for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import zooft
from zooft_retrieval.metrics import FARS, Gallery, Roc, galleries, nearest, roc

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from PIL.Image import Image

_QUERIES, _NEIGHBOURS = 4, 5
_SIDE, _FRAME, _GAP = 88, 4, 6
_RIGHT, _WRONG, _QUERY = (26, 127, 55), (207, 34, 46), (120, 120, 120)
_BLUE, _ORANGE = "#2f6fb3", "#d9822b"
_BINS = 60


def of_split(evaluated: Any, fitted: Mapping[str, Any]) -> Iterator[zooft.Picture]:
    """Pictures, as far as there is something to show.

    Args:
        evaluated: predictions and figures of the split.
        fitted: with the threshold.
    """
    parts = galleries(evaluated.predictions.columns)
    found = roc(parts)
    if found.defined:
        yield _curve(found, evaluated.evaluation.split)
        yield _histogram(found, fitted, evaluated.evaluation.split)
    strips = _strips(parts, evaluated.predictions.samples)
    if strips is not None:
        yield strips


def _curve(found: Roc, split: str) -> zooft.Picture:
    far, tar = found.far, found.tar

    def draw(axes: Axes) -> None:
        shown = far > 0
        axes.plot(far[shown], tar[shown], color=_BLUE)
        for at in FARS:
            axes.plot([at], [found.tar_at(at)], "o", color=_ORANGE)
        axes.set(xscale="log", xlim=(max(far[shown].min(), 1e-6), 1), ylim=(0, 1.02))
        axes.set(xlabel="false accept rate (FAR)", ylabel="true accept rate (TAR)")

    points = ", ".join(f"{found.tar_at(at):.3f} at {at:g}" for at in FARS)
    return zooft.Picture(
        title=f"Same or other ({split})",
        png=_render(draw),
        caption=(
            f"TAR by FAR as the threshold moves; the area below, on a plain scale, is {found.auroc():.4f}. Points: "
            f"TAR {points}."
        ),
    )


def _histogram(found: Roc, fitted: Mapping[str, Any], split: str) -> zooft.Picture:
    distances = 1 - found.thresholds
    edges = np.linspace(min(0.0, float(distances.min())), float(distances.max()), _BINS + 1)

    def draw(axes: Axes) -> None:
        for share, colour, name in ((found.tar, _BLUE, "the same"), (found.far, _ORANGE, "others")):
            axes.hist(
                distances, edges.tolist(), weights=np.diff(share, prepend=0.0), color=colour, alpha=0.6, label=name
            )
        if "threshold" in fitted:
            axes.axvline(fitted["threshold"], color="#555555", linestyle="--", label="threshold")
        axes.set(xlabel="cosine distance", ylabel="share of pairs")
        axes.legend(frameon=False)

    return zooft.Picture(
        title=f"Distances ({split})",
        png=_render(draw),
        caption=("Distances of pairs of one identity and of two; the less the two overlap, the better the embeddings."),
    )


def _render(draw: Any) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _strips(parts: Sequence[Gallery], samples: Sequence[zooft.Sample]) -> zooft.Picture | None:
    """Queries whose nearest shows another first, then those that are found, each beside its nearest."""
    if not len(samples) or not any((part.others > 0).any() for part in parts):
        return None
    part = max(parts, key=lambda each: int((each.others > 0).sum()))
    blocks = list(nearest(part, _NEIGHBOURS))
    queries = np.concatenate([block[0] for block in blocks])
    places, similar = (np.concatenate([block[i] for block in blocks]) for i in (1, 2))
    same = part.identities[places] == part.identities[queries][:, None]
    answerable = np.flatnonzero(part.others[queries] > 0)
    wrong, right = answerable[~same[answerable, 0]], answerable[same[answerable, 0]]
    spread = right[np.linspace(0, len(right) - 1, min(_QUERIES, len(right))).astype(int)] if len(right) else right
    rows = [*wrong[np.argsort(-similar[wrong, 0])][:_QUERIES], *spread]
    strips = [_strip(part, samples, int(queries[row]), places[row], same[row]) for row in rows]
    return zooft.Picture(
        title="Queries and what is nearest to them",
        png=_stack(strips),
        caption=f"Left the query, then its nearest, the first the nearest: green shows the same, red another. "
        f"{len(wrong):,} of "
        f"{len(answerable):,} queries have another nearest{', the surest of them above' if len(wrong) else ''}.",
    )


def _strip(
    part: Gallery, samples: Sequence[zooft.Sample], query: int, places: NDArray[np.int64], same: NDArray[np.bool_]
) -> list[Image]:
    shown = [(query, _QUERY), *((int(at), _RIGHT if ok else _WRONG) for at, ok in zip(places, same, strict=True))]
    return [_add_frame(samples[int(part.rows[at])].source, colour) for at, colour in shown]


def _add_frame(source: Path, colour: tuple[int, int, int]) -> Image:
    from PIL import Image, ImageOps

    try:
        picture = ImageOps.contain(Image.fromarray(zooft.image_read(source)), (_SIDE, _SIDE))
    except zooft.DataError:  # gone since it was read
        picture = Image.new("RGB", (_SIDE, _SIDE), (200, 200, 200))
    tile = Image.new("RGB", (_SIDE + 2 * _FRAME,) * 2, colour)
    tile.paste((255, 255, 255), (_FRAME, _FRAME, _FRAME + _SIDE, _FRAME + _SIDE))
    tile.paste(picture, ((tile.width - picture.width) // 2, (tile.height - picture.height) // 2))
    return tile


def _stack(strips: Sequence[Sequence[Image]]) -> bytes:
    from PIL import Image

    step = _SIDE + 2 * _FRAME + _GAP
    whole = Image.new("RGB", (step * max(map(len, strips)) + _GAP, step * len(strips)), (255, 255, 255))
    for row, strip in enumerate(strips):
        for column, tile in enumerate(strip):
            whole.paste(tile, (column * step + (_GAP if column else 0), row * step))
    buffer = io.BytesIO()
    whole.save(buffer, "PNG")
    return buffer.getvalue()
