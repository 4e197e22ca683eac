"""The command line's surface: help, examples, JSON, suggestions, exit statuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image

import zooft as package
from zooft.cli import COMMANDS, main, zooft
from zooft.config import TrainingOptions
from zooft.errors import TrainingError


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be one JSON value."""
        return json.loads(self.out)


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run ``zooft ARGUMENTS`` in this process."""

    def run(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["zooft", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Answer(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command finds or leaves anything in the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.delenv("ZOOFT_TRACEBACK", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # what the user has set, finetune leaves alone: so this process
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")  # stays as it was


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, level in (("dark", 20), ("light", 150)):
        (folder / name).mkdir()
        for index in range(10):
            levels = level + rng.integers(0, 80, (32, 40, 3))
            Image.fromarray(levels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> package.FinetuneResult:
    return package.finetune(
        backbone="timm:test_resnet",
        task="classification",
        data=pictures,
        weights="random",
        freeze="none",
        epochs=1,
        bootstrap=0,
        device="cpu",
        out=tmp_path_factory.mktemp("runs") / "run",
    )


def commands() -> Iterator[tuple[str, ...]]:
    """Every command and subcommand by the words that call it."""
    context = click.Context(zooft)
    for name in zooft.list_commands(context):
        yield (name,)
        command = zooft.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.commands)


def command(words: tuple[str, ...]) -> click.Command:
    found: click.Command = zooft
    for word in words:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    return found


ALL = list(commands())
by_words = pytest.mark.parametrize("words", ALL, ids=" ".join)


# Help


@by_words
def test_every_command_has_help_and_an_example_that_calls_it(words: tuple[str, ...], call: Call) -> None:
    shown = call(*words, "--help")
    assert (shown.status, shown.err) == (0, "")
    text, _, examples = shown.out.partition("Example")
    assert command(words).help
    assert "Usage: zooft " + " ".join(words) in text
    assert "zooft " + " ".join(words) in examples


@by_words
def test_every_option_of_every_command_has_a_help_text(words: tuple[str, ...]) -> None:
    found = command(words)
    options = [p for p in found.get_params(click.Context(found)) if isinstance(p, click.Option)]
    assert [option.name for option in options if not (option.help or "").strip()] == []


def test_the_main_help_lists_every_command_with_one_line_and_an_example(call: Call) -> None:
    shown = call("--help").out
    assert all(f"  {name} " in shown and line in shown for name, line in COMMANDS.items())
    assert "Example: zooft finetune" in shown


def test_short_help_is_the_same(call: Call) -> None:
    assert call("-h").out == call("--help").out


def test_without_a_command_help_is_shown(call: Call) -> None:
    assert "Usage: zooft" in call().out + call().err


def test_the_version_is_reported(call: Call) -> None:
    assert package.__version__ in call("--version").out


def test_finetune_s_help_shows_a_task_s_own_options_when_it_is_named(call: Call) -> None:
    own = ("--augment [none|light|medium]", "--class-weights", "--group-column")
    with_task = call("finetune", "--task", "classification", "--help").out
    assert all(flag in with_task for flag in own)
    assert "classification: random views" in with_task
    assert not any(flag in call("finetune", "--help").out for flag in own)


@pytest.mark.parametrize("spelling", [("--task=classification",), ("--config", "c.toml")], ids=["equals", "config"])
def test_the_task_may_be_named_in_other_ways(spelling: tuple[str, ...], call: Call) -> None:
    Path("c.toml").write_text('task = "classification"\n')
    assert "--augment" in call("finetune", *spelling, "--help").out


def test_finetune_s_help_shows_defaults_and_what_is_required(call: Call) -> None:
    epochs = TrainingOptions().epochs
    shown = " ".join(call("finetune", "--help").out.split())
    assert f"passes over the training data [default: {epochs}]" in shown
    assert "[default: export]" in shown
    assert shown.count("[required]") == 3


# JSON


@pytest.mark.parametrize("kind", ["tasks", "heads", "freezers"])
def test_what_can_be_named_is_listed_as_json_with_its_plugin(kind: str, call: Call) -> None:
    answer = call(kind, "--json")
    assert answer.status == 0
    assert all({"name", "summary", "plugin", "distribution"} <= set(row) for row in answer.json)
    expected = {"tasks": "classification", "heads": "linear", "freezers": "last:K"}[kind]
    assert expected in [row["name"] for row in answer.json]


@pytest.mark.parametrize("words", [("tasks",), ("heads",), ("freezers",), ("plugins",), ("backbones",)], ids=" ".join)
def test_tables_for_people_hold_what_the_json_holds(words: tuple[str, ...], call: Call) -> None:
    table = call(*words).out
    for row in call(*words, "--json").json:
        assert next(iter(row.values())) in table


def test_plugins_are_listed_as_json_with_distribution_version_and_what_they_register(call: Call) -> None:
    rows = {row["plugin"]: row for row in call("plugins", "--json").json}
    assert rows["timm"].pop("import_seconds") > 0
    assert rows["timm"] == {
        "plugin": "timm",
        "distribution": "zooft",
        "version": package.__version__,
        "registers": {"families": ["timm"]},
        "listens_to": [],
        "problem": None,
    }


def test_of_two_plugins_with_one_name_only_the_one_left_out_shows_a_problem(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    from zooft.hooks import loading, registry

    first, second = EntryPoint("mine", "zooft_standard", "zooft"), EntryPoint("mine", "zooft_timm", "zooft")
    found = registry.load(loading.discover([first, second]))
    monkeypatch.setattr("zooft.hooks.registry.load", lambda: found)
    rows = call("plugins", "--json").json
    assert [bool(row["problem"]) for row in rows] == [False, True]


def test_the_doctor_answers_in_json_and_exits_by_what_it_found(call: Call) -> None:
    answer = call("doctor", "--json")
    assert set(answer.json) == {"python", "versions", "devices", "providers", "runs", "problems"}
    assert answer.json["versions"]["torch"]
    assert answer.status == bool(answer.json["problems"])


def test_families_are_listed_as_json(call: Call) -> None:
    rows = {row["family"]: row for row in call("backbones", "--json").json}
    assert rows["timm"]["models"] > 1000
    assert rows["torchvision"]["models"] > 60


def test_models_are_listed_as_json_with_parameters_input_stages_and_weights(call: Call) -> None:
    (row,) = call("backbones", "timm:test_resnet", "--json").json
    assert row["full_name"].startswith("test_resnet.")
    assert row["parameters"] == sum(stage["parameters"] for stage in row["stages"]) + classifier_parameters()
    assert row["input"] == "160x160"
    assert row["problem"] is None
    assert "weights" in row


def classifier_parameters() -> int:
    import timm

    return sum(parameter.numel() for parameter in timm.create_model("test_resnet").get_classifier().parameters())


def test_a_pattern_lists_all_that_match(call: Call) -> None:
    rows = call("backbones", "timm:test_vit*", "--json").json
    assert len(rows) > 1
    assert all(row["name"].startswith("test_vit") for row in rows)


def test_predictions_are_json_with_classes_and_probabilities(
    call: Call, run: package.FinetuneResult, pictures: Path
) -> None:
    assert run.onnx is not None
    answer = call("predict", run.onnx, pictures, "--json")
    assert answer.status == 0
    assert answer.json["classes"] == ["dark", "light"]
    assert len(answer.json["predictions"]) == 20
    for row in answer.json["predictions"]:
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["class"] == answer.json["classes"][int(np.argmax(row["probabilities"]))]
        assert row["probability"] == max(row["probabilities"])


def test_predictions_are_a_csv_file_on_request(
    call: Call, run: package.FinetuneResult, pictures: Path, tmp_path: Path
) -> None:
    import csv

    answer = call("predict", run.onnx, pictures, "--format", "csv", "--out", tmp_path / "answers.csv")
    assert answer.status == 0
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert len(rows) == 20
    assert list(rows[0]) == ["file", "class", "p(dark)", "p(light)", "error"]


def test_a_format_that_the_task_does_not_have_is_refused_with_those_it_has(
    call: Call, run: package.FinetuneResult, pictures: Path
) -> None:
    answer = call("predict", run.onnx, pictures, "--format", "dicom-sr")
    assert answer.status == 2
    assert "classification has table, csv, json, jsonl" in answer.err


@pytest.mark.parametrize("what", ["run", "file"])
def test_evaluations_are_json_with_figures_table_and_confusion(
    what: str, call: Call, run: package.FinetuneResult, pictures: Path
) -> None:
    subject = run.path if what == "run" else run.onnx
    assert subject is not None
    answer = call("evaluate", subject, "--bootstrap", "20", "--json")
    assert answer.status == 0
    assert answer.json["split"] == "val"
    assert set(answer.json["metrics"]) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc"}
    assert [row["name"] for row in answer.json["per_class"]] == ["dark", "light"]
    assert sum(map(sum, answer.json["confusion"])) == answer.json["samples"]


def test_where_a_run_computes_is_no_option_of_a_file_nor_a_provider_of_a_run(
    call: Call, run: package.FinetuneResult
) -> None:
    answer = call("evaluate", run.onnx or "", "--device", "cpu")
    assert answer.status == 2
    assert "--provider" in answer.err
    answer = call("evaluate", run.path, "--provider", "cpu")
    assert answer.status == 2
    assert "--device" in answer.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(call: Call, run: package.FinetuneResult) -> None:
    answer = call("evaluate", run.path, "--device", "cuda")
    assert answer.status == 2
    assert "--device cuda" in answer.err
    assert "use --device auto" in answer.err


def test_verification_is_json_and_says_what_was_compared(call: Call, run: package.FinetuneResult) -> None:
    answer = call("verify", run.onnx or "", "--json")
    assert answer.status == 0
    assert (answer.json["passed"], answer.json["data"]) == (True, "real")
    assert answer.json["top1_agreement"] == 1.0


def test_what_cannot_be_read_is_reported_beside_the_answers(
    call: Call, run: package.FinetuneResult, pictures: Path
) -> None:
    Path("torn.png").write_bytes(b"no picture")
    answer = call("predict", run.onnx or "", "torn.png", pictures / "dark" / "0.png", "--json")
    assert answer.status == 3, "some were answered, some weren't"
    torn, read = answer.json["predictions"]
    assert torn["error"]
    assert read["class"] in answer.json["classes"]
    assert call("predict", run.onnx or "", "torn.png").status == 1


# Words that aren't known


@pytest.mark.parametrize(
    ("typed", "meant"), [("finetun", "finetune"), ("predcit", "predict"), ("backbone", "backbones")]
)
def test_a_mistyped_command_suggests_the_nearest(typed: str, meant: str, call: Call) -> None:
    answer = call(typed)
    assert answer.status == 2
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in answer.err


def test_a_command_near_to_nothing_points_at_the_list(call: Call) -> None:
    answer = call("xyzzy")
    assert answer.status == 2
    assert "'zooft --help' lists them" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("finetune", "--epoch", "3"), ("--epochs",)),
        (("finetune", "--task", "clasification"), ("no task 'clasification'", "classification (from zooft)")),
        (("finetune",), ("task is required", "zooft tasks")),
        (("finetune", "--task", "classification"), ("backbone is required", "data is required")),
        (("finetune", "--task", "classification", "--backbone", "timm", "--data", "d"), ("FAMILY:MODEL",)),
        (("finetune", "--task", "classification", "--backbone", "tim:vit", "--data", "d"), ("no family 'tim'", "timm")),
        (("finetune", "--task", "classification", "--backbone", "timm:vit_bse", "--data", "d"), ("nearest:", "vit_base")),
        (("finetune", "--task", "classification", "--backbone", "timm:vit_base", "--data", "d", "--head", "liner"),
         ("no head 'liner'", "linear")),
        (("finetune", "--task", "classification", "--backbone", "timm:vit_base", "--data", "d", "--freeze", "frist:2"),
         ("no freezer 'frist'", "first")),
        (("finetune", "--task", "classification", "--backbone", "timm:vit_base", "--data", "d", "--epochs", "0",
          "--lr", "-1"), ("epochs: ", "lr: ")),
        (("finetune", "--task", "classification", "--augment", "wild"), ("wild", "medium")),
        (("finetune", "--config", "nowhere.toml"), ("nowhere.toml can't be read",)),
        (("demo", "clasification", "d"), ("no task", "classification")),
        (("backbones", "vit_base"), ("FAMILY:MODEL",)),
        (("predict",), ("MODEL",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value[0], str) and value[0] in COMMANDS else "",
)  # fmt: skip # a table of cases
def test_what_was_misworded_exits_with_2_and_says_what_would_do(
    arguments: tuple[str, ...], words: tuple[str, ...], call: Call
) -> None:
    answer = call(*arguments)
    assert answer.status == 2
    assert [word for word in words if word not in answer.err] == []
    assert answer.out == ""
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate",), "no run was named"),
        (("evaluate", "nowhere"), "isn't a run folder"),
        (("export", "nowhere"), "isn't a run folder"),
        (("verify", "nowhere.onnx"), "there is no file nowhere.onnx"),
        (("predict", "nowhere.onnx", "a.png"), "there is no file nowhere.onnx"),
        (
            ("finetune", "--task", "classification", "--backbone", "timm:test_vit", "--data", "nowhere"),
            "no data at nowhere",
        ),
        (("demo", "classification", "."), "isn't empty"),
        (("demo", "classification", __file__), "is a file; name a new folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_exits_with_1_and_says_why(arguments: tuple[str, ...], words: str, call: Call) -> None:
    Path("something").touch()
    answer = call(*arguments)
    assert answer.status == 1
    assert answer.err.splitlines()[-1].startswith("zooft: ")
    assert words in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert not Path("runs").exists() or not any(Path("runs").iterdir())


def test_a_task_whose_reader_fails_is_named_and_zooft_is_not_blamed(
    call: Call, run: package.FinetuneResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = registry_with_failing_reader()
    monkeypatch.setattr("zooft.hooks.registry.load", lambda: found)
    Path("a.png").touch()
    answer = call("predict", run.onnx or "", "a.png")
    assert answer.status == 1
    assert "classification" in answer.out + answer.err
    assert "a defect of zooft" not in answer.err


def test_of_a_private_task_an_unexpected_error_gives_its_kind_alone() -> None:
    from dataclasses import replace

    from zooft.data.samples import read
    from zooft.errors import PluginError
    from zooft.hooks import registry

    def fail(_source: object, _options: object) -> None:
        raise OSError("/data/DOE^JOHN/1.dcm")

    task: Any = replace(registry.load().task("ct"), read=fail)
    with pytest.raises(PluginError) as caught:
        read(task, None, package.Sample(id="a1b2", source=None, target=0))
    assert str(caught.value).startswith("the task ct failed to read a1b2: OSError (")
    assert "DOE" not in str(caught.value)
    assert caught.value.__cause__ is None


def registry_with_failing_reader() -> Any:
    from dataclasses import replace

    from zooft.hooks import registry

    def read(_source: object, _options: object) -> None:
        raise ValueError("bad header")

    found = registry.load()
    tasks = tuple(replace(entry, value=replace(entry.value, read=read)) for entry in found.tasks)
    return replace(found, tasks=tasks)


# Errors that aren't foreseen


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make any look at the plugins fail."""

    def load() -> None:
        raise error

    monkeypatch.setattr("zooft.hooks.registry.load", load)


def test_notes_of_an_error_are_shown_below_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    error = TrainingError("the loss became nan")
    error.add_note("the weights trained so far are in runs/x.incomplete")
    failing(error, monkeypatch)
    answer = call("tasks")
    assert answer.status == 1
    assert answer.err == "zooft: the loss became nan\nthe weights trained so far are in runs/x.incomplete\n"


def test_a_full_disk_is_called_one(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(OSError(28, "No space left on device", "runs/x/model.safetensors"), monkeypatch)
    answer = call("tasks")
    assert answer.status == 1
    assert "the disk is full: runs/x/model.safetensors" in answer.err


def test_an_interrupt_exits_with_130(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(KeyboardInterrupt(), monkeypatch)
    answer = call("tasks")
    assert answer.status == 130
    assert "interrupted" in answer.err
    assert "Traceback" not in answer.err


def test_a_defect_is_called_one_without_a_traceback(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ZeroDivisionError("division by zero"), monkeypatch)
    answer = call("tasks")
    assert answer.status == 1
    assert "unexpected ZeroDivisionError: division by zero" in answer.err
    assert "ZOOFT_TRACEBACK=1" in answer.err
    assert "Traceback" not in answer.err


def test_the_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ZeroDivisionError("division by zero"), monkeypatch)
    monkeypatch.setenv("ZOOFT_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["zooft", "tasks"])
    with pytest.raises(ZeroDivisionError):
        main()
