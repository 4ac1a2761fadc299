"""Multiply-accumulates of a call, counted in the graph that TensorFlow makes of it."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from tf_spline_prune.compat._flavour import flavour_of
from tf_spline_prune.compat.graph._graph import Call

# What multiplies in ways that are not counted here.
_UNCOUNTABLE = (
    *("PyFunc", "EagerPyFunc", "PyFuncStateless", "CudnnRNN", "SparseMatMul"),
    *("SparseTensorDenseMatMul", "SparseMatrix", "Cholesky", "MatrixInverse"),
    *("MatrixSolve", "MatrixTriangularSolve", "MatrixExponential", "MatrixLogarithm"),
    *("MatrixDeterminant", "LogMatrixDeterminant", "MatrixSquareRoot", "Svd", "Qr"),
    *("SelfAdjointEig", "Eig", "Lu", "BandedTriangularSolve", "TridiagonalSolve"),
    *("TridiagonalMatMul", "FFT", "IFFT", "RFFT", "IRFFT", "BatchFFT", "Quantized"),
    *("Uniform_Quantized", "Xla", "RemoteCall", "_Fused", "_Mkl"),
)

# What depends on shapes alone; TensorFlow computes it beforehand.
_SHAPES_ONLY = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


def traced_macs(call: Call) -> int | None:
    """Count the multiply-accumulates of a call by tracing it.

    Counted is what multiplies and sums: products of matrices, einsum, convolutions,
    and a sum over a product; in loops once for each step. Nothing is computed.

    Args:
        call: A call whose inputs have known sizes, the batch axis apart.

    Returns:
        The number for one input of the model; `None` where it cannot be told: on
        other backends than TensorFlow, where the call cannot be traced, where a
        loop's number of steps is open, and behind operations such as an FFT.
    """
    if flavour_of(call.layer) != "tf_keras" and keras.config.backend() != "tensorflow":
        return None
    import tensorflow as tf
    from tensorflow.python.framework.func_graph import FuncGraph

    graph = FuncGraph("macs")
    batch = next((s[0] for s in call.input_shapes if s and s[0]), 1) or 1
    try:
        with _as_it_was(call.layer), graph.as_default():
            values = {
                number: tf.compat.v1.placeholder(dtype, (batch, *shape[1:]))
                for number, shape, dtype in zip(
                    call.inputs, call.input_shapes, call.input_dtypes, strict=True
                )
            }
            args, kwargs = call.fill(values)
            outputs = call.layer(*args, **kwargs)
            flat = [t for t in keras.tree.flatten(outputs) if hasattr(t, "op")]
        return _of_outputs(graph, flat) // batch
    except Exception:  # whatever a layer's own code raises: it cannot be traced
        return None


@contextmanager
def _as_it_was(layer: Any) -> Iterator[None]:
    """Put back what a layer notes down about its calls."""
    flatten = getattr(layer, "_flatten_layers", None)
    noted = (
        *("_losses", "_eager_losses"),
        *("_saved_model_inputs_spec", "_saved_model_arg_spec"),
    )
    held = [
        (one, name, list(value) if isinstance(value, list) else value)
        for one in (flatten() if flatten else ())
        for name in noted
        if hasattr(one, name)
        for value in [getattr(one, name)]
    ]
    try:
        yield
    finally:
        for one, name, value in held:
            object.__setattr__(one, name, value)


class _Uncountable(Exception):
    """What multiplies here cannot be counted."""


def _of_outputs(graph: Any, outputs: Sequence[Any]) -> int:
    """Count in all operations that lead from inputs or weights to some tensors."""
    varying: set[Any] = set()
    for op in graph.get_operations():  # inputs come before what reads them
        free = not op.inputs and op.type != "Const"
        read = any(tensor.op in varying for tensor in op.inputs)
        if op.type not in _SHAPES_ONLY and (free or read):
            varying.add(op)
    waiting = {tensor.op for tensor in outputs} & varying
    seen: set[Any] = set()
    count = 0
    while waiting:
        op = waiting.pop()
        seen.add(op)
        count += _of_operation(op)
        waiting |= ({tensor.op for tensor in op.inputs} & varying) - seen
    return count


def _of_operation(op: Any) -> int:
    if op.type in _COUNTS:
        return _COUNTS[op.type](op)
    if op.type.startswith(_UNCOUNTABLE):
        raise _Uncountable(op.type)
    if op.type in ("While", "StatelessWhile"):
        return _of_loop(op)
    if op.type in ("If", "StatelessIf", "Case", "StatelessCase"):
        names = (
            op.get_attr("branches")
            if "Case" in op.type
            else [op.get_attr("then_branch"), op.get_attr("else_branch")]
        )
        found = {_of_function(op, name) for name in names}
        if len(found) > 1:  # it depends on the data which is computed
            raise _Uncountable(op.type)
        return found.pop()
    if op.type.endswith("PartitionedCall"):
        return _of_function(op, op.get_attr("f"))
    return 0


def _of_function(op: Any, function: Any) -> int:
    body = _body(op, function)
    return _of_outputs(body, body.outputs)


def _body(op: Any, function: Any) -> Any:
    """Find the graph of a function that an operation calls, its shapes as here."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    called = op.graph._get_function(function.name)
    pairs = zip(called.graph.inputs, op.inputs, strict=True)
    known = [[t.shape.is_fully_defined() for t in pair] for pair in pairs]
    if all(inside or not outside for inside, outside in known):
        return called.graph
    # A function that was traced once for batches of any size.
    definition = copy.deepcopy(called.cached_definition)
    for argument in definition.arg_attr.values():
        argument.attr.pop("_output_shapes", None)
    shapes = [tensor.shape for tensor in op.inputs]
    return function_def_to_graph(definition, input_shapes=shapes)


def _of_loop(op: Any) -> int:
    body = _body(op, op.get_attr("body"))
    once = _of_outputs(body, body.outputs)
    if not once:
        return 0
    condition = op.graph._get_function(op.get_attr("cond").name).graph
    return once * min(_bounds(op, condition, body, condition.outputs[0].op))


def _bounds(op: Any, condition: Any, body: Any, test: Any) -> list[int]:
    """List how many steps each part of a loop's condition allows."""
    if test.type in ("LogicalAnd", "Identity"):
        parts = [_bounds(op, condition, body, i.op) for i in test.inputs]
        return [bound for found in parts for bound in found]
    if test.type != "Less":
        raise _Uncountable(op.type)
    count, limit = (_constant(op, condition, tensor) for tensor in test.inputs)
    places = [tensor is test.inputs[0] for tensor in condition.inputs]
    place = places.index(True)
    step = body.outputs[place].op
    while step.type == "Identity":
        step = step.inputs[0].op
    counts = [tensor is body.inputs[place] for tensor in step.inputs]
    if step.type not in ("AddV2", "Add") or not any(counts):
        raise _Uncountable(op.type)
    width = _constant(op, body, step.inputs[counts.index(False)])
    return [max(0, math.ceil((limit - count) / width))]


def _constant(op: Any, inside: Any, tensor: Any) -> int:
    """Return the value of a number in a loop, as it is when the loop begins."""
    from tensorflow.python.framework.smart_cond import smart_constant_value

    pairs = zip(inside.inputs, op.inputs, strict=True)
    outside = next((outer for one, outer in pairs if one is tensor), tensor)
    value = smart_constant_value(outside)
    if value is None:
        raise _Uncountable(op.type)
    return int(value)


def _size(tensor: Any) -> int:
    return math.prod(_sizes(tensor))


def _sizes(tensor: Any) -> list[int]:
    sizes = tensor.shape.as_list()
    if None in sizes:
        raise _Uncountable(tensor.name)
    return [int(size) for size in sizes]


def _matmul(op: Any) -> int:
    flipped = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
    return _size(op.outputs[0]) * _sizes(op.inputs[0])[-2 if flipped else -1]


def _convolution(op: Any) -> int:
    return _size(op.outputs[0]) * math.prod(_sizes(op.inputs[1])[:-1])


def _depthwise(op: Any) -> int:
    return _size(op.outputs[0]) * math.prod(_sizes(op.inputs[1])[:-2])


def _transposed(op: Any) -> int:
    return _size(op.inputs[2]) * math.prod(_sizes(op.inputs[1])[:-1])


def _transposed_depthwise(op: Any) -> int:
    return _size(op.inputs[2]) * math.prod(_sizes(op.inputs[1])[:-2])


def _einsum(op: Any) -> int:
    left, _, _ = op.get_attr("equation").decode().replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    if len(op.inputs) != 2:
        return 0
    for term, tensor in zip(left.split(","), op.inputs, strict=True):
        shape = _sizes(tensor)
        before, dots, after = term.partition("...")
        hidden = len(shape) - len(before) - len(after) if dots else 0
        # The axes of an ellipsis line up at its end.
        names = [*before, *map(str, range(hidden, 0, -1)), *after]
        for name, size in zip(names, shape, strict=True):
            sizes[name] = max(size, sizes.get(name, 1))
    return math.prod(sizes.values())


def _sum(op: Any) -> int:
    product = op.inputs[0].op
    if product.type != "Mul" or min(map(_size, product.inputs)) < 2:
        return 0
    return _size(product.outputs[0])


_COUNTS: dict[str, Callable[[Any], int]] = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
    "Conv": _convolution,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
    "DepthwiseConv2dNativeBackpropInput": _transposed_depthwise,
    "Sum": _sum,
}
