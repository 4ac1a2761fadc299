"""Removal equals masking by hand: what is cut, chosen, repeated or shifted by number.

The operations are `keras.ops` in Keras 3, and TensorFlow's own in tf_keras. That each
number in a smaller model follows the kept units shows in what the model computes.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from masked_twin import check, check_plan, collector, names, settle

import tf_spline_prune as tsp

CASES = []
case = collector(CASES)
GONE = {"a": [1, 4, 10]}
ANGLES = np.arange(5)[:, None] / 10.0 ** (np.arange(4) / 4)
COS, SIN = np.cos(ANGLES).astype("float32"), np.sin(ANGLES).astype("float32")


class InTensorFlow:
    """TensorFlow's functions by the names that `keras.ops` gives them."""

    transpose, concatenate, reshape, stack = (
        tf.transpose,
        tf.concat,
        tf.reshape,
        tf.stack,
    )
    matmul, softmax, sigmoid, relu = tf.matmul, tf.nn.softmax, tf.sigmoid, tf.nn.relu
    tile, repeat, flip, roll = tf.tile, tf.repeat, tf.reverse, tf.roll
    pad, unstack, take, where = tf.pad, tf.unstack, tf.gather, tf.where
    depth_to_space, space_to_depth = tf.nn.depth_to_space, tf.nn.space_to_depth
    einsum, mean, broadcast_to = tf.einsum, tf.reduce_mean, tf.broadcast_to

    @staticmethod
    def split(x, points, axis):
        if isinstance(points, int):
            return tf.split(x, points, axis)
        sizes = np.diff([0, *points, x.shape[axis]]).tolist()
        return tf.split(x, sizes, axis)


def ops(K):
    return getattr(K, "ops", InTensorFlow)


def dense(L, x, units, name):
    return L.Dense(units, activation="tanh", name=name)(x)


def conv(L, x, filters, name, **settings):
    settings = {"padding": "same", "activation": "tanh", "name": name, **settings}
    return L.Conv2D(filters, 3, **settings)(x)


def some(L, *tensors):
    return L.Concatenate()([dense(L, t, 3, f"r{i}") for i, t in enumerate(tensors)])


@case((6,), GONE, {"a.units": 9, "r0": (2, 3), "r1": (3, 3), "r2": (4, 3)})
def split_at_points(K, L, x, keep):
    one, two, three = ops(K).split(keep(dense(L, x, 12, "a"), "a"), [3, 7], axis=-1)
    return some(L, one, two, three)


@case((6,), GONE, {"a.units": 9, "r0": (4, 3), "r1": (5, 3)})
def halves_that_do_not_meet(K, L, x, keep):
    return some(L, *ops(K).split(keep(dense(L, x, 12, "a"), "a"), 2, axis=-1))


@case(
    (6,),
    {"a": [1, 3, 5, 7, 9]},
    {"r0": (2, 3), "r2": (2, 3)},
    ask={"a": [3, 5]},
    only="keras",
)
def parts_with_a_remainder(K, L, x, keep):
    h = keep(dense(L, x, 11, "a"), "a")
    return some(L, *K.ops.array_split(h, 3, axis=-1))


@case((6,), GONE, {"r0": (3, 3), "r1": (6, 3), "r2": (2, 3), "r3": (5, 3)})
def slices_from_both_ends(K, L, x, keep):
    h = keep(dense(L, x, 12, "a"), "a")
    return some(L, h[:, :4], h[..., 4:], h[..., -3:], h[:, 2:-4])


@case((6,), {"a": [2, 3, 8, 9]}, {"a.units": 8, "r0": (3, 3)}, ask={"a": [3, 8]})
def every_second_from_the_third_on(K, L, x, keep):
    h = keep(dense(L, x, 12, "a"), "a")
    return some(L, h[..., 4::2], h[..., 1:8:2])


@case((6,), GONE, {"a.units": 9, "r0": (9, 3)}, only="keras")
def turned_by_a_slice(K, L, x, keep):
    return some(L, keep(dense(L, x, 12, "a"), "a")[..., ::-1])


@case((8, 8, 3), {"a": [1, 7], "b": [1]}, {"b": (3, 3, 5, 5), "c": (3, 3, 10, 4)})
def part_of_the_channels_goes_on(K, L, x, keep):
    h = keep(conv(L, x, 12, "a"), "a")
    one, two = h[..., :6], h[..., 6:]
    two = two + conv(L, two, 6, "b")
    h = L.Concatenate()([one, two])
    return L.GlobalMaxPooling2D()(conv(L, keep(h, [("a", 12)]), 4, "c"))


@case((5, 6), GONE, {"a.units": 9, "r0": (4, 3)})
def chosen_by_fixed_indices(K, L, x, keep):
    h = keep(dense(L, x, 12, "a"), "a")
    h = ops(K).take(h, [0, 4, 11, 3, 2, 10], axis=-1)
    return L.GlobalMaxPooling1D()(some(L, h))


@case((5, 6), GONE, {"a.units": 9, "r0": (9, 3)})
def shuffled_by_an_array(K, L, x, keep):
    order = np.arange(12).reshape(3, 4).T.ravel()
    h = ops(K).take(keep(dense(L, x, 12, "a"), "a"), order, axis=2)
    return L.GlobalMaxPooling1D()(some(L, h))


@case((3, 6), GONE, {"a.units": 9, "r0": (9, 3), "r2": (9, 3)})
def one_tensor_for_each_position(K, L, x, keep):
    return some(L, *ops(K).unstack(keep(dense(L, x, 12, "a"), "a"), axis=1))


@case((5, 6), GONE, {"a.units": 9, "r0": (18, 3), "r1": (27, 3)})
def tiled_and_repeated(K, L, x, keep):
    h = keep(dense(L, x, 12, "a"), "a")
    one, two = ops(K).tile(h, [1, 1, 2]), ops(K).repeat(h, 3, axis=-1)
    return L.GlobalMaxPooling1D()(some(L, one, two))


@case((6,), GONE, {"a.units": 9, "r0": (9, 3), "r1": (9, 3)})
def flipped_and_rolled(K, L, x, keep):
    h = keep(dense(L, x, 12, "a"), "a")
    return some(
        L, ops(K).flip(h, axis=[1]), ops(K).roll(h, 4, -1), ops(K).roll(h, -3, 1)
    )


@case(
    (8, 8, 3),
    {"a": [1], "b": [4], "c": [0, 4, 11]},
    {"c.filters": 9, "d": (3, 3, 9, 4)},
    ask={"a": [1], "c": [0, 11], "b": [4]},
)
def shortcut_padded_with_zeros(K, L, x, keep):
    h = conv(L, x, 6, "a", strides=2)
    y = conv(L, keep(conv(L, keep(h, "a"), 7, "b"), "b"), 12, "c", strides=2)
    h = ops(K).pad(h[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [3, 3]])
    return L.GlobalMaxPooling2D()(conv(L, keep(ops(K).relu(h + y), "c"), 4, "d"))


@case(
    (8, 8, 3),
    {"a": [1, 7, 13, 19]},
    {"a.filters": 20, "b": (3, 3, 5, 4)},
    ask={"a": [13]},
)
def depth_to_space(K, L, x, keep):
    h = ops(K).depth_to_space(keep(conv(L, x, 24, "a"), "a"), 2)
    return L.GlobalMaxPooling2D()(conv(L, h, 4, "b"))


@case((8, 8, 3), {"a": [1, 4]}, {"a.filters": 4, "b": (3, 3, 16, 4)})
def space_to_depth(K, L, x, keep):
    h = ops(K).space_to_depth(keep(conv(L, x, 6, "a"), "a"), 2)
    return L.GlobalMaxPooling2D()(conv(L, h, 4, "b"))


@case((8, 8, 3), {"a": [1, 4]}, {"a.filters": 4, "b": (3, 3, 24, 4)}, only="keras")
def patches(K, L, x, keep):
    h = K.ops.image.extract_patches(keep(conv(L, x, 6, "a"), "a"), (2, 3))
    return L.GlobalMaxPooling2D()(conv(L, h, 4, "b"))


@case(
    (8, 8, 3),
    {"a": [1, 7, 13, 19]},
    {"a.filters": 20, "b": (3, 3, 5, 4)},
    ask={"a": [7]},
)
def pixel_shuffle_by_reshapes(K, L, x, keep):
    h = ops(K).reshape(keep(conv(L, x, 24, "a"), "a"), (-1, 8, 8, 2, 2, 6))
    h = ops(K).reshape(ops(K).transpose(h, (0, 1, 3, 2, 4, 5)), (-1, 16, 16, 6))
    return L.GlobalMaxPooling2D()(conv(L, h, 4, "b"))


@case(
    (8, 8, 3),
    {"a": [1, 5]},
    {"a.filters": 6, "b": (6, 9), "c": (9, 6)},
    ask={"c": [5, 1]},
)
def windows(K, L, x, keep):
    def moved(h, shape):
        return ops(K).transpose(ops(K).reshape(h, shape), (0, 1, 3, 2, 4, 5))

    h = conv(L, x, 8, "a")
    w = ops(K).reshape(
        moved(ops(K).roll(h, [-2, -2], [1, 2]), (-1, 2, 4, 2, 4, 8)), (-1, 16, 8)
    )
    w = dense(L, dense(L, keep(w, "a"), 9, "b"), 8, "c")
    w = ops(K).reshape(moved(w, (-1, 2, 2, 4, 4, 8)), (-1, 8, 8, 8))
    return L.GlobalMaxPooling2D()(keep(h + w, "a"))


@case((5, 6), {"a": [1, 4]}, {"a.units": 6, "r0": (6, 3)})
def a_fixed_array_beside_units(K, L, x, keep):
    rng = np.random.default_rng(0)
    h = dense(L, x, 8, "a") + rng.normal(size=(1, 5, 8)).astype("float32")
    h = h * tf.constant(np.linspace(1.0, 2.0, 8), "float32")
    return L.GlobalMaxPooling1D()(some(L, keep(h, "a")))


@case((5, 6), {"a": [1, 9]}, {"a.units": 14, "o": (7, 4)}, ask={"a": [9]})
def one_half_gates_the_other(K, L, x, keep):
    h = dense(L, x, 16, "a")
    h = h[..., :8] * ops(K).sigmoid(h[..., 8:])
    return L.GlobalMaxPooling1D()(dense(L, keep(h, [("a", 8)]), 4, "o"))


def attended(K, q, k, v):
    """Attend; all of shape (batch, heads, 5, dims)."""
    scores = ops(K).matmul(q, ops(K).transpose(k, (0, 1, 3, 2))) / 2.0
    h = ops(K).matmul(ops(K).softmax(scores, axis=-1), v)
    return ops(K).reshape(ops(K).transpose(h, (0, 2, 1, 3)), (-1, 5, 12))


# The second dimension of three heads of four, in queries, keys and values.
DIMS = [part * 12 + head * 4 + 1 for part in range(3) for head in range(3)]
FUSED = {"a.units": 27, "o": (9, 4)}


@case((5, 6), {"a": DIMS}, FUSED, ask={"a": [5]})
def fused_with_the_batch_in_the_middle(K, L, x, keep):
    h = ops(K).reshape(keep(dense(L, x, 36, "a"), "a"), (-1, 5, 3, 3, 4))
    h = ops(K).transpose(h, (2, 0, 3, 1, 4))
    h = dense(L, attended(K, h[0], h[1], h[2]), 4, "o")
    return L.GlobalMaxPooling1D()(h)


@case((5, 6), {"a": DIMS}, FUSED, ask={"a": [5]}, only="keras")
def fused_and_unstacked(K, L, x, keep):
    h = K.ops.reshape(keep(dense(L, x, 36, "a"), "a"), (-1, 5, 3, 3, 4))
    q, k, v = K.ops.unstack(K.ops.transpose(h, (2, 0, 3, 1, 4)), 3, axis=0)
    return L.GlobalMaxPooling1D()(dense(L, attended(K, q, k, v), 4, "o"))


VALUES = [24 + head * 4 + 2 for head in range(3)]


@case((5, 6), {"a": [*DIMS[:6], *VALUES]}, FUSED, ask={"a": [5, 26]})
def fused_and_split_before_heads(K, L, x, keep):
    parts = ops(K).split(keep(dense(L, x, 36, "a"), "a"), 3, axis=-1)
    q, k, v = (
        ops(K).transpose(ops(K).reshape(part, (-1, 5, 3, 4)), (0, 2, 1, 3))
        for part in parts
    )
    return L.GlobalMaxPooling1D()(dense(L, attended(K, q, k, v), 4, "o"))


# One head of keys and values, and the three heads of queries that read it.
SHARED = {"q": [*range(12, 24)], "k": [*range(4, 8)], "v": [*range(4, 8)]}


def grouped(K, L, x, keep, turned):
    def heads(name, count):
        h = keep(dense(L, x, 4 * count, name), name)
        return ops(K).transpose(ops(K).reshape(h, (-1, 5, count, 4)), (0, 2, 1, 3))

    q, k = turned(heads("q", 6)), turned(heads("k", 2))
    k, v = (ops(K).repeat(h, 3, axis=1) for h in (k, heads("v", 2)))
    scores = ops(K).softmax(ops(K).einsum("bhtd,bhsd->bhts", q, k), axis=-1)
    h = ops(K).einsum("bhts,bhsd->bthd", scores, v)
    return L.GlobalMaxPooling1D()(dense(L, ops(K).reshape(h, (-1, 5, 24)), 4, "o"))


@case((5, 6), SHARED, {"q.units": 12, "v.units": 4, "o": (12, 4)}, ask={"v": [4]})
def rotary_halves_leave_heads(K, L, x, keep):
    cos, sin = (np.tile(array[:, :2], 2) for array in (COS, SIN))

    def turned(h):
        one, two = ops(K).split(h, 2, -1)
        return h * cos + ops(K).concatenate([-two, one], -1) * sin

    return grouped(K, L, x, keep, turned)


@case((5, 6), SHARED, {"q.units": 12, "v.units": 4, "o": (12, 4)}, ask={"v": [4]})
def rotary_pairs_leave_heads(K, L, x, keep):
    def turned(h):
        one, two = h[..., ::2], h[..., 1::2]
        h = [one * COS[:, :2] - two * SIN[:, :2], one * SIN[:, :2] + two * COS[:, :2]]
        return ops(K).reshape(ops(K).stack(h, -1), (-1, h[0].shape[1], 5, 4))

    return grouped(K, L, x, keep, turned)


def turned_queries(K, L, x, keep, turn, mask):
    """Make scores of turned dimensions, with no heads."""
    q, k = (turn(keep(dense(L, x, 8, name), mask)) for name in "qk")
    scores = ops(K).einsum("btd,bsd->bts", q, k)
    return L.GlobalMaxPooling1D()(dense(L, scores, 4, "o"))


@case((5, 6), {"q": [1, 5], "k": [1, 5]}, {"q.units": 6, "k.units": 6}, ask={"k": [5]})
def rotary_halves_are_one_unit(K, L, x, keep):
    cos, sin = np.tile(COS, 2), np.tile(SIN, 2)

    def turn(h):
        one, two = ops(K).split(h, 2, -1)
        return h * cos + ops(K).concatenate([-two, one], -1) * sin

    return turned_queries(K, L, x, keep, turn, "q")


@case((5, 6), {"q": [2, 3], "k": [2, 3]}, {"q.units": 6, "k.units": 6}, ask={"k": [3]})
def rotary_pairs_are_one_unit(K, L, x, keep):
    def turn(h):
        one, two = h[..., ::2], h[..., 1::2]
        h = [one * COS - two * SIN, one * SIN + two * COS]
        return ops(K).reshape(ops(K).stack(h, -1), (-1, 5, 8))

    return turned_queries(K, L, x, keep, turn, "q")


@case(
    (5, 6),
    {"a": [1, 4], "c": [1, 4]},
    {"a.units": 6, "c.units": 6, "head": (6, 2)},
    ask={"a": [1, 4]},
)
def class_token(K, L, x, keep):
    token = ops(K).mean(dense(L, x, 8, "c"), axis=1, keepdims=True)
    h = ops(K).concatenate([token, dense(L, x, 8, "a")], axis=1)
    scores = ops(K).softmax(ops(K).matmul(x, ops(K).transpose(x, (0, 2, 1))), axis=-1)
    scores = ops(K).pad(scores, [[0, 0], [1, 0], [1, 0]])
    return keep((h + ops(K).matmul(scores, h))[:, 0], "a")


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_removal_equals_masking_by_hand(K, case):
    check(K, case)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_plan_costs_what_it_says_and_verifies(K, case):
    check_plan(K, case)


def model_of(function, shape=(5, 6)):
    """Build a model of one Dense layer `a` of 8 units, and what a function makes."""
    x = keras.Input(shape)
    h = keras.layers.Dense(8, activation="tanh", name="a")(x)
    y = keras.layers.Dense(2, name="head")(keras.layers.Flatten()(function(h)))
    return settle(keras.Model(x, y))


STAY = {
    "takes the batch on its first axis only": lambda h: keras.ops.sum(
        keras.ops.transpose(h, (1, 0, 2)), 0
    ),
    "pads them with one another": lambda h: keras.ops.pad(
        h, [[0, 0], [0, 0], [1, 1]], "reflect"
    ),
    "takes a part of them that cannot follow": lambda h: h[..., ::-2],
    "makes a tensor of each of them": lambda h: keras.ops.unstack(h, axis=2)[3],
    "makes parts without units": lambda h: keras.ops.split(h, [3, 3], axis=2)[2],
    "(op:tile) has no rule that fits": lambda h: keras.ops.reshape(
        keras.ops.tile(h, (2, 1, 1)), (-1, 80)
    ),
    "(op:take) has no rule that fits": lambda h: keras.ops.take(
        h, [[0, 1], [2, 3]], axis=2
    ),
    "(op:repeat) has no rule that fits": lambda h: keras.ops.reshape(
        keras.ops.repeat(h, 2, axis=0), (-1, 80)
    ),
    "(op:roll) has no rule that fits": lambda h: keras.ops.roll(h, 3),
    "shifts several axes by one number": lambda h: keras.ops.roll(h, 3, (1, 2)),
}


@pytest.mark.parametrize("reason", STAY)
def test_what_cannot_follow_is_a_barrier_that_says_why(reason):
    model = model_of(STAY[reason])
    graph = tsp.ChannelGraph(model)
    assert not graph.groups
    assert reason in graph.explain("a")


def test_a_unit_that_is_taken_out_alone_stays_and_is_found_again():
    model = model_of(lambda h: keras.ops.stack([h[:, :, 5], h[:, :, -2]], axis=1))
    graph = tsp.ChannelGraph(model)
    assert [(b.units, b.reason) for b in graph.barriers if b.layer == "a"] == [
        (1, "get_item takes it out alone"),
        (1, "get_item_1 takes it out alone"),
    ]
    small = tsp.remove_units(model, {"a": [0, 4, 7]})
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    np.testing.assert_array_equal(small(x), model(x))


def test_a_part_keeps_a_unit():
    model = model_of(lambda h: keras.ops.concatenate([h[..., :2], h[..., 2:]], -1))
    graph = tsp.ChannelGraph(model)
    assert sorted(group.num_units for group in graph.groups) == [2, 6]
    with pytest.raises(ValueError, match="one of each part. Received: .* get_item"):
        tsp.remove_units(model, {"a": [0, 1]})
    plan = tsp.plan(model, "random", sparsity=0.75, scope="global")
    assert {0, 1} - set(plan.removed["a"])


def test_the_smaller_model_is_saved_with_its_numbers(tmp_path):
    def chosen(h):
        h = keras.ops.take(h * np.arange(8, dtype="float32"), [7, 1, 0, 6], axis=-1)
        return keras.ops.pad(h[..., 1:], [[0, 0], [0, 0], [2, 0]])

    small = tsp.remove_units(model_of(chosen), {"a": [1, 2, 6]})
    small.save(tmp_path / "small.keras")
    back = keras.models.load_model(tmp_path / "small.keras")
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    np.testing.assert_array_equal(back(x), small(x))


@pytest.mark.parametrize("other", ["units", "none"])
def test_a_layer_that_is_used_twice_has_one_config(other):
    layers = keras.layers
    x = keras.Input((8,))
    shape, one = layers.Reshape((2, 4)), layers.Dense(8, name="a")(x)
    two = layers.Dense(8, name="b")(x) if other == "units" else x
    ends = [layers.Dense(3, name=f"r{i}")(shape(h)) for i, h in enumerate((one, two))]
    y = layers.Dense(2)(layers.Flatten()(layers.Concatenate()(ends)))
    model = settle(keras.Model(x, y))
    graph = tsp.ChannelGraph(model)
    if other == "none":
        assert ("a", 8) in [(b.layer, b.units) for b in graph.barriers]
        assert {group.name for group in graph.groups} == {"r0", "r1"}
        return
    assert next(g.makers for g in graph.groups if "a" in g.makers) == ("b", "a")
    plan = tsp.plan(model, "random", sparsity=0.5)
    assert tsp.verify(model, plan.apply(model), plan) < 1e-5


def test_numbers_in_an_activation_do_not_follow():
    fixed = np.arange(8, dtype="float32")
    for function in (
        lambda x: x * fixed,
        lambda x: keras.ops.concatenate([x[..., :4], x[..., 4:]], -1),
    ):
        x = keras.Input((6,))
        h = keras.layers.Dense(8, activation=function, name="a")(x)
        model = keras.Model(x, keras.layers.Dense(2)(h))
        assert "may mix its units" in tsp.ChannelGraph(model).explain("a")


@keras.saving.register_keras_serializable("selecting")
class Fixed(keras.layers.Layer):
    def call(self, x):
        return keras.ops.concatenate([x[..., :4], x[..., 4:]], -1)


def test_numbers_in_a_call_do_not_follow():
    assert "custom:Fixed" in tsp.ChannelGraph(model_of(Fixed())).explain("a")


def test_patches_cost_the_convolution_that_takes_them():
    x = keras.Input((8, 8, 3))
    h = keras.layers.Conv2D(6, 1, name="a")(x)
    y = keras.layers.Flatten()(keras.ops.image.extract_patches(h, (2, 4)))
    model = keras.Model(x, keras.layers.Dense(2)(y))
    patches = 4 * 2 * (2 * 4 * 6) * (2 * 4 * 6)
    assert tsp.cost(model).macs == 64 * 3 * 6 + patches + 64 * 6 * 2
    small = tsp.remove_units(model, {"a": [1, 3]})
    patches = 4 * 2 * (2 * 4 * 4) * (2 * 4 * 4)
    assert tsp.cost(small).macs == 64 * 3 * 4 + patches + 64 * 4 * 2


def test_twins_are_merged_within_a_part():
    x = keras.Input((6,))
    h = keras.layers.Dense(12, activation="relu", name="a")(x)
    one, two = keras.ops.split(h, 2, axis=-1)
    y = keras.layers.Concatenate()([keras.layers.Dense(4, name="r0")(one), two])
    model = settle(keras.Model(x, keras.layers.Dense(2, name="head")(y)))
    kernel, bias = model.get_layer("a").get_weights()
    # In each half one unit is a multiple of another, and one of a unit of the other.
    for unit, twin, scale in ((1, 4, 2.0), (8, 10, 0.5), (3, 11, 3.0)):
        kernel[:, unit], bias[unit] = scale * kernel[:, twin], scale * bias[twin]
    model.get_layer("a").set_weights([kernel, bias])
    plan = tsp.plan(model, "spline", sparsity=1 / 6, scope="layer", layers="a")
    pairs = {frozenset(pair[:2]) for pair in plan.merges["a"]}
    assert pairs == {frozenset((1, 4)), frozenset((8, 10))}
    small = plan.apply(tsp.merge(model, plan))
    x = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
    assert small.get_layer("a").units == 10
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)
