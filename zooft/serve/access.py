"""Who may ask: the token, names of this machine, pages of others; and the headers that every answer has.

ASGI functions around the application, since a request is refused before its body is read.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Collection, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from zooft.serve.metrics import Metrics

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_OPEN = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""What is answered without a token: a page without anybody's data, and whether the server is up."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_log = logging.getLogger("zooft.serve")


def require_access(app: ASGIApp, *, token: str, hosts: Collection[str]) -> ASGIApp:
    """Refuse requests without the token, or from other sites' pages.

    Args:
        app: that answers the others.
        token: that every request needs; "" for none.
        hosts: names that the server is called by, so that no page reaches it by a name of its own that leads here (DNS
            rebinding); empty for any.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := _check_access(scope, token, hosts)):
            await refusal(scope, receive, send)
        else:
            await app(scope, receive, send)

    return answer


def _check_access(scope: Scope, token: str, hosts: Collection[str]) -> JSONResponse | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if hosts and _host_name(f"//{host}") not in hosts:
        return _refusal_response(421, "the server isn't called by this name; use localhost or 127.0.0.1")
    origin = headers.get("origin")
    if origin and origin != "null" and urlsplit(origin).netloc == host:
        origin = None
    elsewhere = headers.get("sec-fetch-site") in {"cross-site", "same-site"} and scope["path"] != "/"
    if origin or elsewhere:
        return _refusal_response(403, "requests from pages of other sites aren't answered")
    if token and scope["path"] not in _OPEN:
        given = headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            refused = _refusal_response(401, "this server needs its token: Authorization: Bearer TOKEN")
            refused.headers["WWW-Authenticate"] = "Bearer"
            return refused
    return None


def _host_name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _refusal_response(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers={"Connection": "close"})


def observe(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Give every answer its headers, count it, and log it as a line of JSON without names of files or people."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begin, status, size = time.perf_counter(), 499, 0  # 499: the client has gone

        async def pass_on(message: MutableMapping[str, Any]) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, pass_on)
        finally:
            seconds, route = time.perf_counter() - begin, _route(scope)
            metrics.count(route, status, seconds)
            _log.info(
                "request",
                extra={
                    "fields": {
                        "method": scope["method"] if len(scope["method"]) < 8 else "other",
                        "route": route,
                        "status": status,
                        "seconds": round(seconds, 6),
                        "bytes": size,
                    }
                },
            )

    return answer


def _route(scope: Scope) -> str:
    """The pattern of the path, not the path: that is the client's own text."""
    route = scope.get("route")
    return getattr(route, "path", "") or ("/" if scope["path"] == "/" else "other")


class JsonLines(logging.Formatter):
    """A log line as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC, level, message, and what else is known."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__  # its message may name files
        return json.dumps(line | getattr(record, "fields", {}))
