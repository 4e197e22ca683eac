"""timm models that somebody has saved: ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER``, timm's own words.

Owns their full names, by which anybody can build them: the architecture, and what the saved model's ``config.json``
sets otherwise than timm itself for the architecture, as ``architecture?key=JSON&key=JSON``. No name has a path of this
machine in it. Of a model of the hub the name has the repository, where its weights come from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zooft

HUB, FOLDER = "hf-hub:", "local-dir:"
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""As timm searches for them, the first that there is."""
_KEYS = (
    "input_size",
    "fixed_input_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "mean",
    "std",
    "num_classes",
    "pool_size",
    "first_conv",
    "classifier",
)
"""Of a saved configuration, what decides how the model is built and what it wants to see."""
_ARGUMENTS, _REPOSITORY = "model_args", "hub"
_NOT_OF_A_MODEL = frozenset(
    """
    pretrained pretrained_cfg pretrained_cfg_overlay pretrained_model_args checkpoint_path cache_dir
    scriptable exportable no_jit features_only out_indices device dtype
    """.split()  # noqa: SIM905  -- quotes around each make them no clearer
)
"""Arguments of timm's factory that a file may not give.

They load other files, or make something else than the model.
"""


def is_saved(name: str) -> bool:
    """Whether a name, as it is typed or in full, is of a saved model."""
    return name.startswith((HUB, "hf_hub:", FOLDER)) or "?" in name


def full_name(name: str) -> str:
    """The name by which anybody can build it; a full one stays as it is.

    Raises:
        ModelError: what it names isn't a model that timm has saved.
        WeightsError: the hub can't be reached.
    """
    if name.startswith(FOLDER):
        return _name(_read(_folder(name)), what=f"{name}/{_CONFIG}")
    if not name.startswith((HUB, "hf_hub:")):
        architecture, _ = _parse(name)
        _refuse_unknown(architecture, what=name)
        return name
    repository = name.partition(":")[2]
    return _name({**_read(snapshot(repository)), _REPOSITORY: repository}, what=f"{_CONFIG} of {repository}")


def weights_file(name: str) -> Path | None:
    """Of a model in a folder of this machine.

    Raises:
        WeightsError: the folder has none.
    """
    if not name.startswith(FOLDER):
        return None
    folder = _folder(name)
    found = next((folder / file for file in _WEIGHTS if (folder / file).is_file()), None)
    if found is None:
        raise zooft.WeightsError(f"{folder} has no weights; timm saves them as {_WEIGHTS[0]} or {_WEIGHTS[1]}")
    return found


def arguments(name: str) -> tuple[str, dict[str, Any]]:
    """The architecture of a full name, and what timm's ``create_model`` is given with it."""
    architecture, changes = _parse(name)
    overlay = {
        key: tuple(value) if isinstance(value, list) else value for key, value in changes.items() if key in _KEYS
    }
    return architecture, {**changes.get(_ARGUMENTS, {}), "pretrained_cfg_overlay": overlay}


def repository(name: str) -> str | None:
    """The hub's repository in a full name, OWNER/NAME or OWNER/NAME@REVISION; None where there is none."""
    found: str | None = _parse(name)[1].get(_REPOSITORY) if "?" in name else None
    return found


def snapshot(repository: str, *, offline: bool = False) -> Path:
    """The folder that the hub's library stores a repository in, downloaded if need be and allowed.

    Raises:
        WeightsError: it isn't there and can't be downloaded.
    """
    from huggingface_hub import snapshot_download

    owner, _, revision = repository.partition("@")
    arguments: dict[str, Any] = {"repo_id": owner, "revision": revision or None, "allow_patterns": [_CONFIG, *_WEIGHTS]}
    try:
        folder = Path(snapshot_download(**arguments, local_files_only=True))
        if (folder / _CONFIG).is_file() and any((folder / file).is_file() for file in _WEIGHTS):
            return folder
        reason = "it is stored in part"
    except Exception as error:  # of several kinds, by the library's version and whether anything is stored
        reason = _first_line(error)
    if not offline:
        _refuse_unreachable(owner, revision)
        try:
            return Path(snapshot_download(**arguments))
        except Exception as error:  # the same
            reason = _first_line(error)
    raise zooft.WeightsError(f"{repository} can't be taken from the hub ({reason}); {_ADVICE}")


_ADVICE = (
    "check the name, which is OWNER/NAME; without a network, bring a folder with its config.json and "
    "model.safetensors here and give timm:local-dir:FOLDER"
)


def _refuse_unreachable(owner: str, revision: str) -> None:
    """Ask the hub once: without a network its library would retry each file."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        get_hf_file_metadata(hf_hub_url(owner, _CONFIG, revision=revision or None), timeout=10)
    except HfHubHTTPError:
        return  # it answers: what it has is the download's to find out
    except Exception as error:  # httpx or requests, by the hub's version; or a name that can't be one
        raise zooft.WeightsError(f"{owner} can't be taken from the hub ({_first_line(error)}); {_ADVICE}") from error


def _folder(name: str) -> Path:
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    if not (folder / _CONFIG).is_file():
        what = "has no config.json" if folder.is_dir() else "isn't a folder"
        raise zooft.ModelError(
            f"{folder} {what}; {FOLDER}FOLDER takes what timm.models.save_for_hf writes, config.json and "
            "model.safetensors"
        )
    return folder


def _read(folder: Path) -> dict[str, Any]:
    """Architecture, arguments and description out of a configuration, as timm reads it."""
    from timm.models._hub import load_model_config_from_path  # timm's factory has it from there too

    try:
        description, architecture, given = load_model_config_from_path(folder)
        return {"architecture": str(architecture), _ARGUMENTS: dict(given or {}), **dict(description)}
    except Exception as error:  # whatever somebody has written into it
        raise zooft.ModelError(
            f"{folder / _CONFIG} isn't a configuration of timm's: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _name(saved: dict[str, Any], *, what: str) -> str:
    """The full name: timm's own values are left out."""
    from timm.models import get_pretrained_cfg

    architecture = saved["architecture"]
    _refuse_unknown(architecture, what=what)
    foreign = sorted(_NOT_OF_A_MODEL & saved[_ARGUMENTS].keys())
    if foreign:
        raise zooft.ModelError(f"{what} gives {', '.join(foreign)}, which a file may not; take it out of {_ARGUMENTS}")
    own = get_pretrained_cfg(architecture).to_dict() if get_pretrained_cfg(architecture) else {}
    changes = {key: saved[key] for key in _KEYS if key in saved and _plain(saved[key]) != _plain(own.get(key))}
    for key in (_ARGUMENTS, _REPOSITORY):
        changes |= {key: saved[key]} if saved.get(key) else {}
    query = "&".join(
        f"{key}={_escape(json.dumps(value, separators=(',', ':')))}" for key, value in sorted(changes.items())
    )
    return f"{architecture}?{query}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("&", "%26")


def _parse(name: str) -> tuple[str, dict[str, Any]]:
    """Raise KeyError where it isn't a full name."""
    architecture, _, query = name.partition("?")
    pairs = [part.partition("=") for part in query.split("&") if part]
    try:
        changes = {key: json.loads(value.replace("%26", "&").replace("%25", "%")) for key, _, value in pairs}
    except ValueError as error:
        raise KeyError(name) from error
    if not changes.keys() <= {*_KEYS, _ARGUMENTS, _REPOSITORY} or _NOT_OF_A_MODEL & {*changes.get(_ARGUMENTS, {})}:
        raise KeyError(name)
    return architecture, changes


def _refuse_unknown(architecture: str, *, what: str) -> None:
    from timm.models import is_model

    if not is_model(architecture) or "." in architecture:
        raise zooft.ModelError(f"{what} names the architecture {architecture!r}, which this timm doesn't have")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
