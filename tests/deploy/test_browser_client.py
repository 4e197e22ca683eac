"""The client of docs/deploy.md in a browser: onnxruntime-web gives what onnxruntime does."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import example_data
import numpy as np
import pytest
from browser import browser
from PIL import Image
from test_verify import Bench, bench, photographs  # noqa: F401 -- a fixture

from zooft import runtime

NEEDED = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A folder over HTTP, with the types that modules need, and nothing on standard error."""

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """Browsers refuse modules of another type."""
        return {".mjs": "text/javascript", ".wasm": "application/wasm"}.get(Path(path).suffix) or super().guess_type(
            path
        )

    def log_message(self, *_arguments: object) -> None:
        """Nothing."""


@contextmanager
def site(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def package() -> Path:
    """Of npm: ``npm pack onnxruntime-web``, unpacked."""
    path = os.environ.get("ONNXRUNTIME_WEB")
    if not path:
        pytest.skip("ONNXRUNTIME_WEB names no folder of npm's onnxruntime-web ('npm pack onnxruntime-web', unpacked)")
    return Path(path)


def test_the_documented_module_answers_in_chromium_as_onnxruntime_does(
    package: Path,
    bench: Bench,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    for name in NEEDED:
        shutil.copy(package / "dist" / name, folder)
    text = (example_data.REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    (module,) = re.findall(r"```javascript\n(.*?)```", text, re.DOTALL)
    (folder / "client.mjs").write_text(module, encoding="utf-8")
    (folder / "index.html").write_text("<!doctype html><title>client</title>", encoding="utf-8")
    shutil.copy(bench.path, folder / "model.onnx")
    pictures = [levels for (levels,) in photographs()[:2]]
    for number, levels in enumerate(pictures):
        Image.fromarray(levels).save(folder / f"{number}.png")
    script = """(async () => {
        const {open, predict} = await import("./client.mjs");
        const session = await open("model.onnx");
        const found = [];
        for (const name of ["0.png", "1.png"])
            found.push(await predict(session, await (await fetch(name)).blob()));
        return found;
    })()"""
    with site(folder) as address, browser(tmp_path / "profile") as shown:
        shown.send("Page.navigate", url=f"{address}/index.html")
        shown.evaluate(
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', done))"
        )
        found = shown.evaluate(script)
        assert all(url.startswith((address, "blob:", "data:")) for url in shown.requests)
    model = runtime.load(bench.path, provider="cpu")
    ours = [model.run(levels[None])["probabilities"][0] for levels in pictures]
    np.testing.assert_allclose(found, ours, atol=1e-5)
