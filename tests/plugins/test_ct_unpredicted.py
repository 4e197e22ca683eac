"""What of a patient wasn't predicted: counted by hand from what each test spoils, and never mixed up among patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import UID, ct, write, write_series

import zooft
from zooft.data import samples
from zooft.deploy.predict import Group, groups
from zooft.evaluation.groups import missing_groups
from zooft_ct.discover import gather
from zooft_ct.options import CTOptions

OPTIONS = CTOptions(mode="slice", hu_cache="off")
HEIGHTS = (0.0, 5.0, 10.0, 15.0, 20.0, 25.0)


@pytest.fixture(autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOOFT_KEY_FILE", str(tmp_path_factory.mktemp("key") / "key"))


def patient(folder: Path, name: str) -> list[Path]:
    """Six slices of one patient."""
    number = sum(name.encode())
    return write_series(
        folder,
        HEIGHTS,
        PatientID=name,
        SeriesInstanceUID=UID.format(number),
        StudyInstanceUID=UID.format(f"{number}.1"),
    )


def results(found: zooft.Discovery) -> list[Group]:
    """Those who get an answer, with what goes into it."""
    return [group for group in groups(found) if group.samples]


def evaluated(found: zooft.Discovery) -> list[tuple[int, int]]:
    """Of each answer: slices in it, slices that it lacks."""
    return sorted((len(one.samples), sum(each.missing for each in one.unjudged)) for one in results(found))


def test_a_torn_slice_is_missing_from_its_patient_s_answer_and_from_no_other(tmp_path: Path) -> None:
    torn = patient(tmp_path / "a", "A")[3]
    patient(tmp_path / "b", "B")
    torn.write_bytes(torn.read_bytes()[:-100])
    assert evaluated(gather([tmp_path], OPTIONS)) == [(5, 1), (6, 0)]


@pytest.mark.parametrize("content", [b"", b"nothing of DICOM" * 20, b"\0" * 128 + b"DICM" + b"\xff" * 300])
def test_a_slice_whose_header_is_gone_is_missing_from_those_beside_it(tmp_path: Path, content: bytes) -> None:
    patient(tmp_path / "a", "A")[3].write_bytes(content)
    patient(tmp_path / "b", "B")
    assert evaluated(gather([tmp_path], OPTIONS)) == [(5, 1), (6, 0)]


def test_a_slice_with_text_burned_in_is_missing_and_a_screenshot_is_not(tmp_path: Path) -> None:
    written = patient(tmp_path / "a", "A")[3]
    slice_ = pydicom.dcmread(written)
    slice_.BurnedInAnnotation = "YES"
    slice_.save_as(written)
    screenshot = ct(9, PatientID="A", ImageType=["DERIVED", "SECONDARY"], BurnedInAnnotation="YES")
    write(tmp_path / "a" / "dose.dcm", screenshot)
    assert evaluated(gather([tmp_path], OPTIONS)) == [(5, 1)]


@pytest.mark.parametrize("gone", [[2], [4], [2, 3]])
def test_slices_that_nobody_has_given_are_missing(gone: list[int], tmp_path: Path) -> None:
    files = patient(tmp_path / "a", "A")
    for number in gone:
        files[number].unlink()
    found = gather([tmp_path], OPTIONS)
    assert evaluated(found) == [(6 - len(gone), len(gone))]
    (message,) = found.rejected
    assert message.reason.startswith(f"slices missing from the series: {len(gone)}, by positions and InstanceNumbers")


def test_a_protocol_s_own_gap_is_no_missing_slice_and_a_torn_slice_is_missing_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a", (0.0, 5.0, 10.0, 20.0, 25.0), PatientID="A", SeriesInstanceUID=UID.format(5))
    files = write_series(tmp_path / "b", [5.0 * n for n in range(10)], PatientID="B", SeriesInstanceUID=UID.format(6))
    files[1].write_bytes(files[1].read_bytes()[:-100])
    files[4].unlink()
    assert evaluated(gather([tmp_path], OPTIONS)) == [(5, 0), (8, 2)]


def test_texts_scouts_copies_and_other_images_of_a_patient_are_missed_by_nobody(tmp_path: Path) -> None:
    first, *_ = patient(tmp_path / "a", "A")
    (tmp_path / "a" / "copy.dcm").write_bytes(first.read_bytes())
    (tmp_path / "a" / "readme.txt").write_text("scanned on a Monday")
    (tmp_path / "a" / "VERSION").write_text("Gerät 7\n")
    write(tmp_path / "a" / "scout.dcm", ct(9, PatientID="A", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    write(tmp_path / "a" / "mr.dcm", ct(9, PatientID="A", SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR"))
    found = gather([tmp_path], OPTIONS)
    assert len(found.rejected) == 5
    assert evaluated(found) == [(6, 0)]


def test_a_patient_whose_series_is_refused_whole_is_named_with_all_its_slices(tmp_path: Path) -> None:
    patient(tmp_path / "a", "A")
    number = 7
    for index, height in enumerate(HEIGHTS):
        tilted = {} if index else {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
        uids = {"SeriesInstanceUID": UID.format(number), "StudyInstanceUID": UID.format("7.1")}
        write(tmp_path / "b" / f"{index}.dcm", ct(height, seed=index, PatientID="B", **uids, **tilted))
    found = gather([tmp_path], OPTIONS)
    answers = results(found)
    lacking = missing_groups(found.rejected, {one.name for one in answers})
    ((group, reasons),) = lacking.items()
    assert group not in {one.name for one in answers}
    assert [(one.missing, "aren't parallel" in one.reason) for one in reasons] == [(6, True)]
    assert group == write_alone(tmp_path / "alone", "B")


def write_alone(folder: Path, name: str) -> str:
    """What a patient is called whose slices are sound."""
    patient(folder, name)
    return str(gather([folder], OPTIONS).samples[0].group)


def test_two_patients_in_one_refused_series_are_both_named(tmp_path: Path) -> None:
    for index, height in enumerate(HEIGHTS):
        write(tmp_path / f"{index}.dcm", ct(height, seed=index, PatientID="AB"[index % 2]))
    found = gather([tmp_path], OPTIONS)
    assert not found.samples
    assert [sum(one.missing for one in own) for own in missing_groups(found.rejected, ()).values()] == [3, 3]


def test_a_torn_volume_has_a_group_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"no gzip")
    found = gather([tmp_path], OPTIONS)
    assert [sum(one.missing for one in own) for own in missing_groups(found.rejected, ()).values()] == [1]


def test_slices_that_can_t_be_decoded_count_as_the_samples_that_they_spoil(tmp_path: Path) -> None:
    paths = patient(tmp_path, "A")
    ones = ct(10.0, seed=2, PatientID="A", SeriesInstanceUID=UID.format(65), StudyInstanceUID=UID.format("65.1"))
    ones.PixelData = np.full((ones.Rows, ones.Columns), 3000, np.uint16).tobytes()
    write(paths[2], ones)
    assert evaluated(gather([tmp_path], OPTIONS)) == [(5, 1)]
    assert evaluated(gather([tmp_path], CTOptions(mode="2.5d", hu_cache="off"))) == [(3, 3)]


def test_of_many_reasons_the_commonest_is_reported_not_that_of_a_table_beside() -> None:
    odd = [zooft.Rejection("labels.csv", "no image"), *(zooft.Rejection(f"f{i}", f"{i}% lie above") for i in range(3))]
    found = zooft.Discovery(samples=(), labels=zooft.class_labels(("a", "b")), rejected=tuple(odd))
    assert samples.rejected_sentence(found) == "4 files were rejected, 3 of them like this one: f0: 0% lie above"
    found = zooft.Discovery(samples=(), labels=zooft.class_labels(("a", "b")), rejected=tuple(odd[:2]))
    assert samples.rejected_sentence(found) == "2 files were rejected, the first: labels.csv: no image"


def test_of_many_files_left_out_for_one_reason_the_first_are_listed_and_the_rest_counted() -> None:
    from zooft.cli.predict import _about_rejected

    many = [zooft.Rejection(f"file {i}", "a picture") for i in range(500)]
    few = [zooft.Rejection(f"slice {i}", "torn") for i in range(10)]
    message = list(_about_rejected([*many[:250], *few, *many[250:]]))
    assert [line for line in message if "torn" in line] == [f"not used: slice {i}: torn" for i in range(10)]
    pictures = [line for line in message if "a picture" in line]
    assert pictures[:9] == [f"not used: file {i}: a picture" for i in range(9)]
    assert pictures[9:] == ["not used: 491 more for the same reason (a picture); --format json lists all"]
