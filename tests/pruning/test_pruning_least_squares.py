"""Readers solved again, against `numpy.linalg.lstsq` on tensors of the test's own."""

import dataclasses
import types

import keras
import numpy as np
import pytest
import zoo
from regression_reference import (
    inputs_of,
    lstsq,
    mixed_plan,
    patches,
    tensor,
    weights_of,
)

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    CalibrationError,
    CalibrationWarning,
    FlavourError,
    PlanError,
)
from tf_spline_prune.pruning.recovery._linear_views import linear_views
from tf_spline_prune.pruning.recovery._regression import regress


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def stay(model, plan, layer):
    """Indices of the units that stay."""
    count = weights_of(model)[layer]["kernel"].shape[-1]
    return np.setdiff1d(np.arange(count), plan.removed.get(layer, []))


def close(found, expected, tolerance=1e-4):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


def relu(x):
    return np.maximum(x, 0)


# Layers that read eight units, and how they see them.
READERS = {
    "dense": ("Dense", (6,), {}, 200),
    "sequence": ("Dense", (5, 6), {}, 60),
    "conv": ("Conv2D", (6, 5, 3), {"kernel_size": (3, 2)}, 30),
    "same": ("Conv2D", (6, 5, 3), {"kernel_size": (2, 3), "padding": "same"}, 20),
    "strides": (
        "Conv2D",
        (7, 6, 3),
        {"kernel_size": 3, "padding": "same", "strides": (2, 2)},
        40,
    ),
    "strides_valid": ("Conv2D", (7, 7, 3), {"kernel_size": 2, "strides": (3, 2)}, 60),
    "dilated": (
        "Conv2D",
        (7, 6, 3),
        {"kernel_size": 2, "padding": "same", "dilation_rate": (2, 3)},
        20,
    ),
    "causal": (
        "Conv1D",
        (9, 4),
        {"kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        40,
    ),
    "causal_strides": (
        "Conv1D",
        (9, 4),
        {"kernel_size": 2, "padding": "causal", "strides": 2},
        40,
    ),
    "grouped": ("Conv2D", (5, 5, 3), {"kernel_size": 2, "groups": 2}, 30),
    "conv3d": ("Conv3D", (4, 3, 4, 2), {"kernel_size": 2, "padding": "same"}, 20),
}


def one_consumer(K, kind, shape, settings, use_bias=True, norm=False):
    L = K.layers
    layer = getattr(L, kind)
    if kind == "Dense":
        settings, size = {"units": 4, **settings}, {}
    else:
        settings, size = {"filters": 4, **settings}, {"kernel_size": 1}
    inputs = K.Input(shape)
    x = layer(8, activation="relu", name="one", **size)(inputs)
    x = layer(use_bias=use_bias, name="reader", **settings)(x)
    if norm:
        x = L.BatchNormalization(name="norm")(x)
    x = L.Dense(2, name="head")(L.Flatten()(L.ReLU()(x)))
    return zoo.settle(K.Model(inputs, x))


def rows_of(x, settings):
    """Give what the reader sees, as rows for each of its groups."""
    rank = x.ndim - 2
    if "kernel_size" in settings:
        size, strides, dilation = (
            np.broadcast_to(settings.get(name, 1), rank)
            for name in ("kernel_size", "strides", "dilation_rate")
        )
        x = patches(
            x,
            tuple(size),
            tuple(strides),
            tuple(dilation),
            settings.get("padding") or "valid",
        ).reshape(-1, size.prod(), x.shape[-1])
    else:
        x = x.reshape(-1, 1, x.shape[-1])
    groups = np.split(x, settings.get("groups", 1), axis=2)
    return [group.reshape(len(group), -1) for group in groups]


def solved(model, plan, old, new, settings, **how):
    """Solve the reader by hand; gives its kernel and intercept."""
    kernel = weights_of(model)["reader"]["kernel"]
    left = (
        kernel[..., stay(model, plan, "one"), :] if "groups" not in settings else None
    )
    found = []
    parts = np.split(kernel, settings.get("groups", 1), axis=-1)
    for x, y, part in zip(
        rows_of(new, settings), rows_of(old, settings), parts, strict=True
    ):
        first = None if left is None else left.reshape(-1, left.shape[-1])
        found.append(lstsq(x, y @ part.reshape(-1, part.shape[-1]), first, **how))
    shape = (*kernel.shape[:-2], -1, kernel.shape[-1])
    weights = np.concatenate([one for one, _ in found], axis=1).reshape(shape)
    return weights, np.concatenate([shift for _, shift in found])


@pytest.mark.parametrize("case", list(READERS))
def test_without_ridge(K, case):
    kind, shape, settings, count = READERS[case]
    model = one_consumer(K, kind, shape, settings)
    plan = mixed_plan(model, "one")
    assert len(plan.removed["one"]) == 4
    small = plan.apply(model)
    x = points(count, *shape)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)

    old, new = (inputs_of(K, one, "reader", x) for one in (model, small))
    before = weights_of(model)["reader"]
    # The reference itself: its rows give what the layer gives.
    parts = np.split(before["kernel"], settings.get("groups", 1), axis=-1)
    whole = np.concatenate(
        [
            rows @ part.reshape(-1, part.shape[-1])
            for rows, part in zip(rows_of(old, settings), parts, strict=True)
        ],
        axis=1,
    )
    found = tensor(K, model, model.get_layer("reader").output, x)
    close(whole + before["bias"], found.reshape(whole.shape), 1e-5)

    kernel, shift = solved(model, plan, old, new, settings)
    after = weights_of(result)
    close(after["reader"]["kernel"], kernel)
    close(after["reader"]["bias"], before["bias"] + shift)
    for key, value in weights_of(small)["one"].items():
        np.testing.assert_array_equal(after["one"][key], value)


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
@pytest.mark.parametrize("case", ["dense", "conv"])
def test_ridge(K, case, ridge, count):
    """Few rows, and many: two ways to one formula."""
    kind, shape, settings, _ = READERS[case]
    if case == "conv":
        shape = (3, 2, 3)  # one row an image
    model = one_consumer(K, kind, shape, settings)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(count, *shape)
    if count == 3:
        with pytest.warns(CalibrationWarning, match="3 inputs are fewer.*reader"):
            result = tsp.least_squares(model, small, plan, x, ridge=ridge, relu_steps=0)
    else:
        result = tsp.least_squares(model, small, plan, x, ridge=ridge, relu_steps=0)
    old, new = (inputs_of(K, one, "reader", x) for one in (model, small))
    kernel, shift = solved(model, plan, old, new, settings, ridge=ridge)
    after = weights_of(result)["reader"]
    close(after["kernel"], kernel)
    close(after["bias"], weights_of(model)["reader"]["bias"] + shift)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_both_ways_agree(ridge, centred):
    """With fewer rows than weights, and with more."""
    rng = np.random.default_rng(0)
    for count in (9, 40):
        x, y = rng.normal(1, 1, (count, 12)), rng.normal(2, 1, (count, 3))
        first = rng.normal(size=(12, 3))
        numbers = (one.astype("float32") for one in (x, y, first))
        one, other, start = numbers
        found = regress(one[None], other, start[None], ridge, centred)
        for got, want in zip(found, lstsq(x, y, first, ridge, centred), strict=True):
            np.testing.assert_allclose(got.reshape(want.shape), want, atol=2e-5)


def test_of_many_solutions_the_nearest(K):
    """Without ridge, twins among what is left do not blow up the weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)).astype("float32")
    x[:, 5] = np.float32(0.1) * x[:, 0] * np.float32(10.0)  # up to rounding
    first = rng.normal(size=(6, 2)).astype("float32")
    y = x @ first + rng.normal(size=(50, 2)).astype("float32")
    (weights,), shift = regress(x[None], y, first[None], 0.0)
    assert np.abs(weights).max() < 5
    best, offset = lstsq(x[:, :5].astype("float64"), y)
    np.testing.assert_allclose(x @ weights + shift, x[:, :5] @ best + offset, atol=1e-3)


@pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
def test_without_bias_and_norm_there_is_no_intercept(K, kind):
    shape, settings = ((6,), {}) if kind == "Dense" else ((3, 3, 3), {"kernel_size": 2})
    model = one_consumer(K, kind, shape, settings, use_bias=False)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(100, *shape)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    old, new = (inputs_of(K, one, "reader", x) for one in (model, small))
    kernel, _ = solved(model, plan, old, new, settings, centred=False)
    close(weights_of(result)["reader"]["kernel"], kernel)


@pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
def test_the_norm_takes_the_intercept(K, kind):
    shape, settings = ((6,), {}) if kind == "Dense" else ((3, 3, 3), {"kernel_size": 2})
    model = one_consumer(K, kind, shape, settings, use_bias=False, norm=True)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(100, *shape)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    old, new = (inputs_of(K, one, "reader", x) for one in (model, small))
    kernel, shift = solved(model, plan, old, new, settings)
    before, after = weights_of(model)["norm"], weights_of(result)
    close(after["reader"]["kernel"], kernel)
    close(after["norm"]["moving_mean"], before["moving_mean"] - shift)
    for name in ("gamma", "beta", "moving_variance"):
        np.testing.assert_array_equal(after["norm"][name], before[name])


def test_a_shared_norm_takes_no_intercept(K):
    L = K.layers
    x = inputs = K.Input((6,))
    norm = L.BatchNormalization(name="norm")
    x = L.Dense(8, activation="relu", name="one")(x)
    x = norm(L.Dense(4, use_bias=False, name="reader")(x))
    x = norm(L.Dense(4, name="other")(L.ReLU()(x)))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(100, 6)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    old, new = (inputs_of(K, one, "reader", x) for one in (model, small))
    kernel, _ = solved(model, plan, old, new, {}, centred=False)
    after = weights_of(result)
    close(after["reader"]["kernel"], kernel)
    for key, value in weights_of(model)["norm"].items():
        np.testing.assert_array_equal(after["norm"][key], value)


def test_channels_first_is_the_same_with_axes_moved():
    class Layer:
        kernel_size, strides, dilation_rate = (2, 3), (1, 2), (1, 1)
        padding, groups, data_format = "same", 2, "channels_last"

    def view():
        given = {"input_shapes": [(None,) * 4], "output_shapes": [(None,) * 4]}
        call = types.SimpleNamespace(kind="Conv2D", layer=Layer(), **given)
        return linear_views(call)[0].arrangement

    last = view()
    Layer.data_format = "channels_first"
    first = view()
    x = points(3, 5, 6, 4)
    moved = np.moveaxis(x, -1, 1)
    assert last.num_rows(x) == first.num_rows(moved) == 3 * 5 * 3
    chosen = np.array([44, 0, 7])
    np.testing.assert_array_equal(last.rows(x, chosen), first.rows(moved, chosen))
    y = points(3, 5, 3, 2)
    np.testing.assert_array_equal(
        last.outputs(y, chosen), first.outputs(np.moveaxis(y, -1, 1), chosen)
    )
    kernel = points(2, 3, 2, 6)
    back = last.of_matrix(last.matrix(kernel), kernel.shape)
    np.testing.assert_array_equal(back, kernel)


def test_each_reader_sees_the_recovered_one_before(K):
    model = zoo.mlp(K)
    plan = mixed_plan(model)
    small = plan.apply(model)
    x = points(300, 12)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)

    w, exact = weights_of(model), x.astype("float64")
    one, two = (stay(model, plan, name) for name in ("first", "second"))
    assert (len(one), len(two)) == (16, 12)
    first = relu(exact @ w["first"]["kernel"] + w["first"]["bias"])
    aim = first @ w["second"]["kernel"]
    second = relu(aim + w["second"]["bias"])
    kernel, shift = lstsq(first[:, one], aim[:, two])
    bias = w["second"]["bias"][two] + shift
    recovered = relu(first[:, one] @ kernel + bias)
    last, offset = lstsq(recovered, second @ w["head"]["kernel"])

    after = weights_of(result)
    close(after["second"]["kernel"], kernel)
    close(after["second"]["bias"], bias)
    close(after["head"]["kernel"], last)
    close(after["head"]["bias"], w["head"]["bias"] + offset)


def test_a_branch_makes_up_for_its_shortcut(K):
    L = K.layers
    inputs = K.Input((5, 5, 3))
    x = L.Conv2D(8, 2, padding="same", activation="relu", name="stem")(inputs)
    x = L.Conv2D(6, 1, activation="relu", name="stream")(x)
    y = L.Conv2D(7, 2, padding="same", activation="relu", name="a")(x)
    y = L.Conv2D(6, 3, padding="same", use_bias=False, name="b")(y)
    y = L.Dropout(0.2)(L.BatchNormalization(name="b_bn")(y))
    y = L.GlobalAveragePooling2D()(L.ReLU()(L.Add(name="sum")([x, y])))
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(y)))
    plan = mixed_plan(model)
    small = plan.apply(model)
    x = points(40, 5, 5, 3)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)

    kept = stay(model, plan, "b")
    assert plan.removed["b"] == plan.removed["stream"] != []
    norm = {key: value[kept] for key, value in weights_of(model)["b_bn"].items()}
    scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + 1e-3)
    full, left = (inputs_of(K, one, "a", x) for one in (model, result))
    gap = full[..., kept].reshape(-1, 3) - left.reshape(-1, 3)
    assert np.abs(gap).max() > 0.1
    old, new = (
        patches(inputs_of(K, one, "b", x), (3, 3), padding="same").reshape(1000, -1)
        for one in (model, result)
    )
    kernel = weights_of(model)["b"]["kernel"][..., kept]
    kernel, shift = lstsq(
        new,
        old @ kernel.reshape(-1, 3) + gap / scale,
        weights_of(small)["b"]["kernel"].reshape(-1, 3),
    )
    after = weights_of(result)
    close(after["b"]["kernel"], kernel.reshape(3, 3, -1, 3))
    close(after["b_bn"]["moving_mean"], norm["moving_mean"] - shift)


def test_a_sum_that_broadcasts_is_left_alone(K):
    L = K.layers
    inputs = [K.Input((5, 4)), K.Input((1, 6))]
    x = L.Dense(8, activation="relu", name="one")(inputs[0])
    x = L.Add()([L.Dense(6, name="reader")(x), inputs[1]])
    model = zoo.settle(K.Model(inputs, L.Dense(2)(x)))
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    data = [points(30, 5, 4), points(30, 1, 6)]
    result = tsp.least_squares(model, small, plan, data, ridge=0, relu_steps=0)
    old, new = (inputs_of(K, one, "reader", data) for one in (model, small))
    kernel, _ = solved(model, plan, old, new, {})
    close(weights_of(result)["reader"]["kernel"], kernel)


def two_inputs(K):
    L = K.layers
    inputs = {"b": K.Input((6,), name="b"), "a": K.Input((5,), name="a")}
    shared = L.Dense(4, name="reader")
    one = L.Dense(8, activation="relu", name="one")(inputs["a"])
    other = L.Dense(8, activation="relu", name="other")(inputs["b"])
    x = L.Concatenate()([shared(one), shared(other)])
    return zoo.settle(K.Model(inputs, L.Dense(2, name="head")(L.ReLU()(x))))


def test_a_shared_layer_fits_all_its_uses(K):
    model = two_inputs(K)
    plan = mixed_plan(model, ["one", "other"])
    small = plan.apply(model)
    data = {"a": points(60, 5), "b": points(60, 6, seed=1)}
    result = tsp.least_squares(model, small, plan, data, ridge=0, relu_steps=0)
    w, kept = weights_of(model), stay(model, plan, "one")
    assert len(kept) == 4
    old = np.concatenate(
        [
            relu(data[name].astype("float64") @ w[layer]["kernel"] + w[layer]["bias"])
            for name, layer in (("a", "one"), ("b", "other"))
        ]
    )
    kernel, shift = lstsq(old[:, kept], old @ w["reader"]["kernel"])
    after = weights_of(result)["reader"]
    close(after["kernel"], kernel)
    close(after["bias"], w["reader"]["bias"] + shift)


def test_shared_layers_around_others(K):
    """The uses of one shared layer lie between those of another."""
    L = K.layers
    inputs = [K.Input((6,)), K.Input((6,))]
    makers = [L.Dense(8, activation="relu", name=f"make{i}") for i in range(2)]
    one = L.Dense(6, activation="relu", name="shared_one")
    two = L.Dense(4, name="shared_two")
    first = two(one(makers[0](inputs[0])))
    second = two(one(makers[1](L.Concatenate()([inputs[1], first]))))
    model = zoo.settle(K.Model(inputs, L.Dense(2)(L.Concatenate()([first, second]))))
    plan = mixed_plan(model, sparsity=0.3)
    small = plan.apply(model)
    data = [points(80, 6), points(80, 6, seed=1)]
    results = [
        tsp.least_squares(model, small, plan, data, max_bytes=size)
        for size in (1, 2**29)
    ]
    for found, again in zip(*(one.get_weights() for one in results), strict=True):
        np.testing.assert_array_equal(found, again)
    whole, cut, mended = (
        np.asarray(one(data, training=False)) for one in (model, small, results[0])
    )
    assert np.abs(mended - whole).mean() < 0.8 * np.abs(cut - whole).mean()


def test_nested_models(K):
    L = K.layers
    given = K.Input((8,))
    inner = K.Model(given, L.Dense(7, name="two")(given), name="inner")
    inputs = K.Input((6,))
    x = inner(L.Dense(8, activation="relu", name="one")(inputs))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(L.ReLU()(x))))
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(60, 6)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    w = weights_of(model)["one"] | {
        f"two_{key}": value
        for key, value in weights_of(model.get_layer("inner"))["two"].items()
    }
    old, kept = (
        relu(x.astype("float64") @ w["kernel"] + w["bias"]),
        stay(model, plan, "one"),
    )
    kernel, shift = lstsq(old[:, kept], old @ w["two_kernel"])
    after = weights_of(result.get_layer("inner"))["two"]
    close(after["kernel"], kernel)
    close(after["bias"], w["two_bias"] + shift)


def test_subclassed_models(K):
    model = zoo.subclassed(K)
    plan = mixed_plan(model, ["one", "two"])
    small = plan.apply(model)
    x = points(20, *zoo.SHAPE)
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    w, one, two = weights_of(model), *(stay(model, plan, n) for n in ("one", "two"))
    seen = patches(x.astype("float64"), (3, 3), padding="same")
    act = seen.reshape(20, 8, 8, -1) @ w["one"]["kernel"].reshape(27, -1)
    norm = w["norm"]
    act = (act + w["one"]["bias"] - norm["moving_mean"]) * norm["gamma"]
    act = relu(act / np.sqrt(norm["moving_variance"] + 1e-3) + norm["beta"])
    old = patches(act, (3, 3)).reshape(20 * 36, 9, -1)
    new = old[..., one].reshape(len(old), -1)
    kernel = w["two"]["kernel"].reshape(-1, 8)
    aim = old.reshape(len(old), -1) @ kernel
    kernel, shift = lstsq(new, aim[:, two])
    after = weights_of(result)
    close(after["two"]["kernel"], kernel.reshape(3, 3, len(one), len(two)))
    close(after["two"]["bias"], w["two"]["bias"][two] + shift)


@pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
def test_redundant_units_are_made_up_for_exactly(K, kind):
    """Units that are sums of others on the data."""
    shape, settings = ((9,), {}) if kind == "Dense" else ((4, 4, 5), {"kernel_size": 2})
    model = one_consumer(K, kind, shape, settings)
    one = model.get_layer("one")
    one.activation = K.activations.linear
    plan = mixed_plan(model, "one")
    kept, gone = stay(model, plan, "one"), plan.removed["one"]
    kernel, bias = (value.copy() for value in one.get_weights())
    mix = np.random.default_rng(0).normal(size=(len(kept), len(gone)))
    kernel[..., gone] = kernel[..., kept] @ mix
    bias[gone] = 3.0  # the intercept's part
    one.set_weights([kernel, bias])
    small = plan.apply(model)
    x, fresh = points(100, *shape), points(50, *shape, seed=1)
    expected = np.asarray(model(fresh))
    assert np.abs(np.asarray(small(fresh)) - expected).max() > 0.5
    result = tsp.least_squares(model, small, plan, x, ridge=0, relu_steps=0)
    found = np.asarray(result(fresh))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_what_is_given_stays_and_what_comes_is_plain(K):
    model = zoo.resnet(K)
    plan = mixed_plan(model, sparsity=0.3)
    small = plan.apply(model)
    model.compile("sgd", "mse")
    before = [model.get_weights(), small.get_weights()]
    x = points(20, *zoo.SHAPE)
    data = x.copy()
    result = tsp.least_squares(model, small, plan, x)
    for held, now in zip(
        before, [model.get_weights(), small.get_weights()], strict=True
    ):
        for one, two in zip(held, now, strict=True):
            np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(x, data)
    assert [one.name for one in result.layers] == [one.name for one in small.layers]
    assert isinstance(result, K.Model) and type(result).__name__ == "Functional"
    assert getattr(result, "optimizer", None) is None
    shapes = [w.shape for w in result.get_weights()]
    assert shapes == [w.shape for w in small.get_weights()]


@pytest.mark.parametrize("build", [zoo.mobilenet, zoo.nested])
def test_memory_and_batches_do_not_matter(K, build):
    model = build(K)
    plan = mixed_plan(model, sparsity=0.3)
    small = plan.apply(model)
    x = points(50, *zoo.SHAPE)
    want = tsp.least_squares(model, small, plan, x).get_weights()
    for one, two in zip(
        tsp.least_squares(model, small, plan, x, max_bytes=1).get_weights(),
        want,
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    for size in (7, 1000):
        found = tsp.least_squares(model, small, plan, x, batch_size=size)
        for one, two in zip(found.get_weights(), want, strict=True):
            np.testing.assert_allclose(one, two, atol=2e-3, rtol=2e-3)


def test_seed(K):
    kind, shape, settings, _ = READERS["conv"]
    model = one_consumer(K, kind, shape, settings)
    plan = mixed_plan(model, "one")
    small = plan.apply(model)
    x = points(60, *shape)  # 16 rows an image
    inputs = weights_of(small)["reader"]["kernel"][..., 0].size

    def kernel(**settings):
        result = tsp.least_squares(model, small, plan, x, **settings)
        return weights_of(result)["reader"]["kernel"]

    few = kernel(max_rows=1)
    np.testing.assert_array_equal(kernel(max_rows=1), few)
    np.testing.assert_array_equal(kernel(max_rows=4 * inputs), few)
    assert np.abs(kernel(max_rows=1, seed=1) - few).max() > 1e-4
    every = kernel()
    np.testing.assert_allclose(kernel(seed=1), every, atol=1e-4)
    assert 1e-4 < np.abs(few - every).max() < 0.5 * np.abs(every).max()


def kinds_of_data(K, x, y):
    import tensorflow as tf

    base = getattr(K.utils, "PyDataset", K.utils.Sequence)

    class Batches(base):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            part = slice(10 * index, 10 * index + 10)
            return x[part], y[part]

    data = tf.data.Dataset
    return {
        "tuple": (x, y),
        "list": [x],
        "tensor": tf.constant(x),
        "float64": x.astype("float64"),
        "dataset": data.from_tensor_slices(x).batch(7),
        "labelled": data.from_tensor_slices((x, y)).batch(7),
        "weighted": data.from_tensor_slices((x, y, y)).batch(7),
        "batches": Batches(),
        "generator": (x[i : i + 9] for i in range(0, 40, 9)),
        "tuples": ((x[i : i + 9],) for i in range(0, 40, 9)),
    }


def test_all_kinds_of_data_are_alike(K):
    model = zoo.mlp(K)
    plan = mixed_plan(model)
    small = plan.apply(model)
    x, y = points(40, 12), np.arange(40)
    want = tsp.least_squares(model, small, plan, x).get_weights()
    for name, data in kinds_of_data(K, x, y).items():
        found = tsp.least_squares(model, small, plan, data).get_weights()
        for one, two in zip(found, want, strict=True):
            np.testing.assert_array_equal(one, two, err_msg=name)


def test_several_inputs_in_any_form(K):
    import tensorflow as tf

    model = two_inputs(K)
    plan = mixed_plan(model)
    small = plan.apply(model)
    data = {"a": points(60, 5), "b": points(60, 6, seed=1), "more": points(60, 1)}
    want = tsp.least_squares(model, small, plan, data).get_weights()
    names = [one.name.partition(":")[0] for one in model.inputs]
    listed = [data[name] for name in names]
    slices = tf.data.Dataset.from_tensor_slices
    for given in (
        listed,
        (listed, np.zeros(60)),
        slices(data).batch(9),
        slices((data, np.zeros(60))).batch(9),
    ):
        found = tsp.least_squares(model, small, plan, given).get_weights()
        for one, two in zip(found, want, strict=True):
            np.testing.assert_array_equal(one, two)


def wrong_data(x):
    import tensorflow as tf

    endless = tf.data.Dataset.from_tensor_slices(x).batch(7).repeat()
    nan, text = x.copy(), np.full(x.shape, "a")
    nan[3, 4] = np.nan
    return [
        (nan, "1 of 480 values"),
        (np.full_like(x, np.inf), "480 of 480"),
        (x[:0], "at least one input"),
        (x[:, :11], r"shape \('n', 12\). Received: \(40, 11\)"),
        (x[0], "does not fit"),
        (endless, r"take\(8\)"),
        (iter([]), "no batch"),
        ([], "one array per input.*Received: 0"),
        ((), "0 items"),
        ((x, x, x, x), "4 items"),
        ((x, x[:3]), r"\[3\] labels"),
        ({}, "lack the model's inputs"),
        ([x, x], "Received: 2"),
        (x.tolist(), "Received: 40"),
        ([x.tolist()], "type list"),
        (iter([x, x[:, :5]]), "do not go together"),
        (None, "NoneType"),
        ("data", "type str"),
        (7, "type int"),
        (object(), "type object"),
        (text, "dtype <U1"),
        (x + 1j, "dtype complex"),
    ]


def test_wrong_data(K):
    model = zoo.mlp(K)
    plan = mixed_plan(model)
    small = plan.apply(model)
    for data, match in wrong_data(points(40, 12)):
        with pytest.raises(CalibrationError, match=match):
            tsp.least_squares(model, small, plan, data)


def test_wrong_models(K):
    L = K.layers
    model, x = zoo.mlp(K), points(40, 12)
    plan = mixed_plan(model)
    small = plan.apply(model)
    other = mixed_plan(model, sparsity=0.25)
    for wrong in (model, other.apply(model), zoo.vgg(K)):
        with pytest.raises(PlanError, match="`small` is not what the plan makes"):
            tsp.least_squares(model, wrong, plan, x)
    with pytest.raises(PlanError, match="another structure"):
        tsp.least_squares(small, small, plan, x)
    for wrong in (None, "small"):
        with pytest.raises(FlavourError):
            tsp.least_squares(model, wrong, plan, x)
    inputs = K.Input((12,))  # the layers of `small`, wired in another way
    y = inputs
    for name in ("first", "second", "head"):
        y = L.Dropout(0.1)(small.get_layer(name)(y))
    with pytest.raises(PlanError, match="not wired as"):
        tsp.least_squares(model, K.Model(inputs, y), plan, x)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ridge": -1e-9},
        {"ridge": float("nan")},
        {"ridge": float("inf")},
        {"batch_size": 0},
        {"max_rows": 0},
        {"max_bytes": 0},
    ],
)
def test_wrong_arguments(K, wrong):
    model = zoo.mlp(K)
    plan = mixed_plan(model)
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        tsp.least_squares(model, plan.apply(model), plan, points(40, 12), **wrong)


def test_a_plan_that_removes_nothing(K):
    model = zoo.mlp(K)
    plan = dataclasses.replace(mixed_plan(model), removed={})
    result = tsp.least_squares(model, plan.apply(model), plan, points(9, 12))
    for one, two in zip(result.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_windows_on_the_batch_axis_count_as_positions():
    """Units that others repeat are made up for exactly, with fewer inputs than rows."""
    x = keras.Input((8, 6))
    y = keras.ops.reshape(keras.layers.Dense(4, name="first")(x), (-1, 2, 4))
    y = keras.layers.Dense(12, activation="relu", name="up")(y)
    y = keras.ops.reshape(keras.layers.Dense(4, name="down")(y), (-1, 8, 4))
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(y)))
    up = model.get_layer("up")
    kernel, bias = (np.array(weight) for weight in up.get_weights())
    kernel[:, 6:], bias[6:] = kernel[:, :6], bias[:6]
    up.set_weights([kernel, bias])
    data = np.random.default_rng(0).normal(size=(64, 8, 6)).astype("float32")
    plan = tsp.plan(model, "random", sparsity={"up": 0.25}, seed=0)
    plan = dataclasses.replace(plan, removed={"up": [6, 9, 11]}, merges={})
    small = tsp.least_squares(model, plan.apply(model), plan, data, batch_size=16)
    np.testing.assert_allclose(small(data), model(data), atol=1e-3)
