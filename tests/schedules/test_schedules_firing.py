"""Asking any schedule, TFMOT's and the user's too, outside of a graph."""

import numpy as np
import pytest
import tensorflow as tf

import tf_spline_prune as tsp
from tf_spline_prune.compat import import_tfmot

schedules = tsp.schedules
kinds = import_tfmot().sparsity.keras

TFMOTS = {
    "S3 constant": lambda: schedules.ConstantSparsity(0.5, 3, 40, 7),
    "S3 endless": lambda: schedules.ConstantSparsity(0.99, 0, -1, 9),
    "S4 polynomial": lambda: schedules.PolynomialDecay(0.2, 0.8, 10, 50, 3, 5),
    "S4 power 1.5": lambda: schedules.PolynomialDecay(0.6, 0.1, 0, 33, 1.5, 4),
}


class Own(kinds.PruningSchedule):
    """A schedule that gives back what it was told to."""

    def __init__(self, answer=None, begin=5):
        self.answer, self.begin = answer, begin

    def __call__(self, step):
        if self.answer is not None:
            return self.answer
        return step >= self.begin, tf.constant(0.25)

    def get_config(self):
        return {"class_name": "Own", "config": {}}


def test_tfmots_classes_are_handed_on():
    assert schedules.ConstantSparsity is kinds.ConstantSparsity
    assert schedules.PolynomialDecay is kinds.PolynomialDecay
    assert issubclass(schedules.Schedule, kinds.PruningSchedule)


def test_s4_values_of_the_polynomial():
    schedule = schedules.PolynomialDecay(0.2, 0.8, 100, 110, power=3, frequency=1)
    values = [schedules.evaluate(schedule, s)[1] for s in (100, 102, 105, 110)]
    assert values == pytest.approx([0.2, 0.4928, 0.725, 0.8], abs=1e-12)


@pytest.mark.parametrize("make", TFMOTS.values(), ids=TFMOTS)
def test_tfmots_schedules_are_computed_as_they_compute(make):
    schedule = make()
    fired = []
    for step in range(61):
        fires, sparsity = schedules.evaluate(schedule, step)
        theirs = schedule(tf.constant(step, tf.int64))
        assert type(fires) is bool and type(sparsity) is float
        assert fires is bool(theirs[0])
        assert sparsity == pytest.approx(float(theirs[1]), abs=1e-6)
        fired += [step] if fires else []
    for first in range(0, 55, 3):
        for last in range(first - 1, 61, 4):
            expected = any(first <= step <= last for step in fired)
            assert schedules.fires_within(schedule, first, last) is expected


def test_a_polynomial_without_length_is_refused_where_tfmot_gives_nan():
    schedule = schedules.PolynomialDecay(0.2, 0.8, 10, 10, frequency=1)
    assert np.isnan(float(schedule(tf.constant(10, tf.int64))[1]))
    with pytest.raises(ValueError, match="NaN. Received: nan at step 10"):
        schedules.evaluate(schedule, 10)
    assert schedules.evaluate(schedule, 9) == (False, pytest.approx(0.2))
    assert schedules.evaluate(schedule, 11) == (False, pytest.approx(0.8))


@pytest.mark.parametrize(
    "answer",
    [
        (True, 0.25),
        (np.bool_(True), np.float32(0.25)),
        (tf.constant(True), tf.constant(0.25)),
        [tf.constant([True]), 0.25],
    ],
    ids=["python", "numpy", "tensors", "list"],
)
def test_s6_own_schedules_may_return_numbers_or_tensors(answer):
    assert schedules.evaluate(Own(answer), 3) == (True, 0.25)


def test_s6_state_that_changes_later_takes_effect():
    schedule = Own()
    assert schedules.evaluate(schedule, 4)[0] is False
    schedule.begin = 4
    assert schedules.evaluate(schedule, 4) == (True, 0.25)


def test_own_schedules_are_asked_inside_a_graph_too():
    @tf.function
    def traced():
        assert schedules.evaluate(Own(), 6) == (True, 0.25)
        return tf.constant(1)

    traced()


def test_a_subclass_of_tfmots_is_called():
    class Twice(kinds.ConstantSparsity):
        def __call__(self, step):
            fires, sparsity = super().__call__(step)
            return fires, sparsity / 2

    schedule = Twice(0.5, 0, frequency=1)
    assert schedules.evaluate(schedule, 1) == (True, 0.25)
    assert schedules.fires_within(schedule, 1, 10**6) is True


def test_impossible_sparsities_raise_where_they_count():
    for sparsity in (float("nan"), -0.1, 1.0, 7, float("inf")):
        with pytest.raises(ValueError, match="Received: .* at step 3 from a Own"):
            schedules.evaluate(Own((True, sparsity)), 3)
        assert schedules.evaluate(Own((False, sparsity)), 3)[0] is False


def test_answers_that_are_no_pair_raise():
    for answer in (0.5, (True,), (True, None), "ab", (True, [1, 2])):
        with pytest.raises(ValueError, match="must return a pair"):
            schedules.evaluate(Own(answer), 3)


def test_what_is_no_schedule_raises():
    for thing in (0.5, None, lambda step: (True, 0.5), kinds):
        for ask in (
            lambda t: schedules.evaluate(t, 1),
            lambda t: schedules.fires_within(t, 1, 2),
            schedules.final_sparsity,
        ):
            with pytest.raises(ValueError, match="pruning schedule.*Received"):
                ask(thing)


def test_own_schedules_are_tried_for_a_thousand_steps():
    schedule = Own(begin=1500)
    assert schedules.fires_within(schedule, 1, 900) is False
    assert schedules.fires_within(schedule, 1, 1000) is False
    assert schedules.fires_within(schedule, 1, 1001) is None
    assert schedules.fires_within(schedule, 600, 2000) is True
    assert schedules.fires_within(schedule, 9, 8) is False


def test_s7_a_schedule_that_never_fires_is_known_to():
    schedule = schedules.ConstantSparsity(0.5, begin_step=0)
    assert schedules.fires_within(schedule, 1, 99) is False
    assert schedules.fires_within(schedule, 1, 100) is True
    bird = schedules.EarlyBirdSparsity(None, 0.5)
    assert schedules.fires_within(bird, 1, 99) is None
    bird.start(120)
    assert schedules.fires_within(bird, 1, 99) is False
    assert schedules.fires_within(bird, 100, 10**9) is True


def test_what_is_over_is_known_without_a_try():
    from tf_spline_prune.schedules._firing import is_over

    shot = schedules.OneShot(0.5, step=7)
    assert [is_over(shot, step) for step in (6, 7, 8)] == [False, True, True]
    ramp = schedules.PolynomialDecay(0.0, 0.5, 0, 250, frequency=100)
    assert [is_over(ramp, step) for step in (199, 200, 250)] == [False, True, True]
    assert not is_over(schedules.ConstantSparsity(0.5, 0), 10**9)  # it has no end
    epochs = schedules.Timed(shot, "epochs", steps_per_epoch=10)
    assert [is_over(epochs, step) for step in (69, 70)] == [False, True]
    bird = schedules.EarlyBirdSparsity(None, 0.5)
    assert not is_over(bird, 10**9)

    class Silent(schedules.Schedule):
        def at(self, step):
            raise AssertionError("tried")

        __call__ = at

    timed = schedules.Timed(Silent(), "epochs", steps_per_epoch=10)
    for own in (Own((False, 0.5)), Silent(), timed):
        assert not is_over(own, 10**9)


def test_the_final_sparsity_is_read():
    bird = schedules.EarlyBirdSparsity(None, 0.7, initial_sparsity=0.1)
    known = {
        0.5: schedules.ConstantSparsity(0.5, 0),
        0.8: schedules.PolynomialDecay(0.2, 0.8, 0, 10),
        0.6: schedules.PolynomialDecay(0.6, 0.1, 0, 10),
        0.3: schedules.OneShot(0.3, 1),
        0.9: schedules.Cyclic(0.9, 0, 10, 2),
        0.4: schedules.Exponential(0.4, 0, 10),
        0.7: schedules.Timed(bird, "epochs"),
    }
    for sparsity, schedule in known.items():
        assert schedules.final_sparsity(schedule) == sparsity
    assert schedules.final_sparsity(Own()) is None
