"""`Budget`: what a user asks for, checked before anything else happens."""

from dataclasses import dataclass
from typing import Any

from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph import Cost

_TARGETS = {"target_macs": "macs", "target_params": "params"}


@dataclass(frozen=True)
class Budget:
    """One target: a share of units to remove, or a cost to come down to.

    Attributes:
        kind: `"sparsity"`, `"target_macs"` or `"target_params"`.
        value: As the user gave it.
    """

    kind: str
    value: float | int

    @classmethod
    def of(cls, **asked: Any) -> "Budget":
        """Pick the one target that was given.

        Raises:
            ValueError: If none or several were given, or one is out of range.
        """
        given = {kind: value for kind, value in asked.items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"Give exactly one of {', '.join(asked)}. Received: {given or 'none'}"
            )
        ((kind, value),) = given.items()
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"`{kind}` must be a number. Received: {value!r}")
        if kind == "sparsity":
            if not 0 <= value < 1:
                raise ValueError(
                    "`sparsity` is the share of units to remove, at least 0 and less "
                    f"than 1. Received: sparsity={value}"
                )
        elif isinstance(value, int):
            if value < 1:
                raise ValueError(f"`{kind}` must be at least 1. Received: {value}")
        elif not 0 < value <= 1:
            raise ValueError(
                f"`{kind}` is a share to keep (a float above 0 and up to 1) or an "
                f"absolute number (an int). Received: {kind}={value}"
            )
        return cls(kind, value if isinstance(value, int) else float(value))

    @property
    def measure(self) -> str | None:
        """Name of the cost that the target bounds, or `None` for sparsity."""
        return _TARGETS.get(self.kind)

    def limit(self, before: Cost) -> int:
        """Give the absolute cost to come down to.

        Args:
            before: The model's cost.

        Returns:
            The number that the cost may not exceed.

        Raises:
            BudgetError: If the target is above what is there.
        """
        full = getattr(before, str(self.measure))
        if isinstance(self.value, float):
            return int(self.value * full)
        if self.value > full:
            raise BudgetError(
                "The target is above what the model has. Expected at most "
                f"{full:,} {self.measure}. Received: {self.kind}={self.value:,}"
            )
        return self.value
