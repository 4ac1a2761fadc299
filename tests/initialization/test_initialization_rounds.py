"""How far rounds go before a layer runs dry, and what they keep."""

import early_nets
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, InitializationWarning
from tf_spline_prune.initialization import _prune_at_init as early_masks
from tf_spline_prune.initialization._prune_at_init import strongest

MLPS = {"784-300-100-10": (784, 300, 100, 10), "64-64x10-10": (64, *[64] * 10, 10)}
# The largest compression, as a power of ten, that leaves a weight in each layer when
# all go at once; measured for other draws of the weights.
ONE_SHOT = {
    "784-300-100-10": {"synflow": 1.1, "snip": 2.1},
    "64-64x10-10": {"synflow": 2.0, "snip": 1.4},
}


def counts(masked):
    return [int(mask.sum()) for mask in early_nets.masks_of(masked).values()]


@pytest.mark.parametrize("name", ["synflow", "snip"])
@pytest.mark.parametrize("net", MLPS)
def test_rounds_reach_one_weight_a_layer(net, name):
    import keras as K

    model = early_nets.mlp(K, MLPS[net])
    data = early_nets.examples(100, MLPS[net][0], 10)
    total, layers = model.count_params(), len(model.layers)
    all_but_one = 1 - layers / total
    masked = tsp.prune_at_init(model, name, all_but_one, data=data, rounds=100)
    assert counts(masked) == [1] * layers
    scores = tsp.initialization.connection_scores(model, name, data=data).values()
    # The first layer is empty once all its scores are among those that go.
    least = min(array.max() for array in scores)
    left = sum(int((array >= least).sum()) for array in scores)
    reached = np.log10(total / left)
    assert reached == pytest.approx(ONE_SHOT[net][name], abs=0.9)
    assert reached < np.log10(total / layers) - 1
    with pytest.raises(BudgetError, match="would empty d"):
        tsp.prune_at_init(model, name, 1 - (left - 1) / total, data=data, rounds=1)
    tsp.prune_at_init(model, name, 1 - left / total, data=data, rounds=1)


def test_equal_factors_beat_equal_steps():
    import keras as K

    model = early_nets.mlp(K, MLPS["784-300-100-10"])
    sparsity = 1 - 60 / model.count_params()
    masked = tsp.prune_at_init(model, "synflow", sparsity, rounds=20)
    assert min(counts(masked)) >= 10
    with pytest.raises(BudgetError, match="'keep'.*sparsity=0.9997.*empty d1/kernel"):
        tsp.prune_at_init(model, "synflow", sparsity, rounds=20, schedule="linear")


@pytest.mark.parametrize("name", ["snip", "force", "synflow", "grasp"])
def test_who_may_come_back(K, monkeypatch, name):
    """Masks of iterative SNIP are nested; FORCE takes weights back."""
    model = early_nets.mlp(K)
    seen = []

    def spy(*args):
        seen.append(strongest(*args))
        return [mask.copy() for mask in seen[-1]]

    monkeypatch.setattr(early_masks, "strongest", spy)
    data = early_nets.examples()
    masked = tsp.prune_at_init(model, name, 0.9, data=data, rounds=6)
    total = sum(array.size for array in early_nets.kernels(model).values())
    kept = [sum(int(mask.sum()) for mask in masks) for masks in seen]
    assert kept == [round(0.1 ** (k / 6) * total) for k in range(1, 6)] + [
        round(0.1 * total)
    ]
    back = sum(
        int((new & ~old).sum())
        for older, newer in zip(seen, seen[1:], strict=False)
        for old, new in zip(older, newer, strict=True)
    )
    assert (back > 0) == (name == "force")
    for mask, last in zip(early_nets.masks_of(masked).values(), seen[-1], strict=True):
        np.testing.assert_array_equal(mask, last)


def test_later_rounds_look_at_what_is_left(K):
    """Two rounds by hand: scores of the pruned net rank the second time."""
    model = early_nets.mlp(K)
    x, y = early_nets.examples()
    weights = list(early_nets.kernels(model).values())
    masks = [np.ones(w.shape, bool) for w in weights]
    total = sum(w.size for w in weights)
    for count in (round(0.25**0.5 * total), round(0.25 * total)):
        left = [w * m for w, m in zip(weights, masks, strict=True)]
        slopes = early_nets.gradients_by_hand(left, x, y)
        scores = [np.abs(w * g) for w, g in zip(left, slopes, strict=True)]
        order = np.sort(np.concatenate([s.ravel() for s in scores]))
        masks = [s >= order[-count] for s in scores]
    masked = tsp.prune_at_init(model, "snip", 0.75, data=(x, y), rounds=2)
    for found, wanted in zip(early_nets.masks_of(masked).values(), masks, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_both_flavours_choose_the_same():
    import keras
    import tf_keras

    data = early_nets.examples()
    for name in ("snip", "grasp", "force", "synflow", "magnitude", "random", "erk"):
        rounds = 5 if name == "force" else None
        found = []
        for K in (keras, tf_keras):
            model = early_nets.mlp(K, bias=True)
            masked = tsp.prune_at_init(model, name, 0.8, data=data, rounds=rounds)
            found.append(early_nets.masks_of(masked))
        assert list(found[0]) == list(found[1])
        for key, mask in found[0].items():
            np.testing.assert_array_equal(mask, found[1][key], err_msg=f"{name} {key}")


# Shares of removed weights, by the variance of the initial weights: measured by the
# same rule in NumPy, on Gaussian inputs and random labels; the first and the last
# three rows are the published ones within 0.05.
EMPTIED = {
    1e-4: (0.97, 0.79, 0.80, 0.82, 0.82, 0.80, 0.44),
    1e-2: (0.95, 0.82, 0.83, 0.85, 0.85, 0.83, 0.48),
    1.0: (0.85, 0.90, 0.99, 1.0, 1.0, 1.0, 1.0),
    10.0: (0.85, 0.91, 1.0, 1.0, 1.0, 1.0, 1.0),
}


@pytest.mark.parametrize("variance", EMPTIED)
def test_layers_that_large_weights_empty(variance):
    """A tanh net of seven layers: saturated, its last layers get no scores."""
    import tf_keras as K

    widths = (784, *[100] * 6, 10)
    model = early_nets.mlp(K, widths, "tanh", std=variance**0.5)
    data = early_nets.examples(100, 784, 10)
    masked = tsp.prune_at_init(model, "snip", 0.9, data=data, empty_layers="allow")
    kept = early_nets.masks_of(masked).values()
    shares = np.array([1 - mask.mean() for mask in kept])
    np.testing.assert_allclose(shares, EMPTIED[variance], atol=0.07)
    empty = [not mask.any() for mask in kept]
    assert empty[-3:] == [variance >= 1] * 3
    if variance >= 1:
        with pytest.raises(BudgetError, match="d7/kernel"):
            tsp.prune_at_init(model, "snip", 0.9, data=data)
        masked = tsp.prune_at_init(model, "snip", 0.9, data=data, empty_layers="keep")
        assert min(counts(masked)) >= 1 and sum(counts(masked)) == round(
            0.1 * model.count_params()
        )


def test_scores_of_zero_are_told(K):
    """Behind units that are never active there is no slope; place decides."""
    model = early_nets.mlp(K, bias=True)
    first = model.get_layer("d1")
    first.set_weights([first.get_weights()[0], np.full(16, -1e3)])
    with pytest.warns(InitializationWarning, match="score 0") as caught:
        masked = tsp.prune_at_init(
            model, "snip", 0.5, data=early_nets.examples(), empty_layers="keep"
        )
    assert caught[-1].filename == __file__
    assert sum(counts(masked)) == 196
    scored = counts(
        tsp.prune_at_init(
            model, "snip", 0.95, data=early_nets.examples(), empty_layers="allow"
        )
    )
    assert scored[:2] == [0, 0]  # those without a score went first


def test_exact_counts_and_ties():
    rng = np.random.default_rng(0)
    for count in (0, 1, 7, 19, 20):
        scores = [rng.integers(0, 3, shape).astype(float) for shape in ((3, 4), (8,))]
        masks = strongest(scores, count)
        flat = np.concatenate([array.ravel() for array in scores])
        # Among equals the first ones go: a stable sort, from its end.
        wanted = np.zeros(20, bool)
        wanted[np.argsort(flat, kind="stable")[20 - count :]] = True
        found = np.concatenate([mask.ravel() for mask in masks])
        np.testing.assert_array_equal(found, wanted)
        assert [mask.shape for mask in masks] == [(3, 4), (8,)]
    old = [np.eye(3, 4, dtype=bool), np.arange(8) % 2 == 0]
    masks = strongest(scores, 4, old)
    assert sum(int(mask.sum()) for mask in masks) == 4
    assert not any((mask & ~was).any() for mask, was in zip(masks, old, strict=True))
