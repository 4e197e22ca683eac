"""Medical CT: DICOM series and NIfTI volumes in Hounsfield units, registered by the same door as a stranger's tasks."""

from __future__ import annotations

import zooft
from zooft_ct import demo, discover, options, sr, task_parts, tasks
from zooft_ct.demo import with_masks as demo_with_masks
from zooft_ct.discover import discover_volumes
from zooft_ct.header import SliceHeader
from zooft_ct.label_volumes import LabelVolume, Meaning
from zooft_ct.nifti_writer import write_nifti
from zooft_ct.options import CTOptions
from zooft_ct.segments import require as require_highdicom
from zooft_ct.segments import write as write_segmentation
from zooft_ct.tasks import ct_task

__all__ = [
    "CTOptions",
    "LabelVolume",
    "Meaning",
    "SliceHeader",
    "ct_task",
    "demo_with_masks",
    "discover_volumes",
    "require_highdicom",
    "write_nifti",
    "write_segmentation",
    "zooft_register_tasks",
]


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """A task for each kind of answer."""
    exact = 1e-4  # of probabilities: nothing is rounded in the graph
    return [
        tasks.ct_task(
            "ct",
            zooft.classification(
                loss=task_parts.loss,
                metrics=zooft.diagnostic_metrics,
                primary="auroc",
                operating_point=task_parts.operating_point,
                probability_limit=exact,
            ),
            summary="one class a patient, series or slice of CT, from DICOM or NIfTI, in Hounsfield units",
            own=options.ClassificationOptions,
            answers="sorted into the listed classes",
            discover=discover.discover,
            writers={"dicom-sr": sr.write},
            demo=demo.demo,
        ),
        tasks.ct_task(
            "ct-regression",
            zooft.regression(),
            summary="one or several numbers a patient, series or slice of CT, from columns of labels.csv",
            own=options.RegressionOptions,
            answers="of which the listed numbers are estimated",
        ),
        tasks.ct_task(
            "ct-ordinal",
            zooft.ordinal(probability_limit=exact),
            summary="one of several ordered grades a patient, series or slice of CT, from a column of labels.csv",
            own=options.OrdinalOptions,
            answers="graded by the listed scale",
        ),
        tasks.ct_task(
            "ct-multilabel",
            zooft.multilabel(probability_limit=exact),
            summary=(
                "several labels a patient, series or slice of CT, from columns of labels.csv or one that lists them"
            ),
            own=options.MultilabelOptions,
            answers="in which the listed labels are detected",
        ),
        tasks.ct_task(
            "ct-multitask",
            zooft.combined(
                {
                    "classification": zooft.classification(probability_limit=exact),
                    "regression": zooft.regression(),
                    "ordinal": zooft.ordinal(probability_limit=exact),
                    "multilabel": zooft.multilabel(probability_limit=exact),
                }
            ),
            summary=(
                "several answers a patient, series or slice of CT at once, from columns of labels.csv that a small "
                "TOML file types"
            ),
            own=options.MultitaskOptions,
            answers="about which the listed questions are answered",
        ),
    ]
