"""``zooft plugins``: a first draft of each kind installs, works and conforms; checks name what doesn't."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import example_data
import pytest
from commands import command

from zooft.cli.plugins import KINDS


@pytest.fixture(scope="module")
def drafts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One plugin of each kind, as `zooft plugins new` writes it."""
    folder = tmp_path_factory.mktemp("drafts")
    for kind in KINDS:
        command("plugins", "new", f"my-{kind}", "--kind", kind, "--out", folder / kind)
    return folder


@pytest.fixture(scope="module")
def site(drafts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them installed, by pip from copies, since setuptools writes beside its sources; nothing is downloaded."""
    copies, target = tmp_path_factory.mktemp("copies"), tmp_path_factory.mktemp("site")
    for kind in KINDS:
        shutil.copytree(drafts / kind, copies / kind)
    call = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--target",
        str(target),
        *(str(copies / kind) for kind in KINDS),
    ]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(site)
    return site


@pytest.mark.slow
def test_the_tests_of_every_draft_pass_on_what_is_installed(drafts: Path, site: Path, tmp_path: Path) -> None:
    """Copied away from their packages, so that they find the installed modules alone."""
    for kind in KINDS:
        shutil.copytree(drafts / kind / "tests", tmp_path / kind)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    call = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-rA",
        str(tmp_path),
    ]
    done = subprocess.run(
        call, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert {line.split()[1].partition("/")[0] for line in passed} == set(KINDS)
    assert (
        len(passed)
        == sum((drafts / kind / "tests" / "test_plugin.py").read_text().count("\ndef test_") for kind in KINDS) + 4
    )


def test_they_are_listed_with_what_they_do_and_how_long_their_import_took(installed: Path) -> None:
    rows = {row["plugin"]: row for row in json.loads(command("plugins", "--json").stdout)}
    assert rows["my-head"]["registers"] == {"heads": ["my-head"]}
    assert rows["my-events"]["registers"] == {}
    assert rows["my-events"]["listens_to"] == ["zooft_on_start", "zooft_on_epoch_end", "zooft_on_end"]
    for kind in KINDS:
        row = rows[f"my-{kind}"]
        assert (row["distribution"], row["version"], row["problem"]) == (f"zooft-my-{kind}", "0.1.0", None)
        assert 0 < row["import_seconds"] < 60
    table = command("plugins").stdout
    assert "listens to start, epoch_end, end" in table
    assert "import s" in table


@pytest.mark.parametrize(
    ("name", "options", "outcomes"),
    [
        ("my-family", [], {"check_plugin my-family": "passed", "check_family my-family": "passed"}),
        ("my-head", [], {"check_plugin my-head": "passed", "check_head my-head": "passed"}),
        (
            "my-freezer",
            ["--freeze", "my-freezer:3"],
            {"check_plugin my-freezer": "passed", "check_freezer my-freezer:3": "passed"},
        ),
        ("my-task", [], {"check_plugin my-task": "passed", "check_task my-task": "passed"}),
        ("my-weights", [], {"check_plugin my-weights": "passed", "check_weights my-weights": "not checked"}),
        ("my-source", [], {"check_plugin my-source": "passed", "check_source my-source": "not checked"}),
        ("my-events", [], {"check_plugin my-events": "passed"}),
    ],
    ids=KINDS,
)
def test_the_kit_is_run_on_all_that_a_plugin_registers(
    name: str, options: list[str], outcomes: dict[str, str], installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ZOOFT_MY_WEIGHTS_FOLDER", raising=False)
    rows = json.loads(command("plugins", "check", name, *options, "--json").stdout)
    assert {f"{row['check']} {row['subject']}": row["status"] for row in rows} == outcomes


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Data in the form of the drafted source: a dozen pictures of two classes."""
    lines = []
    for number in range(12):
        name, level = (("cat", 40), ("dog", 210))[number % 2]
        example_data.save(tmp_path / f"{number}.png", level, seed=number)
        lines.append(json.dumps({"file": f"{number}.png", "label": name}))
    path = tmp_path / "pets.my-source.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_a_drafted_source_is_checked_on_data_of_its_form_and_fails_on_others(installed: Path, pets: Path) -> None:
    rows = json.loads(command("plugins", "check", "my-source", "--data", pets, "--json").stdout)
    assert [(row["check"], row["status"]) for row in rows] == [("check_plugin", "passed"), ("check_source", "passed")]
    other = command("plugins", "check", "my-source", "--data", pets.parent, status=1).stdout
    assert "expected True for data of its own form" in other


def test_a_drafted_source_is_learnt_from(installed: Path, pets: Path, tmp_path: Path) -> None:
    command(
        "finetune",
        "--task",
        "classification",
        "--data",
        pets,
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--freeze",
        "none",
        "--epochs",
        "1",
        "--bootstrap",
        "0",
        "--no-export",
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [label["categories"] for label in record["labels"]] == [["cat", "dog"]]
    known = csv.DictReader((tmp_path / "run" / "samples.csv").read_text().splitlines())
    assert {row["id"]: row["target"] for row in known} == {
        f"pets.my-source.jsonl/{number + 1}": ("cat", "dog")[number % 2] for number in range(12)
    }


def test_freezers_of_which_some_want_an_argument_are_checked_or_reported_not_to_be() -> None:
    lines = command("plugins", "check", "standard").stdout.splitlines()
    messages = {line[12:].partition(" (")[0]: line[:12].strip() for line in lines}
    assert messages["check_freezer backbone"] == "passed"
    assert messages["check_freezer first"] == "not checked"
    assert messages["check_head linear"] == "passed"
    assert "failed" not in messages.values()


BROKEN = """
import zooft
from torch import nn

print("a word at the import")

class Batch(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.linear = nn.Linear(width, outputs)
    def forward(self, x):
        return self.linear(x - x.mean(0))

@zooft.hookimpl
def zooft_register_heads():
    return [zooft.Head(name="batchy", summary="", build=Batch),
            zooft.Head(name="fine", summary="", build=lambda width, outputs: nn.Linear(width, outputs))]

@zooft.hookimpl
def zooft_on_end(ended):
    raise SystemExit(0)
"""


def install_module(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}_module.py").write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[zooft]\n{name} = {name}_module\n")


def test_what_is_wrong_is_reported_a_line_a_check_and_by_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(tmp_path, "broken", BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    done = command("plugins", "check", "broken", status=1)
    plugin, batchy, fine = done.stdout.splitlines()
    assert plugin.startswith("failed      check_plugin broken")
    assert "zooft_on_end failed in a run that finishes: SystemExit: 0; a listener mustn't end a run" in plugin
    assert batchy.startswith("failed      check_head batchy")
    assert "answers a sample by the others in its batch" in batchy
    assert fine.startswith("passed      check_head fine")
    rows = json.loads(command("plugins", "check", "broken", "--json", status=1).stdout)
    assert [row["status"] for row in rows] == ["failed", "failed", "passed"]


def test_a_plugin_that_was_left_out_fails_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_module(tmp_path, "hookless", "x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    done = command("plugins", "check", "hookless", status=1)
    assert "failed      check_plugin hookless" in done.stdout
    assert "it is left out: it has no hook" in done.stdout
    assert "listens" not in command("plugins").stdout.partition("hookless")[2].partition("\n")[0]


def test_a_plugin_whose_hooks_give_nothing_is_reported_to_do_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_module(tmp_path, "idle", "import zooft\n@zooft.hookimpl\ndef zooft_register_heads(): return []")
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = [line for line in command("plugins").stdout.splitlines() if line.strip().startswith("idle")]
    assert "registers nothing and listens to nothing" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["standart"], "there is no plugin 'standart'; nearest: standard"),
        (["standard", "--freeze", "first"], "--freeze first: standard has freezers"),
        (["standard", "--freeze", "mine:2"], "write NAME:WHAT, with NAME one of these"),
        (["timm", "--backbone", "torchvision:resnet18"], "--backbone torchvision:resnet18: timm has families timm"),
    ],
)
def test_examples_of_what_a_plugin_does_not_have_are_refused(arguments: list[str], words: str) -> None:
    assert words in " ".join(command("plugins", "check", *arguments, status=2).stderr.split())


def test_a_family_of_many_models_is_checked_by_the_one_that_is_named() -> None:
    assert "it has" in command("plugins", "check", "timm").stdout
    rows = json.loads(command("plugins", "check", "timm", "--backbone", "timm:test_resnet", "--json").stdout)
    assert [(row["subject"], row["status"]) for row in rows] == [("timm", "passed"), ("timm:test_resnet", "passed")]


# New ones


def test_a_draft_is_a_package_of_its_own(drafts: Path) -> None:
    folder = drafts / "task"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "README.md",
        "pyproject.toml",
        "tests/test_plugin.py",
        "zooft_my_task.py",
    ]
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["entry-points"]) == ("zooft-my-task", {"zooft": {"my-task": "zooft_my_task"}})
    assert "zooft plugins check my-task" in (folder / "README.md").read_text()


def test_drafts_use_nothing_but_public_names_and_import_torch_where_it_is_needed(drafts: Path) -> None:
    import ast

    import zooft

    for kind in KINDS:
        tree = ast.parse((drafts / kind / f"zooft_my_{kind}.py").read_text())
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zooft"
        }
        assert used <= set(zooft.__all__)
        at_the_top = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert {line.split()[1] for line in at_the_top} <= {"zooft", "os", "pathlib", "dataclasses", "json"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My Head", "lower-case letters and digits, in parts joined by '-', a letter first, such as 'my-head'"),
        ("../evil", "can't be the name of a plugin"),
        ("zooft-mine", "leave 'zooft' out of the name"),
        ("ct", "there is a plugin 'ct' already, of zooft"),
        ("efficientnet-lite", "there is a plugin 'efficientnet_lite' already, of zooft"),
        ("attention", "the plugin standard of zooft registers head 'attention' already"),
    ],
)
def test_names_that_cannot_be_or_are_taken_are_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in " ".join(command("plugins", "new", name, "--kind", "head", status=2).stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zooft-lamps").mkdir()
    assert "zooft-lamps exists already" in command("plugins", "new", "lamps", "--kind", "task", status=2).stderr
    assert list((tmp_path / "zooft-lamps").iterdir()) == []
    messages = json.loads(command("plugins", "new", "lamps", "--kind", "task", "--out", "other", "--json").stdout)
    assert messages == {
        "folder": "other",
        "files": ["README.md", "pyproject.toml", "tests/test_plugin.py", "zooft_lamps.py"],
    }
