"""Layers made of layers whose `call` reads the size of the batch, as in KerasHub."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError

LENGTH, WIDTH, HEADS, SIZE = 6, 8, 4, 4


class Turn(layers.Layer):
    """Rotates pairs of dimensions by the position, as a rotary embedding."""

    def call(self, x):
        angles = ops.arange(ops.shape(x)[1], dtype="float32")[None, :, None, None]
        rates = ops.power(10.0, -ops.arange(SIZE // 2, dtype="float32"))
        angles = angles * rates
        first, second = ops.split(x, 2, axis=-1)
        cos, sin = ops.cos(angles), ops.sin(angles)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return ops.concatenate(turned, axis=-1)


class Attention(layers.Layer):
    """Self-attention that returns its cache, if it has one, beside the result."""

    def build(self, shape):
        heads = {"output_shape": (None, HEADS, SIZE)}
        self.query = layers.EinsumDense("btd,dhk->bthk", **heads, name="query")
        self.key = layers.EinsumDense("btd,dhk->bthk", **heads, name="key")
        self.value = layers.EinsumDense("btd,dhk->bthk", **heads, name="value")
        self.out = layers.EinsumDense("bthk,hkd->btd", (None, WIDTH), name="out")
        for part in (self.query, self.key, self.value):
            part.build((None, None, WIDTH))
        self.out.build((None, None, HEADS, SIZE))
        self.turn = Turn()

    def call(self, x, seen=None, cache=None):
        query, key = self.turn(self.query(x)), self.turn(self.key(x))
        scores = ops.einsum("bthk,bshk->bhts", query, key) / 2.0
        scores = ops.where(seen[:, None], scores, -1e9)
        weights = ops.softmax(scores, axis=-1)
        return self.out(ops.einsum("bhts,bshk->bthk", weights, self.value(x))), cache


class Block(layers.Layer):
    """A decoder block: a causal mask of `(batch, length, length)`."""

    def build(self, shape):
        self.attention = Attention(name="attention")
        self.attention.build(shape)
        self.up = layers.Dense(12, activation="relu", name="up")
        self.down = layers.Dense(WIDTH, name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], 12))

    def call(self, x, padding=None):
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        mask = ops.arange(length)[:, None] >= ops.arange(length)
        mask = ops.broadcast_to(mask, (batch, length, length))
        if padding is not None:
            mask = ops.logical_and(mask, ops.cast(padding, "bool")[:, None])
        attended, _ = self.attention(x, seen=mask)
        x = ops.reshape(x + attended, (batch * length, WIDTH))
        return ops.reshape(x + self.down(self.up(x)), (batch, length, WIDTH))


def agrees_with_zeros(model, small, consumer, rows, batches=(1, 4)):
    """Zero what a layer reads of units that are gone, and compare."""
    kernel = consumer.kernel.numpy()
    kernel[rows] = 0
    consumer.kernel.assign(kernel)
    for batch in batches:
        x = np.random.default_rng(0).normal(size=(batch, LENGTH, WIDTH))
        x = x.astype("float32")
        np.testing.assert_allclose(small(x), model(x), atol=1e-6)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    x = keras.Input((LENGTH, WIDTH), name="x")
    padding = keras.Input((LENGTH,), dtype="int32", name="padding")
    y = Block(name="block")(x, padding=padding)
    return keras.Model({"x": x, "padding": padding}, layers.Dense(3, name="top")(y))


def inputs(batch):
    x = np.random.default_rng(batch).normal(size=(batch, LENGTH, WIDTH))
    padding = np.ones((batch, LENGTH), "int32")
    padding[0, -2:] = 0
    return {"x": x.astype("float32"), "padding": padding}


def test_a_block_with_a_causal_mask_loses_neurons_and_heads(model):
    graph = tsp.ChannelGraph(model)
    sizes = {group.name: group.num_units for group in graph.groups}
    assert sizes["block/up"] == 12
    assert sizes["block/key/h"] == HEADS
    small = tsp.remove_units(model, {"block/up": [0, 7], "block/key/h": [1]})

    block = model.get_layer("block")
    down = block.down.kernel.numpy()
    down[[0, 7]] = 0
    block.down.kernel.assign(down)
    out = block.attention.out.kernel.numpy()
    out[1] = 0
    block.attention.out.kernel.assign(out)
    for batch in (1, 2, 3, 5):
        given = inputs(batch)
        expected = model.predict(given, verbose=0)
        np.testing.assert_allclose(small.predict(given, verbose=0), expected, atol=1e-5)


def test_its_cost_and_verification_are_numbers_and_it_reloads(model, tmp_path):
    macs = tsp.cost(model).macs
    projections, products = 4 * WIDTH * HEADS * SIZE, 2 * LENGTH * HEADS * SIZE
    assert macs == LENGTH * (projections + products + 2 * 12 * WIDTH + 3 * WIDTH)
    plan = tsp.plan(model, "magnitude", target_macs=0.7)
    small = plan.apply(model)
    assert tsp.cost(small).macs <= 0.7 * macs
    assert tsp.verify(model, small, plan) < 1e-5
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    given = inputs(3)
    np.testing.assert_array_equal(again(given), small(given))


def test_names_are_as_before_and_the_same_in_every_trace(model):
    names = [layer.name for layer in model.get_layer("block")._flatten_layers()]
    graphs = [tsp.ChannelGraph(model) for _ in range(2)]
    assert [*graphs[0].graph.layers] == [*graphs[1].graph.layers]
    assert names == [layer.name for layer in model.get_layer("block")._flatten_layers()]


class PerBatch(layers.Layer):
    def build(self, shape):
        self.inside = layers.Dense(WIDTH)
        self.inside.build(shape)

    def call(self, x):
        return self.inside(x) / ops.cast(ops.shape(x)[0], "float32")


class Ranked(PerBatch):
    def call(self, x):
        places = ops.arange(ops.shape(x)[0], dtype="float32")
        return self.inside(x) * places[:, None]


@pytest.mark.parametrize("kind", [PerBatch, Ranked])
def test_a_layer_whose_numbers_hang_on_the_batch_stays_a_barrier(kind):
    x = keras.Input((WIDTH,))
    y = layers.Dense(10, activation="relu", name="first")(x)
    model = keras.Model(x, layers.Dense(2)(kind(name="odd")(y)))
    graph = tsp.ChannelGraph(model)
    assert not graph.groups
    assert "odd" in graph.explain("first")


class Noisy(layers.Layer):
    """Behaves otherwise in training; is told so by Keras, not by its caller."""

    def build(self, shape):
        self.inside = layers.Dense(WIDTH)
        self.inside.build(shape)

    def call(self, x, training=None):
        x = self.inside(x)
        return ops.relu(x) if training else x


class Around(layers.Layer):
    """Reads the size of the batch, and holds what behaves otherwise in training."""

    def build(self, shape):
        self.noisy = Noisy()
        self.noisy.build(shape)

    def call(self, x):
        batch, length = ops.shape(x)[0], ops.shape(x)[1]
        ones = ops.broadcast_to(ops.ones((1, 1, 1)), (batch, length, 1))
        return self.noisy(x) * ones


def test_a_part_that_is_another_in_training_is_not_traced_as_in_inference():
    x = keras.Input((LENGTH, WIDTH))
    y = layers.Dense(10, activation="relu", name="first")(x)
    model = keras.Model(x, layers.Dense(2)(Around(name="odd")(y)))
    graph = tsp.ChannelGraph(model)
    assert [group.name for group in graph.groups] in ([], ["first"])
    assert "in training" in graph.explain("odd")


class Flat(layers.Layer):
    """Attention of plain `Dense` layers, whose shapes are cut and joined with -1."""

    def build(self, shape):
        self.value = layers.Dense(WIDTH, name="value")
        self.out = layers.Dense(WIDTH, name="out")
        for part in (self.value, self.out):
            part.build(shape)

    def call(self, x):
        batch, length, _ = ops.shape(x)
        y = ops.reshape(self.value(x), (batch, length, 2, WIDTH // 2))
        return self.out(ops.reshape(y, (batch, length, -1)))


def test_a_size_that_a_reshape_leaves_open_is_known():
    x = keras.Input((LENGTH, WIDTH))
    model = keras.Model(x, layers.Dense(2)(Flat(name="flat")(x)))
    graph = tsp.ChannelGraph(model)
    assert {group.name: group.num_units for group in graph.groups}["flat/value"] == 4
    small = tsp.remove_units(model, {"flat/value": [1]})
    agrees_with_zeros(model, small, model.get_layer("flat").out, [1, 5])


class Rotary(layers.Layer):
    """Attention of `Dense` layers: heads by a reshape, dimensions turned in pairs."""

    def __init__(self, kernel, **kwargs):
        super().__init__(**kwargs)
        self.kernel = kernel

    def build(self, shape):
        for name in ("query", "key", "value", "out"):
            setattr(self, name, layers.Dense(HEADS * SIZE, name=name))
        for part in (self.query, self.key, self.value):
            part.build(shape)
        self.out.build((*shape[:-1], HEADS * SIZE))

    def call(self, x):
        batch, length, _ = ops.shape(x)
        shape = (batch, length, HEADS, SIZE)
        query, key, value = (
            ops.reshape(part(x), shape) for part in (self.query, self.key, self.value)
        )
        turn = ops.concatenate([-query[..., 2:], query[..., :2]], axis=-1)
        query = query * 0.5 + turn * 0.25
        if self.kernel:
            y = ops.dot_product_attention(query, key, value, scale=0.5)
        else:
            scores = ops.softmax(ops.einsum("bthd,bshd->bhts", query, key) / 2.0)
            y = ops.einsum("bhts,bshd->bthd", scores, value)
        return self.out(ops.reshape(y, (batch, length, -1)))


@pytest.mark.parametrize("kernel", [True, False])
def test_heads_are_units_where_dimensions_must_stay(kernel):
    keras.utils.set_random_seed(0)
    x = keras.Input((LENGTH, WIDTH))
    y = layers.Dense(2)(Rotary(kernel, name="attention")(x))
    model = keras.Model(x, y)
    graph = tsp.ChannelGraph(model)
    sizes = {group.name: group.num_units for group in graph.groups}
    assert HEADS in sizes.values()
    name = next(name for name, size in sizes.items() if size == HEADS)
    group = next(group for group in graph.groups if group.name == name)
    parts = {"attention/query", "attention/key", "attention/value"}
    assert set(group.makers) == parts
    # Four projections and two products.
    macs = LENGTH * HEADS * SIZE * (4 * WIDTH + 2 * LENGTH)
    macs += LENGTH * HEADS * SIZE * (HEADS * SIZE - WIDTH + 2)
    assert tsp.cost(model).macs == macs
    small = tsp.remove_units(model, {"attention/query": list(range(SIZE, 2 * SIZE))})
    assert small.get_layer("attention").get_layer("key").units == (HEADS - 1) * SIZE
    out = model.get_layer("attention").out
    kernel = out.kernel.numpy()
    kernel[SIZE : 2 * SIZE] = 0
    out.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(3, LENGTH, WIDTH))
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)


def test_dimensions_of_a_fused_attention_without_a_scale_must_stay():
    x = keras.Input((LENGTH, WIDTH))
    parts = [
        layers.EinsumDense("btd,dhk->bthk", (None, HEADS, SIZE), name=name)(x)
        for name in ("query", "key", "value")
    ]
    y = ops.dot_product_attention(*parts)
    out = layers.EinsumDense("bthk,hkd->btd", (None, WIDTH), name="out")
    model = keras.Model(x, out(y))
    graph = tsp.ChannelGraph(model)
    assert {group.name: group.num_units for group in graph.groups} == {"query/h": HEADS}
    assert "root" in graph.explain("query/k")
    small = tsp.remove_units(model, {"query/h": [2]})
    kernel = out.kernel.numpy()
    kernel[2] = 0
    out.kernel.assign(kernel)
    x = np.random.default_rng(0).normal(size=(3, LENGTH, WIDTH))
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)


class Several(layers.Layer):
    """Gives something of no size besides, which nothing takes in, as in DeiT."""

    def __init__(self, scale=False, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, shape):
        self.up = layers.Dense(12, activation="relu", name="up")
        self.down = layers.Dense(WIDTH, name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], 12))
        if self.scale:
            self.gamma = self.add_weight(shape=(12,), name="gamma")

    def call(self, x):
        y = self.up(x)
        y = y * self.gamma if self.scale else y
        return self.down(y), ops.zeros((0, LENGTH, WIDTH))


def test_what_nothing_takes_in_need_not_be_traced(tmp_path):
    x = keras.Input((LENGTH, WIDTH))
    y, _ = Several(name="several")(x)
    model = keras.Model(x, layers.Dense(2)(y))
    small = tsp.remove_units(model, {"several/up": [0, 3]})
    agrees_with_zeros(model, small, model.get_layer("several").down, [0, 3])
    x = np.random.default_rng(0).normal(size=(3, LENGTH, WIDTH)).astype("float32")
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again(x), small(x))


def test_why_a_layer_is_not_traced_is_said():
    x = keras.Input((LENGTH, WIDTH))
    y, _ = Several(scale=True, name="several")(x)
    model = keras.Model(x, layers.Dense(2)(y))
    assert "weights of its own: gamma" in tsp.ChannelGraph(model).explain("several")


class Windows(layers.Layer):
    """Attention on windows whose inner layer has a weight of its own, as in Swin."""

    def build(self, shape):
        self.inner = Several(scale=True, name="inner")
        self.inner.build((None, LENGTH // 2, WIDTH))
        self.up = layers.Dense(10, activation="relu", name="up")
        self.down = layers.Dense(WIDTH, name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], 10))

    def call(self, x):
        batch = ops.shape(x)[0]
        y = ops.reshape(x, (batch * 2, LENGTH // 2, WIDTH))
        y, _ = self.inner(y)
        y = ops.reshape(y, (ops.shape(y)[0] // 2, LENGTH, WIDTH))
        return y + self.down(self.up(y))


def test_only_the_part_that_cannot_be_traced_is_a_barrier():
    x = keras.Input((LENGTH, WIDTH))
    model = keras.Model(x, layers.Dense(2)(Windows(name="windows")(x)))
    graph = tsp.ChannelGraph(model)
    assert {g.name: g.num_units for g in graph.groups} == {"windows/up": 10}
    assert "gamma" in graph.explain("windows/inner")
    small = tsp.remove_units(model, {"windows/up": [1, 9]})
    agrees_with_zeros(model, small, model.get_layer("windows").down, [1, 9])


class Misstated(layers.Layer):
    """Says that it gives a position more than it does."""

    def call(self, x):
        return x

    def compute_output_shape(self, shape):
        return (shape[0], shape[1] + 1, shape[2])


def test_a_layer_that_gives_another_shape_than_it_says_is_refused():
    x = keras.Input((LENGTH, WIDTH))
    model = keras.Model(x, Several(name="several")(Misstated(name="odd")(x))[0])
    with pytest.raises(ModelError, match=r"'odd'.* \(None, 7, 8\) and gives \(2, 6, 8"):
        tsp.ChannelGraph(model)


class Makes(layers.Layer):
    """Makes a layer in each call, and broadcasts masks to the size of the batch."""

    def build(self, shape):
        self.up = layers.Dense(10, name="up")
        self.down = layers.Dense(WIDTH, name="down")
        self.up.build(shape)
        self.down.build((*shape[:-1], 10))

    def call(self, x):
        batch, length, _ = ops.shape(x)
        y = layers.Activation("silu")(self.up(x))
        seen = ops.broadcast_to(ops.sum(x, -1) > 0, (batch, length))
        seen = ops.broadcast_to(seen[..., None], (batch, length, WIDTH))
        return ops.where(seen, self.down(y), x)


def test_layers_that_a_call_makes_and_masks_that_it_broadcasts():
    x = keras.Input((LENGTH, WIDTH))
    model = keras.Model(x, layers.Dense(2)(Makes(name="makes")(x)))
    graph = tsp.ChannelGraph(model)
    assert {g.name: g.num_units for g in graph.groups} == {"makes/up": 10}
    small = tsp.remove_units(model, {"makes/up": [1, 9]})
    agrees_with_zeros(model, small, model.get_layer("makes").down, [1, 9])
