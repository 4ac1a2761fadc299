"""Wrong input to `prune_at_init`: said clearly, before anything is made."""

import early_nets
import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.errors import (
    BudgetError,
    CalibrationError,
    CriterionError,
    FlavourError,
    InitializationWarning,
    ModelError,
)


@pytest.fixture(scope="module")
def model():
    import tf_keras

    return early_nets.mlp(tf_keras)


@pytest.mark.parametrize(
    ("criterion", "kwargs", "error", "match"),
    [
        ("snip", {"sparsity": 1.0}, ValueError, "less than 1.*sparsity=1.0"),
        ("snip", {"sparsity": -0.1}, ValueError, "sparsity=-0.1"),
        ("snip", {"sparsity": None}, ValueError, "sparsity=None"),
        ("snip", {"sparsity": "much"}, ValueError, "'much'"),
        ("snip", {"sparsity": float("nan")}, ValueError, "sparsity=nan"),
        ("snipe", {}, ValueError, "one of .*'snip'.*'smart_ratio'.*'snipe'"),
        ("fpgm", {}, ValueError, "granularity=\"unit\".*'fpgm'"),
        ("taylor", {}, ValueError, "units, not single weights.*Taylor"),
        (criteria.FPGM(), {}, ValueError, "units, not single weights.*FPGM"),
        (criteria.SNIP, {}, ValueError, "Received: criterion=the class"),
        ("magnitude", {"loss": "mse"}, ValueError, "no loss.*'magnitude'.*'mse'"),
        ("synflow", {"loss": "mse"}, ValueError, "no loss.*SynFlow.*'mse'"),
        ("erk", {"loss": "mse"}, ValueError, "no loss.*'erk'"),
        ("snip", {"loss": 3}, ValueError, "loss=3"),
        ("snip", {"rounds": 0}, ValueError, "rounds=0"),
        ("snip", {"rounds": 2.5}, ValueError, "rounds=2.5"),
        ("snip", {"rounds": True}, ValueError, "rounds=True"),
        ("snip", {"schedule": "cubic"}, ValueError, "`schedule`.*'cubic'"),
        ("snip", {"granularity": "2:4"}, ValueError, "`granularity`.*'2:4'"),
        ("snip", {"empty_layers": "no"}, ValueError, "`empty_layers`.*'no'"),
        ("snip", {"target_macs": 0.5}, TypeError, "'unit'.*target_macs"),
        ("snip", {"layers": "d9"}, ValueError, "d9"),
        ("snip", {"data": None}, CalibrationError, r"data=\(x, y\).*no data"),
        (
            "snip",
            {"granularity": "unit", "empty_layers": "keep"},
            ValueError,
            "min_units.*'keep'",
        ),
        ("synflow", {"sparsity": 0.99}, BudgetError, "empty d1/kernel|empty d2/kernel"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_wrong_arguments(model, criterion, kwargs, error, match):
    settings = {"sparsity": 0.5, "data": early_nets.examples(), **kwargs}
    if criterion == "synflow" and error is BudgetError:
        settings["rounds"] = 1
    with pytest.raises(error, match=match):
        tsp.prune_at_init(model, criterion, **settings)


def test_wrong_data(K):
    model = early_nets.mlp(K)
    x, y = early_nets.examples()
    with pytest.raises(CalibrationError, match="without labels"):
        tsp.prune_at_init(model, "snip", 0.5, data=x)
    with pytest.raises(CalibrationError, match="needs inputs.*no data"):
        tsp.prune_at_init(model, "snip", 0.5, loss="uniform")
    with pytest.raises(CalibrationError, match=r"Expected: shape \('n', 12\)"):
        tsp.prune_at_init(model, "snip", 0.5, data=(x[:, :5], y))
    with pytest.raises(CalibrationError, match="one label per input"):
        tsp.prune_at_init(model, "snip", 0.5, data=(x, y[:-1]))
    for name in ("snip", "grasp"):  # with and without a temperature
        with pytest.raises(CalibrationError, match="cannot be computed from these"):
            labels = np.zeros((len(x), 9), "float32")
            tsp.prune_at_init(model, name, 0.5, data=(x, labels), loss="mse")
    with pytest.raises(CalibrationError, match="NaN"):
        tsp.prune_at_init(model, "snip", 0.5, data=(x * np.nan, y))


@pytest.mark.parametrize("name", ["snip", "force", "grasp"])
def test_losses_that_are_not_finite(K, name):
    model = early_nets.mlp(K)

    def broken(y_true, y_pred):
        return y_pred[:, 0] * np.nan

    with pytest.raises(CriterionError, match="not finite.*nan"):
        data = early_nets.examples()
        tsp.prune_at_init(model, name, 0.5, data=data, loss=broken)


def test_wrong_models(K):
    data = early_nets.examples()
    L = K.layers
    with pytest.raises(FlavourError):
        tsp.prune_at_init("model", "snip", 0.5, data=data)
    with pytest.raises(ModelError, match="[Bb]uil"):
        tsp.prune_at_init(K.Sequential([L.Dense(3)]), "synflow", 0.5)
    model = early_nets.mlp(K)
    weights = model.get_weights()
    model.set_weights([weights[0] * np.nan, *weights[1:]])
    with pytest.raises(ModelError, match="d1"):
        tsp.prune_at_init(model, "magnitude", 0.5)
    bare = K.Sequential([K.Input((12,)), L.ReLU()])
    with pytest.raises(ModelError, match="can be masked"):
        tsp.prune_at_init(bare, "synflow", 0.5)
    model.set_weights(weights)
    masked = tsp.prune_at_init(model, "synflow", 0.5)
    with pytest.raises(ModelError, match="without masks.*strip_masks"):
        tsp.prune_at_init(masked, "synflow", 0.5)
    plain = K.Sequential([K.Input((12,)), L.Dense(4, name="d")])
    with pytest.raises(ValueError, match="loss is needed"):
        tsp.prune_at_init(plain, "snip", 0.5, data=data)


def test_several_outputs(K):
    """All losses together; a temperature is for one output."""
    L = K.layers
    inputs = K.Input((12,))
    x = L.Dense(8, "relu", name="trunk")(inputs)
    model = K.Model(inputs, [L.Dense(3, name="a")(x), L.Dense(1, name="b")(x)])
    model.compile("sgd", ["mse", "mae"])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 12)).astype("float32")
    y = [rng.standard_normal((10, n)).astype("float32") for n in (3, 1)]
    tsp.prune_at_init(model, "snip", 0.5, data=(x, y))
    with pytest.raises(CriterionError, match="one output.*temperature=1.*2 outputs"):
        tsp.prune_at_init(model, "grasp", 0.5, data=(x, y))
    grasp = criteria.GraSP(temperature=1)
    tsp.prune_at_init(model, grasp, 0.5, data=(x, y))
    tsp.prune_at_init(model, "synflow", 0.5)


def test_a_trained_model_warns(K):
    model = early_nets.mlp(K)
    x, y = early_nets.examples(64)
    model.fit(x, y, batch_size=32, verbose=0)
    with pytest.warns(InitializationWarning, match="trained.*after 2 steps") as caught:
        tsp.prune_at_init(model, "magnitude", 0.5)
    assert caught[-1].filename == __file__


def test_scores_of_what_scores_no_connections(K):
    model = early_nets.mlp(K)
    for criterion in ("magnitude", "taylor", criteria.Fisher(), None):
        with pytest.raises(ValueError, match="criterion of connections"):
            tsp.initialization.connection_scores(model, criterion)


def test_settings_of_criteria_go_into_plans(K):
    model = early_nets.mlp(K)
    plan = tsp.plan(model, criteria.SynFlow(reduction="mean"), sparsity=0.3)
    again = tsp.PruningPlan.from_dict(plan.to_dict())
    assert again.criterion == "synflow" and again.removed == plan.removed
    with pytest.raises(TypeError, match="loss"):
        criteria.SynFlow(loss="mse")
