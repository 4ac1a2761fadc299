"""`EdgeOfChaos`: initial weights on the edge of chaos of an activation."""

import random
from typing import Any, Literal, get_args

import keras
import numpy as np

from tf_spline_prune._checks import POSITIVE, SEED, OneOf, Real, checked
from tf_spline_prune.compat import (
    array_of,
    blocks_of,
    compile_alike,
    initializer_base,
    kernels_of,
    register_class,
    trace,
    with_weights,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization._drawing import DISTRIBUTIONS
from tf_spline_prune.initialization._masked_copy import refuse_masks
from tf_spline_prune.initialization.signal._mean_field import (
    ACTIVATION,
    edge_of_chaos,
    name_of,
)

Role = Literal["kernel", "depthwise", "bias"]
Distribution = Literal["normal", "orthogonal", "delta_orthogonal"]
_Initializer: Any = initializer_base("tf_spline_prune")


class EdgeOfChaos(_Initializer):
    """Draw weights with which gradients neither vanish nor explode with depth.

    It fits `kernel_initializer` of dense and convolution layers of both flavours; its
    attribute `bias` fits their `bias_initializer`, and `depthwise` the
    `depthwise_initializer`. Each weight that it makes is another draw. A saved model
    names its initializers, so whoever loads it needs this package; `apply_to` draws
    the weights of a model that has Keras' initializers, and leaves these in its config.

    Every layer has the same variance, the first and the last one too. Such a
    network is variance-preserving: no layer is told from the others.

    Args:
        activation: What the network's activation is: a name that Keras knows or
            `"erf"`, a layer or function of either flavour, or a function on arrays.
        bias_std: Standard deviation of the biases. Defaults to `0.0`.
        distribution: `"normal"`; `"orthogonal"`, units that read in orthogonal
            directions; or `"delta_orthogonal"`, which in a convolution puts these into
            the middle of the window and zeros around it. The variance of a unit's
            incoming weights is the same in all, on average. Defaults to `"normal"`.
        seed: Seed of the draws. Defaults to `None`, which takes one from Python's
            `random`, as Keras does.
        weight_std: Standard deviation of the weights times sqrt(fan-in); `None` solves
            for it. The config holds it, so that nothing is solved again. Defaults to
            `None`.
        role: What the weights are: `"kernel"`, `"depthwise"` or `"bias"`. Defaults to
            `"kernel"`.

    Attributes:
        weight_std: As above, solved for.

    Raises:
        TypeError: If `activation` is none.
        ValueError: If it has no edge of chaos, or an argument is out of range.

    Example:

    ```python
    start = tsp.initialization.EdgeOfChaos("tanh", bias_std=0.2, seed=0)
    layer = keras.layers.Dense(
        100, "tanh", kernel_initializer=start, bias_initializer=start.bias
    )
    model = start.apply_to(model)      # or all layers of a model at once
    ```

    Source: Hayou et al., "On the Impact of the Activation Function on Deep Neural
    Networks Training", ICML 2019; Xiao et al., ICML 2018 (delta-orthogonal).
    """

    @checked(
        activation=ACTIVATION,
        bias_std=Real(0),
        distribution=OneOf(*get_args(Distribution)),
        seed=[SEED, None],
        weight_std=[POSITIVE, None],
        role=OneOf(*get_args(Role)),
    )
    def __init__(
        self,
        activation: Any,
        bias_std: float = 0.0,
        distribution: Distribution = "normal",
        seed: int | None = None,
        weight_std: float | None = None,
        role: Role = "kernel",
    ) -> None:
        if weight_std is None:
            weight_std = edge_of_chaos(activation, bias_std).weight_std
        self.activation = name_of(activation)
        self.bias_std = float(bias_std)
        self.distribution = distribution
        self.seed = seed
        self.weight_std = float(weight_std)
        self.role = role
        self._entropy = random.randint(1, int(1e9)) if seed is None else seed
        self._uses = 0

    @property
    def bias(self) -> "EdgeOfChaos":
        """The initializer of the biases, Gaussian."""
        return self._in_the_role("bias")

    @property
    def depthwise(self) -> "EdgeOfChaos":
        """The initializer of depthwise kernels, of which a unit reads one channel."""
        return self._in_the_role("depthwise")

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Draw a weight.

        Args:
            shape: Its shape. Of a kernel the last axis is that of the units.
            dtype: Its dtype; `None` is Keras' default.
            **kwargs: What tf_keras adds; not read.

        Returns:
            A tensor.

        Raises:
            ValueError: If a kernel of less than two axes is asked for.
        """
        shape = tuple(int(size) for size in shape)
        rng = np.random.default_rng(
            [self._entropy, get_args(Role).index(self.role), self._uses]
        )
        self._uses += 1
        if self.role == "bias":
            values = rng.normal(0.0, self.bias_std, shape)
        elif len(shape) < 2:
            raise ValueError(
                "A kernel has at least two axes; for biases take the attribute `bias` "
                f"of this initializer. Received: shape {shape}"
            )
        else:
            kind: Any = "depthwise" if self.role == "depthwise" else "plain"
            blocks = blocks_of(np.empty(shape), kind).shape
            values = array_of(self._drawn(blocks, rng), shape, kind)
        dtype = getattr(dtype, "name", dtype) or keras.config.floatx()
        return keras.ops.convert_to_tensor(values, dtype)

    def apply_to(self, model: Any) -> Any:
        """Copy a model, with new kernels and biases of dense and convolution layers.

        The last layer is drawn as all others are; whatever else has weights keeps
        them.

        Args:
            model: A built model of either flavour. It is not changed.

        Returns:
            A new model of the same flavour, compiled as `model` is, that keeps its
            own initializers in its config.

        Raises:
            FlavourError: If `model` is no Keras model.
            ModelError: If it cannot be traced, has none of these layers, or has masks:
                draw first.
        """
        refuse_masks(model, "Draw the weights before they are masked")
        kernels = kernels_of(trace(model))
        if not kernels:
            raise ModelError(
                "The model has neither dense nor convolution layers, so there is "
                f"nothing to draw. Received: model {model.name!r}"
            )
        rng = np.random.default_rng(self._entropy)
        weights: dict[str, dict[str, np.ndarray]] = {}
        for path, kernel in kernels.items():
            shape = tuple(kernel.variable.shape)
            blocks = kernel.blocks(np.empty(shape)).shape
            weights[path] = {kernel.name: kernel.array(self._drawn(blocks, rng))}
            if kernel.bias is not None:
                size = tuple(kernel.bias.shape)
                weights[path]["bias"] = rng.normal(0.0, self.bias_std, size)
        copy = with_weights(model, weights)
        compile_alike(model, copy)
        return copy

    def get_config(self) -> dict[str, Any]:
        """Return the config of an equal initializer."""
        return {
            "activation": self.activation,
            "bias_std": self.bias_std,
            "distribution": self.distribution,
            "seed": self.seed,
            "weight_std": self.weight_std,
            "role": self.role,
        }

    def _drawn(self, shape: Any, rng: np.random.Generator) -> np.ndarray:
        return DISTRIBUTIONS[self.distribution](shape, self.weight_std, rng)

    def _in_the_role(self, role: Role) -> "EdgeOfChaos":
        return EdgeOfChaos(**{**self.get_config(), "seed": self._entropy, "role": role})


register_class(EdgeOfChaos, "tf_spline_prune")
