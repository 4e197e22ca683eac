"""Whether a file is the one that somebody signed: minisign's detached signatures, checked by its author's library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zooft import runtime
from zooft.errors import ConfigError, VerificationError

if TYPE_CHECKING:
    from pathlib import Path


def check_tensors(file: Path) -> str:
    """SHA-256 of a file's tensors, those in its second file too, which must be the one in its metadata.

    Raises:
        VerificationError: it is another one.
    """
    actual, stated = runtime.file_tensors_sha256(file), runtime.read_metadata(file).weights_sha256
    if actual != stated:
        raise VerificationError(
            f"the tensors of {file} aren't those that its metadata names: their SHA-256 is {actual[:12]}…, the named "
            f"one {stated[:12]}…; export it again"
        )
    return actual


def check(file: Path, signature: Path, key: Path) -> str:
    """The signature's trusted comment, where the signature is of this file by this key.

    Args:
        file: that was signed, as it is.
        signature: ``.minisig``, as ``minisign -S`` writes it.
        key: ``.pub``, the signer's public key, got on another way than the file.

    Raises:
        ConfigError: py-minisign isn't installed, or signature or key can't be read.
        VerificationError: the signature isn't of this file, or isn't by this key.
    """
    try:
        import minisign  # whose errors are ValueErrors
    except ImportError as error:
        raise ConfigError("signatures are checked by py-minisign: pip install 'zooft[sign]'") from error
    try:
        given, public = minisign.Signature.from_file(signature), minisign.PublicKey.from_file(key)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{signature} and {key} must be a signature and a public key as minisign writes them: {error}"
        ) from error
    try:
        public.verify_file(file, given)
    except ValueError as error:
        raise VerificationError(
            f"{signature} isn't the signature of {file} by the key {key}: the file was changed after it was signed, or "
            "somebody else signed it; don't use it"
        ) from error
    return str(given.trusted_comment)
