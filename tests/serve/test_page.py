"""The page, in a real browser: answers of several problems, keyboard, phone, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from browser import Browser, browser
from PIL import Image
from serving import Running, running
from test_runtime import changed_metadata, written

ANSWERED = "document.querySelectorAll('.answer').length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    first = written(folder / "a")
    hostile = changed_metadata(intended_use="<img src=x onerror=document.title='broken'>")
    with running(folder, f"one={first}", f"two={written(folder / 'b', hostile)}") as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """One place alone decides."""
    levels = np.zeros((120, 120, 3), np.uint8)
    levels[30:40, 70:80, 1] = 100
    Image.fromarray(levels).save(tmp_path / "<b>zebra.png")
    return tmp_path / "<b>zebra.png"


def opened(page: Browser, server: Running, *, width: int = 1100, dark: bool = False) -> None:
    page.complaints.clear()
    page.requests.clear()
    page.open(server.address, width=width, dark=dark)
    page.wait("!document.getElementById('about').hidden")


def test_a_picture_is_answered_with_probabilities_and_a_map_of_what_matters(
    page: Browser, server: Running, picture: Path
) -> None:
    opened(page, server)
    page.choose("#files", picture)
    page.wait(f"{ANSWERED} == 1")
    assert page.evaluate("document.querySelector('.answer h3').textContent") == "class: ant"
    names = page.evaluate("[...document.querySelectorAll('.bars dt')].map(one => one.textContent)")
    shares = page.evaluate("[...document.querySelectorAll('.bars .number')].map(one => parseFloat(one.textContent))")
    wanted = httpx.post(server.address + "predict/one", content=picture.read_bytes()).json()["predictions"][0]
    assert (names[0], set(names)) == ("ant", {"zebra", "ant", "bee é"})
    np.testing.assert_allclose(sorted(shares), sorted(100 * np.array(wanted["probabilities"])), atol=0.051)
    assert "<b>zebra.png" in page.evaluate("document.querySelector('.answer .caption').textContent")
    page.evaluate("document.querySelector('.answer button').click()")
    page.wait("document.querySelector('.answer canvas') !== null")
    pixels = page.evaluate(
        "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 12, 12).data].filter((_, n) => n % 4 == 3)"
    )
    assert np.unravel_index(np.argmax(pixels), (12, 12)) == (3, 7)
    assert not page.complaints


def test_it_is_used_by_keyboard_alone(page: Browser, server: Running) -> None:
    opened(page, server)
    reached = []
    for _ in range(4):
        page.press("Tab", code=9)
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
    assert reached[:3] == ["skip", "model", "files"]


def test_no_request_leaves_the_server_and_its_policy_forbids_it(page: Browser, server: Running, picture: Path) -> None:
    opened(page, server)
    page.choose("#files", picture)
    page.wait(f"{ANSWERED} == 1")
    places = {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")}
    assert places == {server.host}
    policy = httpx.get(server.address).headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    failed = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    assert failed == "refused"
    script = "Object.assign(document.createElement('script'), { textContent: 'globalThis.ran = 1' })"
    assert page.evaluate(f"(document.body.append({script}), globalThis.ran ?? 'refused')") == "refused"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1100])
def test_it_fits_every_width_in_light_and_dark(
    page: Browser, server: Running, picture: Path, width: int, dark: bool
) -> None:
    opened(page, server, width=width, dark=dark)
    page.choose("#files", picture)
    page.wait(f"{ANSWERED} == 1")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(18, 22, 27)" if dark else "rgb(255, 255, 255)")


def test_what_a_file_states_is_shown_as_text(page: Browser, server: Running) -> None:
    opened(page, server)
    page.evaluate("(find('model').value = '1', showModel())")
    assert "<img src=x" in page.evaluate("document.getElementById('card').textContent")
    assert page.evaluate("document.querySelectorAll('#card img').length") == 0
    assert page.evaluate("document.title") == "two – zooft"


def test_what_cannot_be_answered_is_shown_with_its_reason(page: Browser, server: Running, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"no picture")
    opened(page, server)
    page.choose("#files", tmp_path / "torn.png")
    page.wait(f"{ANSWERED} == 1")
    assert "not an image that Pillow knows" in page.evaluate("document.querySelector('.answer .error').textContent")


def test_a_token_is_asked_for(page: Browser, tmp_path: Path) -> None:
    with running(tmp_path, f"one={written(tmp_path)}", ZOOFT_SERVE_TOKEN="a secret") as server:  # noqa: S106 -- of this test
        page.open(server.address, width=1100)
        page.wait("!document.getElementById('access').hidden")
        page.evaluate("(find('token').value = 'another', find('access').requestSubmit())")
        page.wait("find('status').textContent != ''")
        page.evaluate("(find('token').value = 'a secret', find('access').requestSubmit())")
        page.wait("!document.getElementById('about').hidden")
        assert page.evaluate("document.getElementById('access').hidden")
