"""From HU to the network's input: windows by hand, the resize against Pillow and torch, discs of known size, and the
exported graph against the module.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import zooft
from zooft_ct import graph, windows
from zooft_ct.options import CTOptions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    HU = NDArray[np.int16]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LUNG, MEDIASTINUM, BONE = (-600, 1500), (40, 400), (400, 1800)


def levels_spec(height: int, width: int | None = None, *, interpolation: Any = "bilinear") -> zooft.InputSpec:
    """A specification whose normalisation leaves levels as they are."""
    return zooft.InputSpec(
        height=height,
        width=width or height,
        resize=999,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
        interpolation=interpolation,
    )


def noise(*shape: int, seed: int = 0) -> HU:
    return np.random.default_rng(seed).integers(-1024, 3071, shape, endpoint=True, dtype=np.int16)


def windowed(hu: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float64]:
    """By the definition, in double precision."""
    center, width = window
    low, high = center - width / 2, center + width / 2
    return (np.clip(hu.astype(np.float64), low, high) - low) / (high - low) * 255


def ours(hu: HU, spec: zooft.InputSpec, options: CTOptions, spacing: Any = None) -> NDArray[np.float32]:
    extra = () if spacing is None else (torch.tensor(spacing, dtype=torch.float32),)
    result: Tensor = graph.preprocess(spec, options)(torch.from_numpy(hu), *extra)
    assert result.dtype == torch.float32
    return result.numpy()


def disc(size: int, spacing: tuple[float, float], diameter: float) -> HU:
    """A bright disc in the middle of air, ``(1, 1, size, size)``; its edge smoothed over a pixel."""
    rows, columns = ((np.arange(size) - (size - 1) / 2) * mm for mm in spacing)
    distance = np.hypot(rows[:, None], columns[None, :])
    inside = np.clip((diameter / 2 - distance) / max(spacing) + 0.5, 0, 1)
    return (-1024 + 1500 * inside).astype(np.int16)[None, None]


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("lung", LUNG),
        ("mediastinum", MEDIASTINUM),
        ("bone", BONE),
        ("brain", (40, 80)),
        ("subdural", (80, 200)),
        ("liver", (60, 160)),
        ("-600/1500", LUNG),
        ("37.5/1e2", (37.5, 100)),
    ],
)
def test_a_window_is_a_name_or_centre_and_width(text: str, window: tuple[float, float]) -> None:
    assert windows.parse(text) == window


@pytest.mark.parametrize("text", ["lungs", "", "40", "40/0", "40/-3", "40/400/2", "nan/400", "40/inf", "a/b"])
def test_what_is_no_window_is_refused_with_the_names_that_are(text: str) -> None:
    with pytest.raises(zooft.ConfigError, match=r"lung, mediastinum.*CENTER/WIDTH") as caught:
        windows.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("window", [LUNG, MEDIASTINUM, BONE, (40, 80)])
def test_a_window_clips_and_spreads_hu_over_the_levels(window: tuple[float, float]) -> None:
    options = CTOptions(mode="slice", window=(f"{window[0]}/{window[1]}",))
    hu = noise(2, 1, 16, 16)
    got = ours(hu, levels_spec(16), options)
    for channel in range(3):
        np.testing.assert_allclose(got[:, channel], windowed(hu[:, 0], window), atol=1e-4)


def test_levels_between_two_whole_ones_are_not_rounded() -> None:
    hu = np.full((1, 1, 8, 8), -599, dtype=np.int16)
    got = ours(hu, levels_spec(8), CTOptions(mode="slice"))
    np.testing.assert_allclose(got, 127.5 + 255 / 1500, atol=1e-4)


@pytest.mark.parametrize(
    ("slices", "shown"), [(1, (0, 0, 0)), (2, (0, 1, 1)), (3, (0, 1, 2)), (4, (1, 2, 3)), (7, (2, 3, 4))]
)
def test_neighbours_are_channels_and_a_missing_one_is_the_slice_beside_it(
    slices: int, shown: tuple[int, int, int]
) -> None:
    hu = noise(2, slices, 12, 12)
    got = ours(hu, levels_spec(12), CTOptions(mode="2.5d"))
    np.testing.assert_allclose(got, windowed(hu[:, list(shown)], LUNG), atol=1e-4)


@pytest.mark.parametrize("slices", [1, 2, 3, 8, 9])
def test_modes_of_one_slice_show_the_middle_one(slices: int) -> None:
    hu = noise(2, slices, 12, 12)
    one = ours(hu, levels_spec(12), CTOptions(mode="slice"))
    three = ours(hu, levels_spec(12), CTOptions(mode="windows"))
    for channel, window in enumerate((LUNG, MEDIASTINUM, BONE)):
        np.testing.assert_allclose(one[:, channel], windowed(hu[:, slices // 2], LUNG), atol=1e-4)
        np.testing.assert_allclose(three[:, channel], windowed(hu[:, slices // 2], window), atol=1e-4)


@pytest.mark.parametrize("names", [("lung",), ("lung", "mediastinum", "bone")])
@pytest.mark.parametrize("spacing", [0.0, 1.0])
def test_each_slice_of_a_volume_is_seen_as_it_would_be_alone(names: tuple[str, ...], spacing: float) -> None:
    hu, spec = noise(2, 5, 30, 40), levels_spec(24)
    mm = [[0.7, 0.9], [0.8, 0.5]] if spacing else None
    alone = CTOptions(mode="slice" if len(names) == 1 else "windows", window=names, spacing=spacing)
    got = ours(hu, spec, CTOptions(mode="volume", window=names, spacing=spacing), mm)
    assert got.shape == (2, 5, 3, 24, 24)
    for index in range(5):
        np.testing.assert_allclose(got[:, index], ours(hu[:, index : index + 1], spec, alone, mm), atol=1e-4)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(96, 128), (512, 512), (30, 50), (65, 200)], ids=str)
def test_the_whole_field_of_view_is_resized_as_torch_and_pillow_do_it(
    size: tuple[int, int], interpolation: str
) -> None:
    hu = noise(1, 1, *size)
    got = ours(hu, levels_spec(64, 48, interpolation=interpolation), CTOptions(mode="slice"))[0, 0]
    levels = windowed(hu, LUNG).astype(np.float32)
    torchs = F.interpolate(torch.from_numpy(levels), (64, 48), mode=interpolation, antialias=True, align_corners=False)
    np.testing.assert_allclose(got, torchs[0, 0], atol=2e-3)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    pillows = Image.fromarray(levels[0, 0]).resize((48, 64), filters[interpolation])
    np.testing.assert_allclose(got, np.asarray(pillows), atol=2e-3)


def test_the_result_is_normalised_for_the_backbone() -> None:
    hu = noise(2, 3, 32, 32)
    spec = zooft.InputSpec(height=32, width=32, resize=36, mean=MEAN, std=STD)
    mean, std = (np.array(values)[:, None, None] for values in (MEAN, STD))
    np.testing.assert_allclose(ours(hu, spec, CTOptions()), (windowed(hu, LUNG) / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.8, 0.8), (1.0, 1.0), (1.3, 0.6)], ids=str)
@pytest.mark.parametrize("size", [160, 161, 201])
def test_a_disc_of_fifty_millimetres_spans_fifty_pixels_of_a_millimetre(
    spacing: tuple[float, float], size: int
) -> None:
    options = CTOptions(mode="slice", window=("0/2048",), spacing=1.0)
    got = ours(disc(size, spacing, 50.0), levels_spec(96), options, [spacing])[0, 0]
    shown = got - got.min()
    half = shown.max() / 2
    middle = shown[46:50].mean(0), shown[:, 46:50].mean(1)
    for profile in middle:
        assert np.sum(profile > half) == pytest.approx(50, abs=1)
    assert shown.sum() / shown.max() == pytest.approx(np.pi * 25**2, rel=0.02)
    centre = [(shown.sum(1 - axis) * np.arange(96)).sum() / shown.sum() for axis in (0, 1)]
    assert centre == pytest.approx([47.5, 47.5], abs=0.6)


def test_images_of_one_batch_are_resampled_by_their_own_spacing() -> None:
    hu, options = noise(3, 3, 50, 60), CTOptions(spacing=0.8)
    mm = [[0.5, 0.5], [0.8, 0.8], [1.1, 0.7]]
    together = ours(hu, levels_spec(40), options, mm)
    for index in range(3):
        alone = ours(hu[index : index + 1], levels_spec(40), options, mm[index : index + 1])
        np.testing.assert_allclose(together[index : index + 1], alone, atol=1e-4)


def test_resampling_to_the_spacing_that_is_there_cuts_out_the_centre() -> None:
    hu = noise(1, 1, 50, 61)
    got = ours(hu, levels_spec(40), CTOptions(mode="slice", spacing=0.7), [[0.7, 0.7]])
    np.testing.assert_allclose(got[0, 0], windowed(hu[0, 0, 5:45, 10:50], LUNG), atol=1e-3)


@pytest.mark.parametrize("mode", ["slice", "2.5d", "windows", "volume"])
def test_what_lies_outside_a_small_field_of_view_looks_like_air(mode: Any) -> None:
    hu = np.full((1, 3, 20, 30), 100, dtype=np.int16)
    got = ours(hu, levels_spec(64), CTOptions(mode=mode, spacing=1.0), [[1.0, 1.0]])
    got = got[:, 1] if mode == "volume" else got
    shown = (LUNG, MEDIASTINUM, BONE) if mode == "windows" else (LUNG,) * 3
    for channel, window in enumerate(shown):
        np.testing.assert_allclose(got[0, channel, 22:42, 17:47], windowed(np.array(100), window), atol=1e-3)
        outside = np.ones((64, 64), dtype=bool)
        outside[22:42, 17:47] = False
        np.testing.assert_allclose(got[0, channel][outside], windowed(np.array(-1024), window), atol=1e-3)


def test_no_tensor_of_it_is_saved_with_the_model() -> None:
    assert dict(graph.preprocess(levels_spec(32), CTOptions(mode="windows")).state_dict()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CTOptions(mode="windows", window=("bone",)), "--mode windows takes three --window, and 1 were given: bone"),
        (CTOptions(mode="2.5d", window=("lung", "bone")), "--mode 2.5d takes one --window, and 2 were given"),
        (CTOptions(mode="volume", window=("lung", "bone")), "takes one or three --window"),
        (CTOptions(window=("longue",)), "'longue' was given"),
        (CTOptions(spacing=-0.5), "--spacing takes mm from 0"),
        (CTOptions(spacing=float("nan")), "--spacing takes mm from 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused_early(options: CTOptions, message: str) -> None:
    for refuse in (graph.check, graph.port, lambda options: graph.preprocess(levels_spec(32), options)):
        with pytest.raises(zooft.ConfigError) as caught:
            refuse(options)
        assert message in str(caught.value)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(zooft.ConfigError) as caught:
        graph.check(CTOptions(mode="2.5d", window=("lung", "bon"), spacing=-1))
    assert all(message in str(caught.value) for message in ("'bon'", "2 were given", "-1 was given"))


def test_the_deployed_graph_takes_hu_and_the_spacing_only_where_it_is_needed() -> None:
    plain, both = graph.port(CTOptions()), graph.port(CTOptions(spacing=0.8))
    assert isinstance(plain, zooft.Port)
    assert (plain.name, plain.dtype, plain.axes) == ("hu", "int16", ("batch", "slices", "rows", "columns"))
    assert isinstance(both, tuple)
    assert [(p.name, p.dtype, p.axes) for p in both] == [
        ("hu", "int16", ("batch", "slices", "rows", "columns")),
        ("spacing", "float32", ("batch", 2)),
    ]


EXPORTED = {
    "2.5d": CTOptions(),
    "volume of 0.8 mm in three windows": CTOptions(mode="volume", window=("lung", "bone", "40/80"), spacing=0.8),
    "slice": CTOptions(mode="slice"),
    "windows": CTOptions(mode="windows"),
    "2.5d of 1 mm": CTOptions(spacing=1.0),
    "volume": CTOptions(mode="volume"),
}


@pytest.fixture(
    scope="module",
    params=[name if i < 2 else pytest.param(name, marks=pytest.mark.slow) for i, name in enumerate(EXPORTED)],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[CTOptions, Path]:
    """The module alone as an ONNX file, all axes free."""
    options = EXPORTED[request.param]
    path = tmp_path_factory.mktemp("graph") / "preprocess.onnx"
    ports = given_ports(options)
    torch.onnx.export(
        graph.preprocess(network_spec(), options).eval(),
        example((2, 3, 70, 80), options),
        path,
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
        input_names=[port.name for port in ports],
        # the exporter warns of an axis name that both inputs have
        dynamic_shapes=tuple(
            {i: torch.export.Dim.DYNAMIC for i, axis in enumerate(port.axes) if isinstance(axis, str)} for port in ports
        ),
    )
    return options, path


def network_spec() -> zooft.InputSpec:
    return zooft.InputSpec(height=96, width=80, resize=96, mean=MEAN, std=STD, interpolation="bicubic", mode="stretch")


def given_ports(options: CTOptions) -> tuple[zooft.Port, ...]:
    given = graph.port(options)
    return given if isinstance(given, tuple) else (given,)


def example(shape: tuple[int, ...], options: CTOptions) -> tuple[Tensor, ...]:
    hu = torch.from_numpy(noise(*shape))
    spacing = torch.rand(shape[0], 2, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.4
    return (hu, spacing) if options.spacing else (hu,)


@pytest.mark.parametrize("shape", [(1, 1, 96, 128), (2, 3, 512, 512), (1, 40, 64, 64), (3, 2, 17, 33)], ids=str)
def test_onnxruntime_gives_the_same_input_for_any_number_and_size_of_slices(
    exported: tuple[CTOptions, Path], shape: tuple[int, ...]
) -> None:
    options, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = example(shape, options)
    expected = graph.preprocess(network_spec(), options)(*arrays).numpy()
    feed = {port.name: array.numpy() for port, array in zip(given_ports(options), arrays, strict=True)}
    (got,) = session.run(None, feed)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_graph_has_no_operator_that_runtimes_disagree_on(exported: tuple[CTOptions, Path]) -> None:
    model = onnx.load(exported[1])
    assert {node.op_type for node in model.graph.node}.isdisjoint({"Resize", "Upsample", "GridSample", "AffineGrid"})


def test_openvino_shows_the_same_slice_at_the_same_size_in_bfloat16_too(exported: tuple[CTOptions, Path]) -> None:
    """Lengths and numbers of slices above 256 have no bfloat16; wrong ones would move edges by 50 levels and more."""
    openvino = pytest.importorskip("openvino")
    options, path = exported
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU")
    for shape in [(1, 301, 16, 24), (2, 3, 512, 512), (1, 1, 300, 701)]:
        coarse = torch.from_numpy(noise(shape[0], shape[1], -(-shape[2] // 16), -(-shape[3] // 16)).astype(np.float32))
        hu = F.interpolate(coarse, shape[2:], mode="bilinear").to(torch.int16)
        arrays = (hu, *example(shape, options)[1:])
        expected = graph.preprocess(network_spec(), options)(*arrays).numpy()
        feed = {port.name: array.numpy() for port, array in zip(given_ports(options), arrays, strict=True)}
        levels = np.abs(compiled(feed)[0] - expected) * 255 * np.array(STD, dtype=np.float32)[:, None, None]
        assert levels.max() < 16
        assert levels.mean() < 1.5
        assert np.quantile(levels, 0.99) < 4


@pytest.mark.parametrize("mm", [0.1, 0.3, 0.4883, 0.703125, 0.75, 0.9765625, 1.0, 1.37, 2.0, 5.0, 7.99])
def test_lengths_are_those_of_exact_arithmetic(mm: float) -> None:
    """A square of so many millimetres spans so many pixels of one, whatever floats make of it."""
    options = CTOptions(mode="slice", window=("0/2048",), spacing=1.0)
    for size in (41, 100, 257):
        got = ours(np.full((1, 1, size, size), 500, dtype=np.int16), levels_spec(64), options, [[mm, mm]])[0, 0]
        shown = int((got[32] > 31).sum())  # of 62, beside air
        exact = max(1, int(Fraction(float(np.float32(mm))) * size + Fraction(1, 2)))
        assert shown == min(exact, 64)
