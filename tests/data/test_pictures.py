"""Pictures read by the public parts, against Pillow alone and against what was seen of real files."""

from __future__ import annotations

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from example_data import real, save
from PIL import Image, ImageOps

import zooft


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_the_picture_as_pillow_does(tmp_path: Path, turn: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(levels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert np.array_equal(zooft.image_read(tmp_path / "a.png"), expected)


def test_real_files_are_read_as_pillow_reads_them_or_refused_in_words() -> None:
    folder, read, refused = real("image_corner"), 0, []
    for path in sorted(folder.iterdir()):
        try:
            found = zooft.image_read(path)
        except zooft.DataError as error:
            refused.append(str(error))
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(found, expected), path.name
        read += 1
    assert read > 60
    assert not any(str(folder) in words for words in refused)


def test_the_digest_is_of_the_file_s_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    assert zooft.image_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "a folder, or a link to one"),
        ("link", "a link that leads nowhere"),
        ("none.png", "no such file"),
        ("pipe", "not a regular file"),
        ("torn.png", "can't be decoded"),
        ("text.png", "not a picture that Pillow knows"),
        ("wide.png", r"16 has no fixed range of levels|I;16.* has no fixed range of levels"),
        ("moving.gif", "holds several pictures"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_reason_alone(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "torn.png").write_bytes(save(tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "wide.png")
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(zooft.DataError, match=words) as caught:
        zooft.image_read(tmp_path / name)
    assert str(tmp_path) not in str(caught.value)


def test_threads_that_decode_leave_the_process_s_warning_filters_alone(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", seed=n) for n in range(40)]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(zooft.image_decode, paths))
    assert warnings.filters == before
    assert len(found) == 40


def test_names_of_pictures_are_known_by_their_endings() -> None:
    assert all(zooft.looks_like_picture(Path(name)) for name in ("a.JPG", "b.jpeg", "c.heic", "d.Tiff"))
    assert not any(zooft.looks_like_picture(Path(name)) for name in ("a.csv", "jpg", "b.dcm"))
