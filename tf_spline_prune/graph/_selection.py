"""Which layers a user means: by name, path, regular expression, list or function."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Selector = str | Iterable[str] | Callable[[Any], bool] | None
T = TypeVar("T")


@dataclass(frozen=True)
class Nameable:
    """The layers that a user may name, and those that cannot be meant.

    A name or path means the layers of that path, and those whose path ends in it; a
    regular expression those whose paths it matches whole.

    Attributes:
        layers: The layers by name.
        does: What they do, for messages: `"produces units"`.
        barred: For the names of layers that cannot be meant, the reasons.
        refusal: What is said of these, with `{name!r}` and `{reason}`.
        paths: The paths of the layers by name, where these differ.
        error: The class of the refusal.
    """

    layers: Mapping[str, Any]
    does: str
    barred: Mapping[str, str]
    refusal: str
    paths: Mapping[str, str] = field(default_factory=dict)
    error: type[ValueError] = ValueError

    def chosen(self, selector: Selector, argument: str = "layers") -> set[str]:
        """Find what a selector means.

        Args:
            selector: `None` for all; what `matching` takes, or a list of it; or a
                function of the layer.
            argument: Name of the argument that holds it, for the messages.

        Returns:
            Names.

        Raises:
            ValueError: If nothing is meant, or a name means nothing.
        """
        if selector is None:
            return set(self.layers)
        if callable(selector):
            found = {name for name, layer in self.layers.items() if selector(layer)}
            if not found:
                raise ValueError(
                    f"`{argument}` chose none of the layers. It must choose one that "
                    f"{self.does}."
                )
            return found
        if not isinstance(selector, Iterable):
            raise ValueError(
                f"`{argument}` must be a name, a regular expression, a list of these, "
                f"or a function of the layer. Received: {selector!r}"
            )
        patterns = [selector] if isinstance(selector, str) else selector
        found = {n for pattern in patterns for n in self.matching(pattern, argument)}
        if not found:
            raise ValueError(f"`{argument}` is empty, so there is nothing to prune.")
        return found

    def matching(self, pattern: str, argument: str) -> set[str]:
        """Find what one name, path or regular expression means.

        Args:
            pattern: The name, path or expression.
            argument: Name of the argument that holds it, for the messages.

        Returns:
            Names, at least one.

        Raises:
            ValueError: If it means nothing, or only layers that are barred.
        """
        try:
            whole = re.compile(pattern).fullmatch
        except (re.error, TypeError) as error:
            raise ValueError(
                f"`{argument}` holds what is neither a name nor a regular expression: "
                f"{error}. Received: {pattern!r}"
            ) from error
        hits = {
            name
            for name in (*self.layers, *self.barred)
            for path in (name, self.paths.get(name, name))
            if pattern in (path, path.rpartition("/")[2]) or whole(path)
        }
        open_ = hits.intersection(self.layers)
        if not open_:
            start = f"`{argument}` names no layer that"
            raise self._refused(hits, start, pattern, f"{argument} with {pattern!r}")
        return open_

    def one(self, name: str, argument: str) -> str:
        """Find the one layer that a name means: an own name goes first."""
        if name in self.layers:
            return name
        hits = self.matching(name, argument)
        if len(hits) > 1:
            raise ValueError(
                f"`{argument}` must name one layer at a time. Received: {name!r}, "
                f"which means {', '.join(sorted(hits))}"
            )
        return hits.pop()

    def require(self, name: str) -> None:
        """Raise unless a layer has just this name."""
        if name not in self.layers:
            hits = {name} & self.barred.keys()
            raise self._refused(hits, "No layer of this name", name, repr(name))

    def each(
        self,
        asked: Iterable[tuple[str, T]] | Callable[[Any], T | None],
        argument: str,
        what: str,
    ) -> dict[str, T]:
        """Map layers to what is asked for them.

        Args:
            asked: Pairs of what `matching` takes and what these layers get; or a
                function of a layer, that gives `None` for nothing.
            argument: Name of the argument that holds it, for the messages.
            what: What they get, for the messages: `"fractions"`.

        Returns:
            What each layer gets, by name; only those that get something.

        Raises:
            ValueError: If a name means nothing, or a layer gets two things.
        """
        if callable(asked):
            given = {name: asked(layer) for name, layer in self.layers.items()}
            return {name: value for name, value in given.items() if value is not None}
        found: dict[str, T] = {}
        for pattern, value in asked:
            for name in self.matching(pattern, argument):
                if found.setdefault(name, value) != value:
                    raise ValueError(
                        f"`{argument}` gives the layer {name!r} two {what}. Received: "
                        f"{found[name]!r} and, by {pattern!r}, {value!r}"
                    )
        return found

    def _refused(
        self, hits: set[str], start: str, pattern: str, received: str
    ) -> ValueError:
        """Return why nothing is meant: what is hit is barred, or what is near."""
        if hits:
            name = min(hits)
            refusal = self.refusal.format(name=name, reason=self.barred[name])
            return self.error(f"{refusal} Received: {received}")
        near = difflib.get_close_matches(str(pattern), self.layers, 3, 0.4)
        return ValueError(
            f"{start} {self.does}. Nearest: {near or [*self.layers][:5]}. "
            f"Received: {pattern!r}"
        )
