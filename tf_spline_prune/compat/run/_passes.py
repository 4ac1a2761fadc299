"""`Passes`: running models on calibration data up to one step after the other."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tf_spline_prune.compat.data._calibration import Calibration
from tf_spline_prune.compat.graph._program import Program, ProgramStep, Values
from tf_spline_prune.compat.run._execution import to_numpy
from tf_spline_prune.compat.run._states import states_kept

Visit = Callable[[ProgramStep, list[Values]], None]


class Passes:
    """Runs models of the same wiring side by side, again and again.

    Whoever changes the weights of a layer needs what goes into the next one, after
    the change. The tensors at which a pass stopped are kept where they fit into
    memory, so that the next pass goes on from there and not from the inputs.

    Args:
        programs: The models, of equal step names; the first gives the order.
        data: The calibration data.
        batch_size: How many inputs run at a time.
        max_bytes: How much memory the kept tensors may take.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        data: Calibration,
        batch_size: int = 32,
        max_bytes: int = 2**29,
    ) -> None:
        self.programs = programs
        self._models = [program.model for program in programs]
        self.order = list(programs[0].steps)
        self.max_bytes = max_bytes
        self.at = 0
        self._spent = [program.spent(self.order) for program in programs]
        self._start: list[list[Values]] = [
            [dict(zip(p.inputs, inputs, strict=True)) for p in programs]
            for inputs, _ in data.batches(batch_size)
        ]
        self._kept = self._start

    def run(self, first: int, last: int, visit: Visit) -> None:
        """Run all data up to a step, which itself is visited but not run.

        Args:
            first: Index of the first step that is of interest. The next pass goes on
                from here, or from the inputs if it is to start before.
            last: Index of the last step of interest.
            visit: Called as `visit(step, values)` for each batch, before each step
                from `first` to `last` would run, with the tensors of each model.
        """
        if first < self.at:
            self.at, self._kept = 0, self._start
        keep = True
        fresh: list[list[Values]] = []
        live = [program.live(self.order, first) for program in self.programs]
        for kept in self._kept:
            # Every batch begins from the states that the models have.
            with states_kept(*self._models):
                values = [
                    {slot: keras.ops.convert_to_tensor(x) for slot, x in one.items()}
                    for one in kept
                ]
                self._forward(self.at, first, values)
                if keep and first > self.at:
                    fresh.append(
                        [
                            {slot: to_numpy(one[slot]) for slot in wanted}
                            for one, wanted in zip(values, live, strict=True)
                        ]
                    )
                    size = sum(x.nbytes for one in fresh[0] for x in one.values())
                    keep = size * len(self._kept) <= self.max_bytes
                for place in range(first, last + 1):
                    visit(self.programs[0].steps[self.order[place]], values)
                    if place < last:
                        self._forward(place, place + 1, values)
        if keep and first > self.at:
            self._kept, self.at = fresh, first

    def _forward(self, first: int, last: int, values: list[Values]) -> None:
        """Run the steps from `first` to before `last`, and drop what nobody reads."""
        for place in range(first, last):
            for program, one, spent in zip(
                self.programs, values, self._spent, strict=True
            ):
                program.run([self.order[place]], one)
                for slot in spent[place]:
                    one.pop(slot, None)


def numpy_of(values: Values, slot: Any) -> np.ndarray:
    """Bring a tensor to the host, as float32 where it is a number."""
    array = to_numpy(values[slot])
    return array if array.dtype == np.float64 else array.astype("float32", copy=False)
