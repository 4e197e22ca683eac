"""How many there are: counts, learnt as the logarithm of a Poisson rate."""

import io

import zooft


def check(target, labels):
    whole = isinstance(target, int) and not isinstance(target, bool) and target >= 0
    return "" if whole else "a whole number from 0"


def make_loss(labels, targets, options):
    from torch import nn

    class PoissonLoss(nn.Module):
        def forward(self, outputs, targets):
            rates = outputs["log_rate"][:, 0]
            return zooft.Loss((rates.exp() - targets * rates).sum(), len(targets))

    return PoissonLoss()


def table(targets, rates):
    import numpy as np

    return {"target": np.array(targets, np.float64), "prediction": rates.astype(np.float64)}


def columns(outputs, targets, labels):
    import numpy as np

    return table(targets, np.exp(outputs["log_rate"][:, 0]))


def metrics(predictions, labels):
    import numpy as np

    true, rates = predictions["target"], np.maximum(predictions["prediction"], 1e-12)
    logs = true * np.log(np.where(true > 0, true, rates) / rates)
    return {"mae": np.abs(rates - true).mean(), "deviance": 2 * (logs - true + rates).mean()}


def details(predictions, groups, labels, fitted, intervals):
    off = abs(predictions["prediction"].round() - predictions["target"])
    return {"off_by": {"0": int((off == 0).sum()), "1": int((off == 1).sum()), "more": int((off > 1).sum())}}


def make_graph(labels, fitted):
    from torch import nn

    class Rate(nn.Module):
        def forward(self, outputs, batch):
            return (outputs["log_rate"][:, 0].exp(),)

    return Rate()


def outputs_of_the_file(labels, fitted):
    return [zooft.Output(name="rate", dtype="float32", axes=("batch",), meaning=f"how many {labels[0].name} to expect")]


def tables(evaluation, labels):
    rows = tuple((off, str(count)) for off, count in evaluation.details["off_by"].items())
    return [zooft.Table(title="Rounded predictions", columns=("Off by", "Samples"), rows=rows)]


def sections(evaluated, labels, fitted, rule):
    from PIL import Image, ImageDraw

    true, rates = evaluated.predictions["target"], evaluated.predictions["prediction"]
    picture, scale = Image.new("L", (200, 200), 255), 190 / max(1, true.max(), rates.max())
    for x, y in zip(true * scale + 5, 195 - rates * scale, strict=True):
        ImageDraw.Draw(picture).ellipse((x - 2, y - 2, x + 2, y + 2), fill=0)
    picture.save(file := io.BytesIO(), "png")
    caption = "Each dot a sample: its count to the right, what is predicted upwards."
    plot = zooft.Picture(title="Counted and predicted", png=file.getvalue(), caption=caption)
    return [*tables(evaluated.evaluation, labels), plot]


counting = zooft.Problem(
    name="counting",
    training=zooft.TrainingPart(outputs=lambda labels, options: {"log_rate": 1}, loss=make_loss, check=check),
    evaluation=zooft.EvaluationPart(
        columns=columns, metrics=metrics, primary="deviance", smaller=frozenset({"mae", "deviance"}), details=details
    ),
    deployment=zooft.DeploymentPart(
        outputs=outputs_of_the_file,
        graph=make_graph,
        columns=lambda answers, targets, labels, fitted: table(targets, answers["rate"]),
    ),
    presentation=zooft.PresentationPart(
        cells=lambda predictions, labels, fitted: {"count": predictions["prediction"].tolist()},
        columns=lambda labels: ["count"],
        target=lambda target, labels: str(target),
        worst=lambda predictions, labels: abs(predictions["prediction"] - predictions["target"]),
        tables=tables,
        sections=sections,
    ),
)


# The task: pictures of bright dots, whose names say how many there are, such as dots_3_07.png


def discover(root, options):
    files = sorted(root.glob("dots_*.png"))
    samples = [zooft.Sample(id=f.name, source=f, target=int(f.stem.split("_")[1])) for f in files]
    return zooft.Discovery(samples=tuple(samples), labels=(zooft.Label(name="dots"),))


def read(source, options):
    import numpy as np
    from PIL import Image

    return np.array(Image.open(source).convert("RGB"))


def draw(folder, seed):
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(48):
        levels, count = rng.integers(0, 40, (64, 64, 3), np.uint8), number % 8
        for cell in rng.permutation(16)[:count]:
            y, x = 16 * np.array(divmod(cell, 4)) + rng.integers(2, 8, 2)
            levels[y : y + 6, x : x + 6] = 250
        Image.fromarray(levels).save(folder / f"dots_{count}_{number:02}.png")


@zooft.hookimpl
def zooft_register_tasks():
    return [
        zooft.Task(
            name="tally",
            summary="how many dots",
            discover=discover,
            read=read,
            demo=draw,
            port=zooft.image_port,
            preprocess=zooft.image_preprocess,
            problem=counting,
        )
    ]
