"""A masked model that is exported leaves without its masks."""

import numpy as np
import zoo

import tf_spline_prune as tsp

X = np.random.default_rng(0).normal(size=(4, 12)).astype("float32")


def test_X5_no_masks_are_shipped(K, tmp_path, capsys):
    import tensorflow as tf

    model = zoo.mlp(K)
    masked = tsp.prune_once(model, 0.8)
    tsp.export_saved_model(masked, tmp_path / "masked")
    assert "masks are stripped" in capsys.readouterr().out
    loaded = tf.saved_model.load(str(tmp_path / "masked" / "1"))
    serve = loaded.signatures["serving_default"]
    ((_, answer),) = serve(tf.constant(X)).items()
    np.testing.assert_allclose(answer.numpy(), np.asarray(masked(X)), atol=1e-5)
    kinds = {node.type for node in serve.graph.get_operations()}
    functions = serve.graph.as_graph_def().library.function
    kinds |= {node.op for one in functions for node in one.node_def}
    assert not any("Assign" in kind for kind in kinds)
    plain = tsp.export_litert(tsp.strip_masks(masked), tmp_path / "plain.tflite")
    report = tsp.export_litert(masked, tmp_path / "masked.tflite")
    assert report.bytes == plain.bytes
