"""Areas, densities, entropies and samplers of generators."""

import generators
import numpy as np
import pytest

import tf_spline_prune as tsp


def square(n, reach=1.0, seed=0):
    return np.random.default_rng(seed).uniform(-reach, reach, (n, 2))


def injective(K, seed=0):
    """Make a generator that is one to one, for each of its layers is."""
    model = generators.leaky(K, 2, 2, 2, 2, slope=0.3, seed=seed)
    rng = np.random.default_rng(seed)
    values = []
    for value in model.get_weights():
        if value.ndim > 1:
            turn, _ = np.linalg.qr(rng.normal(size=(2, 2)))
            value = turn @ np.diag([1.5, 0.8])
        values.append(value)
    model.set_weights(values)
    return model


def mesh_area(model, reach, n=400):
    """Add up the triangles of a fine mesh; no slope is asked for."""
    steps = np.linspace(-reach, reach, n)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    made = generators.outputs(model, grid).reshape(n, n, -1)
    a, b, c, d = made[:-1, :-1], made[1:, :-1], made[:-1, 1:], made[1:, 1:]

    def triangles(p, q, r):
        q, r = q - p, r - p
        squares = (q**2).sum(-1) * (r**2).sum(-1) - (q * r).sum(-1) ** 2
        return np.sqrt(squares.clip(0)).sum() / 2

    return triangles(a, b, c) + triangles(d, b, c)


def test_the_area_of_a_surface_is_that_of_a_mesh(K):
    model = generators.leaky(K, 2, 10, 8, 3)
    surface = tsp.generative.Surface(model, (-2, 2))
    assert surface.slice.num_regions > 20
    assert surface.area == pytest.approx(mesh_area(model, 2), rel=0.005)
    volumes = np.exp(tsp.generative.log_volumes(model, square(2000, 2)))
    assert 16 * volumes.mean() == pytest.approx(surface.area, rel=0.02)


def test_the_entropy_is_that_of_a_histogram(K):
    model = injective(K)
    surface = tsp.generative.Surface(model, (-1, 1))
    made = generators.outputs(model, square(400_000), slope=0.3)
    counts, *edges = np.histogram2d(*made.T, bins=150)
    cell = np.prod([edge[1] - edge[0] for edge in edges])
    shares = counts[counts > 0] / len(made)
    expected = -(shares * np.log(shares / cell)).sum()
    # Cells that the border cuts make the histogram flatter than it is.
    assert surface.entropy() == pytest.approx(expected, abs=0.03)
    assert abs(surface.entropy() - np.log(4)) > 0.1  # it is not that of the latents
    value, error = tsp.generative.entropy(model, (-1, 1), 2000)
    assert abs(value - surface.entropy()) < 3 * error and 0 < error < 0.05
    # Of a linear map of normal latents it is known in closed form.
    linear = K.Sequential([K.Input((2,)), K.layers.Dense(3)])
    kernel = linear.get_weights()[0].astype("float64")
    value, error = tsp.generative.entropy(linear, samples=5)
    expected = 1 + np.log(2 * np.pi) + np.linalg.slogdet(kernel @ kernel.T)[1] / 2
    assert value == pytest.approx(expected, rel=1e-9) and error < 1e-12


@pytest.mark.parametrize("outputs", [2, 3])
def test_all_latents_of_given_outputs_are_found(K, outputs):
    # Two outputs are folded over each other; three lie beside each other.
    model = generators.leaky(K, 2, 12, outputs, seed=3)
    surface = tsp.generative.Surface(model, (-2, 2))
    z = square(300, 2)
    x = np.asarray(model(z.astype("float32"), training=False))
    owners, found, regions = surface.preimages(x)
    assert set(owners) == set(range(300))
    made = generators.outputs(model, found)
    np.testing.assert_allclose(made, x[owners], atol=1e-5)
    nearest = [np.abs(found[owners == i] - z[i]).max(1).min() for i in range(300)]
    assert max(nearest) < 1e-4
    assert (len(owners) > 330) == (outputs == 2)
    # The regions are those that the latents lie in.
    slopes = surface.slice.affine[0][regions]
    np.testing.assert_allclose(slopes, generators.slopes(model, found), atol=1e-5)
    # By latents and by outputs the density is one, where nothing is folded.
    alone = np.bincount(owners) == 1
    by_latents = tsp.generative.log_density(model, z, (-2, 2))
    by_outputs = surface.log_density(x)
    np.testing.assert_allclose(by_outputs[alone], by_latents[alone], atol=1e-6)
    normal = tsp.generative.log_density(model, z), surface.log_density(x, "normal")
    np.testing.assert_allclose(normal[1][alone], normal[0][alone], atol=1e-4)
    # What is not on the surface is not made; nor what lies behind its border.
    if outputs == 3:
        off = np.cross(*slopes[:, :, :].swapaxes(0, 2).swapaxes(1, 2)[:, :5])
        assert np.isneginf(surface.log_density(x[owners[:5]] + 0.01 * off)).all()
    assert np.isneginf(surface.log_density(np.full((1, outputs), 1e3))).all()


def test_latents_on_the_border_of_regions_are_found_once(K):
    surface = tsp.generative.Surface(model := generators.leaky(K, 2, 12, 3, seed=3))
    corners = np.unique(surface.slice.points.round(12), axis=0)
    owners, found, _ = surface.preimages(generators.outputs(model, corners))
    assert owners.tolist() == list(range(len(corners))) and len(corners) > 20
    np.testing.assert_allclose(found, corners, atol=1e-6)


def test_outputs_near_zero_are_found_too(K):
    model = generators.leaky(K, 2, 6, 3)
    model.layers[-1].bias.assign_sub(generators.outputs(model, np.zeros((1, 2)))[0])
    z = square(20, 1e-4)
    x = np.asarray(model(z.astype("float32"), training=False))
    owners, found, _ = tsp.generative.Surface(model).preimages(x)
    assert owners.tolist() == list(range(20))
    np.testing.assert_allclose(found, z, atol=1e-5)


def test_the_density_of_a_folded_generator_is_that_of_a_histogram(K):
    model = generators.leaky(K, 2, 3, 2)
    into, out = [[1, -1, 0], [0, 0, 1]], [[1, 0.3], [0.5, 0], [0, 1]]
    model.set_weights([np.array(w) for w in (into, [0, 0, 0.3], out, [0, 0])])
    surface = tsp.generative.Surface(model)
    made = generators.outputs(model, square(1_000_000, seed=1))
    counts, *edges = np.histogram2d(*made.T, bins=40)
    cell = np.prod([edge[1] - edge[0] for edge in edges])
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(surface.log_density(grid)).reshape(40, 40)
    # In cells that no fold crosses the density hardly changes.
    flat = np.ones((40, 40), bool)
    flat[[0, -1]] = flat[:, [0, -1]] = False
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
        flat &= np.isclose(np.roll(density, shift, (0, 1)), density, rtol=1e-6)
    twice = np.bincount(surface.preimages(grid)[0], minlength=1600).reshape(40, 40) > 1
    assert flat.sum() > 300 and (flat & twice).sum() > 20
    measured = counts / (len(made) * cell)
    error = np.sqrt(density * cell * len(made)) / (cell * len(made))
    assert (np.abs(measured - density)[flat] <= 5 * error[flat]).all()


def test_what_is_drawn_is_even_over_the_surface(K):
    model = injective(K, 1)
    sampler = tsp.generative.Sampler(model, square(60_000))
    surface = tsp.generative.Surface(model, (-1, 1))
    made = generators.outputs(model, square(400_000, seed=2), slope=0.3)
    edges = [np.linspace(*np.quantile(axis, [0, 1]), 16) for axis in made.T]
    inside = np.histogram2d(*made.T, edges)[0]
    # Cells of one area that the surface covers whole: corners of a fine grid in each.
    fine = [np.linspace(edge[0], edge[-1], 61) for edge in edges]
    grid = np.stack(np.meshgrid(*fine, indexing="ij"), -1).reshape(-1, 2)
    on = np.isfinite(surface.log_density(grid)).reshape(61, 61)
    whole = np.array(
        [
            [on[4 * i : 4 * i + 5, 4 * j : 4 * j + 5].all() for j in range(15)]
            for i in range(15)
        ]
    )
    assert whole.sum() > 50 and (inside[whole] > 0).all()
    spread = {}
    for rho in (0.0, 1.0):
        drawn = generators.outputs(model, sampler.draw(60_000, rho), slope=0.3)
        counts = np.histogram2d(*drawn.T, edges)[0][whole]
        spread[rho] = (counts / counts.mean()).std() * np.sqrt(counts.mean())
    # Counts of an even spread vary by the root of their mean; the pool is drawn twice.
    assert spread[1.0] < 2 < 5 < spread[0.0]


def test_polarity_moves_the_density_one_way(K):
    model = generators.leaky(K, 3, 16, 16, 8)
    pool = np.random.default_rng(0).normal(size=(3000, 3)).astype("float32")
    sampler = tsp.generative.Sampler(model, pool)
    means = []
    for rho in (-2, -1, 0, 1, 2):
        drawn = sampler.draw(2000, rho)
        assert drawn.shape == (2000, 3) and drawn.dtype == "float32"
        means.append(-tsp.generative.log_volumes(model, drawn).mean())
        weights = np.exp(sampler.log_volumes) ** rho
        np.testing.assert_allclose(
            sampler.probabilities(rho), weights / weights.sum(), rtol=1e-9
        )
    assert (np.diff(means) < -0.1).all()
    # The draws follow the seed, and without replacement none comes twice.
    assert (sampler.draw(9, 1.0) == sampler.draw(9, 1.0)).all()
    assert (sampler.draw(9, 1.0) != sampler.draw(9, 1.0, seed=1)).any()
    once = sampler.draw(3000, 5.0, replace=False)
    assert len(np.unique(once, axis=0)) == 3000
    # The first one of a draw without replacement has the weights as its chances.
    few = tsp.generative.Sampler(model, pool[:3])
    first = [few.draw(1, 2.0, replace=False, seed=seed)[0] for seed in range(2000)]
    shares = [(first == row).all(axis=1).mean() for row in pool[:3]]
    np.testing.assert_allclose(shares, few.probabilities(2.0), atol=0.04)
    # Weights far beyond what float64 holds.
    assert sampler.probabilities(1e4).sum() == pytest.approx(1)
    assert len(sampler.draw(5, 1e4, replace=False)) == 5


def transport(K, apart, knots):
    """Make the generator that takes normal latents to two modes, by its knots."""
    from statistics import NormalDist

    normal = NormalDist()
    narrow = NormalDist(0, 0.1)
    x = np.linspace(-apart / 2 - 0.35, apart / 2 + 0.35, 4001)
    chance = np.array(
        [(narrow.cdf(v + apart / 2) + narrow.cdf(v - apart / 2)) / 2 for v in x]
    )
    levels = np.array([normal.cdf(k) for k in knots])
    values = np.interp(levels, chance, x)
    rises = np.diff(values) / np.diff(knots)
    L = K.layers
    model = K.Sequential(
        [
            K.Input((1,)),
            L.Dense(len(rises), activation="relu"),
            L.Dense(1),
        ]
    )
    turns = np.diff(rises, prepend=0)
    kernel = np.ones((1, len(rises)))
    model.set_weights([kernel, -knots[:-1], turns[:, None], values[:1]])
    return model, rises


def test_slopes_grow_as_modes_move_apart(K):
    knots = np.linspace(-2.5, 2.5, 42)
    middles = (knots[:-1] + knots[1:])[:, None] / 2
    steepest = []
    for apart in (0.5, 1.0, 2.0, 4.0):
        model, rises = transport(K, apart, knots)
        found = tsp.generative.log_volumes(model, middles)
        np.testing.assert_allclose(found, np.log(rises), rtol=0, atol=1e-4)
        steepest.append(found.max())
    # Between the modes the surface is stretched as far as they are apart.
    widest = np.diff(np.exp(steepest)) * np.diff(knots)[0]
    np.testing.assert_allclose(widest, [0.5, 1.0, 2.0], rtol=0.01)


def test_the_error_of_an_autoencoder_drops_at_the_dimension_of_the_data():
    import keras

    L, rng = keras.layers, np.random.default_rng(0)
    x = rng.uniform(-1, 1, (256, 2)) @ rng.normal(size=(2, 6))
    errors = {}
    for size in (1, 2, 3):
        keras.utils.set_random_seed(1)
        decoder = [L.Dense(6), L.LeakyReLU(), L.Dense(6)]
        model = keras.Sequential([keras.Input((6,)), L.Dense(size), *decoder])
        optimizer = keras.optimizers.Adam(0.02)
        model.compile(optimizer, "mse", jit_compile=False)
        often = np.tile(x, (40, 1))
        model.fit(often, often, batch_size=32, verbose=0)
        made = np.asarray(model(x.astype("float32")))
        errors[size] = np.linalg.norm(made - x, axis=1).mean()
        assert tsp.jacobian_rank(model, x[:20]).max() == size
    assert errors[1] > 10 * errors[2] and errors[2] < 5 * errors[3]


def collapsed(K):
    L = K.layers
    model = K.Sequential([K.Input((2,)), L.Dense(3, activation="relu"), L.Dense(3)])
    model.layers[0].set_weights(
        [np.array([[1, 0, 1], [0, 1, 1.0]]), np.array([0.5, 0.5, 0])]
    )
    return model


def test_where_there_is_no_density(K):
    g, model = tsp.generative, collapsed(K)
    z = np.array([[0.9, 0.9], [-0.9, 0.9], [-0.9, -0.9]])
    assert tsp.jacobian_rank(model, z).tolist() == [2, 1, 0]
    surface = g.Surface(model)
    assert surface.area > 0
    for call in (
        lambda: g.log_density(model, z),
        lambda: g.entropy(model),
        surface.entropy,
        lambda: surface.log_density(np.zeros((1, 3))),
    ):
        with pytest.raises(ValueError, match="density is infinite"):
            call()
    sampler = g.Sampler(model, z)
    assert sampler.probabilities(1.0).tolist() == [1, 0, 0]
    assert (sampler.probabilities(0) == 1 / 3).all()
    with pytest.raises(ValueError, match="2 of 3 latents"):
        sampler.draw(1, -1.0)
    with pytest.raises(ValueError, match=r"above zero, 1.*n=2"):
        sampler.draw(2, 1.0, replace=False)


def test_wrong_input(K):
    g, model = tsp.generative, generators.leaky(K, 2, 6, 3)
    z = square(4)
    for prior in ("gauss", (1.0, 0.0), (0.0, np.inf), (1.0,), 3):
        with pytest.raises(ValueError, match="`prior` must be"):
            g.log_density(model, z, prior)
        with pytest.raises(ValueError, match="`prior` must be"):
            g.entropy(model, prior)
    outside = g.log_density(model, 3 * np.ones((1, 2)), (-1, 1))
    assert np.isneginf(outside).all()
    with pytest.raises(ValueError, match="samples=1"):
        g.entropy(model, samples=1)
    L = K.layers
    opened = K.Sequential([K.Input((None, 2)), L.Dense(3)])
    with pytest.raises(ValueError, match="fixed shape"):
        g.entropy(opened)
    with pytest.raises(ValueError, match="with 3 latents"):
        g.Surface(generators.leaky(K, 3, 6, 3))
    with pytest.raises(ValueError, match="one output"):
        g.Surface(generators.leaky(K, 2, 6, 1))
    ended = generators.leaky(K, 2, 6, 3, ending="sigmoid")
    with pytest.raises(ValueError, match=f"smooth.*{ended.layers[-1].name}"):
        g.Surface(ended)
    assert np.isfinite(g.log_density(ended, z)).all()
    with pytest.raises(RuntimeError, match="max_regions"):
        g.Surface(model, max_regions=2)
    surface = g.Surface(model)
    for data in (np.zeros((2, 2)), np.zeros((0, 3)), np.full((1, 3), np.nan)):
        with pytest.raises(ValueError, match="3 per output"):
            surface.log_density(data)
    with pytest.raises(ValueError, match="tolerance=0"):
        surface.preimages(np.zeros((1, 3)), tolerance=0)
    sampler = g.Sampler(model, z)
    with pytest.raises(ValueError, match="n=0"):
        sampler.draw(0)
    with pytest.raises(ValueError, match="rho=nan"):
        sampler.draw(1, np.nan)
