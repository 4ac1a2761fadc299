"""`Program`: a model as one flat list of steps, which can be run piece by piece."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tf_spline_prune.compat.graph._call_graph import Arguments, Call, Graph, declared
from tf_spline_prune.compat.run._execution import call_layer


class Slot(str):
    """The name of a tensor in a program: of a call, and which of its outputs.

    Attributes:
        dtype: What the nested model that reads it wants it to be, if any does.
    """

    dtype: str | None = None

    def declared(self, dtype: str) -> "Slot":
        """Return the same tensor, read as another dtype."""
        slot = Slot(self)
        slot.dtype = dtype
        return slot


Values = dict[Slot, Any]


@dataclass(frozen=True, eq=False)
class ProgramStep:
    """One call, with slots in the place of tensors.

    Attributes:
        name: Name of the call; of one without weights, whose name may differ from
            copy to copy, the kind and a number.
        call: The call.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        outputs: The slots that it fills.
    """

    name: str
    call: Call
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Slot, ...]

    @property
    def inputs(self) -> list[Slot]:
        """The slots that it reads, in the order of the arguments."""
        given = keras.tree.flatten((self.args, self.kwargs))
        return [value for value in given if isinstance(value, Slot)]


class Program:
    """The steps of a model, those of nested models in the place of the model.

    Two models of the same wiring have the same step names and slots, so that their
    tensors can be compared one by one.

    Args:
        graph: What `trace` gave.

    Attributes:
        model: The model.
        inputs: Slots of the model's inputs.
        steps: The steps by name, in an order of computation that ends one branch
            before it begins the next.
        outputs: Slots of the model's outputs.
    """

    def __init__(self, graph: Graph) -> None:
        self.model = graph.model
        self.steps: dict[str, ProgramStep] = {}
        self.inputs = [Slot(f"input:{i}") for i in range(len(graph.inputs))]
        self.outputs: list[Slot] = graph.run(list(self.inputs), self._record)
        self.steps = self._branch_by_branch()

    def _record(self, call: Call, args: Any, kwargs: Any) -> Any:
        first = call.name if getattr(call.layer, "weights", ()) else call.kind
        name, count = first, 1
        while name in self.steps:
            count += 1
            name = f"{first} ({count})"
        outputs = tuple(Slot(f"{name}:{i}") for i in range(len(call.outputs)))
        self.steps[name] = ProgramStep(name, call, args, kwargs, outputs)
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def _branch_by_branch(self) -> dict[str, ProgramStep]:
        """Put each step right after what it needs: little has to be held at a time."""
        makers = {s: step for step in self.steps.values() for s in step.outputs}
        ordered: dict[str, ProgramStep] = {}
        for output in self.outputs:
            stack = [makers[output]] if output in makers else []
            while stack:
                step = stack[-1]
                needed = [makers[slot] for slot in step.inputs if slot in makers]
                missing = [one for one in needed if one.name not in ordered]
                if missing:
                    stack.append(missing[0])
                else:
                    ordered[stack.pop().name] = step
        return {**ordered, **self.steps}

    def wiring(self) -> dict[str, list[Slot]]:
        """Return the slots that each step reads, by the step's name."""
        return {name: step.inputs for name, step in self.steps.items()}

    def run(
        self,
        names: Iterable[str],
        values: Values,
        apply: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any] = call_layer,
    ) -> None:
        """Run steps in inference mode.

        Args:
            names: Names of the steps, each after those that it needs.
            values: The tensors by slot; what the steps give is added.
            apply: What to do at each call, as in `Graph.run`.
        """
        for name in names:
            step = self.steps[name]
            result = apply(step.call, *self.arguments(step, values))
            found = [result] if len(step.outputs) == 1 else keras.tree.flatten(result)
            if isinstance(found[0], (list, tuple)) and len(found[0]) == 1:
                found = list(found[0])
            values.update(zip(step.outputs, found, strict=True))

    def arguments(self, step: ProgramStep, values: Values) -> Arguments:
        """Return a step's arguments, with tensors in the place of slots."""
        filled: Arguments = keras.tree.map_structure(
            lambda part: _read(values, part) if isinstance(part, Slot) else part,
            (step.args, step.kwargs),
        )
        return filled

    def live(self, order: Sequence[str], place: int) -> set[Slot]:
        """List the slots that are filled before a place and read from there on.

        Args:
            order: All step names, in the order of running.
            place: Index of a step.

        Returns:
            The slots.
        """
        made = {slot for name in order[place:] for slot in self.steps[name].outputs}
        read = {slot for name in order[place:] for slot in self.steps[name].inputs}
        return (read | set(self.outputs)) - made

    def spent(self, order: Sequence[str]) -> list[list[Slot]]:
        """List the slots that nobody reads any more after each step.

        Args:
            order: All step names, in the order of running.

        Returns:
            For each step the slots that were read, or filled, by it last.
        """
        last = {
            slot: place
            for place, name in enumerate(order)
            for slot in (*self.steps[name].inputs, *self.steps[name].outputs)
        }
        found: list[list[Slot]] = [[] for _ in order]
        for slot, place in last.items():
            if slot not in self.outputs:
                found[place].append(slot)
        return found


def _read(values: Values, slot: Slot) -> Any:
    return declared(values[slot], slot.dtype) if slot.dtype else values[slot]
