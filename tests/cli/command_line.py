"""Running the command line in this process."""

import json

import numpy as np

from tf_spline_prune.cli import main


class CommandLine:
    """Runs commands, and keeps what they wrote."""

    def __init__(self, capsys):
        self._capsys = capsys
        self.err = ""

    def __call__(self, *arguments):
        """Run one command; give its exit code and what it wrote to stdout."""
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        written = self._capsys.readouterr()
        self.err = written.err
        return code, written.out

    def json(self, *arguments):
        """Run one command with `--json`; give its exit code and the object."""
        code, out = self(*arguments, "--json")
        return code, json.loads(out)


def forward(model, x):
    """Compute a chain of Dense layers by hand, ReLU between them, in float64."""
    weights = [np.asarray(w, "float64") for w in model.get_weights()]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    return x @ weights[-2] + weights[-1]


def listing(folder):
    """List all that is in a folder, hidden names included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
