"""Controls of a mask, and masks that go from one model to another."""

import early_nets
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import FlavourError, InitializationWarning, ModelError

controls = tsp.initialization.controls
transfer_masks = tsp.initialization.transfer_masks


def build(K, seed=None):
    """A net with a convolution, whose initializers have the seed."""
    L = K.layers

    def start():
        return K.initializers.HeNormal(seed)

    model = K.Sequential(
        [
            K.Input((8, 8, 1)),
            L.Conv2D(6, 3, activation="relu", kernel_initializer=start(), name="conv"),
            L.BatchNormalization(name="bn"),
            L.Flatten(name="flat"),
            L.Dense(20, activation="relu", kernel_initializer=start(), name="hidden"),
            L.Dense(4, kernel_initializer=start(), name="head"),
        ]
    )
    return early_nets.compiled(K, model)


def digits(count=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 8, 8, 1)).astype("float32")
    return x, rng.integers(0, 4, count)


def test_controls_keep_the_densities(K):
    model = build(K)
    first = early_nets.kernels(model)
    masked = tsp.prune_at_init(model, "snip", 0.8, data=digits())
    masks = early_nets.masks_of(masked)
    made = controls(masked, model, seed=3)
    assert list(made) == ["shuffled", "reinitialized", "random"]
    fresh = {}
    for name, control in made.items():
        found = early_nets.masks_of(control)
        weights = early_nets.kernels(control)
        assert list(found) == list(masks)
        for key, mask in masks.items():
            assert found[key].sum() == mask.sum()
            assert (found[key] == mask).all() == (name == "reinitialized")
            assert not weights[key][~found[key]].any()
            old = weights[key][found[key]] == first[key][found[key]]
            assert old.all() == (name == "shuffled")
            if name != "shuffled":
                fresh.setdefault(key, []).append((found[key], weights[key]))
        control.fit(*digits(), verbose=0)  # compiled as the model is
    for (one, ours), (other, theirs) in fresh.values():
        both = one & other  # of the same new weights
        assert both.any() and (ours[both] == theirs[both]).all()
    again, other = controls(masked, model, seed=3), controls(masked, model, seed=4)
    for name in ("shuffled", "random"):
        ours, same, new = (
            early_nets.masks_of(one[name])["hidden/kernel"]
            for one in (made, again, other)
        )
        np.testing.assert_array_equal(ours, same)
        assert (ours != new).any()
    one, two = (
        early_nets.kernels(control["reinitialized"])["hidden/kernel"]
        for control in (again, other)
    )
    assert (one != two).any()
    np.testing.assert_array_equal(
        masks["conv/kernel"], early_nets.masks_of(masked)["conv/kernel"]
    )


def test_the_seed_that_the_model_was_built_with(K):
    """It gives other weights, not the model's own once more."""
    K.utils.set_random_seed(7)
    model = build(K)
    masked = tsp.prune_at_init(model, "magnitude", 0.5)
    control = controls(masked, model, seed=7)["reinitialized"]
    for key, weights in early_nets.kernels(control).items():
        assert (weights != early_nets.kernels(masked)[key]).any()


def test_new_weights_that_are_the_old_ones(K):
    model = build(K, seed=5)
    masked = tsp.prune_at_init(model, "magnitude", 0.5)
    with pytest.warns(
        InitializationWarning, match="have a seed.*conv/kernel"
    ) as caught:
        controls(masked, model)
    assert caught[-1].filename == __file__


def test_masks_go_to_other_weights_and_names(K):
    """A mask drawn on one data set, put on a net for another of the same shape."""
    model = build(K)
    masked = tsp.prune_at_init(model, "snip", 0.8, data=digits())
    masks = early_nets.masks_of(masked)
    other = build(K)
    before = early_nets.kernels(other)
    moved = transfer_masks(masked, other)
    for key, weights in early_nets.kernels(moved).items():
        np.testing.assert_array_equal(early_nets.masks_of(moved)[key], masks[key])
        np.testing.assert_array_equal(weights, np.where(masks[key], before[key], 0))
    x, y = digits(seed=1)
    moved.fit(x, y, verbose=0)
    for key, weights in early_nets.kernels(moved).items():
        assert not weights[~masks[key]].any()
    # By order, where names differ.
    small = early_nets.mlp(K)
    masked = tsp.prune_at_init(small, "synflow", 0.7)
    L = K.layers
    named = K.Sequential(
        [K.Input((12,)), *(L.Dense(n, name=f"other{n}") for n in (16, 10, 4))]
    )
    for one, two in zip(
        early_nets.masks_of(transfer_masks(masked, named)).values(),
        early_nets.masks_of(masked).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_masks_go_to_the_other_flavour():
    import keras
    import tf_keras

    masked = tsp.prune_at_init(early_nets.mlp(keras), "synflow", 0.7, layers=["d2"])
    moved = transfer_masks(masked, early_nets.mlp(tf_keras))
    masks = early_nets.masks_of(moved)
    assert list(masks) == ["d2/kernel"]
    np.testing.assert_array_equal(
        masks["d2/kernel"], early_nets.masks_of(masked)["d2/kernel"]
    )


def test_what_does_not_fit(K):
    model = early_nets.mlp(K)
    masked = tsp.prune_at_init(model, "synflow", 0.7)
    wide = early_nets.mlp(K, (12, 17, 10, 4))
    for function in (transfer_masks, controls):
        with pytest.raises(ModelError, match=r"own shapes.*\(12, 16\).*\(12, 17\)"):
            function(masked, wide)
        with pytest.raises(ModelError, match="no masks"):
            function(model, model)
        with pytest.raises(ModelError, match="without masks"):
            function(masked, masked)
        with pytest.raises(FlavourError):
            function(masked, None)
    for seed in (-1, 1.5, True):
        with pytest.raises(ValueError, match=f"seed={seed}"):
            controls(masked, model, seed=seed)
