"""The one place that knows two Keras flavours and touches Keras internals.

Everything above works on what this package hands out: which flavour an object
belongs to, the graph of a model as a list of calls that can be run with any
meaning of "call", weights by name, rebuilt models, and callbacks that either
flavour's `fit` accepts. Asking costs no import of the other flavour.
"""

from tf_spline_prune.compat.call_graph import Call, Graph, Input
from tf_spline_prune.compat.callback import Callback, learning_rate, save_model
from tf_spline_prune.compat.execution import (
    call_layer,
    call_tapped,
    compiled,
    predict,
    to_numpy,
)
from tf_spline_prune.compat.flavour import (
    Flavour,
    activation_name,
    flavour_of,
    keras_of,
    keras_root,
    require_flavour,
)
from tf_spline_prune.compat.messages import say
from tf_spline_prune.compat.rebuilding import (
    current_weights,
    rebuild,
    with_dtype,
    with_weights,
)
from tf_spline_prune.compat.samples import random_inputs
from tf_spline_prune.compat.tfmot import import_tfmot
from tf_spline_prune.compat.tracing import trace
from tf_spline_prune.compat.weights import (
    check_finite,
    read_weights,
    weight_names,
)

__all__ = [
    "Call",
    "Callback",
    "Flavour",
    "Graph",
    "Input",
    "activation_name",
    "call_layer",
    "call_tapped",
    "check_finite",
    "compiled",
    "current_weights",
    "flavour_of",
    "import_tfmot",
    "keras_of",
    "keras_root",
    "learning_rate",
    "predict",
    "random_inputs",
    "read_weights",
    "rebuild",
    "require_flavour",
    "save_model",
    "say",
    "to_numpy",
    "trace",
    "weight_names",
    "with_dtype",
    "with_weights",
]
