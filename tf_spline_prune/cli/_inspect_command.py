"""`inspect`: what is in a model, what it costs, what may be pruned."""

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune._files import sizes_of
from tf_spline_prune.cli._answerer import Answerer, flavour_name, open_answerer
from tf_spline_prune.cli._loading import check_input, load
from tf_spline_prune.cli._parsing import Commands, Outcome, add_command, table

_EXAMPLES = """\
  # Layer by layer: units, costs, zeros, and which units are unprunable and why
  tf-spline-prune inspect model.keras

  # What goes in and out of an exported file, and how large it is
  tf-spline-prune inspect small.tflite"""


def add_to(commands: Commands) -> None:
    """Add the command `inspect`."""
    parser = add_command(
        commands,
        "inspect",
        "Show what is in a model: inputs, outputs, costs, and of a Keras model the "
        "layers and what may be pruned.",
        _EXAMPLES,
        run,
        _check,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a .keras, .h5 or .tflite file, or a SavedModel folder",
    )


def run(options: argparse.Namespace) -> Outcome:
    """Inspect a model.

    Args:
        options: Those of the command.

    Returns:
        What is in it.
    """
    from tf_spline_prune.compat import model_format

    size, packed = sizes_of(options.model)
    values = {"path": options.model, "bytes": size, "gzip_bytes": packed}
    if model_format(options.model) in ("tflite", "saved_model"):
        opened = open_answerer(options.model, options)
        values |= _facts_of_export(options.model, opened)
        return Outcome(values, "\n".join(_head(values) + _lines_of_export(values)))
    values |= _facts_of_model(load(options.model, options))
    return Outcome(values, "\n".join(_head(values) + _lines_of_model(values)))


def _check(options: argparse.Namespace) -> None:
    check_input(options.model)


def _head(values: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{values['path']}: {values['kind']}, {values['bytes']:,} bytes "
        f"({values['gzip_bytes']:,} gzipped)"
    ]
    for what in ("input", "output"):
        for end in values[f"{what}s"]:
            cells = [what, end["name"], str(tuple(end["shape"])), end.get("dtype", "")]
            lines.append("  ".join(cells).rstrip())
    return lines


def _facts_of_export(path: str, opened: Answerer) -> dict[str, Any]:
    ends = {
        what: [
            {"name": name, "shape": shape, "dtype": dtype}
            for name, (shape, dtype) in specs.items()
        ]
        for what, specs in (("inputs", opened.inputs), ("outputs", opened.outputs))
    }
    place = pathlib.Path(path).expanduser()
    if place.is_file():
        metadata = tsp.litert.read_attachments(place)
    else:
        extras = (*place.glob("assets/**/*"), *place.glob("assets.extra/**/*"))
        metadata = {
            str(file.relative_to(place)): f"{file.stat().st_size:,} bytes"
            for file in sorted(extras)
            if file.is_file()
        }
    return {"kind": opened.kind, **ends, "metadata": metadata}


def _lines_of_export(values: Mapping[str, Any]) -> list[str]:
    metadata = values["metadata"].items()
    lines = [f"  {name}: {_in_short(text)}" for name, text in metadata]
    return ["metadata (whole with --json):", *lines] if lines else []


def _in_short(text: str) -> str:
    """Describe an attached text in a line: its numbers, or its first lines."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        short = {k: v for k, v in found.items() if not isinstance(v, (dict, list))}
        return ", ".join(f"{key} {value}" for key, value in short.items())
    lines = text.splitlines()
    return ", ".join([*lines[:5], *(["…"] if lines[5:] else [])])


def _facts_of_model(model: Any) -> dict[str, Any]:
    from tf_spline_prune.compat import mask_slots

    masked = bool(mask_slots(model))
    if masked:
        model = tsp.strip_masks(model)
    graph = tsp.ChannelGraph(model)
    traced = graph.graph
    ends = traced.blueprint.ends()
    return {
        "kind": flavour_name(model),
        "name": model.name,
        "masked": masked,
        "inputs": [vars(entry) for entry in traced.inputs],
        "outputs": [{"name": name, "shape": shape} for name, shape in ends],
        "cost": tsp.cost(model),
        "layers": _layers(model, graph),
        "barriers": graph.barriers,
    }


def _layers(model: Any, graph: Any) -> list[dict[str, Any]]:
    """Describe every layer that has weights, produces units or multiplies tensors."""
    import numpy as np

    from tf_spline_prune.graph._cost import layer_costs

    free = graph.nothing_removed()
    for group in graph.groups:
        free[group.roots] = True
    units: dict[str, dict[str, tuple[int, int]]] = {}
    for name, roots in graph.makers.items():
        path = graph.path_of_maker(name)
        kind = name.removeprefix(path).lstrip("/") or "units"
        units.setdefault(path, {})[kind] = (len(roots), int(free[roots].sum()))
    costs = layer_costs(graph, graph.nothing_removed())
    prunable = tsp.weight_sparsity(model)
    rows = []
    kinds = {call.path: call.kind for call in graph.graph.calls}
    for path, cost in costs.items():
        weights = graph.arrays[path] if path in graph.arrays else {}
        counted = [a for name, a in weights.items() if f"{path}/{name}" in prunable]
        size = sum(array.size for array in counted)
        zeros = sum(array.size - np.count_nonzero(array) for array in counted)
        made = units.get(path, {})
        rows.append(
            {
                "layer": path,
                "kind": kinds[path],
                "units": {kind: total for kind, (total, _) in made.items()},
                "prunable_units": {kind: may for kind, (_, may) in made.items()},
                "macs": cost.macs,
                "params": cost.params,
                "zeros": zeros / size if size else None,
            }
        )
    return rows


def _lines_of_model(values: Mapping[str, Any]) -> list[str]:
    from tf_spline_prune.graph._cost import why_no_macs

    cost = values["cost"]
    if cost.macs is None:
        macs = f"MACs not known ({why_no_macs(cost)})"
    else:
        macs = f"{cost.macs:,} MACs"
    lines = [f"cost  {macs}, {cost.params:,} parameters, {cost.bytes:,} bytes"]
    if values["masked"]:
        lines.append("masked; what the masks removed is counted as zeros")
    rows = [("layer", "kind", "units", "prunable", "MACs", "parameters", "zeros")]
    for layer in values["layers"]:
        rows.append(
            (
                layer["layer"],
                layer["kind"],
                _by_kind(layer["units"]),
                _by_kind(layer["prunable_units"]),
                "?" if layer["macs"] is None else f"{layer['macs']:,}",
                f"{layer['params']:,}",
                "" if layer["zeros"] is None else f"{layer['zeros']:.1%}",
            )
        )
    lines += ["", *table(rows, names=2)]
    if values["barriers"]:
        lines += ["", "Unprunable:"]
        lines += [f"  {barrier}" for barrier in values["barriers"]]
    return lines


def _by_kind(counts: Mapping[str, int]) -> str:
    """Write the units of a layer: `32`, or `8 heads, 64 values`."""
    return ", ".join(
        f"{count:,}" if kind == "units" else f"{count:,} {kind}"
        for kind, count in counts.items()
    )
