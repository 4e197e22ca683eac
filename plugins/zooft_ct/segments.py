"""DICOM segmentations: read onto a series' slices by where their frames lie, and written about one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import geometry, grid, nifti, privacy
from zooft_ct.header import SliceHeader
from zooft_ct.sr import headers_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom import Dataset

CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"})
"""SOP classes of segmentations: Segmentation and Label Map Segmentation."""
EXTRA = "pip install 'zooft[ct-sr]' (where zooft-runtime is installed: 'zooft-runtime[ct-sr]')"
_SAME_DIRECTION = 1e-3
_SAME_SPACING = 1e-3
_SCHEME = "99ZOOFT"
_PURPOSE = "RESEARCH USE ONLY - unverified"


def require() -> None:
    """Whether the library is there.

    Raises:
        ConfigError: it isn't, with the extra that brings it.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise zooft.ConfigError(f"DICOM segmentations need highdicom: {EXTRA}")


def about_series(path: Path) -> tuple[str, ...]:
    """SeriesInstanceUIDs that a segmentation refers to; none where it can't be read."""
    from pydicom import dcmread

    try:
        with privacy.quiet_pydicom():
            dataset = dcmread(path, stop_before_pixels=True)
            return tuple(str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence", ()))
    except Exception:  # whatever the parser stumbles over; reading it as a mask says why
        return ()


@dataclass(slots=True)
class Drawn:
    """Segments on a series' slices.

    Attributes:
        values: ``(slices, rows, columns)`` uint16 as the reader turns slices: number of a segment in `names`, 0 for
            none.
        names: of segments, the first is number 1.
    """

    values: NDArray[np.uint16]
    names: list[str] = field(default_factory=list)

    def number(self, name: str) -> int:
        """Of a segment, a new one where there is none of this name."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name) + 1


def read(paths: Sequence[Path], slices: Sequence[SliceHeader]) -> Drawn:
    """The segments of one or several files about one series; segments of one name are one.

    Raises:
        DataError: a file can't be read or isn't of whole voxels, its frames lie elsewhere or have another size, or
            segments overlap.
        ConfigError: the library is missing.
    """
    import numpy as np

    require()
    drawn = Drawn(np.zeros(grid.shape(slices), np.uint16))
    for path in paths:
        try:
            with privacy.quiet_pydicom():
                _draw(path, slices, drawn)
        except zooft.DataError:
            raise
        except MemoryError:
            raise zooft.DataError("too large for this machine's memory") from None
        except Exception as error:  # highdicom's and pydicom's own, whose texts repeat what stands in the headers
            raise zooft.DataError(f"not readable as a DICOM segmentation ({type(error).__name__})") from None
    return drawn


def _draw(path: Path, slices: Sequence[SliceHeader], drawn: Drawn) -> None:
    import highdicom
    import numpy as np

    seg = highdicom.seg.segread(path)
    kind = seg.SegmentationType
    if kind not in ("BINARY", "LABELMAP"):
        raise zooft.DataError(f"its segments are {kind}; convert it to BINARY or LABELMAP, of whole voxels")
    first, frames = slices[0], int(seg.NumberOfFrames)
    if (seg.Rows, seg.Columns) != (first.rows, first.columns):
        raise zooft.DataError(
            f"its frames have {seg.Rows} x {seg.Columns} pixels, the series {first.rows} x {first.columns}"
        )
    if frames * first.rows * first.columns > nifti.MOST_VOXELS:
        raise zooft.DataError(f"its {frames:,} frames are more than a segmentation of CT has")
    names = {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.SegmentSequence}
    pixels = np.asarray(seg.pixel_array).reshape(frames, first.rows, first.columns)
    rows, columns = geometry.flips(first.orientation)
    for plane, number, at in zip(pixels, _segments(seg, kind), _places(seg, slices), strict=True):
        turned = plane[:: -1 if rows else 1, :: -1 if columns else 1]
        for value in [number] if number else [int(each) for each in np.unique(turned) if each]:
            if value not in names:
                raise zooft.DataError(f"a frame is of segment {value}, which it doesn't describe")
            mask = turned == (1 if number else value)
            if mask.any():
                _lay(mask, drawn, at, names[value])


def _lay(mask: NDArray[np.bool_], drawn: Drawn, at: int, name: str) -> None:
    number = drawn.number(name)
    there = drawn.values[at]
    others = there[mask]
    taken = others[(others != 0) & (others != number)]
    if len(taken):
        other = drawn.names[int(taken[0]) - 1]
        raise zooft.DataError(
            f"the segments {other!r} and {name!r} overlap, first in {zooft.pluralize(len(taken), 'voxel')}"
            f" of slice {at + 1}; a voxel has "
            "one class here, so leave one of them, or learn each by a model of its own"
        )
    there[mask] = number


def _segments(seg: Dataset, kind: str) -> Iterator[int]:
    """Number of each frame's segment; 0 where the pixels hold it."""
    for item in seg.PerFrameFunctionalGroupsSequence:
        which = None if kind == "LABELMAP" else _macro(seg, item, "SegmentIdentificationSequence")
        yield 0 if which is None else int(which.ReferencedSegmentNumber)


def _places(seg: Dataset, slices: Sequence[SliceHeader]) -> Iterator[int]:
    """Which slice each frame lies on.

    Raises:
        DataError: on none, or turned, or with other pixels.
    """
    import numpy as np

    first = slices[0]
    if first.orientation is None or first.spacing is None or any(one.position is None for one in slices):
        raise zooft.DataError("the series' files don't tell where its slices lie")
    positions = np.array([one.position for one in slices], np.float64)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        turned = np.array(_macro(seg, frame, "PlaneOrientationSequence").ImageOrientationPatient, np.float64)
        if np.abs(turned - np.array(first.orientation)).max() > _SAME_DIRECTION:
            raise zooft.DataError("its frames are turned against the series' slices (ImageOrientationPatient)")
        spacing = np.array(_macro(seg, frame, "PixelMeasuresSequence").PixelSpacing, np.float64)
        if np.abs(spacing / np.array(first.spacing) - 1).max() > _SAME_SPACING:
            sizes = " x ".join(f"{each:.4g}" for each in spacing), " x ".join(f"{each:.4g}" for each in first.spacing)
            raise zooft.DataError(f"its pixels are {sizes[0]} mm, the series' {sizes[1]} mm")
        place = np.array(_macro(seg, frame, "PlanePositionSequence").ImagePositionPatient, np.float64)
        away = np.linalg.norm(positions - place, axis=1)
        nearest = int(away.argmin())
        if away[nearest] > grid.SAME * min(first.spacing):
            raise zooft.DataError(f"a frame lies {away[nearest]:.3g} mm from the nearest slice of the series")
        yield nearest


def _macro(seg: Dataset, frame: Dataset, sequence: str) -> Any:
    for groups in (frame, seg.SharedFunctionalGroupsSequence[0]):
        if groups.get(sequence):
            return groups[sequence].value[0]
    raise zooft.DataError(f"it lacks {sequence}, which says where its frames belong")


def write(
    path: Path, labels: NDArray[np.uint8], slices: Sequence[SliceHeader], names: Mapping[int, str], about: str
) -> None:
    """A segmentation of a series, BINARY, marked for research and unverified; it names the patient, as the images do.

    Args:
        path: of the new file.
        labels: ``(slices, rows, columns)``, slices turned as the reader turns them; 0 for nothing.
        slices: of the series, each once.
        names: of the other numbers, from 1 without a gap.
        about: what has made it, such as a backbone.

    Raises:
        DataError: highdicom can't make it of these files.
    """
    partial = path.with_suffix(".partial")
    try:
        with privacy.quiet_pydicom():
            _make_dataset(labels, slices, names, about).save_as(partial, enforce_file_format=True)
        partial.replace(path)
    except zooft.DataError:
        raise
    except OSError as error:
        raise zooft.DataError(f"files can't be read or written ({error.strerror})") from None
    except Exception as error:  # highdicom's and pydicom's own, whose texts repeat what stands in the headers
        raise zooft.DataError(f"highdicom can't make a segmentation of its files ({type(error).__name__})") from None
    finally:
        partial.unlink(missing_ok=True)


def _whole(source: Dataset) -> Dataset:
    """With its class and name, which some anonymisers leave in the file's meta information alone."""
    from pydicom.uid import CTImageStorage

    about = source.file_meta
    if not source.get("SOPClassUID"):
        source.SOPClassUID = about.get("MediaStorageSOPClassUID") or CTImageStorage
    if not source.get("SOPInstanceUID"):
        source.SOPInstanceUID = about.get("MediaStorageSOPInstanceUID", "")
    return source


def _make_dataset(
    labels: NDArray[np.uint8], slices: Sequence[SliceHeader], names: Mapping[int, str], about: str
) -> Dataset:
    import highdicom
    import numpy as np
    from highdicom.uid import UID
    from pydicom.sr.codedict import codes

    rows, columns = geometry.flips(slices[0].orientation)
    stored = labels[:, :: -1 if rows else 1, :: -1 if columns else 1]
    sources = [_whole(source) for source in headers_of(dict.fromkeys(one.path for one in slices))]
    if len(sources) != len(slices):  # one file of frames: all of them, in its own order
        frames = {one.frame: number for number, one in enumerate(slices)}
        if len(sources) > 1 or sorted(frames) != list(range(int(sources[0].NumberOfFrames))):
            raise zooft.DataError("its slices are some of the frames of a file; highdicom takes all, or one a file")
        stored = stored[[frames[number] for number in range(len(slices))]]
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="zooft", version=zooft.__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:64],
            segmented_property_category=codes.SCT.SpatialAndRelationalConcept,
            segmented_property_type=highdicom.sr.CodedConcept(f"ZOOFTS{number}", _SCHEME, name[:64]),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in names.items()
    ]
    made: Dataset = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.ascontiguousarray(stored),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=UID(),
        series_number=9001,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="zooft",
        manufacturer_model_name=about[:64],
        software_versions=f"zooft {zooft.__version__}",
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description=_PURPOSE,
        series_description=_PURPOSE,
    )
    return made
