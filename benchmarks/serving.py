"""What `zooft serve` costs under load, against a bare onnxruntime loop on the same machine.

    python benchmarks/serving.py MODEL.onnx [--clients 64] [--seconds 60] [--threads 2] [--max-batch 8]

The model takes RGB pictures; each client sends one of its own, as a binary tensor whose request is prepared once, over
one connection, as soon as it has the answer before, and compares the answer with what onnxruntime gives of its picture
alone. Client and server share the machine's cores; the bare loop has them alone, before and after, at every batch size,
and its best counts. Where other programs use the cores too, throughput says little: the CPU time of a picture is
compared as well, that of the clients apart. Then the same clients go on while others misbehave: a body of 200 MB, a
picture that is a bomb, a client that sends a byte a second, a malformed tensor, a wrong token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 224
TOKEN = "benchmark"  # noqa: S105 -- of this benchmark's own server
BARE = """
import sys, time, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
options.add_session_config_entry("session.intra_op.allow_spinning", sys.argv[4])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
batch = numpy.random.default_rng(0).integers(0, 256, (int(sys.argv[3]), SIDE, SIDE, 3), dtype=numpy.uint8)
names = [output.name for output in session.get_outputs()]
session.run(names, {"images": batch})
begin, used, count = time.perf_counter(), time.process_time(), 0
while time.perf_counter() - begin < 4:
    session.run(names, {"images": batch})
    count += len(batch)
print(count / (time.perf_counter() - begin), (time.process_time() - used) / count * 1000)
""".replace("SIDE", str(SIDE))


def bare(model: Path, threads: int) -> dict[str, tuple[float, float]]:
    """Pictures a second and CPU milliseconds a picture, by batch size."""
    found = {}
    for size in (1, 2, 4, 8, 16):
        done = subprocess.run(
            [sys.executable, "-c", BARE, str(model), str(threads), str(size), "0"],
            capture_output=True,
            text=True,
            check=True,
        )
        rate, cpu = map(float, done.stdout.split())
        found[str(size)] = (rate, cpu)
    return found


def request(picture: np.ndarray) -> bytes:
    """Of one picture, with its headers."""
    size = picture.nbytes
    entry = {
        "name": "images",
        "shape": [1, *picture.shape],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": size},
    }
    wanted = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [entry], "outputs": wanted}).encode()
    return (
        (
            f"POST /v2/models/served/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + size}\r\n\r\n"
        ).encode()
        + head
        + picture.tobytes()
    )


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    """Status, headers and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\ncontent-length: (\d+)", head, re.IGNORECASE)
    assert length is not None
    return int(head[9:12]), head, await reader.readexactly(int(length[1]))


async def client(port: int, text: bytes, truth: np.ndarray, until: float, seen: list[float], faults: Counter) -> None:
    """Ask again and again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
    while time.perf_counter() < until:
        begin = time.perf_counter()
        writer.write(text)
        status, head, body = await answer(reader)
        seen.append(time.perf_counter() - begin)
        if status != 200:
            faults[status] += 1
            continue
        length = re.search(rb"inference-header-content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        if not np.allclose(np.frombuffer(body[int(length[1]) :], np.float32), truth, atol=1e-4):
            faults["another's answer"] += 1
    writer.close()


def cpu_seconds(process: int) -> float:
    """That a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: int) -> float:
    """MB in use."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1000  # type: ignore[index]


async def load(port: int, process: int, texts: list[bytes], truths: np.ndarray, seconds: float) -> dict[str, Any]:
    """All clients at once."""
    seen: list[float] = []
    faults: Counter = Counter()
    until = time.perf_counter() + seconds
    used = []
    begin, own = cpu_seconds(process), time.process_time()

    async def look() -> None:
        while time.perf_counter() < until:
            await asyncio.sleep(seconds / 6)
            used.append(round(memory(process)))

    pairs = zip(texts, truths, strict=True)
    await asyncio.gather(look(), *(client(port, text, truth, until, seen, faults) for text, truth in pairs))
    return {
        "clients": len(texts),
        "requests": len(seen),
        "per_second": len(seen) / seconds,
        "faults": dict(faults),
        "p50_ms": float(np.percentile(seen, 50) * 1000),
        "p99_ms": float(np.percentile(seen, 99) * 1000),
        "server_cpu_ms": (cpu_seconds(process) - begin) / len(seen) * 1000,
        "clients_cpu_ms": (time.process_time() - own) / len(seen) * 1000,
        "memory_MB": used,
    }


def bomb() -> bytes:
    """A PNG that states 60,000 x 60,000 pixels."""
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", b"")):
        whole += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return whole


async def misbehave(port: int) -> dict[str, int]:
    """Status by what was sent."""
    top = "HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer"

    async def send(head: str, body: bytes, *, pause: float = 0) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + b"\r\n\r\n")

        async def rest() -> None:
            for at in range(0, len(body), 1 if pause else 2**20):
                writer.write(body[at : at + (1 if pause else 2**20)])
                await writer.drain()
                await asyncio.sleep(pause)

        sending = asyncio.create_task(rest())
        status, _, _ = await asyncio.wait_for(answer(reader), 120)
        sending.cancel()
        writer.close()
        return status

    infer, large = "POST /v2/models/served/infer", 200_000_000
    png = bomb()
    names = ["200 MB", "bomb", "malformed tensor", "wrong token", "slow client"]
    found = await asyncio.gather(
        send(f"{infer} {top} {TOKEN}\r\nContent-Length: {large}", bytes(large)),
        send(f"POST /predict/served {top} {TOKEN}\r\nContent-Length: {len(png)}", png),
        send(f"{infer} {top} {TOKEN}\r\nContent-Length: 14", b'{"inputs": [1]'),
        send(f"{infer} {top} another\r\nContent-Length: 2", b"{}"),
        send(f"{infer} {top} {TOKEN}\r\nContent-Length: 5000", bytes(5000), pause=1),
    )
    return dict(zip(names, found, strict=True))


async def together(port: int, process: int, texts: list[bytes], truths: np.ndarray) -> dict[str, object]:
    """Misbehaviour amid others' requests."""
    others, statuses = await asyncio.gather(load(port, process, texts, truths, 40), misbehave(port))
    return {"statuses": statuses, "others": others}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("model", type=Path)
    for name, usual in (("--clients", 64), ("--seconds", 60), ("--threads", 2), ("--max-batch", 8)):
        given.add_argument(name, type=int, default=usual)
    given.add_argument("--delay", type=float, default=2)
    typed = given.parse_args()
    import onnxruntime

    pictures = np.random.default_rng(1).integers(0, 256, (typed.clients, SIDE, SIDE, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(typed.model), providers=["CPUExecutionProvider"])
    truths = np.concatenate([session.run(["probabilities"], {"images": one[None]})[0] for one in pictures])
    texts = [request(one) for one in pictures]
    before = bare(typed.model, typed.threads)
    print(json.dumps({"bare_before": before}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "zooft",
                    "serve",
                    f"served={typed.model}",
                    "--port",
                    "0",
                    "--threads",
                    str(typed.threads),
                    "--max-batch",
                    str(typed.max_batch),
                    "--delay",
                    str(typed.delay),
                ],
                stderr=file,
                env={**os.environ, "ZOOFT_SERVE_TOKEN": TOKEN},
            )
        try:
            while not (found := re.search(r"serving at .*:(\d+)/", log.read_text())):
                time.sleep(0.2)
            port = int(found[1])
            asyncio.run(load(port, server.pid, texts, truths, 5))
            served = asyncio.run(load(port, server.pid, texts, truths, typed.seconds))
            print(json.dumps({"served": served}), flush=True)
            print(
                json.dumps({"misbehaviour": asyncio.run(together(port, server.pid, texts[:8], truths[:8]))}), flush=True
            )
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    after = bare(typed.model, typed.threads)
    rates = {size: (before[size][0] + after[size][0]) / 2 for size in before}
    cpu = min(found for one in (before, after) for _, found in one.values())
    together_cpu = served["server_cpu_ms"] + served["clients_cpu_ms"]
    print(
        json.dumps(
            {
                "bare_after": after,
                "throughput_of_bare": served["per_second"] / max(rates.values()),
                "cpu_of_bare": cpu / served["server_cpu_ms"],
                "cpu_of_bare_with_clients": cpu / together_cpu,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
