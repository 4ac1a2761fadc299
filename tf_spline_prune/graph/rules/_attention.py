"""Multi-head attention: heads, and the sizes of keys and values, are units too."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes, positions
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import opaque, rule


@rule("MultiHeadAttention")
def multi_head_attention(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Three projections into heads, and one out of them."""
    config = call.layer.get_config()
    out_shape = recorder.shape(call, "attention_output/kernel") or ()
    if len(out_shape) != 3:
        return opaque(call, inputs, recorder)
    heads = recorder.units(call, config["num_heads"], "heads")
    keys = recorder.units(call, config["key_dim"], "key_dim")
    values = recorder.units(call, config["value_dim"], "value_dim")
    if len(keys) == len(values):
        # Fast kernels, and Keras on JAX, need sizes that are equal to stay equal.
        recorder.tie(keys, values)
    made = recorder.units(call, out_shape[2])
    for key, labels in (("num_heads", heads), ("key_dim", keys), ("value_dim", values)):
        recorder.resize(call, key, labels)
    # Left to itself the layer makes as many features as its query has.
    query = call.arguments(inputs)["query"]
    both = np.concatenate([made, recorder.read(query, query.rank - 1, call)])
    recorder.edit(
        call, "output_shape", both, lambda old, keep: (int(keep[: len(made)].sum()),)
    )
    _project(call, inputs, (heads, heads), (keys, values), made, recorder)
    return _outputs(call, inputs, heads, made)


@rule("GroupQueryAttention", "GroupedQueryAttention")
def grouped_query_attention(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """A head of keys and values takes its queries along."""
    layer = call.layer
    shared = recorder.units(call, layer.num_key_value_heads, "heads")
    heads = np.repeat(shared, layer.num_query_heads // layer.num_key_value_heads)
    size = recorder.units(call, layer.head_dim, "head_dim")
    given: dict[str, Any] = call.arguments(inputs)
    query, value = given["query"], given["value"]
    made = recorder.units(call, query.shape[-1] or 0)
    # The layer makes as many features as its query has, and its values must too.
    for one in (query, value):
        recorder.tie(made, recorder.read(one, one.rank - 1, call))
    recorder.resize(call, "num_key_value_heads", shared)
    recorder.resize(call, "num_query_heads", heads)
    recorder.resize(call, "head_dim", size)
    _project(call, inputs, (heads, shared), (size, size), made, recorder)
    return _outputs(call, inputs, heads, made)


@rule("op:dotproductattention", arrays=True)
def dot_product_attention(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Heads stand on the last axis but one; all three have dimensions of one size."""
    given: dict[str, Any] = call.arguments(inputs)
    query, key, value = (given[name] for name in ("query", "key", "value"))
    masks = [shape for shape in call.arrays() if shape[-3:-2] not in ((), (1,))]
    if len(inputs) > 3 or masks or key.shape[2] != query.shape[2]:
        return opaque(call, inputs, recorder)
    for one in inputs:
        if one.labels[1] is not None:
            recorder.bar(one.labels[1], f"{call.path} mixes positions along these")
    heads, size = (
        recorder.meet(call, [one.labels[axis] for one in (query, key, value)])
        for axis in (2, 3)
    )
    if size is not None and given["scale"] is None:
        recorder.bar(size, f"{call.path} divides by the root of their number")
    elif size is not None:
        recorder.contract(call, (0, 3, size), key.labels[3])
    pairs = positions(query.shape, (2, 3))
    steps = positions(key.shape, (2, 3))
    uses = None if pairs is None or steps is None else 2 * pairs * steps
    rows = {2: heads, 3: size}
    for axis, labels in rows.items():
        if labels is None and uses is not None:
            uses = uses * (query.shape[axis] or 0)
    found = {axis: labels for axis, labels in rows.items() if labels is not None}
    recorder.multiply(call, uses, tuple(found.values()))
    return query.with_labels(call.output_shapes[0], found)


def _project(
    call: Call,
    inputs: list[TensorAxes],
    heads: tuple[Labels, Labels],
    sizes: tuple[Labels, Labels],
    made: Labels,
    recorder: Recorder,
) -> None:
    """Write down the weights; `sizes` are those of keys and of values."""
    given: dict[str, Any] = call.arguments(inputs)
    query, value, key = given["query"], given["value"], given.get("key")
    if key is None:
        key = value
    for one in (query, value, key):
        recorder.bar_space(one, one.rank - 1, call)
    keys, values = sizes
    taken = [(query, heads[0]), (key, heads[1]), (value, heads[1]), (query, heads[0])]
    parts = zip(("query", "key", "value", "gate"), taken, strict=True)
    for part, (tensor, owners) in parts:
        read = recorder.read(tensor, tensor.rank - 1, call)
        held = keys if part in ("query", "key") else values
        # Keys read what queries make, and a gate goes with what values make.
        role: Any = {"key": "in", "gate": "channel"}.get(part, "out")
        head: Any = "channel" if part == "gate" else "out"
        uses = positions(tensor.shape, [tensor.rank - 1])
        labels = (read, owners, held)
        recorder.weight(
            call,
            f"{part}/kernel",
            labels,
            ("in", head, role),
            uses,
            optional=part == "gate",
        )
        biased: Any = "in" if part == "key" else "channel"
        recorder.weight(
            call, f"{part}/bias", labels[1:], ("channel", biased), 0, optional=True
        )
    places = positions(query.shape, [query.rank - 1])
    recorder.weight(
        call,
        "attention_output/kernel",
        (heads[0], values, made),
        ("in", "in", "out"),
        places,
    )
    recorder.vector(call, "attention_output/bias", made, optional=True)
    # The layer divides by the root of the size of its keys.
    for name in ("query/kernel", "query/bias"):
        recorder.rescale(call, name, keys, 0.5, optional=True)
    axes = call.layer.get_config().get("attention_axes") or range(1, key.rank - 1)
    beside = set(range(key.rank)).difference(axis % key.rank for axis in axes)
    others = positions(key.shape, beside)
    pairs = None if places is None or others is None else places * others
    for size in sizes:
        recorder.multiply(call, pairs, (heads[0], size))


def _outputs(
    call: Call, inputs: list[TensorAxes], heads: Labels, made: Labels
) -> list[TensorAxes]:
    shape, *scores = call.output_shapes
    found = [inputs[0].with_labels(shape, {len(shape) - 1: made})]
    return found + [inputs[0].with_labels(s, {1: heads}) for s in scores]
