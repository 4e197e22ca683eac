"""What it costs to bring a large photograph to a network's input inside the ONNX file, beside Pillow's own resize.

    python benchmarks/large_photographs.py [--megapixels 12 48 400] [--filter bilinear] [--before]

CPU milliseconds in one thread, the fastest of several, and the most memory beyond the photograph's own, as multiples
of it; each figure from a process of its own, on Linux. `before` is the graph of 0.1: two products with all weights,
zeros too, in float32; it needs eight times the photograph's memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZES = {12: (3000, 4000), 48: (6000, 8000), 400: (20_000, 20_000)}
ROUNDS = {12: 7, 48: 5, 400: 2}
SHORTER = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", nargs="+", type=int, default=sorted(SIZES), choices=sorted(SIZES))
    parser.add_argument("--filter", default="bilinear", choices=["bilinear", "bicubic"])
    parser.add_argument("--before", action="store_true", help="the graph of 0.1 too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, file = arguments.one
        measure(what, file, arguments.megapixels[0], arguments.filter)
        return
    names = ["Pillow", *(["before"] if arguments.before else []), "graph"]
    print("| photograph |" + "".join(f" {name}, ms | memory |" for name in names))
    print("|---|" + "---|---|" * len(names))
    with tempfile.TemporaryDirectory() as folder:
        files = {name: export(name, Path(folder), arguments.filter) for name in names}
        for megapixels in arguments.megapixels:
            cells = [apart(name, files[name], megapixels, arguments.filter) for name in names]
            rows, columns = SIZES[megapixels]
            print(f"| {rows}x{columns} |" + "".join(f" {cell} |" for cell in cells), flush=True)


def apart(name: str, file: str, megapixels: int, kind: str) -> str:
    """One measurement in a process of its own: memory that was allocated once isn't returned."""
    command = [sys.executable, __file__, "--one", name, file, "--megapixels", str(megapixels), "--filter", kind]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def measure(name: str, file: str, megapixels: int, kind: str) -> None:
    image = photograph(*SIZES[megapixels])
    run = of_pillow(image, kind) if name == "Pillow" else of_graph(file, image)
    before = peak()
    fastest = float("inf")
    for _ in range(ROUNDS[megapixels]):
        start = time.process_time()
        run()
        fastest = min(fastest, time.process_time() - start)
    print(f"{fastest * 1e3:.0f} | {(peak() - before) / image.nbytes:.2f}")


def peak() -> int:
    """Of this process; ru_maxrss would be its parent's where that was larger."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def photograph(rows: int, columns: int) -> NDArray[np.uint8]:
    """Noise over a gradient: its content doesn't affect the cost."""
    rng = np.random.default_rng(0)
    image = np.empty((rows, columns, 3), dtype=np.uint8)
    for row in image:
        row[:] = rng.integers(0, 256, row.shape, dtype=np.uint8)
    return image


def of_pillow(image: NDArray[np.uint8], kind: str) -> Callable[[], object]:
    """Up to the crop, as torchvision's transforms do it."""
    Image.MAX_IMAGE_PIXELS = None
    picture = Image.fromarray(image)
    scale = SHORTER / min(image.shape[:2])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return lambda: picture.resize(size, Image.Resampling[kind.upper()])


def of_graph(file: str, image: NDArray[np.uint8]) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    session.run(None, {name: image[None, :300, :300]})
    return lambda: session.run(None, {name: image[None]})


def export(name: str, folder: Path, kind: str) -> str:
    if name == "Pillow":
        return "-"
    import torch

    import zooft

    class Before(torch.nn.Module):
        def __init__(self, now: zooft.ImagePreprocess) -> None:
            super().__init__()
            self.now = now

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            levels = images.permute(0, 3, 1, 2).to(torch.float32)
            return self.now.normalise(self.now.resize._dense(levels, None))

    spec = zooft.InputSpec(
        height=224, width=224, resize=SHORTER, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation=kind
    )
    module = zooft.ImagePreprocess(spec)
    path = folder / f"{name}.onnx"
    torch.onnx.export(
        (module if name == "graph" else Before(module)).eval(),
        (torch.zeros(2, 150, 170, 3, dtype=torch.uint8),),
        path,
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
    )
    return str(path)


if __name__ == "__main__":
    main()
