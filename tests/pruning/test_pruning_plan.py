"""Budgets, scopes, bounds, files and errors of a pruning plan."""

import json

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    BudgetError,
    FlavourError,
    ModelError,
    NothingPrunedWarning,
    PlanError,
)


def outputs(model, x):
    return np.asarray(model(x, training=False))


def inputs(model, count=4):
    shape = tuple(model.inputs[0].shape[1:])
    return np.random.default_rng(0).standard_normal((count, *shape)).astype("float32")


def total(removed):
    return sum(map(len, removed.values()))


def mlp_macs(a, b):
    return 12 * a + a * b + b * 5


def mlp_params(a, b):
    return mlp_macs(a, b) + a + b + 5


def vgg_macs(a, b, c, d):
    """Count by hand: 8x8, 8x8 and 4x4 positions; 2x2 positions are flattened."""
    return 64 * 9 * 3 * a + 64 * 9 * a * b + 16 * 9 * b * c + 4 * c * d + d * 5


def vgg_params(a, b, c, d):
    kernels = 9 * 3 * a + 9 * a * b + 9 * b * c + 4 * c * d + d * 5
    return kernels + 4 * (a + b + c) + d + 5


COUNTS = {
    "mlp": (["first", "second"], mlp_macs, mlp_params),
    "vgg": (["a1_conv", "a2_conv", "b1_conv", "fc"], vgg_macs, vgg_params),
}


def widths(model, layers):
    return [model.get_layer(name).get_weights()[0].shape[-1] for name in layers]


@pytest.mark.parametrize("name", list(COUNTS))
@pytest.mark.parametrize(
    "budget",
    [
        {"target_macs": 0.5},
        {"target_params": 0.3},
        {"target_macs": 1.0},
        {"target_macs": 700},
        {"target_params": np.int64(600)},
        {"sparsity": 0.3},
    ],
    ids=str,
)
def test_cost_is_met_and_counted_by_hand(K, name, budget):
    model = getattr(zoo, name)(K)
    layers, macs, params = COUNTS[name]
    before = (macs(*widths(model, layers)), params(*widths(model, layers)))
    ((kind, value),) = budget.items()
    if name == "vgg" and not isinstance(value, float):
        value = 40_000 if kind == "target_macs" else 4_000
    full = {"target_macs": before[0], "target_params": before[1]}.get(kind)
    if value == 1.0:
        with pytest.warns(NothingPrunedWarning, match="target_macs=1.0"):
            plan = tsp.plan(model, "magnitude", **{kind: value})
        assert plan.removed == {}
    else:
        plan = tsp.plan(model, "magnitude", **{kind: value}, max_sparsity=0.95)
    small = plan.apply(model)
    kept = widths(small, layers)
    after = (macs(*kept), params(*kept))
    assert (plan.before.macs, plan.before.params) == before
    assert (plan.after.macs, plan.after.params) == after
    assert tsp.cost(small) == plan.after
    assert small.count_params() == after[1]
    assert plan.after.bytes == 4 * after[1]
    assert plan.units == {
        layer: (old, new)
        for layer, old, new in zip(
            [*layers, "head"],
            [*widths(model, layers), 5],
            [*kept, 5],
            strict=True,
        )
    }
    if full is None:
        return
    limit = int(value * full) if isinstance(value, float) else int(value)
    count = macs if kind == "target_macs" else params
    assert count(*kept) <= limit
    for i, width in enumerate(kept):  # no single unit could have stayed
        if width < widths(model, layers)[i]:
            more = [n + (i == j) for j, n in enumerate(kept)]
            assert count(*more) > limit


@pytest.mark.parametrize("criterion", ["spline", "magnitude", "random"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 0.61, 0.9, 0.96])
def test_sparsity_removes_exactly_so_many(K, criterion, share):
    model = zoo.mlp(K)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 1::2], bias[1::2] = kernel[:, ::2], bias[::2]  # ties
    model.get_layer("first").set_weights([kernel, bias])
    if share == 0:
        with pytest.warns(NothingPrunedWarning):
            plan = tsp.plan(model, criterion, sparsity=share)
    else:
        plan = tsp.plan(model, criterion, sparsity=share)
    assert total(plan.removed) == round(share * 56)
    assert all(len(set(u)) == len(u) for u in plan.removed.values())


def test_all_weights_equal(K):
    model = zoo.mlp(K)
    for layer in model.layers:
        layer.set_weights([np.ones_like(w) for w in layer.get_weights()])
    for criterion in ("spline", "magnitude"):
        plan = tsp.plan(model, criterion, sparsity=0.5)
        assert total(plan.removed) == 28
        again = tsp.plan(model, criterion, sparsity=0.5)
        assert again.removed == plan.removed


@pytest.mark.parametrize("budget", [{"sparsity": 0.25}, {"target_macs": 0.5}])
def test_scope_layer_takes_the_same_share_everywhere(K, budget):
    model = zoo.resnet(K)
    plan = tsp.plan(model, "spline", scope="layer", **budget)
    shares = {
        layer: (old - new) / old
        for layer, (old, new) in plan.units.items()
        if layer != "head"
    }
    if "sparsity" in budget:
        assert set(shares.values()) == {0.25}
    else:
        # Up to one unit of the smallest group, and what was given back.
        assert max(shares.values()) - min(shares.values()) <= 3 / 16
        assert min(shares.values()) > 0.1


def test_scope_isomorphic_shares_between_groups_alike(K):
    L = K.layers
    layers = [L.Dense(8, activation="relu", name=f"d{i}") for i in range(4)]
    model = zoo.settle(K.Sequential([K.Input((8,)), *layers, L.Dense(2, name="head")]))
    plan = tsp.plan(model, "random", sparsity=0.5, scope="isomorphic")
    assert total(plan.removed) == 16
    with pytest.raises(ValueError, match="'isomorph'"):
        tsp.plan(model, sparsity=0.5, scope="isomorph")


@pytest.mark.parametrize("budget", [{"sparsity": 0.45}, {"target_macs": 0.4}])
def test_bounds_are_kept(K, budget):
    model = zoo.mlp(K)

    def kept(**bounds):
        plan = tsp.plan(model, "random", **budget, **bounds)
        return [plan.units["first"][1], plan.units["second"][1]]

    assert min(kept(min_units=14)) >= 14
    first, second = kept(max_sparsity=0.62)
    assert first >= 32 * 0.38 and second >= 24 * 0.38
    assert all(n % 8 == 0 for n in kept(round_to=8))
    assert all(n % 5 == 0 or n in (32, 24) for n in kept(round_to=5))


@pytest.mark.parametrize("multiple", [4, 5, 8])
def test_multiples_are_met_from_above(K, multiple):
    """Of 32 and 24 units 18 and 13 stay; more, where these are no multiples."""
    model = zoo.mlp(K)
    settings = {"sparsity": 0.45, "scope": "layer"}
    plan = tsp.plan(model, "random", **settings, round_to=multiple)
    kept = {4: (20, 16), 5: (20, 15), 8: (24, 16)}[multiple]
    assert (plan.units["first"][1], plan.units["second"][1]) == kept


def test_bounds_with_everything_asked(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "spline", sparsity=0.9, min_units=2)
    assert min(new for _, new in plan.units.values()) >= 2
    with pytest.raises(BudgetError, match="min_units"):
        tsp.plan(model, "spline", sparsity=0.9, min_units=12)
    with pytest.raises(BudgetError, match="max_sparsity"):
        tsp.plan(model, "spline", sparsity=0.9, max_sparsity=0.5)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("a2_conv", {"a2_conv"}),
        ("a._conv", {"a1_conv", "a2_conv"}),
        (["fc", "b1.*"], {"fc", "b1_conv"}),
        (("fc",), {"fc"}),
        (
            lambda layer: "Conv" in type(layer).__name__,
            {"a1_conv", "a2_conv", "b1_conv"},
        ),
        (None, {"a1_conv", "a2_conv", "b1_conv", "fc"}),
    ],
    ids=["name", "regex", "list", "tuple", "predicate", "all"],
)
def test_layers(K, layers, expected):
    model = zoo.vgg(K)
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer", layers=layers)
    assert set(plan.removed) == expected
    assert total(plan.removed) == sum(plan.units[name][0] for name in expected) // 2


def test_layers_of_half_a_group_leave_it_alone(K):
    model = zoo.resnet(K)
    plan = tsp.plan(
        model, "random", sparsity=0.5, layers=["stem_conv", "r0a_conv", "r1a_conv"]
    )
    assert set(plan.removed) <= {"r0a_conv", "r1a_conv"}
    assert any("layers" in b.reason and b.layer == "stem_conv" for b in plan.barriers)


@pytest.mark.parametrize(
    ("layers", "match"),
    [
        ("a1_convv", "a1_conv"),
        (["a1_conv", "nowhere"], "nowhere"),
        ([], "empty"),
        (lambda layer: False, "none of the layers"),
    ],
)
def test_layers_that_mean_nothing(K, layers, match):
    with pytest.raises(ValueError, match=match):
        tsp.plan(zoo.vgg(K), sparsity=0.5, layers=layers)


@pytest.mark.parametrize("criterion", ["spline", "random"])
def test_deterministic(K, criterion):
    model = zoo.resnet(K)
    one, two = (tsp.plan(model, criterion, sparsity=0.4, seed=3) for _ in range(2))
    assert one == two
    other = tsp.plan(model, criterion, sparsity=0.4, seed=4)
    assert (one.removed == other.removed) == (criterion == "spline")


def test_same_plan_in_both_flavours():
    import keras
    import tf_keras

    plans = []
    for module in (keras, tf_keras):
        model = zoo.resnet(module)
        plans.append(tsp.plan(model, "spline", target_macs=0.5))
    assert plans[0].removed == plans[1].removed


@pytest.mark.parametrize("builder", zoo.ALL, ids=lambda b: b.__name__)
def test_file_round_trip(K, builder, tmp_path):
    model = builder(K)
    plan = tsp.plan(model, "spline", sparsity=0.4)
    file = tmp_path / "plan.json"
    plan.save(file)
    assert [f.name for f in tmp_path.iterdir()] == ["plan.json"]
    loaded = tsp.PruningPlan.load(str(file))
    assert loaded.removed == plan.removed
    assert loaded.merges == plan.merges
    assert (loaded.before, loaded.after) == (plan.before, plan.after)
    assert (loaded.barriers, loaded.units) == (plan.barriers, plan.units)
    small, other = plan.apply(model), loaded.apply(model)
    for a, b in zip(small.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert str(loaded) == str(plan)
    merged, again = tsp.merge(model, plan), tsp.merge(model, loaded)
    for a, b in zip(merged.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: "null",
        lambda text: "{}",
        lambda text: text.replace('"format": 1', '"format": 99'),
        lambda text: text.replace('"removed"', '"gone"'),
        lambda text: json.dumps({**json.loads(text), "removed": {"first": ["a"]}}),
        lambda text: json.dumps({**json.loads(text), "removed": {"first": [0.5]}}),
        lambda text: json.dumps({**json.loads(text), "removed": [1]}),
        lambda text: json.dumps({**json.loads(text), "merges": {"first": [[1, 2]]}}),
        lambda text: json.dumps({**json.loads(text), "after": None}),
    ],
)
def test_broken_file(K, damage, tmp_path):
    file = tmp_path / "plan.json"
    tsp.plan(zoo.mlp(K), sparsity=0.5).save(file)
    file.write_text(damage(file.read_text()))
    with pytest.raises(PlanError):
        tsp.PruningPlan.load(file)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        tsp.PruningPlan.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "removed", [{"first": [99]}, {"first": [-1]}, {"nobody": [0]}, {"head": [0]}]
)
def test_edited_plan_is_refused(K, removed):
    model = zoo.mlp(K)
    plan = tsp.plan(model, sparsity=0.5)
    with pytest.raises(PlanError):
        tsp.PruningPlan.from_dict({**plan.to_dict(), "removed": removed})


def test_edited_plan_that_removes_all_is_refused(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, sparsity=0.5)
    values = {**plan.to_dict(), "removed": {"first": list(range(32))}}
    with pytest.raises(ValueError):
        tsp.PruningPlan.from_dict(values).apply(model)


def test_summary(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="layer")
    said = []
    plan.summary(print_fn=said.append)
    (text,) = said
    lines = [line.split() for line in text.splitlines()]
    assert ["first", "32", "16", "50.0%"] in lines
    assert ["second", "24", "12", "50.0%"] in lines
    assert ["head", "5", "5", "0.0%"] in lines
    macs = f"{mlp_macs(32, 24):,} -> {mlp_macs(16, 12):,}".split()
    assert any(line[:4] == ["macs", *macs] for line in lines)
    params = f"{mlp_params(32, 24):,} -> {mlp_params(16, 12):,}".split()
    assert any(line[:4] == ["params", *params] for line in lines)
    assert "head: 5 units: they are the model's output" in text
    assert "magnitude" in text and "sparsity=0.5" in text


def _sliced(model, removed):
    """Slice the weights of the MLP by hand."""
    first = np.setdiff1d(np.arange(32), removed.get("first", []))
    second = np.setdiff1d(np.arange(24), removed.get("second", []))
    a, b, c = ([w.copy() for w in layer.get_weights()] for layer in model.layers)
    return [
        *(a[0][:, first], a[1][first]),
        *(b[0][first][:, second], b[1][second]),
        *(c[0][second], c[1]),
    ]


def test_weights_to_start_from(K):
    model = zoo.mlp(K)
    early = zoo.settle(zoo.mlp(K), seed=9)
    plan = tsp.plan(model, "spline", sparsity=0.5)
    for source, given in [(model, "inherit"), (early, early)]:
        small = plan.apply(model, weights=given)
        expected = _sliced(source, plan.removed)
        for a, b in zip(small.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    fresh = plan.apply(model, weights="reinitialize")
    slices = _sliced(model, plan.removed)
    for a, b in zip(fresh.get_weights(), slices, strict=True):
        assert a.shape == b.shape and not np.array_equal(a, b)
    assert (fresh.layers[0].get_weights()[1] == 0).all()
    with pytest.raises(ValueError, match="'inherited'"):
        plan.apply(model, weights="inherited")
    with pytest.raises(PlanError, match="first"):
        plan.apply(model, weights=plan.apply(model))
    rewound = tsp.prune(model, sparsity=0.5, weights=early)
    for a, b in zip(rewound.get_weights(), _sliced(early, plan.removed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("builder", zoo.ALL, ids=lambda b: b.__name__)
def test_plan_of_one_flavour_for_a_model_of_the_other(builder):
    import keras
    import tf_keras

    for here, there in [(keras, tf_keras), (tf_keras, keras)]:
        plan = tsp.plan(builder(here), "spline", sparsity=0.4)
        model = builder(there)
        small = plan.apply(model)
        assert type(small).__module__.partition(".")[0] == there.__name__
        assert tsp.verify(model, small, plan) < 1e-5
        assert tsp.cost(small) == plan.after


def test_shared_layer(K):
    """A layer used twice loses its units in both uses, and its readers theirs."""
    L = K.layers
    one, two = K.Input((6,)), K.Input((6,))
    shared = L.Dense(10, activation="relu", name="shared")
    joined = L.Concatenate()([shared(one), shared(two)])
    middle = L.Dense(8, activation="relu", name="middle")(joined)
    model = zoo.settle(K.Model([one, two], L.Dense(3, name="head")(middle)))
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer")
    small = plan.apply(model)
    assert len(plan.removed["shared"]) == 5

    rng = np.random.default_rng(0)
    x = [rng.standard_normal((4, 6)).astype("float32") for _ in range(2)]
    w = {
        name: [a.astype("float64") for a in model.get_layer(name).get_weights()]
        for name in ("shared", "middle", "head")
    }
    masks = {"shared": np.ones(10), "middle": np.ones(8)}
    for name, mask in masks.items():
        mask[plan.removed[name]] = 0
    made = [np.maximum(v @ w["shared"][0] + w["shared"][1], 0) for v in x]
    made = np.concatenate([v * masks["shared"] for v in made], axis=1)
    made = np.maximum(made @ w["middle"][0] + w["middle"][1], 0) * masks["middle"]
    expected = made @ w["head"][0] + w["head"][1]
    np.testing.assert_allclose(outputs(small, x), expected, rtol=1e-4, atol=1e-5)
    assert tsp.verify(model, small, plan) < 1e-5
    assert plan.before.macs == 2 * 60 + 160 + 24
    assert plan.after.macs == 2 * 30 + 40 + 12
    assert plan.after.params == 35 + 44 + 15


@pytest.mark.parametrize("builder", [zoo.nested, zoo.subclassed])
def test_nested_and_subclassed(K, builder):
    model = builder(K)
    x = np.random.default_rng(0).standard_normal((3, *zoo.SHAPE)).astype("float32")
    before = outputs(model, x)
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer")
    expected = {
        "nested": {"stem_conv", "block/in1_conv", "tail/conv"},
        "subclassed": {"one", "two"},
    }[builder.__name__]
    assert set(plan.removed) == expected
    small = plan.apply(model)
    assert outputs(small, x).shape == before.shape
    assert tsp.verify(model, small, plan) < 1e-5
    np.testing.assert_array_equal(outputs(model, x), before)


def test_subclassed_against_weights_set_to_zero(K):
    """The reference zeroes what the readers read, in a second subclassed model."""
    model, reference = zoo.subclassed(K), zoo.subclassed(K)
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer")
    two, bias = reference.two.get_weights()
    two[:, :, plan.removed["one"]] = 0
    reference.two.set_weights([two, bias])
    head, bias = reference.head.get_weights()
    head[plan.removed["two"]] = 0
    reference.head.set_weights([head, bias])
    x = np.random.default_rng(0).standard_normal((3, *zoo.SHAPE)).astype("float32")
    expected = outputs(reference, x)
    found = outputs(plan.apply(model), x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_remove_units(K):
    model = zoo.mlp(K)
    small = tsp.remove_units(model, {"first": [0, 7, 7], "second": np.array([23])})
    expected = _sliced(model, {"first": [0, 7], "second": [23]})
    for a, b in zip(small.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(NothingPrunedWarning, match="names no unit"):
        same = tsp.remove_units(model, {})
    for a, b in zip(same.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # A unit of a sum takes its companions along.
    net = zoo.resnet(K)
    small = tsp.remove_units(net, {"r0b_conv": [3]})
    kernel = net.get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(
        small.get_layer("stem_conv").get_weights()[0], np.delete(kernel, 3, axis=-1)
    )


@pytest.mark.parametrize(
    ("units", "match"),
    [
        ({"first": [32]}, "32"),
        ({"first": [-1]}, "-1"),
        ({"frist": [0]}, "frist"),
        ({"head": [0]}, "output"),
        ({"first": range(32)}, "at least one"),
    ],
)
def test_remove_units_refuses(K, units, match):
    model = zoo.mlp(K)
    before = model.get_weights()
    with pytest.raises(ValueError, match=match):
        tsp.remove_units(model, units)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("call", [tsp.plan, tsp.prune], ids=["plan", "prune"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sparsity": 1.0}, ValueError),
        ({"sparsity": -0.1}, ValueError),
        ({"sparsity": NAN}, ValueError),
        ({"sparsity": INF}, ValueError),
        ({"sparsity": "half"}, ValueError),
        ({"sparsity": True}, ValueError),
        ({}, ValueError),
        ({"sparsity": 0.5, "target_macs": 0.5}, ValueError),
        ({"target_macs": 0}, ValueError),
        ({"target_macs": -3}, ValueError),
        ({"target_macs": 0.0}, ValueError),
        ({"target_macs": 1.5}, ValueError),
        ({"target_params": NAN}, ValueError),
        ({"target_macs": mlp_macs(32, 24) + 1}, BudgetError),
        ({"target_params": mlp_params(32, 24) + 1}, BudgetError),
        ({"target_macs": 5}, BudgetError),
        ({"target_params": 0.001}, BudgetError),
        ({"sparsity": 0.5, "round_to": 0}, ValueError),
        ({"sparsity": 0.5, "min_units": 0}, ValueError),
        ({"sparsity": 0.5, "max_sparsity": 1.0}, ValueError),
        ({"sparsity": 0.5, "max_sparsity": NAN}, ValueError),
        ({"sparsity": 0.5, "criterion": "splines"}, ValueError),
        ({"sparsity": 0.5, "criterion": 3}, TypeError),
        ({"sparsity": 0.5, "scope": "everything"}, ValueError),
        ({"sparsity": 0.5, "layers": "nowhere"}, ValueError),
    ],
    ids=str,
)
def test_wrong_arguments(K, call, arguments, error):
    model = zoo.mlp(K)
    before = model.get_weights()
    with pytest.raises(error) as caught:
        call(model, **arguments)
    assert "Received" in str(caught.value) or not isinstance(
        arguments.get("layers", ""), str
    )
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("recover", "weights"),
    [("mend", "inherit"), (["merge", "mend"], "inherit"), ("merge", "reinitialize")],
)
def test_wrong_recovery(K, recover, weights):
    with pytest.raises(ValueError, match="Received"):
        tsp.prune(zoo.mlp(K), sparsity=0.5, recover=recover, weights=weights)


class TorchLike:
    """Looks like a network, but of another library."""

    training = True

    def parameters(self):
        return iter(())

    def forward(self, x):
        return x


@pytest.mark.parametrize("thing", [TorchLike(), None, "model.keras", np.zeros(3)])
def test_what_is_no_model(thing):
    calls = [
        lambda: tsp.plan(thing, sparsity=0.5),
        lambda: tsp.prune(thing, sparsity=0.5),
        lambda: tsp.cost(thing),
        lambda: tsp.remove_units(thing, {"a": [0]}),
        lambda: tsp.ChannelGraph(thing),
    ]
    for call in calls:
        with pytest.raises(FlavourError) as caught:
            call()
        assert "`keras.Model`" in str(caught.value)
        assert "`tf_keras.Model`" in str(caught.value)
        assert type(thing).__qualname__ in str(caught.value)


def test_unbuilt_models(K):
    L = K.layers

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(x)

    for model in (K.Sequential([L.Dense(4), L.Dense(2)]), Net()):
        with pytest.raises(ModelError, match="not built"):
            tsp.plan(model, sparsity=0.5)


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("criterion", ["spline", "random"])
def test_weights_that_are_not_finite(K, bad, criterion):
    model = zoo.mlp(K)
    kernel, bias = model.get_layer("second").get_weights()
    kernel[3, 4] = bad
    model.get_layer("second").set_weights([kernel, bias])
    before = model.get_weights()
    with pytest.raises(ModelError, match="1 of 768 values of second/kernel"):
        tsp.prune(model, criterion, sparsity=0.5)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_plan_for_another_model(K):
    plan = tsp.plan(zoo.mlp(K), sparsity=0.5)
    other = zoo.vgg(K)
    before = other.get_weights()
    calls = [
        lambda: plan.apply(other),
        lambda: tsp.merge(other, plan),
        lambda: tsp.verify(other, other, plan),
    ]
    for call in calls:
        with pytest.raises(PlanError, match="another structure"):
            call()
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    small = plan.apply(zoo.mlp(K))
    with pytest.raises(PlanError, match="first"):
        plan.apply(small)


def test_nothing_to_prune(K):
    L = K.layers
    model = K.Sequential([K.Input((4,)), L.Dense(3, name="only")])
    with pytest.warns(NothingPrunedWarning, match="only: they are the model's output"):
        plan = tsp.plan(model, sparsity=0.5)
    assert plan.removed == {}
    with pytest.warns(NothingPrunedWarning):
        small = tsp.prune(model, sparsity=0.5)
    for a, b in zip(small.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(BudgetError, match="only: they are the model's output"):
        tsp.plan(model, target_macs=0.5)


def test_rounding_that_leaves_nothing_to_prune_says_so(K):
    """The reason is the rounding, not that the budget is met."""
    model = zoo.mlp(K)
    with pytest.warns(NothingPrunedWarning, match="round_to"):
        plan = tsp.plan(model, sparsity=0.1, round_to=32)
    assert plan.removed == {}
