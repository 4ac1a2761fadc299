"""Help, wrong input, exit codes, and that nothing is lost or left half-written."""

import json
import os
import subprocess
import sys

import keras
import pytest
import zoo
from command_line import listing

import tf_spline_prune as tsp
from tf_spline_prune.cli import (
    _pruning_command as pruning_command,
    _slice_command as slice_command,
    main,
)
from tf_spline_prune.criteria import _get as finding

COMMANDS = ("inspect", "prune", "export", "compare", "report")
# A command, and what the error says. M is a model, N is nothing, O an existing file.
WRONG = {
    "no command": ("", "required: COMMAND"),
    "unknown command": ("prun M", "invalid choice"),
    "unknown option": ("inspect M --bogus", "--bogus"),
    "abbreviated option": ("inspect M --trace", "--trace"),
    "no model": ("inspect N", "no such file"),
    "no budget": ("prune M --output new.keras", "is required"),
    "two budgets": ("prune M --sparsity .5 --target-macs .5", "not allowed with"),
    "no output": ("prune M --sparsity .5", "--output FILE, or --dry-run"),
    "two outputs": ("prune M --sparsity .5 --output a.keras --dry-run", "not both"),
    "no number": ("prune M --target-macs half --dry-run", "a fraction ('0.5'"),
    "not finite": ("prune M --target-macs nan --dry-run", "a fraction ('0.5'"),
    "over 100%": ("prune M --target-macs 120% --dry-run", "fraction to keep"),
    "zero": ("prune M --target-params 0 --dry-run", "fraction to keep"),
    "all": ("prune M --sparsity 100% --dry-run", "fraction of the units to prune"),
    "wrong ending": ("prune M --sparsity .5 --output a.txt", "must end in .keras"),
    "weights": ("prune M --sparsity .5 --output a.weights.h5", "must end in .keras"),
    "taken": ("prune M --sparsity .5 --output O", "exists already"),
    "under a file": ("prune M --sparsity .5 --output O/a.keras", "cannot be written"),
    "plan taken": ("prune M --sparsity .5 --dry-run --plan-out P", "exists already"),
    "plan and more": ("prune M --plan P --scope layer --dry-run", "without --scope"),
    "no plan": ("prune M --plan N --dry-run", "no such file"),
    "criterion": ("prune M --sparsity .5 --criterion best --dry-run", "invalid choice"),
    "blind": ("prune M --sparsity .5 --recover batchnorm --dry-run", "give --data"),
    "two recoveries": ("prune M --sparsity .5 --recover none merge", "not both|alone"),
    "split alone": ("prune M --sparsity .5 --dry-run --split test", "give --data"),
    "no samples": ("compare M M --num-samples 0", "whole number from 1 on"),
    "tolerance": ("compare M M --tolerance -1", "from 0 on"),
    "no format": ("export M", "is required"),
    "two formats": ("export M --litert a.tflite --saved-model b", "not allowed with"),
    "file's ending": ("export M --litert a.bin", "must end in .tflite"),
    "other format": ("export M --saved-model b --sparse", "--sparse"),
    "other format too": ("export M --litert a.tflite --version 2", "--version"),
    "int8 alone": ("export M --litert a.tflite --quantize int8", "needs --data"),
    "quantize": ("export M --litert a.tflite --quantize int4", "invalid choice"),
    "no labels": ("export M --saved-model b --labels N", "no such file"),
    "page": ("report M M --html a.txt", "must end in .html"),
    "no anchors": ("slice M", "--anchors"),
    "anchors not there": ("slice M --anchors N", "no such file"),
    "extent": ("slice M --anchors P --extent 1 -1", "the smaller first"),
    "endless": ("slice M --anchors P --extent 0 inf", "two finite numbers"),
    "picture": ("slice M --anchors P --picture a.txt", "must end in .png"),
    "fill": ("slice M --anchors P --picture a.png --fill red", "invalid choice"),
    "fill alone": ("slice M --anchors P --fill area", "give --picture"),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Give paths for the letters of `WRONG`, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"never read")
    (tmp_path / "old.keras").write_bytes(b"mine")
    (tmp_path / "plan.json").write_text("{}")
    return {"M": "model.keras", "N": "none.keras", "O": "old.keras", "P": "plan.json"}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_told_before_any_work(case, files, tool, tmp_path):
    command, message = WRONG[case]
    arguments = [files.get(a, a.replace("O/", "old.keras/")) for a in command.split()]
    before = listing(tmp_path)
    code, found = tool.json(*arguments)
    assert code == 2 and set(found) == {"error", "kind"}
    assert any(part in found["error"] for part in message.split("|"))
    code, out = tool(*arguments)
    assert code == 2 and not out
    assert tool.err.startswith("tf-spline-prune: error: ")
    assert tool.err.count("\n") == 1 and "Traceback" not in tool.err
    assert listing(tmp_path) == before
    assert (tmp_path / "old.keras").read_bytes() == b"mine"


def test_wrong_input_is_told(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zoo.mlp(keras).save("model.keras")
    zoo.vgg(keras).save("vgg.keras")
    (tmp_path / "broken.tflite").write_bytes(b"nothing of the kind")
    (tmp_path / "broken.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "gap.txt").write_text("cat\n\ndog\n")
    (tmp_path / "plan.json").write_text('{"format": 1}')
    (tmp_path / "bad.py").write_text("1 / 0")
    before = listing(tmp_path)
    export = ("export", "model.keras", "--saved-model", "served")
    for arguments, kind, message in (
        (("inspect", "broken.tflite"), "ModelError", "LiteRT cannot read"),
        (("prune", "broken.tflite", "--sparsity", ".5"), "UsageError", "--output"),
        (("compare", "model.keras", "vgg.keras"), "ModelError", "different shapes"),
        ((*export, "--labels", "gap.txt"), "UsageError", "on every line"),
        ((*export, "--labels", "broken.txt"), "UsageError", "broken.txt"),
        (("inspect", "model.keras", "--import", "bad.py"), "ImportError", "ZeroDiv"),
        (("inspect", "model.keras", "--import", "no.such"), "ImportError", "no.such"),
    ):
        code, found = tool.json(*arguments)
        assert code == 2 and found["kind"] == kind, found
        assert message in found["error"]
    prune = ("prune", "model.keras", "--output", "small.keras")
    for arguments, kind, message in (
        (("--plan", "plan.json"), "PlanError", "of the plan must be there"),
        (("--target-macs", "9999999"), "BudgetError", "above what the model has"),
        (("--sparsity", ".5", "--data", "no_such_set"), "ValueError", "no data set"),
        (("--sparsity", ".5", "--criterion", "taylor"), "CalibrationError", "data"),
        (("--sparsity", ".5", "--layers", "nope"), "ValueError", "nope"),
    ):
        code, found = tool.json(*prune, *arguments)
        assert code == 2 and found["kind"] == kind, found
        assert message in found["error"]
    assert listing(tmp_path) == before


def test_overwrite_replaces(K, saved, tool, tmp_path):
    out = tmp_path / "small.h5"
    out.write_bytes(b"mine")
    command = ("prune", saved, "--output", out, "--sparsity", "0.5")
    assert tool(*command)[0] == 2 and out.read_bytes() == b"mine"
    assert tool(*command, "--overwrite")[0] == 0
    assert K.models.load_model(out).count_params() < 1333


def test_an_interrupt_leaves_nothing_half_written(
    K, saved, tool, tmp_path, monkeypatch
):
    def half(self, path, *args, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(K.Model, "save", half)
    command = ("prune", saved, "--output", tmp_path / "a.keras", "--sparsity", "0.5")
    code, found = tool.json(*command)
    assert code == 130 and found["kind"] == "KeyboardInterrupt"
    assert listing(tmp_path) == ["model.keras"]


def test_a_failed_verification_is_1(saved, tool, tmp_path, monkeypatch):
    from tf_spline_prune.pruning.checks import _verify as verification

    apart = verification.Verdict(error=0.5, excess=2.0)
    monkeypatch.setattr(verification.Comparison, "verdict", lambda self: apart)
    command = ("prune", saved, "--output", tmp_path / "a.keras", "--sparsity", "0.5")
    code, found = tool.json(*command)
    assert code == 1 and found["kind"] == "VerificationError"
    code, _ = tool(*command, "--traceback")
    assert code == 1 and "Traceback (most recent call last)" in tool.err
    assert listing(tmp_path) == ["model.keras"]


def test_what_is_not_foreseen_is_named(saved, tool, monkeypatch):
    monkeypatch.setattr(tsp, "ChannelGraph", {}.__getitem__)
    code, found = tool.json("inspect", saved)
    assert code == 1 and found["kind"] == "KeyError"
    assert found["error"].startswith("KeyError: ")


def test_warnings_are_short_lines(saved, tool):
    code, found = tool.json("prune", saved, "--target-macs", "100%", "--dry-run")
    assert code == 0 and found["plan"]["after"] == found["plan"]["before"]
    lines = [line for line in tool.err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 1 and "Nothing is pruned" in lines[0]


@pytest.mark.parametrize("command", (*COMMANDS, "slice"))
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert not left.value.code and "%%" not in text
    assert text.count(f"  tf-spline-prune {command} ") == 2
    assert text.count("\n  # ") == 2 and "--json" in text


def test_the_top_level_shows_the_path(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in text and f"\n  tf-spline-prune {command} " in text
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tf-spline-prune {tsp.__version__}\n"


def test_the_choices_are_those_of_the_library():
    from typing import get_args

    from tf_spline_prune.pruning import _prune as pipeline
    from tf_spline_prune.pruning.planning import _scopes as scopes
    from tf_spline_prune.visualize import _plot_slice as slice_contents

    assert set(pruning_command.CRITERIA) == {"auto", *finding.BY_NAME}
    assert pruning_command.SCOPES == get_args(scopes.NamedScope)
    assert pruning_command.STEPS == pipeline._STEPS
    assert slice_command.FILLS == get_args(slice_contents.Filling)


def fresh(*arguments, **environment):
    """Run Python in a fresh process, without a log level of TensorFlow's."""
    variables = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**variables, **environment},
    )


def test_help_and_usage_errors_import_no_framework():
    done = fresh(
        "-c",
        "import sys\n"
        "from tf_spline_prune.cli import main\n"
        "for arguments in (['--help'], ['--version'], ['prune', '--help']):\n"
        "    try:\n"
        "        main(arguments)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "codes = [main(['prune', 'none.keras']), main(['inspect', 'none.keras'])]\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'numpy', 'h5py'}\n"
        "sys.exit(f'{codes} {heavy & set(sys.modules)}')\n",
    )
    assert done.stderr.splitlines()[-1] == "[2, 2] set()"


def test_a_process_of_its_own_is_quiet(tmp_path):
    """Neither TensorFlow's start nor its converter is heard; Python's voices are."""
    model = tmp_path / "model.keras"
    zoo.mlp(keras).save(model)
    (tmp_path / "chatty.py").write_text("print('said while loading')")
    command = ("-m", "tf_spline_prune", "compare", model, model, "--json")
    done = fresh(*command, "--import", tmp_path / "chatty.py")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["max_difference"] == 0 and found["a"]["latency_us"] > 0
    assert done.stderr == "said while loading\n"


def test_an_interrupt_from_outside_is_130(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"never read")
    (tmp_path / "stop.py").write_text(
        "import os, signal, time\n"
        # What starts the tests in the background may have it ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(60)\n"
    )
    command = ("-m", "tf_spline_prune", "inspect", tmp_path / "model.keras")
    done = fresh(*command, "--import", tmp_path / "stop.py", "--json")
    assert done.returncode == 130
    assert json.loads(done.stdout)["kind"] == "KeyboardInterrupt"
