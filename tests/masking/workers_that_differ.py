"""One of two workers that see different data; the chief's must count for both.

python tests/masking/workers_that_differ.py folder --worker 0
"""

import argparse
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import tf_spline_prune as tsp
from tf_spline_prune.compat import Workers, mask_slots, save_model


def network(K):
    L = K.layers
    return K.Sequential(
        [
            K.Input((6,)),
            L.Dense(12, name="one"),
            # Its statistics are averaged over all workers when they are read.
            L.BatchNormalization(name="norm"),
            L.ReLU(name="relu"),
            L.Dense(2, name="head"),
        ]
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--worker", type=int)
    options = parser.parse_args()
    index, folder = options.worker, options.folder
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    own = np.random.default_rng(index)
    found = {}

    with strategy.scope():
        tf_keras.utils.set_random_seed(0)
        model = tsp.wrap_with_masks(network(tf_keras))
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf_keras.optimizers.SGD(0.1), loss)
        newer = network(keras)

    workers = Workers(model)
    found["chief"] = workers.is_chief
    sent = workers.of_chief(np.array([np.nan, 0.1 + index, -0.0]))
    found["numbers"] = [repr(float(number)) for number in sent]
    found["bytes"] = workers.bytes_of_chief([b"odd", b"another"][index]).decode()
    found["nothing"] = workers.bytes_of_chief([b"", b"another"][index]).decode()

    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    bird = tsp.SplineEarlyBird(
        own.normal(size=(50, 6)).astype("float32"),
        threshold=0.5,
        lookback=2,
        stop=False,
        keep_history=True,
        filepath=folder / f"ticket-of-{index}.keras",
        backup_dir=folder / f"backup-of-{index}",
    )
    pruning = tsp.MaskPruning(
        tsp.schedules.OneShot(0.5, step=6),
        criterion=lambda name, array: own.random(array.shape),
    )
    history = model.fit(batches, epochs=4, verbose=0, callbacks=[bird, pruning])
    found["distances"] = history.history["spline_distance"]
    found["early_bird_epoch"] = bird.ticket_epoch
    found["masks"] = [slot.keep().tolist() for slot in mask_slots(model)]
    found["weights"] = [slot.read().tolist() for slot in mask_slots(model)]
    try:
        found["history"] = bird.distance_matrix().shape
    except ValueError as error:
        found["history"] = str(error)
    save_model(model, folder / f"model-of-{index}.h5")
    refused = tsp.SplineEarlyBird(x)
    refused.set_model(newer)  # Keras' own `fit` fails before callbacks begin
    try:
        refused.on_train_begin()
    except tsp.errors.FlavourError as error:
        found["keras"] = str(error)
    found["files"] = sorted(path.name for path in folder.glob(f"*-of-{index}*"))
    (folder / f"worker-{index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
