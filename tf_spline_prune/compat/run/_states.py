"""What a model carries over from call to call: kept, and begun anew.

Every place that runs a user's model does so within `states_kept`; what runs a graph of
TensorFlow, of which only the variables are known, within `values_kept`.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from tf_spline_prune.compat._flavour import is_all_keras
from tf_spline_prune.compat._weights import values_of, write_values

_OF_KERAS = "global_seed_generator"  # which layers without a seed draw from


@contextlib.contextmanager
def states_kept(*models: Any, fresh: bool = False) -> Iterator[Callable[[], bool]]:
    """Restore all that running a model may change afterwards.

    That are the states of recurrent layers, seeds, and every other variable that no
    optimizer trains.

    Args:
        *models: Models or layers of either flavour.
        fresh: Whether recurrent states begin at zero, as those of a new model.

    Yields:
        As `values_kept`.
    """
    held = values_kept(v for model in models for v in _state_variables(model))
    with held as have_changed:
        if fresh:
            for variable in (v for model in models for v in _recurrent(model)):
                write_values(variable, np.zeros(tuple(variable.shape)))
        yield have_changed


def changed_at_inference(*models: Any) -> list[Any]:
    """List the variables that calls in inference mode may change, to keep them often.

    Layers of Keras change nothing then but states and seeds.
    """
    return [
        variable
        for model in models
        for variable in _state_variables(model, few=is_all_keras(model))
    ]


@contextlib.contextmanager
def values_kept(variables: Iterable[Any]) -> Iterator[Callable[[], bool]]:
    """Restore variables, of either flavour or TensorFlow's, afterwards.

    Args:
        variables: The variables.

    Yields:
        A function that tells whether any has another value by now.
    """
    held = [(variable, np.array(values_of(variable))) for variable in variables]

    def changed() -> list[tuple[Any, np.ndarray]]:
        return [
            pair for pair in held if not np.array_equal(values_of(pair[0]), pair[1])
        ]

    try:
        yield lambda: bool(changed())
    finally:
        for variable, value in changed():
            write_values(variable, value)


@contextlib.contextmanager
def streams_kept() -> Iterator[None]:
    """Restore the states of the session's random number generators afterwards.

    They are those of Python, NumPy, TensorFlow, Keras 3 and tf_keras, as far as these
    are at work. What is drawn within is not what will be drawn afterwards.
    """
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    own = global_state.get_global_attribute(_OF_KERAS)
    context = _tensorflow_context()
    seed, operations = getattr(context, "_seed", None), getattr(context, "_rng", None)
    layers = _tf_keras_generator()
    # TensorFlow and tf_keras have generators of Python of their own.
    held = [(one, one.getstate()) for one in (operations, layers) if one is not None]
    elsewhere = f"elsewhere {random.random()}"
    with values_kept([own.state] if own is not None else []):
        try:
            random.seed(elsewhere)
            if layers is not None:
                layers.seed(elsewhere)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002
            global_state.set_global_attribute(_OF_KERAS, own)
            for generator, state in held:
                generator.setstate(state)
            if context:
                context._seed, context._rng = seed, operations
            if _tf_keras_generator() is not layers:
                backend = sys.modules["tf_keras.src.backend"]
                backend._SEED_GENERATOR.generator = layers


@contextlib.contextmanager
def same_randomness(model: Any, seed: int = 0, fresh: bool = False) -> Iterator[None]:
    """Let all copies of a model draw the same random numbers, whoever draws them.

    The seeds of the model's layers are set, and those of Keras, TensorFlow and NumPy;
    afterwards they are as they were.

    Args:
        model: A model of either flavour.
        seed: What all seeds are.
        fresh: As in `states_kept`.
    """
    with states_kept(model, fresh=fresh), streams_kept():
        np.random.seed(seed)  # noqa: NPY002
        if context := _tensorflow_context():
            if is_all_keras(model):  # whose random operations hold no states
                context._seed, context._rng = seed, random.Random(seed)
            else:  # throws all kernels away; to make them anew takes its time
                context._set_global_seed(seed)
        generator = keras.random.SeedGenerator(seed=seed)
        global_state.set_global_attribute(_OF_KERAS, generator)
        for variable in _seeds(model):
            write_values(variable, np.full(tuple(variable.shape), seed))
        yield


def _tensorflow_context() -> Any:
    """Return TensorFlow's eager context, which holds its seed, if it is at work."""
    module = sys.modules.get("tensorflow.python.eager.context")
    return module.context() if module is not None else None


def _tf_keras_generator() -> Any:
    """Return the generator from which tf_keras draws seeds of layers, if any."""
    module = sys.modules.get("tf_keras.src.backend")
    return getattr(getattr(module, "_SEED_GENERATOR", None), "generator", None)


def _layers(model: Any) -> Iterator[Any]:
    seen: set[int] = set()
    for layer in model._flatten_layers():
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer


def _state_variables(model: Any, few: bool = False) -> Iterator[Any]:
    """List what no optimizer trains, or only states and seeds; each once."""
    seen: set[int] = set()
    found = (
        variable
        for layer in (() if few else _layers(model))
        for name in ("_non_trainable_variables", "_non_trainable_weights")
        for variable in vars(layer).get(name) or ()
    )
    for variable in (*found, *_recurrent(model), *_seeds(model)):
        if id(variable) not in seen and getattr(variable, "shape", None) is not None:
            seen.add(id(variable))
            yield variable


def _recurrent(model: Any) -> Iterator[Any]:
    """List the states that stateful recurrent layers hold."""
    for layer in _layers(model):
        if getattr(layer, "stateful", False) is True:
            held = getattr(layer, "states", None)
            for state in keras.tree.flatten(held if held is not None else []):
                if hasattr(state, "assign"):
                    yield state


def _seeds(model: Any) -> Iterator[Any]:
    """List the states of the generators of random numbers inside layers."""
    for layer in _layers(model):
        for generator in vars(layer).get("_seed_generators") or ():  # Keras 3
            yield generator.state
        own = getattr(vars(layer).get("_random_generator"), "_generator", None)
        if own is not None:  # tf_keras
            yield own.state
