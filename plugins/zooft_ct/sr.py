"""Results as DICOM structured reports (TID 1500), one for each patient, marked for research and unverified.

A report goes back to where the images came from, so it names the patient, as the images do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zooft
from zooft_ct import privacy
from zooft_ct.header import SliceHeader

if TYPE_CHECKING:
    from pydicom import Dataset

    from zooft_ct.options import CTOptions

_SCHEME = "99ZOOFT"
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip # a table of attributes
"""Type 2 in the modules Patient and General Study (DICOM PS3.3, C.7.1.1, C.7.2.1); anonymised files lack them."""
_PURPOSE = "Research use only, not for diagnosis. Unverified."


def write(
    results: Sequence[zooft.GroupResult], file: zooft.DeployedFile, folder: Path, _options: CTOptions
) -> tuple[Path, ...]:
    """Write ``FOLDER/NAME.dcm`` for each patient, under the salted name.

    Raises:
        DataError: the answers aren't classes, highdicom isn't installed, or some reports couldn't be written; the
            others are.
    """
    if file.problem != "classification":
        raise zooft.DataError(
            f"DICOM structured reports have a place for classes, and the file's answers are of {file.problem}; use "
            "--format json or csv"
        )
    try:
        import highdicom  # noqa: F401  -- whether it is there
    except ImportError as error:
        raise zooft.DataError(
            "DICOM structured reports need highdicom: pip install 'zooft[ct-sr]' (where zooft-runtime is installed: "
            "'zooft-runtime[ct-sr]')"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    failures: list[str] = []
    for result in results:
        try:
            written.append(_write(result, file, folder))
        except zooft.DataError as error:
            failures.append(str(error))
    if failures:
        raise zooft.DataError(
            f"{len(failures)} of {len(results)} structured reports couldn't be written (any others are): "
            f"{'; '.join(failures)}. Mend these patients' files, or take their results by --format json or csv"
        )
    return tuple(written)


def _write(result: zooft.GroupResult, file: zooft.DeployedFile, folder: Path) -> Path:
    """One report, whole or not at all."""
    path = folder / f"{result.group}.dcm"
    partial = path.with_suffix(".partial")
    if path.exists() and not _is_report(path):
        raise zooft.DataError(
            f"{result.group}: {path.name} exists and isn't a report of ours, so it stays; name another folder"
        )
    try:
        with privacy.quiet_pydicom():
            _report(result, file).save_as(partial, enforce_file_format=True)
        partial.replace(path)
    except zooft.DataError as error:
        raise zooft.DataError(f"{result.group}: {error}") from None
    except OSError as error:  # its text names files
        raise zooft.DataError(f"{result.group}: files can't be read or written ({error.strerror})") from None
    except Exception as error:  # highdicom's and pydicom's own, whose texts repeat what stands in the headers
        raise zooft.DataError(f"{result.group} ({type(error).__name__})") from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def _is_report(path: Path) -> bool:
    """Whether it is what an earlier command wrote, and may be written again."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        with privacy.quiet_pydicom():
            found = dcmread(path, specific_tags=["Modality", "Manufacturer"])
    except (OSError, InvalidDicomError):
        return False
    return (found.get("Modality"), found.get("Manufacturer")) == ("SR", "zooft")


def _report(result: zooft.GroupResult, file: zooft.DeployedFile) -> Dataset:
    from highdicom.sr import ComprehensiveSR
    from highdicom.uid import UID

    evidence = _evidence([slice_ for member in result.members for slice_ in _slices(member)])
    decisive = _slices(result.decisive)
    middle = decisive[len(decisive) // 2]
    shown = next(ds for ds in evidence if ds.SOPInstanceUID == middle.sop_uid)
    report: Dataset = ComprehensiveSR(
        evidence=evidence,
        content=_content(result, file, _source(shown, middle)),
        series_instance_uid=UID(),
        series_number=9000,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer="zooft",
        manufacturer_model_name=file.backbone[:64],
        software_versions=f"zooft {file.version}",
        device_serial_number=file.weights_sha256,
        is_complete=False,
        is_final=False,
        is_verified=False,
        series_description="RESEARCH USE ONLY - unverified",
    )
    return report


def _source(shown: Dataset, middle: SliceHeader) -> Any:
    """The slice that decided: its image, and of several frames its number, from 1."""
    from highdicom.sr import SourceImageForMeasurementGroup

    # by the number, not by the element: plain CT files may have NumberOfFrames 1, and highdicom then takes no frame
    frames = [middle.frame + 1] if middle.layout.frames > 1 else None
    return SourceImageForMeasurementGroup.from_source_image(shown, referenced_frame_numbers=frames)


def _content(result: zooft.GroupResult, file: zooft.DeployedFile, source: Any) -> Any:
    """A measurement report.

    The class as a qualitative evaluation, a probability for each class, the slice that decided.
    """
    from highdicom import sr
    from highdicom.uid import UID
    from pydicom.sr.codedict import codes

    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=UID(), identifier="zooft"),
        source_images=[source],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _code("1", "Class"), _code(f"2{_classes(file).index(result.answer['class'])}", result.answer["class"])
            ),
            *_positive_class(file),
            sr.QualitativeEvaluation(_code("7", "Completeness"), _completeness(result)),
            sr.QualitativeEvaluation(_code("3", "Purpose"), _code("30", _PURPOSE)),
        ],
        measurements=[
            sr.Measurement(_code(code, meaning), value=round(value, 6), unit=codes.UCUM.NoUnits)
            for code, meaning, value in _numbers(result, file)
        ],
    )
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=UID(), name="zooft", model_name=file.backbone, serial_number=file.weights_sha256
                ),
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[group],
    )


def _completeness(result: zooft.GroupResult) -> Any:
    if result.missing:
        return _code("71", f"INCOMPLETE: {zooft.pluralize(result.missing, 'slice')} couldn't be judged")
    return _code("70", "All slices were judged")


def _positive_class(file: zooft.DeployedFile) -> list[Any]:
    from highdicom import sr

    if len(_classes(file)) != 2:
        return []
    return [sr.QualitativeEvaluation(_code("6", "Class that is looked for"), _code("21", _classes(file)[1]))]


def _classes(file: zooft.DeployedFile) -> tuple[str, ...]:
    return file.labels[0].categories


def _numbers(result: zooft.GroupResult, file: zooft.DeployedFile) -> list[tuple[str, str, float]]:
    """Code, meaning and value: each class's probability, and where the line between two is drawn."""
    numbers = [
        (f"4{index}", f"Probability of {name}", result.answer[f"p({name})"])
        for index, name in enumerate(_classes(file))
    ]
    threshold = file.fitted.get("threshold")
    if threshold is not None:
        numbers.append(("5", f"Threshold of the probability of {_classes(file)[-1]}", threshold))
    if result.missing:
        numbers.append(("8", "Slices that couldn't be judged", float(result.missing)))
    return numbers


def _code(value: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=f"ZOOFT{value}", scheme_designator=_SCHEME, meaning=meaning[:64])


def _slices(sample: zooft.Sample) -> list[SliceHeader]:
    own = [one for one in sample.source.slices if isinstance(one, SliceHeader)]
    if not own:
        raise zooft.DataError(
            "a structured report is about DICOM images, and these are NIfTI; use --format json or csv"
        )
    return own


def _evidence(slices: Sequence[SliceHeader]) -> list[Dataset]:
    """The headers of the files that were read, each once."""
    return list(headers_of(dict.fromkeys(one.path for one in slices)))


def headers_of(paths: Iterable[Path]) -> Iterator[Dataset]:
    """Each file without its pixels, what highdicom needs filled in with nothing."""
    from pydicom import dcmread

    for path in paths:
        dataset = dcmread(path, stop_before_pixels=True)
        for keyword in _MAY_BE_EMPTY:
            if keyword not in dataset:
                setattr(dataset, keyword, "")
        yield dataset
