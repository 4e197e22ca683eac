"""Every error that zooft raises on purpose.

    ZooftError
    ├── ConfigError            options that can't be used, all faults at once
    ├── UnknownNameError       no plugin registers that name
    ├── AmbiguousNameError     two plugins register that name
    ├── PluginError            plugin code failed
    ├── DataError              the data can't be used
    ├── WeightsError           no weights, or weights that don't fit
    │   └── NoWeightsError     a zoo has no pretrained weights of that model
    ├── ModelError             a backbone that breaks its contract
    ├── DamagedError           a file of the cache isn't what was written; it is computed again
    ├── RunError               a run folder that is missing, in use or unreadable
    ├── TrainingError          training can't continue
    │   ├── DivergedError      the loss is no longer finite
    │   └── FrozenChangedError a frozen tensor moved
    ├── ExportError            no ONNX file could be made
    ├── RuntimeModelError      an ONNX file that is refused or can't be read
    ├── ProviderError          the requested execution provider isn't available
    ├── VerificationError      the ONNX file predicts something else than the model did
    │   └── PruningError       a pruned model is worse than is allowed
    └── ConformanceError       a plugin breaks its contract (zooft.testing)

A message states what was wrong, what was found, and what to do next. The command line prints it and exits
with status 1 (2 for ConfigError and the name errors, which are about what was typed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class ZooftError(Exception):
    """The root of everything raised on purpose."""


class ConfigError(ZooftError):
    """Options that can't be used; the message lists all faults."""


class UnknownNameError(ZooftError):
    """Nothing is registered under a name."""

    def __init__(self, message: str, *, kind: str, name: str, near: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind, self.name, self.near = kind, name, tuple(near)


class AmbiguousNameError(ZooftError):
    """Two plugins register one name."""


class PluginError(ZooftError):
    """A plugin's own code failed, or gave something else than it should; a cause is chained.

    Attributes:
        plugin: whose it is, in words; empty where it isn't registered.
        hook: that registers what failed.
        field: of what the hook registers.
        code: file and line of the plugin, where they are known.
    """

    def __init__(self, message: str, *, plugin: str = "", hook: str = "", field: str = "", code: str = "") -> None:
        super().__init__(message)
        self.plugin, self.hook, self.field, self.code = plugin, hook, field, code


class DataError(ZooftError):
    """The data can't be used for the job."""


class WeightsError(ZooftError):
    """Weights couldn't be had, or don't fit the model."""


class NoWeightsError(WeightsError):
    """A zoo has no pretrained weights of a model: there is nothing to download, now or on another machine."""


class ModelError(ZooftError):
    """A backbone breaks the contract of its stages, classifier or width."""


class DamagedError(ZooftError):
    """A file of the cache isn't what was written."""


class RunError(ZooftError):
    """A run folder is missing, in use, incomplete or unreadable."""


class TrainingError(ZooftError):
    """Training can't continue."""


class DivergedError(TrainingError):
    """The loss is no longer finite."""


class FrozenChangedError(TrainingError):
    """A tensor of a frozen stage isn't bit-equal to what it was; carries the names."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


class ExportError(ZooftError):
    """No ONNX file could be made."""


class RuntimeModelError(ZooftError):
    """An ONNX file that is refused or that zooft can't read."""


class ProviderError(ZooftError):
    """The requested execution provider isn't available; the message names the library that is missing."""


class VerificationError(ZooftError):
    """The exported file predicts something else than the model did; carries the whole record."""

    def __init__(self, message: str, record: Any = None) -> None:
        super().__init__(message)
        self.record = record


class PruningError(VerificationError):
    """A pruned model's figure is worse than is allowed; carries the table of what was reached."""


class ConformanceError(ZooftError):
    """A plugin breaks its contract."""
