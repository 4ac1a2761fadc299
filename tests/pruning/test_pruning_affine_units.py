"""Always-active units go to the rank of their map; layers that are linear become one.

The references are products of matrices, convolutions by hand, and the model itself at
points of the box, its corners among them.
"""

import warnings

import numpy as np
import pytest
import zoo
from hypothesis import given, settings, strategies as st
from zoo import edit

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    CalibrationError,
    CalibrationWarning,
    InexactWarning,
    NothingPrunedWarning,
)
from tf_spline_prune.pruning.without_loss._straightening import Straightening

BOX = (-1.0, 1.0)
ALL = slice(None)


@pytest.fixture(autouse=True)
def _no_excuse(monkeypatch):
    """Let a step that computes something else fail, which is else taken back."""

    accepts = Straightening._accepts

    def must_accept(self, graph, small, done):
        assert accepts(self, graph, small, done)
        return True

    monkeypatch.setattr(Straightening, "_accepts", must_accept)


def in_box(model, low=-1.0, high=1.0, count=64):
    rng = np.random.default_rng(0)
    x = rng.random((count, *model.inputs[0].shape[1:]))
    x[: count // 2] = np.round(x[: count // 2])  # corners
    dtype = model.inputs[0].dtype
    return (low + x * (high - low)).astype(getattr(dtype, "name", dtype))


def outputs(model, x):
    found = model(x, training=False)
    found = found if isinstance(found, (list, tuple)) else [found]
    return np.concatenate(
        [np.asarray(y, "float64").reshape(len(x), -1) for y in found], 1
    )


def error(model, small, x=None, **box):
    x = in_box(model, **box) if x is None else x
    found = outputs(model, x)
    return np.abs(found - outputs(small, x)).max() / np.abs(found).max()


def names(model):
    return [layer.name for layer in model.layers if layer.weights]


def width(model, layer):
    return model.get_layer(layer).get_weights()[0].shape[-1]


def zero(array):
    array[:] = 0


def lift(units, by=100.0):
    """Change a bias so that these units are active whatever comes."""

    def change(bias):
        bias[units] = np.abs(bias[units]) + by

    return change


def dense(
    K, active=40, dtype="float32", activation="relu", width=60, norm=False, behind=False
):
    """Make a net whose first units are always active on the box, by their weights."""
    L, kind = K.layers, {"dtype": dtype}
    layers = [K.Input((12,), dtype=dtype)]
    if norm:
        layers += [L.Dense(width, name="one", use_bias=False, **kind)]
        layers += [L.BatchNormalization(name="norm", **kind)]
        layers += [L.Activation(activation)]
    else:
        layers += [L.Dense(width, activation=activation, name="one", **kind)]
    layers += [L.BatchNormalization(name="behind", **kind)] if behind else []
    model = zoo.settle(K.Sequential([*layers, L.Dense(5, name="two", **kind)]))
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(12, width))
    bias = rng.normal(size=width)
    bias[:active] = np.abs(kernel[:, :active]).sum(axis=0) + 0.1
    if norm:
        edit(model, "norm", moving_mean=lambda a: np.copyto(a, -bias))
        edit(model, "norm", beta=lambda a: np.copyto(a, 0.0))
        bias = None
    rest = [] if bias is None else [bias]
    model.get_layer("one").set_weights([kernel, *rest])
    return model


@pytest.mark.both_flavours
@pytest.mark.parametrize(("dtype", "most"), [("float64", 1e-14), ("float32", 1e-6)])
def test_as_many_as_the_outputs(K, dtype, most):
    """Forty active units before five outputs become five; the others stay."""
    model = dense(K, dtype=dtype)
    small = tsp.lossless(model, box=BOX)
    assert width(model, "one") == 60
    assert width(small, "one") == 20 + 5
    assert names(small) == ["one", "two"]
    assert error(model, small) < most
    before, after = (tsp.local_affine(m, in_box(model)) for m in (model, small))
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new, old, atol=10 * most * np.abs(old).max())
    with pytest.warns(NothingPrunedWarning):  # there is nothing more to gain
        tsp.lossless(small, box=BOX)


def test_without_a_box_nothing_is_known(K):
    model = dense(K)
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model)
    with pytest.warns(NothingPrunedWarning):  # data certify nothing
        tsp.lossless(model, in_box(model))


@pytest.mark.both_flavours
def test_a_layer_whose_units_are_all_active_goes(K):
    model = dense(K, active=30, width=30, dtype="float64")
    small = tsp.lossless(model, box=BOX)
    assert names(small) == ["two"]
    (one, b1), (two, b2) = (model.get_layer(n).get_weights() for n in ("one", "two"))
    kernel, bias = small.get_layer("two").get_weights()
    np.testing.assert_allclose(kernel, one @ two, atol=1e-12)
    np.testing.assert_allclose(bias, b1 @ two + b2, atol=1e-11)
    assert error(model, small) < 1e-14
    assert small.count_params() == 12 * 5 + 5


@pytest.mark.both_flavours
@pytest.mark.parametrize("norm", [True, False])
def test_a_layer_without_a_bias_gets_one(K, norm):
    """Unless a normalisation behind it can take what the layers before it add."""
    L = K.layers
    x = inputs = K.Input((12,))
    x = L.Dense(40, activation="relu", name="one")(x)
    x = L.Identity()(x) if hasattr(L, "Identity") else x
    x = L.Dense(6, use_bias=False, trainable=False, name="two")(x)
    x = L.BatchNormalization(name="norm")(x) if norm else x
    model = zoo.settle(K.Model(inputs, L.Activation("tanh")(x)))
    edit(model, "one", bias=lift(ALL, 9.0))
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    small = tsp.lossless(model, box=BOX)
    assert names(small) == ["two", "norm"][: 1 + norm]
    assert small.get_layer("two").use_bias is not norm
    assert not small.get_layer("two").trainable
    assert error(model, small) < 1e-6


def test_two_narrow_layers_stay_two(K):
    """12 x 3 + 3 x 30 weights are fewer than 12 x 30."""
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((12,)),
                L.Dense(3, activation="relu", name="one"),
                L.Dense(30, activation="tanh", name="two"),
                L.Dense(2, name="head"),
            ]
        )
    )
    edit(model, "one", bias=lift(ALL))
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model, box=BOX)


def test_the_smaller_of_fold_and_rank(K):
    """A wide layer of rank two: not one matrix of 20 x 20, but two of rank two."""
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((20,)),
                L.Dense(9, activation="relu", name="one"),
                L.Dense(20, activation="tanh", name="two"),
                L.Dense(2, name="head"),
            ]
        )
    )
    edit(model, "one", bias=lift(ALL))

    def thin(kernel):
        rng = np.random.default_rng(0)
        kernel[:] = 0.1 * rng.normal(size=(20, 2)) @ rng.normal(size=(2, 9))

    edit(model, "one", kernel=thin)
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 2
    assert error(model, small) < 1e-5


def layer_of(K, kind):
    L, f = K.layers, {"dtype": "float64"}
    return {
        "relu": lambda: L.Activation("relu", **f),
        "leaky": lambda: L.LeakyReLU(**f),
        "function": lambda: L.Activation("leaky_relu", **f),
        "relu6": lambda: L.ReLU(max_value=6.0, **f),
        "threshold": lambda: L.ReLU(threshold=0.5, negative_slope=0.1, **f),
        "prelu": lambda: L.PReLU(**f),
        "hard_sigmoid": lambda: L.Activation("hard_sigmoid", **f),
        "elu": lambda: L.ELU(**f),
    }[kind]()


KINDS = [
    "relu",
    "leaky",
    "function",
    "relu6",
    "threshold",
    "prelu",
    "hard_sigmoid",
    "elu",
]


@pytest.mark.both_flavours
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_activations(K, kind, normed):
    """Between its knots each is affine; negative sides, gains and norms are counted."""
    L = K.layers
    f = {"dtype": "float64"}
    inputs = K.Input((4,), **f)
    x = L.Dense(24, name="one", **f)(inputs)
    if normed:
        x = L.BatchNormalization(name="norm", **f)(x)
    x = layer_of(K, kind)(x)
    model = zoo.settle(K.Model(inputs, L.Dense(7, name="two", **f)(x)))
    edit(model, "one", kernel=lambda w: np.multiply(w, 0.1, out=w))
    shift = np.zeros(24)
    shift[:10] = {"relu6": 3.0, "hard_sigmoid": 0.3}.get(kind, 9.0)
    shift[10:14] = -9.0  # the other side: affine too, or dead, or saturated

    def shifted(array):
        array[:] = np.where(shift, shift, 0.0)

    if normed:
        edit(model, "norm", beta=shifted, moving_mean=lambda a: np.copyto(a, 0.0))
        edit(model, "one", bias=lambda a: np.copyto(a, 0.0))
    else:
        edit(model, "one", bias=shifted)
    small = tsp.lossless(model, box=BOX)
    # Of the other ten units, all cross a knot, but for those of a wide piece.
    affine = {"leaky": 14, "function": 14, "threshold": 24, "hard_sigmoid": 20}.get(
        kind, 10
    )
    kept = 24 - affine
    if kind in ("relu", "relu6"):
        kept -= 4  # constants, that go
    if kind == "hard_sigmoid":
        kept -= 4
    if kind in ("prelu", "elu"):  # no rule bounds what they give
        kept = 14
    if kept == 0:
        assert names(small) == ["two"]
    else:
        assert width(small, "one") == kept + 4
    assert error(model, small) < 1e-13


def convolutions(K, padding, norm=True, between=None, last=None):
    L = K.layers
    x = inputs = K.Input((8, 8, 2))
    x = L.Conv2D(30, 3, padding=padding, use_bias=not norm, name="one")(x)
    if norm:
        x = L.BatchNormalization(name="norm")(x)
    x = L.ReLU()(x)
    x = between(x) if between else x
    x = last(x) if last else L.Conv2D(8, 3, padding=padding, name="two")(x)
    x = L.Activation("tanh")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x))))
    edit(
        model,
        "norm" if norm else "one",
        **{"beta" if norm else "bias": lift(range(25), 30)},
    )
    if not last:
        edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    return model


@pytest.mark.both_flavours
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_convolutions_along_channels(K, padding, norm):
    """25 active channels over 3 x 3 x 2 inputs have rank 18; padding takes one more."""
    model = convolutions(K, padding, norm)
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 5 + 18 + (padding == "same")
    assert error(model, small) < 1e-5


BETWEEN = {
    "flatten": (lambda L: L.Flatten(), lambda L: L.Dense(4, name="two"), 0),
    "pool": (
        lambda L: L.AveragePooling2D(2),
        lambda L: L.Conv2D(5, 2, name="two"),
        0,
    ),
    "padded pool": (
        lambda L: L.AveragePooling2D(2, 1, "same"),
        lambda L: L.Conv2D(5, 2, name="two"),
        1,
    ),
    "zeros": (
        lambda L: L.ZeroPadding2D(1),
        lambda L: L.Conv2D(4, 3, name="two"),
        1,
    ),
    "up": (lambda L: L.UpSampling2D(2), lambda L: L.Conv2D(4, 3, name="two"), 0),
    "transposed": (
        lambda L: L.Dropout(0.5),
        lambda L: L.Conv2DTranspose(4, 3, name="two"),
        1,
    ),
    "no bias": (
        lambda L: L.Dropout(0.5),
        lambda L: L.Conv2D(4, 3, use_bias=False, name="two"),
        1,
    ),
    "one by one": (
        lambda L: L.Dropout(0.5),
        lambda L: L.Conv2D(20, 1, padding="same", name="two"),
        0,
    ),
    "einsum": (
        lambda L: L.Dropout(0.5),
        lambda L: L.EinsumDense("abcd,de->abce", (6, 6, 20), bias_axes="e", name="two"),
        1,
    ),
}


@pytest.mark.parametrize("way", list(BETWEEN))
def test_what_lies_between(K, way):
    """All that is linear and treats channels alike; a constant takes one more unit."""
    between, last, more = BETWEEN[way]
    model = convolutions(K, "valid", False, between(K.layers), last(K.layers))
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 5 + 18 + more
    assert error(model, small) < 1e-5


KEPT = {
    "a maximum": lambda L: L.MaxPooling2D(2),
    "filters": lambda L: L.DepthwiseConv2D(3),
    "softmax": lambda L: L.Softmax(axis=1),
}


@pytest.mark.parametrize("way", list(KEPT))
def test_what_is_not_linear_keeps_them(K, way):
    model = convolutions(K, "valid", False, KEPT[way](K.layers))
    with pytest.warns(NothingPrunedWarning, match="Affine units of one are kept"):
        tsp.lossless(model, box=BOX)


def test_the_consumers_together(K):
    """What several layers consume has the rank of all their weights side by side."""
    L = K.layers
    inputs = K.Input((30,))
    x = L.Dense(40, activation="relu", name="one")(inputs)
    heads = [L.Dense(m, name=f"head_{m}")(x) for m in (2, 3, 5)]
    model = zoo.settle(K.Model(inputs, heads))
    edit(model, "one", bias=lift(range(36), 30))
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 4 + 10
    assert error(model, small) < 1e-5
    # The second head sees what the first does: their weights have rank three.
    mixed = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    kernels = [model.get_layer(f"head_{m}").get_weights()[0] for m in (2, 3)]
    edit(model, "head_3", kernel=lambda w: np.copyto(w, kernels[0] @ mixed))
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 4 + 7
    assert error(model, small) < 1e-5


@pytest.mark.parametrize("where", ["output", "input"])
def test_small_numbers_count_where_they_matter(K, where):
    """An output of tiny weights has a scale of its own, as an input of wide range."""
    L = K.layers
    inputs = K.Input((12,))
    x = L.Dense(40, activation="relu", name="one")(inputs)
    small, large = L.Dense(2, name="small")(x), L.Dense(2, name="large")(x)
    small = L.Rescaling(1e9)(small) if where == "output" else small
    model = zoo.settle(K.Model(inputs, [small, large]))
    high = np.ones(12)
    if where == "output":
        edit(model, "one", bias=lift(range(30), 20))
        edit(model, "small", kernel=lambda w: np.multiply(w, 1e-9, out=w))
        edit(model, "small", bias=zero)
    else:  # only two of the inputs matter to one output, one of them by its range
        high[0] = 1e9

        def kernels(kernel):
            kernel[2:] = 0
            kernel[0] *= 1e-9

        edit(model, "one", kernel=kernels, bias=zero)
        edit(model, "one", bias=lift(range(30), 20))
    found = tsp.lossless(model, box=(-high, high))
    assert width(found, "one") == 10 + (4 if where == "output" else 2)
    x = (np.random.default_rng(0).uniform(-1, 1, (64, 12)) * high).astype("float32")
    for old, new in zip(model(x), found(x), strict=True):
        old, new = np.asarray(old), np.asarray(new)
        np.testing.assert_allclose(new, old, atol=1e-5 * np.abs(old).max())


def test_layer_upon_layer(K):
    """Neighbours share a kernel, so they are replaced one after the other."""
    L = K.layers
    sizes = (20, 24)
    layers = [L.Dense(n, activation="relu", name=f"d{n}") for n in sizes]
    model = K.Sequential([K.Input((6,)), *layers, L.Dense(2, name="head")])
    zoo.settle(model)
    hidden = np.zeros(6)
    for size in sizes:  # the first twelve stay about 5, the others about 0
        kernel = 0.1 * model.get_layer(f"d{size}").get_weights()[0]
        bias = 5.0 * (np.arange(size) < 12)
        model.get_layer(f"d{size}").set_weights([kernel, bias - hidden @ kernel])
        hidden = bias
    small = tsp.lossless(model, box=BOX)
    assert [width(small, f"d{n}") for n in sizes] == [8 + 6, 12 + 2]
    assert error(model, small) < 1e-5


def test_coupled_units_are_kept_and_said_why(K):
    L = K.layers
    inputs = K.Input((6,))
    x = L.Dense(20, name="one")(inputs)
    y = L.Dense(20, name="other")(inputs)
    x = L.ReLU()(L.Add()([x, y]))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    edit(model, "one", bias=lift(ALL))
    with pytest.warns(NothingPrunedWarning, match="several layers produce them"):
        tsp.lossless(model, box=BOX)


def test_a_shared_layer_and_a_constraint_keep_them(K):
    L = K.layers
    one, two = K.Input((4,)), K.Input((4,))
    shared = L.Dense(20, activation="relu", name="shared")
    y = L.Dense(2, name="head")(L.Concatenate()([shared(one), shared(two)]))
    model = zoo.settle(K.Model([one, two], y))
    edit(model, "shared", bias=lift(ALL))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model, box=BOX)
    model = K.Sequential([K.Input((4,)), L.Dense(20, "relu", name="one")])
    model.add(L.Dense(2, kernel_constraint="non_neg", name="two"))
    edit(model, "one", bias=lift(ALL))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model, box=BOX)


def test_an_output_needs_them_as_they_are(K):
    L = K.layers
    inputs = K.Input((4,))
    seen = L.Dense(20, activation="relu", name="one")(inputs)
    model = zoo.settle(K.Model(inputs, [seen, L.Dense(2)(seen)]))
    edit(model, "one", bias=lift(ALL))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model, box=BOX)


def chain(K, *layers, shape=(9, 9, 3)):
    x = inputs = K.Input(shape)
    for layer in layers:
        x = layer(x)
    x = K.layers.Activation("tanh", name="end")(x)
    return zoo.settle(K.Model(inputs, x))


@pytest.mark.both_flavours
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((1, 1, "valid"), (3, 1, "valid"), (3, 1, "valid")),
        ((1, 1, "valid"), (3, 2, "valid"), (3, 2, "valid")),
        ((3, 2, "valid"), (1, 2, "valid"), (3, 4, "valid")),
        ((3, 2, "same"), (1, 1, "same"), (3, 2, "same")),
        ((2, 2, "valid"), (2, 1, "valid"), (4, 2, "valid")),
    ],
)
def test_two_convolutions_are_one(K, first, second, expected):
    """Where it costs no more, by sizes, strides and padding of both."""
    L = K.layers
    conv = [
        L.Conv2D(60, *first, activation="relu", name="one"),
        L.Conv2D(4, *second, name="two"),
    ]
    model = chain(K, *conv)
    edit(model, "one", bias=lift(ALL, 20.0))
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.002, out=w))
    small = tsp.lossless(model, box=BOX)
    assert names(small) == ["two"]
    layer = small.get_layer("two")
    assert (layer.kernel_size[0], layer.strides[1], layer.padding) == expected
    assert error(model, small) < 1e-5
    assert tsp.cost(small).macs < tsp.cost(model).macs


def test_nothing_is_added_so_padding_does_not_matter(K):
    """1x1 without any constant, then 3 x 3 with padding: one convolution, padded."""
    L = K.layers
    model = chain(
        K,
        L.Conv2D(60, 1, use_bias=False, name="one"),
        L.Conv2D(4, 3, 2, padding="same", name="two"),
    )
    small = tsp.lossless(model, box=BOX)
    assert names(small) == ["two"]
    assert small.get_layer("two").padding == "same"
    assert error(model, small) < 1e-5


def test_a_layer_with_two_uses_is_no_other(K):
    """What is added to its weights for one use would be wrong for the other."""
    L = K.layers
    inputs = [K.Input((6,)), K.Input((6,))]
    shared = L.Dense(3, activation="tanh", name="shared")
    hidden = [
        L.Dense(40, activation="relu", name=n)(x)
        for n, x in zip("ab", inputs, strict=True)
    ]
    model = zoo.settle(K.Model(inputs, [shared(x) for x in hidden]))
    for name in "ab":
        edit(model, name, bias=lift(ALL, 20.0))
    edit(model, "shared", kernel=lambda w: np.multiply(w, 0.01, out=w))
    with pytest.warns(NothingPrunedWarning, match="several layers"):
        tsp.lossless(model, box=BOX)


def test_where_one_convolution_costs_more_two_stay(K):
    """3 x 3 after 3 x 3 would be 5 x 5."""
    L = K.layers
    model = chain(
        K,
        L.Conv2D(20, 3, activation="relu", name="one"),
        L.Conv2D(20, 3, name="two"),
        shape=(30, 30, 20),
    )
    edit(model, "one", bias=lift(ALL, 50.0))
    with pytest.warns(NothingPrunedWarning):
        tsp.lossless(model, box=BOX)


@pytest.mark.both_flavours
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_an_inverted_residual_is_one_convolution(K, padding):
    """Expand, filter, project: 24 x 48 + 9 x 48 + 48 x 24 as 9 x 24 x 24, for few."""
    L = K.layers
    model = chain(
        K,
        L.Conv2D(96, 1, use_bias=False, name="expand"),
        L.BatchNormalization(name="n1"),
        L.ReLU(max_value=60.0),
        L.DepthwiseConv2D(3, padding=padding, use_bias=False, name="filter"),
        L.BatchNormalization(name="n2"),
        L.ReLU(),
        L.Conv2D(4, 1, use_bias=False, name="project"),
        L.BatchNormalization(name="n3"),
        shape=(9, 9, 8),
    )
    edit(model, "n1", beta=lift(ALL, 30.0))
    edit(model, "n2", beta=lift(ALL, 400.0))
    edit(model, "project", kernel=lambda w: np.multiply(w, 0.001, out=w))
    if padding == "same":  # the shift of the first norm meets the border
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingPrunedWarning)
            small = tsp.lossless(model, box=BOX)
        assert "expand" in names(small)
    else:
        small = tsp.lossless(model, box=BOX)
        assert names(small) == ["project", "n3"]
        assert small.get_layer("project").kernel_size == (3, 3)
    assert error(model, small) < 1e-5


def test_within_and_across_models(K):
    """In a model within the model two layers become one; across its end they stay."""
    L = K.layers
    inner = K.Sequential(
        [
            K.Input((12,)),
            L.Dense(30, activation="relu", name="a"),
            L.Dense(6, activation="relu", name="b"),
        ],
        name="inner",
    )
    inputs = K.Input((12,))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(inner(inputs))))
    edit(inner, "a", bias=lift(ALL, 20.0))
    edit(inner, "b", bias=lift(ALL, 500.0), kernel=lambda w: np.multiply(w, 0.1, out=w))
    small = tsp.lossless(model, box=BOX)
    assert names(small.get_layer("inner")) == ["b"]
    assert width(small.get_layer("inner"), "b") == 2
    assert error(model, small) < 1e-5


def test_a_subclassed_model(K):
    model = zoo.subclassed(K)
    edit(model, "norm", beta=lift(ALL, 50.0))
    edit(model, "two", kernel=lambda w: np.multiply(w, 0.01, out=w))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingPrunedWarning)
        small = tsp.lossless(model, box=(0.0, 1.0))
    x = np.random.default_rng(0).random((16, *zoo.SHAPE)).astype("float32")
    assert error(model, small, x) < 1e-5
    assert width(small, "one") == 10


@pytest.mark.both_flavours
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_a_norm_behind_the_activation(K, padding):
    """It is part of the map; new units pass through it as they are."""
    norm = K.layers.BatchNormalization(name="behind")
    model = convolutions(K, padding, True, norm)
    small = tsp.lossless(model, box=BOX)
    assert width(small, "one") == 5 + 18 + (padding == "same")
    assert error(model, small) < 1e-5


@pytest.mark.parametrize(("behind", "most"), [(False, 0.25), (True, 0.5)])
def test_statistics_of_new_units_are_guessed(K, behind, most):
    """Measured anew they change the outputs, but not half as much as with no guess."""
    model = dense(K, activation="relu", norm=True, behind=behind)
    x = in_box(model, count=2000)
    edit(model, "norm", beta=lambda b: b.__iadd__(5.0))
    model = tsp.recalibrate_batchnorm(model, x)
    small = tsp.lossless(model, box=BOX)
    again = tsp.recalibrate_batchnorm(small, x)
    assert width(small, "one") < 60
    assert error(small, again, x) < most  # means of 0, variances of 1: 0.6 and 1.4


# From data ---------------------------------------------------------------------


def nearly(K, active=40, scale=0.3):
    """Make a net whose first units are active at most of the points of the box."""
    model = dense(K, active)

    def change(bias):
        bias[:active] *= scale

    edit(model, "one", bias=change)
    return model


@pytest.mark.both_flavours
def test_exact_on_the_data(K):
    """`tolerance=0`: what is active at all of the data, and no promise beyond them."""
    model = nearly(K, scale=0.9)
    x = np.random.default_rng(0).uniform(-1, 1, (300, 12)).astype("float32")
    with pytest.warns(NothingPrunedWarning):  # some of the corners are beyond
        tsp.lossless(dense(K, 0), x, box=BOX)
    small = tsp.lossless(model, x, tolerance=0.0)
    assert width(small, "one") == 25
    assert error(model, small, x) < 1e-6
    assert error(model, small, 10 * x) > 1e-2  # far away they differ


def test_convolutions_on_data(K):
    model = convolutions(K, "same")
    edit(model, "norm", beta=lambda b: np.multiply(b, 0.4, out=b))
    x = np.random.default_rng(0).uniform(0, 1, (50, 8, 8, 2)).astype("float32")
    small = tsp.lossless(model, x, tolerance=0.0)
    assert width(small, "one") == 5 + 18 + 1
    assert error(model, small, x) < 1e-5


@pytest.mark.both_flavours
def test_nearly_active_units_are_solved(K):
    """The consumer is the least-squares solution, and the error that is said is so."""
    model = nearly(K)
    x = np.random.default_rng(0).uniform(-1, 1, (2000, 12)).astype("float32")
    one, bias = model.get_layer("one").get_weights()
    active = (x @ one + bias >= 0).mean(axis=0)
    tolerance = 1.0 - float(np.sort(active)[-20]) + 1e-6
    count = int((active >= 1 - tolerance).sum())
    assert 20 <= count < 40
    with pytest.warns(InexactWarning, match="of their spread") as said:
        small = tsp.lossless(model, x, tolerance=tolerance)
    assert width(small, "one") == 60 - count + 5
    wanted, found = outputs(model, x), outputs(small, x)
    off = np.sqrt(((wanted - found) ** 2).mean()) / wanted.std(axis=0).mean()
    largest = np.abs(wanted - found).max() / np.abs(wanted).max()
    assert f"{off:.2g} of their spread" in str(said[0].message)
    assert f"{largest:.2g} of the largest" in str(said[0].message)
    hidden = np.maximum(x @ small.get_layer("one").get_weights()[0], -np.inf)
    hidden = np.maximum(hidden + small.get_layer("one").get_weights()[1], 0)
    rows = np.concatenate([hidden, np.ones((len(x), 1))], axis=1).astype("float64")
    best = rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    least = ((wanted - best) ** 2).sum()
    assert ((wanted - found) ** 2).sum() < 1.01 * least
    assert off < 0.2


def test_the_tolerance_is_a_bound(K):
    """A unit that is inactive a little more often stays."""
    model = nearly(K)
    x = np.random.default_rng(0).uniform(-1, 1, (1000, 12)).astype("float32")
    one, bias = model.get_layer("one").get_weights()
    active = np.sort((x @ one + bias >= 0).mean(axis=0))[::-1]
    for rank in (10, 20):
        tolerance = 1.0 - active[rank - 1] + 1e-6
        with pytest.warns(InexactWarning):
            small = tsp.lossless(model, x, tolerance=float(tolerance))
        count = int((active >= 1 - tolerance).sum())
        assert width(small, "one") == 60 - count + 5


def test_few_data_are_said(K):
    """The consumer has more unknowns than there are data."""
    model = nearly(K)
    x = np.random.default_rng(0).uniform(-1, 1, (12, 12)).astype("float32")
    with pytest.warns(CalibrationWarning, match="12 inputs are fewer"):
        with pytest.warns(InexactWarning):
            small = tsp.lossless(model, x, tolerance=0.2)
    assert width(small, "one") < 60
    assert np.isfinite(outputs(small, x)).all()


def test_a_box_and_data(K):
    """What is certified stays exact beside what is only seen."""
    model = dense(K, 20)
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (200, 12)).astype("float32")
    small = tsp.lossless(model, x, box=BOX, tolerance=0.0)
    assert width(small, "one") < width(tsp.lossless(model, box=BOX), "one")
    assert error(model, small, x) < 1e-6


def test_bad_input(K):
    model = dense(K)
    x = in_box(model)
    with pytest.raises(ValueError, match="so it needs some"):
        tsp.lossless(model, tolerance=0.1)
    for tolerance in (-0.1, 1.0, np.nan, "much", True):
        with pytest.raises(ValueError, match="`tolerance` must be"):
            tsp.lossless(model, x, tolerance=tolerance)
    with pytest.raises(CalibrationError, match="NaN"):
        tsp.lossless(model, np.full_like(x, np.nan), tolerance=0.1)
    with pytest.raises(CalibrationError):
        tsp.lossless(model, x[:0], tolerance=0.1)


def random_net(seed):
    """Draw a small net of Keras 3, and how far its units are shifted."""
    import keras

    L = keras.layers
    rng = np.random.default_rng(seed)
    x = inputs = keras.Input((6, 6, 2))
    shifts = []
    for place in range(int(rng.integers(1, 4))):
        norm = bool(rng.integers(2))
        size = int(rng.integers(1, 4)) if x.shape[1] >= 3 else 1
        padding = str(rng.choice(["valid", "same"]))
        filters = int(rng.integers(2, 9))
        name = f"conv_{place}"
        x = L.Conv2D(filters, size, padding=padding, use_bias=not norm, name=name)(x)
        if norm:
            x = L.BatchNormalization(name=f"norm_{place}")(x)
        x = (L.ReLU(), L.LeakyReLU(), L.ReLU(6.0), L.Activation("tanh"))[
            rng.choice(4, p=[0.5, 0.2, 0.2, 0.1])
        ](x)
        shifts.append((f"norm_{place}" if norm else name, filters))
        if rng.integers(4) == 0:
            x = L.BatchNormalization(scale=bool(rng.integers(2)))(x)
        if rng.integers(3) == 0 and x.shape[1] >= 2:
            x = L.AveragePooling2D(2, 1, str(rng.choice(["valid", "same"])))(x)
    x = L.Flatten()(x)
    x = L.Dense(int(rng.integers(2, 12)), activation="relu", name="dense")(x)
    shifts.append(("dense", x.shape[-1]))
    model = zoo.settle(keras.Model(inputs, L.Dense(3, name="head")(x)), seed)
    for name, units in shifts:
        by = rng.choice([0.0, 2.0, 20.0, -20.0], units, p=[0.2, 0.3, 0.4, 0.1])
        key = "beta" if name.startswith("norm") else "bias"
        edit(model, name, **{key: lambda b, by=by: b.__iadd__(by)})
    return model


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**20))
def test_random_nets_compute_the_same(seed):
    model = random_net(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingPrunedWarning)
        small = tsp.lossless(model, box=BOX)
    assert error(model, small, in_box(model, count=128)) < 1e-5
    assert small.count_params() <= model.count_params()
