"""Where pretrained tensors come from, in which order, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zooft import Anatomy, Family, InputSpec, LoadedWeights, Stage, WeightsError, WeightsSource
from zooft.errors import PluginError
from zooft.hooks.loading import Plugins
from zooft.hooks.registry import Entry, Registry
from zooft.model import weights as weight_files
from zooft.model.backbone import Backbone, load_backbone
from zooft.model.zoo import fetch_weights

SPEC = InputSpec(height=16, width=16, resize=18, mean=(0.5,) * 3, std=(0.5,) * 3)


class Net(nn.Module):
    """A zoo's model in small: convolution, BatchNorm, classifier of ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc: nn.Module = nn.Linear(4, 10)

    def features(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.norm(self.conv(x)).relu().mean((2, 3))
        return mapped

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def anatomy(_name: str, _module: nn.Module) -> Anatomy:
    stages = {"all": Stage(("conv", "norm"), lambda m, x: m.features(x))}
    return Anatomy(stages=stages, classifier=("fc",), input=SPEC, first_convolution="conv")


def tensors_of(value: float) -> dict[str, Tensor]:
    """Tensors that fit a Net, each floating one filled with `value`."""
    return {n: torch.full_like(t, value) if t.is_floating_point() else t for n, t in Net().state_dict().items()}


def loaded(value: float, source: str) -> LoadedWeights:
    return LoadedWeights(tensors=tensors_of(value), source=source, licence="MIT")


def family(**changes: Any) -> Family:
    """A zoo of one model whose own weights are all 4."""
    values: dict[str, Any] = {
        "name": "toy",
        "summary": "",
        "models": lambda: ["net"],
        "build": lambda _name: Net(),
        "anatomy": anatomy,
        "pretrained": lambda _name: loaded(4.0, "the zoo"),
    }
    return Family(**{**values, **changes})


SOURCE = WeightsSource(
    name="parcel", summary="", models=lambda: ["toy:net"], load=lambda _model, _expected: loaded(3.0, "parcel 1.0")
)


def load(
    weights: str = "pretrained", *, sources: tuple[WeightsSource, ...] = (), zoo: Family | None = None
) -> Backbone:
    return load_backbone(zoo or family(), "net", weights=weights, sources=sources)


def filled_with(backbone: Backbone) -> float:
    return float(backbone.module.state_dict()["conv.weight"].flatten()[0])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def no_folder_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOOFT_WEIGHTS", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prepared folder whose weights are all 2, named by ZOOFT_WEIGHTS."""
    weight_files.write_file(tmp_path / "toy" / "net.safetensors", loaded(2.0, "the hub"))
    monkeypatch.setenv("ZOOFT_WEIGHTS", str(tmp_path))
    return tmp_path


def test_a_file_comes_before_everything_else(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(tensors_of(1.0), path)
    backbone = load(str(path), sources=(SOURCE,))
    assert filled_with(backbone) == 1.0
    assert (backbone.weights.kind, backbone.weights.source) == ("file", "mine.safetensors")
    assert backbone.weights.file_sha256 == sha256_of(path)


def test_the_prepared_folder_comes_before_plugins_and_the_zoo(folder: Path) -> None:
    backbone = load(sources=(SOURCE,))
    assert filled_with(backbone) == 2.0
    assert (backbone.weights.kind, backbone.weights.source, backbone.weights.licence) == ("folder", "the hub", "MIT")
    assert backbone.weights.file_sha256 == sha256_of(folder / "toy" / "net.safetensors")


def test_a_weights_plugin_comes_before_the_zoo() -> None:
    backbone = load(sources=(SOURCE,))
    assert filled_with(backbone) == 3.0
    assert (backbone.weights.kind, backbone.weights.source) == ("plugin", "parcel 1.0")


def test_the_zoo_comes_last_and_a_plugin_without_the_model_is_passed_over() -> None:
    elsewhere = WeightsSource(name="elsewhere", summary="", models=lambda: ["toy:other"], load=SOURCE.load)
    backbone = load(sources=(elsewhere,))
    assert filled_with(backbone) == 4.0
    assert (backbone.weights.kind, backbone.weights.source, backbone.weights.licence) == ("zoo", "the zoo", "MIT")


def test_random_weights_come_only_when_requested_by_name(folder: Path) -> None:
    backbone = load("random", sources=(SOURCE,))
    assert backbone.weights.kind == "random"
    assert backbone.weights.file_sha256 is None
    assert filled_with(backbone) not in {1.0, 2.0, 3.0, 4.0}


def test_the_hash_of_the_tensors_depends_on_values_names_types_and_shapes_but_not_on_order() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(2)}
    others: list[dict[str, Tensor]] = [
        {**base, "a": torch.zeros(3, 2)},
        {**base, "a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": base["a"], "c": base["b"]},
        {**base, "b": torch.tensor([1.0, 1.0000001])},
    ]
    expected = weight_files.tensors_sha256(base)
    assert weight_files.tensors_sha256(dict(reversed(base.items()))) == expected
    assert len({expected, *map(weight_files.tensors_sha256, others)}) == 1 + len(others)


def test_the_run_records_the_hash_of_what_was_loaded() -> None:
    assert load().weights.tensors_sha256 == weight_files.tensors_sha256(tensors_of(4.0))


def test_missing_foreign_and_misshapen_tensors_are_all_listed(tmp_path: Path) -> None:
    given = tensors_of(1.0)
    del given["norm.bias"]
    given["extra.weight"] = torch.zeros(1)
    given["conv.weight"] = torch.zeros(4, 3, 5, 5)
    save_file(given, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError) as caught:
        load(str(tmp_path / "odd.safetensors"))
    message = str(caught.value)
    assert "odd.safetensors" in message
    assert "1 missing: norm.bias" in message
    assert "1 not in the model: extra.weight" in message
    assert "conv.weight is (4, 3, 5, 5) instead of (4, 3, 3, 3)" in message


def test_a_classifier_for_another_number_of_classes_is_no_fault(tmp_path: Path) -> None:
    given = {**tensors_of(1.0), "fc.weight": torch.zeros(21, 4), "fc.bias": torch.zeros(21)}
    save_file(given, tmp_path / "other.safetensors")
    assert filled_with(load(str(tmp_path / "other.safetensors"))) == 1.0


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_tensors_nested_in_a_checkpoint_are_found(tmp_path: Path, key: str) -> None:
    torch.save({key: tensors_of(1.0), "epoch": 7}, tmp_path / "nested.pth")
    assert filled_with(load(str(tmp_path / "nested.pth"))) == 1.0


def test_names_that_data_parallel_training_wrote_are_understood(tmp_path: Path) -> None:
    torch.save({"state_dict": {f"module.{n}": t for n, t in tensors_of(1.0).items()}}, tmp_path / "parallel.pth")
    assert filled_with(load(str(tmp_path / "parallel.pth"))) == 1.0


def averaged(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torch's own averaging writes it."""
    model = Net()
    model.load_state_dict(tensors)
    return torch.optim.swa_utils.AveragedModel(model).state_dict()


def compiled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torch.compile writes it; nothing is compiled until it runs."""
    model = Net()
    model.load_state_dict(tensors)
    wrapped: Any = torch.compile(model)
    return dict(wrapped.state_dict())


def parallel(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As data parallel training writes it."""
    model = Net()
    model.load_state_dict(tensors)
    return nn.DataParallel(model).state_dict()


def lightning(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {"state_dict": {f"model.{n}": t for n, t in tensors.items()}, "epoch": 3, "pytorch-lightning_version": "2.5"}


@pytest.mark.parametrize(("write", "messages"), [
    (compiled, "_orig_mod."), (averaged, "module. and n_averaged"), (parallel, "module."), (lightning, "model."),
    (lambda tensors: lightning(compiled(tensors)), "_orig_mod. and model."),
])  # fmt: skip # a table of cases
@pytest.mark.parametrize("name", ["w.pth", "w.ckpt", "w.safetensors", "W.SAFETENSORS"])
def test_checkpoints_as_others_write_them_are_loaded_and_what_was_taken_off_is_reported(
    tmp_path: Path, write: Any, messages: str, name: str
) -> None:
    content = write(tensors_of(1.0))
    if name.lower().endswith(".safetensors"):
        save_file(content.get("state_dict", content), tmp_path / name)
    else:
        torch.save(content, tmp_path / name)
    backbone = load(str(tmp_path / name))
    assert filled_with(backbone) == 1.0
    assert backbone.weights.source == f"{name} (without {messages} in its names)"


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema"])
def test_averaged_weights_beside_the_others_count_and_it_is_reported(tmp_path: Path, key: str) -> None:
    torch.save({"state_dict": tensors_of(2.0), key: tensors_of(1.0)}, tmp_path / "both.pth")
    backbone = load(str(tmp_path / "both.pth"))
    assert filled_with(backbone) == 1.0
    assert backbone.weights.source == f"both.pth (its averaged weights, {key})"


def test_names_with_two_beginnings_are_refused_by_their_beginnings(tmp_path: Path) -> None:
    given = {**{f"model.{n}": t for n, t in tensors_of(1.0).items()}, "criterion.weight": torch.ones(10)}
    torch.save({"state_dict": given}, tmp_path / "two.ckpt")
    with pytest.raises(
        WeightsError, match=r"none of its names is the model's: they begin with model \(9\), criterion \(1\)"
    ):
        load(str(tmp_path / "two.ckpt"))


def test_a_prefix_is_not_taken_off_where_a_tensor_is_missing_behind_it(tmp_path: Path) -> None:
    given = {f"model.{n}": t for n, t in tensors_of(1.0).items() if n != "norm.bias"}
    torch.save(given, tmp_path / "less.pth")
    with pytest.raises(WeightsError, match=r"1 missing: norm\.bias"):
        load(str(tmp_path / "less.pth"))


class _Touch:
    """Unpickled without care, this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("container", ["zip", "pickle"])
def test_a_checkpoint_that_would_run_code_is_refused_unexecuted(tmp_path: Path, container: str) -> None:
    witness, path = tmp_path / "executed", tmp_path / "evil.pth"
    content = {"state_dict": tensors_of(1.0), "extra": _Touch(witness)}
    if container == "zip":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(_Touch(witness)))
    with pytest.raises(WeightsError, match=r"evil\.pth isn't a checkpoint of plain tensors"):
        load(str(path))
    assert not witness.exists()


@pytest.mark.parametrize("name", ["torn.safetensors", "torn.pth"])
def test_a_torn_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x10\x00\x00\x00 not weights")
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        load(str(tmp_path / name))


def test_a_file_that_is_not_there_is_named_with_what_could_be_given(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file .*gone\.pth; --weights takes pretrained, random, or"):
        load(str(tmp_path / "gone.pth"))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth holds list, not a mapping"):
        load(str(tmp_path / "list.pth"))


def refuse_to_download(_name: str) -> LoadedWeights:
    raise OSError("Name or service not known")


def test_a_failed_download_says_what_was_tried_and_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOOFT_WEIGHTS", str(tmp_path))
    elsewhere = WeightsSource(name="elsewhere", summary="", models=list, load=SOURCE.load)
    with pytest.raises(WeightsError) as caught:
        load(sources=(elsewhere,), zoo=family(pretrained=refuse_to_download))
    message = str(caught.value)
    assert message.startswith("no pretrained weights for toy:net; tried: ")
    assert "ZOOFT_WEIGHTS has no toy/net.safetensors" in message
    assert "elsewhere doesn't serve it" in message
    assert "download failed: OSError: Name or service not known" in message
    for way_on in ("zooft weights fetch toy:net --to DIR", "ZOOFT_WEIGHTS=DIR", "--weights FILE", "--weights random"):
        assert way_on in message
    assert str(tmp_path) not in message


def test_a_zoo_without_weights_of_its_own_says_so() -> None:
    with pytest.raises(WeightsError, match="toy has no weights of its own"):
        load(zoo=family(pretrained=None))


def test_of_a_model_that_its_zoo_has_no_weights_of_nobody_is_sent_to_fetch_some() -> None:
    from zooft.hooks import registry

    known = registry.load()
    with pytest.raises(
        WeightsError, match=r"timm has no weights of coatnet_pico_rw_224\S*\nGive --weights FILE or --weights random"
    ) as caught:
        load_backbone(known.family("timm"), "coatnet_pico_rw_224", weights="pretrained", sources=())
    assert "fetch" not in str(caught.value)


def test_a_weights_plugin_that_fails_is_named_and_nothing_else_is_used_instead() -> None:
    def fail(_model: str, _expected: Any) -> LoadedWeights:
        raise RuntimeError("its file is gone")

    broken = WeightsSource(name="broken", summary="", models=lambda: ["toy:net"], load=fail)
    with pytest.raises(PluginError, match="source broken failed to load toy:net: RuntimeError: its file is gone"):
        load(sources=(broken,))


def registry_of(zoo: Family) -> Registry:
    owner: Any = None
    return Registry(
        plugins=Plugins.__new__(Plugins),
        families=(Entry(zoo, owner),),
        heads=(),
        freezers=(),
        tasks=(),
        weights=(),
        sources=(),
        problems={},
    )


def test_fetched_weights_serve_a_machine_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, record = fetch_weights(registry_of(family()), "toy:net", tmp_path)
    assert record.kind == "zoo"
    monkeypatch.setenv("ZOOFT_WEIGHTS", str(tmp_path))
    backbone = load(zoo=family(pretrained=refuse_to_download))
    assert filled_with(backbone) == 4.0
    assert backbone.weights.tensors_sha256 == record.tensors_sha256
    assert (backbone.weights.source, backbone.weights.licence) == ("the zoo", "MIT")
    assert sorted(load_file(path)) == sorted(tensors_of(4.0))


def test_fetching_makes_one_file_for_each_full_name(tmp_path: Path) -> None:
    zoo = family(canonical=lambda name: f"{name}.tag/v1", aliases={"short": "net"})
    path, _ = fetch_weights(registry_of(zoo), "toy:short", tmp_path)
    assert path.relative_to(tmp_path) == Path("toy/net.tag--v1.safetensors")


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        fetch_weights(registry_of(family(pretrained=refuse_to_download)), "toy:net", tmp_path / "new")
    misfit = family(pretrained=lambda _name: LoadedWeights(tensors={"odd": torch.zeros(1)}, source="the zoo"))
    with pytest.raises(WeightsError):
        fetch_weights(registry_of(misfit), "toy:net", tmp_path / "new")
    assert list(tmp_path.rglob("*")) == []


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    weight_files.write_file(path, loaded(1.0, "old"))

    def half(_tensors: Any, target: Path, **_: Any) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="No space"):
        weight_files.write_file(path, loaded(2.0, "new"))
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    assert float(load_file(path)["norm.weight"][0]) == 1.0


@pytest.mark.parametrize(("prepared", "served", "cached", "expected"), [
    (True, True, True, "folder"), (False, True, True, "parcel"), (False, False, True, "zoo"), (False, False, False, None),
])  # fmt: skip # a table of cases
def test_weights_at_hand_are_reported_without_a_network(
    tmp_path: Path, prepared: bool, served: bool, cached: bool, expected: str | None
) -> None:
    if prepared:
        weight_files.write_file(tmp_path / "toy" / "net.safetensors", loaded(2.0, "the hub"))
    zoo = family(pretrained=refuse_to_download, at_hand=lambda _name: cached)
    sources = (SOURCE,) if served else ()
    places = weight_files.Places(family=zoo, model="net", sources=sources, folder=tmp_path)
    assert weight_files.at_hand(places) == expected
