"""What may not be removed, and what is refused, with reasons that help.

Where units may go only approximately, the result equals a reference in NumPy and
float64, in which the normalisation runs over the kept channels alone.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo
from masked_twin import scale_layer

import tf_spline_prune as tsp
from tf_spline_prune.errors import (
    BudgetError,
    FlavourError,
    ModelError,
    NothingPrunedWarning,
    PlanError,
    RuleError,
)

UNITS = 8
GONE = [1, 6]


def net(K, *layers, units=UNITS, shape=(5, 3), dtype=None):
    """Put layers between a Dense layer `a` and a flat head."""
    L = K.layers
    x = inputs = K.Input(shape)
    x = L.Dense(units, name="a", dtype=dtype)(x)
    for layer in layers:
        x = layer(x)
    outputs = L.Dense(2, name="head", dtype=dtype)(L.Flatten()(x))
    return zoo.settle(K.Model(inputs, outputs))


def random_input(shape=(5, 3), count=4):
    return np.random.default_rng(5).normal(size=(count, *shape)).astype("float32")


def run(model, *inputs):
    return np.asarray(model(*inputs, training=False)).astype("float64")


def close(found, expected, tolerance=1e-5):
    return np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def reason_of(graph, layer="a"):
    return "; ".join(b.reason for b in graph.barriers if b.layer == layer)


# Normalisations over units: the layer, and what it computes in float64.


def layer_norm(x, gamma, beta):
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3)
    return centred / scale * gamma + beta


def rms_norm(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


def unit_norm(x):
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


def group_norm(groups):
    def compute(x, gamma, beta):
        n, t, c = x.shape
        parts = x.reshape(n, t, groups, c // groups)
        centred = parts - parts.mean(axis=(1, 3), keepdims=True)
        variance = (centred**2).mean(axis=(1, 3), keepdims=True)
        return (centred / np.sqrt(variance + 1e-3)).reshape(x.shape) * gamma + beta

    return compute


NORMS = {
    "LayerNormalization": ({"epsilon": 1e-3}, layer_norm),
    "RMSNormalization": ({"epsilon": 1e-6}, rms_norm),
    "UnitNormalization": ({}, unit_norm),
    "GroupNormalization": ({"groups": 2, "epsilon": 1e-3}, group_norm(2)),
    "one group": ({"groups": 1, "epsilon": 1e-3}, group_norm(1)),
}


@pytest.fixture(params=NORMS)
def normed(K, request):
    """Give a model with a normalisation over units, and its function."""
    settings, compute = NORMS[request.param]
    name = "GroupNormalization" if request.param == "one group" else request.param
    if not hasattr(K.layers, name):
        pytest.skip(f"{K.__name__} has no {name}")
    return net(K, getattr(K.layers, name)(name="norm", **settings)), compute


def test_a_normalisation_over_units_is_a_barrier(normed):
    model, _ = normed
    graph = tsp.ChannelGraph(model)
    assert not graph.groups
    assert "norm" in reason_of(graph) and "approximate=True" in reason_of(graph)
    with pytest.raises(ValueError, match="norm .*normalises over them"):
        tsp.remove_units(model, {"a": GONE})
    with pytest.warns(NothingPrunedWarning, match="normalises over them"):
        tsp.plan(model, "random", sparsity=0.5)


def test_approximate_normalises_over_the_kept_units(normed):
    model, compute = normed
    # Units 1 and 5 share a place in groups of 4.
    gone = [1, 5] if type(model.get_layer("norm")).__name__[0] == "G" else GONE
    kept = [i for i in range(UNITS) if i not in gone]
    small = tsp.remove_units(model, {"a": gone}, approximate=True)
    x = random_input()
    kernel, bias = (w.astype("float64") for w in model.get_layer("a").get_weights())
    h = (x.astype("float64") @ kernel + bias)[..., kept]
    scales = [w.astype("float64")[kept] for w in model.get_layer("norm").get_weights()]
    h = compute(h, *scales).reshape(len(x), -1)
    kernel, bias = (w.astype("float64") for w in model.get_layer("head").get_weights())
    kernel = kernel.reshape(5, UNITS, 2)[:, kept].reshape(-1, 2)
    assert close(run(small, x), h @ kernel + bias, 3e-5)
    assert small.get_layer("a").units == len(kept)


def test_an_approximate_plan_says_so(normed, tmp_path):
    model, _ = normed
    plan = tsp.plan(model, "magnitude", sparsity=0.5, approximate=True)
    assert plan.approximate == ("norm",)
    assert "Approximate" in str(plan) and "  norm" in str(plan)
    plan.save(tmp_path / "plan.json")
    again = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert again == plan
    small = again.apply(model)
    assert tsp.verify(model, small, again) <= 3e-5
    assert tsp.cost(small) == plan.after


def test_softmax_over_units_bars_that_axis_alone(K):
    L = K.layers
    x = inputs = K.Input((5, 3))
    h = L.Permute((2, 1))(L.Dense(8, name="a")(x))
    h = L.Softmax(name="soft")(L.Dense(6, name="b")(h))  # units: 8 of a, 6 of b
    h = L.Dense(4, name="c")(L.Permute((2, 1))(h))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(L.Flatten()(h))))
    graph = tsp.ChannelGraph(model)
    assert "soft is a softmax over them" in reason_of(graph, "b")
    assert not reason_of(graph, "a")
    assert tsp.remove_units(model, {"a": [2]}).get_layer("a").units == 7


def test_softmax_over_time_bars_nothing(K):
    model = net(K, K.layers.Softmax(axis=1, name="soft"))
    assert [b.layer for b in tsp.ChannelGraph(model).barriers] == ["head"]
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def sum_layer(K):
    """Make a layer class of the flavour that Keras knows nothing of."""

    class Sum(K.layers.Layer):
        """Every unit becomes a running sum over the units: a fixed matrix."""

        def call(self, inputs):
            mixed = [inputs[..., :1]]
            for i in range(1, inputs.shape[-1]):
                mixed.append(mixed[-1] + inputs[..., i : i + 1])
            return K.layers.concatenate(mixed)

    return Sum


def own_layer(K, kind):
    """Make one of two layers that Keras knows nothing of."""
    return scale_layer(K)(UNITS) if kind == "scale" else sum_layer(K)()


def test_an_unknown_layer_bars_only_what_it_touches(K):
    L = K.layers
    x = inputs = K.Input((5, 3))
    one = sum_layer(K)(name="mystery")(L.Dense(6, name="touched")(x))
    two = L.Dense(7, activation="relu", name="free")(x)
    h = L.Flatten()(L.Concatenate()([L.Dense(4, name="after")(one), two]))
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(h)))
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="layer")
    assert set(plan.removed) == {"free", "after"}
    (barrier,) = [b for b in plan.barriers if b.layer == "touched"]
    assert barrier.units == 6
    assert "mystery" in barrier.reason and "no rule" in barrier.reason
    assert barrier.reason in str(plan)
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


@pytest.mark.parametrize(
    "units, message",
    [
        ({"a": [UNITS]}, r"'a' has 8 units, counted from 0.*\[8\]"),
        ({"a": [2, -1]}, "\\[1\\] is -1"),
        ({"a": list(range(UNITS))}, "at least one unit.*all units of a"),
        ({"heed": [0]}, r"Nearest: \['head'\].*'heed'"),
        ({"head": [0]}, "head: they are the model's output"),
    ],
)
def test_wrong_units_are_refused(K, units, message):
    with pytest.raises(ValueError, match=message):
        tsp.remove_units(net(K), units)


def test_explain_names_the_nearest_layer(K):
    graph = tsp.ChannelGraph(net(K))
    assert "8 units may be pruned" in graph.explain("a")
    with pytest.raises(ValueError, match=r"Nearest: \['head'.*'hea'"):
        graph.explain("hea")


def keras_net():
    keras.utils.set_random_seed(0)
    return net(keras)


def test_a_quantised_layer_is_refused():
    model = keras_net()
    model.get_layer("a").quantize("int8")
    with pytest.raises(ModelError, match="Prune the model first.*'a'.*int8"):
        tsp.plan(model, "magnitude", sparsity=0.5)


def test_a_layer_with_lora_is_refused():
    model = keras_net()
    model.get_layer("a").enable_lora(2)
    with pytest.raises(ModelError, match="Merge the update first.*'a'"):
        tsp.plan(model, "magnitude", sparsity=0.5)


def changed_since(K):
    """Give models that differ from `net(K, ReLU)` in one respect each."""
    L = K.layers
    return {
        "width": net(K, L.ReLU(), units=9),
        "activation": net(K, L.Activation("tanh")),
        "layer": net(K, L.ReLU(), L.Dense(UNITS, name="new")),
        "weightless": net(K, L.ReLU(), L.Dropout(0.5)),
    }


@pytest.mark.parametrize("change", ["width", "activation", "layer", "weightless"])
def test_a_plan_does_not_fit_a_model_changed_since(K, change):
    plan = tsp.plan(net(K, K.layers.ReLU()), "magnitude", sparsity=0.5)
    other = changed_since(K)[change]
    with pytest.raises(PlanError, match="another structure"):
        plan.apply(other)
    with pytest.raises(PlanError, match="another structure"):
        tsp.verify(other, other, plan)


def frozen_net(K):
    model = net(K, K.layers.Dense(6, activation="relu", name="b"))
    model.get_layer("a").trainable = False
    return model


def test_frozen_layers_are_left_out(K):
    model = frozen_net(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    assert set(plan.removed) == {"b"}
    (reason,) = [b.reason for b in plan.barriers if b.layer == "a"]
    assert "a is frozen" in reason and "`layers`" in reason


def test_frozen_layers_go_when_they_are_named(K):
    model = frozen_net(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5, layers=["a"])
    assert set(plan.removed) == {"a"}
    small = plan.apply(model)
    assert small.get_layer("a").units == 4
    assert not small.get_layer("a").trainable
    assert tsp.verify(model, small, plan) <= 1e-5


def test_a_frozen_model_says_that_it_is_frozen(K):
    model = net(K)
    model.trainable = False
    with pytest.warns(NothingPrunedWarning, match="frozen"):
        tsp.plan(model, "magnitude", sparsity=0.5)
    with pytest.raises(BudgetError, match="frozen"):
        tsp.plan(model, "magnitude", target_params=0.5)


def test_mixed_precision(K):
    L = K.layers
    half = {"dtype": "mixed_float16"}
    x = inputs = K.Input((9, 3))
    h = L.Conv1D(8, 3, name="a", **half)(x)
    h = L.BatchNormalization(name="n", **half)(h)
    h = L.Dense(6, activation="relu", name="b", **half)(L.ReLU(**half)(h))
    h = L.GlobalAveragePooling1D(**half)(h)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(h)))
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="layer")
    small = plan.apply(model)
    assert small.get_layer("a").compute_dtype == "float16"
    assert tuple(small.get_layer("b").get_weights()[0].shape) == (4, 3)
    assert tsp.cost(small) == plan.after
    assert tsp.verify(model, small, plan) <= 5e-3
    # By hand, on weights: what is read of the units that go is zero.
    kernel, bias = model.get_layer("head").get_weights()
    kernel[plan.removed["b"]] = 0.0
    model.get_layer("head").set_weights([kernel, bias])
    kernel, bias = model.get_layer("b").get_weights()
    kernel[plan.removed["a"]] = 0.0
    model.get_layer("b").set_weights([kernel, bias])
    x = random_input((9, 3))
    assert close(run(small, x), run(model, x), 5e-3)


TEXTS = ["the cat sat on the mat", "a dog ate the cat", "a mat on a dog"]


def text_net(K):
    L = K.layers
    inputs = K.Input((), dtype="string")
    words = L.TextVectorization(12, output_sequence_length=6, name="words")
    words.adapt(tf.constant(TEXTS))
    h = L.Embedding(12, 8, name="e")(words(inputs))
    h = L.Dense(6, activation="relu", name="a")(h)
    h = L.GlobalAveragePooling1D()(h)
    model = K.Model(inputs, L.Dense(2, name="head")(h))
    for name in ("e", "a", "head"):
        zoo.settle(model.get_layer(name), seed=len(name))
    return model, tf.constant([*TEXTS, "a strange cat"])


def test_text_keeps_its_vocabulary(K):
    model, texts = text_net(K)
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="layer")
    small = plan.apply(model)
    vocabulary = model.get_layer("words").get_vocabulary()
    assert small.get_layer("words").get_vocabulary() == vocabulary
    assert (small.get_layer("e").output_dim, small.get_layer("a").units) == (4, 3)
    assert tsp.verify(model, small, plan) <= 1e-5
    for maker, reader in (("e", "a"), ("a", "head")):
        kernel, bias = model.get_layer(reader).get_weights()
        kernel[plan.removed[maker]] = 0.0
        model.get_layer(reader).set_weights([kernel, bias])
    assert close(run(small, texts), run(model, texts))


# Rules for users' own layers.


def right(call, inputs, recorder):
    (value,) = inputs
    recorder.vector(call, "gamma", value.labels[-1])
    recorder.resize(call, "dim", value.labels[-1])
    return value


def forgets_the_weight(call, inputs, recorder):
    recorder.resize(call, "dim", inputs[0].labels[-1])
    return inputs[0]


def forgets_the_size(call, inputs, recorder):
    recorder.vector(call, "gamma", inputs[0].labels[-1])
    return inputs[0]


def takes_the_wrong_order(call, inputs, recorder):
    (value,) = inputs
    labels = value.labels[-1]
    recorder.vector(call, "gamma", labels[::-1])
    recorder.resize(call, "dim", labels)
    return value


def treats_each_entry_alone(call, inputs, recorder):
    return inputs[0]


def lets_nothing_go(call, inputs, recorder):
    recorder.bar_tensor(inputs[0], "I do not know")
    return inputs[0]


def ties_all_units(call, inputs, recorder):
    recorder.tie_groups(inputs[0].labels[-1], UNITS)
    return inputs[0]


def ties_unequal_numbers(call, inputs, recorder):
    labels = inputs[0].labels[-1]
    recorder.tie(labels, labels[:3])
    return inputs[0]


def test_a_right_rule_passes(K):
    Scale = scale_layer(K)
    tsp.register_rule(Scale)(right)
    assert tsp.check_rule(Scale(UNITS), (5, UNITS)) <= 1e-5
    model = net(K, Scale(UNITS, name="s"))
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    assert plan.apply(model).get_layer("s").dim == 4


def test_per_unit_is_a_right_rule(K):
    Scale = scale_layer(K)
    tsp.register_rule(Scale)(tsp.graph.per_unit("gamma", sizes=("dim",)))
    assert tsp.check_rule(Scale(UNITS), (4, 3, UNITS), num_trials=2, seed=4) <= 1e-5


@pytest.mark.parametrize(
    "kind, rule, message",
    [
        ("scale", forgets_the_weight, "says nothing of.*gamma"),
        ("scale", forgets_the_size, "cannot be built"),
        ("scale", takes_the_wrong_order, "computes something else"),
        ("scale", treats_each_entry_alone, "says nothing of.*gamma"),
        ("sum", treats_each_entry_alone, "computes something else"),
        ("sum", lets_nothing_go, "leaves no unit prunable.*I do not know"),
        ("sum", ties_all_units, "leaves no unit prunable.*coupled into one"),
        ("scale", ties_unequal_numbers, "fails.*8 units cannot be the same as 3"),
    ],
)
def test_a_wrong_rule_is_found(K, kind, rule, message):
    layer = own_layer(K, kind)
    tsp.register_rule(type(layer))(rule)
    with pytest.raises(RuleError, match=message):
        tsp.check_rule(layer, (5, UNITS))


def test_a_layer_without_a_rule_lets_nothing_go(K):
    with pytest.raises(RuleError, match="leaves no unit prunable.*no rule"):
        tsp.check_rule(sum_layer(K)(), (UNITS,))


def test_wrong_arguments_of_rules(K):
    Scale = scale_layer(K)
    with pytest.raises(TypeError, match="takes classes of layers"):
        tsp.register_rule()
    with pytest.raises(TypeError, match="must be the class of a layer"):
        tsp.register_rule(Scale(UNITS))
    with pytest.raises(FlavourError, match="not its class"):
        tsp.check_rule(K.layers.Dense, (5, UNITS))
    for shapes in ((), ((),), ((5, 1),)):
        with pytest.raises(ValueError, match="at least two units"):
            tsp.check_rule(K.layers.ReLU(), *shapes)
    with pytest.raises(ValueError, match="`num_trials` must be an integer from 1"):
        tsp.check_rule(K.layers.ReLU(), (5, UNITS), num_trials=0)
