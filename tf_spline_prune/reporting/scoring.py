"""What two models score: by their own metrics, or by the user's measure."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_spline_prune._checks import received
from tf_spline_prune.compat import (
    Calibration,
    Graph,
    compile_alike,
    fixed_size,
    is_compiled,
    states_kept,
    with_weights,
)
from tf_spline_prune.errors import CalibrationError, ModelError

Evaluate = Callable[[Any], float | Mapping[str, float]]
Score = Callable[[], dict[str, float]]


def scores_of(
    graphs: tuple[Graph, Graph], data: Any, evaluate: Evaluate | None
) -> tuple[Score, ...]:
    """Prepare the evaluation of two models; everything is checked before it begins.

    Args:
        graphs: The two traced models.
        data: Labelled data, or `None`.
        evaluate: The user's measure, or `None`.

    Returns:
        A function for each model that gives its scores by name; none if there is
        neither `data` nor `evaluate`.

    Raises:
        CalibrationError: If the data do not fit, have no labels, or end after one
            reading or never.
        ModelError: If there are data and no model is compiled.
        TypeError: If `evaluate` is no function; when called, if it gives no number.
        ValueError: If there are both.
    """
    models = [graph.model for graph in graphs]
    if data is None and evaluate is None:
        return ()
    if data is not None and evaluate is not None:
        raise ValueError(
            "Give either `data`, for the models' own metrics, or `evaluate`. Received: "
            "both"
        )
    if evaluate is not None:
        measure = evaluate
    else:
        _check_labelled(data, graphs[0])
        models = _evaluable(models)

        def measure(model: Any) -> Mapping[str, float]:
            options: dict[str, Any] = {"verbose": 0, "return_dict": True}
            if not isinstance(data, tuple):
                return model.evaluate(data, **options)
            weights = data[2] if len(data) > 2 else None
            size = fixed_size(graphs[0].inputs)  # `None` is Keras' own default
            return model.evaluate(
                *data[:2], batch_size=size, sample_weight=weights, **options
            )

    def measured(model: Any) -> dict[str, float]:
        with states_kept(model):
            return _named(measure(model))

    return tuple(functools.partial(measured, model) for model in models)


def _named(found: Any) -> dict[str, float]:
    values = found if isinstance(found, Mapping) else {"score": found}
    try:
        return {str(name): float(value) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`evaluate(model)` must return one number, such as an accuracy, or a "
            f"dictionary of numbers by name. Received: {received(found)} of type "
            f"{type(found).__name__}"
        ) from error


def _evaluable(models: list[Any]) -> list[Any]:
    """Put a copy, compiled like the other, in the place of a model that is not."""
    done = [model for model in models if is_compiled(model)]
    if not done:
        raise ModelError(
            "Neither model is compiled, so there are no metrics for `data`. Compile "
            f"one of them, or give `evaluate`. Received: models {models[0].name!r} "
            f"and {models[1].name!r}."
        )
    found = []
    for model in models:
        if not is_compiled(model):
            model = with_weights(model, {})
            compile_alike(done[0], model)
            if not is_compiled(model):
                raise ModelError(
                    "What one model is compiled with cannot be made anew for the "
                    "other. Compile both, or give `evaluate`. Received: model "
                    f"{model.name!r}, which is not compiled."
                )
        found.append(model)
    return found


def _check_labelled(data: Any, graph: Graph) -> None:
    """Raise unless both models can be evaluated on the data, judging by one batch."""
    endless = getattr(data, "cardinality", None)
    if callable(endless) and int(endless()) == -1:
        raise CalibrationError(
            "The data set never ends. Take a part of it: `dataset.take(8)`."
        )
    first = data
    if hasattr(data, "__getitem__") and not isinstance(data, (tuple, list, Mapping)):
        first = data if hasattr(data, "__array__") else data[0]
    elif isinstance(data, Iterable) and not isinstance(data, (tuple, list, Mapping)):
        batches = iter(data)
        if batches is data:
            raise CalibrationError(
                "An iterator is used up by the first model. Give what can be read "
                "twice: arrays, a `tf.data.Dataset`, a `keras.utils.Sequence`. "
                f"Received: an object of type {type(data).__name__}"
            )
        first = next(batches, data)
    if Calibration.of(first, graph).labels is None:
        raise CalibrationError(
            "Metrics need labels: `(inputs, labels)`, or batches of such. Received: "
            f"an object of type {type(data).__name__} without labels"
        )
