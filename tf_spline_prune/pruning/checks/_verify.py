"""`verify`: whether a shrunk model computes what it should."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, SEED, checked
from tf_spline_prune.compat import (
    Call,
    Graph,
    assigned,
    call_layer,
    can_overlay,
    coarsest_dtype,
    copied,
    fixed_size,
    in_batches,
    is_its_graph,
    on_kept,
    overlaid,
    own_outputs,
    run_to_ends,
    same_randomness,
    sample_inputs,
    trace,
    widest_dtype,
    with_mask,
)
from tf_spline_prune.errors import (
    BlindVerificationWarning,
    FlavourError,
    VerificationError,
    warn,
)
from tf_spline_prune.graph import ChannelGraph, Meeting
from tf_spline_prune.graph._cost import cost_after
from tf_spline_prune.pruning._remove_units import PLAN, Weights
from tf_spline_prune.pruning.checks._closeness import (
    Outputs,
    allowed,
    answers,
    difference,
    larger,
    relative_distance,
    scale_of,
    tolerances_of,
)
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan

# A change so many times the tolerance is one that is seen.
_SEEN = 10.0
# Where so much is seen, no more precise dtype is needed to see more.
_CLEARLY = 100.0
# Inputs so many times as large are tried where nothing is seen.
_SCALES = (10.0, 1000.0)
# How many inputs a comparison takes: as many as so many multiply-accumulates allow,
# for of few inputs none may wake a unit.
_FEWEST, _MOST, _MACS = 4, 64, 2**27

Holding = Callable[[Graph, Weights], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True)
class Verdict:
    """What a comparison of a shrunk model with its reference found.

    Attributes:
        error: The largest difference of any output that was compared, relative to its
            spread.
        excess: The same, relative to what rounding explains: above 1 it is a fault.
        blind: Why nothing was proven; empty if something was.
        left_out: Numbers of the outputs that were not compared, for they are random.
        seen: How many times what rounding explains the reference answers to the
            removed units.
    """

    error: float
    excess: float
    blind: str = ""
    left_out: tuple[int, ...] = ()
    seen: float = 0.0


@checked(plan=PLAN, num_inputs=[COUNT, None], seed=SEED)
def verify(
    model: Any,
    small: Any,
    plan: PruningPlan,
    *,
    num_inputs: int | None = None,
    seed: int = 0,
) -> float:
    """Verify a pruned model against the original with the pruned units masked.

    The reference is the model with every consumer's weights for the removed units
    set to zero, which is what removing a unit means, whatever its bias or
    normalisation. Both are run in float64 where the backend and the layers can, on
    random inputs of the kind that the model takes: ids over the whole vocabulary,
    words that it knows, smooth images in the range of its Rescaling or Normalization,
    numbers; open sizes are such as it can be run with. So is an unchanged copy of the
    model, next to the model itself: a fault of copying must not hide. Recurrent
    states and seeds are the same in all runs, and as they were afterwards.

    Compared is what enters the last softmax, sigmoid or tanh of an output, and the
    difference is measured against how far the reference moves from input to input.

    The comparison is blind if the reference does not depend on the pruned units:
    neither masking them nor other weights of their consumers change an output by more
    than rounding does, even for larger inputs. It is blind, too, if all outputs are
    random even with the same seeds, or if the model itself cannot be run on such
    inputs. Nothing is proven then: the result is NaN, and a warning says so. A
    difference that is seen nevertheless is an error, and never blind.

    Args:
        model: The model that the plan was applied to.
        small: What `plan.apply(model)` returned, before any further training.
        plan: The plan.
        num_inputs: Number of random inputs to compare on; at least two, and a multiple
            of the size of a batch that the model fixes. Defaults to `None`: 4, and up
            to 64 for a small model.
        seed: Seed of the inputs. Defaults to `0`.

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
    tsp.verify(model, plan.apply(model), plan) < 1e-9     # True
    ```
    """
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    comparison = Comparison(graph, graph.traced(small), removed, {}, exact=True)
    return _warned(comparison.verdict(num_inputs, seed))


def require_verified(
    graph: ChannelGraph, cut: Graph, removed: np.ndarray, changed: Weights
) -> float:
    """Verify a shrunk model, and raise unless it computes what it should.

    Args:
        graph: The original model's channel graph.
        cut: The smaller model, traced.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        changed: The weights that it was cut from where they are not the original's,
            by layer path and name.

    Returns:
        As `verify`; NaN if the comparison is blind, of which a warning tells.

    Raises:
        VerificationError: If the two differ by more than rounding explains.
    """
    verdict = Comparison(graph, cut, removed, changed).verdict()
    if not verdict.excess <= 1:
        raise VerificationError(
            "The pruned model does not compute what the original computes with the "
            f"pruned units masked: relative error {verdict.error:.2g}, "
            f"{verdict.excess:.2g} times what rounding explains. This is a fault of a "
            "rule or of a layer's own rule; the original model is untouched. "
            "`verify=False` returns the model as it is."
        )
    return _warned(verdict)


def _is_clear(verdict: Verdict) -> bool:
    """Return whether no fault was found, and one would have been seen."""
    return verdict.excess <= 1 and verdict.seen > _CLEARLY


def _warned(verdict: Verdict) -> float:
    """Warn of what was not proven, and return the error."""
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


@dataclass(frozen=True)
class _Pair:
    """Both models in one dtype: the original, which can be given other weights.

    Attributes:
        dtype: The dtype in which they are run.
        whole: The original, or a copy of it.
        cut: The smaller model, or a copy.
        holding: A context in which a model computes with other weights.
    """

    dtype: str
    whole: Graph
    cut: Graph
    holding: Holding


class Comparison:
    """A smaller model beside the original in which nobody reads the removed units.

    A plain graph of Keras' own layers is compared at a glance first. Else, or if that
    does not settle the matter, both are run as they are; and where that does not,
    because of rounding or because the reference hardly answers, copies of both are run
    in float64, if the backend and the layers can.

    Args:
        graph: The original model's channel graph.
        cut: The smaller model, traced.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        changed: The weights that it was cut from where they are not the original's,
            by layer path and name.
        exact: Whether only float64 settles the matter.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        cut: Graph,
        removed: np.ndarray,
        changed: Weights,
        exact: bool = False,
    ) -> None:
        self._graph, self._cut, self._removed = graph, cut, removed
        self._own = coarsest_dtype(graph.model)
        self._consumers = list(_consumers(graph, removed))
        self._changed = changed
        self._only_exact = exact

    def verdict(self, num_inputs: int | None = None, seed: int = 0) -> Verdict:
        """Compare on random inputs of the kind that the model takes, as in `verify`."""
        graph = self._graph.graph
        count = _enough(self._graph) if num_inputs is None else max(2, num_inputs)
        glance = self._at_a_glance(count, seed)
        if glance is not None:
            return glance
        first = self._tried(sample_inputs(graph, count, seed))
        # Noise beside larger inputs is small, and would pass for a fault.
        if not first.blind or first.left_out:
            return first
        for scale in _SCALES:  # perhaps more is seen from further away
            found = self._tried(sample_inputs(graph, count, seed, scale))
            if np.isfinite(found.error) and not found.blind:
                return found
        return first

    def _at_a_glance(self, count: int, seed: int) -> Verdict | None:
        """Compare in as little time as shows a fault; `None` unless it settles all.

        A graph of Keras' own layers is all that such a model runs, so its own call
        is not looked at; and its pictures are smaller, where its layers bear that.
        """
        whole = self._graph.graph
        if self._only_exact or not is_its_graph(whole):
            return None
        try:
            inputs = sample_inputs(whole, count, seed, small=True)
            entering = _signals(whole, inputs)[1]
            found = self._compared(self._as_they_are, inputs, entering, 0.0, ())
        except Exception:  # whatever it is, the whole comparison tells
            return None
        return found if _is_clear(found) else None

    def _tried(self, inputs: list[np.ndarray]) -> Verdict:
        """Compare as `verdict_on` does; blind where the model itself cannot be run."""
        try:
            return self.verdict_on(inputs)
        except (VerificationError, FlavourError):
            raise
        except Exception as error:  # whatever layers raise on drawn inputs
            raised = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            if not _can_run(self._graph.graph, inputs):
                why = "the model itself cannot be run on drawn inputs"
                shapes = [x.shape for x in inputs]
                return Verdict(0.0, 0.0, f"{why}, of shapes {shapes} ({raised})")
            if not _can_run(self._cut, inputs):
                raise VerificationError(
                    "The shrunk model cannot be run, and the original can. This is a "
                    "fault of a rule, or of a layer's `from_config`; the original "
                    f"model is untouched. Received: {raised}"
                ) from error
            raise

    def verdict_on(self, inputs: list[np.ndarray]) -> Verdict:
        """Compare on some inputs, one array per input of the model.

        Raises:
            VerificationError: If the two differ in the shapes of their outputs.
        """
        rounding = max(tolerances_of(self._own, self._own))
        outputs, entering = _signals(self._graph.graph, inputs)
        apart, random = _own_call(self._graph.graph, inputs, outputs, rounding)
        if len(random) == len(outputs):
            why = "every output is random, whatever the seed"
            return Verdict(0.0, 0.0, why, random)
        own = (inputs, entering, apart, random)
        precise = widest_dtype(self._graph.model) == "float64"
        found = None
        if not (self._only_exact and precise):
            found = self._compared(self._as_they_are, *own)
            if _is_clear(found) or not precise:
                return found
        try:
            return self._compared(self._exact, *own)
        except VerificationError:
            raise
        except Exception:  # whatever a layer raises that computes in its own dtype
            return found or self._compared(self._as_they_are, *own)

    @functools.cached_property
    def _as_they_are(self) -> _Pair:
        whole = self._graph.graph
        if can_overlay(whole):
            return _Pair(self._own, whole, self._cut, overlaid)
        return _Pair(self._own, trace(copied(whole)), self._cut, assigned)

    @functools.cached_property
    def _exact(self) -> _Pair:
        pair = (self._graph.graph, self._cut)
        whole, cut = (trace(copied(one, dtype="float64")) for one in pair)
        return _Pair("float64", whole, cut, assigned)

    def _compared(
        self,
        pair: _Pair,
        inputs: list[np.ndarray],
        entering: Outputs,
        apart: float,
        random: tuple[int, ...],
    ) -> Verdict:
        """Compare in one dtype.

        Args:
            pair: The models.
            inputs: One array per input.
            entering: What enters the ends of the original, as it is.
            apart: How far its own call is from what was traced of it.
            random: Numbers of the outputs that are random whatever the seed.
        """

        def chosen(outputs: Outputs) -> Outputs:
            return [y for place, y in enumerate(outputs) if place not in random]

        whole, rounding = pair.whole, max(tolerances_of(self._own, self._own))
        found = entering
        if whole is not self._graph.graph:  # a fault of copying must not hide
            found = _signals(whole, inputs)[1]
            copied_apart = relative_distance(chosen(entering), chosen(found))
            if not copied_apart <= rounding and pair.dtype != self._own:
                # Rounding, or a fault of copying: a copy in the own dtype tells.
                same = trace(copied(self._graph.graph))
                again = chosen(_signals(same, inputs)[1])
                copied_apart = relative_distance(chosen(entering), again)
            apart = larger(apart, copied_apart)
        apply = _without_units(self._graph, pair.cut, self._removed)
        held = self._weights(_zeroed)
        with pair.holding(whole, held):
            reference = chosen(_signals(whole, inputs, apply)[1])
        tolerances = tolerances_of(self._own, pair.dtype)
        scales = [scale_of(output, pair.dtype) for output in reference]
        answer = chosen(_signals(pair.cut, inputs)[1])
        error = excess = 0.0
        for wanted, given, scale in zip(reference, answer, scales, strict=True):
            if wanted.shape != given.shape:
                raise VerificationError(
                    "A shrunk model must keep the shapes of its outputs. Expected: "
                    f"{wanted.shape}. Received: {given.shape}"
                )
            distance = difference(wanted, given)
            error = larger(error, distance / scale[0])
            excess = larger(excess, distance / allowed(scale, tolerances))
        seen = answers(chosen(found), reference, scales, tolerances)
        if seen <= _CLEARLY and self._removed.any():
            rng = np.random.default_rng(0)

            def turned(array: np.ndarray, gone: np.ndarray) -> np.ndarray:
                return _zeroed(array * rng.choice([-1.0, 1.0], array.shape), gone)

            with pair.holding(whole, self._weights(turned)):
                other = chosen(_signals(whole, inputs, apply)[1])
            seen = max(seen, answers(other, reference, scales, tolerances))
        if not apart <= rounding:
            error, excess = larger(error, apart), larger(excess, apart / rounding)
        blind = ""
        if seen <= _SEEN and self._removed.any() and excess <= 1:
            blind = "no output depends on the pruned units or on their consumers"
        if not self._removed.any():
            seen = float("inf")
        return Verdict(error, excess, blind, random, seen)

    def _weights(
        self, change: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> dict[str, dict[str, np.ndarray]]:
        """Return the weights of the reference: what was changed, and what is read."""
        weights = {path: dict(arrays) for path, arrays in self._changed.items()}
        for path, name, gone in self._consumers:
            array = weights.get(path, {}).get(name, self._graph.arrays[path][name])
            weights.setdefault(path, {})[name] = change(array, gone)
        return weights


def _zeroed(array: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Copy a weight, which is finite, with zeros where it reads removed units."""
    return np.asarray(array * (~gone).astype(array.dtype))


def _enough(graph: ChannelGraph) -> int:
    """Choose how many inputs are compared on, if nobody says."""
    macs = cost_after(graph, graph.nothing_removed()).macs
    if macs is None or fixed_size(graph.graph.inputs):
        return _FEWEST
    return min(max(_FEWEST, _MACS // max(1, macs)), _MOST)


def _can_run(graph: Graph, inputs: list[np.ndarray]) -> bool:
    try:
        _run(own_outputs, graph, inputs)
    except Exception:  # whatever its layers raise
        return False
    return True


def _own_call(
    graph: Graph, inputs: list[np.ndarray], traced: Outputs, rounding: float
) -> tuple[float, tuple[int, ...]]:
    """Compare a model's own call with the outputs of what was traced of it.

    Returns:
        How far the two are apart, and the numbers of the outputs that are random
        even with the same seeds.
    """
    own = _run(own_outputs, graph, inputs)
    other: Outputs | None = None
    apart, random = 0.0, []
    for place, (one, again) in enumerate(zip(own, traced, strict=True)):
        distance = relative_distance([one], [again])
        if distance <= rounding:
            continue
        if other is None:
            other = _run(own_outputs, graph, inputs, seed=1)
            once_more = _signals(graph, inputs)[0]
        if relative_distance([one], [other[place]]) <= rounding:
            apart = larger(apart, distance)  # not by chance
        elif not relative_distance([again], [once_more[place]]) <= rounding:
            random.append(place)
    return apart, tuple(random)


def _signals(
    graph: Graph, inputs: list[np.ndarray], apply: Callable[..., Any] = call_layer
) -> tuple[Outputs, Outputs]:
    """Run a model: its outputs, and what enters the last functions."""

    def run(some: list[np.ndarray]) -> list[Any]:
        tensors = [
            keras.ops.convert_to_tensor(x, None if i.dtype == "string" else i.dtype)
            for x, i in zip(some, graph.inputs, strict=True)
        ]
        outputs, entering = run_to_ends(graph, tensors, apply)
        return [*outputs, *entering]

    found = _run(lambda graph, x: in_batches(run, graph, x), graph, inputs)
    half = len(found) // 2
    return found[:half], found[half:]


def _run(
    run: Callable[[Graph, list[np.ndarray]], Outputs],
    graph: Graph,
    inputs: list[np.ndarray],
    seed: int = 0,
) -> Outputs:
    """Run a model from fresh states and with the seeds of every other run."""
    with same_randomness(graph.model, seed, fresh=True):
        return run(graph, inputs)


def _consumers(
    graph: ChannelGraph, removed: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    """List the weights that read removed units.

    Yields:
        The layer's path, the weight's name, and a bool array that broadcasts to it:
        where it reads units that are removed.
    """
    for (path, name), fact in graph.weights.items():
        gone = np.zeros([1] * len(fact.shape), bool)
        for axis, (labels, role) in enumerate(zip(fact.axes, fact.roles, strict=True)):
            if role == "in" and labels is not None:
                shape = [1] * len(fact.shape)
                shape[axis] = -1
                gone = gone | removed[graph.units_of(labels)].reshape(shape)
        if gone.any():
            yield path, name, gone


def _without_units(
    graph: ChannelGraph, cut: Graph, removed: np.ndarray
) -> Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]:
    """Make what runs each call, minding those that no weight can speak for.

    Where units meet without a weight, one side is multiplied by zeros. Where a
    normalisation runs over units, it runs over the kept ones.
    """
    masks = _by_call(graph, graph.contractions, removed)
    norms = _by_call(graph, graph.mixings, removed)
    layers = cut.layers if norms else {}

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
