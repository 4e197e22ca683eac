"""What a DICOM file's header holds of its slices, without decoding anything and without believing it."""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import zooft
from zooft_ct import elements, header_limits, other_formats
from zooft_ct.elements import Elements, Parsed
from zooft_ct.person import Person, person
from zooft_ct.privacy import quiet_pydicom

NATIVE = frozenset({elements.IMPLICIT, elements.EXPLICIT, elements.BIG_ENDIAN})
_CT = "1.2.840.10008.5.1.4.1.1.2"
_MULTIFRAME = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
_NOT_SLICES = frozenset({"LOCALIZER", "SCOUT", "SCREEN SAVE", "SCREEN_SAVE", "DOSE_INFO", "PROJECTION IMAGE"})
_UNITS = frozenset({"HU", "US", ""})
"""US is "unspecified", as ITK and GDCM write with CT in HU; the values themselves are checked in ``pixels``."""
_RECONSTRUCTED = frozenset(
    {"AXIAL", "MPR", "REFORMATTED", "RESAMPLED", "AVERAGE", "MEAN", "MIP", "MINIP", "MAX", "MIN"}
)
"""The mark of a derived secondary image that it was computed from slices: lossy copies are such, too."""
_MODALITIES = frozenset({"CR", "DX", "MG", "MR", "NM", "OT", "PT", "RTDOSE", "RTSTRUCT", "SC", "SEG", "SR", "US", "XA"})
"""Others aren't repeated: in a damaged file anything may stand there."""
_SAID = ("FilterType", "ContrastBolusAgent", "ProtocolName", "SeriesDescription", "ImageComments")
"""Words that may separate volumes; compared in memory, and going nowhere."""
_NO_CONTRAST = frozenset({"", "NONE", "NO", "N", "NO CONTRAST", "WITHOUT"})
_PADDING_BYTES = 2
"""Values have an even length (DICOM PS3.5, 7.1.1): a byte of padding, and one to make it even."""
_MAX_SLOPE, _MAX_INTERCEPT = 100, 2**16
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose a file is, by its own words; "" where it isn't known."""

    patient: str = ""
    study: str = ""
    study_date: str = ""
    series: str = ""
    person: Person = field(default_factory=Person)


class UnusableError(zooft.DataError):
    """A file that isn't used; carries whose it is, its class, and how many slices of CT are lost with it."""

    def __init__(self, reason: str, *, owner: Owner, slices: int, sop_class: str = "") -> None:
        super().__init__(reason)
        self.owner, self.slices, self.sop_class = owner, slices, sop_class


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a slice's pixels lie and how its stored numbers become HU.

    Attributes:
        offset: where the file's pixel data begin, bytes.
        frames: in the file.
        compressed: whether they have to be decoded.
        big_endian: how native numbers stand.
        signed: whether they are.
        bits: that count, from the lowest; 16 are stored.
        slope: HU for each step of the stored number.
        intercept: HU of the stored number 0.
        padding: the lowest and the highest stored number that stand for no tissue.
    """

    offset: int
    frames: int
    compressed: bool
    big_endian: bool
    signed: bool
    bits: int
    slope: float
    intercept: float
    padding: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """One slice (one frame): everything that its header holds, nothing decoded.

    Attributes:
        path: of the file.
        frame: counted from 0; 0 in files of one frame.
        sop_uid: "" where missing, as the other identifiers.
        series_uid: of the series.
        study_uid: of the study.
        study_date: as it stands in the file; in memory only, not in artefacts.
        patient_id: as it stands in the file.
        person: whom else the file names.
        rows: of the matrix.
        columns: of the matrix.
        position: of the first pixel's centre, mm, in the patient's axes (left, posterior, head).
        orientation: the directions of a row and of a column in these axes.
        spacing: between rows, between columns, mm.
        acquisition: its number.
        transfer_syntax: its UID.
        marks: what may separate it from slices of another volume in its series: tag to text, of those that are there.
        facts: manufacturer, model, kernel, slice_thickness (mm), kvp, sex, age (years), contrast, body_part,
            transfer_syntax, matrix, bits; what the file doesn't state is absent. Nothing that names a person.
        layout: what it takes to read the pixels.
    """

    path: Path
    frame: int
    sop_uid: str
    series_uid: str
    study_uid: str
    study_date: str
    patient_id: str
    person: Person
    rows: int
    columns: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    acquisition: str
    transfer_syntax: str
    marks: Mapping[str, str]
    facts: Mapping[str, str | float]
    layout: Layout


def read_headers(path: Path, *, force: bool = False) -> list[SliceHeader]:
    """The slices of one file. Not for several threads at once: ``series.scan`` is.

    Args:
        path: of the file; nothing else is opened.
        force: read files without a DICOM preamble, too.

    Raises:
        DataError: no usable CT; the reason holds no value that could name a person.
    """
    with quiet_pydicom():
        return headers(path, force=force)


def headers(path: Path, *, force: bool) -> list[SliceHeader]:
    """As `read_headers`, for callers that silence pydicom themselves."""
    try:
        return _headers(path, force=force)
    except zooft.DataError:
        raise
    except OSError as error:
        raise zooft.DataError(f"the file can't be read: {error.strerror}") from None
    except Exception as error:  # pydicom raises whatever its parser stumbles over, with values in the text
        reason = "its sequences are nested too deep" if isinstance(error, RecursionError) else type(error).__name__
        raise zooft.DataError(f"not readable as DICOM ({reason})") from None


def _headers(path: Path, *, force: bool) -> list[SliceHeader]:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise zooft.DataError("not a regular file")
    with path.open("rb") as file:
        other = other_formats.reason(file.read(other_formats.HEAD))
        if other:
            raise zooft.DataError(other)
        file.seek(0)
        parsed = elements.parse(file, force=force)
    ct, slices = parsed.elements, 0
    try:
        _refuse_other_images(ct, ct.text("SOPClassUID") or parsed.media_class)
        slices = min(max(_frames(ct), 1), header_limits.MAX_FRAMES)
        _refuse_burned_in_text(ct)
        return _slices(path, parsed, status.st_size)
    except zooft.DataError as error:
        owner = Owner(
            patient=ct.identifier("PatientID"),
            study=ct.text("StudyInstanceUID"),
            series=ct.text("SeriesInstanceUID"),
            person=_person(ct),
            study_date=ct.text("StudyDate"),
        )
        sop_class = ct.text("SOPClassUID") or parsed.media_class
        raise UnusableError(str(error), owner=owner, slices=slices, sop_class=sop_class) from None


def _slices(path: Path, parsed: Parsed, file_size: int) -> list[SliceHeader]:
    ct = parsed.elements
    sop_class = ct.text("SOPClassUID") or parsed.media_class
    if not parsed.offset:
        raise zooft.DataError("no pixels in the file, or it ends before them")
    rows, columns, frames = ct.unsigned_number("Rows") or 0, ct.unsigned_number("Columns") or 0, _frames(ct)
    header_limits.check_dimensions(rows, columns, frames)
    _refuse_other_pixels(ct)
    _refuse_unreadable_pixels(parsed, file_size, 2 * rows * columns * frames)
    per_frame = ct.items("PerFrameFunctionalGroupsSequence")
    shared = ct.items("SharedFunctionalGroupsSequence")
    if sop_class in _MULTIFRAME or per_frame:
        if len(per_frame) != frames:
            raise zooft.DataError(
                f"{zooft.pluralize(frames, 'frame')}"
                f" and {zooft.pluralize(len(per_frame), 'description')} of frames; the file is damaged"
            )
        return [_slice(path, parsed, frames, index, (item, *shared[:1])) for index, item in enumerate(per_frame)]
    if frames != 1:
        raise zooft.DataError(f"{frames} frames of one position, in an image type that holds one")
    return [_slice(path, parsed, 1, 0, ())]


def _refuse_other_images(ct: Elements, sop_class: str) -> None:
    modality = ct.text("Modality").upper()
    if sop_class and sop_class != _CT and sop_class not in _MULTIFRAME:
        raise zooft.DataError(f"not a CT image but {_kind(sop_class)}")
    if modality not in {"CT", ""} or not (modality or sop_class):
        raise zooft.DataError(f"not a CT image (modality {modality if modality in _MODALITIES else 'unknown'})")
    kinds = [part.upper() for part in ct.texts("ImageType")]
    if _NOT_SLICES & set(kinds):
        raise zooft.DataError("a localizer or a screenshot, not a slice")
    if ct.text("ConversionType") or (kinds[:2] == ["DERIVED", "SECONDARY"] and not _RECONSTRUCTED & _words(kinds[2:])):
        raise zooft.DataError("a secondary picture, such as a screenshot or a scan of a film, not a slice")


def _refuse_burned_in_text(ct: Elements) -> None:
    """Of what are slices otherwise: an answer lacks them."""
    if ct.text("BurnedInAnnotation").upper() == "YES":
        raise zooft.DataError("a picture with text burned in (BurnedInAnnotation YES): names may stand in it")


def _words(kinds: Sequence[str]) -> set[str]:
    return {word for kind in kinds for word in re.split(r"[^A-Z0-9]+", kind)}


def _kind(uid: str) -> str:
    """The registered name of a class or a transfer syntax; others are the file's own words."""
    from pydicom.uid import UID

    name = UID(uid, validation_mode=0).name
    return name if name != uid else "of an unknown kind"


def _refuse_other_pixels(ct: Elements) -> None:
    photometric = ct.text("PhotometricInterpretation").upper()
    if ct.unsigned_number("SamplesPerPixel") not in {1, None} or photometric not in {"MONOCHROME1", "MONOCHROME2", ""}:
        raise zooft.DataError("a colour image, not HU")
    allocated, stored = ct.unsigned_number("BitsAllocated"), ct.unsigned_number("BitsStored")
    if allocated != 16 or not stored or stored > allocated or ct.unsigned_number("HighBit") not in {stored - 1, None}:
        raise zooft.DataError(f"pixels of {stored} bits in {allocated}; CT has up to 16 in 16, from the lowest")


def _refuse_unreadable_pixels(parsed: Parsed, file_size: int, needed: int) -> None:
    """Too few, or in a coding that isn't read; sizes in bytes, `needed` of native pixels."""
    if parsed.transfer_syntax in NATIVE:
        if parsed.length is None or min(parsed.length, file_size - parsed.offset) < needed:
            raise zooft.DataError("the pixels are truncated: the file ends before them, or the header is wrong")
        if parsed.length > needed + _PADDING_BYTES:
            raise zooft.DataError(
                f"the pixels are {parsed.length:,} bytes, and the header's rows, columns and frames make {needed:,}: "
                "one of these is wrong, and the picture would be sheared or a part of it lost"
            )
    elif parsed.transfer_syntax not in header_limits.READERS:
        raise zooft.DataError(f"no decoder for the transfer syntax {_kind(parsed.transfer_syntax)}")
    elif parsed.length is not None:
        raise zooft.DataError("a compressed transfer syntax, and pixels that aren't; the file is damaged")


def _frames(ct: Elements) -> int:
    text = ct.text("NumberOfFrames") or "1"
    return int(text) if re.fullmatch(r"\d{1,9}", text) else 0


def _slice(path: Path, parsed: Parsed, frames: int, index: int, groups: Sequence[Elements]) -> SliceHeader:
    ct = parsed.elements
    rows, columns = ct.unsigned_number("Rows") or 0, ct.unsigned_number("Columns") or 0
    plane = _macro(ct, groups, "PlanePositionSequence")
    position = plane.numbers("ImagePositionPatient", 3)
    spacing = _macro(ct, groups, "PixelMeasuresSequence").numbers("PixelSpacing", 2)
    marks = _marks(ct, groups)
    return SliceHeader(
        path=path,
        frame=index,
        sop_uid=ct.text("SOPInstanceUID") or parsed.media_uid,
        series_uid=ct.text("SeriesInstanceUID"),
        study_uid=ct.text("StudyInstanceUID"),
        study_date=ct.text("StudyDate"),
        patient_id=ct.identifier("PatientID"),
        person=_person(ct),
        rows=rows,
        columns=columns,
        position=(position[0], position[1], position[2]) if position else None,
        orientation=_macro(ct, groups, "PlaneOrientationSequence").numbers("ImageOrientationPatient", 6),
        spacing=(spacing[0], spacing[1]) if spacing and min(spacing) > 0 else None,
        acquisition=marks.get("AcquisitionNumber", ""),
        transfer_syntax=parsed.transfer_syntax,
        marks=marks,
        facts=_facts(parsed, groups, f"{rows}x{columns}"),
        layout=_layout(parsed, frames, groups),
    )


def _person(ct: Elements) -> Person:
    return person(
        issuer=ct.identifier("IssuerOfPatientID"),
        name=ct.identifier("PatientName"),
        birth_date=ct.text("PatientBirthDate"),
        sex=ct.text("PatientSex"),
    )


def _macro(ct: Elements, groups: Sequence[Elements], sequence: str) -> Elements:
    """Where such values stand: the frame's own group, the one that frames share, or else the data set."""
    for group in groups:
        for item in group.items(sequence):
            return item
    return ct


def _marks(ct: Elements, groups: Sequence[Elements]) -> dict[str, str]:
    """By the names in `phases`; multi-frame images have some under other names."""
    frame = _macro(ct, groups, "FrameContentSequence")
    own = frame if groups else ct
    cardiac = _macro(ct, groups, "CardiacSynchronizationSequence")
    kind = _macro(ct, groups, "CTImageFrameTypeSequence").texts("FrameType") or ct.texts("ImageType")
    marks = {
        "AcquisitionNumber": own.any_number("FrameAcquisitionNumber") or ct.text("AcquisitionNumber"),
        "TemporalPositionIdentifier": own.any_number("TemporalPositionIndex") or ct.text("TemporalPositionIdentifier"),
        "TriggerTime": ct.text("TriggerTime"),
        "NominalPercentageOfCardiacPhase": cardiac.any_number("NominalPercentageOfCardiacPhase"),
        "EchoNumbers": ct.text("EchoNumbers"),
        "ImageType": "\\".join(kind).upper(),
        "ConvolutionKernel": "\\".join(_macro(ct, groups, "CTReconstructionSequence").texts("ConvolutionKernel")),
        "KVP": _macro(ct, groups, "CTXRayDetailsSequence").any_number("KVP"),
        **{tag: "" if groups else ct.text(tag) for tag in _SAID},
        "AcquisitionTime": own.text("FrameAcquisitionDateTime")
        or ct.text("AcquisitionDateTime")
        or ct.text("AcquisitionTime"),
        "ContentTime": "" if groups else ct.text("ContentTime"),
        "InstanceNumber": "" if groups else ct.text("InstanceNumber"),
    }
    return {tag: text for tag, text in marks.items() if text}


def _layout(parsed: Parsed, frames: int, groups: Sequence[Elements]) -> Layout:
    ct = parsed.elements
    scale = _macro(ct, groups, "PixelValueTransformationSequence")
    slope, intercept = scale.number("RescaleSlope"), scale.number("RescaleIntercept")
    if slope is None or not 0 < slope <= _MAX_SLOPE or intercept is None or abs(intercept) > _MAX_INTERCEPT:
        raise zooft.DataError("no usable rescale slope and intercept: the values can't be made HU")
    if scale.text("RescaleType").upper() not in _UNITS or "ModalityLUTSequence" in ct:
        raise zooft.DataError("the header states that its values aren't rescaled to HU")
    signed = ct.unsigned_number("PixelRepresentation") == 1
    return Layout(
        offset=parsed.offset,
        frames=frames,
        compressed=parsed.transfer_syntax not in NATIVE,
        big_endian=parsed.transfer_syntax == elements.BIG_ENDIAN,
        signed=signed,
        bits=ct.unsigned_number("BitsStored") or 16,
        slope=slope,
        intercept=intercept,
        padding=_padding(ct, signed=signed),
    )


def _padding(ct: Elements, *, signed: bool) -> tuple[int, int] | None:
    """Writers give -2000 as 63536 and the other way round: the 16 bits count, and the pixels' own sign."""
    first = ct.unsigned_number("PixelPaddingValue")
    if first is None:
        return None
    last = ct.unsigned_number("PixelPaddingRangeLimit")
    ends = [value - 2**16 if signed and value >= 2**15 else value for value in (first, first if last is None else last)]
    return min(ends), max(ends)


def _facts(parsed: Parsed, groups: Sequence[Elements], matrix: str) -> dict[str, str | float]:
    ct = parsed.elements
    age = re.fullmatch(r"(\d{1,3})([DWMY])", ct.text("PatientAge").upper())
    sex = ct.text("PatientSex").upper()
    agents = ct.items("ContrastBolusAgentSequence")
    contrast = bool(agents) or ct.text("ContrastBolusAgent").upper() not in _NO_CONTRAST
    sign = "signed" if ct.unsigned_number("PixelRepresentation") == 1 else "unsigned"
    facts = {
        "manufacturer": _word(ct.text("Manufacturer")),
        "model": _word(ct.text("ManufacturerModelName")),
        "kernel": _word("/".join(_macro(ct, groups, "CTReconstructionSequence").texts("ConvolutionKernel"))),
        "slice_thickness": _macro(ct, groups, "PixelMeasuresSequence").number("SliceThickness"),
        "kvp": _macro(ct, groups, "CTXRayDetailsSequence").number("KVP"),
        "sex": sex if sex in {"M", "F", "O"} else None,
        "age": int(age[1]) * _YEARS[age[2]] if age else None,
        "contrast": "stated" if contrast else "none",
        "body_part": _word(ct.text("BodyPartExamined")),
        "transfer_syntax": _kind(parsed.transfer_syntax),
        "matrix": matrix,
        "bits": f"{ct.unsigned_number('BitsStored')} {sign}",
    }
    return {name: value for name, value in facts.items() if value is not None and value != ""}


def _word(text: str) -> str:
    """Upper case; "" for what is longer than such values may be or isn't plain ASCII (DICOM PS3.5, 6.2).

    A damaged length can put the elements behind into a value, names among them.
    """
    return text.strip().upper() if re.fullmatch(r"[ -~]{1,64}", text) else ""
