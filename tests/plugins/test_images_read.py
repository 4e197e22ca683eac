"""Reading one image: the truth is Pillow's own answer, the inventory of it, or numpy on pictures written here."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

import zooft
from zooft_images.options import FORMATS, ClassificationOptions
from zooft_images.read import MOST_PIXELS, decode_small, digest, inspect, read
from zooft_images.shards import Member, Shard

OPTIONS = ClassificationOptions()
GREY = ClassificationOptions(colour="grey")
SCALED = ClassificationOptions(sixteen_bit="scale")
EIGHT_BIT_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"}
SIXTEEN_BIT_MODES = {"I;16", "I;16B"}
EXIF_ORIENTATION = 0x0112

# How a camera in each EXIF orientation stores an upright picture: CIPA DC-008, figure of the Orientation tag.
STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def outcome(path: Path, options: ClassificationOptions = OPTIONS) -> NDArray[np.uint8] | str:
    """The pixels, or the reason why there are none."""
    try:
        return read(path, options)
    except zooft.DataError as error:
        return str(error)


def pillow(path: Path, mode: str = "RGB") -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert(mode))


def verdict(path: Path) -> str:
    """Why inspection refuses a file, or ""."""
    try:
        inspect(path, OPTIONS)
    except zooft.DataError as error:
        return str(error)
    return ""


def reason(path: Path) -> str:
    """Why reading refuses it, or ""."""
    found = outcome(path)
    return found if isinstance(found, str) else ""


@pytest.fixture(scope="module")
def corner() -> dict[str, NDArray[np.uint8] | str]:
    """What `read` makes of each of Pillow's odd images; not one of them may raise anything else, or warn."""
    return {path.name: outcome(path) for path in sorted(example_data.real("image_corner").iterdir())}


def should_be_read(row: dict[str, str]) -> bool:
    """By the inventory alone: Pillow decodes it, it is one picture, 8 bits a level, of a format we accept."""
    one_picture = row["frames"] == "1" or row["fmt"] == "MPO"
    return row["result"] == "ok" and row["fmt"] in FORMATS and one_picture and row["mode"] in EIGHT_BIT_MODES


def refused(corner: dict[str, NDArray[np.uint8] | str], required: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Name to reason of the files that the inventory's rows single out; fails where one of them was read."""
    names = [name for name, row in example_data.inventory().items() if required(row)]
    was_read = [name for name in names if not isinstance(corner[name], str)]
    assert names
    assert not was_read
    return {name: str(corner[name]) for name in names}


def test_exactly_what_the_inventory_calls_one_8_bit_picture_is_read(
    corner: dict[str, NDArray[np.uint8] | str],
) -> None:
    rows = example_data.inventory()
    expected = {name for name, row in rows.items() if should_be_read(row)}
    was_read = {name for name in rows if not isinstance(corner[name], str)}
    assert len(expected) > 90
    assert was_read == expected


def test_pixels_are_those_of_pillow_upright_and_in_rgb(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    folder = example_data.real("image_corner")
    pixels = {name: found for name, found in corner.items() if not isinstance(found, str)}
    assert all(array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 for array in pixels.values())
    different = [name for name, array in pixels.items() if not np.array_equal(array, pillow(folder / name))]
    assert not different


def test_every_refusal_has_a_reason_without_the_path(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    folder = str(example_data.real("image_corner"))
    reasons = [found for found in corner.values() if isinstance(found, str)]
    assert all(reason.strip() for reason in reasons)
    assert not [reason for reason in reasons if folder in reason]


def test_several_pictures_in_a_file_are_refused_with_their_number(
    corner: dict[str, NDArray[np.uint8] | str],
) -> None:
    rows = example_data.inventory()
    reasons = refused(corner, lambda row: row["fmt"] in {"PNG", "WEBP", "TIFF"} and row["frames"] not in {"", "1"})
    assert all(f"holds {rows[name]['frames']} pictures" in reason for name, reason in reasons.items())


def test_gif_is_refused_unless_requested(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    reasons = refused(corner, lambda row: row["fmt"] == "GIF")
    assert all("GIF isn't an accepted format" in reason for reason in reasons.values())
    still = example_data.real("image_corner") / "first_frame_transparency.gif"
    assert np.array_equal(read(still, ClassificationOptions(formats=("GIF",))), pillow(still))


def test_formats_are_recognised_by_content_not_by_name(tmp_path: Path) -> None:
    disguised = tmp_path / "picture.jpg"
    Image.fromarray(example_data.picture(100)).save(disguised, format="GIF")
    assert "GIF isn't an accepted format" in str(outcome(disguised))


def test_levels_without_a_fixed_range_are_refused(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    reasons = refused(corner, lambda row: row["mode"] in {"F", "I", "LAB"} and row["result"] == "ok")
    assert all("has no fixed range of levels" in reason for reason in reasons.values())


def test_sixteen_bits_are_refused_with_the_way_out(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    reasons = refused(corner, lambda row: row["mode"] in SIXTEEN_BIT_MODES)
    assert all("16 bits a level" in reason and "--sixteen-bit scale" in reason for reason in reasons.values())


def test_sixteen_bits_are_scaled_on_request() -> None:
    names = [name for name, row in example_data.inventory().items() if row["mode"] in SIXTEEN_BIT_MODES]
    paths = [example_data.real("image_corner") / name for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        truths = [np.rint(np.asarray(Image.open(path)) / 65535 * 255).astype(np.uint8) for path in paths]
    assert all(np.array_equal(read(p, SCALED)[:, :, 2], truth) for p, truth in zip(paths, truths, strict=True))


def test_sixteen_bits_keep_black_white_and_the_middle(tmp_path: Path) -> None:
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    grey = ClassificationOptions(sixteen_bit="scale", colour="grey")
    assert read(tmp_path / "grey.png", grey).tolist() == [[[0], [1], [128], [255]]]


def test_cmyk_is_converted() -> None:
    path = example_data.real("image_corner") / "pil_sample_cmyk.jpg"
    assert np.array_equal(read(path, OPTIONS), pillow(path))


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_turned_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = example_data.picture(120)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, exif=exif, lossless=True)
    assert np.array_equal(read(path, OPTIONS), upright)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_turned_photographs_show_what_the_upright_one_shows(suffix: str) -> None:
    folder = example_data.real("image_corner")
    upright = read(folder / "hopper.ppm", OPTIONS).astype(float)
    turned = [read(folder / f"hopper_orientation_{n}.{suffix}", OPTIONS) for n in range(2, 9)]
    differences = [np.abs(picture - upright).mean() for picture in turned]
    assert max(differences) < 15, "compression explains a few levels, a picture on its side far more"


def test_grey_is_one_channel_as_pillow_weighs_it() -> None:
    path = example_data.real("image_corner") / "hopper_orientation_6.jpg"
    assert np.array_equal(read(path, GREY)[:, :, 0], pillow(path, "L"))
    assert read(path, GREY).shape == (128, 128, 1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_torn_files_are_refused_and_not_filled_up(tmp_path: Path, format_: str, share: float) -> None:
    whole = io.BytesIO()
    Image.fromarray(example_data.picture(128, size=(64, 64))).save(whole, format=format_)
    torn = tmp_path / "torn"
    torn.write_bytes(whole.getvalue()[: int(share * len(whole.getvalue()))])
    assert isinstance(outcome(torn), str)


@given(position=st.integers(min_value=0, max_value=5000), byte=st.integers(min_value=0, max_value=255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF"])
def test_a_damaged_byte_is_read_or_refused_and_nothing_else(
    tmp_path: Path, format_: str, position: int, byte: int
) -> None:
    whole = io.BytesIO()
    Image.fromarray(example_data.picture(128)).save(whole, format=format_)
    content = bytearray(whole.getvalue())
    content[position % len(content)] = byte
    (tmp_path / "damaged").write_bytes(content)
    assert isinstance(outcome(tmp_path / "damaged"), str | np.ndarray)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd metadata and large images: discovery silences them, as `read`
def test_inspection_refuses_what_reading_refuses_and_for_the_same_reason(
    corner: dict[str, NDArray[np.uint8] | str],
) -> None:
    folder = example_data.real("image_corner")
    refusals = {name: found if isinstance(found, str) else "" for name, found in corner.items()}
    assert {name: verdict(folder / name) for name in corner} == refusals


JPEGS: dict[str, tuple[dict[str, Any], str]] = {
    "baseline": ({}, "RGB"),
    "progressive": ({"progressive": True}, "RGB"),
    "restarts": ({"restart_marker_blocks": 3}, "RGB"),
    "full chroma": ({"subsampling": 0}, "RGB"),
    "grey": ({}, "L"),
    "cmyk": ({}, "CMYK"),
}


def jpeg(kind: str, size: tuple[int, int] = (67, 93)) -> bytes:
    options, mode = JPEGS[kind]
    written = io.BytesIO()
    Image.fromarray(example_data.picture(128, size=size)).convert(mode).save(written, "JPEG", quality=90, **options)
    return written.getvalue()


@pytest.mark.parametrize("kind", JPEGS)
def test_inspection_finds_torn_jpegs_wherever_they_are_torn(tmp_path: Path, kind: str) -> None:
    """Decoded at an eighth of the size, a JPEG's coded data is read to its end all the same."""
    whole, torn = jpeg(kind), tmp_path / "torn.jpg"
    torn.write_bytes(whole)
    assert verdict(torn) == ""
    for end in [*range(0, len(whole) - 64, 97), *range(len(whole) - 64, len(whole))]:
        torn.write_bytes(whole[:end])
        assert verdict(torn) == reason(torn), f"the first {end} of {len(whole)} bytes"
    torn.write_bytes(whole[: len(whole) * 9 // 10])
    assert verdict(torn)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts"])
def test_inspection_and_reading_agree_about_damaged_jpegs(tmp_path: Path, kind: str) -> None:
    whole, damaged = jpeg(kind), tmp_path / "damaged.jpg"
    rng = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), 2):
            content[position] = rng.integers(0, 256)
        damaged.write_bytes(content)
        assert verdict(damaged) == reason(damaged)


def test_inspection_gives_the_size_as_stored(tmp_path: Path) -> None:
    (tmp_path / "picture.jpg").write_bytes(jpeg("baseline"))
    facts = inspect(tmp_path / "picture.jpg", OPTIONS).facts
    assert (facts["width"], facts["height"], facts["mode"]) == (93, 67, "RGB")


SPEC = zooft.InputSpec(height=64, width=64, resize=72, mean=(0.0,) * 3, std=(1 / 255,) * 3)
SHORTER = 108


def photograph(size: tuple[int, int]) -> Image.Image:
    """A real photograph of some width and height."""
    return Image.fromarray(load_sample_image("china.jpg")).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("options", [OPTIONS, GREY], ids=["rgb", "grey"])
@pytest.mark.parametrize(
    ("size", "required"),
    [
        ((640, 426), (108, 162)),
        ((216, 432), (216, 108)),
        ((1200, 600), (108, 216)),
        ((150, 108), (108, 150)),
        ((90, 300), (300, 90)),
        ((1, 1), (1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_small_pictures_are_brought_down_and_never_up(
    tmp_path: Path, format_: str, size: tuple[int, int], required: tuple[int, int], options: ClassificationOptions
) -> None:
    photograph(size).save(tmp_path / "picture", format_)
    (made,) = decode_small(tmp_path / "picture", SPEC, options)
    assert made.dtype == np.uint8
    assert made.shape == (*required, 1 if options.colour == "grey" else 3)
    if min(size) <= SHORTER:
        assert np.array_equal(made, read(tmp_path / "picture", options))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(1024, 768), (900, 700), (300, 260)], ids=str)
def test_small_pictures_show_the_picture_but_for_a_level_or_so(
    tmp_path: Path, format_: str, size: tuple[int, int], orientation: int
) -> None:
    """The centre of the small picture and of the whole one at one size, by Pillow."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    photograph(size).save(tmp_path / "picture", format_, quality=90, exif=exif)

    def centre(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
        small = ImageOps.fit(Image.fromarray(levels), (72, 72), Image.Resampling.BICUBIC)
        return np.asarray(small, dtype=np.float64)

    (made,) = decode_small(tmp_path / "picture", SPEC, OPTIONS)
    difference = np.abs(centre(made) - centre(pillow(tmp_path / "picture")))
    assert difference.mean() < 1.6


def test_odd_pictures_are_sketched_or_refused_as_reading_does(corner: dict[str, NDArray[np.uint8] | str]) -> None:
    folder = example_data.real("image_corner")
    for name, found in corner.items():
        if isinstance(found, str):
            with pytest.raises(zooft.DataError):
                decode_small(folder / name, SPEC, OPTIONS)
            continue
        (made,) = decode_small(folder / name, SPEC, OPTIONS)
        assert min(made.shape[:2]) == min(*found.shape[:2], SHORTER)
        assert made.shape[1] / made.shape[0] == pytest.approx(found.shape[1] / found.shape[0], rel=0.02)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    for content in (jpeg("baseline"), jpeg("grey"), b"no picture at all"):
        path.write_bytes(content)
        assert digest(path, OPTIONS) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("make", "message"), [(lambda path: None, "no such file"), (Path.mkdir, "a folder")])
def test_what_is_gone_has_no_digest(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "picture.jpg")
    with pytest.raises(zooft.DataError, match=message):
        digest(tmp_path / "picture.jpg", OPTIONS)


def test_a_picture_in_a_shard_is_read_as_its_file_is(tmp_path: Path) -> None:
    content, file, shard = jpeg("baseline", (300, 400)), tmp_path / "picture.jpg", tmp_path / "shard.tar"
    file.write_bytes(content)
    shard.write_bytes(b"before" + content + b"behind")
    about = shard.stat()
    member = Member(Shard(str(shard), about.st_size, about.st_mtime_ns), len(b"before"), len(content))
    assert np.array_equal(read(member, OPTIONS), read(file, OPTIONS))
    assert np.array_equal(decode_small(member, SPEC, OPTIONS)[0], decode_small(file, SPEC, OPTIONS)[0])
    assert inspect(member, OPTIONS) == inspect(file, OPTIONS)
    assert digest(member, OPTIONS) == digest(file, OPTIONS)


@pytest.mark.parametrize("content", [b"not an image", b"\x00" * 4096])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.png").write_bytes(content)
    assert outcome(tmp_path / "file.png") == "not an image that Pillow knows"


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    assert outcome(tmp_path / "nothing.png") == "no such file"


@pytest.mark.timeout(20)
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.png")
    assert outcome(tmp_path / "pipe.png") == "not a regular file"


def test_links_that_lead_nowhere_or_in_circles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    assert outcome(tmp_path / "dangling.png") == "a link that leads nowhere"
    assert outcome(tmp_path / "circle.png") == "a link that leads nowhere"


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG: length, kind, content, checksum (W3C PNG, section 5.3)."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *more: bytes) -> bytes:
    """An 8-bit RGB PNG that claims a size and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def compressed_zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj()
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import numpy, PIL.Image, zooft
from zooft_images.options import ClassificationOptions
from zooft_images.read import read

PIL.Image.preinit()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
try:
    read(Path(sys.argv[1]), ClassificationOptions())
except zooft.DataError as error:
    sys.exit(f"refused: {error}")
"""


def refusal_in_little_memory(path: Path) -> str:
    """The reason, from a process that may take 100 MiB more than it has after its imports."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit is set from Linux's /proc")
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    ).stderr.strip()


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [(10_001, 10_001, f"10001 x 10001 is above {MOST_PIXELS:,} pixels"), (60_000, 60_000, "DecompressionBombError")],
)
def test_bombs_are_refused_from_the_header(tmp_path: Path, width: int, height: int, message: str) -> None:
    (tmp_path / "bomb.png").write_bytes(png(width, height))
    reason = refusal_in_little_memory(tmp_path / "bomb.png")
    assert reason.startswith("refused: ")
    assert message in reason


def test_a_text_chunk_bomb_is_refused_in_little_memory(tmp_path: Path) -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + compressed_zeros(200))
    (tmp_path / "bomb.png").write_bytes(png(1, 1, bomb))
    assert (tmp_path / "bomb.png").stat().st_size < 2**20
    assert "refused: can't be decoded: ValueError" in refusal_in_little_memory(tmp_path / "bomb.png")
