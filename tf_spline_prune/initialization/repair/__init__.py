"""Kernels that let a sparse network train."""
