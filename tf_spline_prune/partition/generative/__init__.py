"""Generators as splines: what a decoder's affine pieces say about what it makes.

A generator of piecewise-linear activations maps each region of its latent space
affinely onto a flat piece of a surface among its outputs. The slopes of the pieces
tell the surface's dimension, how it folds, how it stretches the latent space, and so
how densely it is covered. Where only slopes are needed, any activation may be in the
model; what needs regions asks for piecewise-linear ones.

Source: Balestriero, Paris and Baraniuk, "Max-Affine Spline Insights into Deep
Generative Networks", 2020, arXiv:2002.11912.
"""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
