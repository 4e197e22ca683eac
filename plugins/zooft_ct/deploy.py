"""How to read a series for the exported file where there is no zooft: source for the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zooft_ct.options import CTOptions

_READ = '''\
from pathlib import Path

import pydicom
from pydicom.pixels import apply_modality_lut


def read(folder):
    """One axial series, and nothing else, in a folder. zooft also handles gaps, padding values, other planes."""
    slices = [pydicom.dcmread(path) for path in Path(folder).iterdir() if path.is_file()]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))  # from feet to head
    hu = [np.clip(np.rint(apply_modality_lut(one.pixel_array, one)), -1024, 3071) for one in slices]
    row = slices[0].ImageOrientationPatient  # front first, the patient's right first
    hu = np.stack(hu).astype(np.int16)[:, :: -1 if row[4] < 0 else 1, :: -1 if row[0] < 0 else 1]
'''
_SAMPLES = {
    "slice": "    samples = [hu[i : i + 1] for i in range(len(hu))]  # every slice",
    "windows": "    samples = [hu[i : i + 1] for i in range(len(hu))]  # every slice",
    "2.5d": """\
    last = len(hu) - 1
    samples = [hu[[max(i - 1, 0), i, min(i + 1, last)]] for i in range(len(hu))]  # between neighbours""",
    "volume": """\
    wanted = (np.arange({slices}) + 0.5) * len(hu) / {slices} - 0.5
    samples = [hu[np.abs(np.arange(len(hu)) - wanted[:, None]).argmin(1)]]  # {slices} slices, evenly spaced""",
}


def reader(options: CTOptions) -> str:
    """A function ``read(folder)`` by pydicom and numpy alone."""
    lines = _READ + _SAMPLES[options.mode].format(slices=options.slices)
    if not options.spacing:
        return lines + "\n    return [(sample[None],) for sample in samples]\n"
    return (
        lines
        + "\n    spacing = np.array([slices[0].PixelSpacing], np.float32)  # mm between rows, between columns"
        + "\n    return [(sample[None], spacing) for sample in samples]\n"
    )
