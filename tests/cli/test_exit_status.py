"""How commands end that couldn't do their work: as JSON where --json was given, by memory's name, by a signal's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import example_data
import numpy as np
import pytest
from commands import command

from zooft.cli import COMMANDS, exit_status, zooft
from zooft.errors import DataError, PluginError, PruningError, RuntimeModelError


def with_json() -> list[tuple[str, ...]]:
    """Every command and subcommand that knows ``--json``, by the words that call it."""
    context, found = click.Context(zooft), []
    for name in COMMANDS:
        one = zooft.get_command(context, name)
        inner = one.commands.items() if isinstance(one, click.Group) else [("", one)]
        for word, each in inner:
            assert each is not None
            if any("--json" in option.opts for option in each.params):
                found.append(tuple(filter(None, (name, word))))
    return found


@pytest.mark.parametrize("words", with_json(), ids=" ".join)
def test_what_is_misworded_is_json_where_json_was_requested(words: tuple[str, ...]) -> None:
    done = command(*words, "--no-such-option", "--json", status=2)
    messages = json.loads(done.stdout)["error"]
    assert messages["status"] == 2
    assert "--no-such-option" in messages["message"]
    assert "--no-such-option" in done.stderr, "people read it, too"


@pytest.mark.parametrize(
    ("arguments", "kind", "status"),
    [
        (("predict", "nowhere.onnx", "a.png"), "RuntimeModelError", 1),
        (("evaluate", "nowhere"), "RunError", 1),
        (("verify", "nowhere"), "RunError", 1),
        (("export", "nowhere"), "RunError", 1),
        (("compare", "nowhere", "elsewhere"), "RunError", 1),
        (("audit", "nowhere", "--task", "classification"), "DataError", 1),
        (("audit", "nowhere", "--task", "clasification"), "UnknownNameError", 2),
        (("finetune", "--task", "classification"), "ConfigError", 2),
        (("backbones", "timm:vit_bse"), "UnknownNameError", 2),
        (("weights", "fetch", "timm", "--to", "w"), "ConfigError", 2),
        (("whois", ".", "1", "--task", "classification"), "ConfigError", 2),
        (("cache", "clean", "--older-than", "x"), "ConfigError", 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_json_where_json_was_requested(
    arguments: tuple[str, ...], kind: str, status: int
) -> None:
    done = command(*arguments, "--json", status=status)
    messages = json.loads(done.stdout)["error"]
    assert (messages["kind"], messages["status"]) == (kind, status)
    assert done.stderr.endswith(f"zooft: {messages['message']}\n")


@pytest.mark.parametrize("requested", [("--format", "json"), ("--format=json",)])
def test_the_format_json_asks_for_it_too(requested: tuple[str, ...]) -> None:
    done = command("predict", "nowhere.onnx", "a.png", *requested, status=1)
    assert json.loads(done.stdout)["error"]["kind"] == "RuntimeModelError"


def test_an_unforeseen_error_and_an_interrupt_are_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for error, kind, status in (
        (ZeroDivisionError("x"), "ZeroDivisionError", 1),
        (KeyboardInterrupt(), "Interrupted", 130),
    ):
        failing(error, monkeypatch)
        messages = json.loads(command("tasks", "--json", status=status).stdout)["error"]
        assert (messages["kind"], messages["status"]) == (kind, status)


def test_a_pruning_that_the_gate_refuses_has_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"original": {"value": np.float32(0.5)}, "pruned": {"value": float("nan")}}
    failing(PruningError("pruned by 0.3 it reaches nan", table), monkeypatch)
    found = json.loads(command("tasks", "--json", status=1).stdout)["error"]["table"]
    assert found == {"original": {"value": 0.5}, "pruned": {"value": None}}


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise error

    monkeypatch.setattr("zooft.hooks.registry.load", load)


def wrapped() -> RuntimeModelError:
    error = RuntimeModelError("onnxruntime can't open x.onnx")
    error.__cause__ = RuntimeError("std::bad_alloc")
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("Failed to allocate memory for requested buffer of size 4000000000"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        RuntimeError("could not create a primitive"),
        PluginError(
            "the family timm failed to build x: RuntimeError: DefaultCPUAllocator: can't allocate memory: 9 bytes"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        wrapped(),
    ],
    ids=lambda error: str(error)[:40],
)
def test_what_libraries_say_when_memory_ran_out_is_called_that(error: Exception) -> None:
    ending = exit_status.of(error)
    assert ending.message.startswith("memory ran out")
    assert "a defect of zooft" not in ending.message
    assert ending.status == 1


def test_words_of_our_own_about_memory_stay() -> None:
    error = DataError("the picture needs 3 GB of memory; make it smaller")
    error.__cause__ = MemoryError()
    assert exit_status.of(error).message == "the picture needs 3 GB of memory; make it smaller"


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
@pytest.mark.parametrize("kilobytes", [600_000, 1_500_000])
def test_under_a_memory_limit_the_message_says_memory(kilobytes: int, tmp_path: Path) -> None:
    example_data.write_classes(tmp_path / "d", {"dark": 2, "light": 2})
    words = f"{sys.executable} -m zooft finetune --backbone timm:test_resnet --weights random --task classification --data d"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -v {kilobytes}; exec {words} --json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 1, done.stderr
    message = json.loads(done.stdout)["error"]["message"]
    assert message.startswith("memory ran out")
    assert f"'ulimit -v' allows this process {kilobytes / 976_562.5:.1f} GB" in message


def test_a_signal_to_end_is_reported_in_one_sentence_and_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def load() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal comes first")

    monkeypatch.setattr("zooft.hooks.registry.load", load)
    done = command("tasks", "--json", status=143)
    assert done.stderr.strip() == "zooft: ended by the signal SIGTERM"
    assert json.loads(done.stdout)["error"]["kind"] == "Terminated"
    assert signal.getsignal(signal.SIGTERM) == before
