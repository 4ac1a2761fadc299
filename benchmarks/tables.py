"""Writes the tables of the documentation from what the benchmarks have stored.

    python benchmarks/tables.py            # writes them
    python benchmarks/tables.py --check    # fails if a page differs
    python benchmarks/tables.py --maps     # draws the distances between epochs too

A page holds a table between the comments `<!-- table: name -->` and `<!-- end -->`.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("docs/at_initialization.md", "docs/results.md")
NEAR = 0.5  # points of accuracy that count as none lost


def mean(values, digits=1, spread=True):
    """Write a mean, and the standard deviation where there are several values."""
    if not values:
        return ""
    around = f" ± {statistics.stdev(values):.{digits}f}" if values[1:] else ""
    return f"{statistics.mean(values):.{digits}f}" + (around if spread else "")


def span(ratios):
    """Write the least and the largest of some ratios, in percent."""
    ends = dict.fromkeys(f"{ratio:.0%}" for ratio in (min(ratios), max(ratios)))
    return " to ".join(ends)


def grid(heads, rows):
    """Return the lines of a table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def grouped(rows, key):
    """Collect rows that are alike, in the order of their first."""
    found = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def percent(rows, field):
    return mean([100 * row[field] for row in rows])


def at_init(runs):
    """Return the tables of `at_init.py`: a method and repair a row; small networks."""
    sparse = [run for run in runs if run["kind"] == "sparse"]
    for net, here in grouped(sparse, lambda run: run["net"]).items():
        shares = sorted({run["sparsity"] for run in here} - {0.0})
        dense = [run for run in here if run["method"] == "dense"]
        yield from ("", f"{net}; the dense network: {percent(dense, 'accuracy')}", "")
        repairs = list(dict.fromkeys(run["repair"] for run in here))
        heads = [
            f"{repair or 'as it is'}, {share:.0%}"
            for repair in repairs
            for share in shares
        ]
        cells = grouped(
            here, lambda run: (run["method"], run["repair"], run["sparsity"])
        )
        methods = [m for m in dict.fromkeys(run["method"] for run in here)]
        yield from grid(
            ["method", *heads],
            (
                [
                    method,
                    *(
                        percent(cells.get((method, repair, share), []), "accuracy")
                        for repair in repairs
                        for share in shares
                    ),
                ]
                for method in methods
                if method != "dense"
            ),
        )
    small = [run for run in runs if run["kind"] == "small"]
    if small:
        yield from ("", "Small networks", "")
        alike = grouped(small, lambda run: (run["net"], run["share"], run["method"]))
        yield from grid(
            ["net", "MACs kept", "weights", "before training", "trained"],
            (
                [
                    net,
                    f"{share:.0%}",
                    method,
                    percent(found, "before"),
                    percent(found, "accuracy"),
                ]
                for (net, share, method), found in alike.items()
            ),
        )


def tickets(found):
    """Return the tables of `spline_tickets.py`, net by net."""
    here = found["machine"]
    yield (
        f"{here['cores']} cores, {here['processor']}, Python {here['python']}, Keras "
        f"{here['keras']} on {here['backend']} {here.get(here['backend'], '')}."
    )
    nets = grouped(found["rows"], lambda row: row["job"][0])
    for net, rows in nets.items():
        dense = [row for row in rows if row["job"][2] == "dense"]
        epochs = found["preset"]["epochs"][net]
        birds = ", ".join(str(row["ticket_epoch"] + 1) for row in dense)
        base = statistics.mean(row["accuracy"] for row in dense)
        yield from ("", f"### {net}", "")
        yield (
            f"Dense, {epochs} epochs: {mean([row['accuracy'] for row in dense])} %; "
            f"{dense[0]['macs']:,} MACs, {dense[0]['params']:,} parameters; the early "
            f"bird fired after {birds} epochs."
        )
        pruned = [row for row in rows if "kept" in row]
        shares = sorted({row["job"][4] for row in pruned}, reverse=True)
        cells = grouped(
            pruned, lambda row: (row["job"][2], row["job"][3], row["job"][4])
        )
        kinds = dict.fromkeys((row["job"][2], row["job"][3]) for row in pruned)
        for title, field, digits in (
            (
                "Test accuracy in %, by the fraction of MACs kept",
                "accuracy",
                1,
            ),
            ("The same before the tickets are trained", "before", 1),
            ("Training FLOPs saved against dense training", "saving", 2),
            (
                "Against training fully, pruning and training as long once more",
                "saving_retrained",
                2,
            ),
        ):
            yield from ("", title + ":", "")
            yield from grid(
                ["method", "from", *(f"{share:.0%}" for share in shares)],
                (
                    [
                        method,
                        start,
                        *(
                            mean(
                                [row[field] for row in cells.get((*kind, share), [])],
                                digits,
                                spread=digits == 1,
                            )
                            for share in shares
                        ),
                    ]
                    for kind in kinds
                    for method, start in [kind]
                ),
            )
        yield from (
            "",
            f"The largest saving within {NEAR} points of the dense network:",
            "",
        )
        yield from grid(
            ["method", "from", "MACs kept", "accuracy", "dense", "retrained"],
            (best(kind, shares, cells, base) for kind in kinds),
        )
        steps = [row["step"] for row in rows if "step" in row]
        if steps:
            yield from (
                "",
                "Time of a training step, relative to the dense network, both seeds:",
                "",
            )
            yield from grid(
                ["MACs kept", *(f"{float(share):.0%}" for share in steps[0])],
                [
                    [
                        "time",
                        *(span([step[share] for step in steps]) for share in steps[0]),
                    ]
                ],
            )


def best(kind, shares, cells, base):
    """Return the row of a method: where it saves most and loses next to nothing.

    A share counts if all larger ones are as near to the dense network, so that one
    lucky number among many does not decide.
    """
    method, start = kind
    found = [method, start, "none", "", "", ""]
    for share in sorted(shares, reverse=True):
        rows = cells.get((method, start, share), [])
        if not rows or statistics.mean(r["accuracy"] for r in rows) < base - NEAR:
            break
        values = [[row[f] for row in rows] for f in ("saving", "saving_retrained")]
        saved = [f"{mean(one, 2, spread=False)} x" for one in values]
        accuracy = mean([row["accuracy"] for row in rows])
        found = [method, start, f"{share:.0%}", accuracy, *saved]
    return found


def often(found):
    """Return one table of a study with few methods and shares."""
    dense = [row for row in found["rows"] if row["job"][2] == "dense"]
    birds = ", ".join(str(row["ticket_epoch"] + 1) for row in dense)
    images = found["preset"]["images_an_epoch"]
    yield (
        f"Dense: {mean([row['accuracy'] for row in dense])} %; the early bird fired "
        f"after {birds} looks, one after every {images:,} images."
    )
    yield ""
    rows = [row for row in found["rows"] if "kept" in row]
    yield from grid(
        ["method", "from", "MACs kept", "accuracy", "dense", "retrained"],
        (
            [
                method,
                start,
                f"{share:.0%}",
                mean([row["accuracy"] for row in alike]),
                f"{mean([row['saving'] for row in alike], 2, spread=False)} x",
                f"{mean([row['saving_retrained'] for row in alike], 2, False)} x",
            ]
            for (method, start, share), alike in grouped(
                rows, lambda row: tuple(row["job"][2:])
            ).items()
        ),
    )


def early_birds(found):
    """Return what settings of the detector would have found, from stored distances."""
    import numpy as np

    import tf_spline_prune as tsp

    dense = [row for row in found["rows"] if row["job"][2] == "dense"]
    settings = {
        "default": {},
        **{f"threshold {t}": {"threshold": t} for t in (0.05, 0.1, 0.25)},
        **{f"lookback {n}": {"lookback": n} for n in (1, 2, 5)},
        "plateau": {"mode": "plateau"},
        "plateau, tolerance 0.2": {"mode": "plateau", "tolerance": 0.2},
    }
    nets = [f"{net}, seed {seed}" for net, seed, *_ in (row["job"] for row in dense)]
    probe = np.zeros((1, 1))

    def epoch(given, row):
        found = tsp.SplineEarlyBird(probe, **given).replay(row["distances"])
        return "never" if found is None else str(found + 1)

    yield "Epochs until the early bird fires, by its settings:"
    yield ""
    yield from grid(
        ["settings", *nets],
        ([name, *(epoch(s, row) for row in dense)] for name, s in settings.items()),
    )
    yield from ("", "Fraction of bits that differ from the codes after all epochs:", "")
    moments = {
        "after the first epoch": lambda row: 0,
        "when the early bird fires": lambda row: row["ticket_epoch"],
        "before the rate first falls": lambda row: (
            row["rates"].count(row["rates"][0]) - 1
        ),
        "before it falls again": lambda row: np.flatnonzero(np.diff(row["rates"]))[-1],
    }
    yield from grid(
        ["moment", *nets],
        (
            [name, *(f"{row['distances'][-1][when(row)]:.3f}" for row in dense)]
            for name, when in moments.items()
        ),
    )


def partitions(found):
    """Return what pruning leaves of the partition, as shares of the whole network's."""
    rows = found["rows"]
    whole = {
        (row["net"], row["seed"], row["when"]): row
        for row in rows
        if row["criterion"] == "whole"
    }
    fields = ("regions", "boundary", "knots")
    for row in rows:
        base = whole[row["net"], row["seed"], row["when"]]
        row |= {f"{field} share": row[field] / base[field] for field in fields}
    for (net, when), alike in grouped(
        whole.values(), lambda row: (row["net"], row["when"])
    ).items():
        accuracy, regions = (
            mean([row[field] for row in alike], digits)
            for field, digits in (("accuracy", 1), ("regions", 0))
        )
        yield (
            f"The whole {net} network, {when}: {accuracy} %, {regions} regions a slice."
        )
    yield ""
    alike = grouped(
        [row for row in rows if row["criterion"] != "whole"],
        lambda row: (row["net"], row["kept"], row["criterion"], row["when"]),
    )
    heads = [
        "net",
        "units kept",
        "criterion",
        "",
        "accuracy",
        *fields,
        "same answer, %",
    ]
    yield from grid(
        heads,
        (
            [
                net,
                f"{kept:.0%}",
                criterion,
                when,
                mean([row["accuracy"] for row in rows]),
                *(mean([row[f"{f} share"] for row in rows], 2) for f in fields),
                mean([row["same"] for row in rows], 0),
            ]
            for (net, kept, criterion, when), rows in alike.items()
        ),
    )


def maps(found):
    """Draw the distances between all epochs, with the learning rates above."""
    import tf_spline_prune as tsp

    for row in found["rows"]:
        net, seed, method, *_ = row["job"]
        if method == "dense" and not seed:
            tsp.visualize.plot_distance_matrix(
                row["distances"],
                row["ticket_epoch"],
                ROOT / "docs" / "images" / f"early_bird_{net}.png",
                learning_rates=row["rates"],
            )


# The name of a table, where its numbers are, and what makes it of them.
TABLES = {
    "at_init": ("at_init", at_init),
    "spline_tickets_cpu": ("spline_tickets_cpu", tickets),
    "partition": ("partition_after_pruning", partitions),
    "spline_tickets_often": ("spline_tickets_often", often),
    "early_birds_cpu": ("spline_tickets_cpu", early_birds),
}


def stored(source):
    return json.loads((RESULTS / f"{source}.json").read_text())


def filled(text):
    """Return a page with its tables as the stored results have them."""

    def table(match):
        source, made = TABLES[match[1]]
        lines = "\n".join(made(stored(source)))
        return f"<!-- table: {match[1]} -->\n{lines.strip()}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", table, text, flags=re.S)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--maps", action="store_true")
    options = parser.parse_args()
    if options.maps:
        maps(stored("spline_tickets_cpu"))
    for name in PAGES:
        page = ROOT / name
        if not page.exists():
            continue
        old = page.read_text()
        new = filled(old)
        if options.check and new != old:
            sys.exit(f"The tables of {name} are not those of the stored results.")
        page.write_text(new)


if __name__ == "__main__":
    main()
