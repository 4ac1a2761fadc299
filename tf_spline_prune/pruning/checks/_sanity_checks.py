"""`sanity_checks`: whether a ticket owes anything to the units that it kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_spline_prune._checks import SEED, Integer, checked
from tf_spline_prune.compat import (
    CurrentWeights,
    Progress,
    keras_of,
    require_flavour,
    streams_kept,
    trace,
    weight_names,
    with_weights,
)
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.pruning._remove_units import PLAN, build_pruned
from tf_spline_prune.pruning.checks._measuring import (
    EVALUATE,
    TRAIN,
    Evaluate,
    Train,
    mean_and_sd,
    measured,
)
from tf_spline_prune.pruning.planning._pruning_plan import PruningPlan


@dataclass(frozen=True)
class SanityReport:
    """What `sanity_checks` measured.

    Attributes:
        right_away: For `"ticket"`, `"random"`, `"shuffled"` and `"reinitialized"`
            the numbers before any training: one per seed, and a single one for the
            ticket, which does not depend on a seed.
        after_training: The same after training, one number per seed; `None` if there
            was no training. Defaults to `None`.

    Example:

    ```python
    report = tsp.sanity_checks(model, plan, evaluate)
    len(report.right_away["random"])     # 3: one number per seed
    print(report)
    ```
    """

    right_away: Mapping[str, tuple[float, ...]]
    after_training: Mapping[str, tuple[float, ...]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, means and standard deviations in plain dicts and lists.

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


@checked(
    plan=PLAN,
    evaluate=EVALUATE,
    train=[TRAIN, None],
    num_seeds=Integer(1, 10_000),
    seed=SEED,
)
def sanity_checks(
    model: Any,
    plan: PruningPlan,
    evaluate: Evaluate,
    train: Train | None = None,
    num_seeds: int = 3,
    seed: int = 0,
) -> SanityReport:
    """Compare a ticket with tickets that share only its shape.

    Four small models of one architecture are evaluated right away and, where
    `train` is given, after training:

    - `"ticket"`: `plan.apply(model)`, without merging or other recovery;
    - `"random"`: as many units of each group removed as the plan removes, drawn at
      random, so that every layer is exactly as wide as the ticket's;
    - `"shuffled"`: the ticket, the entries of each trainable weight put into a
      random order; statistics, such as those of BatchNormalization, stay;
    - `"reinitialized"`: the ticket's architecture with new initial weights.

    If `"random"` does as well as the ticket after training, the criterion chose
    nothing; if `"reinitialized"` does, pruning has only found an architecture.

    Before each training `keras.utils.set_random_seed` is called with a seed derived
    from `seed`, so that runs can be repeated and differ from each other; new initial
    weights are drawn after it too. Afterwards the generators of the session are as
    they were.

    Args:
        model: The model that the plan was made for. It is not changed.
        plan: The plan.
        evaluate: Takes a small, uncompiled model and returns a number; more is
            better or worse, as you like.
        train: Takes a small, uncompiled model and trains it in place; it compiles it
            itself. Defaults to `None`.
        num_seeds: Number of times that each comparison is drawn and trained. Defaults
            to `3`.
        seed: Seed of the draws. Defaults to `0`.

    Returns:
        All measured numbers; printing it gives a table of means and standard
        deviations.

    Raises:
        FlavourError: If `model` is no Keras model.
        PlanError: If the plan was made for another structure.
        TypeError: If `evaluate` or `train` is no function, or `evaluate` gives
            no number.
        ValueError: If `num_seeds` or `seed` is out of range.

    Example:

    ```python
    plan = tsp.plan(model, "spline", target_macs=0.5)
    print(tsp.sanity_checks(model, plan, evaluate, train=teach))
    ```

    Source: Frankle et al., "Pruning neural networks at initialization: why are we
    missing the mark?", ICLR 2021; Su et al., "Sanity-checking pruning methods:
    random tickets can win the jackpot", NeurIPS 2020.
    """
    require_flavour(model)
    graph = plan.graph_of(model)
    removed = graph.removal(dict(plan.removed))
    ticket = build_pruned(graph, removed, graph.arrays)
    set_seed = keras_of(model).utils.set_random_seed
    makers: dict[str, Callable[[np.random.Generator], Any]] = {
        "ticket": lambda rng: with_weights(ticket, {}),
        "random": lambda rng: build_pruned(
            graph, same_profile(graph, removed, rng), graph.arrays
        ),
        "shuffled": lambda rng: with_weights(ticket, _shuffled(ticket, rng)),
        "reinitialized": lambda rng: build_pruned(graph, removed, None),
    }
    right_away: dict[str, list[float]] = {kind: [] for kind in makers}
    after: dict[str, list[float]] = {kind: [] for kind in makers}
    progress = Progress(len(makers) * num_seeds, "model")
    with streams_kept():
        for number in range(num_seeds):
            for place, (kind, make) in enumerate(makers.items()):
                # Seeds of 32 bits, for that is what Keras takes.
                drawn = np.random.SeedSequence([seed, number, place]).generate_state(1)
                set_seed(int(drawn[0]))
                small = make(np.random.default_rng([seed, number, place]))
                # Untrained, the ticket never differs.
                if kind != "ticket" or number == 0:
                    right_away[kind].append(measured(evaluate, small))
                if train is not None:
                    set_seed(int(drawn[0]))
                    train(small)
                    after[kind].append(measured(evaluate, small))
                progress.step()
    return SanityReport(
        right_away={kind: tuple(values) for kind, values in right_away.items()},
        after_training=(
            {kind: tuple(values) for kind, values in after.items()} if train else None
        ),
    )


def same_profile(
    graph: ChannelGraph, removed: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw a removal that takes as many units of each group as another one.

    Args:
        graph: The channel graph.
        removed: Array of shape `(labels,)`, bool, indexed by unit.
        rng: Draws the units.

    Returns:
        Array of the same shape.
    """
    drawn = graph.nothing_removed()
    for group in graph.groups:
        count = int(removed[group.roots].sum())
        drawn[rng.choice(group.roots, count, replace=False)] = True
    return drawn


def _shuffled(model: Any, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Put the entries of each trainable weight into a random order."""
    graph = trace(model)
    found = {}
    for path, arrays in CurrentWeights(graph).items():
        layer = graph.layers[path]
        trainable = {id(variable) for variable in layer.trainable_weights}
        held = [w for w in layer.weights if hasattr(w, "shape")]
        names = [
            name
            for name, variable in zip(weight_names(layer), held, strict=True)
            if id(variable) in trainable
        ]
        found[path] = {
            name: rng.permutation(arrays[name].ravel()).reshape(arrays[name].shape)
            for name in names
        }
    return found
