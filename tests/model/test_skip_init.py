"""Models that are built to be filled: nothing is drawn that is overwritten, and nothing else is left out."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from zooft.model.skip_init import skip_init


class Fixed(nn.Module):
    """Projects by random numbers that it doesn't save."""

    projection: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("projection", torch.empty(3, 3).normal_(), persistent=False)


class Picky(nn.Module):
    """Refuses weights that aren't drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.uniform_(torch.empty(3)))
        if not bool(self.weight.any()):
            raise ValueError("weights are all the same")


MODELS = {
    "timm ViT": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=5),
    "timm EfficientNet": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=5),
    "torchvision ResNet": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision Swin": lambda: torchvision.models.swin_t(num_classes=5),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_filled_blank_answers_as_the_model_that_it_is_filled_from(name: str) -> None:
    torch.manual_seed(0)
    drawn = MODELS[name]().eval()
    before = torch.get_rng_state()
    made = skip_init(MODELS[name]).eval()
    made.load_state_dict(drawn.state_dict(), strict=True)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(made(x), drawn(x))
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_random_and_not_saved_is_drawn() -> None:
    torch.manual_seed(0)
    expected = Fixed()
    torch.manual_seed(0)
    made = skip_init(Fixed)
    assert isinstance(made, Fixed)
    assert torch.equal(made.projection, expected.projection)


def test_a_model_that_looks_at_its_values_gets_some() -> None:
    made = skip_init(Picky)
    assert made.get_parameter("weight").any()


def test_what_isnt_drawn_is_zero() -> None:
    made = skip_init(lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.Conv2d(3, 2, 1)))
    assert not made[1].weight.any()
    assert made[1].weight.requires_grad


def test_what_a_build_says_of_proper_values_is_reported() -> None:
    def build() -> nn.Module:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        skip_init(build)
