"""The shell: the range of data, words of its own, and no noise where nobody looks."""

import time

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.cli import main
from tf_spline_prune.compat import Progress, Stages
from tf_spline_prune.partition.slices import _slice2d as slicing


@pytest.fixture
def shell(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def digits(tmp_path):
    """Give the path of a classifier of digits whose pixels are 0 to 255."""
    import keras

    keras.utils.set_random_seed(0)
    L = keras.layers
    model = keras.Sequential(
        [
            *(keras.Input((8, 8, 1)), L.Rescaling(1 / 255), L.Flatten()),
            *(L.Dense(24, activation="relu"), L.Dense(10)),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    data = tsp.datasets.load("optical_digits", "train", scale=255)
    model.fit(data, epochs=4, verbose=0, shuffle=False)
    model.save(tmp_path / "digits.keras")
    return tmp_path / "digits.keras"


@pytest.mark.slow
def test_images_of_0_to_1_for_a_model_of_0_to_255(shell, digits, tmp_path):
    """The reported one: an int8 file with 9.5 % accuracy, and not a word."""
    small, file = tmp_path / "small.keras", tmp_path / "a.tflite"
    data = ("--data", "optical_digits", "--num-samples", 128)
    prune = ("prune", digits, "--output", small, "--sparsity", "25%", "--overwrite")
    export = ("export", small, "--litert", file, "--quantize", "int8", "--overwrite")
    compare = ("compare", file, small, "--tolerance", 9)
    report = ("report", digits, small)
    for command in (prune, export, compare, report):
        code, _, err = shell(*command, *data)
        assert code == 0
        assert err.count("about 0 to 255") == 1 and "--scale 255" in err, command
        assert "`" not in err.split("Give inputs")[1].replace("`--scale 255`", "")
        code, out, err = shell(*command, *data, "--scale", 255)
        assert code == 0 and "warning" not in err, (command, err)
        if command is prune:
            before = float(out.split("accuracy: ")[1].split("%")[0])
            assert before > 80


def test_two_models_that_guess_are_no_success(shell, tmp_path):
    import keras

    model = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    model.set_weights([np.zeros((64, 10)), np.arange(10)])
    model.save(tmp_path / "blind.keras")
    blind = tmp_path / "blind.keras"
    code, out, err = shell("compare", blind, blind, "--data", "optical_digits")
    assert code == 0 and "100.0% of the decisions the same" in out
    assert "no better than chance" in err


def test_scales_that_are_none(shell, digits):
    command = ("report", digits, digits, "--data", "x")
    for wrong in ("256..0", "abc", "nan", "0..inf", "..", ""):
        code, _, err = shell(*command, f"--scale={wrong}")
        assert code == 2 and "--scale" in err and "Received" in err, wrong
    code, _, err = shell("report", digits, digits, "--scale", 255)
    assert code == 2 and "--data NAME" in err


def test_random_inputs_prove_little(shell, digits):
    code, out, _ = shell("compare", digits, digits)
    assert code == 0 and "random inputs prove little" in out


def test_errors_and_warnings_speak_of_options(shell, tmp_path):
    import keras

    model = zoo.mlp(keras)
    path = tmp_path / "model.keras"
    model.save(path)
    prune = ("prune", path, "--dry-run")
    code, _, err = shell(*prune, "--target-macs", 10, "--min-units", 20)
    assert code == 2 and "--min-units" in err and "--max-sparsity" in err
    assert "--target-macs 10" in err
    for option, words in (
        (("--target-macs", 10**9), "--target-macs 1,000,000,000"),
        (("--sparsity", "25%", "--layers", "nobody"), "--layers"),
        (("--sparsity", "95%", "--max-sparsity", "50%"), "--max-sparsity"),
    ):
        code, _, err = shell(*prune, *option)
        assert code == 2 and words in err
        assert not any(w in err for w in ("target_macs", "`layers`", "max_sparsity"))
    code, _, err = shell(*prune, "--sparsity", "1%", "--round-to", 8)
    assert code == 0 and "--round-to 8" in err and "round_to" not in err
    np.save(tmp_path / "three.npy", np.random.default_rng(0).normal(size=(3, 12)))
    cut = ("slice", path, "--anchors", tmp_path / "three.npy", "--extent", -9, 9)
    code, _, err = shell(*cut, "--max-regions", 3)
    assert code == 2 and "--extent" in err and "--max-regions" in err
    assert "`--partial`" in err and "max_regions" not in err


def test_no_bars_outside_terminals(capsys, monkeypatch):
    """27 kB of bars stood in a log."""
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    progress = Progress(100, "layer")
    for _ in range(100):
        progress.step()
    assert capsys.readouterr() == ("", "")
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = Progress(10, "layer")
    for _ in range(10):
        progress.step()
    assert "10/10" in capsys.readouterr().out


def test_one_bar_for_one_call(capsys, monkeypatch):
    """`prune` showed a bar of layers for each model that it built."""
    import sys

    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    stages = Stages(4, "pruning")
    seen = []
    for _ in range(4):
        with stages.stage():
            inner = Progress(10, "layer")
            for _ in range(10):
                inner.step()
            seen.append(stages._done)
    assert seen == [25, 50, 75, 100]
    shown = capsys.readouterr().out
    assert "100/100" in shown and "/10 " not in shown
    own = Progress(10, "layer")
    for _ in range(10):
        own.step()
    assert "10/10" in capsys.readouterr().out


def test_a_slice_of_minutes_says_so_first(K, capsys, monkeypatch):
    model = zoo.mlp(K)
    anchors = np.random.default_rng(0).normal(size=(3, 12))
    tsp.slice2d(model, anchors, (-3, 3))
    assert capsys.readouterr().out == ""  # a second of work
    monkeypatch.setattr(slicing, "_SOON", 0.0)
    monkeypatch.setattr(slicing, "_LONG", 0.0)
    exact = tsp.slice2d(model, anchors, (-3, 3)).num_regions
    said = capsys.readouterr().out
    if said:  # a lot was complete before the last one
        assert "max_regions" in said and said.count("The slice takes") == 1
    monkeypatch.undo()
    slicing._say_how_long(0.001, 500, 0.002, 4.0, 10**6)
    said = capsys.readouterr().out
    # 4 s for a thousandth of the work are 67 minutes; 500 of 0.2 % are 250,000.
    assert "about 67 minutes" in said and "about 200,000 regions" in said
    slicing._say_how_long(1e-6, 500, 1e-6, 4.0, 10**6)
    said = capsys.readouterr().out
    # Ends at a million regions, 2,000 times as far.
    assert "about 133 minutes" in said or "about 2 h" in said
    assert "1,000,000 (max_regions) are the most" in said
    slicing._say_how_long(0.2, 500, 0.2, 4.0, 10**6)
    assert capsys.readouterr().out == "" and exact > 1
