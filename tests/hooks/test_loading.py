"""One broken plugin is dropped with its reason; the others work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from textwrap import dedent

import pytest

from zooft.hooks import loading, registry
from zooft.hooks.loading import Plugins

Install = Callable[..., list[EntryPoint]]

GOOD = """
import zooft

@zooft.hookimpl
def zooft_register_heads():
    return [zooft.Head(name="{name}", summary="a head", build=lambda width, outputs: None)]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make an installed distribution whose plugins are given by their source; its entry points come back."""
    monkeypatch.syspath_prepend(tmp_path)
    written: list[str] = []

    def make(distribution: str = "stranger", version: str = "1.0", **sources: str) -> list[EntryPoint]:
        folder = tmp_path / f"{distribution}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = ["[zooft]"]
        for name, source in sources.items():
            module = f"{distribution}_{name}"
            (tmp_path / f"{module}.py").write_text(dedent(source))
            lines.append(f"{name} = {module}")
            written.append(module)
        (folder / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()
        return list(Distribution.at(folder).entry_points)

    yield make
    for module in written:
        sys.modules.pop(module, None)


def problem_of(found: Plugins, name: str) -> str:
    problem = found.info(name).problem
    assert problem is not None
    return problem


def heads_of(found: Plugins) -> list[str]:
    return [entry.value.name for entry in registry.load(found).heads]


def test_a_working_plugin_is_found_with_its_distribution(install: Install) -> None:
    found = loading.discover(install("nice", "2.1", mine=GOOD.format(name="mine")))
    assert (found.info("mine").distribution, found.info("mine").version) == ("nice", "2.1")
    assert not found.broken
    assert heads_of(found) == ["mine"]


def test_the_installed_plugins_all_work() -> None:
    found = loading.discover()
    assert {info.name for info in found.infos} >= {"standard", "timm", "torchvision", "images"}
    assert not found.broken


BROKEN = {
    "raises": ("raise RuntimeError('no licence found')", "RuntimeError: no licence found"),
    "needs_another_package": ("import a_package_that_is_nowhere", "ModuleNotFoundError"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "isnt_python": ("def (", "SyntaxError"),
    "misspells_a_hook": (
        "import zooft\n@zooft.hookimpl\ndef zooft_register_haeds():\n    return []",
        "zooft_register_haeds",
    ),
    "asks_for_an_unknown_argument": (
        "import zooft\n@zooft.hookimpl\ndef zooft_on_start(run, colour):\n    pass",
        "colour",
    ),
    "is_from_the_future": (f"zooft_api = 99\n{GOOD.format(name='future')}", "version 99"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_plugin_that_cannot_be_used_is_dropped_and_the_others_work(kind: str, install: Install) -> None:
    source, reason = BROKEN[kind]
    found = loading.discover(install(broken=source, after=GOOD.format(name="after"), zz=GOOD.format(name="zz")))
    assert reason in problem_of(found, "broken")
    assert [info.name for info in found.broken] == ["broken"]
    assert heads_of(found) == ["after", "zz"]


def test_a_dropped_plugin_registers_nothing_at_all(install: Install) -> None:
    half_good = GOOD.format(name="half") + "\n@zooft.hookimpl\ndef zooft_on_stop():\n    pass\n"
    found = loading.discover(install(half=half_good))
    assert found.broken
    assert heads_of(found) == []


def test_a_dropped_plugin_is_warned_about_with_its_distribution(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    loading.discover(install("sad", "0.3", broken="raise RuntimeError('no licence found')"))
    (record,) = caplog.records
    assert "the plugin broken of sad 0.3 is left out" in record.getMessage()
    assert "no licence found" in record.getMessage()


def test_the_reason_for_another_api_version_names_both_versions(install: Install) -> None:
    found = loading.discover(install(broken="zooft_api = 99"))
    assert "version 99" in problem_of(found, "broken")
    assert f"version {loading.API_VERSION}" in problem_of(found, "broken")


def test_a_plugin_may_say_that_it_is_for_this_api_version(install: Install) -> None:
    source = f"zooft_api = {loading.API_VERSION}\n{GOOD.format(name='mine')}"
    assert not loading.discover(install(mine=source)).broken


def test_a_plugin_whose_module_is_missing_is_dropped() -> None:
    found = loading.discover([EntryPoint("ghost", "a_module_that_is_nowhere", "zooft")])
    assert "a_module_that_is_nowhere" in problem_of(found, "ghost")
    assert found.info("ghost").distribution == "unknown"


def test_a_keyboard_interrupt_during_an_import_is_not_swallowed(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        loading.discover(install(slow="raise KeyboardInterrupt"))


def test_of_two_entry_points_with_one_name_the_second_is_dropped(install: Install) -> None:
    first = install("first", mine=GOOD.format(name="first"))
    second = install("second", mine=GOOD.format(name="second"))
    found = loading.discover([*first, *second])
    assert heads_of(found) == ["first"]
    (dropped,) = found.broken
    assert dropped.distribution == "second"
    assert "another package's plugin is called 'mine'" in str(dropped.problem)


def test_where_the_first_of_two_with_one_name_is_broken_the_second_owns_what_it_registers(install: Install) -> None:
    first = install("first", mine="raise RuntimeError('torn')")
    second = install("second", mine=GOOD.format(name="second"))
    loaded = registry.load(loading.discover([*first, *second]))
    (entry,) = loaded.heads
    assert entry.owner.distribution == "second"


def test_one_module_behind_two_entry_points_works_once(install: Install) -> None:
    (only,) = install(mine=GOOD.format(name="mine"))
    found = loading.discover([only, EntryPoint("twin", only.value, "zooft")])
    assert heads_of(found) == ["mine"]
    assert [info.name for info in found.broken] == ["twin"]


def test_plugins_are_loaded_in_the_order_of_their_names(install: Install) -> None:
    found = loading.discover(install(b=GOOD.format(name="b"), c=GOOD.format(name="c"), a=GOOD.format(name="a")))
    assert [info.name for info in found.infos] == ["a", "b", "c"]


def test_two_managers_share_nothing(install: Install) -> None:
    found = loading.discover(install(mine=GOOD.format(name="mine")))
    assert found.manager.has_plugin("mine")
    assert not loading.new_manager().has_plugin("mine")
