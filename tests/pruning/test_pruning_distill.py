"""Distillation: the student learns, the teacher stays as it was."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import FlavourError


def data(count=256):
    return np.random.default_rng(0).standard_normal((count, 12)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False))


def pair():
    import keras

    keras.utils.set_random_seed(0)
    teacher = zoo.mlp(keras)
    plan = tsp.plan(teacher, "magnitude", sparsity=0.5)
    return keras, teacher, plan.apply(teacher)


def cross_entropy(keras):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_student_learns_and_teacher_stays(tmp_path):
    keras, teacher, student = pair()
    teacher.get_layer("second").trainable = False
    before = [np.array(w) for w in teacher.get_weights()]
    x = data()
    y = outputs(teacher, x).argmax(-1)
    agreed = (outputs(student, x).argmax(-1) == y).mean()
    history = tsp.distill(
        teacher,
        student,
        (x, y),
        loss=cross_entropy(keras),
        optimizer=keras.optimizers.Adam(1e-2),
        epochs=8,
        verbose=0,
    )
    assert {"distillation_loss", "student_loss"} <= set(history.history)
    losses = history.history["distillation_loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert (outputs(student, x).argmax(-1) == y).mean() > agreed
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert teacher.trainable
    flags = [layer.trainable for layer in teacher.layers]
    assert flags == [layer.name != "second" for layer in teacher.layers]
    assert len(teacher.trainable_weights) == 4
    assert type(student) is keras.Sequential
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(outputs(again, x), outputs(student, x), atol=1e-6)


def test_the_loss_is_the_divergence_of_probabilities():
    keras, teacher, student = pair()
    x = data(64)

    def probabilities(model):
        scores = outputs(model, x).astype("float64") / 2.0
        powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    p, q = probabilities(teacher), probabilities(student)
    history = tsp.distill(
        teacher,
        student,
        x,
        student_loss_weight=0,
        temperature=2.0,
        optimizer=keras.optimizers.SGD(0.0),  # learns nothing
        verbose=0,
    )
    expected = 2.0**2 * (p * np.log(p / q)).sum(axis=-1).mean()
    np.testing.assert_allclose(
        history.history["distillation_loss"], [expected], rtol=1e-4
    )


def test_without_labels():
    keras, teacher, student = pair()
    x = data(64)
    before = np.abs(outputs(student, x) - outputs(teacher, x)).mean()
    tsp.distill(
        teacher,
        student,
        x,
        student_loss_weight=0,
        losses=keras.distillation.LogitsDistillation(1.0, loss="mse"),
        optimizer=keras.optimizers.Adam(1e-2),
        epochs=10,
        verbose=0,
    )
    assert np.abs(outputs(student, x) - outputs(teacher, x)).mean() < 0.8 * before


def test_what_would_fail_silently():
    keras, teacher, student = pair()
    x, y = data(8), np.zeros(8, int)
    good = cross_entropy(keras)
    with pytest.raises(ValueError, match="needs a `loss`"):
        tsp.distill(teacher, student, (x, y))
    with pytest.raises(ValueError, match="an array alone"):
        tsp.distill(teacher, student, x, loss=good)
    with pytest.raises(ValueError, match="cannot teach itself"):
        tsp.distill(teacher, teacher, (x, y), loss=good)
    for loss in (
        "sparse_categorical_crossentropy",
        keras.losses.SparseCategoricalCrossentropy(),
    ):
        with pytest.raises(ValueError, match="takes probabilities"):
            tsp.distill(teacher, student, (x, y), loss=loss)
    softmax = keras.Sequential([keras.Input((12,)), keras.layers.Dense(5, "softmax")])
    with pytest.raises(ValueError, match="ends in a softmax"):
        tsp.distill(teacher, softmax, (x, y), loss=good)
    wide = keras.Sequential([keras.Input((12,)), keras.layers.Dense(6)])
    with pytest.raises(ValueError, match="[Ii]ncompatible"):
        tsp.distill(teacher, wide, (x, y), loss=good)
    assert len(teacher.trainable_weights) == 6  # an error gives them back too


def test_the_older_flavour_has_none():
    import tf_keras

    _, teacher, student = pair()
    other = zoo.mlp(tf_keras)
    for one, two in ((other, other), (teacher, other), (other, student)):
        with pytest.raises(FlavourError, match="keras.distillation"):
            tsp.distill(one, two, (data(8), np.zeros(8, int)))
    with pytest.raises(FlavourError, match="Expected a Keras model"):
        tsp.distill("teacher", student, data(8))


def test_a_keras_without_distillation(monkeypatch):
    keras, teacher, student = pair()
    monkeypatch.delattr(keras, "distillation")
    with pytest.raises(FlavourError, match="needs a Keras that has"):
        tsp.distill(teacher, student, (data(8), np.zeros(8, int)))
