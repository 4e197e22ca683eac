"""Whatever is wrong with what a user gives: a clear sentence, an exit status, no traceback, nothing half-written.

Commands run inside the test's own process, through `zooft.cli.main` as the installed script does; the few that need a
process of their own (a signal, a full disk) start one.
"""

from __future__ import annotations

import csv
import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import example_data
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from zooft import cli
from zooft.run import folder as run

BACKBONE = "timm:test_resnet.r160_in1k"
FINETUNE = (
    "finetune", "--backbone", BACKBONE, "--task", "classification", "--weights", "random", "--epochs", "1",
    "--bootstrap", "0", "--no-export", "--device", "cpu",
)  # fmt: skip # a table of arguments


@dataclass(frozen=True, slots=True)
class Answer:
    """A command's output, its white space evened out, and its exit status."""

    status: int
    said: str


Command = Callable[..., Answer]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command line, in this process."""

    def call(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["zooft", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return Answer(int(stopped.value.code or 0), " ".join((captured.out + captured.err).split()))

    return call


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nothing is wrong with; tests only read it."""
    return example_data.write_classes(tmp_path_factory.mktemp("good"), {"dark": 6, "light": 6})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run would stand."""
    return tmp_path / "runs" / "run"


def assert_refused(answer: Answer, out: Path, *, status: int, said: str) -> None:
    """The sentence, the status, and no trace of a run."""
    assert said in answer.said
    assert answer.status == status
    assert "Traceback" not in answer.said
    assert "defect of zooft" not in answer.said
    assert left_beside(out) == []


def left_beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir()) if out.parent.exists() else []


# data


def nothing(folder: Path) -> Path:
    return folder / "nothing"


def empty(folder: Path) -> Path:
    return folder


def one_class(folder: Path) -> Path:
    return example_data.write_classes(folder, {"ant": 3})


def empty_class(folder: Path) -> Path:
    return example_data.write_classes(folder, {"ant": 3, "bee": 3, "wasp": 0})


def unreadable_class(folder: Path) -> Path:
    example_data.write_classes(folder, {"ant": 3, "bee": 0})
    (folder / "bee" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    return folder


def two_images(folder: Path) -> Path:
    return example_data.write_classes(folder, {"ant": 1, "bee": 1})


def manifest(folder: Path, *rows: tuple[str, str], columns: tuple[str, str] = ("path", "label")) -> Path:
    return example_data.write_manifest(example_data.write_classes(folder, {"x": 4}) / "labels.csv", columns, rows)


def unreadable_manifest(folder: Path) -> Path:
    (folder / "labels.csv").write_bytes(b"path,label\n\xff\xfe,ant\n")
    return folder / "labels.csv"


def conflicting_labels(folder: Path) -> Path:
    return manifest(folder, ("x/00.png", "ant"), ("x/00.png", "bee"))


def unknown_paths(folder: Path) -> Path:
    return manifest(folder, ("y/00.png", "ant"), ("y/01.png", "bee"))


def wrong_columns(folder: Path) -> Path:
    return manifest(folder, ("x/00.png", "ant"), columns=("file", "class"))


def some_splits(folder: Path) -> Path:
    rows = [[f"x/0{index}.png", "ab"[index % 2], "train" if index else ""] for index in range(4)]
    return example_data.write_manifest(
        example_data.write_classes(folder, {"x": 4}) / "m.csv", ["path", "label", "split"], rows
    )


def a_single_image(folder: Path) -> Path:
    return example_data.save(folder / "one.png")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "there is no data at"),
        (empty, "expected class folders with images, or a CSV manifest"),
        (one_class, "only one class, 'ant'; at least two are needed"),
        (empty_class, "no usable samples of class wasp"),
        (unreadable_class, "no usable samples of class bee; 1 of its files was rejected, the first: bee/torn.jpg"),
        (two_images, "2 samples in classes of ant 1, bee 1 are too few to hold out"),
        (unreadable_manifest, "isn't a CSV file in UTF-8: line 2 has other bytes"),
        (conflicting_labels, "labels.csv, line 3: x/00.png has the label 'bee' here and 'ant' in line 2"),
        (unknown_paths, "the first: y/00.png: no such file"),
        (wrong_columns, "needs the columns path and label, and has file, class"),
        (some_splits, "1 of 4 samples have no split while the others do"),
        (a_single_image, "one.png is a picture"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused(
    command: Command, tmp_path: Path, out: Path, make: Callable[[Path], Path], said: str
) -> None:
    (tmp_path / "data").mkdir()
    answer = command(*FINETUNE, "--data", make(tmp_path / "data"), "--out", out)
    assert_refused(answer, out, status=1, said=said)


def test_images_that_cannot_be_used_are_listed_and_the_run_goes_on(command: Command, tmp_path: Path, out: Path) -> None:
    folder = example_data.write_classes(tmp_path / "data", {"dark": 6, "light": 6})
    whole = (folder / "dark" / "00.png").read_bytes()
    (folder / "dark" / "torn.png").write_bytes(whole[: len(whole) // 2])
    Image.new("I;16", (8, 8)).save(folder / "dark" / "deep.png")
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 255)]
    frames[0].save(folder / "light" / "moving.png", save_all=True, append_images=frames[1:])
    answer = command(*FINETUNE, "--data", folder, "--out", out)
    assert answer.status == 0
    assert "rejected: 3" in answer.said
    with (out / "rejected.csv").open(newline="", encoding="utf-8") as file:
        reasons = {row["id"]: row["reason"] for row in csv.DictReader(file)}
    assert list(reasons) == ["dark/deep.png", "dark/torn.png", "light/moving.png"]
    assert "16 bits" in reasons["dark/deep.png"]
    assert "can't be decoded" in reasons["dark/torn.png"]
    assert "holds 2 pictures" in reasons["light/moving.png"]


# names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backbone", "tim:test_resnet"], "there is no family 'tim'; nearest: timm (from zooft)"),
        (["--backbone", "timm:test_resnt"], "timm has no model 'test_resnt'; nearest: test_resnet"),
        (["--backbone", "torchvision:resnet17"], "torchvision has no model 'resnet17'; nearest: resnet18"),
        (["--task", "clasification"], "there is no task 'clasification'; nearest: classification (from zooft)"),
        (["--head", "linaer"], "there is no head 'linaer'; nearest: linear (from zooft)"),
        (["--freeze", "frist:2"], "there is no freezer 'frist'; nearest: first (from zooft)"),
        (["--epohcs", "3"], "No such option '--epohcs'. (Did you mean one of: '--epochs'"),
        (["--augmnt", "light"], "No such option '--augmnt'. (Did you mean one of: '--audit', '--augment'"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(
    command: Command, good: Path, out: Path, arguments: list[str], said: str
) -> None:
    answer = command(*FINETUNE, "--data", good, "--out", out, *arguments)
    assert_refused(answer, out, status=2, said=said)


@pytest.mark.parametrize("name", ["resnet18", "timm:", ":resnet18", ""])
def test_a_malformed_backbone_gets_an_example(command: Command, good: Path, out: Path, name: str) -> None:
    answer = command(*FINETUNE, "--data", good, "--out", out, "--backbone", name)
    assert_refused(answer, out, status=2, said=f"a backbone is named FAMILY:MODEL, but {name!r} was given; for example")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("first", "--freeze first:K needs a number from 0 to 5"),
        ("first:many", "'many' was given"),
        ("last:99", "since the backbone has the stages stem, layer1"),
        ("last:-1", "'-1' was given"),
        ("until:layer9", "--freeze until:STAGE needs one of stem, layer1, layer2, layer3, layer4"),
        ("none:3", "--freeze none takes no argument"),
    ],
)
def test_a_freezers_argument_that_does_not_fit_says_what_does(
    command: Command, good: Path, out: Path, rule: str, said: str
) -> None:
    answer = command(*FINETUNE, "--data", good, "--out", out, "--freeze", rule)
    assert_refused(answer, out, status=2, said=said)


def test_an_unknown_command_gets_the_nearest_one(command: Command, out: Path) -> None:
    assert_refused(command("finetun"), out, status=2, said="No such command 'finetun'. Did you mean 'finetune'?")


# values


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epochs", "0"], "epochs: input should be greater than or equal to 1, but 0 was given"),
        (["--epochs", "many"], "'many' is not a valid integer"),
        (["--lr", "nan"], "but nan was given"),
        (["--val-fraction", "1"], "val-fraction: input should be less than 1, but 1.0 was given"),
        (["--augment", "heavy"], "'heavy' is not one of 'none', 'light', 'medium'"),
        (["--seed", "-1"], "seed: input should be greater than or equal to 0"),
        (["--config", "no-such-file.toml"], "the config file no-such-file.toml can't be read: No such file"),
        pytest.param(
            ["--lr", "inf"],
            "lr: ",
        ),
    ],
)
def test_a_value_out_of_bounds_is_refused_before_any_work(
    command: Command, good: Path, out: Path, arguments: list[str], said: str
) -> None:
    answer = command(*FINETUNE, "--data", good, "--out", out, *arguments)
    assert_refused(answer, out, status=2, said=said)
    assert "reading the data" not in answer.said


def test_what_is_missing_is_reported_together(command: Command, out: Path) -> None:
    answer = command("finetune", "--task", "classification")
    assert_refused(answer, out, status=2, said="backbone is required")
    assert "data is required" in answer.said


def test_all_faulty_values_of_a_config_file_are_reported_together(command: Command, tmp_path: Path, out: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'task = "classification"\nepochs = 0\nlr = -1\nschedule = "cosin"\nbatch-size = "big"\n', encoding="utf-8"
    )
    answer = command("finetune", "--config", tmp_path / "c.toml", "--out", out)
    assert_refused(answer, out, status=2, said="epochs: ")
    for name in ("backbone is required", "data is required", "lr: ", "schedule: ", "batch-size: "):
        assert name in answer.said


def test_unknown_names_and_the_tasks_own_faults_are_reported_with_the_others(
    command: Command, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "c.toml").write_text(
        'task = "classification"\nepohcs = 3\nlr = -1\naugment = "heavy"\n', encoding="utf-8"
    )
    answer = command("finetune", "--config", tmp_path / "c.toml", "--out", out)
    for name in ("did you mean epochs", "lr: ", "augment: "):
        assert name in answer.said


@pytest.mark.parametrize("content", [b"epochs = ", b"\xff\xfe", b"epochs = 1\nepochs = 2"])
def test_a_config_file_that_is_not_toml_is_refused(command: Command, tmp_path: Path, out: Path, content: bytes) -> None:
    (tmp_path / "c.toml").write_bytes(content)
    answer = command(*FINETUNE, "--config", tmp_path / "c.toml", "--out", out)
    assert_refused(answer, out, status=2, said="c.toml isn't TOML")


# weights


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    """The zoo's own names and shapes."""
    import timm

    return dict(timm.create_model("test_resnet").state_dict())


def first(tensors: dict[str, torch.Tensor]) -> str:
    return next(iter(tensors))


def other_shape(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({**tensors, first(tensors): torch.zeros(3, 3)}, path)


def other_names(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name if name != first(tensors) else "extra": tensor for name, tensor in tensors.items()}, path)


def whole_numbers(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({**tensors, first(tensors): tensors[first(tensors)].to(torch.int32)}, path)


def not_a_number(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({**tensors, first(tensors): torch.full_like(tensors[first(tensors)], float("nan"))}, path)


def torn(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def junk(path: Path, _tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(b"junk" * 100)


def no_bytes(path: Path, _tensors: dict[str, torch.Tensor]) -> None:
    path.write_bytes(b"")


def a_list(path: Path, _tensors: dict[str, torch.Tensor]) -> None:
    torch.save([1, 2], path)


def no_file(path: Path, _tensors: dict[str, torch.Tensor]) -> None:
    assert not path.exists()


def a_folder(path: Path, _tensors: dict[str, torch.Tensor]) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (other_shape, "w.safetensors", "1 of other shape: conv1.0.weight is (3, 3) instead of (16, 3, 3, 3)"),
        (other_names, "w.safetensors", "1 missing: conv1.0.weight; 1 not in the model: extra"),
        (torn, "w.safetensors", "isn't a readable safetensors file"),
        (junk, "w.safetensors", "isn't a readable safetensors file"),
        (no_bytes, "w.safetensors", "isn't a readable safetensors file"),
        (torn, "w.pth", "isn't a checkpoint of plain tensors"),
        (junk, "w.pth", "isn't a checkpoint of plain tensors"),
        (no_bytes, "w.pth", "isn't a checkpoint of plain tensors"),
        (a_list, "w.pth", "holds list, not a mapping of names to tensors"),
        (no_file, "w.pth", "there is no weights file"),
        (a_folder, "w.pth", "there is no weights file"),
        pytest.param(
            not_a_number,
            "w.safetensors",
            "conv1.0.weight",
        ),
        pytest.param(
            whole_numbers,
            "w.safetensors",
            "conv1.0.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_or_cannot_be_read_are_refused(
    command: Command,
    good: Path,
    tmp_path: Path,
    out: Path,
    tensors: dict[str, torch.Tensor],
    make: Callable[[Path, dict[str, torch.Tensor]], None],
    name: str,
    said: str,
) -> None:
    make(tmp_path / name, tensors)
    answer = command(*FINETUNE, "--data", good, "--out", out, "--weights", tmp_path / name)
    assert_refused(answer, out, status=1, said=said)


class Canary:
    """Unpickled, it makes a file: what an attacker's checkpoint would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("protocol", [2, 4, None])
def test_a_pickle_as_weights_is_refused_and_never_run(
    command: Command, good: Path, tmp_path: Path, out: Path, name: str, protocol: int | None
) -> None:
    canary, path = tmp_path / "canary", tmp_path / name
    if protocol is None:
        torch.save({"state_dict": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps(Canary(canary), protocol=protocol))
    answer = command(*FINETUNE, "--data", good, "--out", out, "--weights", path)
    assert_refused(answer, out, status=1, said="isn't a")
    assert not canary.exists()


# the run folder


def test_an_output_folder_in_use_is_left_as_it_is(command: Command, good: Path, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work", encoding="utf-8")
    answer = command(*FINETUNE, "--data", good, "--out", out)
    assert answer.status == 1
    assert f"{out} exists already; choose another --out, or remove it" in answer.said
    assert left_beside(out) == ["run"]
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_an_empty_output_folder_may_be_filled(command: Command, good: Path, out: Path) -> None:
    out.mkdir(parents=True)
    assert command(*FINETUNE, "--data", good, "--out", out).status == 0
    assert (out / "run.json").is_file()
    assert left_beside(out) == [".latest", "run"]


def test_what_an_earlier_run_left_is_not_touched(command: Command, good: Path, out: Path) -> None:
    unfinished = out.with_name("run.incomplete")
    unfinished.mkdir(parents=True)
    (unfinished / "model.safetensors").write_bytes(b"weights")
    answer = command(*FINETUNE, "--data", good, "--out", out)
    assert answer.status == 1
    assert "run.incomplete exists: another run is at work there, or was interrupted" in answer.said
    assert left_beside(out) == ["run.incomplete"]
    assert (unfinished / "model.safetensors").read_bytes() == b"weights"


def test_a_file_in_the_place_of_the_output_folder_is_not_overwritten(command: Command, good: Path, out: Path) -> None:
    out.parent.mkdir()
    out.write_text("a file", encoding="utf-8")
    answer = command(*FINETUNE, "--data", good, "--out", out)
    assert answer.status == 1
    assert "exists already" in answer.said
    assert out.read_text(encoding="utf-8") == "a file"


@pytest.mark.parametrize("name", [".", "/", ""])
def test_an_output_folder_without_a_name_is_refused(
    command: Command, good: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out.parent.mkdir()
    monkeypatch.chdir(out.parent)
    answer = command(*FINETUNE, "--data", good, "--out", name)
    assert answer.status in {1, 2}
    assert "--out" in answer.said
    assert "defect of zooft" not in answer.said


def test_an_output_folder_below_a_file_is_refused_for_that_reason(command: Command, good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    answer = command(*FINETUNE, "--data", good, "--out", tmp_path / "file" / "run")
    assert answer.status == 1
    assert "can't be made" in answer.said
    assert "another run" not in answer.said


# the machine


def test_a_full_disk_is_reported_and_nothing_is_left(
    command: Command, good: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run.os, "fsync", refuse)
    answer = command(*FINETUNE, "--data", good, "--out", out)
    assert answer.status == 1
    assert "the disk is full" in answer.said
    assert "Traceback" not in answer.said
    assert not out.exists()
    assert not list(out.parent.rglob("*.partial"))


ON_A_SMALL_DISK = 'mount -t tmpfs -o size="$1" none "$2" && shift 2 && "$@"; echo "status $?"; ls -A "$MOUNTED"'


def on_a_small_disk(place: Path, size: str, *arguments: str | Path) -> str:
    """What a command says whose working place is a disk of `size`; the mount is gone when it ends."""
    place.mkdir()
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    probe = [*inside, "mount", "-t", "tmpfs", "none", str(place)]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this system doesn't let a test mount a small disk of its own")
    full = [*inside, "sh", "-c", ON_A_SMALL_DISK, "sh", size, place, sys.executable, "-m", "zooft", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MOUNTED": str(place)}
    done = subprocess.run(
        list(map(str, full)), env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    return " ".join((done.stderr + done.stdout).split())


def test_a_disk_that_fills_up_while_weights_are_written_is_reported(good: Path, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    said = on_a_small_disk(place, "1m", *FINETUNE, "--data", good, "--out", place / "run")
    assert said.endswith("status 1"), "the disk is empty again, so that nothing stands behind the status"
    assert "the disk is full" in said
    assert "Traceback" not in said
    assert "defect of zooft" not in said


def wait_for(stream: Any, text: str, *, seconds: float) -> str:
    """What a process says until it says `text`."""
    end, said = time.monotonic() + seconds, ""
    for line in stream:
        said += line
        if text in line:
            return said
        if time.monotonic() > end:
            break
    raise AssertionError(f"waited for {text!r}, and heard: {said}")


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run that was stopped in the middle: how the process ended, its output, its working folder."""

    status: int
    said: str
    out: Path
    number: signal.Signals


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="SIGINT", marks=pytest.mark.slow),
    ],
)
def interrupted(good: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Interrupted:
    """Ctrl-C, or what a system sends that shuts down, in the third epoch of very many."""
    if sys.platform == "win32":
        pytest.skip("Windows has no such signals to send to a process")
    out = tmp_path_factory.mktemp("interrupted") / "run"
    command = [sys.executable, "-m", "zooft", *FINETUNE, "--data", good, "--out", out, "--epochs", "3000"]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell that runs the tests in the background has its children ignore the signal
        preexec_fn=lambda: [
            signal.signal(signal.SIGINT, signal.default_int_handler),
            signal.signal(signal.SIGTERM, signal.SIG_DFL),
        ],
    )
    try:
        wait_for(process.stderr, "epoch 3/", seconds=600)
        process.send_signal(request.param)
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
        process.wait()
    return Interrupted(process.returncode, output + errors, out, request.param)


def test_an_end_by_a_signal_while_training_leaves_no_run_under_the_final_name(interrupted: Interrupted) -> None:
    assert interrupted.status == 128 + interrupted.number  # as shells count
    messages = "interrupted" if interrupted.number == signal.SIGINT else "ended by the signal SIGTERM"
    assert f"zooft: {messages}\n" in interrupted.said
    assert "Traceback" not in interrupted.said
    assert left_beside(interrupted.out) == ["run.incomplete"]


def test_an_end_by_a_signal_while_training_says_where_the_best_epoch_is(interrupted: Interrupted) -> None:
    unfinished = interrupted.out.with_name("run.incomplete")
    assert (unfinished / "model.safetensors").is_file()
    assert f"the weights trained so far are in {unfinished}" in interrupted.said
    assert f"'zooft finetune --resume {unfinished}' resumes it" in interrupted.said


def test_the_installed_command_exits_as_the_function_does(good: Path, out: Path) -> None:
    full = [sys.executable, "-m", "zooft", *FINETUNE, "--data", good, "--out", out, "--head", "linaer"]
    done = subprocess.run(list(map(str, full)), capture_output=True, text=True, timeout=600, check=False)
    answer = Answer(done.returncode, " ".join((done.stdout + done.stderr).split()))
    assert_refused(answer, out, status=2, said="zooft: there is no head 'linaer'; nearest: linear")
