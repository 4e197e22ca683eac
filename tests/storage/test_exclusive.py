"""The right to write something: one holder at a time, and none that is dead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zooft.errors import RunError
from zooft.storage import exclusive

WORDS = "somebody else writes it"
HOLD = """
import sys
from pathlib import Path
from zooft.storage import exclusive
lock = exclusive.hold(Path(sys.argv[1]), refusal="taken")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_holder_is_refused_until_the_first_gives_it_back(tmp_path: Path) -> None:
    target = tmp_path / "answers.csv"
    first = exclusive.hold(target, refusal=WORDS)
    assert first is not None
    with pytest.raises(RunError, match=f"^{WORDS}$"):
        exclusive.hold(target, refusal=WORDS)
    other = exclusive.hold(tmp_path / "others.csv", refusal=WORDS)
    exclusive.release(other)
    exclusive.release(first)
    assert list(tmp_path.iterdir()) == [], "nothing is left beside the target"
    exclusive.release(exclusive.hold(target, refusal=WORDS))


def test_another_process_has_it_until_it_dies(tmp_path: Path) -> None:
    target = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=WORDS):
            exclusive.hold(target, refusal=WORDS)
    finally:
        holder.kill()
        holder.communicate()
    lock = exclusive.hold(target, refusal=WORDS)
    assert lock is not None
    exclusive.release(lock)


def test_where_nothing_may_be_written_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert exclusive.hold(tmp_path / "file" / "a.csv", refusal=WORDS) is None
    exclusive.release(None)
