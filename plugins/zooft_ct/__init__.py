"""Medical CT: DICOM series and NIfTI volumes in Hounsfield units, registered by the same door as a stranger's task."""

from __future__ import annotations

import zooft
from zooft_ct import augment, demo, deploy, discover, graph, judging, looks, options, read, sr, whois


@zooft.hookimpl
def zooft_register_tasks() -> list[zooft.Task]:
    """One task."""
    return [
        zooft.Task(
            name="ct",
            summary="one class a patient, series or slice of CT, from DICOM or NIfTI, in Hounsfield units",
            options=options.CTOptions,
            discover=discover.discover,
            begin=discover.begin,
            gather=discover.gather,
            read=read.read,
            digest=read.digest,
            port=graph.port,
            preprocess=graph.preprocess,
            explain=looks.explain,
            augment=augment.augment,
            head=judging.head,
            bag=judging.bag,
            problem=zooft.classification(
                loss=judging.loss,
                metrics=zooft.diagnostic_metrics,
                primary="auroc",
                operating_point=judging.operating_point,
                probability_limit=1e-4,  # nothing is rounded in the graph
            ),
            reader=deploy.reader,
            intended_use=judging.INTENDED_USE,
            private=True,
            subgroups=("manufacturer", "kernel", "slice_thickness", "sex", "age"),
            show=looks.show,
            redact=looks.redact,
            report=looks.report,
            identify=judging.identify,
            whois=whois.whois,
            writers={"dicom-sr": sr.write},
            demo=demo.demo,
        )
    ]
