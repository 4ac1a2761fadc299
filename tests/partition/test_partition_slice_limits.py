"""Slices that are refused, cut short, or computed in small lots."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import FlavourError, ModelError, RegionLimitError
from tf_spline_prune.partition.slices import _sliced_network as sliced_network

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def two_layers(K, activation="relu", outputs=3):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((2,)),
            L.Dense(12, activation="relu", name="first"),
            L.Dense(10, activation=activation, name="second"),
            L.Dense(outputs, name="head"),
        ]
    )
    return zoo.settle(model)


def test_a_limit_is_an_error_that_says_how_far_it_got(K):
    model = two_layers(K)
    first = tsp.slice2d(model, PLANE, (-3, 3), layers="first")
    with pytest.raises(RegionLimitError) as error:
        tsp.slice2d(model, PLANE, (-3, 3), max_regions=first.num_regions)
    text = str(error.value)
    assert f"{first.num_regions} regions before layer 'second', number 2 of 2" in text
    part = tsp.slice2d(
        model, PLANE, (-3, 3), max_regions=first.num_regions, partial=True
    )
    assert not part.complete
    assert part.exact_through == "first"
    np.testing.assert_array_equal(np.sort(part.areas), np.sort(first.areas))
    assert part.codes.layers == ("first",)
    for name in ("affine", "boundary"):
        with pytest.raises(ValueError, match="exact through 'first'"):
            getattr(part, name)
    none = tsp.slice2d(model, PLANE, (-3, 3), max_regions=1, partial=True)
    assert (none.num_regions, none.exact_through, none.lines) == (1, None, {})
    enough = tsp.slice2d(model, PLANE, (-3, 3))
    again = tsp.slice2d(model, PLANE, (-3, 3), max_regions=enough.num_regions)
    assert again.complete
    assert again.exact_through == "second"


def test_small_lots_give_the_same_slice(monkeypatch):
    import keras

    model = two_layers(keras)
    whole = tsp.slice2d(model, PLANE, (-3, 3))
    monkeypatch.setattr(sliced_network, "_AT_ONCE", 1000)
    lots = tsp.slice2d(model, PLANE, (-3, 3))
    assert whole.num_regions == lots.num_regions > 100
    np.testing.assert_allclose(np.sort(lots.areas), np.sort(whole.areas), atol=1e-12)
    for codes in (whole.codes, lots.codes):
        assert codes.num_points == whole.num_regions
    found = {row.tobytes() for row in lots.codes.packed["second"]}
    assert found == {row.tobytes() for row in whole.codes.packed["second"]}


def test_the_dtype_of_the_model_does_not_matter():
    import keras

    model = two_layers(keras)
    mixed = keras.models.clone_model(model)
    for layer in mixed.layers:
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    mixed.set_weights(model.get_weights())
    assert mixed.layers[0].compute_dtype == "bfloat16"
    one, two = (tsp.slice2d(net, PLANE, (-3, 3)) for net in (model, mixed))
    np.testing.assert_array_equal(one.points, two.points)


@pytest.mark.parametrize("activation", ["gelu", "tanh", "softmax"])
def test_smooth_activations_are_refused_by_name(K, activation):
    with pytest.raises(ModelError, match=f"with second \\({activation}\\)"):
        tsp.slice2d(two_layers(K, activation), PLANE)


def product(K, x):
    return K.layers.Multiply()([x, x])


def jump(K, x):
    return K.layers.ReLU(threshold=0.5)(x)


def larger_of_two(K, x):
    return K.layers.Maximum()([x, K.layers.Dense(6)(x)])


@pytest.mark.parametrize("make", [product, jump, larger_of_two])
def test_what_is_not_affine_between_knots_is_found_out(K, make):
    L = K.layers
    inputs = K.Input((2,))
    x = make(K, L.Dense(6, activation="relu")(inputs))
    model = zoo.settle(K.Model(inputs, L.Dense(2)(x)))
    with pytest.raises(ModelError, match="not affine on the regions"):
        tsp.slice2d(model, PLANE, (-3, 3))


def test_models_that_cannot_be_sliced(K):
    L = K.layers
    with pytest.raises(FlavourError):
        tsp.slice2d("a model", PLANE)
    with pytest.raises(ModelError, match="not built"):
        tsp.slice2d(K.Sequential([L.Dense(2)]), PLANE)
    inputs = [K.Input((2,)), K.Input((2,))]
    model = K.Model(inputs, L.Dense(2)(L.Add()(inputs)))
    with pytest.raises(ModelError, match="2 inputs and 1 outputs"):
        tsp.slice2d(model, PLANE)
    words = K.Input((2,), dtype="int32")
    model = K.Model(words, L.Dense(2)(L.Flatten()(L.Embedding(5, 2)(words))))
    with pytest.raises(ModelError, match="int32"):
        tsp.slice2d(model, PLANE)
    model = two_layers(K)
    model.layers[0].set_weights([np.full((2, 12), np.nan), np.zeros(12)])
    with pytest.raises(ModelError, match="first/kernel"):
        tsp.slice2d(model, PLANE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchors": PLANE[:2]}, "three anchors"),
        ({"anchors": np.zeros((3, 4))}, "does not fit"),
        ({"anchors": PLANE * [np.nan, 1]}, "NaN or infinite"),
        ({"anchors": [[0, 0], [1, 0], [0, 1]]}, "Expected one array per input"),
        ({"anchors": np.array([[0.0, 0], [1, 2], [2, 4]])}, "one line"),
        ({"anchors": np.array([[1.0, 0], [1, 0], [2, 4]])}, "one line"),
        ({"extent": (1, 1)}, "smaller first"),
        ({"extent": (0, np.inf)}, "smaller first"),
        ({"layers": ["third"]}, r"Received: \['third'\]"),
        ({"layers": []}, "It is empty"),
        ({"classes": (0, 3)}, "3 outputs"),
        ({"classes": (1, 1)}, "3 outputs"),
        ({"max_regions": 0}, "max_regions=0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_refused(arguments, message):
    import keras

    with pytest.raises(ValueError, match=message):
        tsp.slice2d(two_layers(keras), **{"anchors": PLANE, **arguments})
