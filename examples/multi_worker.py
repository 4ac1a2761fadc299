"""Masks and the early bird in training by two workers, cut off and resumed.

    python examples/multi_worker.py
    python examples/multi_worker.py --folder run --kill-after-epoch 4
    python examples/multi_worker.py --folder run

One command starts two workers on this machine, which talk over 127.0.0.1. They train
one small net on handwritten digits under `MultiWorkerMirroredStrategy`. The chief's
codes decide when the partition has settled; from then on the masks grow, and are the
same on both workers. The second command kills the other worker, so that the chief
ends with an error; the third resumes from the backup in the folder and ends as if
nothing had happened.

The net is one of `tf_keras`. Keras 3 has no training by several workers on
TensorFlow: under `MultiWorkerMirroredStrategy` its `fit` ends with "Attempt to convert
a value (PerReplica ...) to a Tensor", and this package's callbacks refuse such a model
with a `FlavourError`. On one machine with several GPUs Keras 3 trains under
`MirroredStrategy`, masks and detectors included.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WORKERS = 2


def worker(options, index):
    """Train as one of the workers, and write what came out of it."""
    import numpy as np
    import tensorflow as tf
    import tf_keras as K

    import tf_spline_prune as tsp
    from tf_spline_prune.compat import mask_slots

    # It opens the connection to the other worker, so it comes first.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    tf.config.experimental.enable_op_determinism()
    K.utils.set_random_seed(0)

    folder = pathlib.Path(options.folder)
    train = tsp.datasets.load(
        "optical_digits",
        "train[:1280]",
        1280,
        shuffle=False,
        data_dir=folder / f"data-{index}",  # one each: both prepare it at once
    )
    images, labels = (array.numpy() for array in next(iter(train)))
    # An order of its own, the same in each epoch: a resumed run sees what it would
    # have seen.
    order = np.random.default_rng(0).permutation(len(images))
    batches = tf.data.Dataset.from_tensor_slices((images[order], labels[order]))
    sharding = tf.data.Options()
    policy = tf.data.experimental.AutoShardPolicy.DATA
    sharding.experimental_distribute.auto_shard_policy = policy
    batches = batches.batch(64).with_options(sharding)

    with strategy.scope():
        L = K.layers
        dense = K.Sequential(
            [
                K.Input((8, 8, 1)),
                L.Conv2D(16, 3, use_bias=False, name="conv"),
                L.BatchNormalization(momentum=0.9, name="norm"),
                L.ReLU(name="relu"),
                L.Flatten(name="flat"),
                L.Dense(32, activation="relu", name="hidden"),
                L.Dense(10, name="head"),
            ]
        )
        model = tsp.wrap_with_masks(dense)
        model.compile(
            K.optimizers.Adam(2e-3),
            K.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    done = []

    class Watch(K.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            done.append(epoch)

        def on_train_batch_end(self, batch, logs=None):
            fails = index == 1 and options.kill_after_epoch == done[-1] - 1
            if fails and batch == 3:
                os.kill(os.getpid(), signal.SIGKILL)  # as a machine that fails

    bird = tsp.SplineEarlyBird(
        images[:256],
        threshold=options.threshold,
        lookback=2,
        stop=False,
        filepath=folder / "early_bird.keras",
        backup_dir=folder / "bird",
    )
    schedule = tsp.schedules.EarlyBirdSparsity(
        bird, options.sparsity, ramp_steps=30, frequency=5
    )
    history = model.fit(
        batches,
        epochs=options.epochs,
        verbose=0,
        callbacks=[
            K.callbacks.BackupAndRestore(str(folder / "backup")),
            bird,
            tsp.MaskPruning(schedule),
            Watch(),
        ],
    )
    masks, weights = hashlib.sha256(), hashlib.sha256()
    for slot in mask_slots(model):
        masks.update(np.packbits(slot.keep()).tobytes())
        weights.update(slot.read().tobytes())
    found = {
        "worker": index,
        "first_epoch": done[0],
        "early_bird_epoch": bird.ticket_epoch,
        "sparsity": tsp.weight_sparsity(model)["total"],
        "accuracy": history.history["accuracy"][-1],
        "masks": masks.hexdigest()[:16],
        "weights": weights.hexdigest()[:16],
    }
    (folder / f"worker-{index}.json").write_text(json.dumps(found))


def free_ports():
    """Find ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(WORKERS)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(script, folder, arguments):
    """Start the workers, each with its own log, and `--worker` as last argument."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports()]}
    children = []
    for index in range(WORKERS):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        command = [sys.executable, script, *arguments, "--worker", str(index)]
        with open(folder / f"worker-{index}.log", "wb") as log:
            children.append(
                subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            )
    return children


def finish(children, timeout, grace):
    """Wait for the workers; none outlives the time limit, nor this process.

    Args:
        children: What `start` gave.
        timeout: Seconds for all.
        grace: Seconds for the others once one has failed.

    Returns:
        Exit codes; `None` for a worker that had to be ended.
    """
    until = time.monotonic() + timeout
    alone = None
    try:
        while any(child.poll() is None for child in children):
            now = time.monotonic()
            if alone is None and any(child.returncode for child in children):
                alone = now + grace  # one failed: the other ends by itself
            if now > min(until, alone or until):
                break
            time.sleep(0.1)
        return [child.poll() for child in children]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", help="backups, logs and results; kept if named")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threshold", type=float, default=0.06)
    parser.add_argument("--sparsity", type=float, default=0.75)
    parser.add_argument(
        "--kill-after-epoch", type=int, help="let worker 1 fail in the next"
    )
    parser.add_argument("--timeout", type=float, default=300, help="seconds in all")
    parser.add_argument("--grace", type=float, default=90, help="after a failure")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return worker(options, options.worker)
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = options.folder or temporary
        folder = pathlib.Path(options.folder)
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(WORKERS):
            (folder / f"worker-{index}.json").unlink(missing_ok=True)
        arguments = [*sys.argv[1:], "--folder", options.folder]
        codes = finish(
            start(__file__, folder, arguments), options.timeout, options.grace
        )
        if any(codes) or None in codes:
            for index, code in enumerate(codes):
                how = "had to be ended" if code is None else f"ended with {code}"
                print(f"worker {index} {how}")
                log = (folder / f"worker-{index}.log").read_text(errors="replace")
                print("\n".join(log.splitlines()[-5:]))
            return 1
        found = [
            json.loads((folder / f"worker-{index}.json").read_text())
            for index in range(WORKERS)
        ]
    for one in found:
        print(
            f"worker {one['worker']}: from epoch {one['first_epoch']}, early bird "
            f"{one['early_bird_epoch']}, sparsity {one['sparsity']:.4f}, accuracy "
            f"{one['accuracy']:.3f}, masks {one['masks']}, weights {one['weights']}"
        )
    same = all(
        len({one[key] for one in found}) == 1
        for key in ("early_bird_epoch", "sparsity", "masks", "weights")
    )
    print("The workers agree." if same else "The workers do not agree.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
