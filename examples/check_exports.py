"""Loads what the quickstart wrote, as a server or a device would.

    python examples/check_exports.py runs/optical_digits-keras-1

This process imports TensorFlow, LiteRT and NumPy; neither Keras models nor
tf_spline_prune. It compares the answers of both files with those of the model.
"""

import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np


def saved_model(folder, images):
    import tensorflow as tf

    versions = sorted((folder / "served").iterdir(), key=lambda path: int(path.name))
    serve = tf.saved_model.load(str(versions[-1])).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    (scores,) = serve(**{name: tf.constant(images)}).values()
    return scores.numpy()


def litert(folder, images):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / "ticket.tflite"))
    (inputs,), (outputs,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    interpreter.resize_tensor_input(inputs["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(inputs["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(outputs["index"])


def main():
    folder = pathlib.Path(sys.argv[1])
    with np.load(folder / "predictions.npz") as stored:
        images, expected = stored["images"], stored["scores"]
    failed = False
    for load in (saved_model, litert):
        found = load(folder, images)
        error = np.abs(found - expected).max() / np.abs(expected).max()
        same = np.mean(found.argmax(1) == expected.argmax(1))
        failed |= not error < 1e-4 or same < 1
        print(
            f"{load.__name__} in a fresh process: relative difference {error:.1e}, "
            f"{same:.0%} of {len(images)} predictions the same"
        )
    if "tf_spline_prune" in sys.modules or failed:
        sys.exit("The files do not answer as the model does.")


if __name__ == "__main__":
    main()
