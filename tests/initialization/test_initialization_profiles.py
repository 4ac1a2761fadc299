"""Densities that follow from shapes: exact budgets, and the published formulas."""

import early_nets
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.initialization._prune_at_init import erk, smart_ratio

VGG = [(3, 3, 3, 64), (3, 3, 64, 128), (3, 3, 128, 256), (256, 10)]
shapes = st.lists(
    st.lists(st.integers(1, 9), min_size=2, max_size=4).map(tuple),
    min_size=1,
    max_size=6,
)


@given(shapes, st.floats(0, 1), st.sampled_from([erk, smart_ratio]))
@settings(max_examples=200, deadline=None)
def test_budgets_are_exact(shapes, share, profile):
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    count = round(share * sizes.sum())
    found = profile(shapes, count)
    assert found.sum() == count
    assert (found >= 0).all() and (found <= sizes).all()


def test_erk_densities():
    """Density in proportion to the sum over the product; none above 1."""
    sizes = np.array([np.prod(shape) for shape in VGG])
    ratios = np.array([sum(shape) / np.prod(shape) for shape in VGG])
    for sparsity in (0.99, 0.9, 0.5):
        count = round((1 - sparsity) * sizes.sum())
        found = erk(VGG, count)
        dense = set()
        while True:  # as published: what would exceed 1 is dense, then again
            rest = [i for i in range(4) if i not in dense]
            scale = (count - sum(sizes[list(dense)])) / (ratios * sizes)[rest].sum()
            over = {i for i in rest if scale * ratios[i] > 1}
            if not over:
                break
            dense |= over
        wanted = [1.0 if i in dense else scale * ratios[i] for i in range(4)]
        np.testing.assert_allclose(found, wanted * sizes, atol=1)
        assert bool(dense) == (sparsity < 0.99)


def test_smart_ratio_densities():
    """k^2 + k, with k = L - l + 1; the last layer keeps 0.3; overflow goes on."""
    sizes = np.array([np.prod(shape) for shape in VGG])
    found = smart_ratio(VGG, round(0.05 * sizes.sum()))
    densities = found / sizes
    assert densities[-1] == pytest.approx(0.3, abs=1e-3)
    k = np.array([4, 3, 2])
    ratios = (k**2 + k) * densities[0] / 20
    np.testing.assert_allclose(densities[:3], ratios, rtol=2e-2)
    full = smart_ratio(VGG, round(0.9 * sizes.sum()))
    assert full[0] == sizes[0] and full.sum() == round(0.9 * sizes.sum())


def test_counts_out_of_reach():
    with pytest.raises(BudgetError, match="Of 12 weights 13 cannot be kept"):
        erk([(3, 4)], 13)


@pytest.mark.parametrize("name", ["erk", "smart_ratio", "random"])
def test_random_tickets(K, name):
    model = early_nets.mlp(K)
    shapes = [w.shape for w in early_nets.kernels(model).values()]
    total = sum(int(np.prod(shape)) for shape in shapes)
    masks = [
        early_nets.masks_of(tsp.prune_at_init(model, name, 0.8, seed=seed))
        for seed in (0, 0, 1)
    ]
    for key, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][key])
    assert any((mask != masks[2][key]).any() for key, mask in masks[0].items())
    kept = [int(mask.sum()) for mask in masks[0].values()]
    assert sum(kept) == round(0.2 * total)
    if name != "random":
        profile = {"erk": erk, "smart_ratio": smart_ratio}[name]
        assert kept == list(profile(shapes, sum(kept)))


def test_every_layer_keeps_a_weight(K):
    model = early_nets.mlp(K)
    masks = early_nets.masks_of(
        tsp.prune_at_init(model, "smart_ratio", 0.992, empty_layers="keep")
    )
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1, 1]
    with pytest.raises(BudgetError, match="would empty"):
        tsp.prune_at_init(model, "smart_ratio", 0.992)
    with pytest.raises(BudgetError, match="each of 3 tensors.*leaves 2 of 392"):
        tsp.prune_at_init(model, "erk", 0.995, empty_layers="keep")
