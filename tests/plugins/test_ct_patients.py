"""Who is one patient: persons of one PatientID separated, honest variations not, and what was assumed reported by salted ids."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from commands import command
from dicom_files import UID, ct, write

import zooft
from zooft_ct import sr
from zooft_ct.discover import discover, gather
from zooft_ct.options import ClassificationOptions
from zooft_ct.person import Person, differences, person, stands_for_nobody

SLICE = ClassificationOptions(mode="slice", hu_cache="off")
ANNA = {
    "PatientID": "CANARY1",
    "PatientName": "Miller^Anna",
    "PatientBirthDate": "19500517",
    "PatientSex": "F",
    "IssuerOfPatientID": "HOSP_A",
}


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))


def scan(folder: Path, number: int, **elements: Any) -> str:
    """A series of two slices in a study of its own; gives the SeriesInstanceUID."""
    uids = {"SeriesInstanceUID": UID.format(number), "StudyInstanceUID": UID.format(f"{number}.9")}
    for i, height in enumerate((0.0, 5.0)):
        dataset = ct(height, seed=10 * number + i, SpecificCharacterSet="ISO_IR 192", **(uids | elements))
        write(folder / str(number) / f"{i}.dcm", dataset)
    return uids["SeriesInstanceUID"]


def table(folder: Path, rows: list[tuple[str, str, str]]) -> Path:
    lines = ["patient_id,series_uid,label", *(",".join(row) for row in rows)]
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def groups(found: zooft.Discovery) -> list[str]:
    return sorted({sample.group or "" for sample in found.samples})


def texts(found: zooft.Discovery) -> str:
    text = repr((found.notes, found.rejected, [(s.id, s.group, s.facts) for s in found.samples]))
    assert "CANARY" not in text
    assert "Miller" not in text
    assert UID.format("") not in text
    return text


OTHERS = {
    "issuer": {"IssuerOfPatientID": "HOSP_B"},
    "birth date": {"PatientBirthDate": "19900101"},
    "sex": {"PatientSex": "M"},
    "name": {"PatientName": "Smith^Bob"},
    "given name": {"PatientName": "Miller^Bertha"},
    "all": {
        "PatientName": "Smith^Bob",
        "PatientBirthDate": "19900101",
        "PatientSex": "M",
        "IssuerOfPatientID": "HOSP_B",
    },
}
SAME = {
    "nothing but the id": {"PatientName": "", "PatientBirthDate": "", "PatientSex": "", "IssuerOfPatientID": ""},
    "upper case": {"PatientName": "MILLER^ANNA^^^"},
    "no caret": {"PatientName": "Miller Anna"},
    "a comma": {"PatientName": "Miller, Anna"},
    "the other order": {"PatientName": "Anna^Miller"},
    "an initial": {"PatientName": "Miller^A."},
    "a second given name": {"PatientName": "Miller^Anna^Maria"},
    "a married name": {"PatientName": "Jones^Anna"},
    "other scripts too": {"PatientName": "Miller^Anna=米勒^安娜"},
    "other scripts alone": {"PatientName": "米勒^安娜"},
    "a name taken away": {"PatientName": "Anonymized"},
    "another case of the issuer": {"IssuerOfPatientID": " hosp_a"},
    "sex other": {"PatientSex": "O"},
    "a birth year": {"PatientBirthDate": "19500101"},
    "no birth date": {"PatientBirthDate": "19000101"},
}


@pytest.mark.parametrize("what", OTHERS)
def test_two_persons_of_one_patient_id_get_an_answer_each(tmp_path: Path, what: str) -> None:
    scan(tmp_path, 1, **ANNA)
    scan(
        tmp_path, 2, **ANNA | OTHERS[what], StudyInstanceUID=UID.format("1.9")
    )  # not even the study distinguishes them
    found = gather([tmp_path], SLICE)
    assert len(groups(found)) == 2
    assert [len({s.source.slices[0].patient_id for s in found.samples if s.group == g}) for g in groups(found)] == [
        1,
        1,
    ]
    messages = [note for note in found.notes if note.startswith("warning: 1 PatientID ")]
    assert len(messages) == 1
    assert all(group in messages[0] for group in groups(found))
    texts(found)


@pytest.mark.parametrize("what", SAME)
def test_honest_variations_are_one_patient(tmp_path: Path, what: str) -> None:
    scan(tmp_path, 1, **ANNA)
    scan(tmp_path, 2, **ANNA | SAME[what], StudyInstanceUID=UID.format("1.9"))
    found = gather([tmp_path], SLICE)
    assert len(groups(found)) == 1
    assert not [note for note in found.notes if "warning" in note]


def test_a_series_of_two_persons_is_refused(tmp_path: Path) -> None:
    scan(tmp_path, 1, **ANNA)
    path = sorted((tmp_path / "1").iterdir())[0]
    dataset = pydicom.dcmread(path)
    dataset.PatientBirthDate, dataset.PatientSex = "19900101", "M"
    dataset.save_as(path)
    found = gather([tmp_path], SLICE)
    assert not found.samples
    assert "slices of several persons in one series: birth date and sex differ" in found.rejected[0].reason
    texts(found)


def test_studies_of_one_patient_are_answered_apart_each_report_in_its_study(tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="needs the extra 'ct-sr'")
    for number in (2019, 2024):
        scan(tmp_path / "in", number, **ANNA, StudyDate=f"{number}0101", AccessionNumber=f"ACC{number}")
    found = gather([tmp_path / "in"], SLICE)
    first, second = groups(found)
    assert first.partition("-")[0] == second.partition("-")[0]
    assert any(
        "1 patient has several studies, 2 in all; each study gets an answer of its own" in n for n in found.notes
    )
    file = zooft.DeployedFile(
        problem="classification",
        labels=zooft.class_labels(("clear", "nodule")),
        fitted={},
        backbone="timm:any",
        version="1",
        weights_sha256="0" * 64,
    )
    results = [
        zooft.GroupResult(
            group=group,
            answer={"class": "nodule", "p(clear)": 0.25, "p(nodule)": 0.75},
            columns={"probabilities": np.array([0.25, 0.75])},
            members=members,
            decisive=members[-1],
        )
        for group in (first, second)
        if (members := tuple(s for s in found.samples if s.group == group))
    ]
    for path in sr.write(results, file, tmp_path / "out", SLICE):
        report = pydicom.dcmread(path)
        study = next(s.source.slices[0].study_uid for s in found.samples if s.group == path.stem)
        assert report.StudyInstanceUID == study
        assert report.AccessionNumber == f"ACC{report.StudyDate[:4]}"
        named = {e.value for e in report.iterall() if e.keyword == "ReferencedSOPInstanceUID"}
        own = {s.source.slices[0].sop_uid for s in found.samples if s.group == path.stem}
        assert own & named
        assert not named & ({s.source.slices[0].sop_uid for s in found.samples} - own)


@pytest.mark.parametrize("uid", [None, UID.format("1.9")])
def test_studies_of_other_dates_are_apart_though_their_uid_is_one_or_gone(tmp_path: Path, uid: str | None) -> None:
    for number in (2019, 2024):
        scan(tmp_path, number, **ANNA, StudyDate=f"{number}0101", StudyInstanceUID=uid)
    scan(tmp_path, 1, **ANNA, StudyDate="20240101", StudyInstanceUID=uid)
    assert sorted(Counter(sample.group for sample in gather([tmp_path], SLICE).samples).values()) == [2, 4]


@pytest.mark.parametrize("other", [{"StudyInstanceUID": UID.format("8.9")}, {"StudyDate": "20240131"}])
def test_a_series_of_two_studies_is_refused(other: dict[str, str], tmp_path: Path) -> None:
    scan(tmp_path, 7, StudyDate="20190131")
    later = ct(
        10.0,
        seed=3,
        SeriesInstanceUID=UID.format(7),
        **({"StudyInstanceUID": UID.format("7.9"), "StudyDate": "20190131"} | other),
    )
    write(tmp_path / "7" / "2.dcm", later)
    found = gather([tmp_path], SLICE)
    assert not found.samples
    assert all("slices of several studies in one series" in each.reason for each in found.rejected)
    assert sum(each.missing for each in found.rejected) == 3


def test_a_patient_with_one_study_is_called_as_before(tmp_path: Path) -> None:
    scan(tmp_path, 1, **ANNA)
    scan(tmp_path, 2, **ANNA, StudyInstanceUID=UID.format("1.9"))
    (name,) = groups(gather([tmp_path], SLICE))
    assert "-" not in name
    (tmp_path / "labels.csv").write_text(f"series_uid,label\n{UID.format(1)},no\n{UID.format(2)},yes\n")
    assert groups(discover(tmp_path, SLICE, learning=False)) == [name]


def cohort(folder: Path, **elements: Any) -> list[tuple[str, str, str]]:
    """Four patients who are nobody else."""
    return [
        (f"CANARY-{i}", scan(folder, 10 + i, **{"PatientID": f"CANARY-{i}", **elements}), "yes" if i % 2 else "no")
        for i in range(4)
    ]


@pytest.mark.parametrize("what", ["birth date", "sex", "name"])
@pytest.mark.parametrize("learning", [True, False])
def test_series_of_two_persons_of_one_patient_id_are_left_out_and_listed(
    tmp_path: Path, what: str, learning: bool
) -> None:
    rows = cohort(tmp_path)
    rows += [("CANARY1", scan(tmp_path, 1, **ANNA), "no"), ("CANARY1", scan(tmp_path, 2, **ANNA | OTHERS[what]), "yes")]
    found = discover(table(tmp_path, rows), SLICE, learning=learning)
    assert len(groups(found)) == 4
    reasons = [one.reason for one in found.rejected if one.id.startswith("series")]
    assert reasons == [f"its PatientID stands for several persons, whose {what} differs (2 slices)"] * 2
    (note,) = [note for note in found.notes if note.startswith("warning: 1 PatientID stands for several persons each")]
    assert all(one.id in note for one in found.rejected if one.id.startswith("series"))
    assert "patient_id of labels.csv, which is believed then" in note
    texts(found)
    rows[-1] = ("CANARY2", *rows[-1][1:])
    rows[-2] = ("CANARY1A", *rows[-2][1:])
    found = discover(table(tmp_path, rows), SLICE, learning=learning)
    assert len(groups(found)) == 6
    assert not [one for one in found.rejected if one.id.startswith("series")]
    assert "patient_id of labels.csv is believed for 2 series" in texts(found)
    assert (
        len(groups(discover(tmp_path, ClassificationOptions(mode="slice", group_by="study"), learning=learning))) == 6
    )


def test_patients_of_several_issuers_are_separated_and_reported(tmp_path: Path) -> None:
    rows = cohort(tmp_path)
    rows += [
        ("CANARY1", scan(tmp_path, 1, **ANNA), "no"),
        ("CANARY1", scan(tmp_path, 2, **ANNA | OTHERS["issuer"]), "yes"),
    ]
    found = discover(table(tmp_path, rows), SLICE)
    assert len(groups(found)) == 6
    assert "warning: 1 PatientID was given by several issuers" in texts(found)
    rows += [("CANARY1", scan(tmp_path, 3, **ANNA | {"IssuerOfPatientID": ""}), "yes")]
    with pytest.raises(
        zooft.DataError, match=r"of 7 labelled series, 1 name no patient, the first is series [0-9a-f]{16}"
    ):
        discover(table(tmp_path, rows), SLICE)


def test_all_series_of_doubtful_patients_are_an_error(tmp_path: Path) -> None:
    rows = [("", scan(tmp_path, 1, **ANNA), "no"), ("", scan(tmp_path, 2, **ANNA | OTHERS["name"]), "yes")]
    with pytest.raises(
        zooft.DataError,
        match=r"all 2 labelled series, the first is [0-9a-f]{16}: its PatientID stands for several persons, whose name differs",
    ):
        discover(table(tmp_path, rows), SLICE)


@pytest.mark.parametrize(
    "ids", [("abc1", "ABC1"), ("A 1", "A  1"), ("007", "7"), ("P-01", "P-1"), ("M\u00fcller", "Mu\u0308ller")]
)
def test_patient_ids_that_may_be_one_are_reported(tmp_path: Path, ids: tuple[str, str]) -> None:
    rows = cohort(tmp_path) + [(name, scan(tmp_path, i, PatientID=name), "yes") for i, name in enumerate(ids, 1)]
    table(tmp_path, rows)
    for found in (discover(tmp_path, SLICE), discover(tmp_path, SLICE, learning=False), gather([tmp_path], SLICE)):
        assert len(groups(found)) == 6
        assert "warning: 2 PatientIDs differ from another one only in case, spaces, leading zeros" in texts(found)
        assert sum(group in "".join(found.notes) for group in groups(found)) == 2


def test_patient_ids_of_nifti_volumes_are_compared_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["patient_id,path,label"]
    for i, name in enumerate(("A", "B", "C", "D", "007", "7")):
        values = rng.normal(40, 20, (12, 12, 3)).round().astype(np.int16)
        values[:3] = -1000
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{i}.nii.gz")
        rows.append(f"{name},{i}.nii.gz,{'yes' if i % 2 else 'no'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    found = discover(tmp_path, SLICE)
    assert len(groups(found)) == 6
    assert "warning: 2 PatientIDs differ from another one only in case" in texts(found)


def test_one_name_and_birth_date_under_two_patient_ids_is_reported(tmp_path: Path) -> None:
    rows = [
        *cohort(tmp_path),
        ("", scan(tmp_path, 1, **ANNA), "yes"),
        ("", scan(tmp_path, 2, **ANNA | {"PatientID": "CANARY2"}), "no"),
    ]
    assert "warning: 2 PatientIDs share name and birth date with another one" in texts(
        discover(table(tmp_path, rows), SLICE)
    )


def test_the_audit_counts_them_as_warnings(tmp_path: Path) -> None:
    rows = cohort(tmp_path) + [
        (name, scan(tmp_path, i, PatientID=name), "yes") for i, name in enumerate(("007", "7"), 1)
    ]
    done = command("audit", table(tmp_path, rows), "--task", "ct", "--json")
    assert '"kind": "told_by_task"' in done.stdout
    assert "2 PatientIDs differ from another one only in case" in done.stdout


# one PatientID for everybody


@pytest.mark.parametrize("name", ["ANONYMOUS", "anonymized", "De-identified", "unknown", "XXXXX", "4711", ""])
def test_one_patient_id_for_everybody_is_reported_as_that_with_the_ways_out(tmp_path: Path, name: str) -> None:
    rows = [("", uid, label) for _, uid, label in cohort(tmp_path, PatientID=name)]
    with pytest.raises(zooft.DataError) as caught:
        discover(table(tmp_path, rows), SLICE)
    assert "Write the true ones into the column patient_id of labels.csv, which is believed then" in str(caught.value)
    assert "--group-by study, series, folder" in str(caught.value)
    if stands_for_nobody(name):
        assert "4 of them have a PatientID such as ANONYMOUS" in str(caught.value)
    if name == "4711":
        assert "all 4 labelled series name one PatientID" in str(caught.value)
    one_study = [
        ("", uid, label) for _, uid, label in cohort(tmp_path / "all", PatientID=name, StudyInstanceUID=UID.format(5))
    ]
    with pytest.raises(
        zooft.DataError, match=r"4 labelled series name one StudyInstanceUID.* --group-by patient, series, folder"
    ):
        discover(table(tmp_path / "all", one_study), ClassificationOptions(mode="slice", group_by="study"))
    shutil.rmtree(tmp_path / "all")
    for kind in ("study", "series", "folder"):
        assert len(groups(discover(tmp_path, ClassificationOptions(mode="slice", group_by=kind)))) == 4
    believed = table(tmp_path, [(f"P{i // 2}", uid, label) for i, (_, uid, label) in enumerate(rows)])
    assert len(groups(discover(believed, SLICE))) == 2


@pytest.mark.parametrize("name", ["ANONYMOUS", "4711"])
def test_class_folders_of_everybodys_patient_id_aren_t_mistaken_for_patients_folders(tmp_path: Path, name: str) -> None:
    for i in range(4):
        scan(tmp_path / ("yes" if i % 2 else "no"), i, PatientID=name)
    with pytest.raises(zooft.DataError, match=r"such as ANONYMOUS|name one PatientID"):
        discover(tmp_path, SLICE)
    assert len(groups(discover(tmp_path, ClassificationOptions(mode="slice", group_by="study")))) == 4


def test_a_finished_model_is_evaluated_on_data_of_nobody_series_by_series(tmp_path: Path) -> None:
    rows = [("", uid, label) for _, uid, label in cohort(tmp_path, PatientID="ANONYMOUS")]
    found = discover(table(tmp_path, rows), SLICE, learning=False)
    assert len(groups(found)) == 4
    assert "4 of 4 series name no patient; each counts as one of its own" in found.notes
    unlabelled = gather([tmp_path], SLICE)
    assert len(groups(unlabelled)) == 4
    assert "4 have a PatientID such as ANONYMOUS" in "".join(unlabelled.notes)


def test_a_table_isnt_believed_against_files_that_know(tmp_path: Path) -> None:
    rows = cohort(tmp_path)
    rows[2] = ("CANARY-0", *rows[2][1:])
    with pytest.raises(zooft.DataError, match="gives 1 series another patient_id than their files do, first in line 4"):
        discover(table(tmp_path, rows), SLICE)


# persons, without files


def named(name: str, **more: str) -> Person:
    return person(**{"issuer": "", "birth_date": "", "sex": "", **more, "name": name})


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("Miller^Anna", "miller^anna", False),
        ("Müller^Anna", "Muller^Anna", False),
        ("Müller^Änne", "MUELLER^AENNE", False),
        ("Größler^Jörg", "Groessler^Joerg", False),
        ("Østergård^Søren", "Oestergard^Soeren", False),
        ("Wałęsa^Lech", "WALESA^LECH", False),
        ("Müller^Änne", "MUELLER^BERTA", True),
        ("van der Berg^Jan", "Vanderberg^Jan", False),
        ("O'Neil^Sam", "ONEIL^SAM", False),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "YAMADA^TAROU", False),
        ("Yamada^Tarou=山田^太郎", "=山田^太郎", False),
        ("Miller^Anna", "Miller", False),
        ("Miller^Anna", "Mill\ufffd^X", False),
        ("Miller^Anna", "Anonymous", False),
        ("Miller^Anna", "Miler^Anna", False),
        ("Miller-Jones^Anna", "Miller^Anna", False),
        ("Miller^Martin", "Miller^Martina", True),
        ("Miller^Anna", "ANON^0012", False),
        ("Anonymized0001", "Anonymized0002", False),
        ("Miller^Anna", "Jones^Anna", True),  # without a birth date that agrees
        ("Doe^Jane", "Doe^John", True),
        ("Yamada^Tarou=山田^太郎", "Suzuki^Hanako=鈴木^花子", True),
        ("Miller Anna", "Smith Bob", True),
    ],
)
def test_names_differ_where_honest_spellings_wouldnt(one: str, other: str, differ: bool) -> None:
    assert differences(named(one), named(other)) == (("name",) if differ else ())
    assert differences(named(other), named(one)) == (("name",) if differ else ())


def test_a_married_name_is_believed_with_the_birth_date_and_twins_arent() -> None:
    assert differences(named("Miller^Anna", birth_date="19500517"), named("Jones^Anna", birth_date="1950.05.17")) == ()
    assert differences(named("Miller^Anna", birth_date="19500517"), named("Miller^Eva", birth_date="19500517")) == (
        "name",
    )
    assert (
        differences(named("Miller^Susanne", birth_date="19500517"), named("Miller^Susane", birth_date="19500517")) == ()
    )
    assert differences(named("", birth_date="19500101"), named("", birth_date="19500517")) == ()  # the year alone
    assert differences(named("", birth_date="19500101"), named("", birth_date="19510517")) == ("birth date",)


def test_a_persons_repr_names_nobody() -> None:
    assert "Miller" not in repr(named("Miller^Anna", birth_date="19500517"))


@pytest.mark.parametrize("name", ["Anonymous Patient", "ANON^ANON", "no name", "DUMMY", "N.N."])
def test_words_of_anonymisers_are_nobody(name: str) -> None:
    assert stands_for_nobody(name)


@pytest.mark.parametrize("kind", ["PatientID", "name", "UID"])
def test_labels_that_name_patients_are_refused(kind: str, tmp_path: Path) -> None:
    rows = []
    for i in range(4):
        name = f"CANARY^{'ABCD'[i]}nna"
        uid = scan(tmp_path, i, PatientID=f"CANARY{i}", PatientName=name)
        rows.append(("", uid, {"PatientID": f"canary{i}", "name": name, "UID": uid}[kind]))
    with pytest.raises(zooft.DataError) as caught:
        discover(table(tmp_path, rows), SLICE)
    assert (
        "labels.csv has in a column of targets, in 4 of 4 lines, first in line 2, what names their own patient"
        in str(caught.value)
    )
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize("name", ["0", "1", "0000", "A", "LIDC-IDRI-0001", "Unknown7", "Nanette", "Patience"])
def test_what_may_be_somebody_isn_t_mistaken_for_nobody(name: str) -> None:
    assert not stands_for_nobody(name)
