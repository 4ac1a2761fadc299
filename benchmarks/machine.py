"""What a benchmark was run on, for the files that keep its results."""

import importlib.metadata
import os
import platform

import keras


def machine():
    """Describe what it was run on."""
    packages = ("keras", "tensorflow", "jax", "numpy")
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        **found,
    }
