"""Where pretrained tensors come from: a file, a prepared folder, a plugin, the zoo; in this order.

Owns reading weight files safely (nothing is unpickled but tensors), the order of places, and the record that
a run records. Random weights come only when chosen by name.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts import LoadedWeights, WeightsRecord
from zooft.errors import NoWeightsError, PluginError, WeightsError, ZooftError
from zooft.hooks.guard import call_plugin, place_of
from zooft.model.checkpoint_names import own_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from zooft.contracts import Family, WeightsSource

logger = logging.getLogger("zooft")
FOLDER_VARIABLE = "ZOOFT_WEIGHTS"
_NESTED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "ema_model_state_dict"),
    *("params_ema", "state_dict", "model", "model_state_dict", "module", "net", "network", "params"),
)
"""Where trainers put tensors in their checkpoints.

Where there are averaged ones beside the others, they count, as for timm.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundWeights:
    """Tensors under the zoo's names, and what the run records; no tensors for random weights."""

    tensors: Mapping[str, Tensor] | None
    record: WeightsRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Every place that is tried in turn for one model's pretrained weights."""

    family: Family
    model: str
    sources: Sequence[WeightsSource]
    folder: Path | None


def find(choice: str, places: Places, expected: Mapping[str, tuple[int, ...]]) -> FoundWeights:
    """The weights that `choice` names: ``pretrained``, ``random`` or a file.

    Args:
        choice: as typed by the user.
        places: what is tried for ``pretrained``.
        expected: the model's tensor names to shapes, for sources that convert.

    Raises:
        WeightsError: names what was tried and what to do without a network.
    """
    if choice == "random":
        record = WeightsRecord(kind="random", source="random", licence=None, file_sha256=None, tensors_sha256="")
        return FoundWeights(tensors=None, record=record)
    if choice != "pretrained":
        return _as_found("file", _fit(read_file(Path(choice)), expected))
    return _find_pretrained(places, expected)


def folder_from_environment() -> Path | None:
    """The folder that ``ZOOFT_WEIGHTS`` names, if any.

    Raises:
        WeightsError: it isn't there.
    """
    value = os.environ.get(FOLDER_VARIABLE)
    if value and not Path(value).is_dir():
        raise WeightsError(f"{FOLDER_VARIABLE} names {value}, which isn't a folder; fix or unset it")
    return Path(value) if value else None


def path_in(folder: Path, family: str, model: str) -> Path:
    """Where `zooft weights fetch` puts a model and training finds it."""
    return folder / family / f"{model.replace('/', '--')}.safetensors"


def at_hand(places: Places) -> str | None:
    """Which place has the weights without a network: folder, a plugin's name, zoo; None if none has."""
    reference = f"{places.family.name}:{places.model}"
    if places.folder is not None and path_in(places.folder, places.family.name, places.model).is_file():
        return "folder"
    for source in places.sources:
        if reference in _list_served(source):
            return source.name
    return "zoo" if call_plugin(places.family, "at_hand", places.model) else None


def origin(places: Places, found: FoundWeights) -> str:
    """Where weights come from, in words; of a plugin's with the place where they can be fixed."""
    reference = f"{places.family.name}:{places.model}"
    place = ""
    if found.record.kind == "plugin":
        source = next(source for source in places.sources if reference in _list_served(source))
        place = f" {place_of(source, 'load').words}"
    elif found.record.kind == "zoo":
        place = f" {place_of(places.family, 'pretrained').words}"
    return found.record.source + place


def read_file(path: Path) -> LoadedWeights:
    """Tensors from a .safetensors file or a PyTorch checkpoint, which is never unpickled beyond tensors.

    Raises:
        WeightsError: no such file, not a weights file, or one that would run code.
    """
    if not path.is_file():
        raise WeightsError(
            f"there is no weights file {path}; --weights takes pretrained, random, or a .safetensors or .pth file"
        )
    tensors, details = _read_safetensors(path) if path.suffix.lower() == ".safetensors" else _read_torch(path)
    return LoadedWeights(
        tensors=tensors,
        source=details.get("source", path.name),
        licence=details.get("licence"),
        file_sha256=file_sha256(path),
    )


def write_file(path: Path, weights: LoadedWeights) -> None:
    """Write weights as .safetensors with their source and licence, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    details = {"source": weights.source, "licence": weights.licence or ""}
    try:
        partial.touch()
        mode = partial.stat().st_mode  # as the user's umask has it; safetensors would let only the owner read it
        save_file({name: t.clone().contiguous() for name, t in weights.tensors.items()}, partial, metadata=details)
        partial.chmod(mode)
        partial.replace(path)
    except SafetensorError as error:
        raise _system_error(error, path) from error
    finally:
        partial.unlink(missing_ok=True)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_pretrained(places: Places, expected: Mapping[str, tuple[int, ...]]) -> FoundWeights:
    tried: list[str] = []
    reference = f"{places.family.name}:{places.model}"
    if places.folder is not None:
        path = path_in(places.folder, places.family.name, places.model)
        if path.is_file():
            return _as_found("folder", _fit(read_file(path), expected))
        tried.append(f"{FOLDER_VARIABLE} has no {path.relative_to(places.folder)}")
    for source in places.sources:
        if reference in _list_served(source):
            return _as_found("plugin", _ask(source, reference, expected))
        tried.append(f"{source.name} doesn't serve it")
    if places.family.pretrained is None:
        tried.append(f"{places.family.name} has no weights of its own")
        raise _nowhere(reference, tried, fetched=False)
    try:
        found = call_plugin(places.family, "pretrained", places.model)
    except PluginError as error:  # offline it fails in a different way for each hub
        if error.__cause__ is None:
            raise
        tried.append(f"{places.family.name}'s own download failed: {_first_line(error.__cause__)}")
        raise _nowhere(reference, tried) from error.__cause__
    except NoWeightsError as error:
        raise _nowhere(reference, [*tried, str(error)], fetched=False) from error
    except ZooftError as error:
        tried.append(f"{places.family.name}'s own download failed: {_first_line(error)}")
        raise _nowhere(reference, tried) from error
    return _as_found("zoo", found)


def check_any(places: Places) -> None:
    """Raise WeightsError where nobody can have a model's pretrained weights, before any work is done."""
    if places.family.pretrained is None and at_hand(places) is None:
        _find_pretrained(places, {})


def _list_served(source: WeightsSource) -> frozenset[str]:
    """What a source serves: nothing where it fails, since other sources may still serve."""
    try:
        return frozenset(call_plugin(source, "models"))
    except PluginError as error:
        logger.warning("%s", error)
        return frozenset()


def _nowhere(reference: str, tried: list[str], *, fetched: bool = True) -> WeightsError:
    text = f"no pretrained weights for {reference}; tried: {'; '.join(tried)}.\n"
    if not fetched:
        return WeightsError(text + "Give --weights FILE or --weights random")
    return WeightsError(
        f"{text}Without a network: run 'zooft weights fetch {reference} --to DIR' where there is one, bring DIR here "
        f"and set {FOLDER_VARIABLE}=DIR; or give --weights FILE or --weights random"
    )


def _ask(source: WeightsSource, reference: str, expected: Mapping[str, tuple[int, ...]]) -> LoadedWeights:
    found: LoadedWeights = call_plugin(source, "load", reference, expected, doing=f"to load {reference}")
    return found


def _fit(weights: LoadedWeights, expected: Mapping[str, tuple[int, ...]]) -> LoadedWeights:
    """Under the model's names; a prefix taken off the file's is recorded with their source."""
    own = own_names(weights.tensors, expected)
    if not own.taken_off:
        return weights
    tensors = {name: weights.tensors[written] for written, name in own.names.items()}
    return replace(
        weights, tensors=tensors, source=f"{weights.source} (without {' and '.join(own.taken_off)} in its names)"
    )


def _as_found(kind: Any, weights: LoadedWeights) -> FoundWeights:
    record = WeightsRecord(
        kind=kind,
        source=weights.source,
        licence=weights.licence,
        file_sha256=weights.file_sha256,
        tensors_sha256=tensors_sha256(weights.tensors),
    )
    return FoundWeights(tensors=weights.tensors, record=record)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 -- no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} isn't a readable safetensors file: {_first_line(error)}") from error


def _read_torch(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    import torch

    try:
        with warnings.catch_warnings():
            # torch warns of old pickle protocols; whether the tensors fit is checked afterwards
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or torn file fails in many ways inside torch
        raise WeightsError(
            f"{path} isn't a checkpoint of plain tensors, the only kind that is safe to open "
            f"({type(error).__name__}); convert it to .safetensors where it was made"
        ) from error
    within: list[str] = []
    while isinstance(content, dict) and (key := _nest(content)):
        within.append(key)
        content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} holds {type(content).__name__}, not a mapping of names to tensors")
    averaged = [key for key in within if "ema" in key.split("_")]
    details = {"source": f"{path.name} (its averaged weights, {averaged[0]})"} if averaged else {}
    return {str(name): tensor for name, tensor in content.items()}, details


def _nest(content: Mapping[Any, Any]) -> str | None:
    """The key under which a checkpoint holds a mapping of its own for tensors, if any."""
    return next((key for key in _NESTED if isinstance(content.get(key), dict)), None)


def _system_error(error: Exception, path: Path) -> OSError:
    """A full disk should look like one: safetensors puts the system's error number into words."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def _bytes(tensor: Tensor) -> bytes:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
