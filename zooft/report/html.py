"""Pages of blocks as one HTML file each, that loads nothing from anywhere."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

    from zooft.report.blocks import Page


def to_html(page: Page) -> str:
    """The page, with its style sheet inside."""
    environment = _environment()
    style = resources.files("zooft.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(page=page, style=style)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("zooft.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["kind"] = lambda block: type(block).__name__.lower()
    return made
