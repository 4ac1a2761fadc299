"""Exact slices against brute force, codes taken on their own, and plain geometry."""

import itertools

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import with_dtype

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def chain(K):
    L = K.layers
    return K.Sequential(
        [
            K.Input((2,)),
            L.Dense(12, activation="relu", name="first"),
            L.Dense(10, activation="relu", name="second"),
            L.Dense(3, activation="softmax", name="head"),
        ]
    )


def leaky_and_abs(K):
    L = K.layers
    x = inputs = K.Input((2,))
    x = L.LeakyReLU(name="leaky")(L.Dense(9)(x))
    x = L.PReLU(name="prelu")(L.Dense(8)(x))
    x = L.ReLU(max_value=2.0, negative_slope=0.1, name="clipped")(L.Dense(8)(x))
    return K.Model(inputs, L.Dense(1, activation="sigmoid")(x))


def relu6_and_hard_sigmoid(K):
    L = K.layers
    x = inputs = K.Input((2,))
    x = L.ReLU(max_value=6.0, name="six")(L.Dense(9)(x))
    x = L.Dense(8, activation="hard_sigmoid", name="hard")(x)
    return K.Model(inputs, L.Dense(2)(x))


def residual_concat_nested(K):
    L = K.layers
    block_in = K.Input((6,))
    y = L.Dense(6, activation="relu")(L.BatchNormalization()(block_in))
    y = L.Add()([L.Dense(6)(y), block_in])
    block = K.Model(block_in, L.ReLU(name="out")(y), name="block")
    x = inputs = K.Input((2,))
    x = block(block(L.Dense(6)(x)))
    x = L.Concatenate()([x, L.Dense(5, activation="relu")(inputs)])
    return K.Model(inputs, L.Dense(2)(x))


def pooled_images(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 1))
    x = L.Conv2D(2, 3, name="conv")(x)
    x = L.MaxPooling2D(3, 2, padding="same", name="before")(x)
    x = L.ReLU(name="act")(x)
    x = L.MaxPooling2D(2, 1, name="after")(x)
    return K.Model(inputs, L.Dense(2)(L.Flatten()(x)))


def global_pool(K):
    L = K.layers
    x = inputs = K.Input((5, 5, 1))
    x = L.Conv2D(4, 3, activation="relu", name="conv")(x)
    return K.Model(inputs, L.Dense(3)(L.GlobalMaxPooling2D(name="pool")(x)))


def small_images(K):
    L = K.layers
    x = inputs = K.Input((4, 4, 2))
    x = zoo.conv_bn(K, x, 3, "stem")
    y = zoo.conv_bn(K, x, 3, "r", act=None)
    x = L.Activation("relu", name="sum")(L.Add()([x, y]))
    return K.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


def deep_residual(K):
    L = K.layers
    x = inputs = K.Input((2,))
    x = L.Dense(5)(x)
    for _ in range(10):
        y = L.ReLU()(L.BatchNormalization()(x))
        y = L.Dense(5)(L.Dense(5, activation="relu")(y))
        x = L.Add()([x, y])
    return K.Model(inputs, L.Dense(2)(x))


MODELS = [
    (chain, 3.0),
    (leaky_and_abs, 3.0),
    (relu6_and_hard_sigmoid, 6.0),
    (residual_concat_nested, 3.0),
    (pooled_images, 1.0),
    (global_pool, 1.0),
    (small_images, 1.0),
    (deep_residual, 3.0),
]


def sliced(model, reach, **arguments):
    shape = model.input_shape[1:]
    anchors = PLANE
    if len(shape) > 1:
        anchors = np.random.default_rng(5).normal(size=(3, *shape))
    return tsp.slice2d(model, anchors, (-reach, reach), **arguments), anchors


def inputs_at(anchors, points):
    first, second, third = anchors
    flat = np.stack([second - first, third - first]).reshape(2, -1)
    return (points @ flat).reshape(-1, *first.shape) + first


def coded(model, anchors, points):
    coder = tsp.PartitionCoder(model, max_units_per_layer=None, batch_size=4096)
    return whole(coder(inputs_at(anchors, points)))


def whole(codes):
    return np.concatenate([codes.unpack(name) for name in codes.layers], axis=1)


def inner_points(s, rng, count=3):
    """Draw points inside each region, and say whose they are."""
    points, owners = [], []
    for i, region in enumerate(np.split(s.points, s.offsets[1:-1])):
        weights = rng.dirichlet(np.ones(len(region)), count)
        points.append(weights @ region)
        owners += [i] * count
    return np.concatenate(points), np.array(owners)


def logits(model, x):
    """Run the model without the function that ends it."""
    ending = model.layers[-1]
    activation, ending.activation = ending.activation, lambda x: x
    try:
        return np.asarray(model(x, training=False))
    finally:
        ending.activation = activation


@pytest.mark.parametrize(
    ("make", "reach"), MODELS, ids=lambda v: getattr(v, "__name__", str(v))
)
def test_regions_are_those_that_brute_force_finds(K, make, reach):
    model = zoo.settle(make(K))
    exact = with_dtype(model, "float64")
    s, anchors = sliced(model, reach)
    assert s.complete
    assert s.num_regions > 15
    np.testing.assert_allclose(s.areas.sum(), 4 * reach**2, rtol=1e-12)
    assert (s.areas > 0).all()
    # A code is an intersection of half planes, hence one convex region.
    codes = whole(s.codes)
    assert len(np.unique(codes, axis=0)) == s.num_regions
    rng = np.random.default_rng(0)
    steps = np.linspace(-reach, reach, 81) * (1 - 1e-6)
    grid = np.array(list(itertools.product(steps, steps)))
    points = np.concatenate([grid, rng.uniform(-reach, reach, (3000, 2))])
    known = {code.tobytes() for code in codes}
    seen = {code.tobytes() for code in coded(exact, anchors, points)}
    assert len(seen) > 15
    assert seen <= known
    # All over a region the code is its own, and the outputs are its affine map.
    points, owners = inner_points(s, rng)
    big = s.areas[owners] > 1e-9
    np.testing.assert_array_equal(
        coded(exact, anchors, points)[big], codes[owners[big]]
    )
    slopes, offsets = s.affine
    expected = logits(exact, inputs_at(anchors, points))
    given = np.einsum("rod,rd->ro", slopes[owners], points) + offsets[owners]
    np.testing.assert_allclose(given, expected, 0, 1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("make", "reach"),
    [*MODELS[:2], (global_pool, 2.0), (small_images, 4.0)],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_the_boundary_is_where_the_answer_changes(K, make, reach):
    model = zoo.settle(make(K))
    exact = with_dtype(model, "float64")
    s, anchors = sliced(model, reach)
    share = np.random.default_rng(0).random((len(s.boundary), 1))
    on = s.boundary[:, 0] * share + s.boundary[:, 1] * (1 - share)

    def outputs(points):
        found = logits(exact, inputs_at(anchors, points))
        return found if found.shape[1] > 1 else np.hstack([found, 0 * found])

    steps = np.linspace(-reach, reach, 40) * (1 - 1e-5)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
    everywhere = outputs(grid.reshape(-1, 2))
    values = np.sort(outputs(on), axis=1)
    assert len(on) > 3
    np.testing.assert_allclose(
        values[:, -1], values[:, -2], rtol=0, atol=1e-10 * np.abs(everywhere).max()
    )
    # Where the answer changes between neighbours on the grid, the boundary passes.
    answers = everywhere.argmax(axis=1).reshape(40, 40)
    changes = np.argwhere(answers[1:] != answers[:-1])
    assert len(changes) > 3
    for i, j in changes:
        assert crossed(s.boundary, steps[i], steps[i + 1], steps[j])


def crossed(segments, left, right, height):
    """Tell whether a segment crosses the level line from `left` to `right`."""
    (x0, y0), (x1, y1) = segments[:, 0].T, segments[:, 1].T
    across = (y0 - height) * (y1 - height) <= 0
    with np.errstate(all="ignore"):
        x = x0 + (height - y0) / (y1 - y0) * (x1 - x0)
    return (across & (x >= left - 1e-9) & (x <= right + 1e-9)).any()


def arrangement(lines, reach):
    """Count the regions of lines in general position: 1 + crossing + intersections."""
    corners = np.array(list(itertools.product([-reach, reach], repeat=2)))
    sides = corners @ lines[:, :2].T + lines[:, 2] > 0
    count = 1 + int((sides.any(axis=0) & ~sides.all(axis=0)).sum())
    for one, two in itertools.combinations(lines, 2):
        point = np.linalg.solve([one[:2], two[:2]], [-one[2], -two[2]])
        count += bool((np.abs(point) < reach).all())
    return count


def one_layer(K, kernel, bias):
    L = K.layers
    model = K.Sequential(
        [K.Input((2,)), L.Dense(len(bias), activation="relu", name="act"), L.Dense(1)]
    )
    model.layers[0].set_weights([kernel.astype("float32"), bias.astype("float32")])
    return model


@pytest.mark.parametrize("units", [1, 7, 40, 90])
def test_one_layer_is_an_arrangement_of_lines(K, units):
    rng = np.random.default_rng(units)
    kernel, bias = rng.normal(size=(2, units)), rng.normal(size=units)
    s = tsp.slice2d(one_layer(K, kernel, bias), PLANE, (-2, 2))
    lines = np.vstack([kernel, bias]).astype("float32").astype("float64").T
    assert s.num_regions == arrangement(lines, 2.0)
    # Each unit's line is drawn once, over its whole length.
    drawn = np.linalg.norm(np.diff(s.lines["act"], axis=1)[:, 0], axis=1).sum()
    expected = 0.0
    for a, b, c in lines:
        cuts = [(x, -(c + a * x) / b) for x in (-2, 2)]
        cuts += [(-(c + b * y) / a, y) for y in (-2, 2)]
        ends = [p for p in cuts if max(map(abs, p)) <= 2]
        if ends:
            expected += np.linalg.norm(np.subtract(*ends))
    np.testing.assert_allclose(drawn, expected, rtol=1e-10)


def test_lines_that_coincide_or_only_touch_cut_nothing(K):
    # x + y = 0 four times, once turned, once scaled; through the corner (1, 1); dead.
    kernel = np.array([[1, -1, 3, 0.1, 1, 0], [1, -1, 3, 0.1, 1, 0]])
    bias = np.array([0, 0, 0, 0, -2, -1])
    s = tsp.slice2d(one_layer(K, kernel, bias), PLANE, (-1, 1))
    assert s.num_regions == 2
    np.testing.assert_allclose(np.sort(s.areas), [2, 2])
    # Lines through one point, which is a corner of the others' regions.
    angles = np.arange(12) * np.pi / 12 + 0.1
    star = np.stack([np.cos(angles), np.sin(angles)])
    s = tsp.slice2d(one_layer(K, star, np.zeros(12)), PLANE, (-1, 1))
    assert s.num_regions == 24


def test_a_slice_in_one_region(K):
    s = tsp.slice2d(one_layer(K, np.ones((2, 3)), np.full(3, 9.0)), PLANE)
    assert s.num_regions == 1
    assert s.born.tolist() == [""]
    assert s.boundary.shape == (0, 2, 2)
    assert s.regions[0].code.all()
    np.testing.assert_allclose(s.regions[0].polygon, [[0, 0], [1, 0], [1, 1], [0, 1]])


def test_the_boundary_may_run_along_a_knot(K):
    model = one_layer(K, np.array([[1.0, -1.0], [0, 0]]), np.zeros(2))
    model.layers[1].set_weights([np.array([[1.0], [-0.5]]), np.zeros(1)])
    s = tsp.slice2d(model, PLANE, (-1, 1))
    assert s.num_regions == 2
    ((start, end),) = s.boundary
    np.testing.assert_allclose(np.abs([start, end]), [[0, 1], [0, 1]], atol=1e-12)


def test_two_classes_have_a_boundary_of_their_own(K):
    model = zoo.settle(chain(K))
    exact = with_dtype(model, "float64")
    s, _ = sliced(model, 3.0, classes=(2, 0))
    values = logits(exact, s.boundary.mean(axis=1))
    np.testing.assert_allclose(values[:, 0], values[:, 2], rtol=0, atol=1e-10)
    # Not the largest two everywhere: it goes on through the third class.
    assert (values.argmax(axis=1) == 1).any()


def test_regions_one_by_one_and_who_cut_them(K):
    model = zoo.settle(chain(K))
    s, _ = sliced(model, 3.0)
    first, _ = sliced(model, 3.0, layers=["first"])
    assert first.layers == ("first",)
    assert not first.complete
    assert set(s.born) == {"first", "second"}
    assert len(s.regions) == s.num_regions
    # A region that the second layer did not cut is a region of the first.
    old = {tuple(np.round(np.sort(r.polygon.sum(1)), 9)) for r in first.regions}
    for region, area in zip(s.regions, s.areas, strict=True):
        x, y = region.polygon.T
        turned = x * np.roll(y, -1) - np.roll(x, -1) * y
        assert region.area == area
        np.testing.assert_allclose(turned.sum() / 2, area, atol=1e-12)
        assert region.code.shape == (22,)
        same = tuple(np.round(np.sort(region.polygon.sum(1)), 9)) in old
        assert same == (region.born == "first")
    np.testing.assert_allclose(first.areas.sum(), 36)
    assert s.regions[-1].area == s.areas[-1]


def test_operations_with_numbers_before_or_after_the_tensor():
    import keras

    L, ops = keras.layers, keras.ops
    x = inputs = keras.Input((2,))
    x = ops.maximum(0.25, L.Dense(7)(x))
    x = ops.clip(L.Dense(6)(x), -1.0, 0.5)
    x = ops.minimum(ops.abs(L.Dense(6)(x)), 1.0)
    model = zoo.settle(keras.Model(inputs, L.Dense(2)(x)))
    s = tsp.slice2d(model, PLANE, (-3, 3))
    assert len(np.unique(whole(s.codes), axis=0)) == s.num_regions > 30
    points, owners = inner_points(s, np.random.default_rng(0))
    exact = with_dtype(model, "float64")
    slopes, offsets = s.affine
    given = np.einsum("rod,rd->ro", slopes[owners], points) + offsets[owners]
    np.testing.assert_allclose(given, np.asarray(exact(points)), rtol=0, atol=1e-10)


def test_a_network_without_knots_is_one_region(K):
    L = K.layers
    model = zoo.settle(K.Sequential([K.Input((2,)), L.Dense(3)]))
    s = tsp.slice2d(model, PLANE, (-3, 3))
    assert s.complete
    assert (s.num_regions, s.layers, s.exact_through) == (1, (), None)
    assert s.regions[0].code.shape == (0,)
    kernel, bias = model.get_weights()
    slopes, offsets = s.affine
    np.testing.assert_allclose(slopes[0], kernel.T, rtol=1e-12)
    np.testing.assert_allclose(offsets[0], bias, rtol=0, atol=1e-12)
