"""`Sampler`: draws latents again, so that what they make is spread as asked."""

from typing import Any

import numpy as np
from scipy.special import softmax

from tf_spline_prune._checks import COUNT, SEED, Flag, Real, checked
from tf_spline_prune.partition.generative._slopes import check_latents, log_volumes


class Sampler:
    """Draw from a pool of latents so that a generator's outputs spread as asked.

    Data that are rare where a generator was trained are rare among what it makes: it
    stretches the latent space most where data were few. Latents of a pool are drawn
    again with weights `volume ** rho`, where the volume is the factor by which the
    generator stretches space around them:

    - `rho=0`: the pool as it is.
    - `rho=1`: outputs evenly over the whole surface, if the latents of the pool are
      evenly over theirs. (Of a normal pool the normal density stays as a factor.)
    - `rho<0`: towards the modes, where the surface is dense: more typical, less
      diverse. `rho>1`: towards the rarest.

    The volumes are computed once, with a progress bar; draws for any `rho` cost
    nothing.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        pool: Latents, of shape `(n, *input shape)`; some ten thousand, and many more
            than are drawn.
        top: How many of the largest singular values make the volume; `None` takes all.
            The authors take 30 for StyleGAN2, and 10 for BigGAN. Defaults to `None`.
        batch_size: Number of latents that are run at a time, times their length.
            Defaults to `1024`.

    Attributes:
        pool: The latents.
        log_volumes: Array of shape `(n,)`: logarithms of the volumes.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, or more
            latents than outputs and no `top`.
        ValueError: If the pool is empty or does not fit the model, or `top` or
            `batch_size` is out of range.

    Example:

    ```python
    sampler = tsp.generative.Sampler(decoder, tsp.probes.noise((8,), 20_000))
    even = decoder.predict(sampler.draw(100, rho=1.0))
    typical = decoder.predict(sampler.draw(100, rho=-1.0))
    ```

    Source: Humayun, Balestriero and Baraniuk, "MaGNET", ICLR 2022 (`rho=1`), and
    "Polarity Sampling", CVPR 2022.
    """

    @checked(top=[COUNT, None], batch_size=COUNT)
    def __init__(
        self,
        model: Any,
        pool: Any,
        *,
        top: int | None = None,
        batch_size: int = 1024,
    ) -> None:
        check_latents(model, pool)
        self.pool = np.array(pool)
        self.log_volumes = log_volumes(model, self.pool, top, batch_size=batch_size)

    @checked(rho=Real())
    def probabilities(self, rho: float = 1.0) -> np.ndarray:
        """Return the probability with which each latent of the pool is drawn.

        Args:
            rho: The power of the volumes. Defaults to `1.0`.

        Returns:
            Array of shape `(n,)`, which adds up to 1.

        Raises:
            ValueError: If `rho` is not finite, or the volumes that it divides by or
                lives on are zero.
        """
        return np.asarray(softmax(self._log_weights(rho)))

    @checked(n=COUNT, rho=Real(), replace=Flag(), seed=SEED)
    def draw(
        self, n: int, rho: float = 1.0, *, replace: bool = True, seed: int = 0
    ) -> np.ndarray:
        """Draw latents from the pool.

        Args:
            n: How many.
            rho: The power of the volumes. Defaults to `1.0`.
            replace: Whether one latent may be drawn several times. Defaults to `True`.
            seed: Seed of the draw. Defaults to `0`.

        Returns:
            Array of shape `(n, *input shape)`, of the pool's dtype.

        Raises:
            ValueError: If `n` is below 1, or without replacement above the number of
                latents that can be drawn; or as in `probabilities`.
        """
        weights = self._log_weights(rho)
        possible = np.count_nonzero(weights > -np.inf)
        if not replace and n > possible:
            raise ValueError(
                "Without replacement at most as many latents are drawn as the pool "
                f"holds with a volume above zero, {possible}. Take a "
                f"larger pool, or `replace=True`. Received: n={n}"
            )
        rng = np.random.default_rng(seed)
        if replace:
            return self.pool[rng.choice(len(weights), n, p=self.probabilities(rho))]
        # The largest of weights with Gumbel noise are a draw one after the other.
        order = np.argsort(-(weights + rng.gumbel(size=len(weights))))
        return np.asarray(self.pool[order[:n]])

    def _log_weights(self, rho: float) -> np.ndarray:
        if rho == 0:
            return np.zeros(len(self.pool))
        flat = np.count_nonzero(np.isneginf(self.log_volumes))
        if flat and (rho < 0 or flat == len(self.pool)):
            raise ValueError(
                "The generator is of lower rank at some latents, so their volume is "
                "zero: a negative `rho` would draw nothing else, a positive one never "
                "draws them. Give a smaller `top`, or leave them out of the pool. "
                f"Received: rho={rho}, and {flat} of {len(self.pool)} latents of "
                "volume zero"
            )
        return np.asarray(rho * self.log_volumes)
