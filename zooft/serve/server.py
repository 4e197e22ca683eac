"""From options to a listening server, which finishes what runs when it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from zooft.compute import machine
from zooft.errors import ConfigError
from zooft.serve import access, repository
from zooft.serve.app import Services, application
from zooft.serve.batching import Batcher, Pool
from zooft.serve.limits import Bodies, Limits
from zooft.serve.metrics import Metrics
from zooft.serve.search import Indexes

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from zooft.hooks.registry import Registry
    from zooft.runtime import OnnxModel

_IDLE = 20.0
"""Seconds after which a connection is closed over which no request comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to serve.

    Attributes:
        models: as `repository.find` takes them.
        host: to listen at.
        port: to listen at.
        token: that requests need; "" for none.
        cert: file of a TLS certificate.
        key: file of its key.
        provider: of onnxruntime.
        threads: that compute, for each model; 0 for this machine's cores.
        limits: of requests.
        indexes: files of ``zooft index``.
    """

    models: Sequence[str]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    cert: Path | None = None
    key: Path | None = None
    provider: str = "auto"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    indexes: Sequence[Path] = ()


def build(options: Options, registry: Registry) -> ASGIApp:
    """The application, with every model loaded.

    Raises:
        ZooftError: a file is refused.
    """
    limits = options.limits

    def batcher(name: str, model: OnnxModel) -> Batcher:
        return Batcher(model.run, limits, report=lambda rows: metrics.count_batch(name, rows))

    metrics = Metrics(lambda: models)
    indexes = Indexes(options.indexes)
    open_ = repository.open_served(
        registry, provider=options.provider, threads=options.threads, batcher=batcher, indexes=indexes
    )
    places = repository.find(options.models)
    models = repository.Repository(places, open_)
    models.load_all()
    indexes.refuse_unused([each.index for each in models.open_models()], models.names())
    services = Services(
        repository=models,
        limits=limits,
        bodies=Bodies(limits),
        pool=Pool(max(1, machine.cores()), limits),
        metrics=metrics,
    )
    # requests by another name come from a page whose name has been made to lead here
    hosts = access.LOCAL if options.host in access.LOCAL else ()
    return application(services, token=options.token, hosts=hosts)


def check(options: Options) -> list[str]:
    """What the user should know before the server starts.

    Raises:
        ConfigError: the options would leave the server open to everybody, or don't go together.
    """
    if options.host not in access.LOCAL and not options.token:
        raise ConfigError(
            f"--host {options.host} lets other machines in, and without a token everybody may ask: give one with "
            "--token-file, or in the environment variable ZOOFT_SERVE_TOKEN"
        )
    if (options.cert is None) != (options.key is None):
        raise ConfigError("--cert and --key belong together; give both")
    if options.host not in access.LOCAL and options.cert is None:
        return ["without --cert and --key, the token and all pictures cross the network readably"]
    return []


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the port is taken, or the host isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family)
    if sys.platform != "win32":  # there it would let two servers have one port
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(1024)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"the port {port} of {host} is taken, perhaps by another server; name another with --port"
            ) from None
        raise ConfigError(
            f"the server can't listen at {host}, port {port}: {error.strerror}; name others with --host and --port"
        ) from None
    return found


def serve(options: Options, registry: Registry, *, started: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C; those that run are finished.

    Args:
        options: how.
        registry: of the tasks.
        started: called with the address.

    Raises:
        ConfigError: options that can't be met.
        ZooftError: a file is refused.
    """
    with contextlib.closing(listen(options.host, options.port)) as found:  # before models are loaded, which takes long
        _log_as_json()
        app = build(options, registry)
        config = uvicorn.Config(
            app,
            http=_IdleTimeout,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(_IDLE),
            timeout_graceful_shutdown=int(options.limits.seconds) + 1,
            ssl_certfile=options.cert,
            ssl_keyfile=options.key,
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        started(f"{'http' if options.cert is None else 'https'}://{host}:{found.getsockname()[1]}/")
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal when all is finished
            uvicorn.Server(config).run(sockets=[found])


class _IdleTimeout(H11Protocol):
    """HTTP/1.1 that closes connections over which no whole request comes, which uvicorn keeps for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._last_cycle: Any = None
        self._timer = self.loop.call_later(_IDLE, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._timer.cancel()
        super().connection_lost(exc)

    def _close_if_idle(self) -> None:
        cycle = self.cycle
        if cycle is self._last_cycle and (cycle is None or cycle.response_complete):
            self.transport.close()
            return
        self._last_cycle = cycle
        self._timer = self.loop.call_later(_IDLE, self._close_if_idle)


def _log_as_json() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(access.JsonLines())
    log = logging.getLogger("zooft.serve")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error"):
        other = logging.getLogger(name)
        other.handlers, other.propagate = [handler] if name == "uvicorn" else [], name != "uvicorn"
        other.setLevel(logging.WARNING)
