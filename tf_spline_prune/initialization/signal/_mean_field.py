"""`MeanField`: how variances and gradients travel through a wide random network."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy.optimize import brentq

from tf_spline_prune._checks import Function, Options, Real, Text, checked
from tf_spline_prune.compat import activation_name, flavour_of, to_numpy

Elementwise = Callable[[np.ndarray], np.ndarray]

ACTIVATION: Options = [
    Text("the name of an activation"),
    Function("a layer or a function from arrays to arrays", layers=True),
]
"""What the checks of arguments want of an activation."""


def name_of(activation: Any) -> str:
    """Return the name of an activation, for messages and configs.

    Args:
        activation: As in `as_function`.

    Returns:
        The name as Keras serialises it, or that of the layer or function.
    """
    if isinstance(activation, str):
        return activation
    if flavour_of(activation) is not None:
        return str(getattr(activation, "name", type(activation).__name__))
    return activation_name(activation)


def as_function(activation: Any) -> Elementwise:
    """Make of an activation a function on arrays.

    Args:
        activation: A name that Keras knows, or `"erf"` for erf(sqrt(pi) x / 2), which
            has the slope 1 at 0; a layer or function of either flavour; a function
            from NumPy arrays to NumPy arrays.

    Returns:
        A function that takes and gives arrays of one axis.

    Raises:
        ValueError: If the name is unknown, or the function does not give one finite
            number for each of a few small ones.
        TypeError: If it is no activation at all.
    """
    function = _callable(activation)

    def evaluate(x: np.ndarray) -> np.ndarray:
        return np.asarray(to_numpy(function(x)), "float64")

    trial = np.linspace(-1.0, 1.0, 5)
    try:
        values = evaluate(trial)
        fits = values.shape == trial.shape and bool(np.isfinite(values).all())
        wrong = f"{values} for {trial}"
    except Exception as error:  # whatever a user's function raises
        fits, wrong = False, f"{type(error).__name__}: {error}"
    if not fits:
        raise ValueError(
            "An activation maps each entry of an array of shape (n,) by itself, to a "
            f"finite number. Received: {name_of(activation)!r}, which gave {wrong}"
        )
    return evaluate


def _callable(activation: Any) -> Callable[[Any], Any]:
    if activation == "erf":
        return lambda x: keras.ops.erf(x * (math.sqrt(math.pi) / 2))
    if isinstance(activation, str):
        try:
            return keras.activations.get(activation)
        except ValueError as error:
            raise ValueError(
                "There is no activation of this name. Give one that Keras knows, "
                "'erf', a layer, or a function from arrays to arrays. Received: "
                f"{activation!r}"
            ) from error
    if flavour_of(activation) is not None and hasattr(activation, "get_config"):
        # A copy, for a layer that has weights is built by its first call; one unit.
        config = {**activation.get_config(), "dtype": "float64"}
        copy = type(activation).from_config(config)
        return lambda x: copy(x[:, None])[:, 0]
    return activation


@dataclass(frozen=True)
class EdgePoint:
    """A point on the edge of chaos of an activation.

    Attributes:
        weight_std: Standard deviation of a unit's incoming weights, times the square
            root of their number.
        bias_std: Standard deviation of the biases.
        q: The mean square of the pre-activations that stays from layer to layer. A
            function such as ReLU, that scales with its input, keeps any; 1 is given.

    Example:

    ```python
    tsp.initialization.edge_of_chaos("tanh", bias_std=0.2).weight_std    # 1.304
    ```
    """

    weight_std: float
    bias_std: float
    q: float


# The Gaussian is cut off at so many standard deviations, where it is below 1e-31.
_REACH = 12.0
# Panels a doubling of |x|, and doublings: what an activation does near 0 is seen at
# any scale of its input, and a knot anywhere costs less than 1e-3.
_PANELS, _DOUBLINGS, _NODES = 16, 24, 6
# Step of the derivative, as a fraction of |x|: it never crosses 0.
_STEP = 1e-4
# Mean squares between which an edge is looked for.
_SMALLEST, _LARGEST = 1e-8, 1e6
# How far a sequence of mean squares is followed: until a step is so small a part of it,
# or for so many steps, of which so many in one direction are enough to look ahead.
_EQUAL, _STEPS, _RUN = 1e-12, 1000, 100
# Looking ahead, a stride in the logarithm, and what is as good as 0.
_STRIDE, _NOTHING = 0.05, 1e-10
# So near to 1 a factor is 1: some backends compute in float32.
_FLAT = 1e-6
_STD = Real(0, 1e100)  # its square is finite


class MeanField:
    """The mean-field theory of one activation, by quadrature.

    In a network of infinitely wide layers y = W phi(x) + b, with independent weights
    of variance `weight_std**2 / fan_in` and biases of variance `bias_std**2`, the
    pre-activations of a layer are Gaussian; all that is left of a layer is their mean
    square. It is the same for dense layers and convolutions.

    Args:
        activation: A name that Keras knows or `"erf"`, a layer or function of either
            flavour, or a function from NumPy arrays to NumPy arrays.
        derivative: Its derivative, from arrays to arrays. Defaults to `None`, which
            takes differences.

    Raises:
        TypeError: If `activation` is none.
        ValueError: If its name is unknown, or it does not map entry by entry.

    Example:

    ```python
    theory = tsp.initialization.MeanField("tanh")
    theory.chi(q=0.512, weight_std=1.304)    # 1.0: the edge of chaos
    ```

    Source: Poole et al., NeurIPS 2016; Schoenholz et al., "Deep Information
    Propagation", ICLR 2017; Hayou et al., ICML 2019.
    """

    @checked(
        activation=ACTIVATION,
        derivative=[Function("a function from arrays to arrays"), None],
    )
    def __init__(self, activation: Any, derivative: Elementwise | None = None) -> None:
        self.name = name_of(activation)
        self.function = as_function(activation)
        self.derivative = derivative or self._differences
        self._z, self._weights = _gauss_panels()
        x = self._z[:: 2 * _NODES]
        # Rounding of float32 is allowed for, in which some backends compute.
        twice, scaled = self.function(2 * x), 2 * self.function(x)
        self._scales = np.allclose(twice, scaled, rtol=1e-5, atol=0)

    @checked(q=Real(0), weight_std=_STD, bias_std=_STD)
    def next_variance(self, q: float, weight_std: float, bias_std: float) -> float:
        """Return the mean square of the next layer's pre-activations.

        Args:
            q: Their mean square in this layer.
            weight_std: Standard deviation of the weights times sqrt(fan-in).
            bias_std: Standard deviation of the biases.

        Returns:
            bias_std^2 + weight_std^2 E[phi(sqrt(q) Z)^2].
        """
        return bias_std**2 + weight_std**2 * self._mean_square(self.function, q)

    @checked(q=Real(0), weight_std=_STD)
    def chi(self, q: float, weight_std: float) -> float:
        """Return the factor by which a layer grows the mean square of gradients.

        Args:
            q: Mean square of the pre-activations.
            weight_std: Standard deviation of the weights times sqrt(fan-in).

        Returns:
            weight_std^2 E[phi'(sqrt(q) Z)^2]: below 1 in the ordered phase, where
            gradients vanish, 1 on the edge of chaos, above 1 in the chaotic phase.
        """
        return weight_std**2 * self._mean_square(self.derivative, q)

    @checked(weight_std=_STD, bias_std=_STD, q=Real(0))
    def fixed_point(self, weight_std: float, bias_std: float, q: float = 1.0) -> float:
        """Return the mean square that pre-activations approach with depth.

        Args:
            weight_std: Standard deviation of the weights times sqrt(fan-in).
            bias_std: Standard deviation of the biases.
            q: The mean square to start from. Defaults to `1.0`.

        Returns:
            The limit; infinity where they grow for ever.
        """
        if self._scales:
            return self._scaled_limit(weight_std, bias_std, q)
        q, run, upwards = float(q), 0, False
        # Of E[phi(sqrt(q) Z)^2] the slope in logarithms is -1/2 or more, whatever phi:
        # what goes up and down settles soon, and nothing goes round for ever.
        for _ in range(_STEPS):
            following = self.next_variance(q, weight_std, bias_std)
            if not following < _LARGEST**2:
                return float("inf")
            if abs(following - q) <= _EQUAL * q:
                break
            run = run + 1 if upwards == (following > q) else 1
            upwards, q = following > q, following
            if run == _RUN:  # near the edge they creep, by less and less each layer
                return self._limit_beyond(q, weight_std, bias_std, upwards)
        return q

    def _scaled_limit(self, weight_std: float, bias_std: float, q: float) -> float:
        """Sum the geometric series that `next_variance` makes of a scaling one."""
        factor = self.next_variance(1.0, weight_std, 0.0)
        if abs(factor - 1) <= _FLAT:
            return q if bias_std == 0 else float("inf")
        if factor < 1:
            return bias_std**2 / (1 - factor)
        return float("inf") if q or bias_std else 0.0

    def _limit_beyond(
        self, q: float, weight_std: float, bias_std: float, upwards: bool
    ) -> float:
        """Find the fixed point to which a monotone sequence creeps on from `q`."""

        def growth(x: float) -> float:
            return self.next_variance(x, weight_std, bias_std) - x

        nowhere, end = (float("inf"), _LARGEST**2) if upwards else (0.0, _NOTHING)
        stations = int(abs(np.log(end / q)) / _STRIDE) + 2
        before = q
        for x in np.geomspace(q, end, stations)[1:] if q > _NOTHING else ():
            if (growth(x) > 0) != upwards:
                return float(_root(growth, min(before, x), max(before, x)))
            before = x
        return nowhere

    @checked(bias_std=_STD)
    def edge_of_chaos(self, bias_std: float = 0.0) -> EdgePoint:
        """Compute the weights for which gradients neither vanish nor explode.

        Args:
            bias_std: Standard deviation of the biases. Defaults to `0.0`.

        Returns:
            The point at which chi is 1 and the mean square a fixed point, the one of
            the smallest mean square if there are several.

        Raises:
            ValueError: If there is none, or `bias_std` is negative.
        """
        if self._scales:
            if bias_std:
                raise ValueError(
                    f"{self.name!r} scales with its input, so at chi = 1 it keeps any "
                    "mean square, and each bias adds to it: there is no edge of chaos "
                    f"but at bias_std=0. Received: bias_std={bias_std}"
                )
            return self._point(1.0, 0.0)
        start = float(self.function(np.zeros(1))[0])
        if bias_std == 0 and abs(start) < 1e-9:
            return self._point(_SMALLEST, 0.0, q=0.0)

        def excess(q: float) -> float:
            slope = self._mean_square(self.derivative, q)
            after = self._mean_square(self.function, q) / max(slope, 1e-300)
            return bias_std**2 + after - q

        tried = np.geomspace(min(_SMALLEST, bias_std**2 or 1.0), _LARGEST, 200)
        for low, high in zip(tried, tried[1:], strict=False):
            if excess(high) <= 0:
                return self._point(_root(excess, low, high), bias_std)
        raise ValueError(
            f"{self.name!r} has no edge of chaos at bias_std={bias_std}: with weights "
            "for which gradients neither vanish nor explode, the mean square of the "
            f"pre-activations grows from layer to layer, from any start up to "
            f"{_LARGEST:.0e}. Take another activation, or a smaller `bias_std`. "
            f"Received: bias_std={bias_std}"
        )

    def _point(self, at: float, bias_std: float, q: float | None = None) -> EdgePoint:
        weight_std = 1 / np.sqrt(self._mean_square(self.derivative, at))
        return EdgePoint(
            float(weight_std), float(bias_std), float(at if q is None else q)
        )

    def _mean_square(self, function: Elementwise, q: float) -> float:
        """Integrate a squared function of sqrt(q) Z, where Z is a standard Gaussian."""
        with np.errstate(over="ignore"):
            return float(self._weights @ function(np.sqrt(q) * self._z) ** 2)

    def _differences(self, x: np.ndarray) -> np.ndarray:
        step = _STEP * np.abs(x)
        return (self.function(x + step) - self.function(x - step)) / (2 * step)


@checked(
    activation=ACTIVATION,
    bias_std=_STD,
    derivative=[Function("a function from arrays to arrays"), None],
)
def edge_of_chaos(
    activation: Any, bias_std: float = 0.0, derivative: Elementwise | None = None
) -> EdgePoint:
    """Compute the standard deviations at which a deep network should start.

    Args:
        activation: As in `MeanField`.
        bias_std: Standard deviation of the biases. With 0 a smooth activation is, on
            the edge, linear in the end: the mean square sinks to 0. Defaults to `0.0`.
        derivative: The derivative of `activation`, from arrays to arrays. Defaults to
            `None`, which takes differences.

    Returns:
        The point on the edge of chaos.

    Raises:
        TypeError: If `activation` is none.
        ValueError: If there is no such point, or an argument is out of range.

    Example:

    ```python
    tsp.initialization.edge_of_chaos("relu").weight_std    # sqrt(2)
    ```
    """
    return MeanField(activation, derivative).edge_of_chaos(bias_std)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Find where a function crosses zero that is above it, or on it, at `low`."""
    if function(low) <= 0:  # by rounding
        return low
    return float(brentq(function, low, high, xtol=1e-300, rtol=1e-12))


def _gauss_panels() -> tuple[np.ndarray, np.ndarray]:
    """Make nodes and weights for the integral over a standard Gaussian.

    The panels shrink towards 0 by a constant factor, where most knots are; 0 itself
    is the edge of two, so that a knot there costs nothing.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    powers = np.linspace(-_DOUBLINGS, 0, _PANELS * _DOUBLINGS + 1)
    edges = np.concatenate([[0.0], _REACH * 2.0**powers])
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    z = (middle[:, None] + half[:, None] * nodes).ravel()
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    fraction = (half[:, None] * weights).ravel() * density
    return np.concatenate([-z[::-1], z]), np.concatenate([fraction[::-1], fraction])
