"""What an exported model says of itself."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from tf_spline_prune.compat import flavour_of, keras_of
from tf_spline_prune.errors import ModelError, RuleError
from tf_spline_prune.export.comparison import Comparison
from tf_spline_prune.graph import cost
from tf_spline_prune.litert import Servable
from tf_spline_prune.pruning import PruningPlan


def description(
    servable: Servable,
    signatures: Mapping[str, Any],
    comparison: Comparison,
    plan: PruningPlan | None,
    **details: Any,
) -> str:
    """Describe an exported model in JSON.

    Keys are sorted and there is no date, so that two exports can be compared.

    Args:
        servable: The model that was written.
        signatures: For each signature its inputs and outputs: shape and dtype by
            name.
        comparison: What came out of the comparison.
        plan: The plan that the model was pruned by, or `None`.
        **details: More entries.
    """
    model = servable.model
    content = {
        "tf_spline_prune": metadata.version("tf-spline-prune"),
        "tensorflow": metadata.version("tensorflow"),
        "keras": {"flavour": flavour_of(model), "version": keras_of(model).__version__},
        "model": {"name": servable.name, **_cost(model)},
        "signatures": {
            signature: {
                end: {n: {"shape": s, "dtype": d} for n, (s, d) in tensors.items()}
                for end, tensors in ends.items()
            }
            for signature, ends in signatures.items()
        },
        "max_difference": comparison.difference,
        "compared": comparison.compared,
        "renamed": servable.renamed,
        "plan": None if plan is None else plan.to_dict(),
        **details,
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write_metadata(
    folder: pathlib.Path,
    servable: Servable,
    signatures: Mapping[str, Any],
    comparison: Comparison,
    plan: PruningPlan | None,
) -> None:
    """Write `assets.extra/metadata.json`, last of all files of a version.

    Args:
        folder: The version folder, complete but for this file.
        servable: As in `description`, like the others.
        signatures: Likewise.
        comparison: Likewise.
        plan: Likewise.
    """
    digests = {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    text = description(servable, signatures, comparison, plan, sha256=digests)
    file = folder / "assets.extra" / "metadata.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _cost(model: Any) -> dict[str, int | None]:
    try:
        counted = cost(model)
    except (ModelError, RuleError):  # it can be served, but not counted
        return {"macs": None, "params": None}
    return {"macs": counted.macs, "params": counted.params}
