"""Runs that are cut off and resumed take the decision of one that is not."""

import functools
import pathlib
import tempfile
import warnings

import keras
import numpy as np
import pytest
import training
from training import PROBE, Interrupt, Interruption, fit, ready

import tf_spline_prune as tsp
from tf_spline_prune.errors import BackupWarning

EPOCHS = 8
RATE = 0.6
SETTINGS = {"threshold": 0.045, "lookback": 3, "stop": True}


def bird_at(folder=None, **changes):
    arguments = {**SETTINGS, "backup_dir": folder, **changes}
    return tsp.SplineEarlyBird(PROBE, **arguments)


def callbacks(K, folder, bird, order="bird first", interrupt=None):
    restore = K.callbacks.BackupAndRestore(str(folder / "model"))
    if order == "bird first":
        between = [bird, interrupt, restore]
    elif order == "bird last":
        between = [restore, interrupt, bird]
    else:
        between = [bird, restore, interrupt]
    return [c for c in between if c is not None]


@functools.cache
def uninterrupted(K, **changes):
    """Train once per flavour and settings."""
    bird = bird_at(**changes)
    fit(ready(K, RATE), [bird], epochs=EPOCHS)
    return bird


def same_decision(bird, reference):
    assert bird.ticket_epoch == reference.ticket_epoch
    assert sorted(bird.records) == sorted(reference.records)
    for epoch, distances in reference.records.items():
        assert bird.records[epoch] == pytest.approx(distances, abs=1e-9)


def interrupted(K, folder, interrupt, order="bird first", **changes):
    """Run once until it is cut off, then anew, as a new process would."""
    bird = bird_at(folder / "bird", **changes)
    with pytest.raises(Interruption):
        fit(
            ready(K, RATE),
            callbacks(K, folder, bird, order, interrupt),
            epochs=EPOCHS,
        )
    bird = bird_at(folder / "bird", **changes)
    history = fit(
        # Other weights, which the backup replaces if there is one.
        ready(K, RATE, seed=7 if interrupt.epoch else 0),
        callbacks(K, folder, bird, order),
        epochs=EPOCHS,
    )
    return bird, history


def test_the_reference_means_something(K):
    bird = uninterrupted(K)
    assert bird.ticket_epoch is not None
    assert 4 <= bird.ticket_epoch < EPOCHS


@pytest.mark.parametrize("epoch", [0, 1, 2, 4])
@pytest.mark.parametrize("order", ["bird first", "bird last"])
def test_resumed_runs_decide_alike(K, tmp_path, epoch, order):
    bird, history = interrupted(K, tmp_path, Interrupt(epoch), order)
    same_decision(bird, uninterrupted(K))
    assert history.epoch[0] == epoch
    # A finished run leaves nothing behind.
    assert not list((tmp_path / "bird").rglob("*"))


def test_twice_cut_off(K, tmp_path):
    for epoch in (2, 4):
        with pytest.raises(Interruption):
            fit(
                ready(K, RATE),
                callbacks(
                    K, tmp_path, bird_at(tmp_path / "bird"), "", Interrupt(epoch)
                ),
                epochs=EPOCHS,
            )
    bird = bird_at(tmp_path / "bird")
    fit(ready(K, RATE), callbacks(K, tmp_path, bird), epochs=EPOCHS)
    same_decision(bird, uninterrupted(K))


@pytest.mark.parametrize("epoch", [1, 3])
def test_cut_off_between_the_two_saves(K, tmp_path, epoch):
    """The bird's backup is one epoch ahead: it steps back, and decides alike."""
    bird, history = interrupted(K, tmp_path, Interrupt(epoch, "end"))
    assert history.epoch[0] == epoch
    same_decision(bird, uninterrupted(K))


def test_cut_off_after_the_hit(K, tmp_path):
    """The hit was in an epoch that is done again."""
    hit = uninterrupted(K).ticket_epoch
    bird, _ = interrupted(K, tmp_path, Interrupt(hit, "end"))
    same_decision(bird, uninterrupted(K))


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_backup_that_lags_behind_catches_up(K, tmp_path, epoch):
    """With BackupAndRestore first the bird's backup may be an epoch short.

    The restored model is that of the missing epoch, so nothing is lost.
    """
    bird, history = interrupted(K, tmp_path, Interrupt(epoch, "end"), "bird last")
    assert history.epoch[0] == epoch + 1
    same_decision(bird, uninterrupted(K))


def test_a_backup_that_lags_far_behind_starts_anew(K, tmp_path):
    """The bird's backup is of an older run: its window starts anew."""
    with pytest.raises(Interruption):
        fit(
            ready(K, RATE),
            callbacks(K, tmp_path, bird_at(tmp_path / "bird"), "", Interrupt(1)),
            epochs=EPOCHS,
        )
    with pytest.raises(Interruption):
        restore = K.callbacks.BackupAndRestore(str(tmp_path / "model"))
        fit(ready(K, RATE), [restore, Interrupt(4)], epochs=EPOCHS)
    bird = bird_at(tmp_path / "bird", stop=False)
    with pytest.warns(BackupWarning, match="does not reach epoch 4"):
        fit(ready(K, RATE), callbacks(K, tmp_path, bird), epochs=EPOCHS)
    assert min(bird.records) == 5
    reference = uninterrupted(K, stop=False)
    assert bird.records[7] == pytest.approx(reference.records[7])


def test_history_goes_on(K, tmp_path):
    bird, _ = interrupted(
        K, tmp_path, Interrupt(3, "end"), stop=False, keep_history=True
    )
    reference = uninterrupted(K, stop=False, keep_history=True)
    np.testing.assert_array_equal(bird.distance_matrix(), reference.distance_matrix())


def test_mask_and_architecture_birds_resume(K, tmp_path):
    def model(seed=0):
        K.utils.set_random_seed(seed)
        return training.compiled(
            K,
            K.Sequential(
                [
                    K.Input((6,)),
                    K.layers.Dense(12),
                    K.layers.BatchNormalization(),
                    K.layers.ReLU(),
                    K.layers.Dense(2),
                ]
            ),
            0.5,
        )

    def birds(folder=None):
        return [
            tsp.MaskEarlyBird(0.5, stop=False, backup_dir=folder),
            tsp.ArchitectureEarlyBird(0.5, stop=False, backup_dir=folder),
        ]

    reference = birds()
    fit(model(), reference, epochs=EPOCHS)
    restore = str(tmp_path / "model")
    with pytest.raises(Interruption):
        fit(
            model(),
            [
                *birds(tmp_path / "b"),
                K.callbacks.BackupAndRestore(restore),
                Interrupt(5),
            ],
            epochs=EPOCHS,
        )
    resumed = birds(tmp_path / "b")
    fit(model(3), [*resumed, K.callbacks.BackupAndRestore(restore)], epochs=EPOCHS)
    for bird, other in zip(resumed, reference, strict=True):
        same_decision(bird, other)


@functools.cache
def backup(K):
    """Give name and content of a backup of three epochs."""
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(Interruption):
            fit(ready(K, RATE), [bird_at(folder), Interrupt(3)], epochs=EPOCHS)
        (file,) = pathlib.Path(folder).iterdir()
        return file.name, file.read_bytes()


def cut_off(K, folder):
    """Leave a backup of three epochs behind; returns its file."""
    name, content = backup(K)
    (folder / "bird").mkdir()
    (folder / "bird" / name).write_bytes(content)
    return folder / "bird" / name


@pytest.mark.parametrize(
    "changes",
    [
        {"lookback": 2},
        {"seed": 1},
        {"layers": ["one"]},
        {"max_units_per_layer": 5},
        {"probe": PROBE + 1},
    ],
    ids=lambda c: next(iter(c)),
)
def test_a_backup_of_other_settings_is_not_used(K, tmp_path, changes):
    cut_off(K, tmp_path)
    changes = {**changes, "backup_dir": tmp_path / "bird", "stop": False}
    bird = tsp.SplineEarlyBird(**{"probe": PROBE, **changes})
    with pytest.warns(BackupWarning, match="other settings"):
        fit(ready(K, RATE), [bird], epochs=5, initial_epoch=3)
    assert sorted(bird.records) == [4]


def test_a_backup_of_another_model_is_not_used(K, tmp_path):
    cut_off(K, tmp_path)
    model = K.Sequential([K.Input((6,)), K.layers.Dense(30, "relu")])
    bird = bird_at(tmp_path / "bird")
    with pytest.warns(BackupWarning, match="another model"):
        fit(training.compiled(K, model), [bird], epochs=5, initial_epoch=3)
    assert sorted(bird.records) == [4]


def test_a_run_from_the_start_does_not_use_a_backup(K, tmp_path):
    """Without BackupAndRestore training starts at epoch 0, and so does the bird."""
    cut_off(K, tmp_path)
    bird = bird_at(tmp_path / "bird")
    fit(ready(K, RATE), [bird], epochs=EPOCHS)
    same_decision(bird, uninterrupted(K))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_backup_is_not_used(K, tmp_path, share):
    file = cut_off(K, tmp_path)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    bird = bird_at(tmp_path / "bird")
    with pytest.warns(BackupWarning, match="cannot be read"):
        fit(ready(K, RATE), [bird], epochs=5, initial_epoch=3)
    assert sorted(bird.records) == [4]


def test_a_backup_of_something_else_is_not_used(K, tmp_path):
    file = cut_off(K, tmp_path)
    bird = bird_at(tmp_path / "bird", stop=False)
    np.savez(file, digest=bird._digest(), window=np.arange(3))
    with pytest.warns(BackupWarning, match="not used"):
        fit(ready(K, RATE), [bird], epochs=5, initial_epoch=3)
    assert sorted(bird.records) == [4]


def test_no_flipped_byte_of_a_backup_crashes(tmp_path):
    """Either it is noticed, or it does not matter."""
    file = cut_off(keras, tmp_path)
    whole = file.read_bytes()
    bird = bird_at(tmp_path / "bird")
    bird.set_model(ready(keras, RATE))
    bird._check_model = lambda: None  # it looks at the model only
    rng = np.random.default_rng(0)
    # The heads of the archive's members and its directory are what breaks.
    heads = [
        i + j for i in range(len(whole)) if whole[i : i + 2] == b"PK" for j in range(50)
    ]
    places = {p for p in heads if p < len(whole)}
    places |= set(rng.integers(0, len(whole), 300).tolist())
    noticed = 0
    for place in sorted(places):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        file.write_bytes(bytes(broken))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            bird.on_train_begin()
        assert all(w.category is BackupWarning for w in caught)
        noticed += len(caught)
        if not caught:
            assert bird._resumed
    assert noticed > 100


def test_the_backup_is_written_atomically(K, tmp_path, monkeypatch):
    file = cut_off(K, tmp_path)
    before = file.read_bytes()

    def savez(path, **arrays):
        with open(path, "wb") as half:
            half.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", savez)
    with (
        pytest.raises(OSError, match="disk full"),
        pytest.warns(BackupWarning, match="another run"),
    ):
        fit(ready(K, RATE), [bird_at(tmp_path / "bird")], epochs=5, initial_epoch=3)
    assert file.read_bytes() == before
    assert list((tmp_path / "bird").iterdir()) == [file]


def test_a_function_is_known_again_by_its_name():
    class Longest:
        def __call__(self, graph, group):
            return sum(graph.lengths(member) for member in group.producers)

    keys = {tsp.ArchitectureEarlyBird(criterion=Longest())._key() for _ in range(2)}
    assert len(keys) == 1 and "Longest" in keys.pop()
