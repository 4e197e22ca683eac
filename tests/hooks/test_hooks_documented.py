"""Every hook has one complete plugin in its docstring and in docs/plugins.md, and that plugin works."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace

import pytest

import zooft
from zooft import contracts, testing
from zooft.data import samples
from zooft.hooks import registry
from zooft.hooks import specs as hookspecs
from zooft.hooks.loading import PluginInfo, Plugins, new_manager
from zooft.hooks.registry import Registry
from zooft.model.backbone import load_backbone

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
HOOKS = [name for name in vars(hookspecs) if name.startswith("zooft_")]
MARKER = "A complete plugin::"


def documented(hook: str) -> str:
    """The plugin in a hook's docstring."""
    text = inspect.getdoc(getattr(hookspecs, hook))
    assert text is not None
    return dedent(text.partition(MARKER)[2]).strip()


def loaded(hook: str) -> Registry:
    """The documented plugin as a module, and nothing else, registered."""
    plugin = ModuleType(f"documented_{hook}")
    exec(compile(documented(hook), f"<{hook}>", "exec"), vars(plugin))  # noqa: S102 -- our own documentation
    manager = new_manager()
    manager.register(plugin, name="documented")
    manager.check_pending()
    found = registry.load(Plugins(manager, (PluginInfo(name="documented", distribution="docs", version="1"),)))
    assert found.problems == {}
    return found


def python_blocks(text: str) -> list[str]:
    return [block.strip() for block in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


# What each plugin does when it is used


def use_family(found: Registry, _folder: Path) -> None:
    family = found.family("mine")
    backbone = load_backbone(family, "resnet18", weights="random", sources=())
    assert backbone.width == 512
    assert list(backbone.stages) == ["stem", "layer1", "layer2", "layer3", "layer4", "pool"]
    testing.check_freezing(backbone)


def use_head(found: Registry, _folder: Path) -> None:
    testing.check_head(found.head("normed"))


def use_freezer(found: Registry, _folder: Path) -> None:
    freezer, argument = found.freezer("every-other")
    testing.check_freezer(freezer, argument)
    assert freezer.plan(("stem", "layer1", "layer2"), argument, 0).frozen == {"stem", "layer2"}


def use_task(found: Registry, folder: Path) -> None:
    import numpy as np
    from PIL import Image

    for name, level in (("day_01", 200), ("day_02", 180), ("night_01", 10), ("night_02", 30)):
        Image.fromarray(np.full((24, 30, 3), level, np.uint8)).save(folder / f"{name}.png")
    testing.check_task(found.task("daylight"), folder)
    assert [sample.target for sample in found.task("daylight").discover(folder, None).samples] == [0, 0, 1, 1]


def use_weights(found: Registry, folder: Path) -> None:
    """The server's file is one that we write: torchvision's own names, other numbers."""
    from safetensors import torch as safetensors

    family = registry.load().family("torchvision")
    trained, read = family.build("resnet18").state_dict(), safetensors.load_file
    safetensors.save_file(trained, folder / "resnet18.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ZOOFT_WEIGHTS", raising=False)
        patch.setattr(safetensors, "load_file", lambda path: read(folder / Path(path).name))
        backbone = load_backbone(
            family, "resnet18", weights="pretrained", sources=[entry.value for entry in found.weights]
        )
    assert (backbone.weights.kind, backbone.weights.source, backbone.weights.licence) == (
        "plugin",
        "our server",
        "internal",
    )
    assert backbone.module.state_dict()["conv1.weight"].equal(trained["conv1.weight"])


def use_source(found: Registry, folder: Path) -> None:
    """Its rows are the samples of the task that is installed."""
    import numpy as np
    from PIL import Image

    labels = ("cat", "dog", "cat", "dog")
    for number, _ in enumerate(labels):
        Image.fromarray(np.full((24, 30, 3), 60 * number, np.uint8)).save(folder / f"{number}.png")
    lines = [json.dumps({"file": f"{number}.png", "label": label}) for number, label in enumerate(labels)]
    (folder / "pets.jsonl").write_text("\n".join(lines))
    task = dataclasses.replace(found, tasks=registry.load().tasks).task("classification")
    discovered = samples.discover(task, folder / "pets.jsonl", task.options())
    assert [sample.id for sample in discovered.samples] == [f"pets.jsonl/{number}" for number in (1, 2, 3, 4)]
    assert [discovered.classes[sample.target] for sample in discovered.samples] == list(labels)
    for number, sample in enumerate(discovered.samples):
        (read,) = samples.read(task, task.options(), sample)
        np.testing.assert_array_equal(read, np.full((24, 30, 3), 60 * number, np.uint8))


def use_start(found: Registry, folder: Path) -> None:
    registry.announce(found, "zooft_on_start", run=folder, samples=7, started=STARTED)


def use_epoch_end(found: Registry, folder: Path) -> None:
    for epoch, loss, fold, repeated in ((1, 0.5, 2, False), (1, 0.25, None, True), (2, 0.125, None, False)):
        registry.announce(
            found, "zooft_on_epoch_end", run=folder, record=epoch_record(epoch, loss), fold=fold, repeated=repeated
        )
    assert (folder / "losses-of-fold-2.txt").read_text() == "1 0.5\n"
    assert (folder / "losses.txt").read_text() == "2 0.125\n"


def use_evaluated(found: Registry, folder: Path) -> None:
    figures = {"val": {"accuracy": contracts.Figure(value=0.5, low=0.25, high=0.75)}}
    evaluated = contracts.RunEvaluated(best_epoch=1, figures=figures, group_figures={})
    registry.announce(found, "zooft_on_evaluated", run=folder, evaluated=evaluated)
    assert (folder / "figures.txt").read_text() == "val accuracy 0.5 0.25 0.75\n"


def use_exported(found: Registry, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"12345")
    registry.announce(found, "zooft_on_exported", run=folder, model=folder / "model.onnx")
    assert (folder / "size.txt").read_text() == "5 bytes\n"


def use_verified(found: Registry, folder: Path) -> None:
    for passed, word in ((True, "passed"), (False, "failed")):
        registry.announce(found, "zooft_on_verified", run=folder, verification=SimpleNamespace(passed=passed))
        assert (folder / "badge.txt").read_text() == word


def use_end(found: Registry, folder: Path) -> None:
    ended = contracts.RunEnded(status="failed", error="the disk is full", folder=None)
    registry.announce(found, "zooft_on_end", run=folder, ended=ended)


STARTED = contracts.RunStarted(name="lamps", config={}, counts={}, resumed=True, epochs_done=3)


def epoch_record(epoch: int, train_loss: float) -> contracts.EpochRecord:
    return contracts.EpochRecord(
        epoch=epoch,
        train_loss=train_loss,
        val_loss=1.0,
        metrics={},
        learning_rate=0.1,
        seconds=1.0,
        learning=("head",),
        best=True,
    )


USES: dict[str, Callable[[Registry, Path], None]] = {
    "zooft_register_families": use_family,
    "zooft_register_heads": use_head,
    "zooft_register_freezers": use_freezer,
    "zooft_register_tasks": use_task,
    "zooft_register_weights": use_weights,
    "zooft_register_sources": use_source,
    "zooft_on_start": use_start,
    "zooft_on_epoch_end": use_epoch_end,
    "zooft_on_evaluated": use_evaluated,
    "zooft_on_exported": use_exported,
    "zooft_on_verified": use_verified,
    "zooft_on_end": use_end,
}


def test_every_hook_is_tried_here() -> None:
    assert list(USES) == HOOKS


# torch warns once a process of the array that numpy.asarray gives of a Pillow image; the next test but one is about it
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable:UserWarning")
@pytest.mark.parametrize("hook", HOOKS)
def test_the_documented_plugin_works(
    hook: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    USES[hook](loaded(hook), tmp_path)
    assert [record.getMessage() for record in caplog.records if record.name == "zooft"] == []


@pytest.mark.parametrize(
    ("hook", "words"),
    [("zooft_on_start", "lamps: training on 7 samples, from epoch 4 on"), ("zooft_on_end", "failed: the disk is full")],
)
def test_the_documented_listeners_that_log_say_what_they_hear(
    hook: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="mine"):
        USES[hook](loaded(hook), Path())
    assert [record.getMessage() for record in caplog.records] == [words]


def test_the_documented_task_reads_arrays_that_torch_takes_without_a_warning(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "day_01.png")
    task = loaded("zooft_register_tasks").task("daylight")
    assert task.read(tmp_path / "day_01.png", None).flags.writeable


# What the documentation holds


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_what_it_is_for_and_has_one_plugin(hook: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, hook))
    assert text is not None
    assert text.splitlines()[0].endswith(".")
    assert text.count(MARKER) == 1


@pytest.mark.parametrize("hook", HOOKS)
def test_the_documented_plugin_implements_its_hook_with_public_names_only(hook: str) -> None:
    tree = ast.parse(documented(hook))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert [ast.unparse(mark) for mark in functions[hook].decorator_list] == ["zooft.hookimpl"]
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zooft"
    }
    assert used <= set(zooft.__all__)


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook.startswith("zooft_register_")])
def test_registering_hooks_take_nothing(hook: str) -> None:
    assert not inspect.signature(getattr(hookspecs, hook)).parameters


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_section_in_the_docs_with_the_same_plugin(hook: str) -> None:
    _, _, section = DOCS.read_text(encoding="utf-8").partition(f"\n### `{hook}`\n")
    assert section, f"docs/plugins.md has no section for {hook}"
    assert python_blocks(section)[0] == documented(hook)


def test_the_docs_have_no_section_for_a_hook_that_is_gone() -> None:
    assert re.findall(r"^### `(zooft_\w+)`", DOCS.read_text(encoding="utf-8"), re.MULTILINE) == HOOKS


def test_all_python_in_the_docs_is_python() -> None:
    for block in python_blocks(DOCS.read_text(encoding="utf-8")):
        ast.parse(block)


def test_the_docs_name_every_check_of_the_conformance_kit() -> None:
    checks = [name for name, value in inspect.getmembers(testing, inspect.isfunction) if name.startswith("check_")]
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in checks if name not in text] == []


def test_the_first_plugin_of_the_docs_is_found_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from zooft.hooks.loading import discover

    (tmp_path / "my_zooft_plugin.py").write_text(python_blocks(DOCS.read_text(encoding="utf-8"))[0])
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.load(discover([EntryPoint("mine", "my_zooft_plugin", "zooft")]))
    assert found.problems == {}
    testing.check_head(found.head("deep"))


def test_the_first_plugin_of_the_docs_takes_twenty_lines_at_most() -> None:
    assert len(python_blocks(DOCS.read_text(encoding="utf-8"))[0].splitlines()) <= 20


def test_the_pyproject_of_the_docs_is_toml_with_the_entry_point() -> None:
    import tomllib

    (block,) = re.findall(r"^```toml\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert tomllib.loads(block)["project"]["entry-points"]["zooft"] == {"mine": "my_zooft_plugin"}


def test_the_docs_state_the_current_api_version() -> None:
    assert f"`zooft_api = {contracts.API_VERSION}`" in DOCS.read_text(encoding="utf-8")


TYPES = {
    name: kind
    for name, kind in vars(contracts).items()
    if dataclasses.is_dataclass(kind) and kind.__module__.startswith("zooft.contracts.") and name in zooft.__all__
}


def described(kind: type) -> list[str]:
    """A row for each field of a type, as its own docstring has it."""
    attributes = inspect.getdoc(kind).partition("Attributes:")[2]  # type: ignore[union-attr]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", attributes, re.MULTILINE | re.DOTALL)
    what = {name: " ".join(text.split()).replace("``", "`") for name, text in found}
    rows = []
    for field in dataclasses.fields(kind):
        default = "required"
        if field.default_factory is not dataclasses.MISSING:
            default = "empty"
        elif isinstance(field.default, type):
            default = f"`{field.default.__name__}`"
        elif callable(field.default):
            default = "optional"
        elif field.default is not dataclasses.MISSING:
            default = f"`{field.default!r}`".replace("'", '"')
        cells = (f"`{field.name}`", f"`{field.type}`", default, what.get(field.name, "MISSING IN THE DOCSTRING"))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


@pytest.mark.parametrize("name", TYPES)
def test_every_field_of_every_type_stands_in_the_docs_with_its_signature(name: str) -> None:
    _, _, section = DOCS.read_text(encoding="utf-8").partition(f"\n### {name}\n")
    assert section, f"docs/plugins.md has no section for {name}"
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    assert table[0].splitlines()[2:] == described(TYPES[name]), "docs/plugins.md: the rows should be these"
