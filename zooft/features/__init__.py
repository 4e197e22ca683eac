"""What leaves the frozen prefix, computed once and not every epoch.

`dataset` is what a run reads, `loading` makes batches of them; `prefix` runs frozen stages as fast as they go,
`parallel` runs several batches at a time, and `cache` does all that once, with `outputs` for where the results lie;
`small_images` are what random views are made of, and `teaching` has the answers of a teacher to the same samples.
"""

from __future__ import annotations

from zooft.features.cache import AT_A_TIME, EpochData, FeatureCache, feed, inputs
from zooft.features.dataset import CachedFeatures, EpochDataset, Placing, SampleDataset, reader
from zooft.features.loading import loader, to_device
from zooft.features.teaching import Teacher, with_teacher

__all__ = [
    "AT_A_TIME",
    "CachedFeatures",
    "EpochData",
    "EpochDataset",
    "FeatureCache",
    "Placing",
    "SampleDataset",
    "Teacher",
    "feed",
    "inputs",
    "loader",
    "reader",
    "to_device",
    "with_teacher",
]
