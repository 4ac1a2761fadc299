"""Plans that version 0.1.0 wrote are read, and applied as it applied them.

The files in `plans_0_1_0` were written by the code of that version, for the networks
of `zoo`. What a small model must compute is told by `masked_reference`, in NumPy.
"""

import json
import pathlib

import keras
import masked_reference
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp

FILES = sorted((pathlib.Path(__file__).parent / "plans_0_1_0").glob("*.json"))
NETS = {net.__name__: net for net in masked_reference.NETS}


def net_of(file):
    return max((name for name in NETS if file.stem.startswith(name)), key=len)


def test_there_are_plans_of_every_network():
    assert {net_of(file) for file in FILES} == set(NETS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_plan_of_old(file, tmp_path):
    written = json.loads(file.read_text())
    plan = tsp.PruningPlan.load(file)
    assert dict(plan.removed) == written["removed"] and any(plan.removed.values())
    assert {p: [list(m) for m in pairs] for p, pairs in plan.merges.items()} == (
        written["merges"]
    )
    assert plan.before.macs == written["before"]["macs"]

    model = getattr(zoo, net_of(file))(keras)
    small = plan.apply(model)
    x = np.random.default_rng(1).normal(size=(4, *model.inputs[0].shape[1:]))
    weights = masked_reference.weights_of(model)
    keep = masked_reference.keep_of(weights, written["removed"])
    expected = NETS[net_of(file)](x, weights, keep)
    found = np.asarray(small(x.astype("float32"), training=False))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert small.count_params() == written["after"]["params"]
    assert tsp.verify(model, small, plan) < 1e-5
    if plan.merges:  # they still say which twin takes over
        merged = tsp.merge(model, plan)
        assert tsp.verify(merged, plan.apply(merged), plan) < 1e-5

    plan.save(tmp_path / "again.json")
    assert tsp.PruningPlan.load(tmp_path / "again.json") == plan
