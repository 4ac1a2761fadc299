"""`Dense` and `EinsumDense`."""

from tf_spline_prune.compat import Call, config_of
from tf_spline_prune.graph._facts import Labels, Role, TensorAxes, positions
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._elementwise import bar_if_mixing
from tf_spline_prune.graph.rules._registry import rule


@rule("Dense")
def dense(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Reads the last axis, makes new units on it."""
    (value,) = inputs
    shape = call.output_shapes[0]
    last = value.rank - 1
    taken = recorder.read(value, last, call)
    made = recorder.units(call, call.layer.units)
    bar_if_mixing(call, made, recorder)
    inner = {axis: labels for axis, labels in value.kept.items() if axis != last}
    for held in inner.values():
        bar_if_mixing(call, held, recorder)
    uses = positions(shape, [*inner, last])
    recorder.weight(
        call, "kernel", (taken, made), ("in", "out"), uses, tuple(inner.values())
    )
    recorder.vector(call, "bias", made, optional=True)
    recorder.resize(call, "units", made)
    return value.with_labels(shape, {**inner, last: made})


@rule("EinsumDense")
def einsum_dense(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes:
    """Every letter is an axis: summed, made, or handed on."""
    (value,) = inputs
    shape = call.output_shapes[0]
    taken, kernel, made = letters_of(call.layer.equation, value.rank, len(shape))
    labels: dict[str, Labels] = {}
    for axis, letter in enumerate(taken):
        held = value.labels[axis]
        if held is not None and letter not in kernel and letter not in made:
            recorder.bar(held, f"{call.path} sums over them")
        elif held is not None:
            labels[letter] = held
    roles: list[Role | None] = []
    new = [letter for letter in kernel if letter in made and letter not in taken]
    for letter in kernel:
        if letter in new:
            size = shape[made.index(letter)] or 0
            units = recorder.units(call, size, letter if len(new) > 1 else "")
            labels[letter] = units
            roles.append("out")
        elif letter in taken and letter not in made:
            labels[letter] = recorder.read(value, taken.index(letter), call)
            roles.append("in")
        else:
            roles.append("channel" if letter in labels else None)
    sizes = dict(zip(taken + made, (*value.shape, *shape), strict=True))
    outside = [c for c in sizes if c not in kernel and c != taken[0]]
    rows = [labels[c] for c in outside if c in labels]
    uses = positions([None, *(sizes[c] for c in outside if c not in labels)], ())
    recorder.weight(call, "kernel", [labels.get(c) for c in kernel], roles, uses, rows)
    _bias(call, made, labels, recorder)
    given = config_of(call.layer)["output_shape"]
    found = {axis: labels[c] for axis, c in enumerate(made) if c in labels}
    for axis, held in found.items():
        bar_if_mixing(call, held, recorder)
        # The entry may leave out leading axes.
        index = axis - len(made) + len(given)
        if index >= 0:
            recorder.resize(call, "output_shape", held, index)
    return value.with_labels(shape, found)


def _bias(call: Call, made: str, labels: dict[str, Labels], recorder: Recorder) -> None:
    """Write down a bias, which spans the output from the first biased axis on."""
    biased = call.layer.bias_axes or ""
    tail = made[min((made.index(c) for c in biased), default=len(made)) :]
    axes = [labels.get(c) if c in biased else None for c in tail]
    roles: list[Role | None] = ["channel" if a is not None else None for a in axes]
    recorder.weight(call, "bias", axes, roles, 0, optional=True)


def letters_of(equation: str, taken_rank: int, made_rank: int) -> tuple[str, str, str]:
    """Spell an equation with one letter an axis, the ellipsis written out."""
    left, _, made = equation.replace(" ", "").partition("->")
    taken, _, kernel = left.partition(",")
    free = (chr(code) for code in range(0x3B1, 0x3B1 + 24))  # no equation has these
    hidden = "".join(next(free) for _ in range(taken_rank - len(taken) + 3))
    hidden = hidden[: max(0, taken_rank - len(taken.replace("...", "")))]
    return taken.replace("...", hidden), kernel, made.replace("...", hidden)


@rule("Embedding")
def embedding(call: Call, inputs: list[TensorAxes], recorder: Recorder) -> TensorAxes:
    """Makes units on a new last axis; the indices themselves must stay."""
    (value,) = inputs
    recorder.bar_tensor(value, f"{call.path} uses them as indices")
    made = recorder.units(call, call.layer.output_dim)
    recorder.weight(call, "embeddings", (None, made), (None, "out"), 0)
    recorder.resize(call, "output_dim", made)
    shape = call.output_shapes[0]
    return value.with_labels(shape, {len(shape) - 1: made})


@rule("ReversibleEmbedding")
def reversible_embedding(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Makes units as an embedding does; backwards, reads them and makes words."""
    if not call.arguments(inputs)["reverse"]:
        made = recorder.units(call, call.layer.output_dim)
        # Of a table of its own, whether or not it is used.
        axes = (made, None)
        recorder.weight(
            call, "reverse_embeddings", axes, ("in", None), 0, optional=True
        )
        return embedding(call, inputs, recorder)
    (value,) = inputs
    last = value.rank - 1
    taken = recorder.read(value, last, call)
    inner = {axis: labels for axis, labels in value.kept.items() if axis != last}
    uses, rows = positions(value.shape, [*inner, last]), tuple(inner.values())
    if call.layer.tie_weights:
        made = recorder.units(call, call.layer.output_dim)
        # The table makes units, and speaks of none that it reads.
        recorder.contract(call, (0, last, taken), made)
        recorder.weight(call, "embeddings", (None, made), (None, "out"), uses, rows)
    else:
        recorder.weight(
            call, "reverse_embeddings", (taken, None), ("in", None), uses, rows
        )
    return value.with_labels(call.output_shapes[0], inner)
