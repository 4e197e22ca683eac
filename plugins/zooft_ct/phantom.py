"""Synthetic chests in HU: soft tissue, bones, lungs with vessels and, where set, one nodule. No person's data.

Every number is chosen to look like a chest on CT and to be about as hard to read as intended; none is measured from
people. x runs to the patient's left, y to the back, z to the head, all in mm from the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Volume = NDArray[np.float32]
    Mask = NDArray[np.bool_]

_TARGETS = 60
_VESSEL, _WALL = 40.0, 0.6  # HU; mm, radius of the finest vessel


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What is scanned.

    Attributes:
        pixels: rows and columns.
        slices: of the series.
        field: mm, side of the square that is shown.
        increment: mm between slices, which are as thick.
    """

    pixels: int = 128
    slices: int = 16
    field: float = 340.0
    increment: float = 4.0

    @property
    def spacing(self) -> float:
        """Mm between pixels."""
        return self.field / self.pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodules:
    """From what ranges a nodule is drawn: mm, HU."""

    diameter: tuple[float, float] = (8.0, 20.0)
    hu: tuple[float, float] = (-150.0, 60.0)


@dataclass(frozen=True, slots=True)
class Scan:
    """One phantom.

    Attributes:
        hu: ``(Z, H, W)`` int16, feet to head.
        section: ``(Z,)`` mm, the nodule's diameter where each slice cuts it; 0 where it doesn't.
        nodule: mm, the nodule's own diameter; 0 where there is none.
        mask: ``(Z, H, W)``, voxels that are nodule, half of each at least.
    """

    hu: NDArray[np.int16]
    section: NDArray[np.float64]
    nodule: float
    mask: Mask

    @property
    def visible(self) -> Mask:
        """``(Z,)``: slices in which the nodule is clearly to be seen: half of it at least, and 5 mm."""
        return self.section >= max(self.nodule / 2, 5.0)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Coordinates of the voxels' centres in mm: ``(Z, 1, 1)``, ``(1, H, 1)``, ``(1, 1, W)``."""

    z: Volume
    y: Volume
    x: Volume

    def ellipse(self, x: float | Volume, y: float, a: float | Volume, b: float | Volume) -> Volume:
        """1 on the ellipse's edge, 0 in its middle, ``(1 or Z, H, W)``."""
        inside: Volume = np.hypot((self.x - x) / a, (self.y - y) / b)
        return inside


def scan(rng: Generator, *, size: Size, nodules: Nodules | None, sharp: bool = False) -> Scan:
    """One phantom; everything about it is drawn from `rng`.

    Args:
        rng: of its own for each phantom.
        size: what is scanned.
        nodules: from what its one nodule is drawn; None for a clear chest.
        sharp: whether the reconstruction is sharper and noisier.
    """
    grid = _grid(rng, size)
    hu, lungs = _chest(rng, grid)
    _draw_vessels(rng, grid, hu, lungs)
    section, diameter, mask = np.zeros(size.slices), 0.0, np.zeros(hu.shape, np.bool_)
    if nodules is not None:
        section, diameter, mask = _draw_nodule(rng, size, hu, lungs, nodules)
    blur, noise = (0.45, 25.0) if sharp else (0.6, 16.0)
    grain = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0, blur, blur))
    seen = gaussian_filter(hu, (0, blur, blur)) + noise * grain / grain.std()
    return Scan(np.clip(np.round(seen), -1024, 3071).astype(np.int16), section, diameter, mask)


def _grid(rng: Generator, size: Size) -> _Grid:
    """Body size and position differ from phantom to phantom, so the coordinates do."""
    across = (np.arange(size.pixels) - (size.pixels - 1) / 2) * size.spacing
    along = (np.arange(size.slices) - (size.slices - 1) / 2) * size.increment
    width, depth = rng.normal(0.98, 0.035), rng.normal(0.98, 0.05)
    x, y = (across - rng.normal(0, 4)) / width, (across - rng.normal(0, 4)) / depth
    z = along + rng.normal(0, 8)
    return _Grid(*(a.astype(np.float32) for a in (z[:, None, None], y[None, :, None], x[None, None, :])))


def _chest(rng: Generator, grid: _Grid) -> tuple[Volume, Mask]:
    """HU without vessels, and where the lungs are."""
    fat, heart_size = rng.normal(13, 3), rng.normal(1, 0.06)
    hu = np.full(np.broadcast_shapes(grid.z.shape, grid.y.shape, grid.x.shape), -1000, dtype=np.float32)
    _fill(hu, np.abs(grid.y - 122 - (grid.x / 60) ** 2 * -3) < 3, -550)  # the couch
    _fill(hu, grid.ellipse(0, 0, 158, 108) < 1, -100)
    _fill(hu, grid.ellipse(0, 0, 158 - fat, 108 - 0.8 * fat) < 1, 45)
    lungs = _lungs(grid, heart_size)
    texture = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.7, 1.5, 1.5))
    hu[lungs] = (rng.normal(-850, 12) + 30 * texture / texture.std() + 0.35 * grid.y)[lungs]  # denser towards the back
    _draw_mediastinum(rng, grid, hu, heart_size)
    _draw_bones(rng, grid, hu)
    return hu, lungs & (hu < -500)  # without the ribs that reach into them


def _lungs(grid: _Grid, heart_size: float) -> Mask:
    taper = 1 - 0.0012 * (grid.z + 32)  # they narrow towards the apex
    sides = np.minimum(grid.ellipse(-73, -3, 55 * taper, 77 * taper), grid.ellipse(73, -3, 54 * taper, 77 * taper))
    between = np.minimum(grid.ellipse(0, 4, 24, 64), grid.ellipse(20, -28, *_heart(grid, heart_size, margin=5)))
    spine = grid.ellipse(0, 62, 27, 25)
    return (sides < 1) & (between > 1) & (spine > 1)


def _heart(grid: _Grid, size: float, *, margin: float = 0.0) -> tuple[Volume, Volume]:
    """Half axes at each height: widest below the slices shown, gone above them."""
    share: Volume = (np.sqrt(np.clip(1 - ((grid.z + 45) / 95) ** 2, 0.04, 1)) * size).astype(np.float32)
    return 46 * share + margin, 37 * share + margin


def _draw_mediastinum(rng: Generator, grid: _Grid, hu: Volume, heart_size: float) -> None:
    _fill(hu, grid.ellipse(0, -30, 16, 24) < 1, -90)  # fat behind the sternum
    _fill(hu, grid.ellipse(20, -28, *_heart(grid, heart_size)) < 1, rng.normal(50, 8))
    blood = rng.normal(55, 8)
    _fill(hu, grid.ellipse(20, 38, 12, 12) < 1, blood)  # descending aorta
    _fill(hu, grid.ellipse(-8, -20, 15, 15) < 1, blood)  # ascending aorta
    _fill(hu, grid.ellipse(-24, -18, 9, 9) < 1, blood)  # superior vena cava
    _fill(hu, grid.ellipse(6, 30, 7, 5) < 1, 30)  # oesophagus
    apart = np.clip(-grid.z * 0.7, 0, 26)  # the trachea above the middle, two bronchi below
    for side in (-1.0, 1.0):
        _fill(hu, grid.ellipse(side * apart, 8, 10, 10) < 1, 20)
    for side in (-1.0, 1.0):
        _fill(hu, grid.ellipse(side * apart, 8, 8, 8.5) < 1, -990)


def _draw_bones(rng: Generator, grid: _Grid, hu: Volume) -> None:
    disc = np.abs((grid.z + rng.uniform(0, 26)) % 26 - 13) < 3  # between two vertebrae
    body = grid.ellipse(0, 62, 20, 16)
    _fill(hu, (body < 1) & ~disc, 190)
    _fill(hu, (body < 1) & disc, 80)
    _fill(hu, (np.abs(body - 0.95) < 0.09) & ~disc, 600)
    arch = grid.ellipse(0, 84, 14, 12)
    _fill(hu, np.abs(arch - 0.9) < 0.16, 480)
    _fill(hu, arch < 0.7, 25)  # the spinal canal
    _fill(hu, (np.abs(grid.x) < 3) & (grid.y > 95) & (grid.y < 106), 400)
    _fill(hu, np.hypot(grid.x / 17, (grid.y + 88) / 6) < 1, 300)  # the sternum
    cage = grid.ellipse(0, 0, 137, 88)
    turn = np.arctan2(grid.y / 92, grid.x / 140) * 11 + grid.z * 0.12 + rng.uniform(0, 2 * np.pi)
    ribs = (np.abs(cage - 1) < 0.045) & (np.sin(turn) > 0.25)  # oblique, so that each slice cuts them in pieces
    _fill(hu, ribs, 250)
    _fill(hu, ribs & (np.abs(np.abs(cage - 1) - 0.035) < 0.012), 700)


def _fill(hu: Volume, where: Mask, value: float) -> None:
    hu[np.broadcast_to(where, hu.shape)] = value


def _draw_vessels(rng: Generator, grid: _Grid, hu: Volume, lungs: Mask) -> None:
    """A tree in each lung from its hilum to points all over it."""
    weight = np.zeros_like(hu)
    spots = np.argwhere(lungs)
    for side in (-1.0, 1.0):
        root = np.array([rng.normal(-5, 3), rng.normal(6, 3), side * 30.0])
        drawn = spots[rng.integers(len(spots), size=2 * _TARGETS)]
        points = np.stack([grid.z.ravel()[drawn[:, 0]], grid.y.ravel()[drawn[:, 1]], grid.x.ravel()[drawn[:, 2]]], 1)
        points = points[points[:, 2] * side > 0] * (1.3, 1.0, 1.0)  # some lead out of the slices shown
        nodes, parents = _tree(root, points + rng.normal(0, 1.0, points.shape))
        for node, radius in enumerate(_radii(parents)):
            if node:
                _capsule(weight, grid, nodes[parents[node]], nodes[node], radius)
    weight *= lungs
    hu += weight * (_VESSEL - hu)


def _tree(root: NDArray[np.float64], points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Nodes ``(n, 3)`` and each one's parent: a point hangs on the node by which its way to the root is short."""
    nodes = np.vstack([root, points[np.argsort(np.linalg.norm(points - root, axis=1))]])
    parents, way = np.zeros(len(nodes), dtype=np.int64), np.zeros(len(nodes))
    for node in range(1, len(nodes)):
        step = np.linalg.norm(nodes[:node] - nodes[node], axis=1)
        parents[node] = np.argmin(step + 0.5 * way[:node])
        way[node] = way[parents[node]] + step[parents[node]]
    return nodes, parents


def _radii(parents: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mm: a branch's cube is the sum of its branches' cubes (Murray, PNAS 12, 1926)."""
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):
        cubes[node] = cubes[node] or _WALL**3
        cubes[parents[node]] += cubes[node]
    radii: NDArray[np.float64] = np.cbrt(cubes)
    return radii


def _capsule(weight: Volume, grid: _Grid, start: NDArray[np.float64], end: NDArray[np.float64], radius: float) -> None:
    """A straight piece of vessel, its edge a pixel soft; the thickness of the slices blurs it along z."""
    pixel = float(grid.x[0, 0, 1] - grid.x[0, 0, 0])
    thick = float(grid.z[1, 0, 0] - grid.z[0, 0, 0]) / 4 if len(grid.z) > 1 else 0.0
    reach = radius + pixel + thick
    axes = [grid.z.ravel(), grid.y.ravel(), grid.x.ravel()]
    low, high = np.minimum(start, end) - reach, np.maximum(start, end) + reach
    box = tuple(slice(*np.searchsorted(a, (lo, hi))) for a, lo, hi in zip(axes, low, high, strict=True))
    z, y, x = grid.z[box[0]] - start[0], grid.y[:, box[1]] - start[1], grid.x[:, :, box[2]] - start[2]
    way = end - start
    along = np.clip((z * way[0] + y * way[1] + x * way[2]) / max(float(way @ way), 1e-6), 0, 1)
    depth = np.maximum(np.abs(z - along * way[0]) - thick, 0)
    distance = np.sqrt(depth**2 + (y - along * way[1]) ** 2 + (x - along * way[2]) ** 2)
    new = np.clip((radius - distance) / pixel + 0.5, 0, 1) * min(1.0, 2 * radius / pixel)
    np.maximum(weight[box], new, out=weight[box])


def _draw_nodule(
    rng: Generator, size: Size, hu: Volume, lungs: Mask, nodules: Nodules
) -> tuple[NDArray[np.float64], float, Mask]:
    """A ball wholly in the lung, its middle neither in the first nor in the last slice.

    Raises:
        ValueError: the lungs have no room for it.
    """
    diameter, density = rng.uniform(*nodules.diameter), rng.uniform(*nodules.hu)
    inner = np.stack([distance_transform_edt(plane) * size.spacing > diameter / 2 + 3 for plane in lungs])
    if size.slices > 2:
        inner[[0, -1]] = False
    places = np.argwhere(inner)
    if not len(places):
        raise ValueError(f"a nodule of {diameter:.0f} mm doesn't fit into these lungs; draw smaller ones")
    middle = rng.choice(places)
    z, y, x = (np.arange(length) - at for length, at in zip(hu.shape, middle, strict=True))
    height = z * size.increment
    across = np.hypot(y[:, None] * size.spacing, x * size.spacing)
    weight = np.clip((diameter / 2 - np.hypot(height[:, None, None], across)) / size.spacing + 0.5, 0, 1)
    hu += weight * (density - hu)
    return 2 * np.sqrt(np.maximum((diameter / 2) ** 2 - height**2, 0)), diameter, weight >= 0.5
