"""`Surface`: all that a generator with two latents makes, exactly."""

import math
from functools import cached_property
from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, POSITIVE, Array, Interval, checked
from tf_spline_prune.compat import predict, trace, with_dtype
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition._local_affine import local_affine
from tf_spline_prune.partition.generative._densities import (
    PRIOR,
    Prior,
    latent_shape,
    prior_log_density,
    require_full_rank,
)
from tf_spline_prune.partition.generative._slopes import log_volumes_of
from tf_spline_prune.partition.slices._polygons import following, ragged
from tf_spline_prune.partition.slices._slice2d import slice2d

# So many numbers are held at a time.
_AT_ONCE = 2**22


class Surface:
    """All that a generator makes of a square of two latents, piece by piece.

    `slice2d` finds the regions of the square; on each the generator is an affine map
    onto a flat piece. So areas, densities and the entropy are sums over the pieces,
    with no draw and no error but rounding; and for given data all latents are found
    that make them.

    Args:
        model: A built model from two latents to at least two outputs, whose
            activations are all piecewise-linear, the last one too.
        extent: The least and the greatest number of both latents. Defaults to `(-1.0,
            1.0)`.
        max_regions: The most regions to hold. Defaults to `1_000_000`.

    Attributes:
        slice: The regions of the square; (u, v) are the latents.
        middles: Array of shape `(regions, 2)`: a point inside each.
        log_volumes: Array of shape `(regions,)`: the logarithm of how much each is
            stretched; `-inf` where it makes a line or a point.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, other than
            two latents, fewer than two outputs, or is not piecewise affine.
        RegionLimitError: If there are more than `max_regions` regions.
        ValueError: If another argument is out of range.

    Example:

    ```python
    surface = tsp.generative.Surface(planar, (-3, 3))  # of two latents
    surface.area, surface.entropy()
    surface.log_density(planar(z[:, :2]))        # minus infinity where x is not made
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on densities; the
    regions are those of `slice2d`.
    """

    @checked(extent=Interval(), max_regions=COUNT)
    def __init__(
        self,
        model: Any,
        extent: tuple[float, float] = (-1.0, 1.0),
        *,
        max_regions: int = 1_000_000,
    ) -> None:
        shape = latent_shape(model)
        if math.prod(shape) != 2:
            raise ModelError(
                "Only a plane of latents is cut into all of its regions. Take "
                "`generative.log_density` and `generative.entropy` for more latents. "
                f"Received: model {model.name!r} with {math.prod(shape)} latents"
            )
        _check_outputs(model, shape)
        anchors = np.vstack([np.zeros(2), np.eye(2)]).reshape(3, *shape)
        self.slice = slice2d(model, anchors, extent, max_regions=max_regions)
        self._model = model
        self._low, self._high = map(float, extent)
        offsets = self.slice.offsets
        sums = np.add.reduceat(self.slice.points, offsets[:-1])
        self.middles = sums / np.diff(offsets)[:, None]
        self._slopes, self._starts = local_affine(
            model, self.middles.reshape(-1, *shape), batch_size=1024
        )
        self.log_volumes = log_volumes_of(self._slopes)

    @property
    def area(self) -> float:
        """The area of the surface; what is made several times counts as often."""
        return float((self.slice.areas * np.exp(self.log_volumes)).sum())

    def entropy(self) -> float:
        """Return the entropy, in nats, of what uniform latents of the square make.

        No two latents may make the same output; if some do, the entropy is lower.

        Raises:
            ModelError: If the generator is of lower rank on a region.
        """
        require_full_rank(self._model, self.log_volumes)
        size = self.slice.areas.sum()
        return float(np.log(size) + (self.slice.areas * self.log_volumes).sum() / size)

    @checked(
        x=Array("an array of numbers", finite=False, empty=True), tolerance=POSITIVE
    )
    def preimages(
        self, x: Any, tolerance: float = 1e-6
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find all latents of the square that make given outputs.

        Args:
            x: Array of shape `(n, *output shape)`.
            tolerance: How far from `x` an output may be, as a fraction of the largest
                number that the generator makes. Defaults to `1e-6`, the rounding of
                float32.

        Returns:
            Arrays of shape `(m,)`, `(m, 2)` and `(m,)`: which of `x` is made, by which
            latents, in which region.

        Raises:
            ModelError: If the generator is of lower rank on a region.
            ValueError: If `x` does not fit the model, or `tolerance` is not positive.
        """
        require_full_rank(self._model, self.log_volumes)
        data = self._checked(x, tolerance)
        inverses = np.linalg.pinv(self._slopes)
        constants = np.einsum("rko,ro->rk", inverses, self._starts)
        step = max(1, _AT_ONCE // (2 * len(inverses)))
        found = [
            self._made_by(data[start : start + step], inverses, constants, tolerance)
            for start in range(0, len(data), step)
        ]
        for lot, start in zip(found, range(0, len(data), step), strict=True):
            lot[0][:] += start
        owners, latents, regions = (
            np.concatenate(part) for part in zip(*found, strict=True)
        )
        return owners, latents, regions

    @checked(
        x=Array("an array of numbers", finite=False, empty=True),
        prior=[*PRIOR, None],
        tolerance=POSITIVE,
    )
    def log_density(
        self, x: Any, prior: Prior | None = None, tolerance: float = 1e-6
    ) -> np.ndarray:
        """Return the log density, per area on the surface, at given outputs.

        Args:
            x: Array of shape `(n, *output shape)`.
            prior: How latents are drawn: `"normal"` or `(low, high)`; `None` takes the
                square. What latents outside of the square make is not seen. Defaults to
                `None`.
            tolerance: How far from `x` an output may be, as a fraction of the largest
                number that the generator makes. Defaults to `1e-6`, the rounding of
                float32.

        Returns:
            Array of shape `(n,)`: natural logarithms, summed over all latents that
            make the output; `-inf` where there are none.

        Raises:
            ModelError: If the generator is of lower rank on a region.
            ValueError: If `x` does not fit the model, or another argument is out of
                range.
        """
        prior = (self._low, self._high) if prior is None else prior
        owners, latents, regions = self.preimages(x, tolerance)
        # The rounding of x may have moved them beyond the border.
        latents = latents.clip(self._low, self._high)
        result = np.full(len(x), -np.inf)
        terms = prior_log_density(prior, latents) - self.log_volumes[regions]
        np.logaddexp.at(result, owners, terms)
        return result

    def _made_by(
        self,
        data: np.ndarray,
        inverses: np.ndarray,
        constants: np.ndarray,
        tolerance: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points, offsets = self.slice.points, self.slice.offsets
        near = tolerance * (self._high - self._low)
        z = np.einsum("rko,no->nrk", inverses, data) - constants
        low = np.minimum.reduceat(points, offsets[:-1]) - near
        high = np.maximum.reduceat(points, offsets[:-1]) + near
        owners, regions = np.nonzero(((z >= low) & (z <= high)).all(axis=2))
        z = z[owners, regions]
        made = np.einsum("mok,mk->mo", self._slopes[regions], z) + self._starts[regions]
        fits = np.abs(made - data[owners]).max(axis=1) <= tolerance * self._largest
        # A point is inside if it lies to the left of all edges.
        corners, ends = ragged(offsets, regions)
        first = points[corners]
        edges = first[following(ends)] - first
        away = np.repeat(z, np.diff(ends), axis=0) - first
        left = edges[:, 0] * away[:, 1] - edges[:, 1] * away[:, 0]
        left = left / np.maximum(np.linalg.norm(edges, axis=1), near)
        if len(z):
            fits &= np.minimum.reduceat(left, ends[:-1]) >= -near
        owners, z, regions = owners[fits], z[fits], regions[fits]
        return _once(owners, z, regions, 10 * near)

    @cached_property
    def _largest(self) -> float:
        """The largest number that the generator makes at the middles."""
        made = np.einsum("rok,rk->ro", self._slopes, self.middles) + self._starts
        return float(np.abs(made).max())

    def _checked(self, x: Any, tolerance: float) -> np.ndarray:
        data = np.asarray(x, "float64")
        size = self._slopes.shape[1]
        fits = data.ndim > 1 and len(data) and math.prod(data.shape[1:]) == size
        if not fits or not np.isfinite(data).all():
            raise ValueError(
                f"The data must be finite numbers, {size} per output. Received: an "
                f"array of shape {data.shape}"
            )
        return data.reshape(len(data), size)


def _check_outputs(model: Any, shape: tuple[int, ...]) -> None:
    """Make sure, at a few latents, that there is a surface made of affine maps."""
    z = np.random.default_rng(0).normal(size=(8, *shape))
    slopes, starts = local_affine(model, z)
    if slopes.shape[1] < 2:
        raise ModelError(
            "Two latents make a surface of two outputs or more. Received: model "
            f"{model.name!r} with one output"
        )
    maps = np.einsum("nok,nk->no", slopes, z.reshape(len(z), -1)) + starts
    (outputs,) = predict(with_dtype(model, "float64"), [z])
    if np.abs(outputs.reshape(maps.shape) - maps).max() > 1e-9 * np.abs(maps).max():
        raise ModelError(
            "The model ends in a smooth function, behind which nothing is affine. Make "
            f"a model of the part before it. Received: model {model.name!r} with "
            f"{', '.join(trace(model).ends())}"
        )


def _once(
    owners: np.ndarray, z: np.ndarray, regions: np.ndarray, near: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep one of several regions that find the same latents on their border."""
    again = np.zeros(len(owners), bool)
    most = np.bincount(owners).max(initial=0)
    for shift in range(1, most):
        same = owners[shift:] == owners[:-shift]
        close = np.abs(z[shift:] - z[:-shift]).max(axis=1) <= near
        again[shift:] |= same & close
    return owners[~again], z[~again], regions[~again]
