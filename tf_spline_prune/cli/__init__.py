"""The command line: `tf-spline-prune`, or `python -m tf_spline_prune`.

One file a command. A command adds its arguments to a parser, checks what the parser
cannot, and gives an `Outcome`; only `entry` writes to stdout. Until the arguments are
known to be right, neither TensorFlow nor Keras is imported.
"""

from tf_spline_prune.cli._entry import main

__all__ = ["main"]
