"""What the commands find and write."""

import json
import pathlib
import zipfile

import numpy as np
import pytest
import zoo
from command_line import forward, listing

import tf_spline_prune as tsp

both_flavours = pytest.mark.both_flavours


def macs(model):
    return sum(int(np.prod(kernel.shape)) for kernel in model.get_weights()[::2])


def quadrant_net(K):
    L = K.layers
    net = K.Sequential(
        [
            K.Input((2,), name="point"),
            L.Dense(24, activation="relu", name="one"),
            L.Dense(16, activation="relu", name="two"),
            L.Dense(4, name="scores"),
        ]
    )
    return zoo.settle(net)


def test_inspect_counts_by_layer(saved, tool):
    code, found = tool.json("inspect", saved)
    assert code == 0
    assert found["cost"]["macs"] == 12 * 32 + 32 * 24 + 24 * 5
    assert [layer["macs"] for layer in found["layers"]] == [384, 768, 120]
    assert [layer["params"] for layer in found["layers"]] == [416, 792, 125]
    assert [layer["units"] for layer in found["layers"]] == [
        {"units": 32},
        {"units": 24},
        {"units": 5},
    ]
    may = [layer["prunable_units"]["units"] for layer in found["layers"]]
    assert may == [32, 24, 0]
    assert found["inputs"][0]["shape"] == [None, 12]
    assert found["outputs"] == [{"name": "head", "shape": [None, 5]}]
    (barrier,) = found["barriers"]
    assert barrier["layer"] == "head" and "output" in barrier["reason"]
    code, text = tool("inspect", saved)
    assert code == 0 and "1,272 MACs" in text and "Unprunable" in text


@both_flavours
def test_inspect_sees_zeros_and_masks(K, saved, tool, tmp_path):
    masked = tsp.prune_once(zoo.mlp(K), sparsity=0.75, scope="layer")
    if not tsp.weight_sparsity(masked)["total"]:
        pytest.fail("nothing was masked")
    masked.save(tmp_path / "masked.keras")
    code, found = tool.json("inspect", tmp_path / "masked.keras")
    assert code == 0 and found["masked"]
    assert [layer["zeros"] for layer in found["layers"]] == pytest.approx([0.75] * 3)
    assert not tool.json("inspect", saved)[1]["masked"]


@both_flavours
def test_inspect_tells_the_flavour(K, saved, tool):
    name = {"keras": "Keras 3", "tf_keras": "tf_keras"}[K.__name__]
    assert tool.json("inspect", saved)[1]["kind"] == name


def test_inspect_names_kinds_of_units(tool, tmp_path):
    import keras

    x = keras.Input((6, 16))
    y = keras.layers.MultiHeadAttention(4, 8, name="attention")(x, x)
    y = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(y))
    keras.Model(x, y).save(tmp_path / "model.keras")
    code, found = tool.json("inspect", tmp_path / "model.keras")
    (attention,) = (row for row in found["layers"] if row["layer"] == "attention")
    assert code == 0 and attention["units"]["heads"] == 4
    assert "4 heads" in tool("inspect", tmp_path / "model.keras")[1]


def test_inspect_reads_exports(model, tool, tmp_path):
    tsp.export_litert(model, tmp_path / "model.tflite")
    with zipfile.ZipFile(tmp_path / "model.tflite", "a") as packed:
        packed.writestr("labels.txt", "cat\ndog\n")
    served = tsp.export_saved_model(model, tmp_path / "served").path
    (served / "assets.extra").mkdir(exist_ok=True)
    (served / "assets.extra" / "requests").write_bytes(b"12345")
    code, found = tool.json("inspect", tmp_path / "model.tflite")
    assert code == 0 and found["kind"] == "LiteRT"
    assert found["bytes"] == (tmp_path / "model.tflite").stat().st_size
    assert found["metadata"]["labels.txt"] == "cat\ndog\n"
    (end,) = found["outputs"]
    assert end == {"name": "head", "shape": [None, 5], "dtype": "float32"}
    code, other = tool.json("inspect", served)
    assert code == 0 and other["kind"] == "SavedModel"
    assert other["outputs"] == [end] and other["inputs"] == found["inputs"]
    assert other["metadata"]["assets.extra/requests"] == "5 bytes"


def test_prune_does_what_the_library_does(K, model, saved, tool, tmp_path):
    out = tmp_path / "small.keras"
    code, found = tool.json("prune", saved, "--output", out, "--target-macs", "50%")
    assert code == 0 and found["verification"] < 1e-5
    small = K.models.load_model(out)
    assert macs(small) == found["plan"]["after"]["macs"] <= macs(model) // 2
    expected = tsp.prune(model, target_macs=0.5)
    for a, b in zip(small.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found["output"]["bytes"] == out.stat().st_size
    assert found["accuracy"] == {"before": None, "after": None}
    assert listing(tmp_path) == ["model.keras", "small.keras"]


@both_flavours
def test_prune_keeps_flavour_and_settings(K, model, tool, tmp_path):
    model.compile("sgd", "mse")
    model.save(tmp_path / "model.keras")
    code, _ = tool(
        *("prune", tmp_path / "model.keras", "--output", tmp_path / "small.keras"),
        *("--sparsity", "0.5", "--criterion", "magnitude", "--scope", "layer"),
        *("--layers", "first", "seco.*", "--round-to", "4", "--recover", "none"),
    )
    small = K.models.load_model(tmp_path / "small.keras")
    assert code == 0 and small.loss == "mse"
    assert [layer.units for layer in small.layers][-3:] == [16, 12, 5]


def test_a_stored_plan_gives_the_same_model(K, saved, tool, tmp_path):
    plan, one, two = (tmp_path / n for n in ("plan.json", "one.keras", "two.keras"))
    budget = ("--target-params", 700, "--criterion", "magnitude")
    dry = ("--dry-run", "--plan-out", plan)
    code, text = tool("prune", saved, *budget, *dry)
    assert code == 0 and "asked: at most 700" in text
    assert listing(tmp_path) == ["model.keras", "plan.json"]
    assert tool("prune", saved, *budget, "--output", one)[0] == 0
    assert tool("prune", saved, "--plan", plan, "--output", two)[0] == 0
    first, second = K.models.load_model(one), K.models.load_model(two)
    assert first.count_params() <= 700
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@both_flavours
def test_prune_with_data_measures_accuracy(K, quadrants, tool, tmp_path):
    net = quadrant_net(K)
    net.save(tmp_path / "net.keras")
    inputs, labels = next(iter(quadrants("x_quadrants", "test", 200, shuffle=True)))
    expected = np.mean(forward(net, inputs.numpy()).argmax(-1) == labels.numpy())
    out = tmp_path / "small.keras"
    code, found = tool.json(
        *("prune", tmp_path / "net.keras", "--output", out, "--target-macs", "0.5"),
        *("--data", "x_quadrants", "--split", "test", "--num-samples", "200"),
    )
    assert code == 0 and found["plan"]["criterion"] == "reconstruction"
    assert found["accuracy"]["before"] == pytest.approx(expected)
    small = K.models.load_model(out)
    after = np.mean(forward(small, inputs.numpy()).argmax(-1) == labels.numpy())
    assert found["accuracy"]["after"] == pytest.approx(after)
    assert macs(small) <= macs(net) // 2


@both_flavours
def test_export_and_compare_all_forms(K, model, saved, tool, tmp_path):
    code, found = tool.json("export", saved, "--litert", tmp_path / "m.tflite")
    assert code == 0 and found["bytes"] == (tmp_path / "m.tflite").stat().st_size
    served = tmp_path / "served"
    code, found = tool.json("export", saved, "--saved-model", served, "--version", 0)
    assert code == 0 and found["path"] == str(served / "0")
    for other in (tmp_path / "m.tflite", served / "0", saved):
        code, found = tool.json("compare", other, saved, "--num-samples", 40)
        assert code == 0 and found["max_difference"] < 1e-5
        assert found["outputs"]["head"]["same_argmax"] == 1.0
        assert found["num_inputs"] == 40 and found["b"]["kind"] != "LiteRT"
        has_latency = other != served / "0"
        assert (found["a"]["latency_us"] is not None) == has_latency


@pytest.mark.usefixtures("unconverted")
def test_compare_measures_the_difference(K, model, saved, tool, tmp_path):
    """Outputs half as large again differ by 0.5; negated ones by 2."""
    for factor, difference in ((1.5, 0.5), (-1.0, 2.0)):
        *rest, kernel, bias = zoo.mlp(K).get_weights()
        model.set_weights([*rest, factor * kernel, factor * bias])
        model.save(tmp_path / "other.keras")
        code, found = tool.json("compare", tmp_path / "other.keras", saved)
        assert code == 1 and not found["within_tolerance"]
        assert found["max_difference"] == pytest.approx(difference, rel=1e-5)
        assert found["outputs"]["head"]["same_argmax"] == float(factor > 0)
    code, text = tool(
        "compare", tmp_path / "other.keras", saved, "--tolerance", 2.1, "--seed", 3
    )
    assert code == 0 and "within the tolerance" in text


@pytest.mark.usefixtures("unconverted")
def test_compare_fills_batches_of_a_fixed_size(K, tool, tmp_path):
    for size in (None, 4):
        x = K.Input((12,), batch_size=size, name="x")
        net = K.Model(x, K.layers.Dense(3, name="y")(x))
        zoo.settle(net).save(tmp_path / f"{size}.keras")
    code, found = tool.json(
        "compare", tmp_path / "4.keras", tmp_path / "None.keras", "--num-samples", 10
    )
    assert code == 0 and found["num_inputs"] == 10
    assert found["max_difference"] < 1e-6


@pytest.mark.usefixtures("unconverted")
def test_decisions_are_those_of_each_input(K, quadrants, tool, tmp_path):
    net = quadrant_net(K)
    batches = quadrants("x_quadrants", "train").as_numpy_iterator()
    points = np.concatenate([x for x, _ in batches])
    before = np.asarray(net(points)).argmax(axis=1)
    net.save(tmp_path / "net.keras")
    *rest, kernel, bias = net.get_weights()
    net.set_weights([*rest, kernel * [1, 1, 1, 0], bias])
    net.save(tmp_path / "other.keras")
    same = (np.asarray(net(points)).argmax(axis=1) == before).mean()
    _, found = tool.json(
        *("compare", tmp_path / "net.keras", tmp_path / "other.keras"),
        *("--data", "x_quadrants", "--num-samples", len(points)),
    )
    assert found["num_inputs"] == len(points) == 1600 and 0.1 < same < 0.9
    assert found["outputs"]["scores"]["same_argmax"] == pytest.approx(same, abs=2e-3)


@pytest.mark.usefixtures("unconverted")
def test_compare_on_data(K, quadrants, saved, tool, tmp_path):
    quadrant_net(K).save(tmp_path / "net.keras")
    pair = (tmp_path / "net.keras", tmp_path / "net.keras")
    code, found = tool.json("compare", *pair, "--data", "x_quadrants")
    assert code == 0 and found["inputs"] == "x_quadrants"
    assert found["max_difference"] == 0.0
    code, found = tool.json("compare", saved, saved, "--data", "x_quadrants")
    assert code == 2 and "does not fit" in found["error"]
    code, found = tool.json("compare", tmp_path / "net.keras", saved)
    assert code == 2 and "different shapes" in found["error"]


@both_flavours
def test_report(K, model, saved, tool, tmp_path):
    tsp.prune(model, target_macs=0.5).save(tmp_path / "small.keras")
    code, found = tool.json("report", saved, tmp_path / "small.keras")
    assert code == 0 and found["before"]["macs"] == macs(model)
    assert found["after"]["macs"] <= macs(model) // 2
    code, text = tool("report", saved, tmp_path / "small.keras")
    assert code == 0 and "MACs" in text


def test_export_hands_on_what_was_asked(saved, tool, tmp_path, monkeypatch):
    """Only that: what the user leaves out, the library chooses."""
    calls = []

    def record(model, place, **keywords):
        calls.append((str(place), keywords))
        return tsp.ExportReport(pathlib.Path(place), 1, 1, 0.0)

    monkeypatch.setattr(tsp, "export_litert", record)
    monkeypatch.setattr(tsp, "export_saved_model", record)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    file = str(tmp_path / "model.tflite")
    asked = ("--litert", file, "--quantize", "dynamic", "--sparse")
    assert tool("export", saved, *asked)[0] == 0
    asked = ("--saved-model", "served", "--labels", tmp_path / "labels.txt")
    assert tool("export", saved, *asked, "--warmup", 3)[0] == 0
    assert calls == [
        (file, {"quantize": "dynamic", "sparse": True}),
        ("served", {"labels": ["cat", "dog"], "warmup": 3}),
    ]


def test_integers_are_calibrated_on_data(K, tool, quadrants, tmp_path):
    model, plan = tmp_path / "net.keras", tmp_path / "plan.json"
    quadrant_net(K).save(model)
    data = ("--data", "x_quadrants", "--num-samples", 128)
    small = tmp_path / "small.keras"
    budget = ("--target-macs", 0.5, "--plan-out", plan)
    assert tool("prune", model, "--output", small, *budget, *data)[0] == 0
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\n")
    file = tmp_path / "m.tflite"
    asked = ("--quantize", "int8", "--integer-io", "--tolerance", 0.3)
    also = ("--labels", tmp_path / "labels.txt", "--plan", plan)
    code, found = tool.json("export", small, "--litert", file, *asked, *also, *data)
    assert code == 0 and found["quantize"] == "int8"
    (end,) = tsp.litert.Runner(file).input_specs.values()
    assert end[1] == "int8"
    _, inspected = tool.json("inspect", file)
    assert inspected["metadata"]["labels.txt"] == "a\nb\nc\nd\n"
    known = json.loads(inspected["metadata"]["metadata.json"])
    assert known["plan"] == json.loads(json.dumps(tsp.PruningPlan.load(plan).to_dict()))
    page = tmp_path / "page.html"
    code, report = tool.json("report", model, small, "--html", page)
    assert code == 0 and f'<data value="{report["after"]["macs"]}">' in page.read_text()
    onnx = tmp_path / "small.onnx"
    code, found = tool.json("export", small, "--onnx", onnx)
    assert code == 0 and found["max_difference"] < 1e-5 and onnx.exists()


@both_flavours
def test_masks_are_stripped(K, tool, tmp_path):
    masked = tsp.prune_once(zoo.mlp(K), sparsity=0.5)
    masked.save(tmp_path / "masked.keras")
    out = tmp_path / "small.keras"
    code, _ = tool(
        "prune", tmp_path / "masked.keras", "--output", out, "--sparsity", 0.25
    )
    assert code == 0 and "masks" in tool.err
    assert type(K.models.load_model(out).layers[-1]) is K.layers.Dense


@both_flavours
def test_own_layers_come_by_import(K, tool, tmp_path):
    (tmp_path / "own_layers.py").write_text(
        f"import {K.__name__}\n"
        f"class Twice({K.__name__}.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )

    class Twice(K.layers.Layer):
        def call(self, x):
            return 2 * x

    x = K.Input((4,))
    K.Model(x, K.layers.Dense(2)(Twice()(x))).save(tmp_path / "own.keras")
    code, found = tool.json("inspect", tmp_path / "own.keras")
    assert code == 2 and "'Twice'" in found["error"]
    source = tmp_path / "own_layers.py"
    code, found = tool.json("inspect", tmp_path / "own.keras", "--import", source)
    assert code == 0 and json.dumps(found)


@pytest.mark.usefixtures("unconverted")
def test_compare_matches_several_ends_by_name(K, tool, tmp_path):
    """Integers go in beside floats, and what answers has its outputs in any order."""
    L = K.layers
    a, b = K.Input((3,), name="a"), K.Input((5,), dtype="int32", name="b")
    y = L.Concatenate()([L.Dense(4)(a), L.Flatten()(L.Embedding(2, 3)(b))])
    ends = [L.Dense(2, name="v")(y), L.Dense(1, name="u")(y)]
    net = zoo.settle(K.Model([a, b], ends))
    net.save(tmp_path / "net.keras")
    served = tsp.export_saved_model(net, tmp_path / "served").path
    code, found = tool.json("compare", served, tmp_path / "net.keras")
    assert code == 0 and set(found["outputs"]) == {"u", "v"}
    assert found["outputs"]["v"]["same_argmax"] == 1.0
    assert found["outputs"]["u"]["same_argmax"] is None
    zoo.mlp(K).save(tmp_path / "other.keras")
    code, found = tool.json("compare", tmp_path / "other.keras", served)
    assert code == 2 and "have other inputs" in found["error"]


@pytest.mark.usefixtures("unconverted")
def test_nan_is_no_agreement(K, model, saved, tool, tmp_path):
    *rest, bias = model.get_weights()
    model.set_weights([*rest, np.full_like(bias, 3e38)])
    x = K.Input((12,), name="x")
    K.Model(x, 2 * model(x)).save(tmp_path / "over.keras")
    code, found = tool.json("compare", saved, tmp_path / "over.keras")
    assert code == 1 and found["max_difference"] is None
