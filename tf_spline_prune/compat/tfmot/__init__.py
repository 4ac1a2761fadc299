"""Masks of Keras 3's layers and of TFMOT's wrappers, as one thing."""
