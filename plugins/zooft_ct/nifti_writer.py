"""Label volumes written as NIfTI where the images lie: voxel for voxel, with the source's own geometry."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import geometry, grid, nifti
from zooft_ct.header import SliceHeader
from zooft_ct.read import NiftiSlice, SliceRef

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLACE = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x",
    "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip # a table of fields
"""Fields of NIfTI that say where voxels lie; no other field of a source is repeated, since some may name people."""
_SHEAR = 1e-4
_SCANNER = 1
_MM = 2


def write_nifti(path: Path, labels: NDArray[Any], slices: Sequence[SliceRef]) -> None:
    """Labels of a series or volume as ``.nii.gz``, whole or not at all.

    Of a NIfTI source the file has the same axes, affine and codes; of DICOM, columns, rows and slices as they are
    stored, the slices from the lowest to the highest along their normal.

    Args:
        path: of the new file.
        labels: ``(slices, rows, columns)`` of whole numbers, as the reader turns slices.
        slices: all of the series, in their order.

    Raises:
        DataError: the slices don't lie evenly, or the file can't be written.
    """
    first = slices[0]
    if isinstance(first, NiftiSlice):
        image = _like(first.volume, labels)
    else:
        image = _of_dicom([one for one in slices if isinstance(one, SliceHeader)], labels)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
        partial.replace(path)
    except OSError as error:
        raise zooft.DataError(f"files can't be read or written ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)


def _like(volume: nifti.NiftiVolume, labels: NDArray[Any]) -> Any:
    import nibabel
    import numpy as np

    _, source, _ = nifti.read_header(volume.path)
    kind: Any = nibabel.Nifti2Image if int(source["sizeof_hdr"]) == 540 else nibabel.Nifti1Image
    image = kind(np.ascontiguousarray(nifti.stored_order(volume, labels)), np.array(volume.affine))
    for name in _PLACE:
        image.header[name] = source[name]
    image.header["pixdim"][4:] = 1
    return image


def _of_dicom(slices: Sequence[SliceHeader], labels: NDArray[Any]) -> Any:
    import nibabel
    import numpy as np

    affine = grid.stored_affine(slices)
    rows, columns = geometry.flips(slices[0].orientation)
    stored = labels[:, :: -1 if rows else 1, :: -1 if columns else 1].transpose()
    kind: Any = nibabel.Nifti1Image
    image = kind(np.ascontiguousarray(stored), affine)
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    sheared = np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR
    image.header.set_sform(affine, _SCANNER)
    image.header.set_qform(affine, 0 if sheared else _SCANNER)  # a tilted gantry's shear has a place in sform alone
    image.header["xyzt_units"] = _MM
    return image
