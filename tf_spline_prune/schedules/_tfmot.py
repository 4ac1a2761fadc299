"""TFMOT's own schedules, handed on."""

from tf_spline_prune.compat import import_tfmot

_theirs = import_tfmot().sparsity.keras
ConstantSparsity = _theirs.ConstantSparsity
"""TFMOT's own: one sparsity from `begin_step` on."""
PolynomialDecay = _theirs.PolynomialDecay
"""TFMOT's own: a polynomial from `initial_sparsity` to `final_sparsity`."""
