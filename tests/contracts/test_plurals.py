"""One thing is singular, any other number plural."""

from __future__ import annotations

import zooft


def test_one_is_singular_and_any_other_number_plural() -> None:
    assert [zooft.pluralize(n, "file") for n in (0, 1, 2, 12_345)] == ["0 files", "1 file", "2 files", "12,345 files"]


def test_irregular_plurals_and_verbs_are_given_as_words() -> None:
    assert zooft.pluralize(2, "study", "studies") == "2 studies"
    assert [zooft.pluralize(n, "patient has", "patients have") for n in (1, 3)] == ["1 patient has", "3 patients have"]
