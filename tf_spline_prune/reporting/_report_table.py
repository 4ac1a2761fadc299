"""`Report`: what pruning saved, as a table, as plain numbers, as a page."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tf_spline_prune._checks import Path, checked
from tf_spline_prune._files import PathLike, atomic_file
from tf_spline_prune.graph import Barrier, Cost
from tf_spline_prune.pruning import PruningPlan
from tf_spline_prune.pruning.planning._pruning_plan import against
from tf_spline_prune.reporting._report_page import (
    ROWS,
    bird_text,
    fraction,
    level,
    number,
    report_page,
    why_not,
)

Pair = tuple[float, float]


@dataclass(frozen=True)
class Report:
    """What pruning saved.

    Printing it gives a table, `to_dict` plain numbers, `to_html` a page. Pairs are
    the original model and the pruned one.

    Attributes:
        names: Names of the two models.
        before: Cost of the original model.
        after: Cost of the pruned model.
        units: For each layer that produces units, by path, how many it produces in the
            two models; `None` where a model has no such layer.
        barriers: The unprunable units, with reasons.
        tflite_bytes: Bytes of the two as `.tflite` files, float32, or `None`.
        gzip_bytes: The same, compressed by gzip at level 9.
        latency_us: Median time of one inference of the two, in microseconds:
            LiteRT, batch 1, measured in turns in one process.
        num_threads: Number of CPU threads of these inferences.
        unmeasured: For rows without numbers, the reason.
        scores: What the two score, by name; empty if nothing was evaluated.
        plan: The plan, if it was given. Defaults to `None`.
        bird: What the early bird saw, if it was given: the name of its `distance`, its
            `records` by epoch, their `bound` and the `ticket_epoch`, epochs counted
            from 0. Defaults to `None`.

    Example:

    ```python
    report = tsp.report(model, small, data=(x_test, y_test))
    print(report)
    report.levels["macs"] <= 1     # True: what is kept of them
    report.to_html("report.html")
    ```
    """

    names: tuple[str, str]
    before: Cost
    after: Cost
    units: Mapping[str, tuple[int | None, int | None]] = field(repr=False)
    barriers: tuple[Barrier, ...] = field(repr=False)
    tflite_bytes: tuple[int, int] | None
    gzip_bytes: tuple[int, int] | None
    latency_us: Pair | None
    num_threads: int
    unmeasured: Mapping[str, str]
    scores: Mapping[str, Pair]
    plan: PruningPlan | None = field(default=None, repr=False)
    bird: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def pairs(self) -> dict[str, Pair | None]:
        """The rows of the table: numbers of the two models, or `None`."""
        pairs: dict[str, Pair | None] = {}
        for key in ("macs", "params", "bytes"):
            old, new = getattr(self.before, key), getattr(self.after, key)
            pairs[key] = None if old is None or new is None else (old, new)
        for key in ("tflite_bytes", "gzip_bytes", "latency_us"):
            pairs[key] = getattr(self, key)
        return pairs

    @property
    def levels(self) -> dict[str, float | None]:
        """For each row the fraction that is kept: after divided by before."""
        return {key: level(*(p or (None, None))) for key, p in self.pairs.items()}

    @property
    def asked(self) -> str | None:
        """What the plan was asked for and what it achieved, in one line."""
        if self.plan is None or self.plan.achieved is None:
            return None
        return against(self.plan.budget, *self.plan.achieved)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings, lists and dicts.

        What is not known, and what is not a finite number, is `None`; so the result
        is JSON in the strict sense.
        """
        plan = self.plan and {
            "criterion": self.plan.criterion,
            "budget": self.plan.budget,
            "achieved": self.plan.achieved,
        }
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("before", "after", "barriers", "plan")
        }
        return _plain(
            {
                **values,
                "before": dataclasses.asdict(self.before),
                "after": dataclasses.asdict(self.after),
                "levels": self.levels,
                "barriers": [dataclasses.asdict(b) for b in self.barriers],
                "plan": plan,
            }
        )

    @checked(path=[Path(), None])
    def to_html(self, path: PathLike | None = None) -> str:
        """Return the report as one HTML page without scripts or links to elsewhere.

        Args:
            path: File for the page, ending in `.html`; an earlier file of that name is
                replaced. It appears whole or not at all. Defaults to `None`.

        Returns:
            The page.

        Raises:
            ValueError: If the name does not end in `.html`.
            OSError: If the file cannot be written.

        Example:

        ```python
        tsp.report(model, small).to_html("report.html")
        ```
        """
        if path is not None and pathlib.Path(path).suffix != ".html":
            raise ValueError(
                "A page must end in `.html`, by which browsers recognise it. Received: "
                f"{str(path)!r}"
            )
        page = report_page(self)
        if path is not None:
            with atomic_file(path) as temporary:
                temporary.write_text(page, encoding="utf-8")
        return page

    def __str__(self) -> str:
        width = max(14, *(len(name) + 2 for name in (*self.units, *self.scores)))
        lines = [f"{'':<{width}}{'before':>15}{'after':>15}{'kept':>9}"]
        for key, pair in self.pairs.items():
            if pair is None:
                lines.append(f"{ROWS[key]:<{width}}  {why_not(self.unmeasured[key])}")
                continue
            old, new = (number(key, value) for value in pair)
            kept = fraction(self.levels[key])
            lines.append(f"{ROWS[key]:<{width}}{old:>15}{new:>15}{kept:>9}")
        for name, (one, two) in self.scores.items():
            lines.append(f"{name:<{width}}{one:>15.4g}{two:>15.4g}{two - one:>+9.2g}")
        lines += ["", "units"]
        for path, counts in self.units.items():
            kept = fraction(level(*counts))
            cells = [f"{'none' if n is None else n:>15}" for n in counts]
            lines.append(f"{path:<{width}}{''.join(cells)}{kept:>9}")
        lines += [""] * bool(self.asked or self.bird)
        lines += [self.asked] if self.asked else []
        lines += [bird_text(self.bird)] if self.bird else []
        if self.barriers:
            lines += ["", "Unprunable:"]
            lines += [f"  {barrier}" for barrier in self.barriers]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Turn mappings and tuples into what JSON has, NaN and infinity into `None`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
