"""The preprocessing against Pillow and torchvision, in torch and, exported alone, in onnxruntime and OpenVINO."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import InterpolationMode

from zooft import ImagePreprocess, InputSpec, Resize, image_preprocess

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Levels = NDArray[np.uint8]

# (height, width): landscape, portrait, the input's own size, smaller than the input, extreme, tiny, odd excess
SIZES = [(427, 640), (333, 200), (224, 224), (100, 90), (3, 200), (1, 50), (50, 1), (1, 1), (225, 1000), (427, 641)]
# Pillow resizes horizontally first; in some versions vertically first where that is less work, which rounds elsewhere
MOST_LEVELS = {"bilinear": 1, "bicubic": 6}
MEAN_LEVELS = 0.2
# whole ratios, where half levels are frequent; strips, which large images are cut into; common sizes
RATIOS = [(448, 448), (512, 768), (384, 512), (672, 336), (375, 500), (768, 1024), (1344, 1000)]


def plain_spec(mode: Any, interpolation: Any, *, height: int = 224, width: int = 224, resize: int = 256) -> InputSpec:
    """A specification whose normalisation leaves levels as they are."""
    return InputSpec(
        height=height,
        width=width,
        resize=resize,
        mean=(0.0,) * 3,
        std=(1 / 255,) * 3,
        mode=mode,
        interpolation=interpolation,
    )


def photograph(height: int, width: int) -> Levels:
    """A cut-out of a real photograph, tiled where it is too small."""
    whole = load_sample_image("china.jpg")
    repeats = (-(-height // whole.shape[0]), -(-width // whole.shape[1]), 1)
    return np.array(np.tile(whole, repeats)[:height, :width])


def ours(images: NDArray[Any], spec: InputSpec) -> NDArray[np.float32]:
    """What the module gives for one image, ``(height, width, C)``."""
    result: NDArray[np.float32] = ImagePreprocess(spec)(torch.from_numpy(images)[None])[0].permute(1, 2, 0).numpy()
    return result


def torchvisions(image: Levels, spec: InputSpec) -> NDArray[np.float64]:
    """Torchvision's transforms on a Pillow image, as the zoos' own evaluation has them."""
    mode = InterpolationMode(spec.interpolation)
    if spec.mode == "stretch":
        transform: Any = v2.Resize((spec.height, spec.width), interpolation=mode)
    else:
        transform = v2.Compose([v2.Resize(spec.resize, interpolation=mode), v2.CenterCrop(spec.height)])
    return np.asarray(transform(Image.fromarray(image)), dtype=np.float64)


def pillows_letterbox(image: Levels, spec: InputSpec) -> NDArray[np.float64]:
    """The longer side to the input's, in Pillow, pasted into the middle of black."""
    rows, columns = image.shape[:2]
    longest = max(rows, columns)
    size = (max(1, columns * spec.width // longest), max(1, rows * spec.height // longest))
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    small = Image.fromarray(image).resize(size, filters[spec.interpolation])
    canvas = Image.new("RGB", (spec.width, spec.height))
    canvas.paste(small, ((spec.width - size[0]) // 2, (spec.height - size[1]) // 2))
    return np.asarray(canvas, dtype=np.float64)


def assert_same_picture(got: NDArray[Any], expected: NDArray[Any], interpolation: str) -> None:
    assert got.shape == expected.shape
    difference = np.abs(got - expected)
    assert difference.max() <= MOST_LEVELS[interpolation]
    assert difference.mean() <= MEAN_LEVELS


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["crop", "stretch"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resizing_and_cropping_give_torchvisions_picture(size: tuple[int, int], mode: str, interpolation: str) -> None:
    image, spec = photograph(*size), plain_spec(mode, interpolation)
    assert_same_picture(ours(image, spec), torchvisions(image, spec), interpolation)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_letterboxing_gives_pillows_picture_in_the_middle_of_black(size: tuple[int, int], interpolation: str) -> None:
    image, spec = photograph(*size), plain_spec("letterbox", interpolation)
    assert_same_picture(ours(image, spec), pillows_letterbox(image, spec), interpolation)


@pytest.mark.parametrize("excess", [-31, -30, -1, 1, 2, 3, 5, 7])
def test_the_crop_is_cut_or_padded_where_torchvision_does_for_every_remainder(excess: int) -> None:
    spec = plain_spec("crop", "bilinear", height=64, width=64, resize=64 + excess)
    image = photograph(180, 241)
    assert_same_picture(ours(image, spec), torchvisions(image, spec), "bilinear")


def test_an_image_of_twelve_megapixels_gives_torchvisions_picture() -> None:
    image, spec = photograph(3000, 4000), plain_spec("crop", "bicubic")
    assert_same_picture(ours(image, spec), torchvisions(image, spec), "bicubic")


def test_stretching_reaches_an_input_that_is_not_square() -> None:
    image, spec = photograph(100, 301), plain_spec("stretch", "bilinear", height=64, width=128)
    assert_same_picture(ours(image, spec), torchvisions(image, spec), "bilinear")


def test_a_centre_crop_to_an_input_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square"):
        ImagePreprocess(plain_spec("crop", "bilinear", height=64, width=128))


def test_the_result_is_normalised_as_torchvision_does() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = InputSpec(height=224, width=224, resize=224, mean=mean, std=std)
    image = photograph(224, 224)
    expected = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])(image)
    got = ImagePreprocess(spec)(torch.from_numpy(image)[None])[0]
    torch.testing.assert_close(got, expected.as_subclass(torch.Tensor), atol=2e-6, rtol=0)


def test_images_of_a_batch_do_not_bear_on_each_other() -> None:
    one, two = photograph(200, 300), np.array(photograph(200, 300)[::-1])
    spec = plain_spec("crop", "bicubic")
    both = ImagePreprocess(spec)(torch.from_numpy(np.stack([one, two])))
    assert np.array_equal(both[0].permute(1, 2, 0).numpy(), ours(one, spec))
    assert np.array_equal(both[1].permute(1, 2, 0).numpy(), ours(two, spec))


def test_one_channel_goes_through_as_each_of_three_does() -> None:
    grey = photograph(150, 170)[:, :, :1]
    narrow = InputSpec(height=64, width=64, resize=72, mean=(0.5,), std=(0.25,))
    wide = InputSpec(height=64, width=64, resize=72, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert np.array_equal(ours(grey, narrow)[:, :, 0], ours(np.repeat(grey, 3, axis=2), wide)[:, :, 1])


def test_no_tensor_of_it_is_saved_with_the_model() -> None:
    assert dict(image_preprocess(plain_spec("crop", "bilinear"), None).state_dict()) == {}


def as_products(resize: Resize, levels: torch.Tensor, *lengths: torch.Tensor) -> torch.Tensor:
    """The two matrix products with all weights, zeros too, as gradients and GPUs need them."""
    with torch.enable_grad():
        products: torch.Tensor = resize(levels.to(torch.float32).clone().requires_grad_(), *lengths)
    assert products.requires_grad
    return products.detach()


def channels_first(image: Levels) -> torch.Tensor:
    return torch.from_numpy(image)[None].permute(0, 3, 1, 2)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("size", [*SIZES, *RATIOS], ids=str)
def test_outside_the_graph_the_picture_is_that_of_the_products(
    size: tuple[int, int], mode: str, interpolation: str
) -> None:
    for shorter in (224, 235) if mode == "crop" else (224,):
        resize = Resize(plain_spec(mode, interpolation, resize=shorter))
        levels = channels_first(photograph(*size))
        assert torch.equal(resize(levels), as_products(resize, levels))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("length", "expected"), [(500, 224), (224, 500), (333, 1), (1, 9), (17, 17), (1500, 64)])
def test_outside_the_graph_each_weight_has_the_same_bits(length: int, expected: int, interpolation: str) -> None:
    """A row of light at one sample gives that sample's weights."""
    resize = Resize(plain_spec("stretch", interpolation, height=1, width=expected), rounded=False)
    lights = torch.eye(length)[:, None, None]
    assert torch.equal(resize(lights), as_products(resize, lights))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(512, 512), (300, 451), (40, 700), (1, 1)], ids=str)
def test_unrounded_levels_are_those_of_pillows_floats(size: tuple[int, int], interpolation: str) -> None:
    spec = plain_spec("stretch", interpolation, height=96, width=130)
    levels = np.random.default_rng(0).uniform(-300, 900, size).astype(np.float32)
    got = Resize(spec, rounded=False)(torch.from_numpy(levels)[None, None])[0, 0].numpy()
    expected = Image.fromarray(levels).resize((130, 96), Image.Resampling[interpolation.upper()])
    np.testing.assert_allclose(got, np.asarray(expected), rtol=0, atol=1e-4 * 900)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_each_image_may_have_lengths_of_its_own(interpolation: str) -> None:
    levels = torch.rand(3, 2, 90, 70, generator=torch.Generator().manual_seed(0)) * 255
    lengths = torch.tensor([[60.0, 41.0], [33.0, 150.0], [1.0, 64.0]])
    resize = Resize(plain_spec("stretch", interpolation, height=64, width=64), rounded=False)
    together = resize(levels, lengths)
    torch.testing.assert_close(together, as_products(resize, levels, lengths), rtol=0, atol=1e-4 * 255)
    assert torch.equal(together[1:2], resize(levels[1:2], lengths[1:2]))
    assert not together[2, :, :31].any(), "one row, between padding"


def test_a_copy_gives_the_same_picture_and_carries_nothing_that_was_cached() -> None:
    image = photograph(427, 640)
    module = ImagePreprocess(plain_spec("crop", "bicubic"))
    fresh = len(pickle.dumps(module))
    before = module(torch.from_numpy(image)[None])
    assert len(pickle.dumps(module)) == fresh
    for copied in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):  # noqa: S301  # our own, just dumped
        assert torch.equal(copied(torch.from_numpy(image)[None]), before)


def test_many_sizes_are_not_all_cached() -> None:
    module = Resize(plain_spec("stretch", "bilinear", height=8, width=8))
    levels = torch.from_numpy(photograph(400, 400)).permute(2, 0, 1)[None]
    first = module(levels[..., :37])
    for columns in range(1, 401):
        module(levels[..., :columns])
    assert len(module._bands) <= 256
    assert len(module._lengths) <= 256
    assert torch.equal(module(levels[..., :37]), first)


def test_threads_give_what_one_gives() -> None:
    module = Resize(plain_spec("crop", "bilinear", height=32, width=32, resize=40))
    pictures = [channels_first(photograph(50 + n % 7, 60 + n % 11)) for n in range(60)]
    alone = [module(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(Resize(plain_spec("crop", "bilinear", height=32, width=32, resize=40)), pictures))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_what_inference_cached_serves_training_and_the_other_way_round() -> None:
    module, image = ImagePreprocess(plain_spec("crop", "bilinear")), torch.from_numpy(photograph(300, 400))[None]
    with torch.inference_mode():
        first = module(image)
    second = module(image)
    assert torch.equal(first, second)
    assert not second.is_inference()


@pytest.fixture(scope="module", params=[
    ("crop", 96), ("letterbox", 96), ("letterbox", 128), pytest.param(("stretch", 96), marks=pytest.mark.slow),
], ids=lambda param: f"{param[0]}-{param[1]}")  # fmt: skip # a table of cases
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[InputSpec, Path]:
    """The module alone as an ONNX file, its batch, height and width free."""
    mode, width = request.param
    spec = plain_spec(mode, "bicubic", height=96, width=width, resize=110)
    path = tmp_path_factory.mktemp("preprocess") / f"{mode}.onnx"
    example = torch.randint(0, 256, (2, 150, 170, 3), dtype=torch.uint8)
    torch.onnx.export(
        ImagePreprocess(spec).eval(),
        (example,),
        path,
        dynamo=True,
        opset_version=18,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
    )
    return spec, path


@pytest.mark.parametrize("size", [(427, 640), (91, 77), (96, 96), (1, 40), (40, 1), (1, 1), (110, 500)], ids=str)
def test_onnxruntime_gives_the_same_picture_to_the_last_bit_at_any_size(
    exported: tuple[InputSpec, Path], size: tuple[int, int]
) -> None:
    spec, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    batch = np.stack([photograph(*size)] * 3)
    (got,) = session.run(None, {session.get_inputs()[0].name: batch})
    assert np.array_equal(got.transpose(0, 2, 3, 1)[1], ours(batch[1], spec))


def before_a_network(path: Path) -> bytes:
    """With a convolution behind that changes nothing: OpenVINO spares a graph's end the rounding."""
    import onnx

    model = onnx.load(path)
    output = model.graph.output[0]
    inner = output.name + "_inner"
    for node in model.graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    kernel = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "nothing")
    model.graph.initializer.append(kernel)
    model.graph.node.append(onnx.helper.make_node("Conv", [inner, "nothing"], [output.name]))
    whole: bytes = model.SerializeToString()
    return whole


@pytest.mark.parametrize("precision", ["default", "f32"])
def test_openvino_gives_the_same_picture_to_the_last_bit_in_bfloat16_too(
    exported: tuple[InputSpec, Path], precision: str
) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    if precision == "default" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO computes in float32 by itself on processors without bfloat16")
    spec, path = exported
    options = {} if precision == "default" else {"INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(before_a_network(path)), "CPU", options)
    for size in [(427, 640), (384, 512), (91, 77), (1, 40), (300, 1000)]:
        image = photograph(*size)
        got = compiled([image[None]])[0]
        assert np.array_equal(got[0].transpose(1, 2, 0), ours(image, spec))


def test_the_graph_reaches_levels_by_whole_numbers_and_operators_that_runtimes_agree_on(
    exported: tuple[InputSpec, Path],
) -> None:
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(exported[1])).graph
    operators = {node.op_type for node in graph.node}
    assert operators.isdisjoint({"Resize", "Upsample", "GridSample", "AffineGrid", "MatMul"})
    assert "MatMulInteger" in operators
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    real = onnx.TensorProto.FLOAT
    floats = [node.op_type for node in graph.node if kinds.get(node.output[0]) == real]
    # levels without the bits that rounding drops, at either axis, then brought to the backbone's scale
    assert [name for name in floats if name not in {"Transpose", "Identity"}] == ["Cast", "Mul", "Clip"] * 2 + ["Mul"]
    makers = {name: node.op_type for node in graph.node for name in node.output}
    casts = [node for node in graph.node if node.op_type == "Cast" and kinds.get(node.output[0]) == real]
    assert [makers[node.input[0]] for node in casts] == ["BitwiseAnd", "BitwiseAnd"]


@pytest.mark.parametrize(
    ("mode", "interpolation"),
    [(mode, kind) for mode in ("crop", "stretch", "letterbox") for kind in ("bilinear", "bicubic")],
)
def test_tiles_are_wide_enough_for_every_size(mode: str, interpolation: str) -> None:
    """By Pillow's rule: an output sample reaches as far as the filter, times the scale where that shrinks."""
    rng, radius = np.random.default_rng(0), {"bilinear": 1, "bicubic": 2}[interpolation]
    sizes = [(1, 1), (1, 4000), (4000, 1), (95, 97), (96, 96), *(tuple(rng.integers(1, 3000, 2)) for _ in range(300))]
    for resize in (96, 97, 110, 250):
        spec = plain_spec(mode, interpolation, height=96, width=96, resize=resize)
        resizer = Resize(spec)
        each = [24, 12]
        for rows, columns in sizes:
            around, widths = resizer._bounds(int(rows), int(columns), each)
            new = {
                "crop": [side * resize // min(rows, columns) for side in (rows, columns)],
                "stretch": [96, 96],
                "letterbox": [max(1, side * 96 // max(rows, columns)) for side in (rows, columns)],
            }[mode]
            for length, resized, some, width in zip((rows, columns), new, each, widths, strict=True):
                scale = length / resized
                middles = np.floor((np.arange(resized) + 0.5) * scale + 1e-9).astype(int)
                reached = int(radius * max(scale, 1) + 1e-9) + 1
                assert around >= reached
                shown = middles[max(0, (resized - 96) // 2) :][:96]
                spans = (
                    shown[some - 1 :] - shown[: len(shown) - some + 1] if len(shown) >= some else shown[-1:] - shown[:1]
                )
                assert width >= min(length, spans.max() + 2 * reached + 1)


LARGE = """
import pathlib, sys
import numpy as np, onnxruntime

def peak():
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
image = np.random.default_rng(0).integers(0, 256, (1, 3000, 4000, 3), dtype=np.uint8)
session.run(None, {name: image[:, :300, :400]})
before = peak()
session.run(None, {name: image})
print((peak() - before) / image.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_large_photograph_takes_twice_its_bytes_in_the_graph(exported: tuple[InputSpec, Path]) -> None:
    """Beyond its own; as float32, in products with all zeros, it would take 8 times them."""
    run = subprocess.run([sys.executable, "-c", LARGE, exported[1]], capture_output=True, text=True, check=True)
    assert 0 < float(run.stdout) < 2
