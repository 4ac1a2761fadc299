"""What was said wrongly, or not at all, to people who try things out."""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.cli._parsing import Parser, in_options
from tf_spline_prune.errors import CalibrationError, ProbeError


@pytest.mark.parametrize("mode", ["paper", "hyperplane", "unit", "code"])
def test_a_mode_of_the_spline_criterion_is_no_criterion(K, mode):
    with pytest.raises(ValueError, match=rf"Spline\(\"{mode}\"\).*criterion='{mode}'"):
        tsp.plan(zoo.mlp(K), mode, sparsity=0.5)


def test_misspelt_criteria_have_near_ones():
    for wrong, near in (("magnitud", "magnitude"), ("SPLINES", "spline")):
        with pytest.raises(ValueError, match=f"Perhaps '{near}'"):
            tsp.criteria.get(wrong)
    with pytest.raises(ValueError) as told:
        tsp.criteria.get("zzz")
    assert "Perhaps" not in str(told.value)


def test_texts_are_targets_as_in_the_shell(K):
    model = zoo.mlp(K)
    for text, value in (("50%", 0.5), ("50 %", 0.5), (" 0.5", 0.5), ("900", 900)):
        for kind in ("target_macs", "target_params"):
            found = tsp.plan(model, "magnitude", **{kind: text})
            assert found.budget == {kind: value}
            assert (
                found.removed == tsp.plan(model, "magnitude", **{kind: value}).removed
            )
    found = tsp.plan(model, "magnitude", sparsity="25%")
    assert found.removed == tsp.plan(model, "magnitude", sparsity=0.25).removed
    found = tsp.plan(model, "magnitude", sparsity={"first": "50%", "second": 0.25})
    assert found.units == {"first": (32, 16), "second": (24, 18), "head": (5, 5)}
    assert found.budget == {"sparsity": {"first": 0.5, "second": 0.25}}
    small, plan = tsp.prune_in_rounds(model, "magnitude", sparsity="50%", rounds=2)
    assert plan.budget == {"sparsity": 0.5}
    assert sum(layer.units for layer in small.layers) == 28 + 5
    small = tsp.prune_at_init(
        model, "magnitude", None, rounds=2, granularity="unit", target_params="50%"
    )
    assert small.count_params() <= 0.5 * model.count_params()
    masked = tsp.prune_at_init(model, "magnitude", "50%")
    assert tsp.weight_sparsity(masked)["first/kernel"] > 0


@pytest.mark.parametrize("text", ["-5%", "150%", "abc", "", "%", "nan", "0.5.1", "1e9"])
def test_texts_that_are_no_targets(K, text):
    model = zoo.mlp(K)
    for name in ("target_macs", "sparsity"):
        with pytest.raises(ValueError, match=f"`{name}`.*Received: "):
            tsp.plan(model, "magnitude", **{name: text})
    with pytest.raises(ValueError, match="`sparsity.*Received: "):
        tsp.plan(model, "magnitude", sparsity={"first": text})


class _Examples:
    """Stands in for a data set without batches, as `ds.unbatch()` gives it."""

    def __iter__(self):
        return ((np.zeros((28, 28, 1), "float32"), label) for label in range(9))


def test_single_images_are_no_batches():
    import tensorflow as tf

    batched = tf.data.Dataset.from_tensor_slices(
        (np.zeros((12, 4, 4, 1), "float32"), np.arange(12))
    ).batch(5)
    assert tsp.probes.minibatch(batched, 8).shape == (8, 4, 4, 1)
    labels = np.zeros(5), [np.zeros(5)], {"a": np.zeros(5)}
    for some in labels:
        assert len(tsp.probes.minibatch([(np.zeros((5, 3)), some)], 4)) == 4
    for single in (batched.unbatch(), _Examples(), [(np.zeros(3), np.int64(1))]):
        with pytest.raises(ProbeError, match=r"single inputs.*batch\(128\).*Received"):
            tsp.probes.minibatch(single, 8)


def test_an_array_is_no_data_set_of_batches():
    images = np.zeros((12, 4, 4, 1), "float32")
    for array in (images, keras.ops.convert_to_tensor(images)):
        with pytest.raises(ProbeError, match=r"x\[:8\].*Received.*\(12, 4, 4, 1\)"):
            tsp.probes.minibatch(array, 8)


@pytest.mark.parametrize("wrong", ["block", "3:2", "2.4", "units"])
def test_a_granularity_that_is_none_is_refused_before_training(wrong):
    ramp = tsp.schedules.OneShot(0.5, 1)
    with pytest.raises(ValueError, match=f"Received: granularity='{wrong}'"):
        tsp.MaskPruning(ramp, granularity=wrong)
    tsp.MaskPruning(ramp, granularity="unit")


def test_what_is_no_batch_is_named():
    for wrong in ([1.9], [{"nonsense": 1}], (i for i in range(3))):
        with pytest.raises(ProbeError, match="must give batches.*Received: "):
            tsp.probes.minibatch(wrong)


def test_a_missing_batch_axis_is_named(K):
    model = zoo.mlp(K)
    single = np.zeros(model.inputs[0].shape[1:], "float32")
    with pytest.raises(ProbeError, match="batch axis is missing"):
        tsp.PartitionCoder(model)(single)
    with pytest.raises(CalibrationError, match="batch axis is missing"):
        tsp.prune(model, sparsity=0.5, data=single)
    with pytest.raises(CalibrationError) as told:
        tsp.prune(model, sparsity=0.5, data=np.zeros((4, 7), "float32"))
    assert "batch axis" not in str(told.value)


def test_the_shell_asks_for_labels_by_its_option():
    text = "Pass `data=(x, y)`. Received: no data"
    parser = Parser()
    parser.add_argument("--data")
    assert in_options(parser, text) == "Pass `--data NAME`. Received: no data"


def test_folders_without_a_name(K, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="`log_dir` must be a path: a text.*current folder.*''"
    ):
        tsp.PruningSummaries("")
    probe = np.zeros((4, 12), "float32")
    with pytest.raises(
        ValueError, match="`backup_dir` must be a path: a text.*current folder.*''"
    ):
        tsp.SplineEarlyBird(probe, backup_dir="")
    with pytest.raises(
        ValueError, match="`folder` must be a path: a text.*current folder.*''"
    ):
        tsp.export_saved_model(zoo.mlp(K), "")
    assert not list(tmp_path.iterdir())
    tsp.PruningSummaries(".")
