"""zooft-runtime: the same code without torch and all that only training needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import example_data
import plugged
import pytest
from commands import command
from packaging.requirements import Requirement
from test_runtime import changed_metadata, written

PROJECT = example_data.REPOSITORY / "packaging" / "zooft-runtime"
WHOLE, RUNTIME = (
    tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for folder in (example_data.REPOSITORY, PROJECT)
)

COMMANDS = """
import contextlib, io, json, sys
blocked = set(json.loads(sys.argv[1]))

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
from zooft.cli import main
done = []
for arguments in json.loads(sys.argv[2]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = ["zooft", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    done.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""


ABOUT_DATA = changed_metadata(data={"train": 3, "val": 3, "group_name": "group"})


def names(project: dict[str, Any]) -> dict[str, str]:
    """Name to bound, of what a distribution needs."""
    found = [Requirement(text) for text in project["dependencies"]]
    return {one.name.lower(): str(one.specifier) for one in found}


def modules_of_training() -> list[str]:
    """What the whole of zooft brings and zooft-runtime doesn't, as modules; of these alone nothing may be needed."""
    only = names(WHOLE).keys() - names(RUNTIME).keys() - {"onnxruntime-gpu"}
    return [{"scikit-learn": "sklearn", "huggingface-hub": "huggingface_hub"}.get(name, name) for name in only]


def without(blocked: list[str], *commands: list[str | Path]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of commands in a Python that has none of these modules."""
    words = json.dumps([list(map(str, one)) for one in commands])
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(blocked), words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return [(status, out, err) for status, out, err in json.loads(done.stdout)]


def test_both_distributions_need_the_same_versions() -> None:
    whole, runtime = names(WHOLE), names(RUNTIME)
    assert {name: bound for name, bound in runtime.items() if whole.get(name) != bound} == {}
    extras = WHOLE["optional-dependencies"]
    for extra, needed in RUNTIME["optional-dependencies"].items():
        assert [text.replace("zooft-runtime", "zooft") for text in needed] == extras[extra]
    assert RUNTIME["scripts"] == WHOLE["scripts"]
    points = WHOLE["entry-points"]["zooft"]
    assert RUNTIME["entry-points"]["zooft"].items() <= points.items()


def test_torch_is_among_what_is_blocked() -> None:
    assert {"torch", "torchvision", "timm", "sklearn", "scipy", "matplotlib"} <= set(modules_of_training())


def test_files_are_used_and_evaluated_without_torch_as_with_it(tmp_path: Path) -> None:
    model = written(tmp_path, ABOUT_DATA)
    folder = example_data.write_classes(tmp_path / "d", {"zebra": 2, "ant": 2, "bee é": 2})
    expected = (
        ["predict", model, folder, "--json"],
        ["evaluate", model, "--data", folder, "--bootstrap", "20", "--json"],
    )
    doctor, *used = without(modules_of_training(), ["doctor", "--json"], *expected)
    for arguments, (status, out, err) in zip(expected, used, strict=True):
        assert status == 0, err
        assert json.loads(out) == json.loads(command(*arguments).stdout)
    messages = json.loads(doctor[1])
    assert (doctor[0], messages["problems"]) == (0, [])
    assert (messages["devices"], messages["runs"]["training"], messages["runs"]["verification"]) == ({}, None, "cpu")


def test_rows_of_tables_are_answered_and_evaluated_without_torch_as_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow isn't installed: pip install 'zooft[parquet]'")
    for name in ("parquet", "hf_datasets"):
        plugged.install(monkeypatch, tmp_path / "site", name, f"zooft_{name}")
    model, images = (
        written(tmp_path, ABOUT_DATA),
        [example_data.save(tmp_path / f"{n}.png", 60 * n, seed=n) for n in range(4)],
    )
    table = pa.table({"image": [path.read_bytes() for path in images], "label": ["ant", "zebra", "bee é", "ant"]})
    pq.write_table(table, tmp_path / "a.parquet")
    expected = [
        ["predict", model, tmp_path / "a.parquet", "--json"],
        ["evaluate", model, "--data", tmp_path / "a.parquet", "--bootstrap", "20", "--json"],
    ]
    for arguments, (status, out, err) in zip(
        expected, without([*modules_of_training(), "datasets"], *expected), strict=True
    ):
        assert status == 0, err
        assert json.loads(out) == json.loads(command(*arguments).stdout)


def test_what_needs_torch_says_in_one_sentence_what_to_install(tmp_path: Path) -> None:
    folder = example_data.write_classes(tmp_path / "d", {"a": 12, "b": 12})
    expected: list[list[str | Path]] = [
        [
            "finetune",
            "--backbone",
            "timm:test_resnet",
            "--weights",
            "random",
            "--task",
            "classification",
            "--data",
            folder,
        ],
        ["audit", folder, "--task", "classification"],
        ["backbones", "timm:test_resnet"],
        ["weights", "fetch", "timm:test_resnet", "--to", tmp_path / "w"],
        ["demo", "classification", tmp_path / "digits"],
    ]
    for arguments, (status, _, err) in zip(expected, without(modules_of_training(), *expected), strict=True):
        assert status == 1, arguments
        assert re.search(r"zooft: this needs \w+, which isn't installed here: .* pip install zooft$", err.strip()), err
        assert "a defect of zooft" not in err


def test_the_doctor_reports_both_in_one_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1" if name == "zooft-runtime" else real(name))
    messages = json.loads(command("doctor", "--json", status=1).stdout)
    assert any("both installed and own the same files" in text for text in messages["problems"])


def test_of_plugins_that_both_declare_none_is_left_out() -> None:
    from importlib import metadata

    from zooft.hooks import loading

    class Distribution(metadata.Distribution):
        def __init__(self, name: str) -> None:
            self._name = name

        def read_text(self, filename: str) -> str:
            return f"Metadata-Version: 2.1\nName: {self._name}\nVersion: 1\n" if filename == "METADATA" else ""

        def locate_file(self, path: Any) -> Path:
            return Path(path)

    def point(distribution: str) -> metadata.EntryPoint:
        return metadata.EntryPoint("images", "zooft_images", loading.GROUP)._for(Distribution(distribution))  # type: ignore[attr-defined]

    assert [info.problem for info in loading.discover([point("zooft"), point("zooft-runtime")]).infos] == [None]
    assert len(loading.discover([point("zooft"), point("another")]).broken) == 1


@pytest.mark.slow
@pytest.mark.network
def test_the_wheel_is_built_and_used_in_an_environment_of_its_own(tmp_path: Path) -> None:
    place, clean = tmp_path / "env", {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    pip = [scripts / "python", "-m", "pip", "install", "--quiet"]
    if subprocess.run([*pip, "hatchling"], check=False, env=clean).returncode:
        pytest.skip("no package index can be reached")
    subprocess.run(
        [scripts / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "hatchling"], check=True, env=clean
    )
    subprocess.run([*pip, PROJECT], check=True, env=clean)
    megabytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    assert megabytes < 400, "two thirds of it are onnxruntime, onnx and numpy"
    missing = subprocess.run([scripts / "python", "-c", "import torch"], check=False, env=clean, capture_output=True)
    assert missing.returncode
    model, folder = (
        written(tmp_path, ABOUT_DATA),
        example_data.write_classes(tmp_path / "d", {"zebra": 2, "ant": 2, "bee é": 2}),
    )
    for arguments in (["doctor"], ["predict", model, folder], ["evaluate", model, "--data", folder]):
        done = subprocess.run(
            [scripts / "zooft", *arguments, "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=clean,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        if arguments[0] == "predict":
            assert json.loads(done.stdout) == json.loads(command(*arguments, "--json").stdout)
