"""Which of TensorFlow's operations and functions compute, and do nothing else.

TensorFlow marks the operations that must not be folded away, not those that touch
files, run Python or end the process (`ReadFile` counts as stateless). So this is a
list of the families that may run, and everything else is refused. A family is a
module of `tensorflow.python.ops`, with the `gen_` of its operations left away.
"""

import importlib
import pathlib
import re
import types
from collections.abc import Iterable, Iterator
from typing import Any

_PURE = frozenset(
    "array_ops array_ops_stack bincount_ops bitwise_ops check_ops clip_ops "
    "confusion_matrix count_ops ctc_ops dct_ops embedding_ops fft_ops image_ops "
    "image_ops_impl linalg_impl linalg_ops linalg_ops_impl manip_ops math_ops mel_ops "
    "mfcc_ops nn_impl nn_ops numerics ragged_array_ops ragged_concat_ops "
    "ragged_conversion_ops ragged_getitem ragged_gather_ops ragged_math_ops "
    "ragged_squeeze_op ragged_string_ops ragged_where_op random_crop_ops "
    "random_index_shuffle_ops random_ops reconstruction_ops segment_id_ops set_ops "
    "sets_impl shape_ops sort_ops sparse_ops special_math_ops spectral_ops "
    "stateless_random_ops stateless_random_ops_v2 string_ops tensor_getitem_override "
    "tensor_math_operator_overrides uniform_quant_ops window_ops".split()
)
# What a graph of a model needs beside: its variables, tables, loops and branches.
_IN_GRAPHS = frozenset(
    "control_flow_ops cudnn_rnn_ops functional_ops list_ops lookup_ops optional_ops "
    "resource_variable_ops rnn_ops state_ops stateful_random_ops training_ops".split()
)
_PURE_NAMES = frozenset(
    "Assert DynamicPartition DynamicStitch IteratorGetNext ParallelDynamicStitch "
    "dynamic_partition dynamic_stitch".split()
)
_TEXT_TABLES = frozenset(
    ["InitializeTableFromTextFile", "InitializeTableFromTextFileV2"]
)
_IMPURE_NAMES = _TEXT_TABLES | {
    *("Abort", "RemoteCall", "SymbolicGradient"),
    "ImmutableConst",  # the content of a file, whatever its family says
}
_IMPURE_FUNCTION = re.compile("immutable_?const", re.IGNORECASE)
_CHECKPOINTS = frozenset(
    ["MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"]
)


def is_pure_function(function: Any) -> bool:
    """Return whether a function of TensorFlow computes and does nothing else."""
    if not isinstance(function, types.FunctionType):
        return False
    home = function.__module__
    if _IMPURE_FUNCTION.match(function.__name__):
        return False
    if home == "tensorflow.python.framework.tensor_conversion":
        return True
    family = home.rpartition(".")[2].removeprefix("gen_")
    pure = family in _PURE or function.__name__ in _PURE_NAMES
    return pure and home.startswith("tensorflow.python.ops.")


def is_pure_operation(name: str) -> bool:
    """Return whether an operation of a graph does nothing beyond its graph."""
    family = _family(name)
    if family is None or name in _IMPURE_NAMES:
        return False
    return family in _PURE | _IN_GRAPHS or name in _PURE_NAMES


def _family(operation: str) -> str | None:
    raw_ops = importlib.import_module("tensorflow").raw_ops
    function = getattr(raw_ops, operation, None)
    if function is None:
        return None
    return str(function.__module__).rpartition(".")[2].removeprefix("gen_")


def impure_operations(folder: pathlib.Path, text_tables: bool = False) -> list[str]:
    """List the operations of a SavedModel that may do more than compute.

    Those that write and read checkpoints are taken where only a saver asks for
    them, which nobody runs while loading.

    Args:
        folder: The folder of a SavedModel.
        text_tables: Whether tables may be read from text files.

    Returns:
        The operations' names, each once, sorted.

    Raises:
        OSError: If TensorFlow cannot read it.
    """
    loader = importlib.import_module("tensorflow.python.saved_model.loader_impl")
    taken = set(_TEXT_TABLES if text_tables else ())
    found: set[str] = set()
    metas = loader.parse_saved_model(str(folder)).meta_graphs
    for meta in metas:
        library = meta.graph_def.library.function
        asked = _exposed(meta) | {n for f in library for n in _called(f.node_def)}
        # A function can be called by its name, unless that is an operation's.
        own = {f.signature.name for f in library}
        names = taken | {name for name in own if _family(name) is None}
        # Of old graphs without objects, and where there are several, all may be run.
        by_objects = len(metas) == 1 and bool(meta.object_graph_def.nodes)
        found |= _impure(meta.graph_def.node, names, by_objects)
        for function in library:
            saves = by_objects and function.signature.name not in asked
            found |= _impure(function.node_def, names, saves)
    return sorted(found)


def _impure(nodes: Iterable[Any], taken: set[str], saves: bool) -> set[str]:
    names = {node.op for node in nodes} - taken - (_CHECKPOINTS if saves else set())
    return {name for name in names if not is_pure_operation(name)}


def _exposed(meta: Any) -> set[str]:
    """Collect the functions that can be called by who loads the graph."""
    objects, library = meta.object_graph_def, meta.graph_def.library
    found = set(objects.concrete_functions)
    for node in objects.nodes:
        found.update(node.function.concrete_functions)
        found.add(node.bare_concrete_function.concrete_function_name)
    for gradient in library.gradient:
        found.update((gradient.gradient_func, gradient.function_name))
    found.update(entry.gradient_func for entry in library.registered_gradients)
    return found


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield value.func.name
            yield from (function.name for function in value.list.func)
