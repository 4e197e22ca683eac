"""What the command line sets in its C libraries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from zooft.cli import process
from zooft.compute import machine


@pytest.fixture
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(name, "")  # so that what tune() sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(process, "_keep_freed_memory", lambda: None)


@pytest.mark.usefixtures("_bare")
def test_threads_fit_a_containers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "quota_below_affinity", lambda: True)
    monkeypatch.setattr(machine, "cores", lambda: 3)
    process.tune()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.usefixtures("_bare")
def test_without_a_share_the_library_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "quota_below_affinity", lambda: False)
    process.tune()
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.usefixtures("_bare")
def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "quota_below_affinity", lambda: True)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    process.tune()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("7", "ACTIVE")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_freed_memory_stays_in_the_process(where: str) -> None:
    """A large block, freed and taken again, is given without the kernel: hardly any new page faults."""
    code = """
import resource, sys, threading
from zooft.cli import process
if sys.argv[1] == "tuned":
    process.tune()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(3):
        bytearray(80 * 2**20)
    before = faults()
    for _ in range(5):
        bytearray(80 * 2**20)
    print(faults() - before)
if sys.argv[2] == "main thread":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, how, where], capture_output=True, text=True, check=True, env=environment
            ).stdout
        )
        for how in ("plain", "tuned")
    ]
    assert found[1] * 10 < found[0]
