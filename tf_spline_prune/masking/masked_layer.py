"""`MaskedLayer`: a layer whose weights keep their zeros while it trains."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from tf_spline_prune._checks import ListOf, Text, checked
from tf_spline_prune.compat import MaskConstraint, parts_of, weight_variables
from tf_spline_prune.errors import FlavourError, ModelError
from tf_spline_prune.masking.prunable import prunable_weights


@keras.saving.register_keras_serializable("tf_spline_prune")
class MaskedLayer(keras.layers.Wrapper):
    """Holds one mask a prunable weight of the layer that it wraps (Keras 3).

    The forward pass is the wrapped layer's own. The masks act as constraints of the
    weights: the optimizer applies them right after each of its updates, so that
    removed entries are exactly zero after every step, whatever the optimizer,
    under `jit_compile` and in mixed precision. A constraint that a weight already
    has is applied first, and is all that is left once the wrapper is stripped.

    `wrap_with_masks` wraps a whole model; wrap by hand inside a subclassed one.

    Args:
        layer: The layer. It keeps its name, which is also that of the wrapper.
        weights: Names of the weights to mask, such as `["kernel"]`; defaults to
            kernels and embeddings, or what the layer's own `get_prunable_weights`
            returns.
        name: Defaults to the layer's.
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
        """Build the layer, and its masks full of ones."""
        super().build(input_shape)
        if not self.masks:
            self._hold()
        self.built = True

    def get_build_config(self) -> dict[str, Any] | None:
        """Give the shape to be built from; a layer made of layers must be called."""
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
        """Hand on the timestep mask as the wrapped layer does."""
        return self.layer.compute_mask(inputs, previous_mask)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Describe the wrapped layer's output."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Give the shape of the wrapped layer's output."""
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
        """Give what makes an equal wrapper."""
        return {**super().get_config(), "weights": self.masked_weights}


def _is_whole(layer: Any) -> bool:
    """Tell whether all weights are there, also those that a first call makes."""
    return all(part.built for part in layer._flatten_layers())
