"""Training costs against published ones."""

import pytest

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
    with pytest.raises(ValueError, match="of at least 0"):
        tsp.training_flops(-1, 1, 1)
