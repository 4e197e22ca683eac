"""Several labels at once, behind the contract of a problem."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from commands import command
from sklearn import metrics as theirs
from torch.nn import functional as F

import zooft
from zooft.deploy import conversion
from zooft.errors import DataError
from zooft.evaluation.evaluate import Evaluated, evaluate
from zooft.evaluation.predictions import Predictions
from zooft.pipeline.reporter import LoggingReporter
from zooft.problems.multilabel.head import HEAD
from zooft.problems.multilabel.training import positive_weights
from zooft.report.blocks import Drawing
from zooft.testing.problem import check_problem

LABELS = tuple(zooft.Label(name=name) for name in ("cat", "dog", "bird"))
PROBLEM = zooft.multilabel()
OPTIONS = zooft.MultilabelOptions()

Targets = list[tuple[bool | None, ...]]


def targets(count: int) -> Targets:
    """Labels of different frequency; every fifth dog is unknown."""
    table = np.random.default_rng(0).random((count, 3)) < [0.5, 0.3, 0.15]
    return [(bool(a), None if index % 5 == 0 else bool(b), bool(c)) for index, (a, b, c) in enumerate(table.tolist())]


def logits_of(values: Targets, *, seed: int = 1) -> Any:
    truth = np.array([[answer is True for answer in row] for row in values], np.float32)
    noise = np.random.default_rng(seed).normal(size=truth.shape)
    return (2 * truth - 1.5 + noise).round(1).astype(np.float32)  # with ties


def predictions(count: int = 80) -> Predictions:
    values = targets(count)
    samples = [zooft.Sample(id=str(index), source=None, target=value) for index, value in enumerate(values)]
    return Predictions(samples=samples, columns=PROBLEM.evaluation.columns({HEAD: logits_of(values)}, values, LABELS))


# ------------------------------------------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("kind", ["bce", "weighted-bce"])
def test_halves_of_a_batch_add_up_to_torch_s_mean_over_the_known_labels(kind: Any) -> None:
    values = targets(11)
    found = torch.randn(11, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    required = torch.from_numpy(np.stack([PROBLEM.training.encode(row, LABELS) for row in values]))
    loss = PROBLEM.training.loss(LABELS, values, zooft.MultilabelOptions(multilabel_loss=kind))
    halves = [loss({HEAD: found[rows]}, required[rows]) for rows in (slice(0, 4), slice(4, 11))]
    mean = sum(half.total for half in halves) / sum(half.weight for half in halves)
    mean.backward()
    weights = torch.tensor(positive_weights(values, LABELS)) if kind == "weighted-bce" else torch.ones(3)
    other = found.detach().clone().requires_grad_()
    each = F.binary_cross_entropy_with_logits(other, required.nan_to_num(), pos_weight=weights, reduction="none")
    whole = each[~required.isnan()].mean()
    whole.backward()
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close(found.grad, other.grad)


def test_the_asymmetric_loss_is_the_paper_s() -> None:
    loss = PROBLEM.training.loss(LABELS, [], zooft.MultilabelOptions(multilabel_loss="asymmetric"))
    logits = torch.tensor([[0.3, -4.0, 1.2]], dtype=torch.float64)
    found = loss({HEAD: logits}, torch.tensor([[1.0, 0.0, 0.0]]))
    p = [1 / (1 + math.exp(-x)) for x in (0.3, -4.0, 1.2)]
    shifted = [max(x - 0.05, 0) for x in p]
    expected = -math.log(p[0]) - sum(shifted[k] ** 4 * math.log(1 - shifted[k]) for k in (1, 2))
    assert float(found.total) == pytest.approx(expected, rel=1e-12)
    assert float(found.weight) == 3
    assert shifted[1] == 0  # an easy absent label counts for nothing


def test_rare_labels_weigh_as_often_as_they_are_rarer_and_ten_times_at_most() -> None:
    values: Targets = [(index < 25, True, index < 1) for index in range(100)]
    assert positive_weights(values, LABELS) == [3.0, 1.0, 10.0]


@pytest.mark.parametrize(
    ("target", "right"),
    [((True, None, False), True), ((None, None, None), False), ((True, False), False), ((1, 0, 1), False), ("cat", False)],
)  # fmt: skip # a table of cases
def test_a_target_is_a_tuple_of_bools_of_which_one_is_known(target: object, right: bool) -> None:
    assert (PROBLEM.training.check(target, LABELS) == "") is right


def test_a_split_spreads_the_rarest_label_of_each_sample() -> None:
    values: Targets = [(True, False, False), (True, True, False), (False, True, True), (False, False, None)]
    assert PROBLEM.training.strata([*values, (True, False, False)], LABELS).numbers == [0, 1, 2, 3, 0]
    assert not PROBLEM.training.strata(values, LABELS).needed


def test_labels_that_all_samples_or_none_have_cannot_be_learnt() -> None:
    assert "nothing can be learnt" in PROBLEM.training.unlearnable([(True, False, None)] * 3, LABELS)
    assert PROBLEM.training.unlearnable([(True, False, None), (False, False, None)], LABELS) == ""


def test_the_problem_passes_the_conformance_kit() -> None:
    from zooft_images import zooft_register_tasks

    task = next(task for task in zooft_register_tasks() if task.name == "multilabel")
    check_problem(task, LABELS, targets(24))


# ------------------------------------------------------------------------------------------------- cells of a table


def read(table: dict[str, list[str]], **options: Any) -> zooft.Targets:
    assert PROBLEM.training.read is not None
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    return PROBLEM.training.read(rows, list(table), zooft.MultilabelOptions(**options))


def test_a_column_a_label_has_yes_no_or_nothing() -> None:
    found = read({"cat": ["1", "no", "TRUE", ""], "dog": ["", "x", "0", ""]})
    assert [label.name for label in found.labels] == ["cat", "dog"]
    assert found.values == [(True, None), (False, True), (True, False), None]
    assert list(found.faults) == [3]
    assert "all cells are empty" in found.faults[3]
    assert any("1 of 3 rows don't know dog" in note for note in found.notes)


def test_any_other_cell_is_a_fault_of_its_row() -> None:
    found = read({"cat": ["1", "maybe", "0"], "dog": ["0", "1", "2"]})
    assert found.faults[1].startswith("cat is 'maybe'; expected 1 or 0")
    assert found.faults[2].startswith("dog is '2'; expected 1 or 0")
    assert found.values == [(True, False), None, None]


def test_one_column_lists_labels_and_an_empty_cell_is_unknown_unless_it_means_none() -> None:
    cells = {"labels": ["dog; cat", "bird", "", "dog|bird"]}
    found = read(cells)
    assert [label.name for label in found.labels] == ["bird", "cat", "dog"]
    assert found.values == [(False, True, True), (True, False, False), None, (True, False, True)]
    assert "--empty-means none" in found.faults[2]
    assert read(cells, empty_means="none").values[2] == (False, False, False)


def test_an_empty_column_and_names_that_lists_could_not_hold_are_refused() -> None:
    with pytest.raises(DataError, match="the column 'dog' is empty in all 2 rows"):
        read({"cat": ["1", "0"], "dog": ["", " "]})
    with pytest.raises(DataError, match="the column 'labels' is empty"):
        read({"labels": ["", ""]})
    with pytest.raises(DataError, match="can't be the name of a label"):
        read({"cat;dog": ["1", "0"], "bird": ["1", "0"]})


def test_other_data_may_lack_labels_and_a_list_says_that_they_are_absent() -> None:
    training = PROBLEM.training
    columns, lists = read({"dog": ["1", "0"]}).labels, read({"labels": ["dog", "dog"]}).labels
    assert training.unknown(columns, LABELS) == ""
    assert training.relabel((True,), columns, LABELS) == (None, True, None)
    assert training.relabel((True,), lists, LABELS) == (False, True, False)
    assert "doesn't know: cow" in training.unknown((zooft.Label(name="cow"),), LABELS)


# ------------------------------------------------------------------------------------------------- figures


def test_every_figure_is_scikit_learn_s() -> None:
    raw = predictions()
    fitted = PROBLEM.evaluation.fit(raw, LABELS, "", OPTIONS)
    found = PROBLEM.evaluation.apply(raw, fitted, LABELS)
    mine = PROBLEM.evaluation.metrics(found, LABELS)
    rows = PROBLEM.evaluation.details(found, None, LABELS, fitted, False)["per_label"]
    per_label, all_true, all_present = [], [], []
    for index, row in enumerate(rows):
        known = ~np.isnan(found["target"][:, index])
        true, given = found["target"][known, index], found["probabilities"][known, index]
        present = given >= np.float32(fitted["thresholds"][index])
        expected = (
            theirs.average_precision_score(true, given),
            theirs.roc_auc_score(true, given),
            theirs.f1_score(true, present),
        )
        assert (row["ap"], row["auroc"], row["f1"]) == pytest.approx(expected, abs=1e-12)
        assert row["precision"] == pytest.approx(theirs.precision_score(true, present))
        assert row["recall"] == pytest.approx(theirs.recall_score(true, present))
        per_label.append(expected)
        all_true.append(true)
        all_present.append(present)
    means = np.mean(per_label, 0)
    assert (mine["map"], mine["auroc"], mine["macro_f1"]) == pytest.approx(tuple(means), abs=1e-12)
    micro = theirs.f1_score(np.concatenate(all_true), np.concatenate(all_present))
    assert mine["micro_f1"] == pytest.approx(micro, abs=1e-12)
    assert rows[1]["known"] == 64


def test_each_threshold_has_the_largest_f1_of_all_and_one_without_positives_is_a_half() -> None:
    raw = predictions()
    thresholds = PROBLEM.evaluation.fit(raw, LABELS, "", OPTIONS)["thresholds"]
    for index, threshold in enumerate(thresholds):
        known = ~np.isnan(raw["target"][:, index])
        true, given = raw["target"][known, index], raw["probabilities"][known, index]
        best = max(theirs.f1_score(true, given >= line) for line in np.unique(given))
        assert theirs.f1_score(true, given >= np.float32(threshold)) == pytest.approx(best)
        assert not (given == np.float32(threshold)).any()
    nobody = raw.with_columns(target=np.zeros_like(raw["target"]))
    assert PROBLEM.evaluation.fit(nobody, LABELS, "", OPTIONS)["thresholds"] == [0.5, 0.5, 0.5]


def test_a_group_has_what_any_of_its_samples_has_or_most_of_them() -> None:
    values: Targets = [(True, None, False), (False, None, False), (False, None, True), (False, True, True)]
    columns = PROBLEM.evaluation.columns(
        {HEAD: np.array([[2, -1, 0], [-2, 1, 0], [-2, 0, 0], [0, 0, 3]])}, values, LABELS
    )
    given = Predictions(samples=(), columns=columns)
    group = PROBLEM.evaluation.group
    assert group is not None
    members = [np.array([0, 1, 2]), np.array([3])]
    most, mean = (group(given, members, LABELS, rule) for rule in ("max", "mean"))
    np.testing.assert_array_equal(most["target"], [[1, math.nan, 1], [0, 1, 1]])
    np.testing.assert_array_equal(mean["target"], [[0, math.nan, 0], [0, 1, 1]])
    np.testing.assert_allclose(
        most["probabilities"], [columns["probabilities"][:3].max(0), columns["probabilities"][3]]
    )
    np.testing.assert_allclose(mean["probabilities"][0], columns["probabilities"][:3].mean(0), rtol=1e-6)


def test_an_evaluation_has_intervals_a_table_and_curves() -> None:
    found = predictions()
    evaluation = evaluate(PROBLEM, LABELS, found, split="val", resamples=50, seed=0, fitted={})
    interval = evaluation.metrics["map"]
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.value < interval.high
    sections = PROBLEM.presentation.sections
    assert sections is not None
    table, drawing = sections(Evaluated(predictions=found, evaluation=evaluation), LABELS, {}, "")
    assert [row[0] for row in table.rows] == ["cat", "dog", "bird"]
    assert isinstance(drawing, Drawing)
    assert "<svg" in drawing.svg


# ------------------------------------------------------------------------------------------------- the file and how answers are shown


class _OfHead(torch.nn.Module):
    """A graph whose input is the head's output."""

    def __init__(self, last: torch.nn.Module) -> None:
        super().__init__()
        self.last = last

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = self.last({HEAD: x}, (x,))
        return found


def test_the_file_decides_by_the_fitted_thresholds_at_every_batch_size() -> None:
    raw = predictions()
    fitted = PROBLEM.evaluation.fit(raw, LABELS, "", OPTIONS)
    deployment = PROBLEM.deployment
    names = [one.name for one in deployment.outputs(LABELS, fitted)]
    assert names == ["probabilities", "logits", "present"]
    graph = _OfHead(deployment.graph(LABELS, fitted)).eval()
    proto = conversion.convert(graph, [torch.randn(2, 3)], inputs=["x"], outputs=names, axes=({0: "batch"},))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    required = PROBLEM.evaluation.apply(raw, fitted, LABELS)
    for size in (1, 80):
        answers = dict(zip(names, session.run(None, {"x": raw["logits"][:size]}), strict=True))
        found = deployment.columns(answers, [sample.target for sample in raw.samples[:size]], LABELS, fitted)
        np.testing.assert_allclose(found["probabilities"], required["probabilities"][:size], rtol=1e-5)
        np.testing.assert_array_equal(found["present"], required["present"][:size])
        assert deployment.agree(answers, answers, LABELS, fitted, {"logits": 0.0}) == ()
    wrong = {**answers, "present": 1 - answers["present"]}
    assert len(deployment.agree(answers, wrong, LABELS, fitted, {"logits": 0.0})) == 2


def test_answers_are_shown_by_name() -> None:
    values: Targets = [(True, True, None), (False, False, False)]
    columns = PROBLEM.evaluation.columns({HEAD: np.array([[2, 1, -1], [-1, -1, -1]], np.float32)}, values, LABELS)
    given, shown = Predictions(samples=(), columns=columns), PROBLEM.presentation
    cells = shown.cells(given, LABELS, {})
    assert list(cells) == list(shown.columns(LABELS)) == ["labels", "p(cat)", "p(dog)", "p(bird)"]
    assert cells["labels"] == ["cat;dog", "(none)"]
    assert [shown.target(value, LABELS) for value in values] == ["cat;dog;?bird", "(none)"]
    first = {name: column[0] for name, column in cells.items()}
    assert shown.record(first, LABELS)["labels"] == ["cat", "dog"]
    assert shown.brief(first, LABELS) == {"labels": "cat 0.881, dog 0.731"}
    assert shown.wrong is not None
    assert shown.wrong(given, LABELS).tolist() == [False, False]


def write(root: Path) -> Path:
    """48 pictures that are red, blue, both or neither, listed with their labels."""
    from PIL import Image

    rng, lines = np.random.default_rng(0), ["path,split,labels"]
    for index in range(48):
        red, blue = index % 2, index // 2 % 2
        pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[:, :, 0] += np.uint8(150 * red)
        pixels[:, :, 2] += np.uint8(150 * blue)
        Image.fromarray(pixels).save(root / f"{index}.png")
        names = ";".join(name for name, there in (("red", red), ("blue", blue)) if there)
        lines.append(f"{index}.png,{'val' if index >= 32 else 'train'},{names}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def test_small_pictures_are_learnt_from_a_list_of_labels_end_to_end(tmp_path: Path) -> None:
    result = zooft.finetune(
        data=write(tmp_path),
        task="multilabel",
        backbone="timm:tf_efficientnet_lite0",
        freeze="backbone",
        epochs=4,
        out=tmp_path / "run",
        empty_means="none",
        device="cpu",
        bootstrap=0,
    )
    assert result.verification is not None
    assert result.verification.passed, result.verification.failures
    assert result.evaluations["val"].metrics["map"].value > 0.9
    assert UNFITTED not in command("evaluate", tmp_path / "run", "--bootstrap", "0").stderr


UNFITTED = (
    "this run hasn't come to its end, and answers without what is fitted then, a threshold for each label; as it is, a label is predicted "
    "where its probability is at least its threshold: blue 0.500, red 0.500"
)


class _Stopped(LoggingReporter):
    """Ctrl-C after the first epoch."""

    def epoch(self, record: zooft.EpochRecord, epochs: int) -> None:
        raise KeyboardInterrupt


def test_a_run_that_was_interrupted_says_that_it_has_no_thresholds_yet(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        zooft.finetune(
            data=write(tmp_path),
            task="multilabel",
            backbone="timm:test_resnet",
            weights="random",
            epochs=4,
            out=tmp_path / "run",
            empty_means="none",
            device="cpu",
            reporter=_Stopped(),
        )
    for verb, more in (("evaluate", ["--bootstrap", "0"]), ("export", [])):
        done = command(verb, tmp_path / "run.incomplete", *more)
        assert UNFITTED in " ".join(done.stderr.split())
