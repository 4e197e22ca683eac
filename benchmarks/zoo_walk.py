"""Which models of each zoo can be a backbone: every name resolved, built and checked without memory for its tensors.

    python benchmarks/zoo_walk.py [FAMILY ...] [--write docs/zoo.md] [--only 'resnet*']

Of every name that a family lists: it resolves to a full name, which resolves to itself; its classifier can be taken
out; its stages hold every tensor once and compose to a trunk of ``(N, width)``, as far as shapes tell, on torch's meta
device. One process; timm's 1,371 names take about half an hour of CPU time.
"""

from __future__ import annotations

import argparse
import fnmatch
import re
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from zooft import Family
from zooft.errors import ZooftError
from zooft.hooks.registry import load
from zooft.model.backbone import outline_backbone
from zooft.model.names import full_name

FAMILIES = ("timm", "torchvision")
NOTES = """\
## What is left out of a model

VOLO has no second classifier here, which adds the best patch's scores (timm's `use_aux_head=False`), GoogLeNet and
Inception have no auxiliary classifiers, and SqueezeNet doesn't clamp its scores at zero: a checkpoint goes into the
zoo's own model built like that.

## Models that somebody has saved with timm

`--backbone timm:local-dir:FOLDER` takes what `timm.models.save_for_hf` writes, `config.json` and `model.safetensors`
(or `pytorch_model.bin`, of which nothing but tensors is unpickled). `--backbone timm:hf-hub:OWNER/NAME`, with
`@REVISION` where needed, takes the same from the hub, or from the folder that the hub's library stores its downloads
in, without a network.

A run records such a model as `architecture?key=JSON&key=JSON`: where its `config.json` differs from timm's own
settings of the architecture. This name is enough to build it, so `evaluate`, `export` and `--resume` need no folder,
and it has no path of a machine in it; the weights file's SHA-256 is in `run.json`.
""".splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """The result for one name; `problem` is None where it can be used."""

    name: str
    kind: str = ""
    stages: int = 0
    problem: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--only", default="*", help="names that match")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # timm warns of names that it maps to others
    began = time.process_time()
    registry = load()
    walked = {name: list(report(walk(registry.family(name), only=arguments.only))) for name in arguments.families}
    text = page(walked, minutes=(time.process_time() - began) / 60)
    print(text)
    if arguments.write:
        arguments.write.write_text(text, encoding="utf-8")


def walk(family: Family, *, only: str = "*") -> Iterator[Visit]:
    """Every name of a family."""
    for name in fnmatch.filter(sorted(family.models()), only):
        yield visit(family, name)


def visit(family: Family, name: str) -> Visit:
    """One name, built and checked."""
    try:
        full = full_name(family, name)
        if full_name(family, full) != full:
            return Visit(name=name, problem=f"its full name {full} isn't one")
        backbone = outline_backbone(family, full)
    except ZooftError as error:
        return Visit(name=name, problem=reason(str(error), name))
    return Visit(name=name, kind=type(backbone.module).__name__, stages=len(backbone.stages))


def reason(text: str, name: str) -> str:
    """A message without the model's own name and numbers, so that similar ones are grouped."""
    sentence = re.sub(rf"^\w+'s {re.escape(name)}(\.\w+)? ", "", text.splitlines()[0].partition(";")[0])
    return re.sub(r" \([\d, ]+\)", "", sentence).replace(name, "it")


def report(visits: Iterable[Visit]) -> Iterator[Visit]:
    for number, one in enumerate(visits, 1):
        if one.problem or number % 50 == 0:
            print(f"{number} {one.name} {one.problem or ''}", file=sys.stderr, flush=True)
        yield one


def page(walked: dict[str, list[Visit]], *, minutes: float) -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "timm", "torchvision"))
    lines = [
        "# Which models can be a backbone",
        "",
        "Every name that `zooft backbones 'timm:*'` and `zooft backbones 'torchvision:*'` list was resolved, built "
        "and checked on",
        "torch's meta device: its full name resolves to itself, its classifier can be taken out, its stages hold "
        "every tensor once and",
        f"compose to a trunk of `(N, width)`. Measured with {versions} by `benchmarks/zoo_walk.py` in {minutes:.0f} "
        "CPU minutes.",
        "",
        "| zoo | names | usable | share | classes of models | with fine stages |",
        "|---|---|---|---|---|---|",
        *(_row(zoo, visits) for zoo, visits in walked.items()),
        "",
        "A model without fine stages has the two halves `features` and `pool`, or one stage: it can be frozen as a "
        "whole, or not.",
        "",
    ]
    for zoo, visits in walked.items():
        lines += [f"## What isn't supported of {zoo}", "", *_refusals(visits), ""]
    return "\n".join([*lines, *NOTES])


def _row(zoo: str, visits: Sequence[Visit]) -> str:
    usable = [one for one in visits if one.problem is None]
    kinds, fine = {one.kind for one in usable}, sum(one.stages > 2 for one in usable)
    return f"| {zoo} | {len(visits)} | {len(usable)} | {len(usable) / len(visits):.1%} | {len(kinds)} | {fine} |"


def _refusals(visits: Sequence[Visit]) -> list[str]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in visits:
        if one.problem is not None:
            by_reason[one.problem].append(one.name)
    return [f"- {why}: {', '.join(f'`{name}`' for name in names)}" for why, names in by_reason.items()] or ["Nothing."]


if __name__ == "__main__":
    main()
