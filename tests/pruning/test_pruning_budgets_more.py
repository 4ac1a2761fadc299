"""Sparsity by layer, and the budgets of bytes and latency."""

import itertools
import json

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, NothingPrunedWarning, PlanError
from tf_spline_prune.graph._cost import CostOfCounts

NAN = float("nan")


def kept(plan, *layers):
    return [plan.units[name][1] for name in layers or ("first", "second")]


def refused(model, error, match, **arguments):
    """The arguments are refused by both entrances, and nothing has changed."""
    before = model.get_weights()
    for call in (tsp.plan, tsp.prune):
        with pytest.raises(error, match=match):
            call(model, "magnitude", **arguments)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Sparsity by layer


BY_LAYER = [
    ({"first": 0.5}, [16, 24], {"first": 0.5}),
    ({"first": 0.25, "second": 0.75}, [24, 6], {"first": 0.25, "second": 0.75}),
    ({"f.*|s.*": 0.5}, [16, 12], {"f.*|s.*": 0.5}),
    ({".*": 0.5}, [16, 12], {".*": 0.5}),  # the head must stay, which is no error
    ({"second": np.float32(0.5), "first": 0}, [32, 12], {"second": 0.5, "first": 0.0}),
    ({"first": 0.96}, [1, 24], {"first": 0.96}),
    (
        lambda layer: {"first": 0.5, "second": 0.1}.get(layer.name),
        [16, 22],
        {"first": 0.5, "second": 0.1},
    ),
]


@pytest.mark.parametrize(("sparsity", "widths", "record"), BY_LAYER)
def test_sparsity_by_layer(K, sparsity, widths, record, tmp_path):
    model = zoo.mlp(K)
    plan = tsp.plan(model, "spline", sparsity=sparsity)
    assert kept(plan, "first", "second", "head") == [*widths, 5]
    assert plan.budget == {"sparsity": record}
    plan.save(tmp_path / "plan.json")
    loaded = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert (loaded.budget, loaded.removed) == (plan.budget, plan.removed)
    assert str(loaded) == str(plan)
    small = tsp.prune(model, "spline", sparsity=sparsity)
    assert [layer.units for layer in small.layers[:2]] == widths


def test_the_units_are_those_of_the_criterion(K):
    """The same as pruning each layer for itself."""
    model = zoo.vgg(K)
    shares = {"a1_conv": 0.5, "b1_conv": 0.25, "fc": 0.1}
    plan = tsp.plan(model, "magnitude", sparsity=shares)
    for name, share in shares.items():
        alone = tsp.plan(model, "magnitude", sparsity=share, layers=name)
        assert plan.removed[name] == alone.removed[name]
    assert "a2_conv" not in plan.removed
    assert plan.achieved == (60, 60 - 8 - 6 - 2)


def test_one_layer_speaks_for_its_group(K):
    model = zoo.resnet(K)
    plan = tsp.plan(model, "magnitude", sparsity={"r0b_conv": 0.5})
    assert kept(plan, "stem_conv", "r0a_conv", "r0b_conv") == [8, 16, 8]
    both = {"stem_conv": 0.5, "r0b_conv": 0.5}
    assert tsp.plan(model, "magnitude", sparsity=both).removed == plan.removed
    shares = {"stem_conv": 0.5, "r0b_conv": 0.25}
    refused(model, ValueError, "coupled.*stem_conv", sparsity=shares)
    refused(model, ValueError, "coupled", sparsity=lambda layer: shares.get(layer.name))


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"sparsity": {"frist": 0.5}}, ValueError, "Nearest: .'first'"),
        (
            {"sparsity": {"first": 1.0}},
            ValueError,
            r"sparsity\['first'\]=1.0",
        ),
        ({"sparsity": {"first": -0.1}}, ValueError, "Received"),
        ({"sparsity": {"first": NAN}}, ValueError, "Received"),
        ({"sparsity": {"first": True}}, ValueError, "'first': True"),
        ({"sparsity": {"first": "half"}}, ValueError, "'half'"),
        ({"sparsity": {"(": 0.5}}, ValueError, "regular expression"),
        ({"sparsity": {1: 0.5}}, ValueError, "names of layers"),
        ({"sparsity": {}}, ValueError, "names no layer"),
        ({"sparsity": lambda layer: None}, ValueError, "names no layer"),
        ({"sparsity": lambda layer: 2}, ValueError, r"Received: sparsity\['\w+'\]=2"),
        ({"sparsity": {"fir.*": 0.5, "first": 0.2}}, ValueError, "two fractions"),
        ({"sparsity": {"head": 0.5}}, BudgetError, "model's output"),
        ({"sparsity": {"first": 0.5}, "min_units": 20}, BudgetError, "first"),
        ({"sparsity": {"first": 0.5}, "max_sparsity": 0.2}, BudgetError, "first"),
        ({"sparsity": {"first": 0.5}, "scope": "regions"}, ValueError, "`scope`"),
        ({"sparsity": {"first": 0.5}, "layers": "second"}, BudgetError, "`layers`"),
        ({"target_bytes": 0.5, "weight_dtype": "int4"}, ValueError, "'int4'"),
        ({"target_macs": 0.5, "weight_dtype": "int8"}, ValueError, "target_bytes"),
        ({"target_bytes": 10**9}, BudgetError, "above"),
        ({"target_bytes": 40, "weight_dtype": "int8"}, BudgetError, "out of reach"),
        ({"target_bytes": 1.5}, ValueError, "Received"),
        ({"target_bytes": 0.5, "target_latency": 0.5}, ValueError, "exactly one"),
        ({"target_macs": 0.5, "latency": len}, ValueError, "target_latency"),
        ({"target_latency": 0.5, "latency": 3}, ValueError, "latency=3"),
        ({"target_latency": 0.0, "latency": len}, ValueError, "Received"),
        ({"target_latency": 0.5, "latency": {}}, ValueError, "It is empty"),
        (
            {"target_latency": 0.5, "latency": {"frist": [1] * 33}},
            ValueError,
            "Nearest: .'first'",
        ),
        (
            {"target_latency": 0.5, "latency": {".*": [1] * 33}},
            ValueError,
            "one layer at a time.*first, head, second",
        ),
        (
            {"target_latency": 0.5, "latency": {"first": [1] * 32}},
            ValueError,
            "33 times",
        ),
        (
            {"target_latency": 0.5, "latency": {"first": [NAN] * 33}},
            ValueError,
            "finite",
        ),
        ({"target_latency": 0.5, "latency": {"first": 7}}, ValueError, "{'first': 7}"),
        (
            {"target_latency": 0.5, "latency": {"first": [5] * 33}},
            BudgetError,
            "out of reach.*5.0 microseconds",
        ),
        ({"target_latency": 9, "latency": {"first": [5] * 33}}, BudgetError, "above"),
        ({"target_latency": 0.5, "latency": lambda m: 7}, BudgetError, "out of reach"),
        ({"target_latency": 8, "latency": lambda m: 7}, BudgetError, "above"),
        ({"target_latency": 0.5, "latency": lambda m: NAN}, ValueError, "nan"),
        ({"target_latency": 0.5, "latency": lambda m: 0}, ValueError, "above 0"),
    ],
)
def test_wrong_arguments(K, arguments, error, match):
    refused(zoo.mlp(K), error, match, **arguments)


# Bytes


def stored(model, weight_dtype):
    """Count by the arrays of a model that has only kernels and biases."""
    arrays = model.get_weights()
    if weight_dtype == "int8":
        return sum(w.size * (4 if w.ndim == 1 else 1) for w in arrays)
    size = {None: 4, "float32": 4, "float16": 2}[weight_dtype]
    return sum(w.size * size for w in arrays)


@pytest.mark.parametrize("build", [zoo.mlp, zoo.vgg, zoo.mobilenet])
@pytest.mark.parametrize("weight_dtype", [None, "float32", "float16", "int8"])
def test_bytes_are_met_and_counted_by_the_arrays(K, build, weight_dtype):
    model = build(K)
    full = stored(model, weight_dtype)
    for target in (0.5, 0.5 * full // 1):
        target = target if target == 0.5 else int(target)
        plan = tsp.plan(
            model, "magnitude", target_bytes=target, weight_dtype=weight_dtype
        )
        small = plan.apply(model)
        assert plan.achieved == (full, stored(small, weight_dtype))
        assert plan.achieved[1] <= full // 2
        assert tsp.cost(small, weight_dtype).bytes == plan.achieved[1]
        assert tsp.cost(small) == plan.after
        assert plan.after.bytes == stored(small, None)
        recorded = {"weight_dtype": weight_dtype} if weight_dtype else {}
        assert plan.budget == {"target_bytes": target, **recorded}
    if build is not zoo.mlp:
        return
    for i, width in enumerate(kept(plan)):  # no single unit could have stayed
        a, b = (n + (i == j) for j, n in enumerate(kept(plan)))
        if width < (32, 24)[i]:
            vector = {"int8": 4, "float16": 2}.get(weight_dtype, 4)
            entry = {"int8": 1, "float16": 2}.get(weight_dtype, 4)
            kernels = 12 * a + a * b + 5 * b
            assert entry * kernels + vector * (a + b + 5) > full // 2


def test_every_choice_of_a_tiny_net(K):
    """The quick count against NumPy, for all numbers of units."""
    L = K.layers
    model = K.Sequential(
        [
            K.Input((6, 6, 2)),
            L.Conv2D(4, 3, name="conv"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.Flatten(),
            L.Dense(3, activation="relu", name="fc"),
            L.Dense(2, name="head"),
        ]
    )
    graph = tsp.ChannelGraph(model)
    counts = {d: CostOfCounts(graph, graph.groups, d) for d in ("float16", "int8")}
    for gone in itertools.product(range(4), range(3)):
        a, b = 4 - gone[0], 3 - gone[1]
        kernels = 9 * 2 * a + 16 * a * b + 2 * b
        vectors = a + 4 * a + b + 2
        found = {d: c("bytes", np.array(gone)) for d, c in counts.items()}
        assert found == {
            "float16": 2 * (kernels + vectors),
            "int8": kernels + 4 * vectors,
        }


@pytest.mark.parametrize("weight_dtype", ["float16", "int8"])
def test_bytes_against_what_litert_stores(K, weight_dtype):
    """The constants of a quantised file hold as many bytes as the formula says."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    model = zoo.mlp(K)
    servable = tsp.litert.Servable(model)
    concrete, module = servable.concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weight_dtype == "float16":
        converter.target_spec.supported_types = [tf.float16]
    else:
        x = np.random.default_rng(0).standard_normal((8, 1, 12)).astype("float32")
        converter.representative_dataset = lambda: ([row] for row in x)
        ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_ops = ops
    found = 0
    for tensor in Interpreter(model_content=converter.convert()).get_tensor_details():
        kind, shape = np.dtype(tensor["dtype"]).name, tuple(tensor["shape"])
        kernel = len(shape) == 2 and shape[0] > 1
        if weight_dtype == "float16" and kind == "float16":
            found += 2 * int(np.prod(shape))
        elif weight_dtype == "int8" and kind == "int8" and kernel:
            found += int(np.prod(shape))
        elif weight_dtype == "int8" and kind == "int32" and len(shape) == 1:
            found += 4 * shape[0]
    assert found == tsp.cost(model, weight_dtype).bytes


def test_biases_of_two_axes_and_whole_numbers(K):
    L = K.layers
    x = inputs = K.Input((4,), dtype="int32")
    x = L.Embedding(10, 8, name="embedding")(x)
    x = L.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = K.Model(inputs, L.Dense(2, name="head")(x))
    kernels = 10 * 8 + 4 * 8 * 2 * 3 + 8 * 2
    biases = 3 * 2 * 3 + 8 + 2
    assert tsp.cost(model, "int8").bytes == kernels + 4 * biases
    assert tsp.cost(model, "float16").bytes == 2 * (kernels + biases)
    with pytest.raises(ValueError, match="'int4'"):
        tsp.cost(model, "int4")


# Latency


def of_all_lengths(model, scope):
    """The numbers of units kept when one more unit goes each time."""
    for gone in range(51):
        if gone:
            plan = tsp.plan(model, "magnitude", sparsity=gone / 56, scope=scope)
            yield gone, kept(plan)


def staircase(size):
    """Latency as processors have it: in steps of eight, with a bump."""
    times = 2.0 + 3.0 * np.ceil(np.arange(size + 1) / 8)
    times[size // 2] += 20
    return times.tolist()


@pytest.mark.parametrize("scope", ["global", "regions"])
@pytest.mark.parametrize("bumpy", [False, True])
def test_latency_by_a_table(K, scope, bumpy):
    model = zoo.mlp(K)
    table = {
        "first": staircase(32) if bumpy else [2.0 * n for n in range(33)],
        "second": staircase(24) if bumpy else [1.0 * n for n in range(25)],
        "head": [0, 1, 2, 3, 4, 5],
    }

    def latency(a, b):
        return table["first"][a] + table["second"][b] + 5

    full = latency(32, 24)
    for target in (0.7, 0.5, int(0.6 * full)):
        plan = tsp.plan(
            model, "magnitude", target_latency=target, latency=table, scope=scope
        )
        limit = target if isinstance(target, int) else target * full
        assert plan.achieved == (full, latency(*kept(plan)))
        assert plan.achieved[1] <= limit
        assert plan.budget == {"target_latency": target, "latency": "table"}
        if scope == "global":
            fewest = next(
                gone
                for gone, widths in of_all_lengths(model, scope)
                if latency(*widths) <= limit
            )
            assert sum(map(len, plan.removed.values())) <= fewest
        for i, width in enumerate(kept(plan)):  # no single unit could have stayed
            if width < (32, 24)[i] and not bumpy:
                assert (
                    latency(*(n + (i == j) for j, n in enumerate(kept(plan)))) > limit
                )


def test_latency_by_a_function(K):
    model = zoo.mlp(K)
    asked = []

    def latency(candidate):
        widths = [layer.units for layer in candidate.layers]
        asked.append(widths)
        return 3.0 * widths[0] + widths[1]

    for target in (0.5, 60):
        asked.clear()
        plan = tsp.plan(model, "magnitude", target_latency=target, latency=latency)
        limit = 60 if target == 60 else 0.5 * (3 * 32 + 24)
        a, b = kept(plan)
        assert plan.achieved == (120, 3 * a + b) and 3 * a + b <= limit
        fewest = next(
            gone
            for gone, widths in of_all_lengths(model, "global")
            if 3 * widths[0] + widths[1] <= limit
        )
        assert sum(map(len, plan.removed.values())) <= fewest
        assert len(asked) <= 13 and asked.count([32, 24, 5]) == 1
        assert plan.budget == {"target_latency": target, "latency": "function"}
    with pytest.warns(NothingPrunedWarning, match="target_latency=1.0"):
        plan = tsp.plan(model, "magnitude", target_latency=1.0, latency=latency)
    assert plan.removed == {} and plan.achieved == (120, 120)
    for wrong in ("fast", None, float("nan"), 0):
        with pytest.raises(ValueError, match="must return microseconds"):
            tsp.plan(model, target_latency=0.5, latency=lambda _, w=wrong: w)
    small = tsp.prune(model, "magnitude", target_latency=0.5, latency=latency)
    assert 3 * small.layers[0].units + small.layers[1].units <= 60


def test_more_units_than_probes(K):
    """The bisection stops after so many candidates; the target is met all the same."""
    L = K.layers
    model = zoo.settle(
        K.Sequential([K.Input((2,)), L.Dense(9000, name="wide"), L.Dense(2)])
    )
    asked = []

    def latency(candidate):
        asked.append(candidate.layers[0].units)
        return asked[-1]

    plan = tsp.plan(model, "magnitude", target_latency=0.5, latency=latency)
    assert len(asked) == 13
    assert 4500 - 9 <= plan.units["wide"][1] <= 4500


def test_latency_of_shared_and_grouped_layers(K):
    """Each layer of a group has its own row of the table."""
    model = zoo.resnet(K)
    table = {
        "stem_conv": list(range(17)),
        "r0b_conv": [10 * n for n in range(17)],
    }
    plan = tsp.plan(model, "magnitude", target_latency=0.5, latency=table)
    assert kept(plan, "stem_conv", "r0b_conv") == [8, 8]
    assert plan.achieved == (176, 88)


@pytest.mark.slow
def test_latency_measured_through_litert(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((256,)),
                L.Dense(512, activation="relu", name="first"),
                L.Dense(512, activation="relu", name="second"),
                L.Dense(4, name="head"),
            ]
        )
    )
    plan = tsp.plan(
        model, "magnitude", target_latency=0.8, scope="layer", max_sparsity=0.99
    )
    before, after = plan.achieved
    assert 0 < after <= 0.8 * before * (1 + 1e-9)
    assert plan.removed
    assert plan.budget == {"target_latency": 0.8, "latency": "LiteRT"}
    assert "microseconds (LiteRT)" in str(plan)
    assert tsp.verify(model, plan.apply(model), plan) < 1e-5


# The plan


def test_summary_sets_achieved_against_asked(K):
    model = zoo.mlp(K)
    table = {"first": list(range(33)), "second": list(range(25))}
    for arguments, text in [
        ({"sparsity": 0.5}, "asked: 50.0% of 56 units pruned; achieved: 50.0%"),
        (
            {"sparsity": {"first": 0.5}},
            "asked: by layer of 32 units pruned; achieved: 50",
        ),
        ({"target_macs": 0.5}, "asked: at most 50.0% of 1,272 macs; achieved: "),
        ({"target_params": 500}, "asked: at most 500 of 1,333 params; achieved: "),
        (
            {"target_bytes": 700, "weight_dtype": "int8"},
            "asked: at most 700 of 1,516 bytes in int8; achieved: ",
        ),
        (
            {"target_latency": 28, "latency": table},
            "asked: at most 28 of 56.0 microseconds (table); achieved: 28.0 (50.0%)",
        ),
    ]:
        assert text in str(tsp.plan(model, "magnitude", **arguments))


def test_plan_files_of_old_load(K, tmp_path):
    plan = tsp.plan(zoo.mlp(K), "magnitude", target_macs=0.5)
    values = json.loads(json.dumps(plan.to_dict()))
    assert values["format"] == 1
    assert tsp.PruningPlan.from_dict(values).achieved == plan.achieved
    for bad in ([1], "12", [1, None], [1, NAN], [True, 2], 3):
        with pytest.raises(PlanError):
            tsp.PruningPlan.from_dict({**values, "achieved": bad})
    del values["achieved"]
    old = tsp.PruningPlan.from_dict(values)
    assert old.achieved is None and "asked:" not in str(old)
    assert old.removed == plan.removed
