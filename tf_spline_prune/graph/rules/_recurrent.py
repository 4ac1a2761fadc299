"""Recurrent layers, and layers that wrap another one."""

from dataclasses import replace

import numpy as np

from tf_spline_prune.compat import Call, kind_of, parts_of
from tf_spline_prune.graph._facts import TensorAxes
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph.rules._elementwise import bar_if_mixing
from tf_spline_prune.graph.rules._registry import opaque, rule, rule_of

_GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


@rule(*_GATES)
def recurrent(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """Reads the last axis and its own units, through one kernel a gate."""
    return _one_direction(call, inputs, recorder)


def _one_direction(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    layer = call.layer
    value, *states = inputs
    recorder.bar_space(value, value.rank - 1, call)
    taken = recorder.read(value, value.rank - 1, call)
    made = recorder.units(call, layer.units)
    if layer.stateful:
        recorder.bar(made, f"{call.path} keeps its state from call to call")
    for attribute in ("activation", "recurrent_activation"):
        if hasattr(layer, attribute):
            bar_if_mixing(call, made, recorder, attribute, rank=2)
    for state in states:
        recorder.tie(made, recorder.read(state, state.rank - 1, call))
    gates = np.tile(made, _GATES[call.kind])
    steps = value.shape[1]
    recorder.weight(call, "kernel", (taken, gates), ("in", "out"), steps)
    recorder.weight(call, "recurrent_kernel", (made, gates), ("in", "out"), steps)
    # A GRU that resets after the product has one bias for each of its kernels.
    recorder.vector(call, "bias", gates, optional=True)
    recorder.resize(call, "units", made)
    return [value.with_labels(s, {len(s) - 1: made}) for s in call.output_shapes]


@rule("Bidirectional")
def bidirectional(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> list[TensorAxes]:
    """One layer in each direction, of the same number of units."""
    parts = parts_of(call.layer)
    ahead = parts["forward"]
    other = getattr(parts["backward"], "units", None)
    if kind_of(ahead) not in _GATES or other != ahead.units:
        return opaque(call, inputs, recorder)
    mode = call.layer.merge_mode
    merged = 2 if mode is None else 1
    states = (len(call.output_shapes) - merged) // 2
    half = (len(inputs) - 1) // 2
    shapes = (
        (*call.output_shapes[0][:-1], ahead.units),
        *[(None, ahead.units)] * states,
    )
    found: list[list[TensorAxes]] = []
    for name, key in (("forward", "layer"), ("backward", "backward_layer")):
        part = parts[name]
        inner = replace(call, layer=part, kind=kind_of(part), output_shapes=shapes)
        mine = inputs[1 + half :] if found else inputs[1 : 1 + half]
        with recorder.within(f"{name}/", f"{key}.config."):
            found.append(_one_direction(inner, [inputs[0], *mine], recorder))
    (first, *ahead_states), (second, *back_states) = found
    shape = call.output_shapes[0]
    if mode is None:
        outputs = [first, second]
    elif mode == "concat":
        both = np.concatenate([one.kept[one.rank - 1] for one in (first, second)])
        outputs = [first.with_labels(shape, {len(shape) - 1: both})]
    else:
        outputs = [first]
    return outputs + ahead_states + back_states


@rule("TimeDistributed")
def time_distributed(
    call: Call, inputs: list[TensorAxes], recorder: Recorder
) -> TensorAxes | list[TensorAxes]:
    """The layer inside, once at every step."""
    value = inputs[0]
    inner = call.layer.layer
    shape = call.output_shapes[0]
    one = TensorAxes((value.shape[0], *value.shape[2:]), (None, *value.labels[2:]))
    step = replace(
        call,
        layer=inner,
        kind=kind_of(inner),
        input_shapes=(one.shape,),
        output_shapes=((shape[0], *shape[2:]),),
    )
    known = rule_of(step)
    if known is None or len(inputs) > 1 or len(call.output_shapes) > 1:
        return opaque(call, inputs, recorder)
    steps = value.labels[1]
    times, rows = (value.shape[1], ()) if steps is None else (1, (steps,))
    with recorder.within("", "layer.config.", times, rows, shift=1):
        found = known.apply(step, [one], recorder)
    output = found[0] if isinstance(found, list) else found
    return TensorAxes(shape, (None, value.labels[1], *output.labels[1:]))
