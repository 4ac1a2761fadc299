"""`distill`: a small model learns from the big one, by Keras' own distillation."""

from typing import Any

import keras

from tf_spline_prune._checks import POSITIVE, Real, checked
from tf_spline_prune.compat import (
    require_distillation,
    softmax_outputs,
    trainability_kept,
)


@checked(temperature=POSITIVE, student_loss_weight=Real(0, 1))
def distill(
    teacher: Any,
    student: Any,
    data: Any,
    *,
    loss: Any = None,
    optimizer: Any = "adam",
    metrics: Any = None,
    temperature: float = 3.0,
    student_loss_weight: float = 0.5,
    losses: Any = None,
    **fit: Any,
) -> Any:
    """Train a student on labels and on what a teacher answers.

    A thin help over `keras.distillation.Distiller`: it checks what fails silently
    there, fits, and gives the teacher its trainable weights back, which the
    `Distiller` freezes. The student is trained in place and stays a plain model;
    compile it anew to evaluate it or to go on.

    Args:
        teacher: A trained Keras 3 model that gives logits. Its weights do not change.
        student: A Keras 3 model with the same inputs and outputs, such as a pruned
            one.
        data: Inputs and labels `(x, y)`, or what `fit` takes as one argument, such
            as a `tf.data.Dataset` of both. With `student_loss_weight=0` inputs
            suffice.
        loss: The student's loss on labels, as `compile` takes it; it must take logits.
            Defaults to `None`.
        optimizer: A name or a Keras optimizer, as `compile` takes it. Defaults to
            `"adam"`.
        metrics: Metrics of the student, as `compile` takes them. Defaults to `None`.
        temperature: Logits are divided by it before the softmax. Defaults to `3.0`.
        student_loss_weight: Weight of the loss on labels in [0, 1]; the teacher's has
            the rest. Defaults to `0.5`.
        losses: Distillation losses of Keras in the place of `LogitsDistillation`, the
            divergence of probabilities at this temperature; needed for models with
            several outputs or without logits. Defaults to `None`.
        **fit: As in `fit`: `epochs`, `batch_size`, `callbacks`, and the rest.

    Returns:
        The `History` of `fit`, with `distillation_loss` and `student_loss`.

    Raises:
        FlavourError: If one is no Keras 3 model, or Keras has no distillation.
        ModelError: If a model is unbuilt or cannot be traced, so that its outputs
            cannot be looked at; `losses` spares the look.
        ValueError: If the two do not fit each other, the outputs or the loss are not
            of logits, or labels or a loss are missing.

    Example:

    ```python
    small = tsp.prune(model, target_macs=0.4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tsp.distill(model, small, (x_train, y_train), loss=loss, epochs=10)
    ```

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network",
    2015.
    """
    keras_distillation = require_distillation(teacher, student)
    if teacher is student:
        raise ValueError(
            "A model cannot teach itself. Expected two models. Received: the same "
            f"model {teacher.name!r} twice"
        )
    labelled = student_loss_weight != 0
    if labelled and loss is None:
        raise ValueError(
            "The student needs a `loss` on labels, as in `compile`; without labels "
            f"give student_loss_weight=0. Received: loss=None, "
            f"student_loss_weight={student_loss_weight!r}"
        )
    if labelled and hasattr(data, "__array__"):
        raise ValueError(
            "Expected inputs and labels: `(x, y)` or a data set of both. Received: an "
            f"array alone, and student_loss_weight={student_loss_weight!r}"
        )
    if losses is None:
        _require_logits(teacher, student, loss if labelled else None)
        # Named by its text, the divergence would be that of the logits themselves, for
        # Keras (3.15) takes the softmax before an instance of the class only.
        losses = keras_distillation.LogitsDistillation(
            temperature=temperature, loss=keras.losses.KLDivergence()
        )
    with trainability_kept(teacher):
        distiller = keras_distillation.Distiller(
            teacher, student, losses, student_loss_weight=student_loss_weight
        )
        # Keras wants some loss even where it has no weight.
        distiller.compile(
            optimizer=optimizer, loss=loss if labelled else "mse", metrics=metrics
        )
        if isinstance(data, tuple):
            return distiller.fit(*data, **fit)
        return distiller.fit(data, **fit)


def _require_logits(teacher: Any, student: Any, loss: Any) -> None:
    """Raise where probabilities would be taken for logits, or the other way round."""
    for model in (teacher, student):
        ends = softmax_outputs(model)
        if ends:
            raise ValueError(
                "Distillation compares logits, but the model ends in a softmax or "
                "sigmoid. Leave it out of both models, or give `losses` that compare "
                f"probabilities. Received: {model.name!r}, which ends in {ends}"
            )
    config = loss.get_config() if hasattr(loss, "get_config") else {}
    by_name = isinstance(loss, str) and loss.endswith("crossentropy")
    if by_name or config.get("from_logits") is False:
        raise ValueError(
            "The models give logits, but the loss takes probabilities. Give an "
            "instance with `from_logits=True`, such as "
            "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. "
            f"Received: loss={loss!r}"
        )
