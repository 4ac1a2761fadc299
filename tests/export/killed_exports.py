"""Exports, killed at random moments; a program of its own.

    python killed_exports.py FOLDER KILLS

Importing TensorFlow takes long, so it is imported once, and each process that is
killed is a fork of this one. That is safe only while there is one thread, before
TensorFlow has run anything: this is checked.
"""

import os
import pathlib
import random
import signal
import struct
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's library would start threads

import keras
import numpy as np

import tf_spline_prune as tsp
from tf_spline_prune.export import _export_saved_model as warmup

UNSAFE = 77


def export_forever(folder, ready, parent):
    i = keras.Input((4,), name="x")
    model = keras.Model(i, keras.layers.Dense(3, name="scores")(i))
    model.set_weights([np.arange(12.0).reshape(4, 3), np.zeros(3)])
    while os.getppid() == parent:
        start = time.monotonic()
        tsp.export_saved_model(model, folder, labels=list("abc"), warmup=1)
        os.write(ready, struct.pack("d", time.monotonic() - start))


def main(folder, kills):
    warmup._log_module()
    import tensorflow

    if tensorflow.keras.Model is not keras.Model or "TF_USE_LEGACY_KERAS" in os.environ:
        sys.exit("Importing tensorflow_serving changed what tensorflow.keras is.")
    rng, parent = random.Random(0), os.getpid()
    for _ in range(kills):
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            print(f"A fork would be unsafe: {threads} threads.")
            sys.exit(UNSAFE)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                export_forever(folder, writing, parent)
            finally:
                os._exit(1)
        os.close(writing)
        # The first export traces for the first time; the second tells how long one
        # takes here and now. The kill falls into the third or fourth.
        times = [os.read(reading, 8) for _ in range(2)]
        if times[-1]:
            time.sleep(rng.uniform(0, 2) * struct.unpack("d", times[-1])[0])
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(reading)
        if not times[-1] or not os.WIFSIGNALED(status):
            sys.exit(f"An export ended by itself: status {status}.")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
