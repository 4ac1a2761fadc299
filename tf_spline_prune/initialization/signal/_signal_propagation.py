"""`signal_propagation`: what reaches the end of a network, and what comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tf_spline_prune._checks import Integer, checked
from tf_spline_prune.compat import (
    Calibration,
    Call,
    CurrentWeights,
    Graph,
    Kernel,
    call_layer,
    call_tapped,
    hand_on_loss,
    kernel_of,
    kernels_of,
    mask_slots,
    require_flavour,
    run_eagerly,
    states_kept,
    to_numpy,
    trace,
    value_and_grad,
    with_dtype,
)
from tf_spline_prune.criteria._gates import LOSS
from tf_spline_prune.errors import CalibrationError, ModelError
from tf_spline_prune.partition._local_affine import jacobians


@dataclass(frozen=True, eq=False)
class SignalPropagation:
    """What `signal_propagation` measured, by layer in the order of computation.

    Attributes:
        density: The fraction of each kernel's weights that are kept.
        dead_units: The fraction of each layer's units that are the same on every input,
            after their activation.
        variance: The mean square of each layer's pre-activations.
        gradients: The mean square of the loss's derivatives by each kernel; `None` if
            there were no labels. Defaults to `None`.
        singular_values: Those of the Jacobians of the outputs by the inputs, of all
            inputs together, falling; `None` where none were taken. Defaults to `None`.

    Example:

    ```python
    found = tsp.initialization.signal_propagation(masked, x, y)
    found.emptied                        # (): layers that have lost all weights
    found.jacobian["condition"] >= 1     # True: largest over smallest singular value
    ```
    """

    density: Mapping[str, float]
    dead_units: Mapping[str, float]
    variance: Mapping[str, float]
    gradients: Mapping[str, float] | None = None
    singular_values: np.ndarray | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have a kernel."""
        return tuple(self.density)

    @property
    def emptied(self) -> tuple[str, ...]:
        """The layers of which no weight is kept."""
        return tuple(path for path, fraction in self.density.items() if fraction == 0)

    @property
    def chi(self) -> dict[str, float] | None:
        """For each layer but the last, its gradients over those of the next.

        Between layers of one width this is the chi of the mean-field theory.
        """
        if self.gradients is None:
            return None
        values = np.array(list(self.gradients.values()))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = values[:-1] / values[1:]
        return dict(zip(self.layers, ratios.tolist(), strict=False))

    @property
    def jacobian(self) -> dict[str, float] | None:
        """Mean, std, min, max and condition, max over min, of the singular values."""
        values = self.singular_values
        if values is None:
            return None
        least, most = float(values.min()), float(values.max())
        return {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "min": least,
            "max": most,
            "condition": most / least if least else float("inf"),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in plain dicts, the singular values by their statistics.

        Returns:
            The attributes by name, `emptied`, `chi` and `jacobian`.
        """
        return {
            "density": dict(self.density),
            "dead_units": dict(self.dead_units),
            "variance": dict(self.variance),
            "gradients": None if self.gradients is None else dict(self.gradients),
            "emptied": list(self.emptied),
            "chi": self.chi,
            "jacobian": self.jacobian,
        }

    def __str__(self) -> str:
        width = max(len(path) for path in (*self.layers, "layer"))
        heads = ["density", "dead", "variance"]
        columns = [self.density, self.dead_units, self.variance]
        if self.gradients is not None:
            heads.append("gradients")
            columns.append(self.gradients)
        lines = [f"{'layer':<{width}}" + "".join(f"{head:>12}" for head in heads)]
        for path in self.layers:
            cells = "".join(f"{column[path]:>12.4g}" for column in columns)
            lines.append(f"{path:<{width}}{cells}")
        if self.jacobian is not None:
            numbers = ", ".join(f"{k} {v:.4g}" for k, v in self.jacobian.items())
            lines.append(f"singular values of the Jacobian: {numbers}")
        return "\n".join(lines)


@checked(loss=LOSS, jacobian_inputs=Integer(0, 2**31 - 1))
def signal_propagation(
    model: Any,
    x: Any,
    y: Any = None,
    loss: Any = None,
    jacobian_inputs: int = 32,
) -> SignalPropagation:
    """Measure how signals and gradients travel through a network, in float64.

    A network can learn if neither dies out nor explodes between its ends: the mean
    square of pre-activations and of gradients keeps its size from layer to layer, and
    the singular values of the Jacobian are near one another.

    Args:
        model: A built model of either flavour, masked or not. It is not changed.
        x: Some hundred inputs, as in `plan`; they run all at once. Two at least.
        y: Their labels, as the loss takes them. Defaults to `None`, which measures no
            gradients.
        loss: What `compile` takes as `loss`. Defaults to `None`, which takes the
            model's.
        jacobian_inputs: At so many inputs the Jacobian of the outputs is taken, which
            should be logits. 0 takes none, nor has a model of several inputs or
            outputs, or of tokens, any. Defaults to `32`.

    Returns:
        The numbers by layer; printing them gives a table.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be traced, has neither dense nor convolution layers,
            or weights that are not finite.
        CalibrationError: If `x` or `y` is misshapen or not finite, or `x` is one input.
        ValueError: If there are labels but no loss, or `jacobian_inputs` is negative.

    Example:

    ```python
    print(tsp.initialization.signal_propagation(masked, x_train[:256], y_train[:256]))
    ```

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks
    at Initialization", ICLR 2020; Hayou et al., ICLR 2021.
    """
    require_flavour(model)
    original = trace(model)
    kernels = kernels_of(original)
    if not kernels:
        raise ModelError(
            "The model has neither dense nor convolution layers, so there is nothing "
            f"to measure. Received: model {model.name!r}"
        )
    data = Calibration.of(x if y is None else (x, y), original, trained=False)
    if len(data) < 2:
        raise CalibrationError(
            "At least two inputs show which units never change. Received: 1"
        )
    exact = with_dtype(model, "float64")
    graph = trace(exact)
    inputs = Calibration.of(data.inputs, graph).inputs
    variance, dead = _forward(graph, inputs)
    gradients = singular_values = None
    if data.labels is not None:
        hand_on_loss(model, exact)
        names = {path: [kernel.name] for path, kernel in kernels.items()}
        _, found = value_and_grad(exact, loss, names)(inputs, data.labels)
        gradients = {
            path: float(np.mean(np.square(found[path][kernel.name])))
            for path, kernel in kernels.items()
        }
    smooth = [entry.dtype.startswith("float") for entry in graph.inputs]
    if jacobian_inputs and smooth == [True] and len(graph.output_tensors) == 1:
        slopes = jacobians(exact, inputs[0][:jacobian_inputs])
        singular_values = np.linalg.svd(slopes, compute_uv=False).ravel()
        singular_values = np.sort(singular_values)[::-1]
    return SignalPropagation(
        density=_density(model, original, kernels),
        dead_units={path: dead[path] for path in kernels},
        variance={path: variance[path] for path in kernels},
        gradients=gradients,
        singular_values=singular_values,
    )


def _density(model: Any, graph: Graph, kernels: dict[str, Kernel]) -> dict[str, float]:
    """Return the fraction of weights that masks keep, or of those that are not zero."""
    kept = {slot.key: slot.keep() for slot in mask_slots(model)}
    weights = CurrentWeights(graph)
    found = {}
    for path, kernel in kernels.items():
        keep = kept.get(kernel.key)
        array = weights[path][kernel.name] if keep is None else keep
        found[path] = float(np.count_nonzero(array) / array.size)
    return found


@dataclass(frozen=True, eq=False)
class _Signal:
    """A tensor, and the layer whose units are still told apart in it."""

    tensor: Any
    owner: str | None = None


def _forward(
    graph: Graph, inputs: list[np.ndarray]
) -> tuple[dict[str, float], dict[str, float]]:
    """Run a model, and measure variances and dead units of its layers."""
    variance: dict[str, float] = {}
    dead: dict[str, float] = {}

    def apply(call: Call, args: Any, kwargs: Any) -> Any:
        given = [s for s in keras.tree.flatten((args, kwargs)) if _is_signal(s)]
        args, kwargs = keras.tree.map_structure(
            lambda s: s.tensor if _is_signal(s) else s, (args, kwargs)
        )
        owner = None
        if kernel_of(call) is not None:
            output, sums = run_tapped(call, args, kwargs)
            if call.path not in variance:  # the first use counts
                variance[call.path] = float(np.mean(np.square(sums)))
                owner = call.path
        else:
            output = call_layer(call, args, kwargs)
            if len(given) == 1 and len(graph.consumers_of[call.inputs[0]]) == 1:
                same = getattr(output, "shape", None) == given[0].tensor.shape
                owner = given[0].owner if same else None
        if owner is not None:
            # An activation or a normalisation in a layer of its own counts too.
            values = units_last(call, output)
            flat = values.reshape(-1, values.shape[-1])
            dead[owner] = float(np.mean(flat.max(axis=0) == flat.min(axis=0)))
        return keras.tree.map_structure(lambda tensor: _Signal(tensor, owner), output)

    with states_kept(graph.model):
        graph.run([_Signal(keras.ops.convert_to_tensor(x)) for x in inputs], apply)
    return variance, dead


def _is_signal(thing: Any) -> bool:
    return isinstance(thing, _Signal)


Visit = Callable[[Kernel, np.ndarray], bool]


def walk(graph: Graph, inputs: list[np.ndarray], visit: Visit) -> None:
    """Run a model, and look at what goes into the activation of each layer.

    Args:
        graph: What `trace` gave.
        inputs: One array per input, all at once.
        visit: Called as `visit(kernel, sums)` for each use of a dense or convolution
            layer, with its pre-activations, units last. Where it returns true, it has
            changed the layer, which runs again.
    """

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kernel = kernel_of(call)
        if kernel is None:
            return call_layer(call, args, kwargs)
        output, sums = run_tapped(call, args, kwargs)
        return call_layer(call, args, kwargs) if visit(kernel, sums) else output

    run_eagerly(graph, inputs, apply)


def run_tapped(
    call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, np.ndarray]:
    """Run a dense or convolution layer.

    Args:
        call: Its call.
        args: Positional arguments.
        kwargs: Keyword arguments.

    Returns:
        The output, and the pre-activations as an array, units last.
    """
    output, sums = call_tapped(call, args, kwargs)
    return output, units_last(call, sums)


def units_last(call: Call, tensor: Any) -> np.ndarray:
    """Bring a tensor that a layer gave to the host, its units last."""
    array = to_numpy(tensor)
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return np.moveaxis(array, 1, -1) if first else array


def mean_squares(graph: Graph, inputs: list[np.ndarray]) -> dict[str, float]:
    """Measure the mean square of the pre-activations of each layer.

    Args:
        graph: What `trace` gave.
        inputs: One array per input.

    Returns:
        The mean squares by path, in the order of computation; of a layer that is used
        again, that of its first use.
    """
    found: dict[str, float] = {}

    def visit(kernel: Kernel, sums: np.ndarray) -> bool:
        found.setdefault(kernel.path, float(np.mean(np.square(sums, dtype="float64"))))
        return False

    walk(graph, inputs, visit)
    return found
