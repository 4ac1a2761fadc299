"""Removal equals masking by hand: operations in functional graphs.

The operations are `keras.ops` in Keras 3, and TensorFlow's own in tf_keras.
"""

import pytest
import tensorflow as tf
from masked_twin import check, check_plan, collector, names

CASES = []
case = collector(CASES)
GONE = {"a": [1, 4]}


class InTensorFlow:
    """TensorFlow's functions by the names that `keras.ops` gives them."""

    split, transpose, sigmoid = tf.split, tf.transpose, tf.sigmoid
    concatenate, expand_dims, squeeze = tf.concat, tf.expand_dims, tf.squeeze
    mean, max, sum = tf.reduce_mean, tf.reduce_max, tf.reduce_sum
    pad, where, matmul, einsum = tf.pad, tf.where, tf.matmul, tf.einsum
    softmax, reshape, stack = tf.nn.softmax, tf.reshape, tf.stack
    relu, exp, maximum = tf.nn.relu, tf.exp, tf.maximum


def ops(K):
    return getattr(K, "ops", InTensorFlow)


def dense(L, x, units, name):
    return L.Dense(units, activation="tanh", name=name)(x)


@case((5, 3), {"a": [1, 5]}, {"a.units": 6, "head": (3, 2)}, ask={"a": [5]})
def split_and_gate(K, L, x, keep):
    one, two = ops(K).split(dense(L, x, 8, "a"), 2, axis=-1)
    h = L.GlobalMaxPooling1D()(one * ops(K).sigmoid(two))
    return keep(h, [("a", 4)])


@case((5, 3), GONE, {"b": (5, 3), "c": (4, 7)})
def transpose(K, L, x, keep):
    h = ops(K).transpose(dense(L, x, 6, "a"), (0, 2, 1))
    h = ops(K).transpose(dense(L, h, 3, "b"), (0, 2, 1))
    return L.Flatten()(dense(L, keep(h, "a"), 7, "c"))


@case((5, 3), GONE, {"b": (5, 3), "c": (4, 7)}, only="keras")
def swapaxes_and_moveaxis(K, L, x, keep):
    h = K.ops.swapaxes(dense(L, x, 6, "a"), 1, 2)
    h = K.ops.moveaxis(dense(L, h, 3, "b"), 1, -1)
    return L.Flatten()(dense(L, keep(h, "a"), 7, "c"))


@case((5, 3), GONE, {"a.units": 4, "head": (12, 2)})
def slices_of_time(K, L, x, keep):
    h = dense(L, x, 6, "a")
    return L.Flatten()(keep(h[:, 1:4, :], "a"))


@case((5, 3), GONE, {"a.units": 4, "head": (4, 2)})
def one_step(K, L, x, keep):
    return keep(dense(L, x, 6, "a")[:, -1], "a")


@case((5, 3), {"a": [1], "b": [0, 3]}, {"c": (6, 7)})
def concatenate(K, L, x, keep):
    one, two = dense(L, x, 4, "a"), dense(L, x, 5, "b")
    h = keep(ops(K).concatenate([two, one], axis=-1), [("b", 5), ("a", 4)])
    return L.GlobalMaxPooling1D()(dense(L, h, 7, "c"))


@case((5, 3), GONE, {"a.units": 4, "head": (20, 2)})
def expand_and_squeeze(K, L, x, keep):
    h = ops(K).expand_dims(dense(L, x, 6, "a"), 1)
    return L.Flatten()(ops(K).squeeze(keep(h * 2.0, "a"), 1))


@case((5, 3), GONE, {"a.units": 4, "head": (8, 2)})
def mean_and_max_over_time(K, L, x, keep):
    h = dense(L, x, 6, "a")
    mean, top = ops(K).mean(h, 1), ops(K).max(h, axis=1)
    return keep(ops(K).concatenate([mean, top], axis=-1), "a", tile=2)


@case((5, 3), GONE, {"a.units": 4, "head": (20, 2)})
def mean_that_gates(K, L, x, keep):
    h = dense(L, x, 6, "a")
    return L.Flatten()(keep(h * ops(K).mean(h, axis=1, keepdims=True), "a"))


@case((5, 3), GONE, {"a.units": 4, "head": (32, 2)})
def pad_of_time(K, L, x, keep):
    h = ops(K).pad(dense(L, x, 6, "a"), ((0, 0), (1, 2), (0, 0)))
    return L.Flatten()(keep(h, "a"))


@case((5, 3), GONE, {"a.units": 4, "head": (20, 2)})
def where_and_arithmetic(K, L, x, keep):
    h = dense(L, x, 6, "a")
    h = ops(K).where(h > 0.1, h, 0.3 * h) - ops(K).exp(-h) / 2.0 + 1.0
    return L.Flatten()(keep(ops(K).maximum(h, 0.2 * h), "a"))


SCORES = {"q": [1, 4], "k": [1, 4], "v": [0]}


@case(
    (5, 3),
    SCORES,
    {"q.units": 4, "k.units": 4, "v.units": 6},
    ask={"k": [1, 4], "v": [0]},
)
def attention_by_matmul(K, L, x, keep):
    q, k, v = dense(L, x, 6, "q"), dense(L, x, 6, "k"), dense(L, x, 7, "v")
    scores = ops(K).matmul(keep(q, "q"), ops(K).transpose(k, (0, 2, 1)))
    h = ops(K).matmul(ops(K).softmax(scores / 2.0, axis=-1), v)
    return L.Flatten()(keep(h, "v"))


@case((5, 3), SCORES, {"q.units": 4, "k.units": 4, "v.units": 6, "head": (30, 2)})
def attention_by_einsum(K, L, x, keep):
    q, k, v = dense(L, x, 6, "q"), dense(L, x, 6, "k"), dense(L, x, 7, "v")
    scores = ops(K).einsum("btd,bsd->bts", keep(q, "q"), k)
    h = ops(K).einsum("bts,bsd->btd", ops(K).softmax(scores, axis=-1), v)
    return L.Flatten()(keep(h, "v"))


# Units of 3 heads of 4: the same place in every head goes.
PLACES = {"q": [1, 5, 9], "k": [1, 5, 9], "v": [0, 4, 8]}


@case(
    (5, 3), PLACES, {"q.units": 9, "v.units": 9, "o": (9, 7)}, ask={"q": [5], "v": [0]}
)
def heads_by_hand(K, L, x, keep):
    def heads(name):
        h = keep(dense(L, x, 12, name), name)
        return L.Permute((2, 1, 3))(L.Reshape((5, 3, 4))(h))

    q, k, v = map(heads, "qkv")
    scores = ops(K).softmax(ops(K).einsum("bhtd,bhsd->bhts", q, k), axis=-1)
    h = L.Permute((2, 1, 3))(ops(K).matmul(scores, v))
    return L.GlobalMaxPooling1D()(dense(L, L.Reshape((5, 12))(h), 7, "o"))


@case((5, 3), GONE, {"a.units": 4, "head": (20, 2)})
def reshape(K, L, x, keep):
    return keep(ops(K).reshape(dense(L, x, 6, "a"), (-1, 30)), "a", tile=5)


@case((5, 3), GONE, {"q.units": 4, "k.units": 4}, ask={"k": [1, 4]}, only="keras")
def einsum_with_an_ellipsis(K, L, x, keep):
    q, k = (keep(dense(L, x, 6, name), "a") for name in "qk")
    return L.Flatten()(K.ops.einsum("...td,...sd->...ts", q, k))


@case(
    (5, 3),
    {"a": [1, 4], "b": [1, 4]},
    {"a.units": 4, "b.units": 4, "c": (4, 7)},
    ask={"b": [4, 1]},
)
def stack(K, L, x, keep):
    h = ops(K).stack([dense(L, x, 6, "a"), dense(L, x, 6, "b")], axis=1)
    return L.Flatten()(dense(L, keep(h, "a"), 7, "c"))


@case(
    (5, 3), {"a": [1, 5]}, {"a.units": 6, "head": (15, 2)}, ask={"a": [1]}, only="keras"
)
def glu(K, L, x, keep):
    h = K.ops.glu(dense(L, x, 8, "a"), axis=-1)
    return L.Flatten()(keep(h, [("a", 4)]))


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_removal_equals_masking_by_hand(K, case):
    check(K, case)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_plan_costs_what_it_says_and_verifies(K, case):
    check_plan(K, case)
