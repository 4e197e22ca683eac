"""The stopwatch against a clock that the test turns, and figures against arithmetic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from zooft.compute import profile
from zooft.compute.profile import Part, Peak, Profile, Stopwatch
from zooft.run.folder import to_json

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(wall=100.0, cpu=7.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.wall)
    monkeypatch.setattr(time, "process_time", lambda: now.cpu)
    return now


def go(clock: SimpleNamespace, wall: float, cpu: float) -> None:
    clock.wall += wall
    clock.cpu += cpu


def test_parts_add_up_and_inner_ones_count_once(clock: SimpleNamespace) -> None:
    watch = Stopwatch()
    go(clock, 1, 0.5)
    for _ in range(2):
        with watch.part("outer"):
            go(clock, 10, 5)
            with watch.part("inner"):
                go(clock, 3, 6)
            go(clock, 2, 1)
    go(clock, 4, 2)
    found = watch.parts()
    assert set(found) == {Part("outer", 24, 12, 2), Part("inner", 6, 12, 2), Part("the rest", 5, 2.5, 0)}
    assert found[-1].name == "the rest"


def test_the_same_part_inside_itself_counts_once(clock: SimpleNamespace) -> None:
    watch = Stopwatch()
    with watch.part("a"), watch.part("a"):
        go(clock, 3, 1)
    assert sum(part.wall for part in watch.parts()) == 3


def test_a_part_that_fails_is_left(clock: SimpleNamespace) -> None:
    watch = Stopwatch()

    def work() -> None:
        with watch.part("a"):
            go(clock, 1, 1)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        work()
    go(clock, 5, 5)
    assert {part.name: part.wall for part in watch.parts()} == {"a": 1, "the rest": 5}


def test_waiting_for_items_counts(clock: SimpleNamespace) -> None:
    watch = Stopwatch()

    def items() -> object:
        for number in range(3):
            go(clock, 2, 1)
            yield number

    for _ in watch.each(items(), "loading"):  # type: ignore[arg-type]
        go(clock, 10, 10)
    assert {part.name: part.wall for part in watch.parts()} == {"loading": 6, "the rest": 30}


def test_a_device_is_waited_for_at_both_ends(clock: SimpleNamespace) -> None:
    """What is running when a part begins belongs to the part before."""
    pending = [0.0]

    def wait() -> None:
        go(clock, pending.pop() if pending else 0, 0)

    watch = Stopwatch(wait=wait)
    pending[:] = [5.0]
    with watch.part("a"):
        pending[:] = [2.0]
    assert {part.name: part.wall for part in watch.parts()} == {"a": 2, "the rest": 5}


def test_off_it_measures_nothing() -> None:
    watch = Stopwatch(on=False, wait=lambda: pytest.fail("waited"))
    with watch.part("a"):
        pass
    assert watch.part("a") is watch.part("b")
    assert list(watch.each([1, 2], "c")) == [1, 2]
    assert [part.name for part in Stopwatch(on=False).parts()] in ([], ["the rest"])


def test_start_up_counts_from_the_birth_of_the_process() -> None:
    code = """
import time
time.sleep(0.5)
from zooft.compute.profile import Stopwatch
watch = Stopwatch()
watch.count_startup()
first = watch.parts()[0]
print(first.name, first.wall, first.cpu)
"""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    name, wall, cpu = done.stdout.rsplit(maxsplit=2)
    assert name == "start-up"
    if sys.platform == "linux":
        assert 0.5 <= float(wall) <= whole + 0.05  # the kernel counts in hundredths
    assert 0 < float(cpu) <= whole


def test_flops_of_a_step_by_hand() -> None:
    """A product of (4, 8) by (8, 2): forward, and the gradients of the weights; none of the input's."""
    net = nn.Linear(8, 2, bias=False)
    x = torch.randn(4, 8)
    assert profile.step_flops(lambda: net(x).sum(), list(net.parameters())) == 2 * (2 * 4 * 8 * 2)


def test_flops_of_a_depthwise_convolution_by_hand() -> None:
    """36 places, 9 multiplications each, 8 channels: forward, and the gradients of weights and input."""
    x = nn.Parameter(torch.randn(2, 8, 6, 6))
    net = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    found = profile.step_flops(lambda: net(1 * x).sum(), [x, net.weight])
    assert found == 3 * 2 * (2 * 8 * 36 * 9)


def test_flops_of_a_transposed_convolution_by_hand() -> None:
    x = torch.randn(2, 4, 5, 5)
    net = nn.ConvTranspose2d(4, 6, 3, stride=2, bias=False)
    found = profile.step_flops(lambda: net(x).sum(), [net.weight])
    assert found == 2 * 2 * (2 * 25 * 4 * 6 * 9)


def test_flops_of_attention_are_counted() -> None:
    """Two products of length by length by width forward, four backward; torch doesn't count the CPU's fused kernel."""
    q, k, v = (nn.Parameter(torch.randn(2, 3, 5, 7)) for _ in range(3))
    found = profile.step_flops(lambda: nn.functional.scaled_dot_product_attention(q, k, v).sum(), [q, k, v])
    assert found == 6 * 2 * (2 * 3 * 5 * 5 * 7)


def test_the_peak_is_above_what_a_small_product_reaches() -> None:
    peak = profile.measure_peak(CPU)
    assert peak.threads == torch.get_num_threads()
    a = torch.randn(8, 8)
    began = time.perf_counter()
    for _ in range(100):
        a @ a
    slow = 100 * 2 * 8**3 / (time.perf_counter() - began) / 1e9
    assert peak.float32 > slow
    assert peak.of(torch.float32) == peak.float32
    assert peak.of(torch.bfloat16) == peak.bfloat16


PROFILE = Profile(
    parts=(Part("start-up", 2, 2, 1), Part("forward", 3, 6, 10), Part("backward", 5, 9, 10), Part("the rest", 0, 0, 0)),
    dtype="bfloat16",
    learning_gflop=1600,
    peak=Peak(100.0, 400.0, 2, of_cpu=False),
)


def test_the_share_of_the_peak() -> None:
    assert PROFILE.wall == 10
    assert PROFILE.rate == 200
    assert PROFILE.share_of_peak == 0.5
    text = profile.sentence(PROFILE)
    assert "200 GFLOP a second, 50% of the 400" in text


def test_on_a_cpu_the_share_is_of_cpu_seconds() -> None:
    """15 CPU seconds of the two learning parts."""
    found = replace(PROFILE, peak=Peak(100.0, 400.0, 2, of_cpu=True))
    assert found.rate == pytest.approx(1600 / 15)
    assert found.share_of_peak == pytest.approx(1600 / 15 / 400)
    assert "a CPU second" in profile.sentence(found)


def test_rows_are_shares_of_the_whole() -> None:
    found = profile.rows(PROFILE)
    assert all(len(row) == len(profile.COLUMNS) for row in found)
    assert found[2] == ("backward", "5.00", "50.0%", "9.00", "10")
    assert found[-1][:4] == ("whole", "10.00", "100.0%", "17.00")


def test_the_record_is_json() -> None:
    record = json.loads(json.dumps(to_json(profile.as_record(PROFILE))))
    assert record["share_of_peak"] == 0.5
    assert record["parts"][1] == {"name": "forward", "wall_seconds": 3, "cpu_seconds": 6, "times": 10}


def test_nothing_is_claimed_without_a_measurement() -> None:
    bare = Profile(parts=PROFILE.parts, dtype="float32", learning_gflop=0, peak=None)
    assert bare.rate is None
    assert bare.share_of_peak is None
    assert profile.sentence(bare) == ""
    assert profile.as_record(bare)["peak_gflop_per_second"] is None
