"""Embeddings in two dimensions equal a plain singular value decomposition, one point per utterance."""

import json

import numpy as np
import pytest

from ser_mtl.evaluation.embeddings import two_dimensions
from ser_mtl.evaluation.predictions import read_predictions


def test_points_are_the_first_two_principal_components():
    random = np.random.default_rng(0)
    embeddings = {task: random.normal(size=(9, 5)) * size for task, size in (("emotion", 1), ("gender", 50))}
    rows = two_dimensions(embeddings)
    unit = np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in embeddings.values()])
    left, sizes, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    points = np.array([row["emotion"] for row in rows] + [row["gender"] for row in rows])
    signs = np.sign(expected[0] * points[0])
    np.testing.assert_allclose(points, expected * signs, atol=1e-4)


def test_embeddings_of_one_direction_share_a_point():
    x = np.random.default_rng(1).normal(size=(6, 4))
    for row in two_dimensions({"emotion": x, "gender": 3 * x}):
        assert row["emotion"] == pytest.approx(row["gender"])


@pytest.mark.parametrize("x", [np.ones((1, 4)), np.ones((3, 1)), np.full((3, 4), np.nan)])
def test_too_little_data_to_project_is_no_error(x):
    assert all(len(row["emotion"]) == 2 and np.isfinite(row["emotion"]).all() for row in two_dimensions({"emotion": x}))


def test_a_run_leaves_the_points_of_its_test_set(finished):
    tasks = json.loads((finished / "results.json").read_text())["tasks"]
    for row in read_predictions(finished / "predictions.jsonl"):
        assert set(row["points"]) == set(tasks) - {"asr"}
        assert all(len(point) == 2 and np.isfinite(point).all() for point in row["points"].values())


def test_embeddings_of_different_widths_have_no_common_plane():
    assert two_dimensions({"emotion": np.ones((3, 4)), "gender": np.ones((3, 6))}) is None
    assert two_dimensions({}) is None
