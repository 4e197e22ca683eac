"""The page at ``/``: one HTML text with its style and its script inside, which nothing else may load or run."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources


@cache
def whole() -> tuple[str, str]:
    """The page, and the Content-Security-Policy that allows just its own style and script."""
    own = resources.files("zooft.serve.page")
    report = resources.files("zooft").joinpath("report/templates/style.css").read_text(encoding="utf-8")
    style = report + own.joinpath("page.css").read_text(encoding="utf-8")
    script = own.joinpath("page.js").read_text(encoding="utf-8")
    html = own.joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script), policy


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
