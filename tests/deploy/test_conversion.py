"""Whether a model can be exported is known before it is trained; attention that the exporter can't write as one is written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from example_data import write_classes
from torch import Tensor, nn

import zooft
import zooft.pipeline.reporter
import zooft_images
import zooft_standard
from zooft.deploy import conversion
from zooft.errors import ExportError
from zooft.hooks import registry
from zooft.hooks.loading import PluginInfo, Plugins, new_manager

SIZE = (2, 6, 8)
EXAMPLE = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))


class Attending(nn.Module):
    """Attention over any axes and with any wish, as hiera has it over five."""

    def __init__(self, *front: int, **wishes: Any) -> None:
        super().__init__()
        self.front, self.wishes = front, wishes
        self.into = nn.Linear(8, 3 * 8)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.reshape(-1, *self.front, 6, 4) for part in self.into(x).chunk(3, dim=-1))
        return F.scaled_dot_product_attention(query, key, value, **self.wishes).flatten(1).mean(1, keepdim=True)


class Undecided(nn.Module):
    """Goes one way or the other by what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1) if float(x.sum()) > 0 else x.amax(1)


class Dropping(nn.Module):
    """Drops in evaluation mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x.mean(1), 0.5, training=True)


def answer_of_the_file(model: nn.Module, folder: Path, x: Tensor, notes: list[str]) -> Any:
    proto = conversion.convert(
        model.eval(), [EXAMPLE], inputs=["x"], outputs=["y"], axes=[{0: "batch"}], note=notes.append
    )
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"]).run(
        ["y"], {"x": x.numpy()}
    )[0]


@pytest.mark.parametrize("front", [(1, 1, 2), (2,), ()], ids=str)
def test_attention_over_other_axes_than_the_exporter_takes_is_written_out(
    front: tuple[int, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Attending(*front)
    x = torch.randn(5, *SIZE[1:])
    with torch.inference_mode():
        expected = model(x).numpy()
    np.testing.assert_allclose(answer_of_the_file(model, tmp_path, x, []), expected, atol=1e-6)


@pytest.mark.parametrize(
    "wishes",
    [{}, {"is_causal": True}, {"scale": 0.1}, {"attn_mask": torch.eye(6).bool()}, {"attn_mask": torch.eye(6)}],
    ids=str,
)
def test_attention_written_out_is_torchs_own(wishes: dict[str, Any]) -> None:
    parts = [torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    with conversion._WritingOut(everything=True) as writing:
        found = F.scaled_dot_product_attention(*parts, **wishes)
    assert writing.left == 0
    torch.testing.assert_close(found, F.scaled_dot_product_attention(*parts, **wishes))


def test_queries_in_groups_are_written_out_too() -> None:
    query, key, value = (torch.randn(2, heads, 6, 4) for heads in (6, 2, 2))
    with conversion._WritingOut(everything=True):
        found = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(query, key, value, enable_gqa=True))


def test_where_the_exporter_refuses_attention_it_is_written_out_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.onnx.export

    def refusing(model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        before = fused.count
        model(EXAMPLE)
        if fused.count > before:
            raise RuntimeError("no such attention")
        return real(model, *args, **kwargs)

    class Counting(torch.overrides.TorchFunctionMode):
        count = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += func is F.scaled_dot_product_attention
            return func(*args, **(kwargs or {}))

    monkeypatch.setattr("torch.onnx.export", refusing)
    torch.manual_seed(0)
    model, notes = Attending(2).eval(), list[str]()
    with Counting() as fused:
        found = answer_of_the_file(model, tmp_path, EXAMPLE, notes)
    np.testing.assert_allclose(found, model(EXAMPLE).detach().numpy(), atol=1e-6)
    assert len(notes) == 1
    assert "attention is written out" in notes[0]


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        (nn.Sequential(nn.Linear(8, 4), nn.LayerNorm(4), nn.GELU(), nn.Dropout(0.5), nn.Flatten()), True),
        (nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv2d(1, 4, 1), nn.GroupNorm(2, 4), nn.Upsample((3, 5))), True),
        (Attending(2), True),
        (Attending(1, 1, 2), True),
        (Attending(2, is_causal=True), False),
        (nn.GRU(8, 4, batch_first=True), False),
    ],
    ids=str,
)
def test_plain_operations_are_only_traced(model: nn.Module, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(conversion, "convert", lambda *_args, **_kwargs: tried.append(1))
    conversion.try_out(model, EXAMPLE, axes={0: "batch"})
    assert bool(tried) is not plain


@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_was_tried_is_as_before(training: bool) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)).train(training)
    model[0].eval()
    before, drawn = {name: t.clone() for name, t in model.state_dict().items()}, torch.get_rng_state()
    assert conversion.try_out(model, EXAMPLE, axes={0: "batch"}) is None
    assert [model.training, model[0].training, model[1].training] == [training, False, training]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


def test_what_fails_says_in_one_sentence_why(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError) as caught:
        conversion.try_out(Undecided(), EXAMPLE, axes={0: "batch"})
    assert "can't export this backbone" in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


class Named(nn.Module):
    """A network whose only output has a name, as an adapted one's."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(x)}


def test_what_drops_for_ever_is_found_before_training() -> None:
    from zooft.deploy import export

    with pytest.raises(ExportError, match=r"training-time operators: .*nothing was trained"):
        export.try_out(Named(Dropping()), EXAMPLE, axes={0: "batch"})


class Choosy:
    """A plugin with a family whose models look at what they are given to choose their way."""

    @zooft.hookimpl
    def zooft_register_families(self) -> list[zooft.Family]:
        spec = zooft.InputSpec(height=16, width=16, resize=16, mean=(0.5,) * 3, std=(0.5,) * 3)
        stages = {"all": zooft.Stage(("0", "1", "2"))}
        return [
            zooft.Family(
                name="choosy",
                summary="",
                models=lambda: ["net"],
                build=lambda _name: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(2), Undecided2(), nn.Linear(4, 5)),
                anatomy=lambda _name, _module: zooft.Anatomy(stages=stages, classifier=("3",), input=spec),
            )
        ]


class Undecided2(nn.Module):
    """As `Undecided`, over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2) if float(x.sum()) > 0 else x.amax(2)


@pytest.mark.parametrize("export", [True, False])
def test_a_backbone_that_cannot_be_exported_fails_before_it_is_trained_unless_export_is_off(
    export: bool, tmp_path: Path
) -> None:
    manager = new_manager()
    plugins = {"standard": zooft_standard, "images": zooft_images, "choosy": Choosy()}
    for name, plugin in plugins.items():
        manager.register(plugin, name=name)
    infos = tuple(PluginInfo(name=name, distribution=name, version="1") for name in plugins)
    messages: list[str] = []

    class Listening(zooft.pipeline.reporter.LoggingReporter):
        def epoch(self, *_: Any) -> None:
            messages.append("an epoch")

    def run() -> None:
        zooft.finetune(
            registry=registry.load(Plugins(manager, infos)),
            reporter=Listening(),
            backbone="choosy:net",
            task="classification",
            data=write_classes(tmp_path / "data", {"dark": 5, "light": 5}),
            out=tmp_path / "run",
            weights="random",
            epochs=1,
            bootstrap=0,
            export=export,
            report=False,
            audit=False,
            device="cpu",
            workers=0,
            cache=False,
        )

    if export:
        with pytest.raises(
            ExportError, match=r"can't export this backbone: .*; nothing was trained: --no-export trains it"
        ):
            run()
    else:
        run()
    assert messages == ([] if export else ["an epoch"])
