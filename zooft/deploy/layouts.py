"""Folders from which model servers serve an exported file: Triton, KServe and OpenVINO Model Server.

Preprocessing and answers are inside the file, so a server needs nothing but a name, types, sizes and a place. The file
is copied as it was verified; nothing is converted.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zooft.deploy import bill
from zooft.errors import ExportError
from zooft.run import folder as runs
from zooft.runtime import DATA_FILE

if TYPE_CHECKING:
    from zooft.contracts import Labels, Output, Port
    from zooft.runtime import Metadata, OnnxModel

MODELS = "models"
"""The folder that a server is given."""
OLDEST_RUNTIME = "1.15.0"
"""The oldest onnxruntime that a file runs in; a test runs one."""
_LABELS = "labels.txt"
_MOST_IN_A_BATCH = 8
_DELAY = 2000
"""Microseconds that a request waits for others."""
_TRITON = {
    "uint8": "UINT8", "int8": "INT8", "uint16": "UINT16", "int16": "INT16", "uint32": "UINT32", "int32": "INT32",
    "uint64": "UINT64", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL",
}  # fmt: skip # a table of types


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A file that a layout is written for.

    Attributes:
        path: of the file.
        name: that clients call it by: letters, digits and hyphens.
        ports: its inputs.
        outputs: its outputs.
        labels: what they mean.
        metadata: of the file.
        beside: files that belong to it, such as its verification.
    """

    path: Path
    name: str
    ports: Sequence[Port]
    outputs: Sequence[Output]
    labels: Labels
    metadata: Metadata
    beside: Sequence[Path] = ()


def to_serve(model: OnnxModel, path: Path, *, name: str, beside: Sequence[Path] = ()) -> Served:
    """An opened file, to be served under a name that servers and addresses take."""
    about = model.metadata
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-") or "model"
    return Served(
        path=path,
        name=slug,
        ports=about.ports,
        outputs=about.outputs,
        labels=about.labels,
        metadata=about,
        beside=tuple(beside),
    )


def write(layout: str, file: Served, folder: Path) -> Path:
    """Write a layout into a folder, whole or not at all.

    Args:
        layout: one of `LAYOUTS`.
        file: to be served.
        folder: new, or empty.

    Raises:
        ExportError: the folder holds files, or can't be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} exists and isn't empty, and nothing is overwritten; name a new folder with --out")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            draft = Path(scratch) / "draft"
            for place, content in _texts(layout, file).items():
                (draft / place).parent.mkdir(parents=True, exist_ok=True)
                (draft / place).write_text(content, encoding="utf-8")
            _copy(file, draft)
            _describe(file, draft)
            draft.replace(folder)
    except OSError as error:
        raise ExportError(f"{folder} can't be written: {error.strerror or error}; name another folder") from error
    return folder


def _copy(file: Served, draft: Path) -> None:
    version = draft / MODELS / file.name / "1"
    version.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file.path, version / runs.ONNX_FILE)
    second = file.path.with_name(DATA_FILE)
    if second.is_file():
        shutil.copyfile(second, version / DATA_FILE)
    for path in file.beside:
        shutil.copyfile(path, draft / path.name)


def _describe(file: Served, draft: Path) -> None:
    """What it is made of, under which licences, and the checksums of all."""
    made = bill.bill_of_materials(file.metadata, file.path, name=file.name)
    (draft / bill.FILE).write_text(bill.as_text(made), encoding="utf-8")
    (draft / bill.LICENCES).write_text(bill.licences(file.metadata), encoding="utf-8")
    (draft / bill.CHECKSUMS).write_text(bill.checksums(draft), encoding="utf-8")


def _texts(layout: str, file: Served) -> dict[str, str]:
    return {"Dockerfile": _dockerfile(file), "predict.py": _PREDICT, **LAYOUTS[layout](file)}


def triton(file: Served) -> dict[str, str]:
    """Place to content: ``config.pbtxt`` with dynamic batching, and the names of classes."""
    found = {f"{MODELS}/{file.name}/config.pbtxt": "\n".join(_config(file)) + "\n"}
    names = _categories(file)
    if names:
        found[f"{MODELS}/{file.name}/{_LABELS}"] = "".join(f"{name}\n" for name in names)
    return found


def kserve(file: Served) -> dict[str, str]:
    """Triton's folder, and an InferenceService that serves it by the Open Inference Protocol v2."""
    service = f"""\
# 'kubectl apply -f {file.name}.yaml', once {MODELS}/ lies in the storage that storageUri names
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {file.name}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
      protocolVersion: v2
      runtime: kserve-tritonserver
      storageUri: pvc://models/{MODELS}
      resources:
        requests: {{cpu: "1", memory: 2Gi}}
        limits: {{cpu: "4", memory: 4Gi}}
"""
    return {**triton(file), f"{file.name}.yaml": service}


def openvino(file: Served) -> dict[str, str]:
    """The configuration of OpenVINO Model Server, which reads ONNX as it is; in float32, as it was verified."""
    config = {
        "model_config_list": [
            {
                "config": {
                    "name": file.name,
                    "base_path": f"/{MODELS}/{file.name}",
                    "target_device": "CPU",
                    "plugin_config": {"INFERENCE_PRECISION_HINT": "f32"},
                }
            }
        ]
    }
    return {f"{MODELS}/config.json": json.dumps(config, indent=2) + "\n"}


LAYOUTS: Mapping[str, Callable[[Served], dict[str, str]]] = {"triton": triton, "kserve": kserve, "openvino": openvino}
"""By name, what makes a layout's texts."""


def _config(file: Served) -> Iterator[str]:
    yield f'name: "{file.name}"'
    yield 'backend: "onnxruntime"'
    yield f'default_model_filename: "{runs.ONNX_FILE}"'
    yield f"max_batch_size: {_MOST_IN_A_BATCH}"
    for port in file.ports:
        yield from _tensor("input", port.name, port.dtype, port.axes)
    names = _categories(file)
    for output in file.outputs:
        labelled = bool(names) and output.axes[1:] == (len(names),) and output.dtype.startswith("float")
        yield from _tensor("output", output.name, output.dtype, output.axes, labelled=labelled)
    yield "dynamic_batching {"
    yield f"  max_queue_delay_microseconds: {_DELAY}"
    yield "}"


def _tensor(kind: str, name: str, dtype: str, axes: Sequence[str | int], *, labelled: bool = False) -> Iterator[str]:
    """The batch's axis isn't listed. A number for each sample has no axis, which Triton takes as one of size 1."""
    sizes = [axis if isinstance(axis, int) else -1 for axis in axes[1:]]
    yield f"{kind} ["
    yield "  {"
    yield f'    name: "{name}"'
    yield f"    data_type: TYPE_{_TRITON[dtype]}"
    yield f"    dims: [ {', '.join(map(str, sizes)) or 1} ]"
    if not sizes:
        yield "    reshape { shape: [ ] }"
    if labelled:
        yield f'    label_filename: "{_LABELS}"'
    yield "  }"
    yield "]"


def _categories(file: Served) -> tuple[str, ...]:
    """The classes, where the file answers one question about classes."""
    several = [label.categories for label in file.labels if label.categories]
    return several[0] if len(several) == 1 else ()


def _dockerfile(file: Served) -> str:
    return f"""\
# Answers about files, with onnxruntime alone:
#   docker build -t {file.name} . && docker run -v "$PWD:/data" {file.name} /data/picture.jpg
FROM python:3.12-slim
RUN pip install --no-cache-dir "onnxruntime>={OLDEST_RUNTIME}" numpy pillow
COPY predict.py /app/
COPY {MODELS}/{file.name}/1/ /app/model/
USER 65534
ENTRYPOINT ["python", "/app/predict.py", "/app/model/{runs.ONNX_FILE}"]
"""


_PREDICT = '''\
"""What an ONNX file of zooft answers about files, one JSON line each: python predict.py MODEL FILE...

Pictures for files of pictures; for others .npy files with one sample, an array of the type that the file takes.
Needs numpy, onnxruntime and, for pictures, Pillow.
"""

import json
import sys

import numpy
import onnxruntime


def read(path):
    if path.endswith(".npy"):
        return numpy.load(path, allow_pickle=False)
    from PIL import Image, ImageOps

    return numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def shown(values):
    return values.tolist() if values.size <= 1000 else {"shape": values.shape, "dtype": str(values.dtype)}


session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes = json.loads(about.get("classes", "[]"))
names = [output.name for output in session.get_outputs()]
first = session.get_inputs()[0].name
for path in sys.argv[2:]:
    answers = dict(zip(names, session.run(names, {first: read(path)[None]})))
    found = {name: shown(values[0]) for name, values in answers.items()}
    if classes and answers.get("prediction", numpy.empty(0)).shape == (1,):
        found["class"] = classes[int(answers["prediction"][0])]
    print(json.dumps({"file": path, **found}))
'''
