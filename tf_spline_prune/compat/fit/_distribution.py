"""The workers of `MultiWorkerMirroredStrategy`: one decides, all do the same."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_spline_prune.compat._flavour import flavour_of
from tf_spline_prune.errors import FlavourError

_STRATEGY = "CollectiveAllReduceStrategy"  # the class behind the public name


class Workers:
    """The processes that train one model together.

    Without a strategy of several workers there is one, the chief, and nothing is
    sent. With one, each method that sends must be called by all of them, in the
    same order: it is a collective operation.

    Args:
        model: A model of either flavour, or `None`.

    Raises:
        FlavourError: If a model of Keras 3 is to be trained by several workers.
    """

    def __init__(self, model: Any = None) -> None:
        strategy: Any = getattr(model, "distribute_strategy", None)
        names = {kind.__name__ for kind in type(strategy).__mro__}
        several = _STRATEGY in names and strategy.extended._in_multi_worker_mode()
        if several and flavour_of(model) == "keras":
            raise FlavourError(
                "Keras 3 does not train with several workers on TensorFlow. Build the "
                "model with `tf_keras`, which does, or use `MirroredStrategy` on one "
                f"machine. Received: keras model {model.name!r} under "
                "MultiWorkerMirroredStrategy"
            )
        self._strategy = strategy if several else None

    @property
    def alone(self) -> bool:
        """Whether there is only this one."""
        return self._strategy is None

    @property
    def is_chief(self) -> bool:
        """Whether this worker decides and writes files."""
        return self._strategy is None or self._strategy.extended.should_checkpoint

    def of_chief(self, array: np.ndarray) -> np.ndarray:
        """Broadcast the chief's array to every worker.

        Args:
            array: An array; all workers' have one shape and dtype.

        Returns:
            The chief's, bit by bit.
        """
        if self._strategy is None:
            return array
        data = np.ascontiguousarray(array).tobytes()
        whole = np.frombuffer(data + bytes(-len(data) % 8), np.int64)
        data = self._send(whole).tobytes()[: len(data)]
        return np.frombuffer(data, array.dtype).reshape(array.shape)

    def bytes_of_chief(self, data: bytes) -> bytes:
        """Broadcast the chief's bytes, however many it has, to every worker.

        Args:
            data: What the chief sends; other workers' bytes are not read.
        """
        if self._strategy is None:
            return data
        size = int(self.of_chief(np.array(len(data), np.int64)))
        own = data if self.is_chief else bytes(size)
        return self.of_chief(np.frombuffer(own, np.uint8)).tobytes()

    @functools.cached_property
    def _send(self) -> Callable[[np.ndarray], np.ndarray]:
        """Make the collective: a sum to which only the first replica adds.

        Sums of whole numbers and zeros are exact, whatever bits they stand for.
        """
        import tensorflow as tf

        strategy: Any = self._strategy

        def on_replica(values: Any) -> Any:
            context = tf.distribute.get_replica_context()
            first = tf.equal(context.replica_id_in_sync_group, 0)
            mine = tf.where(first, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        @tf.function(reduce_retracing=True)
        def everywhere(values: Any) -> Any:
            return strategy.run(on_replica, args=(values,))

        def send(values: np.ndarray) -> np.ndarray:
            if not values.size:
                return values
            found = everywhere(tf.constant(values))
            return np.asarray(strategy.experimental_local_results(found)[0])

        return send
