"""Dimensions, volumes, angles and disentanglement of generators."""

import itertools
import math

import generators
import numpy as np
import pytest

import tf_spline_prune as tsp


def latents(n, size, seed=0):
    return np.random.default_rng(seed).normal(size=(n, size))


@pytest.mark.parametrize("ending", [None, "sigmoid"])
def test_volumes_are_those_of_small_cells(K, ending):
    model = generators.leaky(K, 2, 12, 3, ending=ending)
    z = latents(40, 2)
    # The image of a small right triangle, whose area is had from its sides alone.
    step = 1e-5
    corners = [z, z + [step, 0], z + [0, step]]
    made = [generators.outputs(model, corner) for corner in corners]
    if ending:
        made = [1 / (1 + np.exp(-points)) for points in made]
    a, b, c = (
        np.linalg.norm(p - q, axis=1) for p, q in itertools.combinations(made, 2)
    )
    s = (a + b + c) / 2
    areas = np.sqrt(s * (s - a) * (s - b) * (s - c))
    found = tsp.generative.log_volumes(model, z)
    close = np.isclose(found, np.log(areas / (step**2 / 2)), atol=1e-3)
    assert close.mean() > 0.9  # a triangle or two may lie across a knot
    largest = tsp.generative.log_volumes(model, z, top=1)
    assert (2 * largest >= found).all() and (largest > found / 2 + 1e-3).any()


def test_slopes_come_in_lots_that_fit_into_memory(monkeypatch, K):
    from tf_spline_prune.partition.generative import _slopes as slopes

    model, z = generators.leaky(K, 3, 8, 5), latents(50, 3)
    whole = tsp.generative.log_volumes(model, z)
    monkeypatch.setattr(slopes, "_AT_ONCE", 15 * 16)
    np.testing.assert_allclose(tsp.generative.log_volumes(model, z), whole, rtol=1e-12)


def test_disentanglement(K):
    L = K.layers
    model = K.Sequential([K.Input((3,)), L.Dense(4, use_bias=False)])
    kernels = {
        0.0: [[1, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 2]],  # orthogonal
        2.0: [[1, 2, 0, 0], [2, 4, 0, 0], [-1, -2, 0, 0]],  # all alike
        0.6: [[3, 4, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]],  # one pair of cosine 3/5
        1.0: [[1, 1, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]],  # one that moves nothing
    }
    for expected, kernel in kernels.items():
        model.set_weights([np.array(kernel, "float32")])
        found = tsp.generative.disentanglement(model, latents(4, 3))
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_dropout_lowers_the_rank_as_often_as_units_run_out(K):
    rate, masks, widths = 0.3, 100, (7, 9)
    model = generators.leaky(K, 6, *widths, 10)
    ranks = tsp.generative.dropout_ranks(model, latents(2, 6), rate, masks=masks)
    assert ranks.shape == (masks, 2) and ranks.max() <= 6
    expected = 1.0
    for width in widths:
        kept = np.array([sum(bits) for bits in itertools.product((0, 1), repeat=width)])
        chances = 0.7**kept * 0.3 ** (width - kept)
        expected *= chances[kept >= 6].sum()
    error = math.sqrt(expected * (1 - expected) / masks)
    assert abs((ranks[:, 0] == 6).mean() - expected) < 3 * error
    law = tsp.generative.full_rank_probability(6, widths, rate)
    assert law == pytest.approx(expected, rel=1e-12)
    # Weights leave many ways through a layer; units do not.
    weights = tsp.generative.dropout_ranks(
        model, latents(2, 6), rate, masks=20, drop="weights"
    )
    assert (weights == 6).mean() > 0.8
    # Nothing dropped, nothing lost; and the model is as it was.
    assert (tsp.generative.dropout_ranks(model, latents(2, 6), 0, masks=1) == 6).all()
    assert tsp.jacobian_rank(model, latents(2, 6)).tolist() == [6, 6]


def test_dropout_in_a_convolutional_decoder(K):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((3,)),
            L.Dense(2 * 2 * 2),
            L.Reshape((2, 2, 2)),
            L.Conv2DTranspose(5, 2, strides=2, activation="relu"),
            L.Conv2D(1, 3, padding="same"),
        ]
    )
    ranks = tsp.generative.dropout_ranks(model, latents(5, 3), 0.5, masks=30)
    assert set(np.unique(ranks)) <= {0, 1, 2, 3} and len(np.unique(ranks)) > 1


def neighbours_by_hand(model, z):
    """Compare all codes of a chain with one hidden layer, pair by pair."""
    kernel, bias = (np.asarray(w, "float64") for w in model.get_weights()[:2])
    codes = z @ kernel + bias > 0
    _, rows = np.unique(codes, axis=0, return_index=True)
    return {
        frozenset(pair)
        for pair in itertools.combinations(rows.tolist(), 2)
        if (codes[pair[0]] != codes[pair[1]]).sum() == 1
    }


def test_neighbouring_pieces_share_all_directions_but_one(K):
    from tf_spline_prune.partition.generative._neighbour_angles import one_apart

    size = 3
    model = generators.leaky(K, size, 20, 6)
    line = np.linspace(latents(1, size)[0] * 3, latents(1, size, 1)[0] * -3, 150)
    pairs, angles = tsp.generative.neighbour_angles(model, line)
    first = {frozenset(pair) for pair in pairs.tolist()}
    # Which of a region's latents stand for it is open, so compare their codes.
    assert len(first) == len(pairs) == len(neighbours_by_hand(model, line)) > 5
    assert first == neighbours_by_hand(model, line)
    assert angles[:, : size - 1].max() < 1e-7
    for (i, j), largest in zip(pairs, angles[:, -1], strict=True):
        # The reference: projections by hand, of slopes by hand.
        one, other = generators.slopes(model, line[[i, j]])
        gap = one @ np.linalg.pinv(one) - other @ np.linalg.pinv(other)
        assert np.linalg.norm(gap, 2) == pytest.approx(np.sin(largest), abs=1e-5)
        assert np.linalg.matrix_rank(one - other, tol=1e-5) == 1
    same = np.zeros((4, 7), bool)
    assert one_apart(same).shape == (0, 2)


def test_angles_shrink_with_width(K):
    means = []
    for width in (8, 32, 128):
        model = generators.leaky(K, 4, width, 5)
        line = np.linspace(latents(1, 4)[0] * 3, latents(1, 4, 1)[0] * -3, 300)
        _, angles = tsp.generative.neighbour_angles(model, line)
        means.append(angles[:, -1].mean())
    assert means[1] < 0.75 * means[0] and means[2] < 0.75 * means[1]


def test_angles_where_a_piece_is_flat(K):
    L = K.layers
    model = K.Sequential([K.Input((2,)), L.Dense(2, activation="relu"), L.Dense(3)])
    model.layers[0].set_weights([np.eye(2, dtype="float32"), np.zeros(2, "float32")])
    _, angles = tsp.generative.neighbour_angles(model, np.array([[1, 1], [-1.0, 1]]))
    assert angles.shape == (1, 2) and np.isnan(angles).all()
    plain = K.Sequential([K.Input((2,)), L.Dense(3)])
    pairs, angles = tsp.generative.neighbour_angles(plain, latents(4, 2))
    assert pairs.shape == (0, 2) and angles.shape == (0, 2)


def test_pruning_below_the_latents_lowers_the_rank_to_the_width(K):
    model, z = generators.leaky(K, 5, 9, 12, 10), latents(30, 5)
    assert (tsp.jacobian_rank(model, z) == 5).all()
    hidden = model.layers[0].name
    for left in (6, 5, 4, 2):
        small = tsp.remove_units(model, {hidden: list(range(left, 9))})
        assert (tsp.jacobian_rank(small, z) == min(left, 5)).all()
        found = tsp.generative.log_volumes(small, z)
        assert np.isneginf(found).all() if left < 5 else np.isfinite(found).all()


def several_inputs(K):
    L = K.layers
    inputs = [K.Input((2,)), K.Input((2,))]
    return K.Model(inputs, L.Dense(3)(L.Add()(inputs)))


def test_wrong_input(K):
    g, model, z = tsp.generative, generators.leaky(K, 2, 8, 3), latents(5, 2)
    for call in (g.log_volumes, g.disentanglement, g.log_density, g.Sampler):
        with pytest.raises(ValueError, match="one input and one output"):
            call(several_inputs(K), z)
        with pytest.raises(ValueError, match=r"latents does not fit.*\(5, 3\)"):
            call(model, latents(5, 3))
        with pytest.raises(ValueError, match="at least one input"):
            call(model, latents(0, 2))
        with pytest.raises(TypeError, match="Received"):
            call(lambda x: x, z)
    wide = generators.leaky(K, 4, 8, 3)
    for call in (g.log_volumes, g.log_density, g.Sampler):
        with pytest.raises(ValueError, match="4 latents and 3 outputs"):
            call(wide, latents(5, 4))
    assert np.isfinite(g.log_volumes(wide, latents(5, 4), top=3)).all()
    for top in (0, 4):
        with pytest.raises(ValueError, match=f"top={top}"):
            g.log_volumes(wide, latents(5, 4), top=top)
    with pytest.raises(ValueError, match="batch_size=0"):
        g.log_volumes(model, z, batch_size=0)
    for rate, text in ((1.0, "rate=1.0"), (-0.1, "rate=-0.1")):
        with pytest.raises(ValueError, match=text):
            g.dropout_ranks(model, z, rate)
        with pytest.raises(ValueError, match=text):
            g.full_rank_probability(2, [8], rate)
    with pytest.raises(ValueError, match="latents=0"):
        g.full_rank_probability(0, [8], 0.1)
    with pytest.raises(ValueError, match="drop='edges'"):
        g.dropout_ranks(model, z, 0.1, drop="edges")
    with pytest.raises(ValueError, match="masks=0"):
        g.dropout_ranks(model, z, 0.1, masks=0)
    with pytest.raises(ValueError, match="no layer behind another"):
        g.dropout_ranks(generators.leaky(K, 2, 3), z, 0.1)
    L = K.layers
    lstm = K.Sequential([K.Input((2, 1)), L.LSTM(3, name="memory"), L.Dense(3)])
    with pytest.raises(ValueError, match="memory"):
        g.dropout_ranks(lstm, latents(5, 2)[..., None], 0.1)
    smooth = K.Sequential(
        [K.Input((2,)), L.Dense(6, activation="tanh", name="bent"), L.Dense(3)]
    )
    with pytest.raises(ValueError, match="bent"):
        g.neighbour_angles(smooth, z)
    with pytest.raises(ValueError, match="bent"):
        g.Surface(smooth)
    assert np.isfinite(g.log_density(smooth, z)).all()


def test_a_residual_decoder_of_images(K):
    model = residual(K)
    z = latents(6, 3)
    A, b = tsp.local_affine(model, z)
    made = np.asarray(model(z.astype("float32"), training=False)).reshape(6, -1)
    np.testing.assert_allclose(np.einsum("nok,nk->no", A, z) + b, made, atol=1e-5)
    volumes = np.linalg.slogdet(A.swapaxes(1, 2) @ A)[1] / 2
    found = tsp.generative.log_volumes(model, z)
    np.testing.assert_allclose(found, volumes, rtol=1e-9)


def residual(K):
    L = K.layers
    x = inputs = K.Input((3,))
    x = L.LeakyReLU()(L.Reshape((2, 2, 4))(L.Dense(16)(x)))
    y = L.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = L.UpSampling2D(2)(L.Add()([x, y]))
    return K.Model(inputs, L.Conv2D(1, 3, padding="same")(x))
