"""What listens to a detector learns when the early bird is found."""

import pytest
from training import (
    PROBE,
    Interrupt as Cut,
    Interruption,
    X,
    Y,
    compiled,
    fit,
    network,
    ready,
)

import tf_spline_prune as tsp
from tf_spline_prune.compat import optimizer_steps

PER_EPOCH = 4


def bird_and_steps(**changes):
    arguments = {"threshold": 0.9, "lookback": 2, "stop": False, **changes}
    bird, told = tsp.SplineEarlyBird(PROBE, **arguments), []
    bird.when_found(told.append)
    return bird, told


def test_the_listener_is_told_the_optimizer_steps(K):
    bird, told = bird_and_steps()
    assert bird.ticket_step is None
    model = ready(K)
    fit(model, [bird], epochs=5)
    assert bird.ticket_epoch == 2
    assert told == [bird.ticket_step] == [3 * PER_EPOCH]
    # It listens to the next run too, whose optimizer goes on counting.
    fit(model, [bird], epochs=3)
    assert told == [3 * PER_EPOCH, 8 * PER_EPOCH]


def test_nobody_is_told_where_nothing_is_found(K):
    bird, told = bird_and_steps(threshold=1e-6)
    fit(ready(K), [bird], epochs=3)
    assert told == [] and bird.ticket_step is None


def test_accumulated_batches_are_no_steps():
    import keras

    model = network(keras)
    model.compile(
        keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(X, Y, batch_size=16, epochs=3, verbose=0)
    assert optimizer_steps(model) == 3 * PER_EPOCH // 2


def test_steps_are_counted_alike(K):
    assert optimizer_steps(network(K)) == 0
    model = compiled(K, network(K), steps_per_execution=2)
    fit(model, [], epochs=2)
    assert optimizer_steps(model) == 2 * PER_EPOCH


def cut_off(K, folder, cut, **changes):
    """Run until it is cut off, then anew; returns both runs' listeners' numbers."""
    numbers = []
    for callbacks in ([cut], []):
        bird, told = bird_and_steps(backup_dir=folder / "bird", **changes)
        restore = K.callbacks.BackupAndRestore(str(folder / "model"))
        numbers.append(told)
        run = [bird, *callbacks, restore]
        if callbacks:
            with pytest.raises(Interruption):
                fit(ready(K), run, epochs=6)
        else:
            fit(ready(K), run, epochs=6)
    return bird, *numbers


def test_a_resumed_run_tells_again(K, tmp_path):
    bird, before, after = cut_off(K, tmp_path, Cut(4))
    assert bird.ticket_epoch == 2
    assert before == after == [bird.ticket_step] == [3 * PER_EPOCH]


def test_a_hit_that_is_done_again_is_told_once(K, tmp_path):
    bird, before, after = cut_off(K, tmp_path, Cut(2, "end"))
    assert before == after == [bird.ticket_step] == [3 * PER_EPOCH]
