"""What reading WebDataset shards costs, against the same pictures as files in class folders.

    python benchmarks/shards.py [--memory 5000,50000]

Time: CPU microseconds a picture for listing (headers and labels only), for discovery (every picture decoded once) and
for reading, folder and shards in turns, the fastest of each counts. Memory: the peak of a whole run over so many
pictures, mapped files left out (Linux), and what a picture adds. Pictures are noise of many sizes, so that no two of
their facts need be equal.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from peers import measure
from PIL import Image

from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions
from zooft_images.read import read
from zooft_images.webdataset import list_shards

ROUNDS = 5
CLASSES = ("ant", "bee")
PER_SHARD = 10_000
OPTIONS = ClassificationOptions()
RUN = [
    "--backbone",
    "timm:test_efficientnet",
    "--weights",
    "random",
    "--task",
    "classification",
    "--epochs",
    "2",
    "--no-export",
]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--memory", default="5000,50000", help="numbers of pictures, with commas in between")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        times(Path(made))
    for place in (write_folder, write_shards):
        memory(place, [int(count) for count in given.memory.split(",")])


def times(root: Path, count: int = 400) -> None:
    encoded = pictures(64, smallest=400, largest=600)
    folder, shards = write_folder(root / "folder", encoded, count), write_shards(root / "shards", encoded, count)
    many = write_shards(root / "many", pictures(64, smallest=16, largest=32), 20_000)
    samples = {path: discover(path, OPTIONS).samples for path in (folder, shards)}
    jobs: dict[str, tuple[int, Callable[[], object]]] = {
        "discovery, folder": (count, lambda: discover(folder, OPTIONS)),
        "discovery, shards": (count, lambda: discover(shards, OPTIONS)),
        "reading, folder": (count, lambda: [read(one.source, OPTIONS) for one in samples[folder]]),
        "reading, shards": (count, lambda: [read(one.source, OPTIONS) for one in samples[shards]]),
        "listing, shards": (20_000, lambda: list_shards(many, OPTIONS)),
    }
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, (_, job) in jobs.items():
            start = time.process_time()
            job()
            taken[name].append(time.process_time() - start)
    print(f"CPU microseconds a picture, fastest of {ROUNDS} rounds in turns, JPEG of 400 to 600 pixels a side")
    for name, (total, _) in jobs.items():
        print(f"{name:20} {1e6 * min(taken[name]) / total:8.0f}")
    for what in ("discovery", "reading"):
        print(f"{what}, shards : folder {min(taken[f'{what}, shards']) / min(taken[f'{what}, folder']):8.2f}")


def memory(place: Callable[[Path, list[bytes], int], Path], counts: list[int]) -> None:
    encoded = pictures(1000, smallest=70, largest=100)
    print(f"{place.__name__.removeprefix('write_')}: peak MiB of a whole run (audit, frozen stages, head, report)")
    first = 0.0
    for count in counts:
        with tempfile.TemporaryDirectory() as made:
            data = place(Path(made) / "data", encoded, count)
            command = [sys.executable, "-m", "zooft", "finetune", "--data", str(data), "--out", f"{made}/run", *RUN]
            cost = measure.run(
                command, environment={**os.environ, "ZOOFT_CACHE": f"{made}/cache"}, folder=Path(made), limit=7200
            )
        if cost.status:
            raise SystemExit("\n".join(line for _, line in cost.lines))
        peak = cost.peak_held / 2**20
        first = first or peak
        added = (
            f", {(peak - first) * 2**20 / (count - counts[0]):.0f} bytes a picture more" if count > counts[0] else ""
        )
        print(f"{count:>9,} {peak:8.0f}  {peak / first:.2f} times the first{added}", flush=True)


def pictures(count: int, *, smallest: int, largest: int) -> list[bytes]:
    """Smooth noise as JPEG, which packs about as photos do."""
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        height, width = (int(side) for side in rng.integers(smallest, largest + 1, 2))
        coarse = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        encoded.append(file.getvalue())
    return encoded


def write_folder(root: Path, encoded: list[bytes], count: int) -> Path:
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    for index in range(count):
        (root / CLASSES[index % 2] / f"{index:08}.jpg").write_bytes(encoded[index % len(encoded)])
    return root


def write_shards(root: Path, encoded: list[bytes], count: int) -> Path:
    root.mkdir(parents=True)
    for start in range(0, count, PER_SHARD):
        with tarfile.open(root / f"data-{start // PER_SHARD:06}.tar", "w") as tar:
            for index in range(start, min(count, start + PER_SHARD)):
                put(tar, f"{index:08}.jpg", encoded[index % len(encoded)])
                put(tar, f"{index:08}.cls", CLASSES[index % 2].encode())
    return root


def put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    tar.members.clear()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
