"""One run teaches another: whole runs, what the teacher computes, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import example_data
import numpy as np
import pytest
import torch
from example_data import write_classes
from listeners import SMALL
from safetensors.torch import load_file

import zooft
from zooft.errors import ConfigError, DataError, RunError
from zooft.features import teaching
from zooft.pipeline.reporter import LoggingReporter
from zooft.run.record import read_record, update_record
from zooft.storage import csv_files

STUDENT: dict[str, Any] = {**SMALL, "backbone": "timm:test_vit", "bootstrap": 0}
WAYS: dict[str, dict[str, Any]] = {
    "head": {},
    "head, augmented": {"augment": "light"},
    "all, augmented, features": {"freeze": "none", "augment": "light", "views": 2, "distill_features": 0.5},
    "gradual": {"freeze": "gradual:1", "augment": "light", "views": 1, "epochs": 3},
}
EACH = [pytest.param(way, marks=pytest.mark.slow if "all" not in way else ()) for way in WAYS]


class Heard(LoggingReporter):
    """What a run computed, by title, and its notes; interrupts after some epochs."""

    def __init__(self, until: int = 0) -> None:
        self.computed, self.notes, self.until = Counter[str](), list[str](), until

    def computing(self, title: str, total: int) -> Any:
        """Counts what is done."""

        def advance(done: int) -> None:
            self.computed[title] += done

        return advance

    def note(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)

    def epoch(self, record: zooft.EpochRecord, epochs: int) -> None:
        """Ends the run."""
        if record.epoch == self.until:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("data") / "pictures", {"dark": 14, "light": 13})


@pytest.fixture(scope="module")
def teacher(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of other size and normalisation than the student; its split is that of another seed."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    given = {**SMALL, "backbone": "timm:resnet10t", "epochs": 3, "lr": 0.05, "seed": 7, "bootstrap": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOOFT_CACHE", str(tmp_path_factory.mktemp("store")))
        return zooft.finetune(**given, data=pictures, out=out).path


def train(out: Path, data: Path, *, until: int = 0, **values: Any) -> tuple[zooft.FinetuneResult, Heard]:
    heard = Heard(until)
    return zooft.finetune(reporter=heard, **{**STUDENT, "data": data, "out": out, **values}), heard


def split_of(run: Path) -> dict[str, str]:
    return {row["id"]: row["split"] for row in csv_files.read(run / "samples.csv")}


def curve(run: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{**line, "seconds": 0} for line in lines]


def assert_same_bits(one: Path, other: Path) -> None:
    assert curve(one) == curve(other)
    for name in ("model.safetensors", "last/model.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


# What is learnt


def test_the_loss_of_a_run_is_that_of_the_two_models_as_timm_runs_them(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    """In one step with a learning rate of nothing: the weights that are saved are those that it was computed with."""
    import timm
    from PIL import Image
    from scipy.special import log_softmax, softmax

    result, _ = train(
        tmp_path / "run",
        pictures,
        distill=teacher,
        epochs=1,
        batch_size=64,
        lr=1e-12,
        distill_weight=0.8,
        temperature=2.0,
    )
    files = [name for name, split in split_of(result.path).items() if split == "train"]
    targets = np.array([name.startswith("light") for name in files], int)

    def logits(name: str, run: Path) -> Any:
        model = timm.create_model(name, num_classes=2)
        model.load_state_dict(load_file(run / "model.safetensors"), strict=True)
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
        images = [transform(Image.open(pictures / file).convert("RGB")) for file in files]
        with torch.inference_mode():
            return model.eval()(torch.stack(images)).double().numpy()

    ours, theirs = logits("test_vit", result.path), logits("resnet10t", teacher)
    assert np.abs(ours - theirs).max() > 0.1
    truth = -log_softmax(ours, axis=1)[np.arange(len(files)), targets].mean()
    p, q = softmax(theirs / 2, axis=1), softmax(ours / 2, axis=1)
    far = 4 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    assert curve(result.path)[0]["train_loss"] == pytest.approx(0.2 * truth + 0.8 * far, rel=0.02)


def test_a_student_that_hears_the_teacher_alone_comes_to_answer_as_it_does(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    """Labels are turned around for the student, and have no share in its loss."""
    turned = write_classes(tmp_path / "turned", {})
    for ours, theirs in (("dark", "light"), ("light", "dark")):
        shutil.copytree(pictures / theirs, turned / ours)
    alike = {"distill": teacher, "epochs": 15, "lr": 0.05}
    result, _ = train(tmp_path / "run", pictures, **alike, distill_weight=1.0)
    assert result.evaluations["val"].metrics["accuracy"].value == 1.0
    with pytest.raises(DataError, match="by content"):
        train(tmp_path / "other", turned, **alike, distill_weight=1.0)


@pytest.mark.parametrize("way", EACH)
def test_a_weight_of_0_is_the_run_without_a_teacher_to_the_bit(
    way: str, pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    own = {**WAYS[way], "seed": 7}  # whose split is the teacher's
    own.pop("distill_features", None)
    alone, _ = train(tmp_path / "alone", pictures, **own)
    taught, heard = train(tmp_path / "taught", pictures, **own, distill=teacher, distill_weight=0.0)
    assert_same_bits(alone.path, taught.path)
    assert heard.computed["the teacher, once"] == 0
    other, _ = train(tmp_path / "other", pictures, **own, distill=teacher)
    assert curve(other.path) != curve(alone.path)


# What is computed


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples of each batch that a teacher answers."""
    seen: list[int] = []
    own = teaching._Answering.__call__

    def counted(self: Any, x: torch.Tensor) -> Any:
        seen.append(len(x))
        return own(self, x)

    monkeypatch.setattr(teaching._Answering, "__call__", counted)
    return seen


@pytest.mark.parametrize(
    ("way", "views"),
    [
        ({"epochs": 4}, 1),
        ({"epochs": 4, "augment": "light"}, 1 + 4),
        ({"epochs": 4, "augment": "light", "freeze": "none", "views": 2, "distill_features": 1.0}, 1 + 2),
        ({"epochs": 4, "augment": "light", "freeze": "none", "views": 2, "cache": False}, 1 + 2),
        ({"epochs": 4, "freeze": "gradual:1", "augment": "light", "views": 2, "cache": False}, 1 + 2),
        ({"epochs": 2, "sweep": True}, 1),
    ],
    ids=["head", "head, augmented", "all", "without a cache", "gradual, without a cache", "sweep"],
)
def test_the_teacher_sees_each_view_of_a_sample_once(
    way: dict[str, Any], views: int, pictures: Path, teacher: Path, tmp_path: Path, forward: list[int]
) -> None:
    result, heard = train(tmp_path / "run", pictures, distill=teacher, **way)
    count = Counter(split_of(result.path).values())["train"]
    assert sum(forward) == heard.computed["the teacher, once"] == count * views


def test_a_second_student_computes_nothing_of_the_teacher(
    pictures: Path, teacher: Path, tmp_path: Path, forward: list[int]
) -> None:
    train(tmp_path / "first", pictures, distill=teacher)
    assert sum(forward) > 0
    forward.clear()
    train(tmp_path / "second", pictures, distill=teacher, backbone="timm:test_resnet", lr=0.001, temperature=1.0)
    assert sum(forward) == 0


def test_folds_ask_the_teacher_once_for_all_of_them(
    pictures: Path, tmp_path: Path, forward: list[int], teacher: Path
) -> None:
    """A teacher that has learnt from other pictures."""
    write_classes(tmp_path / "other", {})
    for name, level in example_data.LEVELS.items():
        for index in range(8):
            example_data.save(tmp_path / "other" / name / f"{index}-b.png", level, seed=500 + index)
    elsewhere, _ = train(tmp_path / "elsewhere", tmp_path / "other")
    train(tmp_path / "run", pictures, distill=elsewhere.path, folds=3, cache=False)
    assert sum(forward) == 27


def test_without_a_cache_nothing_is_written_and_the_result_is_the_same(
    pictures: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"freeze": "none", "augment": "light", "views": 2, "distill": teacher, "precision": "fp32"}
    stored, _ = train(tmp_path / "stored", pictures, **own)
    monkeypatch.setenv("ZOOFT_CACHE", str(tmp_path / "unused"))
    plain, _ = train(tmp_path / "plain", pictures, **own, cache=False)
    assert not (tmp_path / "unused").exists()
    one, other = curve(stored.path), curve(plain.path)
    assert [line["train_loss"] for line in one] == pytest.approx([line["train_loss"] for line in other], rel=1e-3)


def test_student_and_teacher_see_the_same_crops(teacher: Path, tmp_path: Path) -> None:
    """The teacher's view, made smaller, is the student's but for how the two resize."""
    import torch.nn.functional as F
    from PIL import Image

    from zooft.deploy import saved
    from zooft.hooks import registry
    from zooft.model.backbone import load_backbone
    from zooft.pipeline import plan as plans
    from zooft.pipeline import teacher as teachers
    from zooft.pipeline import training

    slope = np.add.outer(np.arange(300), 2 * np.arange(400)) / 1100 * 255  # no two crops of it are alike
    for name in ("dark", "light"):
        (tmp_path / name).mkdir()
        Image.fromarray(slope.astype(np.uint8)).convert("RGB").save(tmp_path / name / "0.png")
    found = registry.load()
    plan = plans.resolve(found, {**STUDENT, "data": tmp_path, "augment": "light", "distill": teacher})
    opened = saved.open_run(teacher, found)
    samples = plan.task.discover(tmp_path, plan.options).samples
    backbone = load_backbone(plan.family, plan.model, weights="random", sources=())
    augment = plan.task.augment(backbone.input, plan.options)
    mean, std = (torch.tensor(values)[:, None, None] for values in (opened.input.mean, opened.input.std))
    ours = training._views(plan, backbone, opened.labels, samples, augment=augment)
    theirs = teachers._views(plan, opened, backbone, samples, augmented=True)

    def levels(view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of both on the scale 0 to 1, averaged in squares of 16 pixels of the student's."""
        one, other = (each.with_view(view)[0][0] for each in (ours, theirs))
        assert (one.shape[-2:], other.shape[-2:]) == ((160, 160), (176, 176))
        small = F.interpolate((other * std + mean)[None], (160, 160), mode="bilinear", antialias=True)[0]
        return F.avg_pool2d(one * 0.5 + 0.5, 16), F.avg_pool2d(small, 16)

    seen = [levels(view) for view in (1, 2, 3, 4)]
    assert max(float((one - other).abs().max()) for one, other in seen) < 0.02
    assert min(float((seen[i][0] - seen[i - 1][1]).abs().max()) for i in range(4)) > 0.05


# What is resumed


@pytest.mark.parametrize("way", EACH)
def test_a_resumed_run_ends_as_an_unbroken_one(way: str, pictures: Path, teacher: Path, tmp_path: Path) -> None:
    own = {**WAYS[way], "distill": teacher, "epochs": 4}
    unbroken, _ = train(tmp_path / "unbroken", pictures, **own)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", pictures, **own, until=2)
    zooft.finetune(resume=tmp_path / "run", reporter=Heard())
    assert_same_bits(tmp_path / "run", unbroken.path)


def test_another_teacher_or_none_is_not_resumed_with(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", pictures, distill=teacher, epochs=3, until=1)
    other = shutil.copytree(teacher, tmp_path / "other")
    tensors = {name: tensor + 1 for name, tensor in load_file(other / "model.safetensors").items()}
    from safetensors.torch import save_file

    save_file(tensors, other / "model.safetensors")
    with pytest.raises(RunError, match="begun with another teacher: timm:resnet10t"):
        zooft.finetune(resume=tmp_path / "run", distill=other)
    zooft.finetune(resume=tmp_path / "run", distill=teacher)
    with pytest.raises(ConfigError, match="give --distill as when it was started"):
        zooft.finetune(resume=tmp_path / "run", epochs=5)
    longer = zooft.finetune(resume=tmp_path / "run", epochs=5, distill=teacher, out=tmp_path / "longer")
    assert len(curve(longer.path)) == 5


def test_a_private_task_leaves_no_path_of_the_teacher(pictures: Path, teacher: Path) -> None:
    from dataclasses import replace

    from zooft.hooks import registry
    from zooft.pipeline import plan, resume

    requested = plan.resolve(registry.load(), {**STUDENT, "data": pictures, "distill": teacher})
    assert resume.local_settings(requested)["distill"] == str(teacher.resolve())
    private = resume.local_settings(replace(requested, task=replace(requested.task, private=True)))
    assert "distill" not in private
    assert private["asked_again"] == ["distill"]


# What the teacher has seen


def test_the_teacher_s_split_is_taken_over_where_the_data_is_its_own(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    result, heard = train(tmp_path / "run", pictures, distill=teacher, seed=3)
    assert split_of(result.path) == split_of(teacher)
    assert "the teacher's split is used" in heard.notes
    plain, _ = train(tmp_path / "plain", pictures, seed=3)
    assert split_of(plain.path) != split_of(teacher)


def test_the_record_names_the_teacher(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    import hashlib

    result, _ = train(tmp_path / "run", pictures, distill=teacher, temperature=2.0)
    record = read_record(result.path)
    assert record.distillation is not None
    assert record.distillation.backbone.startswith("timm:resnet10t")
    sha256 = hashlib.sha256((teacher / "model.safetensors").read_bytes()).hexdigest()
    assert record.distillation.weights_sha256 == sha256
    assert (record.config["temperature"], record.config["distill_weight"]) == (2.0, 0.5)
    assert str(teacher) not in (result.path / "run.json").read_text() + (result.path / "settings.toml").read_text()
    assert read_record(teacher).distillation is None


def test_folds_of_what_the_teacher_learnt_from_are_refused_with_the_count(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    learnt = Counter(split_of(teacher).values())["train"]
    with pytest.raises(DataError, match=f"learnt from {learnt} of the 27 samples .*by id.*leave out --folds"):
        train(tmp_path / "run", pictures, distill=teacher, folds=3)
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_folds_has_seen_all(pictures: Path, tmp_path: Path) -> None:
    everything, _ = train(tmp_path / "teacher", pictures, folds=2)
    with pytest.raises(DataError, match=r"has learnt from all samples of this data.*train the teacher without --folds"):
        train(tmp_path / "run", pictures, distill=everything.path)


def test_pictures_that_the_teacher_has_learnt_from_are_known_under_other_names(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    """The student's data has its own split: some of the teacher's training pictures are in its validation."""
    learnt = [name for name, split in split_of(teacher).items() if split == "train"]
    for number, name in enumerate(sorted(learnt)):
        part = "val" if number % 4 == 0 else "train"
        (tmp_path / "data" / part / Path(name).parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / name, tmp_path / "data" / part / Path(name).parent / f"new-{number}.png")
    seen = len(sorted(learnt)[::4])
    with pytest.raises(DataError, match=rf"learnt from {seen} of the {seen} samples .*\(by content\)"):
        train(tmp_path / "run", tmp_path / "data", distill=teacher)
    for path in (tmp_path / "data" / "val").rglob("*.png"):
        example_data.save(path, example_data.LEVELS[path.parent.name], seed=900 + int(path.stem[4:]))
    result, heard = train(tmp_path / "run", tmp_path / "data", distill=teacher)
    assert result.evaluations["val"].samples == seen
    assert "the data's own split is used" in heard.notes


def test_where_the_teacher_s_data_is_gone_ids_are_compared_and_that_is_noted(
    pictures: Path, teacher: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(teacher, tmp_path / "teacher")
    from dataclasses import replace

    update_record(alone, data=replace(read_record(alone).data, path=str(tmp_path / "gone")))
    more = shutil.copytree(pictures, tmp_path / "more")
    example_data.save(more / "dark" / "more.png", 40, seed=77)
    with pytest.raises(DataError, match=r"learnt from \d+ of the \d+ samples .*\(by id\).*leave these samples out"):
        train(tmp_path / "run", more, distill=alone, val_fraction=0.5)
    moved = tmp_path / "moved"
    for path in sorted(more.rglob("*.png")):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        example_data.save(moved / path.parent.name / f"n{path.name}", example_data.LEVELS[path.parent.name], seed=5)
    _, heard = train(tmp_path / "run", moved, distill=alone)
    assert any("by id and group, and not by content" in note for note in heard.notes)


def test_patients_that_the_teacher_knows_are_refused_by_group(tmp_path: Path) -> None:
    def write(root: Path, seed: int, patients: int) -> Path:
        rows = []
        for index in range(24):
            name = ("dark", "light")[index % 2]
            example_data.save(root / f"{seed}-{index}.png", example_data.LEVELS[name], seed=seed + index)
            rows.append((f"{seed}-{index}.png", name, f"p{index % patients}"))
        return example_data.write_manifest(root / "labels.csv", ("path", "label", "group"), rows)

    first, _ = train(tmp_path / "teacher", write(tmp_path / "one", 0, 12))
    with pytest.raises(DataError, match=r"learnt from \d+ of the \d+ samples .*of \d+ groups? by name"):
        train(tmp_path / "run", write(tmp_path / "two", 500, 11), distill=first.path, val_fraction=0.5)


# What can't be


def test_other_labels_are_refused_and_both_are_named(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    three = shutil.copytree(pictures, tmp_path / "three")
    shutil.copytree(three / "dark", three / "middle")
    with pytest.raises(ConfigError, match=r"mean class \(dark, light\), and this run's class \(dark, light, middle\)"):
        train(tmp_path / "run", three, distill=teacher)
    with pytest.raises(ConfigError, match=r"\(dark, light\), and this run's class \(light, dark\); .*same order"):
        train(tmp_path / "run", pictures, distill=teacher, positive="dark")


def test_another_task_an_unfinished_run_and_no_run_are_refused(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"teacher is of the task images/classification .* and this run of images/multilabel"
    ):
        train(tmp_path / "run", pictures, distill=teacher, task="multilabel")
    with pytest.raises(RunError, match="isn't a run folder"):
        train(tmp_path / "run", pictures, distill=pictures)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", pictures, until=1)
    with pytest.raises(RunError, match="isn't finished"):
        train(tmp_path / "run", pictures, distill=tmp_path / "broken.incomplete")


def test_features_are_refused_where_nothing_can_learn_them(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing of it learns; give --freeze none"):
        train(tmp_path / "run", pictures, distill=teacher, distill_features=1.0)


def test_options_out_of_range_are_refused_together(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"distill-weight: .*temperature: .*distill-features: "):
        train(tmp_path / "run", pictures, distill=teacher, distill_weight=1.5, temperature=0.0, distill_features=-1.0)


def test_other_colours_are_taught_but_not_in_random_views(pictures: Path, tmp_path: Path) -> None:
    grey, _ = train(tmp_path / "grey", pictures, colour="grey", seed=0)
    train(tmp_path / "run", pictures, distill=grey.path)
    with pytest.raises(ConfigError, match="random views are made by this run's options"):
        train(tmp_path / "other", pictures, distill=grey.path, augment="light")


def test_the_command_line_takes_them(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    from commands import command

    (tmp_path / "options.toml").write_text("distill-weight = 0.25\ntemperature = 2.0\n")
    command(
        "finetune",
        "--config",
        tmp_path / "options.toml",
        "--backbone",
        "timm:test_resnet",
        "--weights",
        "random",
        "--task",
        "classification",
        "--data",
        pictures,
        "--epochs",
        "1",
        "--distill",
        teacher,
        "--out",
        tmp_path / "run",
        "--no-export",
        "--no-audit",
        "--no-report",
        "--bootstrap",
        "0",
    )
    config = read_record(tmp_path / "run").config
    assert (config["distill_weight"], config["temperature"], config["distill_features"]) == (0.25, 2.0, 0.0)
    assert "--distill RUN" in command("finetune", "--help").stdout


def test_answers_for_which_there_is_no_room_are_an_error(
    pictures: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zooft.features import cache

    monkeypatch.setattr(cache, "HELD_BYTES", 0)
    with pytest.raises(ConfigError, match=r"the teacher's answers to 2. samples fit neither into the cache nor"):
        train(tmp_path / "run", pictures, distill=teacher, cache=False)


def test_a_teacher_that_was_taught_on_other_data_is_noted(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    from zooft.run.record import DistillationRecord

    _, heard = train(tmp_path / "first", pictures, distill=teacher)
    taught = DistillationRecord(backbone="timm:vit_base", weights_sha256="0" * 64, data_fingerprint="f" * 64)
    copied = shutil.copytree(tmp_path / "first", tmp_path / "copied")
    update_record(copied, distillation=taught)
    own = [
        train(tmp_path / name, pictures, distill=tmp_path / name_of)[1].notes
        for name, name_of in (("a", "first"), ("b", "copied"))
    ]
    assert [sum("has learnt from another, timm:vit_base on other data" in note for note in notes) for notes in own] == [
        0,
        1,
    ]
    assert heard.computed["the teacher, once"] > 0
