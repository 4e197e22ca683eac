"""Label volumes: a NIfTI file or DICOM segmentations that say what each voxel of a series is of.

They are read onto the series' own slices, turned as the reader turns these; small, since planes are compressed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import grid, nifti, segments
from zooft_ct.header import SliceHeader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zooft_ct.stacks import Stack


_LEAST = 3
"""Letters: what is shorter is part of many words."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The values of one slice, compressed.

    Attributes:
        packed: ``(rows, columns)`` uint16 in zlib.
        shape: rows, columns.
    """

    packed: bytes
    shape: tuple[int, int]

    def values(self) -> NDArray[np.uint16]:
        """``(rows, columns)``."""
        import numpy as np

        return np.frombuffer(zlib.decompress(self.packed), np.uint16).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class LabelVolume:
    """What the voxels of one series are of.

    Attributes:
        planes: number of the slice to its values; slices that nothing is known of aren't there.
        counts: voxels of each value.
        names: of values, where the files have names; 0 means nothing.
    """

    planes: Mapping[int, Plane]
    counts: Mapping[int, int]
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What label volumes mean.

    Attributes:
        labels: of the targets.
        targets: of each volume, by number of the slice; or why it can't be used.
        notes: what the user should know.
    """

    labels: tuple[zooft.Label, ...]
    targets: Sequence[Mapping[int, Any] | str]
    notes: tuple[str, ...] = ()


def read(paths: Sequence[Path], stack: Stack) -> LabelVolume:
    """One NIfTI file, or DICOM segmentations, of a series.

    Raises:
        DataError: no such files, or they lie elsewhere than the series; the message is the reason alone, and names
            nobody.
        ConfigError: a missing library.
    """
    import numpy as np

    if any(nifti.is_nifti(path) for path in paths):
        if len(paths) > 1:
            raise zooft.DataError(f"{len(paths)} files of labels, one of them NIfTI; give one NIfTI file")
        volume = nifti.open_volume(paths[0])
        first, turned = grid.fit_labels(
            nifti.numbers(volume), np.array(volume.affine), grid.read_affine(stack.slices), grid.shape(stack.slices)
        )
        return _pack(turned.astype(np.uint16), first, {})
    slices = [one for one in stack.slices if isinstance(one, SliceHeader)]
    if not slices:
        raise zooft.DataError("a DICOM segmentation, and the image is NIfTI; give NIfTI labels")
    drawn = segments.read(paths, slices)
    _refuse_identifiers(drawn.names, stack)
    return _pack(drawn.values, 0, dict(enumerate(drawn.names, start=1)))


def _refuse_identifiers(names: Sequence[str], stack: Stack) -> None:
    """Names of segments become classes, which go into every artefact."""
    known = {stack.patient, stack.series, stack.study} | {person.name for person in stack.persons}
    own = [spelt for name in known if len(spelt := zooft.spelling(name)) >= _LEAST]
    if any(spelt in zooft.spelling(name) for name in names for spelt in own):
        raise zooft.DataError(
            "the name of a segment has in it what names the patient or the images, and names of classes go into every "
            "artefact; rename the segment"
        )


def _pack(values: NDArray[np.uint16], first: int, names: Mapping[int, str]) -> LabelVolume:
    import numpy as np

    found, counts = np.unique(values, return_counts=True)
    planes = {
        first + number: Plane(zlib.compress(plane.tobytes(), 1), plane.shape) for number, plane in enumerate(values)
    }
    return LabelVolume(planes, dict(zip(found.tolist(), counts.tolist(), strict=True)), names)
