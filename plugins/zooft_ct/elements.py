"""A DICOM file's elements as the bytes that stand in it, up to the pixels.

pydicom splits the file; the values are converted here, because pydicom's conversions warn with the value in the text,
and some of these values are names. What can't be converted counts as missing.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import zooft

DEFLATED = frozenset(
    {"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.2.8.1"}
)
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
PIXEL_DATA = 0x7FE00010
_ANY_PIXELS = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_UNDEFINED = 0xFFFFFFFF
_LARGEST_VALUE = 2**26
_TRANSFER_SYNTAX, _MEDIA_CLASS, _MEDIA_UID = 0x00020010, 0x00020002, 0x00020003
_META = [_TRANSFER_SYNTAX, _MEDIA_CLASS, _MEDIA_UID]

TAGS: Mapping[str, int] = {
    "SpecificCharacterSet": 0x00080005,
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "StudyDate": 0x00080020,
    "Modality": 0x00080060,
    "AcquisitionDateTime": 0x0008002A,
    "AcquisitionTime": 0x00080032,
    "ContentTime": 0x00080033,
    "ConversionType": 0x00080064,
    "FrameType": 0x00089007,
    "Manufacturer": 0x00080070,
    "ManufacturerModelName": 0x00081090,
    "PatientName": 0x00100010,
    "PatientID": 0x00100020,
    "IssuerOfPatientID": 0x00100021,
    "PatientBirthDate": 0x00100030,
    "PatientSex": 0x00100040,
    "PatientAge": 0x00101010,
    "ContrastBolusAgent": 0x00180010,
    "ContrastBolusAgentSequence": 0x00180012,
    "BodyPartExamined": 0x00180015,
    "SeriesDescription": 0x0008103E,
    "ImageComments": 0x00204000,
    "FilterType": 0x00181160,
    "ProtocolName": 0x00181030,
    "SliceThickness": 0x00180050,
    "KVP": 0x00180060,
    "EchoNumbers": 0x00180086,
    "TriggerTime": 0x00181060,
    "FrameAcquisitionDateTime": 0x00189074,
    "CardiacSynchronizationSequence": 0x00189118,
    "CTImageFrameTypeSequence": 0x00189329,
    "ConvolutionKernel": 0x00181210,
    "CTReconstructionSequence": 0x00189314,
    "CTXRayDetailsSequence": 0x00189325,
    "StudyInstanceUID": 0x0020000D,
    "SeriesInstanceUID": 0x0020000E,
    "AcquisitionNumber": 0x00200012,
    "InstanceNumber": 0x00200013,
    "TemporalPositionIdentifier": 0x00200100,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameContentSequence": 0x00209111,
    "TemporalPositionIndex": 0x00209128,
    "NominalPercentageOfCardiacPhase": 0x00209241,
    "PlanePositionSequence": 0x00209113,
    "PlaneOrientationSequence": 0x00209116,
    "FrameAcquisitionNumber": 0x00209156,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "BurnedInAnnotation": 0x00280301,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "ModalityLUTSequence": 0x00283000,
    "PixelMeasuresSequence": 0x00289110,
    "PixelValueTransformationSequence": 0x00289145,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
"""What is read, by DICOM keyword (PS3.6)."""


@dataclass(frozen=True, slots=True)
class Elements:
    """The elements of a data set or of a sequence's item.

    Attributes:
        find: from a tag to pydicom's element, or None.
        big_endian: how its numbers stand.
    """

    find: Callable[[int], Any]
    big_endian: bool = False

    def __contains__(self, keyword: str) -> bool:
        return self.find(TAGS[keyword]) is not None

    def texts(self, keyword: str) -> tuple[str, ...]:
        """The values of a text element, trimmed; none where it is missing."""
        text = self._bytes(keyword).decode("latin-1").strip("\0 ")
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def text(self, keyword: str) -> str:
        """The only value of a text element; "" where it is missing."""
        return "\\".join(self.texts(keyword))

    def identifier(self, keyword: str) -> str:
        """A text that may hold any script, by the file's character set."""
        from pydicom.charset import python_encoding

        content = self._bytes(keyword).strip(b"\0 ")
        if content.isascii():
            return content.decode("ascii")
        sets = self.texts("SpecificCharacterSet") or ("",)
        return content.decode(python_encoding.get(sets[0], "latin-1"), "replace")

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many finite decimal strings; None where it isn't that."""
        try:
            numbers = tuple(float(text) for text in self.texts(keyword))
        except ValueError:
            return None
        return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None

    def number(self, keyword: str) -> float | None:
        """One finite decimal string."""
        numbers = self.numbers(keyword, 1)
        return numbers[0] if numbers else None

    def unsigned_number(self, keyword: str) -> int | None:
        """The first 16-bit number, taken as unsigned whatever the file states of it."""
        content = self._bytes(keyword)
        order = ">H" if self.big_endian else "<H"
        return int(struct.unpack_from(order, content)[0]) if len(content) >= 2 else None

    def any_number(self, keyword: str) -> str:
        """A number as text, whether it stands as such or, as in multi-frame images, in 4 or 8 bytes."""
        content = self._bytes(keyword)
        kind = {4: "I", 8: "d"}.get(len(content))
        text = self.text(keyword)
        if kind is None or re.fullmatch(r"[-+0-9.eE ]+", text):
            return text
        return f"{struct.unpack(('>' if self.big_endian else '<') + kind, content)[0]:g}"

    def items(self, keyword: str) -> tuple[Elements, ...]:
        """The items of a sequence."""
        from pydicom.dataelem import RawDataElement
        from pydicom.values import convert_SQ

        element = self.find(TAGS[keyword])
        if element is None or element.value is None:
            return ()
        items = element.value
        if isinstance(element, RawDataElement):
            items = convert_SQ(element.value, element.is_implicit_VR, element.is_little_endian)
        return tuple(Elements(item.get_item, self.big_endian) for item in items)

    def _bytes(self, keyword: str) -> bytes:
        element = self.find(TAGS[keyword])
        value = None if element is None else element.value
        return value if isinstance(value, bytes) else b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A file up to its pixels.

    Attributes:
        elements: of the data set.
        transfer_syntax: its UID.
        media_class: the SOP class from the file's meta information.
        media_uid: the SOP instance likewise.
        offset: where the pixel data element's value begins, bytes; 0 where there is none, or the file ends before it.
        length: of that value, bytes; None where it is encapsulated.
    """

    elements: Elements
    transfer_syntax: str
    media_class: str
    media_uid: str
    offset: int
    length: int | None


def parse(file: BinaryIO, *, force: bool) -> Parsed:
    """Read a file up to its pixels.

    Raises:
        DataError: not DICOM, or deflated. pydicom's own exceptions pass through.
    """
    from pydicom.filereader import data_element_generator

    _skip_preamble(file, force=force)
    meta = {
        int(element.tag): element.value
        for element in data_element_generator(file, False, True, stop_when=_behind_meta, specific_tags=list(_META))
    }
    syntax, media_class, media_uid = (_uid(meta.get(tag)) for tag in _META)
    if syntax in DEFLATED:
        raise zooft.DataError("a deflated transfer syntax, whose size can't be known before: refused")
    if not syntax and not force:
        raise zooft.DataError("no transfer syntax; --force-dicom reads the file all the same")
    implicit = syntax != BIG_ENDIAN and not _explicit(file)
    found = {
        int(element.tag): element
        for element in data_element_generator(
            file,
            implicit,
            syntax != BIG_ENDIAN,
            stop_when=_at_pixels,
            defer_size=_LARGEST_VALUE,
            specific_tags=list(TAGS.values()),
        )
    }
    offset, length = _pixels(file, implicit=implicit, big_endian=syntax == BIG_ENDIAN)
    return Parsed(
        elements=Elements(found.get, syntax == BIG_ENDIAN),
        transfer_syntax=syntax or (IMPLICIT if implicit else EXPLICIT),
        media_class=media_class,
        media_uid=media_uid,
        offset=offset,
        length=length,
    )


def _skip_preamble(file: BinaryIO, *, force: bool) -> None:
    if file.read(132)[128:] == b"DICM":
        return
    if not force:
        raise zooft.DataError("not a DICOM file (no preamble); --force-dicom reads DICOM without one")
    file.seek(0)


def _behind_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    return tag in _ANY_PIXELS


def _uid(value: object) -> str:
    return value.decode("latin-1").strip("\0 ") if isinstance(value, bytes) else ""


def _explicit(file: BinaryIO) -> bool:
    """Whether the next element names its type; some writers don't do as their transfer syntax requires."""
    from pydicom.values import converters

    at = file.tell()
    kind = file.read(6)[4:]
    file.seek(at)
    return kind.decode("latin-1") in converters


def _pixels(file: BinaryIO, *, implicit: bool, big_endian: bool) -> tuple[int, int | None]:
    """Offset and length of the element at which the file stands, if it holds integer pixels."""
    order = ">" if big_endian else "<"
    start = file.read(12)
    if len(start) < 12:
        return 0, 0
    group, element = struct.unpack_from(f"{order}2H", start)
    if group << 16 | element != PIXEL_DATA:
        return 0, 0
    head = 8 if implicit else 12  # explicit: two bytes for the kind, two empty ones
    (length,) = struct.unpack_from(f"{order}I", start, head - 4)
    return file.tell() - 12 + head, None if length == _UNDEFINED else length
