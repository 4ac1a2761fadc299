"""A small language model on real text: pruned, solved, distilled, and still talking.

    python examples/language_model.py --quick
    python examples/language_model.py --text my_book.txt

A GPT-like model of KerasHub learns the letters of a text; by default the King James
Bible, as Debian's program `bible` prints it (`apt install bible-kjv`). Then it is cut
to 70 % and 50 % of its parameters, in several ways: neurons, heads, both, the hidden
size, and whole blocks. For each the perplexity per letter on text that was held out is
shown: as it is, after its layers were solved again by least squares, and after a short
distillation. Next to them: as many neurons and heads drawn at random, and the same
small model trained from scratch for the time that the distillation took. What has
fewer neurons, heads or blocks is still a model of its class, so it writes by its own
`generate()`. `--quick` takes about two minutes on two cores, all of it about twenty.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from quickstart import fresh_folder

import tf_spline_prune as tsp
from tf_spline_prune._files import atomic_file

try:
    import keras_hub
except ImportError:
    sys.exit("This example needs KerasHub: pip install '.[hub]'")

# The sizes of the model, the lengths of texts and trainings. `neurons` counts both
# halves of the gated layers.
FULL = {
    "model": {"blocks": 6, "heads": 8, "hidden": 128, "neurons": 512},
    "length": 128,
    "batch": 16,
    "steps": 2000,
    "distilled": 200,
    "texts": 256,
    "sizes": (0.7, 0.5),
    "ways": (
        *("neurons", "heads", "neurons and heads", "as many at random"),
        *("hidden size", "blocks"),
    ),
}
QUICK = {
    "model": {"blocks": 2, "heads": 8, "hidden": 64, "neurons": 256},
    "length": 64,
    "batch": 16,
    "steps": 400,
    "distilled": 40,
    "texts": 64,
    "sizes": (0.5,),
    "ways": ("neurons and heads", "as many at random", "blocks"),
}


def bible():
    """Return the King James Bible, a verse per line, as the program `bible` prints it.

    Each line begins with where it stands, such as `Ge1:1`, and a blank.
    """
    command = ["bible", "-f", "Genesis1:1-Revelation22:21"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
        )
    except FileNotFoundError:
        sys.exit(
            "The program `bible`, which prints the text, is not installed. Install it "
            "(Debian, Ubuntu: apt install bible-kjv), or name another text: --text FILE"
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{command} did not end within a minute. Name a text: --text FILE")
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode or len(lines) < 30_000:
        sys.exit(
            f"{command} printed {len(lines)} lines where 31,102 verses were expected, "
            "so it is another program or version. Name a text: --text FILE"
        )
    return lines


class Text:
    """A text as numbers of its letters, a tenth of it held out."""

    def __init__(self, text, length, seed):
        letters, ids = np.unique([*text], return_inverse=True)
        if len(ids) < 100 * length:
            sys.exit(
                f"The text is too short to learn from: {len(ids):,} letters, and "
                f"{100 * length:,} is the least."
            )
        self.letters, self.length = letters, length
        parts = np.array_split(ids.astype("int32"), 100)
        self.held_out = np.concatenate(parts[9::10])
        self.known = np.concatenate([p for i, p in enumerate(parts) if i % 10 != 9])
        self.rng = np.random.default_rng(seed)

    def draw(self, number, held_out=False):
        """Draw pieces: what goes in, and the letters that follow."""
        ids = self.held_out if held_out else self.known
        starts = self.rng.integers(0, len(ids) - self.length, number)
        pieces = ids[starts[:, None] + np.arange(self.length + 1)]
        return as_inputs(pieces[:, :-1]), pieces[:, 1:]

    def encode(self, text):
        return np.searchsorted(self.letters, [*text]).astype("int32")

    def decode(self, ids):
        return "".join(self.letters[ids])


def as_inputs(ids):
    """What the models take: letters, and that none of them is padding."""
    return {"token_ids": ids, "padding_mask": np.ones_like(ids)}


def build(vocabulary, blocks, heads, hidden, neurons):
    """A task of KerasHub; its config says neurons, heads and blocks each by itself."""
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=vocabulary,
        num_layers=blocks,
        num_query_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        hidden_dim=hidden,
        intermediate_dim=neurons,
    )
    return keras_hub.models.GemmaCausalLM(backbone=backbone, preprocessor=None)


def fresh(model, **sizes):
    """A task with new weights and the sizes of another one, but for those named."""
    config = {**model.backbone.get_config(), **sizes}
    backbone = type(model.backbone).from_config(config)
    return type(model)(backbone=backbone, preprocessor=None)


def rates(peak, steps):
    """A learning rate that warms up in a tenth of the steps and falls to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps * 9 // 10), warmup_target=peak, warmup_steps=steps // 10
    )
    return keras.optimizers.AdamW(
        schedule, weight_decay=0.01, beta_2=0.98, global_clipnorm=1.0
    )


def perplexity(model, pieces, batch=16):
    """The perplexity per letter: among so many letters the model is undecided."""
    inputs, following = pieces
    losses = []
    for at in range(0, len(following), batch):
        some = {name: value[at : at + batch] for name, value in inputs.items()}
        loss = keras.losses.sparse_categorical_crossentropy(
            following[at : at + batch], model(some, training=False), from_logits=True
        )
        losses.append(keras.ops.convert_to_numpy(loss))
    return math.exp(np.mean(np.concatenate(losses), dtype="float64"))


class Trainings:
    """Training and distilling, at the settings of this run."""

    def __init__(self, text, settings):
        self.text, self.settings = text, settings
        verbose = 1 if sys.stdout.isatty() else 2  # a bar, or one line in a file
        self.how = {"batch_size": settings["batch"], "shuffle": False}
        self.how["verbose"] = verbose

    def train(self, name, model, steps):
        """Train on letters and those that follow; return the processor's seconds."""
        print(f"\n{name}: {steps} steps")
        batch = self.settings["batch"]
        inputs, following = self.text.draw(steps * batch)
        model.compile(
            rates(3e-3, steps),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[],
        )
        start = time.process_time()
        model.fit(inputs, following, **self.how)
        return time.process_time() - start

    def distill(self, name, model, teacher):
        """Let a small model learn what the big one answers, without labels."""
        steps, batch = self.settings["distilled"], self.settings["batch"]
        print(f"\n{name}: {steps} steps of distillation")
        inputs, _ = self.text.draw(steps * batch)
        start = time.process_time()
        tsp.distill(
            teacher,
            model,
            inputs,
            student_loss_weight=0,
            temperature=1.0,
            optimizer=rates(3e-4, steps),
            **self.how,
        )
        return time.process_time() - start

    def as_long(self, small, big):
        """So many steps take as long as distilling: without the teacher's answers.

        A step of training costs three times the answer of a model.
        """
        ratio = 1 + big.count_params() / (3 * small.count_params())
        return round(self.settings["distilled"] * ratio)


def by_units(layers, model, size, data, **how):
    """Prune neurons, heads, or both: as it is, and solved again."""
    go = functools.partial(
        tsp.prune,
        model,
        target_params=size,
        scope="uniform",  # the same number in every block: the class has one
        layers=layers,
        data=data,
        **how,
    )
    return go(recover=None), go(recover="least_squares")


def by_depth(model, size, data):
    """Drop the blocks without which the model answers best, one after the other."""
    blocks = model.backbone.num_layers
    kept = list(range(blocks))
    for _ in range(round(blocks * (1 - size))):
        worse = {
            gone: perplexity(with_blocks(model, [b for b in kept if b != gone]), data)
            for gone in kept
        }
        kept.remove(min(worse, key=worse.get))
    return with_blocks(model, kept), None


def with_blocks(model, kept):
    """The same model with some of its blocks only."""
    small = fresh(model, num_layers=len(kept))
    old, new = model.backbone, small.backbone
    pairs = [(old.token_embedding, new.token_embedding)]
    pairs += [(old.layer_norm, new.layer_norm)]
    for block, place in zip(new.transformer_layers, kept, strict=True):
        pairs.append((old.transformer_layers[place], block))
    for one, other in pairs:
        other.set_weights(one.get_weights())
    return small


def by_hidden_size(model, size, data):
    """Make the stream between the blocks narrower; out come plain layers.

    They write nothing by themselves. Gemma's table of letters is its head too, so the
    stream cannot be rotated: of its units as they are the largest stay.
    """
    inputs, _ = data
    given = {
        k: keras.Input(v.shape[1:], name=k, dtype="int32") for k, v in inputs.items()
    }
    backbone = model.backbone
    scores = backbone.token_embedding(backbone.call(given), reverse=True)
    plain = keras.Model(given, scores)
    go = functools.partial(tsp.prune_hidden, plain, size, data=inputs, method="select")
    return go(recover=None), go(recover="least_squares")


NEURONS, HEADS = ".*/ffw_.*", ".*/(query|key|value|attention).*"
WAYS = {
    "neurons": lambda model, size, data: by_units(NEURONS, model, size, data[0]),
    "heads": lambda model, size, data: by_units(HEADS, model, size, data[0]),
    "neurons and heads": lambda model, size, data: by_units(None, model, size, data[0]),
    "as many at random": lambda model, size, data: by_units(
        None, model, size, data[0], criterion="random"
    ),
    "hidden size": by_hidden_size,
    "blocks": by_depth,
}


def say(model, text, prompt, length, seed):
    """Let a task go on writing, by its own `generate()`."""
    ids = np.zeros((1, length), "int32")
    known = text.encode(prompt)
    ids[0, : len(known)] = known
    given = {"token_ids": ids, "padding_mask": (np.arange(length) < len(known))[None]}
    sampler = keras_hub.samplers.TopKSampler(5, seed=seed, temperature=0.7)
    model.compile(sampler=sampler, jit_compile=False)
    written = model.generate(given, stop_token_ids=None)
    return text.decode(written["token_ids"][0])


def table(rows):
    """Lay out rows of names and numbers; what there is none of is a dash."""
    head = ("", "parameters", "as it is", "solved", "distilled", "seconds")
    lines = [head] + [
        (
            row["name"],
            f"{row['params']:,}",
            *("-" if x is None else f"{x:.2f}" for x in row["perplexity"]),
            "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", metavar="FILE", help="any text in UTF-8")
    parser.add_argument(
        "--quick", action="store_true", help="a smaller model, to 50 %%"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="a new folder; default: runs/<name>-<number>")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # in order, also into a file
    if options.text:
        letters = pathlib.Path(options.text).read_text(encoding="utf-8")
    else:
        letters = "\n".join(line.partition(" ")[2] for line in bible())
    folder = fresh_folder(options.output, "language_model")
    settings = QUICK if options.quick else FULL
    keras.utils.set_random_seed(options.seed)

    # 1. The text and the big model.
    text = Text(letters, settings["length"], options.seed)
    unseen = text.draw(settings["texts"], held_out=True)
    calibration = text.draw(settings["texts"])
    work = Trainings(text, settings)
    model = build(len(text.letters), **settings["model"])
    print(f"{len(letters):,} letters, {len(text.letters)} different ones")
    seconds = work.train("The big model", model, settings["steps"])
    before = perplexity(model, unseen)
    big = model.count_params()
    rows = [
        {
            "name": "big",
            "params": big,
            "perplexity": [before, None, None],
            "seconds": seconds,
        }
    ]

    # 2. Smaller ones, each in three states.
    small = None
    for size in settings["sizes"]:
        twin = None
        for way in settings["ways"]:
            name = f"{size:.0%}: {way}"
            try:
                raw, solved = WAYS[way](model, size, calibration)
            except tsp.errors.BudgetError as error:
                print(f"\n{name}: {str(error).partition(':')[0]}")
                continue
            states = [raw, solved]
            values = [one and perplexity(one, unseen) for one in states]
            last = solved or raw
            seconds = work.distill(name, last, model)
            rows.append(
                {
                    "name": name,
                    "params": last.count_params(),
                    "perplexity": [*values, perplexity(last, unseen)],
                    "seconds": seconds,
                }
            )
            if way == "neurons and heads":
                small = twin = last
        scratch = fresh(twin)
        name = f"{size:.0%}: from scratch"
        seconds = work.train(name, scratch, work.as_long(scratch, model))
        rows.append(
            {
                "name": name,
                "params": scratch.count_params(),
                "perplexity": [None, None, perplexity(scratch, unseen)],
                "seconds": seconds,
            }
        )

    # 3. What came out, and what it writes.
    print(f"\nPerplexity per letter, of {len(text.letters)}, on text held out:\n")
    print(table(rows))
    with atomic_file(folder / "table.json") as file:
        file.write_text(json.dumps(rows, indent=1))
    small.save(folder / "small.keras")
    prompt = letters[: letters.index(" ", 20)]
    for name, one in (("The big model", model), (f"The {type(small).__name__}", small)):
        written = say(one, text, prompt, settings["length"], options.seed)
        print(f"\n{name} of {one.count_params():,} parameters writes:\n{written}")
    print(f"\nEverything is in {folder}")


if __name__ == "__main__":
    main()
