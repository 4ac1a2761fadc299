"""The spline view of a network: codes, regions, distances, probes, slices."""

from tf_spline_prune._public_names import public_names

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
