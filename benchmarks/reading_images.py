"""What it costs to bring a picture to a network's input, against Pillow and torchvision's usual transforms.

    python benchmarks/reading_images.py [FOLDER]

CPU milliseconds a picture in one thread, in turns, the fastest round of each. Without a folder, JPEGs are made in
three sizes from scikit-learn's photographs. A folder's JPEGs are used unchanged. The last table shows how far a
small picture's levels are from those of the whole one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import v2

import zooft
from zooft_images import read, views
from zooft_images.options import ClassificationOptions

ROUNDS = 7
MOST_FILES = 40
SIZES = [(500, 375), (1024, 768), (2048, 1536)]
PLAIN, LIGHT = ClassificationOptions(), ClassificationOptions(augment="light")
SPEC = zooft.InputSpec(
    height=224, width=224, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear"
)
Step = Callable[[int], object]
"""What is done with a picture, by its number."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", nargs="?", type=Path)
    folder = arguments.parse_args().folder
    torch.set_num_threads(1)
    if folder:
        names = {".jpg", ".jpeg"}
        compare(folder.name, sorted(path for path in folder.rglob("*") if path.suffix.lower() in names)[:MOST_FILES])
        return
    for size in SIZES:
        with tempfile.TemporaryDirectory() as made:
            compare("{}x{}".format(*size), write(Path(made), size))


def compare(title: str, files: Sequence[Path]) -> None:
    steps = pairs(files)
    fastest = {name: [float("inf")] * 2 for name in steps}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, both in steps.items():
                for which, step in enumerate(both):
                    fastest[name][which] = min(fastest[name][which], milliseconds(step, len(files)))
    print(f"\n{title}: {len(files)} pictures, CPU ms a picture, fastest of {ROUNDS} rounds")
    print(f"{'':28}{'zooft':>8}{'usual':>8}{'ratio':>8}")
    for name, (ours, theirs) in fastest.items():
        print(f"{name:28}{ours:8.2f}{theirs:8.2f}{theirs / ours:8.2f}")
    print(f"a small picture's levels differ from the whole one's by {difference(files):.2f} of 255 on average")


def pairs(files: Sequence[Path]) -> Mapping[str, tuple[Step, Step]]:
    """The same step twice: zooft's, and Pillow's or torchvision's."""
    whole = [read.read(path, PLAIN) for path in files]
    small_pictures = [read.decode_small(path, SPEC, PLAIN)[0] for path in files]
    pictures = [Image.fromarray(levels) for levels in whole]
    preprocess, view = zooft.ImagePreprocess(SPEC), views.augment(SPEC, LIGHT)
    assert view is not None
    last: list[Any] = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(SPEC.mean, SPEC.std)]
    plain = v2.Compose([v2.Resize(SPEC.resize), v2.CenterCrop(SPEC.height), *last])
    random = v2.Compose([v2.RandomResizedCrop(SPEC.height, scale=(0.6, 1.0)), v2.RandomHorizontalFlip(), *last])
    return {
        "inspect / decode": (lambda i: read.inspect(files[i], PLAIN), lambda i: decode(files[i])),
        "read / decode": (lambda i: read.read(files[i], PLAIN), lambda i: decode(files[i])),
        "decode_small / decode": (lambda i: read.decode_small(files[i], SPEC, PLAIN), lambda i: decode(files[i])),
        "digest / decode": (lambda i: read.digest(files[i], PLAIN), lambda i: decode(files[i])),
        "plain view": (lambda i: preprocess(torch.from_numpy(whole[i])[None]), lambda i: plain(pictures[i])),
        "random view": (lambda i: view(whole[i]), lambda i: random(pictures[i])),
        "random view of a small picture": (lambda i: view(small_pictures[i]), lambda i: random(pictures[i])),
    }


def decode(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def milliseconds(step: Step, count: int) -> float:
    start = time.process_time()
    for index in range(count):
        step(index)
    return 1000 * (time.process_time() - start) / count


def difference(files: Sequence[Path]) -> float:
    """Of the plain view of a small picture from that of the whole one, in levels: the mean over pictures and pixels."""
    levels = zooft.Resize(SPEC)
    means = []
    for path in files:
        both = [read.read(path, PLAIN), read.decode_small(path, SPEC, PLAIN)[0]]
        one, other = (levels(torch.from_numpy(array)[None].permute(0, 3, 1, 2)) for array in both)
        means.append(float((one - other).abs().mean()))
    return float(np.mean(means))


def write(folder: Path, size: tuple[int, int], count: int = 8) -> list[Path]:
    """Cut-outs of two real photographs, enlarged to `size`, width and height."""
    files = []
    for index in range(count):
        photograph = load_sample_images().images[index % 2]
        top = 10 * (index // 2)
        cut = Image.fromarray(photograph[top : top + 360, 2 * top : 2 * top + 480])
        files.append(folder / f"{index}.jpg")
        cut.resize(size, Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


if __name__ == "__main__":
    main()
