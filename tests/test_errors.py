"""The tree of errors, and the public names."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import zooft
from zooft import errors
from zooft.errors import FrozenChangedError, UnknownNameError, VerificationError, ZooftError

CLASSES = {
    name: value for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
}
PUBLIC = [name for name in zooft.__all__ if name != "__version__"]


def drawn() -> dict[str, str]:
    """Each error in the tree of the module's docstring, and the one that it hangs from."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        found = re.match(r"^ {4}((?:│   |    )*)(?:[├└]── )(\w+)", line)
        root = re.match(r"^ {4}(\w+Error)$", line)
        if root:
            path = [root[1]]
        elif found:
            depth = len(found[1]) // 4 + 1
            parents[found[2]] = path[depth - 1]
            path[depth:] = [found[2]]
    return parents


def test_every_error_is_drawn_in_the_tree() -> None:
    assert set(drawn()) | {"ZooftError"} == set(CLASSES)


@pytest.mark.parametrize(("name", "parent"), drawn().items())
def test_the_tree_is_the_classes_own(name: str, parent: str) -> None:
    assert CLASSES[name].__bases__ == (CLASSES[parent],)


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_is_zooft_s_and_says_what_it_means(name: str) -> None:
    assert issubclass(CLASSES[name], ZooftError)
    assert CLASSES[name].__doc__


def test_every_error_raised_in_zooft_is_one_of_the_tree() -> None:
    """Or Python's own for a caller's mistake; never a new class beside the tree."""
    sources = Path(zooft.__file__).parent.rglob("*.py")
    trees = [ast.parse(source.read_text(encoding="utf-8")) for source in sources]
    defined = [
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    assert sorted(defined) == sorted(CLASSES)


def test_an_unknown_name_carries_what_was_requested() -> None:
    error = UnknownNameError("no head", kind="head", name="lineer", near=["linear"])
    assert (str(error), error.kind, error.name, error.near) == ("no head", "head", "lineer", ("linear",))


def test_a_changed_frozen_tensor_is_carried_by_name() -> None:
    assert FrozenChangedError("moved", ["bn.running_mean"]).names == ("bn.running_mean",)


def test_a_failed_verification_carries_its_record() -> None:
    assert VerificationError("no", {"passed": False}).record == {"passed": False}


# The public names


def test_what_is_public_is_sorted_and_named_once() -> None:
    assert list(dict.fromkeys(zooft.__all__)) == zooft.__all__
    assert set(dir(zooft)) == set(zooft.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(zooft, name)
    text = inspect.getdoc(value)
    assert text
    assert not text.startswith(f"{name}("), "a dataclass's signature is no documentation"


def test_type_checkers_see_the_public_names_and_no_others() -> None:
    tree = ast.parse(Path(zooft.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    seen = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(PUBLIC)


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        zooft.nonsense  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    from importlib import metadata

    assert metadata.version("zooft") == zooft.__version__
