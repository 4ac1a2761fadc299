"""Depth: which residual blocks a model has, what they are worth, and dropping them."""
