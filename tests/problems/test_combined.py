"""Several answers on one trunk: each is learnt and evaluated on the samples of which it is known, and one file gives all."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import onnxruntime
import pytest
import torch
from commands import command
from sklearn import metrics as theirs
from torch.nn import functional as F

import zooft
from zooft.audit import audit
from zooft.evaluation.predictions import Predictions
from zooft.hooks import registry
from zooft.testing import check_problem
from zooft_images.options import MultitaskOptions

TOML = """
[targets.view]
problem = "classification"

[targets.age]
problem = "regression"
column = "Age at scan"
unit = "years"
weight = 0.5

[targets.findings]
problem = "multilabel"
columns = ["Dark", "grainy"]
"""
LABELS = (
    zooft.Label(name="view", categories=("front", "side"), problem="classification"),
    zooft.Label(name="age", unit="years", problem="regression"),
    zooft.Label(name="dark", problem="multilabel", answer="findings"),
    zooft.Label(name="grainy", problem="multilabel", answer="findings"),
)
TARGETS: list[dict[str, Any]] = [
    {
        "view": number % 2,
        "age": None if number % 4 < 2 else (40.0 + 3 * number,),
        "findings": None if number % 5 == 4 else (number % 3 == 0, None if number % 7 == 0 else number % 4 == 1),
    }
    for number in range(16)
] + [{"age": (61.0,)}]
OPTIONS = MultitaskOptions(targets_toml=TOML)


def task() -> zooft.Task:
    return registry.load().task("multitask")


def write(root: Path) -> Path:
    """48 pictures of two views; half of the ages are unknown, and some of the findings: of each fifth both, of others one."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(48):
        age = 40 + 20 * rng.random()
        level = int(60 + 80 * (index % 2) + 2 * (age - 50))
        example_data.save(root / "img" / f"{index}.png", level, seed=index)
        found = ("", "") if index % 5 == 4 else (int(level < 80), "" if index % 7 == 0 else int(rng.random() < 0.4))
        rows.append((f"img/{index}.png", ("front", "side")[index % 2], "" if index % 4 < 2 else f"{age:.2f}", *found))
    example_data.write_manifest(root / "labels.csv", ("path", "view", "Age at scan", "dark", "grainy"), rows)
    (root / "targets.toml").write_text(TOML)
    return root


def test_the_parts_do_together_what_they_promise() -> None:
    check_problem(task(), LABELS, TARGETS, OPTIONS)


def test_the_loss_is_the_weighted_sum_over_what_is_known() -> None:
    training = task().problem.training
    labels = training.prepare(LABELS, TARGETS, OPTIONS)
    rng = torch.Generator().manual_seed(0)
    outputs = {
        "view_logits": torch.randn(len(TARGETS), 2, generator=rng),
        "age_standardised": torch.randn(len(TARGETS), 1, generator=rng),
        "findings_logits": torch.randn(len(TARGETS), 2, generator=rng),
    }
    encoded = torch.utils.data.default_collate([training.encode(target, labels) for target in TARGETS])
    found = training.loss(labels, TARGETS, OPTIONS)(outputs, encoded)
    views = [row for row, target in enumerate(TARGETS) if target.get("view") is not None]
    aged = [row for row, target in enumerate(TARGETS) if target.get("age") is not None]
    ages = np.array([TARGETS[row]["age"][0] for row in aged])
    expected = torch.tensor((ages - ages.mean()) / ages.std(), dtype=torch.float32)
    of_views = F.cross_entropy(
        outputs["view_logits"][views], torch.tensor([TARGETS[row]["view"] for row in views]), reduction="sum"
    )
    of_ages = F.smooth_l1_loss(outputs["age_standardised"][aged, 0], expected, reduction="sum")
    rows = [row for row, target in enumerate(TARGETS) if target.get("findings") is not None]
    of_findings = torch.tensor(0.0)
    for label in range(2):
        known = [row for row in rows if TARGETS[row]["findings"][label] is not None]
        there = torch.tensor([float(TARGETS[row]["findings"][label]) for row in known])
        heavier = (1 - there).sum() / there.sum()
        of_findings += F.binary_cross_entropy_with_logits(
            outputs["findings_logits"][known, label], there, pos_weight=heavier, reduction="sum"
        )
    # in a sum of sums each known label counts, as each sample of the other answers does
    torch.testing.assert_close(found.total, of_views + 0.5 * of_ages + of_findings)
    assert float(found.weight) == len(TARGETS)


def test_figures_are_those_of_scikit_learn_on_the_samples_that_are_known() -> None:
    problem = task().problem
    labels = problem.training.prepare(LABELS, TARGETS, OPTIONS)
    rng = np.random.default_rng(1)
    outputs = {
        "view_logits": rng.normal(size=(len(TARGETS), 2)).astype(np.float32),
        "age_standardised": rng.normal(size=(len(TARGETS), 1)).astype(np.float32),
        "findings_logits": rng.normal(size=(len(TARGETS), 2)).astype(np.float32),
    }
    samples = [zooft.Sample(id=str(row), source=None, target=target) for row, target in enumerate(TARGETS)]
    given = Predictions(samples=samples, columns=problem.evaluation.columns(outputs, TARGETS, labels))
    found = problem.evaluation.metrics(given, labels)
    views = [row for row, target in enumerate(TARGETS) if target.get("view") is not None]
    aged = [row for row, target in enumerate(TARGETS) if target.get("age") is not None]
    ages = np.array([TARGETS[row]["age"][0] for row in aged])
    predicted = outputs["age_standardised"][aged, 0] * ages.std() + ages.mean()
    balanced = theirs.balanced_accuracy_score(
        [TARGETS[row]["view"] for row in views], outputs["view_logits"][views].argmax(1)
    )
    assert found["balanced_accuracy/view"] == pytest.approx(balanced)
    assert found["mae/age"] == pytest.approx(theirs.mean_absolute_error(ages, predicted), rel=1e-5)
    assert found["r2/age"] == pytest.approx(theirs.r2_score(ages, predicted), rel=1e-5)
    precisions, best = [], []
    for label in range(2):
        known = [
            row for row, target in enumerate(TARGETS) if (target.get("findings") or (None, None))[label] is not None
        ]
        there = [TARGETS[row]["findings"][label] for row in known]
        probabilities = 1 / (1 + np.exp(-outputs["findings_logits"][known, label].astype(np.float64)))
        precisions.append(theirs.average_precision_score(there, probabilities))
        best.append(max(theirs.f1_score(there, probabilities >= line) for line in probabilities))
    assert found["map/findings"] == pytest.approx(np.mean(precisions))
    mean = (balanced + theirs.r2_score(ages, predicted) + np.mean(precisions)) / 3
    assert found["score"] == pytest.approx(mean, rel=1e-5)
    assert "mae" in problem.evaluation.smaller
    fitted = problem.evaluation.fit(given, labels, "", OPTIONS)
    assert list(fitted) == ["findings"]
    applied = problem.evaluation.apply(given, fitted, labels)
    after = problem.evaluation.metrics(applied, labels)
    assert after["macro_f1/findings"] == pytest.approx(np.mean(best))  # a threshold of its own for each label
    assert after["balanced_accuracy/view"] == found["balanced_accuracy/view"]
    tables = problem.evaluation.details(applied, None, labels, fitted, False)
    assert [row["name"] for row in tables["findings"]["per_label"]] == ["dark", "grainy"]
    assert [row["known"] for row in tables["findings"]["per_label"]] == [13, 11]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--targets-file"),
        ("[targets.view]\nproblem = 'shape'", r"\[targets\.view\]: problem is 'shape'; there are classification"),
        ("[targets.view]\nproblem = 'classification'\ngrades = ['a', 'b']", "grades is for problem = 'ordinal'"),
        ("[targets.view]\nproblem = 'classification'\nweight = -1", "weight is -1, expected a number above 0"),
        ("[targets.view]\nproblem = 'classification'\nsize = 3", "size isn't known"),
        ("targets = 3", "has to hold tables"),
        ("[targets.view", "can't be read as TOML"),
        (
            "[targets.f]\nproblem = 'multilabel'\ncolumn = 'a'\ncolumns = ['b']",
            r"\[targets\.f\] has column and columns",
        ),
        ("[targets.f]\nproblem = 'multilabel'\ncolumns = ['a', 'A']", "columns names 'a' twice"),
        ("[targets.f]\nproblem = 'multilabel'\ncolumns = []", r"columns is \[\], expected a text, or a list of them"),
        ("[targets.f]\nproblem = 'multilabel'\nempty_means = 'no'", "empty_means is 'no'; there are unknown, none"),
        ("[targets.f]\nproblem = 'ordinal'\nempty_means = 'none'", "empty_means is for problem = 'multilabel'"),
    ],
)
def test_a_file_of_targets_that_cannot_be_used_is_refused(text: str, message: str) -> None:
    with pytest.raises(zooft.ConfigError, match=message):
        task().problem.training.check_options(MultitaskOptions(targets_toml=text))


def test_what_an_answer_s_problem_says_names_the_answer(tmp_path: Path) -> None:
    data = write(tmp_path)
    text = "[targets.stage]\nproblem = 'ordinal'\ncolumn = 'view'\ngrades = ['front', 'front']"
    (data / "targets.toml").write_text(text)
    options = MultitaskOptions(targets_file=data / "targets.toml", targets_toml=text)
    with pytest.raises(zooft.ConfigError, match=r"\[targets\.stage\]: --grades has 'front' twice"):
        task().discover(data, options)


def read(text: str, table: dict[str, list[str]]) -> zooft.Targets:
    training = task().problem.training
    assert training.read is not None
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    return training.read(rows, list(table), MultitaskOptions(targets_toml=text))


def test_an_answer_of_several_labels_has_their_columns_and_what_is_empty_is_unknown() -> None:
    text = (
        "[targets.findings]\nproblem = 'multilabel'\ncolumns = ['cat', 'dog']\n[targets.size]\nproblem = 'regression'"
    )
    found = read(text, {"cat": ["1", "", "no", ""], "dog": ["", "", "x", "?"], "size": ["2", "3", "", "4"]})
    assert found.labels == (
        zooft.Label(name="cat", problem="multilabel", answer="findings"),
        zooft.Label(name="dog", problem="multilabel", answer="findings"),
        zooft.Label(name="size", problem="regression"),
    )
    assert found.values[:3] == [
        {"findings": (True, None), "size": (2.0,)},
        {"size": (3.0,)},
        {"findings": (False, True)},
    ]
    assert found.faults == {3: found.faults[3]}
    assert found.faults[3].startswith("findings: dog is '?'; expected 1 or 0")
    assert all(note.startswith("findings: ") for note in found.notes)


@pytest.mark.parametrize(("means", "empty"), [("unknown", None), ("none", {"findings": (False, False)})])
def test_an_answer_of_several_labels_may_be_a_column_of_lists(means: str, empty: object) -> None:
    text = f"[targets.findings]\nproblem = 'multilabel'\nempty_means = '{means}'"
    found = read(text, {"findings": ["dog; cat", "", "cat"]})
    assert [(label.name, label.answer) for label in found.labels] == [("cat", "findings"), ("dog", "findings")]
    assert list(found.values) == [{"findings": (True, True)}, empty, {"findings": (True, False)}]
    assert not found.faults


def test_a_single_label_of_a_list_keeps_its_name_so_that_other_data_is_understood() -> None:
    training = task().problem.training
    text = "[targets.findings]\nproblem = 'multilabel'\nempty_means = 'none'"
    known, other = (read(text, {"findings": cells}).labels for cells in (["cat", "", "cat;dog"], ["dog", "", "dog"]))
    assert [label.name for label in other] == ["dog"]
    assert training.relabel({"findings": (True,)}, other, known) == {"findings": (False, True)}
    assert "doesn't know: cow" in training.unknown(read(text, {"findings": ["cow", ""]}).labels, known)


def test_several_numbers_are_one_answer_and_two_columns_of_classes_are_none() -> None:
    text = "[targets.size]\nproblem = 'regression'\ncolumns = ['width [mm]', 'height']"
    found = read(text, {"width [mm]": ["2", "3"], "height": ["4", ""]})
    assert [(label.name, label.unit, label.answer) for label in found.labels] == [
        ("width", "mm", "size"),
        ("height", "", "size"),
    ]
    assert list(found.values) == [{"size": (2.0, 4.0)}, {"size": (3.0, None)}]
    classes = "[targets.view]\nproblem = 'classification'\ncolumns = ['a', 'b']"
    with pytest.raises(zooft.DataError, match=r"\[targets\.view\]: classes are trained on one column, and there are 2"):
        read(classes, {"a": ["x", "y"], "b": ["x", "y"]})
    with pytest.raises(zooft.DataError, match=r"\[targets\.view\] names the column 'b', and the table has a"):
        read(classes, {"a": ["x", "y"]})


def test_a_target_is_reported_by_each_answer_s_words() -> None:
    presentation = task().problem.presentation
    assert presentation.target(TARGETS[7], LABELS) == "view side; age 61.0 years; findings (none);?grainy"
    assert presentation.target({"age": (61.0,)}, LABELS) == "age 61.0 years"
    assert presentation.opening(LABELS, {"findings": {"thresholds": [0.25, 0.5]}}) == [
        "view: the positive class is side",
        "findings: a label is predicted where its probability is at least its threshold: dark 0.250, grainy 0.500",
    ]


def test_the_audit_searches_no_shortcuts_of_several_answers_and_names_each_once() -> None:
    samples = [
        zooft.Sample(id=str(row), source=np.full((4, 4), row, np.uint8), target=target)
        for row, target in enumerate(TARGETS)
    ]
    found = audit(samples, task().problem, LABELS, lambda one: (one.source,), show=lambda arrays: arrays[0])
    about = (
        "shortcuts are searched where each sample has one of several categories, which isn't so of view, age, findings"
    )
    assert about in found.notes


def test_images_are_not_cropped_where_an_answer_is_of_several_labels() -> None:
    spec = zooft.InputSpec(height=32, width=32, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    cropped = MultitaskOptions(targets_toml=TOML.partition("[targets.findings]")[0])
    edge = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    edge[:, :8] = 255
    seen, unseen = (task().preprocess(task().input(spec, options), options)(edge) for options in (OPTIONS, cropped))
    assert float(seen.max()) > 0.5
    assert float(unseen.max()) < 0


def test_two_heads_are_learnt_from_a_manifest_to_one_verified_file_with_named_outputs(tmp_path: Path) -> None:
    data, run = write(tmp_path / "data"), tmp_path / "run"
    command(
        "finetune",
        "--task",
        "multitask",
        "--targets-file",
        data / "targets.toml",
        "--data",
        data,
        "--out",
        run,
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--epochs",
        "3",
        "--bootstrap",
        "0",
    )
    assert json.loads((run / "verification.json").read_text())["passed"] is True
    session = onnxruntime.InferenceSession(run / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert {"view_probabilities", "age_value", "findings_probabilities", "findings_present"} <= set(names)
    (data / "targets.toml").unlink()  # run and file know what stood in it
    figures = json.loads(command("evaluate", run, "--json", "--bootstrap", "0").stdout)["metrics"]
    of_file = json.loads(
        command("evaluate", run / "model.onnx", "--data", data, "--split", "all", "--json", "--bootstrap", "0").stdout
    )["metrics"]
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = np.stack([np.asarray(example_data.Image.open(data / row["path"])) for row in rows])
    answers = dict(zip(names, session.run(None, {session.get_inputs()[0].name: pictures}), strict=True))
    views = [("front", "side").index(row["view"]) for row in rows]
    known = [number for number, row in enumerate(rows) if row["Age at scan"]]
    assert len(known) == len(rows) / 2
    ages = [float(rows[number]["Age at scan"]) for number in known]
    accuracy = theirs.balanced_accuracy_score(views, answers["view_probabilities"].argmax(1))
    assert of_file["balanced_accuracy/view"]["value"] == pytest.approx(accuracy)
    error = theirs.mean_absolute_error(ages, answers["age_value"].reshape(-1)[known])
    assert of_file["mae/age"]["value"] == pytest.approx(error, rel=1e-4)
    thresholds = json.loads((run / "run.json").read_text())["fitted"]["findings"]["thresholds"]
    with (run / "samples.csv").open(newline="") as file:
        held = {row["id"] for row in csv.DictReader(file) if row["split"] == "val"}
    precisions = []
    for place, name in enumerate(("dark", "grainy")):
        known = [number for number, row in enumerate(rows) if row[name]]
        there = np.array([row[name] == "1" for row in rows])
        given = answers["findings_probabilities"][:, place]
        np.testing.assert_array_equal(answers["findings_present"][:, place], given >= np.float32(thresholds[place]))
        precisions.append(theirs.average_precision_score(there[known], given[known]))
        val = [number for number in known if rows[number]["path"] in held]
        best = max(theirs.f1_score(there[val], given[val] >= line) for line in given[val])
        assert theirs.f1_score(there[val], answers["findings_present"][val, place]) == pytest.approx(best)
    assert of_file["map/findings"]["value"] == pytest.approx(np.mean(precisions))
    assert all(math.isfinite(figure["value"]) for figure in figures.values())
    with (run / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[5:] == [
        "view class",
        "view p(front)",
        "view p(side)",
        "age [years]",
        "findings labels",
        "findings p(dark)",
        "findings p(grainy)",
    ]
    page, shown = (run / "report.html").read_text(), 0
    for row in table:
        view, _, age = row["target"].partition("; findings ")[0].removeprefix("view ").partition("; age ")
        truth = f"true {age}" if age else "true answer unknown"
        lines = (
            f"view: predicted {row['view class']}, true {view}",
            f"age: predicted {float(row['age [years]']):.4g} years, {truth}",
        )
        shown += all(line in page for line in lines)
    assert shown >= min(8, len(table)) > 1
    check_report(page)
    screen = command("predict", run / "model.onnx", data / "img" / "1.png")
    assert re.search(r"file +view +age +findings", screen.stdout)
    given = json.loads(command("predict", run / "model.onnx", data / "img" / "1.png", "--format", "json").stdout)
    assert given["findings"]["thresholds"] == dict(zip(("dark", "grainy"), thresholds, strict=True))


def check_report(page: str) -> None:
    """Each answer has a heading in the results and one among the Grad-CAMs, with what its own problem shows."""
    results, _, rest = page.partition('id="results-val"')[2].partition("</section>")
    heats = rest.partition('id="gradcam"')[2].partition("</section>")[0]
    for shown in (results, heats):
        assert re.findall("<h3>(.*?)</h3>", shown) == ["view", "age", "findings"]
    views, ages, findings = results.split("<h3>")[1:]
    assert "Confusion per sample" in views
    assert "ROC curve" in views
    assert "Errors, predicted less true" in ages
    assert "age: predicted and true" in ages
    assert "Per label" in findings
    assert "Precision and recall" in findings
    assert "score is the mean of" in results.lower()
    for shown in heats.split("<h3>")[1:]:
        assert 0 < shown.count("<figure") <= 3
        assert shown.count("<img") == 2 * shown.count("<figure")
    curves = rest.partition('id="learning"')[2].partition("</section>")[0]
    for name in ("Score", "Balanced accuracy of view", "R2 of age", "mAP of findings"):
        assert f">{name}</text>" in curves
    assert "MAE of age</text>" not in curves
    ids = re.findall(r'<(?:g|path|clipPath|use)[^>]* id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
