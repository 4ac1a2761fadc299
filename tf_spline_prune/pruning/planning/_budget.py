"""`Budget`: what a user asks for, checked before anything else happens."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_spline_prune._amounts import read_amount
from tf_spline_prune._checks import (
    Array,
    Either,
    Function,
    MapOf,
    Options,
    Real,
    Text,
    check,
)
from tf_spline_prune.errors import BudgetError
from tf_spline_prune.graph._cost import WEIGHT_DTYPE, WeightDtype

# A fraction for all, for each layer named, or what a function says of each layer.
Sparsity = float | str | Mapping[str, float | str] | Callable[[Any], float | str | None]
# A fraction to keep, or a number; as a text, as in the shell.
Target = float | int | str

_MEASURES = {
    "target_macs": "macs",
    "target_params": "params",
    "target_bytes": "bytes",
    "target_latency": "microseconds",
}
# What the checks of arguments want of a budget, before `Budget.of` reads it.
_PERCENTAGE = Text("a percentage such as '50%'")
AMOUNT: Options = [Real(), _PERCENTAGE]
FRACTIONS: Options = [
    Real(),
    _PERCENTAGE,
    MapOf(
        Text("the name of a layer"),
        Either(Real(), _PERCENTAGE),
        "a dictionary from names of layers to such numbers",
        0,
    ),
    Function("a function of a layer"),
]
LATENCY: Options = [
    Function("a function of a model that returns microseconds"),
    MapOf(
        Text("the name of a layer"),
        Array("microseconds by the number of units kept", ndim=1, finite=False),
        "a table, a dictionary from names of layers to sequences of microseconds",
    ),
    None,
]


@dataclass(frozen=True)
class Budget:
    """One target: fractions of units to remove, or a cost to come down to.

    Attributes:
        kind: `"sparsity"`, or the name of the target.
        value: As the user gave it.
        weight_dtype: The dtype in which bytes are counted.
        latency: Where latencies come from.
        details: What the plan records besides.
    """

    kind: str
    value: Any
    weight_dtype: WeightDtype | None = None
    latency: Any = None
    details: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, *, weight_dtype: Any = None, latency: Any = None, **asked: Any
    ) -> "Budget":
        """Pick the one target that was given.

        Raises:
            ValueError: If none or several were given, one is out of range, or
                `weight_dtype` or `latency` goes with another target.
        """
        given = {
            kind: check(kind, value, AMOUNT if kind in _MEASURES else FRACTIONS)
            for kind, value in asked.items()
            if value is not None
        }
        if len(given) != 1:
            raise ValueError(
                f"Give exactly one of {', '.join(asked)}. Received: {given or 'none'}"
            )
        ((kind, value),) = given.items()
        check("weight_dtype", weight_dtype, WEIGHT_DTYPE)
        latency = check("latency", latency, LATENCY)
        for name, owner, setting in (
            ("weight_dtype", "target_bytes", weight_dtype),
            ("latency", "target_latency", latency),
        ):
            if setting is not None and kind != owner:
                raise ValueError(
                    f"`{name}` goes with `{owner}` only. Received: {name}="
                    f"{setting!r} with {kind}={value!r}"
                )
        if kind == "sparsity" and (callable(value) or isinstance(value, Mapping)):
            return cls(kind, value)
        value = as_number(value, kind)
        if kind == "sparsity":
            check_fraction(value, "sparsity")
        elif isinstance(value, int):
            if value < 1:
                raise ValueError(f"`{kind}` must be at least 1. Received: {value}")
        elif not 0 < value <= 1:
            raise ValueError(
                f"`{kind}` is a fraction to keep (a float above 0 and up to 1) or an "
                f"absolute number (an int). Received: {kind}={value}"
            )
        value = value if isinstance(value, int) else float(value)
        details = {"weight_dtype": weight_dtype} if weight_dtype else {}
        if kind == "target_latency":
            details["latency"] = _source(latency)
        return cls(kind, value, weight_dtype, latency, details)

    @property
    def measure(self) -> str | None:
        """Return the cost that the target bounds, or `None` for sparsity."""
        return _MEASURES.get(self.kind)

    @property
    def by_layer(self) -> bool:
        """Whether each layer has a fraction of its own."""
        return not isinstance(self.value, (int, float))

    @property
    def fraction(self) -> float:
        """The fraction of all units to remove, 0 where that is not what was asked."""
        return 0.0 if self.measure or self.by_layer else float(self.value)

    def limit(self, full: float) -> float:
        """Return the absolute cost to come down to.

        Args:
            full: The model's cost, in the budget's measure.

        Returns:
            The number that the cost may not exceed.

        Raises:
            BudgetError: If the target is above what is there, or nothing is there.
        """
        if not full and self.value != 1.0:
            raise BudgetError(
                f"The model has no {self.measure}, so there is nothing to save. Ask "
                "for another target, such as parameters or a fraction of the units. "
                f"Received: {self.kind}={self.value}"
            )
        if isinstance(self.value, float):
            fraction = self.value * full
            return fraction if self.kind == "target_latency" else math.floor(fraction)
        if self.value > full:
            raise BudgetError(
                "The target is above what the model has. Expected at most "
                f"{amount(full)} {self.measure}. Received: {self.kind}={self.value:,}"
            )
        return int(self.value)


def check_fraction(value: Any, name: str) -> float:
    """Return a fraction of units to remove, or raise `ValueError`."""
    number = as_number(value, name)
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ValueError(f"`{name}` must hold numbers. Received: {value!r}")
    if not 0 <= number < 1:
        raise ValueError(
            f"`{name}` is the fraction of units to prune, at least 0 and less than 1. "
            f"Received: {name}={number}"
        )
    return float(number)


def as_number(value: Any, name: str) -> Any:
    """Take a number out of an array, or out of a text such as `"50%"`."""
    if isinstance(value, str):
        try:
            return read_amount(value)
        except ValueError as error:
            raise ValueError(f"`{name}` is a text that is no number: {error}") from None
    return value.item() if hasattr(value, "item") else value


def amount(value: float) -> str:
    """Write a cost: whole numbers whole, microseconds with one decimal."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _source(latency: Any) -> str:
    if latency is None:
        return "LiteRT"
    if isinstance(latency, Mapping):
        return "table"
    return "function"
