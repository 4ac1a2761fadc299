"""Wrong arguments: refused at once, in one manner, and nothing has changed by then."""

import pathlib
import sys

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import ArgumentError

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "benchmarks"))
import valid_calls  # noqa: E402
import wrong_calls  # noqa: E402

NAN, INF = float("nan"), float("inf")
X = np.zeros((8, 4), "float32")


def net(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu", name="d1"),
            layers.Dense(3, name="out"),
        ]
    )


def bits(model):
    return [np.array(w) for w in model.get_weights()]


@pytest.mark.parametrize(
    "units",
    [[True, False], [1.9], "12", [-1], [np.True_], np.array([1.0]), 1, None, [2**70]],
    ids=repr,
)
def test_units_are_named_by_integers(K, units):
    model = net(K)
    before = bits(model)
    with pytest.raises(ValueError, match="Received"):
        tsp.remove_units(model, {"d1": units})
    with pytest.raises(ValueError, match="Received"):
        tsp.ChannelGraph(model).removal({"d1": units})
    assert all(np.array_equal(a, b) for a, b in zip(before, bits(model), strict=True))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"sparsity": {"d1": True}}, r"What stands at \['d1'\] is True, not a finite"),
        ({"sparsity": {"out": 0.5, "d1": None}}, r"at \['d1'\] is None, not a finite"),
        ({"sparsity": {3: 0.5}}, "One of its keys is 3, not the name of a layer"),
        ({"sparsity": {"d1": 1.5}}, r"Received: sparsity\['d1'\]=1.5"),
        ({"sparsity": {"d1": "x"}}, r"`sparsity\['d1'\]` is a text that is no number"),
        ({"units": {"d1": [1.9]}}, r"What stands at \['d1'\]\[0\] is 1.9, not an int"),
        ({"units": {"out": [0], "d1": [0, True]}}, r"at \['d1'\]\[1\] is True, not an"),
        ({"units": {"d1": "12"}}, r"at \['d1'\] is '12', not a list of indices"),
        ({"layers": ["d1", 3], "sparsity": 0.5}, r"at \[1\] is 3, not the name"),
    ],
)
def test_what_is_wrong_inside_is_named_with_its_place(K, call, said):
    model = net(K)
    with pytest.raises(ValueError, match=said) as caught:
        tsp.remove_units(model, **call) if "units" in call else tsp.plan(model, **call)
    assert "Received" in str(caught.value)


def test_units_that_are_integers_of_numpy_or_come_once_are_taken(K):
    expected = tsp.remove_units(net(K), {"d1": [0, 2]}).count_params()
    for units in (np.array([0, 2]), {0, 2}, (i for i in (0, 2)), [np.int64(0), 2]):
        assert tsp.remove_units(net(K), {"d1": units}).count_params() == expected
    assert expected == 4 * 4 + 4 + 4 * 3 + 3


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: tsp.SplineEarlyBird(probe=-1), TypeError),
        (lambda: tsp.SplineEarlyBird(probe="x"), TypeError),
        (lambda: tsp.SplineEarlyBird(X, lookback=NAN), TypeError),
        (lambda: tsp.SplineEarlyBird(X, lookback=True), TypeError),
        (lambda: tsp.SplineEarlyBird(X, threshold=NAN), ValueError),
        (lambda: tsp.SplineEarlyBird(X, threshold="0.1"), TypeError),
        (lambda: tsp.SplineEarlyBird(X, layers=[1]), TypeError),
        (lambda: tsp.MaskEarlyBird(num_masks=INF), TypeError),
        (lambda: tsp.MaskEarlyBird(num_masks=2**70), ValueError),
        (lambda: tsp.MaskPruning(tsp.schedules.OneShot(0.5, 1), seed=-1), ValueError),
        (lambda: tsp.schedules.OneShot(True, 1), TypeError),
        (lambda: tsp.schedules.Cyclic(0.5, 0, 9, cycles=NAN), TypeError),
        (lambda: tsp.PruningSummaries(""), ValueError),
        (lambda: tsp.criteria.Spline(rho=NAN), ValueError),
        (lambda: tsp.criteria.Spline(num_points=np.zeros(3)), TypeError),
        (lambda: tsp.criteria.Reconstruction(ridge=INF), ValueError),
        (lambda: tsp.criteria.Magnitude(p="2"), TypeError),
        (lambda: tsp.probes.noise("12", 3), TypeError),
        (lambda: tsp.probes.noise((4,), 10**30), ValueError),
        (lambda: tsp.probes.mix([["a"]], 3), TypeError),
        (lambda: tsp.max_regions([3], NAN), TypeError),
        (lambda: tsp.criteria.get(tsp.criteria.Spline), TypeError),
    ],
)
def test_what_waits_for_a_training_is_refused_before(make, error):
    with pytest.raises(error, match="Received: "):
        make()


def test_huge_numbers_are_refused_at_once(K, tmp_path):
    model = net(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    for call in (
        lambda: tsp.write_serving_config(
            tmp_path / "c", {"net": "/models/net"}, max_batch_size=2**70
        ),
        lambda: tsp.sanity_checks(model, plan, lambda m: 0.5, num_seeds=10**30),
        lambda: tsp.prune_in_rounds(model, rounds=2**70, sparsity=0.3),
        lambda: tsp.plan(model, sparsity=0.4, seed=10**400),
        lambda: tsp.slice2d(model, X[:3], max_regions=10**400),
    ):
        with pytest.raises(ValueError, match="Received: "):
            call()
    assert not (tmp_path / "c").exists()


def test_names_of_layers_are_no_string_of_letters(K):
    model = net(K)
    for layers in (1, [1], [None], {1: 2}, b"d1", [], object(), True):
        with pytest.raises(ValueError, match="`layers` must be .* Received"):
            tsp.plan(model, sparsity=0.3, layers=layers)
    once = (name for name in ["d1"])
    assert tsp.plan(model, "magnitude", sparsity=0.4, layers=once).removed["d1"]


def test_numbers_of_numpy_are_numbers_and_go_into_files(K, tmp_path):
    plan = tsp.plan(
        net(K),
        tsp.criteria.Magnitude(p=np.int64(1)),
        sparsity=0.4,
        round_to=np.int32(2),
        min_units=np.array(2),
        max_sparsity=np.float32(0.5),
        seed=np.uint8(3),
    )
    plan.save(tmp_path / "plan.json")
    assert tsp.PruningPlan.load(tmp_path / "plan.json").removed == plan.removed


def test_a_flag_is_no_word_and_no_array(K):
    for value in ("no", 1, None, np.zeros(2)):
        with pytest.raises(TypeError, match="`verify` must be True or False"):
            tsp.prune(net(K), sparsity=0.3, verify=value)


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (lambda k: "model.keras", "load_model"),
        (lambda k: pathlib.Path("model.keras"), "load_model"),
        (lambda k: k.Sequential, "Make an instance"),
        (lambda k: k.layers.Dense(3), "Put a layer into one"),
        (lambda k: None, "Expected a Keras model"),
        (lambda k: np.zeros(3), "Expected a Keras model"),
    ],
)
def test_what_is_no_model_is_told_how_to_become_one(K, given, advice):
    calls = (
        lambda m: tsp.plan(m, sparsity=0.3),
        tsp.cost,
        tsp.wrap_with_masks,
        tsp.PartitionCoder,
        lambda m: tsp.recalibrate_batchnorm(m, X),
    )
    for call in calls:
        with pytest.raises(tsp.errors.FlavourError, match=f"{advice}.*Received: "):
            call(given(K))


def test_an_unbuilt_model_is_named_wherever_it_is_given(K):
    model = net(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.4)
    unbuilt = K.Sequential([K.layers.Dense(3)])
    for call in (
        lambda: plan.apply(model, weights=unbuilt),
        lambda: tsp.prune(model, sparsity=0.4, weights=unbuilt),
        lambda: tsp.verify(model, unbuilt, plan),
        lambda: tsp.report(model, unbuilt),
    ):
        with pytest.raises(ValueError, match="Received: "):
            call()


def test_a_wrong_type_is_caught_by_either_name():
    assert issubclass(ArgumentError, TypeError) and issubclass(
        ArgumentError, ValueError
    )


def test_a_warning_points_at_the_callers_line(K):
    with pytest.warns(tsp.errors.NothingPrunedWarning) as caught:
        tsp.plan(net(K), "magnitude", sparsity=0.01)
    assert caught[0].filename == __file__


def test_no_step_is_taken_for_one(K):
    of = tsp.schedules
    for schedule in (
        of.OneShot(0.5, 1),
        of.Cyclic(0.5, 0, 9, 2),
        of.Exponential(0.5, 0, 9),
        of.EarlyBirdSparsity(None, 0.5),
        of.Timed(of.OneShot(0.5, 1), "epochs", 5, 2),
    ):
        for step in ("1", NAN, 1.5, True, None):
            with pytest.raises(TypeError, match="`step` must be .*Received: step="):
                schedule.at(step)
            with pytest.raises(TypeError, match="`last` must be .*Received: last="):
                schedule.fires_within(0, step)


def test_a_servable_takes_what_fits_its_inputs(K):
    servable = tsp.litert.Servable(net(K))
    (name,) = servable.inputs
    for wrong in (None, "x", {}, {name: "x"}, {name: [[1], [1, 2]]}, {name: X[:, :2]}):
        with pytest.raises(ValueError, match="Received: "):
            servable.predict(wrong)
    assert list(servable.predict({name: X}).values())[0].shape == (8, 3)


def test_integers_that_do_not_fit_are_not_wrapped():
    from tf_spline_prune.litert._servable import fitting

    assert fitting("x", np.array([7], "uint8"), (None,), "int8").tolist() == [7]
    for value, dtype in ((np.array([200], "uint8"), "int8"), ([2**40], "int32")):
        with pytest.raises(ValueError, match="beyond those.*Received: numbers from"):
            fitting("x", np.asarray(value), (None,), dtype)


def test_everything_public_has_a_valid_call():
    assert not valid_calls.public() - set(valid_calls.Bench().calls())


def test_every_argument_of_simple_kind_has_a_constraint(tmp_path):
    """Numbers, flags and choices are checked by `_checks` wherever they are public."""
    simple = {int, float, bool}
    lacking = []
    for name, make in valid_calls.Bench("keras", str(tmp_path)).calls().items():
        function, arguments = make() if _cheap(name) else (None, {})
        held = getattr(function, "constraints", None)
        if held is None:
            held = getattr(getattr(function, "__init__", None), "constraints", None)
        if function is None or held is None:
            continue
        for argument, value in arguments.items():
            if type(value) in simple and argument.lstrip("*") not in held:
                lacking.append(f"{name}:{argument}")
    budgets = ("sparsity", "_macs", "_params", "_bytes", "_latency")
    assert {one for one in lacking if not one.endswith(budgets)} == _BY_BASE


# Checked where their base class or `__post_init__` looks at them.
_BY_BASE = {
    "export_saved_model:warmup",
    *(f"ArchitectureEarlyBird:{name}" for name in ("lookback", "stop", "keep_history")),
    "ArchitectureEarlyBird:verbose",
    *(f"MaskEarlyBird:{name}" for name in ("stop", "keep_history", "verbose")),
    *(f"SplineEarlyBird:{name}" for name in ("lookback", "stop", "keep_history")),
    "SplineEarlyBird:verbose",
}


def _cheap(name):
    return not name.startswith(("visualize.", "litert.", "datasets.", "Report."))


def test_a_sample_of_wrong_calls_is_refused_clearly(K):
    """`benchmarks/wrong_calls.py` makes all of them."""
    found = []
    tally = wrong_calls.sweep(K.__name__, one_in=300, seed=1, show=found.append)
    assert not found
    assert tally.counts["clear"] > 50
