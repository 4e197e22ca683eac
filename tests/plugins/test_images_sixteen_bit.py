"""Pictures with 16 bits a level: one range for all files, and a warning where most of it is unused. The truth is numpy's arithmetic."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import example_data
import numpy as np
import pytest
from commands import command
from numpy.typing import NDArray
from PIL import Image

import zooft
from zooft_images import views
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions
from zooft_images.read import read

SCALED = ClassificationOptions(sixteen_bit="scale")
TWELVE = ClassificationOptions(sixteen_bit="scale", sixteen_bit_range=(0, 4095))


def values(most: int, seed: int = 0) -> NDArray[np.uint16]:
    made = np.random.default_rng(seed).integers(0, most + 1, (40, 50)).astype(np.uint16)
    made[0, 0] = most
    return made


def write(root: Path, most: int, number: int = 3, suffix: str = "png") -> Path:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            Image.fromarray(values(most, index)).save(root / label / f"{most}-{index}.{suffix}")
    return root


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("black", "white"), [(0, 4095), (0, 1023), (0, 16383), (500, 4095), (0, 65535)])
def test_a_range_is_brought_to_all_levels(tmp_path: Path, black: int, white: int, suffix: str) -> None:
    made = values(white)
    Image.fromarray(made).save(tmp_path / f"x.{suffix}")
    options = ClassificationOptions(sixteen_bit="scale", sixteen_bit_range=(black, white))
    truth = np.rint((np.clip(made.astype(float), black, white) - black) * 255 / (white - black)).astype(np.uint8)
    got = read(tmp_path / f"x.{suffix}", options)
    assert np.array_equal(got, np.repeat(truth[..., None], 3, axis=2))
    assert (got.min(), got.max()) == (0, 255)


def test_equal_values_are_equal_levels_whatever_else_is_in_the_file(tmp_path: Path) -> None:
    """No file is stretched by its own largest value: that would change what a level means from file to file."""
    dark, bright = np.full((8, 8), 1000, np.uint16), np.full((8, 8), 1000, np.uint16)
    bright[0, 0] = 4095
    for name, made in (("dark", dark), ("bright", bright)):
        Image.fromarray(made).save(tmp_path / f"{name}.png")
    assert read(tmp_path / "dark.png", TWELVE)[4, 4, 0] == read(tmp_path / "bright.png", TWELVE)[4, 4, 0] == 62


@pytest.mark.parametrize(
    ("most", "levels", "range_"), [(4095, 17, "0,4095"), (1023, 5, "0,1023"), (16383, 65, "0,16383")]
)
def test_bits_that_lie_idle_are_reported_with_the_way_to_name_the_range(
    tmp_path: Path, most: int, levels: int, range_: str
) -> None:
    (messages,) = [note for note in discover(write(tmp_path, most), SCALED).notes if "levels" in note]
    assert messages.startswith(f"warning: the largest value of 6 pictures with 16 bits a level is {most} of 65535")
    assert f"{levels} of 256 levels" in messages
    assert f"--sixteen-bit-range {range_}" in messages
    distinct = {int(v) for path in tmp_path.rglob("*.png") for v in np.unique(read(path, SCALED))}
    assert max(distinct) + 1 == levels


@pytest.mark.parametrize(("options", "most"), [(TWELVE, 4095), (SCALED, 65535)])
def test_a_range_that_is_used_is_not_worth_a_word(tmp_path: Path, options: ClassificationOptions, most: int) -> None:
    assert not [note for note in discover(write(tmp_path, most), options).notes if "16 bits" in note]


def test_devices_of_different_depth_are_reported(tmp_path: Path) -> None:
    write(write(tmp_path, 4095), 65535)
    (messages,) = [note for note in discover(tmp_path, SCALED).notes if "16 bits" in note]
    assert "6 of 12 pictures" in messages
    assert "different depth" in messages


def test_a_picture_of_another_range_is_refused_and_a_hot_pixel_is_not(tmp_path: Path) -> None:
    hot = values(4095)
    hot[3, 3] = 65535
    Image.fromarray(hot).save(tmp_path / "hot.png")
    Image.fromarray(values(65535)).save(tmp_path / "other.png")
    assert read(tmp_path / "hot.png", TWELVE)[3, 3, 0] == 255
    with pytest.raises(zooft.DataError, match=r"9\d% of its values lie above 4095.*the largest is 65535"):
        read(tmp_path / "other.png", TWELVE)


def test_shards_are_reported_too(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key, label in (("1", "a"), ("2", "b")):
            picture = io.BytesIO()
            Image.fromarray(values(4095)).save(picture, "PNG")
            for name, part in ((f"{key}.png", picture.getvalue()), (f"{key}.cls", label.encode())):
                info = tarfile.TarInfo(name)
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    assert any("4095 of 65535" in note for note in discover(tmp_path / "s.tar", SCALED).notes)


@pytest.mark.parametrize(
    ("range_", "message"), [((0, 0), "black below white"), ((-1, 9), "within"), ((0, 70_000), "within")]
)
def test_ranges_that_are_none_are_an_error(range_: tuple[int, int], message: str) -> None:
    with pytest.raises(zooft.ConfigError, match=message):
        ClassificationOptions(sixteen_bit="scale", sixteen_bit_range=range_)


def test_a_range_without_scaling_is_an_error_with_what_is_missing() -> None:
    with pytest.raises(zooft.ConfigError, match="give that too"):
        ClassificationOptions(sixteen_bit_range=(0, 4095))


def test_the_flag_takes_two_numbers_and_audit_reports_idle_bits(tmp_path: Path) -> None:
    write(tmp_path, 4095)
    plain = command("audit", tmp_path, "--task", "classification", "--sixteen-bit", "scale", status=1)
    assert "4095 of 65535" in plain.stdout
    ranged = command(
        "audit",
        tmp_path,
        "--task",
        "classification",
        "--sixteen-bit",
        "scale",
        "--sixteen-bit-range",
        "0,4095",
        status=1,
    )
    assert "65535" not in ranged.stdout + ranged.stderr
    wrong = command("audit", tmp_path, "--task", "classification", "--sixteen-bit-range", "4095", status=2)
    assert "sixteen-bit-range" in wrong.stderr


# colour, which Pillow reads by the upper 8 of 16 bits


def colour_png(path: Path, most: int) -> Path:
    """A PNG with 16 bits a level in colour, which Pillow doesn't write: W3C PNG, 11.2.2."""
    rows = np.random.default_rng(0).integers(0, most + 1, (12, 10, 3)).astype(">u2")
    rows[0, 0] = most
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 10, 12, 16, 2, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize(("most", "warned"), [(4095, True), (65535, False)])
def test_colour_of_16_bits_is_reported_and_its_idle_bits_too(tmp_path: Path, most: int, warned: bool) -> None:
    for label in ("a", "b"):
        colour_png(tmp_path / label / "x.png", most)
    notes = discover(tmp_path, ClassificationOptions()).notes
    assert "2 pictures with 16 bits a level in colour: the upper 8 are read" in notes
    assert any("no more than 16 of 256 levels are used, as where 12 of the 16 bits" in note for note in notes) == warned


def test_a_range_is_refused_for_colour(tmp_path: Path) -> None:
    with pytest.raises(zooft.DataError, match="is for grey images"):
        read(colour_png(tmp_path / "x.png", 4095), TWELVE)


# who deploys the file


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("range_", [(0, 4095), (100, 3000), (0, 65535)])
def test_the_reports_reader_and_the_ports_words_say_the_same_range(
    tmp_path: Path, colour: str, range_: tuple[int, int]
) -> None:
    made = values(range_[1])
    options = ClassificationOptions(sixteen_bit="scale", sixteen_bit_range=range_, colour=colour)  # type: ignore[arg-type]
    for suffix in ("png", "tif"):
        Image.fromarray(made).save(tmp_path / f"x.{suffix}")
        names: dict[str, object] = {"np": np}
        exec(views.reader(options), names)  # noqa: S102 -- what the report shows to run
        ((levels,),) = names["read"](tmp_path / f"x.{suffix}")  # type: ignore[operator]
        assert np.array_equal(levels[0], read(tmp_path / f"x.{suffix}", options))
    example_data.save(tmp_path / "eight.png")
    ((levels,),) = names["read"](tmp_path / "eight.png")  # type: ignore[operator]
    assert np.array_equal(levels[0], read(tmp_path / "eight.png", options))
    assert f"from {range_[0]}..{range_[1]} to 0..255" in views.port(options).meaning
