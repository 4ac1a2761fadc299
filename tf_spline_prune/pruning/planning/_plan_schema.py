"""What stands in a plan, as data, and whether given values are so."""

import dataclasses
import math
import numbers
import reprlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tf_spline_prune.compat import nested_within
from tf_spline_prune.errors import PlanError
from tf_spline_prune.graph import Cost

# Takes where a value stands and the value, and raises unless it is as it should be.
Check = Callable[[str, Any], None]

_LARGEST_COUNT = 2**63 - 1
_LARGEST_SCALE = 1e30  # beyond it float32 has no room for a weight times the scale
_DEEPEST = 32


def check_values(values: Any) -> None:
    """Make sure that values are those of a plan.

    Args:
        values: What `PruningPlan.to_dict` gave, or JSON made of it.

    Raises:
        PlanError: At the first value that is not.
    """
    _require(nested_within(values, _DEEPEST), "plan", "nested less deeply", values)
    _PLAN("", values)
    kinds = values["budget"].keys() - {"weight_dtype", "latency"}
    _require(bool(kinds), "budget", "`sparsity` or a target", values["budget"])
    sizes = {path: before for path, (before, _) in values["units"].items()}
    for path, (before, after) in values["units"].items():
        gone = values["removed"].get(path, ())
        fits = before > 0 and after == before - len(set(gone)) == before - len(gone)
        expected = f"before and after the removal of {len(set(gone))} units"
        _require(fits, f"units[{path!r}]", expected, (before, after))
    named = [*values["removed"].items()]
    for path, triples in values["merges"].items():
        named.append((path, [unit for triple in triples for unit in triple[:2]]))
        apart = all(unit != twin for unit, twin, _ in triples)
        _require(apart, f"merges[{path!r}]", "pairs of two units", triples)
    for path, indices in named:
        where = f"removed or merges[{path!r}]"
        _require(path in sizes, where, "of a layer in `units`", path)
        largest, size = max(indices, default=0), sizes[path]
        _require(largest < size, where, f"below the layer's {size} units", largest)


def _require(condition: bool, where: str, expected: str, value: Any) -> None:
    if condition:
        return
    try:
        shown = reprlib.repr(value)
    except ValueError:  # an integer with too many digits
        shown = f"a {type(value).__name__}"
    raise PlanError(
        f"`{where.lstrip('.') or 'all'}` of the plan must be {expected}. Make the plan "
        f"again, or undo what was changed by hand. Received: {shown}"
    )


def _anything(where: str, value: Any) -> None:
    pass


def _value(expected: str, fits: Callable[[Any], bool]) -> Check:
    def check(where: str, value: Any) -> None:
        _require(fits(value), where, expected, value)

    return check


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value) and float(value) >= 0
    except OverflowError:  # an integer beyond all floats
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _list_of(item: Check, length: int | None = None) -> Check:
    size = "" if length is None else f" of {length} values"

    def check(where: str, value: Any) -> None:
        fits = isinstance(value, (list, tuple)) and length in (None, len(value))
        _require(fits, where, f"a list{size}", value)
        for index, entry in enumerate(value):
            item(f"{where}[{index}]", entry)

    return check


def _row(*items: Check) -> Check:
    def check(where: str, value: Any) -> None:
        _list_of(_anything, len(items))(where, value)
        for index, (item, entry) in enumerate(zip(items, value, strict=True)):
            item(f"{where}[{index}]", entry)

    return check


def _dict_of(item: Check) -> Check:
    def check(where: str, value: Any) -> None:
        fits = isinstance(value, Mapping) and all(map(_is_text, value))
        _require(fits, where, "a dictionary with names as keys", value)
        for key, entry in value.items():
            item(f"{where}[{key!r}]", entry)

    return check


def _record(items: Mapping[str, Check], optional: Collection[str] = ()) -> Check:
    def check(where: str, value: Any) -> None:
        _dict_of(_anything)(where, value)
        lacking = [key for key in items if key not in value and key not in optional]
        text = f"there, with {', '.join(items)}"
        _require(not lacking, f"{where}.{''.join(lacking[:1])}", text, list(value))
        for key, entry in value.items():
            _require(key in items, f"{where}.{key}", "none of a plan's values", key)
            items[key](f"{where}.{key}", entry)

    return check


def _either(*choices: Check) -> Check:
    def check(where: str, value: Any) -> None:
        for choice in choices[:-1]:
            try:
                return choice(where, value)
            except PlanError:
                pass
        choices[-1](where, value)

    return check


_NONE = _value("none", lambda value: value is None)
_TEXT = _value("a text", _is_text)
_NUMBER = _value("a finite number, not negative", _is_number)
_COUNT = _value(
    f"an integer from 0 to {_LARGEST_COUNT}",
    lambda value: type(value) is int and 0 <= value <= _LARGEST_COUNT,
)
_SCALE = _value(
    f"a positive number up to {_LARGEST_SCALE:g}, the scale of merges",
    lambda value: _is_number(value) and 0 < value <= _LARGEST_SCALE,
)
_LISTS = {field.name: _list_of(_TEXT) for field in dataclasses.fields(Cost)}
_COST = _record(
    {**_LISTS, "macs": _either(_NONE, _COUNT), "params": _COUNT, "bytes": _COUNT},
    optional=_LISTS.keys() - {"macs", "params", "bytes"},
)
_TARGETS = ("target_macs", "target_params", "target_bytes", "target_latency")
_BUDGET = {
    "sparsity": _either(_dict_of(_NUMBER), _NUMBER),
    **dict.fromkeys(_TARGETS, _NUMBER),
    "weight_dtype": _TEXT,
    "latency": _TEXT,
}
_PLAN = _record(
    {
        "format": _value("1, the format that is read here", lambda value: value == 1),
        "model": _TEXT,
        "fingerprint": _dict_of(_anything),
        "criterion": _TEXT,
        "criterion_config": _dict_of(_anything),
        "scope": _either(_dict_of(_list_of(_TEXT)), _TEXT),
        "budget": _record(_BUDGET, optional=_BUDGET),
        "removed": _dict_of(_list_of(_COUNT)),
        "merges": _dict_of(_list_of(_row(_COUNT, _COUNT, _SCALE))),
        "barriers": _list_of(
            _record({"layer": _TEXT, "units": _COUNT, "reason": _TEXT})
        ),
        "approximate": _list_of(_TEXT),
        "units": _dict_of(_list_of(_COUNT, 2)),
        "before": _COST,
        "after": _COST,
        "achieved": _either(_NONE, _list_of(_NUMBER, 2)),
        "input_shapes": _either(_NONE, _dict_of(_list_of(_COUNT))),
        "plain": _either(_NONE, _dict_of(_TEXT)),
    },
    optional=["achieved", "input_shapes", "plain"],  # plans of old do not say them
)
