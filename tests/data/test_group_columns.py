"""Columns of real tables that say who or what a picture is of are pointed out, and others aren't."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zooft import likely_groups

ROWS = 60


def by(each: int, form: str) -> list[str]:
    """An id for every so many rows."""
    return [form.format(row // each) for row in range(ROWS)]


@pytest.mark.parametrize(
    "name",
    ["patient", "Patient ID", "patient_id", "PatientID", "patientid", "subject", "subject_id", "Subject No.", "person", "case",
     "case_id", "participant_id", "StudyInstanceUID", "seriesinstanceuid", "series_uid", "animal", "mouse_id", "slide_id", "video",
     "user_id", "group"],
)  # fmt: skip # a table of cases
def test_names_of_subjects_and_recordings_are_known(name: str) -> None:
    assert likely_groups({"age": (), name: (), "sex": ()}) == (name,)
    assert likely_groups({name: by(4, "{}")}) == (name,)


@pytest.mark.parametrize(
    "name",
    ["age", "sex", "patient_age", "age of the patient", "scanner", "image_id", "id", "file", "width", "diameter [mm]", "caption",
     "study date", "note", "keyword", "license", "url", "name", ""],
)  # fmt: skip # a table of cases
def test_other_names_are_not(name: str) -> None:
    assert likely_groups({name: ()}) == ()


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("origin", by(3, "P{:03d}")),
        ("origin", by(2, "scan_{}-A")),
        ("origin", by(4, "{:04d}")),
        ("origin", by(5, "1.2.840.113.{}")),
        ("origin", by(3, "3f2504e0-4f89-11d3-9a0c-0305e82c{:04x}")),
        ("sub id", by(3, "{}")),
    ],
)
def test_ids_that_rows_share_are_seen_under_any_name(name: str, cells: Sequence[str]) -> None:
    assert likely_groups({name: cells}) == (name,)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("id", by(1, "P{:03d}")),  # each its own
        ("patient", by(1, "P{:03d}")),
        ("patient", ["P1"] * ROWS),  # all one
        ("patient", ["yes", "no"] * (ROWS // 2)),
        ("case", ["case", "control"] * (ROWS // 2)),
        ("age", by(2, "{}")),
        ("age", by(2, "{:03d}Y")),
        ("diameter", by(2, "{}.5")),
        ("size", by(2, "{0}x{0}")),
        ("day", by(2, "2024-01-{:02d}")),
        ("time", by(2, "12:{:02d}:00")),
        ("colour", ["red", "green", "blue"] * (ROWS // 3)),
        ("kernel", ["B30f", "B60f", "B70f"] * (ROWS // 3)),
        ("note", [""] * ROWS),
        ("origin", [*by(3, "P{:03d}")[:20], *[""] * 40]),
    ],
)
def test_measures_dates_flags_and_ids_of_one_row_are_not(name: str, cells: Sequence[str]) -> None:
    assert likely_groups({name: cells}) == ()


def test_people_come_before_their_recordings_and_names_before_values() -> None:
    columns = {"origin": by(3, "P{:03d}"), "series_uid": by(2, "1.2.{}"), "subject": by(6, "S{}")}
    assert likely_groups(columns) == ("subject", "series_uid", "origin")
