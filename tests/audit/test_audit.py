"""Leaks and shortcuts that are there are found, and none where there are none; by construction or scikit-learn."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

import zooft
from zooft import Sample
from zooft.audit import Audit, Finding, audit, duplicates, pairs_to_show, shortcuts, thumbnails
from zooft.cli import zooft as command
from zooft.errors import DataError
from zooft.run.folder import to_json
from zooft.storage.cache import Store
from zooft_images.discover import discover
from zooft_images.options import ClassificationOptions

CLASSES = ("ant", "bee")
LABELS = zooft.class_labels(CLASSES)
PROBLEM = zooft.classification()
Arrays = tuple[NDArray[Any], ...]


def scene(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """Blobs of several sizes, different for each seed, ``(H, W, 3)``."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for cells in (4, 8, 16, 32):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.clip((total / 4 - 128) * 2 + 128, 0, 255).astype(np.uint8)


def jpeg(picture: NDArray[np.uint8], quality: int = 40) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def halved(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[0] * 3 // 4, picture.shape[1] * 3 // 4
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def brightened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(picture)).enhance(1.15))


def sample(name: str, picture: Any, target: int = 0, **more: Any) -> zooft.Sample:
    return zooft.Sample(id=name, source=picture, target=target, **more)


def look(samples: Sequence[zooft.Sample], classes: Sequence[str] = CLASSES, **more: Any) -> Audit:
    labels = zooft.class_labels(classes)
    return audit(samples, PROBLEM, labels, lambda one: (one.source,), show=lambda arrays: arrays[0], **more)


def of_kind(found: Audit, kind: str) -> list[Finding]:
    return [finding for finding in found.findings if finding.kind == kind]


def only(found: Audit, kind: str) -> Finding:
    (finding,) = of_kind(found, kind)
    return finding


def with_facts(facts: Sequence[Mapping[str, str | float]], targets: Sequence[int], per_group: int = 1) -> Audit:
    """An audit of samples without pictures of their own."""
    samples = [
        sample(f"s{index:03}", np.full((2, 2), index), target, group=f"g{index // per_group}", facts=fact)
        for index, (fact, target) in enumerate(zip(facts, targets, strict=True))
    ]
    return look(samples)


def row(found: Audit, name: str) -> Any:
    (chosen,) = [row for row in found.facts if row.name == name]
    return chosen


# equal images


def test_one_image_under_two_labels_is_an_error_that_names_both() -> None:
    found = look([sample("a", scene(1), 0), sample("b", scene(1).copy(), 1), sample("c", scene(2), 1)])
    finding = only(found, "contradictory_labels")
    assert (finding.severity, finding.pairs, finding.count) == ("error", (("a", "b"),), 2)
    assert found.failed
    assert pairs_to_show(found) == (("a", "b", "one image under two labels"),)


def test_equal_images_on_both_sides_of_the_datas_own_split_are_an_error() -> None:
    found = look([sample("a", scene(1), split="train"), sample("b", scene(1), split="val")])
    assert [(f.severity, f.pairs) for f in of_kind(found, "exact_duplicates")] == [("error", (("a", "b"),))]


def test_equal_images_on_both_sides_of_a_made_split_are_an_error() -> None:
    found = look([sample("a", scene(1)), sample("b", scene(1))], splits=["train", "val"])
    assert only(found, "exact_duplicates").severity == "error"


def test_equal_images_in_two_groups_are_a_warning() -> None:
    found = look([sample("a", scene(1), group="x"), sample("b", scene(1), group="y")])
    assert only(found, "exact_duplicates").severity == "warning"
    assert not found.failed


def test_equal_images_of_one_group_are_good_to_know() -> None:
    found = look([sample(name, scene(1), group="x", split="train") for name in "abc"])
    finding = only(found, "exact_duplicates")
    assert (finding.severity, finding.count, finding.pairs) == ("info", 3, (("a", "b"),))
    assert finding.text.startswith("1 image present more than once (3 samples)")


def test_equal_bytes_of_another_shape_or_type_are_no_duplicate() -> None:
    level = np.zeros((4, 8), dtype=np.uint8)
    found = look([sample("a", level), sample("b", level.reshape(8, 4)), sample("c", level.view(np.int8))])
    assert not of_kind(found, "exact_duplicates")


def test_every_array_of_a_sample_counts() -> None:
    spacing = {"a": 0.7, "b": 0.8, "c": 0.7}
    samples = [sample(name, scene(1)) for name in spacing]
    found = audit(
        samples, PROBLEM, LABELS, lambda one: (one.source, np.array([spacing[one.id]])), show=lambda arrays: arrays[0]
    )
    assert only(found, "exact_duplicates").pairs == (("a", "c"),)


def test_at_most_twenty_samples_and_pairs_are_named_and_all_are_counted() -> None:
    samples = [sample(f"{seed}-{copy}", scene(seed)) for seed in range(25) for copy in "ab"]
    finding = only(look(samples), "exact_duplicates")
    assert (len(finding.samples), len(finding.pairs), finding.count) == (20, 20, 50)


# nearly equal images


@pytest.mark.parametrize("change", [jpeg, halved, brightened])
def test_a_changed_copy_is_a_near_duplicate(change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
    samples = [sample(f"{seed:02}", scene(seed)) for seed in range(12)]
    finding = only(look([*samples, sample("copy", change(scene(7)))]), "near_duplicates")
    assert (finding.severity, finding.pairs) == ("info", (("07", "copy"),))


def test_a_near_duplicate_across_splits_labels_or_groups_is_a_warning() -> None:
    copies: list[dict[str, Any]] = [
        {"split": "val"},
        {"target": 1, "split": "train"},
        {"group": "y", "split": "train"},
    ]
    for copy in copies:
        original = sample("a", scene(1), group="x", split="train")
        found = look([original, sample("b", jpeg(scene(1)), **copy)])
        assert only(found, "near_duplicates").severity == "warning", copy


def test_near_duplicates_within_a_group_are_natural() -> None:
    found = look([sample("a", scene(1), group="x", split="train"), sample("b", jpeg(scene(1)), group="x")])
    assert not of_kind(found, "near_duplicates")


def test_an_equal_copy_is_not_reported_again_as_a_near_one() -> None:
    assert not of_kind(look([sample("a", scene(1)), sample("b", scene(1))]), "near_duplicates")


def test_empty_images_are_near_to_nothing() -> None:
    empty = [np.full((80, 80), level, dtype=np.uint8) for level in range(0, 250, 10)]
    assert not of_kind(look([sample(str(i), picture) for i, picture in enumerate(empty)]), "near_duplicates")


def test_small_pictures_and_other_types_are_left_out_and_that_is_reported() -> None:
    found = look(
        [sample("a", scene(1, side=32)), sample("b", jpeg(scene(1, side=32))), sample("c", np.zeros((99, 99)))]
    )
    assert not of_kind(found, "near_duplicates")
    assert "weren't searched among 3 samples" in found.notes[0]


def test_samples_without_a_picture_in_between_move_no_pair() -> None:
    small = [sample(f"small {number}", scene(number, side=32)) for number in range(3)]
    found = look(
        [small[0], sample("a", scene(1)), small[1], sample("b", jpeg(scene(1))), small[2], sample("c", scene(2))]
    )
    assert only(found, "near_duplicates").pairs == (("a", "b"),)
    assert only(found, "near_duplicates").samples == ("a", "b")


def test_the_coarse_comparison_misses_no_pair_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (10, 64, 64))
    noise = rng.normal(0, 1, (40, 64, 64)) * np.linspace(1, 30, 40)[:, None, None]
    pictures = np.clip(base[np.arange(40) % 10] + noise, 0, 255).astype(np.uint8)
    found = {
        (int(i), int(j))
        for _, rows, columns in duplicates.pairs_alike(pictures, zooft.unseen)
        for i, j in zip(rows, columns, strict=True)
    }
    blurs = (duplicates.SHAPES, duplicates.FINE)
    correlation = np.min([np.corrcoef(duplicates.details(pictures, blur)[0]) for blur in blurs], axis=0)
    assert found == {(int(i), int(j)) for i, j in np.argwhere(np.triu(correlation, 1) >= duplicates.ALIKE)}
    assert 10 < len(found) < 200


# shortcuts


def test_a_fact_that_predicts_the_class_is_warned_of() -> None:
    targets = [index % 2 for index in range(80)]
    found = with_facts([{"format": "JPEG" if target else "PNG", "mode": "RGB"} for target in targets], targets)
    finding = only(found, "shortcut")
    assert (finding.severity, finding.auroc) == ("warning", 1.0)
    assert finding.text.startswith("format alone predicts the class with AUROC 1.00 (1.00 to 1.00)")
    assert row(found, "format").shortcut
    assert (row(found, "mode").values, row(found, "mode").auroc) == (1, None)


def test_a_number_predicts_the_class_from_both_ends() -> None:
    rng = np.random.default_rng(0)
    widths = rng.uniform(100, 1000, 200)
    targets = [int(abs(width - 550) > 225) for width in widths]
    found = with_facts([{"width": float(width)} for width in widths], targets)
    assert row(found, "width").kind == "number"
    assert row(found, "width").auroc > 0.9


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_what_is_not_stated_can_be_the_shortcut(missing: Any) -> None:
    rng = np.random.default_rng(0)
    targets = [index % 2 for index in range(80)]
    stated = [float(age) for age in rng.uniform(20, 90, 80)]
    facts = [
        {"age": age} if target else ({} if missing is None else {"age": missing})
        for age, target in zip(stated, targets, strict=True)
    ]
    found = with_facts(facts, targets)
    assert row(found, "age").auroc == 1.0
    assert row(found, "age").stated == 40


@pytest.mark.parametrize("per_group", [1, 4])
def test_facts_that_say_nothing_stand_near_one_half_and_arent_warned_of(per_group: int) -> None:
    figures = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        facts = [{"maker": str(rng.choice(["A", "B", "C"])), "age": float(rng.uniform(20, 90))} for _ in range(200)]
        found = with_facts(facts, [int(t) for t in rng.integers(0, 2, 200)], per_group)
        assert not of_kind(found, "shortcut")
        figures += [row.auroc for row in found.facts]
    assert np.mean(figures) == pytest.approx(0.5, abs=0.02)


def test_a_fact_that_only_names_the_group_predicts_nothing_of_other_groups() -> None:
    targets = [index // 4 % 2 for index in range(160)]
    found = with_facts([{"room": f"room {index // 4}"} for index in range(160)], targets, per_group=4)
    assert row(found, "room").auroc == pytest.approx(0.5, abs=0.1)


def test_facts_that_predict_the_class_only_together_are_warned_of() -> None:
    rng = np.random.default_rng(3)
    targets = rng.integers(0, 2, 300)
    facts = [{name: "yes" if rng.random() < 0.5 + 0.1 * (2 * t - 1) else "no" for name in "abcdef"} for t in targets]
    found = with_facts(facts, targets.tolist())
    assert not any(row.shortcut for row in found.facts if row.name != shortcuts.TOGETHER)
    assert only(found, "shortcut").text.startswith("all facts together predict the class")


def test_a_rare_value_that_only_one_class_has_is_warned_of() -> None:
    targets = [index % 2 for index in range(200)]
    found = with_facts([{"tag": "stated" if index % 2 and index < 24 else "none"} for index in range(200)], targets)
    finding = only(found, "shortcut")
    assert row(found, "tag").auroc < shortcuts.TELLING
    assert finding.text.startswith("tag stated: all 12 samples are bee")
    assert finding.count == 12


def test_a_value_of_one_class_in_few_groups_is_chance() -> None:
    targets = [index // 12 % 2 for index in range(240)]
    facts = [{"tag": "stated" if index < 24 and targets[index] else "none"} for index in range(240)]
    assert not of_kind(with_facts(facts, targets, per_group=12), "shortcut")


def test_several_classes_are_evaluated_one_against_the_rest() -> None:
    targets = [index % 3 for index in range(90)]
    samples = [
        sample(str(i), np.full((2, 2), i), t, facts={"mode": "L" if t == 2 else "RGB"}) for i, t in enumerate(targets)
    ]
    found = look(samples, ("a", "b", "c"))
    assert row(found, "mode").auroc == pytest.approx((0.75 + 0.75 + 1.0) / 3)


def test_too_few_groups_of_a_class_are_not_evaluated_and_that_is_reported() -> None:
    found = with_facts([{"mode": "L" if index % 2 else "RGB"} for index in range(8)], [index % 2 for index in range(8)])
    assert row(found, "mode").auroc is None
    assert "too few groups of a class to test mode" in found.notes


def test_a_task_without_facts_is_reported() -> None:
    assert "shortcuts weren't searched" in look([sample("a", scene(1))]).notes[0]


def test_the_auroc_equals_scikit_learns_in_every_fold_and_resample() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    targets, fold = rng.integers(0, 3, 120), np.zeros((120, 1), dtype=np.int64)
    scores = np.round(rng.dirichlet(np.ones(3), 120), 1)
    groups = np.arange(120) // 3
    drawn = rng.integers(0, 40, 40)
    weights = np.stack([np.ones(40, dtype=np.int64), np.bincount(drawn, minlength=40)], axis=1)
    rows = np.concatenate([np.flatnonzero(groups == group) for group in drawn])
    got = shortcuts.aurocs(targets, fold, scores[:, :, None], groups, weights)
    expected = [
        np.mean([roc_auc_score(targets[chosen] == k, scores[chosen, k]) for k in range(3)])
        for chosen in (np.arange(120), rows)
    ]
    assert got == pytest.approx(expected)


def test_the_auroc_compares_only_within_folds() -> None:
    targets = np.array([0, 1, 0, 1])
    scores = np.array([0.6, 0.7, 0.1, 0.2])  # in order in each fold, but not across
    columns = np.stack([1 - scores, scores], axis=1)[:, :, None]
    folds = np.array([[0], [0], [1], [1]])
    assert shortcuts.aurocs(targets, folds, columns, np.arange(4), np.ones((4, 1), dtype=np.int64))[0] == 1.0


def test_equal_seeds_give_equal_audits() -> None:
    rng = np.random.default_rng(0)
    facts = [{"maker": str(rng.choice(["A", "B"]))} for _ in range(60)]
    first, second = (with_facts(facts, [index % 2 for index in range(60)]) for _ in range(2))
    assert first == second


# groups and classes


def test_groups_on_both_sides_of_the_split_are_an_error_named_by_samples_only() -> None:
    names = {"a": ("Jane Doe", "train"), "b": ("Jane Doe", "val"), "c": ("John Roe", "val")}
    found = look([sample(k, scene(i), group=g, split=s) for i, (k, (g, s)) in enumerate(names.items())])
    finding = only(found, "torn_groups")
    assert (finding.severity, finding.samples, finding.count) == ("error", ("a", "b"), 2)
    assert "Doe" not in json.dumps(to_json(found))


def test_groups_with_several_labels_are_counted() -> None:
    found = look([sample("a", scene(1), 0, group="x"), sample("b", scene(2), 1, group="x"), sample("c", scene(3), 1)])
    finding = only(found, "mixed_groups")
    assert (finding.severity, finding.samples) == ("info", ("a", "b"))
    assert finding.text.startswith("1 group of 1 (2 samples) with several labels")


def test_samples_without_a_group_are_reported() -> None:
    found = look([sample("a", scene(1), group="x"), sample("b", scene(2))])
    assert only(found, "unknown_groups").samples == ("b",)
    assert "none of the samples names a group" in only(look([sample("a", scene(1))]), "unknown_groups").text


def test_classes_that_a_split_leaves_out_are_warned_of() -> None:
    in_train = [sample(str(i), scene(i), i % 2, split="train") for i in range(4)]
    found = look([*in_train, sample("v", scene(9), 0, split="val")])
    finding = only(found, "absent_classes")
    assert finding.severity == "warning"
    assert finding.text == "val has no samples of class bee, so its figures don't cover it"
    whole = look([*in_train, sample("v", scene(9), 0, split="val"), sample("w", scene(8), 1, split="val")])
    assert not [each for each in whole.findings if each.kind == "absent_classes"]


def test_tiny_and_unequal_classes_are_reported() -> None:
    found = look([sample(str(i), np.full((2, 2), i), int(i == 0)) for i in range(12)])
    assert only(found, "tiny_classes").text.startswith("fewer than 10 samples of bee (1)")
    assert "11 samples, the rarest 1" in only(found, "imbalance").text


# reading


def test_what_cant_be_read_is_reported_and_the_rest_is_checked() -> None:
    def read(one: zooft.Sample) -> Arrays:
        if one.id == "torn":
            raise zooft.DataError("the last row is missing")
        if one.id == "broken":
            raise ValueError("/home/jane/doe.dcm")
        return (one.source,)

    samples = [sample(name, scene(1)) for name in ("a", "torn", "b", "broken")]
    found = audit(samples, PROBLEM, LABELS, read, show=lambda arrays: arrays[0])
    finding = only(found, "unreadable")
    assert (finding.severity, finding.samples, found.samples) == ("warning", ("torn", "broken"), 2)
    assert only(found, "exact_duplicates").pairs == (("a", "b"),)
    assert "jane" not in json.dumps(to_json(found))


def test_progress_comes_to_its_end() -> None:
    done: dict[str, list[int]] = {}
    totals: dict[str, int] = {}
    lock = threading.Lock()

    def computing(title: str, total: int) -> Callable[[int], None]:
        totals[title] = total
        units = done.setdefault(title, [])

        def advance(number: int) -> None:
            with lock:
                units.append(number)

        return advance

    look([sample(str(seed), scene(seed), facts={"a": 1.0}) for seed in range(5)], computing=computing)
    assert {title: sum(units) for title, units in done.items()} == totals
    assert totals["reading the samples"] == 5


def test_an_audit_is_json() -> None:
    targets = [index % 2 for index in range(40)]
    found = with_facts([{"format": "JPEG" if target else "PNG"} for target in targets], targets)
    plain = json.loads(json.dumps(to_json(found)))
    assert {"findings", "facts", "samples", "notes"} == set(plain)
    assert plain["findings"][0]["auroc"] == 1.0


# the task classification, and the command


def test_files_state_their_facts(tmp_path: Path) -> None:
    example_data.save(tmp_path / "ant" / "a.png")
    exif = Image.Exif()
    exif[0x0110] = "camera"
    (tmp_path / "bee").mkdir()
    Image.fromarray(scene(1)[:48, :, 0]).save(tmp_path / "bee" / "b.jpg", exif=exif)
    png, jpg = (dict(one.facts) for one in discover(tmp_path, ClassificationOptions()).samples)
    assert (png["format"], png["mode"], png["exif"]) == ("PNG", "RGB", "none")
    assert (jpg["format"], jpg["mode"], jpg["exif"]) == ("JPEG", "L", "there")
    assert (jpg["width"], jpg["height"], jpg["aspect"]) == (96.0, 48.0, 2.0)
    size = (tmp_path / "bee" / "b.jpg").stat().st_size
    assert jpg["bytes_per_pixel"] == pytest.approx(size / (96 * 48), abs=1e-4)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, ["audit", *map(str, arguments)])


def test_the_command_reports_findings_and_fails_where_there_is_an_error(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "data", {"dark": 12, "light": 12})
    clean = run(tmp_path / "data", "--task", "classification", "--colour", "grey")
    assert clean.exit_code == 0, clean.output
    assert "samples compared: 24; errors: 0" in clean.output
    (tmp_path / "data" / "light" / "copy.png").write_bytes((tmp_path / "data" / "dark" / "03.png").read_bytes())
    out = tmp_path / "audit.json"
    found = run(tmp_path / "data", "--task", "classification", "--out", out)
    assert found.exit_code == 1
    assert "dark/03.png and light/copy.png" in found.output
    assert json.loads(out.read_text(encoding="utf-8"))["findings"][0]["kind"] == "contradictory_labels"


def test_the_command_prints_json_alone(tmp_path: Path) -> None:
    example_data.write_classes(tmp_path, {"dark": 3, "light": 3})
    plain = json.loads(run(tmp_path, "--task", "classification", "--json").stdout)
    assert plain["samples"] == 6
    assert plain["facts"][0]["name"] == "aspect"


def test_slices_of_different_drawn_patients_are_no_copies_of_each_other() -> None:
    phantom = pytest.importorskip("zooft_ct.phantom")
    rng = np.random.default_rng(0)
    samples = [
        sample(f"{patient}/{z}", hu, group=f"patient {patient}")
        for patient in range(8)
        for z, hu in enumerate(phantom.scan(rng, size=phantom.Size(), nodules=None).hu)
    ]
    found = audit(samples, PROBLEM, LABELS, lambda one: (one.source,), show=lung_window)
    assert not of_kind(found, "near_duplicates")


# real data


def test_photographs_of_ants_and_bees_have_no_copies_and_their_changed_copies_are_found() -> None:
    folder = example_data.real("hymenoptera") / "val"
    samples = discover(folder, ClassificationOptions()).samples

    def read(one: zooft.Sample) -> Arrays:
        return (np.asarray(Image.open(one.source).convert("RGB")),)

    assert not of_kind(audit(samples, PROBLEM, LABELS, read, show=lambda arrays: arrays[0]), "near_duplicates")
    chosen = samples[::10]
    changed = [sample(f"copy of {one.id}", jpeg(halved(read(one)[0])), one.target) for one in chosen]
    found = audit(
        [*samples, *changed],
        PROBLEM,
        LABELS,
        lambda one: read(one) if isinstance(one.source, Path) else (one.source,),
        show=lambda arrays: arrays[0],
    )
    assert set(only(found, "near_duplicates").pairs) == {(one.id, f"copy of {one.id}") for one in chosen}


def real_ct() -> list[zooft.Sample]:
    folder = example_data.real("siim_ct")
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        sample(
            line["path"][6:13],
            folder / line["path"],
            int(line["label"] == "contrast"),
            group=line["patient"],
            facts={
                "manufacturer": line["manufacturer"],
                "body_part": line["body_part"],
                "age": float(line["age"]),
                "contrast": "stated" if line["contrast_agent_tag"] else "none",
            },
        )
        for line in rows
    ]


def lung_window(arrays: Arrays) -> NDArray[np.uint8]:
    return (np.clip((arrays[0] + 1350) / 1500, 0, 1) * 255).astype(np.uint8)


def test_real_ct_slices_give_their_six_pairs_nine_mixed_patients_and_shortcuts() -> None:
    pydicom = pytest.importorskip("pydicom")

    def read(one: zooft.Sample) -> Arrays:
        slice_ = pydicom.dcmread(one.source)
        return (np.round(slice_.pixel_array * float(slice_.RescaleSlope) + float(slice_.RescaleIntercept)),)

    found = audit(real_ct(), PROBLEM, zooft.class_labels(("no_contrast", "contrast")), read, show=lung_window)
    assert set(only(found, "exact_duplicates").pairs) == {
        ("ID_0003", "ID_0006"),
        ("ID_0010", "ID_0013"),
        ("ID_0032", "ID_0034"),
        ("ID_0065", "ID_0066"),
        ("ID_0084", "ID_0085"),
        ("ID_0098", "ID_0099"),
    }
    assert not of_kind(found, "near_duplicates")
    assert only(found, "mixed_groups").text.startswith("9 groups of 54")
    together, tag = of_kind(found, "shortcut")
    assert together.auroc is not None
    assert together.auroc > 0.65
    assert all(name in together.text for name in ("manufacturer", "body_part", "contrast"))
    assert tag.text.startswith("contrast stated: all 12 samples are contrast")
    assert "manufacturer 0.6" in only(found, "hint").text
    assert not row(found, "age").shortcut


def test_thumbnails_of_before_are_used_and_nothing_is_read_again(tmp_path: Path) -> None:
    """The third sample can't be read, the fourth is too small for a picture."""
    sizes = {"a": 70, "b": 70, "c": 0, "d": 20}
    samples = [Sample(id=name, source=name, target=0) for name in sizes]
    reads: list[str] = []

    def read(sample: Sample) -> tuple[NDArray[Any], ...]:
        reads.append(sample.id)
        if not sizes[sample.id]:
            raise DataError("torn")
        side = sizes[sample.id]
        return (np.random.default_rng(ord(sample.id)).integers(0, 256, (side, side, 3), dtype=np.uint8),)

    def seen(*, cached: bool) -> Any:
        with Store(tmp_path, 2**20).shelf({"what": "looks"}) as shelf:
            memory = thumbnails.ThumbnailCache(shelf, lambda sample: f"{ord(sample.id):064x}") if cached else None
            return thumbnails.make(samples, read, lambda arrays: arrays[0], lambda _n: None, memory)

    def plain(found: Any) -> Any:
        columns = (found.rows, found.digests, found.pictured, found.pictures)
        return [s.id for s in found.samples], [column.tolist() for column in columns], found.unread

    fresh, first, second = plain(seen(cached=False)), plain(seen(cached=True)), plain(seen(cached=True))
    assert fresh == first == second
    assert sorted(reads) == sorted([*"abcd", *"abcd", "c"])
