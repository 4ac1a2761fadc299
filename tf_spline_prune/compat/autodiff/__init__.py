"""Derivatives on every backend."""
