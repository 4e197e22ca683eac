"""A sample's slices to HU. Deployment reads by it too, so nothing here needs torch."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zooft
from zooft_ct import cache, nifti, pixels, privacy
from zooft_ct.header import SliceHeader

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zooft_ct.options import CTOptions

UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
"""Transfer syntaxes whose pixels are read as fast as the cache would be."""


@dataclass(frozen=True, slots=True)
class NiftiSlice:
    """One slice of a NIfTI volume, counted from the feet."""

    volume: nifti.NiftiVolume
    index: int


SliceRef = SliceHeader | NiftiSlice
_KEPT_AS = "HU along the patient's axes"
"""Part of the cache's keys; another text where the same file gives other values than before."""
_FILES_KNOWN = 2**14
"""Files whose hashes a process remembers: neighbouring samples share slices, and all slices of a volume its file."""
Place = tuple[Path, int]
"""A slice's file, and which frame or slice of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a sample's array is made of.

    Attributes:
        slices: in the order of the array; a neighbour that is missing is the slice itself once more.
        spacing: mm between rows, between columns; None where the file doesn't state it.
        number: of the middle slice in its series, from 0.
        count: slices of its series.
        thickness: mm of the patient that the middle slice stands for; 0 where that isn't known.
    """

    slices: tuple[SliceRef, ...]
    spacing: tuple[float, float] | None
    number: int = 0
    count: int = 1
    thickness: float = 0.0

    @property
    def middle(self) -> SliceRef:
        """The slice that the sample is about."""
        return self.slices[len(self.slices) // 2]

    @property
    def pixels(self) -> int:
        """Of the middle slice."""
        one = self.middle
        return one.volume.shape[1] * one.volume.shape[2] if isinstance(one, NiftiSlice) else one.rows * one.columns

    @property
    def voxel(self) -> float:
        """Mm³ of a voxel of the middle slice; NaN where that isn't known."""
        if self.spacing is None or not self.thickness:
            return math.nan
        return self.spacing[0] * self.spacing[1] * self.thickness


def read(source: Source, options: CTOptions) -> NDArray[np.int16] | tuple[NDArray[np.int16], NDArray[np.float32]]:
    """The sample ``(Z, H, W)``, int16 HU; with ``--spacing`` the mm between rows and columns ``(2,)`` float32 too.

    Raises:
        DataError: a slice can't be decoded; the message is the reason alone.
    """
    import numpy as np

    with privacy.quiet_pydicom():
        decoded = decode(source.slices, options)
    stacked = np.stack([decoded[place(ref)] for ref in source.slices])
    if not options.spacing:
        return stacked
    if source.spacing is None:
        raise zooft.DataError("its pixel spacing isn't known, so --spacing can't resample it")
    return stacked, np.array(source.spacing, dtype=np.float32)


def digest(source: Source, options: CTOptions) -> str:
    """SHA-256, hexadecimal, of the files that `read` would read and of which frames or slices; nothing is decoded.

    How the options read them isn't part of it. A file is hashed once in a process, unless it changes.

    Raises:
        DataError: a file is gone, or can't be read.
    """
    found = hashlib.sha256(repr(source.spacing).encode())
    for ref in source.slices:
        path, index = place(ref)
        found.update(f"\n{_sha256(path)} {index}".encode())
    return found.hexdigest()


def _sha256(path: Path) -> str:
    try:
        about = path.stat()
        return _sha256_of(path, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
    except OSError as error:
        raise zooft.DataError(f"its file can't be read: {error.strerror}") from None


@functools.lru_cache(maxsize=_FILES_KNOWN)
def _sha256_of(path: Path, _size: int, _written: int, _changed: int, _inode: int) -> str:
    """Of a file, by what shows a change.

    Copying tools give a file any time of writing, but none of its last change.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def decode(slices: Iterable[SliceRef], options: CTOptions) -> Mapping[Place, NDArray[np.int16]]:
    """Slices ``(H, W)`` int16 HU by their places, each decoded once; slow ones are stored in the cache.

    Touches no warning filters, so that threads may call it side by side within `privacy.quiet_pydicom`.

    Raises:
        DataError: one of them can't be decoded.
    """
    wanted = {place(ref): ref for ref in slices}
    store = cache.from_option(options.hu_cache)
    keys = {at: _key(at, options) for at, ref in wanted.items() if slow(ref)} if store else {}
    decoded = {at: hu for at, key in keys.items() if store and (hu := store.get(key)) is not None}
    fresh = _fresh([ref for at, ref in wanted.items() if at not in decoded], options)
    for at, hu in fresh.items():
        if store and at in keys:
            store.put(keys[at], hu)
    return {**decoded, **fresh}


def place(ref: SliceRef) -> Place:
    """Where a slice lies."""
    return (ref.volume.path, ref.index) if isinstance(ref, NiftiSlice) else (ref.path, ref.frame)


def slow(ref: SliceRef) -> bool:
    """Whether decoding costs more than reading the cache."""
    return ref.volume.compressed if isinstance(ref, NiftiSlice) else ref.transfer_syntax not in UNCOMPRESSED


def _key(at: Place, options: CTOptions) -> str:
    path, number = at
    return cache.key_of(_sha256(path), number, f"{_KEPT_AS}{', nan to air' if options.nan_to_air else ''}")


def _fresh(refs: Iterable[SliceRef], options: CTOptions) -> dict[Place, NDArray[np.int16]]:
    """Decoded now; a compressed volume is decompressed once for all its slices."""
    decoded: dict[Place, NDArray[np.int16]] = {}
    volumes: defaultdict[Path, list[NiftiSlice]] = defaultdict(list)
    for ref in refs:
        if isinstance(ref, NiftiSlice) and ref.volume.compressed:
            volumes[ref.volume.path].append(ref)
        elif isinstance(ref, NiftiSlice):
            decoded[place(ref)] = nifti.hu(ref.volume, ref.index, nan_to_air=options.nan_to_air)
        else:
            decoded[place(ref)] = pixels.hu(ref)
    for members in volumes.values():
        whole = nifti.whole(members[0].volume, nan_to_air=options.nan_to_air)
        decoded |= {place(ref): whole[ref.index].copy() for ref in members}
    return decoded
