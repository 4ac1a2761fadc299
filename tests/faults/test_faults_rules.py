"""A rule says how each weight is used, or it is an error wherever it runs."""

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import RuleError


def low_rank(K):
    """Make the class of the example in the documentation."""

    class LowRankDense(K.layers.Layer):
        def __init__(self, units, rank, **kwargs):
            super().__init__(**kwargs)
            self.units, self.rank = units, rank

        def build(self, shape):
            self.down = self.add_weight(shape=(shape[-1], self.rank), name="down")
            self.up = self.add_weight(shape=(self.rank, self.units), name="up")
            self.bias = self.add_weight(shape=(self.units,), name="bias")
            self.built = True

        def call(self, x):
            return x @ self.down @ self.up + self.bias

        def get_config(self):
            return {**super().get_config(), "units": self.units, "rank": self.rank}

    return LowRankDense


def rule(down="down", bias="bias", key="rank", uses=1, sizes=("rank", "units")):
    """Make the rule of the example, or one with a mistake."""

    def apply(call, inputs, recorder):
        (value,) = inputs
        last = value.rank - 1
        said = {}
        if uses is not None:
            places = tsp.graph.positions(call.output_shapes[0], [last])
            said["uses"] = uses * places
        taken = recorder.read(value, last, call)
        rank = recorder.units(call, call.layer.rank, "rank")
        made = recorder.units(call, call.layer.units)
        recorder.weight(call, down, (taken, rank), ("in", "out"), **said)
        recorder.weight(call, "up", (rank, made), ("in", "out"), **said)
        if bias:
            recorder.vector(call, bias, made)
        recorder.resize(call, key, rank)
        recorder.resize(call, "units", made)
        return value.with_labels(call.output_shapes[0], {last: made})

    return apply


def model_with(K, layer):
    L = K.layers
    return K.Sequential(
        [K.Input((64,)), L.Dense(100, activation="relu"), layer, L.Dense(10)]
    )


def test_the_example_costs_what_it_costs_by_hand(K):
    Layer = low_rank(K)
    model = model_with(K, Layer(100, 50, name="low"))
    macs = 64 * 100 + 100 * 50 + 50 * 100 + 100 * 10
    assert macs == 17_400
    assert tsp.cost(model).macs == macs  # by tracing
    tsp.register_rule(Layer)(rule())
    assert tsp.cost(model).macs == macs
    assert tsp.check_rule(Layer(8, 6), (5, 12)) < 1e-5
    small = tsp.remove_units(model, {"low/rank": [0, 1]})
    assert tsp.cost(small).macs == macs - 2 * (100 + 100)


MISTAKES = {
    "unsaid": ({"uses": None}, "does not say how the weight 'down'.*Give `uses=`"),
    "misspelt": ({"down": "dwn"}, "does not have.*'down', 'up', 'bias'.*'dwn'"),
    "misspelt_bias": ({"bias": "bais"}, "does not have.*Received: 'bais'"),
    "left_out": ({"bias": None}, r"says nothing of some weights.*\['bias'\]"),
    "misspelt_key": ({"key": "rnk"}, r"config of .* does not have.*\['rnk'\]"),
    "wrong_axes": ({"down": "bias"}, r"does not fit the weight 'bias'.*\(100,\)"),
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_a_mistake_is_found_wherever_the_rule_runs(K, mistake):
    Layer = low_rank(K)
    model = model_with(K, Layer(100, 50, name="low"))
    tsp.register_rule(Layer)(rule())
    plan = tsp.plan(model, "magnitude", sparsity=0.3)
    settings, message = MISTAKES[mistake]
    tsp.register_rule(Layer)(rule(**settings))
    for run in (
        lambda: tsp.check_rule(Layer(100, 50), (12,)),
        lambda: tsp.cost(model),
        lambda: tsp.plan(model, "magnitude", sparsity=0.3),
        lambda: tsp.remove_units(model, {"low/rank": [0]}),
        lambda: plan.apply(model),
    ):
        with pytest.raises(RuleError, match=message):
            run()


@pytest.mark.parametrize("uses", [0, 2])
def test_a_wrong_count_is_found_by_check_rule(K, uses):
    Layer = low_rank(K)
    tsp.register_rule(Layer)(rule(uses=uses))
    said, made = uses * 4 * (12 * 6 + 6 * 8), 4 * (12 * 6 + 6 * 8)
    with pytest.raises(RuleError, match=f"counts {said} mult.*makes {made}, on"):
        tsp.check_rule(Layer(8, 6), (4, 12))


def token(K, name="tok"):
    class Token(K.layers.Layer):
        """Scale each feature, with a weight of the rank of the input."""

        def build(self, shape):
            self.tok = self.add_weight(shape=(1, 1, shape[-1]), name=name)
            self.built = True

        def call(self, x):
            return x * self.tok

    return Token


def test_per_unit_takes_weights_of_any_rank(K):
    Layer = token(K)
    tsp.register_rule(Layer)(tsp.graph.per_unit("tok"))
    assert tsp.check_rule(Layer(), (4, 8)) < 1e-5
    inputs = K.Input((4, 6))
    x = Layer(name="token")(K.layers.Dense(8, name="made")(inputs))
    model = K.Model(inputs, K.layers.Dense(3)(x))
    small = tsp.remove_units(model, {"made": [1, 5]})
    kept = [0, 2, 3, 4, 6, 7]
    tok = np.array(model.get_layer("token").get_weights()[0])
    assert np.array_equal(small.get_layer("token").get_weights()[0], tok[..., kept])


def test_per_unit_with_a_wrong_name_or_size(K):
    Layer = token(K)
    tsp.register_rule(Layer)(tsp.graph.per_unit("token"))
    with pytest.raises(RuleError, match="does not have.*'tok'.*Received: 'token'"):
        tsp.check_rule(Layer(), (4, 8))

    class Half(K.layers.Layer):
        def build(self, shape):
            self.half = self.add_weight(shape=(shape[-1] // 2,), name="half")
            self.built = True

        def call(self, x):
            return x

    tsp.register_rule(Half)(tsp.graph.per_unit("half"))
    with pytest.raises(RuleError, match=r"does not fit the weight 'half'.*\(4,\)"):
        tsp.check_rule(Half(), (8,))


def test_weights_that_some_layers_lack(K):
    """A rule may speak of a weight that its layer has only sometimes."""

    class Affine(K.layers.Layer):
        def __init__(self, use_bias=True, **kwargs):
            super().__init__(**kwargs)
            self.use_bias = use_bias

        def build(self, shape):
            self.gamma = self.add_weight(shape=shape[-1:], name="gamma")
            if self.use_bias:
                self.beta = self.add_weight(shape=shape[-1:], name="beta")
            self.built = True

        def call(self, x):
            return x * self.gamma + (self.beta if self.use_bias else 0.0)

        def get_config(self):
            return {**super().get_config(), "use_bias": self.use_bias}

    @tsp.register_rule(Affine)
    def affine(call, inputs, recorder):
        recorder.vector(call, "gamma", inputs[0].labels[-1])
        recorder.vector(call, "beta", inputs[0].labels[-1], optional=True)
        return inputs[0]

    for use_bias in (True, False):
        assert tsp.check_rule(Affine(use_bias), (8,)) < 1e-5
