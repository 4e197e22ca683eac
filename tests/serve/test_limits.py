"""What one client does harms no other: limits, tokens, disconnecting, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import processes
import pytest
from commands import command
from serving import Running, running
from starlette.requests import Request
from test_protocol import request
from test_runtime import written

from zooft.errors import RuntimeModelError
from zooft.serve.batching import Batcher, Pool
from zooft.serve.limits import Bodies, Limits, RequestRefused

INFER = "v2/models/one/infer"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "token").write_text("a secret\nanother line\n")
    with running(folder, f"one={model}", "--max-body", "1", "--token-file", folder / "token") as found:
        yield found


HEADERS = {"Authorization": "Bearer a secret"}


def is_well(server: Running) -> None:
    assert server.post(INFER, request(), headers=HEADERS).status_code == 200


# Batches


def doubled(array: np.ndarray) -> Mapping[str, np.ndarray]:
    return {"twice": array * 2}


def test_batches_are_full_or_wait_no_longer_than_the_delay() -> None:
    sizes: list[int] = []

    async def story() -> None:
        batcher = Batcher(doubled, Limits(batch=4, delay=0.2), report=sizes.append)
        begin = time.monotonic()
        answers = await asyncio.gather(*(batcher.answer((np.full((1, 2), n),)) for n in range(10)))
        assert [int(answer["twice"][0, 0]) for answer in answers] == [2 * n for n in range(10)]
        assert 0.15 < time.monotonic() - begin < 2
        alone = await batcher.answer((np.full((3, 2), 7),))
        assert alone["twice"].tolist() == [[14, 14]] * 3

    asyncio.run(story())
    assert sizes == [4, 4, 2, 3]


def test_samples_of_other_shapes_never_share_a_batch() -> None:
    shapes: list[tuple[int, ...]] = []

    def note(array: np.ndarray) -> Mapping[str, np.ndarray]:
        shapes.append(array.shape)
        return doubled(array)

    async def story() -> None:
        batcher = Batcher(note, Limits(batch=8, delay=0.05))
        await asyncio.gather(*(batcher.answer((np.zeros((1, 1 + n % 2)),)) for n in range(6)))

    asyncio.run(story())
    assert sorted(shapes) == [(3, 1), (3, 2)]


def test_a_sample_that_fails_fails_alone() -> None:
    def run(array: np.ndarray) -> Mapping[str, np.ndarray]:
        if (array < 0).any():
            raise RuntimeModelError("below zero")
        return doubled(array)

    async def story() -> list[Any]:
        batcher = Batcher(run, Limits(batch=8, delay=0.05))
        return await asyncio.gather(
            *(batcher.answer((np.full((1, 1), n),)) for n in (1, -1, 2)), return_exceptions=True
        )

    first, failed, last = asyncio.run(story())
    assert (first["twice"].item(), str(failed), last["twice"].item()) == (2, "below zero", 4)


def slow(array: np.ndarray) -> Mapping[str, np.ndarray]:
    time.sleep(0.3)
    return doubled(array)


def test_a_full_queue_and_a_late_answer_are_refused_and_whoever_leaves_is_not_computed() -> None:
    computed: list[int] = []

    async def story() -> None:
        batcher = Batcher(slow, Limits(batch=1, delay=0, queue=2, seconds=0.45), report=computed.append)
        tasks = []
        for n in range(4):
            tasks.append(asyncio.create_task(batcher.answer((np.full((1, 1), n),))))
            await asyncio.sleep(0.05)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0]["twice"].item() == 0
        assert isinstance(results[1], asyncio.CancelledError)
        late, many = results[2:]
        assert isinstance(late, RequestRefused)
        assert late.status == 504
        assert isinstance(many, RequestRefused)
        assert (many.status, many.headers) == (503, {"Retry-After": "1"})
        await asyncio.sleep(0.5)

    asyncio.run(story())
    assert sum(computed) <= 2


def test_threads_for_pictures_have_a_bounded_queue() -> None:
    async def story() -> list[Any]:
        pool = Pool(1, Limits(queue=1, seconds=5))
        return await asyncio.gather(*(pool.run(lambda: time.sleep(0.1)) for _ in range(3)), return_exceptions=True)

    *done, refused = asyncio.run(story())
    assert done == [None, None]
    assert isinstance(refused, RequestRefused)


# Who may ask


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer another"}, {"Authorization": "Basic a secret"}])
def test_without_the_token_nothing_is_told(server: Running, header: dict[str, str]) -> None:
    for path in ("v2", "models", "metrics", "v2/models/one", "nowhere"):
        answer = server.get(path, headers=header)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert server.post(INFER, request(), headers=header).status_code == 401
    assert server.get("v2/health/ready").status_code == 200
    is_well(server)


def test_pages_of_others_and_names_of_others_are_refused(server: Running) -> None:
    other = server.post(INFER, request(), headers={**HEADERS, "Origin": "https://example.org"})
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers
    assert server.post(INFER, request(), headers={**HEADERS, "Origin": server.address.rstrip("/")}).status_code == 200
    assert server.get("v2", headers={**HEADERS, "Host": "rebound.example.org"}).status_code == 421


def test_every_answer_has_its_headers(server: Running) -> None:
    for answer in (server.get("v2/health/live"), server.get("v2"), server.get("v2", headers=HEADERS)):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert answer.headers["Cache-Control"] == "no-store"
        assert "server" not in answer.headers


def test_to_let_others_in_needs_a_token(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOOFT_SERVE_TOKEN", raising=False)
    done = command("serve", model, "--host", "0.0.0.0", "--port", "0", status=2)  # noqa: S104 -- refused
    assert "without a token everybody may ask" in done.stderr
    assert "belong together" in command("serve", model, "--cert", model, "--port", "0", status=2).stderr


def test_logs_are_lines_of_json_without_names(server: Running) -> None:
    server.get("v2/models/secret-name?patient=Meyer", headers=HEADERS)
    time.sleep(0.1)
    (line,) = [one for one in server.lines() if one.get("status") == 404 and one["route"] == "/v2/models/{model}"][-1:]
    assert line.keys() == {"time", "level", "message", "method", "route", "status", "seconds", "bytes"}
    text = server.log.read_text()
    assert "Meyer" not in text
    assert "secret" not in text


def test_prometheus_reads_the_metrics(server: Running) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    is_well(server)
    families = {
        family.name: family for family in text_string_to_metric_families(server.get("metrics", headers=HEADERS).text)
    }
    (count,) = [
        one.value
        for one in families["zooft_requests"].samples
        if one.name.endswith("_total") and one.labels == {"route": "/v2/models/{model}/infer", "status": "200"}
    ]
    assert count >= 1
    assert "zooft_batch_samples" in families


# Too much


def test_a_large_body_is_refused_and_nobody_else_notices(server: Running) -> None:
    def send(stated: bool) -> int:
        body = bytes(5_000_000) if stated else (bytes(100_000) for _ in range(50))
        return httpx.post(server.address + INFER, content=body, headers=HEADERS, timeout=60).status_code

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(send, stated) for stated in (True, False)]
        is_well(server)
        assert [one.result() for one in waiting] == [413, 413]


def test_compressed_requests_are_refused(server: Running) -> None:
    assert server.post(INFER, b"", headers={**HEADERS, "Content-Encoding": "gzip"}).status_code == 415


def test_clients_that_disconnect_or_send_rubbish_harm_nobody(server: Running) -> None:
    host, _, port = server.host.partition(":")
    head = f"POST /{INFER} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Bearer a secret\r\n"
    for text in (f"{head}Content-Length: 100\r\n\r\nhalf", f"{head}Content-Length: -1\r\n\r\n", "\0\0\0", "GET", head):
        with socket.create_connection((host, int(port))) as one:
            one.sendall(text.encode())
    is_well(server)
    whole = f"{head}Content-Length: {len(request())}\r\n\r\n".encode() + request()
    for _ in range(20):
        with socket.create_connection((host, int(port))) as one:
            one.sendall(whole)
    is_well(server)
    assert not [line for line in server.lines() if line["level"] == "error"]


def test_a_slow_client_is_given_up() -> None:
    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def story() -> int:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        bodies = Bodies(Limits(reading=0.1))
        with pytest.raises(RequestRefused) as caught:
            async with bodies.read(Request(scope, never)):
                pass
        assert bodies.held == 0
        return caught.value.status

    assert asyncio.run(story()) == 408


# Beginning and end


def test_two_servers_on_one_port_is_a_clear_error(server: Running, model: Path) -> None:
    done = command("serve", model, "--port", server.host.partition(":")[2], status=2)
    assert "is taken, perhaps by another server; name another with --port" in done.stderr


def test_sigterm_finishes_what_runs(tmp_path: Path, model: Path) -> None:
    with running(tmp_path, f"one={model}", "--delay", "1500", "--max-batch", "16") as server:
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(server.post(INFER, request()).status_code))
        asking.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        asking.join(30)
        assert answers == [200]
        assert server.process.wait(30) == 0


def test_after_a_kill_clients_try_again_and_finish(tmp_path: Path, model: Path) -> None:
    port = processes.free_port()
    done = threading.Event()

    def ask(number: int) -> int:
        data = [number % 2, 1, 2]
        for _ in range(200):
            try:
                answer = client.post(f"http://127.0.0.1:{port}/{INFER}", content=request(data=data), timeout=5)
                if answer.status_code == 200:
                    done.set()
                    return int(json.loads(answer.content)["outputs"][2]["data"][0])
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError("never answered")

    with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
        with running(tmp_path, f"one={model}", port=port) as server:
            waiting = [pool.submit(ask, number) for number in range(200)]
            done.wait(60)
            server.process.kill()
            server.process.wait(10)
        with running(tmp_path, f"one={model}", port=port):
            found = [one.result(120) for one in waiting]
    assert found == [2] * 200


def test_tls_is_spoken_where_a_certificate_is_given(tmp_path: Path, model: Path) -> None:
    made = subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no openssl on the PATH")
    with running(tmp_path, f"one={model}", "--cert", tmp_path / "cert.pem", "--key", tmp_path / "key.pem") as server:
        trusted = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        assert server.address.startswith("https://")
        assert httpx.get(server.address + "v2", verify=trusted).status_code == 200


def test_the_server_never_loads_torch(tmp_path: Path, model: Path) -> None:
    code = (
        "import sys; from zooft.hooks import registry; from zooft.serve import server\n"
        f"server.build(server.Options(models=[{str(model)!r}]), registry.load())\n"
        "assert not {'torch', 'torchvision', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules), sys.modules.keys()"
    )
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
