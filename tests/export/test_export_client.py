"""The example client, against the folder and against the stand-in server."""

import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest

import tf_spline_prune as tsp

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def exported(folder):
    """Two inputs, bytes among them, and one output with labels."""
    import keras

    image, extra = keras.Input((2, 2), name="image"), keras.Input((1,), name="extra")
    y = keras.layers.Concatenate()([keras.layers.Flatten()(image), extra])
    model = keras.Model([image, extra], keras.layers.Dense(3, name="scores")(y))
    tsp.export_saved_model(model, folder, version=2, labels=["a", "ü", "c d"])
    return model


def test_the_client_in_a_process_of_its_own(tmp_path):
    exported(tmp_path / "net")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "serving_client.py", "net", "--stand-in"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert "it is not TensorFlow Serving" in done.stdout
    assert "version 2 is AVAILABLE" in done.stdout
    assert "input image: float32 [None, 2, 2]" in done.stdout
    assert "output classes: string [None, 3]" in done.stdout
    # Two signatures, each through REST and through gRPC.
    assert done.stdout.count("relative difference 0.0e+00") == 4


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import serving_stand_in

    return serving_stand_in


def test_the_stand_in_answers_as_the_model(stand_in, tmp_path):
    model = exported(tmp_path / "net")
    url = stand_in.serve_rest(stand_in.Model(tmp_path / "net")) + "/v1/models/net"
    rng = np.random.default_rng(0)
    image = rng.random((2, 2, 2)).astype("float32")
    extra = rng.random((2, 1)).astype("float32")
    expected = np.asarray(model([image, extra]))

    def post(body, place=f"{url}:predict"):
        return urllib.request.urlopen(place, json.dumps(body).encode(), timeout=30)

    columns = {"image": image.tolist(), "extra": extra.tolist()}
    rows = [{name: values[i] for name, values in columns.items()} for i in range(2)]
    found = json.load(post({"inputs": columns}))["outputs"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    found = json.load(post({"instances": rows}))["predictions"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    body = {"signature_name": "classify", "instances": rows}
    found = json.load(post(body, f"{url}/versions/2:predict"))["predictions"]
    names = np.array(["a", "ü", "c d"])[np.argsort(-expected, axis=1)]
    assert [row["classes"] for row in found] == names.tolist()

    refused = [
        (400, "either", {}, ":predict"),
        (400, "no signature", {"signature_name": "x", "inputs": columns}, ":predict"),
        (400, "must be", {"inputs": {"image": []}}, ":predict"),
        (400, "KeyError", {"instances": [rows[0], {}]}, ":predict"),
        (400, "Malformed", {"inputs": columns}, ":regress"),
        (404, "not found", {"inputs": columns}, "x:predict"),
        (404, "not found", {"inputs": columns}, "/versions/1:predict"),
    ]
    for code, said, body, place in refused:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(body, url + place)
        with caught.value as answer:
            assert answer.code == code
            assert said in json.load(answer)["error"]
