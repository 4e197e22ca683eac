"""Damaged codestreams: WG-04's files with bytes changed in the middle; its uncompressed twins are the truth."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import ct, encapsulated, stored, write
from example_data import real
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

import zooft
from zooft_ct import decoder_messages, header_limits
from zooft_ct.header import read_headers
from zooft_ct.pixels import hu

Damage = Callable[[bytes, int], bytes]
DAMAGES: dict[str, Damage] = {
    "zeros": lambda code, at: code[:at] + bytes(256) + code[at + 256 :],
    "cut out": lambda code, at: code[:at] + code[at + 200 :],
    "other bytes": lambda code, at: code[:at] + np.random.default_rng(0).bytes(1800) + code[at + 1800 :],
    "ones": lambda code, at: code[:at] + b"\xff" * 64 + code[at + 64 :],
    "torn off": lambda code, at: code[:at] + b"\xff\xd9",
}


def spoilt(name: str, damage: Damage, share: float, path: Path) -> Path:
    """A real file whose only frame is damaged at so much of its length."""
    dataset = pydicom.dcmread(real(f"dicom_corner/wg04/{name[4:]}/{name}"))
    code = get_frame(dataset.PixelData, 0, number_of_frames=1).rstrip(b"\0")
    dataset.PixelData = encapsulate([damage(code, int(share * len(code)))])
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("name", ["CT1_JPLL", "CT2_JPLL", "CT1_J2KR", "CT2_J2KR", "CT1_J2KI", "CT1_JLSL", "CT1_JLSN"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_codestream_is_refused_wherever_the_damage_lies(name: str, damage: str, tmp_path: Path) -> None:
    for share in (0.2, 0.5, 0.9):
        path = spoilt(name, DAMAGES[damage], share, tmp_path / "a.dcm")
        with pytest.raises(zooft.DataError, match=r"damaged|can't be decoded"):
            hu(read_headers(path)[0])


@pytest.mark.parametrize("damage", ["zeros", "cut out", "other bytes", "torn off"])
def test_damaged_runs_are_refused_before_their_decoder_panics_or_goes_on(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = spoilt("CT1_RLE", DAMAGES[damage], 0.5, tmp_path / "a.dcm")
    with pytest.raises(zooft.DataError, match="the RLE frame's runs don't make its rows and columns"):
        hu(read_headers(path)[0])
    assert capfd.readouterr() == ("", "")


def tiled(seed: int = 0) -> bytes:
    """A codestream of 16 tiles, by Pillow."""
    buffer = io.BytesIO()
    picture = Image.fromarray(stored(seed, rows=256, columns=256))
    picture.save(buffer, "JPEG2000", no_jp2=True, tile_size=(64, 64), irreversible=False)
    return buffer.getvalue()


def tile_parts(code: bytes) -> list[tuple[int, int]]:
    """Where each begins and ends: marker SOT, its length, the tile's number, the tile-part's length."""
    at, found = code.index(b"\xff\x90"), []
    while code[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(code[at + 6 : at + 10], "big")
        found.append((at, at + length))
        at += length
    return found


def test_a_codestream_without_one_of_its_tiles_is_refused(tmp_path: Path) -> None:
    code = tiled()
    parts = tile_parts(code)
    size = {"Rows": 256, "Columns": 256}
    assert len(parts) == 16
    whole = hu(read_headers(write(tmp_path / "a.dcm", encapsulated(code, **size), JPEG2000Lossless))[0])
    assert whole.shape == (256, 256)
    for torn, number in (
        (code[: parts[5][0]] + code[parts[5][1] :], 1),
        (code[: parts[10][0]] + b"\xff\xd9", 6),
        (code[: parts[3][0]] + code[parts[4][0] : parts[4][1]] + code[parts[3][1] :], 1),
    ):
        path = write(tmp_path / "a.dcm", encapsulated(torn, **size), JPEG2000Lossless)
        with pytest.raises(zooft.DataError, match=f"lacks {number} of its 16 tiles"):
            hu(read_headers(path)[0])


def test_what_the_decoder_says_is_the_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = spoilt("CT1_JPLL", DAMAGES["cut out"], 0.5, tmp_path / "a.dcm")
    with pytest.raises(zooft.DataError, match="the decoder printed: Corrupt JPEG data: premature end of data segment"):
        hu(read_headers(path)[0])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "damage", "decoder"),
    [
        ("CT1_J2KR", "torn off", "pylibjpeg"),
        ("CT1_J2KI", "cut out", "pylibjpeg"),
        ("CT1_JLSL", "zeros", "pyjpegls"),
        ("CT1_JLSN", "cut out", "pyjpegls"),
        ("CT1_JPLL", "other bytes", "gdcm"),
    ],
)
def test_what_a_decoder_reports_as_damaged_is_refused(
    name: str, damage: str, decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spoilt(name, DAMAGES[damage], 0.5, tmp_path / "a.dcm")
    assert pixel_array(real(f"dicom_corner/wg04/{name[4:]}/{name}"), decoding_plugin=decoder).any()
    with pytest.raises(RuntimeError, match=f"{decoder}: "):
        pixel_array(path, decoding_plugin=decoder)
    monkeypatch.setattr(header_limits, "check_codestream", lambda *_: None)  # so that nobody but the decoder can know
    with pytest.raises(zooft.DataError, match=r"the compressed pixels can't be decoded \(RuntimeError\)"):
        hu(read_headers(path)[0])


def test_other_words_on_standard_error_go_their_way(capfd: pytest.CaptureFixture[str]) -> None:
    with decoder_messages.capture() as lines:
        os.write(2, b"50 % done\rCorrupt luck\nCorrupt JPEG data: 3 extraneous bytes\nthe end")
        assert not lines
    assert lines == ["Corrupt JPEG data: 3 extraneous bytes"]
    assert capfd.readouterr().err == "50 % done\rCorrupt luck\nthe end"


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_frames_that_the_header_doesn_t_count_are_not_dropped_in_silence(syntax: str, tmp_path: Path) -> None:
    streams = []
    for seed in range(3):
        dataset = ct(Rows=64, Columns=48, PixelData=stored(seed, rows=64, columns=48).tobytes())
        write(tmp_path / "native.dcm", dataset)
        dataset.compress(syntax, generate_instance_uid=False)
        streams.append(get_frame(dataset.PixelData, 0, number_of_frames=1))
    for has_bot in (True, False):
        several = encapsulated(streams[0], Rows=64, Columns=48)
        several.PixelData = encapsulate(streams, has_bot=has_bot)
        path = write(tmp_path / "a.dcm", several, syntax)
        with pytest.raises(zooft.DataError, match=r"compressed (frames|pictures) where|can't be decoded"):
            hu(read_headers(path)[0])


@pytest.mark.parametrize(
    "changes", [{"Columns": 15}, {"Columns": 8}, {"Rows": 6}, {"Rows": 11}, {"PixelData": stored().tobytes() * 10}]
)
def test_native_pixels_that_are_more_than_the_header_says_are_refused(changes: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match=r"the pixels are [\d,]+ bytes, and the header's rows"):
        read_headers(write(tmp_path / "a.dcm", ct(**changes)))


def test_a_padding_byte_is_no_pixel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", ct(PixelData=stored().tobytes() + b"\0"))
    np.testing.assert_array_equal(hu(read_headers(path)[0]), stored().astype(int) - 1024)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "text burned in"),
        ({"BurnedInAnnotation": "YES", "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, "text burned in"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "a secondary picture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "a secondary picture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "FUSED", "VRT"]}, "a secondary picture"),
        ({"ConversionType": "WSD"}, "a secondary picture"),
    ],
)
def test_pictures_that_may_hold_names_are_left_out(changes: dict[str, object], reason: str, tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match=reason):
        read_headers(write(tmp_path / "a.dcm", ct(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"BurnedInAnnotation": "NO"},
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "SECONDARY", "CSA MPR"]},
        {"ImageType": ["DERIVED", "PRIMARY"]},
    ],
)
def test_slices_that_were_computed_from_others_are_read(changes: dict[str, object], tmp_path: Path) -> None:
    assert len(read_headers(write(tmp_path / "a.dcm", ct(**changes)))) == 1
