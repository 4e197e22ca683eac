"""How much the server takes on, and how what is too much is refused: the body of a request above all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

RETRY_AFTER = "1"
"""Seconds that a client should wait where a queue is full."""
_DRAINED = 2**30
"""Bytes of a refused body that are read and dropped, so that its sender gets to read why."""


class RequestRefused(Exception):  # noqa: N818 -- an answer of HTTP, as starlette's HTTPException is
    """A request that isn't answered.

    Args:
        status: of HTTP.
        message: what was wrong, what was found, what to do next.
        headers: more of them.
    """

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


def busy(what: str) -> RequestRefused:
    """The refusal of one request too many."""
    return RequestRefused(503, f"{what}; try again later", headers={"Retry-After": RETRY_AFTER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, and all of them together, may cost.

    Attributes:
        body: bytes of a request.
        bodies: bytes of all requests that are being read or answered.
        unpacked: bytes of all files in an archive.
        files: in an archive.
        pixels: of one sample.
        batch: samples that the network is given at once, and that one request may hold.
        delay: seconds that a sample waits for others to share its batch.
        queue: requests that wait for one model.
        seconds: until a request that hasn't been answered is given up.
        reading: seconds that a client may take to send a request.
    """

    body: int = 100_000_000
    bodies: int = 1_000_000_000
    unpacked: int = 1_000_000_000
    files: int = 5_000
    pixels: int = 50_000_000
    batch: int = 16
    delay: float = 0.002
    queue: int = 256
    seconds: float = 60.0
    reading: float = 30.0


@dataclass(slots=True)
class Bodies:
    """Reads the bodies of requests, and counts what all of them hold."""

    limits: Limits
    held: int = field(default=0)

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, counted until it is dropped.

        Raises:
            RequestRefused: it is too large, comes too slowly, is compressed, or there are too many.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestRefused(415, "compressed requests aren't taken; send it without Content-Encoding")
        stated = request.headers.get("content-length", "")
        if stated.isdigit() and int(stated) > self.limits.body:
            raise await self._too_large(request, int(stated))
        chunks: list[bytes] = []
        had = 0
        try:
            async with asyncio.timeout(self.limits.reading):
                async for chunk in request.stream():
                    had += len(chunk)
                    self.held += len(chunk)
                    chunks.append(chunk)
                    if had > self.limits.body:
                        chunks.clear()
                        raise await self._too_large(request, had)
                    if self.held > self.limits.bodies:
                        raise busy("the requests being answered hold as much memory as they may")
            yield b"".join(chunks) if len(chunks) != 1 else chunks[0]
        except TimeoutError:
            raise RequestRefused(
                408, f"the request didn't arrive within {self.limits.reading:g} s", headers={"Connection": "close"}
            ) from None
        finally:
            self.held -= had

    async def _too_large(self, request: Request, size: int) -> RequestRefused:
        await _drain(request, self.limits.reading)
        return RequestRefused(
            413,
            f"the request has {size:,} bytes or more, and at most {self.limits.body:,} are taken (--max-body)",
            headers={"Connection": "close"},
        )


async def _drain(request: Request, seconds: float) -> None:
    """Read on and drop it: a client that is still sending wouldn't see the answer."""
    dropped = 0
    try:
        async with asyncio.timeout(seconds):
            while dropped < _DRAINED:
                message = await request.receive()
                dropped += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
