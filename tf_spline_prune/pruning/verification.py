"""`verify`: whether a shrunk model computes what it should."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, SEED, checked
from tf_spline_prune.compat import (
    Call,
    Graph,
    Program,
    call_layer,
    coarsest_dtype,
    fixed_size,
    in_batches,
    on_kept,
    predict,
    run_to_ends,
    same_randomness,
    sample_inputs,
    states_kept,
    trace,
    weight_variables,
    widest_dtype,
    with_dtype,
    with_mask,
    with_weights,
)
from tf_spline_prune.errors import (
    BlindVerificationWarning,
    FlavourError,
    VerificationError,
    warn,
)
from tf_spline_prune.graph import ChannelGraph, Meeting
from tf_spline_prune.graph.costing import cost_after
from tf_spline_prune.pruning.execution import PLAN
from tf_spline_prune.pruning.pruning_plan import PruningPlan

# How far two equal models may lie apart, relative to the spread of the outputs, and
# what rounding makes of their size: by the dtype of the model, and by that in which
# both were run.
_TOLERANCES = {
    ("float64", "float64"): (1e-9, 1e-13),
    ("float32", "float64"): (1e-5, 1e-6),
    ("float16", "float64"): (1e-2, 1e-3),
    ("float32", "float32"): (1e-4, 1e-5),
}
_COARSE = (5e-2, 5e-2)
# How far apart neighbouring numbers near one are, in the dtype of a run.
_EPSILONS = {"float64": 2**-52, "float32": 2**-23, "float16": 2**-10}
# A change so many times the tolerance is one that is seen.
_SEEN = 10.0
# Inputs so many times as large are tried where nothing is seen.
_SCALES = (10.0, 1000.0)
# How many inputs a comparison takes: as many as so many multiply-accumulates allow,
# for of few inputs none may wake a unit.
_FEWEST, _MOST, _MACS = 8, 64, 2**26

Outputs = list[np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What a comparison of a shrunk model with its reference found.

    Attributes:
        error: The largest difference of any output that was compared, relative to its
            spread.
        excess: The same, relative to what rounding explains: above 1 it is a fault.
        blind: Why nothing was proven; empty if something was.
        left_out: Numbers of the outputs that were not compared, for they are random.
    """

    error: float
    excess: float
    blind: str = ""
    left_out: tuple[int, ...] = ()


@checked(plan=PLAN, num_inputs=[COUNT, None], seed=SEED)
def verify(
    model: Any,
    small: Any,
    plan: PruningPlan,
    *,
    num_inputs: int | None = None,
    seed: int = 0,
) -> float:
    """Compare a shrunk model with the original in which nobody reads the units.

    The reference is the model with every reader's weights for the removed units
    set to zero, which is what removing a unit means, whatever its bias or
    normalisation. Both are run in float64 where the backend and the layers can, on
    random inputs of the kind that the model takes: ids over the whole vocabulary,
    words that it knows, smooth images in the range of its Rescaling or Normalization,
    numbers; open sizes are such as it can be run with. So is an unchanged copy of the
    model, next to the model itself: a fault of copying must not hide. Recurrent
    states and seeds are the same in all runs, and as they were afterwards.

    Compared is what enters the last softmax, sigmoid or tanh of an output, and the
    difference is measured against how far the reference moves from input to input.

    The comparison is blind if the reference does not answer to the removed units:
    neither their removal nor other weights of their readers move an output by more
    than rounding does, larger inputs tried. It is blind, too, if all outputs are
    random even with the same seeds, or if the model itself cannot be run on such
    inputs. Nothing is proven then: the answer is NaN, and a warning says so. A
    difference that is seen all the same is an error, and never blind.

    Args:
        model: The model that the plan was applied to.
        small: What `plan.apply(model)` gave, before any further training.
        plan: The plan.
        num_inputs: How many random inputs to compare on; at least two, and a
            multiple of the size of a batch that the model fixes. Defaults to 8, and
            up to 64 for a small model.
        seed: Seed of the inputs.

    Returns:
        The largest relative error: of each output `max|a - b| / spread`, where the
        spread is the root mean square, over the output's entries, of the reference's
        standard deviation over the inputs; of an output that does not move, its
        size. Where both are NaN or the same infinity,
        they agree; where one of them is, the error is NaN. So it is if the comparison
        is blind.

    Raises:
        PlanError: If the plan was made for another structure.
        VerificationError: If the two differ in the shapes of their outputs, or the
            shrunk model cannot be run where the model can.

    Example:

    ```python
    tsp.verify(model, plan.apply(model), plan)      # 3e-14
    ```
    """
    return _warned(_judge(model, small, plan, num_inputs, seed))


def require_verified(model: Any, small: Any, plan: PruningPlan) -> float:
    """Verify a shrunk model, and raise unless it computes what it should.

    Args:
        model: As in `verify`.
        small: As in `verify`.
        plan: As in `verify`.

    Returns:
        As `verify`; NaN if the comparison is blind, of which a warning tells.

    Raises:
        VerificationError: If the two differ by more than rounding explains.
    """
    verdict = _judge(model, small, plan, num_inputs=None, seed=0)
    if not verdict.excess <= 1:
        raise VerificationError(
            "The shrunk model does not compute what the original computes without "
            f"the removed units: relative error {verdict.error:.2g}, "
            f"{verdict.excess:.2g} times what rounding explains. This is a fault of a "
            "rule or of a layer's own rule; the original model is untouched. "
            "`verify=False` gives the model as it is."
        )
    return _warned(verdict)


def _warned(verdict: Verdict) -> float:
    """Say what was not proven, and give the error."""
    if verdict.blind:
        warn(
            f"The comparison is blind, so nothing is proven: {verdict.blind}. Compare "
            "the shrunk model on data of your own.",
            BlindVerificationWarning,
        )
        return float("nan")
    if verdict.left_out:
        warn(
            "Outputs that are random even with the same seeds were not compared. "
            f"Received: the outputs number {list(verdict.left_out)}; the others were",
            BlindVerificationWarning,
        )
    return verdict.error


def _judge(
    model: Any, small: Any, plan: PruningPlan, num_inputs: int | None, seed: int
) -> Verdict:
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    count = _enough(graph) if num_inputs is None else max(2, num_inputs)
    first = _tried(graph, small, removed, sample_inputs(graph.graph, count, seed))
    # Noise beside larger inputs is small, and would pass for a fault.
    if not first.blind or first.left_out:
        return first
    for scale in _SCALES:  # perhaps more is seen from further away
        inputs = sample_inputs(graph.graph, count, seed, scale)
        found = _tried(graph, small, removed, inputs)
        if np.isfinite(found.error) and not found.blind:
            return found
    return first


def _enough(graph: ChannelGraph) -> int:
    """Say how many inputs are compared on, if nobody does."""
    macs = cost_after(graph, graph.nothing_removed()).macs
    if macs is None or fixed_size(graph.graph.inputs):
        return _FEWEST
    return min(max(_FEWEST, _MACS // max(1, macs)), _MOST)


def _tried(
    graph: ChannelGraph, small: Any, removed: np.ndarray, inputs: list[np.ndarray]
) -> Verdict:
    """Compare as `verdict_on` does; blind where the model itself cannot be run."""
    try:
        return verdict_on(graph, small, removed, inputs)
    except (VerificationError, FlavourError):
        raise
    except Exception as error:  # whatever layers raise on drawn inputs
        raised = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if not _can_run(graph.model, inputs):
            why = "the model itself cannot be run on drawn inputs"
            shapes = [x.shape for x in inputs]
            return Verdict(0.0, 0.0, f"{why}, of shapes {shapes} ({raised})")
        if not _can_run(small, inputs):
            raise VerificationError(
                "The shrunk model cannot be run, and the original can. This is a "
                "fault of a rule, or of a layer's `from_config`; the original model "
                f"is untouched. Received: {raised}"
            ) from error
        raise


def _can_run(model: Any, inputs: list[np.ndarray]) -> bool:
    try:
        _run(predict, model, inputs)
    except Exception:  # whatever its layers raise
        return False
    return True


def verdict_on(
    graph: ChannelGraph, small: Any, removed: np.ndarray, inputs: list[np.ndarray]
) -> Verdict:
    """Compare a smaller model with the one in which nobody reads the removed units.

    Args:
        graph: The original model's channel graph.
        small: The smaller model.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        inputs: One array an input.

    Returns:
        What was found.

    Raises:
        VerificationError: If the two differ in the shapes of their outputs.
    """
    own = coarsest_dtype(graph.model)
    rounding = max(_tolerances(own, own))
    outputs, entering = _signals(graph.graph, inputs)
    apart, random = _own_call(graph.graph, inputs, outputs, rounding)
    used = [place for place in range(len(entering)) if place not in random]
    if not used:
        return Verdict(0.0, 0.0, "every output is random, whatever the seed", random)

    def chosen(outputs: Sequence[np.ndarray]) -> Outputs:
        return [outputs[place] for place in used]

    dtype, copy, cut, found, answer = _exactly(graph.model, small, inputs)
    copied = _distance(chosen(entering), chosen(found))
    if not copied <= rounding:
        # Rounding, or a fault of copying: a copy in the model's own dtype tells.
        same = _signals(trace(with_weights(graph.model, {})), inputs)[1]
        copied = _distance(chosen(entering), chosen(same))
    apart = _larger(apart, copied)
    tolerances = _tolerances(own, dtype)
    readers = list(_readers(graph, copy, removed))
    for variable, array, gone in readers:
        variable.assign(np.where(gone, 0, array))
    apply = _without_units(graph, cut, removed)
    reference = chosen(_signals(copy, inputs, apply)[1])
    scales = [_scale(output, dtype) for output in reference]
    seen = _answers(chosen(found), reference, scales, tolerances)
    if not seen and removed.any():
        rng = np.random.default_rng(0)
        for variable, array, gone in readers:
            signs = rng.choice([-1.0, 1.0], array.shape)
            variable.assign(np.where(gone, 0, array * signs))
        other = chosen(_signals(copy, inputs, apply)[1])
        seen = _answers(other, reference, scales, tolerances)
    error = excess = 0.0
    for wanted, given, scale in zip(reference, chosen(answer), scales, strict=True):
        if wanted.shape != given.shape:
            raise VerificationError(
                "A shrunk model must keep the shapes of its outputs. Expected: "
                f"{wanted.shape}. Received: {given.shape}"
            )
        distance = _apart(wanted, given)
        error = _larger(error, distance / scale[0])
        excess = _larger(excess, distance / _allowed(scale, tolerances))
    if not apart <= rounding:
        error, excess = _larger(error, apart), _larger(excess, apart / rounding)
    blind = ""
    if not seen and removed.any() and excess <= 1:
        blind = "no output answers to the removed units, or to those that read them"
    return Verdict(error, excess, blind, random)


def _tolerances(own: str, dtype: str) -> tuple[float, float]:
    if own == "bfloat16":
        own = "float16"
    return _TOLERANCES.get((own, dtype), _COARSE)


def _own_call(
    graph: Graph, inputs: list[np.ndarray], traced: Outputs, rounding: float
) -> tuple[float, tuple[int, ...]]:
    """Compare a model's own call with the outputs of what was traced of it.

    Returns:
        How far the two are apart, and the numbers of the outputs that are random
        even with the same seeds.
    """
    own = _run(predict, graph.model, inputs)
    other: Outputs | None = None
    apart, random = 0.0, []
    for place, (one, again) in enumerate(zip(own, traced, strict=True)):
        distance = _distance([one], [again])
        if distance <= rounding:
            continue
        if other is None:
            other = _run(predict, graph.model, inputs, seed=1)
            once_more = _signals(graph, inputs)[0]
        if _distance([one], [other[place]]) <= rounding:
            apart = _larger(apart, distance)  # not by chance
        elif not _distance([again], [once_more[place]]) <= rounding:
            random.append(place)
    return apart, tuple(random)


def _exactly(
    model: Any, small: Any, inputs: list[np.ndarray]
) -> tuple[str, Graph, Graph, Outputs, Outputs]:
    """Run copies of both models in the most precise dtype in which they run.

    Returns:
        The dtype, both copies, traced, and what enters the ends of each.
    """
    if widest_dtype(model) == "float64":
        try:
            pair = [trace(with_dtype(one, "float64")) for one in (model, small)]
            found, answer = (_signals(one, inputs)[1] for one in pair)
            return "float64", pair[0], pair[1], found, answer
        except Exception:  # whatever a layer raises that computes in its own dtype
            pass
    copy, cut = trace(with_weights(model, {})), trace(small)
    found, answer = (_signals(one, inputs)[1] for one in (copy, cut))
    return coarsest_dtype(model), copy, cut, found, answer


def _signals(
    graph: Graph, inputs: list[np.ndarray], apply: Callable[..., Any] = call_layer
) -> tuple[Outputs, Outputs]:
    """Run a model: its outputs, and what enters the last functions."""
    program = Program(graph)

    def run(some: list[np.ndarray]) -> list[Any]:
        tensors = [
            keras.ops.convert_to_tensor(x, None if i.dtype == "string" else i.dtype)
            for x, i in zip(some, graph.inputs, strict=True)
        ]
        outputs, entering = run_to_ends(program, tensors, apply)
        return [*outputs, *entering]

    found = _run(lambda _, x: in_batches(run, graph, x), graph.model, inputs)
    half = len(found) // 2
    return found[:half], found[half:]


def _run(
    run: Callable[[Any, list[np.ndarray]], Outputs],
    model: Any,
    inputs: list[np.ndarray],
    seed: int = 0,
) -> Outputs:
    """Run a model from fresh states and with the seeds of every other run."""
    with states_kept(model, fresh=True), same_randomness(model, seed):
        return run(model, inputs)


def _distance(expected: Outputs, found: Outputs) -> float:
    """Give the largest difference of any output, relative to the output's size."""
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            return float("inf")
        error = _apart(one, other)
        worst = _larger(worst, error / (_size(one) or 1.0))
    return worst


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Give the largest difference of two outputs.

    NaN is equal to NaN, and an infinity to itself; NaN if such an entry differs.
    """
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        differences = np.where(equal, 0.0, np.abs(one - other))
    finite = np.isfinite(differences).all()
    return float(differences.max(initial=0.0)) if finite else float("nan")


def _size(output: np.ndarray) -> float:
    """Give the largest number of an output that is finite."""
    return float(np.abs(output).max(initial=0.0, where=np.isfinite(output)))


def _scale(output: np.ndarray, dtype: str) -> tuple[float, float]:
    """Give the spread of an output over the inputs, and its size.

    An output that is the same for all inputs, but for the rounding of a run in this
    dtype, has its size for a spread. What is NaN or infinite has none.
    """
    if not output.size:
        return 1.0, 0.0
    size = _size(output)
    variances = np.ma.masked_invalid(output).var(axis=0)
    spread = float(np.sqrt(np.ma.filled(np.ma.mean(variances), 0.0)))
    moves = spread > 16 * _EPSILONS.get(dtype, 2**-7) * size
    return spread if moves else size or 1.0, size


def _allowed(scale: tuple[float, float], tolerances: tuple[float, float]) -> float:
    """Give the difference that rounding explains."""
    return max(tolerances[0] * scale[0], tolerances[1] * scale[1])


def _answers(
    found: Outputs,
    reference: Outputs,
    scales: list[tuple[float, float]],
    tolerances: tuple[float, float],
) -> bool:
    """Tell whether any output differs by more than what rounding explains."""
    return any(
        not _apart(one, other) <= _SEEN * _allowed(scale, tolerances)
        for one, other, scale in zip(found, reference, scales, strict=True)
    )


def _larger(first: float, second: float) -> float:
    return float(np.maximum(first, second))  # unlike max(), this keeps a NaN


def _readers(
    graph: ChannelGraph, copy: Graph, removed: np.ndarray
) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """List the weights of a copy that read removed units.

    Yields:
        The variable, its values, and a bool array that broadcasts to them: where
        they read units that are removed.
    """
    layers = {call.path: call.layer for call in copy.leaves()}
    for (path, name), fact in graph.weights.items():
        array = graph.arrays[path][name]
        gone = np.zeros([1] * array.ndim, bool)
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if role == "in" and labels is not None:
                shape = [1] * array.ndim
                shape[axis] = -1
                gone = gone | removed[graph.units_of(labels)].reshape(shape)
        if gone.any():
            # A copy, for what is read may be the variable's own memory.
            yield weight_variables(layers[path])[name], np.array(array), gone


def _without_units(
    graph: ChannelGraph, cut: Graph, removed: np.ndarray
) -> Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]:
    """Make what runs each call, minding those that no weight can speak for.

    Where units meet without a weight, one side is multiplied by zeros. Where a
    normalisation runs over units, it runs over the kept ones.
    """
    masks = _by_call(graph, graph.contractions, removed)
    norms = _by_call(graph, graph.mixings, removed)
    layers = {call.path: call.layer for call in cut.leaves()} if norms else {}

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if call.name in norms:
            kept = [
                (meeting.axis, np.flatnonzero(~_gone(graph, meeting, removed)))
                for meeting in norms[call.name]
            ]
            narrow = replace(call, layer=layers.get(call.path, call.layer))
            return on_kept(narrow, args, kwargs, kept)
        for meeting in masks.get(call.name, ()):
            keep = ~_gone(graph, meeting, removed)
            args, kwargs = with_mask(args, kwargs, meeting.input, meeting.axis, keep)
        return call_layer(call, args, kwargs)

    return apply


def _by_call(
    graph: ChannelGraph, meetings: Iterable[Meeting], removed: np.ndarray
) -> dict[str, list[Meeting]]:
    """Gather by call the meetings of units of which some are gone."""
    found: dict[str, list[Meeting]] = {}
    for meeting in meetings:
        if _gone(graph, meeting, removed).any():
            found.setdefault(meeting.call, []).append(meeting)
    return found


def _gone(graph: ChannelGraph, meeting: Meeting, removed: np.ndarray) -> np.ndarray:
    return np.asarray(removed[graph.units_of(meeting.labels)])
