"""`SignalPropagation`: how signals and gradients travel through a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class SignalPropagation:
    """What `signal_propagation` measured, by layer in the order of computation.

    Attributes:
        density: The share of each kernel's weights that are kept.
        dead_units: The share of each layer's units that are the same on every input,
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
        return tuple(path for path, share in self.density.items() if share == 0)

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
