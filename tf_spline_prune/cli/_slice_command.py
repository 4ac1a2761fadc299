"""`slice`: the exact regions of a model on a plane of its input space."""

import argparse
import io
import math
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune._files import read_file
from tf_spline_prune.cli._loading import check_input, check_output, load_plain
from tf_spline_prune.cli._parsing import (
    Commands,
    Outcome,
    add_command,
    positive_int,
    table,
    whole_number,
)
from tf_spline_prune.errors import UsageError

# Written out, so that `--help` need not import what knows them.
FILLS = ("area", "slope", "class")
_ENDINGS = (".png", ".svg", ".pdf")
_EXAMPLES = """\
  # How many regions there are on the plane of three inputs, layer by layer
  tf-spline-prune slice model.keras --anchors three.npy

  # The plane around three images, with the class that wins where
  tf-spline-prune slice model.keras --anchors three.npy --extent -0.5 1.5 \\
      --picture slice.png --fill class"""


def add_to(commands: Commands) -> None:
    """Add the command `slice`."""
    parser = add_command(
        commands,
        "slice",
        "Cut a plane of the input space into the exact regions of a Keras model, count "
        "them and draw them.",
        _EXAMPLES,
        run,
        _check,
    )
    parser.add_argument("model", metavar="MODEL", help="the Keras model")
    parser.add_argument(
        "--anchors",
        metavar="FILE",
        required=True,
        help="a .npy file with the three inputs that span the plane",
    )
    parser.add_argument(
        "--extent",
        nargs=2,
        type=float,
        default=(0.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="the least and the greatest u and v; the anchors lie at (0, 0), (1, 0) "
        "and (0, 1); default: 0 1",
    )
    parser.add_argument(
        "--layers",
        nargs="+",
        metavar="NAME",
        help="cut by the layers up to the last of these; default: all",
    )
    parser.add_argument(
        "--classes",
        nargs=2,
        type=whole_number,
        metavar="N",
        help="two outputs whose tie is the boundary; default: the largest two",
    )
    parser.add_argument(
        "--max-regions",
        type=positive_int,
        default=1_000_000,
        metavar="N",
        help="more are an error; default: 1000000",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="of too many regions take the layers that are complete",
    )
    picture = parser.add_argument_group("picture")
    picture.add_argument("--picture", metavar="FILE", help=" or ".join(_ENDINGS))
    picture.add_argument(
        "--fill",
        choices=FILLS,
        metavar="WHAT",
        help=f"what the colours of the regions tell: {', '.join(FILLS)}",
    )
    picture.add_argument(
        "--images", action="store_true", help="show the anchors, which are images"
    )
    picture.add_argument(
        "--overwrite", action="store_true", help="replace an existing picture"
    )


def run(options: argparse.Namespace) -> Outcome:
    """Slice a model.

    Args:
        options: Those of the command.

    Returns:
        Regions and lines by layer, and the boundary.
    """
    from tf_spline_prune.visualize._figures import axes_or_new

    # Made first: without matplotlib there is no work in vain.
    axes = axes_or_new(None, (6.2, 5.0)) if options.picture else None
    anchors = _anchors(options.anchors)
    s = tsp.slice2d(
        load_plain(options.model, options),
        anchors,
        tuple(options.extent),
        layers=options.layers,
        classes=options.classes,
        max_regions=options.max_regions,
        partial=options.partial,
    )
    values = _facts(s, options)
    if options.picture:
        tsp.visualize.plot_slice(
            s, options.picture, axes=axes, fill=options.fill, images=options.images
        )
    return Outcome(values, _text(values))


def _check(options: argparse.Namespace) -> None:
    check_input(options.model)
    check_input(options.anchors)
    low, high = options.extent
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            "--extent takes two finite numbers, the smaller first. Received: --extent "
            f"{low:g} {high:g}"
        )
    if not options.picture and (options.fill or options.images or options.overwrite):
        raise UsageError(
            "--fill, --images and --overwrite are about a picture: give --picture FILE "
            "as well"
        )
    check_output(options.picture, _ENDINGS, options.overwrite)


def _anchors(path: str) -> Any:
    """Read the three inputs."""
    import numpy as np

    content = io.BytesIO(read_file(path, "a .npy file"))
    try:
        array = np.load(content, allow_pickle=False)
    except Exception as error:  # a broken file raises almost anything
        raise UsageError(
            "The anchors cannot be read. Expected: a .npy file with one array of "
            f"numbers, as `numpy.save` writes it. Received: {path!r}, which is none"
        ) from error
    if not isinstance(array, np.ndarray):
        raise UsageError(
            "The anchors are one array. Expected: a .npy file, as `numpy.save` writes "
            f"it. Received: {path!r} with {len(array.files)} arrays"
        )
    return array


def _facts(s: Any, options: argparse.Namespace) -> dict[str, Any]:
    boundary = None
    if s.complete:
        boundary = {"segments": len(s.boundary), "length": _length(s.boundary)}
    return {
        "model": options.model,
        "anchors": options.anchors,
        "extent": options.extent,
        "regions": s.num_regions,
        "complete": s.complete,
        "layers": [
            {
                "layer": name,
                "regions": s.regions_through[name],
                "segments": len(segments),
                "length": _length(segments),
            }
            for name, segments in s.lines.items()
        ],
        "boundary": boundary,
        "picture": options.picture,
    }


def _length(segments: Any) -> float:
    import numpy as np

    return float(np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1).sum())


def _text(values: dict[str, Any]) -> str:
    low, high = values["extent"]
    many = "region" if values["regions"] == 1 else "regions"
    head = (
        f"{values['model']}: {values['regions']:,} {many}, u and v from {low:g} to "
        f"{high:g}"
    )
    rows: list[tuple[str, ...]] = [("layer", "regions so far", "segments", "length")]
    for one in values["layers"]:
        cells = (f"{one['regions']:,}", f"{one['segments']:,}", f"{one['length']:.2f}")
        rows.append((one["layer"], *cells))
    lines = [head, "", *table(rows), ""]
    if values["boundary"]:
        boundary = values["boundary"]
        lines.append(
            f"decision boundary: {boundary['segments']:,} segments, length "
            f"{boundary['length']:.2f}"
        )
    else:
        lines.append("later layers are not cut, so the decision boundary is not known")
    if values["picture"]:
        lines.append(f"{values['picture']}: the picture")
    return "\n".join(lines)
