"""Removal equals masking by hand: embeddings, recurrent layers, wrappers, attention.

What a recurrent layer reads of itself, and the heads and sizes inside attention,
no tensor of the network shows; the twin has zeros in the weights instead.
"""

import pytest
from masked_twin import check, check_plan, collector, names

CASES = []
case = collector(CASES)
GONE = {"a": [1, 4]}
TOKENS = {"integers": 9}
RECURRENT = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


@case((5,), {"e": [0, 3], "a": [1]}, {"e": (9, 4), "a": (4, 5)}, **TOKENS)
def embedding(K, L, x, keep):
    h = keep(L.Embedding(9, 6, name="e")(x), "e")
    h = L.Dense(6, activation="relu", name="a")(h)
    return L.GlobalAveragePooling1D()(keep(h, "a"))


@case(
    (5,),
    {"e": [0, 3], "a": [1]},
    {"e.output_dim": 4, "a.units": 5, "head": (5, 2)},
    zero=[("a", 1, 0, [1])],
    **TOKENS,
)
def embedding_with_a_mask_into_lstm(K, L, x, keep):
    h = keep(L.Embedding(9, 6, mask_zero=True, name="e")(x), "e")
    return keep(L.LSTM(6, name="a")(h), "a")


@case((5,), {"e": [0, 3]}, {"e": (9, 4), "head": (4, 2)}, **TOKENS)
def embedding_with_a_mask_into_a_mean(K, L, x, keep):
    h = L.Embedding(9, 6, mask_zero=True, name="e")(x)
    return keep(L.GlobalAveragePooling1D()(h), "e")


def add_recurrent(name, **settings):
    """Collect a case of two layers, one on the other."""
    gates = RECURRENT[name]

    def build(K, L, x, keep):
        kind = getattr(L, name)
        h = kind(6, return_sequences=True, name="a", **settings)(x)
        return keep(kind(5, name="b", **settings)(keep(h, "a")), "b")

    build.__name__ = "_".join([name, *(f"{k}_{v}" for k, v in settings.items())])
    zero = [("a", 1, 0, [1, 4]), ("b", 1, 0, [2])]
    sizes = {"a": (3, 4 * gates), "b": (4, 4 * gates), "head": (4, 2)}
    case((7, 3), {"a": [1, 4], "b": [2]}, sizes, zero=zero)(build)


add_recurrent("SimpleRNN")
add_recurrent("SimpleRNN", activation="relu", use_bias=False)
add_recurrent("LSTM")
add_recurrent("LSTM", go_backwards=True, unit_forget_bias=False)
add_recurrent("GRU", reset_after=True)
add_recurrent("GRU", reset_after=False)


def add_states(name):
    """Collect a case in which one layer's states begin the next one's."""

    def build(K, L, x, keep):
        kind = getattr(L, name)
        first = kind(6, return_sequences=True, return_state=True, name="a")
        h, *states = first(x)
        h = kind(6, name="b")(keep(h, "a"), initial_state=states)
        return keep(h, "b")

    build.__name__ = f"states_of_{name}"
    zero = [("a", 1, 0, [1, 4]), ("b", 1, 0, [1, 4])]
    sizes = {"a.units": 4, "b.units": 4, "head": (4, 2)}
    gone = {"a": [1, 4], "b": [1, 4]}
    case((7, 3), gone, sizes, zero=zero, ask={"b": [1, 4]})(build)


for name in RECURRENT:
    add_states(name)


def both_ways(name, places):
    """Zero what both directions read of themselves."""
    return [(name, 1, 0, places), (name, 4, 0, places)]


def add_bidirectional(mode):
    """Collect a case of two bidirectional layers."""
    twice = 2 if mode == "concat" else 1

    def build(K, L, x, keep):
        one = L.LSTM(6, return_sequences=True)
        h = L.Bidirectional(one, merge_mode=mode, name="a")(x)
        h = keep(h, "a", tile=twice)
        h = L.Bidirectional(L.GRU(5), merge_mode=mode, name="b")(h)
        return keep(h, "b", tile=twice)

    build.__name__ = f"bidirectional_{mode}"
    zero = both_ways("a", [1, 4]) + both_ways("b", [2])
    sizes = {"a": (3, 16), "b": (4 * twice, 12), "head": (4 * twice, 2)}
    case((7, 3), {"a": [1, 4], "b": [2]}, sizes, zero=zero)(build)


for mode in ("concat", "sum", "mul", "ave"):
    add_bidirectional(mode)


@case(
    (7, 3),
    {"a": [1, 4], "b": [1, 4]},
    {"a": (3, 16), "b": (4, 5), "head": (5, 2)},
    zero=both_ways("a", [1, 4]),
    ask={"a": [4, 1]},
)
def bidirectional_without_merging(K, L, x, keep):
    one = L.LSTM(6, return_sequences=True)
    ahead, back = L.Bidirectional(one, merge_mode=None, name="a")(x)
    h = L.Multiply()([keep(ahead, "a"), back])
    return L.GlobalMaxPooling1D()(L.Dense(5, name="b")(h))


@case((7, 3), {"a": [1, 4], "b": [2]}, {"a": (3, 4), "b": (4, 3), "head": (3, 2)})
def time_distributed_dense(K, L, x, keep):
    h = L.TimeDistributed(L.Dense(6, activation="relu"), name="a")(x)
    h = L.TimeDistributed(L.Dense(4), name="b")(keep(h, "a"))
    return keep(L.GlobalMaxPooling1D()(h), "b")


@case((3, 6, 5, 2), GONE, {"a": (2, 2, 2, 4), "n": (4,), "r": (80, 12)})
def time_distributed_images(K, L, x, keep):
    h = L.TimeDistributed(L.Conv2D(6, 2), name="a")(x)
    h = L.TimeDistributed(L.BatchNormalization(), name="n")(h)
    h = L.TimeDistributed(L.ReLU())(h)
    h = L.TimeDistributed(L.Flatten())(keep(h, "a"))
    return L.SimpleRNN(12, name="r")(h)


# MultiHeadAttention holds kernel and bias of query, key, value and output in turn.
QUERY, QUERY_BIAS, OUT = 0, 1, 6


def add_attention(name, gone, zero, expect, only="", **settings):
    """Collect a case of attention of a sequence to itself."""

    def build(K, L, x, keep):
        h = keep(L.Dense(8, activation="tanh", name="a")(x), "a")
        h = L.MultiHeadAttention(4, 6, name="m", **settings)(h, h)
        return L.GlobalMaxPooling1D()(keep(h, "m"))

    build.__name__ = f"attention_{name}"
    case((5, 3), gone, expect, zero=zero, only=only)(build)
    return CASES[-1]


HEADS = {"m/heads": [0, 2]}
SIZES = {"m": (6, 4, 6), "a.units": 6, "head": (8, 2)}
add_attention("input", GONE, [], SIZES)
add_attention("output", {"m": [0, 7]}, [], {"m": (8, 4, 6), "head": (6, 2)})
add_attention("output_given", {"m": [0, 3]}, [], {"head": (3, 2)}, output_shape=5)
add_attention("heads", HEADS, [("m", OUT, 0, [0, 2])], {"m": (8, 2, 6)})
add_attention(
    "heads_no_bias", HEADS, [("m", 3, 0, [0, 2])], {"m": (8, 2, 6)}, use_bias=False
)
add_attention(
    "key_dim",
    {"m/key_dim": [1, 5]},
    # Sizes that are equal stay equal, so the values lose the same entries.
    [("m", QUERY, 2, [1, 5]), ("m", QUERY_BIAS, 1, [1, 5]), ("m", OUT, 1, [1, 5])],
    {"m": (8, 4, 4), "m._key_dim": 4, "m._value_dim": 4},
)
add_attention(
    "value_dim",
    {"m/value_dim": [1, 2]},
    [("m", OUT, 1, [1, 2])],
    {"m": (8, 4, 6), "m._key_dim": 6, "m._value_dim": 3},
    value_dim=5,
)
add_attention(
    "all_at_once",
    {"a": [3], "m": [0], "m/heads": [1], "m/key_dim": [4], "m/value_dim": [0, 3]},
    [("m", QUERY, 2, [4]), ("m", QUERY_BIAS, 1, [4])]
    + [("m", OUT, 0, [1]), ("m", OUT, 1, [0, 3])],
    {"m": (7, 3, 5), "m._num_heads": 3, "m._value_dim": 3, "head": (7, 2)},
    value_dim=5,
)


@case(
    [(5, 3), (7, 2)],
    {"q": [1, 4], "k": [0], "v": [2, 3], "m": [1], "m/heads": [1]},
    {"m": (6, 1, 4), "k.units": 6, "v.units": 4, "head": (8, 2)},
    zero=[("m", OUT, 0, [1])],
)
def cross_attention(K, L, x, keep):
    query = keep(L.Dense(8, activation="tanh", name="q")(x[0]), "q")
    key = keep(L.Dense(7, name="k")(x[1]), "k")
    value = keep(L.Dense(6, name="v")(x[1]), "v")
    heads = L.MultiHeadAttention(2, 4, output_shape=9, name="m")
    return L.GlobalMaxPooling1D()(keep(heads(query, value, key), "m"))


@case((5, 3), {"a": [1, 4], "m": [1, 4]}, {"a.units": 6, "head": (6, 2)})
def attention_on_a_residual_stream(K, L, x, keep):
    h = L.Dense(8, activation="tanh", name="a")(x)
    read = keep(h, "a")
    h = L.Add()([h, L.MultiHeadAttention(2, 4, name="m")(read, read)])
    return L.GlobalMaxPooling1D()(keep(h, "a"))


@case((5, 3), {"q": [1, 4], "k": [1, 4], "v": [0]}, {"k.units": 6, "head": (25, 2)})
def attention_layer(K, L, x, keep):
    query, key = L.Dense(8, name="q")(x), L.Dense(8, name="k")(x)
    value = L.Dense(6, name="v")(x)
    h = L.Attention()([keep(query, "q"), value, key])
    return L.Flatten()(keep(h, "v"))


def add_grouped(name, gone, zero, expect):
    """Collect a case of attention whose heads share keys and values."""

    def build(K, L, x, keep):
        h = L.Dense(8, activation="tanh", name="a")(x)
        read = keep(h, "a")
        g = L.GroupQueryAttention(6, 4, 2, name="g")(read, read)
        return L.GlobalMaxPooling1D()(keep(L.Add()([h, g]), "a"))

    build.__name__ = f"grouped_attention_{name}"
    case((5, 3), gone, expect, zero=zero, only="keras")(build)


add_grouped("input", GONE, [], {"a.units": 6, "g": (6, 4, 6), "head": (6, 2)})
add_grouped(
    "heads",
    {"g/heads": [1]},
    [("g", OUT, 0, [2, 3])],
    {"g.num_query_heads": 2, "g.num_key_value_heads": 1, "g": (8, 2, 6)},
)
add_grouped(
    "head_dim",
    {"g/head_dim": [1, 5]},
    [("g", QUERY, 2, [1, 5]), ("g", QUERY_BIAS, 1, [1, 5]), ("g", OUT, 1, [1, 5])],
    {"g.head_dim": 4, "g": (8, 4, 4)},
)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_removal_equals_masking_by_hand(K, case):
    check(K, case)


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_a_plan_costs_what_it_says_and_verifies(K, case):
    check_plan(K, case)
