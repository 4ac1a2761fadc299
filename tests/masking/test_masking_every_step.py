"""A schedule that fires at every step, against sorting by hand."""

import numpy as np
import pytest
import zoo
from masked_nets import Y, compiled, fit

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots
from tf_spline_prune.masking import _choosing as thinning

pytestmark = pytest.mark.both_flavours

STEPS = 16
RAMP = tsp.schedules.PolynomialDecay(0.0, 0.9, 0, STEPS, power=1, frequency=1)


def state(model):
    return [(slot.keep().copy(), slot.read().copy()) for slot in mask_slots(model)]


def expected(keep, weights, share):
    """The mask that a stable sort of the survivors' magnitudes gives."""
    count = min(round(round(share * keep.size, 4)), keep.size - 1)
    left = np.flatnonzero(keep)
    order = left[np.argsort(np.abs(weights).ravel()[left], kind="stable")]
    mask = keep.copy()
    mask.ravel()[order[: max(0, count - (keep.size - left.size))]] = False
    return mask


def mask_values(slot, keep):
    return keep if str(slot.mask.dtype) == "bool" else keep.astype("float32")


def leave(model, step, rng, folder):
    """Training alone."""


def make_ties(model, step, rng, folder):
    for slot in mask_slots(model):
        slot.weight.assign(slot.read().round(1))


def set_masks(model, step, rng, folder):
    """Masks of other places, more of them or fewer, and weights that do not fit."""
    for slot in mask_slots(model):
        keep = rng.random(slot.keep().shape) > rng.uniform(0, step / STEPS)
        slot.mask.assign(mask_values(slot, keep))
        slot.weight.assign(rng.normal(size=keep.shape).astype("float32"))


def load_older(model, step, rng, folder):
    if step == 3:
        model.save_weights(str(folder / "old.weights.h5"))
    if step in (6, 7, 13):
        model.load_weights(str(folder / "old.weights.h5"))
        model.optimizer.iterations.assign(step)  # the file has those of its time


@pytest.mark.parametrize("change", [leave, make_ties, set_masks, load_older])
def test_every_step_removes_what_sorting_would(K, change, tmp_path):
    model = compiled(K, tsp.wrap_with_masks(zoo.mlp(K)))
    rng = np.random.default_rng(0)
    before, seen = [], []

    class Before(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            change(self.model, int(self.model.optimizer.iterations), rng, tmp_path)
            before[:] = state(self.model)

    class After(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            step = int(self.model.optimizer.iterations)
            share = tsp.schedules.evaluate(RAMP, step)[1]
            for (old, was), (keep, now) in zip(before, state(self.model), strict=True):
                mask = expected(old, was, share)
                np.testing.assert_array_equal(keep, mask)
                if (keep != old).any():
                    np.testing.assert_array_equal(now, np.where(mask, was, 0))
                else:
                    np.testing.assert_array_equal(now, was)
                seen.append((keep != old).any())

    pruning = tsp.MaskPruning(RAMP, below_target="ignore")
    fit(model, [Before(), pruning, After()], epochs=STEPS * 16 // len(Y))
    assert len(seen) == 3 * STEPS and sum(seen) > STEPS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_before_anything_is_written(K, bad):
    model = tsp.wrap_with_masks(zoo.mlp(K))
    tsp.update_masks(model, 0.3)
    slot = mask_slots(model)[1]
    weights = slot.read().copy()
    weights.flat[7] = bad
    slot.weight.assign(weights)
    before = state(model)
    with pytest.raises(tsp.errors.CriterionError, match="second/kernel"):
        tsp.update_masks(model, 0.6)
    for one, other in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_sample_that_misleads_costs_time_only():
    size = 50_000
    weights = np.random.default_rng(0).uniform(1, 2, size).astype("float32")
    weights[thinning._places(size)] *= 1e-3  # all that the sample sees is small
    keep = np.ones(size, bool)
    for share in (0.01, 0.02, 0.3):
        mask = expected(keep, weights, share)
        more = round(share * size) - np.count_nonzero(~keep)
        keep[thinning.lightest(weights, keep, more)] = False
        np.testing.assert_array_equal(keep, mask)
