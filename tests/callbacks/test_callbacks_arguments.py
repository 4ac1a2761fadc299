"""Arguments that are refused, and when."""

import math

import numpy as np
import pytest
import training

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError, ProbeError

# Keras hands its variables to h5py, which asks NumPy for no copy of them.
PROBE = training.PROBE


@pytest.mark.parametrize(
    "bad",
    [
        {"lookback": 0},
        {"lookback": -1},
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": -1},
        {"threshold": math.nan},
        {"tolerance": 0},
        {"tolerance": math.nan},
        {"mode": "below"},
        {"mode": None},
        {"mode": "plateau", "lookback": 1},
        {"filepath": "ticket.txt"},
        {"filepath": "ticket"},
    ],
    ids=str,
)
def test_spline_early_bird(bad):
    with pytest.raises(ValueError, match="Received"):
        tsp.SplineEarlyBird(PROBE, **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"num_masks": 1},
        {"sparsity": -0.1},
        {"sparsity": 1},
        {"sparsity": math.nan},
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": math.nan},
        {"reference": "oldest"},
        {"filepath": "ticket.txt"},
    ],
    ids=str,
)
def test_mask_early_bird(bad):
    with pytest.raises(ValueError, match="Received"):
        tsp.MaskEarlyBird(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"lookback": 0},
        {"sparsity": -0.1},
        {"sparsity": 1},
        {"sparsity": math.nan},
        {"threshold": 0},
        {"threshold": 1},
        {"threshold": math.nan},
        {"filepath": "ticket.txt"},
    ],
    ids=str,
)
def test_architecture_early_bird(bad):
    with pytest.raises(ValueError, match="Received"):
        tsp.ArchitectureEarlyBird(**bad)


def refused(K, bird, error, match):
    """Check that a bird stops a training before it changes anything."""
    model = training.ready(K)
    before = model.get_weights()
    with pytest.raises(error, match=match):
        training.fit(model, [bird])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    "probe",
    [
        PROBE[:0],
        PROBE[:, :5],
        PROBE[0],
        np.where(PROBE > 2, np.nan, PROBE),
        [PROBE, PROBE],
    ],
    ids=["empty", "narrow", "no_batch", "nan", "two_inputs"],
)
def test_bad_probes_stop_before_training(K, probe):
    refused(K, tsp.SplineEarlyBird(probe), ProbeError, "Received")


def test_unknown_layers_stop_before_training(K):
    bird = tsp.SplineEarlyBird(PROBE, layers=["three"])
    refused(K, bird, ValueError, "three")


@pytest.mark.parametrize(
    "bad",
    [{"max_bytes": 0}, {"batch_size": 0}, {"max_units_per_layer": 0}],
    ids=str,
)
def test_bounds_below_one_are_refused(bad):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        tsp.SplineEarlyBird(PROBE, **bad)


def test_a_bound_that_cannot_be_met_stops_before_training(K):
    bird = tsp.SplineEarlyBird(PROBE, max_bytes=4 * 50 * 2 - 1)
    refused(K, bird, ValueError, "do not fit")


def test_a_model_without_knots_stops_before_training(K):
    model = K.Sequential([K.Input((6,)), K.layers.Dense(2)])
    training.compiled(K, model)
    before = model.get_weights()
    with pytest.raises(ModelError, match="No piecewise-linear"):
        training.fit(model, [tsp.SplineEarlyBird(PROBE)])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_folder_that_cannot_be_made_stops_before_training(K, tmp_path):
    (tmp_path / "file").write_text("in the way")
    bird = tsp.SplineEarlyBird(PROBE, filepath=tmp_path / "file" / "ticket.keras")
    refused(K, bird, OSError, "cannot be made")
    bird = tsp.SplineEarlyBird(PROBE, backup_dir=tmp_path / "file" / "backup")
    refused(K, bird, OSError, "cannot be made")


def test_a_folder_that_may_not_be_written_stops_before_training(
    K, tmp_path, monkeypatch
):
    # Root may write anywhere, so the answer of the system is given here.
    monkeypatch.setattr("os.access", lambda *args, **kwargs: False)
    bird = tsp.SplineEarlyBird(PROBE, filepath=tmp_path / "ticket.keras")
    refused(K, bird, PermissionError, "cannot be written")


def test_a_folder_in_the_place_of_the_ticket_stops_before_training(K, tmp_path):
    (tmp_path / "ticket.keras").mkdir()
    bird = tsp.SplineEarlyBird(PROBE, filepath=tmp_path / "ticket.keras")
    refused(K, bird, OSError, "ticket.keras")


def test_the_folder_of_the_ticket_is_made(K, tmp_path):
    path = tmp_path / "a" / "b" / "ticket.weights.h5"
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=1, filepath=path)
    training.fit(training.ready(K), [bird], epochs=3)
    assert bird.ticket_epoch == 1
    assert path.is_file()


def test_distance_matrix_needs_the_history(K):
    bird = tsp.SplineEarlyBird(PROBE)
    with pytest.raises(ValueError, match="keep_history=True"):
        bird.distance_matrix()
    training.fit(training.ready(K), [bird], epochs=1)
    with pytest.raises(ValueError, match="keep_history=True"):
        bird.distance_matrix()
    bird = tsp.SplineEarlyBird(PROBE, keep_history=True)
    with pytest.raises(ValueError, match="No epoch"):
        bird.distance_matrix()
