"""Signatures that minisign's own library wrote: the right one holds, and no other."""

from __future__ import annotations

import builtins
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import command
from test_runtime import METADATA, changed_metadata, mean_colour, written

from zooft import runtime
from zooft.deploy import signature
from zooft.errors import ConfigError, VerificationError


@pytest.fixture
def minisign() -> Any:
    return pytest.importorskip("minisign", reason="pip install 'zooft[sign]' for signatures")


def signed(minisign: Any, folder: Path) -> tuple[Path, Path, Path]:
    """A file whose metadata names its tensors, its signature, and the key."""
    model = written(folder, changed_metadata(weights_sha256=runtime.tensors_sha256(mean_colour())))
    return (model, *sign(minisign, model))


def sign(minisign: Any, model: Path, **more: Any) -> tuple[Path, Path]:
    pair = minisign.KeyPair.generate()
    given, key = model.with_name("model.onnx.minisig"), model.with_name("key.pub")
    given.write_bytes(bytes(pair.secret_key.sign(model.read_bytes(), trusted_comment="release 3", **more)))
    key.write_bytes(bytes(pair.public_key))
    return given, key


@pytest.mark.parametrize("prehash", [True, False])
def test_a_right_signature_holds_in_both_forms(minisign: Any, tmp_path: Path, prehash: bool) -> None:
    model = written(tmp_path)
    given, key = sign(minisign, model, prehash=prehash)
    assert signature.check(model, given, key) == "release 3"


def test_minisign_s_program_agrees(minisign: Any, tmp_path: Path) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("no minisign on the PATH")
    model, given, key = signed(minisign, tmp_path)
    subprocess.run(["minisign", "-V", "-q", "-p", key, "-m", model, "-x", given], check=True)


@pytest.mark.usefixtures("minisign")
@pytest.mark.parametrize("prehashed", [True, False])
def test_what_minisign_s_program_has_signed_holds(tmp_path: Path, prehashed: bool) -> None:
    if shutil.which("minisign") is None:
        pytest.skip("no minisign on the PATH")
    model, key, secret = written(tmp_path), tmp_path / "key.pub", tmp_path / "key.sec"
    subprocess.run(["minisign", "-G", "-W", "-p", key, "-s", secret], check=True, capture_output=True)
    form = () if prehashed else ("-l",)
    words = ["minisign", "-S", *form, "-s", secret, "-m", model, "-x", tmp_path / "x.minisig", "-t", "release 5"]
    subprocess.run(words, check=True, capture_output=True)
    assert signature.check(model, tmp_path / "x.minisig", key) == "release 5"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(VerificationError, match="isn't the signature of"):
        signature.check(model, tmp_path / "x.minisig", key)


@pytest.mark.parametrize("defect", ["file", "comment", "key"])
def test_a_changed_file_comment_or_key_is_refused(minisign: Any, tmp_path: Path, defect: str) -> None:
    model, given, key = signed(minisign, tmp_path)
    if defect == "file":
        model.write_bytes(model.read_bytes() + b"\0")
    elif defect == "comment":
        given.write_bytes(given.read_bytes().replace(b"release 3", b"release 4"))
    else:
        key.write_bytes(bytes(minisign.KeyPair.generate().public_key))
    with pytest.raises(VerificationError, match="isn't the signature of"):
        signature.check(model, given, key)
    assert "isn't the signature of" in command("verify", model, "--signature", given, "--key", key, status=1).stderr


@pytest.mark.parametrize("torn", ["signature", "key", "missing"])
def test_what_is_no_signature_or_key_is_said(minisign: Any, tmp_path: Path, torn: str) -> None:
    model, given, key = signed(minisign, tmp_path)
    if torn == "missing":
        key.unlink()
    else:
        (given if torn == "signature" else key).write_text("hello")
    with pytest.raises(ConfigError, match="as minisign writes them"):
        signature.check(model, given, key)


def test_without_run_and_data_signature_and_tensors_are_verified(minisign: Any, tmp_path: Path) -> None:
    model, given, key = signed(minisign, tmp_path)
    found = json.loads(command("verify", model, "--signature", given, "--key", key, "--json").stdout)
    assert found == {
        "signature": "valid",
        "trusted_comment": "release 3",
        "weights_sha256": runtime.file_tensors_sha256(model),
    }
    assert "what it answers wasn't verified" in command("verify", model, "--signature", given, "--key", key).stdout
    written(tmp_path)  # whose metadata names other tensors
    given, key = sign(minisign, model)
    assert METADATA.weights_sha256[:12] in command("verify", model, "--signature", given, "--key", key, status=1).stderr


def test_one_option_alone_is_refused(tmp_path: Path) -> None:
    done = command("verify", written(tmp_path), "--signature", tmp_path / "x", status=2)
    assert "--signature and --key belong together" in done.stderr


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def blocked(name: str, *more: Any, **others: Any) -> Any:
        if name == "minisign":
            raise ModuleNotFoundError("No module named 'minisign'", name=name)
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(ConfigError, match=r"zooft\[sign\]"):
        signature.check(tmp_path / "a", tmp_path / "b", tmp_path / "c")
