"""CPU time and memory of `zooft predict` over many pictures, against decoding and bare onnxruntime calls.

    python benchmarks/predicting.py MODEL.onnx FOLDER [--pictures 500 2000] [--threads 1] [--rounds 2]

Both in processes of their own, alternately, from start to end: imports and opening the file count. MODEL.onnx is of a
task of pictures, FOLDER holds the pictures. Prints a Markdown table, and whether both gave the same probabilities.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ZOOFT = [sys.executable, "-m", "zooft"]
BARE = """
import sys
from pathlib import Path

import numpy, onnxruntime
from PIL import Image, ImageOps

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
with open(sys.argv[4], "w") as out:
    for path in sorted(Path(sys.argv[3]).iterdir()):
        image = numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        found = session.run(["probabilities"], {"images": image[None]})[0][0]
        print(path, *map(repr, found.tolist()), sep=",", file=out)
"""


@dataclass(frozen=True)
class Cost:
    """Of one process: CPU and wall seconds, and the most memory that it held, in MB."""

    cpu: float
    wall: float
    memory: float


def main() -> None:
    arguments = _arguments()
    print("| pictures | threads | | CPU seconds | wall seconds | CPU to bare | most memory, MB | same probabilities |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    files = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})
    for count in arguments.pictures:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as made:
            scratch, some = Path(made), Path(made) / "pictures"
            some.mkdir()
            for path in files[:count]:
                os.link(path, some / path.name)
            compare(arguments.model, some, scratch, threads=arguments.threads, rounds=arguments.rounds)


def compare(model: Path, pictures: Path, scratch: Path, *, threads: int, rounds: int) -> None:
    """Print the fastest round of each."""
    table, bare = scratch / "answers.csv", scratch / "bare.csv"
    ways = {
        "bare onnxruntime": [sys.executable, "-c", BARE, model, str(threads), pictures, bare],
        "zooft predict": [*ZOOFT, "predict", model, pictures, "--out", table, "--threads", threads],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            costs[name].append(measure([str(word) for word in command]))
    least = {name: min(found, key=lambda cost: cost.cpu) for name, found in costs.items()}
    same = {"bare onnxruntime": "", "zooft predict": "yes" if _same(table, bare) else "no"}
    for name, cost in least.items():
        count, ratio = len(list(pictures.iterdir())), cost.cpu / least["bare onnxruntime"].cpu
        print(
            f"| {count:,} | {threads} | {name} | {cost.cpu:.1f} | {cost.wall:.1f} | {ratio:.2f} "
            f"| {cost.memory:.0f} | {same[name]} |",
            flush=True,
        )


def measure(command: list[str]) -> Cost:
    """Run a command to its end.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss / 1024)


def _same(table: Path, bare: Path) -> bool:
    """Whether both have the same files in the same order, and the same numbers in all digits."""
    with table.open(newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    places = [place for place, name in enumerate(head) if name.startswith("p(")]
    ours = [[row[0], *(row[place] for place in places)] for row in rows]
    with bare.open(newline="", encoding="utf-8") as file:
        return ours == list(csv.reader(file))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="where links to the pictures lie, on FOLDER's disk")
    return parser.parse_args()


if __name__ == "__main__":
    main()
