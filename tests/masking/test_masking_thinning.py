"""`lightest`, and setting entries to zero, against plain sorting and `np.where`."""

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots, zeroed
from tf_spline_prune.masking._choosing import choose, lightest

SHARES = (1e-4, 0.1, 0.11, 0.5, 0.8, 0.8001, 0.95, 0.999, 0.99999)


def thinned(weights, keep, count):
    """Let the mask grow until so many are gone."""
    keep = keep.copy()
    more = min(count, keep.size - 1) - np.count_nonzero(~keep)
    if more > 0:
        keep.reshape(-1)[lightest(np.abs(weights), keep, more)] = False
    return keep


def tensor(kind, size):
    values = np.random.default_rng(0).normal(size=size).astype("float32")
    if kind == "ties":
        return values.round(1)
    if kind == "zeros":
        return np.where(np.abs(values) < 0.4, np.float32(0), values)
    return np.full_like(values, 0.5) if kind == "equal" else values


@pytest.mark.parametrize("size", [1, 2, 9, 9000, 200_001])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros", "equal"])
def test_lightest_are_what_sorting_puts_first(kind, size):
    weights, keep = tensor(kind, size), np.ones(size, bool)
    for share in SHARES:
        count = min(round(share * size), size - 1)
        order = np.lexsort((np.arange(size), np.abs(weights), keep))
        expected = keep.copy()
        expected[order[:count]] = False
        keep = thinned(weights, keep, count)
        np.testing.assert_array_equal(keep, expected)


@pytest.mark.parametrize("share", SHARES)
def test_lightest_of_all_are_what_choose_removes(share):
    weights = tensor("ties", 20_000).reshape(100, 200)
    (expected,) = choose([np.abs(weights)], share)
    count = round(share * weights.size)
    keep = thinned(weights, np.ones(weights.shape, bool), count)
    np.testing.assert_array_equal(keep, expected)


def test_lightest_leaves_out_what_is_gone():
    weights = np.arange(10, dtype="float32")
    keep = weights >= 5
    np.testing.assert_array_equal(lightest(weights, keep, 3), [5, 6, 7])
    np.testing.assert_array_equal(lightest(weights, keep, 5), [5, 6, 7, 8, 9])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_zeroed_is_where_even_for_infinity_and_nan(dtype):
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(dtype)
    array[0, 0, :2] = np.inf, np.nan
    keep = array > 0
    keep[0, 0, :2] = False
    expected = np.where(keep, array, np.zeros((), dtype))
    assert zeroed(array, keep).tobytes() == expected.tobytes()
    np.testing.assert_array_equal(zeroed(array.T, keep.T), expected.T)


def test_masks_only_grow_under_scores_below_zero():
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30)])
    masked = tsp.wrap_with_masks(model)
    (slot,) = mask_slots(masked)

    def smallest_first(name, array):
        return -np.abs(array)

    tsp.update_masks(masked, 0.5, smallest_first)
    before = slot.keep()
    tsp.update_masks(masked, 0.6, smallest_first)
    after = slot.keep()
    assert np.count_nonzero(before) == 300 and np.count_nonzero(after) == 240
    assert not (after & ~before).any()
