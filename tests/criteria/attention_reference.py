"""Small attention models, and their heads once more: float64 NumPy, written out.

The numbers come from the weights alone, found by their shapes or names in the layers;
nothing here asks the package.
"""

import numpy as np
import zoo

HEADS, SIZE, WIDTH, STEPS = 4, 3, 6, 5
KINDS = ("MultiHeadAttention", "GroupQueryAttention", "EinsumDense")


def attention_model(K, kind, causal=False):
    """Self-attention of four heads of three dimensions, and a head behind it."""
    L = K.layers
    inputs = K.Input((STEPS, WIDTH))
    if kind == "MultiHeadAttention":
        layer = L.MultiHeadAttention(HEADS, SIZE, value_dim=2, name="attention")
        x = layer(inputs, inputs, use_causal_mask=causal)
    elif kind == "GroupQueryAttention":
        layer = L.GroupQueryAttention(SIZE, HEADS, 2, name="attention")
        x = layer(inputs, inputs, use_causal_mask=causal)
    else:
        query, key, value = (
            L.EinsumDense("btd,dnh->btnh", (None, HEADS, SIZE), name=name)(inputs)
            for name in ("query", "key", "value")
        )
        scores = K.ops.einsum("btnh,bsnh->bnts", query, key) / np.sqrt(SIZE)
        x = K.ops.einsum("bnts,bsnh->btnh", K.ops.softmax(scores), value)
        out = L.EinsumDense("btnh,nhd->btd", (None, WIDTH), bias_axes="d", name="out")
        x = out(x)
    x = L.Activation("tanh", name="bend")(x)
    return zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)), seed=1)


def inner_weights(model):
    """Return kernels (and biases, or 0) of query, key, value and out, in float64."""
    names = ("query", "key", "value")
    found = {}
    if any(layer.name == "attention" for layer in model.layers):
        layer = model.get_layer("attention")
        parts = {name: getattr(layer, f"_{name}_dense") for name in names}
        parts["out"] = layer._output_dense
    else:
        parts = {name: model.get_layer(name) for name in (*names, "out")}
    for name, part in parts.items():
        kernel, *bias = (np.asarray(w, "float64") for w in part.get_weights())
        found[name] = kernel, (bias[0] if bias else 0.0)
    return found


def softmax(scores):
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    return scores / scores.sum(-1, keepdims=True)


def heads_of(model, x, causal=False):
    """Return what goes into the projection out of the heads: `(n, t, heads, dims)`."""
    weights = inner_weights(model)
    query, key, value = (
        np.einsum("ntd,dhk->nthk", x.astype("float64"), weights[name][0])
        + weights[name][1]
        for name in ("query", "key", "value")
    )
    repeats = query.shape[2] // key.shape[2]
    key, value = (np.repeat(one, repeats, axis=2) for one in (key, value))
    scores = np.einsum("nthk,nshk->nhts", query, key) / np.sqrt(query.shape[-1])
    if causal:
        places = np.arange(x.shape[1])
        scores = np.where(places[:, None] >= places, scores, -np.inf)
    return np.einsum("nhts,nshv->nthv", softmax(scores), value)


def units_of(kind):
    """For each unit that is pruned the heads that go with it."""
    if kind == "GroupQueryAttention":
        return [[0, 1], [2, 3]]
    return [[head] for head in range(HEADS)]


def heads_group(groups, kind):
    """Find the group of heads by name."""
    name = "query/n" if kind == "EinsumDense" else "attention/heads"
    return groups[name]
