"""The way back from salted ids to patients, series, slices and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from zooft_ct import discover
from zooft_ct.demo import generate
from zooft_ct.options import ClassificationOptions
from zooft_ct.phantom import Size
from zooft_ct.whois import whois


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whois") / "phantoms"
    generate(root, patients=3, seed=1, size=Size(slices=4, increment=5.0))
    return root


def test_an_id_leads_back_to_the_patient_the_series_the_slice_and_the_file(phantoms: Path) -> None:
    found = discover.discover(phantoms, ClassificationOptions())
    sample = found.samples[5]
    group, series, slice_ = sample.id.split("/")
    middle = sample.source.slices[1]
    known = whois(found.samples, phantoms, [group, series, slice_, sample.id])
    assert known[group] == {"samples": "4", "PatientID": middle.patient_id}
    assert known[series] == {"samples": "4", "PatientID": middle.patient_id, "SeriesInstanceUID": middle.series_uid}
    assert known[slice_] == known[sample.id]
    assert known[slice_]["SOPInstanceUID"] == middle.sop_uid
    assert known[slice_]["file"] == str(middle.path)


def test_a_rejected_file_is_found_again(phantoms: Path) -> None:
    (phantoms / "broken.dcm").write_bytes(b"nothing")
    found = discover.discover(phantoms, ClassificationOptions())
    known = whois(found.samples, phantoms, [rejected.id for rejected in found.rejected])
    assert str(phantoms / "broken.dcm") in {facts["file"] for facts in known.values()}


def test_an_id_of_other_data_stands_for_nothing(phantoms: Path) -> None:
    found = discover.discover(phantoms, ClassificationOptions())
    assert whois(found.samples, phantoms, ["0123456789abcdef"]) == {}
