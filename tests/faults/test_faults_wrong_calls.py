"""Wrong arguments that the sweep of all public names found answered unclearly."""

import numpy as np
import pytest

import tf_spline_prune as tsp


def net(keras, units=6):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(units, activation="relu", name="d1"),
            layers.Dense(3, name="out"),
        ]
    )


@pytest.mark.parametrize("weight_std", [1.0, 0.999, 0.99999])
def test_below_the_edge_a_mean_square_sinks_to_nothing(weight_std):
    """After 10,000 layers it was 5e-5 for weight_std=1, and that was the answer."""
    assert tsp.initialization.MeanField(np.tanh).fixed_point(weight_std, 0.0) == 0


def test_just_above_the_edge_a_mean_square_is_where_it_stays():
    theory = tsp.initialization.MeanField(np.tanh)
    for weight_std in (1.00001, 1.001):
        q = theory.fixed_point(weight_std, 0.0)
        # tanh(x)^2 = x^2 - 2/3 x^4 + 17/45 x^6: q = s (q - 2 q^2 + 17/3 q^3)
        s = weight_std**2
        small = (2 - np.sqrt(4 - 4 * 17 / 3 * (1 - 1 / s))) / (2 * 17 / 3)
        assert q == pytest.approx(small, rel=1e-2 if weight_std > 1.0001 else 1e-4)
        assert theory.fixed_point(weight_std, 0.0, q=q / 9) == pytest.approx(q, 1e-6)


def test_a_scaling_activation_sums_its_series():
    relu = tsp.initialization.MeanField("relu")
    assert relu.fixed_point(1.4142, 0.0, q=3.0) == 0
    assert relu.fixed_point(1.4142, 0.1) == pytest.approx(0.01 / (1 - 1.4142**2 / 2))
    assert relu.fixed_point(2**0.5, 0.1) == float("inf")
    assert relu.fixed_point(1.42, 0.0, q=0.0) == 0


def test_what_goes_up_and_down_settles():
    bell = tsp.initialization.MeanField(lambda x: np.exp(-(x**2)))
    q = bell.fixed_point(9.0, 0.0)
    assert q == pytest.approx(81 / np.sqrt(1 + 4 * q), rel=1e-9)
    with pytest.raises(ValueError, match="at most 1e.100.*Received: weight_std"):
        bell.chi(1.0, 1e200)


def test_weights_that_are_not_in_the_file(K, tmp_path):
    masked = tsp.wrap_with_masks(net(K))
    before = masked.get_weights()
    other = tmp_path / "other.weights.h5"
    net(K, units=7).save_weights(str(other))
    nothing = tmp_path / "nothing.weights.h5"
    nothing.write_bytes(b"no weights")
    for path in (other, nothing, tmp_path / "nonsense", tmp_path / "no.weights.h5"):
        with pytest.raises((ValueError, OSError)) as caught:
            tsp.load_weights(masked, path)
        assert isinstance(caught.value, OSError) or "Received: " in str(caught.value)
    after = masked.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "labels", [0, "nonsense", [1.9], {"a": 1}, object()], ids=lambda x: type(x).__name__
)
def test_labels_are_arrays(K, labels):
    x = np.ones((8, 4), "float32")
    with pytest.raises(tsp.errors.CalibrationError, match="Labels.*Received: labels="):
        tsp.initialization.signal_propagation(net(K), x, labels, "mse")
