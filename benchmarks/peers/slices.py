"""CT slices as pictures, for tools that read nothing else: one window, no patient in both splits."""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from zooft.data import samples
from zooft.data.split import split
from zooft.hooks import registry

HELD_OUT = 0.4
"""Share of the samples that validation gets, large enough for tools to differ on a hundred slices."""


def write(source: Path, folder: Path, *, window: str) -> Path:
    """Write ``train/CLASS/ID.png`` and ``val/CLASS/ID.png``, grey levels of 8 bits, anew.

    Args:
        source: labelled CT, as the task ``ct`` reads it.
        folder: to be written.
        window: HU, by name or as CENTER/WIDTH.

    Returns:
        `folder`.

    Raises:
        DataError: `source` holds no CT with labels.
        ConfigError: no such window.
    """
    task = registry.load().task("ct")
    options = task.options(mode="slice", window=(window,))
    found = samples.discover(task, source, options)
    strata = task.problem.training.strata([sample.target for sample in found.samples], found.labels)
    splits = split(found.samples, strata, fraction=HELD_OUT, seed=0)
    shutil.rmtree(folder, ignore_errors=True)
    for name, members in (("train", splits.train), ("val", splits.val)):
        for sample in members:
            place = folder / name / found.classes[sample.target]
            place.mkdir(parents=True, exist_ok=True)
            levels = samples.picture(task, options, samples.read(task, options, sample))
            Image.fromarray(levels).save(place / f"{sample.id.replace('/', '-')}.png")
    return folder
