"""``zooft serve``."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from zooft.cli import model_argument
from zooft.cli.screen import echo
from zooft.errors import ConfigError
from zooft.hooks import registry
from zooft.serve.limits import Limits

TOKEN = "ZOOFT_SERVE_TOKEN"  # noqa: S105 -- a variable's name
_NEEDED = ("starlette", "uvicorn", "prometheus_client")


@click.command(
    epilog="""\b
Examples:
  zooft serve runs/ants/model.onnx
  zooft serve ants=a.onnx lungs=runs/ct --port 9000
  zooft serve runs/faces --index faces.index
  ZOOFT_SERVE_TOKEN=... zooft serve models --host 0.0.0.0 --cert cert.pem --key key.pem""",
)
@click.argument("models", nargs=-1, required=True, metavar="MODELS...")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any free one")
@click.option("--host", default="127.0.0.1", show_default=True, help="other than this machine alone needs a token")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help=f"its first line is the token that clients need [default: the variable {TOKEN}]",
)
@click.option("--cert", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="TLS certificate, PEM")
@click.option("--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="its key, PEM")
@click.option(
    "--index",
    "indexes",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="of 'zooft index', made with one of MODELS: pictures get what is nearest in it; may be repeated",
)
@click.option("--threads", type=click.IntRange(min=1), help="that compute, for each model [default: all cores]")
@click.option(
    "--max-batch", type=click.IntRange(1, 1024), default=16, show_default=True, help="samples computed at once"
)
@click.option(
    "--delay", type=click.FloatRange(0, 10_000), default=2.0, show_default=True, help="ms to wait for a batch to fill"
)
@click.option("--queue", type=click.IntRange(1), default=256, show_default=True, help="requests that may wait")
@click.option("--max-body", type=click.IntRange(1), default=100, show_default=True, help="MB of a request")
@click.option("--max-pixels", type=click.IntRange(1), default=50, show_default=True, help="millions in a picture")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="seconds for an answer")
@model_argument.provider_flag
def serve(**given: Any) -> None:
    """Answer requests over HTTP with exported files; torch isn't needed.

    MODELS are ONNX files, runs, NAME=FILE, or folders that hold NAME/VERSION/model.onnx. The server speaks the Open
    Inference Protocol v2 (Triton's and KServe's clients work), takes pictures and zip files of DICOM at /predict/NAME,
    has a page for people at / and figures for Prometheus at /metrics. SIGTERM and Ctrl-C finish what runs.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}, not installed here: pip install 'zooft[serve]'")
    from zooft.serve import server

    options = _options(**given)
    for text in server.check(options):
        echo(text, err=True)
    server.serve(options, registry.load(), started=lambda address: echo(f"serving at {address}", err=True))


def _options(
    *,
    models: tuple[str, ...],
    token_file: Path | None,
    threads: int | None,
    max_batch: int,
    delay: float,
    queue: int,
    max_body: int,
    max_pixels: int,
    timeout: float,
    **others: Any,
) -> Any:
    from zooft.serve.server import Options

    limits = Limits(
        batch=max_batch,
        delay=delay / 1000,
        queue=queue,
        body=max_body * 10**6,
        pixels=max_pixels * 10**6,
        seconds=timeout,
    )
    return Options(models=models, token=_token(token_file), threads=threads or 0, limits=limits, **others)


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get(TOKEN, "")
    token = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    if not token:
        raise ConfigError(f"the first line of {file} is empty; put the token there")
    return token
