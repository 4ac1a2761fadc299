"""What is written for TensorBoard, read back from its files."""

import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "masking"))
from masked_nets import X, compiled, fit, kernel  # noqa: E402

import tf_spline_prune as tsp  # noqa: E402


def written(folder):
    """All values of the files of a folder, by tag and step, with their plugin."""
    found = {}
    for file in sorted(folder.iterdir()):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                plugin = value.metadata.plugin_data.plugin_name
                array = tf.make_ndarray(value.tensor)
                found[value.tag, event.step] = plugin, array
    return found


def test_scalars_histograms_and_images_a_layer(K, tmp_path):
    model = compiled(K, tsp.wrap_with_masks(zoo.mlp(K)))
    bird = tsp.SplineEarlyBird(X, lookback=1, stop=False)
    pruning = tsp.MaskPruning(tsp.schedules.OneShot(0.75, step=6))
    fit(model, [bird, pruning, tsp.PruningSummaries(tmp_path)], epochs=2)
    found = written(tmp_path)
    assert found["sparsity", 0] == ("scalars", 0)
    assert found["sparsity", 1][1] == pytest.approx(0.75, abs=0.005)
    assert found["sparsity/first/kernel", 1] == ("scalars", np.float32(0.75))
    assert ("spline_distance", 1) in found
    array = kernel(model, "first")
    kept = array[array != 0]
    threshold = found["threshold/first/kernel", 1][1]
    assert threshold == np.abs(kept).min()
    assert found["units/first/kernel", 1][1] == (array != 0).any(axis=0).sum()
    plugin, bins = found["weights/first/kernel", 1]
    assert plugin == "histograms" and bins[:, 2].sum() == kept.size
    assert bins[0, 0] == pytest.approx(kept.min())
    plugin, (width, height, png) = found["masks/first/kernel", 1]
    assert (plugin, int(width), int(height)) == ("images", 32, 12)
    pixels = tf.io.decode_png(png).numpy()[:, :, 0]
    np.testing.assert_array_equal(pixels > 0, array != 0)


def test_every_so_many_batches_without_images(K, tmp_path):
    model = compiled(K, tsp.wrap_with_masks(zoo.mlp(K)))
    summaries = tsp.PruningSummaries(tmp_path, update_freq=2, images=False)
    fit(model, [summaries], epochs=1)
    found = written(tmp_path)
    assert {step for tag, step in found if tag == "sparsity"} == {2, 4}
    assert not any(plugin == "images" for plugin, _ in found.values())


def test_wrong_frequency(tmp_path):
    for wrong in (0, -1, True, "batch"):
        with pytest.raises(ValueError, match="update_freq"):
            tsp.PruningSummaries(tmp_path, update_freq=wrong)


def test_units_of_transposed_convolutions(tmp_path):
    x = keras.Input((4, 4, 6))
    up = keras.layers.Conv2DTranspose(5, 3, name="up")(x)
    model = zoo.settle(keras.Model(x, keras.layers.GlobalMaxPooling2D()(up)))
    masked = tsp.prune_once(model, 0.4)
    masked.compile("sgd", "mse")
    summaries = tsp.PruningSummaries(tmp_path)
    data = np.ones((8, 4, 4, 6), "float32"), np.ones((8, 5), "float32")
    masked.fit(*data, verbose=0, callbacks=[summaries])
    assert written(tmp_path)["units/up/kernel", 0][1] == 5
