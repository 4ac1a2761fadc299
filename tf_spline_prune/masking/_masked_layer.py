"""`MaskedLayer`: a layer whose weights keep their zeros while it trains."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from tf_spline_prune._checks import ListOf, Text, checked
from tf_spline_prune.compat import (
    HeldWeight,
    MaskConstraint,
    held_weights,
    kind_of,
    parts_of,
    weight_variables,
)
from tf_spline_prune.errors import FlavourError, ModelError


@keras.saving.register_keras_serializable("tf_spline_prune")
class MaskedLayer(keras.layers.Wrapper):
    """Hold one mask per prunable weight of the wrapped layer (Keras 3).

    The forward pass is the wrapped layer's own. The masks act as constraints of the
    weights: the optimizer applies them right after each of its updates, so that
    removed entries are exactly zero after every step, whatever the optimizer,
    under `jit_compile` and in mixed precision. A constraint that a weight already
    has is applied first, and is all that is left once the wrapper is stripped.

    `wrap_with_masks` wraps a whole model; wrap by hand inside a subclassed one.

    Args:
        layer: The layer. It keeps its name, which is also that of the wrapper.
        weights: Names of the weights to mask, such as `["kernel"]`. Defaults to `None`:
            kernels and embeddings, or what the layer's own `get_prunable_weights`
            returns.
        name: Name of the wrapper. Defaults to `None`, which takes the layer's.
        **kwargs: As for any Keras layer.

    Attributes:
        masks: For each masked weight its mask by name, a variable of the weight's
            shape, bool: true means keep.

    Raises:
        FlavourError: If `layer` is none of Keras 3.
        ModelError: When built, if the layer has no such weight, or Keras runs on
            a backend where the optimizer cannot hold a mask (JAX).

    Example:

    ```python
    x = tsp.MaskedLayer(keras.layers.Dense(100, activation="relu"))(x)
    ```
    """

    holds_masks = True
    mask_target: Any = None  # what the masks were to reach, see `MaskSlot.note_target`

    @checked(
        weights=[ListOf(Text("a name"), "names of weights"), None], name=[Text(), None]
    )
    def __init__(
        self,
        layer: Any,
        weights: Sequence[str] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.layers.Layer):
            raise FlavourError(
                "MaskedLayer wraps a layer of Keras 3. In `tf_keras`, "
                "`wrap_with_masks` takes TFMOT's own wrapper. Received: an object of "
                f"type {type(layer).__module__}.{type(layer).__qualname__}"
            )
        kwargs = {"dtype": layer.dtype_policy, "autocast": False, **kwargs}
        super().__init__(layer, name=name or layer.name, **kwargs)
        self.masked_weights = None if weights is None else list(weights)
        self.masks: dict[str, Any] = {}
        self.supports_masking = layer.supports_masking
        if _is_whole(layer):
            self._hold()
            self.built = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer; it is built first, from what it is called on."""
        if not args:  # the first argument by name, as attention's `query`
            first = next(iter(inspect.signature(self.layer.call).parameters))
            args = (kwargs.pop(first),) if first in kwargs else ()
        if not self.built and not _is_whole(self.layer):
            self.layer(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Build the layer, and its masks, full of ones."""
        super().build(input_shape)
        if not self.masks:
            self._hold()
        self.built = True

    def get_build_config(self) -> dict[str, Any] | None:
        """Return the shape to be built from; a layer made of layers must be called."""
        return None if parts_of(self.layer) else super().get_build_config()

    def _hold(self) -> None:
        if keras.config.backend() == "jax":
            raise ModelError(
                "On the JAX backend a constraint cannot read a variable, so nothing "
                "would hold the masks. Train masked models on TensorFlow: set "
                f"KERAS_BACKEND=tensorflow. Received: layer {self.layer.name!r}"
            )
        held = weight_variables(self.layer)
        names = self.masked_weights
        if names is None:
            names = prunable_weights(self.layer)
        unknown = sorted(set(names) - set(held))
        if unknown or not names:
            raise ModelError(
                "There is nothing to mask in this layer. It has the weights "
                f"{list(held)}. Received: {self.layer.name!r} of type "
                f"{type(self.layer).__name__}, and weights={unknown or names}"
            )
        for name in names:
            mask = self.add_weight(
                name=f"{name.replace('/', '_')}_mask",
                shape=held[name].shape,
                dtype="bool",
                initializer="ones",
                trainable=False,
            )
            self.masks[name] = mask
            held[name].constraint = MaskConstraint(mask, held[name].constraint)

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer."""
        return self.layer(inputs, *args, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Compute the timestep mask as the wrapped layer does."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Describe the wrapped layer's output."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the wrapped layer's output."""
        return self.layer.compute_output_shape(input_shape)

    def load_own_variables(self, store: Any) -> None:
        """Load the masks; a file without any is one of a model without masks."""
        if not len(store) and self.masks:
            raise ModelError(
                "The file holds no masks for this layer: it was saved from a model "
                "without masks. Load it with `tsp.load_weights(model, filepath)`, "
                "which masks what it loads."
            )
        if len(store) != len(self.masks):
            raise ModelError(
                "The file holds masks for other weights of this layer; version 0.1 "
                "masked only the first kernel of a layer made of layers. Load it with "
                "the version that saved it, strip the masks there, and mask it again. "
                f"Received: {len(store)} masks for {list(self.masks)} of {self.name!r}"
            )
        super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """Return the config of an equal wrapper."""
        return {**super().get_config(), "weights": self.masked_weights}


def _is_whole(layer: Any) -> bool:
    """Return whether all weights are there, also those that a first call makes."""
    return all(part.built for part in layer._flatten_layers())


_NAMES = (
    *("kernel", "pointwise_kernel", "recurrent_kernel"),
    *("embeddings", "reverse_embeddings"),
)
_OWN = "it is a layer of your own without `get_prunable_weights`"
_FROZEN = "it is frozen"


def prunable_weights(layer: Any, frozen: bool = False) -> list[str]:
    """Return the names of a layer's weights that a mask may thin out.

    These are the matrices that do the multiplying: kernels, those of recurrent
    cells and attention too, and embeddings. Biases, normalisations and depthwise
    kernels stay. Each layer inside the layer is asked for itself. A user's layer says
    so itself, as in TFMOT: its method `get_prunable_weights()` returns its variables.

    Args:
        layer: A built layer of either flavour.
        frozen: Whether frozen weights count too.

    Returns:
        Names, as `weight_names` gives them; empty where there is none.

    Raises:
        ModelError: If `get_prunable_weights` returns something else than weights
            of the layer.
    """
    told: dict[int, set[int]] = {}
    return [
        weight.name
        for weight in held_weights(layer)
        if _may_go(weight, told) and (frozen or not _is_frozen(weight))
    ]


def _may_go(weight: HeldWeight, told: dict[int, set[int]]) -> bool:
    """Ask the outermost layer that has a say; `told` holds what layers have said."""
    for holder in weight.holders:
        if hasattr(holder, "get_prunable_weights"):
            if id(holder) not in told:
                told[id(holder)] = _told_by(holder)
            return id(weight.variable) in told[id(holder)]
    return (
        weight.own_name in _NAMES
        and len(weight.variable.shape) > 1
        and not kind_of(weight.owner).startswith("Depthwise")
    )


def _told_by(layer: Any) -> set[int]:
    held = {id(weight.variable) for weight in held_weights(layer)}
    try:
        named = {id(variable) for variable in layer.get_prunable_weights()}
    except TypeError:
        named = {0}  # of no variable
    if named <= held:
        return named
    raise ModelError(
        "`get_prunable_weights` must return a list of weights of its layer. "
        f"Received: something else from {layer.name!r}"
    )


def _is_frozen(weight: HeldWeight) -> bool:
    layers = any(not getattr(h, "trainable", True) for h in weight.holders)
    return layers or not weight.variable.trainable


def why_not(layer: Any) -> str | None:
    """Return why a layer gets no mask, or `None` if it can have one."""
    if not getattr(layer, "weights", None):
        return "it has no weights"
    if not getattr(layer, "trainable", True):
        return _FROZEN
    if prunable_weights(layer):
        return None
    left = left_out(layer)
    if left and parts_of(layer):
        return "; ".join(f"{name or 'itself'}: {why}" for name, why in left.items())
    if kind_of(layer).startswith("custom:"):
        return _OWN
    return "it has no weights that can be masked"


def left_out(layer: Any) -> dict[str, str]:
    """List the matrices of a layer, and of those inside it, that no mask can reach.

    Depthwise kernels are none of them, nor what `get_prunable_weights` leaves out:
    that they stay is meant.

    Args:
        layer: A built layer of either flavour.

    Returns:
        Reasons by the path of the layer that holds the weights, `""` for itself.
    """
    prunable = set(prunable_weights(layer))
    found: dict[str, str] = {}
    for weight in held_weights(layer):
        if weight.name in prunable or len(weight.variable.shape) < 2:
            continue
        if any(hasattr(holder, "get_prunable_weights") for holder in weight.holders):
            continue
        path = weight.name.rpartition("/")[0]
        if _is_frozen(weight):
            if _may_go(weight, {}):
                found[path] = _FROZEN
        elif kind_of(weight.owner).startswith("custom:"):
            found[path] = _OWN
    return found
