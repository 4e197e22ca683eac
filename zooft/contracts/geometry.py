"""Where a sample's pixels lie in the network's input.

How targets that have places, such as masks and boxes, move along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from zooft.contracts.data import Arrays


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Geometry:
    """An affine map from a sample's own pixels to those of one view of it.

    Places are counted from the upper left corner of the upper left pixel, so that pixel number i covers i to i + 1.

    Attributes:
        matrix: ``(2, 3)`` float64: ``(x, y)`` of the view is ``matrix @ (x, y, 1)`` of the sample.
        source: rows and columns of the sample.
        view: rows and columns of the view.
    """

    matrix: NDArray[Any]
    source: tuple[int, int]
    view: tuple[int, int]

    def mask(self, labels: NDArray[Any], *, outside: int) -> NDArray[Any]:
        """The nearest pixel's value at the centre of every pixel of the view.

        Args:
            labels: ``(rows, columns)`` of the sample, of any type.
            outside: value of what the sample doesn't show, such as the border of a letterbox.

        Returns:
            ``view``, of the same type.
        """
        import numpy as np

        linear, shift = self.matrix[:, :2], self.matrix[:, 2]
        inverse = np.linalg.inv(linear)
        across, down = (np.arange(size) + 0.5 for size in (self.view[1], self.view[0]))
        moved = np.full(self.view, outside, labels.dtype)
        if inverse[0, 1] == inverse[1, 0] == 0:  # each row of the view is one of the sample's, each column too
            columns = np.floor(inverse[0, 0] * (across - shift[0]))
            rows = np.floor(inverse[1, 1] * (down - shift[1]))
            shown = (rows >= 0) & (rows < self.source[0]), (columns >= 0) & (columns < self.source[1])
            taken = rows[shown[0]].astype(int), columns[shown[1]].astype(int)
            moved[np.ix_(*shown)] = labels[np.ix_(*taken)]
            return moved
        columns = np.floor(inverse[0, 0] * (across - shift[0])[None] + inverse[0, 1] * (down - shift[1])[:, None])
        rows = np.floor(inverse[1, 0] * (across - shift[0])[None] + inverse[1, 1] * (down - shift[1])[:, None])
        inside = (rows >= 0) & (rows < self.source[0]) & (columns >= 0) & (columns < self.source[1])
        moved[inside] = labels[rows[inside].astype(int), columns[inside].astype(int)]
        return moved

    def boxes(self, boxes: NDArray[Any]) -> NDArray[Any]:
        """Upright boxes around where boxes lie in the view, cut at its borders.

        Args:
            boxes: ``(n, 4)``, x and y of the upper left and of the lower right corner, in pixels of the sample.

        Returns:
            ``(n, 4)`` float64, in pixels of the view; of boxes that lie outside, empty ones at its border.
        """
        import numpy as np

        left, top, right, bottom = np.asarray(boxes, np.float64).reshape(-1, 4).T
        corners = np.stack([(left, top), (right, top), (left, bottom), (right, bottom)])  # (4, 2, n)
        moved = np.einsum("ij,cjn->cin", self.matrix[:, :2], corners) + self.matrix[:, 2:]
        limits = np.array([self.view[1], self.view[0]])[:, None]
        low, high = (np.clip(found, 0, limits) for found in (moved.min(0), moved.max(0)))
        return np.concatenate([low, high]).T


class View(NamedTuple):
    """A random view of a sample, and how its pixels have moved.

    Attributes:
        image: the network's input ``(C, H, W)``, or levels in uint8.
        geometry: from the arrays that the view was made of, where it is known.
    """

    image: Tensor
    geometry: Geometry | None = None


@runtime_checkable
class Back(Protocol):
    """From places of the network's input to the sample's own pixels; recorded in the exported graph."""

    def maps(self, maps: Tensor) -> Tensor:
        """Maps of the network's input ``(N, C, h, w)``, of any size, to ``(N, C, H, W)`` of the samples, bilinear."""

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes ``(..., 4)``, x and y of two corners in the network's input, to pixels of the samples, cut there."""


@runtime_checkable
class InputGeometry(Protocol):
    """How a task's plain preprocessing places a sample in the network's input."""

    def of(self, arrays: Arrays) -> Geometry:
        """The map of one sample, by its arrays without the batch axis."""

    def back(self, batch: Sequence[Tensor]) -> Back:
        """The way back for a batch, by the graph's inputs."""
