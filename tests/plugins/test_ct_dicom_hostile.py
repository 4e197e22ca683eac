"""Files that lie: each is refused with its reason, without memory, without waiting, without an end of the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_files import HOSTILE, ct, encapsulated, jpeg, write
from pydicom.encaps import encapsulate, get_frame

import zooft
from zooft_ct.header import read_headers
from zooft_ct.pixels import hu
from zooft_ct.series import scan

_MEGABYTES = 300
_READ_ALL = """
import json, resource, sys
from pathlib import Path
import zooft
from zooft_ct.header import read_headers
from zooft_ct.pixels import hu

resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
reasons = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        for header in read_headers(path):
            hu(header)
    except zooft.DataError as error:
        reasons[path.stem] = str(error)
# not ru_maxrss, which remembers the parent that this process was forked from
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(json.dumps([reasons, int(peak.split()[1]) / 1024]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """What another process says to all hostile files, and the most memory that it ever had, MB."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (make, _) in HOSTILE.items():
        make(folder / f"{name}.dcm")
    done = subprocess.run(
        [sys.executable, "-c", _READ_ALL, str(folder)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    reasons, megabytes = json.loads(done.stdout)
    return reasons, megabytes


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_with_its_reason(name: str, answers: tuple[dict[str, str], float]) -> None:
    assert HOSTILE[name][1] in answers[0][name]


def test_hostile_files_take_no_memory(answers: tuple[dict[str, str], float]) -> None:
    assert answers[1] < _MEGABYTES


def test_header_of_65535_rows_and_columns_is_refused_for_compressed_pixels_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a", encapsulated(b"\xff\xd8", Rows=65535, Columns=65535), "1.2.840.10008.1.2.5")
    with pytest.raises(zooft.DataError, match="65535x65535"):
        read_headers(path)


def test_pixels_lost_after_the_scan_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a", ct())
    (header,) = read_headers(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(zooft.DataError, match="truncated"):
        hu(header)
    path.unlink()
    with pytest.raises(zooft.DataError, match="can't be read: No such file"):
        hu(header)


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_truncated_codestream_is_an_error(syntax: str, keep: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2048, (64, 64), np.uint16)
    dataset = ct(Rows=64, Columns=64, PixelData=noise.tobytes())
    write(tmp_path / "whole", dataset)
    dataset.compress(syntax, generate_instance_uid=False)
    codestream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    short = encapsulated(codestream[: int(len(codestream) * keep)], Rows=64, Columns=64)
    (header,) = read_headers(write(tmp_path / "short", short, syntax))
    with pytest.raises(zooft.DataError, match=r"compressed|RLE"):
        hu(header)


def test_two_fragments_of_one_frame_are_put_together(tmp_path: Path) -> None:
    dataset = ct()
    truth = hu(read_headers(write(tmp_path / "native", dataset))[0])
    dataset.compress("1.2.840.10008.1.2.4.80", generate_instance_uid=False)
    codestream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    parts = encapsulated(codestream)
    parts.PixelData = encapsulate([codestream], fragments_per_frame=2)
    (header,) = read_headers(write(tmp_path / "parts", parts, "1.2.840.10008.1.2.4.80"))
    np.testing.assert_array_equal(hu(header), truth)


def test_panic_of_a_decoder_is_an_error_like_any_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zooft_ct.header_limits._unpacks", lambda *_: True)  # it would see this one before
    runs = b"\x81\x00" * 5000  # each makes 128 bytes of two
    head = np.array([2, 64, 64 + len(runs), *[0] * 13], "<u4").tobytes()
    bomb = encapsulated(head + runs[: len(runs) // 8] * 2, Rows=128, Columns=128)
    bomb.PixelData = encapsulated(head + runs + runs, Rows=128, Columns=128).PixelData
    (header,) = read_headers(write(tmp_path / "a", bomb, "1.2.840.10008.1.2.5"))
    with pytest.raises(zooft.DataError, match="can't be decoded"):
        hu(header)
    capfd.readouterr()


def test_neither_pipe_nor_dangling_link_nor_loop_blocks_the_scan(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "inner" / "slice.dcm", ct())
    os.mkfifo(data / "pipe.dcm")
    (data / "nowhere.dcm").symlink_to(data / "missing")
    (data / "inner" / "loop").symlink_to(data)
    (data / "itself").symlink_to(data / "itself")
    found = scan(data)
    assert [len(series.slices) for series in found.series] == [1]
    reasons = {refused.path.name: refused.reason for refused in found.rejected}
    assert reasons["pipe.dcm"] == "not a regular file"
    assert "can't be read" in reasons["nowhere.dcm"]
    assert "can't be read" in reasons["itself"]


def test_what_is_no_dicom_is_named_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "random").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    found = scan(tmp_path)
    assert not found.series
    assert [refused.path.name for refused in found.rejected] == ["empty", "labels.csv", "random"]
    empty, table, random = (refused.reason for refused in found.rejected)
    assert (empty, table) == ("an empty file", "a text or a table, not an image")
    assert "not a DICOM file" in random
    assert "--force-dicom" in random
    forced = scan(tmp_path, force=True)
    assert not forced.series
    assert len(forced.rejected) == 3


def test_file_without_preamble_is_read_when_forced(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", ct())
    bare = tmp_path / "bare"
    content = whole.read_bytes()
    bare.write_bytes(content[content.index(b"\x08\x00\x08\x00CS") :])
    with pytest.raises(zooft.DataError, match="--force-dicom"):
        read_headers(bare)
    np.testing.assert_array_equal(hu(read_headers(bare, force=True)[0]), hu(read_headers(whole)[0]))


def test_folder_that_cannot_be_listed_is_an_error_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").mkdir()
    listing = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(zooft.DataError, match="Permission denied") as caught:
        scan(tmp_path)
    assert "secret" not in str(caught.value)


def test_codestream_one_column_wider_than_its_header_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", encapsulated(jpeg(0xF7, 12, 17)), "1.2.840.10008.1.2.4.80")
    with pytest.raises(zooft.DataError, match=r"is 12x17 .* the header says 12x16"):
        hu(read_headers(path)[0])
