"""Dropping blocks, against nets that are wired without them from the same layers."""

import numpy as np
import pytest
from regression_reference import lstsq
from residual_nets import NETS, mlp, resnet, shaken, transformer

import tf_spline_prune as tsp
from tf_spline_prune import compat
from tf_spline_prune.errors import (
    BudgetError,
    CalibrationError,
    ModelError,
    SplinePruneWarning,
    VerificationError,
)
from tf_spline_prune.pruning.depth import _drop_blocks
from tf_spline_prune.pruning.depth._branches import branches_of, without_branches
from tf_spline_prune.pruning.depth._close_gaps import close_gaps


def outputs(model, x):
    return np.asarray(model(x, training=False)).astype("float64")


def names_of(model):
    return [block.name for block in tsp.residual_blocks(model)]


def weights_by_layer(model):
    return {layer.name: layer.get_weights() for layer in model.layers}


def scores(net, x, without=()):
    """Compute the outputs, of a last softmax what enters it."""
    kernel, bias = (np.asarray(w, "float64") for w in net.head.get_weights())
    return outputs(net.wired(without, to="features"), x) @ kernel + bias


@pytest.mark.both_flavours
@pytest.mark.parametrize("kind", NETS)
def test_the_result_is_the_original_with_those_branches_at_zero(K, kind, tmp_path):
    net = NETS[kind](K)
    model, x = net.model, net.inputs()
    answer, held = outputs(model, x), model.get_weights()
    names = names_of(model)
    assert names == [name for name, _, _ in net.blocks]
    for chosen in (names[:1], names[-1:], names[1:3], names[::2]):
        small = tsp.drop_blocks(model, chosen)
        expected = outputs(net.wired(chosen), x)
        np.testing.assert_allclose(outputs(small, x), expected, rtol=1e-4, atol=1e-5)
        assert not compat.is_compiled(small)
        assert names_of(small) == [name for name in names if name not in chosen]
        before = weights_by_layer(model)
        for name, arrays in weights_by_layer(small).items():
            for old, new in zip(before[name], arrays, strict=True):
                np.testing.assert_array_equal(old, new)
    assert small.count_params() < model.count_params()
    file = tmp_path / "small.keras"
    small.save(file)
    loaded = K.models.load_model(file)
    np.testing.assert_allclose(outputs(loaded, x), outputs(small, x), atol=1e-6)
    np.testing.assert_array_equal(outputs(model, x), answer)
    for old, new in zip(held, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("kind", NETS)
def test_importance_without_labels_is_the_change_of_the_outputs(K, kind):
    net = NETS[kind](K)
    x = net.inputs(45)  # in two batches
    whole = scores(net, x)
    spread = np.square(whole - whole.mean(axis=0)).sum()
    for block in tsp.residual_blocks(net.model, x):
        change = np.square(scores(net, x, [block.name]) - whole).sum()
        assert block.importance == pytest.approx(change / spread, rel=1e-3)
        assert block.params == sum(
            np.size(w)
            for layer in block.layers
            for w in net.model.get_layer(layer).get_weights()
        )


def test_importance_with_labels_is_the_rise_of_the_loss(K):
    net = resnet(K)
    x, y = net.inputs(45), np.arange(45) % 4
    net.model.compile("sgd", "sparse_categorical_crossentropy")

    def loss(model):
        return -np.log(outputs(model, x)[np.arange(45), y]).mean()

    whole, found = loss(net.model), {}
    for block in tsp.residual_blocks(net.model, (x, y)):
        found[block.name] = loss(net.wired([block.name])) - whole
        assert block.importance == pytest.approx(found[block.name], abs=1e-5)
    least = min(found, key=found.get)
    small = tsp.drop_blocks(net.model, 1, data=(x, y), recover=None)
    expected = outputs(net.wired([least]), x)
    np.testing.assert_allclose(outputs(small, x), expected, atol=1e-5)
    with pytest.raises(CalibrationError, match="loss cannot be computed"):
        tsp.drop_blocks(net.model, 1, data=(x, np.zeros((45, 7, 2))))


def test_importance_by_cosine(K):
    net = transformer(K)
    x, names = net.inputs(45), names_of(net.model)
    streams = [np.asarray(net.model.get_layer("tokens")(x)).astype("float64")]
    streams += [outputs(net.wired(to=name), x) for name in names]
    blocks = tsp.residual_blocks(net.model, x, importance="cosine")
    for block, one, other in zip(blocks, streams, streams[1:], strict=False):
        sizes = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
        expected = (1 - (one * other).sum(-1) / sizes).mean()
        assert block.importance == pytest.approx(expected, abs=1e-5)


def test_importance_by_a_function_needs_no_data(K):
    net = mlp(K)
    wanted = {"add0": 2.0, "add1": 0.5, "add2": 1.0}
    small = tsp.drop_blocks(
        net.model,
        0.67,
        importance=lambda m: sum(wanted[n] for n in wanted if n not in names_of(m)),
    )
    assert names_of(small) == ["add0"]
    with pytest.raises(TypeError, match="must return one number"):
        tsp.drop_blocks(net.model, 1, importance=lambda m: "much")
    with pytest.raises(ModelError, match="NaN"):
        tsp.drop_blocks(net.model, 1, importance=lambda m: float("nan"))


def test_contiguous_blocks_are_measured_together(K):
    net = transformer(K)
    x, names = net.inputs(), names_of(net.model)
    whole = outputs(net.model, x)
    rows = [names[i : i + 2] for i in range(3)]
    costs = [((outputs(net.wired(row), x) - whole) ** 2).sum() for row in rows]
    small = tsp.drop_blocks(net.model, 2, data=x, contiguous=True, recover=None)
    best = rows[int(np.argmin(costs))]
    assert names_of(small) == [name for name in names if name not in best]


def solved_in_order(K, net, gap, x):
    """Solve what is left when blocks of `mlp` go: at the gap, then all behind it."""
    model, names = net.model, [name for name, _, _ in net.blocks]
    get = model.get_layer

    def of(name):
        return outputs(K.Model(model.input, get(name).output), x)

    def fitted(taken, goal):
        kernel, intercept = lstsq(taken, goal)
        return taken @ kernel + intercept

    stream = of("stem")
    goal = outputs(net.wired(to=gap[-1]), x) - stream
    at_gap = stream = stream + fitted(of("wide0"), goal)
    for name in names[names.index(gap[-1]) + 1 :]:
        number = name[-1]
        middle = np.tanh(fitted(stream, np.arctanh(of(f"wide{number}"))))
        goal = outputs(net.wired(to=name), x) - stream
        stream = stream + fitted(middle, goal)
    return at_gap, fitted(stream, outputs(model, x))


@pytest.mark.both_flavours
@pytest.mark.parametrize("norm", [False, True], ids=["bias", "batchnorm"])
@pytest.mark.parametrize("gap", [["add1"], ["add1", "add2"]], ids=len)
def test_layers_are_solved_before_the_gap_and_behind_it(K, norm, gap):
    net = mlp(K, "float64", norm)
    model, x = net.model, net.inputs(50)
    graph = compat.trace(model)
    branches = [b for b in branches_of(graph) if b.name in gap]
    left = without_branches(graph, branches)
    small = compat.rebuild(left)
    data = compat.Calibration.of(x, graph)
    behind = [] if "add2" in gap else ["wide2", "narrow2"]
    solved = ["narrow0", *behind, net.head.name]
    assert close_gaps(graph, branches, left, small, data, ridge=0.0) == solved

    at_gap, answer = solved_in_order(K, net, gap, x)
    sums = K.Model(small.input, small.get_layer("add0").output)
    np.testing.assert_allclose(outputs(sums, x), at_gap, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outputs(small, x), answer, rtol=0, atol=1e-8)
    changed = {*solved, "norm0", "norm2"}
    before = weights_by_layer(model)
    for name, arrays in weights_by_layer(small).items():
        equal = [
            np.array_equal(a, b) for a, b in zip(before[name], arrays, strict=True)
        ]
        assert all(equal) or name in changed


def test_the_ridge_holds_to_the_weights(K):
    net = mlp(K)
    x = net.inputs(50)
    small = tsp.drop_blocks(net.model, "add1", data=x)
    get = net.model.get_layer
    beside = outputs(K.Model(net.model.input, get("stem").output), x)
    taken = outputs(K.Model(net.model.input, get("wide0").output), x)
    goal = outputs(net.wired(to="add1"), x) - beside
    first = get("narrow0").get_weights()[0]
    kernel, intercept = lstsq(taken, goal, first, ridge=1e-3)
    found = small.get_layer("narrow0").get_weights()
    np.testing.assert_allclose(found[0], kernel, atol=1e-4)
    np.testing.assert_allclose(found[1], intercept, atol=1e-4)


@pytest.mark.both_flavours
@pytest.mark.parametrize("kind", ["resnet", "transformer"])
def test_recovery_brings_the_outputs_nearer(K, kind):
    net = NETS[kind](K)
    x, names = net.inputs(200), names_of(net.model)
    other = net.inputs(200, seed=1)
    whole = outputs(net.model, other)
    for chosen in (names[1:2], names[1:3], names[-1:]):
        errors = [
            np.square(outputs(small, other) - whole).mean()
            for small in (
                tsp.drop_blocks(net.model, chosen),
                tsp.drop_blocks(net.model, chosen, data=x),
            )
        ]
        assert errors[1] < 0.7 * errors[0], (chosen, errors)


def test_behind_the_sum_a_relu_is_looked_through(K):
    """What the ReLU holds back on both sides is no error."""
    net = resnet(K)
    x = net.inputs(200)
    small = tsp.drop_blocks(net.model, "add1", data=x)
    goal = np.maximum(outputs(net.wired(to="add1"), x), 0)
    sums = K.Model(small.input, small.get_layer("add0").output)
    found = np.maximum(outputs(sums, x), 0)
    as_it_was = np.maximum(outputs(net.wired(to="add0"), x), 0)
    assert np.square(found - goal).mean() < 0.7 * np.square(as_it_was - goal).mean()
    mean, variance = 2, 3  # of the normalisation, whose mean takes the bias
    old = net.model.get_layer("conv0b_norm").get_weights()
    new = small.get_layer("conv0b_norm").get_weights()
    assert not np.array_equal(old[mean], new[mean])
    np.testing.assert_array_equal(old[variance], new[variance])


def test_a_stem_serves_and_an_embedding_does_not(K):
    net = mlp(K)
    small = tsp.drop_blocks(net.model, "add0", data=net.inputs())
    old, new = (m.get_layer("stem").get_weights() for m in (net.model, small))
    assert not np.allclose(old[0], new[0])
    net = transformer(K)
    small = tsp.drop_blocks(net.model, "attend0", data=net.inputs())
    old, new = (m.get_layer("tokens").get_weights() for m in (net.model, small))
    np.testing.assert_array_equal(old[0], new[0])
    old, new = (m.get_layer("wide0").get_weights() for m in (net.model, small))
    assert not np.allclose(old[0], new[0])


def test_nothing_that_could_be_solved(K):
    L = K.layers
    x = inputs = K.Input((6,), dtype="int32")
    x = L.Embedding(11, 4)(x)
    x = L.Add(name="add0")([x, L.Dense(4)(L.Dense(3, activation="relu")(x))])
    x = L.LeakyReLU()(x)
    x = L.Add(name="add1")([x, L.Dense(4)(x)])
    model = K.Model(inputs, L.GlobalAveragePooling1D()(x))
    data = np.random.default_rng(0).integers(0, 11, (40, 6))
    with pytest.warns(SplinePruneWarning, match="Nothing is solved"):
        small = tsp.drop_blocks(model, "add1", data=data, recover="least_squares")
    before = weights_by_layer(model)
    for name, arrays in weights_by_layer(small).items():
        assert all(map(np.array_equal, before[name], arrays))


def test_a_stream_that_somebody_else_wants_is_not_changed(K):
    L = K.layers
    inputs = K.Input((4,))
    stream = L.Dense(5, name="stem")(inputs)
    x = L.Add(name="add0")([stream, L.Dense(5)(L.Dense(3, activation="relu")(stream))])
    x = L.Add(name="add1")([x, L.Dense(5)(x)])
    model = K.Model(inputs, L.Concatenate()([x, stream]))
    data = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    small = tsp.drop_blocks(model, "add0", data=data)
    old, new = (m.get_layer("stem").get_weights() for m in (model, small))
    np.testing.assert_array_equal(old[0], new[0])


@pytest.mark.both_flavours
def test_blocks_in_nested_models(K):
    """A block is a model, a branch is one; a model of which nothing is left goes."""
    L = K.layers
    x = inputs = K.Input((5,))
    made = L.Add(name="sum")([x, L.Dense(5, name="inside")(x)])
    block = K.Model(inputs, made, name="block")
    branch = K.Sequential([K.Input((5,)), L.Dense(6), L.Dense(5)], name="branch")
    x = inputs = K.Input((4,))
    x = stem = L.Dense(5)(x)
    x = block(x)
    x = L.Add(name="around")([x, branch(x)])
    head = L.Dense(2)
    model = shaken(K.Model(inputs, head(x)))
    data = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    assert names_of(model) == ["block/sum", "around"]
    small = tsp.drop_blocks(model, "block/sum", data=data, recover=None)
    expected = K.Model(inputs, head(L.Add()([stem, branch(stem)])))
    np.testing.assert_allclose(outputs(small, data), outputs(expected, data), atol=1e-5)
    assert "block" not in [layer.name for layer in small.layers]
    small = tsp.drop_blocks(model, ["around"], data=data)
    assert "branch" not in [layer.name for layer in small.layers]
    raw = tsp.drop_blocks(model, ["around"])
    expected = K.Model(inputs, head(block(stem)))
    np.testing.assert_allclose(outputs(raw, data), outputs(expected, data), atol=1e-5)
    whole = outputs(model, data)
    errors = [np.square(outputs(m, data) - whole).mean() for m in (small, raw)]
    assert errors[0] < errors[1]


@pytest.mark.both_flavours
def test_a_sequential_of_blocks_stays_one(K):
    L = K.layers

    def block(name):
        x = inputs = K.Input((5,))
        return K.Model(inputs, L.Add()([x, L.Dense(5)(x)]), name=name)

    layers = [L.Dense(5, name="stem"), block("one"), block("two"), L.Dense(3)]
    model = K.Sequential([K.Input((4,)), *layers])
    data = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    first = names_of(model)[0]
    small = tsp.drop_blocks(model, first, data=data, recover=None)
    assert [layer.name for layer in small.layers][:2] == ["stem", "two"]
    expected = layers[3](layers[2](layers[0](data)))
    np.testing.assert_allclose(outputs(small, data), np.asarray(expected), atol=1e-5)


def test_a_block_of_blocks_goes_by_name(K):
    L = K.layers
    x = inputs = K.Input((4,))
    x = first = L.Dense(5, name="stem")(x)
    for number in range(2):
        x = L.Add(name=f"inner{number}")([x, L.Dense(5, name=f"dense{number}")(x)])
    x = L.Add(name="outer")([first, x])
    x = L.Add(name="last")([x, L.Dense(5, name="end")(x)])
    model = K.Model(inputs, x)
    data = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    with pytest.raises(BudgetError, match="has 3 blocks that can be chosen"):
        tsp.drop_blocks(model, 4, data=data)
    assert names_of(tsp.drop_blocks(model, 2, data=data, recover=None))
    small = tsp.drop_blocks(model, ["inner1", "outer"])
    assert names_of(small) == ["last"]
    end = model.get_layer("end")
    stem = model.get_layer("stem")(data)
    expected = np.asarray(stem + end(stem))
    np.testing.assert_allclose(outputs(small, data), expected, atol=1e-5)


def test_what_cannot_go_says_why(K):
    L = K.layers
    x = inputs = K.Input((4, 4, 6))

    def dense(name):
        return L.Dense(6, name=name)

    shared = dense("shared")
    x = L.Add(name="fine")([x, dense("a")(x)])
    x = L.Add(name="projection")([dense("skip")(x), dense("b")(x)])
    x = L.Add(name="shares")([x, shared(x)])
    x = L.Add(name="shares_too")([x, shared(x)])
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    x = L.Add(name="spread")([x, dense("c")(gate)])
    middle = dense("middle")(x)
    x = L.Add(name="given_out")([x, dense("d")(middle)])
    inside = dense("inside")(x)
    x = L.Add(name="used")([x, dense("e")(inside)])
    x = L.Add(name="twice")([x, x, dense("f")(x)])
    x = L.Concatenate()([x, inside])
    model = K.Model(inputs, [x, middle])
    reasons = {b.name: b.reason for b in tsp.residual_blocks(model)}
    assert reasons.pop("fine") == ""
    for name, reason in {
        "projection": "projection skip",
        "shares": "'shared' is also used",
        "shares_too": "'shared' is also used",
        "spread": "another shape",
        "given_out": "gives out what 'middle'",
        "used": "'inside' computes goes into 'concatenate",
        "twice": "added more than once",
    }.items():
        assert reason in reasons.pop(name)
        with pytest.raises(ModelError, match=f"{name!r} cannot be dropped"):
            tsp.drop_blocks(model, name)
    assert not reasons


@pytest.mark.both_flavours
def test_masks_and_models_that_are_called_again(K):
    L = K.layers
    x = inputs = K.Input((6,), dtype="int32")
    x = L.Embedding(11, 8, mask_zero=True)(x)
    x = L.Add(name="masked")([x, L.Dense(8)(x)])
    x = L.GlobalAveragePooling1D()(x)
    x = L.Add(name="pooled")([x, L.Dense(8)(x)])
    y = block_input = K.Input((8,))
    y = L.Add(name="sum")([y, L.Dense(8)(y)])
    block = K.Model(block_input, y, name="block")
    model = K.Model(inputs, block(block(x)))
    reasons = {b.name: b.reason for b in tsp.residual_blocks(model)}
    assert "mask runs along" in reasons.pop("masked")
    assert reasons.pop("pooled") == ""
    assert all("also used" in reason for reason in reasons.values()) and reasons


def test_bad_calls_are_refused_before_anything_happens(K):
    net = mlp(K)
    model, x = net.model, net.inputs()
    refused = [
        (ValueError, "Expected some of", {"blocks": ["add7"]}),
        (BudgetError, "keep one at least", {"blocks": ["add0", "add1", "add2"]}),
        (BudgetError, "keep one at least", {"blocks": 3, "data": x}),
        (BudgetError, "4 of them cannot go", {"blocks": 4, "data": x}),
        (BudgetError, "0 of them cannot go", {"blocks": 0.1, "data": x}),
        (CalibrationError, "no weights tell", {"blocks": 1}),
        (CalibrationError, "NaN", {"blocks": "add0", "data": x * np.nan}),
        (CalibrationError, "shape", {"blocks": "add0", "data": x[:, :3]}),
        (CalibrationError, "needs inputs", {"blocks": "add0"} | _SOLVE),
        (ValueError, "names say which go", {"blocks": "add0", "contiguous": True}),
        (ValueError, "`blocks` must be", {"blocks": 0, "data": x}),
        (ValueError, "`blocks` must be", {"blocks": 1.5, "data": x}),
        (TypeError, "`blocks` must be", {"blocks": None, "data": x}),
        (ValueError, "`importance` must be", {"blocks": 1, "importance": "size"}),
    ]
    for error, words, call in refused:
        with pytest.raises(error, match=words):
            tsp.drop_blocks(model, **call)
    plain = K.Sequential([K.Input((4,)), K.layers.Dense(4)])
    assert tsp.residual_blocks(plain) == ()
    with pytest.raises(ModelError, match="no residual blocks"):
        tsp.drop_blocks(plain, 1, data=x)


_SOLVE = {"recover": "least_squares"}


def test_sums_of_what_has_nothing_in_common_are_no_blocks(K):
    L = K.layers
    one, other = K.Input((4,)), K.Input((4,))
    model = K.Model([one, other], L.Add()([L.Dense(3)(one), L.Dense(3)(other)]))
    assert tsp.residual_blocks(model) == ()


def test_a_result_that_computes_something_else_is_not_handed_out(K, monkeypatch):
    net = mlp(K)

    def wrong(graph):
        model = compat.rebuild(graph)
        first = model.get_layer("stem")
        first.set_weights([w + 0.01 for w in first.get_weights()])
        return model

    monkeypatch.setattr(_drop_blocks, "rebuild", wrong)
    with pytest.raises(VerificationError, match="zeros in the place"):
        tsp.drop_blocks(net.model, "add1")
    tsp.drop_blocks(net.model, "add1", verify=False)


@pytest.mark.both_flavours
def test_recurrent_states_are_those_of_a_new_batch(K):
    """What a trial or a comparison does to states is seen by nobody else."""
    L = K.layers
    x = inputs = K.Input(batch_shape=(4, 6, 5))
    parts = [L.Dense(7)]
    stream = parts[0](x)
    for number in range(3):
        parts.append(L.LSTM(7, return_sequences=True, stateful=True))
        stream = L.Add(name=f"add{number}")([stream, parts[-1](stream)])
    head = L.Dense(2)
    model = K.Model(inputs, head(stream))
    data = np.random.default_rng(0).normal(size=(4, 6, 5)).astype("float32")

    def by_hand(without=None):
        for part in parts[1:]:
            part.reset_states() if hasattr(part, "reset_states") else part.reset_state()
        stream = parts[0](data)
        for number, part in enumerate(parts[1:]):
            stream = stream if number == without else stream + part(stream)
        for part in parts[1:]:
            part.reset_states() if hasattr(part, "reset_states") else part.reset_state()
        return np.asarray(head(stream)).astype("float64")

    whole = by_hand()
    spread = np.square(whole - whole.mean(axis=0)).sum()
    costs = [np.square(by_hand(i) - whole).sum() / spread for i in range(3)]
    found = [block.importance for block in tsp.residual_blocks(model, data)]
    np.testing.assert_allclose(found, costs, rtol=1e-3)
    model(data)  # the states are no longer zero
    for given in ({}, {"data": data, "recover": None}):
        small = tsp.drop_blocks(model, "add1", **given)
        np.testing.assert_allclose(outputs(small, data), by_hand(1), atol=1e-5)
        model(data)


def test_a_branch_that_is_not_finite_can_go(K):
    L = K.layers
    x = inputs = K.Input((4,))
    x = L.Dense(5)(x)
    x = L.Add(name="bad")([x, L.Activation(lambda z: z / 0.0)(L.Dense(5)(x))])
    x = L.Add(name="good")([x, L.Dense(5)(x)])
    small = tsp.drop_blocks(K.Model(inputs, x), "bad")
    assert np.isfinite(outputs(small, np.ones((2, 4), "float32"))).all()


def test_what_else_a_branch_takes_in_is_the_reason(K):
    L = K.layers
    inputs, other = K.Input((4,)), K.Input((3,))
    x = L.Dense(5)(inputs)
    x = L.Add(name="told")([x, L.Dense(5)(L.Concatenate()([x, other]))])
    (block,) = tsp.residual_blocks(K.Model([inputs, other], x))
    assert "takes in something else" in block.reason


def test_the_cosine_of_blocks_in_a_row_needs_one_shape(K):
    L = K.layers
    x = inputs = K.Input((8, 8, 2))
    x = L.Conv2D(4, 1)(x)
    for _ in range(3):
        x = L.Add()([x, L.Conv2D(4, 3, padding="same")(x)])
        x = L.MaxPooling2D()(x)
    model = K.Model(inputs, L.Flatten()(x))
    data = np.random.default_rng(0).normal(size=(20, 8, 8, 2)).astype("float32")
    with pytest.raises(BudgetError, match="of one shape"):
        tsp.drop_blocks(model, 2, data=data, contiguous=True, importance="cosine")
    tsp.drop_blocks(model, 2, data=data, contiguous=True, recover=None)
