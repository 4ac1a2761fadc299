"""An exported SavedModel, run as a server runs it."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError
from tf_spline_prune.export._served_model import ServedModel

pytestmark = pytest.mark.both_flavours


def test_it_answers_as_the_model(K, tmp_path):
    model = zoo.mlp(K)
    served = ServedModel(tsp.export_saved_model(model, tmp_path).path)
    ((name, spec),) = served.inputs.items()
    assert spec == ((None, 12), "float32")
    assert served.outputs == {"head": ((None, 5), "float32")}
    x = np.random.default_rng(0).normal(size=(6, 12))  # float64 is taken, too
    expected = np.asarray(model(x.astype("float32")))
    np.testing.assert_allclose(served.run({name: x})["head"], expected, rtol=1e-5)


def test_what_cannot_be_served_is_told(tmp_path):
    import tensorflow as tf

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(ModelError, match="cannot load the SavedModel"):
        ServedModel(tmp_path / "broken")
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(ModelError, match="has no signature 'serving_default'"):
        ServedModel(tmp_path / "bare")
