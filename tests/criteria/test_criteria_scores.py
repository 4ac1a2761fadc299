"""Scores and distances against the formulas, written once more in float64."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.compat import Calibration

RHO = 0.7


def dense_net(K):
    L = K.layers
    return zoo.settle(
        K.Sequential(
            [
                K.Input((6,)),
                L.Dense(9, activation="relu", name="one"),
                L.Dense(7, activation="relu", name="two"),
                L.Dense(3, name="head"),
            ]
        ),
        seed=4,
    )


def conv_net(K):
    L = K.layers
    return zoo.settle(
        K.Sequential(
            [
                K.Input((6, 5, 3)),
                L.Conv2D(8, 2, name="one"),
                L.BatchNormalization(epsilon=0.01, name="one_bn"),
                L.ReLU(),
                L.Conv2D(7, (1, 2), use_bias=False, name="two"),
                L.BatchNormalization(scale=False, name="two_bn"),
                L.Activation("relu"),
                L.GlobalAveragePooling2D(),
                L.Dense(3, name="head"),
            ]
        ),
        seed=4,
    )


EPSILON = {"one_bn": 0.01, "two_bn": 1e-3}
NETS = {"dense": dense_net, "conv": conv_net}


def weight(model, layer, name):
    layer = model.get_layer(layer)
    for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
        if str(variable.name).rpartition("/")[2].partition(":")[0] == name:
            return value.astype("float64")
    return None


def effective(model, layer):
    """Fold the norm by hand: rows (units, d), offsets, input deviation."""
    kernel = weight(model, layer, "kernel")
    units = kernel.shape[-1]
    rows = kernel.reshape(-1, units).T
    bias = weight(model, layer, "bias")
    offset = np.zeros(units) if bias is None else bias
    norm = f"{layer}_bn"
    if norm not in [other.name for other in model.layers]:
        return rows, offset, 1.0
    gamma = weight(model, norm, "gamma")
    gamma = np.ones(units) if gamma is None else gamma
    variance = weight(model, norm, "moving_variance")
    factor = gamma / np.sqrt(variance + EPSILON[norm])
    offset = (offset - weight(model, norm, "moving_mean")) * factor
    offset += weight(model, norm, "beta")
    rows = rows * factor[:, None]
    # The norm's output varies by |gamma|: |row| times the input's deviation.
    deviation = np.median(np.abs(gamma) / np.sqrt((rows**2).sum(axis=1)))
    return rows, offset, deviation


def distances(model, layer, mode, rho):
    rows, offset, deviation = effective(model, layer)
    count = len(rows)
    length = np.sqrt((rows**2).sum(axis=1))
    found = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            cos = rows[i] @ rows[j] / (length[i] * length[j])
            a = offset[i] / length[i] / deviation
            b = offset[j] / length[j] / deviation
            if mode == "paper":
                found[i, j] = 1 - abs(cos) + rho * abs(offset[i] - offset[j])
            elif mode == "hyperplane":
                found[i, j] = 1 - abs(cos) + rho * abs(a - np.sign(cos) * b)
            else:
                found[i, j] = 1 - cos + rho * abs(a - b)
    return found


def pairs_of(model, criterion, layer, **prepare):
    graph = tsp.ChannelGraph(model)
    criterion.prepare(graph, **prepare)
    (group,) = [g for g in graph.groups if g.name == layer]
    return criterion.pairs(group), group


def matrix(pairs):
    return pairs.rows(np.arange(len(pairs.worth)))


@pytest.mark.parametrize("mode", ["paper", "hyperplane", "unit"])
@pytest.mark.parametrize("layer", ["one", "two"])
@pytest.mark.parametrize("net", list(NETS))
def test_spline_distances(K, net, layer, mode):
    model = NETS[net](K)
    criterion = tsp.criteria.Spline(mode=mode, rho=RHO)
    pairs, group = pairs_of(model, criterion, layer)
    expected = distances(model, layer, mode, RHO)
    np.testing.assert_allclose(matrix(pairs), expected, atol=2e-6)
    # Any selection of rows gives the same rows.
    some = np.array([4, 0, 2])
    np.testing.assert_allclose(pairs.rows(some), expected[some], atol=2e-6)

    rows, _, _ = effective(model, layer)
    length = np.sqrt((rows**2).sum(axis=1))
    reader = weight(model, {"one": "two", "two": "head"}[layer], "kernel")
    outgoing = np.moveaxis(reader, -2, 0).reshape(len(rows), -1)
    worth = length * np.sqrt((outgoing**2).sum(axis=1))
    np.testing.assert_allclose(pairs.worth, worth, rtol=1e-6)
    assert not pairs.dead.any()

    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(criterion.scores(group), expected.min(axis=1), atol=2e-6)
    units, twins = np.array([0, 1, 2, 3]), np.array([3, 2, 0, 1])
    cos = (rows[units] * rows[twins]).sum(axis=1)
    scale = np.where(cos > 0, length[units] / length[twins], 0.0)
    np.testing.assert_allclose(pairs.scale(units, twins), scale, rtol=1e-6)


def _convolve(x, kernel):
    """Convolve without padding, one kernel entry at a time."""
    rows, columns = kernel.shape[:2]
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    out = np.zeros((len(x), height, width, kernel.shape[3]))
    for i in range(rows):
        for j in range(columns):
            out += x[:, i : i + height, j : j + width] @ kernel[i, j]
    return out


def _activations_in(model, net, x):
    """Give the inputs of both hidden activations."""
    if net == "dense":
        one = x @ weight(model, "one", "kernel") + weight(model, "one", "bias")
        two = np.maximum(one, 0) @ weight(model, "two", "kernel")
        return {"one": one, "two": two + weight(model, "two", "bias")}
    one = _convolve(x, weight(model, "one", "kernel")) + weight(model, "one", "bias")
    variance = weight(model, "one_bn", "moving_variance") + EPSILON["one_bn"]
    one = (one - weight(model, "one_bn", "moving_mean")) / np.sqrt(variance)
    one = one * weight(model, "one_bn", "gamma") + weight(model, "one_bn", "beta")
    two = _convolve(np.maximum(one, 0), weight(model, "two", "kernel"))
    variance = weight(model, "two_bn", "moving_variance") + EPSILON["two_bn"]
    two = (two - weight(model, "two_bn", "moving_mean")) / np.sqrt(variance)
    return {"one": one, "two": two + weight(model, "two_bn", "beta")}


@pytest.mark.parametrize("layer", ["one", "two"])
@pytest.mark.parametrize("net", list(NETS))
def test_code_distances(K, net, layer):
    model = NETS[net](K)
    shape = (6,) if net == "dense" else (6, 5, 3)
    x = np.random.default_rng(2).standard_normal((64, *shape))
    x = x.astype("float32").astype("float64")
    tensor = _activations_in(model, net, x)[layer]
    assert np.abs(tensor).min() > 1e-6  # no sign hangs on rounding
    signs = (tensor > 0).reshape(-1, tensor.shape[-1])
    expected = (signs[:, :, None] != signs[:, None, :]).mean(axis=0)

    criterion = tsp.criteria.Spline(mode="code")
    pairs, _ = pairs_of(
        model, criterion, layer, data=Calibration([x.astype("float32")])
    )
    np.testing.assert_allclose(matrix(pairs), expected, atol=1e-6)


def test_code_is_the_angle_for_a_gaussian_probe(K):
    model = dense_net(K)
    kernel, bias = model.get_layer("one").get_weights()
    model.get_layer("one").set_weights([kernel, np.zeros_like(bias)])
    pairs, _ = pairs_of(
        model, tsp.criteria.Spline(mode="code", num_points=20_000), "one", seed=3
    )
    unit = kernel / np.linalg.norm(kernel, axis=0)
    angle = np.arccos(np.clip(unit.T @ unit, -1, 1))
    # Four standard errors of a share of 20,000 points.
    np.testing.assert_allclose(matrix(pairs), angle / np.pi, atol=0.0142)


def _rescale(model, net, way, unit, by):
    layer = model.get_layer("one")
    names = ["kernel", "bias"]
    values = {name: weight(model, "one", name) for name in names}
    if net == "dense":
        for name in names:
            values[name][..., unit] *= by
        layer.set_weights([values[n].astype("float32") for n in names])
        return
    norm = ["gamma", "beta", "moving_mean", "moving_variance"]
    stats = {name: weight(model, "one_bn", name) for name in norm}
    stats["gamma"][unit] *= by
    stats["beta"][unit] *= by
    if way == "renormalised":
        for value in (values["kernel"], values["bias"], stats["moving_mean"]):
            value[..., unit] *= 3.0
        old = stats["moving_variance"][unit] + EPSILON["one_bn"]
        stats["moving_variance"][unit] = 9.0 * old - EPSILON["one_bn"]
    layer.set_weights([values[n].astype("float32") for n in names])
    model.get_layer("one_bn").set_weights([stats[n].astype("float32") for n in norm])


@pytest.mark.parametrize("mode", ["unit", "hyperplane", "paper"])
@pytest.mark.parametrize(
    ("net", "way"), [("dense", None), ("conv", "gamma"), ("conv", "renormalised")]
)
def test_what_a_positive_scale_changes(K, net, way, mode):
    model = NETS[net](K)
    before = matrix(pairs_of(model, tsp.criteria.Spline(mode=mode), "one")[0])
    unit = int(np.abs(effective(model, "one")[1]).argmax())
    _rescale(model, net, way, unit, 4.0)
    after = matrix(pairs_of(model, tsp.criteria.Spline(mode=mode), "one")[0])
    if mode == "paper":
        assert np.abs(after - before).max() > 0.1
    else:
        np.testing.assert_allclose(after, before, atol=3e-6)


def test_opposite_units_share_a_hyperplane_only(K):
    model = dense_net(K)
    kernel, bias = model.get_layer("one").get_weights()
    kernel[:, 1], bias[1] = -2.5 * kernel[:, 0], -2.5 * bias[0]
    model.get_layer("one").set_weights([kernel, bias])
    found = {
        mode: matrix(pairs_of(model, tsp.criteria.Spline(mode=mode), "one")[0])
        for mode in ("hyperplane", "unit", "paper")
    }
    assert abs(found["hyperplane"][0, 1]) < 1e-6
    offset = bias[0] / np.linalg.norm(kernel[:, 0])
    assert found["unit"][0, 1] == pytest.approx(2 + 2 * abs(offset), rel=1e-5)
    assert found["paper"][0, 1] == pytest.approx(3.5 * abs(bias[0]), abs=1e-5)


def test_dead_units(K):
    model = dense_net(K)
    kernel, bias = model.get_layer("one").get_weights()
    kernel[:, [2, 4, 5]] = 0.0
    bias[[2, 5]] = 0.0  # unit 4 is a constant, which its readers may need
    model.get_layer("one").set_weights([kernel, bias])
    criterion = tsp.criteria.Spline()
    pairs, group = pairs_of(model, criterion, "one")
    assert np.flatnonzero(pairs.dead).tolist() == [2, 5]
    scores = criterion.scores(group)
    assert np.isfinite(scores).all()
    assert (scores[[2, 5]] == 0).all()
    plan = tsp.plan(model, sparsity=0.2, layers="one")
    assert plan.removed == {"one": [2, 5]}


@pytest.mark.parametrize("start", ["gamma", "kernel"])
def test_residual_branch_of_zeros_does_not_kill_the_stream(K, start):
    """Zero-initialised residual branches leave the units of the stem alive."""
    model = zoo.resnet(K)
    if start == "gamma":
        gamma, *rest = model.get_layer("r0b_bn").get_weights()
        model.get_layer("r0b_bn").set_weights([0 * gamma, *rest])
    else:
        (kernel,) = model.get_layer("r0b_conv").get_weights()
        model.get_layer("r0b_conv").set_weights([0 * kernel])
    pairs, _ = pairs_of(model, tsp.criteria.Spline(), "stem_conv")
    assert not pairs.dead.any()
    assert len(np.unique(pairs.worth)) == len(pairs.worth)


def test_distances_of_a_stream_are_averaged(K):
    model = zoo.resnet(K)
    pairs, _ = pairs_of(model, tsp.criteria.Spline(mode="hyperplane"), "stem_conv")
    EPSILON.update({"stem_bn": 1e-3, "r0b_bn": 1e-3})
    total = 0.0
    for conv, norm in [("stem_conv", "stem_bn"), ("r0b_conv", "r0b_bn")]:
        kernel = weight(model, conv, "kernel")
        gamma = weight(model, norm, "gamma")
        factor = gamma / np.sqrt(weight(model, norm, "moving_variance") + 1e-3)
        rows = (kernel * factor).reshape(-1, len(gamma)).T
        offset = weight(model, norm, "beta")
        offset = offset - factor * weight(model, norm, "moving_mean")
        length = np.linalg.norm(rows, axis=1)
        offset = offset / length / np.median(np.abs(gamma) / length)
        cos = rows @ rows.T / np.outer(length, length)
        gap = np.abs(offset[:, None] - np.sign(cos) * offset[None, :])
        total = total + 1 - np.abs(cos) + gap
    np.testing.assert_allclose(matrix(pairs), total / 2, atol=3e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("net", list(NETS))
def test_magnitude(K, net, p):
    model = NETS[net](K)
    graph = tsp.ChannelGraph(model)
    criterion = tsp.criteria.Magnitude(p=p)
    criterion.prepare(graph)
    assert [group.name for group in graph.groups] == ["one", "two"]
    for group in graph.groups:
        kernel = weight(model, group.name, "kernel")
        rows = np.abs(kernel.reshape(-1, kernel.shape[-1]))
        norms = (rows**p).sum(axis=0) ** (1 / p)
        np.testing.assert_allclose(criterion.scores(group), norms / norms.mean())


def test_magnitude_of_a_stream(K):
    model = zoo.resnet(K)
    graph = tsp.ChannelGraph(model)
    criterion = tsp.criteria.Magnitude()
    criterion.prepare(graph)
    (group,) = [g for g in graph.groups if g.name == "r1s_conv" or g.name == "r1b_conv"]
    expected = 0.0
    for layer in ("r1b_conv", "r1s_conv", "r2b_conv"):
        kernel = weight(model, layer, "kernel")
        norms = np.sqrt((kernel.reshape(-1, kernel.shape[-1]) ** 2).sum(axis=0))
        expected = expected + norms / norms.mean() / 3
    np.testing.assert_allclose(criterion.scores(group), expected)


def test_batchnorm_scale(K):
    model = zoo.resnet(K)
    gamma, *rest = model.get_layer("r0b_bn").get_weights()
    model.get_layer("r0b_bn").set_weights([-gamma, *rest])  # the sign must not count
    graph = tsp.ChannelGraph(model)
    criterion = tsp.criteria.BatchNormScale()
    criterion.prepare(graph)
    scores = {group.name: criterion.scores(group) for group in graph.groups}
    stem = weight(model, "stem_bn", "gamma")
    np.testing.assert_allclose(scores["stem_conv"], (np.abs(gamma) + stem) / 2)
    inner = weight(model, "r0a_bn", "gamma")
    np.testing.assert_allclose(scores["r0a_conv"], inner)


def test_batchnorm_scale_of_concatenated_units(K):
    model = zoo.densenet(K)
    graph = tsp.ChannelGraph(model)
    criterion = tsp.criteria.BatchNormScale()
    criterion.prepare(graph)
    scores = {
        group.name: criterion.scores(group)
        for group in graph.groups
        if criterion.reason_against(group) is None
    }
    # d0's eight units lie behind the stem's twelve.
    parts = [weight(model, bn, "gamma")[12:20] for bn in ("d1_bn", "d2_bn", "t_bn")]
    np.testing.assert_allclose(scores["d0_conv"], np.mean(np.abs(parts), axis=0))
    assert "transition" not in scores


def test_batchnorm_scale_needs_a_scale(K):
    model = dense_net(K)
    with pytest.warns(
        tsp.errors.NothingPrunedWarning, match="needs a BatchNormalization"
    ):
        plan = tsp.plan(model, "batchnorm_scale", sparsity=0.5)
    assert plan.removed == {}


def test_random(K):
    model = dense_net(K)
    graph = tsp.ChannelGraph(model)

    def scores(seed):
        criterion = tsp.criteria.Random()
        criterion.prepare(graph, seed=seed)
        return [criterion.scores(group) for group in graph.groups]

    one, two = scores(0)
    again, _ = scores(0)
    other, _ = scores(1)
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    assert (one[:7] != two).all()
    assert ((one >= 0) & (one < 1)).all()


def test_random_is_uniform(K):
    L = K.layers
    model = K.Sequential([K.Input((1,)), L.Dense(4000, name="wide"), L.Dense(1)])
    plan = tsp.plan(model, "random", sparsity=0.5, layers="wide")
    index = np.array(plan.removed["wide"])
    assert len(index) == 2000
    # The mean of 2000 of 4000 indices without replacement: deviation about 18.
    assert abs(index.mean() - 1999.5) < 90


def test_get():
    names = {
        "spline": criteria.Spline,
        "magnitude": criteria.Magnitude,
        "batchnorm_scale": criteria.BatchNormScale,
        "random": criteria.Random,
        "activation": criteria.Activation,
        "fisher": criteria.Fisher,
        "fpgm": criteria.FPGM,
        "lamp": criteria.LAMP,
        "taylor": criteria.Taylor,
    }
    for name, cls in names.items():
        assert type(criteria.get(name)) is cls
        assert criteria.get(name) == cls()
    mine = criteria.Spline(mode="paper", rho=0.5)
    assert criteria.get(mine) is mine
    assert mine.get_config() == {
        **{"mode": "paper", "rho": 0.5, "num_points": 1024},
        **{"reduction": "mean", "normalizer": "mean"},
    }
    assert criteria.Magnitude(p=1, normalizer="none").get_config() == {
        **{"p": 1, "reduction": "mean", "normalizer": "none"},
    }


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: criteria.get("splines"), ValueError, "'splines'"),
        (lambda: criteria.get(3), TypeError, "3"),
        (lambda: criteria.get(None), TypeError, "None"),
        (lambda: criteria.get(criteria.Spline), TypeError, "Spline"),
        (lambda: criteria.Spline(mode="units"), ValueError, "'units'"),
        (lambda: criteria.Spline(rho=-1.0), ValueError, "rho=-1.0"),
        (lambda: criteria.Spline(rho=float("nan")), ValueError, "rho=nan"),
        (lambda: criteria.Spline(num_points=0), ValueError, "num_points=0"),
        (lambda: criteria.Magnitude(p=3), ValueError, "p=3"),
    ],
)
def test_wrong_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_code_needs_one_activation(K):
    """The units of a pre-activation stream run into several activations."""
    model = zoo.preact_resnet(K)
    with pytest.raises(ValueError, match="single one"):
        tsp.plan(model, tsp.criteria.Spline(mode="code"), sparsity=0.2)
    inner = ["p0_c1", "p1_c1"]
    plan = tsp.plan(
        model,
        tsp.criteria.Spline(mode="code", num_points=32),
        sparsity=0.25,
        layers=inner,
    )
    assert sum(map(len, plan.removed.values())) == 10
