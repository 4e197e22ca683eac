"""What reading WebDataset shards costs, against the same pictures as files in class folders.

    python benchmarks/shards.py [--memory 1000,20000,100000]

Time: CPU microseconds a picture for listing (headers and labels only), for discovery (every picture decoded once) and
for reading, folder and shards in turns, the fastest of each counts. Memory: the peak of a process that discovers so many
pictures, and what a picture adds. Pictures are noise of many sizes, so that no two of their facts need be equal.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions
from zooft_images.read import read
from zooft_images.webdataset import list_shards

ROUNDS = 5
CLASSES = ("ant", "bee")
PER_SHARD = 10_000
OPTIONS = ClassificationOptions()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--memory", default="1000,20000,100000", help="numbers of pictures, with commas in between")
    arguments.add_argument("--discover", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.discover:
        print(len(discover(given.discover, OPTIONS).samples), peak_bytes())
        return
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
    encoded = pictures(1000, smallest=8, largest=40)
    print(f"{place.__name__.removeprefix('write_')}: peak MB of discovery in a process of its own")
    first = 0
    for count in counts:
        with tempfile.TemporaryDirectory() as made:
            data = place(Path(made) / "data", encoded, count)
            command = [sys.executable, __file__, "--discover", str(data)]
            found, peak = map(int, subprocess.run(command, capture_output=True, check=True, text=True).stdout.split())
        assert found == count
        first = first or peak
        added = f", {(peak - first) / (count - counts[0]):.0f} bytes a picture more" if count > counts[0] else ""
        print(f"{count:>9,} {peak / 1e6:8.1f}  {peak / first:.2f} times the first{added}")


def peak_bytes() -> int:
    """Of this process; Linux carries the parent's over in ``getrusage``, hence its own table first."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
