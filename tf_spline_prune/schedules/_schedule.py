"""`Schedule`: what the pruning schedules of this package share."""

import inspect
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from tf_spline_prune._checks import Integer, checked
from tf_spline_prune.compat import import_tfmot, loading_saved_model, register_class

STEP = Integer(0, 2**62)
# Also one before the training, at which nothing fires.
ANY_STEP = Integer(-(2**62), 2**62)


def check_range(begin_step: int, end_step: int) -> tuple[int, int]:
    """Check that two steps are in order; they may be equal.

    Args:
        begin_step: The first step.
        end_step: The last step.

    Returns:
        Both.

    Raises:
        ValueError: If they are out of order.
    """
    if end_step < begin_step:
        raise ValueError(
            "`end_step` must not come before `begin_step`. Received: "
            f"begin_step={begin_step}, end_step={end_step}"
        )
    return begin_step, end_step


_Base: Any = import_tfmot().sparsity.keras.PruningSchedule
# Layers track it, so that the variables of a schedule are saved with the model;
# unlike a `tf.Module` it adds nothing to the weights of a layer.
_Tracked: Any = tf.__internal__.tracking.AutoTrackable

S = TypeVar("S", bound="Schedule")


class Schedule(_Base, _Tracked):
    """A pruning schedule with plain arithmetic beside TensorFlow's.

    It is a `PruningSchedule` of TFMOT and works wherever one is asked for. A
    subclass gives its rule twice: `at` for plain numbers, which costs nothing, and
    `__call__` for a tensor inside a compiled training step. Both must agree.

    Variables that a subclass holds as attributes are saved with the model, without
    being weights of a layer. Subclasses are registered with both Keras flavours
    when they are defined, so that a model that carries one loads without a scope of
    its own. The constructor's arguments are read from attributes of the same names.

    Example:

    ```python
    class Late(tsp.schedules.Schedule):
        def at(self, step):
            return step == 1000, 0.5

        def __call__(self, step):
            return tf.equal(step, 1000), tf.constant(0.5)
    ```

    Source: the contract is that of TensorFlow Model Optimization 0.8.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        register_class(cls, cls._package())

    @classmethod
    def _package(cls) -> str:
        root = cls.__module__.partition(".")[0]
        return root if root == __name__.partition(".")[0] else "Custom"

    def __init__(self) -> None:
        super().__init__()
        self._revived = loading_saved_model()

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        # A schedule that layers shared comes back from a SavedModel once per layer,
        # with its state in its config; the file holds one set of variables, and
        # tf_keras would miss those of the others.
        if save_type == "checkpoint" and getattr(self, "_revived", False):
            return {}
        return super()._trackable_children(save_type, **kwargs)

    @abstractmethod
    def at(self, step: int) -> tuple[bool, float]:
        """Return whether to prune at a step, and to which sparsity.

        Args:
            step: The step, counted from 1 as training counts them.

        Returns:
            Whether masks are to be updated at it, and to which sparsity.
        """

    @abstractmethod
    def __call__(self, step: Any) -> tuple[Any, Any]:
        """Return the same inside a graph.

        Args:
            step: Scalar integer tensor or variable.

        Returns:
            Scalar tensors: a bool and a float32.
        """

    def _arguments(self) -> dict[str, Any]:
        """Read the constructor's arguments from the attributes of their names."""
        given = inspect.signature(type(self).__init__).parameters.values()
        named = [
            p.name for p in given if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        return {name: getattr(self, name) for name in named[1:]}

    @checked(first=ANY_STEP, last=ANY_STEP)
    def fires_within(self, first: int, last: int) -> bool | None:
        """Return whether some step of a range is a firing step.

        Steps are tried, 1,000 at the most, unless a subclass knows better.

        Args:
            first: The first step of the range.
            last: The last step of the range.

        Returns:
            The answer, or `None` if it is not known.
        """
        return try_steps(lambda step: self.at(step)[0], first, last)

    def get_config(self) -> dict[str, Any]:
        """Return the config, nested as TFMOT's schedules nest theirs.

        Returns:
            `{"class_name": ..., "config": {...}}`, for JSON.
        """
        name = f"{self._package()}>{type(self).__name__}"
        return {"class_name": name, "config": self._arguments()}

    @classmethod
    def from_config(cls: type[S], config: dict[str, Any]) -> S:
        """Make a schedule from its config.

        Args:
            config: What `get_config` gave, or only its inner part.

        Returns:
            A schedule that equals the first.
        """
        return cls._restore(dict(_inner(config)))

    @classmethod
    def _restore(cls: type[S], arguments: dict[str, Any]) -> S:
        return cls(**arguments)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.get_config() == self.get_config()

    def __hash__(self) -> int:
        # Equal schedules have equal hashes, whatever happens to their state.
        return hash(type(self))

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self._arguments().items())
        return f"{type(self).__name__}({shown})"


def _inner(config: dict[str, Any]) -> dict[str, Any]:
    return config["config"] if set(config) == {"class_name", "config"} else config


def constant(value: float) -> tf.Tensor:
    """Make a float32 scalar of a sparsity."""
    return tf.constant(value, tf.float32)


def progress(step: tf.Tensor, begin: Any, length: int) -> tf.Tensor:
    """Measure how much of a range has passed.

    Args:
        step: int64 scalar tensor.
        begin: First step of the range, as number or int64 tensor.
        length: Steps from the first to the last; 0 is passed at once.

    Returns:
        float32 scalar tensor in [0, 1].
    """
    passed = tf.cast(step - begin, tf.float32)
    fraction = (passed + float(length == 0)) / max(length, 1)
    return tf.clip_by_value(fraction, 0.0, 1.0)


# Nothing is tried step by step over a longer range.
_MOST_STEPS = 1000


def is_beat(step: int, begin: int, end: int, frequency: int) -> bool:
    """Return whether a step is a beat.

    Args:
        step: The step.
        begin: The first beat.
        end: No beat comes after this step; a negative number is no end.
        frequency: Steps between two beats.

    Returns:
        Whether `step` is one of `begin`, `begin + frequency`, ... up to `end`.
    """
    inside = step >= begin and (end < 0 or step <= end)
    return inside and (step - begin) % frequency == 0


def has_beat(first: int, last: int, begin: int, end: int, frequency: int) -> bool:
    """Return whether a range of steps holds a beat.

    Args:
        first: The first step of the range.
        last: The last step of the range; an empty range holds none.
        begin: The first beat.
        end: No beat comes after this step; a negative number is no end.
        frequency: Steps between two beats.

    Returns:
        Whether some step from `first` to `last`, both included, is a beat.
    """
    last = last if end < 0 else min(last, end)
    first = max(first, begin)
    following = begin + -(-(first - begin) // frequency) * frequency
    return following <= last


def try_steps(fires: Callable[[int], bool], first: int, last: int) -> bool | None:
    """Look for a firing step by trying, 1,000 steps at the most.

    Args:
        fires: Tells whether a step is one.
        first: The first step of the range.
        last: The last step of the range.

    Returns:
        Whether there is one, or `None` where the range is longer than that and
        none was found.
    """
    tried = range(first, min(last + 1, first + _MOST_STEPS))
    if any(fires(step) for step in tried):
        return True
    return False if first + len(tried) > last else None


def state_variable(value: int, name: str) -> tf.Variable:
    """Make a variable for a whole number.

    It is an int64: an int32 would live on the host, out of reach of a step that is
    compiled for another device.

    Args:
        value: The number at first.
        name: The variable's name.

    Returns:
        An untrained variable of which replicas hold the same value.
    """
    with tf.init_scope():
        return tf.Variable(
            value,
            trainable=False,
            dtype=tf.int64,
            name=name,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )


def read_state(variable: Any) -> int:
    """Read such a variable as it is now, also while a graph is being built."""
    with tf.init_scope():
        return int(variable.numpy())


def write_state(variable: Any, value: int) -> None:
    """Set such a variable now, also while a graph is being built."""
    with tf.init_scope():
        variable.assign(value)
