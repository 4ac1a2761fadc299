"""Whole units under masks: what is masked, and that `shrink` removes it exactly."""

import numpy as np
import pytest
import zoo
from masked_nets import IMAGES, LABELS, X, compiled, fit

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots

FAMILIES = [zoo.mlp, zoo.vgg, zoo.resnet, zoo.mobilenet, zoo.densenet, zoo.nested]


def data(build):
    return X if build is zoo.mlp else IMAGES


def close(one, other):
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("build", FAMILIES, ids=lambda f: f.__name__)
def test_masked_units_are_those_of_a_plan_and_shrink_is_its_apply(K, build):
    model = build(K)
    masked = tsp.prune_once(model, 0.5, granularity="unit")
    plan = tsp.plan(model, "magnitude", sparsity=0.5, scope="layer")
    expected = plan.apply(model)
    small = tsp.shrink(masked)
    for one, other in zip(small.weights, expected.weights, strict=True):
        # A unit that was unread or constant before goes as well.
        assert all(a <= b for a, b in zip(one.shape, other.shape, strict=True))
    close(masked(data(build)), expected(data(build)))
    close(small(data(build)), expected(data(build)))


def test_every_weight_that_makes_or_reads_a_unit_is_masked(K):
    masked = tsp.prune_once(zoo.mlp(K), {"first": 0.25}, granularity="unit")
    first, second, head = (slot.keep() for slot in mask_slots(masked))
    gone = ~first.any(axis=0)
    assert gone.sum() == 8 and first[:, ~gone].all()
    assert not second[gone].any() and second[~gone].all()
    assert head.all()


@pytest.mark.parametrize("criterion", ["spline", "batchnorm_scale", "random", "fpgm"])
def test_units_go_while_training_and_never_come_back(K, criterion):
    model = compiled(K, tsp.wrap_with_masks(zoo.vgg(K)))
    ramp = tsp.schedules.PolynomialDecay(0.0, 0.5, 0, 6, power=1, frequency=2)
    seen = []

    class Record(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([slot.keep() for slot in mask_slots(self.model)])

    pruning = tsp.MaskPruning(ramp, criterion, "unit", scope="global")
    model.fit(IMAGES, LABELS, 8, epochs=2, verbose=0, callbacks=[pruning, Record()])
    for before, after in zip(seen, seen[1:], strict=False):
        assert not any((a & ~b).any() for b, a in zip(before, after, strict=True))
    graph = tsp.ChannelGraph(model)
    units = sum(group.num_units for group in graph.groups)
    small = tsp.shrink(model)
    left = sum(group.num_units for group in tsp.ChannelGraph(small).groups)
    # A Dense layer without BatchNormalization has no scale to go by.
    prunable = units - 20 if criterion == "batchnorm_scale" else units
    assert left == units - round(prunable * 0.5)
    assert "gone" not in vars(tsp.criteria.get(criterion))
    close(small(IMAGES), model(IMAGES))
    close(tsp.strip_masks(model)(IMAGES), model(IMAGES))


def test_criteria_that_read_data(K):
    model = zoo.vgg(K)
    masked = tsp.prune_once(
        model, 0.4, criterion="activation", granularity="unit", data=IMAGES
    )
    close(tsp.shrink(masked)(IMAGES), masked(IMAGES))
    with pytest.raises(ValueError, match="data"):
        tsp.prune_once(model, 0.4, criterion="activation", granularity="unit")


def test_weights_that_empty_a_unit_are_folded_and_shrunk(K):
    """Masks on the weights that make a unit alone: its bias is a constant."""
    model = zoo.mlp(K)
    masked = tsp.wrap_with_masks(model)
    slot = mask_slots(masked)[0]
    keep = np.ones(slot.weight.shape, bool)
    keep[:, [1, 5, 7]] = False
    slot.assign(keep)
    small = tsp.shrink(masked)
    assert small.layers[0].units == 29
    close(small(X), masked(X))


def test_a_layer_without_masks_bars_its_units(K):
    masked = tsp.wrap_with_masks(zoo.mlp(K), layers=["second", "head"])
    tsp.update_masks(masked, 0.5, granularity="unit")
    small = tsp.shrink(masked)
    assert [layer.units for layer in small.layers] == [32, 12, 5]
    close(small(X), masked(X))


def test_units_gone_stay_gone_in_further_training(K):
    masked = compiled(K, tsp.prune_once(zoo.mlp(K), 0.5, granularity="unit"))
    fit(masked, epochs=2)  # no callback: the optimizer holds the masks
    small = tsp.shrink(masked)
    assert [layer.units for layer in small.layers] == [16, 12, 5]
    close(small(X), masked(X))
