"""Removal equals masking by hand, layer kind by layer kind.

Each case knows by itself where the units of a layer lie. The smaller model must
compute what the network computes in which zeros are multiplied to them, and a plan
over the same network must cost what it says.
"""

import keras
import numpy as np
import pytest
from masked_twin import Case, check, check_plan, collector, names, scale_layer

import tf_spline_prune as tsp

CASES = []
case = collector(CASES)
GONE = {"a": [1, 4]}


@case((5, 3), GONE, {"a.units": 4, "b": (4, 4), "head": (20, 2)})
def dense_on_three_axes(K, L, x, keep):
    h = L.Dense(6, activation="relu", name="a")(x)
    h = L.Dense(4, activation="tanh", name="b")(keep(h, "a"))
    return L.Flatten()(h)


@case((5, 3), {"a": [1, 4], "b": [0]}, {"a": (3, 4), "b": (4, 4), "head": (4, 2)})
def einsum_with_ellipsis(K, L, x, keep):
    h = L.EinsumDense("...x,xy->...y", 6, bias_axes="y", name="a")(x)
    h = L.EinsumDense("...x,xy->...y", 5, activation="relu", name="b")(keep(h, "a"))
    return keep(L.GlobalMaxPooling1D()(h), "b")


@case(
    (5, 3),
    {"a/d": [2], "a/e": [0, 3], "b": [1]},
    {"a": (3, 3, 4), "b": (3, 4, 3), "head": (3, 2)},
)
def einsum_that_makes_two_axes(K, L, x, keep):
    h = L.EinsumDense(
        "abc,cde->abde", (None, 4, 6), bias_axes="de", activation="relu", name="a"
    )(x)
    h = keep(keep(h, "a/d", axis=2), "a/e")
    h = L.EinsumDense("abde,def->abf", (None, 4), bias_axes="f", name="b")(h)
    return keep(L.GlobalAveragePooling1D()(h), "b")


@case((5, 3), {"a": [1, 4], "b": [3]}, {"a": (3, 4), "b": (5, 4, 3), "head": (15, 2)})
def einsum_with_one_kernel_a_step(K, L, x, keep):
    h = L.EinsumDense("btx,xy->byt", (6, 5), bias_axes="yt", name="a")(x)
    h = L.EinsumDense("byt,tyz->btz", (5, 4), bias_axes="tz", name="b")(
        keep(h, "a", axis=1)
    )
    return L.Flatten()(keep(h, "b"))


def convolutions(L, rank, transposed=False):
    suffix = "Transpose" if transposed else ""
    return getattr(L, f"Conv{rank}D{suffix}"), getattr(L, f"GlobalMaxPooling{rank}D")


def add_convolutions(rank, transposed):
    """Collect a case of two convolutions, the second with a stride."""
    shape = ((7, 6, 5)[:rank]) + (3,)
    kernel = (3,) * rank
    last = (*kernel, 4, 5) if not transposed else (*kernel, 5, 4)

    def build(K, L, x, keep):
        conv, pool = convolutions(L, rank, transposed)
        h = conv(6, 2, activation="relu", name="a")(x)
        h = conv(7, 3, strides=2, padding="same", name="b")(keep(h, "a"))
        return keep(pool()(h), "b")

    build.__name__ = f"conv{rank}d{'_transpose' * transposed}"
    sizes = {"a.filters": 4, "b.filters": 5, "b": last, "head": (5, 2)}
    case(shape, {"a": [1, 4], "b": [0, 6]}, sizes)(build)


for rank in (1, 2, 3):
    add_convolutions(rank, transposed=False)
    add_convolutions(rank, transposed=True)


@case((8, 3), GONE, {"d": (3, 4, 2), "head": (8, 2)})
def depthwise_1d(K, L, x, keep):
    h = L.Conv1D(6, 2, name="a")(x)
    h = L.DepthwiseConv1D(3, depth_multiplier=2, activation="relu", name="d")(h)
    return keep(L.GlobalMaxPooling1D()(h), "a", repeat=2)


@case((6, 7, 3), GONE, {"d": (3, 3, 4, 2), "b": (1, 1, 8, 4), "head": (4, 2)})
def depthwise_2d(K, L, x, keep):
    h = L.Conv2D(6, 2, activation="relu", name="a")(x)
    h = L.DepthwiseConv2D(3, depth_multiplier=2, name="d")(h)
    h = L.Conv2D(4, 1, name="b")(keep(h, "a", repeat=2))
    return L.GlobalMaxPooling2D()(h)


@case((8, 3), {"a": [1], "s": [0, 3]}, {"s": (3, 5, 2), "head": (3, 2)})
def separable_1d(K, L, x, keep):
    h = keep(L.Conv1D(6, 2, name="a")(x), "a")
    h = L.SeparableConv1D(5, 3, depth_multiplier=2, name="s")(h)
    return keep(L.GlobalMaxPooling1D()(h), "s")


@case((6, 7, 3), {"a": [1], "s": [0, 3]}, {"s": (3, 3, 5, 2), "head": (3, 2)})
def separable_2d(K, L, x, keep):
    h = keep(L.Conv2D(6, 2, name="a")(x), "a")
    h = L.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu", name="s")(h)
    return keep(L.GlobalMaxPooling2D()(h), "s")


@case(
    (6, 7, 3),
    {"a": [1, 5], "g": [0, 3]},
    {"a.filters": 6, "g": (3, 3, 3, 4), "g.groups": 2, "head": (4, 2)},
    ask={"a": [1], "g": [3]},
)
def grouped_convolution_takes_a_unit_of_each_group(K, L, x, keep):
    h = keep(L.Conv2D(8, 1, activation="relu", name="a")(x), "a")
    h = L.Conv2D(6, 3, groups=2, activation="relu", name="g")(h)
    return keep(L.GlobalMaxPooling2D()(h), "g")


@case((6, 7, 3), GONE, {"g": (3, 3, 1, 8), "g.groups": 4, "g.filters": 8})
def convolution_of_one_channel_a_group(K, L, x, keep):
    h = L.Conv2D(6, 1, activation="relu", name="a")(x)
    h = L.Conv2D(12, 3, groups=6, name="g")(h)
    return keep(L.GlobalMaxPooling2D()(h), "a", repeat=2)


@case((6, 7, 3), GONE, {"n": (4,), "head": (4, 2)})
def batch_normalization(K, L, x, keep):
    h = L.Conv2D(6, 2, use_bias=False, name="a")(x)
    h = L.ReLU()(L.BatchNormalization(name="n")(h))
    return keep(L.GlobalAveragePooling2D()(h), "a")


def instance_norm(groups, left):
    @case((6, 7, 3), GONE, {"n.groups": left, "n": (4,), "head": (4, 2)})
    def build(K, L, x, keep):
        h = L.Conv2D(6, 2, name="a")(x)
        h = L.ReLU()(L.GroupNormalization(groups, name="n")(h))
        return keep(L.GlobalAveragePooling2D()(h), "a")

    build.__name__ = f"instance_norm_of_{groups}_groups"


instance_norm(6, 4)
instance_norm(-1, 4)


@case((5, 3), GONE, {"a.units": 4, "head": (4, 2)})
def adapted_normalization(K, L, x, keep):
    h = L.Dense(6, name="a")(x)
    norm = L.Normalization(name="n")
    norm.adapt(np.random.default_rng(3).normal(2.0, 3.0, (50, 5, 6)).astype("float32"))
    return keep(L.GlobalMaxPooling1D()(norm(h)), "a")


@case((5, 3), GONE, {"a.units": 4, "head": (4, 2)})
def normalization_with_lists(K, L, x, keep):
    h = L.Dense(6, name="a")(x)
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    h = L.Normalization(mean=values, variance=values[::-1], name="n")(h)
    return keep(L.GlobalMaxPooling1D()(h), "a")


@case((5, 3), GONE, {"a.units": 4, "head": (4, 2)})
def rescaling_with_lists(K, L, x, keep):
    h = L.Dense(6, name="a")(x)
    scale, offset = [1.0, 2, 3, 4, 5, 6], [6.0, 5, 4, 3, 2, 1]
    h = L.ReLU()(L.Rescaling(scale, offset)(h))
    return keep(L.GlobalMaxPooling1D()(h), "a")


@case((6, 5, 3), GONE, {"p": (5, 4, 4), "head": (80, 2)})
def prelu_of_every_entry(K, L, x, keep):
    h = L.PReLU(name="p")(L.Conv2D(6, 2, name="a")(x))
    return L.Flatten()(keep(h, "a"))


@case((6, 5, 3), GONE, {"p": (1, 1, 4), "head": (80, 2)})
def prelu_shared_over_space(K, L, x, keep):
    h = L.PReLU(shared_axes=[1, 2], name="p")(L.Conv2D(6, 2, name="a")(x))
    return L.Flatten()(keep(h, "a"))


@case((6, 3), GONE, {"a.units": 4, "head": (4, 2)})
def one_entry_alone(K, L, x, keep):
    h = L.Dense(6, name="a")(x)
    layers = [L.Dropout(0.3), L.AlphaDropout(0.3), L.GaussianDropout(0.3)]
    layers += [L.GaussianNoise(0.3), L.SpatialDropout1D(0.3), L.ELU(), L.LeakyReLU()]
    layers += [L.ActivityRegularization(0.1), L.Activation("swish"), L.Identity()]
    for layer in [*layers, L.ReLU(max_value=6.0, negative_slope=0.1, threshold=0.2)]:
        h = layer(h)
    return keep(L.GlobalMaxPooling1D()(h), "a")


def add_spatial(rank):
    """Collect a case of pooling, padding, cropping and repeating."""
    shape = (9, 8, 7)[:rank] + (3,)

    def build(K, L, x, keep):
        def of(kind, *args, **settings):
            return getattr(L, f"{kind}{rank}D")(*args, **settings)

        h = of("Conv", 6, 2, name="a")(x)
        h = of("ZeroPadding", 1)(h)
        h = of("AveragePooling", 2)(h)
        h = of("UpSampling", 2)(h)
        h = of("Cropping", 1)(h)
        h = of("MaxPooling", 3, strides=1)(h)
        h = of("Conv", 4, 2, name="b")(keep(h, "a"))
        h = of("GlobalAveragePooling", keepdims=True)(h)
        return L.Flatten()(keep(h, "b"))

    build.__name__ = f"spatial_layers_{rank}d"
    case(shape, {"a": [1, 4], "b": [2]}, {"head": (3, 2)})(build)


def add_adaptive(rank):
    """Collect a case of poolings to a size that is asked for."""

    def build(K, L, x, keep):
        h = getattr(L, f"Conv{rank}D")(6, 2, name="a")(x)
        h = getattr(L, f"AdaptiveAveragePooling{rank}D")(4)(h)
        h = getattr(L, f"AdaptiveMaxPooling{rank}D")(2)(h)
        return L.Flatten()(keep(h, "a"))

    build.__name__ = f"adaptive_poolings_{rank}d"
    shape = (9, 8, 7)[:rank] + (3,)
    case(shape, GONE, {"head": (4 * 2**rank, 2)}, only="keras")(build)


for rank in (1, 2, 3):
    add_spatial(rank)
    add_adaptive(rank)


@case((8, 9, 3), GONE, {"head": (48, 2)})
def resizing_and_center_crop(K, L, x, keep):
    h = L.Conv2D(6, 2, name="a")(x)
    h = L.CenterCrop(3, 4)(L.Resizing(6, 5)(h))
    return L.Flatten()(keep(h, "a"))


@case((6, 7, 3), GONE, {"head": (120, 2)})
def flatten(K, L, x, keep):
    h = L.Conv2D(6, 2, activation="relu", name="a")(x)
    return L.Flatten()(keep(h, "a"))


@case((5,), {"a": [1, 5, 9]}, {"a.units": 9, "head": (3, 2)}, ask={"a": [1]})
def reshape_that_splits(K, L, x, keep):
    h = keep(L.Dense(12, activation="relu", name="a")(x), "a")
    return L.GlobalMaxPooling1D()(L.Reshape((3, 4))(h))


@case((5, 3), GONE, {"a.units": 4, "head": (20, 2)})
def reshape_that_joins(K, L, x, keep):
    h = L.Dense(6, activation="relu", name="a")(x)
    return keep(L.Reshape((-1,))(h), "a", tile=5)


@case((4, 5, 3), GONE, {"b": (3, 4, 7), "head": (7, 2)})
def reshape_of_positions(K, L, x, keep):
    h = L.Reshape((20, 6))(L.Conv2D(6, 1, activation="relu", name="a")(x))
    return L.GlobalMaxPooling1D()(L.Conv1D(7, 3, name="b")(keep(h, "a")))


@case((5,), {"a": list(range(2, 24, 6))}, {"a": (5, 20)}, ask={"a": [8]})
def reshape_into_an_image(K, L, x, keep):
    h = keep(L.Dense(24, activation="relu", name="a")(x), "a")
    h = L.Conv2DTranspose(4, 3, name="b")(L.Reshape((2, 2, 6))(h))
    return L.GlobalMaxPooling2D()(h)


@case((5, 3), GONE, {"a.units": 4, "b": (5, 3), "c": (4, 7)})
def permute(K, L, x, keep):
    h = L.Permute((2, 1))(L.Dense(6, activation="relu", name="a")(x))
    h = L.Permute((2, 1))(L.Dense(3, activation="relu", name="b")(h))
    return L.Flatten()(L.Dense(7, name="c")(keep(h, "a")))


@case((5,), GONE, {"a.units": 4, "b": (3, 4, 7)})
def repeat_vector(K, L, x, keep):
    h = L.RepeatVector(4)(L.Dense(6, activation="relu", name="a")(x))
    return L.Flatten()(L.Conv1D(7, 3, name="b")(keep(h, "a")))


@case((5, 3), {"a": [1], "b": [0, 3]}, {"c": (9, 5), "head": (5, 2)})
def concatenate_on_units(K, L, x, keep):
    one, two = L.Dense(4, name="a")(x), L.Dense(5, name="b")(x)
    h = L.ReLU()(L.Concatenate()([two, one, one]))
    h = keep(h, [("b", 5), ("a", 4), ("a", 4)])
    return L.GlobalMaxPooling1D()(L.Dense(5, name="c")(h))


@case(
    [(5, 3), (4, 2)],
    {"a": [1, 4], "b": [1, 4]},
    {"a": (3, 4), "b": (2, 4), "head": (4, 2)},
    ask={"a": [4], "b": [1]},
)
def concatenate_on_time(K, L, x, keep):
    one, two = L.Dense(6, name="a")(x[0]), L.Dense(6, name="b")(x[1])
    h = L.Concatenate(axis=1)([one, two])
    return keep(L.GlobalMaxPooling1D()(h), "a")


def add_merge(name):
    """Collect a case of two tensors of the same units, and of one broadcast."""

    def build(K, L, x, keep):
        one, two = L.Dense(6, name="a")(x), L.Dense(6, name="b")(x)
        merged = getattr(L, name)()([one, two])
        return keep(L.GlobalMaxPooling1D()(merged), "a")

    build.__name__ = name.lower()
    gone = {"a": [1, 4], "b": [1, 4]}
    sizes = {"a.units": 4, "b.units": 4, "head": (4, 2)}
    case((5, 3), gone, sizes, ask={"b": [4, 1]})(build)


for merge in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
    add_merge(merge)


@case(
    [(8,), (7,)],
    {"a": [1, 4], "b": [1, 4]},
    {"a": (8, 4), "b": (7, 4), "head": (1, 2)},
    ask={"a": [1], "b": [4]},
)
def dot_of_vectors(K, L, x, keep):
    one, two = L.Dense(6, name="a")(x[0]), L.Dense(6, name="b")(x[1])
    return L.Dot(axes=1)([keep(one, "a"), two])


@case(
    [(5, 3), (4, 3)],
    {"a": [1, 4], "b": [1, 4]},
    {"a": (3, 4), "b": (3, 4), "head": (20, 2)},
    ask={"a": [1, 4]},
)
def dot_over_units(K, L, x, keep):
    one, two = L.Dense(6, name="a")(x[0]), L.Dense(6, name="b")(x[1])
    return L.Flatten()(L.Dot(axes=(2, 2))([one, keep(two, "b")]))


@case([(5, 3), (5, 2)], {"a": [1, 4], "b": [0]}, {"c": (6, 3), "d": (4, 5)})
def dot_over_time(K, L, x, keep):
    one, two = L.Dense(6, name="a")(x[0]), L.Dense(7, name="b")(x[1])
    h = keep(L.Dot(axes=(1, 1))([one, two]), "b")
    h = keep(L.Dense(3, name="c")(h), "a", axis=1)
    return L.Flatten()(L.Dense(5, name="d")(L.Permute((2, 1))(h)))


@case(
    (6, 7, 3),
    {"a": [1, 4], "s": [0], "e": [1, 4]},
    {"a.filters": 4, "s": (4, 2), "e": (2, 4), "head": (4, 2)},
    ask={"a": [1], "s": [0], "e": [4]},
)
def squeeze_and_excite(K, L, x, keep):
    h = L.Conv2D(6, 2, activation="relu", name="a")(x)
    s = keep(L.GlobalAveragePooling2D()(h), "a")
    s = keep(L.Dense(3, activation="relu", name="s")(s), "s")
    s = L.Dense(6, activation="sigmoid", name="e")(s)
    h = L.Multiply()([h, L.Reshape((1, 1, 6))(s)])
    return keep(L.GlobalMaxPooling2D()(h), "a")


@case((3, 9, 8), {"a": [1, 4], "b": [0]}, {"p": (4, 1, 1), "head": (4 * 42, 2)})
def channels_first(K, L, x, keep):
    form = {"data_format": "channels_first"}
    h = L.Conv2D(6, 2, activation="relu", name="a", **form)(x)
    h = L.PReLU(shared_axes=[2, 3], name="p")(L.BatchNormalization(1, name="n")(h))
    h = L.Conv2D(5, 2, name="b", **form)(keep(h, "a", axis=1))
    g = L.GlobalAveragePooling2D(keepdims=True, **form)(h)
    h = L.Multiply()([h, g])
    return L.Flatten(**form)(keep(h, "b", axis=1))


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_removal_equals_masking_by_hand(K, case):
    check(K, case)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_plan_costs_what_it_says_and_verifies(K, case):
    check_plan(K, case)


def test_a_custom_layer_with_a_registered_rule(K):
    Scale = scale_layer(K)
    tsp.register_rule(Scale)(tsp.graph.per_unit("gamma", sizes=("dim",)))

    def scaled(K, L, x, keep):
        h = L.ReLU()(Scale(6, name="s")(L.Dense(6, name="a")(x)))
        return keep(L.GlobalMaxPooling1D()(h), "a")

    sizes = {"s": (4,), "s.dim": 4, "head": (4, 2)}
    check(K, Case(scaled, (5, 3), GONE, sizes))
    check_plan(K, Case(scaled, (5, 3), GONE, sizes))


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_that_is_used_backwards(tied):
    words = keras.layers.ReversibleEmbedding(10, 6, tie_weights=tied, name="words")
    ids = keras.Input((5,), dtype="int32")
    x = words(ids)
    x = keras.layers.Add()([x, keras.layers.Dense(6, name="dense")(x)])
    model = keras.Model(ids, words(x, reverse=True))
    assert tsp.cost(model).macs == 5 * (6 * 6 + 6 * 10)
    small = tsp.remove_units(model, {"words": [0, 4]})
    kernel, bias = model.get_layer("dense").get_weights()
    kernel[:, [0, 4]], bias[[0, 4]] = 0, 0
    kernel[[0, 4]] = 0
    model.get_layer("dense").set_weights([kernel, bias])
    table, *others = words.get_weights()
    table[:, [0, 4]] = 0
    words.set_weights([table, *others])
    ids = np.random.default_rng(0).integers(0, 10, (3, 5))
    np.testing.assert_allclose(small(ids), model(ids), atol=1e-6)
    assert small.get_layer("words").output_dim == 4
