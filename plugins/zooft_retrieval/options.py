"""The task's options."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import zooft

IDENTITY_COLUMN = "identity"
MISSING = (
    "--task retrieval learns with pytorch-metric-learning, which isn't installed: pip install 'zooft[retrieval]' "
    "(files that were exported are used without it)"
)


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """Flags of metric learning."""

    augment: Literal["none", "light", "medium"] = zooft.option(
        "none", "random views in training; none lets frozen stages be computed once"
    )
    identity_column: str = zooft.option(
        IDENTITY_COLUMN, "manifest column with who or what is shown [default: identity, else label]"
    )
    embedding_size: int = zooft.option(512, "numbers of an embedding")
    retrieval_loss: Literal["arcface", "multi-similarity"] = zooft.option(
        "arcface", "arcface learns a centre for each identity, multi-similarity from pairs"
    )
    far: float = zooft.option(
        0.0, "share of pairs of others that may count as the same, which sets the threshold [default: Youden's]"
    )

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 2 <= self.embedding_size <= 8192:
            raise zooft.ConfigError(f"embedding-size is {self.embedding_size}, expected 2 to 8192")
        if not 0 <= self.far < 1:
            raise zooft.ConfigError(f"far is {self.far:g}, expected a share from 0 (Youden's threshold) to below 1")


def check(_options: RetrievalOptions) -> None:
    """Raise ConfigError where what training needs isn't installed."""
    if find_spec("pytorch_metric_learning") is None:
        raise zooft.ConfigError(MISSING)
