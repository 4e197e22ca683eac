"""The application: addresses to what answers them."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from zooft.errors import RuntimeModelError
from zooft.serve import access, card, images, occlusion, page, protocol, search
from zooft.serve.limits import Bodies, Limits, RequestRefused
from zooft.version import __version__

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from zooft.serve.batching import Pool
    from zooft.serve.metrics import Metrics
    from zooft.serve.repository import Repository, Served

_log = logging.getLogger("zooft.serve")
_TOP = 5
"""Nearest identities of an index where a client doesn't say how many."""
_EXTENSIONS = ["binary_tensor_data", "model_repository"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the answers are made with.

    Attributes:
        repository: the models.
        limits: of requests.
        bodies: that reads them.
        pool: threads for pictures.
        metrics: that counts.
    """

    repository: Repository
    limits: Limits
    bodies: Bodies
    pool: Pool
    metrics: Metrics


Answer = Callable[[Services, Request], Awaitable[Response]]


def application(services: Services, *, token: str = "", hosts: Collection[str] = ()) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        services: what it answers with.
        token: as in `access.require_access`.
        hosts: as in `access.require_access`.
    """
    inner = Starlette(
        routes=[Route(path, partial(answer, services), methods=[method]) for path, method, answer in _routes()],
        exception_handlers={
            RequestRefused: _refusal_response,
            RuntimeModelError: _model_error_response,
            HTTPException: _http_error_response,
            ClientDisconnect: _client_disconnected,
            Exception: _defect_response,
        },
    )
    return access.observe(access.require_access(inner, token=token, hosts=hosts), services.metrics)


def _routes() -> list[tuple[str, str, Answer]]:
    found: list[tuple[str, str, Answer]] = [
        ("/", "GET", _page),
        ("/models", "GET", _cards),
        ("/metrics", "GET", _metrics),
        ("/v2", "GET", _server),
        ("/v2/health/live", "GET", _live),
        ("/v2/health/ready", "GET", _ready),
        ("/v2/repository/index", "POST", _index),
        ("/v2/repository/models/{model}/load", "POST", _load),
        ("/v2/repository/models/{model}/unload", "POST", _unload),
    ]
    for end in ("", "/versions/{version}"):
        found += [
            (f"/v2/models/{{model}}{end}", "GET", _metadata),
            (f"/v2/models/{{model}}{end}/ready", "GET", _model_ready),
            (f"/v2/models/{{model}}{end}/infer", "POST", _infer),
            (f"/predict/{{model}}{end}", "POST", _predict),
            (f"/occlusion/{{model}}{end}", "POST", _occlusion),
        ]
    return found


def _find_model(services: Services, request: Request) -> Served:
    return services.repository.get(request.path_params["model"], request.path_params.get("version", ""))


# The page


async def _page(_services: Services, _request: Request) -> Response:
    html, policy = page.whole()
    return Response(html, media_type="text/html", headers={"Content-Security-Policy": policy})


async def _cards(services: Services, _request: Request) -> Response:
    return JSONResponse([card.card(one) for one in services.repository.open_models()])


async def _metrics(services: Services, _request: Request) -> Response:
    return Response(services.metrics.text(), media_type="text/plain; version=0.0.4")


# Open Inference Protocol


async def _server(_services: Services, _request: Request) -> Response:
    return JSONResponse({"name": "zooft", "version": __version__, "extensions": _EXTENSIONS})


async def _live(_services: Services, _request: Request) -> Response:
    return JSONResponse({"live": True})


async def _ready(services: Services, _request: Request) -> Response:
    waiting = [each["name"] for each in services.repository.index() if each["state"] != "READY"]
    ready = len(waiting) < len(services.repository.names())
    return JSONResponse({"ready": ready}, 200 if ready else 503)


async def _metadata(services: Services, request: Request) -> Response:
    one = _find_model(services, request)
    versions = [each for each in services.repository.open_models() if each.name == one.name]
    return JSONResponse(
        {
            "name": one.name,
            "versions": [str(each.version) for each in versions],
            "platform": "onnxruntime_onnx",
            "inputs": [protocol.describe(port) for port in one.model.ports],
            "outputs": [protocol.describe(output) for output in one.model.metadata.outputs],
        }
    )


async def _model_ready(services: Services, request: Request) -> Response:
    return JSONResponse({"name": _find_model(services, request).name, "ready": True})


async def _infer(services: Services, request: Request) -> Response:
    one = _find_model(services, request)
    model = one.model
    async with services.bodies.read(request) as body:
        parsed = protocol.parse(
            body, request.headers.get(protocol.HEADER), model.ports, model.metadata.outputs, services.limits
        )
        outputs = await _until_disconnect(request, one.batcher.answer(parsed.arrays))
        if not all(np.isfinite(output).all() for output in outputs.values() if output.dtype.kind == "f"):
            raise RuntimeModelError("the network gave no numbers (NaN)")
        made, headers = protocol.encode(parsed, outputs, model=one.name, version=str(one.version))
        return Response(made, headers=headers)


async def _index(services: Services, request: Request) -> Response:
    async with services.bodies.read(request) as body:
        ready = protocol.json_object(body).get("ready", False) is True
    return JSONResponse(services.repository.index(ready=ready))


async def _load(services: Services, request: Request) -> Response:
    async with services.bodies.read(request) as body:
        if protocol.json_object(body).get("parameters"):
            raise RequestRefused(400, "models are loaded from the server's own files as they are, without parameters")
    await asyncio.to_thread(services.repository.load, request.path_params["model"])
    return JSONResponse({})


async def _unload(services: Services, request: Request) -> Response:
    async with services.bodies.read(request):
        services.repository.unload(request.path_params["model"])
    return JSONResponse({})


# Pictures


async def _predict(services: Services, request: Request) -> Response:
    one, draw = _find_model(services, request), request.query_params.get("draw") == "1"
    top = search.count_from(request.query_params.get("top"), default=_TOP)
    async with services.bodies.read(request) as body:
        work = partial(images.predict, one, body, services.limits, draw=draw, top=top)
        return JSONResponse(await _until_disconnect(request, services.pool.run(work)))


async def _occlusion(services: Services, request: Request) -> Response:
    one = _find_model(services, request)
    async with services.bodies.read(request) as body:
        work = partial(occlusion.occlude, one, body, services.limits)
        return JSONResponse(await _until_disconnect(request, services.pool.run(work)))


async def _until_disconnect(request: Request, answer: Awaitable[Any]) -> Any:
    """An answer, given up where its client disconnects."""
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# What isn't answered


async def _refusal_response(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)  # noqa: S101 -- as registered
    return JSONResponse({"error": str(error)}, error.status, headers=error.headers)


async def _model_error_response(_request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


async def _http_error_response(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 -- as registered
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


async def _client_disconnected(_request: Request, _error: Exception) -> Response:
    return Response(status_code=499)


async def _defect_response(_request: Request, error: Exception) -> Response:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"  # the message may name files
    _log.error("failed", extra={"fields": {"error": type(error).__name__, "where": where}})
    return JSONResponse({"error": f"unexpected {type(error).__name__}; this is a defect of zooft"}, 500)
