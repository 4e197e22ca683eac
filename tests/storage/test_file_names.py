"""Names of result files: none twice, whatever samples are called."""

from __future__ import annotations

from pathlib import Path

import zooft


def test_no_two_samples_share_a_file_and_none_leaves_the_folder(tmp_path: Path) -> None:
    names = zooft.FileNames(tmp_path / "new", taken=("classes",))
    keys = ["a/one.png", "b/one.png", "b/ONE.jpg", "c\\classes.png", "../../x.png", "b/one.tif"]
    found = [names.path(key, ".txt") for key in keys]
    assert [path.name for path in found[:2]] == ["one.txt", "b_one.txt"]
    assert len({path.name.lower() for path in found}) == len(found)
    assert all(path.parent == tmp_path / "new" for path in found)
    assert not any(path.stem.lower() == "classes" for path in found)
