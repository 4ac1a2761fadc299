"""Trains a masked net under MirroredStrategy on two logical CPUs; prints JSON.

A script of its own: logical devices are made before TensorFlow starts.

    python tests/masking/mirrored_training.py keras float32 folder
"""

import importlib
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf


def values(variable, strategy):
    """The arrays of a variable, one a replica."""
    variable = getattr(variable, "_value", variable)  # Keras 3
    variable = getattr(variable, "_variable", variable)  # an AutoCastVariable
    copies = strategy.experimental_local_results(variable)
    return [np.asarray(copy.read_value(), "float32") for copy in copies]


def main(flavour, policy, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, two)
    K = importlib.import_module(flavour)
    import tf_spline_prune as tsp
    from tf_spline_prune.compat import mask_slots

    K.utils.set_random_seed(0)
    K.mixed_precision.set_global_policy(policy)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 12)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32")
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        L = K.layers
        dense = K.Sequential(
            [
                K.Input((12,)),
                L.Dense(
                    16,
                    activation="relu",
                    name="first",
                    kernel_constraint=K.constraints.MaxNorm(0.5),
                ),
                L.Dense(12, activation="relu", name="second"),
                L.Dense(2, name="head", dtype="float32"),
            ]
        )
        model = tsp.wrap_with_masks(dense)
        model.compile(
            K.optimizers.Adam(0.02),
            K.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    slots = mask_slots(model)
    broken = []

    class Watch(K.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            for slot in slots:
                masks = values(slot.mask, strategy)
                weights = values(slot.weight, strategy)
                for one in range(2):
                    if (weights[one][masks[one] == 0] != 0).any():
                        broken.append([self.steps, slot.key, one, "nonzero"])
                if not np.array_equal(*weights) or not np.array_equal(*masks):
                    broken.append([self.steps, slot.key, "replicas differ"])

    bird = tsp.SplineEarlyBird(
        x, threshold=0.9, lookback=2, stop=False, filepath=f"{folder}/ticket.keras"
    )
    ramp = tsp.schedules.PolynomialDecay(0.0, 0.75, 0, 8, frequency=1)
    watch = Watch()
    history = model.fit(
        x,
        y,
        epochs=4,
        batch_size=16,
        verbose=0,
        callbacks=[bird, watch, tsp.MaskPruning(ramp)],
    )
    plain = tsp.strip_masks(model)
    path = pathlib.Path(folder) / "plain.keras"
    plain.save(path)
    again = K.models.load_model(path)
    found = {
        "replicas": strategy.num_replicas_in_sync,
        "copies": [len(values(slot.weight, strategy)) for slot in slots],
        "mask_copies": [len(values(slot.mask, strategy)) for slot in slots],
        "steps": watch.steps,
        "broken": broken,
        "sparsity": tsp.weight_sparsity(model),
        "saved": tsp.weight_sparsity(again),
        "logged": history.history["sparsity"],
        "distances": history.history["spline_distance"],
        "loss": history.history["loss"],
        "ticket_epoch": bird.ticket_epoch,
        "ticket": (pathlib.Path(folder) / "ticket.keras").exists(),
        "norm": float(np.linalg.norm(again.layers[0].kernel.numpy(), axis=0).max()),
        "worst_output_difference": float(
            np.abs(np.asarray(again(x)) - np.asarray(model(x))).max()
        ),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
