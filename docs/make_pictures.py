"""Makes the pictures of docs/pictures.md again, all with one command.

    python docs/make_pictures.py
    python docs/make_pictures.py --only plan strip --output somewhere

A network of two inputs learns the X of the paper's toy; a small convolutional one,
which is not trained, shows what a plan looks like.
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

import tf_spline_prune as tsp

# The points lie in [-2, 2]^2; a slice of the whole input space is that square.
ANCHORS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
EXTENT = (-2.0, 2.0)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Of 100 epochs the first move the most.
MOMENTS = (0, 1, 2, 3, 4, 6, 8, 12, 20, 50, 100)
EPOCHS = MOMENTS[-1]


def save(axes, path):
    """Write a picture of few colours, as small as a page wants it."""
    axes.figure.savefig(path, dpi=100)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def shrink_animation(path):
    """Return an animation few colours too, and all its frames the same."""
    with Image.open(path) as film:
        duration = film.info["duration"]
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    palette = frames[-1].quantize(32, dither=Image.Dither.NONE)
    first, *others = [
        frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames
    ]
    pauses = [duration] * len(others) + [1500]
    first.save(path, save_all=True, append_images=others, duration=pauses, loop=0)


def points(count=2000, seed=0):
    """Draw points of the square; the X of its diagonals parts the two classes."""
    x = np.random.default_rng(seed).uniform(-2, 2, (count, 2)).astype("float32")
    return x, (np.abs(x[:, 1]) > np.abs(x[:, 0])).astype("int32")


def network(*widths):
    """Build 2-...-2 of rectified units whose lines lie all over the square."""
    keras.utils.set_random_seed(1)
    hidden = [
        keras.layers.Dense(
            width,
            activation="relu",
            bias_initializer=keras.initializers.RandomNormal(stddev=0.5),
            name=f"hidden_{number}",
        )
        for number, width in enumerate(widths, start=1)
    ]
    head = keras.layers.Dense(2, name="head")
    return keras.Sequential([keras.Input((2,)), *hidden, head])


def complexity():
    """Measure local complexity at points of the X and far around it."""
    outside = np.random.default_rng(2).uniform(-6, 6, (200, 2))
    inputs = {"train": points(200)[0], "test": points(200, seed=1)[0]}
    return tsp.LocalComplexityLogger({**inputs, "random": outside}, radius=0.1)


def trained():
    """Train 2-10-10-2 on the X; give the model and what its callbacks have seen."""
    model = network(10, 10)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay
    x, y = points()
    drops = [EPOCHS * 63 // 2, EPOCHS * 63 * 3 // 4]
    model.compile(keras.optimizers.SGD(schedule(drops, [0.1, 0.01, 0.001])), LOSS)
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=MOMENTS)
    bird = tsp.SplineEarlyBird(x[:1000], threshold=0.02, stop=False, keep_history=True)
    rates = Rates()
    history = model.fit(
        x,
        y,
        batch_size=32,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[bird, complexity(), rates, recorder],
    )
    return model, history.history, recorder, bird, rates.seen


class Rates(keras.callbacks.Callback):
    """Keeps the learning rate of each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        """Read the rate."""
        self.seen.append(float(self.model.optimizer.learning_rate))


def toy(sparsity=0.6):
    """Train 2-20-2 on the X and plan it."""
    model = network(20)
    model.compile("adam", LOSS)
    model.fit(*points(), epochs=60, verbose=0)
    return model, tsp.plan(model, "spline", sparsity={"hidden_1": sparsity})


def photographs():
    """A plain convolutional network for 32 x 32 colour images."""
    keras.utils.set_random_seed(0)
    L = keras.layers
    x = inputs = keras.Input((32, 32, 3))
    for number, filters in enumerate([16, 16, 32, 32, 64, 64, 128, 256]):
        strides = 2 if number in (2, 4, 6) else 1
        x = L.Conv2D(filters, 3, strides, padding="same", name=f"conv_{number}")(x)
        x = L.ReLU()(x)
    x = L.GlobalAveragePooling2D()(x)
    x = L.Dense(100, activation="relu", name="dense")(x)
    return keras.Model(inputs, L.Dense(10, name="head")(x))


def draw_bundles(model, plan):
    """Draw the lines of a layer, those of each bundle, and those that stay."""
    size = plan.units["hidden_1"][0]
    merged = tsp.merge(model, plan)
    gone = plan.removed["hidden_1"]
    twin = {unit: other for unit, other, _ in plan.merges["hidden_1"]}
    bundles = {unit: [unit] for unit in range(size) if unit not in gone}
    for unit in gone:
        stands = twin[unit]
        while stands in twin:
            stands = twin[stands]
        bundles[stands].append(unit)

    def lines(units):
        others = {"hidden_1": sorted(set(range(size)).difference(units))}
        part = tsp.remove_units(merged, others) if others["hidden_1"] else model
        return tsp.slice2d(part, ANCHORS, EXTENT)

    figure = Figure((9.6, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"]
    dashes = ["-", "--", ":"]
    whole = lines(range(size))
    for start, end in [*whole.lines["hidden_1"]]:
        panels[0].plot(*zip(start, end, strict=True), color="#9a9a9a", linewidth=0.9)
    for number, units in enumerate(bundles.values()):
        look = {
            "color": colours[number % len(colours)],
            "linestyle": dashes[number // len(colours) % len(dashes)],
        }
        for start, end in lines(units).lines["hidden_1"]:
            panels[1].plot(*zip(start, end, strict=True), linewidth=1.2, **look)
        for start, end in lines(units[:1]).lines["hidden_1"]:
            panels[2].plot(*zip(start, end, strict=True), linewidth=1.2, **look)
    for panel, s in ((panels[0], whole), (panels[2], lines(bundles))):
        for start, end in s.boundary:
            panel.plot(*zip(start, end, strict=True), color="#c0392b", linewidth=2)
    titles = (f"{size} units", f"{len(bundles)} bundles", "one unit of each, merged")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(xlim=EXTENT, ylim=EXTENT, aspect="equal", title=title)
        panel.set(xlabel="u", ylabel="v")
    return panels[0]


def signals():
    """Draw what flows through a sparse tanh network, as it is and rescaled."""
    bias_std = 0.2
    model = keras.Sequential([keras.Input((64,))])
    for number in range(19):
        layer = keras.layers.Dense(100, activation="tanh", name=f"layer_{number}")
        model.add(layer)
    model.add(keras.layers.Dense(10, name="scores"))
    start = tsp.initialization.EdgeOfChaos("tanh", bias_std, seed=0)
    model = start.apply_to(model)
    model.compile("sgd", LOSS)
    batches = tsp.datasets.load("optical_digits", "train", 256, shuffle=False)
    x, y = (part.numpy() for part in next(iter(batches)))
    data = ((x - x.mean()) / x.std()).reshape(len(x), -1), y
    masked = tsp.prune_at_init(model, "snip", 0.8, data=data, empty_layers="allow")
    rescaled = tsp.initialization.rescale(masked, activation="tanh", bias_std=bias_std)
    panels = Figure((10.5, 4.2), layout="constrained").subplots(1, 2, sharey=True)
    nets = {"as it is": masked, "rescaled": rescaled}
    for (name, net), axes in zip(nets.items(), panels, strict=True):
        net.compile("sgd", LOSS)
        seen = tsp.initialization.signal_propagation(net, *data, jacobian_inputs=0)
        tsp.visualize.plot_signal_propagation(seen, axes=axes)
        axes.set_title(name)
    return panels[0]


# The rooms by floor, the top one first: name, what is in it, left end and width.
HOUSE = (
    (("cli", "commands", 70, 880),),
    (
        ("callbacks", "plugged into fit", 70, 211),
        ("export", "SavedModel, LiteRT, ONNX", 293, 211),
        ("visualize", "pictures", 516, 211),
        ("reporting", "numbers and pages", 739, 211),
    ),
    (
        ("pruning", "", 66, 556),
        ("masking", "held zeros", 634, 112),
        ("schedules", "and when", 758, 82),
        ("initialization", "", 852, 98),
    ),
    (("criteria", "importance", 66, 152),),
    (
        ("graph", "coupled units", 66, 152),
        ("partition", "codes, slices, generative", 326, 296),
    ),
    (
        ("compat", "", 66, 556),
        ("datasets", "inputs", 634, 152),
        ("litert", "converter, runner", 798, 152),
    ),
    (("errors, _checks, _files", "messages, arguments, files", 70, 880),),
)
# What stands in the rooms of several: name, left end and width.
INSIDE = {
    "pruning": (
        ("planning", 74, 136),
        ("checks", 326, 90),
        ("recovery", 424, 90),
        ("without_loss", 522, 92),
    ),
    "compat": (
        ("graph", 74, 136),
        ("build", 222, 86),
        ("run, autodiff", 326, 90),
        ("data, files", 424, 90),
        ("fit, tfmot", 522, 92),
    ),
}
# Where a model is on its way through `prune`, and how it gets there.
STATIONS = ((192, 503), (192, 391), (192, 321), (192, 255), (265, 503), (371, 255))
STATIONS += ((500, 255),)
WAY = "M20 503H192V255H265V503H317V255H500V161H944"
HOUSE_STYLE = """
svg { --paper: #ffffff; --ink: #1c2128; --soft: #57606a; --rule: #8b949e;
  --part: #f0f3f6; --way: #0a5fd1; font: 15px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #0f1318; --ink: #e6edf3;
  --soft: #9ea7b3; --rule: #737c87; --part: #1c232b; --way: #58a6ff; } }
.paper { fill: var(--paper); } .room { fill: none; stroke: var(--rule); }
.part { fill: var(--part); } text { fill: var(--ink); }
.soft { fill: var(--soft); font-size: 13px; }
.way { fill: none; stroke: var(--way); stroke-width: 2; } .at { fill: var(--way); }
.number { fill: var(--paper); font-size: 12px; text-anchor: middle; }
"""


def house():
    """Draw the rooms of the package, and the way of a model through `prune`."""
    shapes, top = [], 10
    for number, rooms in enumerate(HOUSE):
        top += 34 if number == 2 else 0  # the way out
        tall = any(name in INSIDE for name, *_ in rooms)
        shapes.append(f'<text class="soft" x="40" y="{top + 24}">{6 - number}</text>')
        for name, what, left, width in rooms:
            shapes.append(
                f'<rect class="room" x="{left}" y="{top}" width="{width}" rx="6" '
                f'height="{96 if tall else 58}"/>'
                f'<text x="{left + 8}" y="{top + 22}">{name}</text>'
                f'<text class="soft" x="{left + 8}" y="{top + 42}">{what}</text>'
            )
            for part, start, wide in INSIDE.get(name, ()):
                shapes.append(
                    f'<rect class="part" x="{start}" y="{top + 30}" width="{wide}" '
                    f'rx="4" height="58"/>'
                    f'<text class="soft" x="{start + 6}" y="{top + 46}">{part}</text>'
                )
        top += 108 if tall else 70
    shapes.append(f'<path class="way" marker-end="url(#end)" d="{WAY}"/>')
    shapes.append('<text class="soft" x="16" y="494">model</text>')
    shapes.append('<text class="soft" x="820" y="154">smaller model</text>')
    for number, (x, y) in enumerate(STATIONS, 1):
        shapes.append(
            f'<circle class="at" cx="{x}" cy="{y}" r="10"/>'
            f'<text class="number" x="{x}" y="{y + 4}">{number}</text>'
        )
    head = '<path class="at" d="M0 0 8 4 0 8z"/>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 {top}">'
        "<title>The rooms of the package, and the way through prune</title>"
        f'<style>{HOUSE_STYLE}</style><defs><marker id="end" markerWidth="8" '
        f'markerHeight="8" refX="6" refY="4" orient="auto">{head}</marker></defs>'
        f'<rect class="paper" width="960" height="{top}"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def main():
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    of_training = ("strip", "animation", "distances", "complexity", "sensitivity")
    wanted = (*of_training, "redundancy", "bundles", "plan", "signals", "house")
    parser.add_argument("--only", nargs="+", choices=wanted, default=wanted)
    here = pathlib.Path(__file__).parent / "images"
    parser.add_argument("--output", type=pathlib.Path, default=here)
    arguments = parser.parse_args()
    keras.config.disable_interactive_logging()
    only, folder = set(arguments.only), arguments.output
    if "house" in only:
        (folder / "house.svg").write_text(house())
    if only.intersection(of_training):
        model, history, recorder, bird, rates = trained()
        found = bird.ticket_epoch
        if "strip" in only:
            strip = tsp.visualize.plot_training_slices(recorder)
            save(strip, folder / "training_strip.png")
        if "animation" in only:
            film = folder / "training.gif"
            tsp.visualize.animate_slices(
                recorder, film, frames_per_second=2, dots_per_inch=72
            )
            shrink_animation(film)
        if "distances" in only:
            distances = tsp.visualize.plot_distance_matrix(
                bird.distance_matrix(), found, learning_rates=rates
            )
            save(distances, folder / "distance_map_rates.png")
        if "complexity" in only:
            curves = tsp.visualize.plot_local_complexity(
                history, found, label="knots within 0.1 of an input"
            )
            save(curves, folder / "local_complexity.png")
        if "sensitivity" in only:
            x, y = points(400, seed=1)

            def accuracy(net):
                return float((net.predict(x, verbose=0).argmax(axis=1) == y).mean())

            result = tsp.sensitivity(model, None, accuracy)
            layers = tsp.visualize.plot_sensitivity(result, label="test accuracy")
            save(layers, folder / "sensitivity.png")
    if only & {"redundancy", "bundles"}:
        model, plan = toy()
        if "redundancy" in only:
            bundles = tsp.visualize.plot_redundancy(model, "hidden_1", plan)
            save(bundles, folder / "redundancy.png")
        if "bundles" in only:
            save(draw_bundles(model, plan), folder / "bundles.png")
    if "plan" in only:
        plan = tsp.plan(photographs(), "magnitude", target_macs=0.4)
        save(tsp.visualize.plot_plan(plan), folder / "plan.png")
    if "signals" in only:
        save(signals(), folder / "signals.png")


if __name__ == "__main__":
    main()
