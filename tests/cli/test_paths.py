"""Which files are meant by what was typed: those that a walk by hand finds, each once, and the rest with its reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import zooft
from zooft.cli import paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.png", "a.png", "in/c.png", "in/deeper/d.png", "in/.hidden", ".git/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def walked(root: Path) -> list[Path]:
    """As Python's own walk finds them, what is hidden left out."""
    found = [Path(top, name) for top, _, names in os.walk(root) for name in names]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def test_a_folder_s_files_are_those_of_a_walk_in_order(tree: Path) -> None:
    meant = paths.files([str(tree)])
    assert list(meant.files) == walked(tree)
    assert {each.id: each.reason for each in meant.left_out} == {
        str(tree / ".git"): "hidden",
        str(tree / "in" / ".hidden"): "hidden",
    }
    assert meant.sources == {}


def test_what_is_named_stays_in_its_order_and_each_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    meant = paths.files(["in/c.png", "nowhere.png", "*.png", "in", "in/.hidden"])
    assert [str(path) for path in meant.files] == [
        "in/c.png",
        "nowhere.png",
        "a.png",
        "b.png",
        "in/deeper/d.png",
        "in/.hidden",
    ]


def test_a_file_whose_name_is_a_pattern_is_meant_by_it(tree: Path) -> None:
    (tree / "[ab].png").touch()
    assert list(paths.files([str(tree / "[ab].png")]).files) == [tree / "[ab].png"]


def test_patterns_go_to_any_depth(tree: Path) -> None:
    assert list(paths.files([f"{tree}/in/**/*.png"]).files) == [tree / "in" / "c.png", tree / "in" / "deeper" / "d.png"]


def test_links_in_folders_that_end_no_walk_are_left_out(tree: Path) -> None:
    (tree / "in" / "loop").symlink_to(tree)
    (tree / "in" / "dangling").symlink_to(tree / "nowhere")
    (tree / "in" / "good.png").symlink_to(tree / "a.png")
    meant = paths.files([str(tree / "in")])
    assert [path.name for path in meant.files] == ["c.png", "d.png", "good.png"]
    assert {Path(each.id).name: each.reason for each in meant.left_out} == {
        ".hidden": "hidden",
        "loop": "a link to a folder, which isn't followed",
        "dangling": "a link that leads nowhere",
    }


def test_what_the_command_writes_is_not_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    meant = paths.files(["."], leave=[tree / "b.png"])
    assert Path("b.png") not in meant.files
    assert [each.reason for each in meant.left_out if each.id == "b.png"] == ["written by this command"]


def test_what_a_source_reads_stands_for_itself_where_it_was_typed_and_nowhere_else(tree: Path) -> None:
    source = zooft.Source(
        name="deep",
        summary="",
        recognises=lambda path: path.name in {"deeper", "c.png"},
        columns=lambda _path: [],
        rows=lambda _path, _wanted: iter(()),
        content=bytes,
    )
    meant = paths.files([str(tree / "in" / "deeper"), str(tree / "a.png")], sources=[source])
    assert meant.files == (tree / "in" / "deeper", tree / "a.png")
    assert meant.sources == {tree / "in" / "deeper": source}
    within = paths.files([str(tree / "in")], sources=[source])
    assert [path.name for path in within.files] == ["c.png", "d.png"]
    assert within.sources == {}
    both = paths.files([str(tree / "in"), str(tree / "in" / "c.png")], sources=[source])
    assert [path.name for path in both.files] == ["c.png", "d.png"]
    assert both.sources == {tree / "in" / "c.png": source}


def test_nothing_found_is_an_error_that_counts_what_was_left_out(tree: Path) -> None:
    (tree / ".git" / "e.png").rename(tree / ".git" / ".e")
    with pytest.raises(zooft.DataError, match=r"there are no files in .*\.git; left out: 1: hidden; the first: "):
        paths.files([str(tree / ".git")])


def test_places_are_folders_too_and_must_be_there(tree: Path) -> None:
    assert paths.places([str(tree / "in"), f"{tree}/*.png", str(tree / "in")]) == [
        tree / "in",
        tree / "a.png",
        tree / "b.png",
    ]
    with pytest.raises(zooft.DataError, match="there is nothing at nowhere"):
        paths.places([str(tree), "nowhere*"])


def test_the_summary_has_a_number_for_each_reason() -> None:
    rejected = [zooft.Rejection(str(n), ("hidden", "a link that leads nowhere")[n % 2]) for n in range(3)]
    assert paths.summary(rejected) == "left out: 2: hidden, 1: a link that leads nowhere; the first: 0"
    assert paths.summary([]) == ""
