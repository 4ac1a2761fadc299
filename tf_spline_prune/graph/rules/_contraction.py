"""Products of tensors, in which units meet units: Dot, matmul, einsum, Attention."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._facts import Labels, TensorAxes, positions
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._registry import opaque, rule


@rule("Dot")
def dot(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Sums over one axis of each input."""
    first, second = inputs
    axes = call.layer.axes
    a, b = (axes, axes) if isinstance(axes, int) else axes
    a, b = a % first.rank, b % second.rank
    if call.layer.normalize:
        return opaque(call, inputs, recorder)
    left = [c for axis, c in enumerate(_spell(first, "a")) if axis != a]
    right = [c for axis, c in enumerate(_spell(second, "n")) if axis not in (0, b)]
    one, two = _spell(first, "a"), list(_spell(second, "n"))
    two[0], two[b] = one[0], one[a]
    made = "".join([*left, *right])
    return product(
        call, inputs, (one, "".join(two), made[: len(call.output_shapes[0])]), recorder
    )


@rule("op:matmul")
def matmul(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Sums over the last axis of one input and the last but one of the other."""
    given = call.arguments([None] * len(inputs))
    flips = ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b")
    ranks = {value.rank for value in inputs}
    if len(inputs) != 2 or len(ranks) > 1 or any(given.get(flip) for flip in flips):
        return opaque(call, inputs, recorder)
    batch = _spell(inputs[0], "a")[:-2]
    return product(call, inputs, (f"{batch}xy", f"{batch}yz", f"{batch}xz"), recorder)


@rule("op:einsum")
def einsum(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Sums over the letters that the result lacks."""
    given = call.arguments(inputs)
    equation = given.get("subscripts", given.get("equation"))
    if equation is None:  # tf.einsum takes anything; the equation comes first
        equation = call.fill(dict.fromkeys(call.inputs))[0][0]
    left, _, made = str(equation).replace(" ", "").partition("->")
    terms = left.split(",")
    if len(inputs) != 2 or len(terms) != 2:
        return opaque(call, inputs, recorder)
    # What an ellipsis stands for must be as long wherever there is one.
    counts = {
        value.rank - len(term.replace("...", ""))
        for term, value in zip(terms, inputs, strict=True)
        if "..." in term
    }
    hidden = "".join(chr(0x3B1 + place) for place in range(max(counts, default=0)))
    terms = [term.replace("...", hidden) for term in terms]
    if len(counts) > 1 or any(len(set(term)) != len(term) for term in terms):
        return opaque(call, inputs, recorder)
    made = made.replace("...", hidden)
    return product(call, inputs, (terms[0], terms[1], made), recorder)


@rule("Attention")
def attention(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """Scores are products of query and key; the result holds the value's units."""
    if len(inputs) not in (2, 3) or call.layer.score_mode != "dot":
        return opaque(call, inputs, recorder)
    query, value = inputs[:2]
    key = inputs[-1]
    for one in inputs:
        recorder.bar_space(one, one.rank - 1, call)
    features = recorder.read(query, query.rank - 1, call)
    recorder.contract(
        call,
        (0, query.rank - 1, features),
        recorder.read(key, key.rank - 1, call),
    )
    held = value.labels[-1]
    pairs = positions(query.shape, [query.rank - 1])
    steps = positions(key.shape, [key.rank - 1])
    uses = None if pairs is None or steps is None else pairs * steps
    recorder.multiply(call, uses, (features,))
    width = 1 if held is not None else value.shape[-1]
    rows = () if held is None else (held,)
    recorder.multiply(call, uses and width and uses * width, rows)
    found = {} if held is None else {len(call.output_shapes[0]) - 1: held}
    outputs = [query.with_labels(call.output_shapes[0], found)]
    return outputs + [query.with_labels(s, {}) for s in call.output_shapes[1:]]


def product(
    call: Call,
    inputs: list[TensorAxes],
    letters: tuple[str, str, str],
    recorder: Recorder,
) -> TensorAxes:
    """Describe an einsum of two inputs.

    Args:
        call: The call.
        inputs: Two inputs.
        letters: The letters of their axes, and of the result's.
        recorder: Takes what there is to say.

    Returns:
        The result's axes.
    """
    known: dict[str, Labels] = {}
    for index, (value, spelt) in enumerate(zip(inputs, letters[:2], strict=True)):
        other, names = inputs[1 - index], letters[1 - index]
        for axis, letter in enumerate(spelt):
            labels = value.labels[axis]
            met = other.labels[names.index(letter)] if letter in names else None
            if labels is None:
                continue
            if letter in names and met is None:
                why = f"{call.path} joins them with values that are not units"
                recorder.bar(labels, why)
            elif letter not in names and letter not in letters[2]:
                recorder.bar(labels, f"{call.path} sums over them")
            elif index == 0 and met is not None and letter in letters[2]:
                recorder.tie(labels, met)
            elif index == 0 and met is not None:
                recorder.contract(call, (0, axis, labels), met)
            known.setdefault(letter, labels)
    sizes: dict[str, int | None] = {}
    for value, spelt in zip(inputs, letters[:2], strict=True):
        for letter, size in zip(spelt, value.shape, strict=True):
            if sizes.get(letter, 1) == 1:  # of an ellipsis it may be broadcast
                sizes[letter] = size
    uses: int | None = 1
    for letter, size in sizes.items():
        if letter not in known and letter != letters[0][0]:
            uses = None if uses is None or size is None else uses * size
    recorder.multiply(call, uses, tuple(known.values()))
    found = {a: known[c] for a, c in enumerate(letters[2]) if c in known}
    return inputs[0].with_labels(call.output_shapes[0], found)


def _spell(value: TensorAxes, first: str) -> str:
    return "".join(chr(ord(first) + axis) for axis in range(value.rank))
