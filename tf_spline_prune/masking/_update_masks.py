"""`MaskUpdate`: from weights and a sparsity to masks."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from tf_spline_prune import criteria
from tf_spline_prune._checks import (
    COUNT,
    FRACTION,
    SEED,
    SELECTOR,
    Data,
    Function,
    Instance,
    ListOf,
    MapOf,
    OneOf,
    Options,
    Text,
    checked,
)
from tf_spline_prune.compat import (
    Calibration,
    MaskSlot,
    Workers,
    mask_slots,
    trace,
    zeroed,
)
from tf_spline_prune.criteria import Criterion
from tf_spline_prune.errors import NothingPrunedWarning, warn
from tf_spline_prune.graph import ChannelGraph
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.masking._choosing import (
    Scope,
    Thinning,
    choose,
    masks_of_units,
    units_gone,
)
from tf_spline_prune.masking._granularity import Granularity, Pooling
from tf_spline_prune.masking._scoring import weight_scores
from tf_spline_prune.masking._slots import (
    by_path,
    chosen_layers,
    kernel_axes_of,
    require_slots,
)
from tf_spline_prune.masking._targets import ask, remember_nothing
from tf_spline_prune.pruning.planning._plan import Settings, decide
from tf_spline_prune.pruning.planning._ranking import reasons
from tf_spline_prune.pruning.planning._scopes import SCOPE, NamedScope

Arrays = list[np.ndarray]
Fractions = float | Mapping[str, float]


class MaskUpdate:
    """Computes the masks of a model on the host, and sets them.

    Args:
        model: A masked model.
        slots: Its masked weights that are thinned out; with whole units, those whose
            units go.
        criterion: As in `update_masks`.
        granularity: As in `update_masks`.
        scope: As in `update_masks`.
        pooling: As in `update_masks`.
        data: As in `update_masks`.
        seed: As in `update_masks`.

    Raises:
        ValueError: If an argument is out of range, or none fits another.
    """

    def __init__(
        self,
        model: Any,
        slots: list[MaskSlot],
        criterion: Any,
        granularity: Any,
        scope: Any,
        pooling: Any,
        data: Any,
        seed: int,
    ) -> None:
        self.model = model
        self.slots = slots
        self.criterion = criterion
        self.scope = scope
        self.pooling = pooling
        self.seed = seed
        self.workers = Workers(model)
        self.granularity = None
        self.thinning: Thinning | None = None
        self._barriers = ""  # why no unit may go, if none may
        self.data = data
        self.chosen = slots
        if granularity == "unit":
            # What reads a unit is masked with it, chosen or not.
            self.slots = mask_slots(model)
            # The structure stays while weights change, so it is read once.
            self.graph = ChannelGraph(model)
            self.criterion = criteria.get(criterion, data is not None)
            if data is not None:
                self.data = Calibration.of(data, trace(model))
            return
        if scope not in get_args(Scope):
            raise ValueError(
                'For weights, `scope` must be "layer", "output" or "global". '
                f"Received: scope={scope!r}"
            )
        self.granularity = Granularity.of(granularity)
        weight_scores([], criterion, seed)  # refuses what scores no weights
        self.thinning = Thinning(slots) if self._is_plain() else None

    def __call__(self, fractions: Fractions) -> None:
        """Bring the masks to a sparsity; what is gone already stays gone.

        Args:
            fractions: The sparsity, in [0, 1), or one for each path of a layer.
        """
        for slot in self.slots:
            ask(slot, fraction_of(slot, fractions))
        if self.thinning is not None:
            self.thinning([fraction_of(slot, fractions) for slot in self.slots])
            return
        old = [slot.keep() for slot in self.slots]
        arrays = [slot.read() for slot in self.slots]
        decide = self._units if self.granularity is None else self._weights
        new = self._of_chief(decide(fractions, old, arrays))
        for slot, before, keep, array in zip(self.slots, old, new, arrays, strict=True):
            if keep is not before:
                slot.write(keep, zeroed(array, keep))

    def _of_chief(self, masks: Arrays) -> Arrays:
        """Let the chief decide, where several workers train and may see other data."""
        if self.workers.alone or not masks:
            return masks
        flat = np.concatenate([keep.ravel() for keep in masks])
        bits = self.workers.of_chief(np.packbits(flat))
        flat = np.unpackbits(bits, count=flat.size).astype(bool)
        parts = np.split(flat, np.cumsum([keep.size for keep in masks])[:-1])
        return [part.reshape(m.shape) for part, m in zip(parts, masks, strict=True)]

    def _weights(self, fractions: Fractions, old: Arrays, arrays: Arrays) -> Arrays:
        names = [slot.key for slot in self.slots]
        scores = weight_scores(arrays, self.criterion, self.seed, names)
        scores = [
            _gone_lowest(score, keep) for keep, score in zip(old, scores, strict=True)
        ]
        gone = [1 - np.count_nonzero(keep) / keep.size for keep in old]
        each = [fraction_of(slot, fractions) for slot in self.slots]
        given: Any
        if self.scope == "global":
            size = sum(keep.size for keep in old)
            left = sum(int(np.count_nonzero(keep)) for keep in old)
            given = max(each[0], 1 - left / size)
        else:
            given = [max(asked, now) for asked, now in zip(each, gone, strict=True)]
        return choose(
            scores,
            given,
            self.granularity,
            scope=self.scope,
            pooling=self.pooling,
            axes=[kernel_axes_of(slot) for slot in self.slots],
        )

    def _is_plain(self) -> bool:
        """Return whether one process prunes weights by magnitude, each tensor alone."""
        named = self.criterion == "magnitude" or (
            type(self.criterion) is criteria.Magnitude
        )
        single = self.granularity is not None and self.granularity.spec == "weight"
        return bool(named and single and self.scope == "layer" and self.workers.alone)

    def _units(self, fractions: Fractions, old: Arrays, arrays: Arrays) -> Arrays:
        """Decide about whole units; their criterion reads the model itself."""
        removed = self._removed(fractions)
        masks = masks_of_units(self.graph, removed, self.slots)
        return [keep & before for keep, before in zip(masks, old, strict=True)]

    def units_missing(self, fractions: Fractions) -> int:
        """Count the units that are not gone and would go at a sparsity.

        Args:
            fractions: As in a call.

        Raises:
            BudgetError: If the sparsity is out of reach.
        """
        gone = units_gone(self.graph, self.slots)
        return int(np.count_nonzero(self._removed(fractions) & ~gone))

    def why_nothing(self, fractions: Fractions) -> str | None:
        """Return why a sparsity that is no zero removes nothing, if that is so.

        Args:
            fractions: As in a call.
        """
        each = fractions.values() if isinstance(fractions, Mapping) else [fractions]
        if not any(each):
            return None
        if self.granularity is None:
            gone = units_gone(self.graph, self.slots)
            if gone.any() or self._removed(fractions).any():
                return None
            if self._barriers:
                return f"no units may be masked: {self._barriers}"
        elif not all(slot.keep().all() for slot in self.slots):
            return None
        what = "units" if self.granularity is None else "weights"
        if self.granularity is not None and self.granularity.spec != "weight":
            what += f" in cells of granularity={self.granularity.spec!r}"
        return f"{max(each):.2%} of so few {what} is not one"

    def _removed(self, fractions: Fractions) -> np.ndarray:
        """Plan, and tell which units are gone then: an array of bool, by unit."""
        gone = units_gone(self.graph, self.slots)
        paths = {slot.path for slot in self.chosen}
        asked: Any = fractions
        if isinstance(fractions, Mapping):
            asked = {path: s for path, s in fractions.items() if path in paths}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingPrunedWarning)
            settings = Settings.of(
                criterion=self.criterion,
                sparsity=asked,
                scope=self.scope,
                layers=self._layers(),
                data=self.data,
                seed=self.seed,
            )
            decision, _ = decide(ChannelGraph(self.model), settings, gone=gone)
        none = decision.achieved is None or not decision.achieved[0]
        self._barriers = reasons(decision.barriers) if none else ""
        return np.asarray(self.graph.removal(dict(decision.removed)) | gone)

    def _layers(self) -> Callable[[Any], bool]:
        masked = {id(slot.layer) for slot in self.chosen}
        return lambda layer: id(layer) in masked


def _gone_lowest(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Set the scores of what is pruned already to the lowest."""
    least = np.min(scores, initial=0)
    if least < 0 or scores.dtype.kind != "f":
        return np.where(keep, scores, least)
    return zeroed(scores, keep)


def fraction_of(slot: MaskSlot, fractions: Fractions) -> float:
    if isinstance(fractions, Mapping):
        return float(fractions.get(slot.path, 0.0))
    return float(fractions)


SPARSITY: Options = [
    FRACTION,
    MapOf(
        Text("a name"), FRACTION, "a dictionary from names of layers to such numbers"
    ),
]
GRANULARITY: Options = [
    Text("'weight', 'unit', a pattern such as '2:4'"),
    ListOf(COUNT, "sizes, (inputs, outputs)", 2, 2),
    Instance(Granularity),
]
MASK_SCOPE: Options = [OneOf(*get_args(NamedScope), "output"), *SCOPE[1:]]
MASK_CRITERION: Options = [
    Text("the name of a criterion"),
    Instance(Criterion, what="an instance of `criteria.Criterion`"),
    Function("a function of the name and the weights of a tensor"),
]
"""What the checks of arguments want of a criterion of weights or units."""


CHOICE: dict[str, Any] = {
    "sparsity": SPARSITY,
    "criterion": MASK_CRITERION,
    "granularity": GRANULARITY,
    "scope": MASK_SCOPE,
    "layers": SELECTOR,
    "pooling": OneOf(*get_args(Pooling)),
    "data": [Data(), None],
    "seed": SEED,
}
"""What the checks want of the arguments that choose masks."""


@checked(**CHOICE)
def update_masks(
    model: Any,
    sparsity: Fractions,
    criterion: Any = "magnitude",
    granularity: Any = "weight",
    scope: Any = "layer",
    *,
    layers: Selector = None,
    pooling: str = "mean",
    data: Any = None,
    seed: int = 0,
) -> None:
    """Compute new masks of a model, and set the weights they prune to zero.

    This is what `MaskPruning` does at the firing steps of its schedule; call it from
    your own training loop. The optimizer then holds the zeros. Masks only ever grow:
    below the present sparsity, nothing happens. If nothing is masked although something
    was asked for, a `NothingPrunedWarning` says why.

    Args:
        model: A masked model of either flavour. Its masks and weights change.
        sparsity: Fraction to prune, in [0, 1): of the weights, or of the units if whole
            units are pruned; or a dictionary from layer names or regular expressions to
            fractions; other layers stay as they are then.
        criterion: What is worth keeping. For weights `"magnitude"`, `"lamp"`,
            `"random"`, or a function `(name, array) -> array` of the same shape; for
            units any criterion of `plan`. Defaults to `"magnitude"`.
        granularity: `"weight"`: single weights. `(4, 1)`: blocks of so many consecutive
            inputs and outputs; this one uses the fast Dense kernel of LiteRT. `"2:4"`:
            two zeros in every four consecutive inputs. `"unit"`: whole units, in all
            weights that produce or consume them. Defaults to `"weight"`.
        scope: What is ranked together: `"layer"` each weight array, `"output"` each
            output of each array, `"global"` all; for units the scopes of `plan`.
            Defaults to `"layer"`.
        layers: Which of the masked layers take part: a path or name, a regular
            expression, a list of these, or a function of the layer. Defaults to `None`,
            which means all.
        pooling: How the worth of a block comes from its weights: `"mean"` or `"max"`.
            Defaults to `"mean"`.
        data: Inputs, or `(inputs, labels)`, for criteria that read any. Defaults to
            `None`.
        seed: Seed of whatever is random. Defaults to `0`.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks.
        BudgetError: If the sparsity is out of reach.
        ValueError: If an argument is out of range.

    Example:

    ```python
    for step, batch in enumerate(train):
        train_step(masked, batch)
        if step % 100 == 0:
            tsp.update_masks(masked, sparsity=min(0.8, step / 5000))
    ```
    """
    slots, fractions = slots_and_fractions(model, sparsity, scope, granularity, layers)
    update = MaskUpdate(
        model, slots, criterion, granularity, scope, pooling, data, seed
    )
    update(fractions)
    warn_of_nothing(update, fractions)


def apply_masks(model: Any) -> None:
    """Set the weights that masks prune to zero, if something has moved them.

    The optimizer does so after each of its updates. Call this after weights were
    written in another way: `set_weights`, an average of weights, another framework.

    Args:
        model: A masked model of either flavour. Its weights change.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it has no masks.

    Example:

    ```python
    masked.set_weights(weights)     # from a file, an average, another model
    tsp.apply_masks(masked)
    ```
    """
    for slot in require_slots(model):
        slot.apply()


def slots_and_fractions(
    model: Any, sparsity: Fractions, scope: Any, granularity: Any, layers: Selector
) -> tuple[list[MaskSlot], Fractions]:
    """Find the masked weights that take part, and what each is to lose.

    Args:
        model: As in `update_masks`, and so the rest.
        sparsity: See there.
        scope: See there.
        granularity: See there.
        layers: See there.

    Returns:
        The weights, and the fraction of all or of each path.
    """
    named = isinstance(sparsity, Mapping)
    if named and scope not in ("layer", "output") and granularity != "unit":
        raise ValueError(
            "With one sparsity per layer, `scope` has nothing to decide. Leave it out, "
            f"or give one sparsity. Received: scope={scope!r}"
        )
    if granularity != "unit":
        pattern = Granularity.of(granularity)
        each = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]
        if any(one > pattern.most for one in each):
            raise ValueError(
                f"{pattern.spec!r} removes {pattern.most:g} of the weights and no "
                f"more. Received: sparsity={sparsity!r}"
            )
    slots = slots_of(model, layers)
    fractions = by_path(slots, sparsity, "sparsity", "sparsities")
    if named:
        slots = [slot for slot in slots if slot.path in fractions]
    return slots, fractions


def warn_of_nothing(update: MaskUpdate, fractions: Fractions) -> None:
    """Warn if a sparsity that is no zero has removed nothing."""
    if why := update.why_nothing(fractions):
        remember_nothing(update.slots, why)
        warn(f"Nothing is masked, because {why}.", NothingPrunedWarning)


def slots_of(model: Any, layers: Selector = None) -> list[MaskSlot]:
    """List the masked weights of the layers that a selector means."""
    slots = require_slots(model)
    paths = chosen_layers({slot.path: slot.layer for slot in slots}, layers, {})
    return [slot for slot in slots if slot.path in paths]
