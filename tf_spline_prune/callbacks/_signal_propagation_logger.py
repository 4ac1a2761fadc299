"""`SignalPropagationLogger`: signals, gradients and singular values, by epoch."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, Data, Integer, checked
from tf_spline_prune.compat import Callback
from tf_spline_prune.criteria._gates import LOSS
from tf_spline_prune.initialization import SignalPropagation, signal_propagation


class SignalPropagationLogger(Callback):
    """Log after each epoch how signals travel through the network.

    It puts these numbers into the logs, where History, TensorBoard and CSVLogger see
    them: `signal/emptied_layers`; `signal/dead_units`, their mean fraction;
    `signal/variance`, the mean square of the last layer's pre-activations over that of
    the first's; `signal/gradients`, the first layer's gradients over the last's, where
    there are labels; and `signal/singular_values` and `signal/condition`, the mean
    and the condition number of the Jacobian's.

    Args:
        x: Some hundred inputs.
        y: Their labels. Defaults to `None`, which measures no gradients.
        loss: What `compile` takes as `loss`. Defaults to `None`, which takes the
            model's.
        jacobian_inputs: Number of inputs at which the Jacobian of the outputs is taken;
            0 takes none. Defaults to `32`.
        every: Epochs from one measurement to the next; NaN is logged in between.
            Defaults to `1`.

    Attributes:
        diagnoses: What was measured, by epoch; -1 is before training.

    Raises:
        ValueError: If `every` is below 1; when training begins, whatever
            `signal_propagation` raises.

    Example:

    ```python
    logger = tsp.SignalPropagationLogger(x_train[:256], y_train[:256])
    masked.fit(train, epochs=20, callbacks=[logger])
    tsp.visualize.plot_signal_propagation(logger.diagnoses[-1], "before.png")
    ```

    Source: Lee et al., ICLR 2020; Hayou et al., ICLR 2021.
    """

    @checked(
        x=Data(),
        y=[Data(), None],
        loss=LOSS,
        jacobian_inputs=Integer(0, 2**31 - 1),
        every=COUNT,
    )
    def __init__(
        self,
        x: Any,
        y: Any = None,
        loss: Any = None,
        jacobian_inputs: int = 32,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.x = x
        self.y = y
        self.loss = loss
        self.jacobian_inputs = jacobian_inputs
        self.every = every
        self.diagnoses: dict[int, SignalPropagation] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Measure once, so that what cannot be measured is refused at once."""
        self.diagnoses = {-1: self._measured()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure, and put the numbers into the logs."""
        logs = {} if logs is None else logs
        if epoch % self.every == 0:
            self.diagnoses[epoch] = self._measured()
            numbers = _main_numbers(self.diagnoses[epoch])
        else:
            numbers = dict.fromkeys(_main_numbers(self.diagnoses[-1]), float("nan"))
        logs.update(
            {self._named_in_fit(name): value for name, value in numbers.items()}
        )

    def _measured(self) -> SignalPropagation:
        return signal_propagation(
            self.model, self.x, self.y, self.loss, self.jacobian_inputs
        )


def _main_numbers(found: SignalPropagation) -> dict[str, float]:
    variance = np.array(list(found.variance.values()))
    numbers = {
        "emptied_layers": float(len(found.emptied)),
        "dead_units": float(np.mean(list(found.dead_units.values()))),
        "variance": _fraction(variance[-1], variance[0]),
    }
    if found.gradients is not None:
        gradients = list(found.gradients.values())
        numbers["gradients"] = _fraction(gradients[0], gradients[-1])
    if (spectrum := found.jacobian) is not None:
        numbers["singular_values"] = spectrum["mean"]
        numbers["condition"] = spectrum["condition"]
    return {f"signal/{name}": value for name, value in numbers.items()}


def _fraction(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
