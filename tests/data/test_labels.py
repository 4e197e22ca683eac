"""What may be the name of a class, and that one class has one spelling."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

import zooft


def check(*labels: str, in_table: bool = True, private: bool = False) -> tuple[str, ...]:
    places = ((label, f"labels.csv, line {number}") for number, label in enumerate(labels, 2))
    return zooft.check_labels(places, in_table=in_table, private=private)


def refusal(*labels: str, in_table: bool = True, private: bool = False) -> str:
    with pytest.raises(zooft.DataError) as caught:
        check(*labels, in_table=in_table, private=private)
    return str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Positive", "positive"),
        ("straße", "STRASSE"),
        ("no contrast", "no  contrast"),
        ("nodule", "nod\u200bule"),
        ("nodule", "nodule\ufeff"),
        ("nodule", "nod\u00adule"),
        ("caf\u00e9", "cafe\u0301"),
        ("\ufb01brosis", "fibrosis"),
        ("\uff11", "1"),
        ("no\u00a0nodule", "no nodule"),
        ("1", "1.0"),
        ("1", "01"),
        ("-1", "-1.00"),
        ("2.5", "2.50"),
        ("0", "0."),
        ("0", "-0"),
        ("1", "1.000e+00"),
        ("0.5", ".5"),
        ("-1", "\u22121"),
    ],
)
def test_two_spellings_of_a_class_are_an_error_that_shows_both(one: str, other: str) -> None:
    message = refusal(one, "else", other, one)
    assert "classes that differ only in case, spaces" in message
    assert "labels.csv, lines 2 and 5" in message.replace("2, 5", "2 and 5")
    assert "labels.csv, line 4" in message
    shown = [repr(one), repr(other)] if unicodedata.is_normalized("NFKC", one + other) else [ascii(one), ascii(other)]
    assert all(text in message for text in shown) or ascii(other) in message


@pytest.mark.parametrize("labels", [("1", "10", "0.1"), ("-1", "1"), ("ant", "bee"), ("I", "l"), ("P1", "P10")])
def test_different_names_are_different_classes(labels: tuple[str, ...]) -> None:
    assert check(*labels * 3) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no nodule", "no_nodule"),
        ("no-nodule", "no_nodule"),
        ("non\u2013small", "non-small"),
        ("Crohn's", "Crohn\u2019s"),
    ],
)
def test_names_that_differ_in_what_joins_their_words_are_reported(one: str, other: str) -> None:
    (message,) = check(one, "else", other)
    assert message.startswith("warning: classes that differ only in spaces, hyphens, underscores or apostrophes: ")
    assert "labels.csv, line 2" in message
    assert "labels.csv, line 4" in message
    assert check("HER2+", "HER2-", "1_2", "12") == ()


@pytest.mark.parametrize("label", ["nan", "NaN", "NA", "N/A", "#N/A", "null", "NULL", "<NA>", "#VALUE!", "?"])
@pytest.mark.parametrize("in_table", [True, False])
def test_words_for_no_label_are_never_a_class(label: str, in_table: bool) -> None:
    message = refusal("yes", label, in_table=in_table)
    assert message.startswith(
        f"labels.csv, line 3: {label!r} can't be the name of a class: it means that there is no label"
    )


@pytest.mark.parametrize(
    "labels",
    [("yes", "no", "1"), ("True", "0", "positive"), ("0", "1", "False"), ("neg", "pos", "Negative"), ("y", "n", "Yes")],
)
def test_words_that_mean_the_same_are_one_class_or_an_error(labels: tuple[str, ...]) -> None:
    assert "classes that mean the same: " in refusal(*labels)


def test_numbers_and_letters_of_classes_aren_t_mistaken_for_yes_and_no() -> None:
    assert check(*map(str, range(10))) == ()
    assert check(*"abcdefghijklmnopqrstuvwxyz", in_table=False) == ()
    assert check("Y", "Yes", "N", "No", "Ne", "Na+") == ()
    assert check("positive", "negative", "no finding") == ()


def test_none_is_a_class_beside_names_and_no_label_beside_numbers() -> None:
    assert check("nodule", "none") == ()
    assert "'None' among numbers means that there is no label" in refusal("0", "1", "None")


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("", "it is empty"),
        ("x" * 101, "it has 101 characters"),
        ("DOE\nJANE", "a line break, a tab or another control character"),
        ("DOE\tJANE", "a line break, a tab or another control character"),
        ("DOE\x1b[31m", "a line break, a tab or another control character"),
        ("DOE\u2029", "a line break, a tab or another control character"),
        ("DOE\u202eenod", "turns the direction of writing"),
        ("DOE,JANE", "a comma, semicolon, bar or quotation mark"),
        ("DOE;JANE", "a comma, semicolon, bar or quotation mark"),
        ('DOE"', "a comma, semicolon, bar or quotation mark"),
        ("\u200b\u200b", "nothing that can be seen"),
    ],
)
def test_texts_that_cant_be_a_name_are_refused_and_not_repeated(label: str, words: str) -> None:
    message = refusal("yes", label)
    assert words in message
    assert message.startswith("labels.csv, line 3: ")
    assert "DOE" not in message
    fault = zooft.label_fault(label, in_table=True)
    assert fault is not None
    assert words in fault


def test_folders_may_hold_commas() -> None:
    assert check("tench, Tinca tinca", "goldfish", in_table=False) == ()
    assert zooft.label_fault("x" * 100) is None


def test_a_column_of_many_numbers_is_read_as_a_measurement() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(5, 2, 60).round(3), rng.integers(100, 900, 40), np.arange(6) + 0.25):
        message = refusal(*map(str, values))
        assert "the label looks like a measurement, and this task is a classification" in message
        assert f"{len(set(values))} different numbers in {len(values)} lines" in message
        assert f"labels.csv, line 2: {values[0]}" in message
        assert "--task regression learns numbers" in message
        message = refusal(*map(str, values), private=True)
        assert "(labels.csv, line 2):" in message
        assert "--task ct-regression learns numbers" in message


def test_numbers_of_classes_are_classes() -> None:
    assert check(*map(str, [*range(100)] * 5)) == ()
    assert check("0", "1", "0", "1") == ()
    assert check(*map(str, [*range(15)] * 2)) == ()
    assert check(*map(str, [*range(1, 16)] * 2)) == ()
    assert "looks like a measurement" in refusal(*map(str, range(1, 41)))  # a rank
    assert check("0.5", "1.5", "2.5", *["0.5", "1.5"] * 5) == ()
    (note,) = check(*map(str, [*range(20, 91, 2)] * 40))
    assert "36 classes are all numbers, from 20 to 90" in note
    assert check(*map(str, range(30)), in_table=False) == ()


def test_a_column_of_names_isn_t_mistaken_for_labels_where_people_are_named() -> None:
    names = [f"DOE^{index}" for index in range(12)]
    message = refusal(*names, private=True)
    assert "12 different labels in 12 lines" in message
    assert "DOE" not in message
