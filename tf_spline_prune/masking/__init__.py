"""Masks: which weights stay, and the layers that hold the others at zero."""
