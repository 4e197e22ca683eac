"""Pictures and archives of them, as clients send them, to the rows of ``zooft predict --format json``."""

from __future__ import annotations

import base64
import io
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zooft.contracts import unseen
from zooft.data import samples as sample_tables
from zooft.deploy import formats
from zooft.deploy import predict as answers
from zooft.deploy.formats import Layout
from zooft.errors import ZooftError
from zooft.serve import archives, search
from zooft.serve.limits import RequestRefused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zooft.contracts import FileAnswer, Rejection, Sample
    from zooft.deploy.predict import Answer, Input
    from zooft.serve.limits import Limits
    from zooft.serve.repository import Served

_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif", b"BM": ".bmp",
    b"\x1f\x8b": ".nii.gz",
}  # fmt: skip # a table of suffixes
_MOST_DRAWN = 12
_LONGEST = 1024
"""Pixels of the longer side of a picture that is sent back."""


@dataclass(frozen=True, slots=True)
class ReceivedFiles:
    """What a client has sent, on disk.

    Attributes:
        folder: that is deleted when the answer is made.
        left_out: what of an archive isn't data.
    """

    folder: Path
    left_out: Sequence[Rejection] = ()

    def files(self) -> list[Path]:
        """In order of their names."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def name(self, text: str) -> str:
        """A text without the folder, whose place is nobody's business."""
        return text.replace(f"{self.folder}/", "").replace(str(self.folder), ".")


@contextmanager
def receive_files(body: bytes, limits: Limits) -> Iterator[ReceivedFiles]:
    """A request's body as files: one picture, or those of a zip file.

    Raises:
        RequestRefused: the archive is refused, or a picture has too many pixels.
    """
    if not body:
        raise RequestRefused(400, "the request is empty; send a picture or a zip file of DICOM as its body")
    with tempfile.TemporaryDirectory(prefix="zooft-serve-") as top:
        folder = Path(top).resolve() / "data"
        try:
            found = _write_files(body, folder, limits)
        except OSError as error:
            reason = f"the server can't store the request: {error.strerror}; tell whoever runs it"
            raise RequestRefused(507, reason) from error
        for path in found.files():
            _check_pixels(path, limits)
        yield found


def _write_files(body: bytes, folder: Path, limits: Limits) -> ReceivedFiles:
    folder.mkdir()
    if body.startswith(archives.MAGIC):
        archive = folder.parent / "archive"
        archive.write_bytes(body)
        return ReceivedFiles(folder, archives.unpack(archive, folder, limits))
    suffix = next((end for head, end in _SUFFIXES.items() if body.startswith(head)), "")
    (folder / f"image{suffix}").write_bytes(body)
    return ReceivedFiles(folder)


def _check_pixels(path: Path, limits: Limits) -> None:
    """By the header; what Pillow doesn't know is the task's matter."""
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PIL.Image.open(path) as image:
                width, height = image.size
    except PIL.Image.DecompressionBombError:
        raise RequestRefused(413, f"a picture has more than {limits.pixels:,} pixels (--max-pixels)") from None
    except Exception:  # a hostile file fails in any way; the task reads it and gives the reason
        return
    if width * height > limits.pixels:
        raise RequestRefused(
            413, f"a picture of {width} x {height} pixels, and at most {limits.pixels:,} are taken (--max-pixels)"
        )


def predict(served: Served, body: bytes, limits: Limits, *, draw: bool, top: int) -> dict[str, Any]:
    """The same as ``zooft predict --format json`` writes, and what is nearest in the model's index, if it has one.

    Args:
        served: that answers.
        body: of the request.
        limits: of archives and pixels.
        draw: for people: entries stand by themselves, as those of JSON lines do, and have a ``picture`` too, with masks
            and boxes drawn in: a PNG as a ``data:`` address.
        top: identities of the index that each picture gets.

    Raises:
        RequestRefused: nothing could be predicted.
    """
    with receive_files(body, limits) as given:
        try:
            answer = (
                _predict_files(served, given, draw, top)
                if served.task.gather is None
                else _predict_groups(served, given, draw)
            )
        except ZooftError as error:
            raise RequestRefused(422, given.name(str(error))) from error
        if not any(
            set(row) - {"file", "patient", "samples", "missing", "decisive", "error"} for row in answer["predictions"]
        ):
            raise RequestRefused(422, given.name(_why(answer)))
        return answer


def _why(answer: dict[str, Any]) -> str:
    reasons = [row["error"] for row in answer["predictions"] if row.get("error")]
    reasons += [each["reason"] for each in answer.get("rejected", [])]
    return f"nothing could be predicted: {'; '.join(dict.fromkeys(reasons)) or 'there is nothing that the model reads'}"


def _layout(served: Served, key: str, facts: tuple[str, ...]) -> Layout:
    about, presentation = served.model.metadata, served.task.problem.presentation
    return Layout(
        key=key,
        labels=about.labels,
        presentation=presentation,
        facts=facts,
        about=presentation.about(about.labels, about.fitted),
    )


def _predict_files(served: Served, given: ReceivedFiles, draw: bool, top: int) -> dict[str, Any]:
    layout = _layout(served, "file", ())
    rows: list[Answer] = []
    more: dict[str, dict[str, Any]] = {}
    items: list[Input] = list(given.files())
    if draw or served.index is not None:
        for one in answers.draw_files(served.model, served.task, served.options, items, report=rows.append):
            more[one.key] = {} if served.index is None else {"nearest": search.nearest(served.index, one, top)}
            if draw and len(more) <= _MOST_DRAWN:
                more[one.key]["picture"] = draw_answer(served, one)
    else:
        rows += answers.of_each(served.model, served.task, served.options, items)
    entries = []
    for row in rows:
        entry = formats.as_record(layout, row, by_name=draw)
        error = {"error": given.name(entry["error"])} if "error" in entry else {}
        entries.append({**entry, "file": given.name(row.key), **error, **more.get(row.key, {})})
    left = [{"id": each.id, "reason": each.reason} for each in given.left_out]
    return {**layout.about, "left_out": left, "predictions": entries}


def _predict_groups(served: Served, given: ReceivedFiles, draw: bool) -> dict[str, Any]:
    task, options = served.task, served.options
    found = answers.discover_groups(task, [given.folder], options, unseen)
    layout = _layout(served, "patient", ("samples", "missing", "decisive"))
    entries = []
    for number, group in enumerate(answers.groups(found)):
        result = answers.of_group(served.model, task, options, group, advance=lambda _done: None)
        row = answers.from_result(group, result, {})
        entry = formats.as_record(layout, row, by_name=True)
        if "error" in entry:
            entry["error"] = given.name(entry["error"])
        if draw and not isinstance(result, str) and number < _MOST_DRAWN:
            entry["picture"] = _draw_decisive(served, result.decisive)
        entries.append(entry)
    rejected = [
        {"id": given.name(one.id), "reason": given.name(one.reason), "group": one.group, "missing": one.missing}
        for one in found.rejected
    ]
    return {
        **layout.about,
        "intended_use": served.model.metadata.intended_use,
        "rejected": rejected,
        "predictions": entries,
    }


def _draw_decisive(served: Served, sample: Sample) -> str:
    shown = list(answers.draw_files(served.model, served.task, served.options, [sample], report=lambda _answer: None))
    return draw_answer(served, shown[0], sample_tables.show(served.task, served.options, sample)) if shown else ""


def draw_answer(served: Served, answer: FileAnswer, picture: NDArray[Any] | None = None) -> str:
    """A picture with what the model found drawn in, as its problem draws it; without, where words suffice."""
    about, draw = served.model.metadata, served.task.problem.presentation.picture
    shown = answer.picture() if picture is None else picture
    if draw is not None:
        shown = draw(shown, answer.outputs, None, about.labels, about.fitted)
    return png(shown)


def png(picture: NDArray[Any]) -> str:
    """``(H, W)`` or ``(H, W, 3)`` uint8 as a ``data:`` address, no longer than 1024 pixels."""
    import PIL.Image

    image = PIL.Image.fromarray(picture)
    image.thumbnail((_LONGEST, _LONGEST))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
