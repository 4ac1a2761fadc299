"""`Connections`: the weights of a model, exchanged and differentiated in float64."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import keras
import numpy as np

from tf_spline_prune.compat import (
    Calibration,
    Gradients,
    Graph,
    Progress,
    hand_on_loss,
    hessian_products,
    loss_hessian_products,
    trace,
    value_and_grad,
    weight_gradients,
    weight_variables,
    widest_dtype,
    with_dtype,
)
from tf_spline_prune.errors import CriterionError
from tf_spline_prune.partition._logits import Logits
from tf_spline_prune.partition.codes._knots import knots_of


class Connections:
    """The prunable weights of a model, on a copy of it in the widest dtype.

    The copy runs in inference mode. Its weights are exchanged as masks change, so
    that the functions that differentiate it are compiled once.

    Args:
        model: A built model of either flavour. It is not changed.
        names: For each layer's path the names of the weights that are meant.

    Attributes:
        names: The same.
        weights: The weights as they were, by layer path and name, float64.
        current: The weights as they are by now.
    """

    def __init__(self, model: Any, names: Mapping[str, Iterable[str]]) -> None:
        self.names = {path: tuple(given) for path, given in names.items()}
        self._model = with_dtype(model, widest_dtype(model))
        hand_on_loss(model, self._model)
        self._graph = trace(self._model)
        layers = self._graph.layers
        held = {path: weight_variables(layers[path]) for path in self.names}
        self._variables = {
            path: {name: held[path][name] for name in given}
            for path, given in self.names.items()
        }
        self.weights = {
            path: {
                name: np.array(keras.ops.convert_to_numpy(v)) for name, v in of.items()
            }
            for path, of in self._variables.items()
        }
        self.current = self.weights
        self._made: dict[Any, tuple[Any, Any]] = {}
        self._positive = False

    def assign(self, weights: Gradients) -> None:
        """Set other weights on the copy, such as those that masks leave.

        Args:
            weights: Arrays by layer path and name, as in `weights`.
        """
        self.current = weights
        for path, variables in self._variables.items():
            for name, variable in variables.items():
                array = weights[path][name]
                variable.assign(np.abs(array) if self._positive else array)

    def gradients(self, data: Calibration, loss: Any, batch_size: int) -> Gradients:
        """Differentiate the mean loss over all data.

        Args:
            data: Inputs, and labels where the loss reads any.
            loss: As in `compat.value_and_grad`, or one of `Unsupervised`.
            batch_size: How many examples run at a time.

        Returns:
            The gradients by layer path and name.

        Raises:
            CriterionError: If the loss is not finite.
        """
        gradients, _ = self._derivatives(loss, 1.0)
        return self._mean(data, batch_size, gradients)

    def hessian_times_gradient(
        self, data: Calibration, loss: Any, batch_size: int, temperature: float
    ) -> Gradients:
        """Multiply the Hessian of the mean loss by its gradient.

        Args:
            data: As in `gradients`.
            loss: As in `gradients`.
            batch_size: As in `gradients`.
            temperature: What goes into the function that ends the model is divided
                by this number first.

        Returns:
            The products by layer path and name.

        Raises:
            CriterionError: If the loss is not finite, or the model has several
                outputs and `temperature` is not 1.
        """
        gradients, product = self._derivatives(loss, temperature)
        vector = self._mean(data, batch_size, gradients)
        return self._mean(data, batch_size, lambda x, y: product(x, y, vector))

    def flow(self) -> Gradients:
        """Differentiate the sum of the outputs of the network of absolute weights.

        All parameters of the copy are positive from then on, biases and statistics
        too; the input is ones. Activations let everything through, as ReLU does with
        what is positive; else a tanh of many inputs would be flat. Those that are
        multiplied with something, gates, stay as they are.

        Returns:
            The gradients by layer path and name.

        Raises:
            CriterionError: If numbers overflow.
        """
        if not self._positive:
            self._positive = True
            for variable in self._model.weights:
                values = keras.ops.convert_to_numpy(variable)
                if values.dtype.kind == "f":
                    variable.assign(np.abs(values))
            logits = Logits(self._graph, _activations(self._graph))

            def total(inputs: list[Any], labels: Any) -> Any:
                return sum(keras.ops.sum(output) for output in logits(inputs))

            self._flow = weight_gradients(total, self._model, self.names)
        ones = [
            np.ones((1, *(length or 1 for length in i.shape[1:])), i.dtype)
            for i in self._graph.inputs
        ]
        value, gradients = self._flow(ones, np.zeros(1))
        _require_finite(value)
        return gradients

    def _derivatives(self, loss: Any, temperature: float) -> tuple[Any, Any]:
        """Make, once for all rounds, what differentiates a loss once and twice."""
        key = (loss if isinstance(loss, str) else id(loss), temperature)
        if key not in self._made:
            logits = Logits(self._graph)
            if is_unsupervised(loss):
                total = without_labels(logits, loss, temperature)
                step = weight_gradients(total, self._model, self.names)
                product = hessian_products(total, self._model, self.names)
            else:
                answer = None if temperature == 1 else _cooled(logits, temperature)
                settings = self._model, loss, self.names, answer
                step = value_and_grad(*settings)
                product = loss_hessian_products(*settings)
            self._made[key] = _checked(step), product
        return self._made[key]

    def _mean(
        self,
        data: Calibration,
        batch_size: int,
        step: Callable[[list[np.ndarray], Any], Gradients],
    ) -> Gradients:
        """Average over all examples what a step gives for each batch."""
        total = {
            path: {name: np.zeros_like(array) for name, array in arrays.items()}
            for path, arrays in self.weights.items()
        }
        progress = Progress(math.ceil(len(data) / batch_size), "batch")
        for inputs, labels in data.batches(batch_size):
            exact = [x.astype("float64") if x.dtype.kind == "f" else x for x in inputs]
            size = len(exact[0])
            found = step(exact, np.zeros(size) if labels is None else labels)
            for path, arrays in found.items():
                for name, array in arrays.items():
                    total[path][name] += size / len(data) * array
            progress.step()
        return total


def _cooled(logits: Logits, temperature: float) -> Callable[[list[Any]], Any]:
    """Make a function that runs a model with logits divided by a temperature."""
    outputs = len(logits.graph.output_tensors)
    if outputs > 1:
        raise CriterionError(
            "A temperature needs a model with one output. Take `temperature=1`. "
            f"Received: a model with {outputs} outputs"
        )
    return lambda inputs: logits.finish(logits(inputs)[0] / temperature)


def _activations(graph: Graph) -> set[str]:
    """List the calls with an activation whose output is no factor of a product.

    Where a user's layer applies its own is not known, so that is left alone.
    """
    factors = {
        tensor
        for call in graph.calls
        if call.kind in ("Multiply", "op:multiply")
        for tensor in call.inputs
    }
    return {
        call.name
        for call in graph.calls
        if (knots := knots_of(call)) is not None
        and knots.source != "pool"
        and not call.kind.startswith("custom:")
        and factors.isdisjoint(call.outputs)
    }


def _checked(step: Any) -> Callable[[list[np.ndarray], Any], Gradients]:
    def gradients(inputs: list[np.ndarray], labels: Any) -> Gradients:
        value, found = step(inputs, labels)
        _require_finite(value)
        return found

    return gradients


def is_unsupervised(loss: Any) -> bool:
    """Return whether a loss is one that reads no labels."""
    return isinstance(loss, str) and loss in get_args(Unsupervised)


def _require_finite(value: float) -> None:
    if not math.isfinite(value):
        raise CriterionError(
            "Connections cannot be ranked by a loss that is not finite. Look at the "
            f"inputs, the labels and the initial weights. Received: {value}"
        )


Unsupervised = Literal["uniform", "raw", "softmax"]


def without_labels(logits: Logits, kind: Unsupervised, temperature: float = 1.0) -> Any:
    """Make a function that computes a loss without labels.

    The cross-entropy of the network's answer with, by `kind`: every class alike
    (`"uniform"`), its own logits (`"raw"`), or its own probabilities (`"softmax"`).
    The last two are differentiated through the target too; for else the third would
    have no gradient. A lone logit tells two classes apart, as a sigmoid has it.

    Args:
        logits: The network up to its last softmax.
        kind: Which.
        temperature: What logits are divided by.

    Returns:
        A function of the inputs, one tensor each, and of labels, which are not read.

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks
    at Initialization", ICLR 2020, section 5.
    """

    def total(inputs: list[Any], labels: Any) -> Any:
        losses = []
        for output in logits(inputs):
            z = keras.ops.reshape(output, (-1, output.shape[-1])) / temperature
            if z.shape[-1] == 1:  # the other class of a sigmoid has the logit 0
                z = keras.ops.concatenate([keras.ops.zeros_like(z), z], axis=-1)
            log = keras.ops.log_softmax(z, axis=-1)
            if kind == "uniform":
                losses.append(-keras.ops.mean(log))
                continue
            target = z if kind == "raw" else keras.ops.exp(log)
            losses.append(-keras.ops.mean(keras.ops.sum(target * log, axis=-1)))
        return sum(losses)

    return total
