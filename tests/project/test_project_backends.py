"""The core on JAX and PyTorch: the same codes, plans and models as on TensorFlow."""

import importlib.util
import json
import os
import pathlib

import backend_scenario
import numpy as np
import pytest
from newcomer import run

HERE = pathlib.Path(__file__).parent
PARTS = {"masks", "slices", "slices_through_norms", "gradients", "exports"}
# What a backend refuses, and what the error names.
EXACT = {"slices": "'torch'", "slices_through_norms": "'torch'"}
REFUSED = {
    "jax": {
        "masks": "JAX backend",
        "slices_through_norms": "'jax'",
        "exports": "'jax'",
    },
    "torch": {**EXACT, "gradients": "'torch'", "exports": "'torch'"},
}


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("tensorflow"))
        found = backend_scenario.results()
    assert not any(f"no {part}" in found for part in PARTS)
    return found


@pytest.fixture(scope="module", params=REFUSED)
def backend(request, tmp_path_factory):
    """Give the name of a backend, and what was found on it."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", request.param)
        patch.setenv("JAX_ENABLE_X64", "1")
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # half of the time
        run([HERE / "backend_scenario.py", "results.npz"], folder)
    assert os.listdir(folder) == ["results.npz"]  # no half-written export
    return request.param, dict(np.load(folder / "results.npz"))


def convolved(x, kernel, bias):
    """Convolve as the definition has it, with a border of zeros."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel) + bias


def normalised(x, gamma, beta, mean, variance):
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def before_knots(x):
    """Compute in NumPy, in float64, what each ReLU of the network is given."""
    model = backend_scenario.drawn(backend_scenario.network())
    W = {
        layer.name: [np.asarray(w, "float64") for w in layer.get_weights()]
        for layer in model.layers
    }
    stem = normalised(convolved(x, *W["stem"]), *W["stem_bn"])
    skip = np.maximum(stem, 0)
    joined = skip + normalised(convolved(skip, *W["branch"]), *W["branch_bn"])
    kernel, bias = W["hidden"]
    hidden = np.maximum(joined, 0).mean(axis=(1, 2)) @ kernel + bias
    return {"stem_relu": stem, "sum_relu": joined, "hidden": hidden}


def test_codes_are_those_of_numpy(backend):
    _, found = backend
    for name, values in before_knots(backend_scenario.data()[0]).items():
        flat = values.reshape(len(values), -1)
        clear = np.abs(flat) > 1e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(
            found[f"codes of {name}"][clear], (flat > 0)[clear]
        )


def test_the_early_bird_stops_the_same_training(backend, on_tensorflow):
    _, found = backend
    assert found["ticket"] == on_tensorflow["ticket"] == 3
    assert len(found["distances"]) == 4 and np.isnan(found["distances"][:3]).all()
    assert found["distances"][3] > 0.01
    np.testing.assert_allclose(
        found["distances"], on_tensorflow["distances"], atol=2e-3
    )


def test_plans_and_pruned_models_are_the_same(backend, on_tensorflow):
    _, found = backend
    for criterion in ("spline", "reconstruction"):
        plan, other = (json.loads(str(f[criterion])) for f in (found, on_tensorflow))
        assert plan["removed"] == other["removed"] and plan["units"] == other["units"]
        assert all(plan["removed"].values())
    np.testing.assert_array_equal(found["sliced"], on_tensorflow["sliced"])
    assert found["error"] < 1e-5


def test_recovery_is_the_same_and_helps(backend, on_tensorflow):
    _, found = backend
    for name in ("whole", "cut", "solved", "mean", "importance", "shallow"):
        np.testing.assert_allclose(found[name], on_tensorflow[name], atol=1e-4)
    lost, left = (
        np.square(found[name] - found["whole"]).mean() for name in ("cut", "solved")
    )
    assert left < 0.5 * lost


def test_the_rest_is_the_same_or_refused_by_name(backend, on_tensorflow):
    name, found = backend
    assert {part for part in PARTS if f"no {part}" in found} == set(REFUSED[name])
    for part, words in REFUSED[name].items():
        message = str(found[f"no {part}"])
        assert words in message and "KERAS_BACKEND" in message
    if "masks" not in REFUSED[name]:
        assert found["masks"] == on_tensorflow["masks"] == 0.5
    if "slices" not in REFUSED[name]:
        np.testing.assert_array_equal(found["regions"], on_tensorflow["regions"])
        np.testing.assert_allclose(found["affine"], on_tensorflow["affine"], atol=1e-12)
    if "gradients" not in REFUSED[name]:
        plan, other = (json.loads(str(f["taylor"])) for f in (found, on_tensorflow))
        assert plan["removed"] == other["removed"]
