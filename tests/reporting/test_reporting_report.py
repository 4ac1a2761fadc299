"""Reports: counts against hand-made ones, published work, sane latencies."""

import json

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp


def test_training_flops_reproduces_the_published_table():
    # You et al., ICLR 2020, table 3: ResNet-18 on ImageNet, 1259.13 PFLOPs; and
    # its ticket: 11 dense epochs and 79 at 3.37 GFLOPs give 1177.15.
    images = 1_281_167
    assert tsp.training_flops(3.64e9, images, 90) / 1e15 == pytest.approx(
        1259.13, abs=0.01
    )
    ticket = tsp.training_flops(3.64e9, images, 11) + tsp.training_flops(
        3.37e9, images, 79
    )
    assert ticket / 1e15 == pytest.approx(1177.15, abs=0.01)
    with pytest.raises(ValueError, match="negative"):
        tsp.training_flops(-1, 1, 1)


def test_report_counts_and_measures(K):
    model = zoo.mlp(K)
    small = tsp.prune(model, "random", sparsity=0.5)
    report = tsp.report(model, small)
    assert report.before.macs == 12 * 32 + 32 * 24 + 24 * 5
    assert report.before.params == report.before.macs + 32 + 24 + 5
    sizes = [layer.units for layer in small.layers if hasattr(layer, "units")]
    assert sizes[-1] == 5 and sum(sizes[:2]) == 28
    first, second, _ = sizes
    assert report.after.macs == 12 * first + first * second + second * 5
    assert report.tflite_bytes[1] < report.tflite_bytes[0]
    assert all(latency > 0 for latency in report.latency_us)
    assert (
        json.loads(json.dumps(report.to_dict()))["after"]["macs"] == report.after.macs
    )
    assert f"{report.before.macs:,}" in str(report) and "latency" in str(report)


def test_report_refuses_what_is_no_model():
    with pytest.raises(tsp.errors.FlavourError, match="Expected a Keras model"):
        tsp.report(np.zeros(3), np.zeros(3))
