"""`SanityReport`: a ticket's numbers beside those of tickets without merit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tf_spline_prune.pruning.measuring import mean_and_sd


@dataclass(frozen=True)
class SanityReport:
    """What `sanity_checks` measured.

    Attributes:
        right_away: For `"ticket"`, `"random"`, `"shuffled"` and `"reinitialized"`
            the numbers before any training: one a seed, and a single one for the
            ticket, which does not depend on a seed.
        after_training: The same after training, one number a seed; `None` if there
            was no training.

    Example:

    ```python
    report = tsp.sanity_checks(model, plan, evaluate)
    report.right_away["random"]     # (0.41, 0.52, 0.38)
    print(report)
    ```
    """

    right_away: Mapping[str, tuple[float, ...]]
    after_training: Mapping[str, tuple[float, ...]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers, means and standard deviations in plain dicts and lists.

        Returns:
            For each time and each kind of model a dict of `values`, `mean` and `sd`;
            `sd` is `None` where there is a single value.
        """
        found: dict[str, Any] = {}
        for time, table in self._times().items():
            found[time] = {}
            for kind, values in table.items():
                mean, sd = mean_and_sd(values)
                found[time][kind] = {"values": list(values), "mean": mean, "sd": sd}
        return found

    def __str__(self) -> str:
        times = self._times()
        heads = [time.replace("_", " ") for time in times]
        lines = [f"{'':<14}" + "".join(f"{head:>24}" for head in heads)]
        for kind in self.right_away:
            cells = []
            for table in times.values():
                mean, sd = mean_and_sd(table[kind])
                cells.append(f"{mean:.4g}" + ("" if sd is None else f" +- {sd:.2g}"))
            lines.append(f"{kind:<14}" + "".join(f"{cell:>24}" for cell in cells))
        return "\n".join(lines)

    def _times(self) -> dict[str, Mapping[str, tuple[float, ...]]]:
        times = {"right_away": self.right_away}
        if self.after_training is not None:
            times["after_training"] = self.after_training
        return times
