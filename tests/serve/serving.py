"""A server as its users start it: a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import example_data
import httpx


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has been started.

    Attributes:
        address: with a slash at its end.
        process: its own.
        log: file of what it writes to standard error.
    """

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def host(self) -> str:
        """Host and port."""
        return self.address.partition("//")[2].rstrip("/")

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=60, **more)

    def post(self, path: str, content: bytes = b"", **more: Any) -> httpx.Response:
        return httpx.post(self.address + path, content=content, timeout=60, **more)

    def lines(self) -> list[dict[str, Any]]:
        """Of its log, without those that aren't JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@contextmanager
def running(folder: Path, *arguments: str | Path, port: int = 0, **variables: str) -> Iterator[Running]:
    """A server until the block ends."""
    log = folder / f"serve{time.monotonic_ns()}.log"
    path = os.pathsep.join([str(example_data.REPOSITORY), str(example_data.REPOSITORY / "plugins")])
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "zooft", "serve", *map(str, arguments), "--port", str(port)],
            stderr=file,
            stdout=file,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables},
        )
    try:
        yield Running(address_in(log, process), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def address_in(log: Path, process: subprocess.Popen[bytes]) -> str:
    """Where a server listens, once it says so."""
    for _ in range(1200):
        found = re.search(r"serving at (\S+)", log.read_text())
        if found:
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())
