"""Building a model again: the same graph, with other sizes, weights or dtype."""

import contextlib
import inspect
import itertools
import tempfile
from collections.abc import Callable, Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.initializers.random_initializers import RandomInitializer

from tf_spline_prune.compat._flavour import (
    flavour_of,
    inside_masks,
    is_layer,
    is_mask_wrapper,
    keras_of,
)
from tf_spline_prune.compat._progress import Progress
from tf_spline_prune.compat._weights import (
    CurrentWeights,
    values_of,
    write_values,
    write_weights,
)
from tf_spline_prune.compat.build._config import config_of, from_config
from tf_spline_prune.compat.build._mended_config import (
    is_told,
    mended_config,
    told_config,
)
from tf_spline_prune.compat.build._model_class import build_as
from tf_spline_prune.compat.build._own_class import NotMade, Place, resized, twins
from tf_spline_prune.compat.build._parts import in_policy, part_configs, parts_of
from tf_spline_prune.compat.graph._blueprint import (
    Arguments,
    Blueprint,
    Node,
    for_inner,
    function_of,
    in_order,
    pack,
    signature_of,
)
from tf_spline_prune.compat.graph._graph import Graph
from tf_spline_prune.compat.run._states import streams_kept
from tf_spline_prune.errors import ModelError

# What tf_keras makes of `model.add_loss(tensor)` and `model.add_metric(tensor)`.
_BESIDE_OUTPUTS = ("AddLoss", "AddMetric")
_ZEROS = keras.initializers.Zeros()


def rebuild(
    graph: Graph,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    weights: Callable[[str], Mapping[str, np.ndarray]] | None = None,
    dtype: str | None = None,
    fresh: bool = False,
    names: Mapping[str, str] | None = None,
    classes: Mapping[str, Mapping[Place, int]] | None = None,
    read: Graph | None = None,
) -> Any:
    """Build a model of new layers from a graph.

    Layer names, nesting, sharing and the structure of inputs and outputs stay.
    The result is not compiled and shares nothing with the original. A subclassed
    model comes out as a functional one; a functional model of a user's class as
    one of that class, where it can be made of inputs and outputs.

    Args:
        graph: What `trace` gave.
        changes: For a layer's path, the entries of its config that change.
        weights: Gives, for the path of any layer that has weights, the new ones
            by name, in the layer's own order; called for one layer after the
            other. Without it they are those of the graph.
        fresh: Whether all layers keep their fresh initial values instead, but for
            what `adapt` has measured, which no training gives back.
        dtype: The dtype policy of all layers. Without it each keeps its own.
        names: Other names for layers and models, by their own.
        classes: The layers made of layers that stay of their class, by path, and the
            entries of their configs that change; `""` is the model itself. Without it
            all that could be traced come out as plain models.
        read: The graph whose paths `weights` knows, where the model was read at other
            sizes than it is built for.

    Returns:
        A new model of the same flavour.

    Raises:
        ModelError: If a layer cannot be built again.
    """
    builder = _Builder(
        graph, changes or {}, dtype, names=names or {}, fresh=fresh, classes=classes
    )
    # Fresh layers draw as any new ones do; of a copy nothing is drawn that stays.
    with contextlib.nullcontext() if fresh else streams_kept():
        if "" in builder.classes:
            model = builder.of_class(graph.model, "", None)
        else:
            model = builder.build(graph.blueprint)
    for layer, name, initializer in builder.undrawn:
        vars(layer)[name] = initializer
    read = read or graph
    builder.pair(read.layers)
    current = CurrentWeights(read)
    for path, source in read.layers.items():
        layer = builder.twin_of.get(id(source), builder.layers.get(path))
        if layer is None:  # masks between layers are Keras' own
            continue
        _freeze_alike(source, layer, "use_bias" in builder.changes.get(path, {}))
        held = path in current and not keeps_words(layer)
        if held and (is_adapted(layer) or not fresh):
            arrays = weights(path) if weights else current[path]
            write_weights(layer, list(arrays.values()))
            if hasattr(layer, "finalize_state"):  # Normalization derives from them
                layer.finalize_state()
    if not fresh:
        builder.write_loose(read.layers.values())
    return model


def rewire(graph: Graph, layer_for: Callable[[Node], Any]) -> Any:
    """Build the model of a graph from layers that exist.

    Args:
        graph: What `trace` gave.
        layer_for: Returns the layer to use in the place of a node's own, once for
            all its uses; the node's own, or a wrapper around it.

    Returns:
        A new model of the same flavour, that shares these layers.
    """
    return _Builder(graph, {}, None, layer_for).build(graph.blueprint)


def _taken(outputs: Any, node: Node) -> Any:
    """Choose the outputs of a call that its node has; others nobody takes in."""
    made = keras.tree.flatten(outputs)
    if len(made) == len(node.outputs):
        return outputs
    chosen = list(itertools.compress(made, node.taken))
    return chosen if len(chosen) > 1 else chosen[0]


def _freeze_alike(source: Any, target: Any, biased: bool) -> None:
    """Freeze single weights, or layers inside a layer, as they were (Keras 3).

    A layer may have got a bias, its last weight.
    """
    held, made = (list(getattr(layer, "weights", ())) for layer in (source, target))
    if biased:
        made = made[: len(held)]
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
        layer_for: Callable[[Node], Any] | None = None,
        names: Mapping[str, str] | None = None,
        fresh: bool = True,
        classes: Mapping[str, Mapping[Place, int]] | None = None,
    ) -> None:
        self.fresh = fresh
        self.classes = classes or {}
        # What stays of its class, and for each layer inside the one in its place.
        self.made: list[tuple[Any, Any, str]] = []
        self.twin_of: dict[int, Any] = {}
        self.undrawn: list[tuple[Any, str, Any]] = []
        self.layer_for = layer_for
        self.names = names or {}
        self.keras = keras_of(graph.model)
        self.changes = changes
        self.dtype = dtype
        self.layers: dict[str, Any] = {}
        self.progress = Progress(len(graph.layers), "layer")

    def build(self, blueprint: Blueprint, shapes: list[Any] | None = None) -> Any:
        """Build one model; a nested one gets the shapes that it is called on."""
        inputs = [
            self.keras.Input(
                batch_shape=shape,
                dtype=i.dtype,
                name=i.name,
                **dict.fromkeys(i.flags, True),
            )
            for i, shape in zip(
                blueprint.inputs, _known(blueprint, shapes), strict=True
            )
        ]
        kinds = {node.kind for node in blueprint.nodes}
        if blueprint.sequential and kinds.isdisjoint(_BESIDE_OUTPUTS):
            layers = self._chain(blueprint, tuple(inputs[0].shape))
            name = self._named(blueprint.model.name)
            return build_as(blueprint.model, [*inputs, *layers], name=name)

        beside: list[tuple[Node, Any]] = []

        def apply(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if node.kind in _BESIDE_OUTPUTS:
                beside.append((node, args[0]))
                return args[0]
            given = in_order(node.layer, args, kwargs)
            tensors = [t for t in given if hasattr(t, "_keras_history")]
            entering = tensors
            if node.inner is not None:
                entering = for_inner(node, tensors, args, kwargs)
            layer = self.layer(node, [tuple(t.shape) for t in entering])
            if is_mask_wrapper(layer):
                args, kwargs = _named(node.layer, args, kwargs)
            if node.kind.startswith("op:"):
                args, kwargs = self._told(node, args, kwargs)
            if node.path in self.classes and node.inner is not None:
                return _taken(layer(*args, **kwargs), node)
            if node.inner is None or not node.inner.flat:
                return layer(*args, **kwargs)
            told = {key: kwargs[key] for key in ("training",) if kwargs.get(key)}
            return layer(tensors if len(tensors) > 1 else tensors[0], **told)

        outputs = blueprint.run(inputs, apply, enter=False)
        structure = blueprint.structure
        model = build_as(
            blueprint.model,
            pack(structure[0], inputs),
            pack(structure[1], outputs),
            name=self._named(blueprint.model.name),
        )
        for node, value in beside:
            if node.kind == "AddLoss":
                model.add_loss(value)
            else:
                how = {"aggregation": node.layer.aggregation}
                model.add_metric(value, name=node.layer.metric_name, **how)
        return model

    def _named(self, name: str) -> str:
        return self.names.get(name, name)

    def _chain(self, blueprint: Blueprint, shape: Any) -> list[Any]:
        """Make the layers of a Sequential; sizes matter only to nested models."""
        nested = any(node.inner is not None for node in blueprint.nodes)
        layers = []
        # Keras 3 computes masks by operations in between, which it adds by itself.
        for node in (node for node in blueprint.nodes if is_layer(node.layer)):
            layers.append(self.layer(node, [shape]))
            if nested:
                made = getattr(layers[-1], "outputs", None)  # of a nested model
                shape = (
                    made[0].shape if made else layers[-1].compute_output_shape(shape)
                )
                shape = tuple(shape)
        return layers

    def layer(self, node: Node, shapes: list[Any]) -> Any:
        """Make the new layer of a call, once for all its uses."""
        if node.path not in self.layers:
            if node.path in self.classes:
                made = self.of_class(node.layer, node.path, node)
                self.layers[node.path] = made
            elif node.inner is not None:
                self.layers[node.path] = self.build(node.inner, shapes)
            elif not hasattr(node.layer, "weights"):
                self.layers[node.path] = self._operation(node)
            elif self.layer_for is not None:
                self.layers[node.path] = self.layer_for(node)
            else:
                self.layers[node.path] = self._made(node)
                if node.why:  # it is made of layers, which may be known by their paths
                    made = self.layers[node.path]
                    self.made.append((node.layer, made, node.path))
                if not self.fresh:
                    self._draw_nothing(node)
                # Before it is called: sizes may hang on it.
                hand_on_state(node.layer, self.layers[node.path])
            if node.inner is None:
                self.progress.step()
        return self.layers[node.path]

    def of_class(self, owner: Any, path: str, node: Node | None) -> Any:
        """Make a model, or a layer made of layers, of its class, with other sizes."""
        try:
            made = resized(owner, self.classes[path], node)
        except Exception as error:
            raise NotMade(owner, path, error) from error
        self.made.append((owner, made, path))
        return made

    def pair(self, known: Collection[str]) -> None:
        """Pair the layers inside what stays of its class, once that is built.

        Args:
            known: Paths of what has weights that are written as a whole.
        """
        for owner, made, path in self.made:
            if path in known:
                continue
            try:
                pairs = twins(owner, made)
            except ValueError as error:
                raise NotMade(owner, path, error) from error
            for one, other in pairs:
                self.twin_of[id(inside_masks(one))] = other
                if other.name != one.name:  # Keras numbers what has no name
                    with contextlib.suppress(AttributeError):  # fixed in tf_keras
                        other.name = one.name
                if getattr(one, "trainable", True) != other.trainable:
                    other.trainable = one.trainable

    def write_loose(self, layers: Collection[Any]) -> None:
        """Write what no layer of the graph holds into what stays of its class."""
        known = {
            id(weight) for layer in layers for weight in getattr(layer, "weights", ())
        }
        for owner, made, _ in self.made:
            # Of as many as they are, for what was paired is made of the same layers.
            for old, new in zip(owner.weights, made.weights, strict=False):
                if id(old) not in known and tuple(old.shape) == tuple(new.shape):
                    write_values(new, values_of(old))

    def _draw_nothing(self, node: Node) -> None:
        """Let a layer of Keras 3 begin with zeros, for it will be given its weights.

        Random numbers take their time. The layer's own initializers are put back.
        """
        layer = self.layers[node.path]
        if flavour_of(layer) != "keras" or node.kind.startswith("custom:"):
            return
        if parts_of(layer):  # which it hands its initializers to
            return
        for name, value in vars(layer).items():
            if isinstance(value, RandomInitializer):
                self.undrawn.append((layer, name, value))
                vars(layer)[name] = _ZEROS

    def _operation(self, node: Node) -> Any:
        changes = self.changes.get(node.path, {})
        made = type(node.layer)
        held, known = vars(node.layer), inspect.signature(made.__init__).parameters
        if known.keys() & changes.keys():
            settings = {k: held[k] for k in known if k in held and k not in changes}
            changed = {key: changes[key] for key in known if key in changes}
            settings["name"] = node.path.rpartition("/")[2]
            return made(**settings, **changed)
        # A copy, for an operation keeps a list of all graphs that it is in.
        # (Keras' own way of copying goes through a file.)
        operation = object.__new__(made)
        vars(operation).update(held)
        operation._inbound_nodes, operation._outbound_nodes = [], []
        operation.name = node.path.rpartition("/")[2]
        return operation

    def _told(
        self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments:
        """Change what an operation is told beside tensors, when it is called."""
        changes = self.changes.get(node.path, {})
        known = signature_of(function_of(node.layer))
        changed = {key: changes[key] for key in known.parameters if key in changes}
        if not changed:
            return args, kwargs
        bound = known.bind(*args, **kwargs)
        bound.arguments.update(changed)
        return bound.args, bound.kwargs

    def _made(self, node: Node) -> Any:
        """Make a layer from its config; from one that is mended, if it has none."""
        told: dict[str, Any] = {}
        try:
            told = self._config(node)
            config = self._changed(node, told)
            layer = self._from_config(node, config)
        except ModelError:
            if not (mended := mended_config(node, told)):
                raise
            config = self._changed(node, mended)
            layer = self._from_config(node, config)
            told_config(layer, config)  # for its own could not be loaded
        if is_told(node.layer):
            told_config(layer, config)
        return layer

    def _changed(self, node: Node, config: dict[str, Any]) -> dict[str, Any]:
        if self.dtype is not None:
            config = in_policy({**config, "dtype": self.dtype}, self.dtype)
        if not node.kind.startswith("op:"):  # whose changes are arguments of the call
            config = {**config, **self.changes.get(node.path, {})}
        config = part_configs(config, node.path in self.changes)
        config["name"] = self._named(node.path.rpartition("/")[2])
        return config

    def _config(self, node: Node) -> dict[str, Any]:
        try:
            return config_of(node.layer)
        except NotImplementedError as error:
            raise ModelError(
                "A layer without `get_config` cannot be built again. Define it in the "
                f"class {type(node.layer).__name__}. Received: {node.path!r}"
            ) from error
        except Exception as error:
            raise ModelError(
                "The `get_config` of a layer fails, so it cannot be built again. Mend "
                f"it in the class {type(node.layer).__name__}. Received: "
                f"{node.path!r}, which raised {type(error).__name__}: {error}"
            ) from error

    def _from_config(self, node: Node, config: dict[str, Any]) -> Any:
        """Make a layer from a config that was never out of this process."""
        try:
            return from_config(node.layer, config, self.dtype)
        except Exception as error:
            raise ModelError(
                "A layer cannot be built again from its config, which is how a model "
                "is copied and shrunk. Give its class a `get_config` that its "
                f"`from_config` understands. Received: {node.path!r} of type "
                f"{type(node.layer).__name__}, which raised {type(error).__name__}: "
                f"{error}"
            ) from error


def _named(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Pass all arguments but the first by name; TFMOT takes a second for `training`."""
    names = list(inspect.signature(layer.call).parameters)
    rest = dict(zip(names[1:], args[1:], strict=False))
    return args[:1], {**rest, **kwargs}


def _known(
    blueprint: Blueprint, shapes: list[Any] | None
) -> list[tuple[int | None, ...]]:
    """Take new sizes for inputs, where the original had a size at all.

    Keras adds an axis of size 1 to a tensor that lacks one.
    """
    old = [i.shape for i in blueprint.inputs]
    if shapes is None:
        return old
    return [
        tuple(None if was is None else now for was, now in zip(o, n, strict=True))
        if len(o) == len(n)
        else o
        for o, n in zip(old, shapes, strict=True)
    ]


def is_adapted(layer: Any) -> bool:
    """Return whether a layer is one that is adapted to data, and not trained."""
    return hasattr(layer, "adapt")


def keeps_words(layer: Any) -> bool:
    """Return whether a layer keeps a vocabulary, and its weights are made from that."""
    return hasattr(layer, "get_vocabulary") and hasattr(layer, "set_vocabulary")


def has_no_words(layer: Any) -> bool:
    """Return whether a layer's config has no vocabulary, so that it was adapted."""
    lookup = getattr(layer, "_lookup_layer", layer)  # of TextVectorization
    return keeps_words(layer) and lookup.input_vocabulary is None


def draw_boundaries(layer: Any) -> None:
    """Draw the boundaries between bins that tf_keras forgets when it loads a layer.

    Args:
        layer: A layer of either flavour; only one with a summary of what it has seen,
            and without boundaries, changes.
    """
    seen = getattr(layer, "summary", None)
    if hasattr(layer, "bin_boundaries") and not layer.bin_boundaries:
        if seen is not None and not callable(seen) and np.size(seen):
            layer.finalize_state()


def hand_on_state(source: Any, target: Any) -> None:
    """Hand on what a layer keeps outside its weights, such as a vocabulary.

    Args:
        source: A layer of either flavour.
        target: A layer that was built from its config; only this one changes.
    """
    if keeps_words(source):
        # Not by a file, as Keras does: a word may be a line break.
        words = source.get_vocabulary()
        lookup = getattr(source, "_lookup_layer", source)  # of TextVectorization
        if getattr(lookup, "output_mode", None) != "tf_idf":
            target.set_vocabulary(words)
        else:  # of which there may be more than words, padded with zeros
            counts = np.asarray(lookup.idf_weights_const)[: len(words)]
            target.set_vocabulary(words, idf_weights=counts)
    elif hasattr(source, "bin_boundaries"):
        target.bin_boundaries = source.bin_boundaries
    elif hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
