"""Every broken value of a plan's file is a `PlanError` when it is read."""

import json

import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.cli._entry import main
from tf_spline_prune.errors import PlanError

HUGE = 10**400


@pytest.fixture(scope="module")
def plan():
    """A plan with all there is: units that go, twins, barriers."""
    import keras

    keras.utils.set_random_seed(0)
    return tsp.plan(zoo.mlp(keras), "spline", sparsity=0.5)


def test_the_plan_of_these_tests_has_all_there_is(plan, tmp_path):
    assert plan.removed["first"] and plan.merges["first"] and plan.barriers
    plan.save(tmp_path / "plan.json")
    again = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert again == plan == tsp.PruningPlan.from_dict(plan.to_dict())
    assert str(again) == str(plan)


def test_plans_of_0_1_0_load(plan):
    values = json.loads(json.dumps(plan.to_dict()))
    del values["achieved"], values["before"]["uncounted"]
    old = tsp.PruningPlan.from_dict(values)
    assert old.removed == plan.removed and old.achieved is None
    assert old.before == plan.before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # numbers
        (("after", "params"), float("inf")),
        (("after", "params"), float("nan")),
        (("after", "macs"), -1),
        (("before", "bytes"), HUGE),
        (("before", "bytes"), 1.5),
        (("before", "params"), True),
        (("before", "params"), None),
        (("achieved",), [1, HUGE]),
        (("achieved",), [1, 2, 3]),
        (("budget", "sparsity"), float("-inf")),
        (("budget", "sparsity"), "half"),
        (("budget", "sparsity"), -0.5),
        (("merges", "first", 0, 2), 1e308),
        (("merges", "first", 0, 2), 0),
        (("merges", "first", 0, 2), -1.0),
        (("merges", "first", 0, 2), HUGE),
        # indices
        (("merges", "first", 0, 1), 10_000),
        (("merges", "first", 0, 1), -1),
        (("merges", "first", 0, 0), 0.0),
        (("merges", "first", 0, 0), True),
        (("merges", "first", 0), [0, 1]),
        (("merges", "first", 0), [3, 3, 1.0]),
        (("merges", "no_layer"), [[0, 1, 1.0]]),
        (("removed", "first", 0), 32),
        (("removed", "first", 0), -1),
        (("removed", "first", 0), 1.0),
        (("removed", "first", 0), False),
        (("removed", "first", 0), HUGE),
        (("removed", "first"), [5] * 16),
        (("removed", "no_layer"), [0]),
        (("removed",), []),
        (("units", "first"), [32, 32]),
        (("units", "first"), [0, 0]),
        (("units", "first"), "32"),
        # other kinds of values
        (("before",), [1, 2]),
        (("before",), "12"),
        (("after",), None),
        (("after", "unheard_of"), 1),
        (("budget",), {}),
        (("budget",), []),
        (("budget", "target_joules"), 1),
        (("scope",), 3),
        (("scope",), {"pool": "first"}),
        (("scope",), ["global"]),
        (("model",), None),
        (("model",), "\ud800"),
        (("criterion",), ["spline"]),
        (("criterion_config",), "rho"),
        (("fingerprint",), [1]),
        (("barriers", 0, "units"), "all"),
        (("barriers", 0), ["head"]),
        (("barriers", 0, "more"), 1),
        (("approximate",), "all"),
        (("approximate",), [1]),
        (("unheard_of",), 1),
        (("format",), "1"),
        (("format",), 2),
    ],
    ids=repr,
)
def test_a_broken_value_is_refused_when_it_is_read(plan, path, value, tmp_path):
    values = json.loads(json.dumps(plan.to_dict()))
    *way, last = path
    holder = values
    for step in way:
        holder = holder[step]
    holder[last] = value
    with pytest.raises(PlanError, match="Received: "):
        tsp.PruningPlan.from_dict(values)
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(values))
    with pytest.raises(PlanError, match=r"plan\.json"):
        tsp.PruningPlan.load(file)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b"",
        b"3",
        b"null",
        b'"removed"',
        b'{"format": ' + b"1" * 5000 + b"}",
        b'{"format": 1, "format": 1}',
        b'{"format": NaN}',
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_broken_file_is_refused(content, tmp_path):
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    with pytest.raises(PlanError, match=r"Received: .*"):
        tsp.PruningPlan.load(file)


def test_values_that_are_no_json_are_refused_too(plan):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for given in (None, [], 3, {**plan.to_dict(), "criterion_config": {"p": deep}}):
        with pytest.raises(PlanError):
            tsp.PruningPlan.from_dict(given)
    while deep:  # Python itself would fail to forget it in one step
        deep = deep[0]


def test_the_shell_says_so_in_words(plan, tmp_path, capsys):
    import keras

    zoo.mlp(keras).save(tmp_path / "m.keras")
    values = plan.to_dict() | {"scope": 3}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    arguments = ["prune", str(tmp_path / "m.keras"), "--output"]
    arguments += [str(tmp_path / "s.keras"), "--plan", str(tmp_path / "plan.json")]
    assert main(arguments) != 0
    assert "`scope` of the plan must be" in capsys.readouterr().err
