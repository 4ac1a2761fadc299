"""Models whose class says their sizes stay of their class; see `classes_with_sizes`."""

import re

import keras
import numpy as np
import pytest
from classes_with_sizes import (
    Backbone,
    Block,
    Splitter,
    Task,
    backbone,
    given,
    zeroed,
)

import tf_spline_prune as tsp
from tf_spline_prune.errors import BudgetError, ModelError, SplinePruneWarning

UP = {"block_0/up": [0, 5, 7], "block_1/up": [1, 2, 11]}


def test_a_class_keeps_what_its_config_says():
    model = backbone()
    small = tsp.remove_units(model, UP)
    assert type(small) is Backbone
    assert small.sizes == {**model.sizes, "inner_dim": 9}
    for block, units in UP.items():
        zeroed(model.get_layer(block.partition("/")[0]).down, 0, units)
    for length in (2, 4, 9):  # of any length, as before
        x = given(length)
        np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_heads_go_with_all_that_counts_them():
    model = backbone()
    heads = [n for n in tsp.ChannelGraph(model).makers if n.endswith("query/h")]
    assert len(heads) == 2
    small = tsp.remove_units(model, {name: [1] for name in heads})
    assert type(small) is Backbone and small.sizes["num_heads"] == 3
    for number in range(2):
        zeroed(model.get_layer(f"block_{number}").heads.output_dense, 0, [1])
    np.testing.assert_allclose(small(given()), model(given()), atol=1e-5)


def test_what_a_config_cannot_say_comes_out_in_the_class_of_its_blocks():
    model = backbone(window=2)
    uneven = {"block_0/up": [0, 5, 7], "block_1/up": [3]}
    small = tsp.remove_units(model, uneven)
    assert type(small) is keras.Model or type(small).__name__ == "Functional"
    blocks = [small.get_layer(f"block_{number}") for number in range(2)]
    assert [type(block) for block in blocks] == [Block, Block]
    assert [block.inner_dim for block in blocks] == [9, 11]
    for block, units in uneven.items():
        zeroed(model.get_layer(block.partition("/")[0]).down, 0, units)
    for length in (2, 8):  # `window`, which `get_config` forgets, is remembered
        x = given(length)
        np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_a_result_loads_with_the_classes_of_the_original_alone(tmp_path):
    model = backbone(window=2)
    for units in (UP, {"block_0/up": [0]}):
        small = tsp.remove_units(model, units)
        small.save(tmp_path / "small.keras")
        again = keras.models.load_model(tmp_path / "small.keras")
        assert type(again) is type(small)
        np.testing.assert_array_equal(again(given()), small(given()))


def test_a_class_that_means_something_else_by_its_number_is_not_kept():
    model = backbone(half=True)
    units = {"block_0/up": [0, 1, 2, 3], "block_1/up": [0, 1]}
    kept = tsp.remove_units(model, units)
    assert type(kept) is Backbone and kept.sizes["inner_dim"] == 8
    assert not isinstance(tsp.remove_units(model, {"block_1/up": [0]}), Backbone)


def test_a_task_stays_a_task_and_shares_its_preprocessor():
    preprocessor = Splitter()
    preprocessor.words = ["in", "the", "beginning"]
    task = Task(backbone(), preprocessor, name="task")
    x = given(count=64)
    before = [np.array(weight) for weight in task.weights]
    small = tsp.prune(task, target_params=0.8, data=x)
    assert type(small) is Task and type(small.backbone) is Backbone
    assert small.preprocessor is preprocessor
    assert small.count_params() <= 0.8 * task.count_params()
    assert small.continue_greedily(x["words"][:2], 4).shape == (2, 11)
    for weight, value in zip(task.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    small.fit(x, x["words"], epochs=1, verbose=0)


def test_uniform_takes_the_same_from_every_block_and_only_what_can_be_said():
    model = backbone()
    plan = tsp.plan(model, "magnitude", sparsity=0.25, scope="uniform")
    kept = {name: new for name, (_, new) in plan.units.items()}
    assert kept["block_0/up"] == kept["block_1/up"] == 9
    assert not plan.plain and type(plan.apply(model)) is Backbone
    alone = tsp.plan(model, "magnitude", sparsity=0.25, scope="layer", layers=r".*/up")
    for name in UP:  # each block loses its own three least
        assert plan.removed[name] == alone.removed[name]


def test_uniform_is_what_auto_takes_as_far_as_it_suffices():
    model = backbone()
    assert tsp.plan(model, "magnitude", target_params=0.8).scope == "uniform"
    assert tsp.plan(model, "magnitude", sparsity={"block_0/up": 0.5}).plain
    out_of_reach = tsp.plan(model, "magnitude", target_params=0.99, scope="global")
    assert out_of_reach.scope == "global"
    with pytest.raises(BudgetError, match="out of reach"):
        tsp.plan(model, "magnitude", target_params=0.01, scope="uniform")
    with (
        pytest.warns(SplinePruneWarning, match="a plain model and no Backbone"),
        pytest.raises(BudgetError, match="out of reach"),
    ):
        tsp.plan(model, "magnitude", target_params=0.01)


def test_uniform_makes_plain_models_even_too():
    model = keras.Sequential([keras.Input((6,))])
    for _ in range(3):
        model.add(keras.layers.Dense(6, activation="relu"))
    plan = tsp.plan(model, "magnitude", target_params=0.5, scope="uniform")
    assert len({plan.units[layer.name] for layer in model.layers[:2]}) == 1


def test_a_plan_says_what_comes_out_as_plain_layers_and_reads_it_again(tmp_path):
    plan = tsp.plan(backbone(), "magnitude", sparsity=0.3, scope="global")
    assert "" in plan.plain and "Comes out as plain layers" in str(plan)
    assert plan.input_shapes == {"padding_mask": (16,), "words": (16,)}
    plan.save(tmp_path / "plan.json")
    again = tsp.PruningPlan.load(tmp_path / "plan.json")
    assert again == plan and type(again.apply(backbone())) is not Backbone


def test_sizes_are_given_or_those_of_the_data():
    model = backbone()
    read = tsp.ChannelGraph(model, input_shapes={"words": (5,)})
    assert read.input_shapes == {"padding_mask": (5,), "words": (5,)}
    width, inner, heads, size, length = 8, 12, 4, 3, 5
    block = length * (4 * width * heads * size + 2 * width * inner)
    block += 2 * length * length * heads * size
    assert tsp.cost(model, input_shapes={"words": (5,)}).macs == 2 * block
    plan = tsp.plan(model, "activation", sparsity=0.2, data=given(6, 32))
    assert plan.input_shapes == {"padding_mask": (6,), "words": (6,)}
    assert tsp.verify(model, plan.apply(model), plan) < 1e-6


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ({"word": (5,)}, ValueError, "does not fit the inputs"),
        ({"words": (5, 2)}, ValueError, "does not fit the inputs"),
        ({"words": (0,)}, ValueError, "input_shapes"),
        ({"words": 5}, (TypeError, ValueError), "input_shapes"),
        ({"words": (5,), "padding_mask": (6,)}, ModelError, "cannot be read with"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes, error, message):
    with pytest.raises(error, match=message):
        tsp.plan(backbone(), "magnitude", sparsity=0.2, input_shapes=shapes)


def test_reading_at_a_size_leaves_the_uses_of_layers_as_they_were():
    model = backbone()
    tsp.ChannelGraph(model, input_shapes={"words": (5,)})
    tap = keras.Model(model.input, model.get_layer("block_0").output)
    assert tap(given()).shape == (3, 7, 8)


def test_frozen_layers_stay_frozen():
    model = backbone()
    model.get_layer("block_1").trainable = False
    model.get_layer("block_0").norm.trainable = False
    small = tsp.remove_units(model, UP)
    flags = [
        [re.sub(r"^.*?block", "block", w.path) for w in one.trainable_weights]
        for one in (model, small)
    ]
    assert flags[0] == flags[1] and len(flags[0]) < len(model.weights)


def test_steps_by_hand_keep_the_class_too():
    model, x = backbone(), given(6, 64)
    plan = tsp.plan(model, "magnitude", target_params=0.8, data=x)
    small = tsp.least_squares(model, plan.apply(model), plan, x)
    assert type(small) is Backbone
    cut, solved = (
        np.abs(np.asarray(one(x)) - np.asarray(model(x))).mean()
        for one in (plan.apply(model), small)
    )
    assert solved < cut


def test_the_hidden_size_of_a_task_is_an_entry_of_its_config():
    task = Task(backbone(width=16), name="task")
    small = tsp.prune_hidden(task, 0.75, data=given(6, 64), method="select")
    assert type(small) is Task and small.backbone.sizes["width"] == 12


def test_steps_are_as_large_as_the_config_says():
    """One number, of which the first block has all and the others half."""
    model = backbone(half=True, num_layers=3)
    plan = tsp.plan(model, "magnitude", sparsity=0.25, scope="uniform", layers=".*/up")
    assert plan.units["block_0/up"] == (12, 8)  # steps of a sixth; 1.5 are two
    counts = [plan.units[f"block_{number}/up"][1] for number in range(3)]
    assert counts[0] == 2 * counts[1] == 2 * counts[2]
    assert type(plan.apply(model)) is Backbone
