"""`check_criterion`, and functions as criteria."""

import functools
import pathlib
import re
from dataclasses import dataclass

import numpy as np
import pytest
import zoo
from criteria_models import examples, small_residual

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.errors import CalibrationError, CriterionError


def largest(graph, group):
    return sum(graph.lengths(member) for member in group.producers)


def biased(graph, group, power=1.0):
    return largest(graph, group) ** power


class Callable:
    def __call__(self, graph, group):
        return largest(graph, group)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (largest, "user:largest"),
        (functools.partial(biased, power=1.0), "user:biased"),
        (Callable(), "user:Callable"),
        (lambda graph, group: largest(graph, group), "user:<lambda>"),
    ],
)
def test_functions(K, tmp_path, function, name):
    model = small_residual(K)
    plan = tsp.plan(model, function, sparsity=0.3)
    want = tsp.plan(
        model, criteria.Magnitude(normalizer="none", reduction="sum"), sparsity=0.3
    )
    assert plan.removed == want.removed
    assert plan.criterion == name
    plan.save(tmp_path / "plan.json")
    again = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert again.criterion == name and list(again.criterion_config) == ["function"]
    assert tsp.verify(model, again.apply(model), again) <= 1e-4
    found = tsp.check_criterion(function, model)
    assert set(found) == {"stem", "inner"}


def test_a_function_may_give_a_list_in_a_plan(K):
    plan = tsp.plan(small_residual(K), lambda g, u: [1] * u.num_units, sparsity=0.3)
    assert plan.removed


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda graph, group: 1.0, r"shape \(\)"),
        (lambda graph, group: np.ones((group.num_units, 1)), r", 1\)"),
        (lambda graph, group: np.full(group.num_units, np.nan), "NaN"),
    ],
)
def test_functions_that_give_no_scores(K, function, match):
    with pytest.raises(CriterionError, match=match):
        tsp.plan(small_residual(K), function, sparsity=0.3)
    with pytest.raises(CriterionError, match=match):
        tsp.check_criterion(function, small_residual(K))


NAMES = ["magnitude", "batchnorm_scale", "fpgm", "lamp", "spline", "activation"]


@pytest.mark.parametrize("name", [*NAMES, "taylor", "fisher"])
def test_the_criteria_keep_to_the_protocol(K, name):
    model = small_residual(K)
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    found = tsp.check_criterion(name, model, examples())
    assert {key: scores.shape for key, scores in found.items()}["stem"] == (6,)


@pytest.mark.parametrize("mode", ["paper", "hyperplane", "code"])
def test_the_modes_of_spline_keep_to_the_protocol(K, mode):
    kernel, bias = (model := zoo.mlp(K)).get_layer("first").get_weights()
    kernel[:, 3] = 0.0  # no direction, but a bias
    model.get_layer("first").set_weights([kernel, bias])
    tsp.check_criterion(criteria.Spline(mode), model)


def test_random_hangs_on_the_place(K):
    model = small_residual(K)
    with pytest.raises(CriterionError, match="stand in another order"):
        tsp.check_criterion("random", model)
    tsp.check_criterion("random", model, permute=False)


def test_the_model_stays_as_it_was(K):
    model = small_residual(K)
    before = model.get_weights()
    tsp.check_criterion("spline", model)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_scores_that_hang_on_chance(K):
    rng = np.random.default_rng(0)
    with pytest.raises(CriterionError, match="again with the same seed"):
        tsp.check_criterion(
            lambda graph, group: rng.random(group.num_units), small_residual(K)
        )


def test_scores_that_are_no_floats(K):
    with pytest.raises(CriterionError, match="floating-point.*int64"):
        tsp.check_criterion(
            lambda graph, group: np.arange(group.num_units), small_residual(K)
        )


@dataclass
class Pairs(criteria.PairCriterion):
    """Distances that may be wrong in one way."""

    wrong: str = ""
    other: object = 0
    name = "pairs"

    def pairs(self, group):
        lengths = largest(self.graph, group)
        matrix = np.abs(lengths[:, None] - lengths)
        if self.wrong == "asymmetric":
            matrix = np.maximum(lengths[:, None] - lengths, 0)
        elif self.wrong == "negative":
            matrix = lengths[:, None] - lengths
        elif self.wrong == "diagonal":
            matrix = matrix + 1.0
        elif self.wrong == "worth":
            lengths = lengths[:-1]
        elif self.wrong == "shape":
            matrix = matrix[:, :-1]
        return criteria.UnitPairs(
            worth=lengths,
            dead=np.zeros(group.num_units, bool),
            rows=lambda chosen: matrix[chosen].copy(),
            scale=lambda units, twins: np.zeros(len(units)),
        )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ("asymmetric", "there and back"),
        ("negative", "not negative"),
        ("diagonal", "to itself"),
        ("worth", "`worth`"),
        ("shape", "distances of shape"),
    ],
)
def test_pairs(K, wrong, match):
    model = small_residual(K)
    tsp.check_criterion(Pairs(), model)
    with pytest.raises(CriterionError, match=match):
        tsp.check_criterion(Pairs(wrong), model)


def test_wrong_use(K):
    model = small_residual(K)
    with pytest.raises(CriterionError, match="get_config"):
        tsp.check_criterion(Pairs(other=object()), model)
    with pytest.raises(TypeError, match="function of the graph"):
        tsp.check_criterion(3, model)
    with pytest.raises(tsp.errors.FlavourError):
        tsp.check_criterion("spline", 3)
    with pytest.raises(CalibrationError, match="labels"):
        tsp.check_criterion("taylor", model, examples()[0])
    with pytest.raises(CriterionError, match="BatchNormalization with a scale"):
        tsp.check_criterion("batchnorm_scale", zoo.mlp(K))
    with pytest.raises(TypeError, match="function of the graph"):
        criteria.UserFunction(int)


def test_the_docs():
    """What `docs/criteria.md` tells to write runs, and its table is complete."""
    text = (pathlib.Path(__file__).parents[2] / "docs" / "criteria.md").read_text()
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(snippet, names)
    assert names["plan"].criterion == "user:in_times_out"
    listed = re.findall(r'^\| `"(\w+)"` \| `(\w+)`', text, re.M)
    assert {name: type(criteria.get(name)).__name__ for name, _ in listed} == dict(
        listed
    )
    assert {n for n, _ in listed} == {
        *NAMES,
        *("taylor", "fisher", "random", "reconstruction"),
    }
