"""NIfTI volumes as the CT reader wants them: checked from the header, turned as DICOM slices lie, in HU.

The header is checked before any data is read, and never more is decompressed than it declares.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import zooft
from zooft_ct import units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AIR, HIGHEST = -1024, 3071
"""HU are clipped to the range of 12 bits, as in DICOM."""
MOST_VOXELS = 2**30
"""2 GiB as int16."""
MOST_LABEL = 2**16 - 1
"""The largest value of a label volume."""
_WHOLE_TO = 1e-3
_HEADER_BYTES = {348: 352, 540: 544}
_MOST_HEADER = 2**20
_TRAILING = 16
"""Bytes behind the data that may be padding; more are voxels that the header has lost."""
_LONG = (
    "holds more data than its header declares: one of these is wrong, and the volume would be sheared or a part of it "
    "lost"
)
_DEFLATE_LIMIT = 1032
"""Deflate can't pack tighter (zlib's technical details)."""
_CHUNK = 2**22
_LOOKED_AT = 2**16
"""Bytes of a file from its beginning in which extensions are read."""
_OTHER_UNITS = (1, 3)
"""Codes of xyzt_units: metre, micrometre."""
_SAME_FORMS = 0.5
"""Of a voxel."""
_SHEAR = 1e-2
_SMALLEST, _LARGEST = 1e-3, 1e3
"""Of a voxel, mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NiftiVolume:
    """One volume, everything that the header holds, nothing decoded.

    Attributes:
        path: of the file.
        shape: slices from feet to head, rows from anterior to posterior, columns from the patient's right to left.
        spacing: mm between rows, between columns.
        increment: mm between slices.
        obliquity: degrees by which the volume's axes lean from the patient's.
        stored: shape as in the file, first axis fastest.
        flips: nibabel's orientation transform ``(3, 2)`` from the file's axes to left, posterior, superior.
        affine: ``(4, 4)`` from the file's voxels to mm (right, anterior, superior).
        dtype: numpy's name, with byte order.
        offset: bytes before the data.
        slope: to HU.
        intercept: to HU.
        compressed: by its content, whatever its name is: one slice then costs as much as all.
        notes: what the user should know; they name nobody.
    """

    path: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float]
    increment: float
    obliquity: float
    stored: tuple[int, int, int]
    flips: tuple[tuple[int, int], ...]
    affine: tuple[tuple[float, ...], ...]
    dtype: str
    offset: int
    slope: float
    intercept: float
    compressed: bool
    notes: tuple[str, ...] = ()


def is_nifti(path: Path) -> bool:
    """Whether its name is that of a compressed file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def open_volume(path: Path) -> NiftiVolume:
    """The volume of a ``.nii`` or ``.nii.gz`` file, from its header alone.

    Raises:
        DataError: not a usable CT volume; the message is the reason, and names nothing from the file.
    """
    compressed, header, behind = read_header(path)
    stored = _shape(header)
    dtype = _dtype(header)
    slope, intercept = _scale(header)
    affine = _affine(header)
    voxels = stored[0] * stored[1] * stored[2] * dtype.itemsize
    offset, notes = _offset(header, behind, None if compressed else path.stat().st_size - voxels)
    _refuse_other_size(path, offset + voxels, compressed=compressed)
    return _orient(
        path,
        affine,
        stored,
        dtype=dtype.str,
        offset=offset,
        slope=slope,
        intercept=intercept,
        compressed=compressed,
        notes=(*_about_name(path, compressed=compressed), *notes, *_about_forms(header, stored)),
    )


def hu(volume: NiftiVolume, index: int, *, nan_to_air: bool = False) -> NDArray[np.int16]:
    """One slice ``(H, W)``, int16 HU; of a compressed file, all is decompressed for it.

    Raises:
        DataError: the data is torn, or has values that aren't numbers.
    """
    if volume.compressed:
        one: NDArray[np.int16] = whole(volume, nan_to_air=nan_to_air)[index]
        return one
    values = _turn(volume, _map(volume))[index]
    _refuse_odd(_odd(values), nan_to_air=nan_to_air)
    return _to_hu(values, volume)


def whole(volume: NiftiVolume, *, nan_to_air: bool = False) -> NDArray[np.int16]:
    """All slices ``(Z, H, W)``, int16 HU, clipped to [-1024, 3071].

    Raises:
        DataError: the data is torn, has values that aren't numbers, or isn't in HU.
    """
    import numpy as np

    values = np.empty(volume.stored[0] * volume.stored[1] * volume.stored[2], dtype=np.int16)
    done = odd = 0
    hidden: units.Beyond | None = None
    for chunk in _chunks(volume):
        values[done : done + len(chunk)] = _to_hu(chunk, volume)
        done += len(chunk)
        odd += _odd(chunk)
        seen = units.beyond(chunk, volume.slope, volume.intercept)
        hidden = seen if hidden is None else hidden + seen
    _refuse_odd(odd, nan_to_air=nan_to_air)
    if hidden is not None:
        _refuse_other_units(values, hidden)
    return _turn(volume, values.reshape(volume.stored, order="F"))


def numbers(volume: NiftiVolume) -> NDArray[np.int32]:
    """All values of a label volume ``(i, j, k)`` int32, as they lie in the file.

    Raises:
        DataError: the data is torn, or values aren't whole numbers from 0 to 65535.
    """
    import numpy as np

    values = np.empty(volume.stored[0] * volume.stored[1] * volume.stored[2], dtype=np.int32)
    done = 0
    for chunk in _chunks(volume):
        scaled = chunk.astype(np.float64) * volume.slope + volume.intercept
        whole_numbers = np.rint(scaled)
        if not (np.abs(scaled - whole_numbers) < _WHOLE_TO).all() or scaled.min() < 0 or scaled.max() > MOST_LABEL:
            raise zooft.DataError(f"its values aren't whole numbers from 0 to {MOST_LABEL}, so it is no label volume")
        values[done : done + len(chunk)] = whole_numbers
        done += len(chunk)
    return values.reshape(volume.stored, order="F")


def stored_order(volume: NiftiVolume, turned: NDArray[Any]) -> NDArray[Any]:
    """Slices, rows, columns as the reader gives them, back in the file's ``(i, j, k)``; a view."""
    import nibabel
    import numpy as np

    orientations: Any = nibabel.orientations
    back = np.empty((3, 2), dtype=int)
    for axis, (target, sign) in enumerate(volume.flips):
        back[target] = axis, sign
    stored: NDArray[Any] = orientations.apply_orientation(turned.transpose(), back)
    return stored


def turned_affine(volume: NiftiVolume) -> NDArray[np.float64]:
    """``(4, 4)`` from column, row and slice as the reader gives them to mm (right, anterior, superior)."""
    import nibabel
    import numpy as np

    orientations: Any = nibabel.orientations
    found: NDArray[np.float64] = np.array(volume.affine) @ orientations.inv_ornt_aff(
        np.array(volume.flips), volume.stored
    )
    return found


def read_header(path: Path) -> tuple[bool, Any, bytes]:
    """Whether the file is compressed, the header, and what follows it, as far as extensions are read.

    nibabel's own loader would follow its extensions, of any declared length.
    """
    import nibabel
    from nibabel.wrapstruct import WrapStructError

    errors = (nibabel.spatialimages.HeaderDataError, WrapStructError)
    try:
        if not path.is_file():
            raise zooft.DataError("not a regular file")
        compressed = _is_gzip(path)
        with _stream(path, compressed=compressed) as stream:
            start = stream.read(max(_HEADER_BYTES.values()))
            if start[348:349].strip(b"\0") or start[540:541].strip(b"\0"):
                with contextlib.suppress(EOFError, OSError, zlib.error):  # torn data are reported when they are read
                    start += stream.read(_LOOKED_AT)
        sizes = {int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")} & set(_HEADER_BYTES)
        if not sizes:
            raise zooft.DataError("named as NIfTI, and isn't")
        size = sizes.pop()
        kind: Any = nibabel.Nifti1Header if size == 348 else nibabel.Nifti2Header
        header = kind(start[:size], check=False)  # its checks would log what they find, and fix it in silence
    except (OSError, EOFError, zlib.error, *errors) as error:
        raise zooft.DataError(f"its NIfTI header can't be read ({type(error).__name__})") from None
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise zooft.DataError("an Analyze or two-file NIfTI image; save it as one .nii or .nii.gz file")
    if int(header["bitpix"]) not in (0, 8 * _dtype(header).itemsize):
        raise zooft.DataError(
            "its header gives one size of its values in datatype and another one in bitpix; save it again"
        )
    if int(header["xyzt_units"]) % 8 in _OTHER_UNITS:
        raise zooft.DataError("its header gives sizes in metres or micrometres; convert it to mm")
    return compressed, header, start[size:]


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _stream(path: Path, *, compressed: bool) -> Any:
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _about_name(path: Path, *, compressed: bool) -> list[str]:
    if compressed == path.name.lower().endswith(".gz"):
        return []
    return [f"by its name it is{' not' if compressed else ''} compressed, and it is{'' if compressed else ' not'}"]


def _offset(header: Any, behind: bytes, room: int | None) -> tuple[int, list[str]]:
    """Where the data begin, behind the header and its extensions, and notes.

    Args:
        header: nibabel's.
        behind: bytes that follow it: four for whether there are extensions, then these.
        room: what the file holds besides the data, bytes; None where that isn't known.
    """
    size = int(header["sizeof_hdr"])
    least, given = _HEADER_BYTES.get(size, size + 4), float(header["vox_offset"])
    end = size + _extend(behind, "big" if header.endianness == ">" else "little")
    if given == 0 and end == least and room in (None, least):
        return least, [f"its header puts the data at byte 0, where the header stands; they are taken from byte {least}"]
    if not max(least, end) <= given <= _MOST_HEADER or not given.is_integer():
        raise zooft.DataError(
            f"its header puts the data {given:g} bytes into the file, and header and extensions end at {end}; save it "
            "again"
        )
    return int(given), []


def _extend(behind: bytes, order: Literal["big", "little"]) -> int:
    """Bytes from the header's end to that of its last extension (NIfTI-1, "extender"); as far as they are read."""
    at = 4
    if not behind[:1].strip(b"\0"):
        return at
    while (length := int.from_bytes(behind[at : at + 4], order)) and length % 16 == 0 and at + 8 <= len(behind):
        at += length
    return at


def _about_forms(header: Any, stored: tuple[int, int, int]) -> list[str]:
    """Two statements of how a volume lies, where they aren't one."""
    import nibabel
    import numpy as np

    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return []
    try:
        forms = [np.asarray(form, dtype=np.float64) for form in (header.get_sform(), header.get_qform())]
    except Exception:  # quaternions of any values fail in any way, and sform is what counts
        return ["its qform can't be read; its sform gives how it lies"]
    corners = np.array([(*corner, 1) for corner in itertools.product(*((0, n - 1) for n in stored))])
    apart = float(np.sqrt((((forms[0] - forms[1]) @ corners.T)[:3] ** 2).sum(axis=0)).max())
    if not apart > _SAME_FORMS * float(np.abs(forms[0][:3, :3]).max(axis=0).min()):
        return []
    orientations: Any = nibabel.orientations
    turned = len({orientations.aff2axcodes(form) for form in forms}) > 1
    even = ", even about which side is left, in front or above" if turned else ""
    return [f"warning: its sform and its qform disagree by up to {apart:.1f} mm{even}; its sform is followed"]


def _shape(header: Any) -> tuple[int, int, int]:
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise zooft.DataError(
            f"has {len(shape)} dimensions; a CT volume has three (time points are files of their own)"
        )
    if min(shape) < 1 or shape[0] * shape[1] * shape[2] > MOST_VOXELS:
        raise zooft.DataError(f"{' x '.join(map(str, shape))} voxels aren't a CT volume (at most {MOST_VOXELS:,})")
    return shape[0], shape[1], shape[2]


def _dtype(header: Any) -> np.dtype[Any]:
    import nibabel

    try:
        dtype = header.get_data_dtype()
    except (KeyError, nibabel.spatialimages.HeaderDataError):
        raise zooft.DataError("its data type isn't one of NIfTI's") from None
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise zooft.DataError(f"values of type {dtype.name} aren't HU; save it as int16 or float32")
    return dtype  # type: ignore[no-any-return]  # nibabel's headers are untyped


def _scale(header: Any) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or none at all means that values are what they are (NIfTI-1, scl_slope)."""
    import nibabel

    try:
        slope, intercept = header.get_slope_inter()
    except nibabel.spatialimages.HeaderDataError:
        raise zooft.DataError("its scl_slope and scl_inter aren't numbers") from None
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _affine(header: Any) -> NDArray[np.float64]:
    """Voxel indices to mm (right, anterior, superior)."""
    import numpy as np

    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise zooft.DataError(
            "its header doesn't define how the volume lies in the patient (sform_code, qform_code are 0)"
        )
    if abs(float(header["pixdim"][0])) != 1:
        header["pixdim"][0] = 1  # "if it is 0, use 1" (NIfTI-1, qfac)
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:  # quaternions of any values fail in any way
        raise zooft.DataError(f"its orientation can't be read ({type(error).__name__})") from None
    axes = affine[:3, :3]
    sizes = np.abs(axes).max(axis=0)
    if not np.isfinite(affine).all() or not ((sizes > _SMALLEST) & (sizes < _LARGEST)).all():
        raise zooft.DataError("its affine is zero, huge or not finite, so voxels have no size")
    directions = axes / np.sqrt((axes**2).sum(axis=0))
    if np.abs(directions.T @ directions - np.eye(3)).max() > _SHEAR:
        raise zooft.DataError("its affine is sheared (a tilted gantry?); resample it to a right-angled grid")
    return affine


def _refuse_other_size(path: Path, declared: int, *, compressed: bool) -> None:
    size = path.stat().st_size
    holds = size * _DEFLATE_LIMIT if compressed else size
    if holds < declared:
        raise zooft.DataError(f"its header declares {declared:,} bytes, which a file of {size:,} bytes can't hold")
    if not compressed and size > declared + _TRAILING:
        raise zooft.DataError(_LONG)


def _orient(path: Path, affine: NDArray[np.float64], stored: tuple[int, int, int], **layout: Any) -> NiftiVolume:
    import nibabel
    import numpy as np

    orientations: Any = nibabel.orientations
    affines: Any = nibabel.affines
    stands, wanted = orientations.io_orientation(affine), orientations.axcodes2ornt(("L", "P", "S"))
    flips = orientations.ornt_transform(stands, wanted).astype(int)
    sizes = affines.voxel_sizes(affine)
    length, spacing = [0, 0, 0], [0.0, 0.0, 0.0]
    for axis, (target, _) in enumerate(flips):
        length[target], spacing[target] = stored[axis], float(sizes[axis])
    return NiftiVolume(
        path=path,
        shape=(length[2], length[1], length[0]),
        spacing=(spacing[1], spacing[0]),
        increment=spacing[2],
        obliquity=float(np.degrees(affines.obliquity(affine)).max()),
        stored=stored,
        flips=tuple((int(target), int(sign)) for target, sign in flips),
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        **layout,
    )


def _turn(volume: NiftiVolume, stored: NDArray[Any]) -> NDArray[Any]:
    """The file's ``(i, j, k)`` as slices, rows, columns; a view."""
    import nibabel
    import numpy as np

    orientations: Any = nibabel.orientations
    turned: NDArray[Any] = orientations.apply_orientation(stored, np.array(volume.flips)).transpose()
    return turned


def _map(volume: NiftiVolume) -> NDArray[Any]:
    import numpy as np

    try:
        return np.memmap(
            volume.path, dtype=volume.dtype, mode="r", offset=volume.offset, shape=volume.stored, order="F"
        )
    except (OSError, ValueError) as error:
        raise zooft.DataError(f"can't be read ({type(error).__name__})") from None


def _chunks(volume: NiftiVolume) -> Iterator[NDArray[Any]]:
    """The declared voxels in the file's order, no byte more; what may follow them is bounded too."""
    import numpy as np

    dtype = np.dtype(volume.dtype)
    left = volume.stored[0] * volume.stored[1] * volume.stored[2]
    try:
        with _stream(volume.path, compressed=volume.compressed) as stream:
            stream.read(volume.offset)
            while left:
                raw = stream.read(min(left, _CHUNK) * dtype.itemsize)
                if not raw or len(raw) % dtype.itemsize:
                    raise zooft.DataError("its data ends early")
                yield np.frombuffer(raw, dtype=dtype)
                left -= len(raw) // dtype.itemsize
            if len(stream.read(_TRAILING + 1)) > _TRAILING:
                raise zooft.DataError(_LONG)
    except (OSError, EOFError, zlib.error) as error:
        raise zooft.DataError(f"its data is torn ({type(error).__name__})") from None


def _to_hu(values: NDArray[Any], volume: NiftiVolume) -> NDArray[np.int16]:
    """HU in whole numbers; what isn't finite becomes air, and is counted by `_odd`."""
    import numpy as np

    if values.dtype.kind == "i" and volume.slope == 1.0 and volume.intercept == 0.0:
        whole_numbers: NDArray[np.int16] = values.clip(AIR, HIGHEST).astype(np.int16)
        return whole_numbers
    scaled = values.astype(np.float64) * volume.slope + volume.intercept
    scaled[~np.isfinite(scaled)] = AIR
    rounded: NDArray[np.int16] = np.rint(scaled.clip(AIR, HIGHEST)).astype(np.int16)
    return rounded


def _odd(values: NDArray[Any]) -> int:
    import numpy as np

    return int(values.size - np.count_nonzero(np.isfinite(values))) if values.dtype.kind == "f" else 0


def _refuse_odd(count: int, *, nan_to_air: bool) -> None:
    if count and not nan_to_air:
        raise zooft.DataError(f"{count:,} of its values aren't finite numbers; --nan-to-air takes them for air")


def _refuse_other_units(values: NDArray[np.int16], hidden: units.Beyond) -> None:
    """Masks, 8-bit pictures and normalised volumes have no air, no width, or nothing but bone."""
    low, high = int(values.min()), int(values.max())
    if low >= 0:
        raise zooft.DataError(f"not HU? its values go from {low} to {high}, and a CT has air and fat below 0")
    if high < 0 or high - low < 100:
        raise zooft.DataError(f"not HU? its values go from {low} to {high}, most of them not those of tissue or air")
    reason = units.misfit(values, hidden)
    if reason:
        raise zooft.DataError(f"not HU? {reason}; fix its scl_slope and scl_inter, or convert it again")
