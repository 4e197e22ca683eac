"""The comparison's own arithmetic: what is counted, summarised, rendered. Nothing is timed."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import compare_peers  # noqa: E402
from peers import environments, execute, job, measure, ours, page, pictures, results, slices, start, startup  # noqa: E402
from peers.results import Comparison, Epoch, Run  # noqa: E402


def a_job(**changes: object) -> job.Job:
    values: dict[str, object] = {
        "model": "resnet18",
        "weights": "w.safetensors",
        "frozen": ("conv1.weight",),
        "data": "d",
        "classes": ("a", "b"),
        "size": 224,
        "batch": 32,
        "epochs": 2,
        "seed": 0,
        "workers": 2,
        "lr": 0.1,
        "settings": (),
        "log": "l",
        "scratch": "s",
    }
    return job.Job(**values | changes)  # type: ignore[arg-type]


def a_run(tool: str, *, seed: int = 0, cpu: float = 1.0, problem: str = "", answers: tuple[float, ...] = (0.5,)) -> Run:
    return Run(
        tool=tool,
        model="resnet18",
        job="head",
        data="some images",
        epochs_wanted=2,
        batch=32,
        size=224,
        threads=1,
        seed=seed,
        date="2026-01-02",
        machine="a machine",
        versions={"torch": "9.9"},
        problem=problem,
        wall=cpu * 2,
        cpu=cpu,
        peak_process=3 * 2**20,
        peak_tree=2 * 2**20,
        peak_held=2**20,
        epochs=() if problem else tuple(Epoch(10.0 * (i + 1), 5.0, value, value) for i, value in enumerate(answers)),
    )


# ---------------------------------------------------------------- what a peer gets, and what it logs


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    made = a_job()
    made.write(tmp_path / "job.json")
    assert job.read(tmp_path / "job.json") == made


def test_accuracies_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 3, 200).tolist()
    predictions = np.where(random.random(200) < 0.6, targets, 0).tolist()
    assert job.accuracy(targets, predictions) == pytest.approx(accuracy_score(targets, predictions))
    assert job.balanced_accuracy(targets, predictions) == pytest.approx(balanced_accuracy_score(targets, predictions))


def test_no_answers_are_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no validation predictions"):
        job.accuracy([], [])


def test_the_peers_model_has_the_files_trunk_and_a_head_by_the_seed(tmp_path: Path) -> None:
    import timm
    import torch
    from safetensors.torch import save_file

    source = timm.create_model("resnet18")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    made = [job.build(a_job(weights=str(tmp_path / "w.safetensors"), seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(made[0].layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert made[0].fc.weight.shape == (2, 512)
    assert torch.equal(made[0].fc.weight, made[1].fc.weight)
    assert not torch.equal(made[0].fc.weight, made[2].fc.weight)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("resnet34").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"isn't of resnet18"):
        job.build(a_job(weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    ("model", "learns"),
    [("resnet18", "layer4."), ("tf_efficientnet_lite0", "conv_head"), ("vit_tiny_patch16_224", None)],
)
def test_every_job_freezes_what_zooft_freezes(model: str, learns: str | None) -> None:
    import timm
    import torch

    with torch.device("meta"):
        module = timm.create_model(model)
    names = {name for name, _ in module.named_parameters()}
    head = {name for name in names if name.startswith(f"{module.pretrained_cfg['classifier']}.")}
    assert set(start.frozen(model, "head")) == names - head
    assert start.frozen(model, "full") == ()
    last = names - head - set(start.frozen(model, "last"))
    assert last
    assert last < names - head
    if learns is not None:
        assert any(name.startswith(learns) for name in last)


def test_freezing_an_unknown_name_is_an_error() -> None:
    import torch

    with pytest.raises(ValueError, match=r"nowhere\.weight"):
        job.freeze(torch.nn.Linear(2, 2), ["nowhere.weight"])


# ---------------------------------------------------------------- measuring


def test_cpu_time_holds_descendants_and_lines_come_with_their_second(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "busy = 'import time\\nwhile time.process_time() < 0.5: pass'\n"
        "print('begin', flush=True)\n"
        "subprocess.run([sys.executable, '-c', busy])\n"
        "print('end', flush=True)\n"
    )
    cost = measure.run([sys.executable, "-c", code], environment=os.environ, folder=tmp_path, limit=60)
    assert cost.status == 0
    assert cost.cpu >= 0.5
    (first, begin), (second, end) = cost.lines
    assert (begin, end) == ("begin", "end")
    assert second - first >= 0.5


def test_a_command_past_its_limit_is_ended_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(200)'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    for limit in (2, 10, 60):  # seconds; a busy machine takes its time until the child is there
        cost = measure.run([sys.executable, "-c", code], environment=os.environ, folder=tmp_path, limit=limit)
        assert cost.status == -signal.SIGKILL
        if cost.lines:
            break
    child = int(cost.lines[0][1])
    for _ in range(300):  # a signal is sent at once; on a busy machine its process ends a little later
        if _has_ended(child):
            return
        time.sleep(0.1)
    pytest.fail(f"process {child} still runs 30 s after it was killed")


def _has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE  # nobody here may collect it
    except psutil.NoSuchProcess:
        return True


def test_a_command_is_ended_at_the_line_that_was_waited_for(tmp_path: Path) -> None:
    code = "print('one', flush=True); print('two', flush=True); import time; time.sleep(200)"
    cost = measure.run(
        [sys.executable, "-c", code],
        environment=os.environ,
        folder=tmp_path,
        limit=250,
        stop_at=lambda line: "two" in line,
    )
    assert cost.status == -signal.SIGKILL
    assert [line for _, line in cost.lines] == ["one", "two"]


def seen(code: str, folder: Path) -> measure.Cost:
    """The cost of code that sleeps until it was measured, which takes longer on a busy machine."""
    for seconds in (2.5, 20, 120):
        cost = measure.run(
            [sys.executable, "-c", code.format(seconds)], environment=os.environ, folder=folder, limit=600
        )
        if cost.peak_held and cost.peak_process:
            break
    return cost


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the system doesn't tell shared memory")
def test_memory_of_a_forked_child_counts_once(tmp_path: Path) -> None:
    code = "import os, time\nheld = b'x' * 200_000_000\nchild = os.fork()\ntime.sleep({})\nif child: os.wait()\n"
    cost = seen(code, tmp_path)
    assert 200e6 < cost.peak_held < 300e6
    assert 200e6 < cost.peak_process < 300e6


def test_the_memory_of_who_starts_it_isnt_counted(tmp_path: Path) -> None:
    held = b"x" * 400_000_000
    cost = seen("import time; time.sleep({})", tmp_path)
    assert len(held) > cost.peak_process > 0


def test_cpu_time_between_samples_goes_by_proportion() -> None:
    samples = (measure.Sample(1.0, 10.0, 0, 0, 0), measure.Sample(3.0, 30.0, 0, 0, 0))
    cost = measure.Cost(0, 0.0, 4.0, 34.0, 0, 0, 0, samples, ())
    assert cost.cpu_at(0.5) == pytest.approx(5)
    assert cost.cpu_at(2.0) == pytest.approx(20)
    assert cost.cpu_at(3.5) == pytest.approx(32)
    assert cost.cpu_at(9.0) == pytest.approx(34)


def test_epochs_are_timed_from_the_processes_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"time": 105.0, "accuracy": 0.5, "balanced_accuracy": 0.25}\n')
    cost = measure.Cost(0, 100.0, 10.0, 20.0, 0, 0, 0, (), ())
    assert execute.peer_epochs(log, cost) == (Epoch(5.0, 10.0, 0.5, 0.25),)
    assert execute.peer_epochs(tmp_path / "none", cost) == ()


# ---------------------------------------------------------------- zooft's own command


def test_zoofts_command_has_only_flags_that_it_knows(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from zooft.cli.finetune import finetune

    known = CliRunner().invoke(finetune, ["--task", "classification", "--help"], prog_name="zooft").output
    command = ours.command(a_job(), "full", tuple(ours.SETTINGS), tmp_path, ())
    assert ours.lacking(command, known) == []
    assert ours.lacking(["--no-such", "--epochs", "3"], known) == ["--no-such"]


def test_zoofts_epochs_take_their_time_from_its_lines(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"epoch": 1, "metrics": {"accuracy": 0.5, "balanced_accuracy": 0.4}}\n'
        '{"epoch": 2, "metrics": {"accuracy": 0.75, "balanced_accuracy": 0.7}}\n'
    )
    cost = measure.Cost(0, 0.0, 8.0, 16.0, 0, 0, 0, (), ((4.0, "  epoch 1/2: train loss 0.1"), (5.0, "other")))
    assert ours.epochs(tmp_path, cost) == (Epoch(4.0, 8.0, 0.5, 0.4), Epoch(None, None, 0.75, 0.7))


@pytest.mark.parametrize("text", ["keras", "tutorial+bf16", "timm+warm"])
def test_a_tool_or_setting_that_isnt_there_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"choose among|has no setting"):
        execute.parse_tool(text)


def test_every_tool_has_a_script_and_best_settings_that_it_has() -> None:
    for tool in execute.TOOLS:
        assert tool == "zooft" or (BENCHMARKS / "peers" / f"tool_{tool}.py").is_file()
        for more in execute.BEST.get(tool, ()):
            assert execute.parse_tool(f"{tool}+{more}")[0] == tool


def test_failures_are_reported_without_paths() -> None:
    cost = measure.Cost(
        1,
        0.0,
        1.0,
        1.0,
        0,
        0,
        0,
        (),
        ((0.1, "ImportError: x from /home/someone/secret/y.py"), (0.2, "see the manual"), (0.3, "  ")),
    )
    order = execute.Order(tool="timm", kind="head", data="d", job=a_job(), threads=1, limit=10)
    problem = execute._problem(order, cost, ())
    assert problem == "exit status 1: ImportError: x from y.py"


def test_a_peer_that_skips_epochs_has_failed() -> None:
    cost = measure.Cost(0, 0.0, 1.0, 1.0, 0, 0, 0, (), ())
    order = execute.Order(tool="timm", kind="head", data="d", job=a_job(epochs=2), threads=1, limit=10)
    assert execute._problem(order, cost, (Epoch(1.0, 1.0, 0.5, 0.5),)) == "1 epochs were logged, not 2"


def test_an_environment_that_cant_be_made_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "_make", lambda *_args, **_kw: "pip couldn't install it: no network")
    found = environments.provide("hf", tmp_path, shared=True)
    assert found.python is None
    run = execute.run(
        execute.Order(tool="hf", kind="head", data="d", job=a_job(), threads=1, limit=10),
        found,
        execute.Caches(tmp_path),
    )
    assert run.problem == "pip couldn't install it: no network"
    assert "no network" in shown([run])


# ---------------------------------------------------------------- whose turn it is


def test_each_round_begins_with_another_tool_and_warm_follows_cold() -> None:
    tools = ["zooft", "zooft+warm", "tutorial", "timm"]
    turns = [compare_peers.rotate(tools, number) for number in range(3)]
    assert {order[0] for order in turns} == {"zooft", "tutorial", "timm"}
    for order in turns:
        assert sorted(order) == sorted(tools)
        assert order.index("zooft+warm") == order.index("zooft") + 1


def test_a_warm_run_alone_stays() -> None:
    assert compare_peers.rotate(["zooft+warm", "timm"], 0) == ["timm", "zooft+warm"]


# ---------------------------------------------------------------- what many runs say


def test_a_ratio_is_taken_within_its_round() -> None:
    ours_ = [a_run("zooft", seed=0, cpu=10), a_run("zooft", seed=1, cpu=20), a_run("zooft", seed=2, cpu=30)]
    peer = [a_run("timm", seed=0, cpu=100), a_run("timm", seed=1, cpu=400), a_run("timm", seed=3, cpu=9)]
    found = results.ratios(peer, ours_)
    assert found == results.Spread(middle=15.0, low=10.0, high=20.0, count=2)


def test_a_failed_run_has_no_ratio() -> None:
    assert results.ratios([a_run("timm", problem="broken")], [a_run("zooft")]) is None
    assert results.ratios([a_run("timm")], [a_run("zooft", problem="broken")]) is None


def test_rows_are_ours_then_the_fastest_then_what_failed() -> None:
    runs = [
        a_run("hf", problem="broken"),
        a_run("timm", cpu=50),
        a_run("tutorial", cpu=40),
        a_run("zooft", cpu=4),
        a_run("zooft+warm", cpu=2),
    ]
    table = results.rows(runs)
    assert [row.tool for row in table] == ["zooft+warm", "zooft", "tutorial", "timm", "hf"]
    assert {name: value.middle for name, value in table[2].ratios.items()} == {"zooft": 10, "zooft+warm": 20}
    assert table[0].ratios == {}
    best = results.fastest(table)
    assert best is not None
    assert best.tool == "tutorial"


def test_a_run_done_again_replaces_the_old_one_and_other_jobs_stay_apart() -> None:
    other = dataclasses.replace(a_run("timm", cpu=7), job="full")
    groups = results.group([a_run("timm", cpu=1), other, a_run("timm", cpu=2)])
    assert [[run.cpu for run in members] for members in groups.values()] == [[2], [7]]


def test_runs_survive_their_file_and_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results" / "peers.jsonl"
    made = [a_run("zooft"), a_run("hf", problem="broken")]
    for run in made:
        results.append(path, run)
    assert results.read([path]) == made
    with path.open("a") as file:
        file.write('{"tool": "x", "epochs": []}\n')
    with pytest.raises(ValueError, match="line 3"):
        results.read([path])


def shown(runs: list[Run], pictures: dict[Comparison, str] | None = None) -> str:
    return "\n".join(page.sections(runs, pictures or {}).values())


def test_the_document_leads_with_ratios() -> None:
    runs = [a_run("zooft", cpu=10), a_run("zooft+warm", cpu=4), a_run("tutorial", cpu=150), a_run("timm", cpu=120)]
    text = shown(runs, {next(iter(results.group(runs))): "images/x.svg"})
    assert (
        "with an empty cache **15.0 times less** than the tutorial's loop and **12.0 times less** than the fastest "
        "other tool (timm)" in text
    )
    assert "with a warm one **37.5 times less** than the tutorial's loop and **30.0 times less**" in text
    assert "| timm | 120.0 | 240.0 | 12.0 | 30.0 | 1 | 0.500 |" in text
    assert "torch 9.9" in text
    assert "2026-01-02" in text
    assert "(images/x.svg)" in text


def test_zooft_with_settings_is_compared_with_as_well() -> None:
    runs = [
        a_run("zooft+exact", cpu=10),
        a_run("zooft+bf16", cpu=5),
        a_run("timm", cpu=40),
        a_run("hf", problem="broken"),
    ]
    text = shown(runs)
    assert "with `bf16` **8.0 times less** than the fastest other tool (timm)" in text
    assert "with `exact` **4.0 times less** than the fastest other tool (timm)" in text
    assert "| timm | 40.0 | 80.0 | 8.0 | 4.0 | 1 | 0.500 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_a_slower_zooft_is_reported_too() -> None:
    assert "**2.00 times more**" in shown([a_run("zooft", cpu=20), a_run("timm", cpu=10)])


def test_sections_go_between_the_marks_and_those_measured_elsewhere_stay() -> None:
    text = f"before\n\n{page.BEGIN}\n\n### a\n\nold\n\n### b\n\nof b\n\n{page.END}\n\n### a\n\nafter\n"
    assert page.insert(text, {}) == text
    assert page.insert(text, {"c": "of c\n", "a": "new"}) == (
        f"before\n\n{page.BEGIN}\n\n### a\n\nnew\n\n### b\n\nof b\n\n### c\n\nof c\n\n{page.END}\n\n### a\n\nafter\n"
    )
    with pytest.raises(ValueError, match="lacks the lines"):
        page.insert("nothing", {"a": "new"})


def test_comparisons_that_differ_have_sections_of_their_own() -> None:
    run = a_run("zooft")
    (usual,) = results.group([run])
    others = {
        field.name: "x" if isinstance(getattr(usual, field.name), str) else 77
        for field in dataclasses.fields(Comparison)
    }
    titles = {page.title(dataclasses.replace(usual, **{name: value})) for name, value in others.items()}
    assert len(titles | {page.title(usual)}) == len(others) + 1


def test_a_heading_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        page.insert(f"{page.BEGIN}\n\n### a\n\n1\n\n### a\n\n2\n\n{page.END}\n", {})


def test_the_committed_document_keeps_what_it_has() -> None:
    text = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert page.insert(text, {}) == text


def test_the_plot_is_the_same_each_time_and_empty_without_epochs(tmp_path: Path) -> None:
    runs = [a_run("zooft", answers=(0.5, 0.4, 0.9)), a_run("timm", answers=(0.3, 0.6))]
    (key,) = results.group(runs)
    for name in ("a.svg", "b.svg"):
        assert page.plot(key, runs, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert not page.plot(key, [a_run("timm", problem="broken")], tmp_path / "c.svg")


def test_memory_is_compared_with_the_fewest_images() -> None:
    few, many = (
        dataclasses.replace(a_run("zooft"), data=words, peak_held=held)
        for words, held in (("600", 2**30), ("20000", 3 * 2**29))
    )
    rows = compare_peers.memory_table([few, many]).splitlines()
    assert rows[2].endswith("| 1024 | 2 | 1.00 |")
    assert rows[3].endswith("| 1536 | 2 | 1.50 |")


def test_a_startup_measurement_survives_its_file() -> None:
    value = results.Spread(1.0, 0.5, 2.0, 3)
    made = startup.Startup("resnet18", *(value,) * 4, dataclasses.replace(value, middle=1.4), *(value,) * 3)
    assert startup.parse(dataclasses.asdict(made)) == made
    assert "1.40 times the wall time" in startup.table(made)


# ---------------------------------------------------------------- slices of CT


def test_slices_are_windowed_as_pydicom_reads_them_and_patients_stay_on_one_side(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs the extra 'ct'")
    from pydicom.pixels import apply_rescale

    from zooft_ct.demo import generate

    generate(tmp_path / "ct", patients=16, one_slice=True)
    made = slices.write(tmp_path / "ct", tmp_path / "pictures", window="40/400")
    expected, side = set(), {}
    for path in (tmp_path / "ct").rglob("*.dcm"):
        header = pydicom.dcmread(path)
        hu = apply_rescale(header.pixel_array, header)
        levels = np.clip(np.rint((hu + 160) / 400 * 255), 0, 255).astype(np.uint8)
        expected.add(levels.tobytes())
        side[levels.tobytes()] = header.PatientID
    written = {path: np.asarray(Image.open(path)).tobytes() for path in made.rglob("*.png")}
    assert written
    assert set(written.values()) <= expected
    seen = {
        split: {side[pixels] for path, pixels in written.items() if split in path.parts} for split in ("train", "val")
    }
    assert seen["train"]
    assert seen["val"]
    assert not seen["train"] & seen["val"]


def test_a_folder_without_ct_ends_the_comparison_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "none").mkdir()
    given = ["compare_peers.py", "--ct", str(tmp_path / "none"), "--made", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit, match=r"--ct .*none: "):
        compare_peers.main()


# ---------------------------------------------------------------- synthetic images


def test_pictures_are_the_same_for_a_seed_and_made_once(tmp_path: Path) -> None:
    folders = [pictures.make(tmp_path / name, train=5, val=4, seed=3, processes=1) for name in ("a", "b")]
    files = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*.jpg"))
    assert len(files) == 9
    assert all((folders[0] / file).read_bytes() == (folders[1] / file).read_bytes() for file in files)
    before = (folders[0] / files[0]).stat().st_mtime_ns
    pictures.make(folders[0], train=5, val=4, seed=3, processes=1)
    assert (folders[0] / files[0]).stat().st_mtime_ns == before
    other = pictures.make(tmp_path / "c", train=5, val=4, seed=4, processes=1)
    assert (other / files[0]).read_bytes() != (folders[0] / files[0]).read_bytes()


def test_pictures_look_like_photographs_to_a_decoder() -> None:
    sizes = []
    for kind in range(4):
        file = io.BytesIO()
        Image.fromarray(pictures.picture(kind, np.random.default_rng(kind))).save(
            file, "JPEG", quality=pictures._QUALITY
        )
        sizes.append(len(file.getvalue()))
        assert Image.open(file).size == (500, 375)
    assert 60_000 < np.mean(sizes) < 100_000


def test_classes_differ_but_not_in_colour() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.preprocessing import StandardScaler

    images = [pictures.picture(kind, np.random.default_rng((kind, n))) for n in range(16) for kind in range(4)]
    targets = [kind for _ in range(16) for kind in range(4)]
    colours = np.array([image.mean((0, 1)) for image in images])
    texture = np.array([_spectrum(image) for image in images])
    scores = [
        cross_val_score(LogisticRegression(max_iter=2000), StandardScaler().fit_transform(x), targets, cv=5).mean()
        for x in (colours, texture)
    ]
    assert scores[0] < 0.45
    assert scores[1] > 0.6


def _spectrum(image: np.ndarray) -> np.ndarray:
    """How even, and at which frequencies, the energy of the image is."""
    grey = image.mean(-1)[:375, :375]
    power = np.abs(np.fft.rfft2(grey - grey.mean()))[:40, :40] ** 2
    power /= power.sum()
    radius = np.hypot(*np.mgrid[0:40, 0:40]).astype(int)
    rings = np.bincount(radius.ravel(), power.ravel(), 57)
    return np.array([np.log(power.max()), *np.log(rings[:20] + 1e-6)])


def test_too_few_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 4"):
        pictures.make(tmp_path / "x", train=3, val=8)
