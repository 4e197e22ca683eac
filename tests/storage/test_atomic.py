"""Files that appear whole or not at all, and drafts whose writer is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zooft.storage import atomic

HOUR = 3600


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_file_is_there_only_after_the_block_and_replaces_the_one_before(tmp_path: Path) -> None:
    final = tmp_path / "a.bin"
    final.write_bytes(b"before")
    with atomic.whole(final) as file:
        file.write(b"new")
        file.flush()
        assert final.read_bytes() == b"before"
    assert final.read_bytes() == b"new"
    assert names(tmp_path) == {"a.bin"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there_and_no_draft(error: type[BaseException], tmp_path: Path) -> None:
    final = tmp_path / "a.bin"
    final.write_bytes(b"before")

    def fail() -> None:
        with atomic.whole(final) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert final.read_bytes() == b"before"
    assert names(tmp_path) == {"a.bin"}


def test_old_drafts_go_but_for_young_ones_other_files_and_those_being_written(tmp_path: Path) -> None:
    old = time.time() - HOUR - 60
    for name in ("draft-old", "data", "draft-young"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("draft-old", "data"):
        os.utime(tmp_path / name, (old, old))
    with atomic.whole(tmp_path / "final") as file:
        file.write(b"slowly")
        file.flush()
        (writing,) = [path for path in tmp_path.glob("draft-*") if path.name not in {"draft-old", "draft-young"}]
        os.utime(writing, (old, old))
        atomic.sweep(tmp_path)
        assert names(tmp_path) == {"data", "draft-young", writing.name}
    assert (tmp_path / "final").read_bytes() == b"slowly"


def test_a_killed_writer_s_draft_is_swept_once_it_is_old(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom zooft.storage import atomic\n"
        "with atomic.whole(Path(sys.argv[1]) / 'final') as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    (draft,) = tmp_path.iterdir()
    atomic.sweep(tmp_path)
    assert draft.exists(), "a young one may be somebody's"
    os.utime(draft, (0, time.time() - HOUR - 60))
    atomic.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
