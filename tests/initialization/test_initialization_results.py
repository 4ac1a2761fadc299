"""What `prune_at_init` gives: trained with zeros held, stripped, saved, shrunk."""

import early_nets
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import load_model

pytestmark = pytest.mark.both_flavours


def test_zeros_hold_while_training(K, tmp_path):
    model = early_nets.mlp(K, bias=True)
    before = [np.array(w) for w in model.get_weights()]
    x, y = early_nets.examples(96)
    masked = tsp.prune_at_init(model, "snip", 0.8, data=(x, y))
    masks = early_nets.masks_of(masked)
    for key, first in early_nets.kernels(model).items():
        kept = np.where(masks[key], first, 0)
        np.testing.assert_array_equal(early_nets.kernels(masked)[key], kept)
    masked.fit(x, y, batch_size=32, epochs=1, verbose=0)  # compiled as the model is
    for key, trained in early_nets.kernels(masked).items():
        assert not trained[~masks[key]].any()
        first = early_nets.kernels(model)[key]
        assert (trained[masks[key]] != first[masks[key]]).any()
    plain = tsp.strip_masks(masked)
    assert [layer.name for layer in plain.layers] == ["d1", "d2", "d3"]
    plain.save(tmp_path / "sparse.keras")
    again = load_model(tmp_path / "sparse.keras")
    np.testing.assert_allclose(
        again.predict(x, verbose=0), masked.predict(x, verbose=0), rtol=1e-5, atol=1e-6
    )
    for key, array in early_nets.kernels(again).items():
        assert not array[~masks[key]].any()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_only_the_layers_that_are_named(K):
    model = early_nets.mlp(K)
    data = early_nets.examples()
    masked = tsp.prune_at_init(model, "snip", 0.5, data=data, layers=["d1", "d2"])
    masks = early_nets.masks_of(masked)
    assert list(masks) == ["d1/kernel", "d2/kernel"]
    assert sum(int(mask.sum()) for mask in masks.values()) == (12 * 16 + 16 * 10) // 2
    scores = tsp.initialization.connection_scores(model, data=data, layers="d2")
    assert list(scores) == ["d2/kernel"]


@pytest.mark.parametrize(
    ("build", "name"),
    [(zoo.resnet, "snip"), (zoo.nested, "synflow"), (zoo.subclassed, "snip")],
    ids=["resnet", "nested", "subclassed"],
)
def test_networks_of_all_kinds(K, build, name):
    model = early_nets.compiled(K, build(K))
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, *zoo.SHAPE)).astype("float32"), rng.integers(0, 5, 8)
    masked = tsp.prune_at_init(model, name, 0.6, data=data, rounds=3)
    masks = early_nets.masks_of(masked)
    total = sum(mask.size for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.4 * total)
    assert all(mask.ndim > 1 and mask.any() for mask in masks.values())
    out = masked.predict(data[0], verbose=0)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", ["snip", "synflow", "grasp"])
def test_units_are_scored_by_their_weights(K, name):
    """The score of a unit is the size of the sum over the weights that make it."""
    model = early_nets.mlp(K)
    x, y = early_nets.examples()
    weights = list(early_nets.kernels(model).values())
    if name == "synflow":
        each = list(tsp.initialization.connection_scores(model, name).values())
    else:
        slopes = early_nets.gradients_by_hand(weights, x, y)
        each = [w * g for w, g in zip(weights, slopes, strict=True)]
    if name == "grasp":  # the gradient of what is scored: not that of the head
        found = tsp.initialization.connection_scores(
            model, name, data=(x, y), layers=["d1", "d2"]
        )
        each = list(found.values())
    sums = np.concatenate([array.sum(axis=0) for array in each[:2]])
    sums = sums if name == "grasp" else np.abs(sums)
    plan = tsp.plan(model, name, sparsity=0.5, data=(x, y))
    gone = np.concatenate(
        [
            np.isin(range(16), plan.removed.get("d1", ())),
            np.isin(range(10), plan.removed.get("d2", ())),
        ]
    )
    np.testing.assert_array_equal(np.flatnonzero(gone), np.sort(np.argsort(sums)[:13]))
    small = tsp.prune_at_init(model, name, 0.5, data=(x, y), granularity="unit")
    assert [w.shape for w in small.get_weights()] == [
        w.shape for w in plan.apply(model).get_weights()
    ]


@pytest.mark.parametrize(
    ("target", "rounds"), [(0.3, 4), (118, None)], ids=["share", "number"]
)
def test_sculpting_to_a_count(K, target, rounds):
    """An over-wide net is cut, without labels, to a number of parameters."""
    model = early_nets.mlp(K)
    x, _ = early_nets.examples()
    small = tsp.prune_at_init(
        model,
        "snip",
        data=x,
        loss="uniform",
        granularity="unit",
        rounds=rounds,
        target_params=target,
    )
    limit = target if isinstance(target, int) else int(target * 392)
    assert limit - 30 < small.count_params() <= limit
    assert small.input_shape == model.input_shape
    assert small.output_shape == model.output_shape
    assert type(small).__module__.startswith(K.__name__)


def test_rounds_of_units_take_equal_factors(K, monkeypatch):
    """Two rounds to a quarter: the first goes to a half, for shares and for numbers."""
    from tf_spline_prune.initialization import _prune_at_init as early_pruning

    seen = []
    real = early_pruning.prune_in_rounds

    def spy(*args, **settings):
        seen.append(settings["schedule"])
        return real(*args, **settings)

    monkeypatch.setattr(early_pruning, "prune_in_rounds", spy)
    model = early_nets.mlp(K)
    for target in (0.25, 98):
        for schedule in ("exponential", "linear"):
            tsp.prune_at_init(
                model,
                "magnitude",
                granularity="unit",
                rounds=2,
                schedule=schedule,
                target_params=target,
            )
    tsp.prune_at_init(model, "magnitude", 0.75, granularity="unit", rounds=2)
    halves = pytest.approx([2 / 3, 1.0])  # from 1 to 1/2 is two thirds of the way
    assert seen == [halves, "linear", halves, "linear", halves]


def test_masks_without_labels_know_something(K):
    """They share far more weights with supervised ones than chance would, 10 %."""
    model = early_nets.mlp(K, (64, 60, 60, 10), "tanh")
    x, y = early_nets.examples(100, 64, 10)
    wanted = early_nets.masks_of(tsp.prune_at_init(model, "snip", 0.9, data=(x, y)))
    for loss in ("uniform", "raw", "softmax"):
        masked = tsp.prune_at_init(model, "snip", 0.9, data=x, loss=loss)
        masks = early_nets.masks_of(masked)
        both = sum(int((masks[key] & mask).sum()) for key, mask in wanted.items())
        assert 0.25 < both / sum(int(mask.sum()) for mask in wanted.values()) < 0.75
