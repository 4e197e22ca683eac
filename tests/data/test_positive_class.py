"""Which of two classes is the positive one: never the word for having found nothing, in any order."""

from __future__ import annotations

from pathlib import Path

import example_data
import pytest

import zooft
from zooft.deploy import saved
from zooft.hooks import registry
from zooft.run.record import read_record

FINDING_AND_NOTHING = [
    ("abnormal", "normal"),
    ("cancer", "healthy"),
    ("malignant", "normal"),
    ("malignant", "benign"),
    ("hemorrhage", "normal"),
    ("contrast", "no_contrast"),
    ("nodule", "clear"),
    ("yes", "no"),
    ("1", "0"),
    ("1.0", "0.0"),
    ("defect", "good"),
    ("nok", "ok"),
    ("glioma", "notumor"),
    ("Nodule", "NoFinding"),
    ("benign", "normal"),
    ("lesion", "none"),
    ("present", "absent"),
    ("not normal", "normal"),
    ("HER2+", "HER2-"),
    ("patient", "control"),
    ("cat", "other"),
    ("lung_cancer", "lung_normal"),
    ("nodule_1", "nodule_0"),
    ("cancer", "cancer-free"),
    ("cancer", "noncancer"),
    ("COVID", "non-COVID"),
    ("y", "n"),
    ("True", "False"),
    ("1", "-1"),
    ("malignant_nodule", "benign_nodule"),
    ("unhealthy", "healthy"),
    ("xyz", "healthy"),
    ("Positive", "Negative"),
    ("PE", "No PE"),
    ("abnormal finding", "no abnormal finding"),
    ("01_cancer", "00_normal"),
    ("0_cancer", "1_normal"),
    ("nodule", "nonodule"),
    ("with_PE", "without_PE"),
    ("PE present", "PE absent"),
    ("Befund", "kein_Befund"),
    ("befund", "ohne Befund"),
    ("bösartig", "gutartig"),
    ("positif", "négatif"),
    ("con_nódulo", "sin_nódulo"),
    ("异常", "正常"),
]


@pytest.mark.parametrize(("finding", "nothing"), FINDING_AND_NOTHING)
def test_what_is_found_is_positive_in_any_order(finding: str, nothing: str) -> None:
    for names in ((finding, nothing), (nothing, finding)):
        ordered, (note,) = zooft.order_classes(names, "", ask=True)
        assert ordered == (nothing, finding)
        assert note.startswith(f"the positive class is {finding!r}, and {nothing!r} the negative one")


@pytest.mark.parametrize(
    "names", [("ants", "bees"), ("1", "2"), ("stage 1", "stage 2"), ("cancer", "nodule"), ("healthy", "normal")]
)
def test_where_words_decide_nothing_it_is_an_error_or_a_note(names: tuple[str, str]) -> None:
    with pytest.raises(zooft.ConfigError, match="which class is the positive one can't be inferred from the names"):
        zooft.order_classes(names, "", ask=True)
    ordered, (note,) = zooft.order_classes(names, "")
    assert ordered == names
    assert "the last by name; --positive names another" in note


@pytest.mark.parametrize("names", [("adenocarcinoma", "squamous"), ("cyst", "mass"), ("covid", "influenza")])
def test_a_finding_beside_an_unknown_word_isn_t_mistaken_for_the_positive_class(names: tuple[str, str]) -> None:
    """Squamous is a carcinoma, too: only a word for nothing or for something harmless shows which one isn't."""
    for ordered in (names, names[::-1]):
        with pytest.raises(zooft.ConfigError, match="--positive"):
            zooft.order_classes(ordered, "", ask=True)


def test_the_user_is_believed() -> None:
    ordered, (note,) = zooft.order_classes(("abnormal", "normal"), "Normal", ask=True)
    assert ordered == ("abnormal", "normal")
    assert note.endswith("as --positive states")
    ordered, (note,) = zooft.order_classes(("a", "b", "c"), "a")
    assert ordered == ("b", "c", "a")
    assert note == "'a' stands last of the 3 classes, as --positive states"
    with pytest.raises(zooft.ConfigError, match="--positive names a class that the labels don't have; they have a, b"):
        zooft.order_classes(("a", "b"), "c")


def test_an_order_that_was_given_stays_and_is_reported() -> None:
    ordered, (note,) = zooft.order_classes(("cancer", "healthy"), "", fixed=True)
    assert ordered == ("cancer", "healthy")
    assert "the second as the data orders them" in note
    assert zooft.order_classes(("cancer", "healthy"), "cancer", fixed=True)[0] == ("healthy", "cancer")


def test_of_several_classes_nothing_found_comes_first() -> None:
    assert zooft.nothing_first(("benign", "malignant", "normal")) == ("normal", "benign", "malignant")
    assert zooft.nothing_first(("hemorrhage", "ischemia", "no finding")) == ("no finding", "hemorrhage", "ischemia")
    assert zooft.order_classes(("a", "b", "c"), "") == (("a", "b", "c"), ())
    assert zooft.order_classes(("a",), "") == (("a",), ())


def test_of_more_than_two_classes_the_one_for_nothing_found_is_known_by_its_name() -> None:
    assert zooft.nothing_of(("benign", "normal", "malignant")) == "normal"
    assert zooft.nothing_of(("hemorrhage", "no finding", "ischemia")) == "no finding"
    assert zooft.nothing_of(("ant", "bee", "wasp")) == ""
    assert zooft.nothing_of(("normal", "healthy", "cancer")) == ""  # which of the two can't be known
    assert zooft.nothing_of(("normal", "benign", "malignant"), "Normal") == ""  # it is the user's positive class
    assert zooft.nothing_of(("normal", "malignant")) == ""


def test_a_model_s_own_order_of_the_classes_is_no_other_data(tmp_path: Path) -> None:
    """By name ants come before bees, in the model bees before ants; held-out samples are recognised all the same."""
    folder = example_data.write_classes(tmp_path / "insects", {"ants": 8, "bees": 8})
    made = zooft.finetune(
        backbone="timm:test_resnet",
        weights="random",
        task="classification",
        data=folder,
        out=tmp_path / "run",
        epochs=1,
        positive="ants",
        export=False,
        report=False,
        audit=False,
        bootstrap=0,
        cache=False,
    )
    record = read_record(made.path)
    assert record.classes == ("bees", "ants")
    task = registry.load().task("classification")
    options = task.options(positive="ants")
    split, members, _ = saved.find_samples(task, options, record.labels, folder, run=made.path)
    assert (split, len(members)) == ("val", record.data.val)
    assert {sample.id.split("/")[0] for sample in members if sample.target == 1} == {"ants"}
