"""Models that timm has saved, in a folder or on its hub: built and filled as timm does it, recorded without the folder's path."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from commands import command
from example_data import write_classes
from timm.models import save_for_hf

from zooft.errors import ModelError, UnknownNameError, WeightsError
from zooft.model.backbone import load_backbone
from zooft.model.names import full_name
from zooft_timm import sources, zoo, zooft_register_families

(FAMILY,) = zooft_register_families()
REPOSITORY = "somebody/a-model"


def save(folder: Path, name: str = "test_resnet", **settings: Any) -> Path:
    """A model with random weights and seven classes, with a description of its own, as timm writes it."""
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=7, **settings)
    module.pretrained_cfg = {**module.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "crop_pct": 0.8, "license": "mit"}
    save_for_hf(module, folder, safe_serialization=True)
    return folder


def keep(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, where the hub's library keeps what it has downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    stored = cache / f"models--{REPOSITORY.replace('/', '--')}"
    save(stored / "snapshots" / "0123456789abcdef0123456789abcdef01234567")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0123456789abcdef0123456789abcdef01234567")


def unreachable(requested: list[str]) -> Any:
    def call_plugin(url: str, **_: object) -> object:
        requested.append(url)
        raise OSError("[Errno -2] Name or service not known")

    return call_plugin


@pytest.mark.parametrize(
    ("name", "settings"), [("test_resnet", {}), ("test_vit", {"img_size": 96}), ("test_convnext", {})]
)
def test_features_of_a_folder_are_timms_own(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    typed = f"local-dir:{save(tmp_path / 'saved', name, **settings)}"
    plain = timm.create_model(typed, pretrained=True, num_classes=0).eval()
    file = sources.weights_file(typed)
    backbone = load_backbone(FAMILY, typed, weights=str(file), sources=())
    spec = backbone.input
    x = torch.randn(2, 3, spec.height, spec.width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = plain(x)
        torch.testing.assert_close(backbone.module.eval()(x), expected, rtol=1e-5, atol=1e-5)
    assert float(expected.std()) > 0
    config = timm.data.resolve_model_data_config(plain)
    assert (list(spec.mean), (3, spec.height, spec.width)) == ([0.1, 0.2, 0.3], tuple(config["input_size"]))
    assert spec.resize == int(spec.height / 0.8)


def test_the_name_of_a_folders_model_has_no_path_and_is_enough_to_build_it(tmp_path: Path) -> None:
    full = zoo.canonical(f"local-dir:{save(tmp_path / 'secret')}")
    shutil.rmtree(tmp_path / "secret")
    assert str(tmp_path) not in full
    assert zoo.canonical(full) == full
    assert zoo.build(full).num_classes == 7
    assert zoo.build(full).pretrained_cfg["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_a_run_from_a_folder_is_evaluated_and_exported_without_it_and_names_no_path(tmp_path: Path) -> None:
    saved, data, run = save(tmp_path / "secret-place"), tmp_path / "data", tmp_path / "run"
    write_classes(data, {"dark": 6, "light": 6})
    command(
        "finetune",
        "--backbone",
        f"timm:local-dir:{saved}",
        "--task",
        "classification",
        "--data",
        data,
        "--out",
        run,
        "--epochs",
        1,
        "--bootstrap",
        0,
        "--no-audit",
        "--device",
        "cpu",
        "--workers",
        0,
    )
    shutil.rmtree(saved)
    record = json.loads((run / "run.json").read_text())
    assert record["backbone"]["name"].startswith("test_resnet?")
    assert (record["weights"]["kind"], len(record["weights"]["file_sha256"])) == ("file", 64)
    command("evaluate", run, "--device", "cpu")
    command("export", run)
    named = [path.name for path in run.rglob("*") if path.is_file() and b"secret-place" in path.read_bytes()]
    assert named == []


def test_the_hubs_models_come_from_its_download_folder_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, monkeypatch)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_a, **_k: pytest.fail("the hub was asked"))
    full = full_name(FAMILY, f"hf-hub:{REPOSITORY}")
    assert zoo.at_hand(full)
    assert full_name(FAMILY, full) == full
    backbone = load_backbone(FAMILY, full, weights="pretrained", sources=())
    assert (backbone.weights.source, backbone.weights.licence) == (f"hf-hub:{REPOSITORY}", "mit")
    plain = timm.create_model("test_resnet", num_classes=0).eval()
    tensors = {n: t for n, t in backbone.module.state_dict().items() if n in plain.state_dict()}
    plain.load_state_dict(tensors, strict=True)
    torch.manual_seed(0)
    expected = timm.create_model("test_resnet", num_classes=7).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors.items())


def test_without_a_network_the_hub_is_queried_once_and_the_way_out_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[str] = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable(requested))
    with pytest.raises(WeightsError, match=r"somebody/a-model can't be taken .*not known.*timm:local-dir:FOLDER"):
        full_name(FAMILY, f"hf-hub:{REPOSITORY}")
    assert len(requested) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "has no config.json"),
        ("{", "isn't a configuration of timm's"),
        ("[]", "isn't a configuration of timm's"),
        ('{"architecture": "resnet1802", "pretrained_cfg": {}}', "the architecture 'resnet1802', which this timm doesn't have"),
        ('{"architecture": "resnet18", "pretrained_cfg": {}, "model_args": {"checkpoint_path": "/x"}}', "gives checkpoint_path"),
    ],
)  # fmt: skip # a table of cases
def test_a_folder_that_timm_has_not_written_says_what_is_wrong(content: str | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        full_name(FAMILY, f"local-dir:{tmp_path}")


def test_a_folder_without_weights_or_none_at_all_says_so(tmp_path: Path) -> None:
    folder = save(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="has no weights"):
        sources.weights_file(f"local-dir:{folder}")
    with pytest.raises(ModelError, match="isn't a folder"):
        full_name(FAMILY, f"local-dir:{tmp_path / 'no'}")


class Evil:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("ran",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    file = sources.weights_file(f"local-dir:{folder}")
    with pytest.raises(WeightsError, match="isn't a checkpoint of plain tensors"):
        load_backbone(FAMILY, f"local-dir:{folder}", weights=str(file), sources=())
    assert "ran" not in capfd.readouterr().out


@pytest.mark.parametrize(
    "name", ["no_such?", "resnet18?crop_pct=", "resnet18?evil=1", 'resnet18?model_args={"checkpoint_path":"x"}']
)
def test_a_full_name_that_zooft_has_not_made_is_refused(name: str) -> None:
    with pytest.raises((UnknownNameError, ModelError), match=r"resnet18|no_such"):
        full_name(FAMILY, name)
