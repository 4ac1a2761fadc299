"""What the schedules ask for at each step, against formulas written by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

import tf_spline_prune as tsp

schedules = tsp.schedules


def started(step, *args, **kwargs):
    schedule = schedules.EarlyBirdSparsity(None, *args, **kwargs)
    schedule.start(step)
    return schedule


def polynomial(*args, **kwargs):
    return schedules.PolynomialDecay(*args, **{"frequency": 1, **kwargs})


SCHEDULES = {
    "one shot": lambda: schedules.OneShot(0.8, 7),
    "one shot at 0": lambda: schedules.OneShot(0.0, 0),
    "exponential": lambda: schedules.Exponential(0.9, 5, 105, 0.1, 7),
    "exponential from the start": lambda: schedules.Exponential(0.99, 0, 60),
    "exponential falling": lambda: schedules.Exponential(0.1, 3, 33, 0.6, 3),
    "exponential at once": lambda: schedules.Exponential(0.8, 5, 5, 0.1, 7),
    **{
        f"{cycles} cycles": lambda c=cycles: schedules.Cyclic(0.95, 3, 53, c)
        for cycles in (1, 2, 3, 10, 37, 51)
    },
    "one cycle at once": lambda: schedules.Cyclic(0.5, 4, 4, 1),
    "bird not found": lambda: schedules.EarlyBirdSparsity(None, 0.8, 20, 3, 7, 0.1),
    "bird": lambda: started(12, 0.8, 20, 3, 7, 0.1),
    "bird, power 1.5": lambda: started(1, 0.8, 30, 1.5, 4),
    "bird at once": lambda: started(9, 0.8, frequency=25),
    "epochs": lambda: schedules.Timed(polynomial(0.0, 0.8, 1, 9), "epochs", 7),
    "epochs of 1": lambda: schedules.Timed(polynomial(0.1, 0.8, 0, 40), "epochs", 1),
    "percent": lambda: schedules.Timed(
        polynomial(0.0, 0.8, 10, 60, frequency=5), "percent", 11, 10
    ),
    "percent of few steps": lambda: schedules.Timed(
        polynomial(0.0, 0.8, 10, 61, frequency=3), "percent", 2, 4
    ),
    "bird by epochs": lambda: schedules.Timed(
        started(3, 0.8, 4, frequency=2), "epochs", 6
    ),
}
CASES = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


@CASES
def test_plain_and_graph_forms_agree(make):
    schedule = make()
    forms = [tf.function(schedule.__call__, jit_compile=jit) for jit in (False, True)]
    for step in range(121):
        fires, sparsity = schedule.at(step)
        assert schedules.evaluate(schedule, step) == (fires, sparsity)
        for form in forms:
            in_graph = form(tf.constant(step, tf.int64))
            assert in_graph[0].dtype == tf.bool and in_graph[1].dtype == tf.float32
            assert bool(in_graph[0]) is fires, step
            assert float(in_graph[1]) == pytest.approx(sparsity, abs=2e-6), step


@CASES
def test_the_range_of_firing_steps_is_known(make):
    schedule = make()
    fired = [step for step in range(200) if schedule.at(step)[0]]
    rng = np.random.default_rng(0)
    for first, length in zip(
        rng.integers(0, 150, 200), rng.integers(0, 40, 200), strict=True
    ):
        first, last = int(first), int(first + length - 1)
        found = schedules.fires_within(schedule, first, last)
        if getattr(schedule, "start_step", 0) < 0:
            assert found is None
        else:
            assert found is any(first <= step <= last for step in fired)


def test_one_shot_fires_once():
    schedule = schedules.OneShot(0.8, 7)
    assert [s for s in range(100) if schedule.at(s)[0]] == [7]
    assert schedule.at(7) == (True, 0.8)


def test_exponential_keeps_the_same_share_each_time():
    schedule = schedules.Exponential(0.75, 100, 300, frequency=100)
    assert [s for s in range(500) if schedule.at(s)[0]] == [100, 200, 300]
    values = [schedule.at(s)[1] for s in (0, 100, 150, 200, 300, 400)]
    half = 1 - 0.25**0.25
    assert values == pytest.approx([0, 0, half, 0.5, 0.75, 0.75], abs=1e-12)
    schedule = schedules.Exponential(0.9, 0, 10, initial_sparsity=0.5, frequency=1)
    for step in range(11):
        kept = 0.5 ** (1 - step / 10) * 0.1 ** (step / 10)
        assert schedule.at(step)[1] == pytest.approx(1 - kept, abs=1e-12)


def test_cyclic_is_synflows_schedule():
    schedule = schedules.Cyclic(0.9, 1, 199, cycles=100)
    fired = [s for s in range(400) if schedule.at(s)[0]]
    assert fired == list(range(1, 200, 2))
    for k, step in enumerate(fired, 1):
        assert schedule.at(step)[1] == pytest.approx(1 - 0.1 ** (k / 100), abs=1e-12)
    assert schedule.at(0) == (False, 0.0)
    assert schedule.at(1000) == (False, 0.9)


def test_cyclic_firings_are_evenly_spaced():
    for cycles in (2, 5, 30):
        schedule = schedules.Cyclic(0.9, 10, 39, cycles)
        fired = [s for s in range(100) if schedule.at(s)[0]]
        assert fired == [math.floor(10 + 29 * k / (cycles - 1)) for k in range(cycles)]


def test_the_bird_starts_the_ramp():
    schedule = schedules.EarlyBirdSparsity(None, 0.8, 10, 3, frequency=4)
    assert schedule.start_step == -1
    assert not any(schedule.at(step)[0] for step in range(1000))
    schedule.start(100)
    fired = [step for step in range(140) if schedule.at(step)[0]]
    assert fired == [100, 104, 108, 110, *range(112, 140, 4)]
    for step, left in ((100, 1.0), (104, 0.6), (108, 0.2), (110, 0), (136, 0)):
        assert schedule.at(step)[1] == pytest.approx(0.8 - 0.8 * left**3, abs=1e-12)
    at_once = started(5, 0.5, frequency=10)
    assert [at_once.at(s) for s in (4, 5, 15)] == [(False, 0), (True, 0.5), (True, 0.5)]


def test_a_traced_graph_sees_the_start():
    schedule = schedules.EarlyBirdSparsity(None, 0.8)
    traced = tf.function(schedule.__call__, jit_compile=True)
    step = tf.Variable(5, dtype=tf.int64)
    assert not traced(step)[0]
    schedule.start(5)
    fires, sparsity = traced(step)
    assert fires and float(sparsity) == pytest.approx(0.8)


def test_a_started_schedule_keeps_its_start():
    class Bird:
        def when_found(self, listener):
            self.listener = listener

    bird = Bird()
    schedule = schedules.EarlyBirdSparsity(bird, 0.8)
    bird.listener(40)
    assert schedule.start_step == 41
    bird.listener(90)
    assert schedule.start_step == 41
    timed = schedules.EarlyBirdSparsity(bird, 0.8, frequency=1)
    schedules.Timed(timed, "epochs", steps_per_epoch=10)
    bird.listener(40)
    assert timed.start_step == 5


def test_epochs_and_percents_count_what_is_done():
    epochs = schedules.Timed(polynomial(0.0, 0.8, 1, 4, power=1), "epochs", 10)
    assert [s for s in range(100) if epochs.at(s)[0]] == [10, 20, 30, 40]
    assert epochs.at(20)[1] == pytest.approx(0.8 / 3)
    percent = schedules.Timed(
        schedules.ConstantSparsity(0.5, 0, 100, frequency=50), "percent", 20, 10
    )
    # The first step, half way, and the very last one.
    assert [s for s in range(500) if percent.at(s)[0]] == [1, 100, 200]


def test_no_tick_is_lost_where_several_begin_at_a_step():
    shot = schedules.Timed(schedules.OneShot(0.5, 33), "percent", 1, 4)
    assert [s for s in range(10) if shot.at(s)[0]] == [2]


def test_a_clock_must_be_set():
    for unit, told in (("epochs", "steps_per_epoch"), ("percent", "epochs")):
        timed = schedules.Timed(schedules.OneShot(0.5, 3), unit)
        for use in (timed.at, timed, lambda s, t=timed: t.fires_within(s, s + 1)):
            with pytest.raises(ValueError, match=f"{told}.*resolve.*Received"):
                use(3)
        with pytest.raises(ValueError, match="resolve"):
            tf.function(timed.__call__)(tf.constant(3, tf.int64))
    timed.resolve(10, None)
    assert not timed.resolved
    timed.resolve(None, 10)
    assert timed.resolved and timed.at(3) == (True, 0.5)


def test_a_traced_graph_sees_another_length():
    timed = schedules.Timed(schedules.OneShot(0.5, 50), "percent")
    timed.resolve(10, 2)
    traced = tf.function(timed.__call__)
    assert traced(tf.constant(10, tf.int64))[0]
    timed.resolve(10, 4)
    assert not traced(tf.constant(10, tf.int64))[0]
    assert traced(tf.constant(20, tf.int64))[0]


def test_what_the_constructor_was_given_stays():
    timed = schedules.Timed(schedules.OneShot(0.5, 50), "percent", epochs=100)
    timed.resolve(10, 3)
    assert (timed.steps_per_epoch, timed.epochs) == (10, 100)


BROKEN = {
    "S2 one shot": lambda: schedules.OneShot(1.0, 3),
    "S2 negative": lambda: schedules.OneShot(-0.1, 3),
    "S2 nan": lambda: schedules.OneShot(math.nan, 3),
    "S2 no number": lambda: schedules.OneShot("half", 3),
    "S1 negative step": lambda: schedules.OneShot(0.5, -1),
    "S1 broken step": lambda: schedules.OneShot(0.5, 2.5),
    "S1 order": lambda: schedules.Exponential(0.5, 10, 9),
    "S1 endless": lambda: schedules.Exponential(0.5, 0, -1),
    "S1 begin": lambda: schedules.Exponential(0.5, -1, 10),
    "S1 frequency": lambda: schedules.Exponential(0.5, 0, 10, frequency=0),
    "S2 final": lambda: schedules.Exponential(1.5, 0, 10),
    "S2 initial": lambda: schedules.Exponential(0.5, 0, 10, initial_sparsity=-1),
    "S1 cyclic order": lambda: schedules.Cyclic(0.5, 10, 9, 1),
    "S1 cycles": lambda: schedules.Cyclic(0.5, 0, 10, 0),
    "too many cycles": lambda: schedules.Cyclic(0.5, 0, 10, 12),
    "S2 cyclic": lambda: schedules.Cyclic(1.0, 0, 10, 2),
    "S1 ramp": lambda: schedules.EarlyBirdSparsity(None, 0.5, -1),
    "S1 bird frequency": lambda: schedules.EarlyBirdSparsity(None, 0.5, frequency=-2),
    "S2 bird": lambda: schedules.EarlyBirdSparsity(None, 1.0),
    "power": lambda: schedules.EarlyBirdSparsity(None, 0.5, power=0),
    "no bird": lambda: schedules.EarlyBirdSparsity("bird", 0.5),
    "start": lambda: schedules.EarlyBirdSparsity(None, 0.5).start(-1),
    "unit": lambda: schedules.Timed(schedules.OneShot(0.5, 1), "hours"),
    "no schedule": lambda: schedules.Timed(0.5, "epochs"),
    "clock twice": lambda: schedules.Timed(
        schedules.Timed(schedules.OneShot(0.5, 1), "epochs"), "epochs"
    ),
    "no steps": lambda: schedules.Timed(schedules.OneShot(0.5, 1), "epochs", 0),
    "no epochs": lambda: schedules.Timed(schedules.OneShot(0.5, 1), "epochs", 1, -3),
    "resolved wrongly": lambda: schedules.Timed(
        schedules.OneShot(0.5, 1), "epochs"
    ).resolve(0, 3),
}


def test_s1_s2_arguments_out_of_range_raise():
    for case, make in BROKEN.items():
        try:
            made = make()
        except ValueError as error:
            assert "Received: " in str(error), case
        else:
            pytest.fail(f"{case}: {made}")


def test_s1_s2_the_ends_of_the_ranges_are_allowed():
    schedules.Exponential(0.99, 0, 0, 0.0, 1)
    schedules.Cyclic(0.0, 0, 0, 1)
    schedules.OneShot(np.float32(0.5), np.int64(3))
