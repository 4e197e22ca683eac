"""What the network sees of an image in training, and how mistakes are weighed; checked with numpy and scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torchvision.transforms import v2

import zooft
from zooft.features import SampleDataset
from zooft_images import views
from zooft_images.options import ClassificationOptions, channels

LEVELS = ["light", "medium"]
RGB = zooft.InputSpec(height=20, width=28, resize=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), mode="stretch")
BICUBIC = zooft.InputSpec(height=24, width=24, resize=28, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
GREY = zooft.InputSpec(height=20, width=20, resize=20, mean=(0.45,), std=(0.22,))


def view_of(spec: zooft.InputSpec, augment: Any, colour: Any = "rgb") -> Callable[[NDArray[Any]], torch.Tensor]:
    """A view's levels, brought to scale as the core does it for a batch."""
    made = views.augment(spec, ClassificationOptions(augment=augment, colour=colour))
    assert made is not None
    sample = zooft.Sample(id="x", source=None, target=0)
    preprocess = zooft.ImagePreprocess(spec)

    def view(image: NDArray[Any]) -> torch.Tensor:
        levels = made(image)
        assert levels.dtype == torch.uint8
        fed = SampleDataset(
            [sample],
            read=lambda _sample: (image,),
            preprocess=preprocess,
            augment=lambda _image: levels,
            scale=preprocess.normalise_,
        )
        return fed.at(0)[0][0]

    return view


def seen(view: Callable[[NDArray[Any]], torch.Tensor], image: NDArray[Any], seed: int) -> torch.Tensor:
    """The view of an image under one seed, without disturbing anybody else's random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return view(image)


def test_none_leaves_the_plain_view() -> None:
    assert views.augment(RGB, ClassificationOptions(augment="none")) is None


@pytest.mark.parametrize("augment", LEVELS)
@pytest.mark.parametrize("spec", [RGB, BICUBIC])
@pytest.mark.parametrize("size", [(64, 48), (1, 1), (1, 300), (300, 2)])
def test_views_have_the_networks_size_and_scale(augment: str, spec: zooft.InputSpec, size: tuple[int, int]) -> None:
    image = example_data.picture(128, size=size)
    for seed in range(5):
        view = seen(view_of(spec, augment), image, seed)
        assert view.dtype == torch.float32
        assert view.shape == (3, spec.height, spec.width)
        levels = view * torch.tensor(spec.std)[:, None, None] + torch.tensor(spec.mean)[:, None, None]
        assert -1e-5 <= float(levels.min()) <= float(levels.max()) <= 1 + 1e-5


@pytest.mark.parametrize("augment", LEVELS)
def test_grey_views_have_one_channel(augment: str) -> None:
    image = example_data.picture(128, size=(50, 40))[:, :, :1]
    for seed in range(20):
        assert seen(view_of(GREY, augment, "grey"), image, seed).shape == (1, 20, 20)


@pytest.mark.parametrize("augment", LEVELS)
def test_views_are_decided_by_the_seed(augment: str) -> None:
    view, image = view_of(RGB, augment), example_data.picture(128, size=(64, 48))
    assert torch.equal(seen(view, image, 3), seen(view, image, 3))
    assert len({seen(view, image, seed).numpy().tobytes() for seed in range(10)}) > 5


@pytest.mark.parametrize("augment", LEVELS)
@pytest.mark.parametrize("spec", [RGB, BICUBIC])
def test_views_are_those_of_torchvisions_transforms(augment: str, spec: zooft.InputSpec) -> None:
    steps: list[nn.Module] = [
        v2.RandomResizedCrop(
            (spec.height, spec.width),
            scale=(0.6 if augment == "light" else 0.25, 1.0),
            interpolation=v2.InterpolationMode(spec.interpolation),
        ),
        v2.RandomHorizontalFlip(),
    ]
    if augment == "medium":
        steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
    usual, image = v2.Compose(steps), example_data.picture(128, size=(64, 48))
    for seed in range(30):
        required = seen(lambda array: usual(torch.from_numpy(array).permute(2, 0, 1)), image, seed)
        torch.testing.assert_close(seen(view_of(spec, augment), image, seed), required, rtol=0, atol=1e-5)


def test_light_moves_and_crops_but_keeps_levels() -> None:
    """One colour everywhere stays that colour: (level / 255 - mean) / std."""
    level = np.array([10, 128, 250], dtype=np.uint8)
    image = np.broadcast_to(level, (40, 60, 3)).copy()
    expected = (level / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    for seed in range(10):
        view = seen(view_of(RGB, "light"), image, seed).numpy()
        np.testing.assert_allclose(view, np.broadcast_to(expected[:, None, None], view.shape), atol=1e-5)


def test_medium_changes_levels_too() -> None:
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    plain = (100 / 255 - np.array(RGB.mean)) / np.array(RGB.std)
    pictures = [seen(view_of(RGB, "medium"), image, seed).numpy() for seed in range(20)]
    assert any(np.abs(picture - plain[:, None, None]).max() > 0.1 for picture in pictures)


def test_the_image_itself_is_not_changed() -> None:
    image = example_data.picture(128)
    before = image.copy()
    for seed in range(10):
        seen(view_of(RGB, "medium"), image, seed)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("targets", [[0, 0, 0, 1], [2, 0, 1, 1, 0, 0, 2, 0], [0] * 97 + [1, 1, 2]])
def test_balanced_weights_are_scikit_learns(targets: list[int]) -> None:
    loss = views.loss(targets, ClassificationOptions(class_weights="balanced"))
    assert isinstance(loss, nn.CrossEntropyLoss)
    assert loss.weight is not None
    truth = compute_class_weight("balanced", classes=np.unique(targets), y=targets)
    np.testing.assert_allclose(loss.weight.numpy(), truth, rtol=1e-6)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_is_scikit_learns_log_loss(class_weights: Any) -> None:
    targets = [0, 2, 1, 0, 0, 1]
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    weights = compute_class_weight("balanced", classes=np.arange(3), y=targets)[targets]
    truth = log_loss(
        targets, logits.double().softmax(1).numpy(), sample_weight=None if class_weights == "none" else weights
    )
    loss = views.loss(targets, ClassificationOptions(class_weights=class_weights))
    assert float(loss(logits, torch.tensor(targets))) == pytest.approx(truth, rel=1e-5)


def test_balanced_weights_without_samples_of_a_class_are_refused_in_words() -> None:
    with pytest.raises(zooft.DataError, match="class number 2 has none"):
        views.loss([0, 0, 2], ClassificationOptions(class_weights="balanced"))


def test_the_deployed_input_is_rgb_or_one_grey_channel() -> None:
    rgb, grey = (views.port(ClassificationOptions(colour=colour)) for colour in ("rgb", "grey"))
    assert (rgb.axes, rgb.dtype) == (("batch", "height", "width", 3), "uint8")
    assert (grey.axes, grey.dtype) == (("batch", "height", "width", 1), "uint8")
    assert "grey" in grey.meaning
    assert [channels(ClassificationOptions(colour=colour)) for colour in ("rgb", "grey")] == [3, 1]


def test_a_grey_run_with_augmentation_and_balanced_weights_goes_through(tmp_path: Path) -> None:
    folder = example_data.write_classes(tmp_path / "data", {"dark": 12, "light": 6})
    result = zooft.finetune(
        backbone="timm:test_resnet.r160_in1k",
        task="classification",
        data=folder,
        out=tmp_path / "run",
        weights="random",
        freeze="none",
        epochs=1,
        bootstrap=0,
        export=False,
        device="cpu",
        augment="medium",
        colour="grey",
        class_weights="balanced",
    )
    assert result.evaluations["val"].samples == 4
