"""What starts often starts quickly: no torch in the command line, the registry, the runtime or a task's reader."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

HEAVY = ("torch", "torchvision", "timm", "sklearn", "matplotlib", "accelerate", "pyarrow")

REPORT = f"""
import json, sys
loaded = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps(loaded), file=sys.stderr)
"""

RUN_COMMAND = """
import sys
from zooft.cli import main
sys.argv = {arguments}
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""

READ_IMAGE = """
from pathlib import Path
from zooft.hooks import registry
task = registry.load().task("classification")
options = task.options()
array = task.read(Path("picture.png"), options)
assert array.shape == (6, 8, 3)
assert task.port(options).dtype == str(array.dtype)
assert task.discover(Path("data"), options).samples
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    (tmp_path / "data" / "a").mkdir(parents=True)
    for path in (tmp_path / "picture.png", tmp_path / "data" / "a" / "1.png"):
        Image.new("RGB", (8, 6)).save(path)
    return tmp_path


def heavy_after(code: str, folder: Path) -> list[str]:
    """Which heavy packages a fresh Python has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    return loaded


def command(*arguments: str) -> str:
    return RUN_COMMAND.format(arguments=["zooft", *arguments])


ALWAYS_LIGHT = {
    "the package": "import zooft",
    "its layers 0 and 1": "import zooft.errors, zooft.contracts, zooft.config, zooft.hooks.specs, zooft.hooks.loading, zooft.hooks.registry",
    "the command line": "import zooft.cli",
    "the runtime": "import zooft.runtime",
    "run folders": "import zooft.run.folder, zooft.data.samples, zooft.data.split",
    "finding plugins": "from zooft.hooks import loading; assert not loading.discover().broken",
    "zooft --help": command("--help"),
    "zooft --version": command("--version"),
    "zooft cache --help": command("cache", "--help"),
    "zooft finetune --help": command("finetune", "--help"),
    "zooft predict --help": command("predict", "--help"),
    "zooft serve --help": command("serve", "--help"),
    "zooft weights fetch --help": command("weights", "fetch", "--help"),
}
THROUGH_THE_REGISTRY = {
    "what plugins register": "from zooft.hooks import registry; assert registry.load().tasks",
    "zooft finetune --task classification --help": command("finetune", "--task", "classification", "--help"),
    "zooft tasks": command("tasks"),
    "zooft plugins": command("plugins", "--json"),
    "reading an image": READ_IMAGE,
}


@pytest.mark.parametrize("code", ALWAYS_LIGHT.values(), ids=ALWAYS_LIGHT)
def test_nothing_heavy_is_loaded_for(code: str, folder: Path) -> None:
    assert heavy_after(code, folder) == []


@pytest.mark.parametrize("code", THROUGH_THE_REGISTRY.values(), ids=THROUGH_THE_REGISTRY)
def test_nothing_heavy_is_loaded_through_the_registry_for(code: str, folder: Path) -> None:
    assert heavy_after(code, folder) == []


def test_the_check_sees_what_is_heavy(folder: Path) -> None:
    assert "matplotlib" in heavy_after("import matplotlib", folder)


def test_help_loads_little_more_than_python_itself(folder: Path) -> None:
    """What is loaded is counted: how long it takes depends on the machine, and is measured by the benchmarks."""
    code = "import sys; before = set(sys.modules)\n" + command("--help")
    code += "import json; print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    loaded: list[str] = json.loads(done.stderr.splitlines()[-1])
    foreign = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert foreign == {"click", "zooft"}
    assert len(loaded) < 160
    assert len([name for name in loaded if name.startswith("zooft")]) < 15


def test_importing_zooft_does_nothing_but_import(folder: Path) -> None:
    """No file is written, no plugin is searched for, no logging is set up."""
    code = dedent("""
        import logging, sys
        import zooft, zooft.cli
        assert "importlib.metadata" not in sys.modules or not [m for m in sys.modules if m.startswith("zooft_")]
        assert not logging.getLogger().handlers
        assert not logging.getLogger("zooft").handlers
    """)
    before = sorted(folder.rglob("*"))
    heavy_after(code, folder)
    assert sorted(folder.rglob("*")) == before
