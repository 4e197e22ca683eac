"""Running an exported file: numpy and onnxruntime, never torch.

import zooft.runtime
model = zooft.runtime.load("model.onnx")
predictions = model.run(images)   # in native units, as model.ports states; names to arrays, as in
model.metadata.outputs
"""

from zooft.runtime.metadata import Metadata
from zooft.runtime.parts import (
    NETWORK_INPUT,
    NETWORK_OUTPUTS,
    Preprocessing,
    file_tensors_sha256,
    in_two_files,
    part,
    preprocessing,
    read_by,
    tensors_sha256,
)
from zooft.runtime.policy import DATA_FILE
from zooft.runtime.precision import NAMES as PRECISIONS
from zooft.runtime.precision import Precision
from zooft.runtime.providers import Choice, choose, missing_library, usable
from zooft.runtime.session import OnnxModel, default_threads, load, parse_file, read_metadata, read_precision

__all__ = [
    "DATA_FILE",
    "NETWORK_INPUT",
    "NETWORK_OUTPUTS",
    "PRECISIONS",
    "Choice",
    "Metadata",
    "OnnxModel",
    "Precision",
    "Preprocessing",
    "choose",
    "default_threads",
    "file_tensors_sha256",
    "in_two_files",
    "load",
    "missing_library",
    "parse_file",
    "part",
    "preprocessing",
    "read_by",
    "read_metadata",
    "read_precision",
    "tensors_sha256",
    "usable",
]
