"""From files and labels to samples: what belongs together, what is refused, and that nobody is named."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from dicom_files import COLUMNS, ROWS, ct, stored, write
from example_data import REPOSITORY, real
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import RLELossless

import zooft
from zooft.evaluation.groups import group_predictions, members_of
from zooft.evaluation.predictions import Predictions
from zooft_ct import demo, discover, privacy, read
from zooft_ct.options import ClassificationOptions, CTOptions

PATIENTS = ("CANARY^ANN", "CANARY^BOB", "CANARY^CID", "CANARY^DEE")
LABELS = dict(zip(PATIENTS, ("no", "no", "yes", "yes"), strict=True))


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(privacy.KEY_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def series(
    folder: Path, patient: str | None, *, heights: Sequence[float] = (0, 5, 10, 15), number: int = 1, **more: Any
) -> str:
    """Files in no order; gives the SeriesInstanceUID."""
    first = patient or "nobody"
    uid = f"1.2.3.{sum(map(ord, first))}.{number}"
    for i, height in enumerate(heights):
        seed = sum(map(ord, first)) * 100 + i
        messages = {"SeriesInstanceUID": uid, "StudyInstanceUID": uid.replace("1.2.3", "1.2.4"), "PatientID": patient}
        write(folder / f"{(i * 7) % 11:02}.dcm", ct(height, seed=seed + 1000 * number, **(messages | more)))
    return uid


def hu_of(patient: str, i: int, number: int = 1) -> NDArray[np.int16]:
    return stored(sum(map(ord, patient)) * 100 + i + 1000 * number).astype(np.int16) - 1024


def cohort(root: Path, *, label: bool = True, **more: Any) -> Path:
    """Four patients of one series each, and a table."""
    lines = ["patient_id,series_uid,label"]
    for patient in PATIENTS:
        uid = series(root / "files" / patient, patient, **more)
        lines.append(f"{patient},{uid},{LABELS[patient]}")
    if label:
        (root / "labels.csv").write_text("\n".join(lines))
    return root


def found(root: Path, **options: Any) -> zooft.Discovery:
    return discover.discover(root, ClassificationOptions(**options))


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(zooft.DataError) as caught:
        found(root, **options)
    assert "CANARY" not in str(caught.value)
    assert "1.2.3." not in str(caught.value)
    return str(caught.value)


def texts(discovery: zooft.Discovery) -> str:
    samples = [(s.id, s.group, s.facts) for s in discovery.samples]
    return repr((samples, discovery.rejected, discovery.notes, discovery.classes))


def test_a_label_of_a_series_is_that_of_each_of_its_slices(tmp_path: Path) -> None:
    got = found(cohort(tmp_path))
    assert got.classes == ("no", "yes")
    assert Counter(sample.target for sample in got.samples) == {0: 8, 1: 8}
    assert len({sample.group for sample in got.samples}) == 4
    assert len({sample.id for sample in got.samples}) == 16
    assert got.group_rule == "mean"
    assert not got.rejected


def test_nobody_is_named(tmp_path: Path) -> None:
    cohort(tmp_path)
    (tmp_path / "files" / "CANARY^X.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 99)
    series(tmp_path / "files" / "CANARY^EVE", "CANARY^EVE")
    message = texts(found(tmp_path))
    assert "no label" in message
    for secret in ("CANARY", "1.2.3.", "files/", str(tmp_path)):
        assert secret not in message


def test_ids_stay_the_same_while_the_key_does(tmp_path: Path) -> None:
    ids = [sample.id for sample in found(cohort(tmp_path)).samples]
    assert [sample.id for sample in found(tmp_path).samples] == ids
    assert [sample.id for sample in found(tmp_path / "labels.csv").samples] == ids
    for key in (Path(os.environ["XDG_CONFIG_HOME"]) / "zooft" / "keys").iterdir():
        key.unlink()
    assert not set(ids) & {sample.id for sample in found(tmp_path).samples}


def test_each_mode_reads_its_slices(tmp_path: Path) -> None:
    cohort(tmp_path, heights=(0, 5, 10, 20, 25))
    slices = [hu_of(PATIENTS[0], i) for i in range(5)]

    def first(**how: Any) -> list[NDArray[Any]]:
        options = ClassificationOptions(max_gap=3, **how)
        got = discover.discover(tmp_path, options).samples
        return [read.read(s.source, options) for s in got if s.group == got[0].group]  # type: ignore[misc]

    np.testing.assert_array_equal(np.stack(first(mode="slice")), np.stack(slices)[:, None])
    np.testing.assert_array_equal(np.stack(first(mode="windows")), np.stack(slices)[:, None])
    shown = [(0, 0, 1), (0, 1, 2), (1, 2, 2), (3, 3, 4), (3, 4, 4)]
    np.testing.assert_array_equal(np.stack(first(mode="2.5d")), [[slices[i] for i in three] for three in shown])
    (volume,) = first(mode="volume", slices=7)
    assert volume.shape == (7, ROWS, COLUMNS)
    assert volume.dtype == np.int16


def test_spacing_is_given_where_it_is_requested(tmp_path: Path) -> None:
    options = ClassificationOptions(spacing=1.0)
    sample = discover.discover(cohort(tmp_path), options).samples[0]
    hu, spacing = read.read(sample.source, options)
    assert hu.shape == (3, ROWS, COLUMNS)
    assert spacing.tolist() == [0.5, 0.75]
    assert spacing.dtype == np.float32


def test_without_spacing_in_the_file_resampling_is_refused(tmp_path: Path) -> None:
    cohort(tmp_path, PixelSpacing=None)
    got = found(tmp_path, spacing=1.0)
    assert not got.samples
    assert [one.reason for one in got.rejected] == 4 * [
        "its pixel spacing isn't known, so --spacing can't resample it (4 samples of it)"
    ]
    assert len(found(tmp_path).samples) == 16


@pytest.mark.parametrize(
    ("positions", "count", "chosen"),
    [
        ((0, 1, 2, 3), 4, (0, 1, 2, 3)),
        ((0, 1, 2, 3, 4, 5), 3, (0, 2, 4)),
        ((0, 1, 2, 3, 4, 5, 6, 7, 8), 3, (1, 4, 7)),
        ((0, 1, 2, 10), 4, (0, 2, 3, 3)),
        ((5.0,), 3, (0, 0, 0)),
        ((3, 2, 1, 0), 4, (0, 1, 2, 3)),
    ],
)
def test_volumes_are_spread_by_position(positions: tuple[float, ...], count: int, chosen: tuple[int, ...]) -> None:
    assert discover.spread(positions, count) == chosen


def test_slice_labels_make_the_likeliest_slice_speak_for_the_patient(tmp_path: Path) -> None:
    cohort(tmp_path)
    sops = [str(ct(h, seed=sum(map(ord, PATIENTS[2])) * 100 + i + 1000).SOPInstanceUID) for i, h in enumerate((0, 5))]
    uid = f"1.2.3.{sum(map(ord, PATIENTS[2]))}.1"
    rows = [f"{PATIENTS[2]},{uid},{sops[0]},yes", f"{PATIENTS[2]},{uid},{sops[1]},no", f"{PATIENTS[2]},{uid},1.9,no"]
    (tmp_path / "slice_labels.csv").write_text("\n".join(["patient_id,series_uid,sop_uid,label", *rows]))
    got = found(tmp_path)
    assert got.group_rule == "max"
    assert [sample.target for sample in got.samples] == [1, 0]
    assert any("labels are of single slices, from slice_labels.csv" in note for note in got.notes)
    assert Counter(one.reason for one in got.rejected) == {
        "there is no such slice among the usable ones of its series": 1,
        "no label (4 slices)": 3,
    }
    volumes = found(tmp_path, mode="volume")
    assert len(volumes.samples) == 4
    assert volumes.group_rule == "mean"


def test_labels_of_slices_are_of_no_use_for_volumes(tmp_path: Path) -> None:
    uid = series(tmp_path / "a", PATIENTS[0])
    (tmp_path / "labels.csv").write_text(
        f"path,series_uid,sop_uid,label\na/00.dcm,,,yes\n,{uid},{ct(0.0, seed=0).SOPInstanceUID},no\n"
    )
    reasons = [one.reason for one in found(tmp_path, mode="volume").rejected]
    assert reasons[0] == "labels one slice of a series, and --mode volume needs labels of whole series"


def test_paths_may_name_files_folders_and_nothing(tmp_path: Path) -> None:
    cohort(tmp_path, label=False)
    rows = [
        "files/CANARY^ANN,no",
        "files/CANARY^CID/00.dcm,yes",
        "files/CANARY^ZOE,no",
        "../labels.csv,no",
        f"{'x' * 300},no",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    got = found(tmp_path)
    assert Counter(sample.target for sample in got.samples) == {0: 4, 1: 1}
    assert got.group_rule == "max"
    assert [one.reason for one in got.rejected if one.id.startswith("labels.csv")] == [
        "there is no such file or folder",
        "there is no such file or folder",
        "its path can't be used",
    ]


def test_class_folders_in_two_spellings_are_named_with_their_splits(tmp_path: Path) -> None:
    for i, folder in enumerate(("train/Yes", "train/no", "val/yes", "val/no")):
        series(tmp_path / folder / "a", PATIENTS[i])
        series(tmp_path / folder / "b", PATIENTS[i], number=2)
    series(tmp_path / "train" / "no" / "c", PATIENTS[0], number=3)
    assert "'Yes' (a class folder of train) and 'yes' (a class folder of val)" in refusal(tmp_path)


def test_a_line_that_names_two_series_is_refused_and_an_old_path_beside_a_series_isnt(tmp_path: Path) -> None:
    uid = series(tmp_path / "a", PATIENTS[0])
    other = series(tmp_path / "b", PATIENTS[1])
    table = tmp_path / "labels.csv"
    table.write_text(f"series_uid,path,label\n{uid},b,no\n{other},b,yes\n")
    assert "line 2, names a series_uid and a path of another series" in refusal(tmp_path)
    table.write_text(f"series_uid,path,label\n{uid},/elsewhere/a,no\n{other},b,yes\n")
    assert len(found(tmp_path).samples) == 8


def test_a_folder_of_two_series_must_be_distinguished(tmp_path: Path) -> None:
    series(tmp_path / "a" / "1", PATIENTS[0])
    series(tmp_path / "a" / "2", PATIENTS[0], number=2)
    (tmp_path / "labels.csv").write_text("path,label\na,no\na/2,yes\n")
    assert "line 2, labels a folder that holds 2 series; name the one that is meant by its series_uid" in refusal(
        tmp_path
    )


def test_series_without_lines_and_lines_without_series_are_listed(tmp_path: Path) -> None:
    cohort(tmp_path)
    shutil.rmtree(tmp_path / "files" / PATIENTS[0])
    series(tmp_path / "files" / "new", "CANARY^NEW")
    got = found(tmp_path)
    assert sorted((one.id.split()[0], one.reason) for one in got.rejected) == [
        ("labels.csv,", "there is no such series among the usable ones"),
        ("series", "no label (4 slices)"),
    ]
    assert "2 files, series or lines can't be used" in refusal(tmp_path, strict=True)


def test_documents_beside_the_images_are_listed_but_not_against_strict(tmp_path: Path) -> None:
    cohort(tmp_path)
    (tmp_path / "README.txt").write_text("what this is")
    assert len(found(tmp_path, strict=True).rejected) == 1
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 500)
    assert "1 file" in refusal(tmp_path, strict=True)


def test_table_and_files_must_agree_about_the_patient(tmp_path: Path) -> None:
    cohort(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("CANARY^ANN", "CANARY^AMY").replace("CANARY^DEE", "CANARY^DI"))
    assert "gives 2 series another patient_id than their files do" in refusal(tmp_path)


def test_the_table_names_the_patient_where_the_files_dont(tmp_path: Path) -> None:
    cohort(tmp_path)
    for patient in PATIENTS:
        shutil.rmtree(tmp_path / "files" / patient)
        series(tmp_path / "files" / patient, patient, PatientID="")
    assert len({sample.group for sample in found(tmp_path).samples}) == 4


def test_without_patients_there_is_no_safe_split(tmp_path: Path) -> None:
    cohort(tmp_path, PatientID="")
    table = tmp_path / "labels.csv"
    for patient in PATIENTS:
        table.write_text(table.read_text().replace(f"{patient},", ","))
    message = refusal(tmp_path)
    assert message.startswith("can't split safely: of 4 labelled series, 4 name no patient")
    assert "--group-by study, series, folder" in message
    for kind in ("study", "series", "folder"):
        assert len({sample.group for sample in found(tmp_path, group_by=kind).samples}) == 4
    cohort(tmp_path, PatientID="", StudyInstanceUID="", label=False)
    assert "name no study" in refusal(tmp_path, group_by="study")


def test_splitting_series_of_one_patient_is_reported(tmp_path: Path) -> None:
    cohort(tmp_path, label=False)
    uids = [series(tmp_path / "more" / patient, patient, number=2) for patient in PATIENTS[:2]]
    lines = [f"{uid},no" for uid in uids] + [f"1.2.3.{sum(map(ord, p))}.1,{LABELS[p]}" for p in PATIENTS]
    (tmp_path / "labels.csv").write_text("\n".join(["series_uid,label", *lines]))
    assert any("2 patients have several series" in note for note in found(tmp_path, group_by="series").notes)
    assert not any("several series" in note for note in found(tmp_path).notes)


def test_two_labels_for_one_slice_are_refused(tmp_path: Path) -> None:
    cohort(tmp_path)
    table = tmp_path / "labels.csv"
    lines = [line + "," for line in table.read_text().splitlines()]
    table.write_text("\n".join([lines[0] + "path", *lines[1:], "CANARY^ANN,,yes,files/CANARY^ANN/00.dcm"]))
    message = refusal(tmp_path)
    assert "gives 1 slice of 1 series two labels or splits" in message
    assert re.search(r"first in lines \d+ and \d+;", message)


def test_class_folders_of_any_depth_and_splits(tmp_path: Path) -> None:
    for number, patient in enumerate(PATIENTS):
        for split in ("train", "val"):
            who = patient + split
            series(tmp_path / split / LABELS[patient] / "deep" / str(number), who)
    got = found(tmp_path)
    assert got.classes == ("no", "yes")
    assert Counter((sample.split, sample.target) for sample in got.samples) == {
        (split, target): 8 for split in ("train", "val") for target in (0, 1)
    }


def test_what_lies_beside_class_folders_has_no_label(tmp_path: Path) -> None:
    for patient in PATIENTS:
        series(tmp_path / LABELS[patient] / patient, patient)
    series(tmp_path, "CANARY^TOP")
    assert [one.reason for one in found(tmp_path).rejected] == ["no label (4 slices)"]


def test_slices_of_a_series_in_two_class_folders_are_slice_labels(tmp_path: Path) -> None:
    for patient in PATIENTS:
        series(tmp_path / "no" / patient, patient)
        (tmp_path / "yes" / patient).mkdir(parents=True)
        shutil.move(tmp_path / "no" / patient / "00.dcm", tmp_path / "yes" / patient / "00.dcm")
    got = found(tmp_path)
    assert got.group_rule == "max"
    assert Counter(sample.target for sample in got.samples) == {0: 12, 1: 4}
    assert "4 series have slices in several class folders (first: series " in refusal(tmp_path, mode="volume")
    shutil.copy(tmp_path / "yes" / PATIENTS[0] / "00.dcm", tmp_path / "no" / PATIENTS[0] / "00.dcm")
    assert "1 slice lies in two class or split folders each (first: of series " in refusal(tmp_path)


def test_folders_of_patients_dont_become_classes(tmp_path: Path) -> None:
    cohort(tmp_path / "data", label=False)
    assert "look like patients' folders and not like classes" in refusal(tmp_path / "data" / "files")


def test_unlabelled_data_gets_a_message_about_what_is_missing(tmp_path: Path) -> None:
    series(tmp_path, PATIENTS[0])
    assert "there are no labels: write labels.csv" in refusal(tmp_path)


def test_without_any_ct_reasons_are_counted(tmp_path: Path) -> None:
    (tmp_path / "CANARY.txt").write_text("text")
    series(tmp_path / "a", PATIENTS[0], Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    message = refusal(tmp_path)
    assert message.startswith("no CT in the data that can be used, of 5 files or series read (4: ")
    (tmp_path / "empty").mkdir()
    assert "there are no files" in refusal(tmp_path / "empty")


def test_the_positive_class_stands_last(tmp_path: Path) -> None:
    cohort(tmp_path)
    got = found(tmp_path, positive="no")
    assert got.classes == ("yes", "no")
    assert Counter(sample.target for sample in got.samples) == {0: 8, 1: 8}
    assert any(
        "is 'yes', and 'no' the negative one: by the meaning of the names" in note for note in found(tmp_path).notes
    )
    with pytest.raises(zooft.ConfigError, match="they have no, yes"):
        found(tmp_path, positive="maybe")


def by_slice(root: Path, *names: str) -> Path:
    """Four patients of four slices of the first class, the third slice of two of them of the second class."""
    rows = ["path,label"]
    for number, patient in enumerate(PATIENTS):
        series(root / "files" / str(number), patient)
        rows += [f"files/{number}/{(i * 7) % 11:02}.dcm,{names[number % 2 and i == 2]}" for i in range(4)]
    (root / "labels.csv").write_text("\n".join(rows))
    return root


@pytest.mark.parametrize("finding", ["abnormal", "hemorrhage", "zoster lesion", "1"])
def test_one_slice_with_a_finding_makes_a_patient_positive_whatever_the_alphabet_says(
    tmp_path: Path, finding: str
) -> None:
    got = found(by_slice(tmp_path, {"1": "0"}.get(finding, "normal"), finding))
    assert got.classes[-1] == finding
    assert got.group_rule == "max"
    patients = {
        group: max(s.target for s in got.samples if s.group == group) for group in {s.group for s in got.samples}
    }
    assert sorted(patients.values()) == [0, 0, 1, 1]
    assert not any("warning" in note for note in got.notes)


def test_where_everybody_counts_as_one_class_a_warning_says_so(tmp_path: Path) -> None:
    (note,) = [
        note for note in found(by_slice(tmp_path, "normal", "abnormal"), positive="normal").notes if "warning" in note
    ]
    assert note.startswith("warning: each patient of 4 has a slice of the class 'normal', so each counts as 'normal'")


def test_two_classes_of_which_either_may_be_positive_need_an_explicit_choice(tmp_path: Path) -> None:
    by_slice(tmp_path, "left", "right")
    with pytest.raises(zooft.ConfigError, match="name it: --positive left, or --positive right"):
        found(tmp_path)
    assert found(tmp_path, positive="left").classes == ("right", "left")
    known = discover.discover(tmp_path, ClassificationOptions(), learning=False)
    assert known.classes == ("left", "right")  # a finished model has its own order


def test_classes_are_found_with_the_options_that_all_tasks_share(tmp_path: Path) -> None:
    by_slice(tmp_path, "normal", "abnormal")
    alone, own = discover.discover(tmp_path, CTOptions()), found(tmp_path)
    assert (alone.classes, list(alone.samples), alone.notes) == (own.classes, list(own.samples), own.notes)


def test_of_several_classes_by_slice_nothing_found_comes_first_and_the_rule_is_reported(tmp_path: Path) -> None:
    by_slice(tmp_path, "normal", "ischemia")
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("ischemia", "hemorrhage", 1))
    got = found(tmp_path)
    assert got.classes == ("normal", "hemorrhage", "ischemia")
    assert got.labels[0].nothing == "normal"
    assert any("a patient's answer is that of the slice which is least likely 'normal'" in note for note in got.notes)


def test_a_patient_with_one_slice_of_cancer_isnt_healthy_whatever_the_alphabet_says(tmp_path: Path) -> None:
    by_slice(tmp_path, "healthy", "cancer")
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("cancer", "cyst", 1))
    for positive, ends in (("", "cyst"), ("cancer", "cancer")):
        got = found(tmp_path, positive=positive)
        assert (got.classes[-1], got.labels[0].nothing) == (ends, "healthy")
        members = members_of([sample.group for sample in got.samples])
        targets = np.array([sample.target for sample in got.samples])
        problem = zooft.classification()
        given = Predictions(samples=got.samples, columns={"target": targets, "probabilities": np.full((16, 3), 1 / 3)})
        true = group_predictions(problem, given, members, got.labels, got.group_rule)
        assert true is not None
        assert sorted(got.classes[t] for t in true["target"]) == ["cancer", "cyst", "healthy", "healthy"]


def test_healthy_counts_only_where_nothing_else_is_unless_it_is_the_positive_class(tmp_path: Path) -> None:
    by_slice(tmp_path, "healthy", "cancer")
    table = tmp_path / "labels.csv"
    table.write_text(table.read_text().replace("cancer", "cyst", 1))
    got = found(tmp_path, positive="healthy")
    assert (got.classes[-1], got.labels[0].nothing) == ("healthy", "")
    (warning,) = [note for note in got.notes if note.startswith("warning: each patient of 4")]
    assert "so each counts as 'healthy'" in warning
    assert any("as what most of the slices are" in note and "likeliest 'healthy'" in note for note in got.notes)


def test_options_that_dont_go_together_are_reported_first(tmp_path: Path) -> None:
    with pytest.raises(zooft.ConfigError, match="takes three"):
        found(tmp_path, mode="windows", window=("bone",))


def test_slices_that_cant_be_decoded_take_their_neighbours_along(tmp_path: Path) -> None:
    cohort(tmp_path)
    path = tmp_path / "files" / PATIENTS[0] / "07.dcm"  # the second slice
    dataset = dcmread(path)
    dataset.RescaleIntercept = "3000"  # all of it denser than bone
    dataset.save_as(path)
    got = found(tmp_path)
    assert len(got.samples) == 13
    (rejected,) = got.rejected
    assert rejected.reason.endswith("(3 samples of it)")
    assert privacy.find(tmp_path, rejected.id) == path
    assert len(found(tmp_path, mode="slice").samples) == 15
    assert len(found(tmp_path, mode="volume").samples) == 3


def test_decoded_slices_are_cached_and_damaged_ones_decoded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patient in PATIENTS:
        for i, height in enumerate((0, 5)):
            dataset = ct(height, seed=i, PatientID=patient, SeriesInstanceUID=f"1.2.3.{sum(map(ord, patient))}")
            dataset = dcmread(write(tmp_path / "data" / LABELS[patient] / patient / f"{i}.dcm", dataset))
            dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
            dataset.save_as(dataset.filename)
    options = ClassificationOptions(hu_cache=str(tmp_path / "kept"), mode="slice")
    sample = discover.discover(tmp_path / "data", options).samples[0]
    entries = sorted((tmp_path / "kept").iterdir())
    assert len(entries) == 8
    assert "CANARY" not in repr(entries)
    truth = stored(0).astype(np.int16) - 1024
    for entry in entries:
        content = bytearray(entry.read_bytes())
        content[200] ^= 1
        entry.write_bytes(content)
    np.testing.assert_array_equal(read.read(sample.source, options), truth[None])

    def decoder(_header: Any) -> Any:
        raise AssertionError("decoded once more")

    monkeypatch.setattr(read.pixels, "hu", decoder)
    np.testing.assert_array_equal(read.read(sample.source, options), truth[None])


def test_nifti_beside_dicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort(tmp_path)
    hu = np.random.default_rng(0).integers(-1000, 400, (5, 6, 7)).astype(np.int16)
    affine = np.diag([-0.7, -0.8, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(hu.transpose(), affine), tmp_path / "files" / "CANARY.nii.gz")
    nibabel.save(nibabel.Nifti1Image((hu > 0).astype(np.uint8).transpose(), affine), tmp_path / "files" / "mask.nii")
    table = tmp_path / "labels.csv"
    lines = [line + "," for line in table.read_text().splitlines()]
    rows = ["CANARY^EVE,,yes,files/CANARY.nii.gz", "CANARY^FAY,,yes,files/mask.nii"]
    table.write_text("\n".join([lines[0] + "path", *lines[1:], *rows]))
    got = found(tmp_path, spacing=1.0)
    assert len(got.samples) == 16 + 5
    (rejected,) = got.rejected
    assert "not HU?" in rejected.reason
    assert privacy.find(tmp_path, rejected.id) == tmp_path / "files" / "mask.nii"
    assert "CANARY" not in texts(got)
    volume = [s for s in got.samples if isinstance(s.source.slices[0], read.NiftiSlice)]
    assert volume[0].facts == {"transfer_syntax": "NIFTI", "matrix": "6x7", "slice_thickness": 3.0}
    read_hu, spacing = read.read(volume[1].source, ClassificationOptions(spacing=1.0))
    np.testing.assert_array_equal(read_hu, hu[:3])
    assert spacing.tolist() == pytest.approx([0.8, 0.7])
    (whole,) = [
        s for s in found(tmp_path, mode="volume", slices=5).samples if isinstance(s.source.slices[0], read.NiftiSlice)
    ]
    options = ClassificationOptions(mode="volume", hu_cache="off")
    calls: list[int] = []
    decompress = read.nifti.whole
    monkeypatch.setattr(read.nifti, "whole", lambda *a, **k: calls.append(1) or decompress(*a, **k))
    np.testing.assert_array_equal(read.read(whole.source, options), hu)
    assert len(calls) == 1


def test_oblique_nifti_is_reported(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (5, 6, 7)).astype(np.int16)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.96, 0.28], [-0.28, 0.96]]
    nibabel.save(nibabel.Nifti1Image(hu, turn), tmp_path / "v.nii")
    nameless, note = discover.gather([tmp_path], ClassificationOptions()).notes
    assert nameless.startswith("1 of 1 series and volumes name no patient")
    assert note == "1 of 1 series: its axes lean by 16° from the patient's; slices are taken along them"


def test_nifti_without_a_patient_isnt_split(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 400, (5, 6, 7)).astype(np.int16)
    for label in ("no", "yes"):
        for i in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / label / f"{i}.nii")
    assert "4 name no patient" in refusal(tmp_path)
    assert len(found(tmp_path, group_by="series", mode="volume").samples) == 4


def test_gaps_tilt_and_spacing_are_reported(tmp_path: Path) -> None:
    cohort(tmp_path, heights=(0, 5, 10, 20))
    series(tmp_path / "files" / PATIENTS[0], PATIENTS[0], PixelSpacing=[0.9, 0.9])
    notes = "\n".join(found(tmp_path).notes)
    assert "3 of 4 series: 1 gap" in notes
    assert "pixels are 0.75 to 0.90 mm wide" in notes
    assert "kernel in 4" in notes


def test_progress_is_shown(tmp_path: Path) -> None:
    done: Counter[str] = Counter()

    def computing(title: str, total: int) -> zooft.Advance:
        done[f"{title} of"] = total

        def advance(count: int) -> None:
            done[title] += count

        return advance

    discover.discover(cohort(tmp_path), ClassificationOptions(), computing)
    assert done["slices decoded"] == done["slices decoded of"] == 16
    assert done["reading DICOM headers"] == 17


def test_gathering_needs_no_labels(tmp_path: Path) -> None:
    cohort(tmp_path, label=False)
    series(tmp_path / "files" / "nobody", "", heights=(0, 5))
    (tmp_path / "files" / "CANARY.dcm").write_bytes(b"nothing")
    got = discover.gather([tmp_path / "files"], ClassificationOptions())
    assert len(got.samples) == 18
    assert {sample.target for sample in got.samples} == {None}
    assert len({sample.group for sample in got.samples}) == 5
    assert len(got.rejected) == 1
    assert "CANARY" not in texts(got)
    assert not list(tmp_path.rglob(".zooft-key"))


def test_what_is_predicted_of_a_run_s_data_has_the_run_s_ids(tmp_path: Path) -> None:
    cohort(tmp_path)
    discover.begin(tmp_path, ClassificationOptions())
    assert (tmp_path / ".zooft-key").is_file()
    trained = {sample.id for sample in found(tmp_path, mode="slice").samples}
    for paths in ([tmp_path], [tmp_path / "files"], sorted((tmp_path / "files").iterdir())):
        assert {sample.id for sample in discover.gather(paths, ClassificationOptions(mode="slice")).samples} == trained
    (tmp_path / ".zooft-key").unlink()
    assert (
        not {sample.id for sample in discover.gather([tmp_path], ClassificationOptions(mode="slice")).samples} & trained
    )


def test_gathering_single_files(tmp_path: Path) -> None:
    series(tmp_path, PATIENTS[0])
    files = sorted(tmp_path.glob("*.dcm"))
    assert len(discover.gather(files, ClassificationOptions(mode="slice")).samples) == 4
    (tmp_path / "typed.txt").write_text("text")
    got = discover.gather([files[0], tmp_path / "typed.txt"], ClassificationOptions())
    assert len(got.samples) == 1
    assert [one.id for one in got.rejected] == [str(tmp_path / "typed.txt")]
    assert any("1 of 1 series have a single slice, which --mode 2.5d repeats" in note for note in got.notes)
    together, whole = (
        discover.gather(files, ClassificationOptions()),
        discover.gather([files[0].parent], ClassificationOptions()),
    )
    assert [one.source for one in together.samples] == [one.source for one in whole.samples]


def test_real_slices_of_54_patients() -> None:
    before = sorted(path.name for path in real("siim_ct").iterdir())
    got = discover.discover(real("siim_ct"), ClassificationOptions())
    assert len(got.samples) == 100
    assert len({sample.group for sample in got.samples}) == 54
    assert got.classes == ("no_contrast", "contrast")
    assert got.group_rule == "max"
    assert not got.rejected
    assert sorted(path.name for path in real("siim_ct").iterdir()) == before
    targets = {group: {s.target for s in got.samples if s.group == group} for group in {s.group for s in got.samples}}
    assert sum(len(labels) == 2 for labels in targets.values()) == 9


def test_real_series_equal_an_independent_reader() -> None:
    sitk = pytest.importorskip("SimpleITK")
    options = ClassificationOptions(mode="volume", slices=20)
    folder = real("ct_series/totalseg_example_ct_dicom")
    (sample,) = discover.gather([folder], options).samples
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    truth = sitk.GetArrayFromImage(sitk.ReadImage(names)).clip(-1024, 3071)
    np.testing.assert_array_equal(read.read(sample.source, options), truth)


def test_the_document_names_every_option_and_its_python_runs(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "ct.md").read_text(encoding="utf-8")
    flags = {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(ClassificationOptions)}
    assert {flag for flag in flags if flag not in text} == set()
    series(tmp_path, PATIENTS[0])
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        own = block.replace('"DATA"', repr(str(tmp_path))).replace('"SERIES_DIR"', repr(str(tmp_path)))
        names: dict[str, Any] = {}
        exec(compile(own, "ct.md", "exec"), names)  # noqa: S102 -- our own document
        if "hu" in names:
            assert names["hu"].shape == (3, ROWS, COLUMNS)


def test_slices_without_a_label_are_counted_where_slices_are_labelled(tmp_path: Path) -> None:
    cohort(tmp_path, label=False)
    rows = [f"files/{patient}/00.dcm,{label}" for patient, label in LABELS.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    (note,) = [note for note in found(tmp_path).notes if "without a label" in note]
    assert note.startswith("4 of 4 labelled series have slices without a label (12 of their 16)")
    assert "calls more patients positive" in note
    (tmp_path / "labels.csv").write_text("")
    cohort(tmp_path)
    assert not any("without a label" in note for note in found(tmp_path).notes)


def test_series_that_are_not_axial_are_counted(tmp_path: Path) -> None:
    cohort(tmp_path)
    series(tmp_path / "files" / PATIENTS[0], PATIENTS[0], ImageOrientationPatient=[0, 1, 0, -1, 0, 0])
    assert any(note.startswith("1 of 4 series: not axial;") for note in found(tmp_path).notes)


def test_paths_on_several_drives_are_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_common_root(*_: object) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    cohort(tmp_path, label=False, SeriesInstanceUID=None, PatientID=None)
    (tmp_path / "files" / "a.txt").write_text("text")
    monkeypatch.setattr(os.path, "relpath", no_common_root)
    got = discover.gather([tmp_path / "files"], ClassificationOptions())
    assert (len(got.samples), len({sample.group for sample in got.samples}), len(got.rejected)) == (16, 4, 1)


@pytest.mark.parametrize("missing", ["pydicom", "nibabel"])
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for call in (
        lambda: discover.discover(tmp_path, ClassificationOptions()),
        lambda: discover.gather([tmp_path], ClassificationOptions()),
        lambda: demo.demo(tmp_path / "demo", 0),
    ):
        with pytest.raises(zooft.ConfigError, match=rf"\({missing} missing\): pip install 'zooft\[ct\]'"):
            call()
