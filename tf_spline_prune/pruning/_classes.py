"""`Classes`: what stays of its class in a smaller model, and why the rest does not."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_spline_prune.compat import Blueprint, Node, Place, is_own_class
from tf_spline_prune.errors import ModelError
from tf_spline_prune.graph import ChannelGraph


class Classes:
    """The models and layers made of layers whose class can say the sizes that are left.

    The outermost such one stays as it is, with other numbers in its config; one that
    cannot say them comes out as plain layers, and those in it are looked at.

    Args:
        graph: The model's channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.

    Attributes:
        values: By path the entries of the config that change; `""` is the model.
        reasons: By path why one comes out as plain layers.

    Raises:
        ModelError: If one can neither say its sizes nor come out as plain layers.
    """

    def __init__(self, graph: ChannelGraph, removed: np.ndarray) -> None:
        self._graph = graph
        self._left = graph.left(removed)
        self._tree: dict[str, tuple[Node | None, Blueprint | None]] = {}
        self.values: dict[str, dict[Place, int]] = {}
        self.reasons: dict[str, str] = {}
        self._look_at(graph.model, None, graph.source.blueprint)

    def _look_at(
        self, owner: Any, node: Node | None, blueprint: Blueprint | None
    ) -> None:
        path = node.path if node else ""
        if is_own_class(owner):
            self._tree[path] = node, blueprint
            values = self._graph.sizes.of(node).values(self._left)
            if isinstance(values, str):
                inside = self._graph.sizes.of(node).inside
                left = (self._left.get(name, (0, 0)) for name in inside)
                touched = any(whole != rest for whole, rest in left)
                if node is not None and blueprint is None and not touched:
                    return  # it is copied as one layer
                self._open(path, values)
            else:
                self.values[path] = values
        elif blueprint is not None:
            self._inside(blueprint)

    def _inside(self, blueprint: Blueprint) -> None:
        for node in _made_of_layers(blueprint):
            self._look_at(node.layer, node, node.inner)

    def _open(self, path: str, reason: str) -> None:
        """Let one come out as plain layers, if its calls are known at any size."""
        node, blueprint = self._tree[path]
        shut = blueprint is None or path in self._graph.closed
        if node is not None and shut:
            raise ModelError(
                "A layer made of layers cannot be made smaller: its class does not say "
                "the sizes, and it does not come out as plain layers, for "
                f"{node.why or 'it cannot be traced'}. Leave its units out by "
                f"`layers=`, or build the model for fixed sizes. Received: {path!r}: "
                f"{reason}"
            )
        self.reasons[path] = reason
        if blueprint is not None:
            self._inside(blueprint)

    def give_up(self, path: str, why: str) -> None:
        """Let what holds a layer come out as plain layers, for it is not as wanted.

        Args:
            path: Path of the layer that differs.
            why: How.
        """
        held = [p for p in self.values if not p or f"{path}/".startswith(f"{p}/")]
        for owner in held or list(self.values):
            del self.values[owner]
            self._open(owner, f"made by its class, {path or 'it'} differs: {why}")


def _made_of_layers(blueprint: Blueprint) -> Iterator[Node]:
    """Yield the models and layers made of layers in a model, each once."""
    seen: set[str] = set()
    for node in blueprint.nodes:
        if node.path not in seen:
            seen.add(node.path)
            if node.inner is not None or node.why:
                yield node
