"""The picture of redundancy: distances, bundles and fates are the true ones."""

import keras
import numpy as np
import pytest
import zoo
from matplotlib.figure import Figure

import tf_spline_prune as tsp
from tf_spline_prune.visualize._plot_redundancy import _in_line


def one_layer(K, weights, biases):
    """A network whose hidden units are the columns of `weights`."""
    layers = [K.layers.Dense(len(biases), activation="relu", name="hidden")]
    layers += [K.layers.Dense(2, name="head")]
    model = K.Sequential([K.Input((len(weights),)), *layers])
    model.layers[0].set_weights([weights, biases])
    return model


def bundled(K, bundles, size, inputs=6, seed=0):
    """A shuffled layer of bundles of units that are nearly multiples of one."""
    rng = np.random.default_rng(seed)
    weights = np.repeat(rng.normal(size=(bundles, inputs)), size, axis=0)
    weights += 0.01 * rng.normal(size=weights.shape)
    scale = rng.uniform(0.5, 2.0, (bundles * size, 1))
    member = np.repeat(np.arange(bundles), size)
    order = rng.permutation(bundles * size)
    weights = (scale * weights)[order].T.astype("float32")
    return one_layer(K, weights, np.zeros(bundles * size, "float32")), member[order]


def distances_of(model):
    """The criterion's default distances, from its definition."""
    weights, biases = map(np.float64, model.layers[0].get_weights())
    length = np.linalg.norm(weights, axis=0)
    offsets = biases / length
    cosine = (weights / length).T @ (weights / length)
    return 1 - cosine + np.abs(offsets[:, None] - offsets)


def order_of(axes):
    return np.array([int(text.get_text()) for text in axes.get_yticklabels()])


def frames(axes):
    return [(p.get_x() + 0.5, p.get_y() + 0.5, p.get_width()) for p in axes.patches]


def fates(axes):
    return np.asarray(axes.child_axes[-1].images[0].get_array())[0].astype(bool)


def test_bundles_stand_together(K, tmp_path):
    model, member = bundled(K, bundles=4, size=3)
    axes = tsp.visualize.plot_redundancy(
        model, "hidden", path=tmp_path / "units.png", sparsity=8 / 12
    )
    order = order_of(axes)
    assert sorted(order) == list(range(12))
    drawn = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(
        drawn, distances_of(model)[np.ix_(order, order)], atol=1e-5
    )
    # One unit of each bundle stays, and stands first.
    assert frames(axes) == [(at, at, 3) for at in (0, 3, 6, 9)]
    assert fates(axes).tolist() == [True, False, False] * 4
    for start in range(0, 12, 3):
        assert len(set(member[order[start : start + 3]])) == 1
    assert axes.get_title() == "hidden: 4 of 12 units kept"
    assert axes.get_xlabel() == "unit" and axes.child_axes[0].get_ylabel()
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["kept", "pruned", "bundle"]
    assert (tmp_path / "units.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_of_another_criterion():
    rng = np.random.default_rng(1)
    model = one_layer(
        keras,
        rng.normal(size=(3, 20)).astype("float32"),
        rng.normal(size=20).astype("float32"),
    )
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    given = Figure().add_subplot()
    axes = tsp.visualize.plot_redundancy(model, "hidden", plan, axes=given)
    assert axes is given
    order, stays = order_of(axes), fates(axes)
    assert sorted(order[~stays]) == plan.removed["hidden"]
    # Who goes stands in the bundle of the nearest that stays.
    distances = distances_of(model)
    kept = order[stays]
    leader = None
    for unit, stay in zip(order, stays, strict=True):
        leader = unit if stay else leader
        assert distances[unit, leader] == pytest.approx(distances[unit, kept].min())
    starts = np.flatnonzero(stays)
    sizes = np.diff([*starts, len(order)])
    expected = [(a, a, n) for a, n in zip(starts, sizes, strict=True) if n > 1]
    assert frames(axes) == expected


def test_wide_layers_and_other_distances():
    model, _ = bundled(keras, bundles=30, size=4)
    for mode in ("hyperplane", "code"):
        axes = tsp.visualize.plot_redundancy(
            model,
            "hidden",
            sparsity=0.75,
            criterion=tsp.criteria.Spline(mode=mode),
            data=np.random.default_rng(0).normal(size=(200, 6)).astype("float32"),
        )
        assert np.asarray(axes.images[0].get_array()).shape == (120, 120)
        assert fates(axes).sum() == 30
    assert axes.get_xlabel() == "units, in bundles"


def test_what_hangs_together_stands_together():
    points = np.random.default_rng(2).normal(size=(40, 2))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    line = _in_line(distances)
    assert sorted(line) == list(range(40))
    for level in (0.1, 0.3, 0.5, 0.7):
        linked = distances <= level
        for _ in range(6):  # chains of up to 64 links
            linked = linked @ linked
        for unit in range(40):
            places = np.flatnonzero(linked[unit][line])
            assert places[-1] - places[0] == len(places) - 1


def test_layers_of_a_residual_network(K):
    model = zoo.resnet(K)
    graph = tsp.ChannelGraph(model)
    group = next(g for g in graph.groups if len(g.makers) > 1)
    axes = tsp.visualize.plot_redundancy(model, group.makers[-1], sparsity=0.5)
    assert axes.get_title() == (
        f"{group.name}: {group.num_units // 2} of {group.num_units} units kept"
    )


def test_wrong_input(tmp_path):
    model = zoo.mlp(keras)
    draw = tsp.visualize.plot_redundancy
    path = tmp_path / "units.png"
    plan = tsp.plan(model, sparsity=0.5)
    with pytest.raises(TypeError, match="criterion of pairs"):
        draw(model, "first", plan, path, criterion="magnitude")
    for both in ({}, {"plan": plan, "sparsity": 0.5}):
        with pytest.raises(ValueError, match="either `plan` or `sparsity`"):
            draw(model, "first", path=path, **both)
    with pytest.raises(TypeError, match="a `PruningPlan`"):
        draw(model, "first", {"first": [0]}, path)
    with pytest.raises(ValueError, match="are unprunable: they are the model's output"):
        draw(model, "head", plan, path)
    with pytest.raises(ValueError, match="Nearest"):
        draw(model, "frist", plan, path)
    with pytest.raises(tsp.errors.PlanError):
        draw(zoo.vgg(keras), "fc", plan, path)
    assert not list(tmp_path.iterdir())
