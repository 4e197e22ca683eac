"""What makes a series, what makes HU, and what is refused: each rule on files written for it."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_files import COLUMNS, UID, ct, encapsulated, jpeg_2000, multiframe, stored, write, write_series
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.pixels import get_decoder
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLSLossless,
    LegacyConvertedEnhancedCTImageStorage,
    MRImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

import zooft
from zooft_ct import nifti, pixels
from zooft_ct.header import read_headers
from zooft_ct.pixels import hu
from zooft_ct.series import Series, scan

CANARY = "CANARY^NAME"


def _only(root: Path, **options: Any) -> Series:
    found = scan(root, **options)
    assert not found.rejected
    (series,) = found.series
    return series


def _reasons(root: Path, **options: Any) -> str:
    found = scan(root, **options)
    assert not found.series
    return "; ".join(reason for reason in (refused.reason for refused in found.rejected))


def _reason(path: Path) -> str:
    with pytest.raises(zooft.DataError) as caught:
        _read(path)
    return str(caught.value)


def _read(path: Path) -> None:
    for header in read_headers(path):
        hu(header)


def _heights(series: Series) -> list[float]:
    return [header.position[2] for header in series.slices if header.position]


# order and geometry


def test_slices_are_ordered_by_position_whatever_names_and_instance_numbers_say(tmp_path: Path) -> None:
    write_series(tmp_path, [6.0, -4.0, 2.0, 0.0, 4.0, -2.0])
    series = _only(tmp_path)
    assert _heights(series) == [-4.0, -2.0, 0.0, 2.0, 4.0, 6.0]
    assert (series.increment, series.tilt, series.gaps, series.notes) == (2.0, 0.0, (), ())


def test_slices_stored_mirrored_still_go_from_feet_to_head(tmp_path: Path) -> None:
    """Their normal, row times column, points to the feet."""
    write_series(tmp_path, [4.0, 0.0, 2.0], ImageOrientationPatient=[-1, 0, 0, 0, 1, 0])
    assert _heights(_only(tmp_path)) == [0.0, 2.0, 4.0]


def test_coronal_slices_are_ordered_from_front_to_back(tmp_path: Path) -> None:
    for index, depth in enumerate([3.0, 1.0, 2.0]):
        across = ct(seed=index, ImagePositionPatient=[0, depth, 0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
        write(tmp_path / f"{index}", across)
    series = _only(tmp_path)
    assert [header.position[1] for header in series.slices if header.position] == [1.0, 2.0, 3.0]


def test_missing_slice_is_a_gap_and_a_large_one_refuses_the_series(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 2.0, 4.0, 8.0, 10.0])
    series = _only(tmp_path)
    assert series.gaps == (2,)
    assert "1 gap between the slices" in series.notes
    write_series(tmp_path, [0.0, 2.0, 4.0, 12.0, 14.0])
    assert "a gap of 4.0 slices; give the whole series, or allow it with --max-gap 4" in _reasons(tmp_path)
    assert _only(tmp_path, max_gap=4.0).gaps == (2,)


def test_change_from_thin_to_thick_slices_is_no_gap_but_a_missing_thick_one_is(tmp_path: Path) -> None:
    thin, thick = [0.0, 2.0, 4.0, 6.0, 8.0], [13.0, 21.0, 29.0, 37.0]
    write_series(tmp_path / "thin", thin, SliceThickness=2)
    write_series(tmp_path / "thick", thick, SliceThickness=8)
    assert _only(tmp_path).gaps == ()
    (tmp_path / "thick" / "002.dcm").unlink()
    assert _only(tmp_path).gaps == (6,)


def test_tilt_is_the_angle_between_the_stack_and_the_normal(tmp_path: Path) -> None:
    """Slices stacked along z whose normal leans by the angle of a 3-4-5 triangle."""
    write_series(tmp_path, [0.0, 5.0, 10.0], ImageOrientationPatient=[1, 0, 0, 0, 0.8, -0.6])
    series = _only(tmp_path)
    assert series.tilt == pytest.approx(np.degrees(np.arctan2(3, 4)))
    assert series.increment == pytest.approx(4.0)
    assert "tilted by 36.9°" in series.notes[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "aren't parallel"),
        ({"Rows": 16, "Columns": 12}, "different matrix sizes"),
        ({"PixelSpacing": [0.5, 0.8]}, "different pixel spacings"),
        ({"PatientID": "P2"}, "several PatientIDs"),
        ({"ImagePositionPatient": None}, "1 of them without a usable ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "1 of them without a usable ImagePositionPatient or ImageOrientation"),
    ],
)
def test_series_that_does_not_fit_together_is_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 2.0, 4.0])
    write(tmp_path / "odd.dcm", ct(6.0, seed=9, **changes))
    assert reason in _reasons(tmp_path)
    assert "a series of 4 slices" in _reasons(tmp_path)


def test_skewed_orientation_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 2.0], ImageOrientationPatient=[1, 0, 0, 0.5, 0.9, 0])
    assert "right angle" in _reasons(tmp_path)


def test_lone_slice_needs_no_position(tmp_path: Path) -> None:
    write(tmp_path / "a", ct(ImagePositionPatient=None, ImageOrientationPatient=None))
    series = _only(tmp_path)
    assert (len(series.slices), series.increment, series.slices[0].position) == (1, None, None)


def test_two_series_in_one_folder_stay_two(tmp_path: Path) -> None:
    write_series(tmp_path / "a", [0.0, 2.0])
    write_series(tmp_path / "b", [0.0, 2.0, 4.0], SeriesInstanceUID=UID.format(9))
    assert sorted(len(series.slices) for series in scan(tmp_path).series) == [2, 3]


def test_files_without_a_series_identifier_belong_to_their_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "a", [0.0, 2.0], SeriesInstanceUID=None)
    write_series(tmp_path / "b", [0.0, 2.0, 4.0], SeriesInstanceUID="")
    assert sorted((series.uid, len(series.slices)) for series in scan(tmp_path).series) == [("", 2), ("", 3)]


def test_copy_of_a_file_counts_once_and_is_named(tmp_path: Path) -> None:
    first = write_series(tmp_path, [0.0, 2.0])[0]
    (tmp_path / "z.dcm").write_bytes(first.read_bytes())
    found = scan(tmp_path)
    (series,) = found.series
    assert (len(series.slices), [each.path.name for each in series.copies]) == (2, ["z.dcm"])
    assert [(refused.path.name, refused.reason[:6]) for refused in found.rejected] == [("z.dcm", "a copy")]


def test_different_files_of_one_identifier_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", ct(0.0, SOPInstanceUID=UID.format(7)))
    write(tmp_path / "b", ct(2.0, SOPInstanceUID=UID.format(7)))
    assert "different files have the same SOPInstanceUID" in _reasons(tmp_path)


def test_several_slices_at_one_position_are_refused_unless_acquisitions_distinguish_them(tmp_path: Path) -> None:
    write_series(tmp_path / "early", [0.0, 2.0])
    for index, height in enumerate([0.0, 2.0]):
        write(tmp_path / "late" / f"{index}", ct(height, seed=50 + index))
    assert "at the same position" in _reasons(tmp_path)
    write_series(tmp_path / "early", [0.0, 2.0], AcquisitionNumber=1)
    for index, height in enumerate([0.0, 2.0]):
        write(tmp_path / "late" / f"{index}", ct(height, seed=50 + index, AcquisitionNumber=2))
    found = scan(tmp_path)
    assert [(series.acquisition, len(series.slices)) for series in found.series] == [("1", 2), ("2", 2)]
    assert found.series[0].notes == ("one of 2 volumes in one series, separated by AcquisitionNumber",)


def test_acquisitions_at_different_positions_make_one_series(tmp_path: Path) -> None:
    for index in range(4):
        write(tmp_path / f"{index}", ct(2.0 * index, seed=index, AcquisitionNumber=index))
    assert len(_only(tmp_path).slices) == 4


# what is CT at all


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPClassUID": MRImageStorage, "Modality": "MR"}, "not a CT image but MR Image Storage"),
        ({"SOPClassUID": SegmentationStorage, "Modality": "SEG"}, "not a CT image but Segmentation Storage"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "not a CT image but Secondary Capture"),
        ({"SOPClassUID": "1.2.3.4.5"}, "not a CT image but of an unknown kind"),
        ({"Modality": "PT"}, "not a CT image (modality PT)"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localizer or a screenshot"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "pixels of 8 bits in 8"),
        ({"HighBit": 15}, "pixels of 12 bits in 16"),
        ({"PixelData": None}, "no pixels in the file"),
        ({"NumberOfFrames": 2, "PixelData": stored().tobytes() * 2}, "2 frames of one position"),
        ({"RescaleSlope": None}, "no usable rescale"),
        ({"RescaleIntercept": None}, "no usable rescale"),
        ({"RescaleSlope": "0"}, "no usable rescale"),
        ({"RescaleSlope": "-1"}, "no usable rescale"),
        ({"RescaleType": "OD"}, "aren't rescaled to HU"),
        ({"RescaleIntercept": "1000"}, "of them lie above 500, and no body is mostly bone"),
        ({"RescaleIntercept": "-3500"}, "of them lie below -1100, where nothing is"),
    ],
)
def test_what_gives_no_hu_is_refused_with_its_reason(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a", ct(**changes))
    assert reason in _reason(path)


def test_transfer_syntax_without_a_decoder_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", encapsulated(bytes(10)), JPEGExtended12Bit)
    assert "no decoder for the transfer syntax JPEG Extended" in _reason(path)


def test_compressed_syntax_over_native_pixels_is_refused(tmp_path: Path) -> None:
    content = write(tmp_path / "a", encapsulated(bytes(10)), JPEGLSLossless).read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00OB")
    (tmp_path / "a").write_bytes(content[: start + 8] + b"\x80\x01\x00\x00" + bytes(384))
    assert "a compressed transfer syntax, and pixels that aren't" in _reason(tmp_path / "a")


def test_blanked_class_falls_back_on_the_files_meta_information(tmp_path: Path) -> None:
    write(tmp_path / "a", ct(SOPClassUID="", SOPInstanceUID=""))
    header = _only(tmp_path).slices[0]
    assert header.sop_uid == UID.format(3)


def test_air_beside_the_body_is_hu_though_nothing_lies_above_zero(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(24, 10, (12, 16)).clip(0).astype(np.uint16)
    noise[0] = 0
    values = hu(read_headers(write(tmp_path / "a", ct(PixelData=noise.tobytes())))[0])
    assert values.max() < -900


# HU


def test_hu_is_the_stored_number_by_slope_and_intercept(tmp_path: Path) -> None:
    (header,) = read_headers(write(tmp_path / "a", ct()))
    np.testing.assert_array_equal(hu(header), stored().astype(int) - 1024)
    (header,) = read_headers(write(tmp_path / "a", ct(RescaleSlope="0.5", RescaleIntercept="-500.25")))
    np.testing.assert_array_equal(hu(header), np.rint(stored() * 0.5 - 500.25))


def test_each_slice_is_rescaled_by_its_own_slope(tmp_path: Path) -> None:
    write(tmp_path / "a", ct(0.0, seed=1))
    write(tmp_path / "b", ct(2.0, seed=1, RescaleSlope="0.5", RescaleIntercept="-512"))
    below, above = (hu(header) for header in _only(tmp_path).slices)
    np.testing.assert_array_equal(above, np.rint(below / 2))


@pytest.mark.parametrize("intercept", [-40000, -1024, -0.5, 0, 1024, 9000])
@pytest.mark.parametrize("signed", [False, True])
def test_every_16_bit_number_is_clipped_not_wrapped(signed: bool, intercept: float, tmp_path: Path) -> None:
    numbers = np.arange(2**16).astype(np.int16 if signed else np.uint16).reshape(256, 256)
    wide = {"Rows": 256, "Columns": 256, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": int(signed)}
    truth = np.clip(np.rint(numbers.astype(np.float64) + intercept), -1024, 3071)
    path = write(tmp_path / "a", ct(PixelData=numbers.tobytes(), RescaleIntercept=str(intercept), **wide))
    (header,) = read_headers(path)
    np.testing.assert_array_equal(pixels._rescale(numbers, header.layout), truth)
    assert "aren't HU" in _reason(path), "as many bright ones as dark ones is no body"


def test_monochrome1_is_not_inverted(tmp_path: Path) -> None:
    (header,) = read_headers(write(tmp_path / "a", ct(PhotometricInterpretation="MONOCHROME1")))
    np.testing.assert_array_equal(hu(header), stored().astype(int) - 1024)


@pytest.mark.parametrize("value", [-2000, 63536])
def test_padding_of_signed_pixels_becomes_air_though_its_sign_is_lost(value: int, tmp_path: Path) -> None:
    """Tenths of HU, so that padding unheeded would be fat."""
    numbers = (stored().astype(np.int16) - 1024) * 10
    numbers[0, :5] = -2000
    signed = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}
    dataset = ct(PixelData=numbers.tobytes(), RescaleSlope="0.1", RescaleIntercept="0", **signed)
    dataset.add(DataElement(0x00280120, "SS" if value < 0 else "US", value))
    values = hu(read_headers(write(tmp_path / "a", dataset))[0])
    assert set(values[0, :5]) == {-1024}
    np.testing.assert_array_equal(values[1:], stored()[1:].astype(int) - 1024)


@pytest.mark.parametrize(("first", "last"), [(1150, 1200), (1200, 1150)])
def test_range_of_padding_becomes_air(first: int, last: int, tmp_path: Path) -> None:
    numbers = stored()
    numbers[:3] = np.linspace(1150, 1200, COLUMNS).astype(np.uint16)
    dataset = ct(PixelData=numbers.tobytes())
    dataset.add(DataElement(0x00280120, "US", first))
    dataset.add(DataElement(0x00280121, "US", last))
    (header,) = read_headers(write(tmp_path / "a", dataset))
    truth = np.where((numbers >= 1150) & (numbers <= 1200), -1024, numbers.astype(int) - 1024)
    np.testing.assert_array_equal(hu(header), truth)


@pytest.mark.parametrize("ends", [(1080,), (1080, 1100), (1100, 1080)])
def test_padding_that_has_the_number_of_tissue_is_refused(ends: tuple[int, ...], tmp_path: Path) -> None:
    dataset = ct()
    for tag, value in zip((0x00280120, 0x00280121), ends, strict=False):
        dataset.add(DataElement(tag, "US", value))
    assert "its PixelPaddingValue is that of tissue: 56" in _reason(write(tmp_path / "a", dataset))


def test_a_range_of_padding_that_holds_all_tissue_is_refused_as_that(tmp_path: Path) -> None:
    dataset = ct(PixelData=np.full_like(stored(), 1060).tobytes())
    dataset.add(DataElement(0x00280120, "US", 0))
    dataset.add(DataElement(0x00280121, "US", 1200))
    assert "its PixelPaddingValue is that of tissue: -1024 to 176 HU" in _reason(write(tmp_path / "a", dataset))


def test_bits_above_those_stored_do_not_count(tmp_path: Path) -> None:
    """Old files have overlays there; signed numbers may lack their sign's copies."""
    overlaid = stored() | np.uint16(0xA000)
    (header,) = read_headers(write(tmp_path / "a", ct(PixelData=overlaid.tobytes())))
    np.testing.assert_array_equal(hu(header), stored().astype(int) - 1024)
    unextended = (stored().astype(np.int16) - 1024).view(np.uint16) & np.uint16(0x0FFF)
    signed = ct(PixelData=unextended.tobytes(), PixelRepresentation=1, RescaleIntercept="0")
    values = hu(read_headers(write(tmp_path / "b", signed))[0])
    np.testing.assert_array_equal(values, stored().astype(int) - 1024)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_byte_order_and_kind_of_header_do_not_matter(syntax: str, tmp_path: Path) -> None:
    dataset = ct()
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored().astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    path = write(tmp_path / "a", dataset, syntax)
    (header,) = read_headers(path)
    np.testing.assert_array_equal(hu(header), stored().astype(int) - 1024)
    np.testing.assert_array_equal(hu(header), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_coding_changes_no_value(syntax: str, signed: bool, tmp_path: Path) -> None:
    truth = stored(rows=64, columns=48).astype(np.int16) - 1024
    cached = truth if signed else truth + 1024
    scale = {"PixelRepresentation": int(signed), "RescaleIntercept": "0" if signed else "-1024"}
    dataset = ct(Rows=64, Columns=48, PixelData=cached.tobytes(), **scale)
    write(tmp_path / "native", dataset)
    dataset.compress(syntax, generate_instance_uid=False)
    (header,) = read_headers(write(tmp_path / "packed", dataset, syntax))
    np.testing.assert_array_equal(hu(header), truth)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("process", ["JPEGLosslessProcess14", "JPEGLosslessProcess14_1"])
def test_lossless_jpeg_of_gdcm_changes_no_value(process: str, signed: bool, tmp_path: Path) -> None:
    """GDCM's writer calls the unit of its rescale unspecified."""
    truth = stored(rows=64, columns=48).astype(np.int16) - 1024
    cached = truth if signed else truth + 1024
    scale = {"PixelRepresentation": int(signed), "RescaleIntercept": "0" if signed else "-1024"}
    write(tmp_path / "native", ct(Rows=64, Columns=48, PixelData=cached.tobytes(), **scale))
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(tmp_path / "native"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, process)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "packed"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "packed").RescaleType == "US"
    (header,) = read_headers(tmp_path / "packed")
    np.testing.assert_array_equal(hu(header), truth)


def test_high_throughput_jpeg_2000_is_guarded_as_jpeg_2000_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a", encapsulated(jpeg_2000(40000, 40000)), HTJ2KLossless)
    assert "is 40000x40000" in _reason(path)


# several frames in one file


def _twins() -> list[pydicom.Dataset]:
    return [
        ct(2.0 * index, seed=index, RescaleSlope=str(1 + index / 10), RescaleIntercept=str(-1024 - index))
        for index in (2, 0, 1)
    ]


def test_frames_equal_their_single_twins_with_their_own_positions_and_rescale(tmp_path: Path) -> None:
    for index, single in enumerate(_twins()):
        write(tmp_path / "singles" / f"{index}", single)
    write(tmp_path / "frames" / "all", multiframe(_twins()))
    singles, frames = _only(tmp_path / "singles"), _only(tmp_path / "frames")
    assert [header.frame for header in frames.slices] == [1, 2, 0]
    for single, frame in zip(singles.slices, frames.slices, strict=True):
        assert (single.position, single.orientation, single.spacing) == (
            frame.position,
            frame.orientation,
            frame.spacing,
        )
        np.testing.assert_array_equal(hu(single), hu(frame))
    assert frames.slices[0].facts["slice_thickness"] == 2.0


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_frames_are_decoded_one_by_one(syntax: str, tmp_path: Path) -> None:
    native, packed = multiframe(_twins()), multiframe(_twins())
    write(tmp_path / "packed", packed)
    packed.compress(syntax, generate_instance_uid=False)
    headers = read_headers(write(tmp_path / "packed", packed, syntax))
    for frame, twin in zip(headers, read_headers(write(tmp_path / "native", native)), strict=True):
        np.testing.assert_array_equal(hu(frame), hu(twin))


def test_legacy_converted_series_equals_its_single_slices(tmp_path: Path) -> None:
    """The conversion is highdicom's, which wants what every scanner writes."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    required = {
        "PatientName": "", "PatientBirthDate": "", "PatientSex": "", "StudyDate": "", "StudyTime": "", "StudyID": "",
        "AccessionNumber": "", "ReferringPhysicianName": "", "Manufacturer": "M", "SeriesNumber": 1,
        "PositionReferenceIndicator": "", "KVP": None, "AcquisitionNumber": 1,
        "FrameOfReferenceUID": UID.format(5), "SliceThickness": 2,
    }  # fmt: skip # a table of elements
    slices = []
    for index, height in enumerate([4.0, 0.0, 2.0]):
        single = ct(height, seed=index, InstanceNumber=index + 1)
        for keyword, value in required.items():
            setattr(single, keyword, value)
        write(tmp_path / "singles" / f"{index}", single)
        slices.append(pydicom.dcmread(tmp_path / "singles" / f"{index}"))
    converted = LegacyConvertedEnhancedCTImage(slices, generate_uid(), 2, generate_uid(), 1)
    assert converted.SOPClassUID == LegacyConvertedEnhancedCTImageStorage
    (tmp_path / "frames").mkdir()
    converted.save_as(tmp_path / "frames" / "all", enforce_file_format=True)
    singles, frames = _only(tmp_path / "singles"), _only(tmp_path / "frames")
    assert _heights(singles) == _heights(frames) == [0.0, 2.0, 4.0]
    for single, frame in zip(singles.slices, frames.slices, strict=True):
        np.testing.assert_array_equal(hu(single), hu(frame))


def test_frames_that_are_not_all_described_are_refused(tmp_path: Path) -> None:
    dataset = multiframe(_twins())
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:2]
    assert "3 frames and 2 descriptions" in _reason(write(tmp_path / "a", dataset))


# what stays unsaid


def test_names_in_a_file_reach_neither_warnings_nor_logs_nor_reasons(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    odd = {
        0x00101010: ("AS", CANARY),
        0x00100010: ("PN", CANARY),
        0x00080020: ("DA", CANARY),
        0x00080005: ("CS", CANARY),
    }
    for index, broken in enumerate([{}, {"Rows": 65535}, {"Modality": "MR"}, {"RescaleSlope": None}]):
        dataset = ct(seed=index, **broken)
        for tag, (kind, value) in odd.items():
            dataset.add(DataElement(tag, kind, value, validation_mode=config.IGNORE))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write(tmp_path / CANARY / f"{CANARY}-{index}", dataset)
    recwarn.clear()
    caplog.clear()
    found = scan(tmp_path)
    (series,) = found.series
    hu(series.slices[0])
    read_headers(series.slices[0].path)
    assert not recwarn.list
    assert CANARY not in caplog.text
    assert not any(CANARY in reason for reason in (refused.reason for refused in found.rejected))
    assert CANARY not in repr(dict(series.slices[0].facts))
    assert "age" not in series.slices[0].facts


def test_elements_swallowed_by_a_damaged_length_are_not_repeated(tmp_path: Path) -> None:
    """The length of one value covers the patient's identifier behind it."""
    for keyword, head in [("Modality", b"\x08\x00\x60\x00CS"), ("Manufacturer", b"\x08\x00\x70\x00LO")]:
        content = write(tmp_path / keyword, ct(Manufacturer="MAKER", PatientID=CANARY)).read_bytes()
        start = content.index(head) + len(head)
        length = content.index(CANARY.encode()) + len(CANARY) + 1 - start - 2  # one blank makes it even
        (tmp_path / keyword).write_bytes(content[:start] + length.to_bytes(2, "little") + content[start + 2 :])
    assert _reason(tmp_path / "Modality") == "not a CT image (modality unknown)"
    assert "manufacturer" not in read_headers(tmp_path / "Manufacturer")[0].facts


def test_patient_identifier_is_read_in_the_files_own_script(tmp_path: Path) -> None:
    for name, charset, codec in [
        ("a", "ISO_IR 192", "utf-8"),
        ("b", "ISO_IR 100", "latin-1"),
        ("c", "ISO_IR 144", "iso8859_5"),
    ]:
        text = "Ж-1" if name == "c" else "Ü-1"
        path = write(tmp_path / name, ct(SpecificCharacterSet=charset, PatientID="XXXXXXXX"))
        encoded = text.encode(codec)
        path.write_bytes(path.read_bytes().replace(b"XXXXXXXX", encoded + b" " * (8 - len(encoded))))
        assert read_headers(path)[0].patient_id == text


@pytest.mark.parametrize(
    ("text", "years"), [("060Y", 60.0), ("006M", 0.5), ("", None), ("60", None), ("DOE JOHN", None)]
)
def test_age_is_in_years_or_absent(text: str, years: float | None, tmp_path: Path) -> None:
    dataset = ct()
    dataset.add(DataElement(0x00101010, "AS", text, validation_mode=config.IGNORE))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "a", dataset)
    assert read_headers(path)[0].facts.get("age") == years


@pytest.mark.parametrize(("agent", "stated"), [("OMNIPAQUE", "stated"), ("", "none"), ("None", "none"), (None, "none")])
def test_contrast_is_only_stated_or_not(agent: str | None, stated: str, tmp_path: Path) -> None:
    dataset = ct()
    if agent is not None:
        dataset.ContrastBolusAgent = agent
    facts = read_headers(write(tmp_path / "a", dataset))[0].facts
    assert facts["contrast"] == stated
    assert "OMNIPAQUE" not in facts.values()


def test_scan_shows_how_far_it_is(tmp_path: Path) -> None:
    write_series(tmp_path, [0.0, 2.0, 4.0])
    seen: list[tuple[str, int]] = []
    done: list[int] = []

    def computing(title: str, total: int) -> zooft.Advance:
        seen.append((title, total))
        return done.append

    scan(tmp_path, computing=computing)
    assert seen == [("reading DICOM headers", 3)]
    assert sum(done) == 3


def test_names_of_any_script_can_be_read(tmp_path: Path) -> None:
    write_series(tmp_path / "Грудь 胸 é", [0.0, 2.0])
    assert len(_only(tmp_path).slices) == 2
    assert os.listdir(tmp_path)  # noqa: PTH208  -- nothing was renamed on the way


# the patient's axes


def _tilted(row: int, column: int, degrees: float) -> list[float]:
    """Six direction cosines of rows to the left or right, columns to the back or front, the gantry tilted."""
    lean = np.radians(degrees)
    return [row, 0, 0, 0, column * float(np.cos(lean)), -column * float(np.sin(lean))]


@pytest.mark.parametrize("degrees", [0, 10, 30])
@pytest.mark.parametrize("column", [1, -1])
@pytest.mark.parametrize("row", [1, -1])
def test_axial_slices_lie_as_itk_orients_them_however_they_are_stored(
    row: int, column: int, degrees: float, tmp_path: Path
) -> None:
    orientation = _tilted(row, column, degrees)
    normal = np.cross(orientation[:3], orientation[3:])
    for index in (2, 0, 3, 1):
        place = list(map(float, 3.0 * index * normal))
        write(tmp_path / f"{index}", ct(seed=index, ImagePositionPatient=place, ImageOrientationPatient=orientation))
    series = _only(tmp_path)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    truth = SimpleITK.DICOMOrient(SimpleITK.ReadImage(names), "LPS")
    ours = np.stack([hu(header) for header in series.slices])
    np.testing.assert_array_equal(ours, SimpleITK.GetArrayFromImage(truth))
    np.testing.assert_allclose(np.diff(series.heights), 3.0, atol=1e-3)
    assert ours.flags.c_contiguous
    assert series.notes == ()


@pytest.mark.parametrize("column", [1, -1])
@pytest.mark.parametrize("row", [1, -1])
def test_dicom_and_its_nifti_twin_give_the_same_array_and_spacing(row: int, column: int, tmp_path: Path) -> None:
    orientation = [row, 0, 0, 0, column, 0]
    write_series(tmp_path / "dicom", [0.0, 2.0, 4.0], ImageOrientationPatient=orientation)
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "dicom"))
    SimpleITK.WriteImage(SimpleITK.ReadImage(names), str(tmp_path / "twin.nii"))
    series, twin = _only(tmp_path / "dicom"), nifti.open_volume(tmp_path / "twin.nii")
    np.testing.assert_array_equal(np.stack([hu(header) for header in series.slices]), nifti.whole(twin))
    assert series.slices[0].spacing == pytest.approx(twin.spacing)


def test_a_lone_slice_is_turned_as_those_of_series_are(tmp_path: Path) -> None:
    write(tmp_path / "a", ct(ImageOrientationPatient=[-1, 0, 0, 0, -1, 0]))
    series = _only(tmp_path)
    np.testing.assert_array_equal(hu(series.slices[0]), stored()[::-1, ::-1].astype(int) - 1024)
    assert (series.heights, series.notes) == ((0.0,), ())


@pytest.mark.parametrize(
    ("row", "column", "step"),
    [([0, 1, 0], [0, 0, -1], [1, 0, 0]), ([-1, 0, 0], [0, 0, -1], [0, 1, 0]), ([0, -1, 0], [-1, 0, 0], [0, 0, 1])],
    ids=["sagittal", "coronal", "axial-transposed"],
)
def test_other_planes_stay_as_they_are_stored_which_is_reported(
    row: list[int], column: list[int], step: list[int], tmp_path: Path
) -> None:
    for index in (1, 0, 2):
        place = [4.0 * index * part for part in step]
        write(tmp_path / f"{index}", ct(seed=index, ImagePositionPatient=place, ImageOrientationPatient=row + column))
    series = _only(tmp_path)
    assert series.heights == (0.0, 4.0, 8.0)
    for index, header in enumerate(series.slices):
        np.testing.assert_array_equal(hu(header), stored(index).astype(int) - 1024)
    assert series.notes == ("not axial; rows, columns and slices are in the order in which they're stored",)


# padding and decoders


@pytest.mark.parametrize("end", [None, 63540])
def test_padding_above_the_bits_that_count_is_air_and_the_bone_of_the_same_bits_stays(
    end: int | None, tmp_path: Path
) -> None:
    numbers = stored().copy()
    numbers[0], numbers[5, 5] = 63536, 63536 & 0x0FFF
    dataset = ct(PixelData=numbers.tobytes())
    dataset.add(DataElement(0x00280120, "US", 63536))
    if end:
        dataset.add(DataElement(0x00280121, "US", end))
    path = write(tmp_path / "a", dataset)
    values = hu(read_headers(path)[0])
    assert set(values[0]) == {-1024}
    assert values[5, 5] == 1072
    numbers[0] = 0
    write(path, ct(PixelData=numbers.tobytes()))
    np.testing.assert_array_equal(values, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0])


def test_a_missing_decoder_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = ct(Rows=64, Columns=48, PixelData=stored(rows=64, columns=48).tobytes())
    write(tmp_path / "native", dataset)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    path = write(tmp_path / "a", dataset, JPEGLSLossless)
    monkeypatch.setattr(get_decoder(JPEGLSLossless), "_available", {})
    assert "pyjpegls, which is missing: pip install 'zooft[ct]'" in _reason(path)
