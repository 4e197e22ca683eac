"""An import stands inside a function only where that keeps a package from loading that its module can do without.

Read from the source, nothing is run: what a module loads at its top, through all of zooft's modules that it names there,
against what the import inside the function adds to it.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_EVERYWHERE = {"resource"}
"""Of the standard library, but not on every system."""
LIGHT = {"annotated_types", "click", "pluggy"}
"""What the command line loads in any case."""
OWN_WEIGHT = ("onnxruntime.quantization", "onnxruntime.transformers", "torch.utils.tensorboard")
"""Parts of packages that load another package."""
BRINGS = {
    "accelerate": {"torch", "numpy"},
    "matplotlib": {"numpy"},
    "onnx": {"numpy"},
    "onnxruntime": {"numpy"},
    "onnxruntime.quantization": {"onnx", "onnxruntime", "numpy"},
    "onnxruntime.transformers": {"onnx", "onnxruntime", "numpy"},
    "scipy": {"numpy"},
    "sklearn": {"numpy", "scipy"},
    "timm": {"PIL", "numpy", "torch", "torchvision"},
    "torch": {"numpy"},
    "torchvision": {"PIL", "numpy", "torch"},
}
"""Packages and what they load themselves."""

Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def modules() -> dict[str, Path]:
    found = {}
    for base in (ROOT, ROOT / "plugins"):
        for path in base.glob("zooft*/**/*.py"):
            parts = path.relative_to(base).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


class Source:
    """Modules by name, what each imports at its top, and what it imports inside functions."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in texts.items()}
        # zooft's public names are loaded when they are used; their modules stand under TYPE_CHECKING
        self.public = {
            alias.name: node.module
            for node in ast.walk(self.trees.get("zooft", ast.Module([], [])))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        self.top = {
            name: [target for node in imports(tree, inside=False) for target in self.targets(node)]
            for name, tree in self.trees.items()
        }
        self.packages = functools.cache(self._packages)

    def targets(self, node: ast.Import | ast.ImportFrom) -> list[str]:
        """The modules that an import loads."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        assert node.module is not None
        assert not node.level, "imports name the whole module"
        whole = [f"{node.module}.{alias.name}" for alias in node.names]
        if node.module == "zooft":
            return [name if name in self.trees else self.public[name.removeprefix("zooft.")] for name in whole]
        return [name if name in self.trees or name in OWN_WEIGHT else node.module for name in whole]

    def _packages(self, module: str) -> set[str]:
        """What others' packages importing `module` loads."""
        found: set[str] = set()
        seen: set[str] = set()
        todo = [module]
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if name in self.trees:
                parts = name.split(".")
                todo += [".".join(parts[:n]) for n in range(1, len(parts))] + self.top[name]
            else:
                found |= package(name)
        return found - LIGHT

    def needless(self) -> Iterator[str]:
        for name, tree in self.trees.items():
            for node in imports(tree, inside=True):
                loaded = set().union(*(self.packages(target) for target in self.targets(node)))
                if loaded <= self.packages(name) and not NOT_EVERYWHERE & set(self.targets(node)):
                    yield f"{name}:{node.lineno}: {ast.unparse(node)}"


def package(name: str) -> set[str]:
    """The package that a module is in, and those that this one loads; nothing for the standard library."""
    part = next((part for part in OWN_WEIGHT if name == part or name.startswith(f"{part}.")), name.partition(".")[0])
    return set() if part in sys.stdlib_module_names else {part, *BRINGS.get(part, ())}


def imports(tree: ast.AST, *, inside: bool, within: bool = False) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports at a module's top, or inside its functions; none that only a type checker sees."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import | ast.ImportFrom) and inside == within:
            yield child
        yield from imports(child, inside=inside, within=within or isinstance(child, Function))


def test_imports_inside_functions_keep_packages_from_loading() -> None:
    source = Source({name: path.read_text(encoding="utf-8") for name, path in modules().items()})
    assert list(source.needless()) == []


HEAVY = {
    "zooft": "",
    "zooft.light": "import click",
    "zooft.heavy": "import torch",
    "zooft.reaches": "from zooft import heavy",
}


@pytest.mark.parametrize(
    ("text", "needless"),
    [
        ("def f():\n    import json", True),
        ("def f():\n    import resource", False),
        ("def f():\n    import torch", False),
        ("def f():\n    from zooft import light", True),
        ("def f():\n    from zooft import reaches", False),
        ("import timm\ndef f():\n    import torch", True),
        ("from zooft import reaches\ndef f():\n    import numpy", True),
        ("from zooft.reaches import name\ndef f():\n    from zooft.heavy import name", True),
        ("import torch\ndef f():\n    from torch.utils.tensorboard import SummaryWriter", False),
        ("class A:\n    def f(self):\n        def g():\n            import json", True),
    ],
)
def test_the_check_sees_what_an_import_loads(text: str, needless: bool) -> None:
    assert bool(list(Source({**HEAVY, "zooft.module": text}).needless())) is needless
