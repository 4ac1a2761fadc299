"""`Reconstruction`: the units that the others can best make up for go first."""

import copy
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg.blas import get_blas_funcs

from tf_spline_prune._checks import COUNT, Real, hold
from tf_spline_prune._matrices import inverse_of
from tf_spline_prune.compat import (
    Calibration,
    Call,
    Values,
    Watcher,
    counted,
    watch,
)
from tf_spline_prune.criteria._criterion import Criterion
from tf_spline_prune.errors import CalibrationError
from tf_spline_prune.graph import ChannelGraph, Group
from tf_spline_prune.graph._readings import (
    Pairing,
    Reading,
    by_call,
    pairings,
    read_by,
    readings,
)

# Beyond this many units the products of all pairs do not fit into memory.
_MOST_UNITS = 8192
# Of more units than this some go between two looks at all of them, one in so many.
_ONE_BY_ONE = 256
_AT_ONCE = 64
# So many times as many are looked at in between.
_CLOSER = 4
# Of so many units at most, some are exchanged in the end: so often, for no less of
# what the consumers compute; and of so few from other beginnings, too.
_EXCHANGED = 512
_EXCHANGES = 32
_LEAST = 1e-7
_FROM_ANYWHERE = 64
_BEGINNINGS = 4
# Blocks are exchanged if it takes no more multiplications than this to try each.
_MOST_WORK = 2**33
# Beyond so many units, float32 does.
_COARSE = 1024
# If fewer than this part of the units stay, the others' places are given up.
_WORTH_A_COPY = 0.75
# So many positions are looked at if there are more, and so many per unit.
_ENOUGH = 2**14
_PER_UNIT = 8


@dataclass
class Reconstruction(Criterion):
    """Score units by what their consumers lose with them, at the very least.

    When a unit is pruned, the consumers' weights for the other units can replace a part
    of it: the part that is a linear function of the others on the calibration data. The
    rest, as a fraction of the variance of the consumer's output, is the loss. Units are
    pruned one by one, always the one of least loss, with a refit after each; so the
    loss is exact for layers that consume single positions, and for convolutions as far
    as neighbouring positions are alike. Losses of several consumers add up.

    `least_squares` carries out the refit that is assumed here.

    Attention heads, and other units of which a consumer sees several entries that have
    weights of their own, go block by block, with the same exactness: heads are seen at
    the input of the projection out of them.

    Units that are multiplied with those of another tensor, such as sizes of keys with
    those of queries, lose the squares of their products, as a fraction of those of all,
    but for what a softmax over the keys does not see; nothing makes up for them.

    Units that meet in another way, such as in `Dot`, and those of which a consumer sees
    more than 8,192 entries are taken to vary independently, as much as their weights
    say.

    Under a target, the loss is divided by the multiply-accumulates, parameters or bytes
    that a unit saves.

    Args:
        ridge: Noise that is added to every unit, as a fraction of the mean variance.
            Defaults to `1e-3`.
        batch_size: How many inputs run at a time. Defaults to `32`.
        max_inputs: Use this many inputs at most, drawn at random. Defaults to `2048`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tsp.plan(model, "reconstruction", target_macs=0.5, data=x_train[:512])
    ```

    Source: the loss is that of optimal brain surgeon (Hassibi and Stork, NIPS 1992)
    for the squared error of a layer's output; backward elimination on activations as
    in Luo et al., "ThiNet", ICCV 2017.
    """

    ridge: float = 1e-3
    batch_size: int = 32
    max_inputs: int = 2048
    name: ClassVar[str] = "reconstruction"
    per_saving: ClassVar[bool] = True

    def __post_init__(self) -> None:
        hold(self, ridge=Real(0, closed="neither"), batch_size=COUNT, max_inputs=COUNT)

    def prepare(
        self,
        graph: ChannelGraph,
        data: Calibration | None = None,
        seed: int = 0,
    ) -> None:
        """Run the data through the model, and keep how units vary together.

        Args:
            graph: The channel graph of the model.
            data: Inputs, which must be given. Defaults to `None`.
            seed: Seed of the inputs and positions that are drawn of many. Defaults to
                `0`.

        Raises:
            CalibrationError: If there are no data.
        """
        super().prepare(graph, data=data, seed=seed)
        if data is None:
            raise CalibrationError(
                "The criterion 'reconstruction' looks at activations. Give it inputs: "
                "`data=x_train[:512]`."
            )
        self._readings: dict[str, list[Reading]] = {}
        self._pairings: dict[str, list[Pairing]] = {}
        for group in graph.groups:
            found, met = readings(graph, group, inside=True), pairings(graph, group)
            fits = all(reading.width <= _MOST_UNITS for reading in found)
            if met is not None and fits and group.num_units <= _MOST_UNITS:
                self._readings[group.name] = found
                self._pairings[group.name] = met
        data = data.drawn(self.max_inputs, seed)
        self._moments: dict[Reading, np.ndarray] = {}
        at = by_call(one for found in self._readings.values() for one in found)
        meeting: dict[str, list[Pairing]] = {}
        for one in (one for met in self._pairings.values() for one in met):
            meeting.setdefault(one.call, []).append(one)
        self._squares: dict[Pairing, np.ndarray] = {}
        rng = np.random.default_rng(seed)
        waiting: dict[Reading, list[np.ndarray]] = {}

        def take_in(reading: Reading) -> None:
            new = _moments(np.concatenate(waiting.pop(reading)))
            held = self._moments.get(reading)
            self._moments[reading] = new if held is None else _merged(held, new)

        def visit(call: Call, values: Values) -> None:
            for one in meeting.get(call.name, ()):
                new = one.squares(call, values)
                self._squares[one] = self._squares.get(one, 0.0) + new
            for reading, tensor in read_by(at.get(call.name, ()), call, values):
                rows = waiting.setdefault(reading, [])
                count = counted(values, tensor, reading.places(tensor))
                rows.append(_rows(reading, tensor, count, len(data), rng))
                # Products of all units are worth it only for as many rows.
                if sum(map(len, rows)) >= reading.width:
                    take_in(reading)

        looked = {*at, *meeting}
        keys = [call.key for call in graph.graph.calls if call.name in looked]
        watch(graph.graph, data, self.batch_size, [Watcher(keys, visit)])
        for reading in list(waiting):
            take_in(reading)

    def scores(self, group: Group) -> np.ndarray:
        """Return one score per unit of a group; higher means keep."""
        if not self._sees(group):
            return self._unseen(group)
        units = group.num_units
        consumers = [_Consumer(*seen, units) for seen in self._seen(group)]
        return _eliminate(consumers, units)

    def exchanged(self, group: Group, gone: np.ndarray) -> np.ndarray:
        """Exchange units that go for units that stay, while that lowers the loss.

        Taking units away one by one, each the best at its time, need not end with the
        best ones.

        Args:
            group: A group of the graph that was prepared.
            gone: Indices of the units that go.

        Returns:
            As many indices.
        """
        if not self._sees(group) or not len(gone) or group.num_units > _EXCHANGED:
            return gone
        seen = []
        for covariance, products in self._seen(group):
            energy = float(np.vdot(products, covariance))
            if energy > 0:
                aims = covariance @ products @ covariance
                seen.append((covariance, aims / energy))
        if not seen:
            return gone
        if any(len(covariance) > group.num_units for covariance, _ in seen):
            return _exchange_blocks(seen, gone, group.num_units)
        return _exchanged(seen, gone, np.random.default_rng(self.seed))

    def _sees(self, group: Group) -> bool:
        """Return whether any consumer of a group is seen, and all of them are."""
        known = self._readings.get(group.name), self._pairings.get(group.name)
        return any(known)

    def _seen(self, group: Group) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield how the units vary at each consumer, noise added, and the products.

        Those of its weights, entry by entry, which are all that matters of them.
        """
        for reading in self._readings[group.name]:
            moments = self._moments[reading]
            products = np.zeros((reading.width, reading.width))
            for member in group.consumers:
                if not reading.is_through(member):
                    continue
                if reading.in_blocks:
                    kernel = self.graph.arrays[member.path][member.name]
                    weights = reading.blocks(kernel, member)
                else:
                    weights = self.graph.rows(member)
                if reading.width > _COARSE:
                    weights = weights.astype("float32", copy=False)
                products += weights @ weights.T
            covariance = moments[:-1, :-1] / moments[-1, -1]
            yield _with_noise(covariance, self.ridge), products
        for one in self._pairings[group.name]:
            # No weight of another unit makes up for what is not multiplied any more.
            squares = np.diag(self._squares[one])
            yield _with_noise(squares, self.ridge), np.eye(group.num_units)

    def _unseen(self, group: Group) -> np.ndarray:
        """Score units by their weights alone, as if they varied one by one."""
        squares = np.ones(group.num_units)
        for members in (group.producers, group.consumers):
            if members:
                squares *= sum(self.graph.lengths(member) ** 2 for member in members)
        total = squares.sum()
        return np.asarray(squares / total if total else squares)


def _with_noise(covariance: np.ndarray, ridge: float) -> np.ndarray:
    """Add noise to every unit, in place, a fraction of the mean variance."""
    noise = ridge * np.trace(covariance) / len(covariance)
    covariance[np.diag_indices(len(covariance))] += noise or 1.0
    return covariance


class _Consumer:
    """One consumer of a group: what it loses with each unit that is left.

    Args:
        covariance: How what it reads of the units varies together, unit by unit: array
            of shape `(entries, entries)`, equally many for each unit.
        products: The products of its weights, summed over its outputs, array of the
            same shape. Its memory is used up.
        units: How many units there are. Defaults to `None`: as many as entries.
    """

    def __init__(
        self, covariance: np.ndarray, products: np.ndarray, units: int | None = None
    ) -> None:
        self.products = products
        self.each = len(products) // (units or len(products))
        self.energy = float(np.vdot(products, covariance))
        self.inverse = inverse_of(covariance)
        if len(self.inverse) > _COARSE:
            self.inverse = self.inverse.astype("float32")
            self.products = self.products.astype("float32")

    def losses(self) -> np.ndarray:
        """Return the loss with each unit, as a fraction of the output's variance."""
        units = len(self.products) // self.each
        if not self.energy > 0:
            return np.zeros(units)
        if self.each == 1:
            squares = np.maximum(np.diag(self.products), 0.0)
            return np.asarray(squares / np.diag(self.inverse) / self.energy)
        inverse, products = (
            np.stack([_block(matrix, self.entries([u])) for u in range(units)])
            for matrix in (self.inverse, self.products)
        )
        lost = np.trace(np.linalg.solve(inverse, products), axis1=1, axis2=2)
        return np.asarray(np.maximum(lost, 0.0) / self.energy)

    def entries(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the indices of all that belongs to some units."""
        first = np.asarray(places)[:, None] * self.each
        return np.asarray((first + np.arange(self.each)).ravel())

    def part(self, places: np.ndarray) -> "_Consumer":
        """Look at some of the units only, in ascending order."""
        part = copy.copy(self)
        entries = self.entries(places)
        among = np.ix_(entries, entries)
        part.inverse, part.products = self.inverse[among], self.products[among]
        return part

    def remove(self, places: Sequence[int] | np.ndarray) -> None:
        """Take units away; the weights of the others make up for them.

        Their places stay, with no effect.
        """
        places = self.entries(places)
        inverse, products = (_lines(m, places) for m in (self.inverse, self.products))
        fractions = np.linalg.solve(inverse[:, places], inverse)
        fractions[:, places] = 0.0
        products -= products[:, places] @ fractions / 2
        _subtract(self.inverse, fractions, inverse / 2)
        _subtract(self.products, fractions, products)
        for matrix, own in ((self.inverse, 1.0), (self.products, 0.0)):
            matrix[places] = matrix[:, places] = 0.0
            matrix[places, places] = own


def _block(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a block about the diagonal of a matrix whose upper triangle is true."""
    block = np.triu(matrix[np.ix_(places, places)])
    return np.asarray(block + np.triu(block, 1).T)


def _lines(matrix: np.ndarray, places: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return rows of a symmetric matrix, of which the upper triangle is true."""
    lower = np.arange(len(matrix)) < np.asarray(places)[:, None]
    return np.where(lower, matrix[:, places].T, matrix[places])


def _subtract(matrix: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Take `one.T @ other` and its transpose away, in the upper triangle, in place.

    The matrix lies row by row in memory.
    """
    (update,) = get_blas_funcs(("syr2k",), (matrix,))
    update(-1.0, one.T, other.T, 1.0, matrix.T, lower=True, overwrite_c=True)


def _eliminate(consumers: list[_Consumer], count: int) -> np.ndarray:
    """Take all units away, those of least loss first; gives the losses."""
    scores = np.zeros(count)
    units, stays = np.arange(count), np.ones(count, bool)  # by place in the matrices
    highest, step = 0.0, 0
    while len(places := np.flatnonzero(stays)):
        few, most = places, len(places)
        if len(places) > _ONE_BY_ONE:
            # A few go before all are looked at again: each the one of least loss,
            # after those before it, among those that were best to begin with. So two
            # that can stand in for each other never both go for free.
            most = max(1, len(places) // _AT_ONCE)
            losses = np.sum([consumer.losses() for consumer in consumers], axis=0)
            best = np.argsort(losses[places], kind="stable")[: most * _CLOSER]
            few = places[np.sort(best)]
        gone, lost = _one_by_one([one.part(few) for one in consumers], most)
        for unit, loss in zip(units[few[gone]], lost, strict=True):
            highest = max(highest, loss)
            # Later ones score higher, also where their loss is not.
            scores[unit] = highest * (1 + 1e-9 * step)
            step += 1
        stays[few[gone]] = False
        for consumer in consumers if stays.any() else ():
            consumer.remove(few[gone])
        if stays.mean() < _WORTH_A_COPY:
            places = np.flatnonzero(stays)
            consumers = [one.part(places) for one in consumers]
            units, stays = units[places], stays[places]
    return scores


def _one_by_one(parts: list[_Consumer], number: int) -> tuple[list[int], list[float]]:
    """Take so many units away, each the one of least loss; gives them, and the losses.

    The parts change.
    """
    gone: list[int] = []
    lost: list[float] = []
    for _ in range(number):
        losses = np.sum([part.losses() for part in parts], axis=0)
        losses[gone] = np.inf
        unit = int(losses.argmin())
        gone.append(unit)
        lost.append(float(losses[unit]))
        for part in parts:
            part.remove([unit])
    return gone, lost


def _exchanged(
    consumers: list[tuple[np.ndarray, np.ndarray]],
    gone: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Exchange units, of few also from other beginnings; gives the best that goes."""
    units = len(consumers[0][0])
    starts = [gone]
    if units <= _FROM_ANYWHERE:
        starts += [rng.permutation(units)[: len(gone)] for _ in range(_BEGINNINGS)]
    ends = [_exchange(consumers, start) for start in starts]
    return min(ends, key=lambda end: end[1])[0]


def _exchange(
    consumers: list[tuple[np.ndarray, np.ndarray]], gone: np.ndarray
) -> tuple[np.ndarray, float]:
    """Exchange one unit for another as long as the sum of the losses falls.

    The best of the exchanges is made, again and again.

    Args:
        consumers: For each how the units vary together, and the products of how they
            vary with its outputs; both of shape `(units, units)`.
        gone: Indices of the units that go.

    Returns:
        As many indices, and the sum of the losses, but for what is the same for all.
    """
    units = np.arange(len(consumers[0][0]))
    for _ in range(_EXCHANGES):
        kept = np.setdiff1d(units, gone)
        changes, fitted = np.zeros((len(gone), len(kept))), 0.0
        for covariance, aims in consumers:
            inverse = inverse_of(covariance[np.ix_(kept, kept)])
            # Each unit that goes, as the others make it up, and what is left of it.
            between, across = (one[np.ix_(kept, gone)] for one in (covariance, aims))
            within = aims[np.ix_(kept, kept)]
            made = inverse @ between
            left = covariance[gone, gone] - np.sum(between * made, axis=0)
            mixed = across - within @ made
            gain = aims[gone, gone] - np.sum(made * (across + mixed), axis=0)
            gain = np.maximum(gain, 0.0) / left
            # Were it back: the products of the weights of those that stay, squared.
            weights = np.sum((inverse @ within) * inverse, axis=1)
            weights = weights[:, None] - 2 * made * (inverse @ mixed) / left
            weights += np.square(made) * gain / left
            alone = np.diag(inverse)[:, None] + np.square(made) / left
            changes += (np.maximum(weights, 0.0) / alone - gain).T
            fitted += float(np.vdot(inverse, within))
        back, away = np.unravel_index(changes.argmin(), changes.shape)
        if not changes[back, away] < -_LEAST:
            break
        gone = np.append(np.delete(gone, back), kept[away])
    return gone, -fitted


def _exchange_blocks(
    consumers: list[tuple[np.ndarray, np.ndarray]], gone: np.ndarray, count: int
) -> np.ndarray:
    """Do what `_exchange` does for units of several entries.

    Of few units every choice is tried, of more every exchange, until none is better.

    Args:
        consumers: As for `_exchange`, entry by entry.
        gone: Indices of the units that go.
        count: How many units there are.

    Returns:
        As many indices; the same ones where there are too many choices.
    """
    units = np.arange(count)
    kept = np.setdiff1d(units, gone)
    sizes = [len(covariance) // count * len(kept) for covariance, _ in consumers]
    each_takes = max(sizes) ** 3
    if len(kept) * len(gone) * each_takes > _MOST_WORK:
        return gone

    def fitted(kept: np.ndarray) -> float:
        """Return how much those that are kept make of what the consumers compute."""
        total = 0.0
        for covariance, aims in consumers:
            each = len(covariance) // count
            entries = (kept[:, None] * each + np.arange(each)).ravel()
            among = np.ix_(entries, entries)
            total += float(np.vdot(inverse_of(covariance[among]), aims[among]))
        return total

    if math.comb(count, len(kept)) * each_takes <= _MOST_WORK:
        every = itertools.combinations(range(count), len(kept))
        return np.setdiff1d(units, max(every, key=lambda one: fitted(np.array(one))))
    found = fitted(kept)
    for _ in range(_EXCHANGES):
        choices = [
            np.append(np.delete(kept, place), unit)
            for place in range(len(kept))
            for unit in np.setdiff1d(units, kept)
        ]
        made = [fitted(choice) for choice in choices]
        if not choices or not max(made) > found + _LEAST:
            break
        found, kept = max(made), choices[int(np.argmax(made))]
    return np.setdiff1d(units, kept)


def _rows(
    reading: Reading,
    tensor: np.ndarray,
    counts: np.ndarray | None,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Arrange what is read of a batch by unit, at some positions where there are many.

    Args:
        reading: The reading.
        tensor: What it reads, a batch of it.
        counts: Array of shape `(places,)`, bool: which count; `None` if all do.
        count: How many inputs there are in all batches.
        rng: Draws the positions.

    Returns:
        Array of shape `(rows, entries)`, those of each unit side by side.
    """
    moved = reading.moved(tensor)
    moved = moved.reshape(-1, *moved.shape[2:])
    if counts is not None:
        moved = moved[counts]
    alike = 1 if reading.in_blocks else reading.each
    wanted = max(_ENOUGH, _PER_UNIT * reading.width) * len(tensor) / (count * alike)
    if wanted < len(moved):
        moved = moved[rng.choice(len(moved), math.ceil(wanted), replace=False)]
    chosen = reading.positions if reading.in_blocks else reading.positions.T
    return np.asarray(moved[:, chosen].reshape(-1, reading.width))


def _moments(rows: np.ndarray) -> np.ndarray:
    """Return the products of all units about their means, the means, and the number.

    About the means, for units may vary little beside them: products in float32 would
    then be all rounding, and their differences no covariance.
    """
    units = rows.shape[1]
    mean = rows.mean(axis=0, dtype="float64")
    rows = rows - mean.astype(rows.dtype)
    found = np.empty((units + 1, units + 1))
    found[:-1, :-1] = rows.T @ rows
    found[:-1, -1] = found[-1, :-1] = mean
    found[-1, -1] = len(rows)
    return found


def _merged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Put the moments of two batches together."""
    number = one[-1, -1] + other[-1, -1]
    fraction = other[-1, -1] / number
    apart = other[:-1, -1] - one[:-1, -1]
    merged = one + other
    merged[:-1, :-1] += np.outer(apart, apart) * one[-1, -1] * fraction
    merged[:-1, -1] = merged[-1, :-1] = one[:-1, -1] + apart * fraction
    return merged
