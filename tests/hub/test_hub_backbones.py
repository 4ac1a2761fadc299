"""Small models of KerasHub, pruned to half of their neurons, heads or channels.

Next to each stands the model as it was, in which the weights that read a pruned unit
are zero: written here by hand, from names that KerasHub gives.
"""

import re

import keras
import numpy as np
import pytest

import tf_spline_prune as tsp

hub = pytest.importorskip("keras_hub", reason="the extra [hub] is not installed")

LENGTH, VOCABULARY, WIDTH = 6, 20, 16
BERT_LIKE = {"num_layers": 2, "hidden_dim": WIDTH, "intermediate_dim": 24}
GPT_LIKE = {**BERT_LIKE, "vocabulary_size": VOCABULARY}
GROUPED = {"num_query_heads": 4, "num_key_value_heads": 2}
RESNET = {
    "input_conv_filters": [64],  # as the first stage, where 64 is a must
    "input_conv_kernel_sizes": [3],
    "stackwise_num_filters": [64, 16],
    "stackwise_num_blocks": [1, 1],
    "stackwise_num_strides": [1, 2],
    "block_type": "basic_block",
    "image_shape": (16, 16, 3),
}
# Per class its arguments; what of its units may go; by names of layers that hold units
# the weight that reads them, and its axis; and the entries of its config that halve.
CASES = {
    "Bert": (
        {**GPT_LIKE, "num_heads": 4, "max_sequence_length": LENGTH},
        None,
        {"feedforward_intermediate_dense": ("feedforward_output_dense/kernel", 0)},
        ["intermediate_dim"],
    ),
    "GPT2": (
        {**GPT_LIKE, "num_heads": 4, "max_sequence_length": LENGTH},
        None,
        {"feedforward_intermediate_dense": ("feedforward_output_dense/kernel", 0)},
        ["intermediate_dim"],
    ),
    "Llama": (
        {**GPT_LIKE, **GROUPED},
        None,
        {"feedforward_gate_dense": ("feedforward_output_dense/kernel", 0)},
        ["intermediate_dim"],
    ),
    "Gemma": (
        {**GPT_LIKE, **GROUPED, "head_dim": 4},
        None,
        {
            "ffw_gating": ("ffw_linear/kernel", 0),
            "query/n": ("attention/attention_output/kernel", 0),
        },
        ["intermediate_dim", "num_query_heads", "num_key_value_heads"],
    ),
    "ViT": (
        {
            **{"num_layers": 2, "num_heads": 4, "hidden_dim": WIDTH, "mlp_dim": 24},
            **{"image_shape": (16, 16, 3), "patch_size": 8},
        },
        ".*/mlp/.*",
        {"dense_1": ("dense_2/kernel", 0)},
        ["mlp_dim"],
    ),
    "ResNet": (
        RESNET,
        ".*_1_conv",
        {"_1_conv": ("_2_conv/kernel", 2)},
        [],  # one number says the channels inside of a block and behind it
    ),
}


def build(name):
    """A model in which no weight is zero or one."""
    model = getattr(hub.models, f"{name}Backbone")(**CASES[name][0])
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.name else (-0.4, 0.4)
        weight.assign(rng.uniform(low, high, weight.shape))
    return model


def draw(model):
    """Draw inputs by name: pictures, or words without padding."""
    rng = np.random.default_rng(1)
    if not isinstance(model.input, dict):
        return rng.normal(size=(4, *model.input_shape[1:])).astype("float32")
    given = {"token_ids": rng.integers(0, VOCABULARY, (4, LENGTH)).astype("int32")}
    ones = np.ones((4, LENGTH), "int32")
    others = {"padding_mask": ones, "segment_ids": 0 * ones}
    return given | {k: v for k, v in others.items() if k in model.input}


def answers(model, given):
    outputs = keras.tree.flatten(model(given, training=False))
    return [keras.ops.convert_to_numpy(output) for output in outputs]


def mask(model, removed, readers):
    """Zero the weights that read the pruned units; return how many units these are."""
    weights = {weight.path: weight for weight in model.weights}
    count = 0
    for path, units in removed.items():
        for name, (reader, axis) in readers.items():
            if not path.endswith(name):
                continue
            block = re.search(r"(stack\d+_)?(block|layer)_?\d+", path).group()
            (found,) = [
                weight
                for its, weight in weights.items()
                if its.endswith(reader) and block in its
            ]
            value = np.moveaxis(keras.ops.convert_to_numpy(found).copy(), axis, 0)
            assert value[list(units)].any()
            value[list(units)] = 0
            found.assign(np.moveaxis(value, 0, axis))
            count += len(units)
    return count


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("GPT2", "Llama")))
        for name in CASES
    ],
)
def test_backbones_are_pruned_verified_saved_and_loaded(name, tmp_path):
    _, layers, readers, halved = CASES[name]
    model = build(name)
    given = draw(model)
    before = answers(model, given)
    shapes = None
    if isinstance(given, dict):
        shapes = {key: value.shape[1:] for key, value in given.items()}
    plan = tsp.plan(
        model,
        "magnitude",
        sparsity=0.5,
        scope="uniform",
        layers=layers,
        input_shapes=shapes,
    )
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-5
    assert small.count_params() < model.count_params()
    assert all(map(np.array_equal, answers(model, given), before))  # untouched

    if halved:
        assert type(small) is type(model)
        was, now = model.get_config(), small.get_config()
        assert all(now[key] == was[key] // 2 for key in halved)

    # The weights that read what is gone are zero in the big one: the same answers.
    assert mask(model, plan.removed, readers) > 0
    masked, found = answers(model, given), answers(small, given)
    for one, other, first in zip(masked, found, before, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * np.abs(one).max())
        assert np.abs(one - first).max() > 1e-3 * np.abs(one).max()

    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    assert type(loaded) is type(small)
    for one, other in zip(found, answers(loaded, given), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_task_stays_a_task_and_writes(tmp_path):
    model = hub.models.GemmaCausalLM(backbone=build("Gemma"), preprocessor=None)
    given = draw(model)
    small = tsp.prune(model, sparsity=0.5, scope="uniform", data=given)
    assert type(small) is type(model)
    assert small.backbone.num_query_heads == 2

    # It writes what its own answers, without a cache, say.
    known = 2
    given["padding_mask"] = np.arange(LENGTH) < known + np.zeros((4, 1), int)
    small.compile(sampler="greedy", jit_compile=False)
    written = small.generate(given, stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(written[:, :known], given["token_ids"][:, :known])
    ones = np.ones_like(written)
    scores = small({"token_ids": written, "padding_mask": ones}, training=False)
    best = keras.ops.convert_to_numpy(keras.ops.argmax(scores, axis=-1))
    np.testing.assert_array_equal(written[:, known:], best[:, known - 1 : -1])

    # And it is a preset like any other.
    small.save_to_preset(str(tmp_path / "preset"))
    loaded = type(model).from_preset(str(tmp_path / "preset"))
    again = {"token_ids": written, "padding_mask": ones}
    for one, other in zip(answers(loaded, again), answers(small, again), strict=True):
        np.testing.assert_array_equal(one, other)
