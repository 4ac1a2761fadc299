"""Generators: read a decoder of digits as a spline, draw from it evenly, prune it.

    python examples/generator.py
    python examples/generator.py --quick

Two small variational autoencoders are trained on the 8 x 8 digits that ship with the
package. Of the decoder with two latents every region is known: pictures show how it
stretches its latent plane, whole and pruned. Of the one with eight, slopes at random
latents tell dimension, dropout, entropy and disentanglement, and what pruning does to
them; and samples are drawn towards the modes, as they come, and evenly.
"""

import argparse
import json
import logging
import os
import statistics
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from quickstart import fresh_folder

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file

WIDTHS = (48, 48)
REACH = 3.0  # of the latent plane that is looked at: 99.5 % of normal latents


def digits(split):
    """Return the images of a split as rows of 64 numbers in [0, 1]."""
    batches = tsp.datasets.load("optical_digits", split, 512, shuffle=False)
    return tsp.probes.minibatch(batches, 2000).reshape(-1, 64)


class Draw(keras.layers.Layer):
    """Draws latents around means, and keeps them close to normal ones."""

    def __init__(self, weight, seed, **kwargs):
        super().__init__(**kwargs)
        self.weight = weight
        self.seeds = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        mean, log_variance = keras.ops.split(inputs, 2, axis=-1)
        excess = keras.ops.exp(log_variance) + mean**2 - 1 - log_variance
        self.add_loss(self.weight * keras.ops.mean(keras.ops.sum(excess, axis=-1)) / 2)
        if not training:
            return mean
        noise = keras.random.normal(keras.ops.shape(mean), seed=self.seeds)
        return mean + keras.ops.exp(log_variance / 2) * noise


def build(latents, seed):
    """An autoencoder of leaky layers, and its two halves."""
    L = keras.layers
    pixels = x = keras.Input((64,))
    for width in reversed(WIDTHS):
        x = L.LeakyReLU(negative_slope=0.1)(L.Dense(width)(x))
    # The weight of the prior for pixels with a noise of 0.15.
    z = Draw(2 * 0.15**2 / 64, seed)(L.Dense(2 * latents)(x))
    x = codes = keras.Input((latents,))
    for i, width in enumerate(WIDTHS):
        x = L.LeakyReLU(negative_slope=0.1)(L.Dense(width, name=f"hidden{i}")(x))
    decoder = keras.Model(codes, L.Dense(64, name="pixels")(x), name="decoder")
    return keras.Model(pixels, decoder(z)), keras.Model(pixels, z), decoder


def trained(latents, x, epochs, seed):
    """Train an autoencoder behind one progress bar; give its two halves."""
    keras.utils.set_random_seed(seed)
    both, encoder, decoder = build(latents, seed)
    print(f"\nTraining a decoder of {latents} latents")
    bar = keras.utils.Progbar(epochs, unit_name="epoch")
    shown = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: bar.update(epoch + 1, [("loss", logs["loss"])])
    )
    rates = keras.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // 64))
    both.compile(keras.optimizers.Adam(rates), "mse", jit_compile=False)
    both.fit(x, x, epochs=epochs, batch_size=64, verbose=0, callbacks=[shown])
    return encoder, decoder


def table(head, rows):
    """Lay out rows of text, the first column to the left."""
    lines = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def pruned(decoder, codes):
    """The decoder at several sizes; the last is narrower than its latents."""
    size = decoder.input_shape[1]
    halves = {f"{s:.0%} of units": s for s in (0.5, 0.75)}
    models = {"whole": decoder}
    for name, sparsity in halves.items():
        models[f"less {name}"] = tsp.prune(decoder, sparsity=sparsity, data=codes)
    left = size - 2
    models[f"hidden1 at {left}"] = tsp.remove_units(
        decoder, {"hidden1": list(range(left, WIDTHS[1]))}
    )
    return models


def measure(decoder, z, codes, x):
    """What slopes at random latents tell, and how well test images are made."""
    g = tsp.generative
    ranks = tsp.jacobian_rank(decoder, z)
    entangled = g.disentanglement(decoder, z)
    row = {
        "parameters": tsp.cost(decoder).params,
        "rank": int(ranks.max()),
        "error": float(np.sqrt(((decoder.predict(codes, verbose=0) - x) ** 2).mean())),
        "entangled": float(entangled.mean()),
        "at worst": float(entangled.max()),
        "entropy": None,
        "+-": None,
    }
    if ranks.min() == z.shape[1]:
        row["entropy"], row["+-"] = g.entropy(decoder, samples=len(z))
    return row


def modes(apart, knots):
    """A generator that takes normal latents to two modes, set by hand."""
    normal, mode = statistics.NormalDist(), statistics.NormalDist(0, 0.1)
    x = np.linspace(-apart / 2 - 0.35, apart / 2 + 0.35, 4001)
    chances = [mode.cdf(v + apart / 2) / 2 + mode.cdf(v - apart / 2) / 2 for v in x]
    values = np.interp([normal.cdf(k) for k in knots], chances, x)
    turns = np.diff(np.diff(values) / np.diff(knots), prepend=0)
    hidden = keras.layers.Dense(len(turns), activation="relu")
    model = keras.Sequential([keras.Input((1,)), hidden, keras.layers.Dense(1)])
    ones = np.ones((1, len(turns)))
    model.set_weights([ones, -knots[:-1], turns[:, None], values[:1]])
    return model


def steepness():
    """How slopes grow as two modes move apart."""
    knots = np.linspace(-2.5, 2.5, 42)
    middles = (knots[:-1] + knots[1:])[:, None] / 2
    for apart in (0.5, 1.0, 2.0, 4.0):
        volumes = tsp.generative.log_volumes(modes(apart, knots), middles)
        yield apart, f"{np.exp(volumes.max()):.1f}", f"{np.exp(volumes.min()):.3f}"


def plot_planes(surfaces, codes, path):
    """Show how decoders stretch their latent plane, region by region."""
    figure = Figure((4.4 * len(surfaces), 3.9), layout="constrained")
    panels = figure.subplots(1, len(surfaces), sharey=True)
    low, high = np.quantile(next(iter(surfaces.values())).log_volumes, [0.01, 0.99])
    for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
        s = surface.slice
        drawn = PolyCollection(
            np.split(s.points, s.offsets[1:-1]),
            array=surface.log_volumes,
            cmap="viridis",
            edgecolors="white",
            linewidths=0.25,
        )
        drawn.set_clim(low, high)
        axes.add_collection(drawn)
        axes.plot(*codes.T, ".", color="black", markersize=1.5, label="test digits")
        axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), aspect="equal")
        axes.set(title=f"{name}: {s.num_regions:,} regions", xlabel="latent 1")
    panels[0].set_ylabel("latent 2")
    panels[0].legend(loc="upper left", markerscale=5, fontsize=8)
    figure.colorbar(drawn, ax=panels, label="log volume", shrink=0.8)
    with atomic_file(path) as file:
        figure.savefig(file, dpi=100)


def plot_samples(samples, path):
    """Show what is drawn for each power of the volumes, two rows each."""
    figure = Figure((7.2, 0.72 * len(samples)), layout="constrained")
    rows = figure.subplots(len(samples), 1)
    for axes, (rho, images) in zip(rows, samples.items(), strict=True):
        strip = images.reshape(2, -1, 8, 8).clip(0, 1)
        strip = np.pad(strip, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=0.5)
        tiled = np.vstack([np.hstack(list(row)) for row in strip])
        axes.imshow(tiled, cmap="gray_r", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(f"rho={rho:g}", rotation=0, ha="right", va="center")
    with atomic_file(path) as file:
        figure.savefig(file, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="small, for a first look")
    parser.add_argument("--output", help="a new folder; default: runs/generator-<n>")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # in order, also into a file
    # It warns that many models are compiled, each of which is looked at once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    folder = fresh_folder(options.output, "generator")
    epochs, pool, count, masks = options.epochs, 10_000, 1000, 100
    if options.quick:
        epochs, pool, count, masks = 3, 500, 100, 10
    g = tsp.generative
    x, x_test = digits("train"), digits("test")
    results = {"two latents": {}, "eight latents": {}}

    # 1. Two latents: every region of the plane, exactly.
    encoder, decoder = trained(2, x, epochs, options.seed)
    codes = encoder.predict(x_test, verbose=0)
    small = tsp.prune(decoder, sparsity=0.5, data=encoder.predict(x, verbose=0))
    surfaces = {
        name: g.Surface(model, (-REACH, REACH))
        for name, model in (("whole", decoder), ("half of the units", small))
    }
    rows = []
    for name, surface in surfaces.items():
        s = surface.slice
        model = decoder if name == "whole" else small
        pairs, angles = g.neighbour_angles(model, surface.middles)
        degrees = np.rad2deg(angles[:, -1])
        guess, error = g.entropy(model, (-REACH, REACH), count)
        rows.append(
            (
                name,
                f"{s.num_regions:,}",
                f"{surface.area:.2f}",
                f"{surface.entropy():.3f}",
                f"{guess:.3f} +- {error:.3f}",
                f"{len(pairs):,}",
                f"{np.median(degrees):.1f}",
                f"{np.rad2deg(angles[:, 0]).max():.0e}",
            )
        )
        results["two latents"][name] = {
            "regions": s.num_regions,
            "area": surface.area,
            "entropy": surface.entropy(),
        }
    head = ["two latents", "regions", "area", "entropy", "from draws"]
    head += ["neighbours", "median angle", "other angle"]
    print(f"\n{table(head, rows)}")
    made = decoder.predict(codes[:50], verbose=0)
    owners, found, _ = surfaces["whole"].preimages(made)
    inside = (np.abs(codes[:50]) < REACH).all(axis=1)
    print(
        f"\nOf {inside.sum()} images made from latents on the plane, the surface finds "
        f"{len(set(owners))} again, with {len(owners)} latents; log density "
        f"{np.median(surfaces['whole'].log_density(made, 'normal')):.2f} in the median"
    )
    plot_planes(surfaces, codes, folder / "latent_planes.png")

    # 2. Eight latents: what slopes at random latents tell, whole and pruned.
    encoder, decoder = trained(8, x, epochs, options.seed)
    z = tsp.probes.noise((8,), count, options.seed)
    codes, test_codes = (encoder.predict(part, verbose=0) for part in (x, x_test))
    keys, rows = [], []
    for name, model in pruned(decoder, codes).items():
        results["eight latents"][name] = row = measure(model, z, test_codes, x_test)
        cells = ("-" if v is None else f"{v:,.3g}" for v in row.values())
        keys, rows = ["eight latents", *row], [*rows, (name, *cells)]
    print(f"\n{table(keys, rows)}")

    rows = []
    for rate in (0.7, 0.8, 0.9):
        units, weights = (
            g.dropout_ranks(decoder, z[:2], rate, drop=drop, masks=masks)
            for drop in ("units", "weights")
        )
        law = g.full_rank_probability(8, WIDTHS, rate)
        shares = (f"{(r == 8).mean():.1%}" for r in (units, weights))
        rows.append((f"{rate:.0%}", *shares, f"{law:.1%}", f"{units.mean():.2f}"))
    head = ["dropped", "full rank: units", "weights", "law for units", "mean rank"]
    print(f"\n{table(head, rows)}")

    # 3. The same decoder, drawn from towards its modes, as it comes, and evenly.
    sampler = g.Sampler(decoder, tsp.probes.noise((8,), pool, options.seed))
    samples, rows = {}, []
    for rho in (-1.0, 0.0, 1.0):
        drawn = sampler.draw(count, rho, seed=options.seed)
        images = decoder.predict(drawn, verbose=0)
        samples[rho] = images[:40]
        nearest = [np.linalg.norm(x - image, axis=1).min() for image in images]
        volume = g.log_volumes(decoder, drawn).mean()
        shares = sampler.probabilities(rho)
        even = f"{1 / (shares**2).sum():,.0f}"
        numbers = (f"{v:.2f}" for v in (volume, np.mean(nearest)))
        rows.append((f"{rho:g}", *numbers, even))
    head = ["rho", "log volume", "to a digit", f"effective, of {pool:,}"]
    print(f"\n{table(head, rows)}")
    plot_samples(samples, folder / "samples.png")

    # 4. Why generators of far modes are hard to train: their slopes must grow.
    print(f"\n{table(['modes apart', 'steepest', 'flattest'], list(steepness()))}")
    with atomic_file(folder / "table.json") as file:
        file.write_text(json.dumps(results, indent=1))
    print(f"\nEverything is in {folder}")


if __name__ == "__main__":
    main()
