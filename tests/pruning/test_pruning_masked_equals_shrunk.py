"""A shrunk network computes what the original computes when nobody reads the units.

The reference is written a second time in `masked_reference`, in float64 NumPy.
"""

import masked_reference
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp

pytestmark = pytest.mark.both_flavours

NETS = {net.__name__: net for net in masked_reference.NETS}
BUDGETS = {
    "spline": {"criterion": "spline", "target_macs": 0.5},
    "random": {"criterion": "random", "target_macs": 0.5},
    # Every group loses units, so that no kind of reader goes untested.
    "every_group": {"criterion": "random", "sparsity": 0.5, "scope": "layer"},
}


@pytest.fixture(params=list(NETS))
def name(request):
    return request.param


def inputs(model, count=5, seed=1):
    shape = tuple(model.inputs[0].shape[1:])
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False)).astype("float64")


def relative(found, expected):
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_reference_without_masks_is_the_model(K, name):
    model = getattr(zoo, name)(K)
    x = inputs(model)
    weights = masked_reference.weights_of(model)
    keep = masked_reference.keep_nothing_out(weights)
    expected = NETS[name](x.astype("float64"), weights, keep)
    assert relative(outputs(model, x), expected) < 1e-5


@pytest.mark.parametrize("budget", list(BUDGETS))
def test_shrunk_equals_masked(K, name, budget):
    model = getattr(zoo, name)(K)
    weights = masked_reference.weights_of(model)
    plan = tsp.plan(model, **BUDGETS[budget])
    small = plan.apply(model)

    removed = plan.removed
    assert set(removed) <= set(masked_reference.HIDDEN[name])
    if budget == "every_group":
        assert set(removed) == set(masked_reference.HIDDEN[name])
    assert any(removed.values())
    for stream in masked_reference.STREAMS.get(name, []):
        assert len({tuple(removed.get(layer, ())) for layer in stream}) == 1
    for layer, units in removed.items():
        assert (
            small.get_layer(layer).get_weights()[0].shape[-1]
            == weights[layer]["kernel"].shape[-1] - len(units)
            > 0
        )

    x = inputs(model)
    keep = masked_reference.keep_of(weights, removed)
    expected = NETS[name](x.astype("float64"), weights, keep)
    assert relative(outputs(small, x), expected) < 1e-5
    assert tsp.verify(model, small, plan) <= 1e-5
    # The masks matter: the original computes something else.
    assert relative(outputs(model, x), expected) > 1e-3


def test_verify_sees_a_wrong_model(K, name):
    model = getattr(zoo, name)(K)
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer")
    small = plan.apply(model)
    # The same shapes, but other units kept.
    layer = small.get_layer(masked_reference.HIDDEN[name][0])
    kernel, *rest = layer.get_weights()
    layer.set_weights([np.roll(kernel, 1, axis=-1), *rest])
    assert tsp.verify(model, small, plan) > 1e-2


def test_shrunk_model_is_plain(K, name, tmp_path):
    model = getattr(zoo, name)(K)
    before = [np.array(w) for w in model.get_weights()]
    plan = tsp.plan(model, "random", target_macs=0.5)
    small = plan.apply(model)

    assert small.__class__.__module__.partition(".")[0] == K.__name__
    for layer in small.layers:
        assert type(layer).__module__.partition(".")[0] == K.__name__
    assert [layer.name for layer in small.layers] == [
        layer.name for layer in model.layers
    ]
    assert [type(layer) for layer in small.layers] == [
        type(layer) for layer in model.layers
    ]
    assert small.name == model.name
    assert small.count_params() == plan.after.params < model.count_params()

    x = inputs(model)
    file = tmp_path / "small.keras"
    small.save(file)
    loaded = K.models.load_model(file)
    np.testing.assert_array_equal(outputs(loaded, x), outputs(small, x))

    start = [np.array(w) for w in small.get_weights()]
    small.compile(
        "sgd", K.losses.SparseCategoricalCrossentropy(from_logits=name != "mobilenet")
    )
    small.fit(x, np.arange(len(x)) % 5, batch_size=len(x), epochs=1, verbose=0)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(start, small.get_weights(), strict=True)
    ]
    assert sum(moved) > len(moved) // 2
    assert all(np.isfinite(w).all() for w in small.get_weights())

    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
