"""What the spline papers state about pruning, checked on random networks.

Statements are those of You et al., "Max-Affine Spline Insights Into Deep Network
Pruning", TMLR 2022; where a statement does not hold in general, what does is checked.
"""

import numpy as np
import pytest

import tf_spline_prune as tsp

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def network(K, widths, seed=0):
    """Dense layers with ReLU, the last one without; weights as a list of pairs."""
    L, rng = K.layers, np.random.default_rng(seed)
    x = inputs = K.Input((widths[0],))
    for number, width in enumerate(widths[1:-1]):
        x = L.Dense(width, activation="relu", name=f"layer_{number}")(x)
    model = K.Model(inputs, L.Dense(widths[-1], name="head")(x))
    return refill(model, random_pairs(widths, rng))


def random_pairs(widths, rng):
    return [
        (rng.normal(0, np.sqrt(2 / n), (n, m)), rng.normal(0, 0.5, m))
        for n, m in zip(widths[:-1], widths[1:], strict=True)
    ]


def refill(model, weights):
    model.set_weights([np.float32(value) for pair in weights for value in pair])
    return model


def pairs(model):
    values = [np.asarray(w, "float64") for w in model.get_weights()]
    return list(zip(values[::2], values[1::2], strict=True))


def without_unit(weights, layer, unit):
    """The parameters under the mask that removes a unit: row and bias are zero."""
    masked = [(kernel.copy(), bias.copy()) for kernel, bias in weights]
    masked[layer][0][:, unit] = 0
    masked[layer][1][unit] = 0
    return masked


def codes_of(weights, x):
    """The signs of all pre-activations, layer by layer."""
    found = []
    for kernel, bias in weights[:-1]:
        ahead = x @ kernel + bias
        found.append(ahead > 0)
        x = np.maximum(ahead, 0)
    return found


def count(rows):
    return len(np.unique(rows, axis=0))


@pytest.mark.parametrize("kind", ["unit", "weight"])
def test_proposition_1_masks_change_the_maps_and_the_partition(K, kind):
    model = network(K, (3, 8, 7, 2))
    x = np.random.default_rng(1).uniform(-2, 2, (4000, 3)).astype("float32")
    whole = pairs(model)
    if kind == "unit":
        masked = without_unit(whole, 0, 2)
    else:
        masked = [(kernel.copy(), bias.copy()) for kernel, bias in whole]
        masked[0][0][0, 2] = masked[0][1][2] = 0
    before = tsp.PartitionCoder(model)(x)
    A, b = tsp.local_affine(model, x[:200])
    refill(model, masked)
    after = tsp.PartitionCoder(model)(x)
    assert tsp.partition_distance(before, after) > 0
    same = np.all(
        [before.unpack(n)[:200] == after.unpack(n)[:200] for n in before.layers[1:]],
        axis=(0, 2),
    )
    C, d = tsp.local_affine(model, x[:200])
    active = before.unpack("layer_0")[:200, 2] & same
    assert active.any()
    assert (np.abs(A - C)[active].max(axis=(1, 2)) > 1e-3).all()
    assert (np.abs(b - d)[active].max(axis=1) > 1e-6).all()
    if kind == "unit":  # where the unit was off and nothing else moved, all stays
        asleep = ~before.unpack("layer_0")[:200, 2] & same
        assert asleep.any()
        np.testing.assert_allclose(C[asleep], A[asleep], atol=1e-12)


def test_unit_pruning_halves_the_bound_and_leaves_the_other_codes(K):
    model = network(K, (2, 8, 7, 3))
    x = np.random.default_rng(2).uniform(-3, 3, (5000, 2)).astype("float32")
    coder = tsp.PartitionCoder(model)
    before = coder(x)
    bits = {name: before.unpack(name) for name in before.layers}
    for unit in range(7):
        refill(model, without_unit(pairs(network(K, (2, 8, 7, 3))), 1, unit))
        after = coder(x)
        survivors = np.delete(np.arange(7), unit)
        np.testing.assert_array_equal(after.unpack("layer_0"), bits["layer_0"])
        kept = after.unpack("layer_1")[:, survivors]
        np.testing.assert_array_equal(kept, bits["layer_1"][:, survivors])
        assert count(kept) <= count(bits["layer_1"])
        assert count(kept) <= tsp.max_regions(6, 8) == 2 ** (7 - 1)


def test_the_bound_of_a_layer_is_met_by_lines_and_falls_with_each_unit(K):
    counts = []
    for units in (8, 7, 6):
        model = network(K, (2, units, 2), seed=3)
        wide = tsp.slice2d(model, 1000 * PLANE, extent=(-1.0, 1.0))
        counts.append(wide.num_regions)
        assert wide.num_regions == tsp.max_regions(units, 2)
    assert counts == [37, 29, 22]


def test_all_regions_of_a_deep_network_may_grow_but_not_over_their_bound():
    rng, grown = np.random.default_rng(4), 0
    x = rng.uniform(-3, 3, (3000, 2))
    for _ in range(120):
        weights = random_pairs((2, 8, 7, 3), rng)
        masked = without_unit(weights, 0, rng.integers(8))
        before, after = (count(np.hstack(codes_of(w, x))) for w in (weights, masked))
        grown += after > before
        assert after <= tsp.max_regions([7, 7], 2)
    assert grown  # so that fewer units mean fewer regions is no theorem


def test_a_pruned_weight_turns_its_line_along_an_axis(K):
    for axis in (0, 1):
        model = network(K, (2, 6, 2), seed=5)
        weights = pairs(model)
        weights[0][0][axis] = 0  # no unit reads this input any more
        s = tsp.slice2d(refill(model, weights), PLANE, extent=(-5.0, 5.0))
        segments = s.lines["layer_0"]
        assert len(segments)
        # The lines contain the direction of the input that is not read.
        np.testing.assert_allclose(
            segments[:, 0, 1 - axis], segments[:, 1, 1 - axis], atol=1e-12
        )


def test_a_pruned_bias_draws_the_line_through_the_origin(K):
    model = network(K, (2, 6, 2), seed=6)
    weights = pairs(model)
    weights[0][1][:] = 0
    s = tsp.slice2d(refill(model, weights), PLANE, extent=(-1.0, 1.0))
    (one, other) = s.lines["layer_0"].swapaxes(0, 1)
    across = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    np.testing.assert_allclose(across, 0, atol=1e-12)
    assert s.num_regions == 2 * 6


def test_the_boundary_turns_only_at_lines_of_units(K):
    model = network(K, (2, 10, 8, 2), seed=7)
    s = tsp.slice2d(model, PLANE, extent=(-4.0, 4.0))
    weights, segments = pairs(model), s.boundary
    assert len(segments) > 5
    turns = 0
    ends = np.round(segments.reshape(-1, 2), 9)
    for point in np.unique(ends, axis=0):
        at = np.flatnonzero((ends == point).all(axis=1)) // 2
        way = segments[at, 1] - segments[at, 0]
        angles = np.arctan2(way[:, 1], way[:, 0]) % np.pi
        spread = np.abs(angles[:, None] - angles).max()
        if min(spread, np.pi - spread) < 1e-6:
            continue
        turns += 1
        x, ahead = point, []
        for kernel, bias in weights[:-1]:
            ahead.append(x @ kernel + bias)
            x = np.maximum(ahead[-1], 0)
        assert np.abs(np.concatenate(ahead)).min() < 1e-7
    assert turns


@pytest.mark.parametrize("scale", [0.5, 3.0, -2.0])
def test_multiples_share_a_line_but_only_positive_ones_can_be_merged(scale):
    rng = np.random.default_rng(8)
    (kernel, bias), (head, shift) = random_pairs((4, 6, 3), rng)
    kernel[:, 5], bias[5] = scale * kernel[:, 2], scale * bias[2]
    x = rng.normal(size=(500, 4))
    ahead = x @ kernel + bias
    same = (ahead[:, 5] > 0) == (ahead[:, 2] > 0)
    assert same.all() if scale > 0 else not same.any()
    for slope in (0.0, 0.2, -1.0):
        values = np.where(ahead > 0, ahead, slope * ahead)
        whole = values @ head + shift
        merged = head[:5].copy()
        merged[2] += abs(scale) * head[5]
        off = np.abs(values[:, :5] @ merged + shift - whole).max()
        if scale > 0 or slope == -1:
            assert off < 1e-12
        else:
            assert off > 0.1
            # What is missing is a path without an activation.
            path = (1 + slope) * ahead[:, 2:3] * -abs(scale) * head[5]
            assert np.abs(values[:, :5] @ merged + path + shift - whole).max() < 1e-12


def test_codes_of_two_units_differ_by_their_angle(K):
    model = network(K, (12, 2, 2), seed=9)
    weights = pairs(model)
    weights[0][1][:] = 0
    refill(model, weights)
    x = np.random.default_rng(10).normal(size=(40_000, 12)).astype("float32")
    bits = tsp.PartitionCoder(model)(x).unpack("layer_0")
    one, other = weights[0][0].T
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    share, expected = (bits[:, 0] != bits[:, 1]).mean(), np.arccos(cosine) / np.pi
    assert abs(share - expected) < 4 * np.sqrt(0.25 / len(x))
