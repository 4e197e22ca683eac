"""Learning curves, and how matplotlib's figures become part of a page: read back from the SVG."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from zooft.report import drawing, figures
from zooft.report.blocks import Drawing

EPOCHS: list[dict[str, Any]] = [
    {
        "epoch": n,
        "train_loss": 1 / n,
        "val_loss": None if n == 2 else 0.5 + 0.1 * n,
        "metrics": {"accuracy": 0.1 * n, "auroc": None},
    }
    for n in (1, 2, 3, 4)
]


def root(found: Drawing | None) -> ElementTree.Element:
    assert found is not None
    return ElementTree.fromstring(str(found.svg))  # noqa: S314 -- ours


def lines(svg: ElementTree.Element, colour: str) -> list[np.ndarray[Any, Any]]:
    """Points of each line of a colour of the page, in the figure's own units, y upwards."""
    found = []
    for path in svg.iter("path"):
        if f"stroke: var(--{colour})" in path.get("style", "") and "clip-path" in path.attrib:
            pairs = re.findall(r"[ML] (\S+) (\S+)", path.get("d", ""))
            found.append(np.array([(float(x), -float(y)) for x, y in pairs]))
    return found


def ticks(svg: ElementTree.Element, axis: str) -> dict[float, float]:
    """Number at a tick to its place along the axis."""
    found = {}
    for group in svg.iter("g"):
        if re.search(rf"-{axis}tick_\d+$", group.get("id", "")):
            use = list(group.iter("use"))[-1]
            text = "".join("".join(one.itertext()) for one in group.iter("text"))
            found[float(text.replace("−", "-"))] = float(use.get(axis, "nan")) * (-1 if axis == "y" else 1)
    return found


def values(svg: ElementTree.Element, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Points in the numbers of the axes, by a straight line through the ticks."""
    columns = []
    for number, axis in enumerate("xy"):
        known = ticks(svg, axis)
        slope, offset = np.polyfit(list(known.values()), list(known), 1)
        columns.append(slope * points[:, number] + offset)
    return np.stack(columns, axis=1)


def test_losses_are_drawn_at_their_epochs() -> None:
    svg = root(figures.losses(EPOCHS))
    (train,) = lines(svg, "blue")
    np.testing.assert_allclose(values(svg, train), [(n, 1 / n) for n in (1, 2, 3, 4)], atol=2e-3)
    (val,) = lines(svg, "orange")
    np.testing.assert_allclose(values(svg, val), [(1, 0.6), (3, 0.8), (4, 0.9)], atol=2e-3)
    assert {"training", "validation", "epoch", "loss"} <= set(svg.itertext())


def test_what_was_not_validated_has_no_curve() -> None:
    svg = root(figures.losses([{"epoch": n, "train_loss": 1.0, "val_loss": None} for n in (1, 2)]))
    assert lines(svg, "orange") == []
    assert "validation" not in set(svg.itertext())


def test_metrics_are_drawn_with_the_epoch_whose_weights_stayed() -> None:
    found = figures.progress(EPOCHS, ["accuracy", "auroc"], best=3)
    svg = root(found)
    accuracy = lines(svg, drawing._VARIABLES[drawing.SERIES[0]])[0]
    np.testing.assert_allclose(values(svg, accuracy), [(n, 0.1 * n) for n in (1, 2, 3, 4)], atol=2e-3)
    (best,) = lines(svg, "muted")
    np.testing.assert_allclose(values(svg, best)[:, 0], 3, atol=2e-3)
    assert found is not None
    assert found.caption == "The dotted line marks epoch 3, whose weights were saved."
    assert {"Accuracy", "AUROC"} <= set(svg.itertext())


def test_without_metrics_there_is_no_drawing() -> None:
    assert figures.progress([{"epoch": 1, "metrics": {}}], ["accuracy"], best=None) is None


# Within a page


def drawn(name: str) -> str:
    with drawing.axes(width=2, height=2) as axes:
        axes.plot([0, 1], [0, 1], color=drawing.GREEN, label="a < b & $x$")
        axes.fill_between([0, 1], [0, 1], color=drawing.ROSE, clip_on=True)
        axes.legend()
        return str(drawing.to_svg(axes, name=name, label='what "it" shows'))


def test_two_figures_stand_in_one_page_with_ids_of_their_own_that_lead_somewhere() -> None:
    seen: set[str] = set()
    for name in ("one", "two"):
        svg = ElementTree.fromstring(drawn(name))  # noqa: S314 -- ours
        ids = {element.get("id", "") for element in svg.iter()} - {""}
        assert ids
        assert not ids & seen
        seen |= ids
        used = re.findall(r"url\(#([^)]+)\)", drawn(name)) + [use.get("href", "")[1:] for use in svg.iter("use")]
        assert used
        assert set(used) <= ids


def test_colours_are_the_page_s_and_texts_are_texts() -> None:
    text = drawn("one")
    assert "var(--green)" in text
    assert "var(--rose)" in text
    assert not [colour for colour in drawing._VARIABLES if colour in text]
    svg = ElementTree.fromstring(text)  # noqa: S314 -- ours
    assert "a < b & $x$" in set(svg.itertext())
    assert svg.get("aria-label") == 'what "it" shows'
    assert not list(svg.iter("style"))
    assert not list(svg.iter("metadata"))


def test_the_same_figure_is_the_same_text() -> None:
    assert drawn("one") == drawn("one")


def test_settings_of_the_page_do_not_outlive_it() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn("one")
    with pytest.raises(ValueError, match="stop"), drawing.axes(width=1, height=1):
        raise ValueError("stop")
    assert dict(mpl.rcParams) == before
