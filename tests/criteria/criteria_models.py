"""Small models with two readers of one stream, and their forward pass with gates."""

import numpy as np
import zoo

import tf_spline_prune as tsp

SHAPE = (6, 6, 3)


def small_residual(K, frozen=False):
    """A stem and a branch that share units, read by a convolution and the head."""
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = L.Conv2D(6, 3, padding="same", name="stem")(x)
    x = short = L.ReLU()(L.BatchNormalization(name="stem_bn")(x))
    x = L.Conv2D(5, 3, padding="same", activation="relu", name="inner")(x)
    x = L.Conv2D(6, 3, padding="same", name="branch")(x)
    x = L.Add()([short, L.BatchNormalization(name="branch_bn")(x)])
    x = L.ReLU()(x)
    x = L.MaxPooling2D(2)(x)
    x = L.Flatten()(x)
    x = L.Dropout(0.5)(x)
    model = zoo.settle(K.Model(inputs, L.Dense(4, name="head")(x)), seed=3)
    if frozen:
        model.get_layer("head").trainable = False
        model.get_layer("inner").trainable = False
    return model


def gated_outputs(tf, model, x, gates):
    """Run `small_residual` by hand, with gates where units are read."""
    stem, inner = gates
    layer = {one.name: one for one in model.layers}
    x = layer["stem_bn"](layer["stem"](x), training=False)
    short = tf.nn.relu(x)
    y = layer["inner"](short * stem)
    y = layer["branch_bn"](layer["branch"](y * inner), training=False)
    y = tf.nn.relu(short + y) * stem
    y = tf.nn.max_pool2d(y, 2, 2, "VALID")
    return layer["head"](tf.reshape(y, (len(x), -1)))


def examples(count=12, classes=4, seed=5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, *SHAPE)).astype("float32")
    return x, rng.integers(0, classes, count)


def prepared(model, criterion, data=None, **kwargs):
    """Prepare a criterion; give the graph's groups by name."""
    from tf_spline_prune.compat import Calibration

    graph = tsp.ChannelGraph(model)
    if data is not None:
        data = Calibration.of(data, graph.graph)
    criterion.prepare(graph, data=data, **kwargs)
    return {group.name: group for group in graph.groups}


def cross_entropy(tf, y, logits):
    """One number an example."""
    log = tf.nn.log_softmax(logits)
    return -tf.gather(log, y, axis=1, batch_dims=1)


def weight(model, layer, name):
    layer = model.get_layer(layer)
    for variable, value in zip(layer.weights, layer.get_weights(), strict=True):
        if str(variable.name).rpartition("/")[2].partition(":")[0] == name:
            return value.astype("float64")
    raise KeyError(name)


def applies(model, criterion, data=None):
    """Plan, apply, and compare with the model in which nobody reads the units."""
    plan = tsp.plan(model, criterion, sparsity=0.3, data=data)
    assert any(plan.removed.values())
    again = tsp.PruningPlan.from_dict(plan.to_dict())
    assert again.removed == plan.removed
    small = again.apply(model)
    assert tsp.verify(model, small, plan) <= 1e-4
    return plan
