"""zooft beside the tools that people use, alternating in one run on the same model, weights, data and epochs.

    python benchmarks/compare_peers.py --images 600 --models resnet18 --jobs head,last,full --epochs 10 --seeds 3
    python benchmarks/compare_peers.py --data FOLDER --models tf_efficientnet_lite0 --jobs head --seeds 5
    python benchmarks/compare_peers.py --ct FOLDER --window mediastinum --models tf_efficientnet_lite0 --jobs head
    --seeds 5 python benchmarks/compare_peers.py --images 600 --jobs full --epochs 1 --best-settings python
    benchmarks/compare_peers.py --memory 600,20000 python benchmarks/compare_peers.py --startup python
    benchmarks/compare_peers.py --write-docs

FOLDER holds train/CLASS and val/CLASS, or with --ct labelled CT as zooft's task ct reads it, whose slices are written
as grey pictures for all tools. --images makes that many synthetic photographs, and a fifth as many for validation. Each
run is a process of its own and one line in benchmarks/results/*.jsonl; --write-docs renders all lines there into
docs/benchmarks.md, where what was measured elsewhere stays. A tool may be given settings: timm+bf16+channels_last,
zooft+warm (a second run over the same cache). What can't be installed or run is skipped, with the reason printed and in
the table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from peers import environments, execute, ours, page, pictures, results, slices, start, startup
from peers.environments import Environment
from peers.execute import Caches, Order
from peers.job import Job
from peers.results import Comparison, Run

import zooft

HOME = Path(__file__).resolve().parent
DOCS = HOME.parent / "docs"
SIZE = 224
RATES = {"head": 5e-3, "last": 5e-4, "full": 1e-4}
"""Learning rate of the tools that have none of their own for such a job."""
TOOLS = "zooft,zooft+warm,tutorial,timm,hf,fastai,ultralytics"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder and its name in words."""

    folder: Path
    words: str


def main() -> int:
    """Run the command line; returns 1 if any run failed."""
    arguments = _arguments()
    done: list[Run] = []
    if arguments.data or arguments.ct or arguments.images:
        done = _compare(arguments, _data_sets(arguments), arguments.results / "peers.jsonl")
    if arguments.memory:
        done += _memory(arguments)
    if arguments.startup:
        _startup(arguments)
    if arguments.write_docs:
        _write_docs(arguments.results)
    return int(any(run.problem for run in done))


def orders(arguments: argparse.Namespace, data: Sequence[DataSet]) -> Iterator[list[Order]]:
    """What is to be run: a list for each round, model, job and data set, in which the tools take turns."""
    tools = arguments.tools
    for number, model, kind, where in product(range(arguments.seeds), arguments.models, arguments.jobs, data):
        job = Job(
            model=model,
            weights=str(_weights(arguments, model)),
            frozen=start.frozen(model, kind),
            data=str(where.folder),
            classes=_classes(where.folder),
            size=SIZE,
            batch=arguments.batch_size,
            epochs=arguments.epochs,
            seed=number,
            workers=arguments.workers,
            lr=RATES[kind],
            settings=(),
            log="",
            scratch="",
        )
        yield [
            Order(tool=tool, kind=kind, data=where.words, job=job, threads=arguments.threads, limit=arguments.limit)
            for tool in rotate(tools, number)
        ]


def rotate(tools: Sequence[str], number: int) -> list[str]:
    """Each round starts with another tool; a warm run stays behind the cold one that fills its cache."""
    begun = [tool for tool in tools if "warm" not in tool.split("+")]
    turn = number % max(1, len(begun))
    order = []
    for tool in begun[turn:] + begun[:turn]:
        order.append(tool)
        order += [warm for warm in tools if warm != tool and _cold(warm) == tool]
    return order + [tool for tool in tools if tool not in order]


def with_best_settings(tools: Sequence[str]) -> list[str]:
    """The tools, each followed by itself with the settings to try."""
    return [each for tool in tools for each in (tool, *(f"{tool}+{more}" for more in execute.BEST.get(tool, ())))]


def memory_table(runs: Sequence[Run]) -> str:
    """Peak memory by number of images, over that with the fewest, in Markdown."""
    lines = [
        "| model | images | peak MiB, without mapped files | with them | over the first |",
        "|---|---|---|---|---|",
    ]
    first: dict[str, float] = {}
    for run in runs:
        if run.problem:
            lines.append(f"| {run.model} | {run.data} | not run: {run.problem} | | |")
            continue
        held = run.peak_held or run.peak_process
        ratio = held / first.setdefault(run.model, held)
        lines.append(f"| {run.model} | {run.data} | {held / 2**20:.0f} | {run.peak_tree / 2**20:.0f} | {ratio:.2f} |")
    return "\n".join(lines)


def _compare(arguments: argparse.Namespace, data: Sequence[DataSet], log: Path) -> list[Run]:
    provided = {name: _provide(arguments, name) for name in sorted({tool.split("+")[0] for tool in arguments.tools})}
    helped = _help()
    done = []
    with tempfile.TemporaryDirectory(prefix="zooft-caches-") as folder:
        caches = Caches(Path(folder))
        for round_ in orders(arguments, data):
            for order in round_:
                run = _one(order, provided, caches, helped, arguments.zooft_args)
                results.append(log, run)
                done.append(run)
                print(_summary(run), flush=True)
            if round_:
                _forget(caches)
    return done


def _one(order: Order, provided: dict[str, Environment], caches: Caches, helped: str, extra: Sequence[str]) -> Run:
    name, settings = execute.parse_tool(order.tool)
    environment = provided[name]
    if name == "zooft":
        flags = [flag for setting in settings for flag in ours.SETTINGS[setting]]
        if missing := ours.lacking(flags, helped):
            environment = dataclasses.replace(
                environment, python=None, reason=f"this zooft has no {', '.join(missing)}"
            )
        return execute.run(order, environment, caches, extra=extra)
    return execute.run(order, environment, caches)


def _forget(caches: Caches) -> None:
    """Remove a round's caches: the next one has another seed."""
    for folder in caches.filled.values():
        shutil.rmtree(folder, ignore_errors=True)
    caches.filled.clear()


def _memory(arguments: argparse.Namespace) -> list[Run]:
    chosen = argparse.Namespace(
        **vars(arguments) | {"tools": ["zooft"], "jobs": ["head"], "seeds": 1, "images": arguments.memory}
    )
    done = _compare(
        chosen, [_synthetic(chosen, count) for count in arguments.memory], arguments.results / "memory.jsonl"
    )
    print(memory_table(done))
    return done


def _startup(arguments: argparse.Namespace) -> None:
    where = _synthetic(arguments, 32)
    for model in arguments.models:
        job = Job(
            model=model,
            weights=str(_weights(arguments, model)),
            frozen=(),
            data=str(where.folder),
            classes=_classes(where.folder),
            size=SIZE,
            batch=8,
            epochs=1,
            seed=0,
            workers=0,
            lr=0.0,
            settings=(),
            log="",
            scratch="",
        )
        with tempfile.TemporaryDirectory(prefix="zooft-startup-") as folder:
            found = startup.measure_startup(
                job, rounds=arguments.rounds, environment=execute.variables(arguments.threads), folder=Path(folder)
            )
        print(startup.table(found), flush=True)
        arguments.results.mkdir(parents=True, exist_ok=True)
        with (arguments.results / "startup.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(found)) + "\n")


def _write_docs(folder: Path) -> None:
    runs = results.read(path for path in [folder / "peers.jsonl"] if path.is_file())
    images: dict[Comparison, str] = {}
    for key, members in results.group(runs).items():
        name = f"images/benchmark-{page.slug(key)}.svg"
        if page.plot(key, members, DOCS / name):
            images[key] = name
    sections = page.sections(runs, images)
    memory, starts = folder / "memory.jsonl", folder / "startup.jsonl"
    if memory.is_file():
        sections["Peak memory, head only"] = memory_table(results.read([memory]))
    if starts.is_file():
        tables = [
            startup.table(startup.parse(json.loads(line))) for line in starts.read_text(encoding="utf-8").splitlines()
        ]
        sections["Start-up"] = "\n\n".join(tables)
    document = DOCS / "benchmarks.md"
    partial = document.with_name(document.name + ".partial")
    partial.write_text(page.insert(document.read_text(encoding="utf-8"), sections), encoding="utf-8")
    partial.replace(document)
    print(f"written: {len(sections)} sections of {document.relative_to(HOME.parent)} and {len(images)} plots")


def _provide(arguments: argparse.Namespace, name: str) -> Environment:
    if name in environments.PINS:
        print(f"environment of {name}: {', '.join(environments.PINS[name])}", flush=True)
        _hide(arguments.venvs)
    environment = environments.provide(name, arguments.venvs, shared=not arguments.separate)
    if environment.python is None:
        print(f"{name} is skipped: {environment.reason}", flush=True)
    if name == "zooft":
        return dataclasses.replace(environment, versions=environment.versions | {"zooft": zooft.__version__})
    return environment


def _data_sets(arguments: argparse.Namespace) -> list[DataSet]:
    real = [DataSet(folder, _describe(folder)) for folder in arguments.data]
    real += [_from_ct(arguments, folder) for folder in arguments.ct]
    return real + [_synthetic(arguments, count) for count in arguments.images]


def _from_ct(arguments: argparse.Namespace, source: Path) -> DataSet:
    _hide(arguments.made)
    place = arguments.made / f"{source.name}-{arguments.window.replace('/', '-')}"
    try:
        made = slices.write(source, place, window=arguments.window)
    except zooft.ZooftError as error:
        raise SystemExit(f"--ct {source}: {error}") from error
    return DataSet(made, _describe(made))


def _synthetic(arguments: argparse.Namespace, count: int) -> DataSet:
    _hide(arguments.made)
    val = max(len(pictures.CLASSES), count // 5)
    print(f"{count} + {val} synthetic images", flush=True)
    folder = pictures.make(arguments.made / f"synthetic-{count}-{val}", train=count, val=val)
    return DataSet(folder, f"{count:,} synthetic training and {val:,} validation images")


def _describe(folder: Path) -> str:
    counts = [sum(path.is_file() for path in (folder / split).rglob("*")) for split in ("train", "val")]
    return f"{folder.name}: {counts[0]:,} training and {counts[1]:,} validation images"


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))


def _weights(arguments: argparse.Namespace, model: str) -> Path:
    pretrained = arguments.pretrained or start.at_hand(model)
    return start.weights(model, arguments.made / "weights", pretrained=pretrained)


def _hide(folder: Path) -> None:
    """Keep the folder out of git."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")


def _help() -> str:
    command = [sys.executable, "-m", "zooft", "finetune", "--task", "classification", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir()).stdout


def _summary(run: Run) -> str:
    what = f"{run.model} {run.job} seed {run.seed} {run.tool}: "
    if run.problem:
        return what + run.problem
    best = f", balanced accuracy {run.best.balanced_accuracy:.3f}" if run.best else ""
    return what + f"{run.cpu:.1f} CPU s, {run.wall:.1f} s, {(run.peak_held or run.peak_process) / 2**20:.0f} MiB{best}"


def _cold(tool: str) -> str:
    return "+".join(part for part in tool.split("+") if part != "warm")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is run")
    what.add_argument(
        "--data",
        type=_folder,
        action="append",
        default=[],
        metavar="FOLDER",
        help="with train/CLASS and val/CLASS; may be repeated",
    )
    what.add_argument(
        "--ct", type=Path, action="append", default=[], metavar="FOLDER", help="labelled CT; may be repeated"
    )
    what.add_argument("--window", default="lung", help="of --ct, HU: a name or CENTER/WIDTH [default: lung]")
    what.add_argument("--images", type=_numbers, default=[], metavar="N,…", help="synthetic training images")
    what.add_argument(
        "--models", type=_words, default=["resnet18"], metavar="NAME,…", help="timm's names [default: resnet18]"
    )
    what.add_argument(
        "--jobs", type=_jobs, default=list(start.FREEZERS), metavar="JOB,…", help="head, last, full [default: all]"
    )
    what.add_argument("--tools", type=_tools, default=_tools(TOOLS), metavar="TOOL,…", help=f"[default: {TOOLS}]")
    what.add_argument(
        "--best-settings",
        action="store_true",
        help="run each tool with combinations of bf16, channels_last and compile too",
    )
    what.add_argument("--epochs", type=int, default=10)
    what.add_argument("--batch-size", type=int, default=32)
    what.add_argument("--seeds", type=int, default=1, help="rounds, each with a seed of its own [default: 1]")
    what.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS [default: 1]")
    what.add_argument("--workers", type=int, default=2, help="loader processes of the other tools [default: 2]")
    what.add_argument(
        "--pretrained",
        action="store_true",
        help="pretrained weights, which timm downloads where no package has them; else random ones",
    )
    what.add_argument("--zooft-args", type=str.split, default=[], metavar="'--FLAG …'", help="more flags for zooft")
    what.add_argument("--limit", type=float, default=7200, help="seconds after which a run is stopped [default: 7200]")
    other = parser.add_argument_group("other measurements and output")
    other.add_argument(
        "--memory", type=_numbers, default=[], metavar="N,…", help="zooft's peak memory with so many images"
    )
    other.add_argument("--startup", action="store_true", help="zooft --help, and the time to the first training step")
    other.add_argument("--rounds", type=int, default=5, help="of --startup [default: 5]")
    other.add_argument("--write-docs", action="store_true", help="render all results into docs/benchmarks.md")
    other.add_argument("--results", type=Path, default=HOME / "results", help="[default: benchmarks/results]")
    other.add_argument(
        "--venvs", type=Path, default=HOME / ".venvs", help="the tools' environments [default: benchmarks/.venvs]"
    )
    other.add_argument(
        "--made",
        type=Path,
        default=HOME / ".data",
        help="synthetic images and initial weights [default: benchmarks/.data]",
    )
    other.add_argument(
        "--separate", action="store_true", help="install torch into each environment anew, several GB each"
    )
    arguments = parser.parse_args()
    if arguments.best_settings:
        arguments.tools = with_best_settings(arguments.tools)
    jobs = (arguments.data, arguments.ct, arguments.images, arguments.memory, arguments.startup, arguments.write_docs)
    if not any(jobs):
        parser.error("nothing to do: give --data, --ct, --images, --memory, --startup or --write-docs")
    _hide(arguments.results)
    return arguments


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


def _jobs(text: str) -> list[str]:
    unknown = [word for word in _words(text) if word not in start.FREEZERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such job: {', '.join(unknown)}; choose among {', '.join(start.FREEZERS)}")
    return _words(text)


def _tools(text: str) -> list[str]:
    try:
        for word in _words(text):
            execute.parse_tool(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return _words(text)


def _folder(text: str) -> Path:
    folder = Path(text).resolve()
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise argparse.ArgumentTypeError(
                f"{text} has no folder {split}; it must hold train/CLASS/… and val/CLASS/…"
            )
    return folder


if __name__ == "__main__":
    sys.exit(main())
