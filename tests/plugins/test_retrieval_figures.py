"""Figures of embeddings, against pytorch-metric-learning's AccuracyCalculator and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

pytest.importorskip("pytorch_metric_learning")

from pytorch_metric_learning import distances
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN

import zooft_retrieval.metrics as figures_module
from zooft_retrieval.metrics import figures, galleries, nearest, roc


def columns(identities: Any, embeddings: Any, contents: Any = None, **others: Any) -> dict[str, Any]:
    """As the problem makes them; every row a picture of its own unless `contents` says otherwise."""
    count = len(identities)
    return {
        "identity": np.asarray(identities, np.int64),
        "content": np.arange(count) if contents is None else np.asarray(contents, np.int64),
        "pairs": np.empty((count, 0), np.int64),
        "embedding": np.asarray(embeddings, np.float32),
        **others,
    }


@pytest.fixture(params=[0, 1, 2])
def random_columns(request: pytest.FixtureRequest) -> dict[str, Any]:
    """People with 1 to 9 pictures, somewhat apart."""
    random = np.random.default_rng(request.param)
    identities = np.repeat(np.arange(20), random.integers(1, 10, 20))
    centres = random.normal(size=(20, 8))
    return columns(identities, centres[identities] + 0.9 * random.normal(size=(len(identities), 8)))


def pairs_of(given: dict[str, Any]) -> tuple[Any, Any]:
    """Whether pairs are of the same, and how similar they are, one by one."""
    unit = given["embedding"] / np.linalg.norm(given["embedding"], axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    same = given["identity"][first] == given["identity"][second]
    return same, (unit[first].astype(np.float64) * unit[second]).sum(1)


def test_ranking_is_that_of_the_accuracy_calculator(random_columns: dict[str, Any]) -> None:
    judge = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(distances.CosineSimilarity()),
    )
    expected = judge.get_accuracy(random_columns["embedding"], random_columns["identity"])
    found = figures(random_columns)
    assert found["recall_at_1"] == pytest.approx(expected["precision_at_1"], abs=1e-9)
    assert found["map_at_r"] == pytest.approx(expected["mean_average_precision_at_r"], abs=1e-9)


def test_recall_at_5_by_hand(random_columns: dict[str, Any]) -> None:
    unit = random_columns["embedding"] / np.linalg.norm(random_columns["embedding"], axis=1, keepdims=True)
    identity, hits = random_columns["identity"], []
    for row in range(len(unit)):
        order = [other for other in np.argsort(-(unit @ unit[row])) if other != row]
        if (identity == identity[row]).sum() > 1:
            hits.append(identity[row] in identity[order[:5]])
    assert figures(random_columns)["recall_at_5"] == pytest.approx(np.mean(hits))


def test_verification_is_that_of_scikit_learn(random_columns: dict[str, Any]) -> None:
    same, similar = pairs_of(random_columns)
    found = figures(random_columns)
    assert found["verification_auroc"] == pytest.approx(roc_auc_score(same, similar), abs=1e-6)
    far, tar, _ = roc_curve(same, similar, drop_intermediate=False)
    for required in (0.01, 0.001):
        assert found[f"tar_at_far_{required:g}"] == pytest.approx(tar[far <= required].max(), abs=1e-9)


def test_counting_many_pairs_is_as_good_as_sorting_them(
    random_columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sorted_ = figures(random_columns)
    monkeypatch.setattr(figures_module, "_EXACT", 10)
    monkeypatch.setattr(figures_module, "_BLOCK", 7)
    counted = figures(random_columns)
    assert counted == pytest.approx(sorted_, abs=2e-3)
    assert counted["verification_auroc"] == pytest.approx(sorted_["verification_auroc"], abs=1e-4)


def test_the_same_pictures_drawn_again_change_nothing(random_columns: dict[str, Any]) -> None:
    twice = {name: np.concatenate([column, column]) for name, column in random_columns.items()}
    assert figures(twice) == pytest.approx(figures(random_columns), abs=1e-12)


def test_a_copy_is_never_found_by_its_copy() -> None:
    # person 0 has one picture, there twice: nobody to be found; of person 1's two, the first is nearer to person 0
    given = columns([0, 0, 1, 1], [[1, 0], [1, 0], [0.9, 0.1], [0, 1]], contents=[7, 7, 8, 9])
    assert figures(given)["recall_at_1"] == 1 / 2
    assert figures({**given, "content": np.arange(4)})["recall_at_1"] == 3 / 4
    assert galleries(given)[0].weights.tolist() == [2, 1, 1]


def test_an_identity_that_is_drawn_twice_counts_twice() -> None:
    once = columns([0, 0, 1, 1, 2], [[1, 0], [0.9, 0.1], [0.8, 0.2], [0.1, 1], [0, 1]])
    drawn = {name: column[[0, 1, 0, 1, 2, 3, 4]] for name, column in once.items()}
    # person 0's two are found by each other, person 1's by others; 2 is alone
    assert figures(once)["recall_at_1"] == pytest.approx(2 / 4)
    assert figures(drawn)["recall_at_1"] == pytest.approx(4 / 6)


def test_listed_pairs_alone_are_compared() -> None:
    given = columns([0, 0, 1, 2], [[1, 0], [0.8, 0.2], [0.5, 0.5], [0, 1]])
    given["pairs"] = np.array([[2, 3], [2, -1], [3, 4], [4, -1]])
    found = roc(galleries(given))
    assert (found.same[-1], found.other[-1]) == (1, 2)
    assert figures(given)["verification_auroc"] == 1.0


def test_models_of_several_folds_are_separated() -> None:
    random = np.random.default_rng(0)
    parts = [
        columns(np.repeat(np.arange(4), 3) + 10 * f, random.normal(size=(12, 5)), 100 * f + np.arange(12))
        for f in (1, 2)
    ]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    joined["fold"] = np.repeat([1, 2], 12)
    found = figures(joined)
    assert found["map_at_r"] == pytest.approx(np.mean([figures(part)["map_at_r"] for part in parts]))
    assert roc(galleries(joined)).same[-1] == 2 * 4 * 3


def test_nothing_to_compare_is_undefined() -> None:
    assert all(math.isnan(value) for value in figures(columns([0, 1, 2], np.eye(3))).values())
    assert math.isnan(figures(columns([0, 0], np.eye(2)))["verification_auroc"])
    assert all(math.isnan(value) for value in figures(columns([-1, -1], np.eye(2))).values())


def test_neighbours_are_sorted_and_never_the_query() -> None:
    part = galleries(columns(np.arange(9), np.random.default_rng(0).normal(size=(9, 4))))[0]
    for queries, places, similar in nearest(part, 5):
        assert not (places == queries[:, None]).any()
        assert (np.diff(similar, axis=1) <= 0).all()
