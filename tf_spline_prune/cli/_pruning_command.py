"""`prune`: a smaller model of the same flavour, proved and saved."""

import argparse
import math
from typing import Any

import tf_spline_prune as tsp
from tf_spline_prune._files import sizes_of
from tf_spline_prune.cli._loading import (
    check_input,
    check_output,
    load_data,
    load_plain,
)
from tf_spline_prune.cli._parsing import (
    Commands,
    Outcome,
    Parser,
    add_command,
    add_data,
    add_seed,
    budget,
    check_data,
    fraction,
    positive_int,
)
from tf_spline_prune.errors import UsageError

# Written out, so that `--help` need not import what knows them.
CRITERIA = (
    "auto",
    "activation",
    "batchnorm_scale",
    "fisher",
    "fpgm",
    "lamp",
    "magnitude",
    "random",
    "reconstruction",
    "spline",
    "taylor",
    "force",
    "grasp",
    "snip",
    "synflow",
)
SCOPES = ("auto", "global", "layer", "isomorphic", "uniform", "regions")
STEPS = ("merge", "data_free", "least_squares", "batchnorm")
_WITH_DATA = ("least_squares", "batchnorm")
_BUDGETS = ("target_macs", "target_params", "target_bytes", "target_latency")
# What decides; a stored plan has decided already.
_DECIDING = ("criterion", "scope", "layers", "round_to", "min_units", "max_sparsity")
_EXAMPLES = """\
  # Half of the multiply-accumulates; consumers are refitted on images
  tf-spline-prune prune model.keras --output small.keras --target-macs 50% \\
      --data optical_digits

  # Look first: which units would be pruned, which are unprunable, and why
  tf-spline-prune prune model.keras --target-params 200000 --dry-run"""


def add_to(commands: Commands) -> None:
    """Add the command `prune`."""
    parser = add_command(
        commands,
        "prune",
        "Remove units of a Keras model until a budget is met, prove that nothing else "
        "changed, and save the smaller model.",
        _EXAMPLES,
        run,
        _check,
    )
    parser.add_argument("model", metavar="MODEL", help="the Keras model")
    parser.add_argument("--output", metavar="FILE", help="ends in .keras or .h5")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace existing files"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan, and save no model"
    )
    _add_budgets(parser)
    _add_choices(parser)
    add_data(parser, "for the criterion and for recovery; labels are not needed", 512)


def _add_budgets(parser: Parser) -> None:
    group = parser.add_argument_group(
        "how much (one of these)",
        "A fraction to keep ('0.5', '50%') or an absolute number ('1200000').",
    ).add_mutually_exclusive_group(required=True)
    for name, what in (
        ("macs", "multiply-accumulates"),
        ("params", "parameters"),
        ("bytes", "bytes of the weights"),
        ("latency", "latency, in microseconds, measured here in LiteRT"),
    ):
        group.add_argument(f"--target-{name}", type=budget, metavar="N", help=what)
    group.add_argument(
        "--sparsity",
        type=fraction,
        metavar="SHARE",
        help="fraction of the units to prune",
    )
    group.add_argument(
        "--plan", metavar="FILE", help="carry out the plan of an earlier --plan-out"
    )


def _add_choices(parser: Parser) -> None:
    group = parser.add_argument_group("how")
    group.add_argument(
        "--criterion",
        choices=CRITERIA,
        metavar="NAME",
        help=f"{', '.join(CRITERIA)}; default: auto: reconstruction where there are "
        "data, else spline",
    )
    group.add_argument(
        "--scope",
        choices=SCOPES,
        metavar="NAME",
        help=f"what is ranked together: {', '.join(SCOPES)}; default: auto",
    )
    group.add_argument(
        "--layers",
        nargs="+",
        metavar="REGEX",
        help="names or expressions of the layers that may be pruned; default: all",
    )
    group.add_argument(
        "--round-to",
        type=positive_int,
        metavar="N",
        help="keep a multiple of this many units of each group",
    )
    group.add_argument(
        "--min-units",
        type=positive_int,
        metavar="N",
        help="keep at least this many units of each group; default: 1",
    )
    group.add_argument(
        "--max-sparsity",
        type=fraction,
        metavar="SHARE",
        help="the largest fraction of the units of a group to prune; default: 0.9, or "
        "more where --sparsity asks for more",
    )
    group.add_argument(
        "--recover",
        nargs="+",
        choices=("auto", "none", *STEPS),
        default=["auto"],
        metavar="STEP",
        help=f"how to recover: none, or some of {', '.join(STEPS)}; default: auto: "
        "merge, and least_squares where there are data",
    )
    group.add_argument("--plan-out", metavar="FILE", help="save the plan as .json")
    add_seed(group)


def run(options: argparse.Namespace) -> Outcome:
    """Prune a model.

    Args:
        options: Those of the command.

    Returns:
        The plan, the error that the verification found, accuracies.
    """
    from tf_spline_prune.compat import compile_alike, save_model
    from tf_spline_prune.pruning._prune import carry_out

    stored = tsp.PruningPlan.load(options.plan) if options.plan else None
    model = load_plain(options.model, options)
    data = load_data(options) if options.data else None
    plan = stored or _decided(model, data, options)
    values = {"model": options.model, "plan": _facts(plan)}
    lines = [str(plan)]
    if not options.dry_run:
        before = _accuracy(model, data)
        small, error = carry_out(
            model,
            plan,
            data=data,
            recover=_steps(options.recover),
            seed=options.seed,
        )
        after = _accuracy(small, data)
        compile_alike(model, small)
        save_model(small, options.output)
        size, packed = sizes_of(options.output)
        blind = error is None or math.isnan(error)
        values["verification"] = None if blind else error
        values["accuracy"] = {"before": before, "after": after}
        values["output"] = {
            "path": options.output,
            "bytes": size,
            "gzip_bytes": packed,
        }
        lines += [
            "",
            "not verified: the comparison was blind"
            if blind
            else f"verified: relative error {error:.1e}",
        ]
        if before is not None:
            lines.append(
                f"accuracy: {before:.1%} before, {after:.1%} after, on "
                f"{options.num_samples} inputs of {options.data}, "
                f"{options.split or 'train'}"
            )
        lines.append(f"{options.output}: {size:,} bytes ({packed:,} gzipped)")
    if options.plan_out:
        plan.save(options.plan_out)
        lines.append(f"{options.plan_out}: the plan")
    return Outcome(values, "\n".join(lines))


def _check(options: argparse.Namespace) -> None:
    check_data(options)
    check_input(options.model)
    if options.plan:
        check_input(options.plan)
        decided = [n for n in _DECIDING if getattr(options, n) is not None]
        if decided:
            raise UsageError(
                "A stored plan has decided already. Expected: --plan without "
                f"{', '.join(_flag(n) for n in decided)}"
            )
    if bool(options.output) == options.dry_run:
        raise UsageError(
            "Expected: --output FILE, or --dry-run, and not both. Received: --output "
            f"{options.output}, and {'' if options.dry_run else 'no '}--dry-run"
        )
    steps = options.recover
    if len(steps) > 1 and {"auto", "none"} & set(steps):
        raise UsageError(
            "`auto` and `none` of --recover stand alone. Received: --recover "
            f"{' '.join(steps)}"
        )
    blind = [step for step in steps if step in _WITH_DATA and not options.data]
    if blind:
        raise UsageError(
            f"--recover {' '.join(blind)} needs calibration inputs: give --data NAME. "
            "Labels are not needed"
        )
    check_output(options.output, (".keras", ".h5"), options.overwrite)
    check_output(options.plan_out, (".json",), options.overwrite)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _decided(model: Any, data: Any, options: argparse.Namespace) -> Any:
    """Make the plan; what the user leaves out, the library chooses."""
    asked = {
        name: value
        for name in (*_BUDGETS, "sparsity", *_DECIDING)
        if (value := getattr(options, name)) is not None
    }
    return tsp.plan(model, **asked, data=data, seed=options.seed)


def _steps(recover: list[str]) -> str | list[str] | None:
    return {"auto": "auto", "none": None}.get(recover[0], recover)


def _facts(plan: Any) -> dict[str, Any]:
    """Return the part of a plan that a person wants; `--plan-out` saves the whole."""
    left_out = ("format", "fingerprint", "removed", "merges")
    return {n: value for n, value in plan.to_dict().items() if n not in left_out}


def _accuracy(model: Any, data: Any) -> float | None:
    """Measure how many labels the largest output meets; `None` if that is no label."""
    import numpy as np

    from tf_spline_prune.compat import fixed_size, states_kept, trace

    if data is None:
        return None
    inputs, labels = data
    with states_kept(model):
        size = fixed_size(trace(model).inputs)  # `None` is Keras' own default
        scores = model.predict(inputs, batch_size=size, verbose=0)
    if not hasattr(scores, "shape") or scores.ndim != 2 or scores.shape[1] < 2:
        return None
    return float(np.mean(scores.argmax(-1) == labels))
