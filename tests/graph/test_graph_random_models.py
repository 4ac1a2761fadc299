"""Random models: what is left computes what the masked original computes.

Hypothesis draws functional models from a table of layers, and units to remove. The
test keeps its own books: it writes the steps of a model down while it builds it,
gives every channel of every value an id, and unites ids that meet. The reference
runs the original's layers one by one and multiplies what each layer that mixes
channels reads by 0/1 vectors made from the books. The package has no part in it.
"""

import gc
import operator
import warnings
from collections import Counter, namedtuple

import numpy as np
import pytest
import zoo
from hypothesis import HealthCheck, assume, given, seed, settings, strategies as st

import tf_spline_prune as tsp

EXAMPLES = {"keras": 500, "tf_keras": 60}
PART = 20  # of these are run by one test
TOLERANCE = 1e-4
MERGES = ("Add", "Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract")
ACTIVATIONS = ("relu", None, "tanh")

# One use of a layer. `rule`, a method of `Books`, says what becomes of the ids.
# The index of a step is also the name of the value that it makes.
Step = namedtuple("Step", "rule path layer call inputs")
# All that is drawn, in numbers. A step is (kind, where, choices), where 0 is the
# last value; a wish is (layer, its units as bits).
Recipe = namedtuple("Recipe", "size inputs steps heads wishes seed")


class Dice:
    """Reads choices off one drawn integer; 0 always means the first option."""

    def __init__(self, number):
        self.number = number

    def __call__(self, *options):
        self.number, rest = divmod(self.number, len(options))
        return options[rest]


def conv(L, dice, filters, **more):
    act, bias = dice(*ACTIVATIONS), dice(True, False)
    same = {"padding": "same", "activation": act, "use_bias": bias}
    return L.Conv2D(filters, dice(1, 3), **same, **more)


# Single layers: what they do to ids, and how they are made on `c` channels.
LAYERS = {
    "conv": ("make", lambda L, d, c: conv(L, d, d(4, 2, 3, 5, 6))),
    "match": ("make", lambda L, d, c: conv(L, d, c)),
    "grouped": ("make", lambda L, d, c: conv(L, d, d(4, 2, 6), groups=2)),
    "each": ("deep", lambda L, d, c: conv(L, d, d(c, 2 * c), groups=c)),
    "dense": ("make", lambda L, d, c: L.Dense(d(4, 3, 6), d(*ACTIVATIONS))),
    "depthwise": ("deep", lambda L, d, c: L.DepthwiseConv2D(3, 1, "same", d(1, 2))),
    "separable": (
        "make",
        lambda L, d, c: L.SeparableConv2D(d(4, 3), 3, 1, "same", None, 1, d(1, 2)),
    ),
    "norm": ("keep", lambda L, d, c: L.BatchNormalization()),
    "act": (
        "keep",
        lambda L, d, c: L.Activation(d("relu", "sigmoid", "gelu", "elu", "tanh")),
    ),
    "relu": ("keep", lambda L, d, c: d(L.LeakyReLU, lambda: L.ReLU(6.0))()),
    "drop": ("keep", lambda L, d, c: d(L.Dropout, L.SpatialDropout2D)(0.5)),
    "slope": ("keep", lambda L, d, c: L.PReLU(shared_axes=d([1, 2], None))),
    "pool": (
        "keep",
        lambda L, d, c: d(L.MaxPooling2D, L.AveragePooling2D)(2, padding="same"),
    ),
    "up": ("keep", lambda L, d, c: L.UpSampling2D(2)),
}


class Net:
    """A functional model under construction."""

    def __init__(self, K, recipe):
        self.K, self.L, self.prefix = K, K.layers, ""
        self.steps, self.tensors = [], []
        self.open = []  # the values with spatial axes that later steps may take
        shapes = [(recipe.size, recipe.size, c) for c in recipe.inputs]
        self.open = [self.record("input", None, (), K.Input(s)) for s in shapes]
        for kind, where, number in recipe.steps:
            self.open.append(self.grow(kind, self.pick(where), Dice(number)))
        self.outputs = []
        for where, number in recipe.heads:
            self.outputs.append(self.head(self.pick(where), Dice(number)))

    def pick(self, where):
        return self.open[-1 - where % len(self.open)]

    def shape(self, value):
        return tuple(self.tensors[value].shape[1:])

    def record(self, rule, layer, inputs, tensor, call=None):
        path = self.prefix + getattr(layer, "name", "")
        self.steps.append(Step(rule, path, layer, call or layer, inputs))
        self.tensors.append(tensor)
        return len(self.steps) - 1

    def add(self, rule, layer, *inputs):
        """Apply a layer or a function."""
        listed = rule in ("merge", "concat") and hasattr(layer, "name")
        call = (lambda *tensors: layer(list(tensors))) if listed else layer
        tensor = call(*(self.tensors[i] for i in inputs))
        return self.record(rule, layer, inputs, tensor, call)

    def make(self, kind, x, dice):
        rule, function = LAYERS[kind]
        return rule, function(self.L, dice, self.shape(x)[-1])

    def grow(self, kind, x, dice):
        """Apply a step of a recipe to a value."""
        size, channels = self.shape(x)[1:]
        if kind in COMPOSITES:
            return COMPOSITES[kind](self, x, dice)
        if kind == "up" and size > 6:
            kind = "pool"
        if kind == "grouped" and (channels % 2 or channels == 2):
            x = self.add("make", conv(self.L, dice, 4), x)
        return self.add(*self.make(kind, x, dice), x)

    def mate(self, x, dice):
        """Find another value of the same shape, or make one."""
        mates = [v for v in self.open if self.shape(v) == self.shape(x) and v != x]
        if not mates or dice(False, False, True):
            return self.grow("match", x, dice)
        return dice(*mates[::-1])

    def head(self, x, dice):
        """Lead a value with spatial axes to an output."""
        kind = dice("GlobalAveragePooling2D", "Flatten", "GlobalMaxPooling2D", None)
        if not kind and self.outputs and self.steps[x].rule != "input":
            return x
        kind = kind or "Flatten"
        x = self.add(
            "flatten" if kind == "Flatten" else "keep", getattr(self.L, kind)(), x
        )
        for _ in range(dice(1, 0, 2)):
            x = self.add(*self.make("dense", x, dice), x)
            after = dice(None, self.L.PReLU, self.L.BatchNormalization)
            x = self.add("keep", after(), x) if after else x
        return self.add("make", self.L.Dense(2, dice(None, "softmax")), x)


def shift(net, x, dice):
    x = net.add("keep", net.L.ZeroPadding2D(((1, 0), (0, 1))), x)
    return net.add("keep", net.L.Cropping2D(((0, 1), (1, 0))), x)


def merge(net, x, dice):
    return net.add("merge", getattr(net.L, dice(*MERGES))(), x, net.mate(x, dice))


def concat(net, x, dice):
    *place, channels = net.shape(x)
    near = [v for v in net.open if [*net.shape(v)[:2]] == place]
    near = [v for v in near if net.shape(v)[-1] + channels <= 12]
    other = dice(*near[::-1]) if near else net.add("make", conv(net.L, dice, 2), x)
    return net.add("concat", net.L.Concatenate(), *dice((x, other), (other, x)))


def arithmetic(net, x, dice):
    one = dice(None, lambda a: a * 2.0, lambda a: 1.0 - a)
    if one:
        return net.add("keep", one, x)
    two = dice(operator.add, operator.mul, operator.sub, operator.add)
    return net.add("merge", two, x, net.mate(x, dice) if dice(1, 1, 0) else x)


def gate(net, x, dice):
    """Squeeze and excitation, or one gate for each place."""
    kind, L = dice("dense", "conv", "place"), net.L
    if kind == "place":
        y = net.add("make", L.Conv2D(1, 1, activation="sigmoid"), x)
        return net.add("merge", L.Multiply(), x, y)
    y = net.add("keep", L.GlobalAveragePooling2D(keepdims=True), x)
    for size, act in ((3, "relu"), (net.shape(x)[-1], "sigmoid")):
        shape = (size,) if kind == "dense" else (size, 1)
        layer = {"dense": L.Dense, "conv": L.Conv2D}[kind](*shape, activation=act)
        y = net.add("make", layer, y)
    return net.add("merge", L.Multiply(), *dice((x, y), (y, x)))


def block(net, x, dice):
    """A nested functional model with a residual, perhaps used twice in a row."""
    outer, first, shape = net.tensors[x], len(net.steps), net.shape(x)
    net.tensors[x] = inner = net.K.Input(shape)
    y = net.grow("match", x, dice)
    y = net.grow(dice("norm", "slope", "depthwise", "separable"), y, dice)
    if net.shape(y) == shape:
        y = net.add("merge", net.L.Add(), x, y)
    model = net.K.Model(inner, net.tensors[y])
    for at, step in enumerate(net.steps[first:], first):
        net.steps[at] = step._replace(path=f"{model.name}/{step.path}")
    net.tensors[x], net.tensors[y] = outer, model(outer)
    if net.shape(y) != shape or dice(False, True):
        return y
    move = len(net.steps) - first
    for step in net.steps[first:]:
        inputs = [y if i == x else i + move for i in step.inputs]
        net.steps.append(step._replace(inputs=inputs))
        net.tensors.append(None)
    net.tensors[-1] = model(net.tensors[y])
    return len(net.steps) - 1


def chain(net, x, dice):
    """A nested Sequential."""
    made = [net.make(kind, x, dice) for kind in ("conv", "norm", "act")]
    layers = [net.K.Input(net.shape(x)), *(layer for _, layer in made)]
    model, outer = net.K.Sequential(layers), net.tensors[x]
    net.prefix = f"{model.name}/"
    for rule, layer in made:
        x = net.record(rule, layer, (x,), None)
    net.prefix, net.tensors[x] = "", model(outer)
    return x


def shared(net, x, dice):
    """One layer on two values with the same number of channels."""
    if net.steps[x].rule == "input":  # whose channels must stay
        x = net.grow("conv", x, dice)
    channels = net.shape(x)[-1]
    others = [v for v in net.open if net.shape(v)[-1] == channels and v != x]
    others = [v for v in others if net.steps[v].rule != "input"]
    other = dice(*others[::-1]) if others else net.grow("match", x, dice)
    kind = dice("conv", "norm", "depthwise", "separable", "each")
    rule, layer = net.make(kind, x, dice)
    y, z = net.add(rule, layer, other), net.add(rule, layer, x)
    if net.shape(y)[:2] == net.shape(z)[:2] and dice(True, False):
        return net.add("concat", net.L.Concatenate(), y, z)
    net.open.append(y)
    return z


COMPOSITES = {
    f.__name__: f
    for f in (shift, merge, concat, arithmetic, gate, block, chain, shared)
}
KINDS = [
    *LAYERS,
    *COMPOSITES,
    *"conv conv conv merge merge merge concat shared shared".split(),
]


class Books:
    """Which channel of which value is which unit, by the steps alone."""

    def __init__(self, net):
        self.net, live = net, set(net.outputs)
        for at in range(len(net.steps) - 1, -1, -1):
            live.update(net.steps[at].inputs if at in live else ())
        self.live = sorted(live)
        self.parent, self.ids, stay = [], {}, []
        self.made, self.taken = {}, {}  # by path; used again, a layer keeps its ids
        for at in self.live:
            step = net.steps[at]
            taken = [self.ids[i] for i in step.inputs]
            if getattr(step.layer, "weights", None):
                self.unite(self.taken.setdefault(step.path, taken[0]), taken[0])
            self.ids[at] = getattr(self, step.rule)(at, step, *taken)
            if at in net.outputs or step.rule == "input":
                stay += self.ids[at]
        self.frozen = self.roots(stay)

    def root(self, i):
        return i if self.parent[i] == i else self.root(self.parent[i])

    def roots(self, ids):
        return {self.root(i) for i in ids}

    def unite(self, first, second):
        for a, b in zip(first, second, strict=True):
            self.parent[self.root(a)] = self.root(b)

    def fresh(self, count):
        start = len(self.parent)
        self.parent += range(start, start + count)
        return self.parent[start:]

    def input(self, at, step):
        return self.fresh(self.net.shape(at)[-1])

    def make(self, at, step, taken):
        if step.path not in self.made:
            units = getattr(step.layer, "units", None) or step.layer.filters
            self.made[step.path] = self.fresh(units)
        groups = getattr(step.layer, "groups", 1)
        for ids in (taken, self.made[step.path]) if groups > 1 else ():
            self.unite(ids[: len(ids) // 2], ids[len(ids) // 2 :])
        return self.made[step.path]

    def deep(self, at, step, taken):
        times = getattr(step.layer, "depth_multiplier", None)
        return [
            i for i in taken for _ in range(times or step.layer.filters // len(taken))
        ]

    def keep(self, at, step, taken):
        return taken

    def merge(self, at, step, *taken):
        short, long = sorted(taken, key=len)
        if len(short) == len(long):
            self.unite(short, long)
        return long

    def concat(self, at, step, first, second):
        return first + second

    def flatten(self, at, step, taken):
        return taken * (self.net.shape(at)[-1] // len(taken))

    def choose(self, wishes):
        """Turn wishes into roots to remove; frozen ones and last ones stay."""
        removed, units = set(), {}
        free = [p for p, ids in self.made.items() if self.roots(ids) - self.frozen]
        for number, bits in wishes if free else ():
            path = free[number % len(free)]
            for index, i in enumerate(self.made[path]):
                more = removed | {self.root(i)}
                emptied = any(self.roots(ids) <= more for ids in self.made.values())
                if bits >> index & 1 and not (emptied or more & self.frozen):
                    removed = more
                    units.setdefault(path, []).append(index)
        return removed, units

    def kept(self, ids, removed):
        return np.array([self.root(i) not in removed for i in ids])


def masked_outputs(books, removed, inputs):
    """Run the steps; layers that mix channels do not see the removed ones."""
    values, inputs = {}, iter(inputs)
    for at in books.live:
        step = books.net.steps[at]
        args = [values[i] for i in step.inputs]
        if step.rule == "make":
            mask = books.kept(books.ids[step.inputs[0]], removed)
            args = [args[0] * mask.astype("float32")]
        values[at] = next(inputs) if step.rule == "input" else step.call(*args)
    return [np.asarray(values[at]) for at in books.net.outputs]


def off(found, expected):
    """Tell how far values are off, as a multiple of what is tolerated."""
    return np.abs(found - expected).max() > TOLERANCE * np.abs(expected).max()


def alone(values):
    return values[0] if len(values) == 1 else values


def check(K, recipe, seen):
    net = Net(K, recipe)
    books = Books(net)
    inputs = [at for at in books.live if net.steps[at].rule == "input"]
    ends = [alone([net.tensors[at] for at in ats]) for ats in (inputs, net.outputs)]
    model = zoo.settle(K.Model(*ends), recipe.seed)
    removed, units = books.choose(recipe.wishes)
    rng = np.random.default_rng(recipe.seed)
    x = [rng.standard_normal((3, *net.shape(at))).astype("float32") for at in inputs]
    expected = masked_outputs(books, removed, x)
    assume(all(np.isfinite(e).all() for e in expected))
    before = [np.array(w) for w in model.get_weights()]

    with warnings.catch_warnings():
        if not any(units.values()):  # nothing may go, which is said
            warnings.simplefilter("ignore", tsp.errors.NothingPrunedWarning)
        small = tsp.remove_units(model, units)

    found = small(alone(x))
    found = [found] if len(expected) == 1 else found
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert not off(one, other)
    assert [a.name for a in small.layers] == [a.name for a in model.layers]
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    for path, made in books.made.items():
        layer = small
        for name in path.split("/"):
            layer = layer.get_layer(name)
        if type(layer).__name__ in ("Dense", "Conv2D"):
            taken, groups = books.taken[path], getattr(layer, "groups", 1)
            sizes = [books.kept(ids, removed).sum() for ids in (taken, made)]
            shape = layer.get_weights()[0].shape
            assert [shape[-2] * groups, shape[-1]] == sizes

    # What was tried, so that the test can tell that it tried enough.
    seen["examples"] += 1
    if removed:
        full = masked_outputs(books, set(), x)
        seen["pruned"] += 1
        seen["changed"] += any(map(off, full, expected))
        seen.update({type(net.steps[at].layer).__name__ for at in books.live})


WHERE = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 1, 2, 3])
NUMBER = st.integers(0, 9999)
STEP = st.tuples(st.sampled_from(KINDS), WHERE, NUMBER)
RECIPES = st.builds(
    Recipe,
    size=st.integers(4, 6),
    inputs=st.lists(st.integers(2, 4), min_size=1, max_size=2),
    steps=st.integers(4, 9).flatmap(lambda n: st.lists(STEP, min_size=n, max_size=n)),
    heads=st.lists(st.tuples(WHERE, NUMBER), min_size=1, max_size=2),
    wishes=st.tuples(*[st.tuples(NUMBER, st.integers(0, 63))] * 3),
    seed=st.integers(0, 9),
)


PARTS = [
    pytest.param(flavour, part, marks=pytest.mark.slow if part else ())
    for flavour, examples in EXAMPLES.items()
    for part in range(examples // PART)
]


@pytest.mark.parametrize(("K", "part"), PARTS, indirect=["K"])
def test_shrunk_random_models_equal_the_masked_originals(K, part):
    seen = Counter()

    @seed(part)
    @settings(
        max_examples=PART,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(recipe=RECIPES)
    def run(recipe):
        K.backend.clear_session()
        check(K, recipe, seen)

    run()
    gc.collect()
    # Of all examples about three quarters; parts are small and vary.
    assert min(seen["pruned"], seen["changed"]) > 0.25 * PART
