"""Inputs of a model: given by a user, or drawn."""
