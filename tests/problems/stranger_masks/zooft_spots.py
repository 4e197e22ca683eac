"""Which pixels are bright: a mask for each picture, learnt by a head that reads a pyramid of maps."""

import zooft

OUTSIDE = 255


def check(target, labels):
    return "" if getattr(target, "suffix", "") == ".png" else "the path of a mask"


def encode(target, labels):
    import numpy as np
    from PIL import Image

    return np.array(Image.open(target))


def make_loss(labels, targets, options):
    from torch import nn

    class PixelLoss(nn.Module):
        def forward(self, outputs, targets):
            logits = nn.functional.interpolate(outputs["logits"], targets.shape[-2:], mode="bilinear")
            seen = (targets != OUTSIDE).sum()
            total = nn.functional.cross_entropy(logits, targets.long(), ignore_index=OUTSIDE, reduction="sum")
            return zooft.Loss(total / 1000, seen / 1000)

    return PixelLoss()


def overlap(found, true):
    import numpy as np

    seen = true != OUTSIDE
    both, either = ((found == 1) & (true == 1) & seen).sum(), ((found == 1) | (true == 1)) & seen
    return np.array([both, either.sum()], np.int64)


def columns(outputs, targets, labels):
    """`targets` are the moved masks of a batch."""
    import numpy as np
    import torch

    rows = []
    for logits, true in zip(torch.from_numpy(outputs["logits"]), targets, strict=True):
        grown = torch.nn.functional.interpolate(logits[None], true.shape, mode="bilinear")[0]
        rows.append(overlap(grown.argmax(0).numpy(), true))
    return {"overlap": np.stack(rows)}


def deployed_columns(answers, targets, labels, fitted):
    """`targets` are paths: a mask of the sample's own size each."""
    import numpy as np

    pairs = zip(answers["mask"], targets, strict=True)
    none = np.zeros(2, np.int64)
    return {
        "overlap": np.stack([none if true is None else overlap(found, encode(true, labels)) for found, true in pairs])
    }


def metrics(predictions, labels):
    both, either = predictions["overlap"].sum(0)
    return {"iou": both / either if either else float("nan")}


def make_graph(labels, fitted):
    import torch
    from torch import nn

    class Mask(nn.Module):
        def forward(self, outputs, batch, back):
            return (back.maps(outputs["logits"]).argmax(1).to(torch.uint8),)

    return Mask()


def agree(torch, file, labels, fitted, slack):
    pairs = list(zip(torch["mask"], file["mask"], strict=True))
    worst = max((float((ours != theirs).mean()) for ours, theirs in pairs), default=0.0)
    return () if worst <= 1e-3 else (f"{worst:.1%} of a mask's pixels differ",)


def draw(picture, answers, target, labels, fitted):
    import numpy as np

    shown = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture.copy()
    shown[answers["mask"] == 1, 0] = 255
    return shown


def write(answers, labels, fitted, folder):
    from pathlib import Path

    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for answer in answers:
        written.append(folder / f"{Path(answer.key).stem}.png")
        Image.fromarray(answer.outputs["mask"]).save(written[-1])
    return written


def build(taps, sizes):
    import torch
    from torch import nn

    class Sum(nn.Module):
        """Every map by a 1x1 convolution to the size of the finest, added up."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(tap.channels, sizes["logits"], 1) for tap in taps)

        def forward(self, maps):
            size = maps[0].shape[-2:]
            made = [layer(x) for layer, x in zip(self.layers, maps, strict=True)]
            return {"logits": torch.stack([nn.functional.interpolate(x, size) for x in made]).sum(0)}

    return Sum()


bright = zooft.Problem(
    name="bright",
    training=zooft.TrainingPart(
        outputs=lambda labels, options: {"logits": 2},
        gives="map",
        loss=make_loss,
        check=check,
        encode=encode,
        move=lambda mask, geometry: geometry.mask(mask, outside=OUTSIDE),
    ),
    evaluation=zooft.EvaluationPart(columns=columns, metrics=metrics, primary="iou"),
    deployment=zooft.DeploymentPart(
        outputs=lambda labels, fitted: [
            zooft.Output(
                name="mask",
                dtype="uint8",
                axes=("batch", "height", "width"),
                meaning="1 where it is bright",
                measure="exact",
            )
        ],
        graph=make_graph,
        columns=deployed_columns,
        agree=agree,
        writers={"masks": write},
    ),
    presentation=zooft.PresentationPart(
        cells=lambda predictions, labels, fitted: {"bright": predictions["overlap"][:, 1].tolist()},
        columns=lambda labels: ["bright"],
        target=lambda target, labels: target.name,
        picture=draw,
        worst=lambda predictions, labels: -predictions["overlap"][:, 0],
    ),
)


def discover(root, options):
    files = sorted(root.glob("picture_*.png"))
    samples = [zooft.Sample(id=f.name, source=f, target=f.with_name(f.name.replace("picture", "mask"))) for f in files]
    return zooft.Discovery(samples=tuple(samples), labels=(zooft.Label(name="bright"),))


def read(source, options):
    import numpy as np
    from PIL import Image

    return np.array(Image.open(source).convert("RGB"))


def letterbox(spec, options):
    from dataclasses import replace

    return replace(spec, height=128, width=128, mode="letterbox")


def augment(spec, options):
    """A mirror image, half of the time."""
    return Mirror(spec)


class Mirror:
    def __init__(self, spec):
        self.spec = spec

    def __call__(self, array):
        import numpy as np
        import torch

        geometry = zooft.image_geometry(self.spec, None).of((array,))
        view = zooft.image_preprocess(self.spec, None)(torch.from_numpy(array)[None])[0]
        if torch.rand(1) < 0.5:
            turn = np.array([[-1.0, 0.0], [0.0, 1.0]])
            matrix = turn @ geometry.matrix + np.array([[0, 0, self.spec.width], [0, 0, 0]])
            geometry = zooft.Geometry(matrix=matrix, source=geometry.source, view=geometry.view)
            view = view.flip(-1)
        return zooft.View(view, geometry)


def demo(folder, seed):
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(32):
        rows, across = rng.integers(60, 160, 2)
        mask = np.zeros((rows, across), np.uint8)
        for _ in range(rng.integers(1, 4)):
            y, x = rng.integers(0, rows - 20), rng.integers(0, across // 2)
            mask[y : y + 20, x : x + 20] = 1
        levels = rng.integers(0, 90, (rows, across, 3)) + 150 * mask[..., None]
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"picture_{number:02}.png")
        Image.fromarray(mask).save(folder / f"mask_{number:02}.png")


@zooft.hookimpl
def zooft_register_heads():
    return [
        zooft.Head(
            name="sum", summary="1x1 convolutions of all maps, added up", build=build, reads="pyramid", gives="map"
        )
    ]


@zooft.hookimpl
def zooft_register_tasks():
    return [
        zooft.Task(
            name="spots",
            summary="which pixels are bright",
            discover=discover,
            read=read,
            demo=demo,
            port=zooft.image_port,
            preprocess=zooft.image_preprocess,
            input=letterbox,
            augment=augment,
            geometry=zooft.image_geometry,
            head=lambda options: "spots/sum",
            problem=bright,
        )
    ]
