"""A family of small convolutional networks and a task that classifies pictures by a word in their file names."""

from dataclasses import dataclass

import zooft


def build(name):
    from torch import nn

    width = {"small": 8, "large": 16}[name]
    layers = {"stem": nn.Conv2d(3, width, 3, 2, 1), "norm": nn.BatchNorm2d(width), "act": nn.ReLU()}
    layers |= {"body": nn.Conv2d(width, 2 * width, 3, 2, 1), "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    module = nn.Sequential()
    for key, layer in {**layers, "classifier": nn.Linear(2 * width, 10)}.items():
        module.add_module(key, layer)
    return module


def anatomy(name, module):
    return zooft.Anatomy(
        stages={"low": zooft.Stage(("stem", "norm", "act")), "high": zooft.Stage(("body", "pool", "flat"))},
        classifier=("classifier",),
        input=zooft.InputSpec(height=32, width=32, resize=32, mean=(0.5,) * 3, std=(0.25,) * 3),
    )


@dataclass(frozen=True)
class Options:
    word: str = zooft.option("lit", "file names that begin with it are of the second class")


def discover(root, options):
    files = sorted(root.glob("*.png"))
    samples = [zooft.Sample(id=f.name, source=f, target=int(f.name.startswith(options.word))) for f in files]
    return zooft.Discovery(samples=tuple(samples), labels=zooft.class_labels(("other", options.word)))


def read(source, options):
    import numpy
    from PIL import Image

    return numpy.array(Image.open(source).convert("RGB"))


@zooft.hookimpl
def zooft_register_families():
    models = ("small", "large")
    return [zooft.Family(name="lantern", summary="two layers", models=lambda: models, build=build, anatomy=anatomy)]


@zooft.hookimpl
def zooft_register_tasks():
    of = {"problem": zooft.classification(primary="accuracy"), "options": Options}
    images = {"read": read, "port": zooft.image_port, "preprocess": zooft.image_preprocess}
    return [zooft.Task(name="lamps", summary="lit or not", discover=discover, **of, **images)]
