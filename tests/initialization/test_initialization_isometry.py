"""Isometry under masks, approximate and exact: singular values by NumPy."""

import numpy as np
import pytest
from initial_nets import convolutions, deep, kernel
from test_initialization_rescaling import masks, randomly

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization.repair._approximate_isometry import descend
from tf_spline_prune.initialization.repair._exact_orthogonal import sparse_rotation

isometry = tsp.initialization.approximate_isometry
exact = tsp.initialization.exact_orthogonal


def orthogonal(K, depth=5):
    start = tsp.initialization.EdgeOfChaos("linear", 0.0, "orthogonal", seed=0)
    return start.apply_to(deep(K, depth, None))


def singular_values(model, depth=5):
    product = np.eye(64)
    for i in range(depth):
        product = product @ kernel(model, f"d{i}").astype("float64")
    return np.linalg.svd(product, compute_uv=False)


def penalty(matrix):
    return np.linalg.norm(matrix.T @ matrix - np.eye(matrix.shape[1]))


def test_singular_values_come_back(K):
    dense = orthogonal(K)
    np.testing.assert_allclose(singular_values(dense), 1, atol=1e-5)
    masked = randomly(dense, 0.9, "magnitude")
    copy = isometry(masked, steps=600)
    assert singular_values(masked).mean() < 0.7
    assert singular_values(copy).mean() >= 0.9
    before, after = (
        sum(penalty(kernel(model, f"d{i}")) for i in range(5))
        for model in (masked, copy)
    )
    assert after < before / 5
    for slot, keep in zip(mask_slots(copy), masks(masked), strict=True):
        np.testing.assert_array_equal(slot.keep(), keep)
        assert not slot.read()[~keep].any()


@pytest.mark.parametrize("shape", [(48, 20), (20, 48)], ids=["tall", "wide"])
def test_the_gradient_is_that_of_the_penalty(shape):
    rng = np.random.default_rng(0)
    keep = rng.random(shape) < 0.5
    matrix = rng.normal(size=shape) * keep
    # One tiny step, whose length shows the gradient; the second keeps the first.
    moved = descend(matrix, keep, steps=2, rate=1e-9, tolerance=0.0)
    step = (matrix - moved) / 1e-9
    small = matrix if shape[0] > shape[1] else matrix.T
    for i, j in [(0, 1), (3, 5), (10, 2)]:
        nudge = np.zeros_like(small)
        nudge[i, j] = 1e-6
        slope = (penalty(small + nudge) - penalty(small - nudge)) / 2e-6
        place = (i, j) if small is matrix else (j, i)
        expected = slope if keep[place] else 0.0
        assert step[place] == pytest.approx(expected, abs=1e-4)


def test_isometry_of_convolutions_and_another_length(K):
    masked = randomly(convolutions(K), 0.3)
    copy = isometry(masked, weight_std=1.3, steps=300)
    grouped = kernel(copy, "c2").reshape(-1, 2, 12)
    turned = kernel(copy, "c3").swapaxes(2, 3)
    for matrix in (
        kernel(copy, "c1").reshape(-1, 24),
        grouped[:, 0],
        grouped[:, 1],
        turned.reshape(-1, 12),
    ):
        values = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(values, 1.3, rtol=0.02)


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_exactly_orthogonal(K, sparsity):
    masked = randomly(orthogonal(K), sparsity)
    copy = exact(masked, weight_std=1.3, seed=1)
    np.testing.assert_allclose(singular_values(copy), 1.3**5, rtol=1e-5)
    for i, (old, new) in enumerate(zip(masks(masked), masks(copy), strict=True)):
        weights = kernel(copy, f"d{i}").astype("float64")
        gram = weights.T @ weights
        np.testing.assert_allclose(gram, 1.69 * np.eye(64), atol=2e-6)
        assert (old != new).any() and old.sum() == new.sum()
        assert not weights[~new].any()
        assert np.count_nonzero(weights) >= 0.99 * new.sum()
    same = exact(masked, weight_std=1.3, seed=1)
    np.testing.assert_array_equal(kernel(same, "d0"), kernel(copy, "d0"))


def test_exact_convolutions_are_delta_orthogonal(K):
    masked = randomly(convolutions(K), 0.7)
    copy = exact(masked)
    for old, new in zip(masks(masked), masks(copy), strict=True):
        assert old.sum() == new.sum()
    for name, groups in (("c1", 1), ("c2", 2)):
        weights = kernel(copy, name)
        around = weights.copy()
        around[1, 1] = 0
        assert not around.any()
        middle = weights[1, 1].reshape(weights.shape[2], groups, -1).astype("float64")
        for group in range(groups):
            block = middle[:, group]
            block = block if block.shape[0] >= block.shape[1] else block.T
            gram = block.T @ block
            np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-6)


@pytest.mark.parametrize("rows, columns", [(30, 30), (50, 12), (12, 50), (7, 1)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 0.8, 1.0])
def test_sparse_rotations(rows, columns, share):
    short = min(rows, columns)
    count = max(short, round(share * rows * columns))
    matrix, keep = sparse_rotation(rows, columns, count, np.random.default_rng(0))
    tall = matrix if rows >= columns else matrix.T
    np.testing.assert_allclose(tall.T @ tall, np.eye(short), atol=1e-12)
    assert not matrix[~keep].any()
    assert count >= keep.sum() >= min(0.97 * count, count - 1)


def test_wrong_input(K):
    masked = randomly(deep(K, 2, None))
    for call in (isometry, exact):
        with pytest.raises(ValueError, match="weight_std"):
            call(masked, weight_std=-1.0)
        with pytest.raises(ModelError, match="no dense or convolution layer"):
            call(deep(K, 2, None))
    with pytest.raises(ValueError, match="steps"):
        isometry(masked, steps=0)
    with pytest.raises(ValueError, match="tolerance"):
        isometry(masked, tolerance=1.0)
    with pytest.raises(ModelError, match="too few weights"):
        exact(randomly(deep(K, 2, None), 0.99))
