"""`MaskPruning`: masks that grow by a schedule while a model trains."""

import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

from tf_spline_prune._checks import SEED, SELECTOR, Data, OneOf, checked
from tf_spline_prune.compat import (
    Callback,
    MaskSlot,
    batches_a_step,
    mask_averages,
    optimizer_steps,
    require_flavour,
    take_over,
)
from tf_spline_prune.errors import (
    NothingPrunedWarning,
    SparsityError,
    SparsityWarning,
    warn,
)
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.masking._granularity import Granularity, Pooling
from tf_spline_prune.masking._slots import by_path
from tf_spline_prune.masking._targets import (
    SLACK,
    Target,
    below_target,
    remember,
    remember_nothing,
)
from tf_spline_prune.masking._update_masks import (
    GRANULARITY,
    MASK_CRITERION,
    MaskUpdate,
    slots_of,
)
from tf_spline_prune.masking._wrap_with_masks import names_successors
from tf_spline_prune.pruning.planning._scopes import SCOPE

BelowTarget = Literal["warn", "raise", "ignore"]


class MaskPruning(Callback):
    """Update the masks of a model at the steps at which a schedule fires.

    The model is a masked one: of `wrap_with_masks`, or in tf_keras one that TFMOT's
    `prune_low_magnitude` has wrapped; then this callback replaces `UpdatePruningStep`,
    and TFMOT's own schedule is inactive from then on. Masks are computed on the host,
    between steps. From then on the optimizer holds the zeros: exactly, after each of
    its updates.

    A step is an update by the optimizer, counted over all calls of `fit` since it was
    created, whatever `steps_per_execution`, gradient accumulation or the number of uses
    of a layer. Step 0 is before the first one. Masks only ever grow.

    The fraction of weights that are masked is in the logs as `sparsity`, that of a
    second such callback in one `fit` as `sparsity_2`. With several workers
    (`MultiWorkerMirroredStrategy` of tf_keras) all use the chief's masks.

    Args:
        schedule: A `PruningSchedule`: TFMOT's, one of `tsp.schedules`, or your own; or
            a dictionary from layer names or regular expressions to schedules, which
            leaves other layers as they are. Note that most fire every 100 steps
            (`frequency`) by default.
        criterion: What is worth keeping. For weights `"magnitude"`, `"lamp"`,
            `"random"`, or a function `(name, array) -> array` of the same shape; for
            units any criterion that `plan` takes. Defaults to `"magnitude"`.
        granularity: `"weight"`, a block such as `(4, 1)` (consecutive inputs and
            outputs), a pattern such as `"2:4"` (two zeros in every four consecutive
            inputs), or `"unit"`. Defaults to `"weight"`.
        scope: `"layer"` or `"global"`; for units any scope of `plan`. Defaults to
            `"layer"`.
        layers: Which of the masked layers take part: a path or name, a regular
            expression, a list of these, or a function of the layer. Defaults to `None`,
            which means all.
        pooling: `"mean"` or `"max"`: how the worth of a block comes from its weights.
            Defaults to `"mean"`.
        data: Inputs, or `(inputs, labels)`, for criteria that read any. Defaults to
            `None`.
        seed: Seed of whatever is random. Defaults to `0`.
        below_target: What happens if training ends more than one percent below what the
            schedule was to reach, or with whole units left that should have been
            pruned: `"warn"`, `"raise"` or `"ignore"`. Callbacks that restore older
            weights at the end must come before this one to be seen; `strip_masks` looks
            again. Defaults to `"warn"`.

    Raises:
        ValueError: If an argument is out of range.
        ModelError: When training begins, if the model has no masks.
        BudgetError: When training begins, if so many units cannot be pruned.
        SparsityError: When training ends, if the target is missed and
            `below_target="raise"`.

    Example:

    ```python
    ramp = tsp.schedules.PolynomialDecay(0.0, 0.8, begin_step=0, end_step=2000)
    masked = tsp.wrap_with_masks(model)
    masked.fit(train, epochs=10, callbacks=[tsp.MaskPruning(ramp)])
    ```

    Source: Zhu and Gupta, "To prune, or not to prune", 2017 (gradual pruning).
    """

    @names_successors
    @checked(
        criterion=MASK_CRITERION,
        granularity=GRANULARITY,
        scope=SCOPE,
        layers=SELECTOR,
        pooling=OneOf(*get_args(Pooling)),
        data=[Data(), None],
        seed=SEED,
        below_target=OneOf(*get_args(BelowTarget)),
    )
    def __init__(
        self,
        schedule: Any,
        criterion: Any = "magnitude",
        granularity: Any = "weight",
        scope: Any = "layer",
        *,
        layers: Selector = None,
        pooling: str = "mean",
        data: Any = None,
        seed: int = 0,
        below_target: BelowTarget = "warn",
    ) -> None:
        super().__init__()
        if isinstance(schedule, Mapping):
            if scope != "layer":
                raise ValueError(
                    "With one schedule per layer, `scope` has nothing to decide. Leave "
                    f"it out, or give one schedule. Received: scope={scope!r}"
                )
            if not schedule:
                raise ValueError(
                    "`schedule` is empty, so there is nothing to do. Received: {}"
                )
        for one in _all(schedule):
            _firing().final_sparsity(one)  # refuses what is no schedule
        if granularity != "unit":
            Granularity.of(granularity)  # refuses what is none
        self.schedule = schedule
        self.criterion = criterion
        self.granularity = granularity
        self.scope = scope
        self.layers = layers
        self.pooling = pooling
        self.data = data
        self.seed = seed
        self.below_target = below_target
        self._slots: list[MaskSlot] = []
        self._schedules: dict[str, Any] = {}
        self._finals: dict[str, float] = {}
        self._update: MaskUpdate | None = None
        self._first, self._last = 0, -1
        self._over = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Find the masks, and act if the schedule fires at the very beginning."""
        require_flavour(self.model)
        self._update, self._over = None, False
        self._first = optimizer_steps(self.model)
        self._last = self._first - 1
        if self.model.built:  # else a subclassed model, which its first batch builds
            self._begin()

    def _begin(self) -> None:
        slots = slots_of(self.model, self.layers)
        self._schedules = self._by_path(slots)
        self._slots = [slot for slot in slots if slot.path in self._schedules]
        take_over(self.model)
        self._update = MaskUpdate(
            self.model,
            self._slots,
            self.criterion,
            self.granularity,
            self.scope,
            self.pooling,
            self.data,
            self.seed,
        )
        self._slots = self._update.slots
        self._resolve_clocks()
        self._finals = {
            path: fraction
            for path, schedule in self._schedules.items()
            if (fraction := _firing().final_sparsity(schedule)) is not None
        }
        granularity = self._update.granularity
        for slot in self._slots:
            target = self._finals.get(slot.path)
            if target is None or granularity is None:  # a fraction of units
                slot.note_target(Target(None))
            else:
                slot.note_target(Target(min(target, granularity.most)))
        if granularity is None and (why := self._update.why_nothing(self._end())):
            warn(f"Nothing will be masked, because {why}.", NothingPrunedWarning)
        if below_target(self._slots) or not self.sparsity():
            self._warn_of_the_end()
        self._act()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the steps again, should something have set them back."""
        if self._over:
            self._last, self._over = optimizer_steps(self.model), False

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Act if the schedule fired within the steps just done."""
        if self._update is None:
            self._begin()
        elif not self._over:
            self._act()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the sparsity."""
        mask_averages(self.model, self._slots)
        remember(self._slots)
        if logs is not None:
            logs[self._named_in_fit("sparsity")] = self.sparsity()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Mask once more what averages have written, and look at the target."""
        for slot in self._slots:
            slot.apply()
        now = optimizer_steps(self.model)
        for slot in self._slots:
            target = slot.target
            cause = self._cause(slot, now)
            if target is not None and cause:
                target.cause = cause
        message = below_target(self._slots) or self._nothing() or self._units_short()
        if message and now == self._first:
            message = (
                "The optimizer that the model is compiled with made no step, so the "
                "schedule never fired. Where a `train_step` steps another one, call "
                "`tsp.update_masks` from there or from your own loop."
            )
        if message and self.below_target == "raise":
            raise SparsityError(message)
        if message and self.below_target == "warn":
            warn(message, SparsityWarning)

    def _end(self) -> Any:
        """Return the sparsity that the schedules are to reach, for `MaskUpdate`.

        That is zero where nobody knows.
        """
        if isinstance(self.schedule, Mapping):
            return self._finals
        return next(iter(self._finals.values()), 0.0)

    def _cause(self, slot: MaskSlot, now: int) -> str | None:
        """Return why the masks of a weight remove less than they are to, if known."""
        schedule, target = self._schedules.get(slot.path), slot.target
        if schedule is None or target is None:
            return None
        if cause := _firing().why_short(schedule, 0, now):
            return str(cause)
        granularity = self._update.granularity if self._update else None
        if granularity is None:
            return None
        found = _firing().last_firing(schedule, 0, now)
        asked = max(target.asked, found[1] if found else 0.0)
        if asked < self._finals.get(slot.path, 1.0) - SLACK:
            return None
        return (
            f"The schedule came to its end, and granularity={granularity.spec!r} "
            "prunes no more weights of these shapes."
        )

    def _nothing(self) -> str | None:
        """Return why nothing went, although the schedule asked for something."""
        targets = {slot.path: slot.target for slot in self._slots}
        asked = {path: one.asked for path, one in targets.items() if one is not None}
        fractions: Any = asked
        if not isinstance(self.schedule, Mapping):
            fractions = max(asked.values(), default=0.0)
        why = self._update.why_nothing(fractions) if self._update else None
        remember_nothing(self._slots, why)
        return f"The masks remove nothing, because {why}." if why else None

    def _units_short(self) -> str | None:
        """Return how many whole units are still there that were to go, and why."""
        fraction = self._end()
        if self._update is None or self._update.granularity is not None or not fraction:
            return None
        missing = self._update.units_missing(fraction)
        if not missing:
            return None
        now = optimizer_steps(self.model)
        causes = dict.fromkeys(self._cause(slot, now) for slot in self._slots)
        said = [cause for cause in causes if cause]
        most = fraction if isinstance(fraction, float) else max(fraction.values())
        return (
            f"Units that should have been pruned are still there: {missing}; the "
            f"schedule was to reach {most:.1%}. {' '.join(said) or Target(None).cause}"
        )

    def sparsity(self) -> float:
        """Return the fraction of the weights in question that is masked, in [0, 1)."""
        size = sum(math.prod(slot.mask.shape) for slot in self._slots)
        left = sum(int(slot.keep().sum()) for slot in self._slots)
        return 1.0 - left / size if size else 0.0

    def _by_path(self, slots: list[MaskSlot]) -> dict[str, Any]:
        """Assign each layer its schedule."""
        if not isinstance(self.schedule, Mapping):
            return {slot.path: self.schedule for slot in slots}
        return by_path(slots, self.schedule, "schedule", "schedules")

    def _resolve_clocks(self) -> None:
        """Set the length of training in schedules that run in epochs or percent."""
        from tf_spline_prune.schedules import Timed

        batches, epochs = self._planned()
        # An epoch may end amid the batches whose gradients make one step.
        steps = batches and max(1, round(batches / batches_a_step(self.model)))
        for schedule in _all(self.schedule):
            if isinstance(schedule, Timed):
                schedule.resolve(steps, epochs)

    def _planned(self) -> tuple[int | None, int | None]:
        """Return the batches of an epoch, and the epochs, where known."""
        params = self.params or {}
        return params.get("steps"), params.get("epochs")

    def _warn_of_the_end(self) -> None:
        """Warn before the first step if training as planned will miss the target."""
        batches, epochs = self._planned()
        if not batches or not epochs:
            return
        first = self._last + 1
        last = first + batches * epochs // batches_a_step(self.model)
        for schedule in _all(self.schedule):
            message = None
            if _firing().fires_within(schedule, first, last) is False:
                message = (
                    f"The schedule {type(schedule).__name__} never fires within the "
                    f"planned training: {epochs} epochs of {batches} batches, from "
                    f"step {first} to {last}. Nothing will be pruned. Let it begin "
                    "earlier, fire more often (`frequency`), or count in epochs "
                    "(`tsp.schedules.Timed`)."
                )
            elif self.below_target != "ignore":
                message = _short(schedule)
            if message:
                warn(message, SparsityWarning)

    def _act(self) -> None:
        """Set the masks, if a firing step lies between the last look and now."""
        now = optimizer_steps(self.model)
        window = range(self._last + 1, now + 1)
        self._last = now
        fractions: dict[int, float] = {}
        for schedule in _all(self.schedule):
            for step in reversed(window):
                fires, fraction = _firing().evaluate(schedule, step)
                if fires:
                    fractions[id(schedule)] = fraction
                    break
        if not fractions or self._update is None:
            # Reading the steps each time takes longer than holding the masks.
            self._over = all(_firing().is_over(one, now) for one in _all(self.schedule))
            return
        if isinstance(self.schedule, Mapping):
            self._update(
                {
                    path: fractions[id(schedule)]
                    for path, schedule in self._schedules.items()
                    if id(schedule) in fractions
                }
            )
        else:
            self._update(fractions[id(self.schedule)])
        mask_averages(self.model, self._slots)


def _short(schedule: Any) -> str | None:
    """Return why a schedule cannot reach its end, however long the training is."""
    firing = _firing()
    found, meant = firing.last_firing(schedule, 0, firing.FAR), None
    if found is not None:
        meant = firing.final_sparsity(schedule)
    if meant is None or found[1] >= meant - SLACK:
        return None
    cause = firing.why_short(schedule, 0, firing.FAR)
    if firing.falls(schedule):
        return cause
    return f"The masks will end at {found[1]:.1%}, and not at {meant:.1%}. {cause}"


def _all(schedule: Any) -> list[Any]:
    """List the different schedules."""
    if not isinstance(schedule, Mapping):
        return [schedule]
    return list({id(one): one for one in schedule.values()}.values())


@functools.cache
def _firing() -> Any:
    """Import how schedules fire, and TFMOT with it, only where masks are used."""
    from tf_spline_prune.schedules import _firing

    return _firing
