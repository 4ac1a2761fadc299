"""Building a model again: the same graph, with other sizes, weights or dtype."""

import contextlib
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from keras.src.saving.serialization_lib import SafeModeScope

from tf_spline_prune.compat.call_graph import (
    Arguments,
    Call,
    Graph,
    for_inner,
    in_order,
    pack,
)
from tf_spline_prune.compat.flavour import keras_of
from tf_spline_prune.compat.kinds import is_mask_wrapper
from tf_spline_prune.compat.parts import in_policy, part_configs
from tf_spline_prune.compat.progress import Progress
from tf_spline_prune.compat.weights import CurrentWeights
from tf_spline_prune.errors import ModelError


def rebuild(
    graph: Graph,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Callable[[str], Mapping[str, np.ndarray]] | None = None,
    dtype: str | None = None,
) -> Any:
    """Build a model of new layers from a graph.

    Layer names, nesting, sharing and the structure of inputs and outputs stay.
    The result is not compiled and shares nothing with the original. A subclassed
    model comes out as a functional one.

    Args:
        graph: What `trace` gave.
        changes: For a layer's path, the entries of its config that change.
        weights: Gives, for the path of any layer that has weights, the new ones
            by name, in the layer's own order; called for one layer after the
            other. Without it all layers keep their fresh initial values.
        dtype: The dtype policy of all layers. Without it each keeps its own.

    Returns:
        A new model of the same flavour.

    Raises:
        ModelError: If a layer cannot be built again.
    """
    builder = _Builder(graph, changes or {}, dtype)
    model = builder.build(graph)
    for call in graph.leaves():
        _copy_assets(call.layer, builder.layers[call.path])
        _freeze_alike(call.layer, builder.layers[call.path])
    for path in CurrentWeights(graph) if weights else ():
        layer = builder.layers[path]
        layer.set_weights(list(weights(path).values()))  # type: ignore[misc]
        if hasattr(layer, "finalize_state"):  # Normalization derives from them
            layer.finalize_state()
    return model


def rewire(graph: Graph, layer_for: Callable[[Call], Any]) -> Any:
    """Build the model of a graph from layers that exist.

    Args:
        graph: What `trace` gave.
        layer_for: Gives the layer to use in the place of a call's own, once for
            all its uses; the call's own, or a wrapper around it.

    Returns:
        A new model of the same flavour, that shares these layers.
    """
    return _Builder(graph, {}, None, layer_for).build(graph)


def _copy_assets(source: Any, target: Any) -> None:
    """Hand on what a layer keeps outside its weights, such as a vocabulary."""
    if not hasattr(source, "save_assets"):
        return
    with tempfile.TemporaryDirectory() as folder:
        source.save_assets(folder)
        target.load_assets(folder)


def _freeze_alike(source: Any, target: Any) -> None:
    """Freeze single weights, or layers inside a layer, as they were (Keras 3)."""
    held, made = (list(getattr(layer, "weights", ())) for layer in (source, target))
    if len(held) != len(made):
        raise ModelError(
            "A layer has other weights than one that is built again from its config, "
            "as where an activation is a layer with weights of its own. Put what has "
            f"weights into a layer of the model. Received: {source.name!r} with "
            f"{len(held)} weights; one built again has {len(made)}"
        )
    for old, new in zip(held, made, strict=True):
        if getattr(old, "trainable", None) is False and new.trainable:
            with contextlib.suppress(AttributeError):  # tf_keras has no such setter
                new.trainable = False


class _Builder:
    def __init__(
        self,
        graph: Graph,
        changes: Mapping[str, Mapping[str, Any]],
        dtype: str | None = None,
        layer_for: Callable[[Call], Any] | None = None,
    ) -> None:
        self.layer_for = layer_for
        self.keras = keras_of(graph.model)
        self.changes = changes
        self.dtype = dtype
        self.layers: dict[str, Any] = {}
        self.progress = Progress(len({c.path for c in graph.leaves()}), "layer")

    def build(self, graph: Graph, shapes: list[Any] | None = None) -> Any:
        """Build one model; a nested one gets the shapes that it is called on."""
        inputs = [
            self.keras.Input(
                batch_shape=shape,
                dtype=i.dtype,
                name=i.name,
                **dict.fromkeys(i.flags, True),
            )
            for i, shape in zip(graph.inputs, _known(graph, shapes), strict=True)
        ]
        if graph.sequential:
            layers = self._chain(graph, tuple(inputs[0].shape))
            return self.keras.Sequential([*inputs, *layers], name=graph.model.name)

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = in_order(call.layer, args, kwargs)
            tensors = [t for t in given if hasattr(t, "_keras_history")]
            entering = tensors
            if call.inner is not None:
                entering = for_inner(call, tensors, args, kwargs)
            layer = self.layer(call, [tuple(t.shape) for t in entering])
            if is_mask_wrapper(layer):
                args, kwargs = _named(call.layer, args, kwargs)
            if call.inner is None or not call.inner.flat:
                return layer(*args, **kwargs)
            told = {key: kwargs[key] for key in ("training",) if kwargs.get(key)}
            return layer(tensors if len(tensors) > 1 else tensors[0], **told)

        outputs = graph.run(inputs, apply, enter=False)
        structure = graph.structure
        return self.keras.Model(
            pack(structure[0], inputs),
            pack(structure[1], outputs),
            name=graph.model.name,
        )

    def _chain(self, graph: Graph, shape: Any) -> list[Any]:
        """Make the layers of a Sequential; sizes matter only to nested models."""
        nested = any(call.inner is not None for call in graph.calls)
        layers = []
        for call in graph.calls:
            layers.append(self.layer(call, [shape]))
            if nested:
                made = getattr(layers[-1], "outputs", None)  # of a nested model
                shape = (
                    made[0].shape if made else layers[-1].compute_output_shape(shape)
                )
                shape = tuple(shape)
        return layers

    def layer(self, call: Call, shapes: list[Any]) -> Any:
        """Make the new layer of a call, once for all its uses."""
        if call.path not in self.layers:
            if call.inner is not None:
                self.layers[call.path] = self.build(call.inner, shapes)
            elif not hasattr(call.layer, "weights"):
                self.layers[call.path] = self._operation(call)
            elif self.layer_for is not None:
                self.layers[call.path] = self.layer_for(call)
            else:
                config = self._config(call)
                if self.dtype is not None:
                    config = in_policy({**config, "dtype": self.dtype}, self.dtype)
                config |= self.changes.get(call.path, {})
                config = part_configs(config, call.path in self.changes)
                config["name"] = call.path.rpartition("/")[2]
                self.layers[call.path] = self._from_config(call, config)
            if call.inner is None:
                self.progress.step()
        return self.layers[call.path]

    def _operation(self, call: Call) -> Any:
        changes = self.changes.get(call.path)
        if not changes:
            # A copy, for an operation keeps a list of all graphs that it is in.
            # (Keras' own way of copying goes through a file.)
            operation = object.__new__(type(call.layer))
            vars(operation).update(vars(call.layer))
            operation._inbound_nodes, operation._outbound_nodes = [], []
            return operation
        return type(call.layer).from_config({**call.layer.get_config(), **changes})

    def _config(self, call: Call) -> dict[str, Any]:
        try:
            return dict(call.layer.get_config())
        except NotImplementedError as error:
            raise ModelError(
                "A layer without `get_config` cannot be built again. Define it in the "
                f"class {type(call.layer).__name__}. Received: {call.path!r}"
            ) from error

    def _from_config(self, call: Call, config: dict[str, Any]) -> Any:
        """Make a layer from a config that was never out of this process."""
        layer = call.layer
        known = {
            thing.__name__: thing
            for thing in vars(layer).values()
            if callable(thing) and hasattr(thing, "__name__")
        }
        try:
            with (
                SafeModeScope(False),
                self.keras.utils.custom_object_scope(known),
                _default_dtype(self.keras, self.dtype),
            ):
                if call.kind == "Lambda":
                    return _lambda_layer(layer, config)
                return type(layer).from_config(config)
        except Exception as error:
            raise ModelError(
                "A layer cannot be built again from its config, which is how a model "
                "is copied and shrunk. Give its class a `get_config` that its "
                f"`from_config` understands. Received: {call.path!r} of type "
                f"{type(layer).__name__}, which raised {type(error).__name__}: {error}"
            ) from error


@contextlib.contextmanager
def _default_dtype(keras: Any, dtype: str | None) -> Iterator[None]:
    """Let the layers that a layer makes for itself have its dtype policy."""
    if dtype is None:
        yield
        return
    policies = keras.mixed_precision
    old = policies.global_policy()
    policies.set_global_policy(dtype)
    try:
        yield
    finally:
        policies.set_global_policy(old)


def _named(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Name all arguments but the first; TFMOT takes a second one for `training`."""
    names = list(inspect.signature(layer.call).parameters)
    rest = dict(zip(names[1:], args[1:], strict=False))
    return args[:1], {**rest, **kwargs}


def _lambda_layer(layer: Any, config: dict[str, Any]) -> Any:
    """Make a Lambda; in a config its function would lose the names that it uses."""
    given = {key: config[key] for key in ("name", "trainable", "dtype")}
    return type(layer)(
        layer.function,
        output_shape=layer._output_shape,
        mask=layer.mask,
        arguments=layer.arguments,
        **given,
    )


def _known(graph: Graph, shapes: list[Any] | None) -> list[tuple[int | None, ...]]:
    """Take new sizes for inputs, where the original had a size at all."""
    old = [i.shape for i in graph.inputs]
    if shapes is None:
        return old
    return [
        tuple(None if was is None else now for was, now in zip(o, n, strict=True))
        for o, n in zip(old, shapes, strict=True)
    ]
