"""Two volumes under one SeriesInstanceUID: which slice is of which is known, since each test has made them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import ct, multiframe, write
from example_data import real
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from zooft_ct.discover import gather
from zooft_ct.options import CTOptions
from zooft_ct.series import Series, scan

Tag = Callable[[int, int], dict[str, Any]]
"""What the header of a slice says: by the volume, and by the slice's number in it."""


def volume(folder: Path, part: int, heights: Sequence[float], tag: Tag) -> None:
    for number, height in enumerate(heights):
        seed = 100 * part + number
        write(folder / f"{part}-{number:02}.dcm", ct(height, seed=seed, **tag(part, number)))


def found(folder: Path) -> list[Series]:
    scanned = scan(folder)
    assert not scanned.rejected
    return list(scanned.series)


def volumes_of(series: Sequence[Series]) -> list[set[str]]:
    """Of each series, which volumes its slices are of, by their files' names."""
    return [{each.path.name.partition("-")[0] for each in one.slices} for one in series]


TELLING: dict[str, Tag] = {
    "AcquisitionNumber": lambda part, _: {"AcquisitionNumber": part + 1},
    "AcquisitionNumber of each": lambda part, number: {"AcquisitionNumber": 1 + 6 * part + number},
    "TemporalPositionIdentifier": lambda part, _: {"TemporalPositionIdentifier": part + 1},
    "TriggerTime": lambda part, _: {"TriggerTime": 100 + 300 * part},
    "EchoNumbers": lambda part, _: {"EchoNumbers": part},
    "ImageType": lambda part, _: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "AB"[part % 2] * (1 + part)]},
    "ConvolutionKernel": lambda part, _: {"ConvolutionKernel": f"B{3 + part}0f"},
    "SeriesDescription": lambda part, _: {"SeriesDescription": ["arterial", "venous"][part]},
    "ImageComments": lambda part, _: {"ImageComments": ["arterial", "venous"][part]},
    "FilterType": lambda part, _: {"FilterType": "AB"[part]},
    "KVP": lambda part, _: {"KVP": 80 + 60 * part},
    "AcquisitionTime": lambda part, number: {"AcquisitionTime": f"1000{20 * part + number:02}.5"},
    "AcquisitionTime of all": lambda part, _: {"AcquisitionTime": f"1000{20 * part:02}"},
    "ContentTime": lambda part, number: {"ContentTime": f"10{1 + part:02}{number:02}"},
}


@pytest.mark.parametrize("shift", [0.0, 2.5, 1.0])
@pytest.mark.parametrize("name", TELLING)
def test_volumes_that_alternate_or_share_their_places_are_distinguished(
    name: str, shift: float, tmp_path: Path
) -> None:
    for part in (0, 1):
        volume(tmp_path, part, [5.0 * n + shift * part for n in range(6)], TELLING[name])
    series = found(tmp_path)
    assert volumes_of(series) == [{"0"}, {"1"}]
    tag = name.split()[0]
    assert all(one.notes[0] == f"one of 2 volumes in one series, separated by {tag}" for one in series)
    assert len({one.acquisition for one in series}) == 2


def test_three_phases_a_third_of_the_way_apart_are_three(tmp_path: Path) -> None:
    for part in range(3):
        volume(tmp_path, part, [6.0 * n + 2 * part for n in range(5)], TELLING["ContentTime"])
    assert volumes_of(found(tmp_path)) == [{"0"}, {"1"}, {"2"}]


def test_phases_of_two_kernels_each_are_four(tmp_path: Path) -> None:
    def tag(part: int, _number: int) -> dict[str, Any]:
        return {"ConvolutionKernel": "AB"[part % 2], "TemporalPositionIdentifier": part // 2}

    for part in range(4):
        volume(tmp_path, part, [5.0 * n for n in range(4)], tag)
    assert sorted(map(sorted, volumes_of(found(tmp_path)))) == [["0"], ["1"], ["2"], ["3"]]


def test_a_thin_volume_within_a_thick_one_is_distinguished(tmp_path: Path) -> None:
    volume(tmp_path, 0, [5.0 * n + 0.5 for n in range(4)], TELLING["AcquisitionNumber"])
    volume(tmp_path, 1, [1.0 * n for n in range(16)], TELLING["AcquisitionNumber"])
    assert sorted(map(sorted, volumes_of(found(tmp_path)))) == [["0"], ["1"]]


@pytest.mark.parametrize(
    "tag",
    [
        lambda _part, number: {"AcquisitionNumber": 1 + number // 4},  # table moves between rotations
        lambda _part, number: {"AcquisitionNumber": 1 + number},
        lambda _part, number: {"AcquisitionNumber": 12 - number},
        lambda _part, number: {"ContentTime": f"1000{number:02}"},
        lambda _part, number: {"ContentTime": f"10{59 - number:02}00", "AcquisitionTime": "100000"},
        lambda _part, number: {"ContentTime": f"1000{int(np.random.default_rng(number).integers(60)):02}"},
        lambda _part, number: {"ContentTime": f"1000{number // 3 + (number % 3 == 2):02}"},  # as computers finish
        lambda _part, number: {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", *(["ADD"] if number > 5 else [])]},
        lambda _part, number: {"InstanceNumber": int(np.random.default_rng(0).permutation(12)[number])},
        lambda _part, number: {"KVP": 120, "TriggerTime": 300 + 7 * number},
    ],
)
def test_one_volume_stays_one(tag: Tag, tmp_path: Path) -> None:
    volume(tmp_path, 0, [5.0 * n for n in range(12)], tag)
    (series,) = found(tmp_path)
    assert len(series.slices) == 12
    assert not series.notes


def test_real_series_stay_whole() -> None:
    assert [len(one.slices) for one in found(real("ct_series/totalseg_example_ct_dicom"))] == [20]
    assert [len(one.slices) for one in found(real("ct_series/dcm_qa_ct_GE"))] == [28]


def test_no_sample_has_slices_of_two_phases(tmp_path: Path) -> None:
    for part in (0, 1):
        volume(tmp_path, part, [5.0 * n + 2.5 * part for n in range(6)], TELLING["TemporalPositionIdentifier"])
    samples = gather([tmp_path], CTOptions(mode="2.5d", hu_cache="off")).samples
    assert len({sample.id for sample in samples}) == 12
    for sample in samples:
        assert len({ref.path.name[0] for ref in sample.source.slices}) == 1


def test_phases_within_one_enhanced_file_are_distinguished(tmp_path: Path) -> None:
    slices = [ct(5.0 * number + 2.5 * part, seed=10 * part + number) for number in range(4) for part in (0, 1)]
    dataset = multiframe(slices)
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        content = Dataset()
        content.TemporalPositionIndex = 1 + index % 2
        frame.FrameContentSequence = Items([content])
    write(tmp_path / "a.dcm", dataset)
    assert [[each.frame % 2 for each in one.slices] for one in found(tmp_path)] == [[0] * 4, [1] * 4]


def test_instance_numbers_that_go_through_the_stack_twice_are_reported(tmp_path: Path) -> None:
    for part in (0, 1):
        volume(tmp_path, part, [5.0 * n + 2.5 * part for n in range(8)], lambda p, n: {"InstanceNumber": 8 * p + n})
    (series,) = found(tmp_path)
    assert "its InstanceNumbers go through the stack 2 times" in series.notes[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            ["DERIVED", "SECONDARY", "MIP", "JOHN DOE"],
            "its slices were computed from other images as MIP (ImageType DERIVED)",
        ),
        (["DERIVED", "PRIMARY", "AXIAL"], "its slices were computed from other images (ImageType DERIVED)"),
    ],
)
def test_derived_series_are_reported(kind: list[str], words: str, tmp_path: Path) -> None:
    volume(tmp_path, 0, [5.0 * n for n in range(4)], lambda _part, _number: {"ImageType": kind})
    notes = gather([tmp_path], CTOptions(hu_cache="off")).notes
    assert any(words in note for note in notes)
    assert "JOHN" not in "".join(notes)
