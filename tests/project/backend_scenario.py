"""One network through the whole core, on the backend that Keras was started with.

python backend_scenario.py results.npz
"""

import json
import sys

import keras
import numpy as np

import tf_spline_prune as tsp

SHAPE = (6, 6, 2)
REFUSALS = (tsp.errors.FlavourError, tsp.errors.ModelError, tsp.errors.ExportError)


def network():
    """A residual block, a convolution each way, and two dense layers."""
    L = keras.layers
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(6, 3, padding="same", name="stem")(inputs)
    skip = x = L.ReLU(name="stem_relu")(L.BatchNormalization(name="stem_bn")(x))
    x = L.Conv2D(6, 3, padding="same", name="branch")(x)
    x = L.Add(name="sum")([skip, L.BatchNormalization(name="branch_bn")(x)])
    x = L.GlobalAveragePooling2D(name="pool")(L.ReLU(name="sum_relu")(x))
    x = L.Dense(8, activation="relu", name="hidden")(x)
    return keras.Model(inputs, L.Dense(3, name="scores")(x), name="net")


def drawn(model, seed=0):
    """Give a model weights that no backend has drawn."""
    rng = np.random.default_rng(seed)
    new = [rng.normal(0.1, 0.4, w.shape) for w in model.get_weights()]
    for weight, variable in zip(new, model.weights, strict=True):
        if variable.name in ("gamma", "moving_variance"):
            weight[:] = 0.5 + np.abs(weight)
    model.set_weights([w.astype("float32") for w in new])
    return model


def data():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(64, *SHAPE)).astype("float32")
    return x, rng.integers(0, 3, 64)


class Zeros(keras.callbacks.Callback):
    """The fewest zeros that a kernel has had after a step, once masked."""

    least = 1.0

    def on_train_batch_end(self, batch, logs=None):
        self.least = min(self.least, tsp.weight_sparsity(self.model)["total"])


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    return model


def masks(found):
    masked = tsp.wrap_with_masks(drawn(network()))
    zeros = Zeros()
    pruning = tsp.MaskPruning(tsp.schedules.ConstantSparsity(0.5, 0, frequency=1))
    settings = {"epochs": 2, "batch_size": 16, "verbose": 0}
    compiled(masked).fit(*data(), callbacks=[pruning, zeros], **settings)
    assert zeros.least == tsp.weight_sparsity(tsp.strip_masks(masked))["total"]
    found["masks"] = zeros.least


PLANE = np.array([[-1, -1], [1, -1], [-1, 1]], "float32")


def perceptron(*between):
    L = keras.layers
    layers = [L.Dense(9, "relu", name="one"), *between, L.Dense(7, "relu", name="two")]
    return drawn(keras.Sequential([keras.Input((2,)), *layers, L.Dense(2, name="s")]))


def slices(found):
    net = perceptron()
    cut = tsp.slice2d(net, PLANE)
    found["regions"] = [cut.num_regions, *cut.regions_through.values()]
    found["affine"] = tsp.local_affine(net, np.ones((1, 2), "float32"))[0]


def slices_through_norms(found):
    net = perceptron(keras.layers.BatchNormalization(name="norm"))
    found["through norms"] = tsp.slice2d(net, PLANE).num_regions


def gradients(found):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    taylor = tsp.criteria.Taylor(loss=loss)
    plan = tsp.plan(drawn(network()), taylor, sparsity=0.5, data=data())
    found["taylor"] = json.dumps(plan.to_dict())


def exports(found):
    found["litert"] = tsp.export_litert(drawn(network()), "net.tflite").bytes


def without_blocks(found):
    L = keras.layers
    x = inputs = keras.Input(SHAPE)
    x = L.Dense(6, name="stem")(L.GlobalAveragePooling2D()(x))
    for i in range(3):
        y = L.Dense(9, activation="relu", name=f"wide{i}")(x)
        x = L.Add(name=f"add{i}")([x, L.Dense(6, name=f"narrow{i}")(y)])
    model, (x, y) = keras.Model(inputs, L.Dense(3, name="scores")(x)), data()
    blocks = tsp.residual_blocks(compiled(drawn(model)), (x, y))
    found["importance"] = [block.importance for block in blocks]
    found["shallow"] = tsp.drop_blocks(model, 1, data=(x, y)).predict(x, verbose=0)


def narrower(found):
    L = keras.layers
    x = inputs = keras.Input(SHAPE)
    x = L.Dense(6, name="stem")(L.GlobalAveragePooling2D()(x))
    y = L.Dense(9, activation="relu", name="wide")(L.LayerNormalization(name="a")(x))
    x = L.Add(name="add")([x, L.Dense(6, name="narrow")(y)])
    x = L.Dense(3, name="scores")(L.LayerNormalization(name="b")(x))
    model, (x, _) = drawn(keras.Model(inputs, x)), data()
    for method in ("rotate", "select"):
        small = tsp.prune_hidden(model, 4, data=x, method=method)
        found[f"narrow by {method}"] = small.predict(x, verbose=0)


def core(found):
    model, (x, y) = drawn(network()), data()
    codes = tsp.PartitionCoder(model)(x)
    for name in codes.layers:
        found[f"codes of {name}"] = codes.unpack(name)
    bird = tsp.SplineEarlyBird(x[:40], threshold=0.5, lookback=3)
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0}
    history = compiled(model).fit(x, y, epochs=9, callbacks=[bird], **settings).history
    found["distances"], found["ticket"] = history["spline_distance"], bird.ticket_epoch

    plan = tsp.plan(drawn(model), "spline", target_macs=0.5)
    small = plan.apply(model)
    found["spline"] = json.dumps(plan.to_dict())
    found["error"] = tsp.verify(model, small, plan)
    found["sliced"] = np.concatenate([w.ravel() for w in small.get_weights()])
    plan = tsp.plan(model, "reconstruction", target_macs=0.5, data=x)
    found["reconstruction"] = json.dumps(plan.to_dict())
    solved = tsp.least_squares(model, plan.apply(model), plan, x)
    for name, net in {
        "whole": model,
        "cut": plan.apply(model),
        "solved": solved,
    }.items():
        found[name] = net.predict(x, verbose=0)
    norm = tsp.recalibrate_batchnorm(model, x).get_layer("stem_bn")
    found["mean"] = keras.ops.convert_to_numpy(norm.moving_mean)
    without_blocks(found)
    narrower(found)


def results():
    """Run all; what a backend cannot do gives the message of its error."""
    found = {}
    core(found)
    for part in (masks, slices, slices_through_norms, gradients, exports):
        try:
            part(found)
        except REFUSALS as error:
            found[f"no {part.__name__}"] = str(error)
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **results())
