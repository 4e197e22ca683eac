"""The report of a run: its content, that it is self-contained, and how it looks in a real browser."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from numpy.typing import NDArray
from run_records import data_record, run_record

from zooft.audit import Audit
from zooft.audit.findings import FactRow, Finding
from zooft.compute.resources import Resources
from zooft.config import to_toml
from zooft.contracts import (
    OutputDifference,
    Picture,
    Port,
    Rejection,
    Sample,
    Table,
    Verification,
    WeightsRecord,
    class_labels,
)
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.problems.classification import classification, diagnostic_metrics
from zooft.report import page, pictures
from zooft.report import verification as proof
from zooft.report.gradcam import GradCam
from zooft.report.page import ReportInputs
from zooft.run.record import ResolvedRecord, RunRecord, TrialRecord

HOSTILE = "<script>alert(1)</script>"
BREAKOUT = '"><img src=x onerror=alert(2)>'
STYLE = Path(page.__file__).parent / "templates" / "style.css"
VOID = {"meta", "img", "link", "br", "input", "hr"}
PORT = Port(name="images", dtype="uint8", axes=("batch", "height", "width", 3), meaning=f"RGB {HOSTILE}\nany size")
CALIBRATED = {"temperature": 1.4, "threshold": 0.43, "fitted_on": "the validation samples"}


PROBLEM = classification(metrics=diagnostic_metrics, primary="auroc")


class Parsed(HTMLParser):
    """A page taken apart; fails where an element isn't closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.by_tag: list[tuple[str, Mapping[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.by_tag.append((tag, dict(attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def picture(sample: Sample) -> NDArray[np.uint8]:
    return np.random.default_rng(sample.source).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def explain(sample: Sample, _row: Mapping[str, Any]) -> GradCam:
    heat = np.zeros((32, 32), np.float32)
    heat[8:16, 8:16] = 1
    return GradCam(picture=picture(sample), heat=heat, words="it")


def given(number: int, classes: int, *, grouped: bool, name: str = "sample") -> tuple[list[Sample], Predictions]:
    rng = np.random.default_rng(0)
    targets = np.arange(number) % classes
    samples = [
        Sample(
            id=f"{name} {i} {BREAKOUT}",
            source=i,
            target=int(targets[i]),
            group=f"g{i % classes} {i // 8}" if grouped else None,
            facts={"manufacturer": ("ACME", BREAKOUT)[i % 2]},
        )
        for i in range(number)
    ]
    logits = rng.normal(size=(number, classes))
    logits[np.arange(number), targets] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    columns = {"target": targets, "logits": logits, "probabilities": probabilities}
    if classes == 2:
        columns["threshold"] = np.full(number, CALIBRATED["threshold"])
    return samples, Predictions(samples=tuple(samples), columns=columns)


def record(classes: tuple[str, ...], **more: Any) -> RunRecord:
    facts: dict[str, Any] = {
        "task": f"images/{HOSTILE}",
        "labels": class_labels(classes),
        "notes": (f"a note {HOSTILE}",),
        "options": {"augment": "none", "formats": ["JPEG", "PNG"], "note": f'say "{HOSTILE}" \\ \x7f', "limit": 0.5},
        "weights": WeightsRecord(kind="zoo", source=HOSTILE, licence=None, file_sha256=None, tensors_sha256="0" * 64),
        "data": data_record(rejected=2, path="/secret/place"),
        "config": {
            "backbone": "timm:resnet18",
            "task": "classification",
            "head": "linear",
            "freeze": "backbone",
            "epochs": 2,
            "seed": 0,
            "optimizer": "adamw",
            "lr": 0.005,
            "backbone_lr": 1e-4,
            "batch_size": 32,
            "device": "auto",
            "folds": None,
            "export": True,
        },
        "resolved": ResolvedRecord(
            batch_size=128, lr=0.015, weight_decay=0.1, views=4, precision={"3": {"dtype": "bfloat16", "kernels": True}}
        ),
        "trials": tuple(
            TrialRecord(lr=lr, weight_decay=0.1, views=4, epoch=2, primary=40 * lr, val_loss=0.5)
            for lr in (0.005, 0.015)
        ),
        "best_epoch": 2,
        "resources": Resources(seconds={"training": 75.0}, peak_memory_mb=900),
    }
    return run_record(**{**facts, **more})


def epoch(number: int, *, validated: bool = True) -> dict[str, Any]:
    return {
        "epoch": number,
        "train_loss": 1 / number,
        "val_loss": 1.1 / number if validated else None,
        "metrics": {"auroc": 0.7, "accuracy": None} if validated else {},
        "learning_rate": 0.1,
        "seconds": 1.5,
        "learning": ["head"],
        "best": True,
    }


def verification(**more: Any) -> Verification:
    facts: dict[str, Any] = {
        "passed": True,
        "provider": "CPUExecutionProvider",
        "requested_provider": "auto",
        "placement": {"CPUExecutionProvider": 9},
        "onnx_sha256": "a" * 64,
        "samples": 40,
        "available": 40,
        "batch_sizes": (1, 2),
        "relative_rms": 1e-6,
        "agreement": 1.0,
        "outputs": {"logits": OutputDifference(measure="spread", whole=1e-6, network=None, limit=1e-4)},
        "metrics": {"auroc": (0.9, 0.9)},
        "failures": (),
        "notes": (HOSTILE,),
        "data": "real",
    }
    return Verification(**{**facts, **more})


def inputs(
    *, classes: tuple[str, ...] = ("plain", HOSTILE), split: str = "val", grouped: bool = True, **more: Any
) -> ReportInputs:
    samples, predictions = given(40, len(classes), grouped=grouped)
    recorded = record(classes, fitted=CALIBRATED) if len(classes) == 2 else record(classes)
    evaluation = evaluate(
        PROBLEM,
        class_labels(classes),
        predictions,
        split=split,
        resamples=10,
        seed=0,
        fitted=recorded.fitted,
        facts=("manufacturer",),
    )
    duplicates = Finding(
        kind="exact_duplicates",
        severity="error",
        text=f"copies {HOSTILE}",
        samples=(samples[0].id,),
        count=2,
        pairs=((samples[0].id, samples[1].id), (samples[2].id, "of no known sample")),
    )
    fact = FactRow(name="kernel", kind="category", values=2, stated=40, auroc=0.7, low=0.6, high=0.8, shortcut=True)
    full: dict[str, Any] = {
        "record": recorded,
        "epochs": [epoch(1), epoch(2)],
        "rejected": [Rejection(BREAKOUT, HOSTILE)],
        "audit": Audit(findings=(duplicates,), facts=(fact,), samples=40, notes=(HOSTILE,)),
        "problem": PROBLEM,
        "evaluated": {split: Evaluated(predictions=predictions, evaluation=evaluation)},
        "verification": verification(),
        "stages": [("stem", 1200, 0), ("layer1", 2_500_000, 2_500_000), ("pool", 0, 0)],
        "show": picture,
        "gradcam": explain,
        "extra": [Table(title=HOSTILE, columns=("", BREAKOUT), rows=((HOSTILE, "1"),))],
        "private": False,
        "samples": {"train": samples[:20], "val": samples[20:]},
        "ports": (PORT,),
        "intended_use": HOSTILE,
    }
    return ReportInputs(**{**full, **more})


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(inputs())


@pytest.fixture(scope="module")
def parsed(text: str) -> Parsed:
    return Parsed(text)


def test_hostile_names_reasons_and_notes_are_text_and_never_markup(parsed: Parsed) -> None:
    assert parsed.tags["script"] == 0
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on")]
    assert not [
        value
        for tag, name, value in parsed.attributes
        if tag == "img" and not value.startswith("data:") and name == "src"
    ]
    shown = "".join(parsed.text)
    assert shown.count(HOSTILE) > 10
    assert BREAKOUT in shown


def test_the_page_needs_nothing_but_itself(parsed: Parsed, text: str) -> None:
    for tag, name, value in parsed.attributes:
        if name in {"src", "href", "srcset", "action", "data", "xlink:href"}:
            assert value.startswith(("data:image/", "#")), (tag, name, value[:40])
        assert "http" not in value, (tag, name, value[:60])
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert {"link", "iframe", "object", "embed", "base"}.isdisjoint(parsed.tags)


def test_ids_are_unique_and_links_lead_to_them(parsed: Parsed, text: str) -> None:
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    required = {value[1:] for _, name, value in parsed.attributes if name == "href" and value.startswith("#")}
    required |= set(re.findall(r"url\(#([^)]*)\)", text))
    required |= {value for _, name, value in parsed.attributes if name == "aria-labelledby"}
    assert required <= set(ids)


def test_headings_are_in_order_and_tables_and_pictures_can_be_read_out(parsed: Parsed) -> None:
    levels = [int(tag[1]) for tag, _ in parsed.by_tag if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert ("html", "lang", "en") in parsed.attributes
    assert parsed.tags["caption"] == parsed.tags["table"] > 5
    assert all("scope" in attributes for tag, attributes in parsed.by_tag if tag == "th")
    assert all("alt" in attributes for tag, attributes in parsed.by_tag if tag == "img")
    drawings = [attributes for tag, attributes in parsed.by_tag if tag == "svg"]
    assert len(drawings) == 5
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)


def test_drawings_take_their_colours_from_the_page_and_keep_text_as_text(text: str) -> None:
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert drawings
    for drawing in drawings:
        assert not re.findall(r"(?:fill|stroke): ?#|rgb\(", drawing)
        assert "var(--" in drawing
        assert "<text" in drawing
        assert "<style" not in drawing


def test_one_material_always_gives_the_same_page(text: str) -> None:
    assert page.render(inputs()) == text


def test_every_part_of_a_run_has_its_section(parsed: Parsed) -> None:
    shown = " ".join(" ".join(parsed.text).split())
    for words in (
        "Settings",
        "Samples by class and split",
        "1 file not used, and why",
        "Leaks and shortcuts",
        "Pairs to check",
        "ROC curve, per group",
        "Reliability, per sample",
        "before temperature",
        "Subgroups",
        "Confusion per group",
        "The most confident mistakes",
        "Grad-CAM",
        "Trained and frozen parts",
        "Training",
        "900 MB",
        "Verification",
        "How to deploy",
        "Model card",
    ):
        assert words in shown, words


def test_the_card_is_filled_in_where_the_run_knows_and_visibly_blank_elsewhere(text: str) -> None:
    assert text.count("To be filled in by you: ") >= 15
    assert "timm:resnet18 fine-tuned for the task" in text
    card = text[text.index('id="card"') :]
    assert card.count('class="blank"') == card.count("To be filled in by you: ")


def test_what_the_run_settled_by_itself_stands_on_the_page_best_way_first(parsed: Parsed, text: str) -> None:
    for shown in ("the plain one and 4 random ones, computed once", "bfloat16 with zooft kernels", "batches of 128"):
        assert shown in text
    assert "learning rates 0.015 (head)" in text
    assert text.index("0.6000") < text.index("0.2000")


def test_the_settings_on_the_page_reproduce_the_run(text: str) -> None:
    recorded = record(("a", "b"))
    found = tomllib.loads(to_toml({**recorded.config, **recorded.options}))
    expected = {**recorded.config, **recorded.options}
    assert found == {k: v for k, v in expected.items() if v is not None}
    assert "--data /secret/place" in text


def test_a_private_report_holds_no_path(text: str) -> None:
    assert "secret" in text
    hidden = page.render(inputs(private=True))
    assert "secret" not in hidden
    assert "--data DATA" in hidden


def test_the_lines_for_deployment_run_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    constant = helper.make_tensor("p", kinds.FLOAT, (1, 2), [0.56, 0.44])
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["probabilities"], value=constant),
            helper.make_node("Log", ["probabilities"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(name, kinds.FLOAT, (1, 2)) for name in ("probabilities", "logits")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), tmp_path / "model.onnx"
    )
    monkeypatch.chdir(tmp_path)
    lines = proof.snippet(inputs())
    exec(compile(lines, "<snippet>", "exec"), {})  # noqa: S102 -- what the page shows its reader to run
    assert capsys.readouterr().out.startswith(HOSTILE)  # 0.44 is above the threshold of 0.43
    assert "np.zeros((1, 32, 32, 3), np.uint8)" in lines
    assert "for the mean over a group's samples" in lines


def test_several_inputs_are_fed_by_name() -> None:
    hu = Port(name="hu", dtype="int16", axes=("batch", 3, "rows", "columns"), meaning="HU")
    spacing = Port(name="pixel spacing", dtype="float32", axes=("batch", 2), meaning="mm")
    lines = proof.snippet(inputs(ports=(hu, spacing)))
    compile(lines, "<snippet>", "exec")
    assert "hu = np.zeros((1, 3, 32, 32), np.int16)" in lines
    assert '{"hu": hu, "pixel spacing": array}' in lines


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(None, [3, 1]), (0.2, [0, 1])],  # by probability; by the way from the threshold to the end of the scale
)
def test_the_surest_mistakes_come_first(threshold: float | None, expected: list[int]) -> None:
    positive = np.array([0.4, 0.7, 0.9, 0.1])
    predictions = Predictions(
        samples=tuple(Sample(id=str(i), source=i, target=i // 2) for i in range(4)),
        columns={"target": np.array([0, 0, 1, 1]), "probabilities": np.stack([1 - positive, positive], 1)},
    )
    hits = [0, 2]
    if threshold is not None:
        predictions, hits = predictions.with_columns(threshold=np.full(4, threshold)), [2]
        expected = [1, 3, 0]  # (0.7 - 0.2) / 0.8 = 0.625; (0.2 - 0.1) / 0.2 = 0.5; (0.4 - 0.2) / 0.8 = 0.25
    found = inputs(problem=PROBLEM)
    part = Evaluated(predictions=predictions, evaluation=found.evaluations["val"])
    assert pictures.worst(replace(found, record=record(("a", "b"))), part, 6) == expected
    assert pictures.best(replace(found, record=record(("a", "b"))), part) == hits


def test_only_the_first_rejected_files_are_listed_and_the_rest_counted() -> None:
    shown = page.render(inputs(rejected=[Rejection(f"file-{i}-", "broken") for i in range(60)]))
    assert shown.count("file-") == 50
    assert "And 10 more" in shown


def test_many_classes_are_shown_by_their_most_frequent_confusions() -> None:
    shown = page.render(inputs(classes=tuple(f"class {i}" for i in range(15)), grouped=False, split="test"))
    assert "Most frequent confusions" in shown
    assert "the 6 of 15 that are recognised worst" in shown
    Parsed(shown)


def test_cross_validation_is_what_a_run_with_folds_is_evaluated_by() -> None:
    shown = page.render(inputs(split="cross-validation", epochs=[epoch(1, validated=False)]))
    assert "Results: cross-validation samples" in shown
    assert "before temperature" not in shown  # each fold has its own
    assert "The heat is of the deployed model" in shown
    Parsed(shown)


def test_a_bare_run_still_has_its_report() -> None:
    bare = inputs(
        audit=None,
        verification=None,
        gradcam=None,
        rejected=[],
        extra=[],
        samples={},
        ports=(),
        intended_use="",
        epochs=[],
        stages=[],
    )
    shown = page.render(replace(bare, record=run_record(config=bare.record.config)))
    Parsed(shown)
    assert "No ONNX file was written" in shown
    assert "can&#39;t be shown" in shown
    assert "Leaks and shortcuts" not in shown


def test_a_refused_file_is_not_offered_for_deployment() -> None:
    shown = page.render(inputs(verification=verification(passed=False, failures=("logits differ",))))
    assert "Refused" in shown
    assert "don&#39;t use it" in shown
    assert "InferenceSession" not in shown


def test_a_task_adds_its_own_pictures_and_tables() -> None:
    png = b"\x89PNG\r\n\x1a\n"
    shown = page.render(inputs(extra=[Picture(title="A phantom", png=png, caption="Ribs in white.")]))
    assert "data:image/png;base64,iVBORw0KGgo=" in shown
    assert 'alt="Ribs in white."' in shown


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    page.write(tmp_path / "report.html", inputs())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def luminance(colour: str) -> float:
    """WCAG 2.1's relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    block = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    for name in ("ink", "muted", "blue", "orange", "green", "amber", "red", "violet", "teal", "rose"):
        for behind in ("paper", "raised"):
            bright, dark = sorted((luminance(colours[name]), luminance(colours[behind])), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.5, (name, behind)
    for state, behind in (("blue", "note-bg"), ("orange", "warning-bg"), ("green", "good-bg"), ("ink", "error-bg")):
        bright, dark = sorted((luminance(colours[state]), luminance(colours[behind])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (state, behind)


def test_a_real_browser_shows_it_on_a_phone_a_desk_in_the_dark_and_on_paper(text: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    width = "document.documentElement.scrollWidth"
    background = "getComputedStyle(document.body).backgroundColor"
    with browser(tmp_path / "profile") as shown:
        shown.open(path, width=390)
        assert shown.evaluate(width) == 390
        assert shown.screenshot().startswith(b"\x89PNG")
        shown.open(path, width=1200)
        assert shown.evaluate(width) <= 1200
        assert shown.evaluate(background) == "rgb(255, 255, 255)"
        assert shown.evaluate("document.images.length") == shown.evaluate(
            "[...document.images].filter(image => image.complete && image.naturalWidth).length"
        )
        shown.open(path, width=1200, dark=True)
        assert shown.evaluate(background) == "rgb(18, 22, 27)"
        assert shown.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == "rgb(165, 177, 190)"
        assert shown.pdf().startswith(b"%PDF")
        shown.paper()
        assert shown.evaluate(background) == "rgb(255, 255, 255)"
        assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert shown.complaints == []
        assert [url for url in shown.requests if not url.startswith(("data:", "file:"))] == []
