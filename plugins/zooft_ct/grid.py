"""Where the voxels of a series lie in the patient, as one affine: what label volumes are compared with and written by.

Axes are those of NIfTI, mm to the patient's right, front and head, and voxels are counted column, row, slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import geometry, nifti
from zooft_ct.header import SliceHeader
from zooft_ct.read import NiftiSlice, SliceRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAME = 0.05
"""Of a voxel: grids whose corners are no farther apart are one."""
_UNEVEN = 0.05
_LPS_TO_RAS = (-1.0, -1.0, 1.0, 1.0)


def shape(slices: Sequence[SliceRef]) -> tuple[int, int, int]:
    """Slices, rows, columns."""
    first = slices[0]
    rows, columns = first.volume.shape[1:] if isinstance(first, NiftiSlice) else (first.rows, first.columns)
    return len(slices), rows, columns


def read_affine(slices: Sequence[SliceRef]) -> NDArray[np.float64]:
    """``(4, 4)`` from column, row and slice as the reader gives them to mm.

    Args:
        slices: all of a series or volume, in their order.

    Raises:
        DataError: the slices don't lie evenly, or files don't state where they lie.
    """
    import numpy as np

    first = slices[0]
    if isinstance(first, NiftiSlice):
        return nifti.turned_affine(first.volume)
    affine = stored_affine([one for one in slices if isinstance(one, SliceHeader)])
    turned = np.eye(4)
    for axis, (flipped, size) in enumerate(
        zip(reversed(geometry.flips(first.orientation)), (first.columns, first.rows), strict=True)
    ):
        if flipped:
            turned[axis, axis], turned[axis, 3] = -1, size - 1
    made: NDArray[np.float64] = affine @ turned
    return made


def stored_affine(slices: Sequence[SliceHeader]) -> NDArray[np.float64]:
    """The same of DICOM slices with rows and columns as they are stored.

    Raises:
        DataError: the slices don't lie evenly, or files don't state where they lie.
    """
    import numpy as np

    first = slices[0]
    if first.orientation is None or first.spacing is None or any(one.position is None for one in slices):
        raise zooft.DataError("files don't tell where its pixels lie (position, orientation, spacing)")
    positions = np.array([one.position for one in slices], np.float64)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
        even = positions[0] + np.arange(len(slices))[:, None] * step
        away = np.linalg.norm(positions - even, axis=1).max()
        if away > _UNEVEN * np.linalg.norm(step):
            raise zooft.DataError(
                f"its slices don't lie evenly (up to {away:.2f} mm beside even places), which one affine can't say; "
                "DICOM SEG can"
            )
    else:
        step = geometry.normal([first.orientation]) * (float(first.facts.get("slice_thickness", 0.0)) or 1.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    made: NDArray[np.float64] = np.diag(_LPS_TO_RAS) @ affine
    return made


def fit_labels(
    labels: NDArray[Any], affine: NDArray[np.float64], onto: NDArray[np.float64], wanted: tuple[int, int, int]
) -> tuple[int, NDArray[Any]]:
    """A label volume turned onto an image's grid: its first slice there, and ``(slices, rows, columns)``.

    It may cover some of the slices only, each wholly.

    Args:
        labels: ``(i, j, k)``.
        affine: of these to mm.
        onto: the image's, from column, row and slice to mm.
        wanted: slices, rows, columns of the image.

    Raises:
        DataError: it has another size, or lies elsewhere; says by how much.
    """
    import nibabel
    import numpy as np

    orientations: Any = nibabel.orientations
    relative = np.linalg.inv(onto) @ affine
    turn = orientations.io_orientation(relative)
    if not np.isfinite(turn).all():
        raise zooft.DataError("its affine has no volume")
    turned = orientations.apply_orientation(labels, turn)
    moved = relative @ orientations.inv_ornt_aff(turn, labels.shape)  # voxels of the turned labels to the image's
    first = round(float(moved[2, 3]))
    size = turned.shape[::-1]
    if size[1:] != wanted[1:]:
        raise zooft.DataError(f"it has {_times(size)} voxels (slices, rows, columns), the image {_times(wanted)}")
    corners = np.array(np.meshgrid(*([0, length - 1] for length in turned.shape), indexing="ij")).reshape(3, -1)
    there = moved[:3, :3] @ corners + moved[:3, 3:]
    away = there - corners - np.array([[0], [0], [first]])
    inside = first >= 0 and first + size[0] <= wanted[0]
    if np.abs(away).max() > SAME or not inside:
        if size[0] == wanted[0]:
            away = there - corners
        raise zooft.DataError(_apart(onto, affine, onto[:3, :3] @ away, inside=inside, size=size, wanted=wanted))
    return first, turned.transpose()


def _apart(
    onto: NDArray[np.float64],
    affine: NDArray[np.float64],
    away: NDArray[np.float64],
    *,
    inside: bool,
    size: tuple[int, ...],
    wanted: tuple[int, int, int],
) -> str:
    import numpy as np

    sizes = [" x ".join(f"{length:.4g}" for length in np.linalg.norm(each[:3, :3], axis=0)) for each in (affine, onto)]
    text = (
        f"its affine isn't the image's: corners lie up to {np.linalg.norm(away, axis=0).max():.3g} mm from the image's "
        f"(voxels of {sizes[0]} mm against {sizes[1]} mm, as stored; origins "
        f"{np.linalg.norm(affine[:3, 3] - onto[:3, 3]):.3g} mm apart)"
    )
    if not inside and size[0] != wanted[0]:
        text += f"; it has {_times(size)} voxels (slices, rows, columns), the image {_times(wanted)}"
    return f"{text}; resample it onto the image"


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
