"""Pictures and archives by POST: the rows of ``zooft predict``, and which archives are refused."""

from __future__ import annotations

import errno
import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import command
from PIL import Image
from serving import Running, running
from test_runtime import written


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server puts what it is sent."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.fixture(scope="module")
def server(model: Path, unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("serve")
    with running(folder, f"one={model}", "--max-pixels", "1", TMPDIR=str(unpacked)) as found:
        yield found


def encoded(form: str, *, size: tuple[int, int] = (20, 30), seed: int = 0) -> bytes:
    levels = np.random.default_rng(seed).integers(0, 3, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, form)
    return buffer.getvalue()


def zipped(files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _info: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return buffer.getvalue()


def rows_of_predict(model: Path, folder: Path) -> list[dict[str, object]]:
    """Entries of the command, under names in the folder."""
    rows = json.loads(command("predict", model, folder, "--format", "json", status=3).stdout)["predictions"]
    return [{**row, "file": str(Path(row["file"]).relative_to(folder))} for row in rows]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_gets_the_row_of_predict(server: Running, model: Path, tmp_path: Path, form: str) -> None:
    suffix = {"JPEG": "jpg", "PNG": "png"}[form]
    (tmp_path / f"image.{suffix}").write_bytes(encoded(form))
    (tmp_path / "torn").write_bytes(b"no picture")
    got = server.post("predict/one", encoded(form))
    assert got.status_code == 200
    assert got.json()["predictions"] == rows_of_predict(model, tmp_path)[:1]
    assert got.json()["classes"] == ["zebra", "ant", "bee é"]


def test_an_archive_gets_the_rows_of_predict_and_leaves_nothing_behind(
    server: Running, model: Path, tmp_path: Path, unpacked: Path
) -> None:
    files = {"a/1.png": encoded("PNG", seed=1), "a/2.png": encoded("PNG", seed=2), "torn.png": b"no picture"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    got = server.post("predict/one", zipped({**files, "__MACOSX/1.png": b"", ".DS_Store": b""})).json()
    assert got["predictions"] == rows_of_predict(model, tmp_path)
    assert {each["id"]: each["reason"] for each in got["left_out"]} == {
        "__MACOSX/1.png": "made by a system, not data",
        ".DS_Store": "hidden",
    }
    assert not list(unpacked.glob("zooft*"))


def link(info: zipfile.ZipInfo) -> None:
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16


def bomb() -> bytes:
    return zipped({"a.png": bytes(50_000_000)})


def lying() -> bytes:
    """States fewer bytes than it unpacks to."""
    whole = bytearray(zipped({"a.bin": bytes(range(256)) * 300}))
    size = (256 * 300).to_bytes(4, "little")
    return bytes(whole.replace(size, (10).to_bytes(4, "little")))


def really_encrypted() -> bytes:
    whole = bytearray(zipped({"a.png": b"x"}))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(magic) + at] |= 0x1
    return bytes(whole)


ARCHIVES = {
    "a bomb": (bomb, 400, "as bombs do"),
    "a bomb of many files": (lambda: zipped({f"{n}": b"" for n in range(5_001)}), 413, "at most 5,000"),
    "stated sizes that aren't true": (lying, 400, "damaged"),
    "a name that leads out": (lambda: zipped({"../../a.png": b"x"}), 400, "leads out of it"),
    "an absolute name": (lambda: zipped({"/etc/a.png": b"x"}), 400, "leads out of it"),
    "a name of Windows": (lambda: zipped({"..\\a.png": b"x"}), 400, "leads out of it"),
    "a long name": (lambda: zipped({"a" * 300: b"x"}), 400, "too long"),
    "an encrypted file": (really_encrypted, 400, "encrypted"),
    "a link": (lambda: zipped({"a.png": b"/etc/passwd"}, link), 400, "a link"),
    "an archive in an archive": (lambda: zipped({"a.zip": zipped({"b": b"x"})}), 400, "another archive"),
    "a file that is a folder too": (lambda: zipped({"a": b"x", "a/b": b"y"}), 400, "damaged"),
    "nothing": (lambda: zipped({".hidden": b"x"}), 422, "holds no files"),
    "half an archive": (lambda: zipped({"a.png": encoded("PNG")})[:-30], 400, "damaged"),
}


@pytest.mark.parametrize(("made", "status", "reason"), ARCHIVES.values(), ids=ARCHIVES)
def test_archives_that_would_do_harm_are_refused(
    server: Running, unpacked: Path, made: Callable[[], bytes], status: int, reason: str
) -> None:
    got = server.post("predict/one", made())
    assert (got.status_code, reason in got.json()["error"]) == (status, True), got.text
    assert not list(unpacked.glob("zooft*"))


def test_a_full_disk_is_not_blamed_on_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    from zooft.serve import images
    from zooft.serve.limits import Limits, RequestRefused

    def fill(*_given: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zooft.serve.archives._write", fill)
    with (
        pytest.raises(RequestRefused, match="No space left") as caught,
        images.receive_files(zipped({"a": b"x"}), Limits()),
    ):
        pass
    assert caught.value.status == 507


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(server: Running) -> None:
    got = server.post("predict/one", encoded("PNG", size=(1001, 1000)))
    assert (got.status_code, "1000 x 1001 pixels" in got.json()["error"]) == (413, True)
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    declared = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    declared += struct.pack(">I", 4) + b"IDAT" + bytes(8)
    assert server.post("predict/one", declared).status_code == 413


def test_what_is_no_picture_is_refused_with_predicts_reason(server: Running) -> None:
    got = server.post("predict/one", b"no picture")
    assert (got.status_code, got.json()["error"]) == (422, "nothing could be predicted: not an image that Pillow knows")
    assert server.post("predict/one").status_code == 400


def test_an_occlusion_map_finds_the_place_that_decides(server: Running) -> None:
    """The answer hangs on the mean of each channel, and only one place has any."""
    levels = np.zeros((120, 120, 3), np.uint8)
    levels[30:40, 70:80, 1] = 200
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    got = server.post("occlusion/one", buffer.getvalue()).json()
    changes = np.array(got["changes"])
    assert changes.shape == (12, 12)
    assert np.unravel_index(changes.argmax(), changes.shape) == (3, 7)
    assert got["of"] == "how far the probability of ant falls"
    assert got["picture"].startswith("data:image/png;base64,")


# CT


def of_hounsfield_units(folder: Path) -> Path:
    """A file of the task ct that answers by the mean of the middle slice."""
    from dataclasses import asdict, replace

    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from test_runtime import METADATA

    from zooft import class_labels
    from zooft.hooks import registry

    task = registry.load().task("ct")
    options = task.options(mode="slice")
    port = task.port(options)
    (port,) = port if isinstance(port, tuple) else (port,)
    labels = class_labels(("dense", "airy"))
    about = replace(
        METADATA,
        task="ct/ct",
        options=asdict(options),
        ports=(port,),
        labels=labels,
        outputs=tuple(task.problem.deployment.outputs(labels, {})),
    )
    nodes = [
        helper.make_node("Cast", ["hu"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "scale"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("ArgMax", ["probabilities"], ["prediction"], axis=1, keepdims=0),
    ]
    constants = {"axes": np.array([1, 2, 3]), "last": np.array([1]), "scale": np.array([[0.01, -0.01]], np.float32)}
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("probabilities", "logits")]
    outputs.append(helper.make_tensor_value_info("prediction", TensorProto.INT64, ["batch"]))
    given = helper.make_tensor_value_info("hu", TensorProto.INT16, list(port.axes))
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "zooft", [given], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, about.to_properties(task.problem.deployment.properties(labels)))
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_zip_of_dicom_gets_the_row_of_predict_and_a_photograph_none(tmp_path: Path, unpacked: Path) -> None:
    pytest.importorskip("pydicom", reason="pydicom isn't installed: pip install 'zooft[ct]'")
    import dicom_files

    model = of_hounsfield_units(tmp_path / "ct")
    paths = dicom_files.write_series(
        tmp_path / "series", [0.0, 2.5, 5.0, 7.5], PatientID="Meyer^Anna", PatientName="Meyer"
    )
    wanted = json.loads(command("predict", model, tmp_path / "series", "--format", "json").stdout)
    series = zipped({f"Meyer/{path.name}": path.read_bytes() for path in paths})
    with running(tmp_path, model, TMPDIR=str(unpacked)) as server:
        got = server.post("predict/ct", series)
        assert got.json()["predictions"] == wanted["predictions"]
        assert got.json()["intended_use"] == wanted["intended_use"]
        shown = server.post("predict/ct?draw=1", series).json()["predictions"][0]
        assert shown["picture"].startswith("data:image/png;base64,")
        photograph = server.post("predict/ct", encoded("JPEG"))
        assert photograph.status_code == 422
        assert "not DICOM but a JPEG picture" in photograph.json()["error"]
        assert str(unpacked) not in photograph.text
        assert "Meyer" not in server.log.read_text()
        assert "Meyer" not in got.text
    assert not list(unpacked.glob("zooft*"))
