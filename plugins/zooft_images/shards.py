"""One WebDataset shard: which pictures lie in it, each one's metadata, and their bytes.

A shard is an uncompressed tar file. Members of one key are one sample: ``KEY.jpg`` with ``KEY.cls`` or ``KEY.json``,
where the key is the name up to the first dot of its last part. Only headers and labels are read to list a shard.
Nothing is unpacked and nothing unpickled: names serve as ids, bytes go to Pillow.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zooft
from zooft_images.file_kinds import what_is
from zooft_images.names import PICTURES, hidden_part, kind_of_hidden, looks_like_picture, why_hidden
from zooft_images.options import LABEL_COLUMN

MOST_BYTES = 512 * 2**20
"""Of a picture's file, which is held in memory while it is decoded; 100 million RGBA pixels uncompressed fit."""
_MOST_HEADER = 16 * 2**10
"""Bytes of one header, extensions included. Paths end at 4 KiB; tarfile takes time in the square of a header's size."""
_MOST_LABEL = {"cls": 4 * 2**10, "json": 2**20}
_LONGEST_LABEL = 200
_PADDING = 2**20
"""Bytes of zeros that may follow the end mark; tar pads to 10 KiB, or to what was set."""
_OTHERS_NAMED, _JSON_KEYS_NAMED = 4, 100
LABEL_KEYS = ("label", "cls")
_DOTTED = "several dots: WebDataset's key ends at the first one, so this isn't KEY.jpg; write another character instead"
_COMPRESSIONS = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\0": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unzstd"),
}


@dataclass(frozen=True, slots=True)
class Shard:
    """A tar file as it was when it was listed: where, bytes, and nanoseconds of its last change."""

    path: str
    size: int
    changed: int


@dataclass(frozen=True, slots=True)
class Member:
    """A picture's place in a shard, in bytes."""

    shard: Shard
    offset: int
    size: int

    def open(self) -> io.BytesIO:
        """The picture's file, in memory.

        Raises:
            DataError: the shard is gone, or isn't what it was when it was listed; the message is the reason alone.
        """
        name = Path(self.shard.path).name
        try:
            with Path(self.shard.path).open("rb") as file:
                now = os.fstat(file.fileno())
                if (now.st_size, now.st_mtime_ns) != (self.shard.size, self.shard.changed):
                    raise zooft.DataError(f"{name} has changed since the data was listed; start again to list it anew")
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise zooft.DataError(f"{name} can't be read: {error.strerror}") from error
        if len(content) < self.size:
            raise zooft.DataError(f"{name} ends inside it")
        return io.BytesIO(content)


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture of a shard and its metadata.

    Attributes:
        name: of the member, printable.
        member: its bytes.
        labels: from ``KEY.cls`` and ``KEY.json``, at least one.
        group: from ``KEY.json``.
    """

    name: str
    member: Member
    labels: tuple[str, ...]
    group: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a shard holds.

    Attributes:
        entries: pictures with labels, in the order of the shard.
        rejected: names of members, empty for the shard itself, and reasons.
        unused: how many members of other kinds there are, by extension.
        hidden: how many members are hidden, or made by systems, by name.
        json_keys: of all ``KEY.json`` together.
    """

    entries: Sequence[Entry]
    rejected: Sequence[tuple[str, str]]
    unused: Mapping[str, int]
    hidden: Mapping[str, int]
    json_keys: frozenset[str]


def scan(path: Path, *, group_column: str, label_column: str = LABEL_COLUMN) -> Contents:
    """List a shard; damage ends the list and is reported in `Contents.rejected`.

    Args:
        path: of the shard.
        group_column: key of ``KEY.json`` that names the group.
        label_column: key of ``KEY.json`` that names the class; where it isn't the usual one, ``KEY.cls`` isn't read.

    Raises:
        DataError: it is compressed, so that nothing in it can be reached without unpacking what lies before.
    """
    seen = _Seen(group_column, label_column)
    damage = ""
    try:
        with path.open("rb") as file:
            _refuse_compressed(path, file.read(8))
            file.seek(0)
            about = os.fstat(file.fileno())
            shard = Shard(str(path), about.st_size, about.st_mtime_ns)
            damage = _read(file, shard, seen)
    except OSError as error:
        damage = f"can't be read: {error.strerror}"
    entries = [*seen.entries()]
    if damage:
        used = f"; the {len(entries):,} pictures before that are used" if entries else ""
        seen.rejected.append(("", damage + used))
    return Contents(
        entries=entries,
        rejected=seen.rejected,
        unused=dict(seen.unused),
        hidden=dict(seen.hidden),
        json_keys=frozenset(seen.json_keys),
    )


def printable(name: str) -> str:
    """A name without characters that steer a terminal, or that no file of a run can hold."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


# the archive


def _refuse_compressed(path: Path, start: bytes) -> None:
    for magic, (name, remedy) in _COMPRESSIONS.items():
        if start.startswith(magic):
            raise zooft.DataError(
                f"{path} is compressed with {name}: a picture in it can't be reached without unpacking all before it. "
                f"Pictures are compressed already; unpack the shard once ({remedy} {path.name}) and name it .tar"
            )


def _read(file: BinaryIO, shard: Shard, seen: _Seen) -> str:
    """Call `seen` with every member; what is damaged, in words, or nothing."""
    try:
        for info in _infos(file):
            if info.offset_data + info.size > shard.size:
                return f"ends inside {printable(info.name)}: it was cut off"
            seen.member(info, shard, file)
    except zooft.DataError as error:
        return str(error)
    except Exception as error:  # a hostile or torn file fails in any way inside the standard library's parser
        return f"isn't a whole tar file: {printable(str(error)) or type(error).__name__}"
    return ""


def _infos(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Headers, one after the other, none of them stored."""
    tar = tarfile.TarFile(fileobj=_Headers(file), mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]  # it reads, seeks and tells
    reached = -1
    while (info := tar.next()) is not None:
        if info.size < 0 or tar.offset <= reached:
            raise zooft.DataError(f"isn't a whole tar file: the header of {printable(info.name)} leads backwards")
        reached = tar.offset
        tar.members.clear()  # type: ignore[attr-defined]  # it would store all of them, 1 KiB each
        yield info
    _check_end(file, tar.offset)


@dataclass(frozen=True, slots=True)
class _Headers:
    """What tarfile may read of a shard: no more at once than a sane header has, whatever a hostile one claims."""

    file: BinaryIO

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise zooft.DataError(f"has a header of {size:,} bytes, at byte {self.file.tell():,}, which none needs")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def _check_end(file: BinaryIO, offset: int) -> None:
    """Refuse what the parser would leave out: it takes whatever isn't a header for the end."""
    file.seek(offset)
    rest = file.read(_PADDING + 1)
    if not rest:
        raise zooft.DataError("has no end mark: it may have been cut off between two members")
    if len(rest) > _PADDING or rest.strip(b"\0"):
        raise zooft.DataError(
            f"has more behind its end, from byte {offset:,} on: damaged, or several tar files in one (join them with "
            "tar --concatenate)"
        )


# members


@dataclass(slots=True)
class _Sample:
    """What was seen of a key so far."""

    picture: Member | None = None
    extension: str = ""
    labels: tuple[str, ...] = ()
    group: str | None = None
    others: tuple[str, ...] = ()
    dotted: list[str] | None = None
    problem: str = ""


@dataclass(slots=True)
class _Seen:
    """Members by key. They need not lie side by side: some tar programs sort by kind."""

    group_column: str
    label_column: str
    samples: dict[str, _Sample] = field(default_factory=dict)
    rejected: list[tuple[str, str]] = field(default_factory=list)
    unused: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)
    json_keys: set[str] = field(default_factory=set)
    shared: dict[str, str] = field(default_factory=dict)

    @property
    def label_keys(self) -> tuple[str, ...]:
        """Of ``KEY.json``."""
        return LABEL_KEYS if self.label_column == LABEL_COLUMN else (self.label_column,)

    @property
    def label_files(self) -> tuple[str, ...]:
        """Extensions of the members that hold a label."""
        return tuple(_MOST_LABEL) if self.label_column == LABEL_COLUMN else ("json",)

    def member(self, info: tarfile.TarInfo, shard: Shard, file: BinaryIO) -> None:
        """One more."""
        name = info.name.removeprefix("./")
        if info.isdir():
            return
        if part := hidden_part(name):
            kind = printable(kind_of_hidden(part))
            self.hidden[kind] += 1
            if looks_like_picture(name):
                self.rejected.append((printable(name), why_hidden(part)))
            return
        if not info.isreg() or info.issparse():
            self.rejected.append((printable(name), _odd(info)))
            return
        key, extension = _key(name)
        sample = self.samples.setdefault(key, _Sample())
        if extension in PICTURES:
            _add_picture(sample, extension, Member(shard, info.offset_data, info.size))
        elif extension in self.label_files:
            self._add_label(sample, extension, info, file)
        else:
            if extension.rpartition(".")[2] in PICTURES:
                sample.dotted = sample.dotted or []
                sample.dotted.append(printable(name))
            extension = self._share(printable(extension))
            self.unused[extension] += 1
            if len(sample.others) < _OTHERS_NAMED:
                sample.others = (*sample.others, extension)

    def entries(self) -> Iterator[Entry]:
        """Pictures that have a label.

        All others are rejected, or counted where they are neither pictures nor labels.
        """
        for key, sample in self.samples.items():
            if sample.dotted and not sample.picture:
                self.rejected += [(name, _DOTTED) for name in sample.dotted]
                continue
            name = printable(f"{key}.{sample.extension}" if sample.picture else key)
            reason = sample.problem or _missing(sample, self.label_files, self.label_keys)
            if reason:
                self.rejected.append((name, reason))
            elif sample.picture:
                yield Entry(name, sample.picture, sample.labels, sample.group)
            else:
                self.unused.update(extension for extension in sample.others if extension in self.label_files)

    def _add_label(self, sample: _Sample, extension: str, info: tarfile.TarInfo, file: BinaryIO) -> None:
        if extension in sample.others:
            sample.problem = f"has .{extension} twice"
            return
        sample.others = (*sample.others, self._share(extension))
        if info.size > _MOST_LABEL[extension]:
            sample.problem = f".{extension} has {info.size:,} bytes, too many for a label"
            return
        file.seek(info.offset_data)
        content = file.read(info.size)
        try:
            label, group = (_cls(content), None) if extension == "cls" else self._json(content)
        except zooft.DataError as error:
            sample.problem = sample.problem or f".{extension} {error}"
            return
        if label is not None:
            sample.labels = (*sample.labels, self._share(label))
        if group is not None:
            sample.group = self._share(group)

    def _json(self, content: bytes) -> tuple[str | None, str | None]:
        """Label and group, None where they aren't given."""
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise zooft.DataError(f"isn't JSON: {printable(str(error))}") from None
        if not isinstance(values, dict):
            raise zooft.DataError("isn't a JSON object")
        if len(self.json_keys) < _JSON_KEYS_NAMED:
            self.json_keys.update(printable(key) for key in values)
        self.json_keys.update(key for key in (self.group_column, self.label_column) if key in values)
        labels = {_text(values[key], key) for key in self.label_keys if values.get(key) is not None}
        if len(labels) > 1:
            raise zooft.DataError(f"has a label and a cls that differ: {' and '.join(sorted(labels))}")
        group = values.get(self.group_column)
        return next(iter(labels), None), None if group in (None, "") else _text(group, self.group_column)

    def _share(self, text: str) -> str:
        """One object for equal texts: there are many samples and few labels."""
        return self.shared.setdefault(text, text)


def _add_picture(sample: _Sample, extension: str, member: Member) -> None:
    if sample.picture:
        both = {f".{sample.extension}", f".{extension}"}
        sample.problem = "has several pictures: " + (
            " and ".join(sorted(both)) if len(both) > 1 else f"{both.pop()} twice"
        )
    elif member.size > MOST_BYTES:
        sample.problem = f"has {member.size:,} bytes, above {MOST_BYTES:,}"
    sample.picture, sample.extension = member, extension


def _missing(sample: _Sample, files: Sequence[str], keys: Sequence[str]) -> str:
    """Why a key isn't a sample; nothing for keys that have neither a picture nor a label.

    Args:
        sample: what was seen of it.
        files: extensions of members that hold a label.
        keys: of those that are JSON.
    """
    having = ", ".join(f".{extension}" for extension in sample.others) or "nothing else"
    if sample.picture and not sample.labels:
        wanted = "neither a .cls nor a .json" if "cls" in files else "no .json"
        return f"no label: {wanted} with {' or '.join(keys)} is beside it ({having})"
    if sample.labels and not sample.picture:
        for kind in filter(None, (what_is(b"?", f"x.{extension}") for extension in sample.others)):
            return kind
        return f"a label without a picture ({having})"
    return ""


def _key(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the last part; all that follows is the extension."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _odd(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link, which isn't followed; put the picture itself into the shard"
    if info.issparse():
        return "stored with holes (sparse); write the shard without --sparse"
    return "neither a file nor a folder"


def _cls(content: bytes) -> str:
    try:
        return _text(content.decode("utf-8"), "the label")
    except UnicodeDecodeError:
        raise zooft.DataError("isn't a text in UTF-8") from None


def _text(value: Any, what: str) -> str:
    """A label or a group as text.

    Raises:
        DataError: it is something else, empty, or too long.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise zooft.DataError(f"has {what} as {type(value).__name__}, not as a whole number or a text")
    text = str(value).strip()
    if not text or len(text) > _LONGEST_LABEL or not text.isprintable():
        raise zooft.DataError(f"has {what} empty, above {_LONGEST_LABEL} characters, or of several lines")
    return text
