"""`neighbour_angles`: how a generator's surface folds from region to region."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, checked
from tf_spline_prune.partition._affine_network import AffineNetwork
from tf_spline_prune.partition._local_affine import local_affine
from tf_spline_prune.partition.codes._partition_coder import PartitionCoder
from tf_spline_prune.partition.generative._slopes import check_latents, log_volumes_of


@checked(batch_size=COUNT)
def neighbour_angles(
    model: Any, z: Any, *, batch_size: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the angles at which the flat pieces of a generator's surface meet.

    Two regions whose codes differ in one knot only are neighbours. Their slopes then
    differ by a map of rank one, so that all principal angles between the two pieces
    but the largest are zero; the sine of that one is the spectral norm of the
    difference of the projections onto the pieces.

    Args:
        model: A built model from one tensor of latents to one of outputs, whose
            activations are piecewise-linear. Where it ends in softmax, sigmoid or
            tanh, the output is what goes into it.
        z: Latents, of shape `(n, *input shape)`: points of a line, of a grid, or the
            `middles` of a `Surface`. All pairs of regions that they lie in are
            looked at, each once.
        batch_size: Number of latents that are run at a time, times their length.
            Defaults to `1024`.

    Returns:
        The pairs, of shape `(m, 2)`, as indices of `z`, and the principal angles, of
        shape `(m, latents)`, in radians, the largest last. NaN where the slopes of
        one of the two are of lower rank. Without neighbours, `m` is 0.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, or is not
            piecewise affine.
        ValueError: If the latents do not fit the model, or `batch_size` is below 1.

    Example:

    ```python
    line = np.linspace(z_start, z_end, 400)
    pairs, angles = tsp.generative.neighbour_angles(decoder, line)
    np.rad2deg(angles[:, -1]).mean()
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on angles.
    """
    given = check_latents(model, z)
    network = AffineNetwork(model)
    size = given[0].size
    if not network.knots:
        return np.empty((0, 2), int), np.empty((0, size))
    codes = PartitionCoder(
        network.model, max_units_per_layer=None, batch_size=batch_size
    )(given)
    pairs = one_apart(np.hstack([codes.unpack(name) for name in codes.layers]))
    if not len(pairs):
        return pairs, np.empty((0, size))
    used, places = np.unique(pairs, return_inverse=True)
    slopes, _ = local_affine(model, given[used], batch_size=batch_size)
    one, other = slopes[places.reshape(pairs.shape)].swapaxes(0, 1)
    return pairs, principal_angles(one, other)


def one_apart(bits: np.ndarray) -> np.ndarray:
    """Find the codes that differ in one bit.

    Args:
        bits: Array of shape `(n, knots)`, bool.

    Returns:
        Array of shape `(m, 2)`: indices of the first rows that bear the two codes.
        The second one has the bit that the first one lacks.
    """
    # A random number per knot; codes that differ in one knot have sums that differ by
    # its number, which is looked up among the sums.
    rng = np.random.default_rng(0)
    keys = rng.integers(2**64, size=(bits.shape[1],), dtype="uint64")
    each = np.zeros(len(bits), "uint64")
    for knot, key in enumerate(keys):
        each ^= np.where(bits[:, knot], key, np.uint64(0))
    sums, rows = np.unique(each, return_index=True)
    found = []
    for knot, key in enumerate(keys):
        below = np.flatnonzero(~bits[rows, knot])
        places = np.searchsorted(sums, sums[below] ^ key).clip(max=len(sums) - 1)
        hits = sums[places] == sums[below] ^ key
        found.append(np.stack([rows[below[hits]], rows[places[hits]]], axis=1))
    pairs = np.concatenate(found)
    return pairs[(bits[pairs[:, 0]] != bits[pairs[:, 1]]).sum(axis=1) == 1]


def principal_angles(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the principal angles between the columns' spans of pairs of matrices.

    Args:
        one: Array of shape `(m, outputs, inputs)`.
        other: Another of the same shape.

    Returns:
        Array of shape `(m, inputs)`, in radians, rising; NaN where a matrix is of
        lower rank.
    """
    angles = np.full((len(one), one.shape[2]), np.nan)
    full = [np.isfinite(log_volumes_of(slopes)) for slopes in (one, other)]
    sound = full[0] & full[1] & (one.shape[2] <= one.shape[1])
    if sound.any():
        base, turned = (np.linalg.qr(slopes[sound])[0] for slopes in (one, other))
        inside = base.swapaxes(1, 2) @ turned
        # Small angles are known by their sines, large ones by their cosines.
        sines = np.linalg.svd(turned - base @ inside, compute_uv=False)[:, ::-1]
        angles[sound] = np.arctan2(sines, np.linalg.svd(inside, compute_uv=False))
    return angles
